# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recommendation asks of the cluster, over the Protocol ``Cluster``: the workload, its room, its routes, who could route.

A dozen direct requests, none of them needed but the first: what may not be read is None, and named under ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .errors import Forbidden, NotFound
from .model import Cluster, Manifest, Query, Ref, metadata
from .plan.capacity import per_pod, room_in_quotas, room_on_nodes
from .plan.rollout import is_terminating, label_query
from .plan.strategy import wanted_pods
from .plan.workload import is_autoscaler_of
from .routes.ingress import backends
from .waiting import require

# Pods that have ended hold no room; asking for the others alone saves most of the answer where many jobs run.
RUNNING = "status.phase!=Succeeded,status.phase!=Failed"

T = TypeVar("T")


class Survey:
    """One look at a workload; ``unknown`` collects what could not be read."""

    def __init__(self, cluster: Cluster, ref: Ref) -> None:
        self.cluster = cluster
        self.ref = ref
        self.unknown: list[str] = []

    def facts(self) -> dict[str, Any]:
        """Return the facts in the shape that the filter recommend_strategy takes."""
        workload = require(self.cluster, self.ref)
        spec = workload.get("spec") or {}
        template = spec.get("template") or {}
        pod = self._pod(workload) or template.get("spec") or {}
        groups = self._look("API groups", self.cluster.api_groups)
        containers = (template.get("spec") or {}).get("containers") or []
        return {
            "namespace": self.ref.namespace,
            "name": self.ref.name,
            "kind": self.ref.kind,
            "replicas": wanted_pods(workload["kind"], workload),
            "update_strategy": (spec.get("strategy") or spec.get("updateStrategy") or {}).get("type"),
            "selector": (spec.get("selector") or {}).get("matchLabels") or {},
            "readiness_probe": any(entry.get("readinessProbe") for entry in containers),
            "requests": per_pod(pod),
            "capacity": self._capacity(pod),
            "claims": self._claims(template.get("spec") or {}),
            "autoscaler": self._autoscaler(),
            "routes": self._routes((template.get("metadata") or {}).get("labels") or {}, groups),
            "api_groups": groups,
            "unknown": self.unknown,
        }

    def _look(self, what: str, read: Callable[[], T]) -> T | None:
        """Return what was read; None, and the name of it among the unknown, where that is not allowed or not served."""
        try:
            return read()
        except (Forbidden, NotFound):
            self.unknown.append(what)
            return None

    def _all(self, kind: str, namespace: str, what: str, labels: str = "", fields: str = "") -> list[Manifest] | None:
        """Return the objects of a kind, or None where they may not be read."""
        return self._look(what, lambda: self.cluster.list(Query(kind, namespace, labels, fields)).items)

    def _pod(self, workload: Manifest) -> dict[str, Any] | None:
        """Return the spec of its newest pod: unlike the template, it has what the cluster adds (defaults of requests, sidecars)."""
        pods = self._all("Pod", self.ref.namespace, "pods of the namespace", label_query(workload)) or []
        alive = [entry for entry in pods if not is_terminating(entry)]
        newest = max(alive, key=lambda entry: metadata(entry).get("creationTimestamp") or "", default=None)
        return newest.get("spec") if newest else None

    def _capacity(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """Return the room for more pods like this one."""
        found: dict[str, Any] = {"pods": None, "cpu": None, "memory": None, "nodes": None, "quota": None}
        nodes = self._all("Node", "", "nodes")
        if nodes is not None:
            pods = self._all("Pod", "", "pods of all namespaces", fields=RUNNING)
            if pods is not None:
                found.update(room_on_nodes(pod, nodes, pods))
        quotas = self._all("ResourceQuota", self.ref.namespace, "quotas")
        found["quota"] = room_in_quotas(pod, quotas or [])
        return found

    def _claims(self, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the claims that its pods share, each with its access modes; those of each pod alone are none of these."""
        found = []
        for volume in spec.get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name:
                claim = self._look(
                    f"claim {name}", lambda name=name: self.cluster.get(Ref("PersistentVolumeClaim", self.ref.namespace, name))
                )
                modes = None
                if claim is not None:
                    modes = (claim.get("status") or {}).get("accessModes") or (claim.get("spec") or {}).get("accessModes")
                found.append({"name": name, "access_modes": modes})
        return found

    def _autoscaler(self) -> dict[str, Any] | None:
        """Return the HorizontalPodAutoscaler that scales it, with its limits."""
        found = self._all("HorizontalPodAutoscaler", self.ref.namespace, "autoscalers") or []
        mine = next((entry for entry in found if is_autoscaler_of(entry, self.ref)), None)
        if mine is None:
            return None
        spec = mine.get("spec") or {}
        return {"name": metadata(mine)["name"], "min": spec.get("minReplicas") or 1, "max": spec.get("maxReplicas")}

    def _routes(self, pod_labels: Mapping[str, str], groups: Iterable[str] | None) -> dict[str, Any]:
        """Return the Services that select its pods, and what leads to these, in its own namespace."""
        here = self.ref.namespace
        services = self._all("Service", here, "services")
        names = None if services is None else sorted(metadata(entry)["name"] for entry in services if _selects(entry, pod_labels))
        reached = set(names or ())
        return {
            "services": names,
            "ingresses": self._ingresses(reached) if names is not None else None,
            "http_routes": self._leading("HTTPRoute", "gateway.networking.k8s.io", groups, reached, _of_http_route),
            "virtual_services": self._leading("VirtualService", "networking.istio.io", groups, reached, _of_virtual_service),
            "ingress_routes": self._leading("IngressRoute", "traefik.io", groups, reached, _of_ingress_route),
        }

    def _ingresses(self, services: set[str]) -> list[dict[str, Any]] | None:
        """Return the Ingresses that lead to the Services, each with its class and the controller of that."""
        found = self._all("Ingress", self.ref.namespace, "ingresses")
        leading = [entry for entry in found or () if any(backend.service in services for backend in backends(entry))]
        if not leading:
            return None if found is None else []
        classes = {metadata(entry)["name"]: entry for entry in self._all("IngressClass", "", "ingress classes") or ()}
        default = [
            name
            for name, entry in classes.items()
            if (metadata(entry).get("annotations") or {}).get("ingressclass.kubernetes.io/is-default-class") == "true"
        ]
        result = []
        for entry in leading:
            old = (metadata(entry).get("annotations") or {}).get("kubernetes.io/ingress.class")
            name = (entry.get("spec") or {}).get("ingressClassName") or old or (default[0] if len(default) == 1 else None)
            controller = (classes[name].get("spec") or {}).get("controller") if name in classes else None
            result.append({"name": metadata(entry)["name"], "class": name, "controller": controller})
        return result

    def _leading(
        self, kind: str, group: str, groups: Iterable[str] | None, services: set[str], named: Callable[[Manifest, str], set[str]]
    ) -> list[str] | None:
        """Return the routes of a kind that name one of the Services; none where the cluster does not have the group."""
        if groups is None:
            return None
        if group not in groups:
            return []
        found = self._all(kind, self.ref.namespace, f"{kind}s")
        if found is None:
            return None
        return sorted(metadata(entry)["name"] for entry in found if named(entry, self.ref.namespace) & services)


def _selects(service: Manifest, pod_labels: Mapping[str, str]) -> bool:
    """Return whether a Service selects pods with these labels."""
    selector = (service.get("spec") or {}).get("selector") or {}
    return bool(selector) and all(pod_labels.get(key) == value for key, value in selector.items())


def _of_http_route(route: Manifest, _namespace: str) -> set[str]:
    """Return the Services that an HTTPRoute names."""
    rules = (route.get("spec") or {}).get("rules") or []
    return {entry["name"] for rule in rules for entry in rule.get("backendRefs") or [] if (entry.get("kind") or "Service") == "Service"}


def _of_virtual_service(route: Manifest, namespace: str) -> set[str]:
    """Return the Services of its own namespace that a VirtualService names, in the short form or the long one."""
    rules = (route.get("spec") or {}).get("http") or []
    hosts = [(entry.get("destination") or {}).get("host") or "" for rule in rules for entry in rule.get("route") or []]
    return {host.split(".")[0] for host in hosts if host.split(".")[1:2] in ([], [namespace])}


def _of_ingress_route(route: Manifest, _namespace: str) -> set[str]:
    """Return the Services that a Traefik IngressRoute names itself."""
    rules = (route.get("spec") or {}).get("routes") or []
    return {entry["name"] for rule in rules for entry in rule.get("services") or [] if (entry.get("kind") or "Service") == "Service"}
