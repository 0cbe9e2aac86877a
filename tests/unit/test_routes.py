# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes: a manifest and the split in it, both ways, and the smallest patch between two manifests."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.canary import Pods, canary_replicas
from ansible_collections.progressive.delivery.plugins.module_utils.routes import gateway_api, ingress_nginx, istio, traefik
from ansible_collections.progressive.delivery.plugins.module_utils.routes.patching import smallest_patch
from ansible_collections.progressive.delivery.plugins.module_utils.routes.rules import Sides
from support.fake import _json_patch
from support.routes import destination_rule, http_route, ingress_route, main_ingress, virtual_service

SIDES = Sides("web", "web-canary")


PROVIDERS = {"gateway_api": (gateway_api, http_route), "istio": (istio, virtual_service), "traefik": (traefik, ingress_route)}


@pytest.mark.parametrize(("provider", "make"), PROVIDERS.values(), ids=PROVIDERS)
@pytest.mark.parametrize("weight", [0, 1, 5, 33, 50, 99, 100])
def test_a_weight_goes_into_the_manifest_and_comes_out_of_it(provider: Any, make: Any, weight: int) -> None:
    ref = Ref(provider.KIND, "shop", "web")
    before = {ref: make()}
    with_canary = provider.weighted(ref, before, SIDES, 10)
    after = provider.weighted(ref, with_canary, SIDES, weight)
    assert provider.split(ref, after, SIDES).weights == {"web": 100.0 - weight, "web-canary": float(weight)}
    assert provider.weighted(ref, after, SIDES, weight) == after
    # Taking the canary out gives back what was there, and all rules of others are as they were.
    gone = provider.weighted(ref, after, SIDES, None)
    assert gone == before
    patch = smallest_patch(with_canary[ref], after[ref])
    assert _json_patch(copy.deepcopy(with_canary[ref]), patch) == after[ref]
    assert len(patch) == (0 if weight == 10 else 2)


@pytest.mark.parametrize(("provider", "make"), PROVIDERS.values(), ids=PROVIDERS)
def test_a_weight_of_0_adds_nothing(provider: Any, make: Any) -> None:
    ref = Ref(provider.KIND, "shop", "web")
    before = {ref: make()}
    assert provider.weighted(ref, before, SIDES, 0) == before
    assert provider.split(ref, before, SIDES).weights["web-canary"] == 0.0


def test_a_subset_has_a_subset_as_its_canary() -> None:
    ref, rule = Ref("VirtualService", "shop", "web"), Ref("DestinationRule", "shop", "web")
    before = {ref: virtual_service({"host": "web", "subset": "v1"}), rule: destination_rule("v1", "v2")}
    assert istio.needs(ref, before[ref], SIDES) == (Query("DestinationRule", "shop"),)
    after = istio.weighted(ref, before, Sides("v1", "v2"), 20)
    assert after[ref]["spec"]["http"][1]["route"][1] == {"destination": {"host": "web", "subset": "v2"}, "weight": 20}
    assert after[rule] == before[rule] and istio.service_of(ref, after, "v2") == "web"
    # A subset that is not there is made where it is known of what, and goes with the canary.
    with pytest.raises(InvalidRequest, match='has no subset "v3"; it has: v1, v2; add it, or give canary_labels'):
        istio.weighted(ref, before, Sides("v1", "v3"), 20)
    made = istio.weighted(ref, before, Sides("v1", "v3", labels={"version": "v3"}), 20)
    assert made[rule] == destination_rule("v1", "v2", "v3")
    assert istio.weighted(ref, made, Sides("v1", "v3", labels={"version": "v3"}), None) == before
    with pytest.raises(InvalidRequest, match="no DestinationRule in namespace shop"):
        istio.weighted(ref, {ref: before[ref]}, Sides("v1", "v2"), 20)


def test_a_host_has_a_host_in_the_same_form_as_its_canary() -> None:
    ref = Ref("VirtualService", "shop", "web")
    after = istio.weighted(ref, {ref: virtual_service()}, SIDES, 20)[ref]
    other = after["spec"]["http"][1]["route"][1]["destination"]
    assert other == {"host": "web-canary.shop.svc.cluster.local", "port": {"number": 80}}
    assert istio.needs(ref, after, SIDES) == () and istio.service_of(ref, {ref: after}, "web-canary") == "web-canary"


def test_the_annotations_of_a_canary_sit_on_a_second_ingress_alone() -> None:
    ref, second = Ref("Ingress", "shop", "web"), Ref("Ingress", "shop", "web-canary")
    main = {ref: main_ingress(), second: None}
    assert ingress_nginx.needs(ref, main[ref], SIDES) == (second,)
    made = ingress_nginx.weighted(ref, main, SIDES, 20)
    assert made[ref] == main[ref] and made[second]["metadata"]["name"] == "web-canary" and "tls" not in made[second]["spec"]
    assert made[second]["metadata"]["annotations"][ingress_nginx.CANARY] == "true"
    assert made[second]["metadata"]["annotations"][ingress_nginx.WEIGHT] == "20"
    paths = made[second]["spec"]["rules"][0]["http"]["paths"]
    assert [path["backend"]["service"]["name"] for path in paths] == ["web-canary"] and made[second]["spec"]["ingressClassName"] == "nginx"
    assert ingress_nginx.split(ref, made, SIDES).weights == {"web": 80.0, "web-canary": 20.0}
    assert ingress_nginx.weighted(ref, made, SIDES, 20) == made
    assert ingress_nginx.weighted(ref, made, SIDES, None) == main
    assert ingress_nginx.weighted(ref, main, SIDES, 0) == main
    with pytest.raises(InvalidRequest, match="no main Ingress"):
        ingress_nginx.weighted(ref, {ref: main_ingress(annotations={ingress_nginx.CANARY: "true"})}, SIDES, 20)
    with pytest.raises(InvalidRequest, match="is no canary of"):
        ingress_nginx.weighted(ref, {ref: main[ref], second: main_ingress(name="web-canary")}, SIDES, 20)


REFUSED = {
    "a backend that is not there": (Sides("nope", "web-canary"), 'does not lead to "nope"'),
    "a rule that is not there": (Sides("web", "web-canary", rule="7"), "has no rule for rule 7"),
    "a host that is not there": (Sides("web", "web-canary", host="other.example.com"), "has no rule for host other"),
    "two sides that are one": (Sides("web", "web"), "a split needs two"),
}


@pytest.mark.parametrize(("sides", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_in_the_route_is_refused(sides: Sides, sentence: str) -> None:
    ref = Ref("HTTPRoute", "shop", "web")
    with pytest.raises(InvalidRequest, match=sentence):
        gateway_api.weighted(ref, {ref: http_route()}, sides, 20)


def test_several_rules_must_be_named() -> None:
    ref, route = Ref("HTTPRoute", "shop", "web"), http_route()
    route["spec"]["rules"].append({"matches": [{"path": {"value": "/shop"}}], "backendRefs": [{"name": "web", "port": 80}]})
    with pytest.raises(InvalidRequest, match="by several rules"):
        gateway_api.weighted(ref, {ref: route}, SIDES, 20)
    after = gateway_api.weighted(ref, {ref: route}, Sides("web", "web-canary", path="/shop"), 20)[ref]
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
