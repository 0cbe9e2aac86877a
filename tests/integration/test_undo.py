# SPDX-License-Identifier: GPL-3.0-or-later
"""undo_rollout, pause_rollout and rollout_info on live workloads of each kind: what the controllers really do with them."""

from __future__ import annotations

import copy
import json
import threading
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, UNDONE, Query, Ref
from ansible_collections.progressive.delivery.plugins.modules import (
    pause_rollout,
    rollout_info,
    scale,
    set_image,
    undo_rollout,
    wait_rollout,
)
from support.live import Shop

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"
LABELS = {"app": "thing"}
KINDS = ["Deployment", "StatefulSet", "DaemonSet"]
REVISIONS = {"Deployment": "ReplicaSet", "StatefulSet": "ControllerRevision", "DaemonSet": "ControllerRevision"}


def manifest(
    kind: str = "Deployment",
    image: str = "1.0.0",
    name: str = "thing",
    replicas: int = 2,
    container: Any = None,
    grace: int = 1,
    **spec: Any,
) -> dict[str, Any]:
    """Return a workload of podinfo."""
    app = {
        "name": "app",
        "image": f"{IMAGE}:{image}",
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1},
        **(container or {}),
    }
    pods = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": grace, "containers": [app]}}
    found = {"selector": {"matchLabels": LABELS}, "template": pods, **spec}
    if kind != "DaemonSet":
        found["replicas"] = replicas
    if kind == "StatefulSet":
        found["serviceName"] = "thing"
    about = {"name": name, "annotations": {"team": "shop", "kubernetes.io/change-cause": f"release {image}"}}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": about, "spec": found}


