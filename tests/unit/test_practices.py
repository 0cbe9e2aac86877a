# SPDX-License-Identifier: GPL-3.0-or-later
"""The good practices as tables: what is kept, what is not and how it is said, and what puts it right."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, Forbidden
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan import alerts, budgets, practices, released
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import mark_released, practices_info
from support.fake import FakeCluster
from support.objects import deployment

WEB = Ref("Deployment", "shop", "web")
PORTS = [{"containerPort": 9898}]
PROBE = {"httpGet": {"path": "/readyz", "port": 9898}}
REQUESTS = {"requests": {"cpu": "10m", "memory": "16Mi"}}


def web(*containers: dict[str, Any], kind: str = "Deployment", replicas: int = 3, **pod: Any) -> dict[str, Any]:
    """Return a workload with these containers; the first is called app, the second side."""
    found = deployment(replicas=replicas) | {"kind": kind}
    entries = containers or ({"ports": PORTS},)
    found["spec"]["template"]["spec"] = {
        "containers": [{"name": ("app", "side", "third")[index], "image": "podinfo:1.0.0", **entry} for index, entry in enumerate(entries)],
        **pod,
    }
    return found


# -- readiness ----------------------------------------------------------------------------------------------------

READY = {
    "with ports and a probe": (web({"ports": PORTS, "readinessProbe": PROBE}), []),
    "with ports and none": (web({"ports": PORTS}), ["app"]),
    "a helper without ports needs none": (web({"ports": PORTS, "readinessProbe": PROBE}, {}), []),
    "the helper's probe is not the application's": (web({"ports": PORTS}, {"readinessProbe": PROBE}), ["app"]),
    "no ports: one probe is enough": (web({}, {"readinessProbe": PROBE}), []),
    "no ports and no probe": (web({}, {}), ["app", "side"]),
    "two that serve": (web({"ports": PORTS, "readinessProbe": PROBE}, {"ports": PORTS}), ["side"]),
}


@pytest.mark.parametrize(("workload", "missing"), READY.values(), ids=READY)
def test_readiness(workload: dict[str, Any], missing: list[str]) -> None:
    finding = practices.readiness_probe(WEB, workload)
    assert (finding.ok, finding.details["missing"]) == (not missing, missing)
    if missing:
        assert "Deployment shop/web" in finding.message and finding.message.endswith("add one")
        assert finding.unfixable == "readiness_probe is not given"


def test_a_sidecar_is_not_asked_for_a_probe() -> None:
    workload = web({"ports": PORTS, "readinessProbe": PROBE}, {"ports": PORTS})
    assert practices.readiness_probe(WEB, workload, ["side"]).ok
    assert not practices.readiness_probe(WEB, workload, []).ok


@pytest.mark.parametrize(
    ("workload", "given", "containers", "unfixable"),
    [
        (web(), PROBE, {"app": {"name": "app", "readinessProbe": PROBE}}, ""),
        (web(), {"app": PROBE}, {"app": {"name": "app", "readinessProbe": PROBE}}, ""),
        (web({"ports": PORTS}, {"ports": PORTS}), PROBE, None, "is one for the containers app, side; give it by container"),
        (web(), {"other": PROBE}, None, "has none for container app; it has: other"),
        (web({}, {}), {"side": PROBE}, {"side": {"name": "side", "readinessProbe": PROBE}}, ""),
    ],
    ids=["one", "by container", "one for two", "for another", "one of two without ports"],
)
def test_the_probe_that_puts_it_right(workload: dict[str, Any], given: Any, containers: Any, unfixable: str) -> None:
    finding = practices.readiness_probe(WEB, workload, probe=given)
    assert finding.fix == ({"containers": containers} if containers else {})
    assert unfixable in finding.unfixable and bool(finding.unfixable) == bool(unfixable)


# -- resources ----------------------------------------------------------------------------------------------------

ASKED = {
    "both": (web({"resources": REQUESTS}), {}),
    "none": (web(), {"app": ["cpu", "memory"]}),
    "memory is missing": (web({"resources": {"requests": {"cpu": "1"}}}), {"app": ["memory"]}),
    "a limit is a request": (web({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}), {}),
    "one of two": (web({"resources": REQUESTS}, {}), {"side": ["cpu", "memory"]}),
    "those of the pod are for all": (web({}, {}, resources=REQUESTS), {}),
    "one that runs beside all along": (
        web({"resources": REQUESTS}, initContainers=[{"name": "proxy", "restartPolicy": "Always"}, {"name": "migrate"}]),
        {"proxy": ["cpu", "memory"]},
    ),
}


@pytest.mark.parametrize(("workload", "missing"), ASKED.values(), ids=ASKED)
def test_resources(workload: dict[str, Any], missing: dict[str, list[str]]) -> None:
    finding = practices.resources(WEB, workload)
    assert (finding.ok, finding.details["missing"]) == (not missing, missing)
    assert all(name in finding.message for name in missing)


def test_only_the_requests_that_are_missing_are_written() -> None:
    workload = web({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}, {})
    wanted = {**REQUESTS, "limits": {"cpu": "1", "memory": "64Mi"}}
    fix = practices.resources(WEB, workload, wanted).fix["containers"]
    assert fix["app"] == {"name": "app", "resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": "64Mi"}}}
    assert fix["side"] == {"name": "side", "resources": wanted}
    assert practices.resources(WEB, workload, {"requests": {"cpu": "1"}}).unfixable == "resources requests no memory for container app"


def test_requests_of_a_native_sidecar_are_written_where_it_stands() -> None:
    workload = web({"resources": REQUESTS}, initContainers=[{"name": "proxy", "restartPolicy": "Always"}])
    fix = practices.resources(WEB, workload, REQUESTS).fix
    assert fix == {"containers": {}, "initContainers": {"proxy": {"name": "proxy", "resources": REQUESTS}}}


# -- the end of a pod ---------------------------------------------------------------------------------------------


def hook(*command: str, sleep: int | None = None) -> dict[str, Any]:
    """Return a container that serves, with a preStop hook."""
    handler = {"sleep": {"seconds": sleep}} if sleep is not None else {"exec": {"command": list(command)}}
    return {"ports": PORTS, "lifecycle": {"preStop": handler}}


SECONDS = {
    "none": ({"ports": PORTS}, 0),
    "sleep": (hook(sleep=5), 5),
    "sleep 0": (hook(sleep=0), 0),
    "exec": (hook("sleep", "5"), 5),
    "exec by path": (hook("/bin/sleep", "4"), 4),
    "in a shell": (hook("sh", "-c", "sleep 10; nginx -s quit"), 10),
    "twice": (hook("sh", "-c", "sleep 2 && nginx -s quit && sleep 1.5"), 3.5),
    "in minutes": (hook("sh", "-c", "sleep 1m"), 60),
    "another command": (hook("nginx", "-s", "quit"), None),
    "a name that ends so": (hook("sh", "-c", "oversleep 5"), None),
    "no number": (hook("sleep", "infinity"), None),
    "a request": ({"lifecycle": {"preStop": {"httpGet": {"path": "/quit", "port": 1}}}}, None),
}


@pytest.mark.parametrize(("container", "seconds"), SECONDS.values(), ids=SECONDS)
def test_how_long_a_hook_takes(container: dict[str, Any], seconds: float | None) -> None:
    assert practices.stop_seconds(container) == seconds


STOPS = {
    "long enough": (web(hook(sleep=3)), True, "takes requests for 3 s while it ends, and has 30 s"),
    "no hook": (web(), False, "container app of Deployment shop/web gets its SIGTERM at once, and 3 s are needed"),
    "too short": (web(hook(sleep=1)), False, "waits for 1 s in preStop, and 3 s are needed"),
    "unknown": (web(hook("nginx", "-s", "quit")), False, "a preStop hook of which nobody knows how long it takes"),
    "no time left": (web(hook(sleep=30)), False, "the grace period of 30 s that Deployment shop/web has leaves no time after 30 s"),
    "both": (web(terminationGracePeriodSeconds=2), False, "add a preStop sleep of 3 s and set terminationGracePeriodSeconds to 33"),
    "a helper ends as it likes": (web(hook(sleep=3), {}), True, "takes requests"),
    "grace of nothing": (web(hook(sleep=3), terminationGracePeriodSeconds=0), False, "the grace period of 0 s"),
}


@pytest.mark.parametrize(("workload", "ok", "words"), STOPS.values(), ids=STOPS)
def test_graceful_stop(workload: dict[str, Any], ok: bool, words: str) -> None:
    finding = practices.graceful_stop(WEB, workload)
    assert finding.ok is ok and words in finding.message, finding.message


@pytest.mark.parametrize(
    ("workload", "delay", "fix"),
    [
        (web(), 3, {"containers": {"app": {"name": "app", "lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}}}),
        (web(hook(sleep=1)), 2.5, {"containers": {"app": {"name": "app", "lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}}}),
        (web(hook(sleep=40)), 3, {"pod": {"terminationGracePeriodSeconds": 70}}),
        (web(hook("nginx")), 3, {}),
        (web(hook("sleep", "1")), 3, {}),
    ],
    ids=["no hook", "half seconds round up", "grace alone", "a command of its own", "a command that sleeps too little"],
)
def test_the_hook_that_puts_it_right(workload: dict[str, Any], delay: float, fix: dict[str, Any]) -> None:
    finding = practices.graceful_stop(WEB, workload, delay)
    assert finding.fix == fix and bool(finding.unfixable) == (not fix)


def test_a_delay_of_nothing_is_refused() -> None:
    with pytest.raises(DeliveryError, match="stop_delay must be more than 0 seconds, got 0"):
        practices.graceful_stop(WEB, web(), 0)


# -- images -------------------------------------------------------------------------------------------------------

DIGEST = "@sha256:" + "a" * 64
TAGS = {
    "podinfo:2.1.0": True,
    "podinfo:v2.1.0": True,
    "podinfo:2.1.0-rc.1": True,
    "localhost:32000/shop/podinfo:10.20.30": True,
    f"podinfo:stable{DIGEST}": True,
    f"podinfo:2.1.0{DIGEST}": True,
    "podinfo:2.1": False,
    "podinfo:2": False,
    "podinfo:02.1.0": False,
    "podinfo:2.1.0.4": False,
    "podinfo:V2.1.0": False,
    "podinfo:main": False,
    "podinfo:latest": False,
    f"podinfo:latest{DIGEST}": False,
    "podinfo": False,
    "localhost:32000/podinfo": False,
    f"podinfo{DIGEST}": False,
}


@pytest.mark.parametrize(("image", "ok"), TAGS.items(), ids=TAGS)
def test_image_tags(image: str, ok: bool) -> None:
    finding = practices.image_tag(WEB, {"app": image})
    assert finding.ok is ok and image in finding.message
    assert "\n" not in finding.message and bool(finding.unfixable) is not ok


# -- budgets ------------------------------------------------------------------------------------------------------

# (budget, replicas) -> pods that stay, pods that may go: what the disruption controller puts into its status.
ARITHMETIC = [
    ({"minAvailable": 2}, 3, 2, 1),
    ({"minAvailable": 3}, 3, 3, 0),
    ({"minAvailable": 5}, 3, 5, 0),
    ({"minAvailable": 0}, 3, 0, 3),
    ({"minAvailable": "50%"}, 3, 2, 1),
    ({"minAvailable": "50%"}, 5, 3, 2),
    ({"minAvailable": "90%"}, 3, 3, 0),
    ({"minAvailable": "100%"}, 10, 10, 0),
    ({"minAvailable": "34%"}, 3, 2, 1),
    ({"maxUnavailable": 1}, 3, 2, 1),
    ({"maxUnavailable": 0}, 3, 3, 0),
    ({"maxUnavailable": "25%"}, 3, 2, 1),
    ({"maxUnavailable": "25%"}, 5, 3, 2),
    ({"maxUnavailable": "1%"}, 100, 99, 1),
    ({"maxUnavailable": "0%"}, 3, 3, 0),
    ({"maxUnavailable": 9}, 3, 0, 3),
    ({}, 3, 3, 0),
]


@pytest.mark.parametrize(("spec", "replicas", "stay", "go"), ARITHMETIC)
def test_arithmetic(spec: dict[str, Any], replicas: int, stay: int, go: int) -> None:
    assert (budgets.must_stay(spec, replicas), budgets.may_go(spec, replicas)) == (stay, go)


APP = {"app": "web", "version": "blue"}
SELECTORS = {
    "labels": ({"matchLabels": {"app": "web"}}, True),
    "other labels": ({"matchLabels": {"app": "web", "version": "green"}}, False),
    "everything": ({}, True),
    "nothing": (None, False),
    "in": ({"matchExpressions": [{"key": "version", "operator": "In", "values": ["blue", "red"]}]}, True),
    "not in": ({"matchExpressions": [{"key": "version", "operator": "NotIn", "values": ["blue"]}]}, False),
    "not in, without the label": ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["a"]}]}, True),
    "exists": ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
    "does not exist": ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
}


@pytest.mark.parametrize(("selector", "selected"), SELECTORS.values(), ids=SELECTORS)
def test_selectors(selector: Any, selected: bool) -> None:
    assert budgets.selects(selector, APP) is selected


def pdb(name: str = "web", selector: Any = None, **spec: Any) -> dict[str, Any]:
    """Return a budget."""
    chosen = {"matchLabels": {"app": "web"}} if selector is None else selector
    return {"kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": chosen, **spec}}


BUDGETS: dict[str, tuple[dict[str, Any], list[Any], bool, str, Any]] = {
    "none": (web(), [], False, "so a drain may take all at once; make one with maxUnavailable 1", {"maxUnavailable": 1}),
    "one that is good": (
        web(),
        [pdb(minAvailable=2)],
        True,
        "minAvailable 2 keeps 2 of the 3 pods of Deployment shop/web and lets 1",
        None,
    ),
    "one that blocks": (
        web(),
        [pdb(minAvailable=3)],
        False,
        "lets 0 go, so it blocks every drain; set minAvailable 2",
        {"minAvailable": 2},
    ),
    "all of them": (web(), [pdb(minAvailable="100%")], False, "minAvailable 100% of the 3 pods", {"minAvailable": 2}),
    "none may go": (web(), [pdb(maxUnavailable=0)], False, "blocks every drain; set maxUnavailable 1", {"maxUnavailable": 1}),
    "all may go": (web(), [pdb(maxUnavailable="100%")], False, "lets 3 go at once, which may be all 3", {"maxUnavailable": 1}),
    "two": (web(), [pdb("a", minAvailable=1), pdb("b", {}, minAvailable=1)], False, "2 PodDisruptionBudgets (a, b) select the pods", None),
    "one of others": (
        web(),
        [pdb("x", {"matchLabels": {"app": "x"}}, minAvailable=9)],
        False,
        "no PodDisruptionBudget selects",
        {"maxUnavailable": 1},
    ),
    "one replica": (
        web(replicas=1),
        [],
        False,
        "has 1 pod, and no PodDisruptionBudget can both keep 1 pod of 1 and let its node be drained; run 2",
        None,
    ),
    "one replica, kept": (
        web(replicas=1),
        [pdb(minAvailable=1)],
        False,
        "(PodDisruptionBudget web with minAvailable 1 blocks every drain)",
        None,
    ),
    "one replica, not kept": (web(replicas=1), [pdb(maxUnavailable=1)], False, "maxUnavailable 1 keeps nothing)", None),
    "no replicas": (web(replicas=0), [pdb(minAvailable=1)], True, "is scaled to 0", None),
    "a DaemonSet": (web(kind="DaemonSet"), [], True, "a drain leaves its pods alone", None),
}


@pytest.mark.parametrize(("workload", "present", "ok", "words", "limit"), BUDGETS.values(), ids=BUDGETS)
def test_budgets(workload: dict[str, Any], present: list[Any], ok: bool, words: str, limit: Any) -> None:
    ref = Ref(workload["kind"], "shop", "web")
    finding = practices.disruption_budget(ref, workload, present, [workload])
    assert finding.ok is ok and words in finding.message, finding.message
    spec = finding.fix.get("object", {}).get("spec", {})
    assert {key: value for key, value in spec.items() if key != "selector"} == (limit or {})
    assert ok or bool(finding.unfixable) is (limit is None)


def test_a_new_budget_selects_what_the_workload_does_and_takes_no_other_name() -> None:
    finding = practices.disruption_budget(WEB, web(), [pdb("web", {"matchLabels": {"app": "x"}}, minAvailable=1)])
    made = finding.fix["object"]
    assert made["metadata"]["name"] == "web-deployment" and made["spec"]["selector"] == web()["spec"]["selector"]


@pytest.mark.parametrize(
    ("wanted", "replicas", "limit", "unfixable"),
    [
        ({"min_available": "50%"}, 3, {"minAvailable": "50%"}, ""),
        ({"min_available": "2"}, 3, {"minAvailable": 2}, ""),
        ({"max_unavailable": "1"}, 2, {"maxUnavailable": 1}, ""),
        ({"min_available": "3"}, 3, None, "with minAvailable 3 would let 0 of 3 pods go"),
        ({"max_unavailable": "100%"}, 3, None, "with maxUnavailable 100% would let 3 of 3 pods go"),
    ],
)
def test_the_budget_that_is_asked_for(wanted: Any, replicas: int, limit: Any, unfixable: str) -> None:
    finding = practices.disruption_budget(WEB, web(replicas=replicas), [], wanted=wanted)
    spec = finding.fix.get("object", {}).get("spec", {})
    assert {key: value for key, value in spec.items() if key != "selector"} == (limit or {})
    assert unfixable in finding.unfixable


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"min_available": "1", "max_unavailable": "1"}, "takes one of them"),
        ({"min_available": "some"}, 'must be a whole number or a percentage up to 100%, got "some"'),
        ({"max_unavailable": "120%"}, "up to 100%"),
        ({"min_available": "-1"}, "must be a whole number"),
    ],
)
def test_a_budget_that_is_none_is_refused(wanted: Any, sentence: str) -> None:
    with pytest.raises(DeliveryError, match=sentence):
        practices.disruption_budget(WEB, web(), [], wanted=wanted)


def test_a_budget_over_both_colors_may_let_all_of_one_go() -> None:
    blue, green = deployment("web-blue", "blue", replicas=2), deployment("web-green", "green", replicas=2)
    ref = Ref("Deployment", "shop", "web-blue")
    finding = practices.disruption_budget(ref, blue, [pdb(minAvailable=2)], [blue, green])
    assert not finding.ok and finding.details["expected"] == 4 and finding.details["allowed"] == 2
    assert (
        "4 pods (with those of Deployment web-green) lets 2 go at once, which may be all 2 of Deployment shop/web-blue" in finding.message
    )
    assert finding.unfixable and not finding.fix
    assert practices.disruption_budget(ref, blue, [pdb(minAvailable=3)], [blue, green]).ok


def test_the_minimum_of_an_autoscaler_is_what_counts() -> None:
    scaler = {"spec": {"minReplicas": 2, "maxReplicas": 9}}
    finding = practices.disruption_budget(WEB, web(replicas=5), [pdb(minAvailable=2)], [web(replicas=5)], scaler)
    assert not finding.ok and "2 pods at its autoscaler's minimum" in finding.message
    assert finding.fix["object"]["spec"] == {"minAvailable": 1}
    assert practices.disruption_budget(WEB, web(replicas=5), [pdb(maxUnavailable=1)], [], scaler).ok
    assert "has 1 pod at its autoscaler's minimum" in practices.disruption_budget(WEB, web(), [], [], {"spec": {"maxReplicas": 9}}).message


# -- annotations --------------------------------------------------------------------------------------------------


def test_annotations_have_values_that_help() -> None:
    workload = web()
    finding = practices.annotated(WEB, workload, {}, {"app": "podinfo:2.0.0"})
    assert finding.fix["annotations"] == {
        "deployment-strategy": "rolling-update",
        "rollback-procedure": "ansible-playbook progressive.delivery.rollback -e rollback_namespace=shop -e rollback_name=web",
        "kubernetes.io/change-cause": "release of podinfo:2.0.0",
    }
    workload["metadata"]["annotations"].update(finding.fix["annotations"])
    assert practices.annotated(WEB, workload).ok


@pytest.mark.parametrize(
    ("values", "present", "missing", "written"),
    [
        ({"deployment-strategy": "blue-green"}, {}, 3, "blue-green"),
        ({"deployment-strategy": "blue-green"}, {"deployment-strategy": "canary"}, 2, None),
        ({}, {"deployment-strategy": " "}, 3, "rolling-update"),
    ],
    ids=["the caller's", "what is there stays", "an empty one is none"],
)
def test_annotations_of_the_caller(values: Any, present: Any, missing: int, written: Any) -> None:
    workload = web()
    workload["metadata"]["annotations"].update(present)
    finding = practices.annotated(WEB, workload, values, {"app": "a:1"})
    assert len(finding.details["missing"]) == missing
    assert finding.fix["annotations"].get("deployment-strategy") == written


def test_more_annotations_can_be_asked_for() -> None:
    assert practices.annotated(WEB, web(), {"owner": "shop"}).fix["annotations"]["owner"] == "shop"
    assert practices.annotated(WEB, web(), {"owner": ""}).unfixable == "annotations has no value for owner"


@pytest.mark.parametrize(
    ("kind", "field", "type_", "word"),
    [
        ("Deployment", "strategy", "Recreate", "recreate"),
        ("StatefulSet", "updateStrategy", "OnDelete", "on-delete"),
        ("DaemonSet", "updateStrategy", "RollingUpdate", "rolling-update"),
    ],
)
def test_the_strategy_is_the_workloads_own(kind: str, field: str, type_: str, word: str) -> None:
    workload = web(kind=kind)
    workload["spec"][field] = {"type": type_}
    written = practices.annotated(Ref(kind, "shop", "web"), workload, {}, {}).fix["annotations"]
    assert written["deployment-strategy"] == word
    assert written["rollback-procedure"].endswith("rollback_name=web" if kind == "Deployment" else f"-e rollback_kind={kind}")


# -- the alert ----------------------------------------------------------------------------------------------------

RATIO = alerts.expression(WEB, alerts.Alerting())


def rule(expr: str, lasting: Any = "2m", name: str = "Errors") -> dict[str, Any]:
    """Return a rule file's group with one alert."""
    return {"name": "g", "rules": [{"alert": name, "expr": expr, **({"for": lasting} if lasting is not None else {})}]}


