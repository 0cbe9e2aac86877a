# SPDX-License-Identifier: GPL-3.0-or-later
"""What the observed state of a workload means."""

from __future__ import annotations

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.plan.revisions import history
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import (
    label_query,
    live_hash,
    next_revision,
    pod_trouble,
    rollout_status,
    workload_trouble,
)
from support.objects import deployment, pod, replica_set

CASES = {
    "complete": ({}, {}, "complete"),
    "controller has not seen it": ({}, {"observedGeneration": 1}, "progressing"),
    "too few updated": ({}, {"updatedReplicas": 1}, "progressing"),
    "old pods left": ({}, {"replicas": 4}, "progressing"),
    "not ready": ({}, {"readyReplicas": 2}, "progressing"),
    "ready but not available": ({}, {"availableReplicas": 2}, "progressing"),
    "surge 0: all available ones are old": ({}, {"updatedReplicas": 0}, "progressing"),
    "paused in the middle": ({"paused": True}, {"updatedReplicas": 1}, "paused"),
    "paused with old pods": ({"paused": True}, {"replicas": 4}, "paused"),
    "paused after it was done": ({"paused": True}, {}, "complete"),
}


@pytest.mark.parametrize(("spec", "status", "phase"), CASES.values(), ids=CASES)
def test_phase_of_a_deployment(spec: dict, status: dict, phase: str) -> None:
    workload = deployment()
    workload["status"].update(status)
    workload["spec"].update(spec)
    assert rollout_status(workload).phase == phase


def test_scaled_to_zero_is_told_apart_from_complete() -> None:
    assert rollout_status(deployment(replicas=0)).phase == "scaled_to_zero"
    assert rollout_status(deployment(replicas=0) | {"status": {"observedGeneration": 2, "replicas": 2}}).done is False


def test_progress_deadline_is_a_failure_unless_a_newer_spec_waits() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    workload = deployment(updatedReplicas=1, conditions=[late])
    assert rollout_status(workload).phase == "failed"
    assert workload_trouble(workload).reason == "ProgressDeadlineExceeded"
    workload["metadata"]["generation"] = 3
    assert rollout_status(workload).phase == "progressing"
    assert workload_trouble(workload) is None


def test_a_refused_pod_is_trouble_with_the_servers_words() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    trouble = workload_trouble(deployment(updatedReplicas=1, conditions=[refused]))
    assert (trouble.reason, trouble.message) == ("FailedCreate", "exceeded quota: small")


@pytest.mark.parametrize(
    ("strategy", "status", "phase"),
    [
        ({}, {"updatedReplicas": 3, "updateRevision": "b", "currentRevision": "b"}, "complete"),
        ({"rollingUpdate": {"partition": 2}}, {"updatedReplicas": 1, "updateRevision": "b", "currentRevision": "a"}, "complete"),
        ({"rollingUpdate": {"partition": 1}}, {"updatedReplicas": 1, "updateRevision": "b", "currentRevision": "a"}, "progressing"),
        ({"type": "OnDelete"}, {"updatedReplicas": 1, "updateRevision": "b", "currentRevision": "a"}, "on_delete"),
        ({}, {"updatedReplicas": 3, "readyReplicas": 2, "updateRevision": "b", "currentRevision": "b"}, "progressing"),
        # Taken back in the middle of its rollout.
        ({}, {"updatedReplicas": 1, "updateRevision": "a", "currentRevision": "a"}, "progressing"),
        ({"rollingUpdate": {"partition": 2}}, {"updatedReplicas": 2, "updateRevision": "a", "currentRevision": "a"}, "progressing"),
    ],
)
def test_phase_of_a_stateful_set(strategy: dict, status: dict, phase: str) -> None:
    workload = deployment(**status) | {"kind": "StatefulSet"}
    workload["spec"]["updateStrategy"] = strategy
    assert rollout_status(workload).phase == phase


@pytest.mark.parametrize(
    ("strategy", "there", "updated", "available", "phase"),
    [
        ({}, 2, 2, 2, "complete"),
        ({}, 2, 1, 2, "progressing"),
        ({}, 2, 2, 1, "progressing"),
        ({"type": "OnDelete"}, 2, 1, 2, "on_delete"),
        # One that was just made: its pods are not there yet, and nobody need delete any.
        ({"type": "OnDelete"}, 0, 0, 0, "progressing"),
    ],
)
def test_phase_of_a_daemon_set(strategy: dict, there: int, updated: int, available: int, phase: str) -> None:
    workload = {"kind": "DaemonSet", "metadata": {"generation": 1}, "spec": {"updateStrategy": strategy}}
    workload["status"] = {
        "observedGeneration": 1,
        "desiredNumberScheduled": 2,
        "currentNumberScheduled": there,
        "numberReady": 2,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
    }
    assert rollout_status(workload).phase == phase


