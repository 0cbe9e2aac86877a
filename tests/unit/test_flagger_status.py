# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Canary's state means, and the waits for it; the fake cluster, in which the test does what Flagger does."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import following
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan import flagger_status as plan
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import abort_canary, wait_canary
from support.fake import FakeCluster
from support.objects import deployment, pod, replica_set

CANARY, TARGET, PRIMARY = Ref("Canary", "shop", "web"), Ref("Deployment", "shop", "web"), Ref("Deployment", "shop", "web-primary")
ANALYSIS = {"interval": "10s", "threshold": 5, "maxWeight": 50, "stepWeight": 10}


def canary(phase: str = "Succeeded", **status: Any) -> dict[str, Any]:
    """Return a Canary in a phase."""
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-canary"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "analysis": dict(ANALYSIS)},
        "status": {"phase": phase, "lastAppliedSpec": "one", "lastPromotedSpec": "one", **status},
    }


def primary_of(target: dict[str, Any]) -> dict[str, Any]:
    """Return what Flagger makes of a target."""
    made = copy.deepcopy(target)
    made["metadata"] |= {"name": "web-primary", "uid": "uid-web-primary"}
    template = made["spec"]["template"]
    template["metadata"]["labels"]["app"] = made["spec"]["selector"]["matchLabels"]["app"] = "web-primary"
    template["metadata"]["annotations"] = {"flagger-id": "7f"}
    return made


class Flagged(FakeCluster):
    """A Deployment with its primary, and a Canary; a test does to it what Flagger does."""

    def __init__(self, phase: str = "Succeeded", image: str = "podinfo:1.0.0", **status: Any) -> None:
        target = deployment(image=image, replicas=0)
        super().__init__(target, primary_of(deployment()), canary(phase, **status))
        self.groups.append("flagger.app")
        self.events = 0

    def flagger(self, phase: str = "", said: str = "", kind: str = "Normal", **status: Any) -> None:
        """Write a status and an event."""
        found = self.get(CANARY)
        found["status"].update({**({"phase": phase} if phase else {}), **status})
        self.put(found)
        if said:
            self.say(said, kind)

    def say(self, said: str, kind: str = "Normal") -> None:
        """Record an event."""
        self.events += 1
        about = {"kind": "Canary", "name": "web", "namespace": "shop", "uid": "uid-canary"}
        self.put(
            {
                "kind": "Event",
                "metadata": {"name": f"web.{self.events}", "namespace": "shop"},
                "involvedObject": about,
                "type": kind,
                "message": said,
                "lastTimestamp": "2026-01-01T00:00:00Z",
            }
        )

    def release(self, image: str, ref: Ref = TARGET, replicas: int | None = None) -> None:
        """Give a workload an image, as set_image and its controller do."""
        found = self.get(ref)
        found["spec"]["template"]["spec"]["containers"][0]["image"] = image
        revision = int(found["metadata"]["annotations"]["deployment.kubernetes.io/revision"]) + 1
        found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = str(revision)
        if replicas is not None:
            found["spec"]["replicas"] = replicas
        self.put(found)

    def promote(self, image: str) -> None:
        """Let the primary have what the target has, and say so."""
        self.flagger("Promoting")
        self.release(image, PRIMARY)
        self.flagger("Finalising")
        self.flagger("Succeeded", "Promotion completed! Scaling down web.shop", lastPromotedSpec="two")


def run(cluster: FakeCluster, step: Any = wait_canary, check: bool = False, lines: list[str] | None = None, **given: Any) -> dict[str, Any]:
    """Run a step on the Canary web and return what it reports."""
    spec = argument_spec(step.OPTIONS)
    options = {key: entry.get("default") for key, entry in spec.items()}
    if step is wait_canary:
        options["timeout"] = 10
    told = lines if lines is not None else []

    def say(line: str, news: object = None) -> None:
        if not told or told[-1] != line:
            told.append(line)

    result = step.execute({**options, "namespace": "shop", "name": "web", **given}, cluster, check, say)
    return {**result.extra, "changed": result.changed, "before": result.before, "after": result.after, "actions": list(result.actions)}