def prometheus_rule(group: dict[str, Any], labels: Any = None, namespace: str = "shop", name: str = "r") -> dict[str, Any]:
    """Return a PrometheusRule."""
    return {
        "kind": "PrometheusRule",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"groups": [group]},
    }


def test_the_expression_is_a_share_and_of_this_workload_alone() -> None:
    chosen = 'namespace="shop",pod=~"web-[a-z0-9]+-[a-z0-9]+"'
    found = alerts.expression(WEB, alerts.Alerting())
    assert found == (
        f'sum(rate(http_requests_total{{{chosen},status=~"5.."}}[5m])) / sum(rate(http_requests_total{{{chosen}}}[5m])) > 0.05'
    )


LABEL = {alerts.WORKLOAD_LABEL: "web"}
ALERTS: dict[str, tuple[dict[str, Any], bool, str]] = {
    "ours": (prometheus_rule(rule(RATIO)), True, ""),
    "of another workload": (prometheus_rule(rule(RATIO.replace('"web-', '"api-'))), False, "make a PrometheusRule that does"),
    "of one whose name begins so": (prometheus_rule(rule(RATIO.replace('"web-', '"web-blue-'))), False, "make a PrometheusRule"),
    "labelled, named nowhere": (prometheus_rule(rule('a{s=~"5.."}/a > 0.05'), LABEL), True, ""),
    "labelled for another": (prometheus_rule(rule('a{s=~"5.."}/a > 0.05'), {alerts.WORKLOAD_LABEL: "api"}), False, "make a"),
    "a recorded share": (prometheus_rule(rule("shop:error_ratio > 0.05"), LABEL), True, ""),
    "another alert of a labelled object": (prometheus_rule(rule("shop:latency > 0.05"), LABEL), False, "make a PrometheusRule"),
    "not 5xx": (prometheus_rule(rule(RATIO.replace("5..", "4.."))), False, "make a PrometheusRule"),
    "the chapter's": (prometheus_rule(rule('rate(http_requests_total{status=~"5..",app="web"}[5m]) > 0.05')), False, "and not a share"),
    "too patient": (prometheus_rule(rule(RATIO, "10m")), False, "Errors in PrometheusRule shop/r fires only after 10m; 2m are enough"),
    "at once": (prometheus_rule(rule(RATIO, None)), True, ""),
    "too generous": (prometheus_rule(rule(RATIO.replace("0.05", "0.2"))), False, "fires only over 20 %, and 5 % are too many"),
    "in percent": (prometheus_rule(rule(RATIO.replace("> 0.05", "* 100 > 5"))), True, ""),
    "in percent, too generous": (prometheus_rule(rule(RATIO.replace("> 0.05", "* 100 > 10"))), False, "fires only over 10 %"),
    "by its successes": (
        prometheus_rule(rule('sum(rate(a{pod=~"web-.*",code!~"5.."}[5m])) / sum(rate(a{pod=~"web-.*"}[5m])) < 0.95')),
        True,
        "",
    ),
    "elsewhere, of another namespace": (prometheus_rule(rule(RATIO.replace("shop", "mall")), None, "monitoring"), False, "make a"),
    "elsewhere, of this one": (prometheus_rule(rule(RATIO), None, "monitoring"), True, ""),
    "elsewhere, labelled": (
        prometheus_rule(rule('a{s="500"}/a > 0.01'), {**LABEL, alerts.NAMESPACE_LABEL: "shop"}, "monitoring"),
        True,
        "",
    ),
    "elsewhere, half labelled": (prometheus_rule(rule('a{s="500"}/a > 0.01'), LABEL, "monitoring"), False, "make a"),
    "a record is no alert": (prometheus_rule({"name": "g", "rules": [{"record": "a", "expr": RATIO}]}), False, "make a"),
}


