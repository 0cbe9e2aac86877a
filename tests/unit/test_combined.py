# SPDX-License-Identifier: GPL-3.0-or-later
"""An audience, a mirror and a weight on one route: whichever came first, each is set and ended as if it were alone."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import routing
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import mirror_traffic, route_info, set_audience, set_canary_weight
from support.fake import FakeCluster
from support.objects import pod
from support.routes import MANIFESTS, destination_rule, http_route, ingress_route, routed, side, virtual_service

KIND = {"gateway_api": "HTTPRoute", "istio": "VirtualService", "traefik": "IngressRoute"}
RULES = {"gateway_api": "rules", "istio": "http", "traefik": "routes"}
STEPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "audience": (set_audience, {"variant": "web-canary", "headers": {"X-Beta": "yes"}, "cookies": {"lang": "de"}}),
    "share": (set_audience, {"variant": "web-canary", "weight": 20}),
    "mirror": (mirror_traffic, {"to": "web-shadow", "percent": 50}),
    "reads": (mirror_traffic, {"to": "web-shadow", "percent": 50, "methods": ["GET", "HEAD"]}),
    "weight": (set_canary_weight, {"canary": "web-canary", "weight": 30}),
}
SETTINGS = ("headers", "cookies", "percent", "methods", "weight")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake has no router that would have to hear of one object before the other."""
    monkeypatch.setattr(routing, "SETTLE", 0)


def shop(provider: str) -> FakeCluster:
    """Return a cluster with a route, both sides and a shadow."""
    cluster = routed(MANIFESTS[provider]())
    for manifest in side("web-shadow"):
        cluster.put(manifest)
    return cluster


def run(cluster: FakeCluster, provider: str, name: str, check: bool = False, **more: Any) -> Any:
    """Run one of the steps, as it is in STEPS and with what is more."""
    step, given = STEPS[name]
    defaults = {key: entry.get("default") for key, entry in argument_spec(step.OPTIONS).items()}
    where = {"namespace": "shop", "name": "web", "stable": "web", "provider": provider}
    return step.execute({**defaults, **where, **given, **more}, cluster, check)


def end(cluster: FakeCluster, provider: str, name: str) -> Any:
    """Run one of the steps with state absent."""
    return run(cluster, provider, name, state="absent", **dict.fromkeys(SETTINGS))


def contents(cluster: FakeCluster) -> dict[Ref, Any]:
    """Return what is in the cluster, without what the API server writes in it."""
    return {ref: (entry.get("spec"), entry["metadata"].get("annotations") or {}) for ref, entry in cluster._objects.items()}


def meaning(cluster: FakeCluster, provider: str) -> list[Any]:
    """Return who gets what by each rule, in an order that does not depend on which was made first."""
    ref = Ref(KIND[provider], "shop", "web")
    options = {"namespace": "shop", "name": "web", "stable": "web", "canary": "web-canary"}
    route = routing.Route.listed({**options, "provider": provider}, "web", "web-canary")[0]
    rules = route.rules(route.read(cluster))
    found = [
        (rule.conditions, sorted(rule.weights.items()), [{key: each[key] for key in ("to", "percent")} for each in rule.mirrors])
        for rule in rules
    ]
    entries = cluster.get(ref)["spec"][RULES[provider]]
    own = [{key: entry[key] for key in ("match", "matches", "priority") if key in entry} for entry in entries]
    return sorted(json.dumps(each, sort_keys=True) for each in zip(found, own, strict=True))


