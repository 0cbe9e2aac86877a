# SPDX-License-Identifier: GPL-3.0-or-later
"""set_canary_weight on routes: once, predicted, foreign fields kept, and several routes as one."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import reading
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, DeliveryError, Forbidden
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import set_canary_weight
from support.fake import FakeCluster
from support.objects import pod
from support.routes import MANIFESTS, destination_rule, http_route, ingress_class, ingress_route, main_ingress, routed, virtual_service

KIND = {"gateway_api": "HTTPRoute", "ingress_nginx": "Ingress", "istio": "VirtualService", "traefik": "IngressRoute"}


def weigh(cluster: FakeCluster, check: bool = False, **given: Any) -> Any:
    """Run the step with its defaults and the usual sides."""
    spec = argument_spec(set_canary_weight.OPTIONS)
    defaults = {key: entry.get("default") for key, entry in spec.items()}
    sides = {"name": "web", "stable": "web", "canary": "web-canary", "namespace": "shop"}
    return set_canary_weight.execute({**defaults, **sides, **given}, cluster, check)


@pytest.mark.parametrize("provider", MANIFESTS)
def test_a_weight_is_set_once_and_check_mode_predicts_it(provider: str) -> None:
    cluster = routed(MANIFESTS[provider]())
    foreseen = weigh(cluster, True, provider=provider, weight=20)
    assert cluster.writes == []
    done = weigh(cluster, provider=provider, weight=20)
    assert len(cluster.writes) == 1
    assert (foreseen.changed, foreseen.before, foreseen.after, foreseen.actions) == (True, done.before, done.after, done.actions)
    assert done.before == {"weights": {"web": 100, "web-canary": 0}} and done.after == {"weights": {"web": 80, "web-canary": 20}}
    assert done.actions == (f"sent 20 % of {KIND[provider]} shop/web to web-canary, it was 0 %",)
    again = weigh(cluster, provider=provider, weight=20)
    assert not again.changed and again.before == again.after and len(cluster.writes) == 1


@pytest.mark.parametrize("provider", MANIFESTS)
def test_taking_the_canary_out_gives_back_what_was_there(provider: str) -> None:
    cluster = routed(MANIFESTS[provider]())
    ref = Ref(KIND[provider], "shop", "web")
    spec = cluster.get(ref)["spec"]
    weigh(cluster, provider=provider, weight=20, annotations={"progressive.delivery/phase": "running"})
    assert cluster.get(ref)["metadata"]["annotations"] == {"team": "shop", "progressive.delivery/phase": "running"}
    gone = weigh(cluster, provider=provider, state="absent", annotations={"progressive.delivery/phase": ""})
    assert gone.changed and cluster.get(ref)["spec"] == spec and cluster.get(ref)["metadata"]["annotations"] == {"team": "shop"}
    assert not weigh(cluster, provider=provider, state="absent").changed


TWO = {"routes": [{"provider": "gateway_api"}, {"provider": "istio"}, {"provider": "ingress_nginx"}]}


def test_several_routes_move_together() -> None:
    cluster = routed(http_route(), virtual_service(), main_ingress())
    done = weigh(cluster, weight=20, **TWO)
    assert [verb for verb, _ref in cluster.writes] == ["create", "patch", "patch"]
    assert done.after["routes"] == dict.fromkeys(
        ("HTTPRoute shop/web", "VirtualService shop/web", "Ingress shop/web"), {"web": 80, "web-canary": 20}
    )
    assert len(done.actions) == 3 and not weigh(cluster, weight=20, **TWO).changed


class Refusing(FakeCluster):
    """A cluster that refuses to write one kind: in the dry run too, or only when it is meant."""

    def __init__(self, kind: str, error: DeliveryError, dry: bool) -> None:
        super().__init__()
        self.kind, self.error, self.dry = kind, error, dry

    def patch(self, ref: Ref, body: Any, patch_type: str, dry_run: bool = False) -> Any:
        """Refuse it, or do it."""
        if ref.kind == self.kind and (self.dry or not dry_run):
            raise self.error
        return super().patch(ref, body, patch_type, dry_run)


@pytest.mark.parametrize("dry", [True, False], ids=["refused in the dry run", "refused when it is meant"])
def test_where_one_route_is_refused_none_moves(dry: bool) -> None:
    good = routed(http_route(), virtual_service(), main_ingress())
    cluster = Refusing("VirtualService", Forbidden("Not allowed to patch VirtualService shop/web"), dry)
    cluster.groups, cluster._objects = good.groups, good._objects
    before = {ref: entry["spec"] for ref, entry in cluster._objects.items() if "spec" in entry}
    with pytest.raises(Forbidden, match="Not allowed to patch VirtualService") as caught:
        weigh(cluster, weight=20, **TWO)
    assert {ref: entry["spec"] for ref, entry in cluster._objects.items() if "spec" in entry} == before
    assert caught.value.details.get("changed", False) is False
    if not dry:
        assert "taken back: Ingress shop/web-canary, HTTPRoute shop/web" in caught.value.message


def test_a_change_in_between_is_decided_again_and_kept() -> None:
    cluster = routed(http_route())
    ref = Ref("HTTPRoute", "shop", "web")

    def meddle() -> None:
        other = cluster.get(ref)
        other["spec"]["hostnames"].append("other.example.com")
        cluster.put(other)

    cluster.before_patch = meddle
    assert weigh(cluster, weight=20).changed
    spec = cluster.get(ref)["spec"]
    assert spec["hostnames"][1] == "other.example.com" and spec["rules"][1]["backendRefs"][1]["weight"] == 20


def test_a_write_whose_answer_was_lost_is_reported_as_done() -> None:
    cluster = routed(http_route())
    real = cluster.patch

    def lose(ref: Ref, body: Any, patch_type: str, dry_run: bool = False) -> Any:
        cluster.patch = real  # type: ignore[method-assign]
        real(ref, body, patch_type, dry_run)
        raise Conflict("the object has been modified", unsure=True)

    cluster.patch = lose  # type: ignore[method-assign]
    done = weigh(cluster, weight=20)
    assert done.changed and done.after == {"weights": {"web": 80, "web-canary": 20}}
    assert len(cluster.writes) == 1


REFUSED = {
    "101": ({"weight": 101}, "weight must be between 0 and 100, got 101"),
    "-1": ({"weight": -1}, "weight must be between 0 and 100, got -1"),
    "none": ({}, "weight is not set"),
    "absent with a weight": ({"weight": 5, "state": "absent"}, "weight and state absent cannot both be"),
    "one side": ({"weight": 5, "canary": "web"}, 'stable and canary are both "web"'),
    "no name": ({"weight": 5, "name": None}, "name is not set; name the route"),
    "no name in a list": ({"weight": 5, "name": None, "routes": [{"name": "web"}, {}]}, r"routes\[1\] has no name"),
    "no provider": ({"weight": 5, "routes": [{"provider": "nonsense"}]}, 'no provider "nonsense"; provider is one of gateway_api'),
    "no route": ({"weight": 5, "name": "nope"}, "HTTPRoute shop/nope does not exist; HTTPRoutes in namespace shop: web"),
    "no such backend": ({"weight": 5, "stable": "nope"}, 'does not lead to "nope"'),
    "no Service": ({"weight": 5, "canary": "nope"}, "Service shop/nope does not exist, so HTTPRoute shop/web cannot lead to it"),
    "nobody there": ({"weight": 5, "canary": "empty"}, "Service shop/empty has no ready endpoints, so HTTPRoute shop/web stays as it is"),
    "no kind": ({"weight": 5, "provider": "traefik"}, "the cluster has no kind IngressRoute .traefik.io/v1alpha1."),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence_and_changes_nothing(given: dict[str, Any], sentence: str) -> None:
    cluster = routed(http_route())
    cluster.groups.remove("traefik.io")
    cluster.put({"kind": "Service", "metadata": {"name": "empty", "namespace": "shop"}, "spec": {}})
    for check in (True, False):
        with pytest.raises(DeliveryError, match=sentence):
            weigh(cluster, check, **given)
    assert cluster.writes == []


def test_traffic_leaves_a_canary_without_endpoints_and_comes_to_it_only_by_force() -> None:
    cluster = routed(http_route(), canary=0)
    with pytest.raises(DeliveryError, match="no ready endpoints"):
        weigh(cluster, weight=50)
    assert weigh(cluster, weight=50, force=True).changed
    assert weigh(cluster, weight=10).changed and weigh(cluster, weight=0).changed


def test_a_subset_is_made_before_requests_go_to_it() -> None:
    cluster = routed(virtual_service({"host": "web", "subset": "v1"}), destination_rule("v1"))
    given = {"provider": "istio", "stable": "v1", "canary": "v2", "canary_labels": {"version": "v2"}}
    # That others of its Service are ready says nothing of a subset.
    with pytest.raises(DeliveryError, match='subset "v2" of Service shop/web has no ready pods .app=web,version=v2., so VirtualService'):
        weigh(cluster, weight=20, **given)
    assert cluster.writes == []
    for name in ("v1", "v2"):
        cluster.put(pod(name, {"app": "web", "version": name}))
    assert weigh(cluster, weight=20, **given).after == {"weights": {"v1": 80, "v2": 20}}
    assert [ref.kind for _verb, ref in cluster.writes] == ["DestinationRule", "VirtualService"]
    weigh(cluster, state="absent", **given)
    assert [ref.kind for _verb, ref in cluster.writes[2:]] == ["VirtualService", "DestinationRule"]
    assert cluster.get(Ref("DestinationRule", "shop", "web"))["spec"] == destination_rule("v1")["spec"]


@pytest.mark.parametrize(("ages", "slept"), [([60], []), ([0.5], [2.5]), ([60, 60, 0], []), ([60, 1, 0], [2.0]), ([None], [])])
def test_a_router_gets_time_to_know_pods_that_have_just_become_ready(
    ages: list[float | None], slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits = 1_800_000_000.0, []
    monkeypatch.setattr(reading.time, "time", lambda: now)
    monkeypatch.setattr(reading.time, "sleep", waits.append)
    cluster = routed(http_route())
    for number, age in enumerate(ages):
        made = pod(f"c{number}", {"app": "web-canary"})
        if age is not None:
            since = datetime.fromtimestamp(now - age, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            made["status"]["conditions"] = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
        cluster.put(made)
    weigh(cluster, True, weight=20)
    assert waits == []
    weigh(cluster, weight=20)
    # The API's times are whole seconds.
    assert [round(seconds) for seconds in waits] == [round(seconds) for seconds in slept]
    # A side that has requests already is known.
    waits.clear()
    weigh(cluster, weight=50)
    assert waits == []


def test_a_traefik_route_is_weighed_too() -> None:
    cluster = routed(ingress_route())
    assert weigh(cluster, provider="traefik", weight=100).after == {"weights": {"web": 0, "web-canary": 100}}


def test_what_the_controller_will_not_honour_is_refused_but_taking_the_canary_out_is_not() -> None:
    cluster = routed(http_route(), main_ingress(), ingress_class(controller="ingress.k8s.aws/alb"))
    for check in (True, False):
        with pytest.raises(DeliveryError, match="whose controller ingress.k8s.aws/alb does not know the annotations"):
            weigh(cluster, check, weight=5, routes=[{"provider": "gateway_api"}, {"provider": "ingress_nginx"}])
    assert cluster.writes == []
    assert not weigh(cluster, provider="ingress_nginx", weight=0).changed
    assert not weigh(cluster, provider="ingress_nginx", state="absent").changed


def two_rules() -> Any:
    """Return an HTTPRoute with two rules for web."""
    route = http_route()
    rules = route["spec"]["rules"]
    rules.append({"name": "shop", "matches": [{"path": {"value": "/shop"}}], "backendRefs": [{"name": "web", "port": 80, "weight": 1}]})
    rules[1]["name"] = "root"
    return route


def test_two_rules_of_one_route_move_as_one() -> None:
    cluster = routed(two_rules())
    both = {"routes": [{"rule": "root"}, {"rule": "shop"}]}
    spec = cluster.get(Ref("HTTPRoute", "shop", "web"))["spec"]

    def canaries() -> list[Any]:
        rules = cluster.get(Ref("HTTPRoute", "shop", "web"))["spec"]["rules"]
        return [backend.get("weight") for rule in rules for backend in rule["backendRefs"] if backend["name"] == "web-canary"]

    for weight in (50, 0):
        assert weigh(cluster, weight=weight, **both).changed and canaries() == [weight, weight]
        assert not weigh(cluster, weight=weight, **both).changed
    weigh(cluster, weight=50, **both)
    assert weigh(cluster, state="absent", **both).changed and cluster.get(Ref("HTTPRoute", "shop", "web"))["spec"] == spec
    assert [verb for verb, _ref in cluster.writes] == ["patch"] * 4


@pytest.mark.parametrize("provider", ["gateway_api", "istio", "traefik"])
def test_the_way_off_is_open_where_a_third_side_has_come_up(provider: str) -> None:
    cluster = routed(MANIFESTS[provider]())
    ref = Ref(KIND[provider], "shop", "web")
    weigh(cluster, provider=provider, weight=20)
    found = cluster.get(ref)
    place = {"gateway_api": ("rules", "backendRefs"), "istio": ("http", "route"), "traefik": ("routes", "services")}[provider]
    sides = found["spec"][place[0]][1][place[1]]
    third = {"destination": {"host": "other"}, "weight": 10} if provider == "istio" else {"name": "other", "port": 80, "weight": 10}
    sides.append(third)
    cluster.put(found)
    with pytest.raises(DeliveryError, match='also leads to "other"'):
        weigh(cluster, provider=provider, weight=50)
    assert weigh(cluster, provider=provider, weight=0).changed
    sides = cluster.get(ref)["spec"][place[0]][1][place[1]]
    assert [side["weight"] for side in sides] == [100, 0, 10]
    assert weigh(cluster, provider=provider, state="absent").changed
    sides = cluster.get(ref)["spec"][place[0]][1][place[1]]
    assert [side["weight"] for side in sides] == [100, 10]


def test_somebody_elses_canary_of_an_ingress_stays() -> None:
    cluster = routed(main_ingress())
    cluster.put({"kind": "Service", "metadata": {"name": "web-b", "namespace": "shop"}, "spec": {}})
    weigh(cluster, provider="ingress_nginx", canary="web-b", weight=30, force=True)
    twin = cluster.get(Ref("Ingress", "shop", "web-canary"))
    with pytest.raises(DeliveryError, match="Ingress shop/web-canary already leads to web-b, and an Ingress has one canary"):
        weigh(cluster, provider="ingress_nginx", weight=5)
    for given in ({"weight": 0}, {"state": "absent"}):
        found = weigh(cluster, provider="ingress_nginx", **given)
        assert not found.changed and found.before == {"weights": {"web": 100, "web-canary": 0}}
    assert cluster.get(Ref("Ingress", "shop", "web-canary")) == twin


def test_a_weight_is_tied_to_what_was_looked_at() -> None:
    cluster = routed(http_route())
    note = {"progressive.delivery/canary": {"image": "web:2", "phase": "step"}}
    weigh(cluster, weight=5, annotations=note, if_annotations={"progressive.delivery/canary": None})
    assert weigh(cluster, weight=20, if_annotations=note).changed
    weigh(cluster, weight=0, annotations={"progressive.delivery/canary": ""})
    for check in (True, False):
        with pytest.raises(DeliveryError, match="than when it was looked at: somebody else has moved it meanwhile; nothing was changed"):
            weigh(cluster, check, weight=50, if_annotations=note)