@pytest.mark.parametrize(("present", "ok", "words"), ALERTS.values(), ids=ALERTS)
def test_an_alert_is_recognised(present: dict[str, Any], ok: bool, words: str) -> None:
    finding = practices.alert(WEB, [present], None, alerts.Alerting(), "shop")
    assert finding.ok is ok and words in finding.message, finding.message
    assert finding.details["crd"] is True and (ok or "object" in finding.fix)


@pytest.mark.parametrize(
    ("text", "five"),
    [
        ("5..", True),
        ("5.*", True),
        ("5xx", True),
        ("503", True),
        ("[45]..", False),
        ("5[0-9]{2}", True),
        (r"5\\d\\d", True),
        ("0.5", False),
        ("150", False),
    ],
)
def test_what_is_a_server_error(text: str, five: bool) -> None:
    present = prometheus_rule(rule(f'a{{s=~"{text}"}}/a > 0.05'), LABEL)
    assert practices.alert(WEB, [present], None, alerts.Alerting(), "shop").ok is five


@pytest.mark.parametrize(
    ("objects", "groups", "crd", "way"), [([], None, True, "object"), (None, [], False, "groups"), (None, None, False, "")]
)
def test_where_an_alert_is_made(objects: Any, groups: Any, crd: bool, way: str) -> None:
    finding = practices.alert(WEB, objects, groups, alerts.Alerting(), "shop")
    assert not finding.ok and finding.details["crd"] is crd
    assert list(finding.fix) == ([way] if way else []) and bool(finding.unfixable) == (not way)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
