# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes: a manifest and the split in it, both ways, and the smallest patch between two manifests."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.canary import Pods, canary_replicas
from ansible_collections.progressive.delivery.plugins.module_utils.routes import gateway_api, ingress_nginx, istio, traefik
from ansible_collections.progressive.delivery.plugins.module_utils.routes.patching import smallest_patch
from ansible_collections.progressive.delivery.plugins.module_utils.routes.rules import Sides
from support.fake import _json_patch

SIDES = Sides("web", "web-canary")


def http_route(**spec: Any) -> dict[str, Any]:
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
    return {"kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": {"hostnames": ["shop.example.com"], "rules": rules, **spec}}


def virtual_service(destination: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a VirtualService with a foreign route, retries and a timeout."""
    http = [
        {"match": [{"uri": {"prefix": "/api"}}], "route": [{"destination": {"host": "api"}}]},
        {
            "route": [{"destination": destination or {"host": "web.shop.svc.cluster.local", "port": {"number": 80}}}],
            "retries": {"attempts": 2},
            "timeout": "10s",
        },
    ]
    return {"kind": "VirtualService", "metadata": {"name": "web"}, "spec": {"hosts": ["shop.example.com"], "http": http}}


def ingress_route() -> dict[str, Any]:
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
    return {"kind": "IngressRoute", "metadata": {"name": "web"}, "spec": {"entryPoints": ["web"], "routes": routes}}


PROVIDERS = {"gateway_api": (gateway_api, http_route), "istio": (istio, virtual_service), "traefik": (traefik, ingress_route)}


@pytest.mark.parametrize(("provider", "make"), PROVIDERS.values(), ids=PROVIDERS)
@pytest.mark.parametrize("weight", [0, 1, 5, 33, 50, 99, 100])
def test_a_weight_goes_into_the_manifest_and_comes_out_of_it(provider: Any, make: Any, weight: int) -> None:
    ref = Ref(provider.KIND, "shop", "web")
    before = make()
    with_canary = provider.weighted(ref, before, SIDES, 10)
    after = provider.weighted(ref, with_canary, SIDES, weight)
    assert provider.split(ref, after, SIDES).weights == {"web": 100.0 - weight, "web-canary": float(weight)}
    assert provider.weighted(ref, after, SIDES, weight) == after
    # Taking the canary out gives back what was there, and all rules of others are as they were.
    gone = provider.weighted(ref, after, SIDES, None)
    assert gone == before
    patch = smallest_patch(with_canary, after)
    assert _json_patch(copy.deepcopy(with_canary), patch) == after
    assert len(patch) == (0 if weight == 10 else 2)


@pytest.mark.parametrize(("provider", "make"), PROVIDERS.values(), ids=PROVIDERS)
def test_a_weight_of_0_adds_nothing(provider: Any, make: Any) -> None:
    ref, before = Ref(provider.KIND, "shop", "web"), make()
    assert provider.weighted(ref, before, SIDES, 0) == before
    assert provider.split(ref, before, SIDES).weights["web-canary"] == 0.0


def test_a_subset_has_a_subset_as_its_canary() -> None:
    ref = Ref("VirtualService", "shop", "web")
    before = virtual_service({"host": "web", "subset": "v1"})
    after = istio.weighted(ref, before, Sides("v1", "v2"), 20)
    assert after["spec"]["http"][1]["route"][1] == {"destination": {"host": "web", "subset": "v2"}, "weight": 20}
    other = istio.weighted(ref, virtual_service(), SIDES, 20)["spec"]["http"][1]["route"][1]["destination"]
    assert other == {"host": "web-canary.shop.svc.cluster.local", "port": {"number": 80}}


def ingress(**meta: Any) -> dict[str, Any]:
    """Return an Ingress with a foreign path, and TLS."""
    paths = [
        {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}},
        {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
    ]
    spec = {"ingressClassName": "nginx", "rules": [{"host": "shop.example.com", "http": {"paths": paths}}], "tls": [{"secretName": "x"}]}
    return {"kind": "Ingress", "metadata": {"name": "web", "namespace": "shop", **meta}, "spec": spec}


def test_the_annotations_of_a_canary_sit_on_a_second_ingress_alone() -> None:
    ref, main = Ref("Ingress", "shop", "web"), ingress()
    made = ingress_nginx.weighted(ref, main, None, SIDES, 20)
    assert made is not None and made["metadata"]["name"] == "web-canary" and "tls" not in made["spec"]
    assert made["metadata"]["annotations"][ingress_nginx.CANARY] == "true"
    assert made["metadata"]["annotations"][ingress_nginx.WEIGHT] == "20"
    paths = made["spec"]["rules"][0]["http"]["paths"]
    assert [path["backend"]["service"]["name"] for path in paths] == ["web-canary"] and made["spec"]["ingressClassName"] == "nginx"
    assert ingress_nginx.split(ref, main, made, SIDES).weights == {"web": 80.0, "web-canary": 20.0}
    assert ingress_nginx.weighted(ref, main, made, SIDES, 20) == made
    assert ingress_nginx.weighted(ref, main, made, SIDES, None) is None
    with pytest.raises(InvalidRequest, match="no main Ingress"):
        ingress_nginx.weighted(ref, ingress(annotations={ingress_nginx.CANARY: "true"}), None, SIDES, 20)
    with pytest.raises(InvalidRequest, match="is no canary of"):
        ingress_nginx.weighted(ref, main, ingress(name="web-canary"), SIDES, 20)


REFUSED = {
    "a backend that is not there": (Sides("nope", "web-canary"), 'does not lead to "nope"'),
    "a rule that is not there": (Sides("web", "web-canary", rule="7"), "has no rule for rule 7"),
    "a host that is not there": (Sides("web", "web-canary", host="other.example.com"), "has no rule for host other"),
    "two sides that are one": (Sides("web", "web"), "a split needs two"),
}


@pytest.mark.parametrize(("sides", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_in_the_route_is_refused(sides: Sides, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        gateway_api.weighted(Ref("HTTPRoute", "shop", "web"), http_route(), sides, 20)


def test_several_rules_must_be_named() -> None:
    ref, route = Ref("HTTPRoute", "shop", "web"), http_route()
    route["spec"]["rules"].append({"matches": [{"path": {"value": "/shop"}}], "backendRefs": [{"name": "web", "port": 80}]})
    with pytest.raises(InvalidRequest, match="by several rules"):
        gateway_api.weighted(ref, route, SIDES, 20)
    after = gateway_api.weighted(ref, route, Sides("web", "web-canary", path="/shop"), 20)
    assert after["spec"]["rules"][1] == route["spec"]["rules"][1]
    assert [entry["weight"] for entry in after["spec"]["rules"][3]["backendRefs"]] == [80, 20]


@pytest.mark.parametrize(
    ("total", "weight", "surge", "stable", "canary"),
    [
        (0, 50, "25%", 0, 0),
        (1, 50, 0, 0, 1),
        (1, 40, 0, 1, 0),
        (1, 50, 1, 1, 1),
        (10, 0, "25%", 10, 0),
        (10, 100, "25%", 0, 10),
        (10, 5, 0, 9, 1),
        (10, 10, 0, 9, 1),
        (10, 99, 0, 1, 9),
        (5, 33, 0, 3, 2),
        (5, 33, 1, 4, 2),
        (2, 75, 0, 1, 1),
        (4, 20, 1, 4, 1),
    ],
)
def test_pods_come_as_close_to_a_weight_as_they_can(total: int, weight: int, surge: Any, stable: int, canary: int) -> None:
    assert canary_replicas(total, weight, 100, surge) == Pods(stable, canary)


def test_no_side_of_a_split_is_empty_and_none_could_be_closer() -> None:
    for total in range(1, 21):
        for weight in range(101):
            for surge in (0, 1):
                found = canary_replicas(total, weight, 100, surge)
                pods = found.stable + found.canary
                assert pods in (total, total + surge)
                if 0 < weight < 100 and (total > 1 or surge):
                    assert found.stable and found.canary
                    sizes = (total, total + 1) if surge else (total,)
                    best = min(abs(100 * canary / size - weight) for size in sizes for canary in range(1, size))
                    assert abs(found.weight - weight) <= best + 1e-9


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [{"op": "replace", "path": "/a", "value": 2}]),
        ({"a/b": 1}, {}, [{"op": "remove", "path": "/a~1b"}]),
        ([1, 2, 3], [1, 3], [{"op": "remove", "path": "/1"}]),
        ([1, 3], [1, 2, 3], [{"op": "add", "path": "/1", "value": 2}]),
        ([1, 2, 3, 4], [1, 4], [{"op": "remove", "path": "/2"}, {"op": "remove", "path": "/1"}]),
    ],
)
def test_a_patch_names_what_differs_and_nothing_else(before: Any, after: Any, operations: list[dict[str, Any]]) -> None:
    assert smallest_patch(before, after) == operations
