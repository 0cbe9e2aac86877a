# SPDX-License-Identifier: GPL-3.0-or-later
"""wait_rollout on a real cluster: a table of what can happen to a rollout, and what the step says of it, as soon as it is known."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Ref
from ansible_collections.progressive.delivery.plugins.modules import rollout_info, scale, set_image, wait_rollout
from support.live import Shop

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"
LABELS = {"app": "thing"}
TIMEOUT = 120.0


def manifest(
    kind: str = "Deployment", image: str = "1.0.0", replicas: int = 2, container: Any = None, pod: Any = None, **spec: Any
) -> dict[str, Any]:
    """Return a workload of podinfo."""
    app = {
        "name": "app",
        "image": f"{IMAGE}:{image}",
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1},
        **(container or {}),
    }
    template = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [app], **(pod or {})}}
    found = {"selector": {"matchLabels": LABELS}, "template": template, **spec}
    if kind != "DaemonSet":
        found["replicas"] = replicas
    if kind == "StatefulSet":
        found["serviceName"] = "thing"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "thing"}, "spec": found}


# -- what a row does ------------------------------------------------------------------------------------------------

Act = Callable[[Shop], object]


def made(complete: bool = True, **given: Any) -> Act:
    """Make the workload, and let its first rollout be complete."""

    def act(shop: Shop) -> None:
        made_now = manifest(**given)
        shop.create(made_now, wait=False)
        if complete:
            outcome = shop.step(wait_rollout, kind=made_now["kind"], name="thing", timeout=TIMEOUT)
            assert "failed" not in outcome, outcome

    return act


def image(tag: str, kind: str = "Deployment") -> Act:
    """Set an image."""
    return lambda shop: shop.step(set_image, kind=kind, name="thing", images={"app": f"{IMAGE}:{tag}"})


def patched(body: dict[str, Any], kind: str = "Deployment") -> Act:
    """Change the workload."""
    return lambda shop: shop.cluster.patch(Ref(kind, shop.namespace, "thing"), {"spec": body}, MERGE_PATCH)


def replicas(count: int) -> Act:
    """Scale it."""
    return lambda shop: shop.step(scale, name="thing", replicas=count)


def quota(pods: int) -> Act:
    """Allow so many pods."""

    def act(shop: Shop) -> None:
        shop.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": {"pods": str(pods)}}})
        deadline = time.monotonic() + 20
        while "hard" not in shop.get("ResourceQuota", "small").get("status", {}) and time.monotonic() < deadline:
            time.sleep(0.1)

    return act


def autoscaler(low: int, high: int) -> Act:
    """Let an autoscaler keep it within limits; its controller holds to the lower one without any metrics, some 15 s later."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "thing"}
    spec = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high}
    kind = "HorizontalPodAutoscaler"
    return lambda shop: shop.create({"apiVersion": "autoscaling/v2", "kind": kind, "metadata": {"name": "thing"}, "spec": spec})


def deleted(again: bool = False) -> Act:
    """Delete the workload, and perhaps make another one of its name."""

    def act(shop: Shop) -> None:
        shop.cluster.delete(Ref("Deployment", shop.namespace, "thing"))
        if again:
            time.sleep(0.5)
            shop.create(manifest(), wait=False)

    return act


@dataclass(frozen=True)
class Row:
    """What is done before the wait, and 1.5 s after its begin; how it must end, by when, and what its sentence says."""

    before: list[Act]
    ends: str
    words: str = ""
    meanwhile: list[Act] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    kind: str = "Deployment"
    status: dict[str, int] = field(default_factory=dict)
    within: float = 45.0


def row(before: list[Act], ends: str, words: str = "", **more: Any) -> Row:
    """Return a row of the table."""
    return Row(before, ends, words, **more)


NO_SURGE = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}
SURGE = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}
SLOW = {**SURGE, "minReadySeconds": 4}
SLOWER = {**SURGE, "minReadySeconds": 8}
NO_MAP = {"container": {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "a"}}}]}}
TOO_BIG = {"container": {"resources": {"requests": {"cpu": "500"}}}, "replicas": 1}
ON_DELETE = {"updateStrategy": {"type": "OnDelete"}}
PARTITION = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
MINE = {"revision": 2}
CHECK_IMAGE = "check the image's name and tag, the registry and the pull secret"