@pytest.mark.parametrize("name", ["web", "web.v2", "web-blue"])
@pytest.mark.parametrize("namespace", ["shop", "monitoring"])
def test_what_we_make_is_what_we_recognise(kind: str, name: str, namespace: str) -> None:
    ref, wanted = Ref(kind, "shop", name), alerts.Alerting(share=0.01, seconds=30)
    finding = practices.alert(ref, [], None, wanted, namespace)
    assert practices.alert(ref, [finding.fix["object"]], None, wanted, namespace).ok
    finding = practices.alert(ref, None, [], wanted, namespace)
    assert practices.alert(ref, None, finding.fix["groups"], wanted, namespace).ok


def test_rules_that_stand_beside_ours_stay() -> None:
    foreign = rule("up == 0", name="Down")
    assert practices.alert(WEB, None, [foreign], alerts.Alerting(), "shop").fix["groups"][0] == foreign
    before = prometheus_rule(foreign, name="web-release-alerts")
    made = practices.alert(WEB, [before], None, alerts.Alerting(labels={"release": "prometheus"}), "shop").fix["object"]
    assert [group["name"] for group in made["spec"]["groups"]] == ["g", "progressive.delivery/shop/web"]
    assert made["metadata"]["labels"] == {"release": "prometheus", alerts.WORKLOAD_LABEL: "web", alerts.NAMESPACE_LABEL: "shop"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("2m", 120), ("1h30m", 5400), ("500ms", 0.5), ("0", 0), (None, 0), ("2 m", None), ("", None), ("m", None)]
)
def test_durations(text: Any, seconds: Any) -> None:
    assert alerts.duration(text) == seconds


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"share": 5}, "share of alert must be more than 0 and less than 1"),
        ({"seconds": -1}, "seconds of alert must be 0 or more"),
        ({"window": "soon"}, 'window of alert must be a duration of Prometheus as 5m, got "soon"'),
        ({"metric": "http-requests"}, 'metric of alert must be a name as Prometheus has them, got "http-requests"'),
        ({"pod_label": "a:b"}, "pod_label of alert must be a name"),
    ],
)
def test_an_alert_that_cannot_be_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(DeliveryError, match=sentence):
        practices.alert(WEB, [], None, alerts.Alerting(**given), "shop")