COMBINED = [
    order
    for names in (("audience", "mirror"), ("audience", "reads"), ("share", "mirror"), ("share", "reads"))
    for order in itertools.permutations(names)
]
COMBINED += [
    order for names in (("audience", "mirror", "weight"), ("audience", "reads", "weight")) for order in itertools.permutations(names)
]
ENDS = {"forwards": lambda order: order, "backwards": lambda order: order[::-1]}


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("order", COMBINED, ids="-".join)
@pytest.mark.parametrize("provider", KIND)
def test_each_is_set_and_ended_whatever_else_is_on(provider: str, order: tuple[str, ...], ends: Any) -> None:
    cluster = shop(provider)
    states = [contents(cluster)]
    for name in order:
        foreseen = run(cluster, provider, name, check=True)
        assert contents(cluster) == states[-1]
        done = run(cluster, provider, name)
        assert done.changed and (foreseen.before, foreseen.after) == (done.before, done.after)
        states.append(contents(cluster))
    for name in order:
        again = run(cluster, provider, name)
        assert not again.changed and again.before == again.after
    other = shop(provider)
    for name in sorted(order):
        run(other, provider, name)
    assert meaning(cluster, provider) == meaning(other, provider)
    for number, name in enumerate(ends(order)):
        left = [run(cluster, provider, each, check=True) for each in ends(order)[number + 1 :]]
        assert end(cluster, provider, name).changed and not end(cluster, provider, name).changed
        after = [run(cluster, provider, each, check=True) for each in ends(order)[number + 1 :]]
        assert not any(each.changed for each in after) and [each.after for each in left] == [each.after for each in after]
        if ends(order) != order:
            assert contents(cluster) == states[-2 - number]
    assert contents(cluster) == states[0]


@pytest.mark.parametrize("mirror", ["mirror", "reads"])
@pytest.mark.parametrize("audience", ["audience", "share"])
@pytest.mark.parametrize("provider", KIND)
def test_every_request_is_mirrored_and_every_member_of_the_audience_gets_the_variant(provider: str, audience: str, mirror: str) -> None:
    for order in ((audience, mirror), (mirror, audience)):
        cluster = shop(provider)
        for name in order:
            run(cluster, provider, name)
        told = meaning(cluster, provider)
        mine = [words for words in told if '"web"' in words or '"web-canary"' in words]
        mirrored = [words for words in mine if "web-shadow" in words]
        # What a mirror is for is there with and without its methods; each rule of it copies.
        assert len(mirrored) == (len(mine) // 2 if mirror == "reads" else len(mine))
        found = run(cluster, provider, audience)
        assert found.after["audience"] == (
            ["20 % of the users, kept by cookie variant"]
            if audience == "share"
            else [f"header {'x-beta' if provider == 'istio' else 'X-Beta'}=yes", "cookie lang=de"]
        )


@pytest.mark.parametrize("mirror", ["mirror", "reads"])
@pytest.mark.parametrize("provider", KIND)
def test_all_three_change_while_the_others_are_on(provider: str, mirror: str) -> None:
    cluster = shop(provider)
    before = contents(cluster)
    for name in ("weight", mirror, "audience"):
        run(cluster, provider, name)
    assert run(cluster, provider, "weight", weight=5).after["weights"] == {"web": 95, "web-canary": 5}
    assert run(cluster, provider, mirror, percent=7).after["mirror"]["percent"] == 7
    assert run(cluster, provider, "reads", percent=7, methods=["GET"]).changed
    assert run(cluster, provider, "audience", headers={"X-Beta": "no"}).changed
    assert run(cluster, provider, "mirror", percent=7).after["mirror"] == {"to": "web-shadow", "percent": 7}
    for name, more in (("weight", {"weight": 5}), ("mirror", {"percent": 7}), ("audience", {"headers": {"X-Beta": "no"}})):
        assert not run(cluster, provider, name, **more).changed
    for name in ("audience", "weight", "mirror"):
        end(cluster, provider, name)
    assert contents(cluster) == before


@pytest.mark.parametrize("provider", KIND)
def test_a_share_that_grows_under_a_mirror_and_a_weight_that_is_ended_under_a_share(provider: str) -> None:
    cluster = shop(provider)
    before = contents(cluster)
    for name in ("share", "reads"):
        run(cluster, provider, name)
    run(cluster, provider, "share", weight=60)
    assert run(cluster, provider, "weight", check=True).before["weights"] == {"web": 40, "web-canary": 60}
    assert not run(cluster, provider, "reads").changed
    run(cluster, provider, "weight", weight=70)
    assert run(cluster, provider, "share", weight=70).changed is False
    end(cluster, provider, "weight")
    end(cluster, provider, "reads")
    end(cluster, provider, "share")
    assert contents(cluster) == before


@pytest.mark.parametrize("provider", KIND)
def test_foreign_rules_stay_as_they_are_under_all_of_it(provider: str) -> None:
    cluster = shop(provider)
    ref = Ref(KIND[provider], "shop", "web")
    foreign = [entry for entry in cluster.get(ref)["spec"][RULES[provider]] if "'web'" not in str(entry) and "web.shop" not in str(entry)]
    for name in ("audience", "reads", "weight"):
        run(cluster, provider, name)
        assert [entry for entry in cluster.get(ref)["spec"][RULES[provider]] if entry in foreign] == foreign


@pytest.mark.parametrize("provider", KIND)
def test_a_rule_has_the_same_number_for_each_step_of_the_same_sides(provider: str) -> None:
    cluster = shop(provider)
    for name in ("reads", "share", "weight"):
        assert run(cluster, provider, name, rule="1").changed
    assert not run(cluster, provider, "weight", rule="1").changed


def test_a_rule_of_others_that_picks_by_header_is_not_mirrored_and_what_somebody_changed_loses_the_mirror_alone() -> None:
    route = http_route()
    theirs = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"type": "Exact", "name": "X-Beta", "value": "no"}]}]}
    route["spec"]["rules"].insert(1, {**theirs, "backendRefs": [{"name": "old", "port": 80}]})
    cluster, ref = routed(route, *side("web-shadow")), Ref("HTTPRoute", "shop", "web")
    run(cluster, "gateway_api", "mirror")
    run(cluster, "gateway_api", "audience")
    assert cluster.get(ref)["spec"]["rules"][1] == route["spec"]["rules"][1]
    changed = cluster.get(ref)
    changed["spec"]["rules"][2]["timeouts"] = {"request": "99s"}
    cluster.put(changed)
    end(cluster, "gateway_api", "mirror")
    rule = cluster.get(ref)["spec"]["rules"][2]
    assert rule["timeouts"] == {"request": "99s"} and "web-shadow" not in str(cluster.get(ref)["spec"])


