# SPDX-License-Identifier: GPL-3.0-or-later
"""A Flagger Canary from flat options, what is refused before Flagger would take it silently, the way back, and the gates."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import flagging
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, InvalidRequest, Unavailable, WaitFailed
from ansible_collections.progressive.delivery.plugins.module_utils.model import Answer, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan import canary_metrics, flagger, flagger_routes, gates, takeover
from ansible_collections.progressive.delivery.plugins.module_utils.run import header_secrets, perform
from ansible_collections.progressive.delivery.plugins.modules import flagger_canary, flagger_gate
from support.fake import FakeCluster

CANARY = Ref("Canary", "shop", "web")
NAMES = flagger.Names.of(CANARY, {"targetRef": {"kind": "Deployment", "name": "web"}})


def options(**given: Any) -> dict[str, Any]:
    """Return the options of flagger_canary with their defaults."""
    filled = {name: option.get("default") for name, option in flagger_canary.OPTIONS.items()}
    base = {"name": "web", "namespace": "shop", "port": 80, "target_port": "http", "provider": "kubernetes", "iterations": 2}
    return {**filled, **base, **given}


def gate_options(**given: Any) -> dict[str, Any]:
    """Return the options of flagger_gate with their defaults."""
    filled = {name: option.get("default") for name, option in flagger_gate.OPTIONS.items()}
    return {**filled, "name": "web", "namespace": "shop", **given}


def deployment(name: str = "web", labels: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    """Return a Deployment with one container that has the port http."""
    labels = labels or {"app": name}
    pods = {"name": "app", "image": "web:1", "ports": [{"name": "http", "containerPort": 9898}], **container}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [pods]}},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def service(name: str = "web", selector: dict[str, str] | None = None, *ports: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    """Return a Service, by default of port 80."""
    entries = list(ports) or [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"selector": selector or {"app": "web"}, "ports": entries}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def controller(*flags: str, name: str = "flagger", ready: int = 1) -> dict[str, Any]:
    """Return the Deployment of a Flagger."""
    container = {"name": "flagger", "image": "ghcr.io/fluxcd/flagger:1.43.0", "command": ["./flagger", *flags]}
    labels = {"app.kubernetes.io/name": "flagger"}
    spec = {"template": {"spec": {"containers": [container]}}}
    meta = {"name": name, "namespace": "flagger-system", "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec, "status": {"readyReplicas": ready}}


def shop(*more: dict[str, Any]) -> FakeCluster:
    """Return a cluster with Flagger, and a Deployment with its Service."""
    cluster = FakeCluster(controller("-mesh-provider=istio", "-metrics-server=http://prometheus:9090"), deployment(), service())
    cluster.groups += ["flagger.app", "keda.sh", "networking.istio.io"]
    for manifest in more:
        cluster.put(copy.deepcopy(manifest))
    return cluster


def kept(**given: Any) -> dict[str, Any]:
    """Return a Canary that Flagger has taken over, as it was made by these options."""
    spec = flagger.wanted_spec(options(**given))
    notes = {flagger.APPLIED: flagger.as_note(spec), flagger.BEFORE: "{}"}
    meta = {"name": "web", "namespace": "shop", "annotations": notes}
    return {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": meta, "spec": spec, "status": {"phase": "Initialized"}}


# -- The spec --------------------------------------------------------------------------------------------------------


def test_flat_options_become_a_spec() -> None:
    spec = flagger.wanted_spec(
        options(
            provider="istio",
            iterations=None,
            step_weight=20,
            max_weight=60,
            interval="30s",
            threshold=3,
            gateways=["istio-system/istio"],
            hosts=["shop.example.com"],
            request_timeout="15s",
            autoscaler="web",
            progress_deadline=120,
            session_affinity={"cookie_name": "flagger", "max_age": 60},
            metrics=[
                {"name": "request-success-rate", "min": 99},
                {
                    "name": "errors",
                    "max": "1.5",
                    "template": {"provider": {"type": "prometheus", "address": "http://p:9090"}, "query": "up"},
                },
            ],
            webhooks=[{"name": "gate", "type": "confirm-promotion", "url": "http://tester/gate/check", "mute_alert": True}],
            alerts=[{"name": "team", "provider": "slack", "severity": "error"}],
            spec={"service": {"meshName": "x"}},
        )
    )
    assert spec["targetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    assert spec["autoscalerRef"]["kind"] == "HorizontalPodAutoscaler" and spec["progressDeadlineSeconds"] == 120
    assert spec["service"] == {
        "port": 80,
        "targetPort": "http",
        "gateways": ["istio-system/istio"],
        "hosts": ["shop.example.com"],
        "timeout": "15s",
        "meshName": "x",
    }
    analysis = spec["analysis"]
    assert (analysis["stepWeight"], analysis["maxWeight"], analysis["interval"], analysis["threshold"]) == (20, 60, "30s", 3)
    assert analysis["sessionAffinity"] == {"cookieName": "flagger", "maxAge": 60}
    assert analysis["metrics"] == [
        {"name": "request-success-rate", "thresholdRange": {"min": 99}},
        {"name": "errors", "thresholdRange": {"max": 1.5}, "templateRef": {"name": "web-errors"}},
    ]
    assert analysis["webhooks"][0] == {"name": "gate", "type": "confirm-promotion", "url": "http://tester/gate/check", "muteAlert": True}
    assert analysis["alerts"] == [{"name": "team", "severity": "error", "providerRef": {"name": "slack"}}]


def test_a_release_without_checks_has_what_the_kind_demands() -> None:
    analysis = flagger.wanted_spec(options(iterations=None, skip_analysis=True))["analysis"]
    assert analysis == {"interval": "1m", "threshold": 1, "iterations": 1}


REFUSED = [
    ({"step_weight": 10}, "iterations and step_weight cannot both be"),
    ({"step_weights": [1, 5]}, "iterations and step_weights cannot both be"),
    ({"max_weight": 50}, "iterations and max_weight cannot both be"),
    ({"iterations": None, "provider": "istio"}, "has no steps, so a release would never go on"),
    ({"iterations": None, "provider": "istio", "max_weight": 50}, "has no steps"),
    ({"iterations": None, "provider": "istio", "step_weights": [5, 5]}, "must grow from step to step"),
    ({"iterations": None, "provider": "istio", "step_weights": [5, 101]}, "must grow from step to step"),
    ({"iterations": None, "provider": "istio", "step_weight": 5, "step_weights": [5]}, "step_weights and step_weight cannot both be"),
    ({"iterations": None, "provider": "istio", "step_weights": [5], "max_weight": 5}, "step_weights and max_weight cannot both be"),
    ({"iterations": None, "provider": "istio", "step_weight": 5, "match": [{"headers": {}}]}, "match is for A/B, which needs iterations"),
    ({"iterations": None, "step_weight": 5}, "provider kubernetes has no router, so step_weight would have no effect"),
    ({"match": [{"headers": {}}]}, "provider kubernetes has no router, so match would have no effect"),
    ({"mirror": True}, "Flagger mirrors requests with"),
    ({"session_affinity": {"cookie_name": "a"}}, "Flagger has session_affinity with"),
    ({"session_affinity": {"name": "a"}}, 'session_affinity has no key "name"'),
    ({"interval": "9s"}, "interval 9s is below Flagger's floor of 10 s"),
    ({"interval": "1 minute"}, "must be a whole number of seconds or minutes"),
    ({"interval": "1h"}, "must be a whole number of seconds or minutes"),
    ({"threshold": 0}, "threshold is a number of failed checks, 1 or more"),
    ({"iterations": None}, "has no steps"),
    ({"interval": "60"}, "must be a whole number of seconds or minutes"),
    ({"spec": {"canaryAnalysis": {}}}, "canaryAnalysis is deprecated"),
    ({"provider": "haproxy"}, 'Flagger has no provider "haproxy"; it has: '),
    ({"port": None}, "port is not set"),
    ({"canary_ready_threshold": 101}, "canary_ready_threshold is a percentage"),
    ({"metrics": [{"name": "request-duration"}]}, "has no limit"),
    ({"metrics": [{"min": 1}]}, "metric 1 has no name"),
    ({"metrics": [{"name": "errors", "max": 1}]}, 'metric "errors" has no query'),
    ({"metrics": [{"name": "errors", "max": 1, "query": "up"}]}, "which Flagger has deprecated; use template"),
    ({"metrics": [{"name": "request-duration", "threshold": 1}]}, "which Flagger has deprecated; use min or max"),
    ({"metrics": [{"name": "request-duration", "max": "fast"}]}, "must be a number"),
    ({"metrics": [{"name": "request-duration", "max": 1, "interval": "1"}]}, "must be a whole number of seconds"),
    ({"metrics": [{"name": "request-duration", "max": 1, "template_ref": {"name": "x"}}]}, "one that Flagger has of its own"),
    ({"metrics": [{"name": "e", "max": 1, "template": {"query": "up"}}]}, "needs query, and provider"),
    ({"webhooks": [{"name": "a", "url": "tester"}]}, "needs url"),
    ({"webhooks": [{"name": "a", "url": "http://tester", "type": "before"}]}, 'has type "before"; it can be one of'),
    ({"webhooks": [{"url": "http://tester"}]}, "webhook 1 has no name"),
    ({"webhooks": [{"name": "a", "url": "http://tester", "cmd": "x"}]}, 'has no key "cmd"'),
    ({"alerts": [{"name": "a"}]}, "needs name and provider"),
    ({"alerts": [{"name": "a", "provider": "b", "severity": "bad"}]}, 'has severity "bad"'),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED, ids=[sentence[:40] for _given, sentence in REFUSED])
def test_what_flagger_would_take_for_something_else_is_refused(given: dict[str, Any], sentence: str) -> None:
    cluster = shop()
    with pytest.raises(InvalidRequest) as refused:
        flagger_canary.execute(options(**given), cluster, False)
    assert sentence in refused.value.message and "\n" not in refused.value.message
    assert cluster.writes == []


@pytest.mark.parametrize(("text", "expected"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("2m", 120)])
def test_a_duration_is_read_in_seconds(text: str, expected: float) -> None:
    assert flagger.seconds("interval", text) == expected


# -- Flagger as it runs ----------------------------------------------------------------------------------------------


def test_how_a_flagger_was_started_is_read_from_its_flags() -> None:
    found = flagger.settings_of(
        controller("-mesh-provider=gatewayapi:v1", "--metrics-server", "http://p:9090", "-selector-labels=app,tier", "-namespace=shop")
    )
    assert found is not None
    assert (found.provider, found.metrics_server, found.labels, found.watches) == (
        "gatewayapi:v1",
        "http://p:9090",
        ("app", "tier"),
        "shop",
    )
    assert flagger.settings_of(deployment()) is None


def test_a_provider_that_the_cluster_has_no_kinds_of_is_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        flagger_canary.execute(options(provider="traefik", iterations=2), shop(), False)
    assert "this cluster has no kinds of traefik.io" in refused.value.message
    assert "Deployment flagger-system/flagger was started with -mesh-provider=istio" in refused.value.message


def test_without_a_provider_that_of_flagger_counts() -> None:
    with pytest.raises(InvalidRequest, match="gateway_refs with provider gatewayapi:v1"):
        cluster = shop(controller("-mesh-provider=gatewayapi:v1"))
        cluster.groups.append("gateway.networking.k8s.io")
        flagger_canary.execute(options(provider=None, iterations=2), cluster, False)


def test_mirror_is_refused_where_the_gateway_does_not_mirror() -> None:
    group = "gateway.networking.k8s.io/v1"
    gateway = {
        "apiVersion": group,
        "kind": "Gateway",
        "metadata": {"name": "public", "namespace": "shop"},
        "spec": {"gatewayClassName": "traefik"},
    }
    able = {"supportedFeatures": [{"name": "HTTPRoute"}]}
    spec = {"controllerName": "traefik.io/gateway-controller"}
    kind = {"apiVersion": group, "kind": "GatewayClass", "metadata": {"name": "traefik"}, "spec": spec, "status": able}
    cluster = shop(gateway, kind)
    cluster.groups.append("gateway.networking.k8s.io")
    given = {"provider": "gatewayapi:v1", "iterations": None, "step_weight": 50, "gateway_refs": [{"name": "public"}]}
    said = refusal(cluster, **given, mirror=True)
    assert "Canary shop/web cannot have mirror" in said and "leave mirror out, or use provider istio" in said
    assert "traefik.io/gateway-controller leaves HTTPRouteRequestMirror out" in said
    assert flagger_canary.execute(options(**given), cluster, True).changed


def refusal(cluster: FakeCluster, **given: Any) -> str:
    """Return the sentence by which a Canary is refused, before anything was written."""
    with pytest.raises(InvalidRequest) as refused:
        flagger_canary.execute(options(**given), cluster, False)
    assert cluster.writes == []
    return refused.value.message


def test_without_the_kind_or_a_flagger_that_runs_nothing_is_made() -> None:
    cluster = shop()
    cluster.groups.remove("flagger.app")
    assert "install Flagger, for example by the role flagger" in refusal(cluster)
    assert "has no ready pod" in refusal(shop(controller("-mesh-provider=istio", ready=0)))
    alone = FakeCluster(deployment(), service())
    alone.groups.append("flagger.app")
    assert "no Flagger was found" in refusal(alone)
    assert "was started with -namespace=other" in refusal(shop(controller("-namespace=other", "-mesh-provider=istio")))


def test_what_flagger_would_take_away_is_refused() -> None:
    assert "have no port grpc" in refusal(shop(), target_port="grpc")
    assert "have no port 81" in refusal(shop(), target_port=81, port=81)
    metrics = {"name": "metrics", "port": 9797, "targetPort": 9797}
    assert "has port 9797, which Flagger would take away" in refusal(
        shop(service("web", None, {"name": "http", "port": 80, "targetPort": "http"}, metrics))
    )
    assert "set port_name: web" in refusal(shop(service("web", None, {"name": "web", "port": 80, "targetPort": "http"})))
    assert "Service shop/internal sends to the pods" in refusal(shop(service("internal")))
    assert "has pods with app=web too" in refusal(shop(deployment("worker", {"app": "web", "tier": "back"})))
    assert "Deployment shop/web-primary is there already" in refusal(shop(deployment("web-primary")))
    scaler = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "shop"}}
    scaler["spec"] = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}
    assert "set autoscaler: web" in refusal(shop(scaler))
    assert "none of the labels app, name, app.kubernetes.io/name" in refusal(shop(deployment("web", {"tier": "front"})))
    other = kept()
    other["metadata"]["name"] = "other"
    assert "is released by Canary shop/other already" in refusal(shop(other))


def test_a_service_must_lead_to_the_pods_of_the_target_and_to_no_others() -> None:
    front = {"app": "web", "tier": "front"}
    said = refusal(shop(deployment("web", {"app": "web"}), service("web", {"app": "old"}), deployment("old")))
    assert "Service shop/web does not lead to the pods of Deployment shop/web (its selector is app=old)" in said
    both = shop(deployment("web", front), deployment("api", {"app": "api", "tier": "front"}), service("web", {"tier": "front"}))
    assert "leads to the pods of Deployment shop/api too" in refusal(both)
    alone = service()
    del alone["spec"]["selector"]
    assert "Service shop/web has no selector" in refusal(shop(alone))
    assert flagger_canary.execute(options(), shop(deployment("web", front), service("web", front)), True).changed


def test_a_takeover_that_was_killed_has_turned_its_service_already() -> None:
    canary = kept()
    canary["metadata"]["annotations"][flagger.ADOPTING] = "yes"
    canary["metadata"]["uid"] = "1"
    primary = as_primary(deployment())
    cluster = shop(canary, primary, service("web", {"app": "web-primary"}))
    assert flagger_canary.execute(options(), cluster, True).actions[0] == "went on with Canary shop/web"


def test_nothing_is_built_on_what_is_on_its_way_out() -> None:
    gone = [{"kind": "Canary", "name": "web", "uid": "0"}]
    primary = as_primary(deployment())
    primary["metadata"]["ownerReferences"] = gone
    assert "Deployment shop/web-primary belongs to Canary web (uid 0), which is not there" in refusal(shop(primary), force=True)
    apex = service()
    apex["metadata"]["ownerReferences"] = gone
    assert "Service shop/web belongs to Canary web (uid 0)" in refusal(shop(apex))
    leaving_one = kept()
    leaving_one["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert "Canary shop/web is being deleted; wait until it is gone" in refusal(shop(leaving_one))


def takeover_of(cluster: FakeCluster, **given: Any) -> flagging.Takeover:
    """Return the takeover that a run would do."""
    asked = options(**given)
    spec = flagger.wanted_spec(asked)
    facts = flagging.read_facts(asked, cluster, CANARY, spec)
    return flagging.Takeover(cluster, facts, spec, asked, 1.0, lambda *_words: None)


def test_a_canary_that_somebody_else_makes_at_that_moment_is_left_alone() -> None:
    cluster = shop()
    run = takeover_of(cluster)
    cluster.put(kept())
    with pytest.raises(Conflict, match="was made by somebody else at this moment"):
        run._begin()
    assert cluster.writes == []
    cluster = shop()
    run = takeover_of(cluster)
    cluster.put(run._manifest())
    run._begin()
    assert cluster.writes == []


def test_what_others_write_while_a_workload_is_taken_over_stays() -> None:
    cluster = shop()
    run = takeover_of(cluster, interval="30s", skip_analysis=True)
    run._begin()
    spec = cluster.get(CANARY)["spec"]
    assert (spec["analysis"]["interval"], spec["suspend"], spec["skipAnalysis"]) == ("10s", False, False)
    spec["service"]["headless"] = True
    cluster.put({**cluster.get(CANARY), "spec": spec})
    run._suspend()
    suspended = cluster.get(CANARY)["spec"]
    assert suspended["suspend"] is True and suspended["service"]["headless"] is True
    suspended["analysis"]["threshold"] = 7
    cluster.put({**cluster.get(CANARY), "spec": suspended})
    run._let_go_on()
    canary = cluster.get(CANARY)
    assert flagger.ADOPTING not in canary["metadata"]["annotations"]
    assert canary["spec"] == {
        **run.wanted,
        "service": {**run.wanted["service"], "headless": True},
        "analysis": {**run.wanted["analysis"], "threshold": 7},
    }


@pytest.mark.parametrize("kind", ["DaemonSet", "Deployment"])
def test_endpoints_are_those_of_a_workload_by_the_labels_of_its_pods(kind: str) -> None:
    def pod(name: str, app: str) -> dict[str, Any]:
        return {"kind": "Pod", "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}}}

    def endpoints(*names: str) -> dict[str, Any]:
        entries = [{"targetRef": {"kind": "Pod", "name": name}, "conditions": {"ready": True}} for name in names]
        meta = {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
        return {"kind": "EndpointSlice", "metadata": meta, "endpoints": entries}

    cluster = shop(pod("web-primary-x7k2p", "web-primary"), pod("web-q8rtz", "web"), endpoints("web-primary-x7k2p"))
    apex, ref = Ref("Service", "shop", "web"), Ref(kind, "shop", "web")
    with pytest.raises(WaitFailed, match=f"does not lead to the pods of {kind} shop/web alone"):
        flagging.await_endpoints(cluster, apex, ref, "app=web", 0.2)
    cluster.put(endpoints("web-q8rtz"))
    flagging.await_endpoints(cluster, apex, ref, "app=web", 1.0)


def test_a_service_whose_pods_stay_is_none_of_our_business() -> None:
    labels = {"app": "web", "tier": "front"}
    cluster = shop(deployment("web", labels), service("front", {"tier": "front"}))
    assert flagger_canary.execute(options(), cluster, True).changed


def test_references_that_lead_nowhere_are_refused() -> None:
    assert "HorizontalPodAutoscaler shop/web, which autoscaler names, does not exist" in refusal(shop(), autoscaler="web")
    assert "AlertProvider shop/slack, which alerts names, does not exist" in refusal(shop(), alerts=[{"name": "a", "provider": "slack"}])
    wanted = refusal(shop(), provider="istio", iterations=None, step_weight=10, gateways=["edge/public"])
    assert "Gateway.networking.istio.io edge/public, which gateways names, does not exist" in wanted


def kept_route(kind: str, spec: dict[str, Any], **given: Any) -> str:
    """Return the sentence by which a takeover of a route is refused, empty where it is not; ``given`` is what spec.service has beside."""
    service = {"port": 80, "hosts": ["a.example"], **given}
    route = {"kind": kind, "metadata": {"name": "web", "namespace": "shop"}, "spec": spec}
    try:
        flagger_routes.check_route(route, NAMES, {"service": service, "analysis": {}})
    except InvalidRequest as error:
        return error.message
    return ""


GATEWAYS = {"gatewayRefs": [{"name": "public", "namespace": "edge"}]}
BACKEND = {"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}
SLASH = {"path": {"type": "PathPrefix", "value": "/"}}
MODIFIED = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-A", "value": "1"}, {"name": "B", "value": "2"}]}}


def http_route(rule: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    """Return the spec of an HTTPRoute with one rule, as the API server has it."""
    base = {"hostnames": ["a.example"], "parentRefs": [{"group": "gateway.networking.k8s.io", "name": "public", "namespace": "edge"}]}
    return {**base, "rules": [{"matches": [SLASH], "backendRefs": [BACKEND], **(rule or {})}], **given}


@pytest.mark.parametrize(
    ("spec", "given", "sentence"),
    [
        (http_route(), {}, ""),
        (http_route(hostnames=["a.example", "b.example"]), {}, "has host b.example, which Flagger would take away; add it to hosts"),
        (http_route(), {"hosts": []}, "would let it take the requests for every other one; add it to hosts"),
        (http_route(hostnames=[]), {}, "is for every host of its Gateway, and Flagger would leave it a.example alone; leave hosts out"),
        (http_route(hostnames=[]), {"hosts": []}, ""),
        (http_route(parentRefs=[{"name": "inner"}]), {}, "belongs to Gateway inner"),
        (http_route({"backendRefs": [{"name": "api"}]}), {}, "leads to api too"),
        (http_route({"backendRefs": [{"name": "web", "namespace": "other"}]}), {}, "leads to other/web too"),
        (http_route({"backendRefs": [{**BACKEND, "port": 9000}]}), {}, "leads to port 9000 of web too"),
        (http_route({"backendRefs": [{**BACKEND, "filters": [MODIFIED]}]}), {}, "leads to web with filters too"),
        (http_route(rules=[{"backendRefs": [BACKEND]}, {"backendRefs": [BACKEND]}]), {}, "has 2 rules"),
        (http_route({"matches": [{"path": {"type": "Exact", "value": "/shop"}}]}), {}, "is for path /shop, which Flagger would take away"),
        (http_route({"matches": [{"path": {"type": "Exact", "value": "/shop"}}]}), {"match": [{"uri": {"exact": "/shop"}}]}, ""),
        (http_route(), {"match": [{"uri": {"exact": "/shop"}}]}, "is for all requests, which Flagger would take away"),
        (
            http_route({"matches": [{"headers": [{"name": "X-Beta", "value": "1"}]}]}),
            {"match": [{"headers": {"x-beta": {"exact": "1"}}}]},
            "",
        ),
        (
            http_route({"matches": [{"method": "GET"}]}),
            {"match": [{"method": {"exact": "GET"}}, {"method": {"exact": "PUT"}}]},
            "is not for path / with a method, which Flagger would add",
        ),
        (http_route({"filters": [MODIFIED]}), {}, "has a filter RequestHeaderModifier, which Flagger would take away; set headers"),
        (http_route({"filters": [MODIFIED]}), {"headers": {"request": {"set": {"b": "2", "x-a": "1"}}}}, ""),
        (
            http_route({"filters": [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}}]}),
            {"rewrite": {"uri": "/x"}},
            "",
        ),
        (http_route({"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "b"}}]}), {"rewrite": {"uri": "/x"}}, "set rewrite"),
        (http_route({"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}), {}, "RequestRedirect, which Flagger would take"),
        (http_route({"timeouts": {"request": "15s"}}), {}, "has a timeout of 15s, which Flagger would take away; set request_timeout"),
        (http_route({"timeouts": {"request": "15s"}}), {"timeout": "20s"}, ""),
        (http_route({"retry": {"attempts": 2}}), {}, "has retry, which Flagger does not write and would take away"),
    ],
)
def test_an_http_route_that_is_there_loses_nothing(spec: dict[str, Any], given: dict[str, Any], sentence: str) -> None:
    said = kept_route("HTTPRoute", spec, **{**GATEWAYS, **given})
    assert sentence in said if sentence else said == ""


def virtual_service(rule: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    """Return the spec of a VirtualService with one rule."""
    http = [{"route": [{"destination": {"host": "web"}}], **(rule or {})}]
    return {"hosts": ["a.example", "web.shop.svc.cluster.local"], "gateways": ["edge/public"], "http": http, **given}


@pytest.mark.parametrize(
    ("spec", "given", "sentence"),
    [
        (virtual_service(), {}, ""),
        (virtual_service(hosts=["b.example"]), {}, "has host b.example"),
        (virtual_service(gateways=[]), {}, "belongs to gateway mesh"),
        (virtual_service(tls=[{"match": []}]), {}, "has rules for tls, which Flagger would take away"),
        (virtual_service(tcp=[{"match": []}]), {}, "has rules for tcp"),
        (virtual_service({"route": [{"destination": {"host": "web.other.svc.cluster.local"}}]}), {}, "leads to web.other.svc"),
        (virtual_service({"route": [{"destination": {"host": "web", "subset": "v1"}}]}), {}, "leads to subset v1 of web too"),
        (virtual_service({"route": [{"destination": {"host": "web", "port": {"number": 9000}}}]}), {}, "leads to port 9000 of web"),
        (virtual_service({"match": [{"uri": {"prefix": "/shop"}}]}), {}, "is for path /shop, which Flagger would take away"),
        (virtual_service({"match": [{"uri": {"prefix": "/shop"}}]}), {"match": [{"uri": {"prefix": "/shop"}}]}, ""),
        (virtual_service(), {"match": [{"uri": {"prefix": "/shop"}}]}, "is for all requests, which Flagger would take away"),
        (virtual_service({"retries": {"attempts": 2}}), {}, "has retries, which Flagger would take away; set retries"),
        (virtual_service({"retries": {"attempts": 2}}), {"retries": {"attempts": 3}}, ""),
        (virtual_service({"rewrite": {"uri": "/x"}}), {"rewrite": {"uri": "/y"}}, "has rewrite, which Flagger would take away"),
        (virtual_service({"fault": {"abort": {"httpStatus": 500}}}), {}, "has fault, which Flagger does not write"),
    ],
)
def test_a_virtual_service_that_is_there_loses_nothing(spec: dict[str, Any], given: dict[str, Any], sentence: str) -> None:
    said = kept_route("VirtualService", spec, **{"gateways": ["edge/public"], **given})
    assert sentence in said if sentence else said == ""


def test_a_traefik_service_that_is_there_loses_nothing() -> None:
    entry = {"kind": "Service", "name": "web", "port": 80, "weight": 1}
    assert kept_route("TraefikService", {"weighted": {"services": [entry]}}) == ""
    for spec, sentence in (
        ({"mirroring": {"name": "web"}}, "has no weighted services, and Flagger knows no others"),
        ({"weighted": {"services": [entry], "sticky": {"cookie": {}}}}, "has weighted.sticky"),
        ({"weighted": {"services": [{**entry, "scheme": "https"}]}}, "has weighted.services.scheme"),
        ({"weighted": {"services": [entry, {**entry, "name": "api"}]}}, "leads to api too"),
        ({"weighted": {"services": [{**entry, "port": 8080}]}}, "leads to port 8080 of web too"),
    ):
        assert sentence in kept_route("TraefikService", spec)


# -- Metrics and webhooks --------------------------------------------------------------------------------------------

MODEL = {"name": "web", "namespace": "shop", "target": "web", "service": "web", "ingress": "web", "route": "web", "interval": "1m"}


def test_a_query_is_filled_in_as_flagger_does() -> None:
    model = {**MODEL, "variables": {"code": "404"}}
    query = 'sum(rate(x{ns="{{ namespace }}",\n  t=~"{{target}}", code="{{ variables.code }}"}[{{- interval -}}]))'
    assert canary_metrics.render("e", query, model) == 'sum(rate(x{ns="shop", t=~"web", code="404"}[1m]))'
    assert canary_metrics.render("e", "{{ if target }}up{{ end }}", model) is None
    with pytest.raises(InvalidRequest, match="asks for the variable zone"):
        canary_metrics.render("e", "{{ variables.zone }}", model)
    with pytest.raises(InvalidRequest, match="which Flagger does not know"):
        canary_metrics.render("e", "{{ pod }}", model)


def prometheus(*values: Any) -> Answer:
    """Return an answer of Prometheus with so many results."""
    result = [{"metric": {}, "value": [1, str(value)]} for value in values]
    return Answer(200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))


SUCCESS = [{"name": "request-success-rate", "min": 99}]


def measured(*answers: Answer | Exception, **given: Any) -> Any:
    """Return the result of a new Canary in check mode whose Prometheus answers so."""
    cluster = shop(service("prometheus", {"a": "b"}, {"port": 9090}, namespace="flagger-system"))
    cluster.answers = list(answers)
    return flagger_canary.execute(options(metrics=SUCCESS, **given), cluster, True)


def test_metrics_are_asked_before_the_canary_is_made() -> None:
    assert measured(prometheus("99.5")).changed
    # No request yet is a value that is no number: the series are there.
    assert measured(prometheus("NaN")).changed
    # The pods of an earlier takeover have the primary's name.
    assert measured(prometheus(), prometheus("99.5")).changed
    with pytest.raises(InvalidRequest, match="finds nothing at http://prometheus:9090"):
        measured(prometheus(), prometheus())
    with pytest.raises(InvalidRequest, match="finds 2 results, of which Flagger would take the last"):
        measured(prometheus(1, 2))
    with pytest.raises(InvalidRequest, match="Prometheus refuses its query: bad"):
        measured(Answer(400, '{"status": "error", "error": "bad"}'))
    with pytest.raises(InvalidRequest, match="which does not answer: 503"):
        measured(Answer(503, "no endpoints available"))
    with pytest.raises(InvalidRequest, match="leads to is no Prometheus"):
        measured(Answer(200, "<html>"))
    assert measured(check_metrics=False).changed


def test_what_cannot_be_asked_is_told() -> None:
    template = {"provider": {"type": "datadog", "address": "https://x"}, "query": "q"}
    result = flagger_canary.execute(options(metrics=[{"name": "e", "max": 1, "template": template}]), shop(), True)
    assert list(result.extra["checks"]) == ['metric "e" was not asked: its provider is datadog']
    assert any(action == "made MetricTemplate shop/web-e" for action in result.actions)
    hooks = [{"name": "chat", "url": "https://hooks.example.com/x"}]
    told = flagger_canary.execute(options(webhooks=hooks), shop(), True).extra["checks"]
    assert "not a Service of this cluster" in told[0]
    missing = [{"name": "e", "max": 1, "template_ref": {"name": "nope"}}]
    assert "MetricTemplate shop/nope does not exist" in refusal(shop(), metrics=missing)


def test_a_webhook_that_does_not_answer_is_refused() -> None:
    hooks = [
        {"name": "load", "url": "http://tester.shop/"},
        {"name": "gate", "type": "confirm-rollout", "url": "http://tester.shop/gate/check"},
    ]
    assert "Service shop/nope does not exist" in refusal(shop(), webhooks=[{"name": "a", "url": "http://nope.shop.svc/"}])
    tester = service("tester", {"app": "tester"}, {"port": 80})
    assert "has no port 81; it has 80" in refusal(shop(tester), webhooks=[{"name": "a", "url": "http://tester.shop:81/"}])
    cluster = shop(tester)
    cluster.answers = [Answer(503, "no endpoints available for service")]
    assert "does not answer: 503" in refusal(cluster, webhooks=hooks)
    cluster = shop(tester)
    cluster.answers = [Unavailable("no")]
    assert "does not answer: no" in refusal(cluster, webhooks=hooks)
    cluster = shop(tester)
    cluster.answers = [Answer(404, "nothing here")]
    assert flagger_canary.execute(options(webhooks=hooks), cluster, True).changed
    assert cluster.answers == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://tester/x", ("flagger-system", "tester", "80", "/x", True)),
        ("https://tester.shop/", ("shop", "tester", "https:443", "/", False)),
        ("http://tester.shop.svc.cluster.local:8080", ("shop", "tester", "8080", "/", True)),
        ("https://hooks.slack.com/x", None),
        ("http://10.0.0.1/", None),
    ],
)
def test_an_address_in_the_cluster_is_told_from_one_outside(url: str, expected: Any) -> None:
    found = canary_metrics.address_of(url, "flagger-system")
    assert expected == (found and (found.namespace, found.service, found.port, found.path, found.is_sure))


# -- A Canary that is kept -------------------------------------------------------------------------------------------


def test_a_second_run_changes_nothing_and_another_one_what_differs() -> None:
    cluster = shop(kept())
    result = flagger_canary.execute(options(), cluster, False)
    assert not result.changed and cluster.writes == [] and result.before == result.after and result.extra["phase"] == "Initialized"
    foreseen = flagger_canary.execute(options(iterations=5, threshold=3), cluster, True)
    assert cluster.writes == []
    done = flagger_canary.execute(options(iterations=5, threshold=3), cluster, False)
    assert foreseen.actions == done.actions == ["changed analysis.iterations, analysis.threshold of Canary shop/web"]
    assert foreseen.after == done.after and cluster.get(CANARY)["spec"]["analysis"]["iterations"] == 5
    # What is not asked for any more goes, for it was ours.
    assert flagger_canary.execute(options(iterations=5), cluster, False).changed
    assert cluster.get(CANARY)["spec"]["analysis"]["threshold"] == 1
    assert not flagger_canary.execute(options(iterations=5), cluster, False).changed


def test_what_others_have_put_there_stays() -> None:
    canary = kept()
    canary["spec"]["service"]["headless"] = True
    cluster = shop(canary)
    assert not flagger_canary.execute(options(), cluster, False).changed
    assert flagger_canary.execute(options(threshold=2), cluster, False).changed
    assert cluster.get(CANARY)["spec"]["service"]["headless"] is True


def test_a_canary_does_not_move_to_another_workload() -> None:
    with pytest.raises(InvalidRequest, match="cannot move to Deployment shop/other"):
        flagger_canary.execute(options(target="other"), shop(kept(), deployment("other")), False)


def test_a_living_canary_changes_no_port_by_which_requests_come() -> None:
    two = deployment(ports=[{"name": "http", "containerPort": 9898}, {"name": "admin", "containerPort": 9797}])
    for asked, sentence in (
        (
            {"port": 8080},
            "would take port 80 away from Service shop/web at once, and write port 8080; take the workload off with state: absent",
        ),
        ({"port_name": "web"}, 'call port 80 of Service shop/web "web" and not "http"'),
        ({"service_name": "other"}, "cannot move to Service shop/other"),
    ):
        assert sentence in refusal(shop(kept()), **asked)
        assert sentence in refusal(shop(kept()), force=True, **asked)
    assert "would take port 9797 away" in refusal(shop(kept(port_discovery=True), two), port_discovery=False)
    assert flagger_canary.execute(options(port_discovery=True), shop(kept(), two), True).changed
    # The primary has the requests: its pods must have the port.
    assert "pods of Deployment shop/web-primary have no port admin" in refusal(
        shop(kept(), two, as_primary(deployment())), target_port="admin"
    )
    assert flagger_canary.execute(options(target_port="admin"), shop(kept(), two, as_primary(two)), True).changed


def test_a_living_canary_leaves_no_route_behind() -> None:
    route = {"kind": "VirtualService", "metadata": {"name": "web", "namespace": "shop"}, "spec": {}}
    gateway = {"kind": "Gateway.gateway.networking.k8s.io", "metadata": {"name": "public", "namespace": "shop"}}
    for old, new, cluster, sentence in (
        ("istio", "kubernetes", shop(kept(provider="istio"), route), "would leave its VirtualService as it is, leading to web-primary"),
        ("nginx", "istio", shop(kept(provider="nginx")), "would leave what it has written as it is"),
        ("kubernetes", "istio", shop(kept(), route), "would write VirtualService shop/web, which is there already"),
        ("kubernetes", "contour", shop(kept()), "is not known here"),
    ):
        cluster.groups += ["projectcontour.io"]
        said = refusal(cluster, provider=new)
        assert f"has provider {old}, and cannot change to {new}" in said and sentence in said
    busy = kept()
    busy["status"]["phase"] = "Progressing"
    assert "in the middle of a release (Progressing)" in refusal(shop(busy), provider="istio")
    # Its route is made where there was none; and to name what Flagger takes anyway is no change.
    assert flagger_canary.execute(options(provider="istio"), shop(kept()), True).changed
    assert flagger_canary.execute(options(provider="istio"), shop(kept(provider=None)), True).changed
    takeover.check_provider_kept(NAMES, "gatewayapi:v1beta1", "gatewayapi:v1", "Progressing", gateway)


def test_templates_come_and_go_with_their_metrics() -> None:
    template = {"provider": {"type": "datadog", "address": "https://x"}, "query": "q"}
    metric = {"name": "e", "max": 1, "template": template}
    cluster = shop(kept())
    assert flagger_canary.execute(options(metrics=[metric]), cluster, False).changed
    assert cluster.get(Ref("MetricTemplate", "shop", "web-e"))["spec"] == template
    assert not flagger_canary.execute(options(metrics=[metric]), cluster, False).changed
    done = flagger_canary.execute(options(), cluster, False)
    assert "deleted MetricTemplate shop/web-e" in done.actions


def test_in_check_mode_a_takeover_is_told_and_nothing_is_written() -> None:
    cluster = shop()
    result = flagger_canary.execute(options(), cluster, True)
    assert result.changed and cluster.writes == []
    assert result.actions[0] == "made Canary shop/web"
    assert "turned Service shop/web to web-primary: it is Flagger's now and was there before" in result.actions


def test_check_mode_tells_the_phase_that_the_run_would_return() -> None:
    def phase(cluster: FakeCluster, **given: Any) -> str:
        return flagger_canary.execute(options(**given), cluster, True).extra["phase"]

    assert phase(shop()) == "Initialized"
    assert phase(shop(), wait=False) == "Initializing"
    # To be suspended, it is waited for in any case.
    assert phase(shop(), wait=False, suspend=True) == "Initialized"
    canary = kept()
    canary["status"]["phase"] = "Initializing"
    assert phase(shop(canary)) == "Initialized"
    assert phase(shop(canary), wait=False) == "Initializing"


def test_a_run_that_changes_no_webhook_does_not_depend_on_its_receiver() -> None:
    hooks = [{"name": "gate", "url": "http://nope.shop.svc/"}]
    cluster = shop(kept(webhooks=hooks))
    assert not flagger_canary.execute(options(webhooks=hooks), cluster, False).changed
    more = [*hooks, {"name": "other", "url": "http://none.shop.svc/"}]
    assert "Service shop/nope does not exist" in refusal(cluster, webhooks=more)


def test_what_a_webhook_carries_is_not_shown() -> None:
    shown = flagger.told({"analysis": {"webhooks": [{"name": "a", "metadata": {"token": "s3cret", "cmd": "hey"}}]}})
    assert shown["analysis"]["webhooks"][0]["metadata"] == {"token": "...", "cmd": "..."}


def test_no_secret_of_a_canary_is_shown() -> None:
    secret = "c4n4ry-s3cr3t-c4n4ry-s3cr3t"
    given: dict[str, Any] = {
        "headers": {"request": {"add": {"authorization": f"Bearer {secret}", "x-other": secret}, "remove": ["cookie"]}},
        "metrics_server": f"http://user:{secret}@p.example:9090/{secret}",
        "webhooks": [
            {"name": "a", "url": f"https://user:{secret}@hooks.example.com/services/{secret}?t={secret}", "metadata": {"key": secret}},
            {"name": "b", "url": "http://tester.shop/", "metadata": {"cmd": f"hey -H 'authorization: {secret}' http://web"}},
        ],
    }
    cluster = shop(kept(), service("tester", {"app": "t"}, {"port": 80}))
    cluster.answers = [Answer(200, "")]
    outcome = perform(flagger_canary.execute, options(**given), False, connector=lambda _options: cluster)
    assert outcome["changed"] and secret not in json.dumps(outcome)
    shown = outcome["after"]["spec"]
    assert shown["analysis"]["webhooks"][0]["url"] == "https://hooks.example.com" and shown["metricsServer"] == "http://p.example:9090"
    assert shown["service"]["headers"]["request"] == {"add": {"authorization": "...", "x-other": "..."}, "remove": ["cookie"]}
    assert secret in json.dumps(cluster.get(CANARY)["spec"])
    # The arguments are shown as well, by -vvv.
    assert {secret, f"t={secret}", f"user:{secret}", f"hey -H 'authorization: {secret}' http://web"} <= header_secrets(given)
    for url in (f"http://u:{secret}@nobody.shop.svc/{secret}?{secret}", f"http://web.shop.svc:81/{secret}"):
        said = perform(
            flagger_canary.execute, options(webhooks=[{"name": "a", "url": url}]), False, connector=lambda _options: shop(kept())
        )
        assert said["failed"] and secret not in json.dumps(said)


def test_no_secret_in_the_address_of_a_gate_is_shown() -> None:
    secret = "c4n4ry-s3cr3t"
    hooks = [{"name": "a", "type": "confirm-promotion", "url": f"http://u:{secret}@127.0.0.1:1/{secret}/gate/check"}]
    canary = kept(webhooks=hooks)
    canary["status"]["phase"] = "Progressing"
    for given in ({}, {"url": f"http://u:{secret}@127.0.0.1:1/{secret}"}):
        said = perform(flagger_gate.execute, gate_options(**given), False, connector=lambda _options: shop(canary))
        assert said["failed"] and "no answer from http://127.0.0.1:1" in said["msg"] and secret not in json.dumps(said)
    two = [gates.Gate(f"http://t/{secret}", "/gate", ("a",)), gates.Gate("http://t", "/gate", ("b",))]
    assert gates.places_of(two) == ["http://t (a)", "http://t (b)"] and gates.places_of(two[1:]) == ["http://t"]


# -- The way back ----------------------------------------------------------------------------------------------------


def as_primary(workload: dict[str, Any]) -> dict[str, Any]:
    """Return what Flagger makes of a workload."""
    primary = copy.deepcopy(workload)
    primary["metadata"]["name"] = "web-primary"
    template = primary["spec"]["template"]
    template["metadata"]["labels"]["app"] = "web-primary"
    template["metadata"]["annotations"] = {**(template["metadata"].get("annotations") or {}), "flagger-id": "1"}
    primary["spec"]["selector"] = {"matchLabels": {"app": "web-primary"}}
    primary["metadata"]["ownerReferences"] = [{"kind": "Canary", "name": "web", "uid": "1"}]
    return primary


def test_the_target_gets_what_the_primary_runs_under_its_own_names() -> None:
    workload = deployment(
        envFrom=[{"configMapRef": {"name": "settings"}}], env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key"}}}]
    )
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"app": "web"}}}]}}
    workload["spec"]["template"]["spec"]["affinity"] = affinity
    primary = as_primary(workload)
    spec = primary["spec"]["template"]["spec"]
    spec["containers"][0]["envFrom"][0]["configMapRef"]["name"] = "settings-primary"
    spec["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"] = "key-primary"
    spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"]["matchLabels"]["app"] = (
        "web-primary"
    )
    copies = {"settings-primary": "settings", "key-primary": "key"}
    workload["spec"]["replicas"] = 0
    back = takeover.way_back(primary, workload, {"replicas": 3}, "app", "web", copies)
    assert back.template is None and back.replicas == 2
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = "web:bad"
    back = takeover.way_back(primary, workload, {}, "app", "web", copies)
    assert back.template is not None and back.template["spec"]["containers"][0]["image"] == "web:1"
    assert back.template["metadata"] == {"labels": {"app": "web"}}
    assert takeover.references(back.template) == {("ConfigMap", "settings"), ("Secret", "key")}


def test_a_daemonset_loses_the_selector_that_took_its_pods_off() -> None:
    workload = {**deployment(), "kind": "DaemonSet"}
    primary = as_primary(workload)
    workload["spec"]["template"]["spec"]["nodeSelector"] = {takeover.SCALED_TO_ZERO: "true"}
    back = takeover.way_back(primary, workload, {}, "app", "web", {})
    assert back.replicas is None and back.template is not None and "nodeSelector" not in back.template["spec"]


def test_a_service_and_a_route_get_back_what_was_noted() -> None:
    record = takeover.record(deployment(), service(), {"kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": {"rules": [1]}})
    assert takeover.service_before(service("web", {"app": "web-primary"}), record, "app", "web").selector == {"app": "web"}
    assert takeover.route_before({"kind": "HTTPRoute", "spec": {}}, record, NAMES, 80) == {"rules": [1]}
    assert record["replicas"] == 2


def test_what_was_noted_long_ago_is_put_back_only_where_it_still_holds() -> None:
    turned = service("web", {"app": "web-primary"}, {"name": "http", "port": 80, "targetPort": "http"})
    primary = as_primary(deployment("web", {"app": "web", "tier": "front"}))

    def led(selector: dict[str, str], labels: dict[str, str], *others: dict[str, Any], port: Any = "http") -> takeover.Led:
        noted = {"service": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": port}]}}
        return takeover.service_before(turned, noted, "app", "web", deployment("web", labels), [primary, *others])

    front = {"app": "web", "tier": "front"}
    assert led(front, front).selector == front and led(front, front).why == ""
    # Its owner has given the pods other labels since.
    old = led(front, {"app": "web", "tier": "back"})
    assert old.selector == {"app": "web"} and "(app=web,tier=front) finds no pods of Deployment shop/web any more" in old.why
    both = led({"tier": "front"}, front, deployment("api", {"app": "api", "tier": "front"}))
    assert both.selector == {"app": "web"} and "finds the pods of Deployment shop/api too" in both.why and both.later is None
    # It finds the primary too, as long as that is there.
    apart = led({"tier": "front"}, front)
    assert (apart.selector, apart.later, apart.why) == ({"app": "web"}, {"tier": "front"}, "")
    gone = led(front, front, port="web")
    assert gone.ports == turned["spec"]["ports"] and "have no port web any more" in gone.why
    canary = kept()
    note = {"service": {"selector": front, "ports": turned["spec"]["ports"]}, "replicas": 2}
    canary["metadata"]["annotations"][flagger.BEFORE] = flagger.as_note(note)
    told = flagger_canary.execute(options(state="absent"), shop(canary, turned, as_primary(deployment())), True).actions
    assert "turned Service shop/web back to Deployment shop/web: by app=web, for the selector that it had before" in told[0]


def test_a_route_keeps_the_hosts_that_it_has_got_under_flagger() -> None:
    parents = [{"name": "public", "namespace": "edge"}]
    noted = {"route": {"spec": {"hostnames": ["a"], "parentRefs": parents, "rules": [1]}}}
    spec = {"hostnames": ["a", "b"], "parentRefs": [*parents, {"name": "inner"}], "rules": [2]}
    route = {"kind": "HTTPRoute", "metadata": {}, "spec": spec}
    assert takeover.newer_of(route, noted, NAMES) == ["host b", "Gateway inner"]
    assert takeover.route_before(route, noted, NAMES, 80) == {**spec, "rules": [1]}
    noted = {"route": {"spec": {"hosts": ["a"], "http": [1]}}}
    route = {"kind": "VirtualService", "metadata": {}, "spec": {"hosts": ["a", "web"], "gateways": ["mesh"], "http": [2]}}
    assert takeover.newer_of(route, noted, NAMES) == []
    assert takeover.route_before(route, noted, NAMES, 80) == {"hosts": ["a"], "http": [1]}


def scaled_object(**notes: str) -> dict[str, Any]:
    """Return a ScaledObject of KEDA for the Deployment web."""
    meta = {"name": "web", "namespace": "shop", "annotations": notes}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": meta, "spec": {"scaleTargetRef": {"name": "web"}}}


def test_what_flagger_has_paused_is_let_go_again() -> None:
    paused = {"autoscaling.keda.sh/paused-replicas": "0"}
    assert takeover.paused_before(scaled_object(**paused), {}) == {takeover.PAUSED: None}
    assert takeover.paused_before(scaled_object(**paused), {"paused": "2"}) == {takeover.PAUSED: "2"}
    # Paused by somebody else: before Flagger, or since.
    assert takeover.paused_before(scaled_object(**paused), {"paused": "0"}) == {}
    assert takeover.paused_before(scaled_object(**{takeover.PAUSED: "3"}), {}) == {}
    assert takeover.record(deployment(), None, None, scaled_object(**{takeover.PAUSED: "2"}))["paused"] == "2"
    canary = kept(autoscaler="web", autoscaler_kind="ScaledObject")
    cluster = shop(canary, scaled_object(**paused), as_primary(deployment()))
    told = flagger_canary.execute(options(state="absent"), cluster, True).actions
    assert told[0] == "let ScaledObject shop/web scale Deployment shop/web again, which Flagger had paused"


def test_an_autoscaler_of_keda_goes_by_the_name_of_what_it_was_made_for() -> None:
    scaler = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "keda-hpa-web", "namespace": "shop"}}
    scaler["metadata"]["ownerReferences"] = [{"kind": "ScaledObject", "name": "web"}]
    scaler["spec"] = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}
    assert "set autoscaler: web and autoscaler_kind: ScaledObject" in refusal(shop(scaler, scaled_object()))
    assert "ScaledObject shop/web, which autoscaler names, does not exist" in refusal(
        shop(scaler), autoscaler="web", autoscaler_kind="ScaledObject"
    )
    cluster = shop(scaler, scaled_object())
    assert flagger_canary.execute(options(autoscaler="web", autoscaler_kind="ScaledObject"), cluster, True).changed


@pytest.mark.parametrize(
    ("analysis", "is_quiet", "expected"),
    [
        ({"interval": "10s"}, True, 12),
        ({"interval": "5m"}, True, 17),
        ({}, False, 65),
        ({"interval": "10s", "webhooks": [{"timeout": "30s"}, {}]}, False, 45),
        ({"interval": "10m"}, False, 120),
    ],
)
def test_how_long_a_look_of_flagger_is_waited_for(analysis: dict[str, Any], is_quiet: bool, expected: float) -> None:
    assert flagger.look_seconds({"analysis": analysis}, is_quiet) == expected


def test_a_route_that_flagger_made_leads_to_the_service() -> None:
    mirrored = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web-canary"}}}
    rules = [
        {"matches": [{"headers": [{"name": "x"}]}], "backendRefs": [{"name": "web-canary"}]},
        {"matches": [{"path": {"value": "/"}}], "filters": [mirrored], "backendRefs": [{"name": "web-primary"}, {"name": "web-canary"}]},
    ]
    spec = takeover.led_to({"kind": "HTTPRoute", "metadata": {}, "spec": {"hostnames": ["a"], "rules": rules}}, NAMES, 80)
    assert spec["hostnames"] == ["a"] and len(spec["rules"]) == 1 and "filters" not in spec["rules"][0]
    assert [entry["name"] for entry in spec["rules"][0]["backendRefs"]] == ["web"]
    http = [
        {"route": [{"destination": {"host": "web-primary"}}, {"destination": {"host": "web-canary"}}], "mirror": {"host": "web-canary"}}
    ]
    spec = takeover.led_to({"kind": "VirtualService", "metadata": {}, "spec": {"hosts": ["a"], "http": http}}, NAMES, 80)
    assert spec["http"] == [{"route": [{"destination": {"host": "web"}}]}]


def leaving(cluster: FakeCluster, **given: Any) -> str:
    """Return the sentence by which the way out is refused."""
    with pytest.raises(InvalidRequest) as refused:
        flagger_canary.execute(options(state="absent", **given), cluster, False)
    assert cluster.writes == []
    return refused.value.message


def test_nobody_leaves_in_the_middle_of_a_release_nor_with_other_settings() -> None:
    canary = kept()
    canary["status"]["phase"] = "Progressing"
    assert "is in the middle of a release (Progressing)" in leaving(shop(canary))
    canary = kept()
    canary["spec"]["provider"] = "contour"
    assert "has provider contour, whose routes are not put back here" in leaving(shop(canary))
    workload = deployment(envFrom=[{"configMapRef": {"name": "settings"}}])
    primary = as_primary(workload)
    primary["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"] = "settings-primary"
    owned = [{"kind": "Canary", "name": "web", "uid": "1"}]
    configs = [
        {"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"a": "new"}},
        {
            "kind": "ConfigMap",
            "metadata": {"name": "settings-primary", "namespace": "shop", "ownerReferences": owned},
            "data": {"a": "old"},
        },
    ]
    assert "ConfigMap shop/settings is not what Deployment shop/web-primary runs with" in leaving(shop(kept(), workload, primary, *configs))


def test_copies_that_may_not_be_read_are_not_left_to_be_deleted() -> None:
    workload = deployment()
    primary = as_primary(deployment(envFrom=[{"secretRef": {"name": "key-primary"}}]))
    cluster = shop(kept(), workload, primary)
    cluster.forbidden.add("Secret")
    assert "may not be read; grant get on secrets" in leaving(cluster)


def test_a_canary_on_its_way_out_is_not_made_again() -> None:
    canary = kept()
    canary["metadata"]["annotations"][flagger.SUSPENDED] = "yes"
    assert "is on its way out" in refusal(shop(canary))


def test_where_there_is_no_canary_nothing_is_to_leave() -> None:
    cluster = shop()
    assert not flagger_canary.execute(options(state="absent"), cluster, False).changed
    cluster.groups.remove("flagger.app")
    assert not flagger_canary.execute(options(state="absent"), cluster, False).changed


# -- Gates -----------------------------------------------------------------------------------------------------------

HOOKS = [
    {"name": "begin", "type": "confirm-rollout", "url": "http://tester.shop/gate/check"},
    {"name": "promote", "type": "confirm-promotion", "url": "http://tester.shop/gate/check"},
    {"name": "back", "type": "rollback", "url": "http://tester.shop/rollback/check"},
]
OPEN, SHUT = Answer(200, "Approved"), Answer(403, "Forbidden")


def gated(*answers: Answer, phase: str = "Progressing") -> FakeCluster:
    """Return a cluster whose Canary has gates, and whose load tester answers so."""
    canary = kept(webhooks=HOOKS)
    canary["status"]["phase"] = phase
    cluster = shop(canary, service("tester", {"app": "tester"}, {"port": 80}))
    cluster.answers = list(answers)
    return cluster


def test_a_gate_is_opened_once() -> None:
    cluster = gated(SHUT, Answer(202, ""), OPEN)
    result = flagger_gate.execute(gate_options(state="approved"), cluster, False)
    assert list(result.actions) == ["opened the advance gate of Canary shop/web for begin, promote"]
    assert [path for _ref, path, _body in cluster.posts] == ["/gate/check", "/gate/open", "/gate/check"]
    assert cluster.posts[0][2] == {"name": "web", "namespace": "shop"} and result.extra["open"] is True
    assert not flagger_gate.execute(gate_options(), gated(OPEN), False).changed
    assert not flagger_gate.execute(gate_options(state="halted"), gated(SHUT), False).changed
    looked = flagger_gate.execute(gate_options(state="checked"), gated(OPEN), False)
    assert not looked.changed and looked.extra["open"] is True


def test_check_mode_asks_and_does_not_turn() -> None:
    cluster = gated(SHUT)
    assert flagger_gate.execute(gate_options(), cluster, True).changed
    assert [path for _ref, path, _body in cluster.posts] == ["/gate/check"]


def test_a_release_is_taken_back_only_where_there_is_one() -> None:
    cluster = gated(SHUT, Answer(202, ""), OPEN)
    flagger_gate.execute(gate_options(gate="rollback"), cluster, False)
    assert cluster.posts[1][1] == "/rollback/open"
    with pytest.raises(InvalidRequest, match="there is no release to take back"):
        flagger_gate.execute(gate_options(gate="rollback"), gated(phase="Succeeded"), False)
    assert flagger_gate.execute(
        gate_options(gate="rollback", force=True), gated(SHUT, Answer(202, ""), OPEN, phase="Succeeded"), False
    ).changed
    assert not flagger_gate.execute(gate_options(gate="rollback", state="closed"), gated(SHUT, phase="Succeeded"), False).changed


def test_a_gate_that_nobody_asks_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="has no webhook that asks /gate/check"):
        flagger_gate.execute(gate_options(), shop(kept()), False)
    halted = kept(webhooks=[{"name": "a", "type": "confirm-rollout", "url": "http://tester.shop/gate/halt"}])
    with pytest.raises(InvalidRequest, match="asks /gate/halt, which always says no"):
        flagger_gate.execute(gate_options(), shop(halted), False)
    with pytest.raises(InvalidRequest, match='has no webhook "x"; it has: begin, promote, back'):
        flagger_gate.execute(gate_options(webhook="x"), gated(), False)


def test_a_load_tester_that_refuses_or_is_none_is_told() -> None:
    with pytest.raises(Unavailable, match="answers 500"):
        flagger_gate.execute(gate_options(), gated(Answer(500, "")), False)
    with pytest.raises(Unavailable, match="does not answer: 503"):
        flagger_gate.execute(gate_options(), gated(Answer(503, "no endpoints")), False)
    with pytest.raises(Exception, match="did not open the gate"):
        flagger_gate.execute(gate_options(), gated(SHUT, SHUT, SHUT), False)


def test_gates_are_by_load_tester() -> None:
    spec = {"analysis": {"webhooks": [*HOOKS, {"name": "other", "url": "https://b.shop:8443/x/gate/check"}]}}
    found = gates.gates_of(CANARY, spec, "advance", None, None)
    assert [(gate.base, gate.webhooks) for gate in found] == [
        ("http://tester.shop", ("begin", "promote")),
        ("https://b.shop:8443/x", ("other",)),
    ]
    assert gates.gates_of(CANARY, spec, "advance", "other", "http://localhost:8080/")[0].url("open") == "http://localhost:8080/gate/open"