# -- staging before production --------------------------------------------------------------------------------------


def at_staging(image: str = "podinfo:2.0.0", record: Any = None, **status: Any) -> dict[str, Any]:
    """Return the workload in staging."""
    found = deployment(image=image, **status)
    if record is not None:
        found["metadata"]["annotations"][released.RELEASED_IMAGES] = record
    return found


STAGED = {
    "it runs there": (at_staging(), True, "podinfo:2.0.0 was released on Deployment staging/web first"),
    "another runs there": (
        at_staging("podinfo:1.0.0"),
        False,
        "was not released on Deployment staging/web before Deployment shop/web: it runs podinfo:1.0.0",
    ),
    "it is on its way": (at_staging(updatedReplicas=1), False, "it runs it, but its rollout is not complete (waiting for 2 more pods"),
    "scaled to 0": (at_staging(replicas=0), False, "its rollout is not complete (complete, with no pods"),
    "the record knows it": (at_staging("podinfo:3.0.0", '["podinfo:3.0.0", "podinfo:2.0.0"]'), True, "was released"),
    "the record knows others": (at_staging("podinfo:3.0.0", '["podinfo:3.0.0"]'), False, "release it there first"),
    "a record that is none": (at_staging("podinfo:3.0.0", "{"), False, "release it there first"),
    "there is nothing": (None, False, "Deployment staging/web does not exist"),
}


