# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes of every router as the API server gives them, and a cluster in memory with both sides of a split."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .fake import FakeCluster

Manifest = dict[str, Any]


def http_route(name: str = "web", **spec: Any) -> Manifest:
    """Return an HTTPRoute with a foreign rule before and after the one for web."""
    rules = [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/api"}}], "backendRefs": [{"name": "api", "port": 80}]},
        {
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]}}],
            "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}],
            "timeouts": {"request": "10s"},
        },
        {"matches": [{"path": {"type": "Exact", "value": "/old"}}], "backendRefs": [{"name": "old", "port": 80}]},
    ]
    meta = {"name": name, "namespace": "shop", "annotations": {"team": "shop"}}
    gateway = {"name": "public", "namespace": "gateways"}
    accepted = [{"parentRef": gateway, "conditions": [{"type": "Accepted", "status": "True"}]}]
    spec = {"parentRefs": [gateway], "hostnames": ["shop.example.com"], "rules": rules, **spec}
    return {"kind": "HTTPRoute", "metadata": meta, "spec": spec, "status": {"parents": accepted}}


def virtual_service(destination: Manifest | None = None, name: str = "web") -> Manifest:
    """Return a VirtualService with a foreign route, retries and a timeout."""
    http = [
        {"match": [{"uri": {"prefix": "/api"}}], "route": [{"destination": {"host": "api"}}]},
        {
            "route": [{"destination": destination or {"host": "web.shop.svc.cluster.local", "port": {"number": 80}}}],
            "retries": {"attempts": 2},
            "timeout": "10s",
        },
    ]
    meta = {"name": name, "namespace": "shop", "annotations": {"team": "shop"}}
    return {"kind": "VirtualService", "metadata": meta, "spec": {"hosts": ["shop.example.com"], "http": http}}


def destination_rule(*subsets: str) -> Manifest:
    """Return a DestinationRule with subsets by the label version."""
    spec = {"host": "web", "subsets": [{"name": name, "labels": {"version": name}} for name in subsets]}
    return {"kind": "DestinationRule", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec}


def ingress_route(name: str = "web") -> Manifest:
    """Return an IngressRoute with a foreign route."""
    routes = [
        {"match": "Host(`shop.example.com`) && PathPrefix(`/api`)", "kind": "Rule", "services": [{"name": "api", "port": 80}]},
        {
            "match": "Host(`shop.example.com`) && PathPrefix(`/`)",
            "kind": "Rule",
            "middlewares": [{"name": "compress"}],
            "services": [{"name": "web", "port": 80}],
        },
    ]
    meta = {"name": name, "namespace": "shop", "annotations": {"team": "shop"}}
    return {"kind": "IngressRoute", "metadata": meta, "spec": {"entryPoints": ["web"], "routes": routes}}


def main_ingress(**meta: Any) -> Manifest:
    """Return an Ingress with a foreign path, and TLS."""
    paths = [
        {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}},
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
    ]
    spec = {"ingressClassName": "nginx", "rules": [{"host": "shop.example.com", "http": {"paths": paths}}], "tls": [{"secretName": "x"}]}
    meta = {"name": "web", "namespace": "shop", "annotations": {"team": "shop"}, **meta}
    return {"kind": "Ingress", "metadata": meta, "spec": spec}


MANIFESTS: dict[str, Callable[[], Manifest]] = {
    "gateway_api": http_route,
    "ingress_nginx": main_ingress,
    "istio": virtual_service,
    "traefik": ingress_route,
}


def ingress_class(name: str = "nginx", controller: str = "k8s.io/ingress-nginx", **notes: str) -> Manifest:
    """Return an IngressClass."""
    return {"kind": "IngressClass", "metadata": {"name": name, "annotations": notes}, "spec": {"controller": controller}}


def side(name: str, endpoints: int = 1) -> list[Manifest]:
    """Return a Service and the EndpointSlice with its ready endpoints."""
    served = [{"addresses": [f"10.0.0.{number + 1}"], "conditions": {"ready": True}} for number in range(endpoints)]
    labels = {"kubernetes.io/service-name": name}
    return [
        {"kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}},
        {"kind": "EndpointSlice", "metadata": {"name": f"{name}-x", "namespace": "shop", "labels": labels}, "endpoints": served},
    ]


def routed(*manifests: Manifest, canary: int = 1) -> FakeCluster:
    """Return a cluster with the Services web and web-canary, all kinds of routes, a class for Ingresses, a Gateway, and these routes."""
    cluster = FakeCluster()
    cluster.groups += ["gateway.networking.k8s.io", "networking.istio.io", "traefik.io"]
    gateway = {"kind": "Gateway", "metadata": {"name": "public", "namespace": "gateways"}, "spec": {}}
    for manifest in [*side("web"), *side("web-canary", canary), ingress_class(), gateway, *copy.deepcopy(list(manifests))]:
        cluster.put(manifest)
    return cluster