def later(*steps: Callable[[], object], pause: float = 0.15) -> Any:
    """Do things one after another in another thread."""
    import threading

    def go() -> None:
        for step in steps:
            time.sleep(pause)
            step()

    thread = threading.Thread(target=go)
    thread.start()
    return thread


# -- what there is to release ---------------------------------------------------------------------------------------


def with_template(**spec: Any) -> dict[str, Any]:
    """Return a Deployment whose pods have more in their spec."""
    found = deployment()
    found["spec"]["template"]["spec"].update(spec)
    return found


def config(name: str) -> dict[str, Any]:
    """Return a part of a pod spec that uses a ConfigMap everywhere it can."""
    return {
        "volumes": [{"name": "c", "configMap": {"name": name}}, {"name": "p", "projected": {"sources": [{"secret": {"name": name}}]}}],
        "containers": [{"name": "app", "image": "a:1", "envFrom": [{"configMapRef": {"name": name}}]}],
    }


@pytest.mark.parametrize(
    ("target", "primary", "same"),
    [
        (deployment(), primary_of(deployment()), True),
        (deployment(image="podinfo:2.0.0"), primary_of(deployment()), False),
        (with_template(**config("web")), primary_of(with_template(**config("web-primary"))), True),
        (with_template(**config("web")), primary_of(with_template(**config("other"))), False),
        (with_template(hostNetwork=True), primary_of(deployment()), False),
        (deployment(), primary_of(with_template(hostNetwork=True)), False),
    ],
)
def test_the_primary_runs_the_target_s_template_but_for_what_flagger_changes(target: Any, primary: Any, same: bool) -> None:
    assert plan.is_same_template(target, primary) is same


@pytest.mark.parametrize("others", [{}, {"disk": "fast"}])
def test_a_daemon_set_that_flagger_has_scaled_to_zero_is_as_its_owner_wrote_it(others: dict[str, str]) -> None:
    written = with_template(**({"nodeSelector": others} if others else {}))
    scaled = with_template(nodeSelector={**others, "flagger.app/scale-to-zero": "true"})
    assert plan.as_written(scaled)["spec"] == written["spec"] and plan.as_written(written) is written


def test_annotations_of_the_pods_count_and_those_of_flagger_do_not() -> None:
    target = deployment()
    target["spec"]["template"]["metadata"]["annotations"] = {"restarted": "now", "kustomize.toolkit.fluxcd.io/x": "y"}
    assert not plan.is_same_template(target, primary_of(deployment()))
    primary = primary_of(deployment())
    primary["spec"]["template"]["metadata"]["annotations"]["restarted"] = "now"
    assert plan.is_same_template(target, primary)


def test_checksums_are_those_of_flagger() -> None:
    # As checksum() of pkg/canary/config_tracker.go gives them.
    assert plan.config_checksum(None) == "74234e98afe7498f"
    assert plan.config_checksum({"b": "<&>", "a": "ü"}) == plan.config_checksum({"a": "ü", "b": "<&>"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("500ms", 10), ("5s", 10), ("2h", 7200), (None, 60), ("soon", 60), ("1m x", 60)]
)
def test_intervals_are_read_as_flagger_reads_them(text: Any, seconds: float) -> None:
    found = canary()
    found["spec"]["analysis"]["interval"] = text
    assert plan.interval_of(found) == seconds


# -- what Flagger says ----------------------------------------------------------------------------------------------