@pytest.mark.parametrize("provider", KIND)
def test_who_answers_an_audience_is_no_shadow(provider: str) -> None:
    cluster = shop(provider)
    run(cluster, provider, "audience")
    with pytest.raises(DeliveryError, match='sends requests to "web-canary" whose answers reach people'):
        run(cluster, provider, "mirror", to="web-canary")


@pytest.mark.parametrize("provider", KIND)
def test_route_info_tells_all_of_it(provider: str) -> None:
    cluster = shop(provider)
    for name in ("weight", "audience", "reads"):
        run(cluster, provider, name)
    defaults = {key: entry.get("default") for key, entry in argument_spec(route_info.OPTIONS).items()}
    sides = {"stable": "web", "canary": "web-canary"}
    told = route_info.execute({**defaults, "namespace": "shop", "name": "web", "provider": provider, **sides}, cluster, False).extra
    assert told["split"] == {"web": 70, "web-canary": 30}
    assert [match["to"] for match in told["matches"]] == ["web-canary"]
    assert told["mirror"] == {"to": "web-shadow", "percent": 50, "methods": ["GET", "HEAD"]}


def test_subsets_of_istio_have_all_of_it_too() -> None:
    cluster = routed(virtual_service({"host": "web", "subset": "v1"}), destination_rule("v1", "v2"))
    for name in ("v1", "v2"):
        cluster.put(pod(name, {"app": "web", "version": name}))
    for manifest in side("web-shadow"):
        cluster.put(manifest)
    before = contents(cluster)
    given = {"audience": {"variant": "v2"}, "reads": {}, "weight": {"canary": "v2"}}
    for name, more in given.items():
        assert run(cluster, "istio", name, **{"stable": "v1", **more}).changed
    for name, more in given.items():
        assert not run(cluster, "istio", name, **{"stable": "v1", **more}).changed
    for name, more in given.items():
        run(cluster, "istio", name, **{"stable": "v1", **more, **dict.fromkeys(SETTINGS), "state": "absent"})
    assert contents(cluster) == before