# fmt: off
TABLE: dict[str, Row] = {
    # how it should be
    "a new image": row([made(), image("2.0.0")], "complete", status={"updated": 2, "available": 2, "replicas": 2}),
    "run twice": row([made()], "complete", within=3),
    "surge 0": row([made(**NO_SURGE), image("2.0.0")], "complete", status={"updated": 2, "available": 2, "replicas": 2}),
    "scaled to 0": row([made(), replicas(0)], "scaled_to_zero", status={"wanted": 0, "replicas": 0}),
    "a StatefulSet's partition": row([made(kind="StatefulSet", **PARTITION), image("2.0.0", "StatefulSet")], "complete",
                                     kind="StatefulSet", status={"updated": 1, "available": 2}),
    # what only somebody else can end
    "paused": row([made(), patched({"paused": True}), image("2.0.0")], "Paused", "0 of 2 pods updated; resume it", within=5),
    "paused while waiting": row([made(**SLOW), image("2.0.0")], "Paused", "1 of 2 pods updated; resume it",
                                meanwhile=[patched({"paused": True})], within=10),
    "OnDelete, StatefulSet": row([made(kind="StatefulSet", **ON_DELETE), image("2.0.0", "StatefulSet")], "OnDelete",
                                 "0 of 2 pods updated.*delete its pods to go on", kind="StatefulSet", within=5),
    "OnDelete, DaemonSet": row([made(kind="DaemonSet", **ON_DELETE), image("2.0.0", "DaemonSet")], "OnDelete",
                               "0 of 1 pod updated.*delete its pods to go on", kind="DaemonSet", within=5),
    # what cannot succeed
    "quota, at first": row([quota(0), made(complete=False)], "FailedCreate", "exceeded quota: small.*raise the quota"),
    "quota, the surge": row([made(**SURGE), quota(2), image("2.0.0")], "FailedCreate", "exceeded quota: small.*raise the quota",
                            status={"updated": 0, "available": 2}),
    "quota, StatefulSet": row([quota(0), made(kind="StatefulSet", complete=False)], "FailedCreate",
                              "exceeded quota: small.*raise the quota", kind="StatefulSet"),
    "quota, DaemonSet": row([quota(0), made(kind="DaemonSet", complete=False)], "FailedCreate",
                            "exceeded quota: small.*raise the quota", kind="DaemonSet"),
    "image missing": row([made(), image("nope")], "ErrImagePull|ImagePullBackOff",
                         f"container app of pod thing-.*podinfo:nope: not found.*{CHECK_IMAGE}",
                         status={"available": 2}),
    "crash loop": row([made(), image("broken-crash")], "CrashLoopBackOff",
                      'container app of pod thing-.*last words: "cannot open database.*correct what its log tells of',
                      status={"available": 2}),
    "ConfigMap missing": row([made(complete=False, **NO_MAP)], "CreateContainerConfigError",
                             'configmap "nope" not found.*make what it refers to'),
    "never ready": row([made(), patched({"progressDeadlineSeconds": 3}), image("broken-ready")], "ProgressDeadlineExceeded",
                       "has timed out progressing.*see why its pods are not ready and go back", status={"available": 2, "ready": 2}),
    "never ready, no deadline yet": row([made(), image("broken-ready")], "Timeout",
                                        "did not complete its rollout within 4 s: 1 of 2 updated, 2 ready.*give it more time",
                                        given={"timeout": 4}, within=8),
    "fits nowhere": row([made(complete=False, **TOO_BIG)], "Unschedulable", "pod thing-.*Insufficient cpu.*add nodes or lower what",
                        given={"unschedulable_grace": 3}, within=15),
    # what others do meanwhile
    "deleted while waiting": row([made(), image("broken-ready")], "Deleted", "was deleted while.*deploy it again",
                                 meanwhile=[deleted()], within=8),
    "deleted and made again": row([made(), image("broken-ready")], "Deleted", "was deleted while.*deploy it again",
                                  meanwhile=[deleted(again=True)], within=8),
    "another template, my revision": row([made(), image("broken-ready")], "Superseded", "not at 2.*somebody else changed it; wait without",
                                         meanwhile=[image("3.0.0")], given=MINE, within=8),
    "another template, no revision": row([made(), image("broken-ready")], "complete", meanwhile=[image("3.0.0")], status={"updated": 2}),
    "other replicas, my revision": row([made(**SLOW), image("2.0.0")], "complete", meanwhile=[replicas(3)], given=MINE,
                                       status={"wanted": 3, "updated": 3}),
    "scaled by an autoscaler": row([made(**SLOWER), autoscaler(4, 6), image("2.0.0")], "complete", given=MINE,
                                   status={"wanted": 4, "updated": 4, "available": 4}, within=90),
    # so many pods
    "min_updated": row([made(**SLOW), image("2.0.0")], "progressing", given={"min_updated": 1, **MINE},
                       status={"wanted": 2, "updated": 1}, within=6),
    "min_ready": row([made(**SLOW), image("2.0.0")], "progressing", given={"min_ready": 1}, status={"updated": 1}, within=20),
    "min_ready, paused": row([made(**SLOW), image("2.0.0"), patched({"paused": True})], "paused", given={"min_ready": 1},
                             status={"updated": 1}, within=20),
    "min_updated, paused before": row([made(), patched({"paused": True}), image("2.0.0")], "Paused",
                                      "is to have 1 pod of its newest revision; resume it", given={"min_updated": 1}, within=5),
    "min_ready, image missing": row([made(), image("nope")], "ErrImagePull|ImagePullBackOff", CHECK_IMAGE, given={"min_ready": 1}),
    "min_updated, too many": row([made()], "InvalidRequest", "asks for 2 pods; use 2 or less", given={"min_updated": 3}, within=3),
    "min_updated, past a partition": row([made(kind="StatefulSet", **PARTITION), image("2.0.0", "StatefulSet")], "InvalidRequest",
                                         "its partition lets 1 be of the newest", kind="StatefulSet", given={"min_updated": 2}, within=5),
}
# fmt: on