SAID = {
    "Halt web.shop advancement success rate 45.00% < 99%": ("MetricFailed", "metric request-success-rate was 45.00% < 99%"),
    "Halt web.shop advancement request duration 1.2s > 500ms": ("MetricFailed", "metric request-duration was 1.2s > 500ms"),
    "Halt web.shop advancement error rate 12.50 > 1": ("MetricFailed", "metric error rate was 12.50 > 1"),
    "Halt advancement no values found for custom metric: errors: no values": ("NoValues", "metric errors had no values"),
    "Halt advancement no values found for istio metric request-duration probably web.shop is not receiving traffic": (
        "NoValues",
        "metric request-duration had no values",
    ),
    "Halt advancement no values found for metric: errors": ("NoValues", "metric errors had no values"),
    "Prometheus query failed: dial tcp: refused": ("QueryFailed", "the query failed: dial tcp: refused"),
    "Metric query failed for errors: 404": ("QueryFailed", "the query of metric errors failed: 404"),
    "Metric template errors.shop error: not found": ("QueryFailed", "the query of metric errors.shop failed: not found"),
    "Halt web.shop advancement external check load test failed 500 Internal": ("WebhookFailed", "webhook load test refused: 500 Internal"),
    "Halt web.shop advancement pre-rollout check smoke failed ": ("WebhookFailed", "webhook smoke refused"),
    "Rolling back web.shop manual webhook invoked": ("RolledBack", "somebody opened the gate rollback"),
    'canary deployment web.shop not ready: deployment "web" exceeded its progress deadline': (
        "ProgressDeadlineExceeded",
        "progress deadline",
    ),
}


@pytest.mark.parametrize(("message", "reason", "words"), [(message, *told) for message, told in SAID.items()], ids=range(len(SAID)))
def test_what_flagger_says_is_understood(message: str, reason: str, words: str) -> None:
    found = plan.parse_check(message)
    assert found and found.reason == reason and words in found.words


@pytest.mark.parametrize("message", ["Advance web.shop canary weight 10", "Halt web.shop advancement waiting for approval gate", ""])
def test_what_is_no_failed_check_is_none(message: str) -> None:
    assert plan.parse_check(message) is None


def test_only_the_last_release_counts_and_only_this_canary() -> None:
    cluster = Flagged("Failed")
    cluster.say("Halt web.shop advancement old 1.00 > 0", "Warning")
    cluster.say("New revision detected! Scaling up web.shop")
    cluster.say("(combined from similar events): Halt web.shop advancement errors 2.00 > 1", "Warning")
    events = [dict(entry) for entry in cluster.list(following.Query("Event", "shop")).items]
    stranger = copy.deepcopy(events[-1])
    stranger["involvedObject"]["uid"] = "another"
    told = plan.told_of([*events, stranger], cluster.get(CANARY))
    assert len(told) == 3
    assert [check.words for check in plan.checks_of(told)] == ["metric errors was 2.00 > 1"]
    assert plan.failure_of(cluster.get(CANARY), told).name == "errors"


@pytest.mark.parametrize(
    ("phase", "said", "gate"),
    [
        ("Waiting", "Halt web.shop advancement waiting for approval ask", ("confirm-rollout", "ask")),
        ("WaitingPromotion", "Halt web.shop advancement waiting for promotion approval ask", ("confirm-promotion", "ask")),
        ("WaitingPromotion", "", ("confirm-promotion", "promote")),
        ("Progressing", "Halt web.shop advancement waiting for traffic increase approval ask", ("confirm-traffic-increase", "ask")),
        ("Progressing", "Advance web.shop canary weight 10", None),
        ("Succeeded", "Halt web.shop advancement waiting for approval ask", None),
    ],
)
def test_gates_are_known(phase: str, said: str, gate: Any) -> None:
    found = canary(phase)
    found["spec"]["analysis"]["webhooks"] = [{"name": "promote", "type": "confirm-promotion", "url": "http://x"}]
    told = [plan.Told("", "Warning", said)] if said else []
    known = plan.gate_of(found, told)
    assert (known and (known.type, known.name)) == gate


# -- waits ----------------------------------------------------------------------------------------------------------