# TraefikServices


def to_one_of_somebody_else() -> FakeCluster:
    """Return a cluster whose IngressRoute leads to a TraefikService of somebody else."""
    route = ingress_route()
    route["spec"]["routes"][1]["services"] = [{"name": "split", "kind": "TraefikService"}]
    services = [{"name": "web", "port": 80, "weight": 90}]
    theirs = {
        "kind": "TraefikService",
        "metadata": {"name": "split", "namespace": "shop"},
        "spec": {"weighted": {"services": services[:1]}},
    }
    return routed(route, theirs, *side("web-shadow"))


def test_an_audience_is_picked_from_a_traefik_service_of_somebody_else_and_a_share_is_refused() -> None:
    cluster = to_one_of_somebody_else()
    before = contents(cluster)
    for name in ("audience", "mirror"):
        run(cluster, "traefik", name)
    assert contents(cluster)[Ref("TraefikService", "shop", "split")] == before[Ref("TraefikService", "shop", "split")]
    for name in ("audience", "mirror"):
        assert end(cluster, "traefik", name).changed
    assert contents(cluster) == before
    with pytest.raises(DeliveryError, match="leads to TraefikService split, of somebody else, which shares the requests itself"):
        run(cluster, "traefik", "share")


def test_what_a_route_leads_to_is_never_made_something_else_under_it() -> None:
    cluster = shop("traefik")
    for name in ("mirror", "audience", "reads", "share", "mirror", "audience"):
        before = {ref: entry for ref, entry in contents(cluster).items() if ref.kind == "TraefikService"}
        cluster.writes.clear()
        run(cluster, "traefik", name)
        for verb, ref in cluster.writes:
            if ref.kind == "TraefikService" and verb == "patch":
                spec = contents(cluster)[ref][0]
                # A mirror that is changed leads to the same, or to a share of it; nobody gets the variant alone by it.
                assert spec.keys() == before[ref][0].keys(), (name, ref)
                assert "web-canary" not in str(spec.get("weighted")) or "'web'" in str(spec["weighted"])


def test_a_name_that_somebody_has_is_left_to_them() -> None:
    cluster = shop("traefik")
    theirs = {"kind": "TraefikService", "metadata": {"name": "web-audience", "namespace": "shop"}, "spec": {"weighted": {"services": []}}}
    cluster.put(theirs)
    before = contents(cluster)
    run(cluster, "traefik", "share")
    assert cluster.get(Ref("IngressRoute", "shop", "web"))["spec"]["routes"][1]["services"] == [
        {"name": "web-audience-2", "kind": "TraefikService"}
    ]
    end(cluster, "traefik", "share")
    assert contents(cluster) == before


def test_rules_that_lead_to_stable_in_different_ways_have_a_share_each() -> None:
    cluster = shop("traefik")
    ref = Ref("IngressRoute", "shop", "web")
    route = cluster.get(ref)
    route["spec"]["routes"][0]["services"] = [{"name": "web", "port": 8080}]
    cluster.put(route)
    before = contents(cluster)
    run(cluster, "traefik", "share", rule_path="/")
    run(cluster, "traefik", "share", rule_path="/api", weight=40)
    assert not run(cluster, "traefik", "share", rule_path="/").changed
    names = [entry["services"][0]["name"] for entry in cluster.get(ref)["spec"]["routes"]]
    assert names == ["web-audience-2", "web-audience"]
    for path in ("/", "/api"):
        run(cluster, "traefik", "share", rule_path=path, state="absent", weight=None)
    assert contents(cluster) == before