@pytest.mark.parametrize(("there", "ok", "words"), STAGED.values(), ids=STAGED)
def test_staged(there: Any, ok: bool, words: str) -> None:
    finding = practices.staged(WEB, {"app": "podinfo:2.0.0"}, Ref("Deployment", "staging", "web"), there)
    assert finding.ok is ok and words in finding.message, finding.message
    assert not finding.fix and bool(finding.unfixable) is not ok


def test_an_image_is_the_same_wherever_its_digest_is_pulled_from() -> None:
    there = at_staging(f"staging.example.com/web:2.0.0{DIGEST}")
    ref = Ref("Deployment", "staging", "web")
    assert practices.staged(WEB, {"app": f"production.example.com/web:2.0.0{DIGEST}"}, ref, there).ok
    assert not practices.staged(WEB, {"app": "production.example.com/web:2.0.0"}, ref, there).ok


@pytest.mark.parametrize(
    ("record", "images", "after"),
    [
        ([], ["a:1"], ["a:1"]),
        (["a:1"], ["a:2"], ["a:2", "a:1"]),
        (["a:2", "a:1"], ["a:1"], ["a:1", "a:2"]),
        (["a:1"], ["a:1"], ["a:1"]),
        (["b:1"], ["a:2", "b:2", "a:2"], ["a:2", "b:2", "b:1"]),
        ([f"a:{number}" for number in range(10)], ["a:x"], ["a:x", *[f"a:{number}" for number in range(9)]]),
    ],
    ids=["the first", "the newest is first", "one that comes back", "again", "several", "at most ten"],
)
def test_the_record(record: list[str], images: list[str], after: list[str]) -> None:
    assert released.with_released(record, images) == after
    assert released.with_released(after, images) == after


