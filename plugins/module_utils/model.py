# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of the collection as frozen dataclasses, the kinds it knows, and the Protocol ``Cluster``.

Standard library only: plans and routes are built from this file and ``errors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from .errors import InvalidRequest

Manifest = dict[str, Any]
"""A Kubernetes object as the API server gives it, metadata and all."""

FIELD_MANAGER = "progressive.delivery"
ANNOTATION_PREFIX = "progressive.delivery/"
CHANGE_CAUSE = "kubernetes.io/change-cause"
REVISION = "deployment.kubernetes.io/revision"
UNDONE = ANNOTATION_PREFIX + "undone"
SERVICE_LABEL = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its Service."""

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


@dataclass(frozen=True)
class Kind:
    """Where the API server serves a kind."""

    name: str
    group_version: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the kind's collection, or of one object in it."""
        root = f"/apis/{self.group_version}" if "/" in self.group_version else f"/api/{self.group_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("AlertProvider", "flagger.app/v1beta1", "alertproviders"),
        Kind("Canary", "flagger.app/v1beta1", "canaries"),
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("ControllerRevision", "apps/v1", "controllerrevisions"),
        Kind("DaemonSet", "apps/v1", "daemonsets"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("DestinationRule", "networking.istio.io/v1beta1", "destinationrules"),
        Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices"),
        Kind("Event", "v1", "events"),
        Kind("Gateway", "gateway.networking.k8s.io/v1", "gateways"),
        Kind("Gateway.networking.istio.io", "networking.istio.io/v1beta1", "gateways"),
        Kind("GatewayClass", "gateway.networking.k8s.io/v1", "gatewayclasses", namespaced=False),
        Kind("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes"),
        Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
        Kind("Ingress", "networking.k8s.io/v1", "ingresses"),
        Kind("IngressClass", "networking.k8s.io/v1", "ingressclasses", namespaced=False),
        Kind("IngressRoute", "traefik.io/v1alpha1", "ingressroutes"),
        Kind("Lease", "coordination.k8s.io/v1", "leases"),
        Kind("MetricTemplate", "flagger.app/v1beta1", "metrictemplates"),
        Kind("Namespace", "v1", "namespaces", namespaced=False),
        Kind("Node", "v1", "nodes", namespaced=False),
        Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Kind("Pod", "v1", "pods"),
        Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
        Kind("PrometheusRule", "monitoring.coreos.com/v1", "prometheusrules"),
        Kind("ReplicaSet", "apps/v1", "replicasets"),
        Kind("ResourceQuota", "v1", "resourcequotas"),
        Kind("ScaledObject", "keda.sh/v1alpha1", "scaledobjects"),
        Kind("Secret", "v1", "secrets"),
        Kind("Service", "v1", "services"),
        Kind("StatefulSet", "apps/v1", "statefulsets"),
        Kind("TraefikService", "traefik.io/v1alpha1", "traefikservices"),
        Kind("VirtualService", "networking.istio.io/v1beta1", "virtualservices"),
    )
}

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True)
class Ref:
    """One object on the cluster."""

    kind: str
    namespace: str
    name: str

    def __post_init__(self) -> None:
        """Raise InvalidRequest without a name: the path would be that of all objects of the kind."""
        if not self.name:
            raise InvalidRequest(f"{self.kind} needs a name, got an empty one")

    def __str__(self) -> str:
        """Return the object as a sentence names it: ``Deployment shop/web``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Return the URL path of the object."""
        return KINDS[self.kind].path(quote(self.namespace, safe=""), quote(self.name, safe=""))


@dataclass(frozen=True)
class Query:
    """A list or a watch: the kind, and what narrows it. One that is ``optional`` is empty where it is not allowed."""

    kind: str
    namespace: str
    labels: str = ""
    fields: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Listing:
    """What a list returned, and the version from which a watch goes on."""

    items: list[Manifest]
    resource_version: str


