# SPDX-License-Identifier: GPL-3.0-or-later
"""set_audience: on every router, once, predicted, taken back whole, foreign rules kept; and what it refuses."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.routes import audiences, ingress_nginx
from ansible_collections.progressive.delivery.plugins.module_utils.routes.registry import router
from ansible_collections.progressive.delivery.plugins.module_utils.routes.rules import Condition, Sides
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import set_audience, set_canary_weight
from support.fake import FakeCluster
from support.objects import pod
from support.routes import MANIFESTS as EVERY_MANIFEST
from support.routes import destination_rule, http_route, ingress_route, main_ingress, virtual_service
from support.routes import routed as without_gateway

KIND = {"gateway_api": "HTTPRoute", "ingress_nginx": "Ingress", "istio": "VirtualService", "traefik": "IngressRoute"}


def lone_ingress(**meta: Any) -> Any:
    """Return an Ingress whose foreign path has a host of its own."""
    found = main_ingress(**meta)
    paths = found["spec"]["rules"][0]["http"]["paths"]
    found["spec"]["rules"].insert(0, {"host": "api.example.com", "http": {"paths": [paths.pop(0)]}})
    return found


def routed(*manifests: Any, canary: int = 1) -> FakeCluster:
    """Return a cluster with these routes, and the Gateway of those that name one."""
    gateway = {"kind": "Gateway", "metadata": {"name": "public", "namespace": "gateways"}, "spec": {"gatewayClassName": "some"}}
    return without_gateway(gateway, {"kind": "GatewayClass", "metadata": {"name": "some"}}, *manifests, canary=canary)


MANIFESTS = {**EVERY_MANIFEST, "ingress_nginx": lone_ingress}
RULED = [provider for provider in MANIFESTS if provider != "ingress_nginx"]


def run(step: Any, cluster: FakeCluster, check: bool, **given: Any) -> Any:
    """Run a step with its defaults."""
    defaults = {key: entry.get("default") for key, entry in argument_spec(step.OPTIONS).items()}
    return step.execute({**defaults, "name": "web", "stable": "web", "namespace": "shop", **given}, cluster, check)


def aim(cluster: FakeCluster, check: bool = False, **given: Any) -> Any:
    """Run set_audience with the usual sides."""
    return run(set_audience, cluster, check, **{"variant": "web-canary", **given})


ASKED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "header": ({"headers": {"X-Beta": "yes"}}, ["header X-Beta=yes"]),
    "header there": ({"headers": {"X-Beta": None}}, ["header X-Beta"]),
    "header regex": ({"headers": {"X-Beta": {"regex": "y.*|on"}}}, ["header X-Beta~y.*|on"]),
    "cookie": ({"cookies": {"beta": "always"}}, ["cookie beta=always"]),
    "share": ({"weight": 20}, ["20 % of the users, kept by cookie variant"]),
}
RULED_ALONE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "cookie there": ({"cookies": {"beta": None}}, ["cookie beta"]),
    "cookie regex": ({"cookies": {"beta": {"regex": "^v[^0-9].*$"}}}, ["cookie beta~v[^0-9].*"]),
    "two cookies": ({"cookies": {"beta": "a+b", "lang": {"regex": "d.|fr"}}}, ["cookie beta=a+b", "cookie lang~d.|fr"]),
    "query": ({"query": {"beta": "1"}}, ["query beta=1"]),
    "query there": ({"query": {"beta": None}}, ["query beta"]),
    "all": (
        {"headers": {"X-Beta": {"exact": "yes"}}, "cookies": {"lang": "de"}, "query": {"v": {"regex": "[0-9]+"}}},
        ["header X-Beta=yes", "query v~[0-9]+", "cookie lang=de"],
    ),
}
CASES = [(provider, *case) for provider in MANIFESTS for case in ASKED.values()]
CASES += [(provider, *case) for provider in RULED for case in RULED_ALONE.values()]


@pytest.mark.parametrize(("provider", "given", "words"), CASES)
def test_an_audience_is_set_once_as_predicted_and_goes_whole(provider: str, given: dict[str, Any], words: list[str]) -> None:
    cluster = routed(MANIFESTS[provider]())
    ref = Ref(KIND[provider], "shop", "web")
    before = {key: copy.deepcopy(entry) for key, entry in cluster._objects.items()}
    foreseen = aim(cluster, True, provider=provider, **given)
    assert cluster.writes == []
    done = aim(cluster, provider=provider, **given)
    assert (foreseen.changed, foreseen.before, foreseen.after, foreseen.actions) == (True, done.before, done.after, done.actions)
    said = [word.lower() for word in done.after["audience"]]
    assert sorted(said) == sorted(word.lower() for word in words) and done.extra["audience"] == done.after["audience"]
    assert done.before == {"audience": [], "variant": "web-canary"}
    writes = len(cluster.writes)
    assert not aim(cluster, provider=provider, **given).changed and len(cluster.writes) == writes
    # Another audience takes the place of this one.
    other = aim(cluster, provider=provider, headers={"X-Other": "1"})
    assert other.changed and other.before == done.after and [word.lower() for word in other.after["audience"]] == ["header x-other=1"]
    gone = aim(cluster, provider=provider, state="absent")
    assert gone.changed and gone.after == done.before and gone.actions == (f"took the audience of web-canary out of {ref}",)
    assert {key: entry.get("spec") for key, entry in cluster._objects.items()} == {key: entry.get("spec") for key, entry in before.items()}
    assert cluster.get(ref)["metadata"]["annotations"] == {"team": "shop"}
    assert not aim(cluster, provider=provider, state="absent").changed


@pytest.mark.parametrize("provider", RULED)
def test_a_share_that_changes_keeps_who_is_kept(provider: str) -> None:
    cluster = routed(MANIFESTS[provider]())
    aim(cluster, provider=provider, weight=20, cookie="ab")
    done = aim(cluster, provider=provider, weight=50, cookie="ab")
    assert done.after["audience"] == ["50 % of the users, kept by cookie ab"] and done.before["audience"][0].startswith("20 %")
    found = router(provider).split(Ref(KIND[provider], "shop", "web"), _documents(cluster), Sides("web", "web-canary"))
    assert found.matches == ({"conditions": ["cookie ab=web-canary"], "to": "web-canary"}, {"conditions": ["cookie ab=web"], "to": "web"})
    assert found.weights == {"web": 50.0, "web-canary": 50.0}


def _documents(cluster: FakeCluster) -> dict[Ref, Any]:
    """Return all that is on the cluster."""
    return {ref: cluster.get(ref) for ref in cluster._objects}


def test_a_rule_of_the_gateway_api_is_a_copy_that_asks_for_more() -> None:
    cluster = routed(http_route())
    aim(cluster, headers={"X-Beta": "yes"})
    rules = cluster.get(Ref("HTTPRoute", "shop", "web"))["spec"]["rules"]
    foreign = http_route()["spec"]["rules"]
    assert [rules[0], *rules[2:]] == foreign
    assert rules[1] == {
        **foreign[1],
        "matches": [
            {"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"type": "Exact", "name": "X-Beta", "value": "yes"}]},
        ],
        "backendRefs": [{"group": "", "kind": "Service", "name": "web-canary", "port": 80, "weight": 1}],
    }


def test_a_share_by_the_gateway_api_adds_a_cookie_to_what_is_added_already() -> None:
    route = http_route()
    modifier = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "x", "value": "y"}]}}
    route["spec"]["rules"][1]["backendRefs"][0]["filters"] = [modifier]
    cluster, ref = routed(route), Ref("HTTPRoute", "shop", "web")
    aim(cluster, weight=20, cookie="ab", cookie_seconds=60)
    backends = cluster.get(ref)["spec"]["rules"][3]["backendRefs"]
    added = [backend["filters"][0]["responseHeaderModifier"]["add"] for backend in backends]
    assert added[1] == [{"name": "x", "value": "y"}, {"name": "Set-Cookie", "value": "ab=web-canary; Path=/; Max-Age=60; SameSite=Lax"}]
    assert [backend["weight"] for backend in backends] == [80, 20]
    aim(cluster, state="absent")
    assert cluster.get(ref)["spec"] == route["spec"]


def test_a_weight_can_be_set_while_an_audience_is_there() -> None:
    for provider in RULED:
        cluster = routed(MANIFESTS[provider]())
        aim(cluster, provider=provider, headers={"X-Beta": "yes"})
        assert run(set_canary_weight, cluster, False, canary="web-canary", provider=provider, weight=20).changed
        assert not aim(cluster, provider=provider, headers={"X-Beta": "yes"}).changed
        run(set_canary_weight, cluster, False, canary="web-canary", provider=provider, state="absent")
        aim(cluster, provider=provider, state="absent")
        assert cluster.get(Ref(KIND[provider], "shop", "web"))["spec"] == MANIFESTS[provider]()["spec"]


def test_a_number_of_a_rule_means_the_same_after_an_audience_was_put_before_it() -> None:
    cluster = routed(http_route())
    assert aim(cluster, rule="1", weight=20).changed and not aim(cluster, rule="1", weight=20).changed
    assert aim(cluster, rule="1", state="absent").changed


def test_each_of_several_rules_gets_an_audience_of_its_own() -> None:
    route = http_route()
    route["spec"]["rules"].append(
        {"matches": [{"path": {"type": "PathPrefix", "value": "/shop"}}], "backendRefs": [{"name": "web", "port": 80}]}
    )
    cluster, ref = routed(route), Ref("HTTPRoute", "shop", "web")
    with pytest.raises(InvalidRequest, match="by several rules"):
        aim(cluster, headers={"X-Beta": "yes"})
    aim(cluster, headers={"X-Beta": "yes"}, rule_path="/shop")
    rules = cluster.get(ref)["spec"]["rules"]
    assert rules[:3] == route["spec"]["rules"][:3] and rules[3]["matches"][0]["path"]["value"] == "/shop"
    aim(cluster, headers={"X-Beta": "yes"}, rule_host="shop.example.com")
    assert len(cluster.get(ref)["spec"]["rules"]) == 6
    aim(cluster, state="absent", rule_host="shop.example.com")
    assert cluster.get(ref)["spec"] == route["spec"]


def test_an_audience_of_traefik_stays_behind_rules_that_are_more_specific() -> None:
    cluster = routed(ingress_route())
    aim(cluster, provider="traefik", headers={"X-Beta": "yes"})
    routes = cluster.get(Ref("IngressRoute", "shop", "web"))["spec"]["routes"]
    base, foreign = ingress_route()["spec"]["routes"][1]["match"], ingress_route()["spec"]["routes"][0]["match"]
    assert routes[1]["match"] == f"({base}) && Header(`X-Beta`, `yes`)" and routes[1]["middlewares"] == [{"name": "compress"}]
    assert len(base) < routes[1]["priority"] == len(base) + 1 < len(foreign)
    # Where the base has a priority, that counts.
    route = ingress_route()
    route["spec"]["routes"][1]["priority"] = 5
    cluster = routed(route)
    aim(cluster, provider="traefik", headers={"X-Beta": "yes"})
    assert cluster.get(Ref("IngressRoute", "shop", "web"))["spec"]["routes"][1]["priority"] == 6


def test_a_share_by_traefik_is_made_before_the_route_leads_there() -> None:
    cluster = routed(ingress_route())
    aim(cluster, provider="traefik", weight=20)
    assert [(verb, ref.kind) for verb, ref in cluster.writes] == [("create", "TraefikService"), ("patch", "IngressRoute")]
    aim(cluster, provider="traefik", state="absent")
    assert [(verb, ref.kind) for verb, ref in cluster.writes[2:]] == [("patch", "IngressRoute"), ("delete", "TraefikService")]


def test_a_subset_is_made_before_requests_go_to_it() -> None:
    cluster = routed(virtual_service({"host": "web", "subset": "v1"}), destination_rule("v1"))
    given = {"provider": "istio", "stable": "v1", "variant": "v2", "variant_labels": {"version": "v2"}}
    for name in ("v1", "v2"):
        cluster.put(pod(name, {"app": "web", "version": name}))
    assert aim(cluster, headers={"X-Beta": "yes"}, **given).after == {"audience": ["header x-beta=yes"], "variant": "v2"}
    assert [ref.kind for _verb, ref in cluster.writes] == ["DestinationRule", "VirtualService"]
    aim(cluster, state="absent", **given)
    assert cluster.get(Ref("DestinationRule", "shop", "web"))["spec"] == destination_rule("v1")["spec"]


def test_what_a_base_of_istio_must_not_have_is_kept() -> None:
    route = virtual_service()
    route["spec"]["http"][1]["match"] = [{"uri": {"prefix": "/"}, "withoutHeaders": {"x-old": {}}}, {"uri": {"exact": "/x"}}]
    cluster = routed(route)
    aim(cluster, provider="istio", headers={"X-Beta": None}, query={"q": "1"})
    made = cluster.get(Ref("VirtualService", "shop", "web"))["spec"]["http"][1]
    assert made["match"] == [
        {"uri": {"prefix": "/"}, "withoutHeaders": {"x-old": {}}, "headers": {"x-beta": {}}, "queryParams": {"q": {"exact": "1"}}},
        {"uri": {"exact": "/x"}, "headers": {"x-beta": {}}, "queryParams": {"q": {"exact": "1"}}},
    ]
    assert made["retries"] == {"attempts": 2} and made["timeout"] == "10s"


def test_the_main_ingress_of_a_share_gets_a_cookie_and_loses_it_again() -> None:
    cluster, ref = routed(main_ingress()), Ref("Ingress", "shop", "web")
    aim(cluster, provider="ingress_nginx", weight=20, cookie="ab", cookie_seconds=60)
    notes = cluster.get(ref)["metadata"]["annotations"]
    assert notes == {"team": "shop", ingress_nginx.AFFINITY: "cookie", ingress_nginx.COOKIE_NAME: "ab", ingress_nginx.COOKIE_SECONDS: "60"}
    aim(cluster, provider="ingress_nginx", state="absent")
    assert cluster.get(ref)["metadata"]["annotations"] == {"team": "shop"}
    # One that has a cookie keeps its own.
    own = {ingress_nginx.AFFINITY: "cookie"}
    cluster = routed(main_ingress(annotations=own))
    aim(cluster, provider="ingress_nginx", weight=20)
    assert cluster.get(ref)["metadata"]["annotations"] == own
    aim(cluster, provider="ingress_nginx", state="absent")
    assert cluster.get(ref)["metadata"]["annotations"] == own


@pytest.mark.parametrize(
    ("conditions", "yes", "no"),
    [
        (
            [Condition("cookie", "ab", "b")],
            ["ab=b", "x=1; ab=b", "ab=b; x=1", "x=1;ab=b;y=2", "ab=b "],
            ["ab=bb", "xab=b", "ab=a; x=b", "x=ab=b", ""],
        ),
        ([Condition("cookie", "a.b", "1+1")], ["a.b=1+1"], ["axb=1+1", "a.b=11"]),
        ([Condition("cookie", "ab")], ["ab=", "x=1; ab=2"], ["abc=1", "x=ab"]),
        ([Condition("cookie", "ab", ".*x", True)], ["ab=ax", "y=1; ab=x; z=2"], ["ab=a; c=x"]),
        ([Condition("cookie", "ab", "[^0-9]\\D", True)], ["ab=xy"], ["ab=x; y", "ab=;;"]),
        (
            [Condition("cookie", "a", "1"), Condition("cookie", "b", "2")],
            ["a=1; b=2", "b=2; a=1", "b=2; x=3; a=1; y=4"],
            ["a=1", "b=2; a=2"],
        ),
    ],
)
def test_the_expression_for_cookies_finds_them_among_others(conditions: list[Condition], yes: list[str], no: list[str]) -> None:
    text = audiences.cookies_regex(conditions)
    for header in yes:
        assert re.search(text, header) and re.fullmatch(text, header), header
    for header in no:
        assert not re.search(text, header) and not re.fullmatch(text, header), header


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "nothing says who the audience is"),
    "empty": ({"headers": {}}, "nothing says who the audience is"),
    "both": ({"headers": {"X-A": "1"}, "weight": 5}, "weight is a share of all users and cannot be beside headers"),
    "weight 0": ({"weight": 0}, "weight must be between 1 and 99, got 0"),
    "weight 100": ({"weight": 100}, "weight must be between 1 and 99, got 100"),
    "absent with headers": ({"state": "absent", "headers": {"X-A": "1"}}, "headers and state absent cannot both be"),
    "header with a blank": ({"headers": {"X Beta": "1"}}, 'header name "X Beta" is not valid'),
    "header without a name": ({"headers": {"": "1"}}, 'header name "" is not valid'),
    "header in letters of others": ({"headers": {"X-Grün": "1"}}, "is not valid; a name has"),
    "cookie's name": ({"cookies": {"a=b": "1"}}, 'cookie name "a=b" is not valid'),
    "share's cookie": ({"weight": 5, "cookie": "a;b"}, 'cookie name "a;b" is not valid'),
    "share's seconds": ({"weight": 5, "cookie_seconds": 0}, "cookie_seconds must be 1 or more"),
    "header cookie": ({"headers": {"cookie": "a=b"}}, "name the one that is meant with cookies"),
    "header host": ({"headers": {"Host": "a"}}, "name the rules of a host with rule_host"),
    "twice": ({"headers": {"X-A": "1", "x-a": "2"}}, 'header "x-a" is named twice'),
    "boolean": ({"headers": {"X-A": True}}, 'header "X-A" has the value True, which is no text; put it in quotes'),
    "float": ({"headers": {"X-A": 1.10}}, "put it in quotes"),
    "list": ({"headers": {"X-A": ["1"]}}, "put it in quotes"),
    "empty value": ({"headers": {"X-A": ""}}, "has an empty value; null asks"),
    "line break": ({"headers": {"X-A": "a\nb"}}, "has a value with a line break"),
    "blanks": ({"headers": {"X-A": " a"}}, "has a value with blanks around it"),
    "letters": ({"headers": {"X-A": "grün"}}, "letters beyond ASCII"),
    "encoded": ({"query": {"a": "b c"}}, "letters that a URL holds encoded"),
    "semicolon": ({"cookies": {"a": "b;c"}}, "has a value with a semicolon"),
    "two forms": ({"headers": {"X-A": {"exact": "1", "regex": "2"}}}, "give a value, or one of exact and regex"),
    "unknown form": ({"headers": {"X-A": {"prefix": "1"}}}, "give a value, or one of exact and regex"),
    "broken regex": ({"headers": {"X-A": {"regex": "a("}}}, 'has the regular expression "a.", which does not compile'),
    "look-ahead": ({"headers": {"X-A": {"regex": "(?!a).*"}}}, r"do not know .\(\?!"),
    "back-reference": ({"headers": {"X-A": {"regex": r"(a)\1"}}}, "do not know"),
    "possessive": ({"headers": {"X-A": {"regex": "a++"}}}, "do not know"),
    "too often": ({"headers": {"X-A": {"regex": "a{1001}"}}}, "do not know"),
    "cookie regex beyond it": ({"cookies": {"a": {"regex": "b;c"}}}, "is no part of a value"),
    "cookie class beyond it": ({"cookies": {"a": {"regex": "[ -~]+"}}}, "is no part of a value"),
    "four cookies": ({"cookies": {"a": "1", "b": "1", "c": "1", "d": "1"}}, "the audience has 4 conditions by cookie; 3 is the most"),
    "one side": ({"headers": {"X-A": "1"}, "variant": "web"}, 'stable and canary are both "web"'),
    "no Service": ({"headers": {"X-A": "1"}, "variant": "nope"}, "Service shop/nope does not exist"),
    "nobody there": ({"headers": {"X-A": "1"}, "variant": "empty"}, "has no ready endpoints"),
    "no backend": ({"headers": {"X-A": "1"}, "stable": "nope"}, 'does not lead to "nope"'),
}


@pytest.mark.parametrize("provider", MANIFESTS)
@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence_and_changes_nothing(provider: str, given: dict[str, Any], sentence: str) -> None:
    cluster = routed(MANIFESTS[provider]())
    cluster.put({"kind": "Service", "metadata": {"name": "empty", "namespace": "shop"}, "spec": {}})
    for check in (True, False):
        with pytest.raises(DeliveryError, match=sentence):
            aim(cluster, check, **{"provider": provider, **given})
    assert cluster.writes == []


def _with_rule(provider: str, before: bool = True, **match: Any) -> Any:
    """Return a route with another rule before the one for web, or after all."""
    route = MANIFESTS[provider]()
    if provider == "gateway_api":
        rules, rule = (
            route["spec"]["rules"],
            {"matches": [{"path": {"type": "PathPrefix", "value": "/"}, **match}], "backendRefs": [{"name": "x", "port": 80}]},
        )
    elif provider == "istio":
        rules, rule = route["spec"]["http"], {"match": [match], "route": [{"destination": {"host": "x"}}]}
    else:
        rules, rule = route["spec"]["routes"], {"kind": "Rule", "services": [{"name": "x", "port": 80}], **match}
    rules.insert(1 if before else len(rules), rule)
    return route


BASE = "Host(`shop.example.com`) && PathPrefix(`/`)"
BETA, GAMMA = {"name": "X-Beta", "value": "yes"}, {"name": "X-Gamma", "value": "1"}
OVERLAPS: dict[str, tuple[str, Any, dict[str, Any], str | None]] = {
    "the same": ("gateway_api", _with_rule("gateway_api", headers=[BETA]), {}, "already has every request of this audience"),
    "the same, after": ("gateway_api", _with_rule("gateway_api", False, headers=[BETA]), {}, "that rule would lose it"),
    "other value": ("gateway_api", _with_rule("gateway_api", headers=[{**BETA, "value": "no"}]), {}, None),
    "more": ("gateway_api", _with_rule("gateway_api", headers=[BETA, GAMMA]), {}, None),
    "both, before": ("gateway_api", _with_rule("gateway_api", headers=[GAMMA]), {}, None),
    "both, after": ("gateway_api", _with_rule("gateway_api", False, headers=[GAMMA]), {}, "that rule would lose it"),
    "less specific": ("gateway_api", _with_rule("gateway_api", queryParams=[{"name": "q", "value": "1"}]), {}, "that rule would lose it"),
    "istio, the same": ("istio", _with_rule("istio", headers={"x-beta": {"exact": "yes"}}), {}, "already has every request"),
    "istio, less": (
        "istio",
        _with_rule("istio", uri={"prefix": "/"}, headers={"x-beta": {"exact": "yes"}}),
        {"query": {"q": "1"}},
        "already has",
    ),
    "istio, other": ("istio", _with_rule("istio", headers={"x-gamma": {"exact": "1"}}), {}, None),
    "traefik, the same": (
        "traefik",
        _with_rule("traefik", match=f"{BASE} && Header(`X-Beta`, `yes`)"),
        {},
        "already has every request of this audience",
    ),
    "traefik, as long": (
        "traefik",
        _with_rule("traefik", match="Host(`shop.example.com`) && PathPrefix(`/a`)"),
        {},
        "give that rule a higher",
    ),
    "traefik, longer": ("traefik", _with_rule("traefik", match="Host(`shop.example.com`) && PathPrefix(`/ab`)"), {}, None),
    "traefik, as important": ("traefik", _with_rule("traefik", match="PathRegexp(`^/a.*`)", priority=len(BASE) + 1), {}, "higher priority"),
    "traefik, elsewhere": ("traefik", _with_rule("traefik", match="Host(`a.example.com`)", priority=len(BASE) + 1), {}, None),
}


@pytest.mark.parametrize(("provider", "route", "more", "sentence"), OVERLAPS.values(), ids=OVERLAPS)
def test_rules_that_would_be_met_by_the_same_requests(provider: str, route: Any, more: dict[str, Any], sentence: str | None) -> None:
    cluster = routed(route)
    given = {"provider": provider, "headers": {"X-Beta": "yes"}, **more}
    if sentence is None:
        assert aim(cluster, **given).changed and not aim(cluster, **given).changed
        return
    with pytest.raises(InvalidRequest, match=f"matches overlap.*{sentence}"):
        aim(cluster, **given)
    assert cluster.writes == []


def _asks(provider: str) -> Any:
    """Return a route whose own rule asks for the header."""
    route = MANIFESTS[provider]()
    if provider == "gateway_api":
        route["spec"]["rules"][1]["matches"][0]["headers"] = [{"type": "Exact", "name": "x-beta", "value": "1"}]
    else:
        route["spec"]["http"][1]["match"] = [{"headers": {"x-beta": {"exact": "1"}}}]
    return route


@pytest.mark.parametrize("provider", ["gateway_api", "istio"])
def test_a_rule_that_asks_for_the_same_header_itself_is_refused(provider: str) -> None:
    with pytest.raises(InvalidRequest, match='matches overlap: the rule of .* already asks for header "x-beta"'):
        aim(routed(_asks(provider)), provider=provider, headers={"X-Beta": "yes"})


OTHERS: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "two conditions": ("ingress_nginx", lone_ingress(), {"headers": {"A": "1", "B": "2"}}, "take one condition, and there are 2"),
    "a parameter": ("ingress_nginx", lone_ingress(), {"query": {"a": "1"}}, "know no query parameters; name one header, or use provider"),
    "a cookie's value": ("ingress_nginx", lone_ingress(), {"cookies": {"a": "b"}}, 'a cookie of the value "always"'),
    "the main Ingress": (
        "ingress_nginx",
        main_ingress(annotations={ingress_nginx.CANARY: "true"}),
        {"headers": {"A": "1"}},
        "no main Ingress",
    ),
    "a path below": ("ingress_nginx", main_ingress(), {"headers": {"A": "1"}}, "has the path /api below /, and Traefik would lead"),
    "a backtick": ("traefik", ingress_route(), {"headers": {"A": "a`b"}}, "has a backtick, in which Traefik quotes its rules"),
    "uri": ("istio", virtual_service(), {"headers": {"URI": "/x"}}, 'Istio does not match a header of the name "uri"'),
}


@pytest.mark.parametrize(("provider", "route", "given", "sentence"), OTHERS.values(), ids=OTHERS)
def test_what_one_router_cannot_do_is_refused(provider: str, route: Any, given: dict[str, Any], sentence: str) -> None:
    cluster = routed(route)
    with pytest.raises(InvalidRequest, match=sentence):
        aim(cluster, provider=provider, **given)
    assert cluster.writes == []


def test_a_route_that_is_full_is_refused() -> None:
    route = http_route()
    route["spec"]["rules"] += [
        {"matches": [{"path": {"type": "PathPrefix", "value": f"/{number}"}}], "backendRefs": [{"name": "x", "port": 80}]}
        for number in range(13)
    ]
    with pytest.raises(InvalidRequest, match="would have 17 rules .* allows 16 rules"):
        aim(routed(route), headers={"X-Beta": "yes"})


def test_a_share_is_not_put_on_a_weight_that_keeps_nobody() -> None:
    for provider in MANIFESTS:
        cluster = routed(MANIFESTS[provider]())
        run(set_canary_weight, cluster, False, canary="web-canary", provider=provider, weight=20)
        with pytest.raises(InvalidRequest, match="a weight that keeps nobody"):
            aim(cluster, provider=provider, weight=50)


def test_several_routes_move_together() -> None:
    cluster = routed(http_route(), virtual_service(), ingress_route(), lone_ingress())
    routes = [{"provider": provider} for provider in MANIFESTS]
    done = aim(cluster, headers={"X-Beta": "yes"}, routes=routes)
    assert len(done.actions) == 4 and len(done.after["routes"]) == 4
    assert not aim(cluster, headers={"X-Beta": "yes"}, routes=routes).changed
    # One of them cannot do it: none does.
    with pytest.raises(InvalidRequest, match="know no query parameters"):
        aim(cluster, query={"a": "1"}, routes=[*routes[:1], *routes[2:], routes[1]])
    assert not aim(cluster, headers={"X-Beta": "yes"}, routes=routes).changed
    aim(cluster, state="absent", routes=routes)
    for provider, make in MANIFESTS.items():
        assert cluster.get(Ref(KIND[provider], "shop", "web"))["spec"] == make()["spec"]


def test_an_audience_of_a_route_to_a_traefik_service_knows_the_service_behind_it() -> None:
    route, key = ingress_route(), Ref("TraefikService", "shop", "split")
    route["spec"]["routes"][1]["services"] = [{"name": "split", "kind": "TraefikService"}]
    split = {"weighted": {"services": [{"name": "web", "port": 80, "weight": 1}]}}
    cluster = routed(route, {"kind": "TraefikService", "metadata": {"name": "split", "namespace": "shop"}, "spec": split})
    aim(cluster, provider="traefik", headers={"X-Beta": "yes"})
    routes = cluster.get(Ref("IngressRoute", "shop", "web"))["spec"]["routes"]
    assert routes[1]["services"] == [{"name": "web-canary", "port": 80}] and cluster.get(key)["spec"] == split
    with pytest.raises(InvalidRequest, match="leads to TraefikService split, of somebody else, which shares the requests itself"):
        aim(cluster, provider="traefik", weight=20)
    aim(cluster, provider="traefik", state="absent")
    assert cluster.get(Ref("IngressRoute", "shop", "web"))["spec"] == route["spec"]