# -- the steps ----------------------------------------------------------------------------------------------------


def look(cluster: Any, **given: Any) -> dict[str, Any]:
    """Run practices_info and return what it reports."""
    spec = argument_spec(practices_info.OPTIONS)
    chosen = {**{key: entry.get("default") for key, entry in spec.items()}, "namespace": "shop", "name": "web", **given}
    result = practices_info.execute(chosen, cluster, False)
    assert not result.changed
    return dict(result.extra)


def test_all_checks_are_made_and_nothing_is_written() -> None:
    cluster = FakeCluster(web())
    found = look(cluster)
    assert [finding["check"] for finding in found["findings"]] == list(practices.CHECKS[:-1])
    assert not found["ok"] and found["images"] == {"app": "podinfo:1.0.0"} and found["workload"] == "Deployment shop/web"
    assert cluster.writes == []


def test_what_is_put_right_is_right() -> None:
    cluster = FakeCluster(web())
    given = {"readiness_probe": PROBE, "resources": REQUESTS, "alert": {"groups": []}}
    groups: list[Any] = []
    workload = cluster.get(WEB)
    for finding in look(cluster, **given)["findings"]:
        fix = copy.deepcopy(finding["fix"])
        groups = fix.get("groups", groups)
        if "object" in fix:
            cluster.put(fix["object"])
        workload["metadata"]["annotations"].update(fix.get("annotations", {}))
        workload["spec"]["template"]["spec"].update(fix.get("pod", {}))
        for part in fix.get("containers", {}).values():
            workload["spec"]["template"]["spec"]["containers"][0].update(part)
    cluster.put(workload)
    found = look(cluster, **{**given, "alert": {"groups": groups}})
    assert found["ok"], [finding["message"] for finding in found["findings"] if not finding["ok"]]
    assert all(finding["fix"] == {} for finding in found["findings"])


