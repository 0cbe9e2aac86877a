# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace on a cluster with routers: podinfo as stable and canary, their Services, and a route for each provider.

Each namespace has a host name of its own, so several of them can be used at once. A router answers on the host too, at a node
port; a request finds its route by the header Host.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import wait_for_rollout

from .live import Shop, Traffic

STABLE, CANARY = "1.0.0", "2.0.0"
IMAGE = "localhost:32000/podinfo"
# The node port of each router, and its Gateway as the namespace and the name.
NODE_PORTS = {"traefik": 30080, "istio": 30081}
GATEWAYS = {"traefik": ("traefik", "traefik"), "istio": ("istio-system", "istio")}
# The path of kinds that the collection itself may not know.
PATHS = {
    "DestinationRule": "/apis/networking.istio.io/v1/namespaces/{}/destinationrules",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "IngressRoute": "/apis/traefik.io/v1alpha1/namespaces/{}/ingressroutes",
    "Middleware": "/apis/traefik.io/v1alpha1/namespaces/{}/middlewares",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "TraefikService": "/apis/traefik.io/v1alpha1/namespaces/{}/traefikservices",
    "VirtualService": "/apis/networking.istio.io/v1/namespaces/{}/virtualservices",
}
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Provider:
    """A way to write a route, and the router that reads it."""

    name: str
    router: str

    def __str__(self) -> str:
        """Return it as a test's id names it: ``gateway_api-istio``."""
        return f"{self.name}-{self.router}"


PROVIDERS = (
    Provider("ingress_nginx", "traefik"),
    Provider("gateway_api", "traefik"),
    Provider("traefik", "traefik"),
    Provider("istio", "istio"),
    Provider("gateway_api", "istio"),
)


def version(name: str, image: str, replicas: int = 1) -> Manifest:
    """Return a Deployment of podinfo with the labels ``app: web, version: NAME``."""
    labels = {"app": "web", "version": name}
    container = {
        "name": "app",
        "image": f"{IMAGE}:{image}",
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 10}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": pods}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": spec}