Ended = tuple[str, dict[str, Any], float]


def wait_for(kubeconfig: str, case: Row) -> Ended:
    """Do what a row says in a namespace of its own; return the namespace, what the wait reported, and how long it took."""
    with Shop(kubeconfig) as shop:
        for act in case.before:
            act(shop)
        meanwhile = threading.Timer(1.5, lambda: [act(shop) for act in case.meanwhile])
        meanwhile.start()
        started = time.monotonic()
        found = shop.step(wait_rollout, kind=case.kind, name="thing", **{"timeout": TIMEOUT, **case.given})
        took = time.monotonic() - started
        meanwhile.join()
        return shop.namespace, found, took


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, kubeconfig: str) -> Iterator[dict[str, Future[Ended]]]:
    """Return the rows that were asked for; they run side by side, since most of them wait most of the time."""
    names = [item.callspec.params["name"] for item in request.session.items if getattr(item, "originalname", "") == "test_what_a_wait_says"]
    with ThreadPoolExecutor(4) as pool:
        yield {name: pool.submit(wait_for, kubeconfig, TABLE[name]) for name in names}


# Together, since the rows that are asked for are asked of the worker that runs them, and no other one is to run them too.
@pytest.mark.xdist_group("waits")
@pytest.mark.parametrize("name", TABLE)
def test_what_a_wait_says(ended: dict[str, Future[Ended]], kubeconfig: str, name: str) -> None:
    case, told = TABLE[name], ended.pop(name, None)
    # Where the test is tried once more, so is the row.
    namespace, found, took = told.result() if told else wait_for(kubeconfig, case)
    if found.get("failed"):
        assert re.fullmatch(case.ends, found["reason"]), found
        assert f"{case.kind} {namespace}/thing " in found["msg"] and re.search(case.words, found["msg"]), found["msg"]
        assert "\n" not in found["msg"]
    else:
        assert found["status"]["phase"] == case.ends and not case.words, found
    assert took < case.within, f"it took {took:.1f} s"
    assert {key: found["status"][key] for key in case.status} == case.status, found["status"]
    assert set(found) >= {"status", "pods", "downtime", "availability", "duration"}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_a_rollout_is_waited_for_and_has_its_history(empty: Shop, kind: str) -> None:
    made(kind=kind)(empty)
    outcome = empty.step(set_image, kind=kind, name="thing", images={"app": f"{IMAGE}:2.0.0"})
    assert outcome["changed"] and outcome["revision"] == 2, outcome
    second = empty.step(wait_rollout, kind=kind, name="thing", timeout=TIMEOUT, revision=2)
    assert second["status"]["phase"] == "complete", second
    live = [pod for pod in second["pods"] if pod["reason"] != "Terminating"]
    assert live and all(pod["images"]["app"].endswith(":2.0.0") and pod["ready"] for pod in live)
    revisions = empty.step(rollout_info, kind=kind, name="thing")["revisions"]
    assert [(entry["revision"], entry["live"]) for entry in revisions] == [(2, True), (1, False)]


