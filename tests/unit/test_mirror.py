# SPDX-License-Identifier: GPL-3.0-or-later
"""mirror_traffic: once, predicted, foreign rules and mirrors kept, and weights that move under it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import routing
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, Forbidden
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import mirror_traffic, set_canary_weight
from support.fake import FakeCluster
from support.objects import pod
from support.routes import MANIFESTS, destination_rule, http_route, ingress_route, routed, side, virtual_service

Manifest = dict[str, Any]
KIND = {"gateway_api": "HTTPRoute", "ingress_nginx": "Ingress", "istio": "VirtualService", "traefik": "IngressRoute"}
MIRRORING = {name: make for name, make in MANIFESTS.items() if name != "ingress_nginx"}
# The objects that exist beside the route while it mirrors.
BESIDE = {"gateway_api": 0, "istio": 0, "traefik": 2}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake has no router that would have to hear of one object before the other."""
    monkeypatch.setattr(routing, "SETTLE", 0)


def shop(*manifests: Manifest, shadow: int = 1) -> FakeCluster:
    """Return a cluster with the Services web, web-canary and web-shadow, and these routes."""
    cluster = routed(*manifests)
    for manifest in side("web-shadow", shadow):
        cluster.put(manifest)
    gateway(cluster)
    return cluster


def gateway(cluster: FakeCluster, *features: Any) -> None:
    """Put the Gateway of an HTTPRoute there, and its class with what it says that it supports."""
    cluster.put({"kind": "Gateway", "metadata": {"name": "public", "namespace": "gateways"}, "spec": {"gatewayClassName": "traefik"}})
    found = {"kind": "GatewayClass", "metadata": {"name": "traefik"}, "spec": {"controllerName": "traefik.io/gateway-controller"}}
    cluster.put({**found, "status": {"supportedFeatures": list(features)} if features else {}})


def run(step: Any, cluster: FakeCluster, check: bool, **given: Any) -> Any:
    """Run a step with its defaults."""
    defaults = {key: entry.get("default") for key, entry in argument_spec(step.OPTIONS).items()}
    return step.execute({**defaults, "namespace": "shop", "name": "web", "stable": "web", **given}, cluster, check)


def mirror(cluster: FakeCluster, check: bool = False, **given: Any) -> Any:
    """Mirror to web-shadow."""
    return run(mirror_traffic, cluster, check, **{"to": "web-shadow", **given})


def weigh(cluster: FakeCluster, **given: Any) -> Any:
    """Give web-canary a weight."""
    return run(set_canary_weight, cluster, False, canary="web-canary", **given)


def contents(cluster: FakeCluster) -> dict[Ref, Any]:
    """Return what is in the cluster, without what the API server writes in it."""
    return {ref: (entry.get("spec"), entry["metadata"].get("annotations") or {}) for ref, entry in cluster._objects.items()}


MODES = {"all": {}, "half": {"percent": 50}, "reads alone": {"percent": 50, "methods": ["GET", "HEAD"]}}


@pytest.mark.parametrize("given", MODES.values(), ids=MODES)
@pytest.mark.parametrize("provider", MIRRORING)
def test_a_mirror_is_set_once_predicted_and_ended_without_a_trace(provider: str, given: dict[str, Any]) -> None:
    cluster = shop(MIRRORING[provider]())
    before = contents(cluster)
    foreseen = mirror(cluster, True, provider=provider, **given)
    assert cluster.writes == []
    done = mirror(cluster, provider=provider, **given)
    assert len(cluster.writes) == 1 + BESIDE[provider]
    assert (foreseen.changed, foreseen.before, foreseen.after, foreseen.actions) == (True, done.before, done.after, done.actions)
    wanted = {"to": "web-shadow", "percent": given.get("percent", 100)} | ({"methods": given["methods"]} if "methods" in given else {})
    assert done.before == {"mirror": None} and done.after == {"mirror": wanted} and done.extra["mirror"] == wanted
    words = " of the GET, HEAD requests" if "methods" in given else ""
    assert done.actions == (f"mirrored {wanted['percent']} %{words} of {KIND[provider]} shop/web to web-shadow, it was 0 %",)
    assert bool(done.extra.get("warnings")) == ("methods" not in given)
    again = mirror(cluster, provider=provider, **given)
    assert not again.changed and again.before == again.after == done.after and len(cluster.writes) == 1 + BESIDE[provider]
    gone = mirror(cluster, provider=provider, state="absent")
    assert gone.changed and gone.before == done.after and gone.after == {"mirror": None}
    assert contents(cluster) == before
    assert not mirror(cluster, provider=provider, state="absent").changed