def test_staging_is_asked_for_by_its_options() -> None:
    there = at_staging()
    there["metadata"]["namespace"] = "staging"
    cluster = FakeCluster(web(), there)
    found = look(cluster, image="podinfo:2.0.0", staged={"namespace": "staging", "name": None, "kind": None})
    assert found["findings"][-1]["check"] == "staged" and found["findings"][-1]["ok"]
    with pytest.raises(DeliveryError, match="the check staged needs staged, with the namespace"):
        look(cluster, checks=["staged"])


def test_the_image_for_another_cluster_is_judged_without_the_workload() -> None:
    there = at_staging()
    there["metadata"]["namespace"] = "staging"
    found = look(FakeCluster(there), checks=["staged"], image="podinfo:2.0.0", staged={"namespace": "staging"})
    assert found["ok"] and found["images"] == {"*": "podinfo:2.0.0"}
    with pytest.raises(DeliveryError, match="Deployment shop/web does not exist"):
        look(FakeCluster(there), checks=["staged"], staged={"namespace": "staging"})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"image": "a:1", "images": {"app": "a:1"}}, "both image and images say what is released"),
        ({"image": "Not An Image"}, '"Not An Image" is not an image reference'),
        ({"name": "nope"}, "Deployments in namespace shop: web"),
    ],
)
def test_bad_input_of_the_look(given: Any, sentence: str) -> None:
    with pytest.raises(DeliveryError, match=sentence):
        look(FakeCluster(web()), **given)


def test_what_may_not_be_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(web())
    listed = cluster.list

    def refuse(query: Query) -> Any:
        if query.kind == "PodDisruptionBudget":
            raise Forbidden("Not allowed to list poddisruptionbudgets in namespace shop")
        return listed(query)

    monkeypatch.setattr(cluster, "list", refuse)
    found = {finding["check"]: finding for finding in look(cluster)["findings"]}
    assert not found["disruption_budget"]["ok"] and found["disruption_budget"]["unfixable"]
    assert found["disruption_budget"]["message"].endswith("; or leave the check disruption_budget out")
    assert found["image_tag"]["ok"]


def test_a_rollout_on_its_way_is_not_marked_as_released() -> None:
    spec = argument_spec(mark_released.OPTIONS)
    chosen = {**{key: entry.get("default") for key, entry in spec.items()}, "namespace": "shop", "name": "web"}
    cluster = FakeCluster(deployment(updatedReplicas=1))
    with pytest.raises(DeliveryError, match="the rollout of Deployment shop/web is not complete"):
        mark_released.execute(chosen, cluster, False)
    assert cluster.writes == []
    assert mark_released.execute({**chosen, "images": ["a:1"]}, cluster, False).extra["released_images"] == ["a:1"]
