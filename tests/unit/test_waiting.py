# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for so many pods, in several calls, and what they tell of availability; the fake cluster, with nothing that acts on it."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import waiting
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, Forbidden, Unavailable
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.availability import Availability
from ansible_collections.progressive.delivery.plugins.module_utils.plan.goal import Goal
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import rollout_status
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.module_utils.turns import Turn
from ansible_collections.progressive.delivery.plugins.module_utils.watching import Stream
from ansible_collections.progressive.delivery.plugins.modules import observe_workload, wait_rollout
from support.fake import FakeCluster
from support.objects import deployment, pod, replica_set

WEB = Ref("Deployment", "shop", "web")
NEW, OLD = {"app": "web", "pod-template-hash": "new"}, {"app": "web", "pod-template-hash": "old"}


def run(cluster: FakeCluster, step: Any = wait_rollout, check: bool = False, **given: Any) -> dict[str, Any]:
    """Run a step on the Deployment web and return what it reports."""
    spec = argument_spec(step.OPTIONS)
    options = {key: entry.get("default") for key, entry in spec.items()}
    return dict(step.execute({**options, "namespace": "shop", "name": "web", "timeout": 10, **given}, cluster, check).extra)


class Shop(FakeCluster):
    """A Deployment in the midst of a rollout: two old pods, and as many new ones as a test makes."""

    def __init__(self, updated: int = 0, replicas: int = 3, **spec: Any) -> None:
        workload = deployment(updatedReplicas=updated, replicas=replicas)
        workload["spec"].update(spec)
        super().__init__(workload)
        self.new = self.put(replica_set(workload, 2, "new", "podinfo:1.0.0"))
        self.old = self.put(replica_set(workload, 1, "old", "podinfo:0.9.0"))
        for number in range(updated):
            self.add(f"new-{number}", ready=False)

    def add(self, name: str, ready: bool = True, **more: Any) -> None:
        """Make a pod, or change it; its name says of which revision it is."""
        is_new = name.startswith("new")
        self.put(pod(name, NEW if is_new else OLD, ready, owner=self.new if is_new else self.old, **more))

    def set(self, spec: dict[str, Any] | None = None, **status: Any) -> None:
        """Change the Deployment as its controller and its owners do."""
        workload = self.get(WEB)
        workload["spec"].update(spec or {})
        workload["status"].update(status)
        self.put(workload)


def later(*steps: Callable[[], object], pause: float = 0.2) -> threading.Thread:
    """Do things one after another in another thread."""

    def go() -> None:
        for step in steps:
            time.sleep(pause)
            step()

    thread = threading.Thread(target=go)
    thread.start()
    return thread


# -- so many pods ---------------------------------------------------------------------------------------------------


def test_min_updated_returns_at_the_event_that_counts_the_pod() -> None:
    cluster = Shop()
    thread = later(lambda: cluster.set(updatedReplicas=1), lambda: cluster.set(updatedReplicas=2), pause=0.3)
    found = run(cluster, min_updated=1)
    assert found["status"]["updated"] == 1 and found["status"]["phase"] == "progressing"
    thread.join()


def test_min_ready_goes_on_while_the_rollout_is_paused() -> None:
    cluster = Shop(updated=1, paused=True)
    thread = later(lambda: cluster.add("new-0"))
    found = run(cluster, min_ready=1)
    assert found["status"]["phase"] == "paused" and [entry["ready"] for entry in found["pods"]] == [True]
    thread.join()


def test_a_ready_pod_of_the_old_revision_is_not_one_of_the_new() -> None:
    cluster = Shop(updated=1)
    cluster.add("old-0")
    with pytest.raises(DeliveryError, match="did not have 1 ready pod of its newest revision within 0.5 s: 1 of 3 updated") as caught:
        run(cluster, min_ready=1, timeout=0.5)
    assert caught.value.reason == "Timeout"


def test_a_pause_with_too_few_pods_is_told_at_once() -> None:
    cluster = Shop(updated=1, paused=True)
    words = r"is paused with 1 of 3 pods updated, and is to have 2 ready pods of its newest revision; resume it"
    with pytest.raises(DeliveryError, match=words) as caught:
        run(cluster, min_ready=2)
    assert caught.value.reason == "Paused"