@pytest.mark.parametrize("provider", MIRRORING)
def test_foreign_rules_stay_as_they_are_while_it_mirrors(provider: str) -> None:
    cluster = shop(MIRRORING[provider]())
    ref, key = Ref(KIND[provider], "shop", "web"), {"gateway_api": "rules", "istio": "http", "traefik": "routes"}[provider]
    before = cluster.get(ref)["spec"][key]
    mirror(cluster, provider=provider, methods=["GET"])
    after = cluster.get(ref)["spec"][key]
    assert [entry for entry in after if entry in before] == before and len(after) == len(before) + 1
    # The copy comes right before the rule that it is one of.
    assert after[1] not in before


@pytest.mark.parametrize("provider", MIRRORING)
def test_how_much_and_what_is_mirrored_changes_in_place(provider: str) -> None:
    cluster = shop(MIRRORING[provider]())
    before = contents(cluster)
    for given in ({"percent": 100}, {"percent": 0}, {"percent": 7}, {"methods": ["GET"]}, {"methods": ["GET", "HEAD"], "percent": 3}, {}):
        done = mirror(cluster, provider=provider, **given)
        expected = {"to": "web-shadow", "percent": given.get("percent", 100)}
        assert done.after == {"mirror": expected | ({"methods": given["methods"]} if "methods" in given else {})}
        assert not mirror(cluster, provider=provider, **given).changed
    mirror(cluster, provider=provider, state="absent")
    assert contents(cluster) == before


@pytest.mark.parametrize("methods", [None, ["GET"]], ids=["all", "reads alone"])
@pytest.mark.parametrize("provider", MIRRORING)
def test_weights_move_under_a_mirror(provider: str, methods: Any) -> None:
    cluster = shop(MIRRORING[provider]())
    weigh(cluster, provider=provider, weight=10)
    weighed = contents(cluster)
    mirror(cluster, provider=provider, methods=methods)
    assert weigh(cluster, provider=provider, weight=30).after == {"weights": {"web": 70, "web-canary": 30}}
    assert mirror(cluster, provider=provider, methods=methods).changed is False
    # The copy's share is that of its rule: no method is split differently from the others.
    assert weigh(cluster, provider=provider, weight=10).before == {"weights": {"web": 70, "web-canary": 30}}
    mirror(cluster, provider=provider, state="absent")
    assert contents(cluster) == weighed
    # A canary that comes and goes while it mirrors.
    weigh(cluster, provider=provider, state="absent")
    plain = contents(cluster)
    mirror(cluster, provider=provider, methods=methods)
    weigh(cluster, provider=provider, weight=5)
    weigh(cluster, provider=provider, state="absent")
    mirror(cluster, provider=provider, state="absent")
    assert contents(cluster) == plain


@pytest.mark.parametrize("provider", MIRRORING)
def test_the_mirror_of_somebody_else_stays_and_is_told(provider: str) -> None:
    cluster = shop(MIRRORING[provider](), *side("audit"))
    mirror(cluster, provider=provider, to="audit", percent=5)
    theirs = contents(cluster)
    done = mirror(cluster, provider=provider, percent=50)
    assert any("is mirrored by somebody else too, to audit" in warning for warning in done.extra["warnings"])
    assert mirror(cluster, True, provider=provider, to="audit", percent=5).changed is False
    mirror(cluster, provider=provider, state="absent")
    assert contents(cluster) == theirs
    # Copies of some methods are made by a rule, and a request meets one of them.
    mirror(cluster, provider=provider, to="audit", state="absent")
    mirror(cluster, provider=provider, to="audit", methods=["GET"])
    with pytest.raises(DeliveryError, match='copies requests of some methods to "audit" already'):
        mirror(cluster, provider=provider, methods=["GET"])


