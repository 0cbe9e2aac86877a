# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain application - one Deployment, one Service, one route - on a cluster where Flagger runs, before, under and after it."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import Query

from .routed import GATEWAYS, Manifest, Provider, Routed, service, version

GATEWAY, ISTIO = Provider("gateway_api", "traefik"), Provider("istio", "istio")
FLAGGER = {"gateway_api": "gatewayapi:v1", "istio": "istio"}
ROUTES = {"gateway_api": "HTTPRoute", "istio": "VirtualService"}
LOADTESTER = "http://flagger-loadtester.flagger-system"
PROMETHEUS = "http://flagger-prometheus.flagger-system:9090"


def plain_route(provider: Provider, host: str) -> Manifest:
    """Return the route ``web`` of a provider: one rule, to the Service web, with a label and an annotation of its own."""
    meta = {"name": "web", "labels": {"team": "shop"}, "annotations": {"note": "ours"}}
    if provider.name == "istio":
        spec: Manifest = {"hosts": [host], "gateways": ["istio-system/istio"], "http": [{"route": [{"destination": {"host": "web"}}]}]}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
    namespace, name = GATEWAYS[provider.router]
    rules = [{"backendRefs": [{"name": "web", "port": 80}]}]
    spec = {"parentRefs": [{"name": name, "namespace": namespace}], "hostnames": [host], "rules": rules}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}


class Flagged(Routed):
    """A namespace with the Deployment ``web`` behind the Service ``web``; its pods stop at once when they are told to."""

    def deploy(self, stable: int = 2, canary: int = 0, image: str = "1.0.0", **pods: Any) -> None:
        """Make the Deployment and the Service, and wait for the pods."""
        made = version("web", image, stable)
        made["metadata"]["labels"] = {"app": "web"}
        made["spec"]["selector"]["matchLabels"] = {"app": "web"}
        template = made["spec"]["template"]
        template["metadata"] = {"labels": {"app": "web"}, "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9898"}}
        # No sleep before the end: a request that is sent to a pod on its way out is lost.
        template["spec"]["containers"][0].pop("lifecycle")
        template["spec"]["containers"][0].update(pods)
        self.create(service("web", {"app": "web"}))
        self.create(made)

    def lead(self, provider: Provider, timeout: float = 30) -> None:
        """Make the route, and wait until its host answers."""
        self.put(plain_route(provider, self.host))
        self.answers(provider, "1.0.0", timeout)

    def answers(self, provider: Provider, image: str, timeout: float = 30) -> None:
        """Return when only this version answers."""
        deadline = time.monotonic() + timeout
        while set(self.ask(provider.router, 5)) != {image}:
            assert time.monotonic() < deadline, f"{provider} does not lead to {image}: {self.ask(provider.router, 5)}"
            time.sleep(0.1)

    def canary(self, router: Provider, **given: Any) -> dict[str, Any]:
        """Return the options of a Canary for the application."""
        found: dict[str, Any] = {
            "name": "web",
            "provider": FLAGGER[router.name],
            "port": 80,
            "target_port": "http",
            "hosts": [self.host],
            "interval": "10s",
            "threshold": 3,
            "step_weight": 50,
            "max_weight": 50,
            "wait_timeout": 180,
        }
        if router.name == "istio":
            found["gateways"] = ["istio-system/istio"]
        else:
            namespace, name = GATEWAYS[router.router]
            found["gateway_refs"] = [{"name": name, "namespace": namespace}]
        return {**found, **given}

    def state(self, provider: Provider) -> dict[str, Any]:
        """Return what must be again what it was: the workload, the Service, the route, and what else there is."""
        workload, led = self.get("Deployment", "web"), self.get("Service", "web")
        route = self.read(ROUTES[provider.name])
        listed = {
            kind: self.cluster._json("GET", self.ref(kind, "x").path.rpartition("/")[0])["items"] for kind in ("Deployment", "Service")
        }
        return {
            "template": workload["spec"]["template"],
            "replicas": workload["spec"]["replicas"],
            "selector": led["spec"]["selector"],
            "ports": led["spec"]["ports"],
            "owners": [led["metadata"].get("ownerReferences"), route["metadata"].get("ownerReferences")],
            "route": route["spec"],
            "labels": route["metadata"].get("labels"),
            "annotations": route["metadata"].get("annotations"),
            **{kind: sorted(item["metadata"]["name"] for item in items) for kind, items in listed.items()},
        }

    def phase(self, name: str = "web") -> str:
        """Return the phase of the Canary."""
        return (self.get("Canary", name).get("status") or {}).get("phase") or ""

    def until(self, *phases: str, timeout: float = 120) -> str:
        """Return when the Canary is in one of some phases."""
        deadline = time.monotonic() + timeout
        while (found := self.phase()) not in phases:
            assert time.monotonic() < deadline, f"the Canary is {found}, not {' or '.join(phases)}"
            time.sleep(0.2)
        return found

    def without_pods(self, labels: str, timeout: float = 60) -> None:
        """Return when there are no pods with these labels."""
        deadline = time.monotonic() + timeout
        while self.cluster.list(Query("Pod", self.namespace, labels)).items:
            assert time.monotonic() < deadline, f"there are pods with {labels}"
            time.sleep(0.2)