def service(name: str, selector: Mapping[str, str]) -> Manifest:
    """Return a Service of port 80."""
    spec = {"selector": dict(selector), "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def http_route(router: str, host: str, weight: int, *before: Manifest) -> list[Manifest]:
    """Return an HTTPRoute whose last rule splits by weight; ``before`` are the rules before it."""
    namespace, name = GATEWAYS[router]
    backends = [{"name": "stable", "port": 80, "weight": 100 - weight}, {"name": "canary", "port": 80, "weight": weight}]
    spec = {"parentRefs": [{"name": name, "namespace": namespace}], "hostnames": [host], "rules": [*before, {"backendRefs": backends}]}
    return [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": spec}]


def virtual_service(host: str, weight: int, *before: Manifest) -> list[Manifest]:
    """Return a DestinationRule with a subset for each version, and a VirtualService whose last route splits by weight."""
    api, subsets = "networking.istio.io/v1", [{"name": name, "labels": {"version": name}} for name in ("stable", "canary")]
    route = [
        {"destination": {"host": "web", "subset": "stable"}, "weight": 100 - weight},
        {"destination": {"host": "web", "subset": "canary"}, "weight": weight},
    ]
    spec = {"hosts": [host], "gateways": ["istio-system/istio"], "http": [*before, {"route": route}]}
    return [
        {"apiVersion": api, "kind": "DestinationRule", "metadata": {"name": "web"}, "spec": {"host": "web", "subsets": subsets}},
        {"apiVersion": api, "kind": "VirtualService", "metadata": {"name": "web"}, "spec": spec},
    ]


def traefik_service(host: str, weight: int) -> list[Manifest]:
    """Return a TraefikService that splits by weight, and an IngressRoute to it."""
    api = "traefik.io/v1alpha1"
    services = [{"name": "stable", "port": 80, "weight": 100 - weight}, {"name": "canary", "port": 80, "weight": weight}]
    entry = {"kind": "Rule", "match": f"Host(`{host}`)", "services": [{"name": "web", "kind": "TraefikService"}]}
    return [
        {"apiVersion": api, "kind": "TraefikService", "metadata": {"name": "web"}, "spec": {"weighted": {"services": services}}},
        {"apiVersion": api, "kind": "IngressRoute", "metadata": {"name": "web"}, "spec": {"entryPoints": ["web"], "routes": [entry]}},
    ]


def ingress_nginx(host: str, weight: int | None) -> list[Manifest]:
    """Return the main Ingress ``web``, and unless ``weight`` is None the canary's beside it, which carries the annotations."""

    def ingress(name: str, backend: str, notes: Mapping[str, str]) -> Manifest:
        path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": backend, "port": {"number": 80}}}}
        annotations = {f"nginx.ingress.kubernetes.io/{key}": value for key, value in notes.items()}
        spec = {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": name, "annotations": annotations},
            "spec": spec,
        }

    beside = [] if weight is None else [ingress("web-canary", "canary", {"canary": "true", "canary-weight": str(weight)})]
    return [*beside, ingress("web", "stable", {})]


def manifests(provider: Provider, host: str, weight: int = 0) -> list[Manifest]:
    """Return the route ``web`` of a provider, with so many percent for the canary."""
    if provider.name == "gateway_api":
        return http_route(provider.router, host, weight)
    return {"ingress_nginx": ingress_nginx, "istio": virtual_service, "traefik": traefik_service}[provider.name](host, weight)


class Routed(Shop):
    """A namespace with the Deployments and Services ``stable`` and ``canary``, and the Service ``web`` over both."""

    @property
    def host(self) -> str:
        """Return the host name of this namespace's routes."""
        return f"{self.namespace}.example"

    @property
    def node(self) -> str:
        """Return the address of the node."""
        entries = [entry for node in self.cluster.list(Query("Node", "")).items for entry in node["status"]["addresses"]]
        return next(entry["address"] for entry in entries if entry["type"] == "InternalIP")

    def base(self, router: str) -> str:
        """Return where a router answers on the host, without the header Host that finds a route: ``http://10.77.1.2:30080``."""
        return f"http://{self.node}:{NODE_PORTS[router]}"

    def deploy(self, stable: int = 1, canary: int = 1) -> None:
        """Make the two versions and the Services, and wait for the pods."""
        for name in ("stable", "canary"):
            self.create(service(name, {"app": "web", "version": name}))
        self.create(service("web", {"app": "web"}))
        self.create(version("stable", STABLE, stable), wait=False)
        self.create(version("canary", CANARY, canary))
        self.wait_for("stable")

    def wait_for(self, name: str, timeout: float = 120) -> None:
        """Return when a Deployment is complete."""
        wait_for_rollout(self.cluster, Ref("Deployment", self.namespace, name), timeout)

    def traffic_at(self, router: str, rate: float = 200, timeout: float = 3, **headers: str) -> Traffic:
        """Return continuous traffic to the namespace's host at a router."""
        return Traffic(self, f"{self.base(router)}/", rate, timeout, self.host, **headers)

    def put(self, *items: Manifest) -> float:
        """Make or change objects, as ``kubectl apply --server-side`` does; return when the last was accepted (time.monotonic)."""
        for item in items:
            item = {**item, "metadata": {**item["metadata"], "namespace": self.namespace}}
            path = f"{PATHS[item['kind']].format(self.namespace)}/{item['metadata']['name']}"
            self.cluster._json("PATCH", path, {"fieldManager": "tests", "force": "true"}, item, content_type="application/apply-patch+yaml")
        return time.monotonic()

    def read(self, kind: str, name: str = "web") -> Manifest:
        """Return an object, also of a kind that the collection does not know."""
        return self.cluster._json("GET", f"{PATHS[kind].format(self.namespace)}/{name}")

    def clear(self, timeout: float = 60) -> None:
        """Delete the routes named ``web`` and ``web-canary``, and wait until no router knows the host: another provider can have it."""
        for kind in ("HTTPRoute", "Ingress", "IngressRoute", "TraefikService", "VirtualService", "DestinationRule"):
            for name in ("web", "web-canary"):
                with contextlib.suppress(NotFound):
                    path = f"{PATHS[kind].format(self.namespace)}/{name}"
                    self.cluster._json("DELETE", path, about=Ref("Service", self.namespace, name))
        deadline = time.monotonic() + timeout
        for router in NODE_PORTS:
            while set(self.ask(router, 20)) != {"404"}:
                assert time.monotonic() < deadline, f"{router} still routes {self.host}"
                time.sleep(0.1)

    def route(self, provider: Provider, weight: int = 0, timeout: float = 60) -> None:
        """Make the route ``web`` of a provider, and wait until its host answers."""
        self.put(*manifests(provider, self.host, weight))
        deadline = time.monotonic() + timeout
        while set(self.ask(provider.router, 5)) - {STABLE, CANARY}:
            assert time.monotonic() < deadline, f"{provider} does not route {self.host}: {self.ask(provider.router, 5)}"
            time.sleep(0.05)

    def weigh(self, provider: Provider, weight: int) -> float:
        """Change the weight of the route; return when the API server accepted it (time.monotonic)."""
        return self.put(*manifests(provider, self.host, weight))

    def ask(self, router: str, count: int = 100, path: str = "/", timeout: float = 10, **headers: str) -> Counter[str]:
        """Send requests one after another on one connection; return how many each version answered, or each status but 200.

        An answer that takes longer than ``timeout`` seconds raises TimeoutError.
        """
        seen: Counter[str] = Counter()
        sent = {"Host": self.host, **{key.replace("_", "-"): value for key, value in headers.items()}}
        connection = http.client.HTTPConnection(self.node, NODE_PORTS[router], timeout=timeout)
        for _number in range(count):
            connection.request("GET", path, headers=sent)
            response = connection.getresponse()
            text = response.read()
            seen[json.loads(text)["version"] if response.status == 200 else str(response.status)] += 1
        connection.close()
        return seen