@dataclass(frozen=True)
class WatchEvent:
    """One event of a watch: ADDED, MODIFIED, DELETED, BOOKMARK, or SYNCED with the whole list in ``items``."""

    type: str
    query: Query
    object: Manifest = field(default_factory=dict)
    items: tuple[Manifest, ...] = ()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whichever way the request went."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ran:
    """What a command in a container returned."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Change:
    """What a plan decided: before and after in the words of the domain, and the patch that gets there.

    ``patch`` is None where nothing differs. ``actions`` are sentences, in the past tense of what is done.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    patch: Any = None
    patch_type: str = MERGE_PATCH
    actions: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Return whether there is something to write."""
        return self.patch is not None


@dataclass(frozen=True)
class Result:
    """What a step returns: ``run`` adds the duration and the diff and shapes it for Ansible."""

    changed: bool = False
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    actions: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, change: Change, **extra: Any) -> Result:
        """Return the result of a change, with what else the step reports."""
        return cls(change.changed, change.before, change.after, change.actions, extra)


@dataclass(frozen=True)
class Wanted:
    """The options that tell a provider where to look: the label that names a colour, and which rules count."""

    color_label: str = "version"
    host: str | None = None
    path: str | None = None
    services: Mapping[str, str] = field(default_factory=dict)
    rule: str | None = None


@dataclass(frozen=True)
class Colors:
    """Which colour a route sends its traffic to, and how the pods of each colour are found.

    ``base`` is the selector without the colour; ``services`` {color: Service} where the provider has one for each, and
    ``faults`` {color: why the route cannot lead there}. ``others`` {color: places beside those chosen that lead there too}.
    ``backends`` are the places that lead to the active colour, ``spare`` those among the chosen ones that nothing goes to.
    """

    active: str
    base: Mapping[str, str]
    label: str
    services: Mapping[str, str]
    backends: tuple[str, ...] = ()
    selectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    spare: tuple[str, ...] = ()

    def selector(self, color: str) -> dict[str, str]:
        """Return the labels of the pods of a colour."""
        return dict(self.selectors.get(color) or {**self.base, self.label: color})

    def check(self, ref: Ref, color: str) -> None:
        """Raise InvalidRequest where the route cannot name the colour."""
        if self.services and color not in self.services:
            known = ", ".join(sorted(self.services))
            raise InvalidRequest(
                f'no Service has color "{color}": {ref} can be switched to {known};'
                f" make a Service whose selector has {self.label}: {color}, or name it with services"
            )
        if color != self.active and color in self.faults:
            raise InvalidRequest(f"{ref} cannot be switched to {color}: {self.faults[color]}; it stays on {self.active}")


class Cluster(Protocol):
    """What a step needs of Kubernetes. ``cluster.py`` implements it; so does the tests' fake."""

    default_namespace: str
    context: str | None

    def close(self) -> None:
        """Give back what it holds; there are no requests after that."""

    def get(self, ref: Ref) -> Manifest:
        """Return the object, or raise NotFound."""

    def list(self, query: Query) -> Listing:
        """Return the objects that the query selects."""

    def api_groups(self) -> Sequence[str]:
        """Return the names of the API groups that are served: which kinds of others are installed."""

    def watch(self, query: Query, resource_version: str, timeout: float) -> Iterator[tuple[str, Manifest]]:
        """Yield (type, object) from ``resource_version`` on; end after ``timeout`` seconds; raise Gone when too old."""

    def patch(self, ref: Ref, body: Any, patch_type: str, dry_run: bool = False, subresource: str = "") -> Manifest:
        """Patch the object, or a subresource of it, and return it; raise Conflict where a precondition in the body does not hold."""

    def create(self, ref: Ref, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """Create the object and return it; raise Conflict where it exists."""

    def delete(self, ref: Ref, dry_run: bool = False, resource_version: str | None = None) -> None:
        """Delete the object; raise NotFound or Conflict."""

    def logs(self, ref: Ref, container: str, lines: int = 10, previous: bool = False) -> list[str]:
        """Return the last log lines of a container, or an empty list where there are none."""

    def exec(self, ref: Ref, container: str, command: Sequence[str], timeout: float) -> Ran:
        """Run a command in a container of the pod."""

    def proxy_get(self, ref: Ref, port: str, path: str, headers: Mapping[str, str], timeout: float) -> Answer:
        """GET a path of a Service or pod through the API server; ``port`` may be ``https:8443``."""

    def proxy_post(self, ref: Ref, port: str, path: str, body: Any, timeout: float) -> Answer:
        """POST a document as JSON to a path of a Service or pod through the API server."""


def parse_kind(kind: str, allowed: Sequence[str] = WORKLOAD_KINDS) -> str:
    """Return the kind as Kubernetes spells it, from any case, or raise InvalidRequest."""
    for name in allowed:
        if name.lower() == kind.lower():
            return name
    raise InvalidRequest(f'kind must be one of {", ".join(allowed)}, got "{kind}"')


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Return the object's metadata, never None."""
    return manifest.get("metadata") or {}


def unchanged(manifest: Manifest) -> dict[str, Any]:
    """Return the operation of a JSON Patch by which a write fails where somebody else has written since."""
    return {"op": "test", "path": "/metadata/resourceVersion", "value": metadata(manifest).get("resourceVersion")}


def annotations(manifest: Manifest) -> dict[str, str]:
    """Return the object's annotations, never None."""
    return metadata(manifest).get("annotations") or {}


def labels(manifest: Manifest) -> dict[str, str]:
    """Return the object's labels, never None."""
    return metadata(manifest).get("labels") or {}


def selector_string(match_labels: Mapping[str, str]) -> str:
    """Return a label selector as a query parameter has it: ``app=web,version=blue``."""
    return ",".join(f"{key}={value}" for key, value in sorted(match_labels.items()))


def pointer(part: str) -> str:
    """Return one part of a JSON pointer, escaped as RFC 6901 section 3 has it."""
    return part.replace("~", "~0").replace("/", "~1")
