# SPDX-License-Identifier: GPL-3.0-or-later
"""wait_rollout on a real cluster: each way in which a rollout ends, for each kind, and as soon as it is known."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Ref
from ansible_collections.progressive.delivery.plugins.modules import rollout_info, scale, set_image, wait_rollout
from support.live import Shop

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"
LABELS = {"app": "thing"}


def manifest(kind: str = "Deployment", image: str = "1.0.0", replicas: int = 2, container: Any = None, **spec: Any) -> dict[str, Any]:
    """Return a workload of podinfo."""
    app = {
        "name": "app",
        "image": f"{IMAGE}:{image}",
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1},
        **(container or {}),
    }
    pods = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [app]}}
    found = {"selector": {"matchLabels": LABELS}, "template": pods, **spec}
    if kind != "DaemonSet":
        found["replicas"] = replicas
    if kind == "StatefulSet":
        found["serviceName"] = "thing"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "thing"}, "spec": found}


def wait(shop: Shop, kind: str = "Deployment", timeout: float = 60, **given: Any) -> dict[str, Any]:
    """Run wait_rollout."""
    return shop.step(wait_rollout, kind=kind, name="thing", timeout=timeout, **given)


def patch(shop: Shop, body: dict[str, Any], kind: str = "Deployment") -> None:
    """Change the workload."""
    shop.cluster.patch(Ref(kind, shop.namespace, "thing"), body, MERGE_PATCH)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_a_rollout_is_waited_for_and_has_its_history(empty: Shop, kind: str) -> None:
    empty.create(manifest(kind), wait=False)
    first = wait(empty, kind)
    assert first["status"]["phase"] == "complete", first
    outcome = empty.step(set_image, kind=kind, name="thing", images={"app": f"{IMAGE}:2.0.0"})
    assert outcome["changed"] and outcome["revision"] == 2, outcome
    second = wait(empty, kind, revision=2)
    assert second["status"]["phase"] == "complete", second
    live = [pod for pod in second["pods"] if pod["reason"] != "Terminating"]
    assert live and all(pod["images"]["app"].endswith(":2.0.0") and pod["ready"] for pod in live)
    revisions = empty.step(rollout_info, kind=kind, name="thing")["revisions"]
    assert [(entry["revision"], entry["live"]) for entry in revisions] == [(2, True), (1, False)]


def test_a_partition_is_the_goal_of_a_stateful_set(empty: Shop) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    empty.create(manifest("StatefulSet", updateStrategy=strategy), wait=False)
    assert wait(empty, "StatefulSet")["status"]["phase"] == "complete"
    empty.step(set_image, kind="StatefulSet", name="thing", images={"app": f"{IMAGE}:2.0.0"})
    outcome = wait(empty, "StatefulSet")
    assert "failed" not in outcome, outcome
    assert sorted(pod["images"]["app"] for pod in outcome["pods"]) == [f"{IMAGE}:1.0.0", f"{IMAGE}:2.0.0"]


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_on_delete_says_that_pods_must_be_deleted(empty: Shop, kind: str) -> None:
    empty.create(manifest(kind, updateStrategy={"type": "OnDelete"}), wait=False)
    assert "failed" not in wait(empty, kind)
    empty.step(set_image, kind=kind, name="thing", images={"app": f"{IMAGE}:2.0.0"})
    outcome = wait(empty, kind)
    assert outcome["failed"] and outcome["reason"] == "OnDelete" and "delete its pods" in outcome["msg"]


FATAL = {
    "an image that is not there": (
        {"image": "nope"},
        "ErrImagePull|ImagePullBackOff",
        "container app of pod thing-.*podinfo:nope: not found",
    ),
    "a process that crashes": ({"image": "broken-crash"}, "CrashLoopBackOff", "cannot open database"),
    "a configuration that is not there": (
        {"container": {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "a"}}}]}},
        "CreateContainerConfigError",
        'configmap "nope" not found',
    ),
    "a deadline that passes": (
        {"image": "broken-ready", "progressDeadlineSeconds": 3},
        "ProgressDeadlineExceeded",
        "has timed out progressing",
    ),
}


@pytest.mark.parametrize(("given", "reason", "words"), FATAL.values(), ids=FATAL)
def test_a_rollout_without_hope_ends_the_wait_at_once(empty: Shop, given: dict[str, Any], reason: str, words: str) -> None:
    empty.create(manifest(**given), wait=False)
    started = time.monotonic()
    outcome = wait(empty, timeout=90)
    assert outcome["failed"] and re.fullmatch(reason, outcome["reason"]), outcome
    assert re.search(words, outcome["msg"]), outcome["msg"]
    assert time.monotonic() - started < 45
    assert outcome["status"]["wanted"] == 2 and outcome["pods"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_a_quota_that_refuses_pods_is_named(empty: Shop, kind: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": {"pods": "0"}}}
    empty.create(quota)
    time.sleep(0.5)
    empty.create(manifest(kind), wait=False)
    outcome = wait(empty, kind, timeout=30)
    assert outcome["failed"] and outcome["reason"] == "FailedCreate", outcome
    assert "exceeded quota: small" in outcome["msg"]


def test_a_pod_that_fits_nowhere_is_named_after_a_grace(empty: Shop) -> None:
    empty.create(manifest(replicas=1, container={"resources": {"requests": {"cpu": "500"}}}), wait=False)
    outcome = wait(empty, timeout=60)
    assert outcome["failed"] and outcome["reason"] == "Unschedulable" and "Insufficient cpu" in outcome["msg"], outcome


def test_a_timeout_gives_the_last_status(empty: Shop) -> None:
    empty.create(manifest(image="broken-ready"), wait=False)
    outcome = wait(empty, timeout=4)
    assert outcome["failed"] and outcome["reason"] == "Timeout"
    assert "did not complete its rollout within 4 s: 2 of 2 updated, 0 ready" in outcome["msg"], outcome["msg"]
    assert [pod["ready"] for pod in outcome["pods"]] == [False, False]


def test_paused_scaled_to_zero_surge_zero_and_vanished_are_told_apart(empty: Shop) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    empty.create(manifest(strategy=strategy), wait=False)
    assert wait(empty)["status"]["phase"] == "complete"
    patch(empty, {"spec": {"paused": True}})
    empty.step(set_image, name="thing", images={"app": f"{IMAGE}:2.0.0"})
    paused = wait(empty)
    assert paused["failed"] and paused["reason"] == "Paused" and "resume it" in paused["msg"], paused
    patch(empty, {"spec": {"paused": False}})
    assert wait(empty)["status"]["updated"] == 2
    empty.step(scale, name="thing", replicas=0)
    assert wait(empty)["status"]["phase"] == "scaled_to_zero"
    empty.step(set_image, name="thing", images={"app": f"{IMAGE}:broken-ready"})
    empty.step(scale, name="thing", replicas=1)
    threading.Timer(2, lambda: empty.cluster.delete(Ref("Deployment", empty.namespace, "thing"))).start()
    gone = wait(empty)
    assert gone["failed"] and gone["reason"] == "Deleted", gone


def test_a_change_by_somebody_else_is_told_to_who_waits_for_a_revision(empty: Shop) -> None:
    empty.create(manifest(), wait=False)
    wait(empty)
    mine = empty.step(set_image, name="thing", images={"app": f"{IMAGE}:broken-ready"})["revision"]
    threading.Timer(1.5, lambda: empty.step(set_image, name="thing", images={"app": f"{IMAGE}:3.0.0"})).start()
    outcome = wait(empty, revision=mine)
    assert outcome["failed"] and outcome["reason"] == "Superseded" and "somebody else changed it" in outcome["msg"], outcome


def test_the_revision_that_set_image_tells_is_the_one_that_the_controller_gives(empty: Shop) -> None:
    empty.create(manifest(replicas=1), wait=False)
    wait(empty)
    told = []
    for pause, image in [(1, "2.0.0"), (1, "1.0.0"), (0, "2.0.0"), (0, "3.0.0"), (1, "1.0.0")]:
        told.append(empty.step(set_image, name="thing", images={"app": f"{IMAGE}:{image}"})["revision"])
        time.sleep(pause)
    assert told[0] == 2 and told == sorted(set(told)), told
    assert "failed" not in wait(empty, revision=told[-1])
    assert empty.step(rollout_info, name="thing")["revision"] == told[-1]