def test_the_other_form_of_istio_is_changed_and_ended_as_it_is_and_not_added_to() -> None:
    theirs = virtual_service()
    theirs["spec"]["http"][1].update(mirror={"host": "web-shadow.shop.svc.cluster.local"}, mirrorPercentage={"value": 20})
    cluster = shop(theirs, *side("audit"))
    ref = Ref("VirtualService", "shop", "web")
    assert mirror(cluster, provider="istio", percent=20).changed is False
    assert mirror(cluster, provider="istio", percent=0.5).after == {"mirror": {"to": "web-shadow", "percent": 0.5}}
    assert cluster.get(ref)["spec"]["http"][1]["mirrorPercentage"] == {"value": 0.5}
    with pytest.raises(DeliveryError, match='has the field mirror, of somebody else, to "web-shadow"'):
        mirror(cluster, provider="istio", to="audit")
    mirror(cluster, provider="istio", state="absent")
    assert cluster.get(ref)["spec"] == virtual_service()["spec"]


def test_a_subset_is_mirrored_to_as_one_and_a_service_as_a_host() -> None:
    cluster = shop(virtual_service({"host": "web", "subset": "v1"}), destination_rule("v1", "v2"))
    cluster.put(pod("v2", {"app": "web", "version": "v2"}))
    ref = Ref("VirtualService", "shop", "web")
    assert mirror(cluster, provider="istio", stable="v1", to="v2").after["mirror"]["to"] == "v2"
    assert cluster.get(ref)["spec"]["http"][1]["mirrors"] == [
        {"destination": {"host": "web", "subset": "v2"}, "percentage": {"value": 100}}
    ]
    mirror(cluster, provider="istio", stable="v1", to="v2", state="absent")
    mirror(cluster, provider="istio", stable="v1")
    assert cluster.get(ref)["spec"]["http"][1]["mirrors"] == [{"destination": {"host": "web-shadow"}, "percentage": {"value": 100}}]


def test_a_fraction_of_a_percent_is_written_as_the_gateway_api_has_it() -> None:
    cluster = shop(http_route())

    def written() -> Manifest:
        return cluster.get(Ref("HTTPRoute", "shop", "web"))["spec"]["rules"][1]["filters"][1]["requestMirror"]

    backend = {"group": "", "kind": "Service", "name": "web-shadow", "port": 80}
    for percent, share in ((0.5, {"fraction": {"numerator": 1, "denominator": 200}}), (7, {"percent": 7}), (100, {}), (0, {"percent": 0})):
        assert mirror(cluster, percent=percent).after["mirror"]["percent"] == percent
        assert written() == {"backendRef": backend, **share}


def test_a_rule_for_a_method_may_not_take_what_a_header_picks() -> None:
    route = http_route()
    by_header = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"name": "x", "value": "y"}]}]}
    route["spec"]["rules"].insert(0, {**by_header, "backendRefs": [{"name": "web-canary", "port": 80}]})
    cluster = shop(route)
    with pytest.raises(DeliveryError, match="picks requests of the same path by header or query"):
        mirror(cluster, methods=["GET"])
    assert mirror(cluster).changed


# TraefikServices


