# SPDX-License-Identifier: GPL-3.0-or-later
"""Each step against the fake cluster: it changes, a second run is idle, check mode writes nothing and predicts the same."""

from __future__ import annotations

import copy
import threading
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, DeliveryError, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Answer, Ran, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import COMMON_OPTIONS, argument_spec
from ansible_collections.progressive.delivery.plugins.modules import (
    abort_canary,
    clone_service,
    clone_workload,
    flagger_canary,
    flagger_gate,
    load_test,
    mark_released,
    observe_workload,
    pause_rollout,
    practices_info,
    release_lock,
    rollout_info,
    route_info,
    scale,
    set_audience,
    set_canary_weight,
    set_image,
    set_strategy,
    smoke_test,
    strategy_info,
    switch_color,
    undo_rollout,
    wait_canary,
    wait_rollout,
)
from support.fake import FakeCluster
from support.objects import controller_revision, deployment, ingress, pod, replica_set, service

BLUE, GREEN = {"app": "web", "version": "blue"}, {"app": "web", "version": "green"}


@pytest.fixture(autouse=True)
def no_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake has no controller that would number a revision: do not wait for it."""
    for step in (set_image, undo_rollout):
        monkeypatch.setattr(step, "REVISION_TIMEOUT", 0.05)


def options(step: Any, **given: Any) -> dict[str, Any]:
    """Return a step's options with their defaults."""
    spec = argument_spec(step.OPTIONS)
    return {**{key: entry.get("default") for key, entry in spec.items()}, "namespace": "shop", **given}


def shop() -> FakeCluster:
    """Return a shop with two colours, blue active, both ready."""
    blue, green = deployment("web-blue", "blue"), deployment("web-green", "green", image="podinfo:2.0.0")
    pods = [pod(f"b{number}", BLUE, address=f"10.0.0.{number}") for number in range(3)]
    pods += [pod(f"g{number}", GREEN, address=f"10.0.1.{number}") for number in range(3)]
    revisions = [
        replica_set(blue, number, digest, image) for number, digest, image in ((1, "a", "podinfo:0.9.0"), (2, "b", "podinfo:1.0.0"))
    ]
    copies = [deployment("web-copy", "copy"), service("web-copy", "copy")]
    for copied, source in zip(copies, ("web-blue", "web"), strict=True):
        copied["metadata"]["annotations"]["progressive.delivery/copied-from"] = source
    return FakeCluster(blue, green, service(), *copies, *pods, *revisions)


CHANGES = {
    "set_image": (set_image, {"name": "web-blue", "images": {"app": "podinfo:3.0.0"}}),
    "set_image of the only container": (set_image, {"name": "web-blue", "images": {"*": "podinfo:3.0.0"}}),
    "scale": (scale, {"name": "web-blue", "replicas": 5}),
    "scale to 0": (scale, {"name": "web-blue", "replicas": 0}),
    "set_strategy": (set_strategy, {"name": "web-blue", "profile": "conservative", "min_ready_seconds": 5}),
    "set_strategy Recreate": (set_strategy, {"name": "web-blue", "type": "Recreate"}),
    "undo_rollout": (undo_rollout, {"name": "web-blue"}),
    "undo_rollout to a revision": (undo_rollout, {"name": "web-blue", "to_revision": 1}),
    "undo_rollout of its own change": (undo_rollout, {"name": "web-blue", "if_revision": 2, "unless_image": "podinfo:0.9.0"}),
    "pause_rollout": (pause_rollout, {"name": "web-blue"}),
    "switch_color": (switch_color, {"name": "web", "color": "green", "wait": False}),
    "switch_color with notes": (switch_color, {"name": "web", "color": "green", "wait": False, "annotations": {"a/b": "c"}}),
    "switch_color notes alone": (switch_color, {"name": "web", "color": "blue", "annotations": {"a/b": "c"}}),
    "clone_workload": (clone_workload, {"name": "web-red", "source": "web-blue", "labels": {"version": "red"}}),
    "clone_workload beside a Service": (clone_workload, {"name": "web-red", "source": "web-blue", "beside": "web", "suffix": "red"}),
    "clone_workload absent": (clone_workload, {"name": "web-copy", "source": "web-blue", "state": "absent"}),
    "clone_service": (clone_service, {"name": "web-green", "source": "web", "labels": {"version": "green"}}),
    "clone_service absent": (clone_service, {"name": "web-copy", "source": "web", "state": "absent"}),
    "release_lock": (release_lock, {"name": "web", "holder": "me"}),
    "mark_released": (mark_released, {"name": "web-blue"}),
    "mark_released with an image": (mark_released, {"name": "web-blue", "images": ["podinfo:2.0.0"]}),
}


@pytest.mark.parametrize(("step", "given"), CHANGES.values(), ids=CHANGES)
def test_changes_once_and_check_mode_predicts_it(step: Any, given: dict[str, Any]) -> None:
    cluster = shop()
    foreseen = step.execute(options(step, **given), cluster, True)
    assert cluster.writes == []
    done = step.execute(options(step, **given), cluster, False)
    assert len(cluster.writes) == 1
    assert foreseen.changed and done.changed
    assert (foreseen.before, foreseen.after, foreseen.actions) == (done.before, done.after, done.actions)
    assert done.before != done.after and done.actions
    again = step.execute(options(step, **given), cluster, False)
    assert not again.changed and len(cluster.writes) == 1
    assert again.before == again.after