class Thing:
    """The workload under test, of one kind."""

    def __init__(self, shop: Shop, kind: str, **spec: Any) -> None:
        self.shop, self.kind = shop, kind
        self.ref = Ref(kind, shop.namespace, "thing")
        shop.create(manifest(kind, **spec), wait=False)
        self.wait()

    def wait(self, **given: Any) -> dict[str, Any]:
        """Wait for the rollout, and return what the step says."""
        outcome = self.shop.step(wait_rollout, kind=self.kind, name="thing", timeout=60, **given)
        assert "failed" not in outcome, outcome
        return outcome

    def release(self, image: str, wait: bool = True) -> int:
        """Release an image, and return its revision."""
        found = self.shop.step(set_image, kind=self.kind, name="thing", images={"app": f"{IMAGE}:{image}"}, change_cause=f"release {image}")
        assert found["changed"], found
        if wait:
            self.wait(revision=found["revision"])
        return found["revision"]

    def undo(self, check: bool = False, **given: Any) -> dict[str, Any]:
        """Undo, and return what the step says."""
        return self.shop.step(undo_rollout, check, kind=self.kind, name="thing", **given)

    def info(self) -> dict[str, Any]:
        """Return what rollout_info says."""
        return self.shop.step(rollout_info, kind=self.kind, name="thing")

    def get(self) -> dict[str, Any]:
        """Return the workload."""
        return self.shop.cluster.get(self.ref)

    def image(self) -> str:
        """Return the tag of the image in the pod template."""
        return self.get()["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]

    def patch(self, body: Any, how: str = MERGE_PATCH) -> None:
        """Change the workload as somebody else would."""
        self.shop.cluster.patch(self.ref, body, how)

    def history(self) -> list[tuple[int, str, bool]]:
        """Return (number, tag, whether it is live) of each revision."""
        return [(entry["revision"], entry["images"]["app"].rpartition(":")[2], entry["live"]) for entry in self.info()["revisions"]]


@pytest.fixture(params=KINDS)
def thing(request: pytest.FixtureRequest, empty: Shop) -> Thing:
    """Return a workload of one pod whose history is 1.0.0 and then 2.0.0."""
    found = Thing(empty, request.param, replicas=1)
    found.release("2.0.0")
    return found


def test_back_and_run_twice(thing: Thing) -> None:
    assert thing.history() == [(2, "2.0.0", True), (1, "1.0.0", False)]
    undo = thing.undo()
    assert undo["changed"] and (undo["from_revision"], undo["to_revision"], undo["revision"]) == (2, 1, 3), undo
    # At once, before its controller has seen it, and after.
    for wait in (False, True):
        if wait:
            thing.wait(revision=3)
        again = thing.undo()
        assert not again["changed"] and again["revision"] == 3 and "nothing was released since" in again["msg"], again
    assert thing.image() == "1.0.0"
    assert thing.history() == [(3, "1.0.0", True), (2, "2.0.0", False)]
    thing.shop.step(scale, kind=thing.kind, name="thing", replicas=3) if thing.kind != "DaemonSet" else None
    thing.patch({"metadata": {"annotations": {"seen": "by somebody"}}})
    assert not thing.undo()["changed"]
    assert thing.image() == "1.0.0"


def test_after_an_undo_a_new_release_can_be_undone_too(thing: Thing) -> None:
    thing.wait(revision=thing.undo()["revision"])
    assert thing.release("3.0.0") == 4
    undo = thing.undo()
    assert undo["changed"] and (undo["from_revision"], undo["to_revision"], undo["revision"]) == (4, 3, 5), undo
    thing.wait(revision=5)
    assert not thing.undo()["changed"]
    # The bad one again, on purpose: it gets the next number, and is the one to undo then.
    assert thing.release("3.0.0") == 6
    assert thing.undo()["changed"]
    assert thing.image() == "1.0.0"


def test_to_a_revision_by_the_number_that_it_had(thing: Thing) -> None:
    thing.release("3.0.0")
    undo = thing.undo(to_revision=1)
    assert undo["changed"] and undo["revision"] == 4 and undo["images"] == {"app": f"{IMAGE}:1.0.0"}, undo
    assert not thing.undo(to_revision=1)["changed"]
    thing.wait(revision=4)
    assert thing.history() == [(4, "1.0.0", True), (3, "3.0.0", False), (2, "2.0.0", False)]
    for number in (1, 4):
        again = thing.undo(to_revision=number)
        assert not again["changed"] and again["revision"] == 4, again
    assert not thing.undo()["changed"]
    # To the one that was left, by its number: that is what was asked for.
    assert thing.undo(to_revision=3)["revision"] == 5
    thing.wait(revision=5)
    assert thing.undo(to_revision=1)["images"] == {"app": f"{IMAGE}:1.0.0"}


def test_a_revision_that_is_gone_is_refused_with_those_that_are_there(empty: Shop) -> None:
    for kind in KINDS:
        found = Thing(empty, kind, replicas=1, revisionHistoryLimit=1)
        for image in ("2.0.0", "3.0.0"):
            found.release(image)
        deadline = time.monotonic() + 20
        while len(found.history()) > 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        before = found.get()["metadata"]["generation"]
        outcome = found.undo(to_revision=1)
        assert outcome["failed"] and outcome["reason"] == "InvalidRequest", outcome
        assert f"has no revision 1; it has: 3 (app {IMAGE}:3.0.0), 2 (app {IMAGE}:2.0.0); it keeps 1 old ones" in outcome["msg"]
        assert found.get()["metadata"]["generation"] == before
        empty.cluster.delete(found.ref)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_gets_one_sentence(empty: Shop, kind: str) -> None:
    found = Thing(empty, kind, replicas=0)
    for given, sentence in (
        ({}, "has no revision before 1"),
        ({"to_revision": 7}, f"has no revision 7; it has: 1 (app {IMAGE}:1.0.0)"),
        ({"to_revision": 0}, "to_revision must be 1 or more, got 0"),
        ({"to_revision": -1}, "to_revision must be 1 or more, got -1"),
        ({"if_revision": 0}, "if_revision must be 1 or more, got 0"),
        ({"unless_image": "Not An Image"}, "is not an image reference"),
        ({"name": "nope"}, f"{kind}s in namespace {empty.namespace}: thing"),
    ):
        outcome = empty.step(undo_rollout, **{"kind": kind, "name": "thing", **given})
        assert outcome["failed"] and sentence in outcome["msg"] and "\n" not in outcome["msg"], outcome
    assert found.get()["metadata"]["generation"] == 1


def test_only_its_own_change_is_taken_back(thing: Thing) -> None:
    mine = 2
    other = thing.release("3.0.0")
    outcome = thing.undo(if_revision=mine)
    assert not outcome["changed"] and f"is at revision {other} and not at {mine}" in outcome["msg"], outcome
    assert thing.image() == "3.0.0"
    assert thing.undo(if_revision=other)["changed"]
    outcome = thing.undo(if_revision=other)
    assert not outcome["changed"] and f"is at revision {other + 1} and not at {other}" in outcome["msg"], outcome
    assert thing.image() == "2.0.0"


def test_nothing_is_done_where_the_image_runs_already(thing: Thing) -> None:
    outcome = thing.undo(unless_image=f"{IMAGE}:2.0.0")
    assert not outcome["changed"] and f"already runs {IMAGE}:2.0.0" in outcome["msg"], outcome
    assert thing.image() == "2.0.0"
    assert thing.undo(unless_image=f"{IMAGE}:1.0.0")["changed"]
    assert not thing.undo(unless_image=f"{IMAGE}:1.0.0")["changed"]
    assert thing.image() == "1.0.0"


def test_what_the_newer_revision_added_is_gone_and_secrets_do_not_show(empty: Shop) -> None:
    for kind in KINDS:
        found = Thing(empty, kind, replicas=1)
        before = found.get()["spec"]["template"]
        secret = {"secretKeyRef": {"name": "db", "key": "password", "optional": True}}
        app = {
            "name": "app",
            "env": [
                {"name": "LEVEL", "value": "debug"},
                {"name": "API_TOKEN", "value": "s3cr3t"},
                {"name": "DB_PASSWORD", "valueFrom": secret},
                {"name": "DB_URL", "value": "postgres://shop:s3cr3t@db/shop"},
            ],
            "resources": {"requests": {"cpu": "20m"}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }
        pods = {"metadata": {"annotations": {"note": "new"}, "labels": {"tier": "web"}}}
        pods["spec"] = {
            "containers": [app],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
        }
        found.patch({"spec": {"template": pods}}, STRATEGIC_PATCH)
        found.wait()
        outcome = found.undo()
        assert outcome["changed"], outcome
        assert found.get()["spec"]["template"] == before
        assert "s3cr3t" not in json.dumps(outcome)
        container = outcome["before"]["containers"]["app"]
        assert container["env"] == {
            "LEVEL": "debug",
            "API_TOKEN": "********",
            "DB_PASSWORD": "from Secret db, key password, optional",
            "DB_URL": "postgres://********@db/shop",
        }
        # What was there, and was defaulted, is not part of the difference.
        assert container["resources"] == {"requests": {"cpu": "20m"}} and set(container) == {"env", "resources", "volumeMounts"}
        assert outcome["before"]["labels"] == {"tier": "web"} and outcome["before"]["annotations"] == {"note": "new"}
        assert outcome["before"]["volumes"] == {"scratch": {"emptyDir": {}}}
        assert outcome["after"]["revision"] == 3 and outcome["before"]["revision"] == 2
        empty.cluster.delete(found.ref)


def test_foreign_annotations_stay_and_the_change_causes_stay_true(thing: Thing) -> None:
    foreign = {"team": "shop", "kubectl.kubernetes.io/last-applied-configuration": "{}", "example.com/owner": "somebody"}
    thing.patch({"metadata": {"annotations": foreign}})
    assert thing.release("3.0.0") == 3
    assert thing.undo(to_revision=2)["change_cause"] == "release 2.0.0"
    thing.wait(revision=4)
    assert {key: thing.get()["metadata"]["annotations"].get(key) for key in foreign} == foreign
    assert thing.get()["metadata"]["annotations"]["kubernetes.io/change-cause"] == "release 2.0.0"
    causes = {entry["images"]["app"].rpartition(":")[2]: entry["change_cause"] for entry in thing.info()["revisions"]}
    assert causes == {tag: f"release {tag}" for tag in ("1.0.0", "2.0.0", "3.0.0")}
    assert thing.undo(to_revision=1, change_cause="incident 12")["change_cause"] == "incident 12"
    assert thing.get()["metadata"]["annotations"]["kubernetes.io/change-cause"] == "incident 12"


def test_a_revision_without_a_cause_does_not_get_another_ones(empty: Shop) -> None:
    for kind in KINDS:
        bare = manifest(kind, replicas=1)
        del bare["metadata"]["annotations"]
        empty.create(bare, wait=False)
        assert "failed" not in empty.step(wait_rollout, kind=kind, name="thing", timeout=60)
        empty.step(set_image, kind=kind, name="thing", images={"*": f"{IMAGE}:2.0.0"}, change_cause="release 2.0.0")
        assert empty.step(undo_rollout, kind=kind, name="thing")["change_cause"] == ""
        empty.step(wait_rollout, kind=kind, name="thing", timeout=60, revision=3)
        assert "kubernetes.io/change-cause" not in empty.get(kind, "thing")["metadata"]["annotations"]
        revisions = empty.step(rollout_info, kind=kind, name="thing")["revisions"]
        assert [entry["change_cause"] for entry in revisions] == ["", "release 2.0.0"]
        empty.cluster.delete(Ref(kind, empty.namespace, "thing"))


def test_check_mode_predicts_the_same_and_writes_nothing(thing: Thing) -> None:
    before = thing.get()
    foreseen = thing.undo(check=True)
    after = thing.get()
    assert after["spec"] == before["spec"] and after["metadata"]["annotations"] == before["metadata"]["annotations"]
    done = thing.undo()
    for outcome in (foreseen, done):
        del outcome["duration"]
    assert foreseen == done and done["changed"]
    thing.wait(revision=foreseen["revision"])
    assert thing.info()["revision"] == foreseen["revision"]


def test_another_workload_with_the_same_labels_is_never_picked(empty: Shop) -> None:
    for kind in KINDS:
        mine = Thing(empty, kind, replicas=1)
        mine.release("2.0.0")
        # Its revisions match the selector, and have higher numbers.
        theirs = copy.deepcopy(manifest(kind, image="3.0.0", name="other", replicas=1))
        empty.create(theirs, wait=False)
        numbers = []
        for image in ("broken-500", "4.0.0", "5.0.0"):
            time.sleep(0.5)
            numbers.append(empty.step(set_image, kind=kind, name="other", images={"app": f"{IMAGE}:{image}"})["revision"])
        assert numbers == [2, 3, 4]
        deadline = time.monotonic() + 20
        while len(empty.cluster.list(Query(REVISIONS[kind], empty.namespace, "app=thing")).items) < 6 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(empty.cluster.list(Query(REVISIONS[kind], empty.namespace, "app=thing")).items) == 6
        assert len(mine.info()["pods"]) == len([pod for pod in mine.info()["pods"] if pod["name"].startswith("thing-")])
        outcome = mine.undo()
        assert outcome["changed"] and outcome["images"] == {"app": f"{IMAGE}:1.0.0"} and outcome["revision"] == 3, outcome
        mine.wait(revision=3)
        for name in ("thing", "other"):
            empty.cluster.delete(Ref(kind, empty.namespace, name))


def test_a_paused_deployment_is_refused_or_undone_and_resumed_in_one(empty: Shop) -> None:
    found = Thing(empty, "Deployment")
    found.release("2.0.0")
    paused = empty.step(pause_rollout, name="thing", state="paused")
    assert paused["changed"] and paused["paused"] and (paused["before"], paused["after"]) == ({"paused": False}, {"paused": True})
    assert not empty.step(pause_rollout, name="thing", state="paused")["changed"]
    found.release("broken-ready", wait=False)
    time.sleep(1)
    outcome = found.undo()
    assert outcome["failed"] and "is paused, so its pods would not follow; give resume: true" in outcome["msg"], outcome
    assert found.image() == "broken-ready"
    foreseen = found.undo(check=True, resume=True)
    outcome = found.undo(resume=True)
    # The template that came while it was paused never got a revision: the one before it is the one that runs.
    assert outcome["changed"] and outcome["images"] == {"app": f"{IMAGE}:2.0.0"}, outcome
    assert (outcome["before"]["paused"], outcome["after"]["paused"]) == (True, False)
    assert outcome["revision"] == foreseen["revision"] == 2
    found.wait(revision=2)
    assert found.history() == [(2, "2.0.0", True), (1, "1.0.0", False)]
    assert not found.undo(resume=True)["changed"]
    assert not empty.step(pause_rollout, name="thing", state="resumed")["changed"]


def test_paused_in_the_middle_not_one_more_pod_of_the_bad_revision_is_made(empty: Shop) -> None:
    found = Thing(empty, "Deployment", replicas=3)
    found.release("broken-ready", wait=False)
    time.sleep(1.5)
    assert empty.step(pause_rollout, name="thing")["changed"]
    bad = {pod["name"] for pod in found.info()["pods"] if pod["images"]["app"].endswith("broken-ready")}
    assert bad
    outcome = found.undo(resume=True)
    assert outcome["changed"] and outcome["revision"] == 3, outcome
    seen = set()
    for _look in range(20):
        seen |= {pod["name"] for pod in found.info()["pods"] if pod["images"]["app"].endswith("broken-ready")}
        time.sleep(0.1)
    assert seen <= bad
    found.wait(revision=3)


@pytest.mark.parametrize(("kind", "words"), [("StatefulSet", "a partition keeps the pods"), ("DaemonSet", "type OnDelete keeps the pods")])
def test_what_cannot_be_paused_is_refused_with_the_way_that_there_is(empty: Shop, kind: str, words: str) -> None:
    Thing(empty, kind, replicas=0)
    outcome = empty.step(pause_rollout, kind=kind, name="thing")
    assert outcome["failed"] and "only a Deployment can" in outcome["msg"] and words in outcome["msg"], outcome


def test_an_autoscalers_number_of_pods_stays(empty: Shop) -> None:
    found = Thing(empty, "Deployment")
    found.release("2.0.0")
    found.patch({"spec": {"replicas": 3}})
    found.wait()
    found.undo()
    assert found.get()["spec"]["replicas"] == 3


def test_writes_of_others_in_between_are_not_lost(thing: Thing) -> None:
    stop = threading.Event()
    other = Shop(thing.shop.kubeconfig, thing.shop.namespace)

    def meddle() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            other.cluster.patch(thing.ref, {"metadata": {"annotations": {"number": str(number)}}}, MERGE_PATCH)

    worker = threading.Thread(target=meddle)
    worker.start()
    try:
        outcome = thing.undo()
    finally:
        stop.set()
        worker.join()
        other.cluster.close()
    assert outcome["changed"] and outcome["revision"] == 3, outcome
    assert int(thing.get()["metadata"]["annotations"]["number"]) > 0
    assert not thing.undo()["changed"]


def test_somebody_elses_template_right_after_the_undo_is_not_taken_for_it(thing: Thing) -> None:
    replace = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"{IMAGE}:3.0.0"}]
    assert thing.undo()["revision"] == 3
    # Before the controller has looked, so that this template may get the number that was foreseen for the undo.
    thing.patch(replace, JSON_PATCH)
    thing.wait()
    record = json.loads(thing.get()["metadata"]["annotations"][UNDONE])
    assert record["revision"] == 3
    outcome = thing.undo()
    assert outcome["changed"] and thing.image() != "3.0.0", (outcome, record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_workload_that_is_deleted_meanwhile_is_told_and_not_made_again(empty: Shop, kind: str) -> None:
    found = Thing(empty, kind, replicas=1)
    found.release("2.0.0")
    outcome = found.undo(meanwhile=lambda: empty.cluster.delete(found.ref))
    assert outcome["failed"] and outcome["reason"] == "NotFound" and "\n" not in outcome["msg"], outcome
    assert f"{kind} {empty.namespace}/thing does not exist" in outcome["msg"], outcome
    assert not empty.exists(kind, "thing")


def test_another_workload_that_has_taken_its_name_meanwhile_is_left_alone(empty: Shop) -> None:
    found = Thing(empty, "Deployment", replicas=1)
    found.release("2.0.0")

    def again() -> None:
        empty.cluster.delete(found.ref)
        empty.create(manifest(image="3.0.0", replicas=0), wait=False)

    outcome = found.undo(meanwhile=again)
    assert outcome["failed"] and outcome["reason"] == "InvalidRequest" and "has no revision" in outcome["msg"], outcome
    assert found.image() == "3.0.0" and found.get()["metadata"]["generation"] == 1


def service() -> dict[str, Any]:
    """Return the Service of the workload."""
    spec = {"type": "NodePort", "selector": LABELS, "ports": [{"name": "http", "port": 80, "targetPort": 9898}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


# With more than one pod, or with a surge, a rollout keeps pods that serve.
NEVER_READY = {
    "Deployment": ({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}, {}),
    "StatefulSet": ({}, {"delete_stuck_pods": True}),
    "DaemonSet": ({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}, {}),
}


@pytest.mark.parametrize(("kind", "spec", "given"), [(kind, *entry) for kind, entry in NEVER_READY.items()], ids=NEVER_READY)
def test_a_revision_that_never_gets_ready_is_undone_while_the_old_pods_serve(
    empty: Shop, kind: str, spec: dict[str, Any], given: dict[str, Any]
) -> None:
    # Pods that end serve until they are out of every proxy.
    found = Thing(empty, kind, grace=10, container={"lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}, **spec)
    empty.create(service())
    with empty.traffic(200) as traffic:
        bad = found.release("broken-ready", wait=False)
        pods: list[dict[str, Any]] = []
        deadline = time.monotonic() + 40
        while not pods and time.monotonic() < deadline:
            time.sleep(0.5)
            pods = [pod for pod in found.info()["pods"] if pod["images"]["app"].endswith("broken-ready") and pod["phase"] == "Running"]
        time.sleep(2)
        assert pods and not any(pod["ready"] for pod in pods)
        assert found.info()["revisions"][0]["replicas"] == len(pods) and found.info()["revisions"][0]["ready"] == 0
        stuck = found.undo(check=True)["stuck_pods"]
        assert bool(stuck) is (kind == "StatefulSet")
        foreseen = found.undo(check=True, **given)
        outcome = found.undo(if_revision=bad, **given)
        assert outcome["changed"] and outcome["stuck_pods"] == [] and outcome["actions"] == foreseen["actions"], outcome
        found.wait(revision=outcome["revision"])
    assert traffic.seen["failed"] == 0 and traffic.seen["sent"] > 800, traffic.seen
    assert set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    assert not found.undo(**given)["changed"]


def test_a_stateful_set_that_was_taken_back_without_its_stuck_pods_says_so_until_they_are_gone(empty: Shop) -> None:
    found = Thing(empty, "StatefulSet")
    found.release("broken-ready", wait=False)
    deadline = time.monotonic() + 30
    while not any(pod["images"]["app"].endswith("broken-ready") for pod in found.info()["pods"]) and time.monotonic() < deadline:
        time.sleep(0.2)
    outcome = found.undo()
    assert outcome["changed"] and outcome["stuck_pods"] == ["thing-1"], outcome
    assert "delete thing-1, or give delete_stuck_pods: true" in outcome["msg"]
    late = empty.step(wait_rollout, kind="StatefulSet", name="thing", timeout=6)
    assert late["failed"] and late["reason"] == "Timeout", late
    freed = found.undo(delete_stuck_pods=True)
    assert freed["changed"] and freed["before"]["stuck_pods"] == ["thing-1"] and freed["after"]["stuck_pods"] == [], freed
    found.wait()
    assert not found.undo(delete_stuck_pods=True)["changed"]


def test_the_history_tells_what_a_person_needs(thing: Thing) -> None:
    thing.release("broken-crash", wait=False)
    deadline = time.monotonic() + 40
    crashed: list[dict[str, Any]] = []
    while not crashed and time.monotonic() < deadline:
        time.sleep(0.5)
        info = thing.info()
        crashed = [pod for pod in info["pods"] if pod["reason"] == "CrashLoopBackOff"]
    assert crashed, info["pods"]
    assert crashed[0]["last_termination"]["exit_code"] == 1 and crashed[0]["revision"] == 3 and "exit code 1" in crashed[0]["message"]
    assert [entry["revision"] for entry in info["revisions"]] == [3, 2, 1]
    assert all(0 <= entry["age"] < 120 for entry in info["revisions"])
    assert info["revisions"][0]["replicas"] >= 1 and info["revisions"][0]["ready"] == 0
    assert sum(entry["replicas"] for entry in info["revisions"]) == len([pod for pod in info["pods"] if pod["reason"] != "Terminating"])
    text = "\n".join(info["summary"])
    assert f"{thing.kind} {thing.shop.namespace}/thing: progressing, revision 3" in text, text
    assert "release broken-crash" in text and "CrashLoopBackOff: container app: Error with exit code 1" in text, text