def test_pods_that_a_paused_rollout_has_begun_are_waited_for() -> None:
    cluster = Shop(updated=1, paused=True)
    cluster.new["spec"]["replicas"] = 2
    cluster.put(cluster.new)
    thread = later(lambda: cluster.set(updatedReplicas=2))
    assert run(cluster, min_updated=2)["status"]["updated"] == 2
    thread.join()


def test_trouble_ends_a_wait_for_so_many_pods_too() -> None:
    cluster = Shop(updated=1)
    cluster.add("new-0", ready=False, state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})
    with pytest.raises(DeliveryError, match="ImagePullBackOff in container app of pod new-0: not found; check the image's name") as caught:
        run(cluster, min_ready=1)
    assert caught.value.details["downtime"] is not None and caught.value.details["availability"] == {"least": 0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"min_updated": -1}, "min_updated must be 0 or more, got -1"),
        ({"min_ready": -2}, "min_ready must be 0 or more, got -2"),
        ({"min_updated": 4}, "min_updated is 4, but Deployment shop/web asks for 3 pods; use 3 or less"),
        ({"min_ready": 9}, "min_ready is 9, but Deployment shop/web asks for 3 pods; use 3 or less"),
        ({"slice": -1}, "slice must be 0 seconds"),
        ({"resume": {"what": "wait_rollout of Deployment shop/other"}}, 'that is "wait_rollout of Deployment shop/other"'),
        ({"resume": {"a": 1}}, "and that is something else; leave it out to begin a wait"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_numbers_that_cannot_be_get_one_sentence(given: dict[str, Any], words: str, check: bool) -> None:
    with pytest.raises(DeliveryError) as caught:
        run(Shop(), check=check, **given)
    assert words in caught.value.message and "\n" not in caught.value.message and caught.value.reason == "InvalidRequest"


def test_a_partition_limits_how_many_pods_can_be_waited_for() -> None:
    workload = {**deployment(updateRevision="b", currentRevision="a"), "kind": "StatefulSet"}
    workload["spec"]["updateStrategy"] = {"rollingUpdate": {"partition": 2}}
    ref = Ref("StatefulSet", "shop", "web")
    Goal(min_updated=1).check(ref, workload, rollout_status(workload))
    with pytest.raises(DeliveryError, match="of which its partition lets 1 be of the newest revision; use 1 or less"):
        Goal(min_updated=2).check(ref, workload, rollout_status(workload))


def test_a_goal_that_holds_already_is_met_at_the_first_look() -> None:
    assert run(FakeCluster(deployment()), min_updated=3, min_ready=3)["status"]["phase"] == "complete"
    assert run(Shop(updated=2), min_updated=2)["pods"] == []


# -- availability ---------------------------------------------------------------------------------------------------

UP, ENDING = ("True", False), ("True", True)
GONE = ("False", True)
# {name: ([(time, wanted, available by the status, {pods: (ready, ending)}), ...], downtime, least)}
LOOKS: dict[str, tuple[list[tuple[float, int, int, Any]], Any, int]] = {
    "always one": ([(0, 3, 3, None), (1, 3, 2, [UP, UP]), (5, 3, 3, [UP] * 3)], 0.0, 2),
    "recreated": ([(0, 2, 2, None), (1, 2, 0, []), (3.5, 2, 0, [UP]), (4, 2, 2, [UP, UP])], 2.5, 0),
    "one that ends still serves": ([(0, 1, 1, [UP]), (1, 1, 0, [ENDING]), (3, 1, 0, [GONE]), (4, 1, 1, [UP])], 1.0, 0),
    "down to the end": ([(0, 1, 1, [UP]), (2, 1, 0, []), (9, 1, 0, [])], 7.0, 0),
    "down from the first look": ([(0, 1, 0, []), (2, 1, 1, [UP])], 2.0, 0),
    "pods not known yet": ([(0, 1, 0, None), (0.1, 1, 0, [ENDING]), (1, 1, 1, [UP])], 0.0, 0),
    "twice down": ([(0, 1, 0, []), (1, 1, 1, [UP]), (2, 1, 0, []), (4, 1, 1, [UP])], 3.0, 0),
    "scaled to 0": ([(0, 0, 2, [UP, UP]), (1, 0, 0, [])], None, 0),
    "scaled up from 0": ([(0, 0, 0, []), (5, 1, 0, []), (6, 1, 1, [UP])], 1.0, 0),
    "ready, not yet available": ([(0, 2, 1, [UP, UP])], 0.0, 1),
}


@pytest.mark.parametrize(("looks", "downtime", "least"), LOOKS.values(), ids=LOOKS)
def test_downtime_and_the_fewest_pods(looks: Any, downtime: float | None, least: int) -> None:
    seen = Availability()
    for at, wanted, available, pods in looks:
        seen = Availability.of(seen.to_dict())
        status = rollout_status(deployment(replicas=wanted) | {"status": {"availableReplicas": available, "readyReplicas": available}})
        manifests = None if pods is None else [_pod(*entry) for entry in pods]
        seen.note(at, status, manifests)
    assert (seen.seconds_down(status), seen.least) == (downtime, least)


def _pod(ready: str, ending: bool) -> dict[str, Any]:
    """Return a pod that is ready or not, on its way out or not."""
    found = pod("web", NEW, ready == "True")
    if ending:
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return found


def test_a_wait_reports_how_long_no_pod_was_ready() -> None:
    cluster = Shop(replicas=3)
    cluster.add("old-0")
    stranger = pod("stranger", OLD, True)
    cluster.put(stranger)
    done = {"updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}
    thread = later(
        lambda: cluster.drop(Ref("Pod", "shop", "old-0")),
        lambda: None,
        lambda: None,
        lambda: cluster.add("new-0"),
        lambda: cluster.set(**done),
        pause=0.3,
    )
    found = run(cluster)
    thread.join()
    assert 0.75 <= found["downtime"] <= 1.3, found["downtime"]
    assert found["availability"] == {"least": 0}


def test_what_was_never_waited_for_has_no_downtime() -> None:
    assert run(FakeCluster(deployment()))["downtime"] == 0.0
    assert run(FakeCluster(deployment()))["availability"] == {"least": 3}
    assert run(FakeCluster(deployment(replicas=0)))["downtime"] is None
    assert run(FakeCluster(deployment()), check=True)["downtime"] is None


# -- in several calls -----------------------------------------------------------------------------------------------


def in_slices(cluster: FakeCluster, length: float = 0.4, step: Any = wait_rollout, between: Any = None, **given: Any) -> Any:
    """Make the calls that the action plugin makes; return the last result and the lines in between."""
    resume, lines = None, []
    for _call in range(60):
        found = run(cluster, step, slice=length, resume=copy.deepcopy(resume), **given)
        if "resume" not in found:
            return found, lines
        resume = found["resume"]
        lines.append(found["progress"])
        if between:
            between(len(lines))
    raise AssertionError("it never came to an end")


def test_slices_end_as_one_wait_does() -> None:
    cluster = Shop(updated=1)
    done = {"updatedReplicas": 3}
    thread = later(lambda: cluster.set(**done), pause=1)
    found, lines = in_slices(cluster)
    thread.join()
    whole = run(cluster)
    assert found["status"] == whole["status"] and set(found) == set(whole)
    assert lines[0] == "1 of 3 updated, 3 ready, 3 available: waiting for 2 more pods of the new revision"


def test_the_timeout_is_that_of_all_slices_together() -> None:
    started = time.monotonic()
    with pytest.raises(DeliveryError, match="did not complete its rollout within 1.5 s") as caught:
        in_slices(Shop(updated=1), timeout=1.5)
    assert caught.value.reason == "Timeout" and 1.4 <= time.monotonic() - started < 2.5


def test_the_time_between_two_slices_counts() -> None:
    started = time.monotonic()
    with pytest.raises(DeliveryError, match="within 2 s"):
        in_slices(Shop(updated=1), timeout=2, between=lambda _number: time.sleep(0.5))
    assert time.monotonic() - started < 3


def test_a_clock_that_was_put_back_lengthens_nothing() -> None:
    now = [100.0]
    first = Turn("x", 10, 3, clock=lambda: now[0], wall=lambda: 5000.0)
    now[0] = 103.0
    assert not first.is_last and first.left == 0
    told = first.hand_over({"a": 1}, "line")["resume"]
    second = Turn("x", 10, 3, told, clock=lambda: now[0], wall=lambda: 4000.0)
    assert (second.elapsed, second.left, second.memory) == (3.0, 3.0, {"a": 1})
    third = Turn("x", 10, 3, told, clock=lambda: now[0], wall=lambda: 5005.0)
    assert third.elapsed == 8.0 and third.is_last and third.left == 2.0


def test_another_template_between_two_slices_is_found() -> None:
    cluster = Shop(updated=1)

    def meddle(number: int) -> None:
        if number == 1:
            workload = cluster.get(WEB)
            workload["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:9"
            cluster.put(workload)

    with pytest.raises(DeliveryError) as caught:
        in_slices(cluster, revision=2, between=meddle)
    assert caught.value.reason == "Superseded"


@pytest.mark.parametrize("again", [False, True], ids=["gone", "another of its name"])
def test_a_workload_that_goes_between_two_slices_is_told(again: bool) -> None:
    cluster = Shop(updated=1)

    def meddle(number: int) -> None:
        if number == 1:
            gone = cluster.get(WEB)
            cluster.drop(WEB)
            if again:
                gone["metadata"].pop("resourceVersion")
                cluster.put({**gone, "metadata": {**gone["metadata"], "uid": "another"}})

    with pytest.raises(DeliveryError, match="was deleted while its rollout was waited for") as caught:
        in_slices(cluster, between=meddle)
    assert caught.value.reason == "Deleted"


def test_a_grace_longer_than_a_slice_comes_to_its_end() -> None:
    cluster = Shop(updated=1)
    homeless = pod("new-0", NEW, False, owner=cluster.new)
    homeless["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}
    ]
    cluster.put(homeless)
    started = time.monotonic()
    with pytest.raises(DeliveryError, match="Unschedulable for pod new-0: 0/1 nodes are available; add nodes") as caught:
        in_slices(cluster, unschedulable_grace=1.5)
    assert caught.value.reason == "Unschedulable" and 1.3 <= time.monotonic() - started < 3


QUOTA_FULL = {
    "type": "ReplicaFailure",
    "status": "True",
    "reason": "FailedCreate",
    "message": 'pods "new-1" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3',
}


def full_quota(used: str) -> dict[str, Any]:
    """Return a quota of three pods."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": "shop"},
        "status": {"hard": {"pods": "3"}, "used": {"pods": used}},
    }


def test_a_quota_that_stays_full_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "QUOTA_GRACE", 0.3)
    cluster = Shop()
    cluster.set(conditions=[QUOTA_FULL])
    cluster.put(full_quota("3"))
    with pytest.raises(DeliveryError, match="exceeded quota: small.*raise the quota") as caught:
        run(cluster)
    assert caught.value.reason == "FailedCreate"


NO_ACCOUNT = {
    **QUOTA_FULL,
    "message": 'pods "new-" is forbidden: error looking up service account shop/default: serviceaccount "default" not found',
}


def test_a_service_account_that_never_comes_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "ACCOUNT_GRACE", 0.3)
    cluster = Shop()
    cluster.set(conditions=[NO_ACCOUNT])
    with pytest.raises(DeliveryError, match="service account shop/default") as caught:
        run(cluster)
    assert caught.value.reason == "FailedCreate"


def test_the_service_account_of_a_new_namespace_is_waited_for() -> None:
    cluster = Shop()
    cluster.set(conditions=[NO_ACCOUNT])
    done = {key: 3 for key in ("updatedReplicas", "readyReplicas", "availableReplicas")}
    thread = later(lambda: None, lambda: cluster.set(conditions=[], **done), pause=0.6)
    assert run(cluster)["status"]["phase"] == "complete"
    thread.join()


def test_a_refusal_by_a_quota_that_has_room_again_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "QUOTA_GRACE", 0.1)
    cluster = Shop()
    cluster.set(conditions=[QUOTA_FULL])
    cluster.put(full_quota("2"))
    done = {key: 3 for key in ("updatedReplicas", "readyReplicas", "availableReplicas")}
    thread = later(lambda: None, lambda: cluster.set(conditions=[], **done), pause=1.2)
    assert run(cluster)["status"]["phase"] == "complete"
    thread.join()


def test_downtime_is_that_of_all_slices_together() -> None:
    cluster = Shop()
    thread = later(
        lambda: cluster.set(updatedReplicas=3, readyReplicas=0, availableReplicas=0),
        *[lambda: None] * 5,
        lambda: cluster.add("new-0"),
        lambda: cluster.set(readyReplicas=3, availableReplicas=3),
        pause=0.25,
    )
    found, lines = in_slices(cluster)
    thread.join()
    assert len(lines) >= 3 and 1.3 <= found["downtime"] <= 2.2, found["downtime"]


def test_an_api_server_that_is_away_between_slices_is_waited_for() -> None:
    cluster = Shop(updated=1)
    get, away = cluster.get, []

    def refuse(ref: Ref) -> Any:
        if away:
            raise Unavailable("the API server at https://x does not answer: refused")
        return get(ref)

    def between(number: int) -> None:
        away[:] = [True] if number in (1, 2) else []
        if number == 3:
            cluster.set(updatedReplicas=3)

    cluster.get = refuse  # type: ignore[method-assign]
    found, lines = in_slices(cluster, between=between)
    assert found["status"]["phase"] == "complete"
    assert lines[1] == lines[2] == f"the API server does not answer - last seen: {lines[0]}"


def test_a_resume_that_was_changed_is_refused() -> None:
    cluster = Shop(updated=1)
    told = run(cluster, slice=0.2)["resume"]
    del told["memory"]["template"]
    with pytest.raises(DeliveryError, match="and that has been changed; leave it out"):
        run(cluster, resume=told)


def test_an_observation_in_slices_is_one() -> None:
    owner = deployment()
    cluster = FakeCluster(owner, replica_set(owner, 2, "new", "podinfo:1.0.0"))
    cluster.put(pod("new-0", NEW))
    found, lines = in_slices(cluster, step=observe_workload, seconds=1.5, min_ready=1)
    assert 1.5 <= found["observed"] < 2 and found["ready"] == 1 and len(lines) >= 3
    assert lines[1].endswith("of 2 s: never less than 1 ready pod, 0 restarts"), lines

    def restart(number: int) -> None:
        if number == 2:
            cluster.put(pod("new-0", NEW, restartCount=1))

    with pytest.raises(DeliveryError) as caught:
        in_slices(cluster, step=observe_workload, seconds=5, min_ready=1, between=restart)
    assert caught.value.reason == "ContainerRestarted" and caught.value.details["restarts"] == 1


# -- a stream whose API server goes away ----------------------------------------------------------------------------


def test_a_stream_says_that_the_api_server_is_away_and_lists_again() -> None:
    cluster = FakeCluster(deployment())
    listed, trouble = cluster.list, []

    def refuse(query: Query) -> Any:
        if trouble:
            raise trouble[0]
        return listed(query)

    def watch(query: Query, version: str, timeout: float) -> Any:
        if trouble:
            raise trouble[0]
        yield from FakeCluster.watch(cluster, query, version, 0.2)
        if trouble:
            raise trouble[0]

    cluster.list, cluster.watch = refuse, watch  # type: ignore[method-assign]
    query, kinds, seen = Query("Deployment", "shop"), [], []
    with Stream(cluster, [query], timeout=6) as stream:
        for event in stream.events(tick=0.1):
            kinds += [event.type] if event else []
            seen.append(stream.is_away)
            if len(seen) == 3:
                trouble[:] = [Unavailable("away")]
            if seen[-1] and len(seen) > 10:
                # One that has just started may refuse at first what it allows.
                trouble[:] = [Forbidden("not yet")] if len(seen) < 16 else []
            if kinds.count("SYNCED") == 2:
                break
    assert True in seen and seen[0] is False and stream.is_away is False