@pytest.mark.parametrize(
    "reason", ["ImagePullBackOff", "ErrImagePull", "CrashLoopBackOff", "CreateContainerConfigError", "InvalidImageName"]
)
def test_a_container_that_cannot_start_is_trouble(reason: str) -> None:
    waiting = {"state": {"waiting": {"reason": reason, "message": "because"}}}
    trouble = pod_trouble([pod("web-1", {}), pod("web-2", {}, ready=False, **waiting)])
    assert (trouble.reason, trouble.pod, trouble.container) == (reason, "web-2", "app")


def test_a_container_that_is_being_made_is_no_trouble() -> None:
    assert pod_trouble([pod("web-1", {}, ready=False, state={"waiting": {"reason": "ContainerCreating"}})]) is None


def test_revisions_are_found_by_owner_and_not_by_label() -> None:
    mine = deployment()
    other = deployment("other")
    sets = [replica_set(mine, 1, "a", "podinfo:1"), replica_set(mine, 2, "b", "podinfo:1.0.0"), replica_set(other, 2, "x", "evil:1")]
    assert live_hash(mine, sets) == "b"
    assert [(entry["revision"], entry["live"]) for entry in history(mine, sets)] == [(2, True), (1, False)]


def test_selector_expressions_become_a_query() -> None:
    workload = deployment()
    workload["spec"]["selector"]["matchExpressions"] = [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    assert label_query(workload) == "app=web,tier in (a,b),!old"


@pytest.mark.parametrize(
    ("observed", "image", "kind", "revision"),
    [
        (2, "podinfo:2.0.0", "Deployment", 3),
        (2, "podinfo:1.0.0", "Deployment", None),
        (1, "podinfo:2.0.0", "Deployment", None),
        (2, "podinfo:2.0.0", "StatefulSet", None),
    ],
    ids=["a new template", "the same template", "the controller is behind", "another kind"],
)
def test_the_next_revision_is_known_before_the_controller_has_it(observed: int, image: str, kind: str, revision: int | None) -> None:
    before, after = deployment(observedGeneration=observed), deployment(image=image)
    before["kind"] = kind
    assert next_revision(before, after) == revision


@pytest.mark.parametrize("spec", [{"strategy": {"type": "Recreate"}}, {"paused": True}], ids=["Recreate", "paused"])
def test_the_next_revision_is_not_known_where_the_one_before_may_never_be_made(spec: dict) -> None:
    before, after = deployment(), deployment(image="podinfo:2.0.0")
    before["spec"].update(spec)
    assert next_revision(before, after) is None


def test_what_a_rollout_before_has_left_is_no_trouble() -> None:
    owner = deployment(updatedReplicas=1)
    sets = [replica_set(owner, 1, "a", "podinfo:0"), replica_set(owner, 2, "b", "podinfo:1.0.0")]
    for name, reason in (("web-a", None), ("web-b", "ProgressDeadlineExceeded")):
        message = f'ReplicaSet "{name}" has timed out progressing.'
        late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": message}
        owner["status"]["conditions"] = [late]
        trouble = workload_trouble(owner, (), sets)
        assert (trouble and trouble.reason) == reason


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        ([("FailedCreate", "2026-01-01T10:00:05Z")], True),
        ([("FailedCreate", "2026-01-01T09:00:00Z")], False),
        ([("FailedCreate", "2026-01-01T10:00:05Z"), ("SuccessfulCreate", "2026-01-01T10:00:09Z")], False),
        ([("SuccessfulCreate", "2026-01-01T10:00:05Z"), ("FailedCreate", "2026-01-01T10:00:09Z")], True),
    ],
    ids=["now", "of a revision before", "and then it went well", "and now no more"],
)
def test_a_refused_pod_of_a_stateful_set_counts_while_it_is_the_last_word(events: list[tuple[str, str]], refused: bool) -> None:
    owner = {**deployment(), "kind": "StatefulSet"}
    revision = {
        "metadata": {
            "name": "web-1",
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "ownerReferences": [{"controller": True, "uid": "uid-web"}],
        },
        "revision": 1,
    }
    about = {"kind": "StatefulSet", "uid": "uid-web"}
    told = [{"reason": reason, "lastTimestamp": time, "message": "no", "involvedObject": about} for reason, time in events]
    assert bool(workload_trouble(owner, told, [revision])) is refused


def test_the_live_replica_set_is_known_by_its_template_and_not_by_a_number_that_comes_later() -> None:
    owner = deployment(image="podinfo:1.0.0")
    owner["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2"
    back_to = replica_set(owner, 3, "a", "podinfo:1.0.0")
    left = replica_set(owner, 2, "b", "podinfo:bad")
    assert live_hash(owner, [left, back_to]) == "a"