def test_the_revision_that_set_image_tells_is_the_one_that_the_controller_gives(empty: Shop) -> None:
    made(replicas=1)(empty)
    told = []
    for pause, tag in [(1, "2.0.0"), (1, "1.0.0"), (0, "2.0.0"), (0, "3.0.0"), (1, "1.0.0")]:
        told.append(empty.step(set_image, name="thing", images={"app": f"{IMAGE}:{tag}"})["revision"])
        time.sleep(pause)
    assert told[0] == 2 and told == sorted(set(told)), told
    assert "failed" not in empty.step(wait_rollout, name="thing", timeout=TIMEOUT, revision=told[-1])
    assert empty.step(rollout_info, name="thing")["revision"] == told[-1]


def test_one_new_pod_is_held_there_and_then_waited_for(empty: Shop) -> None:
    made(replicas=3, **SURGE)(empty)
    mine = empty.step(set_image, name="thing", images={"app": f"{IMAGE}:2.0.0"})["revision"]
    assert "failed" not in empty.step(wait_rollout, name="thing", timeout=TIMEOUT, revision=mine, min_updated=1)
    patched({"paused": True})(empty)
    found = empty.step(wait_rollout, name="thing", timeout=TIMEOUT, revision=mine, min_ready=1)
    assert "failed" not in found and found["availability"]["least"] == 3 and found["downtime"] == 0.0, found
    time.sleep(2)
    status = empty.step(rollout_info, name="thing")["status"]
    assert (status["phase"], status["updated"], status["replicas"]) == ("paused", 1, 4), status


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_how_available_it_was_is_told(empty: Shop, kind: str) -> None:
    """A Deployment that is recreated has no pod for a while; a StatefulSet of two always has one."""
    made(kind=kind, **({"strategy": {"type": "Recreate"}} if kind == "Deployment" else {}))(empty)
    image("2.0.0", kind)(empty)
    found = empty.step(wait_rollout, kind=kind, name="thing", timeout=TIMEOUT)
    if kind == "Deployment":
        assert 0.5 < found["downtime"] < found["duration"] and found["availability"] == {"least": 0}, found
    else:
        assert found["downtime"] == 0.0 and found["availability"] == {"least": 1}, found


@pytest.mark.parametrize("spec", [{"strategy": {"type": "Recreate", "rollingUpdate": None}}, {"paused": True}], ids=["Recreate", "paused"])
def test_an_image_taken_back_before_it_was_begun_is_the_revision_before(empty: Shop, spec: dict[str, Any]) -> None:
    """While pods of the one before are left, and while paused, no ReplicaSet is made: there is no revision 2 to go back from."""
    slow = {"lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}
    made(container=slow, pod={"terminationGracePeriodSeconds": 9})(empty)
    patched(spec)(empty)

    def released(tag: str, **given: Any) -> int:
        return empty.step(set_image, name="thing", images={"app": f"{IMAGE}:{tag}"}, **given)["revision"]

    assert released("2.0.0", check=True) == released("2.0.0") == released("2.0.0") == 2
    assert released("1.0.0", check=True) == released("1.0.0") == released("1.0.0") == 1
    found = empty.step(wait_rollout, name="thing", timeout=TIMEOUT, revision=1)
    assert "failed" not in found, found
    assert released("3.0.0", check=True) == released("3.0.0") == 2
    patched({"paused": False})(empty)
    found = empty.step(wait_rollout, name="thing", timeout=TIMEOUT, revision=2)
    assert "failed" not in found and released("3.0.0") == 2, found