def test_a_release_is_followed_to_its_end_line_by_line() -> None:
    cluster, lines = Flagged(image="podinfo:2.0.0"), []
    thread = later(
        lambda: cluster.flagger("Progressing", "New revision detected! Scaling up web.shop", lastAppliedSpec="two"),
        lambda: cluster.flagger(said="Advance web.shop canary weight 10", canaryWeight=10),
        lambda: cluster.flagger(said="Halt web.shop advancement errors 2.00 > 1", kind="Warning", failedChecks=1),
        lambda: cluster.promote("podinfo:2.0.0"),
    )
    found = run(cluster, lines=lines)
    thread.join()
    assert found["outcome"] == "released" and found["status"]["phase"] == "Succeeded" and not found["changed"]
    assert found["images"] == {"target": {"app": "podinfo:2.0.0"}, "primary": {"app": "podinfo:2.0.0"}}
    assert found["target"] == {"kind": "Deployment", "name": "web"}
    assert lines[0] == "Succeeded: waiting for Flagger to see what web is to run (it looks every 10 s)"
    assert "Progressing, weight 10 of 50, 0 of 5 failed checks" in lines
    assert lines[-1] == "Succeeded"
    assert "Progressing, weight 10 of 50, 1 of 5 failed checks: Halt web.shop advancement errors 2.00 > 1" in lines
    assert [check["name"] for check in found["checks"]] == ["errors"]


@pytest.mark.parametrize("phase", ["Initialized", "Succeeded", "Failed"])
def test_a_release_that_changes_nothing_is_not_waited_for(phase: str) -> None:
    started = time.monotonic()
    found = run(Flagged(phase))
    assert found["outcome"] == "unchanged" and time.monotonic() - started < 1


def test_a_failed_release_is_told_with_its_metric() -> None:
    cluster = Flagged(image="podinfo:2.0.0")
    thread = later(
        lambda: cluster.flagger("Progressing", "New revision detected! Scaling up web.shop", lastAppliedSpec="two"),
        *[lambda: cluster.say("Halt web.shop advancement error-rate 12.50 > 1", "Warning")] * 2,
        lambda: cluster.flagger("Failed"),
        lambda: cluster.say("Rolling back web.shop failed checks threshold reached 5", "Warning"),
        lambda: cluster.say("Canary failed! Scaling down web.shop", "Warning"),
    )
    words = (
        r"Canary shop/web failed, and Flagger has all traffic on web-primary: metric error-rate was 12.50 > 1 \(its threshold is 5"
        r" failed checks\); correct web and release it anew - this revision of it is not tried again"
    )
    with pytest.raises(DeliveryError, match=words) as caught:
        run(cluster)
    thread.join()
    assert caught.value.reason == "MetricFailed" and caught.value.details["check"]["value"] == "12.50"
    assert caught.value.details["outcome"] == "failed" and caught.value.details["status"]["phase"] == "Failed"


def test_a_failure_of_which_there_are_no_events_is_told_all_the_same() -> None:
    cluster = Flagged("Progressing", image="podinfo:2.0.0")
    thread = later(lambda: cluster.flagger("Failed", conditions=[{"message": "Canary analysis failed, Deployment scaled to zero."}]))
    with pytest.raises(DeliveryError, match="Canary analysis failed, Deployment scaled to zero; correct web") as caught:
        run(cluster)
    thread.join()
    assert caught.value.reason == "CanaryFailed"


def test_the_failure_of_the_release_before_is_not_that_of_the_one_that_is_waited_for() -> None:
    cluster = Flagged("Failed", image="podinfo:3.0.0")
    thread = later(
        lambda: cluster.flagger("Failed", lastAppliedSpec="three"),
        lambda: cluster.flagger("Progressing", "New revision detected! Scaling up web.shop"),
        lambda: cluster.promote("podinfo:3.0.0"),
    )
    assert run(cluster)["outcome"] == "released"
    thread.join()


def test_a_revision_that_failed_before_is_known_at_the_next_look_of_flagger() -> None:
    cluster = Flagged("Failed", image="podinfo:2.0.0")
    cluster.say("Halt web.shop advancement errors 2.00 > 1", "Warning")
    thread = later(lambda: cluster.flagger("Failed", lastTransitionTime="2026-01-01T00:00:10Z"))
    with pytest.raises(DeliveryError, match="metric errors was 2.00 > 1"):
        run(cluster)
    thread.join()