def traefik_service(name: str, **spec: Any) -> Manifest:
    """Return a TraefikService."""
    return {"kind": "TraefikService", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def to_traefik_service() -> list[Manifest]:
    """Return an IngressRoute to a TraefikService that splits by weight."""
    route = ingress_route()
    route["spec"]["routes"][1]["services"] = [{"name": "split", "kind": "TraefikService"}]
    services = [{"name": "web", "port": 80, "weight": 90}, {"name": "web-canary", "port": 80, "weight": 10}]
    return [route, traefik_service("split", weighted={"services": services, "sticky": {"cookie": {}}})]


def test_the_weights_of_a_traefik_service_change_where_they_stand() -> None:
    cluster = shop(*to_traefik_service())
    route = cluster.get(Ref("IngressRoute", "shop", "web"))
    assert weigh(cluster, provider="traefik", weight=30).before == {"weights": {"web": 90, "web-canary": 10}}
    found = cluster.get(Ref("TraefikService", "shop", "split"))["spec"]["weighted"]
    assert [entry["weight"] for entry in found["services"]] == [70, 30] and found["sticky"] == {"cookie": {}}
    assert cluster.get(Ref("IngressRoute", "shop", "web")) == route
    assert [ref.kind for _verb, ref in cluster.writes] == ["TraefikService"]
    assert not weigh(cluster, provider="traefik", weight=30).changed


def test_a_route_to_a_traefik_service_is_mirrored_around_it() -> None:
    cluster = shop(*to_traefik_service())
    before = contents(cluster)
    mirror(cluster, provider="traefik", percent=50, max_body_size=1000, mirror_body=False)
    found = cluster.get(Ref("TraefikService", "shop", "web-mirror"))
    shadow = {"name": "web-shadow", "port": 80, "nativeLB": True, "percent": 50}
    wanted = {"name": "split", "kind": "TraefikService", "mirrors": [shadow], "mirrorBody": False, "maxBodySize": 1000}
    assert found["spec"] == {"mirroring": wanted} and found["metadata"]["annotations"] == {"progressive.delivery/made-for": "web"}
    assert weigh(cluster, provider="traefik", weight=30).before == {"weights": {"web": 90, "web-canary": 10}}
    weigh(cluster, provider="traefik", weight=10)
    mirror(cluster, provider="traefik", state="absent")
    assert contents(cluster) == before


def test_a_mirroring_traefik_service_of_somebody_else_is_led_to_and_not_weighed() -> None:
    route = ingress_route()
    route["spec"]["routes"][1]["services"] = [{"name": "theirs", "kind": "TraefikService"}]
    theirs = traefik_service("theirs", mirroring={"name": "web", "port": 80, "mirrors": [{"name": "audit", "port": 80, "percent": 10}]})
    cluster = shop(route, theirs)
    before = contents(cluster)
    with pytest.raises(DeliveryError, match="TraefikService shop/theirs, of somebody else, which mirrors and leads to web alone"):
        weigh(cluster, provider="traefik", weight=30)
    done = mirror(cluster, provider="traefik")
    assert any("to audit" in warning for warning in done.extra["warnings"])
    mirror(cluster, provider="traefik", state="absent")
    assert contents(cluster) == before


def test_objects_are_made_before_the_route_leads_to_them_and_go_after() -> None:
    cluster = shop(ingress_route())
    mirror(cluster, provider="traefik")
    assert [(verb, ref.name) for verb, ref in cluster.writes] == [("create", "web-mirror"), ("create", "web-mirror-main"), ("patch", "web")]
    cluster.writes.clear()
    mirror(cluster, provider="traefik", state="absent")
    assert [verb for verb, _ref in cluster.writes] == ["patch", "delete", "delete"]


def test_a_name_that_somebody_has_is_left_to_them_and_what_a_killed_run_left_is_taken() -> None:
    cluster = shop(ingress_route(), traefik_service("web-mirror", weighted={"services": []}))
    theirs = cluster.get(Ref("TraefikService", "shop", "web-mirror"))
    left = traefik_service("web-mirror-2", mirroring={"name": "web-mirror-2-main", "kind": "TraefikService", "mirrors": []})
    left["metadata"]["annotations"] = {"progressive.delivery/made-for": "web"}
    cluster.put(left)
    mirror(cluster, provider="traefik")
    assert cluster.get(Ref("IngressRoute", "shop", "web"))["spec"]["routes"][1]["services"] == [
        {"name": "web-mirror-2", "kind": "TraefikService"}
    ]
    cluster.put({**left, "metadata": {**left["metadata"], "name": "web-mirror-3"}})
    mirror(cluster, provider="traefik", state="absent")
    assert [ref.name for ref in cluster._objects if ref.kind == "TraefikService"] == ["web-mirror"]
    assert cluster.get(Ref("TraefikService", "shop", "web-mirror")) == theirs


def test_a_copy_of_a_traefik_route_goes_just_before_it_and_before_nothing_else() -> None:
    cluster = shop(ingress_route())
    mirror(cluster, provider="traefik", methods=["GET", "HEAD"])
    base = ingress_route()["spec"]["routes"][1]
    made = cluster.get(Ref("IngressRoute", "shop", "web"))["spec"]["routes"][1]
    assert made["match"] == f"({base['match']}) && (Method(`GET`) || Method(`HEAD`))" and made["middlewares"] == base["middlewares"]
    assert made["priority"] == len(base["match"]) + 1
    mirror(cluster, provider="traefik", state="absent")
    other = cluster.get(Ref("IngressRoute", "shop", "web"))
    other["spec"]["routes"][0]["priority"] = len(base["match"]) + 1
    cluster.put(other)
    with pytest.raises(DeliveryError, match=f"has priority {len(base['match']) + 1}, which a route for some methods alone would need"):
        mirror(cluster, provider="traefik", methods=["GET"])


# Refusals


def test_a_controller_that_does_not_mirror_is_refused_and_one_that_says_nothing_is_not() -> None:
    cluster = shop(http_route())
    gateway(cluster, {"name": "HTTPRouteMethodMatching"})
    for check in (True, False):
        with pytest.raises(DeliveryError, match="traefik.io/gateway-controller leaves HTTPRouteRequestMirror out of what GatewayClass"):
            mirror(cluster, check)
    assert cluster.writes == []
    assert not mirror(cluster, state="absent").changed
    for features in ((), ({"name": "HTTPRouteRequestMirror"},), ("HTTPRouteRequestMirror",)):
        gateway(cluster, *features)
        assert mirror(cluster, True).changed
    with pytest.raises(DeliveryError, match="leaves HTTPRouteRequestPercentageMirror out of"):
        mirror(cluster, percent=50)


def test_where_nobody_may_look_what_the_controller_supports_it_takes_force() -> None:
    cluster = shop(http_route())
    cluster.forbidden = {"Gateway"}
    with pytest.raises(DeliveryError, match="allow to get gateways and gatewayclasses, or set force"):
        mirror(cluster)
    assert mirror(cluster, force=True).changed


class Old(FakeCluster):
    """A cluster whose HTTPRoute has no share of a mirror: the field is dropped, as the API server does it."""

    def patch(self, ref: Ref, body: Any, patch_type: str, dry_run: bool = False) -> Any:
        """Patch, without the field."""
        body = copy.deepcopy(body)
        for operation in body:
            value = operation.get("value")
            if isinstance(value, dict) and "requestMirror" in value:
                for key in ("percent", "fraction"):
                    value["requestMirror"].pop(key, None)
        return super().patch(ref, body, patch_type, dry_run)


def test_a_share_that_the_api_server_would_drop_is_refused_before_anything_is_written() -> None:
    good = shop(http_route())
    cluster = Old()
    cluster.groups, cluster._objects = good.groups, good._objects
    for check in (True, False):
        with pytest.raises(
            DeliveryError, match=r"cannot have spec.rules\[1\].filters\[1\].requestMirror.percent: this cluster's version of"
        ):
            mirror(cluster, check, percent=50)
    assert cluster.writes == [] and mirror(cluster, percent=100).changed


TWO = {"routes": [{"provider": "gateway_api"}, {"provider": "istio"}, {"provider": "traefik"}]}


def test_several_routes_are_mirrored_together_or_none_is() -> None:
    cluster = shop(http_route(), virtual_service(), ingress_route())
    done = mirror(cluster, percent=20, **TWO)
    assert (
        set(done.after["routes"]) == {"HTTPRoute shop/web", "VirtualService shop/web", "IngressRoute shop/web"} and len(done.actions) == 3
    )
    assert not mirror(cluster, percent=20, **TWO).changed
    mirror(cluster, state="absent", **TWO)
    before = contents(cluster)
    real = cluster.patch

    def refuse(ref: Ref, body: Any, patch_type: str, dry_run: bool = False) -> Any:
        if ref.kind == "VirtualService" and not dry_run:
            raise Forbidden("Not allowed to patch VirtualService shop/web")
        return real(ref, body, patch_type, dry_run)

    cluster.patch = refuse  # type: ignore[method-assign]
    with pytest.raises(Forbidden, match="Not allowed to patch VirtualService shop/web; taken back:"):
        mirror(cluster, percent=20, **TWO)
    assert contents(cluster) == before


REFUSED = {
    "101": ({"percent": 101}, "percent must be between 0 and 100, got 101"),
    "-1": ({"percent": -1}, "percent must be between 0 and 100, got -1"),
    "absent with a share": ({"percent": 5, "state": "absent"}, "percent and state absent cannot both be"),
    "no method": ({"methods": ["get"]}, 'methods has "get", which is no HTTP method; it may have CONNECT'),
    "itself": ({"to": "web"}, 'stable and to are both "web"'),
    "no name": ({"name": None}, "name is not set; name the route"),
    "no route": ({"name": "nope"}, "HTTPRoute shop/nope does not exist; HTTPRoutes in namespace shop: web"),
    "no such backend": ({"stable": "nope"}, 'does not lead to "nope"'),
    "no Service": ({"to": "nope"}, "Service shop/nope does not exist, so HTTPRoute shop/web cannot lead to it"),
    "nobody there": ({"to": "empty"}, "Service shop/empty has no ready endpoints"),
    "no provider": ({"provider": "nonsense"}, 'there is no provider "nonsense"'),
    "annotations of ingress-nginx": ({"provider": "ingress_nginx"}, "its annotation mirror-target takes no Service.*gateway_api"),
    "a body, elsewhere": ({"mirror_body": False}, "mirror_body and max_body_size are for provider traefik"),
    "a negative body": ({"provider": "traefik", "max_body_size": -1}, "max_body_size must be 0 or more bytes, got -1"),
    "a fraction of Traefik": ({"provider": "traefik", "percent": 0.5}, "percent is 0.5, and Traefik mirrors whole percents; round it"),
    "a Service without an address": ({"provider": "traefik", "to": "headless"}, "Service shop/headless cannot be a shadow"),
    "a side that answers": ({"to": "web-canary", "name": "split"}, 'sends requests to "web-canary" whose answers reach people'),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence_and_changes_nothing(given: dict[str, Any], sentence: str) -> None:
    split = http_route("split")
    if given.get("name") == "split":
        split["spec"]["rules"][1]["backendRefs"].append({"name": "web-canary", "port": 80, "weight": 1})
    cluster = shop(http_route(), ingress_route(), MANIFESTS["ingress_nginx"](), *side("headless"))
    if given.get("name") == "split":
        cluster.put(split)
    headless = cluster.get(Ref("Service", "shop", "headless"))
    cluster.put({**headless, "spec": {**headless["spec"], "clusterIP": "None"}})
    cluster.put({"kind": "Service", "metadata": {"name": "empty", "namespace": "shop"}, "spec": {}})
    for check in (True, False):
        with pytest.raises(DeliveryError, match=sentence):
            mirror(cluster, check, **given)
    assert cluster.writes == []


def test_an_end_is_possible_when_the_shadow_is_gone() -> None:
    for provider, make in MIRRORING.items():
        cluster = shop(make())
        mirror(cluster, provider=provider)
        cluster.drop(Ref("Service", "shop", "web-shadow"))
        assert mirror(cluster, provider=provider, state="absent").changed
