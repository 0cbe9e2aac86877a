# SPDX-License-Identifier: GPL-3.0-or-later
"""Colours on the routers, and what route_info tells of any route."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import route_info, set_canary_weight, switch_color
from support.fake import FakeCluster
from support.objects import deployment, pod
from support.routes import destination_rule, http_route, ingress_class, ingress_route, main_ingress, routed, virtual_service

Manifest = dict[str, Any]
BLUE, GREEN = {"app": "web", "version": "blue"}, {"app": "web", "version": "green"}
KINDS = {"gateway_api": "HTTPRoute", "ingress": "Ingress", "istio": "VirtualService", "traefik": "IngressRoute"}


def run(step: Any, cluster: FakeCluster, check: bool = False, **given: Any) -> Any:
    """Run a step with its defaults on the route web."""
    spec = argument_spec(step.OPTIONS)
    defaults = {key: entry.get("default") for key, entry in spec.items()}
    return step.execute({**defaults, "namespace": "shop", "name": "web", **given}, cluster, check)


def renamed(manifest: Manifest, old: str, new: str) -> Manifest:
    """Return a manifest in which a Service has another name."""
    return _renamed(copy.deepcopy(manifest), old, new)


def _renamed(value: Any, old: str, new: str) -> Any:
    """Return a value in which the names and hosts that are a Service's are another's."""
    if isinstance(value, dict):
        return {key: entry if key == "metadata" else _renamed(entry, old, new) for key, entry in value.items()}
    if isinstance(value, list):
        return [_renamed(entry, old, new) for entry in value]
    return new + value[len(old) :] if value in (old, f"{old}.shop.svc.cluster.local") else value


ROUTES: dict[str, Callable[[], Manifest]] = {
    "gateway_api": lambda: renamed(http_route(), "web", "web-blue"),
    "ingress": lambda: renamed(main_ingress(), "web", "web-blue"),
    "istio": lambda: renamed(virtual_service(), "web", "web-blue"),
    "traefik": lambda: renamed(ingress_route(), "web", "web-blue"),
}


def colored(*routes: Manifest) -> FakeCluster:
    """Return a cluster with a blue and a green Deployment, their pods and Services, and routes."""
    cluster = routed(*routes)
    for number, (color, labels) in enumerate((("blue", BLUE), ("green", GREEN))):
        cluster.put(deployment(f"web-{color}", color))
        cluster.put(pod(color, labels, address=f"10.0.1.{number}"))
        spec = {"selector": labels, "ports": [{"name": "http", "port": 80}]}
        cluster.put({"kind": "Service", "metadata": {"name": f"web-{color}", "namespace": "shop"}, "spec": spec})
    for name in ("api", "old"):
        cluster.put({"kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": {"app": name}}})
    return cluster


GO = {"color": "green", "min_ready": 1}


@pytest.mark.parametrize("provider", ROUTES)
def test_a_route_is_switched_once_and_back_and_check_mode_predicts_it(provider: str) -> None:
    cluster = colored(ROUTES[provider]())
    ref = Ref(KINDS[provider], "shop", "web")
    before = cluster.get(ref)
    foreseen = run(switch_color, cluster, True, provider=provider, **GO)
    assert cluster.writes == [] and foreseen.after == {"color": "green"}
    done = run(switch_color, cluster, provider=provider, **GO)
    assert (done.before, done.after, done.actions) == (foreseen.before, foreseen.after, foreseen.actions)
    assert done.actions == (f"switched {ref} from blue to green",) and cluster.writes == [("patch", ref)]
    # All that is different is the name of the one Service.
    after = cluster.get(ref)
    assert _renamed(after["spec"], "web-green", "web-blue") == before["spec"] and after["spec"] != before["spec"]
    assert not run(switch_color, cluster, provider=provider, **GO).changed
    assert run(switch_color, cluster, provider=provider, color="blue", if_color="green", min_ready=1).changed
    assert cluster.get(ref)["spec"] == before["spec"]


def subsets() -> FakeCluster:
    """Return a cluster whose VirtualService leads to the subset v1 of the host web."""
    cluster = colored(virtual_service({"host": "web", "subset": "v1"}))
    rule = destination_rule()
    rule["spec"]["subsets"] = [{"name": "v1", "labels": {"version": "blue"}}, {"name": "v2", "labels": {"version": "green"}}]
    cluster.put(rule)
    cluster.put({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"selector": {"app": "web"}}})
    return cluster


@pytest.mark.parametrize("given", [{}, {"services": {"blue": "v1", "green": "v2"}}], ids=["found", "named"])
def test_two_subsets_of_a_host_are_colors_too(given: dict[str, Any]) -> None:
    cluster = subsets()
    assert run(switch_color, cluster, provider="istio", **GO, **given).changed
    route = cluster.get(Ref("VirtualService", "shop", "web"))["spec"]["http"][1]["route"]
    assert route == [{"destination": {"host": "web", "subset": "v2"}}]
    told = run(route_info, cluster, provider="istio", rule="1", color_label="version").extra
    assert told["color"] == "green" and told["services"] == {"blue": "web/v1", "green": "web/v2"}
    assert told["backends"] == {"v2": {"service": "web", "exists": True, "ready": 1}} and told["colors"]["green"]["ready"] == 1


def weighed(provider: str, weight: int) -> FakeCluster:
    """Return a cluster whose route sends so many percent to green."""
    cluster = colored(ROUTES[provider]())
    sides = {"stable": "web-blue", "canary": "web-green", "force": True}
    run(set_canary_weight, cluster, provider=provider, weight=1, **sides)
    run(set_canary_weight, cluster, provider=provider, weight=weight, **sides)
    cluster.writes.clear()
    return cluster


@pytest.mark.parametrize("provider", ["gateway_api", "istio", "traefik"])
def test_a_canary_on_its_way_is_refused_and_one_that_is_over_changes_places(provider: str) -> None:
    with pytest.raises(DeliveryError, match="between several colors .web-blue 90, web-green 10., so there is a canary on its way"):
        run(switch_color, weighed(provider, 10), provider=provider, **GO)
    cluster = weighed(provider, 0)
    assert run(switch_color, cluster, provider=provider, **GO).changed
    told = run(route_info, cluster, provider=provider, rule_path="/").extra
    assert told["split"] == {"web-green": 100, "web-blue": 0}
    assert not run(switch_color, cluster, provider=provider, **GO).changed
    promoted = weighed(provider, 100)
    assert not run(switch_color, promoted, provider=provider, **GO).changed
    assert run(switch_color, promoted, provider=provider, color="blue", min_ready=1).changed


def two_rules() -> Manifest:
    """Return an HTTPRoute with two rules that lead to blue."""
    made = ROUTES["gateway_api"]()
    made["spec"]["rules"][0]["backendRefs"][0]["name"] = "web-blue"
    made["spec"]["rules"][0]["name"] = "first"
    return made


def test_one_rule_of_several_is_switched_by_its_name_or_number() -> None:
    cluster = colored(two_rules())
    assert run(switch_color, cluster, provider="gateway_api", rule="first", **GO).changed
    with pytest.raises(DeliveryError, match="several colors .*choose one backend with rule, rule_host or rule_path"):
        run(switch_color, cluster, provider="gateway_api", **GO)
    told = run(route_info, cluster, provider="gateway_api", rule="1", color_label="version").extra
    assert told["color"] == "blue" and told["others"] == {"green": ["shop.example.com/api"]}
    assert run(switch_color, cluster, provider="gateway_api", rule="1", **GO).changed
    assert not run(switch_color, cluster, provider="gateway_api", **GO).changed


def without_port() -> FakeCluster:
    """Return a cluster whose green Service has another port."""
    cluster = colored(ROUTES["gateway_api"]())
    cluster.put({"kind": "Service", "metadata": {"name": "web-green", "namespace": "shop"}, "spec": {"selector": GREEN, "ports": []}})
    return cluster


def unaccepted() -> FakeCluster:
    """Return a cluster whose HTTPRoute no parent accepts."""
    route = ROUTES["gateway_api"]()
    route["status"]["parents"][0]["conditions"][0].update(status="False", reason="NotAllowedByListeners")
    return colored(route)


REFUSED: dict[str, tuple[Callable[[], FakeCluster], dict[str, Any], str]] = {
    "no such color": (lambda: colored(ROUTES["gateway_api"]()), {"color": "red"}, 'no Service has color "red"'),
    "no such rule": (lambda: colored(ROUTES["gateway_api"]()), {"rule": "9"}, "no backend for rule 9, host . and path /; it has: shop"),
    "no such port": (without_port, {}, "asks for port 80, and Service web-green has none"),
    "not accepted": (unaccepted, {}, "is accepted by no parent, so it gets no requests"),
    "a rule for a Service": (
        lambda: colored(),
        {"provider": "service", "name": "web-blue", "rule": "0"},
        "are for the providers of routes",
    ),
    "no kind": (colored, {"provider": "gateway_api"}, "HTTPRoute shop/web does not exist"),
    "a wrong Service": (
        lambda: colored(ROUTES["gateway_api"]()),
        {"services": {"blue": "web-blue", "green": "nope"}},
        'Service shop/nope, which services names for color "green", does not exist',
    ),
}


@pytest.mark.parametrize(("make", "given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_switched_is_refused_in_one_sentence(make: Any, given: dict[str, Any], sentence: str) -> None:
    cluster = make()
    for check in (True, False):
        with pytest.raises(DeliveryError, match=sentence):
            run(switch_color, cluster, check, **{"provider": "gateway_api", **GO, **given})
    assert cluster.writes == []


def test_a_way_back_does_not_depend_on_the_controller() -> None:
    assert run(switch_color, unaccepted(), provider="gateway_api", check_controller=False, **GO).changed


# -- route_info ------------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[], Manifest]] = {
    "gateway_api": http_route,
    "ingress_nginx": main_ingress,
    "istio": virtual_service,
    "traefik": ingress_route,
}


@pytest.mark.parametrize("provider", MAKERS)
def test_a_split_is_told_with_and_without_its_sides(provider: str) -> None:
    cluster = routed(MAKERS[provider]())
    chosen = {"provider": provider, "rule_path": "/"}
    alone = run(route_info, cluster, **chosen).extra
    assert alone["split"] == {"web": 100} and alone["backends"] == {"web": {"service": "web", "exists": True, "ready": 1}}
    run(set_canary_weight, cluster, provider=provider, stable="web", canary="web-canary", weight=20)
    cluster.writes.clear()
    for sides in ({}, {"stable": "web"}, {"stable": "web", "canary": "web-canary"}):
        told = run(route_info, cluster, **chosen, **sides).extra
        assert told["split"] == {"web": 80, "web-canary": 20}
        assert told["backends"]["web-canary"] == {"service": "web-canary", "exists": True, "ready": 1}
        assert told["matches"] == [] and told["mirror"] is None and told["provider"] == provider
        assert [rule["rule"] for rule in told["rules"] if rule["chosen"]] == [1]
        assert told["summary"][0].endswith("web 80 % (1 ready), web-canary 20 % (1 ready)")
    assert cluster.writes == []


def test_several_rules_are_listed_so_that_one_can_be_named() -> None:
    told = run(route_info, routed(http_route()), provider="gateway_api").extra
    assert told["split"] == {} and [rule["path"] for rule in told["rules"]] == ["/api", "/", "/old"]
    assert told["summary"] == [
        "HTTPRoute shop/web has several rules; name one with rule, rule_host or rule_path:",
        "  rule 0 (shop.example.com /api -> api)",
        "  rule 1 (shop.example.com / -> web)",
        "  rule 2 (shop.example.com /old -> old)",
        "  served by nobody knows whom, which accepts it",
    ]


def test_matches_and_copies_are_told() -> None:
    route = http_route()
    plain = route["spec"]["rules"][1]
    plain["filters"].append({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shadow"}, "percent": 50}})
    audience = {"matches": [{"headers": [{"name": "x-canary", "value": "always"}]}], "backendRefs": [{"name": "web-canary", "port": 80}]}
    route["spec"]["rules"] = [audience, plain]
    told = run(route_info, routed(route), provider="gateway_api").extra
    assert told["mirror"] == {"to": "shadow", "percent": 50} and told["backends"]["shadow"]["exists"] is False
    assert [match["to"] for match in told["matches"]] == ["web-canary"] and "x-canary" in told["matches"][0]["conditions"][0]
    assert told["split"]["web"] == 100
    assert "  copies of 50 % -> shadow" in told["summary"]


def test_who_else_has_a_canary_s_share_by_annotations_is_told() -> None:
    other = main_ingress(name="other")
    cluster = routed(main_ingress(), other)
    run(set_canary_weight, cluster, provider="ingress_nginx", stable="web", canary="web-canary", weight=20)
    told = run(route_info, cluster, provider="ingress_nginx", rule="1").extra
    assert told["controller"]["notes"][-1] == "Ingress other leads to web too, and the share of a canary counts there as well"
    assert told["summary"][-1].startswith("  note: Ingress other leads to web too")


REFUSED_INFO = {
    "no such rule": ({"rule": "9"}, "HTTPRoute shop/web has no rule for rule 9; its rules are: 0 "),
    "no such side": ({"stable": "nope"}, 'HTTPRoute shop/web does not lead to "nope"; correct stable; its rules are: 0 '),
    "half of the sides": ({"canary": "web"}, "canary is set and stable is not"),
    "no route": ({"name": "nope"}, "HTTPRoute shop/nope does not exist; HTTPRoutes in namespace shop: web"),
    "no color": ({"color_label": "version"}, "no label|does not exist"),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED_INFO.values(), ids=REFUSED_INFO)
def test_what_is_not_there_is_said(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeliveryError, match=sentence):
        run(route_info, routed(http_route()), **{"provider": "gateway_api", **given})


@pytest.mark.parametrize("provider", MAKERS)
def test_auto_finds_the_only_route_to_a_service(provider: str) -> None:
    cluster = routed({**MAKERS[provider](), "metadata": {"name": "public", "namespace": "shop"}})
    told = run(route_info, cluster, provider="auto").extra
    assert [(entry["provider"], entry["name"], entry["rules"]) for entry in told["routes"]] == [(provider, "public", ["1"])]
    assert told["provider"] == provider and told["split"] == {"web": 100}


def test_auto_lists_several_and_leaves_a_canary_s_ingress_out() -> None:
    cluster = routed(http_route("one"), main_ingress(), ingress_route("two"))
    run(set_canary_weight, cluster, provider="ingress_nginx", stable="web", canary="web-canary", weight=20)
    told = run(route_info, cluster, provider="auto").extra
    assert [entry["words"] for entry in told["routes"]] == [
        "HTTPRoute shop/one, provider gateway_api, rule 1 (shop.example.com/)",
        "Ingress shop/web, provider ingress_nginx, rule 1 (shop.example.com/)",
        "IngressRoute shop/two, provider traefik, rule 1 (shop.example.com/)",
    ]
    assert told["provider"] is None and told["summary"][0] == "3 routes lead to Service shop/web:"


def test_auto_takes_an_ingress_without_these_annotations_as_a_plain_one() -> None:
    cluster = colored(ROUTES["ingress"](), ingress_class(controller="ingress.k8s.aws/alb"))
    told = run(route_info, cluster, provider="auto", name="web-blue").extra
    assert told["provider"] == "ingress" and told["color"] == "blue" and told["routes"][0]["provider"] == "ingress"


def test_auto_takes_a_service_of_colors_where_no_route_leads_to_it() -> None:
    told = run(route_info, colored(), provider="auto", name="web-blue").extra
    assert told["provider"] == "service" and told["color"] == "blue" and told["routes"] == []
    with pytest.raises(DeliveryError, match="no route in namespace shop leads to Service shop/api, and it has no color of its own"):
        run(route_info, colored(), provider="auto", name="api")


def test_what_may_not_be_listed_is_said() -> None:
    cluster = routed(http_route("one"), http_route("two"))
    cluster.forbidden.add("IngressRoute")
    told = run(route_info, cluster, provider="auto").extra
    assert told["summary"][-1].startswith("  not looked at: ingressroutes (Not allowed")