FOREIGN = {name: case for name, case in CHANGES.items() if case[0] not in (clone_service, clone_workload, release_lock)}


@pytest.mark.parametrize(("step", "given"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_fields_stay(step: Any, given: dict[str, Any]) -> None:
    cluster = shop()
    ref = Ref("Service" if step is switch_color else "Deployment", "shop", given["name"])
    before = cluster.get(ref)
    step.execute(options(step, **given), cluster, False)
    after = cluster.get(ref)
    for key, value in before["metadata"]["annotations"].items():
        assert after["metadata"]["annotations"][key] == value
    assert after["spec"]["selector"].get("app") == before["spec"]["selector"].get("app")


def test_a_change_in_between_is_planned_again_and_kept() -> None:
    cluster = shop()
    ref = Ref("Deployment", "shop", "web-blue")

    def meddle() -> None:
        other = cluster.get(ref)
        other["metadata"]["annotations"]["by"] = "somebody"
        cluster.put(other)

    cluster.before_patch = meddle
    assert scale.execute(options(scale, name="web-blue", replicas=5), cluster, False).changed
    assert cluster.get(ref)["metadata"]["annotations"]["by"] == "somebody"
    assert cluster.get(ref)["spec"]["replicas"] == 5


def test_a_limit_that_comes_in_between_counts() -> None:
    cluster = shop()
    ref = Ref("Deployment", "shop", "web-blue")

    def meddle() -> None:
        other = cluster.get(ref)
        other["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 3}}
        cluster.put(other)

    cluster.before_patch = meddle
    with pytest.raises(DeliveryError, match=r"max_surge 0 \(as it is\) and max_unavailable 0"):
        set_strategy.execute(options(set_strategy, name="web-blue", max_unavailable="0"), cluster, False)
    assert cluster.writes == []
    cluster.before_patch = meddle
    result = set_strategy.execute(options(set_strategy, name="web-blue", max_unavailable="1"), cluster, False)
    assert result.before["max_unavailable"] == 3 and result.extra["pods"] == {"wanted": 3, "at_most": 3, "at_least": 2}


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("check", [False, True])
def test_a_limit_that_would_be_dropped_in_silence_is_refused(gate: bool, check: bool) -> None:
    found = {**deployment("db", replicas=5), "kind": "StatefulSet"}
    cluster = FakeCluster(found)
    cluster.max_unavailable_of_stateful_sets = gate
    given = options(set_strategy, kind="StatefulSet", name="db", max_unavailable="2", partition=1)
    if gate:
        result = set_strategy.execute(given, cluster, check)
        assert result.changed and result.extra["pods"] == {"wanted": 5, "at_most": 5, "at_least": 3}
        assert len(cluster.writes) == (0 if check else 1)
        return
    with pytest.raises(DeliveryError, match="would be dropped by the API server.*MaxUnavailableStatefulSet.*use max_unavailable: 1"):
        set_strategy.execute(given, cluster, check)
    assert cluster.writes == []
    one = set_strategy.execute({**given, "max_unavailable": "1"}, cluster, check)
    assert one.after == {"type": "RollingUpdate", "max_unavailable": 1, "partition": 1}


def test_a_switch_in_between_is_not_undone() -> None:
    cluster = shop()

    def meddle() -> None:
        other = cluster.get(Ref("Service", "shop", "web"))
        other["spec"]["selector"]["version"] = "red"
        cluster.put(other)

    cluster.before_patch = meddle
    with pytest.raises(DeliveryError) as caught:
        switch_color.execute(options(switch_color, name="web", color="green", if_color="blue", wait=False), cluster, False)
    assert caught.value.reason == "Superseded"
    assert cluster.get(Ref("Service", "shop", "web"))["spec"]["selector"]["version"] == "red"


REFUSED = {
    "unknown container": (set_image, {"name": "web-blue", "images": {"nope": "a:1"}}, 'has no container "nope"; it has: app'),
    "no image reference": (set_image, {"name": "web-blue", "images": {"app": "Not An Image"}}, "is not an image reference"),
    "empty images": (set_image, {"name": "web-blue", "images": {}}, "images is empty"),
    "missing Deployment": (set_image, {"name": "nope", "images": {"app": "a:1"}}, "Deployment shop/nope does not exist"),
    "another kind": (rollout_info, {"kind": "DaemonSet", "name": "web-blue"}, "there is a Deployment web-blue in namespace shop"),
    "negative replicas": (scale, {"name": "web-blue", "replicas": -1}, "must be 0 or more, got -1"),
    "a profile and a limit": (set_strategy, {"name": "web-blue", "profile": "fast", "max_surge": "1"}, "leave out profile, or max_surge"),
    "no way to replace a pod": (set_strategy, {"name": "web-blue", "max_surge": "0", "max_unavailable": "0"}, "could replace no pod"),
    "strategy of nothing": (set_strategy, {"name": "nope", "type": "Recreate"}, "Deployment shop/nope does not exist"),
    "color without Deployment": (switch_color, {"name": "web", "color": "purple"}, 'no Deployment in namespace shop has color "purple"'),
    "unknown provider": (switch_color, {"name": "web", "color": "green", "provider": "carrier"}, 'there is no provider "carrier"'),
    "missing Service": (switch_color, {"name": "nope", "color": "green"}, "Service shop/nope does not exist"),
    "selector without the label": (
        switch_color,
        {"name": "web", "color": "green", "color_label": "hue"},
        'does not select by the label "hue"',
    ),
    "min_ready not met": (switch_color, {"name": "web", "color": "green", "min_ready": 4}, "has 3 ready pods and 4 are needed"),
    "negative min_ready": (switch_color, {"name": "web", "color": "green", "min_ready": -1}, "min_ready must be 0 or more"),
    "missing workload": (wait_rollout, {"name": "nope"}, "Deployments in namespace shop: web-blue, web-copy, web-green"),
    "zero timeout": (wait_rollout, {"name": "web-blue", "timeout": 0}, "timeout must be more than 0"),
    "bad expression": (smoke_test, {"name": "web-blue", "json": {"a[": 1}}, "is not JMESPath"),
    "no name": (smoke_test, {}, "needs name, the workload whose pod is asked"),
    "no url": (smoke_test, {"via": "url"}, "needs url"),
    "not a url": (smoke_test, {"via": "url", "url": "ftp://x"}, "must start with http"),
    "relative path": (smoke_test, {"name": "web-blue", "path": "x"}, 'path must start with "/"'),
    "copy of itself": (
        clone_workload,
        {"name": "web-blue", "source": "web-blue", "labels": {"version": "x"}},
        "cannot be a copy of itself",
    ),
    "copy with the same label": (clone_workload, {"name": "x", "source": "web-blue", "labels": {"version": "blue"}}, "whose value differs"),
    "copy told apart by nothing": (clone_workload, {"name": "x", "source": "web-blue"}, "none of them is given"),
    "copy told apart twice": (
        clone_workload,
        {"name": "x", "source": "web-blue", "beside": "web", "behind": "web"},
        "beside and behind are given",
    ),
    "copy behind a Service that selects by all labels": (
        clone_workload,
        {"name": "x", "source": "web-blue", "behind": "web"},
        "deploy it again with one label more",
    ),
    "copy beside a Service of others": (
        clone_workload,
        {"name": "x", "source": "web-green", "beside": "web"},
        "does not lead to the pods of",
    ),
    "copy beside a missing Service": (
        clone_workload,
        {"name": "x", "source": "web-blue", "beside": "nope"},
        "Services in namespace shop: web",
    ),
    "copy by a suffix that no label has": (
        clone_workload,
        {"name": "x", "source": "web-blue", "beside": "web", "suffix": "a b"},
        "cannot be the value of label app",
    ),
    "deletion of what is no copy": (
        clone_workload,
        {"name": "web-green", "source": "web-blue", "state": "absent"},
        "Deployment shop/web-green is not a copy of Deployment shop/web-blue (it has no annotation progressive.delivery/copied-from)",
    ),
    "deletion of another's copy": (
        clone_service,
        {"name": "web-copy", "source": "shop", "state": "absent"},
        "Service shop/web-copy is not a copy of Service shop/shop (it is one of web), so it stays",
    ),
    "deletion of the source": (clone_service, {"name": "web", "source": "web", "state": "absent"}, "source and name must differ"),
    "Service with the same labels": (clone_service, {"name": "x", "source": "web", "labels": {"version": "blue"}}, "whose value differs"),
    "Service without labels": (clone_service, {"name": "x", "source": "web"}, "needs labels"),
    "Service of a missing one": (clone_service, {"name": "x", "source": "no", "labels": {"a": "b"}}, "Services in namespace shop: web"),
    "Service that is another's": (
        clone_service,
        {"name": "web-copy", "source": "web", "labels": {"version": "red"}},
        'selects pods with version="copy" and not "red"',
    ),
    "copy by a foreign label": (
        clone_workload,
        {"name": "x", "source": "web-blue", "labels": {"hue": "red"}},
        'has no label "hue" in its selector',
    ),
    "undo to a revision that is gone": (
        undo_rollout,
        {"name": "web-blue", "to_revision": 7},
        "Deployment shop/web-blue has no revision 7; it has: 2 (app podinfo:1.0.0), 1 (app podinfo:0.9.0)",
    ),
    "undo to revision 0": (undo_rollout, {"name": "web-blue", "to_revision": 0}, "to_revision must be 1 or more, got 0"),
    "undo without a revision before": (undo_rollout, {"name": "web-green"}, "has no revision before 1 (app podinfo:2.0.0) to go back to"),
    "undo of a missing Deployment": (undo_rollout, {"name": "nope"}, "Deployments in namespace shop: web-blue, web-copy, web-green"),
    "pause of a missing Deployment": (pause_rollout, {"name": "nope"}, "Deployments in namespace shop: web-blue, web-copy, web-green"),
    "no image to mark": (mark_released, {"name": "web-blue", "images": ["No Image"]}, "is not an image reference"),
    "missing workload to mark": (mark_released, {"name": "nope"}, "Deployment shop/nope does not exist"),
    "practices of a missing workload": (practices_info, {"name": "nope"}, "Deployments in namespace shop: web-blue, web-copy, web-green"),
    "image and images": (practices_info, {"name": "web-blue", "image": "a:1", "images": {"app": "a:1"}}, "give one of them"),
    "staged nowhere": (practices_info, {"name": "web-blue", "checks": ["staged"]}, "the check staged needs staged"),
    "no delay": (practices_info, {"name": "web-blue", "stop_delay": 0}, "stop_delay must be more than 0 seconds"),
    "load on no address": (load_test, {"url": "web"}, "url must start with http:// or https://"),
    "load without a connection": (load_test, {"url": "http://web/", "concurrency": 0}, "concurrency must be between 1 and 256"),
    "negative interval": (observe_workload, {"name": "web-blue", "interval": 0}, "interval must be more than 0"),
}


@pytest.mark.parametrize(("step", "given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence_and_changes_nothing(step: Any, given: dict[str, Any], sentence: str) -> None:
    cluster = shop()
    with pytest.raises(DeliveryError) as caught:
        step.execute(options(step, **given), cluster, False)
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert cluster.writes == []


def test_a_color_with_fewer_ready_pods_than_the_active_one_is_refused_unless_forced() -> None:
    cluster = shop()
    cluster.put(pod("g2", GREEN, ready=False))
    with pytest.raises(DeliveryError, match="as many as blue has"):
        switch_color.execute(options(switch_color, name="web", color="green", wait=False), cluster, False)
    assert switch_color.execute(options(switch_color, name="web", color="green", force=True, wait=False), cluster, False).changed


def test_switch_waits_for_the_endpoints_to_follow() -> None:
    cluster = shop()
    labels = {"kubernetes.io/service-name": "web"}

    def slice_of(network: int) -> dict[str, Any]:
        endpoints = [{"addresses": [f"10.0.{network}.{number}"], "conditions": {"ready": True}} for number in range(3)]
        return {"kind": "EndpointSlice", "metadata": {"name": "web-x", "namespace": "shop", "labels": labels}, "endpoints": endpoints}

    cluster.put(slice_of(0))
    timer = threading.Timer(0.3, lambda: cluster.put(slice_of(1)))
    timer.start()
    result = switch_color.execute(options(switch_color, name="web", color="green"), cluster, False)
    timer.join()
    assert result.extra["settled"] >= 0.2


def test_an_autoscaler_that_would_undo_it_is_named() -> None:
    cluster = shop()
    target = {"kind": "Deployment", "name": "web-blue"}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4}
    cluster.put({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    with pytest.raises(DeliveryError, match="HorizontalPodAutoscaler web between 2 and 4"):
        scale.execute(options(scale, name="web-blue", replicas=5), cluster, False)
    assert scale.execute(options(scale, name="web-blue", replicas=4), cluster, False).changed
    assert scale.execute(options(scale, name="web-blue", replicas=0), cluster, False).changed


class TestIngress:
    """Provider ingress: two Services and an Ingress."""

    def cluster(self, *backends: str) -> FakeCluster:
        cluster = shop()
        for color in ("blue", "green"):
            cluster.put(service(f"web-{color}", color))
        cluster.put({"kind": "Service", "metadata": {"name": "other", "namespace": "shop"}, "spec": {"selector": {"app": "other"}}})
        cluster.put(ingress(*backends))
        return cluster

    def names(self, cluster: FakeCluster) -> list[str]:
        rules = cluster.get(Ref("Ingress", "shop", "web"))["spec"]["rules"]
        return [rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in rules]

    def switch(self, cluster: FakeCluster, **given: Any) -> Any:
        chosen = options(switch_color, provider="ingress", name="web", color="green", **given)
        return switch_color.execute(chosen, cluster, False)

    def test_switches_every_backend_of_the_old_color_and_no_other(self) -> None:
        cluster = self.cluster("web-blue", "other", "web-blue")
        assert self.switch(cluster).changed
        assert self.names(cluster) == ["web-green", "other", "web-green"]
        assert not self.switch(cluster).changed

    def test_switches_the_chosen_rule_alone(self) -> None:
        cluster = self.cluster("web-blue", "web-blue")
        assert self.switch(cluster, rule_host="h1").changed
        assert self.names(cluster) == ["web-blue", "web-green"]
        with pytest.raises(DeliveryError, match="several colors"):
            self.switch(cluster)

    def test_names_what_there_is_when_the_rule_is_not(self) -> None:
        with pytest.raises(DeliveryError, match="no backend for host nope and path /; it has: h0/"):
            self.switch(self.cluster("web-blue"), rule_host="nope")

    def test_a_color_without_service_is_refused(self) -> None:
        cluster = self.cluster("web-blue")
        with pytest.raises(DeliveryError, match='no Service has color "red"'):
            switch_color.execute(options(switch_color, provider="ingress", name="web", color="red"), cluster, False)


def test_wait_returns_when_the_event_that_decides_it_comes() -> None:
    cluster = FakeCluster(deployment(updatedReplicas=1))
    timer = threading.Timer(0.2, lambda: cluster.put(deployment()))
    timer.start()
    result = wait_rollout.execute(options(wait_rollout, name="web", timeout=10), cluster, False)
    assert result.extra["status"]["phase"] == "complete" and not result.changed


def test_wait_survives_a_forgotten_version() -> None:
    cluster = FakeCluster(deployment(updatedReplicas=1))

    def compact() -> None:
        cluster.forget_events()
        cluster.put(deployment())
        cluster.forget_events()

    timer = threading.Timer(0.2, compact)
    timer.start()
    assert wait_rollout.execute(options(wait_rollout, name="web", timeout=10), cluster, False).extra["status"]["phase"] == "complete"


def _crash(cluster: FakeCluster) -> None:
    owner = cluster.get(Ref("Deployment", "shop", "web"))
    cluster.put(replica_set(owner, 2, "b", "podinfo:1.0.0"))
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}
    cluster.put(pod("web-b-1", {"app": "web", "pod-template-hash": "b"}, ready=False, **waiting))


def _pause(cluster: FakeCluster) -> None:
    workload = cluster.get(Ref("Deployment", "shop", "web"))
    workload["spec"]["paused"] = True
    cluster.put(workload)


def _new_template(cluster: FakeCluster) -> None:
    workload = cluster.get(Ref("Deployment", "shop", "web"))
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:9"
    cluster.put(workload)


@pytest.mark.parametrize(
    ("event", "reason", "given"),
    [
        (lambda cluster: cluster.drop(Ref("Deployment", "shop", "web")), "Deleted", {}),
        (_pause, "Paused", {}),
        (_crash, "CrashLoopBackOff", {}),
        (_new_template, "Superseded", {"revision": 2}),
        (lambda cluster: None, "Timeout", {"timeout": 0.5}),
    ],
)
def test_wait_fails_with_the_reason_as_soon_as_it_is_known(event: Any, reason: str, given: dict[str, Any]) -> None:
    cluster = FakeCluster(deployment(updatedReplicas=1))
    cluster.log_lines = ["cannot open database"]
    timer = threading.Timer(0.2, event, [cluster])
    timer.start()
    with pytest.raises(DeliveryError) as caught:
        wait_rollout.execute(options(wait_rollout, name="web", **{"timeout": 20, **given}), cluster, False)
    timer.join()
    assert caught.value.reason == reason
    if reason == "CrashLoopBackOff":
        assert caught.value.details["pod"] == "web-b-1" and "cannot open database" in caught.value.message


def web_with_pod(**container: Any) -> FakeCluster:
    """Return a cluster with one Deployment and a ready pod of its newest revision."""
    owner = deployment()
    cluster = FakeCluster(owner, replica_set(owner, 2, "b", "podinfo:1.0.0"))
    cluster.put(pod("web-b-1", {"app": "web", "pod-template-hash": "b"}, **container))
    return cluster


def test_smoke_test_tries_again_and_reports_each_attempt() -> None:
    cluster = web_with_pod()
    cluster.runs = [Ran(1, "", "wget: server returned error: HTTP/1.1 503 Service Unavailable"), Ran(0, "HTTP/1.1 200 OK\r\n\r\nfine", "")]
    result = smoke_test.execute(options(smoke_test, name="web", delay=0), cluster, False)
    assert [(entry["status"], entry["passed"]) for entry in result.extra["tries"]] == [(503, False), (200, True)]
    assert result.extra["by"] == "web-b-1" and result.extra["body"] == "fine"


MISSING = 'error executing command: exec: "sh": executable file not found in $PATH'


def test_smoke_test_tries_again_when_the_stream_broke_off() -> None:
    cluster = web_with_pod()
    cluster.runs = [Ran(255, "", ""), Ran(0, '{"version": "2.0.0"}', "  HTTP/1.1 200 OK")]
    done = smoke_test.execute(options(smoke_test, name="web", delay=0), cluster, False)
    assert [entry["passed"] for entry in done.extra["tries"]] == [False, True] and len(cluster.commands) == 2


def test_smoke_test_takes_the_next_client_when_one_is_missing() -> None:
    cluster = web_with_pod()
    cluster.runs = [Ran(255, "", MISSING), Ran(255, "", MISSING), Ran(0, '{"version": "2.0.0"}', "  HTTP/1.1 200 OK")]
    result = smoke_test.execute(options(smoke_test, name="web", json={"version": "2.0.0"}), cluster, False)
    assert result.extra["status"] == 200
    assert [command[0] for command in cluster.commands] == ["sh", "curl", "wget"]


def test_smoke_test_without_any_client_names_the_way_out() -> None:
    cluster = web_with_pod()
    cluster.runs = [Ran(255, "", MISSING)] * 5
    with pytest.raises(DeliveryError, match="use via: pod_proxy"):
        smoke_test.execute(options(smoke_test, name="web"), cluster, False)


@pytest.mark.parametrize("state", ["terminating", "not ready", "old revision"])
def test_smoke_test_never_asks_a_pod_that_does_not_count(state: str) -> None:
    cluster = web_with_pod()
    entry = cluster.get(Ref("Pod", "shop", "web-b-1"))
    if state == "terminating":
        entry["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    elif state == "not ready":
        entry["status"]["conditions"][0]["status"] = "False"
    else:
        entry["metadata"]["labels"]["pod-template-hash"] = "a"
    cluster.put(entry)
    with pytest.raises(DeliveryError, match="no ready pod of its newest revision"):
        smoke_test.execute(options(smoke_test, name="web", retries=0), cluster, False)


def test_observation_ends_at_a_restart() -> None:
    cluster = web_with_pod()
    again = copy.deepcopy(cluster.get(Ref("Pod", "shop", "web-b-1")))
    again["status"]["containerStatuses"][0]["restartCount"] = 1
    timer = threading.Timer(0.4, cluster.put, [again])
    timer.start()
    with pytest.raises(DeliveryError) as caught:
        observe_workload.execute(options(observe_workload, name="web", seconds=10, min_ready=1), cluster, False)
    timer.join()
    assert caught.value.reason == "ContainerRestarted"


def test_observation_repeats_the_smoke_tests_and_ends_at_the_first_that_fails() -> None:
    cluster = web_with_pod()
    cluster.answers = [Answer(200, "")] * 2 + [Answer(500, "")]
    tests = [{"via": "pod_proxy", "path": "/healthz", "retries": 0}]
    given = {"name": "web", "seconds": 20, "min_ready": 1, "interval": 0.1, "smoke_tests": tests}
    with pytest.raises(DeliveryError, match="status 500 instead of 200") as caught:
        observe_workload.execute(options(observe_workload, **given), cluster, False)
    assert caught.value.details["rounds"] == 2


def test_observation_of_a_healthy_workload_lasts_its_time() -> None:
    result = observe_workload.execute(options(observe_workload, name="web", seconds=0.5, min_ready=1), web_with_pod(), False)
    assert result.extra["observed"] >= 0.5 and result.extra["ready"] == 1 and not result.changed


def test_a_held_lock_refuses_others_and_lets_its_holder_in() -> None:
    cluster = FakeCluster()
    assert release_lock.execute(options(release_lock, name="web", holder="me"), cluster, False).changed
    assert not release_lock.execute(options(release_lock, name="web", holder="me"), cluster, False).changed
    with pytest.raises(DeliveryError, match='is held by "me" until'):
        release_lock.execute(options(release_lock, name="web", holder="you"), cluster, False)
    assert not release_lock.execute(options(release_lock, name="web", holder="you", state="released"), cluster, False).changed
    assert release_lock.execute(options(release_lock, name="web", holder="you", force=True), cluster, False).changed
    assert release_lock.execute(options(release_lock, name="web", holder="you", state="released"), cluster, False).changed


def test_a_lock_is_taken_by_force_only_from_whom_it_may_be_taken() -> None:
    cluster = FakeCluster()
    release_lock.execute(options(release_lock, name="web", holder="A/B test of web, started"), cluster, False)
    back = options(release_lock, name="web", holder="canary aborted of web", force=True, force_from="canary ")
    with pytest.raises(DeliveryError, match='is held by "A/B test of web, started" until'):
        release_lock.execute(back, cluster, False)
    assert not release_lock.execute({**back, "state": "released"}, cluster, False).changed
    release_lock.execute(options(release_lock, name="web", holder="canary released of web to x", force=True), cluster, False)
    assert release_lock.execute(back, cluster, False).before == {"holder": "canary released of web to x"}
    with pytest.raises(InvalidRequest, match="force_from of Lease shop/web is no regular expression"):
        release_lock.execute({**back, "force_from": "("}, cluster, False)


def test_infos_change_nothing_and_tell_what_is_there() -> None:
    cluster = shop()
    route = route_info.execute(options(route_info, name="web"), cluster, False).extra
    assert route["color"] == "blue" and route["colors"]["green"] == {
        "deployments": ["web-green"],
        "replicas": 3,
        "ready": 3,
        "images": {"app": "podinfo:2.0.0"},
    }
    info = rollout_info.execute(options(rollout_info, name="web-blue"), cluster, False).extra
    assert info["replicas"] == 3 and info["status"]["phase"] == "complete" and len(info["pods"]) == 3
    assert cluster.writes == []


def test_an_undo_whose_answer_was_lost_is_still_told_as_done() -> None:
    cluster = shop()
    patch, lost = cluster.patch, []

    def lossy(*arguments: Any, **named: Any) -> Any:
        answer = patch(*arguments, **named)
        if not lost:
            lost.append(answer)
            raise Conflict("tried again, and it was done").with_details(unsure=True)
        return answer

    cluster.patch = lossy  # type: ignore[method-assign]
    result = undo_rollout.execute(options(undo_rollout, name="web-blue"), cluster, False)
    assert result.changed and result.extra["to_revision"] == 1 and len(cluster.writes) == 1


def test_an_undo_is_decided_again_when_somebody_released_in_between() -> None:
    cluster = shop()
    ref = Ref("Deployment", "shop", "web-blue")

    def meddle() -> None:
        workload = cluster.get(ref)
        workload["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:3.0.0"
        workload["metadata"]["generation"] = workload["status"]["observedGeneration"] = 3
        cluster.put(workload)
        cluster.put(replica_set(workload, 3, "c", "podinfo:3.0.0"))

    cluster.before_patch = meddle
    result = undo_rollout.execute(options(undo_rollout, name="web-blue", if_revision=2), cluster, False)
    assert not result.changed and "is at revision 3 and not at 2" in result.extra["msg"]
    assert cluster.get(ref)["spec"]["template"]["spec"]["containers"][0]["image"] == "podinfo:3.0.0"
    result = undo_rollout.execute(options(undo_rollout, name="web-blue"), cluster, False)
    assert result.changed and result.extra["images"] == {"app": "podinfo:1.0.0"}


def test_an_undo_waits_for_the_number_of_what_it_undoes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo_rollout, "REVISION_TIMEOUT", 10)
    cluster = shop()
    workload = cluster.get(Ref("Deployment", "shop", "web-blue"))
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:3.0.0"
    workload["metadata"]["generation"] = 3
    cluster.put(workload)
    timer = threading.Timer(0.3, cluster.put, [replica_set(workload, 3, "c", "podinfo:3.0.0")])
    timer.start()
    result = undo_rollout.execute(options(undo_rollout, name="web-blue", if_revision=3), cluster, False)
    timer.join()
    assert result.changed and (result.extra["to_revision"], result.extra["revision"]) == (2, 4)


def stuck() -> tuple[FakeCluster, Ref]:
    """Return a StatefulSet whose second pod never became ready after the release of its second revision."""
    owner = {**deployment(image="podinfo:2.0.0"), "kind": "StatefulSet"}
    revisions = [controller_revision(owner, 1, "a", "podinfo:1.0.0"), controller_revision(owner, 2, "b", "podinfo:2.0.0")]
    owner["status"]["updateRevision"] = "web-b"
    cluster = FakeCluster(owner, *revisions)
    for name, digest in (("web-0", "web-a"), ("web-1", "web-b")):
        found = pod(name, {"app": "web", "controller-revision-hash": digest}, ready=digest == "web-a")
        found["metadata"]["ownerReferences"] = [{"controller": True, "uid": "uid-web"}]
        cluster.put(found)
    return cluster, Ref("Pod", "shop", "web-1")


def test_a_stuck_pod_is_named_and_stays_unless_it_is_to_be_deleted() -> None:
    cluster, _ref = stuck()
    told: list[str] = []
    given = options(undo_rollout, kind="StatefulSet", name="web")
    result = undo_rollout.execute(given, cluster, False, told.append)
    assert result.changed and result.extra["stuck_pods"] == ["web-1"] and "delete web-1, or give delete_stuck_pods: true" in told[0]
    assert cluster.writes == [("patch", Ref("StatefulSet", "shop", "web"))]


def test_a_stuck_pod_is_deleted_once_also_when_the_undo_was_done_before() -> None:
    cluster, ref = stuck()
    undo_rollout.execute(options(undo_rollout, kind="StatefulSet", name="web"), cluster, False)
    given = options(undo_rollout, kind="StatefulSet", name="web", delete_stuck_pods=True)
    foreseen = undo_rollout.execute(given, cluster, True)
    assert cluster.get(ref) and foreseen.changed
    done = undo_rollout.execute(given, cluster, False)
    assert (done.before, done.after, done.actions) == (foreseen.before, foreseen.after, foreseen.actions)
    assert done.before["stuck_pods"] == ["web-1"] and cluster.writes[-1] == ("delete", ref)
    assert not undo_rollout.execute(given, cluster, False).changed


def test_a_release_deletes_the_pod_that_would_keep_a_stateful_set_from_it() -> None:
    cluster, ref = stuck()
    owner = cluster.get(Ref("StatefulSet", "shop", "web"))
    given = options(set_image, kind="StatefulSet", name="web", images={"*": "podinfo:3.0.0"}, delete_stuck_pods=True)
    foreseen = set_image.execute(given, cluster, True)
    assert foreseen.changed and foreseen.before["stuck_pods"] == ["web-1"] and cluster.writes == []
    # As the controller leaves it after the image came.
    owner["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:3.0.0"
    owner["status"].update(updateRevision="web-c", currentRevision="web-a")
    cluster.put(controller_revision(owner, 3, "c", "podinfo:3.0.0"))
    cluster.put(owner)
    assert not set_image.execute({**given, "delete_stuck_pods": False}, cluster, False).changed
    done = set_image.execute(given, cluster, False)
    assert done.changed and done.after["stuck_pods"] == [] and "deleted pod web-1" in done.actions[-1], done
    assert cluster.writes == [("delete", ref)]
    assert not set_image.execute(given, cluster, False).changed


def test_a_stuck_pod_that_came_back_well_is_not_deleted() -> None:
    cluster, ref = stuck()
    delete = cluster.delete

    def meddle(*arguments: Any, **named: Any) -> None:
        cluster.delete = delete  # type: ignore[method-assign]
        well = pod("web-1", {"app": "web", "controller-revision-hash": "web-a"})
        well["metadata"]["ownerReferences"] = [{"controller": True, "uid": "uid-web"}]
        cluster.put(well)
        delete(*arguments, **named)

    cluster.delete = meddle  # type: ignore[method-assign]
    given = options(undo_rollout, kind="StatefulSet", name="web", delete_stuck_pods=True)
    result = undo_rollout.execute(given, cluster, False)
    assert result.changed and result.extra["stuck_pods"] == [] and "stuck_pods" not in result.before
    assert cluster.get(ref)


@pytest.mark.parametrize(("kind", "way"), [("StatefulSet", "a partition keeps the pods"), ("DaemonSet", "type OnDelete keeps the pods")])
def test_only_a_deployment_can_be_paused(kind: str, way: str) -> None:
    cluster = FakeCluster({**deployment(), "kind": kind})
    with pytest.raises(DeliveryError, match=f"{kind} shop/web cannot be paused, only a Deployment can; .*{way}") as caught:
        pause_rollout.execute(options(pause_rollout, kind=kind, name="web"), cluster, False)
    assert "\n" not in caught.value.message and cluster.writes == []


def test_a_paused_deployment_goes_on() -> None:
    cluster = shop()
    assert pause_rollout.execute(options(pause_rollout, name="web-blue"), cluster, False).extra["paused"]
    result = pause_rollout.execute(options(pause_rollout, name="web-blue", state="resumed"), cluster, False)
    assert (
        result.changed and result.after == {"paused": False} and list(result.actions) == ["resumed the rollout of Deployment shop/web-blue"]
    )
    assert not pause_rollout.execute(options(pause_rollout, name="web-blue", state="resumed"), cluster, False).changed


STEPS = (
    abort_canary,
    clone_service,
    clone_workload,
    flagger_canary,
    flagger_gate,
    load_test,
    mark_released,
    observe_workload,
    pause_rollout,
    practices_info,
    release_lock,
    rollout_info,
    route_info,
    scale,
    set_audience,
    set_canary_weight,
    set_image,
    set_strategy,
    smoke_test,
    strategy_info,
    switch_color,
    undo_rollout,
    wait_canary,
    wait_rollout,
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__.rsplit(".", 1)[-1])
def test_no_option_of_a_step_hides_one_that_every_step_has(step: Any) -> None:
    names = set(step.OPTIONS) | {alias for option in step.OPTIONS.values() for alias in option.get("aliases", ())}
    taken = set(COMMON_OPTIONS) | {alias for option in COMMON_OPTIONS.values() for alias in option.get("aliases", ())}
    assert not names & taken


def test_a_name_that_is_empty_is_refused_before_any_request() -> None:
    cluster = FakeCluster()
    given = options(release_lock, name="", holder="me", state="released")
    with pytest.raises(DeliveryError, match="Lease needs a name, got an empty one"):
        release_lock.execute(given, cluster, False)


def observed(cluster: FakeCluster) -> None:
    """Let the controller see the newest spec of web-blue."""
    workload = cluster.get(Ref("Deployment", "shop", "web-blue"))
    workload["status"]["observedGeneration"] = workload["metadata"]["generation"]
    cluster.put(workload)


def scaled(cluster: FakeCluster, replicas: int) -> None:
    """Scale web-blue as somebody else does: the controller sees it later."""
    workload = cluster.get(Ref("Deployment", "shop", "web-blue"))
    workload["spec"]["replicas"] = replicas
    workload["metadata"]["generation"] += 1
    cluster.put(workload)


def test_a_pod_that_goes_before_its_workload_is_seen_to_be_scaled_down_ends_no_observation() -> None:
    cluster = shop()
    cluster.put(replica_set(cluster.get(Ref("Deployment", "shop", "web-blue")), 2, "b", "podinfo:1.0.0"))
    for number in range(3):
        cluster.put(pod(f"b{number}", {**BLUE, "pod-template-hash": "b"}))
    watch = cluster.watch

    def late(query: Any, *arguments: Any) -> Any:
        for event in watch(query, *arguments):
            if query.kind == "Deployment":
                time.sleep(0.4)
            yield event

    cluster.watch = late  # type: ignore[method-assign]

    def shrink() -> None:
        scaled(cluster, 2)
        observed(cluster)
        cluster.drop(Ref("Pod", "shop", "b2"))

    threading.Timer(0.2, shrink).start()
    result = observe_workload.execute(options(observe_workload, name="web-blue", seconds=1), cluster, False)
    assert result.extra["ready"] == 2 and result.extra["observed"] >= 1


def test_an_observation_of_which_the_watches_told_nothing_ends_with_a_look_of_its_own() -> None:
    cluster = shop()
    cluster.put(replica_set(cluster.get(Ref("Deployment", "shop", "web-blue")), 2, "b", "podinfo:1.0.0"))
    for number in range(3):
        cluster.put(pod(f"b{number}", {**BLUE, "pod-template-hash": "b"}))

    def silent(_query: Any, _version: str, timeout: float) -> Any:
        time.sleep(min(timeout, 3))
        return iter(())

    cluster.watch = silent  # type: ignore[method-assign]
    threading.Timer(0.2, lambda: [cluster.drop(Ref("Pod", "shop", f"b{number}")) for number in range(3)]).start()
    with pytest.raises(DeliveryError, match="has 0 ready pods and must have 3") as caught:
        observe_workload.execute(options(observe_workload, name="web-blue", seconds=1), cluster, False)
    assert caught.value.reason == "NotReady"


def test_pods_that_an_autoscaler_adds_do_not_end_an_observation() -> None:
    cluster = shop()
    cluster.put(replica_set(cluster.get(Ref("Deployment", "shop", "web-blue")), 2, "b", "podinfo:1.0.0"))
    for number in range(3):
        cluster.put(pod(f"b{number}", {**BLUE, "pod-template-hash": "b"}))

    threading.Timer(0.2, scaled, [cluster, 5]).start()
    threading.Timer(0.5, observed, [cluster]).start()
    result = observe_workload.execute(options(observe_workload, name="web-blue", seconds=0.8), cluster, False)
    assert result.extra["ready"] == 3


def test_an_option_that_no_smoke_test_has_is_refused() -> None:
    given = options(observe_workload, name="web-blue", seconds=0, smoke_tests=[{"pth": "/healthz"}])
    with pytest.raises(DeliveryError, match='a smoke test has no option "pth"; it has: container'):
        observe_workload.execute(given, shop(), False)


def test_a_wait_for_a_revision_that_the_workload_does_not_have_is_not_over_because_another_is_complete() -> None:
    cluster = FakeCluster(deployment())
    with pytest.raises(DeliveryError, match="did not complete its rollout within 0.3 s") as caught:
        wait_rollout.execute(options(wait_rollout, name="web", revision=3, timeout=0.3), cluster, False)
    assert caught.value.reason == "Timeout"
    assert wait_rollout.execute(options(wait_rollout, name="web", revision=2, timeout=0.3), cluster, False).extra["status"]


def test_a_deadline_that_passed_for_the_rollout_before_is_no_verdict_while_the_revisions_are_not_known() -> None:
    message = 'ReplicaSet "web-a" has timed out progressing.'
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": message}
    owner = deployment(updatedReplicas=1, conditions=[late])
    cluster = FakeCluster(owner, replica_set(owner, 1, "a", "podinfo:0.9.0"), replica_set(owner, 2, "b", "podinfo:1.0.0"))
    listed = cluster.list

    def late_list(query: Any) -> Any:
        if query.kind == "ReplicaSet":
            time.sleep(0.3)
        return listed(query)

    cluster.list = late_list  # type: ignore[method-assign]
    threading.Timer(0.6, cluster.put, [deployment()]).start()
    assert wait_rollout.execute(options(wait_rollout, name="web", timeout=5), cluster, False).extra["status"]["phase"] == "complete"