@pytest.mark.parametrize(("looked", "decided"), [("00:00:05", False), ("00:00:11", False), ("00:00:12", True), ("00:01:00", True)])
def test_a_failure_that_flagger_has_looked_at_since_is_known_at_once(looked: str, decided: bool) -> None:
    cluster = Flagged("Failed", image="podinfo:2.0.0")
    found, target = cluster.get(CANARY), cluster.get(TARGET)
    found["metadata"]["managedFields"] = [
        {"subresource": "status", "time": f"2026-01-01T{looked}Z", "fieldsV1": {"f:status": {"f:phase": {}}}},
        {"time": "2026-01-01T09:00:00Z", "fieldsV1": {"f:spec": {}}},
    ]
    target["metadata"]["managedFields"] = [
        {"time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"time": "2026-01-01T09:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    assert plan.is_decided(found, target) is decided
    cluster.put(found)
    cluster.put(target)
    if decided:
        with pytest.raises(DeliveryError, match="failed, and Flagger has all traffic"):
            run(cluster)


def test_a_revision_that_flagger_does_not_begin_with_is_told() -> None:
    with pytest.raises(
        DeliveryError, match=r"has not begun to release what Deployment shop/web runs \(podinfo:2.0.0\) within 0.3 s"
    ) as caught:
        run(Flagged(image="podinfo:2.0.0"), pickup_timeout=0.3)
    assert caught.value.reason == "NotPickedUp"


def test_a_template_in_which_flagger_finds_nothing_is_unchanged() -> None:
    cluster = Flagged()
    found = cluster.get(PRIMARY)
    found["spec"]["template"]["spec"]["priority"] = 5
    cluster.put(found)
    assert run(cluster, pickup_timeout=0.3)["outcome"] == "unchanged"


def test_new_configuration_is_waited_for() -> None:
    cluster = Flagged(trackedConfigs={"configmap/web": plan.config_checksum({"a": "1"}), "secret/web": "x"})
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}, "data": {"a": "1"}})
    assert run(cluster)["outcome"] == "unchanged"
    cluster.put({"kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}, "data": {"a": "2"}})
    thread = later(
        lambda: cluster.flagger("Progressing", "New revision detected! Scaling up web.shop"),
        lambda: cluster.flagger(trackedConfigs={"configmap/web": plan.config_checksum({"a": "2"})}),
        lambda: cluster.flagger("Succeeded"),
    )
    assert run(cluster)["outcome"] == "released"
    thread.join()


def test_a_newer_revision_is_followed_or_ends_the_wait() -> None:
    for revision in (None, 2):
        cluster, lines = Flagged("Progressing", image="podinfo:2.0.0"), []
        steps = [
            lambda cluster=cluster: cluster.release("podinfo:3.0.0"),
            lambda cluster=cluster: cluster.flagger("Progressing", "New revision detected! Restarting analysis for web.shop"),
            lambda cluster=cluster: cluster.promote("podinfo:3.0.0"),
        ]
        thread = later(*steps)
        if revision is None:
            assert run(cluster, lines=lines)["outcome"] == "released"
            assert "web has a newer revision (podinfo:3.0.0): following that" in lines
        else:
            with pytest.raises(DeliveryError, match="Deployment shop/web is at revision 3 and not at 2, which was waited for") as caught:
                run(cluster, revision=revision)
            assert caught.value.reason == "Superseded"
        thread.join()


def test_a_promotion_of_the_one_before_is_not_the_end_where_a_newer_revision_came() -> None:
    cluster = Flagged("Promoting", image="podinfo:2.0.0")
    thread = later(
        lambda: cluster.release("podinfo:3.0.0"),
        lambda: cluster.promote("podinfo:2.0.0"),
        lambda: None,
        lambda: cluster.flagger("Progressing", "New revision detected! Scaling up web.shop"),
        lambda: cluster.promote("podinfo:3.0.0"),
    )
    assert run(cluster)["images"]["primary"] == {"app": "podinfo:3.0.0"}
    thread.join()


def stuck(cluster: Flagged) -> None:
    """Give the canary a pod whose image cannot be pulled."""
    cluster.release("podinfo:2.0.0", replicas=1)
    target = cluster.get(TARGET)
    owned = cluster.put(replica_set(target, 3, "new", "podinfo:2.0.0"))
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
    cluster.put(pod("web-new-0", {"app": "web", "pod-template-hash": "new"}, ready=False, owner=owned, **waiting))


def test_pods_that_will_not_become_ready_are_told_at_once() -> None:
    cluster = Flagged("Progressing")
    stuck(cluster)
    words = "the pods of web will not become ready: ImagePullBackOff in container app of pod web-new-0: not found; Flagger waits for its"
    with pytest.raises(DeliveryError, match=words) as caught:
        run(cluster)
    assert caught.value.reason == "ImagePullBackOff" and caught.value.details["pod"] == "web-new-0"


def test_pods_that_will_not_become_ready_can_be_left_to_flagger() -> None:
    cluster, lines = Flagged("Progressing"), []
    stuck(cluster)
    thread = later(
        lambda: None,
        lambda: cluster.say('canary deployment web.shop not ready: deployment "web" exceeded its progress deadline', "Warning"),
        lambda: cluster.flagger("Failed", "Canary failed! Scaling down web.shop", "Warning"),
    )
    with pytest.raises(DeliveryError) as caught:
        run(cluster, on_stuck="tell", lines=lines)
    thread.join()
    assert caught.value.reason == "ProgressDeadlineExceeded"
    assert any(line.startswith("the pods of web will not become ready: ImagePullBackOff") for line in lines)


def test_a_gate_is_named_when_the_time_is_over_and_can_be_waited_for() -> None:
    cluster = Flagged("WaitingPromotion", image="podinfo:2.0.0")
    cluster.say("Halt web.shop advancement waiting for promotion approval ask", "Warning")
    with pytest.raises(
        DeliveryError, match=r"did not succeed within 0.5 s: .*; open the gate confirm-promotion \(ask\), or give it"
    ) as caught:
        run(cluster, timeout=0.5)
    assert caught.value.reason == "Timeout"
    found = run(cluster, until="waiting")
    assert found["outcome"] == "waiting" and found["gate"]["type"] == "confirm-promotion"


@pytest.mark.parametrize(("meddle", "reason"), [("suspend", "Suspended"), ("drop", "Deleted"), ("delete", "Deleted")])
def test_what_ends_a_release_from_outside_ends_the_wait(meddle: str, reason: str) -> None:
    cluster = Flagged("Progressing", image="podinfo:2.0.0")

    def go() -> None:
        found = cluster.get(CANARY)
        if meddle == "suspend":
            found["spec"]["suspend"] = True
        if meddle == "delete":
            found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        cluster.drop(CANARY) if meddle == "drop" else cluster.put(found)

    thread = later(go)
    with pytest.raises(DeliveryError) as caught:
        run(cluster)
    thread.join()
    assert caught.value.reason == reason


def test_a_new_canary_is_waited_for_until_it_has_its_primary() -> None:
    cluster, lines = Flagged(""), []
    thread = later(lambda: cluster.flagger("Initializing"), lambda: cluster.flagger("Initialized"))
    assert run(cluster, until="initialized", lines=lines)["outcome"] == "initialized"
    thread.join()
    assert lines[0] == "not seen by Flagger yet: waiting for Flagger to make web-primary"


def test_off_is_reached_by_a_failure_and_needs_a_look_of_flagger() -> None:
    cluster = Flagged("Failed")
    thread = later(lambda: None, lambda: cluster.flagger("Failed", lastAppliedSpec="one"))
    started = time.monotonic()
    assert run(cluster, until="off")["outcome"] == "off" and time.monotonic() - started > 0.25
    thread.join()
    assert run(Flagged("Succeeded"), until="off")["outcome"] == "off"
    assert run(Flagged("Waiting"), until="off")["outcome"] == "off"
    cluster = Flagged("Progressing", image="podinfo:2.0.0")
    thread = later(lambda: cluster.flagger("Failed"))
    assert run(cluster, until="off")["outcome"] == "off"
    thread.join()


def test_a_wait_in_slices_is_one() -> None:
    cluster, resume, lines = Flagged(image="podinfo:2.0.0"), None, []
    steps = [
        lambda: cluster.flagger("Progressing", "New revision detected! Scaling up web.shop", lastAppliedSpec="two"),
        lambda: cluster.flagger("Failed", "Canary failed! Scaling down web.shop", "Warning"),
    ]
    with pytest.raises(DeliveryError, match="failed, and Flagger has all traffic on web-primary"):
        for _call in range(9):
            found = run(cluster, slice=0.3, resume=copy.deepcopy(resume))
            resume = found["resume"]
            lines.append(found["progress"])
            if steps:
                steps.pop(0)()
    assert lines[1].startswith("Progressing, weight 0 of 50")
    with pytest.raises(DeliveryError, match="that has been changed"):
        run(cluster, resume={**resume, "memory": {}} | {"memory": {"uid": "x"}})


def test_a_look_waits_for_nothing_and_fails_for_nothing() -> None:
    for phase in ("", "Initializing", "Progressing", "Failed", "Succeeded", "Waiting"):
        found = run(Flagged(phase, image="podinfo:2.0.0"), check=True, revision=99)
        assert found["status"]["phase"] == phase and found["pods"] == []


def test_what_is_not_there_gets_one_sentence() -> None:
    cluster = Flagged()
    with pytest.raises(DeliveryError, match="Canary shop/nope does not exist; Canaries in namespace shop: web"):
        run(cluster, name="nope")
    cluster.drop(TARGET)
    with pytest.raises(
        DeliveryError, match="Canary shop/web releases Deployment shop/web, which does not exist; make it, or correct targetRef"
    ):
        run(cluster)
    with pytest.raises(DeliveryError, match="the cluster does not know the kind Canary; install Flagger with the role flagger"):
        run(FakeCluster())


@pytest.mark.parametrize(
    ("given", "words"),
    [({"timeout": 0}, "timeout must be more"), ({"pickup_timeout": -1}, "pickup_timeout must be 0"), ({"unschedulable_grace": -1}, "0")],
)
def test_numbers_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(DeliveryError, match=words) as caught:
        run(Flagged(), **given)
    assert caught.value.reason == "InvalidRequest"


def test_a_phase_is_told_within_a_fifth_of_a_second() -> None:
    cluster, at = Flagged("Progressing", image="podinfo:2.0.0"), {}

    def go() -> None:
        at["written"] = time.monotonic()
        cluster.flagger("WaitingPromotion")

    thread = later(go, pause=0.5)

    def say(line: str, news: object = None) -> None:
        if line.startswith("WaitingPromotion"):
            at.setdefault("told", time.monotonic())

    options = {key: entry.get("default") for key, entry in argument_spec(wait_canary.OPTIONS).items()}
    with pytest.raises(DeliveryError):
        wait_canary.execute({**options, "namespace": "shop", "name": "web", "timeout": 1.5}, cluster, False, say)
    thread.join()
    assert at["told"] - at["written"] < 0.2


# -- taking a release back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["Progressing", "WaitingPromotion"])
def test_a_release_is_taken_back_once(phase: str) -> None:
    cluster = Flagged(phase, failedChecks=1)
    foreseen = run(cluster, abort_canary, check=True)
    assert cluster.writes == []
    done = run(cluster, abort_canary, wait=False)
    assert foreseen["changed"] and done["changed"] and len(cluster.writes) == 1
    assert (foreseen["before"], foreseen["after"], foreseen["actions"]) == (done["before"], done["after"], done["actions"])
    assert cluster.get(CANARY)["status"]["failedChecks"] == 5 and cluster.get(CANARY)["status"]["lastAppliedSpec"] == "one"
    assert not run(cluster, abort_canary, wait=False)["changed"] and len(cluster.writes) == 1


def test_what_flagger_writes_in_between_is_written_over_again() -> None:
    cluster = Flagged("Progressing")
    thread = later(
        lambda: cluster.flagger(failedChecks=1),
        lambda: None,
        lambda: cluster.flagger("Failed", failedChecks=0),
    )
    found = run(cluster, abort_canary, wait_timeout=5)
    thread.join()
    assert found["status"]["phase"] == "Failed" and len(cluster.writes) == 2


@pytest.mark.parametrize("phase", ["", "Initialized", "Succeeded", "Failed", "Waiting"])
def test_where_nothing_has_traffic_nothing_is_taken_back(phase: str) -> None:
    cluster = Flagged(phase)
    assert not run(cluster, abort_canary)["changed"] and cluster.writes == []


def test_what_is_promoted_is_not_taken_back() -> None:
    with pytest.raises(DeliveryError, match="Canary shop/web is Promoting: its analysis has passed, and web-primary gets the new revision"):
        run(Flagged("Promoting"), abort_canary)


def test_a_flagger_that_does_not_take_it_back_is_told() -> None:
    with pytest.raises(DeliveryError, match="is Progressing still after 0.3 s: Flagger takes a release back only while the pods") as caught:
        run(Flagged("Progressing"), abort_canary, wait_timeout=0.3)
    assert caught.value.reason == "Timeout"


@pytest.mark.parametrize("phase", ["Promoting", "Finalising", "Succeeded"])
def test_a_release_that_flagger_promotes_all_the_same_is_no_success(phase: str) -> None:
    cluster = Flagged("Progressing")
    thread = later(lambda: cluster.flagger(phase, lastPromotedSpec="two"))
    with pytest.raises(DeliveryError, match="was promoted while it was to be taken back") as caught:
        run(cluster, abort_canary, wait_timeout=5)
    thread.join()
    assert caught.value.reason == "Promoted" and caught.value.details["status"]["phase"] == phase


def test_a_release_that_gives_way_to_something_else_is_no_success() -> None:
    cluster = Flagged("Progressing")
    thread = later(lambda: cluster.flagger("Waiting", failedChecks=0, lastAppliedSpec="three"))
    with pytest.raises(DeliveryError, match="is Waiting and not Failed") as caught:
        run(cluster, abort_canary, wait_timeout=5)
    thread.join()
    assert caught.value.reason == "Superseded"


def changed(phase: str, **spec: Any) -> Flagged:
    """Return a cluster whose Canary has something else in its spec."""
    cluster = Flagged(phase)
    found = cluster.get(CANARY)
    cluster.put({**found, "spec": {**found["spec"], **spec}})
    cluster.writes.clear()
    return cluster


def test_a_suspended_canary_is_told_at_once() -> None:
    for check in (True, False):
        cluster = changed("Progressing", suspend=True)
        with pytest.raises(DeliveryError, match="is suspended in phase Progressing.*set its spec.suspend to false") as caught:
            run(cluster, abort_canary, check=check)
        assert caught.value.reason == "Suspended" and cluster.writes == []
    assert not run(changed("Succeeded", suspend=True), abort_canary)["changed"]
    cluster = Flagged("Progressing")

    def suspend() -> None:
        found = cluster.get(CANARY)
        cluster.put({**found, "spec": {**found["spec"], "suspend": True}})

    thread = later(suspend)
    with pytest.raises(DeliveryError, match="was suspended while its release was taken back") as caught:
        run(cluster, abort_canary, wait_timeout=5)
    thread.join()
    assert caught.value.reason == "Suspended"


def test_without_an_analysis_flagger_takes_nothing_back() -> None:
    for spec in ({"skipAnalysis": True}, {"analysis": None}):
        cluster = changed("Progressing", **spec)
        with pytest.raises(DeliveryError, match="has skipAnalysis: Flagger promotes at its next look"):
            run(cluster, abort_canary)
        assert cluster.writes == []
