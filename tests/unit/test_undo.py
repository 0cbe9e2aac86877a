# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a revision: which one, when there is nothing to do, what the patch restores, and what may be shown of it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.model import CHANGE_CAUSE, UNDONE, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.differences import template_changes
from ansible_collections.progressive.delivery.plugins.module_utils.plan.masking import is_secret_name, masked_text, masked_words
from ansible_collections.progressive.delivery.plugins.module_utils.plan.released import RELEASED_IMAGES
from ansible_collections.progressive.delivery.plugins.module_utils.plan.revisions import (
    history,
    is_numbered,
    next_number,
    report_pods,
    revisions_in,
    template_of,
)
from ansible_collections.progressive.delivery.plugins.module_utils.plan.undo import Asked, plan_undo, stuck_pods, superseded_pods
from support.fake import FakeCluster
from support.objects import controller_revision, deployment, pod, replica_set

REF = Ref("Deployment", "shop", "web")
DAY = 86400


def web(*images: str, kind: str = "Deployment") -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a workload that had these images, the last one now, and its revisions: numbered 1, 2, ..."""
    owner = {**deployment(image=images[-1]), "kind": kind}
    owner["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = str(len(images))
    owner["metadata"]["annotations"][CHANGE_CAUSE] = f"release {images[-1]}"
    made = replica_set if kind == "Deployment" else controller_revision
    revisions = []
    for number, image in enumerate(images, 1):
        entry = made(owner, number, "abcdefgh"[number - 1], image)
        entry["metadata"]["annotations"][CHANGE_CAUSE] = f"release {image}"
        revisions.append(entry)
    owner["status"]["updateRevision"] = revisions[-1]["metadata"]["name"]
    return owner, revisions


def applied(owner: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the workload as the API server has it after the patch."""
    cluster = FakeCluster(owner)
    cluster.patch(REF, patch, "application/json-patch+json")
    return cluster.get(REF)


def renumber(revisions: list[dict[str, Any]], name: str, number: int) -> None:
    """Give a revision its next number, as its controller does."""
    entry = next(entry for entry in revisions if entry["metadata"]["name"] == name)
    if entry["kind"] == "ReplicaSet":
        old = entry["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        entry["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] = old
        entry["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = str(number)
    else:
        entry["revision"] = number


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_the_one_before_is_gone_back_to_once(kind: str) -> None:
    owner, revisions = web("web:1", "web:2", "web:3", kind=kind)
    ref = Ref(kind, "shop", "web")
    undo = plan_undo(ref, owner, revisions, Asked())
    assert (undo.from_revision, undo.to_revision, undo.revision) == (3, 2, 4)
    assert undo.images == {"app": "web:2"} and undo.change_cause == "release web:2"
    cluster = FakeCluster(owner)
    cluster.patch(ref, undo.change.patch, undo.change.patch_type)
    after = cluster.get(ref)
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "web:2"
    assert after["metadata"]["annotations"]["team"] == "shop" and after["spec"]["replicas"] == 3
    # Before the controller has seen it: nothing is numbered yet.
    again = plan_undo(ref, after, revisions, Asked())
    assert not again.change.changed and again.revision == 4
    # And after.
    renumber(revisions, "web-b", 4)
    after["status"].update(observedGeneration=3, updateRevision="web-b")
    again = plan_undo(ref, after, revisions, Asked())
    assert not again.change.changed and again.revision == 4 and "nothing was released since" in again.message
    # Scaled since: another generation, the same revision.
    after["metadata"]["generation"] = 4
    after["status"]["observedGeneration"] = 4
    assert not plan_undo(ref, after, revisions, Asked()).change.changed
    assert not plan_undo(ref, after, revisions, Asked(to_revision=2)).change.changed
    assert not plan_undo(ref, after, revisions, Asked(to_revision=4)).change.changed
    assert plan_undo(ref, after, revisions, Asked(to_revision=3)).to_revision == 3


def test_a_later_release_makes_the_note_stale() -> None:
    owner, revisions = web("web:1", "web:2")
    after = applied(owner, plan_undo(REF, owner, revisions, Asked()).change.patch)
    renumber(revisions, "web-a", 3)
    revisions.append(replica_set(owner, 4, "c", "web:3"))
    after["spec"]["template"]["spec"]["containers"][0]["image"] = "web:3"
    after["metadata"]["generation"] = 4
    after["status"]["observedGeneration"] = 4
    undo = plan_undo(REF, after, revisions, Asked())
    assert (undo.to_revision, undo.revision, undo.images) == (3, 5, {"app": "web:1"})
    # The same version again, on purpose: another number.
    renumber(revisions, "web-a", 5)
    after["spec"]["template"]["spec"]["containers"][0]["image"] = "web:1"
    after["metadata"]["generation"] = after["status"]["observedGeneration"] = 5
    assert plan_undo(REF, after, revisions, Asked()).to_revision == 4


def test_a_template_that_got_the_number_of_the_undo_is_not_taken_for_it() -> None:
    owner, revisions = web("web:1", "web:2")
    after = applied(owner, plan_undo(REF, owner, revisions, Asked()).change.patch)
    # Somebody wrote web:3 before the controller had seen web:1 again.
    revisions.append(replica_set(owner, 3, "c", "web:3"))
    after["spec"]["template"]["spec"]["containers"][0]["image"] = "web:3"
    after["metadata"]["generation"] = after["status"]["observedGeneration"] = 4
    undo = plan_undo(REF, after, revisions, Asked())
    assert undo.change.changed and (undo.from_revision, undo.to_revision) == (3, 2)


def test_without_a_record_the_way_back_goes_to_what_serves_and_not_to_what_never_did() -> None:
    # web:1 serves; somebody put web:2 on it, which never became ready; web:3 is the release that failed.
    owner, revisions = web("web:1", "web:2", "web:3")
    revisions[0]["status"]["readyReplicas"] = 2
    undo = plan_undo(REF, owner, revisions, Asked())
    assert (undo.to_revision, undo.images) == (1, {"app": "web:1"})
    # What is recorded comes first.
    owner["metadata"]["annotations"][RELEASED_IMAGES] = '["web:2"]'
    assert plan_undo(REF, owner, revisions, Asked()).to_revision == 2


def test_a_way_back_to_what_nothing_is_known_of_says_so_and_names_the_others() -> None:
    owner, revisions = web("web:1", "web:2", "web:3")
    undo = plan_undo(REF, owner, revisions, Asked())
    assert undo.note == (
        "nothing is recorded of revision 2: it was never released by this collection; to go to another, give to_revision"
        " (there are: 1 (app web:1))"
    )
    assert undo.message.endswith(undo.note)
    assert not plan_undo(REF, owner, revisions, Asked(to_revision=2)).note
    # There is no other.
    assert plan_undo(REF, owner, revisions[1:], Asked()).note.endswith("by this collection")
    revisions[1]["status"]["readyReplicas"] = 1
    assert not plan_undo(REF, owner, revisions, Asked()).note
    revisions[1]["status"]["readyReplicas"] = 0
    owner["metadata"]["annotations"][RELEASED_IMAGES] = '["web:2"]'
    assert not plan_undo(REF, owner, revisions, Asked()).note


def test_a_stateful_set_without_a_record_goes_back_to_what_was_rolled_out_whole() -> None:
    owner, revisions = web("web:1", "web:2", "web:3", kind="StatefulSet")
    owner["status"].update(currentRevision="web-a", currentReplicas=2, readyReplicas=2)
    assert plan_undo(Ref("StatefulSet", "shop", "web"), owner, revisions, Asked()).to_revision == 1


def test_what_was_undone_to_a_dead_end_is_undone_on_and_nothing_else_is() -> None:
    owner, revisions = web("web:1", "web:2", "web:3")
    after = applied(owner, plan_undo(REF, owner, revisions, Asked(to_revision=2)).change.patch)
    renumber(revisions, "web-b", 4)
    after["status"]["observedGeneration"] = after["metadata"]["generation"]
    # The pods of what was left serve until those that come back are ready: no reason to go forward again.
    revisions[2]["status"]["readyReplicas"] = 2
    assert not plan_undo(REF, after, revisions, Asked()).change.changed
    # Those of a third revision serve, and what was gone back to has no ready pod.
    revisions[0]["status"]["readyReplicas"] = 2
    assert plan_undo(REF, after, revisions, Asked()).to_revision == 1
    # It has one, or it is recorded as released.
    revisions[1]["status"]["readyReplicas"] = 1
    assert not plan_undo(REF, after, revisions, Asked()).change.changed
    revisions[1]["status"]["readyReplicas"] = 0
    after["metadata"]["annotations"][RELEASED_IMAGES] = '["web:2"]'
    assert not plan_undo(REF, after, revisions, Asked()).change.changed


@pytest.mark.parametrize("note", ["", "{", "[]", "7", '{"uid": "another"}', "copied"])
def test_a_note_that_is_none_or_of_another_object_is_no_note(note: str) -> None:
    owner, revisions = web("web:1", "web:2")
    if note == "copied":
        note = json.dumps({"uid": "uid-of-the-original", "generation": 2, "name": "web-a", "revision": 2})
    owner["metadata"]["annotations"][UNDONE] = note
    assert plan_undo(REF, owner, revisions, Asked()).change.changed


def test_an_old_number_is_understood_from_what_the_controller_wrote() -> None:
    owner, revisions = web("web:1", "web:2", "web:3")
    renumber(revisions, "web-a", 4)
    revisions.append(replica_set(owner, 5, "e", "web:5"))
    owner["spec"]["template"]["spec"]["containers"][0]["image"] = "web:5"
    undo = plan_undo(REF, owner, revisions, Asked(to_revision=1))
    assert undo.to_revision == 4 and undo.images == {"app": "web:1"}


def test_an_old_number_of_a_controller_revision_is_understood_from_what_was_noted() -> None:
    ref = Ref("StatefulSet", "shop", "web")
    owner, revisions = web("web:1", "web:2", "web:3", kind="StatefulSet")
    for generation, (asked, name, number) in enumerate([(1, "web-a", 4), (3, "web-c", 5), (1, "web-a", 6)], 3):
        undo = plan_undo(ref, owner, revisions, Asked(to_revision=asked))
        assert undo.change.changed and undo.revision == number
        cluster = FakeCluster(owner)
        cluster.patch(ref, undo.change.patch, undo.change.patch_type)
        owner = cluster.get(ref)
        renumber(revisions, name, number)
        owner["status"].update(observedGeneration=generation, updateRevision=name)
        assert not plan_undo(ref, owner, revisions, Asked(to_revision=asked)).change.changed
    assert [(entry.number, entry.former) for entry in revisions_in(owner, revisions)] == [(6, (1, 4)), (5, (3,)), (2, ())]
    # What is no longer kept is not noted any more.
    undo = plan_undo(ref, owner, revisions[:1] + revisions[2:], Asked(to_revision=3))
    note = json.loads(next(entry["value"] for entry in undo.change.patch if entry["path"].endswith("undone")))
    assert note["was"] == {"1": "web-a", "4": "web-a", "3": "web-c", "5": "web-c"}


REFUSED = {
    "gone": (
        ("web:1", "web:2"),
        {"to_revision": 7},
        "Deployment shop/web has no revision 7; it has: 2 (app web:2), 1 (app web:1); it keeps 5 old ones",
    ),
    "none before": (("web:1",), {}, "has no revision before 1 (app web:1) to go back to"),
    "zero": (("web:1",), {"to_revision": 0}, "to_revision must be 1 or more, got 0"),
    "negative": (("web:1",), {"if_revision": -2}, "if_revision must be 1 or more, got -2"),
    "no image": (("web:1",), {"unless_image": "A B"}, '"A B" is not an image reference (unless_image)'),
}


@pytest.mark.parametrize(("images", "given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence(images: tuple[str, ...], given: dict[str, Any], sentence: str) -> None:
    owner, revisions = web(*images)
    owner["spec"]["revisionHistoryLimit"] = 5
    with pytest.raises(DeliveryError) as caught:
        plan_undo(REF, owner, revisions, Asked(**given))
    assert sentence in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"if_revision": 1}, "is at revision 2 and not at 1: nothing was undone"),
        ({"unless_image": "web:2"}, "container app of Deployment shop/web already runs web:2: nothing was undone"),
        ({"to_revision": 2}, "has the pod template of revision 2 already"),
    ],
)
def test_nothing_is_done_and_it_is_said(given: dict[str, Any], words: str) -> None:
    owner, revisions = web("web:1", "web:2")
    undo = plan_undo(REF, owner, revisions, Asked(**given))
    assert not undo.change.changed and words in undo.message and undo.change.before == undo.change.after == {"revision": 2}


def test_a_paused_deployment_is_undone_and_resumed_in_one_write_or_not_at_all() -> None:
    owner, revisions = web("web:1", "web:2")
    owner["spec"]["paused"] = True
    with pytest.raises(DeliveryError, match="is paused, so its pods would not follow; give resume: true"):
        plan_undo(REF, owner, revisions, Asked())
    assert not plan_undo(REF, owner, revisions, Asked(to_revision=2)).change.changed
    undo = plan_undo(REF, owner, revisions, Asked(resume=True))
    after = applied(owner, undo.change.patch)
    assert after["spec"]["paused"] is False and undo.change.actions[1] == "resumed Deployment shop/web"
    # A template that was written while it was paused has no revision: what runs is the one before it, and keeps its number.
    owner["spec"]["template"]["spec"]["containers"][0]["image"] = "web:3"
    undo = plan_undo(REF, owner, revisions, Asked(resume=True))
    assert (undo.from_revision, undo.to_revision, undo.revision) == (3, 2, 2)


def test_a_number_that_cannot_be_foreseen_is_none() -> None:
    owner, revisions = web("web:1", "web:2")
    owner["spec"]["template"]["spec"]["containers"][0]["image"] = "web:3"
    owner["metadata"]["generation"] = 3
    assert not is_numbered(owner, revisions)
    undo = plan_undo(REF, owner, revisions, Asked())
    assert undo.revision is None and undo.to_revision == 2 and undo.from_revision == 3
    after = applied(owner, undo.change.patch)
    assert not plan_undo(REF, after, revisions, Asked()).change.changed


def test_nothing_of_a_newer_template_stays_and_nothing_else_changes() -> None:
    owner, revisions = web("web:1", "web:2")
    pods = owner["spec"]["template"]["spec"]
    pods["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    pods["containers"][0]["env"] = [{"name": "LEVEL", "value": "debug"}]
    owner["spec"]["template"]["metadata"]["annotations"] = {"note": "new"}
    revisions[1]["spec"]["template"] = copy.deepcopy(owner["spec"]["template"])
    undo = plan_undo(REF, owner, revisions, Asked())
    after = applied(owner, undo.change.patch)
    assert after["spec"]["template"] == template_of(revisions[0])
    assert "pod-template-hash" not in after["spec"]["template"]["metadata"]["labels"]
    kept = {key: value for key, value in after["metadata"]["annotations"].items() if key not in (UNDONE, CHANGE_CAUSE)}
    assert kept == {key: value for key, value in owner["metadata"]["annotations"].items() if key != CHANGE_CAUSE}
    assert undo.change.before["containers"] == {"app": {"image": "web:2", "env": {"LEVEL": "debug"}}}
    assert undo.change.after["containers"] == {"app": {"image": "web:1"}}


@pytest.mark.parametrize(("cause", "given"), [("", None), ("", ""), ("why", "why")])
def test_a_cause_is_given_or_that_of_the_revision_or_none(cause: str, given: str | None) -> None:
    owner, revisions = web("web:1", "web:2")
    del revisions[0]["metadata"]["annotations"][CHANGE_CAUSE]
    undo = plan_undo(REF, owner, revisions, Asked(change_cause=given))
    after = applied(owner, undo.change.patch)
    assert after["metadata"]["annotations"].get(CHANGE_CAUSE, "") == cause == undo.change_cause
    assert (CHANGE_CAUSE in after["metadata"]["annotations"]) is bool(cause)


def test_a_workload_without_annotations_gets_some() -> None:
    owner, revisions = web("web:1", "web:2", kind="StatefulSet")
    owner["kind"] = "Deployment"
    del owner["metadata"]["annotations"]
    patch = plan_undo(Ref("StatefulSet", "shop", "web"), {**owner, "kind": "StatefulSet"}, revisions, Asked()).change.patch
    assert UNDONE in applied(owner, patch)["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("numbers", "name", "number"),
    [((1, 2, 3), "web-a", 4), ((1, 2, 3), "web-c", 3), ((1, 2, 3), None, 4), ((), None, 1), ((7,), "web-a", 7)],
)
def test_the_next_number_is_one_more_than_that_of_all_others(numbers: tuple[int, ...], name: str | None, number: int) -> None:
    owner = deployment()
    revisions = revisions_in(owner, [replica_set(owner, entry, "abc"[index], "web:1") for index, entry in enumerate(numbers)])
    assert next_number(name, revisions) == number


def test_stuck_pods_are_those_that_an_ordered_stateful_set_waits_for() -> None:
    owner, _revisions = web("web:1", "web:2", kind="StatefulSet")

    def made(name: str, digest: str, ready: bool = False, **meta: Any) -> dict[str, Any]:
        found = pod(name, {"controller-revision-hash": digest}, ready=ready)
        found["metadata"].update({"ownerReferences": [{"controller": True, "uid": "uid-web"}], **meta})
        return found

    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    pods = [
        made("web-0", "web-a", ready=True),
        made("web-1", "web-b"),
        made("web-2", "web-b", **gone),
        made("web-3", "web-a"),
        made("web-4", "web-b", ready=True),
    ]
    foreign = made("web-5", "web-b", ownerReferences=[{"controller": True, "uid": "other"}])

    def names(target: str = "web-a", **spec: Any) -> list[str]:
        workload = {**owner, "spec": {**owner["spec"], **spec}}
        return [entry["metadata"]["name"] for entry in stuck_pods(workload, [*pods, foreign], target)]

    assert names() == ["web-1"]
    assert names(podManagementPolicy="Parallel") == names(updateStrategy={"type": "OnDelete"}) == names(target="") == []
    assert names(updateStrategy={"rollingUpdate": {"partition": 2}}) == []
    assert stuck_pods({**owner, "kind": "Deployment"}, pods, "web-a") == []


def test_a_release_deletes_what_was_never_rolled_out_whole_or_can_never_start() -> None:
    owner, _revisions = web("web:1", "web:2", "web:3", kind="StatefulSet")
    owner["status"] = {**owner.get("status", {}), "currentRevision": "web-a"}

    def made(name: str, digest: str, **status: Any) -> dict[str, Any]:
        found = pod(name, {"controller-revision-hash": digest}, ready=False)
        found["metadata"]["ownerReferences"] = [{"controller": True, "uid": "uid-web"}]
        found["status"].update(status)
        return found

    waiting = {"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
    slow, broken, unproven, newest = (
        made("web-0", "web-a"),
        made("web-1", "web-a", **waiting),
        made("web-2", "web-b"),
        made("web-3", "web-c"),
    )
    found = superseded_pods(owner, [slow, broken, unproven, newest], "web-c")
    assert [entry["metadata"]["name"] for entry in found] == ["web-1", "web-2"]


# -- the difference in the words of the domain ---------------------------------------------------------------------


def template(labels: dict[str, str] | None = None, **container: Any) -> dict[str, Any]:
    """Return a pod template of one container."""
    return {"metadata": {"labels": labels or {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "web:1", **container}]}}


def env(**variables: Any) -> list[dict[str, Any]]:
    """Return variables as a container has them."""
    return [{"name": name, **(value if isinstance(value, dict) else {"value": value})} for name, value in variables.items()]


def reference(kind: str, **source: Any) -> dict[str, Any]:
    """Return where a variable is from."""
    return {"valueFrom": {kind: source}}


DIFFERENCES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "the image": ({}, {"image": "web:2"}, {"image": "web:1"}, {"image": "web:2"}),
    "a variable": (
        {"env": env(A="1", LEVEL="info")},
        {"env": env(A="1", LEVEL="debug")},
        {"env": {"LEVEL": "info"}},
        {"env": {"LEVEL": "debug"}},
    ),
    "variables that were added": ({}, {"env": env(LEVEL="debug", EMPTY="")}, {}, {"env": {"LEVEL": "debug", "EMPTY": ""}}),
    "a secret by its name": ({"env": env(TOKEN="a")}, {}, {"env": {"TOKEN": "********"}}, {}),
    "a secret that differs": (
        {"env": env(TOKEN="a")},
        {"env": env(TOKEN="b")},
        {"env": {"TOKEN": "********"}},
        {"env": {"TOKEN": "******** (another value)"}},
    ),
    "where a variable is from": (
        {"env": env(A=reference("secretKeyRef", name="db", key="pw"), B=reference("fieldRef", fieldPath="status.podIP"))},
        {"env": env(A=reference("configMapKeyRef", name="web", key="a"), B=reference("resourceFieldRef", resource="limits.cpu"))},
        {"env": {"A": "from Secret db, key pw", "B": "from field status.podIP"}},
        {"env": {"A": "from ConfigMap web, key a", "B": "from resource limits.cpu"}},
    ),
    "the order of variables": ({"env": env(A="1", B="2")}, {"env": env(B="2", A="1")}, {"env": ["A", "B"]}, {"env": ["B", "A"]}),
    "a part of the resources": (
        {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}},
        {"resources": {"requests": {"cpu": "20m", "memory": "16Mi"}}},
        {"resources": {"requests": {"cpu": "10m"}}},
        {"resources": {"requests": {"cpu": "20m"}}},
    ),
    "resources that were empty": ({"resources": {}}, {"resources": {"limits": {"cpu": "1"}}}, {}, {"resources": {"limits": {"cpu": "1"}}}),
    "a header of a probe": (
        {"readinessProbe": {"httpGet": {"path": "/", "httpHeaders": [{"name": "Authorization", "value": "x"}]}}},
        {"readinessProbe": {"httpGet": {"path": "/", "httpHeaders": [{"name": "Authorization", "value": "y"}]}}},
        {"readinessProbe": {"httpGet": {"httpHeaders": {"Authorization": "********"}}}},
        {"readinessProbe": {"httpGet": {"httpHeaders": {"Authorization": "******** (another value)"}}}},
    ),
    "a password on the command line": (
        {"args": ["--password", "a"]},
        {"args": ["--password", "b"]},
        {"args": ["--password", "********"]},
        {"args": ["--password", "********", "(another value)"]},
    ),
    "a port": (
        {"ports": [{"containerPort": 1, "name": "a"}]},
        {"ports": [{"containerPort": 2}]},
        {"ports": {"1": {"name": "a"}}},
        {"ports": {"2": {}}},
    ),
}


@pytest.mark.parametrize(("before", "after", "old", "new"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_says_no_more_than_what_differs(
    before: dict[str, Any], after: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    found = template_changes(template(**before), template(**after))
    assert found == ({"containers": {"app": old}} if old else {}, {"containers": {"app": new}} if new else {})


def test_containers_volumes_labels_and_annotations_differ_by_name() -> None:
    before, after = template(), template({"app": "web", "tier": "front"})
    after["metadata"]["annotations"] = {"vault-token": "s3cr3t"}
    after["spec"]["containers"].append({"name": "side", "image": "side:1"})
    after["spec"]["volumes"] = [{"name": "scratch", "emptyDir": {}}, {"name": "db", "secret": {"secretName": "db"}}]
    after["spec"]["affinity"] = {"topologyKey": "kubernetes.io/hostname"}
    assert template_changes(before, after) == (
        {},
        {
            "labels": {"tier": "front"},
            "annotations": {"vault-token": "********"},
            "containers": {"side": {"image": "side:1"}},
            "volumes": {"scratch": {"emptyDir": {}}, "db": {"secret": {"secretName": "db"}}},
            "affinity": {"topologyKey": "kubernetes.io/hostname"},
        },
    )
    assert template_changes(after, after) == ({}, {})


SECRET = "DB_PASSWORD PGPASSWORD STRIPE_KEY apiKey AWS_ACCESS_KEY_ID VAULT_SECRET_ID SLACK_WEBHOOK_URL dbPassword Authorization DSN KEY"
PUBLIC = "LEVEL PASSWORD_FILE TOKEN_TTL AUTHOR KEYCLOAK_URL DATABASE_URL TLS_KEY_PATH COMPASS MONKEY SECRET_NAME AUTH_USER"


@pytest.mark.parametrize(("name", "secret"), [*((name, True) for name in SECRET.split()), *((name, False) for name in PUBLIC.split())])
def test_a_name_tells_whether_its_value_is_a_secret(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://shop:p@ss@db:5432/shop?sslmode=off", "postgres://********@db:5432/shop?sslmode=off"),
        ("serve --password=s3cr3t --level=debug", "serve --password=******** --level=debug"),
        ('{"password": "s3 cr3t", "a": 1}', '{"password": ********, "a": 1}'),
        ("kubectl set env deploy/x API_TOKEN=s3cr3t --record", "kubectl set env deploy/x API_TOKEN=******** --record"),
        ("Authorization: Bearer s3cr3t", "Authorization: Bearer ********"),
        ("https://x/hook?sig=s3cr3t&a=1", "https://x/hook?sig=********&a=1"),
        ("localhost:32000/podinfo@sha256:abc", "localhost:32000/podinfo@sha256:abc"),
        ("release 2.0.0, ticket SHOP-12", "release 2.0.0, ticket SHOP-12"),
    ],
)
def test_a_secret_within_a_text_is_hidden(text: str, shown: str) -> None:
    assert masked_text(text) == shown


def test_a_secret_that_follows_its_flag_is_hidden() -> None:
    assert masked_words(["serve", "--db-password", "x", "--level", "debug", "--token", "--x"]) == [
        "serve",
        "--db-password",
        "********",
        "--level",
        "debug",
        "--token",
        "--x",
    ]


# -- the history -----------------------------------------------------------------------------------------------------


def test_the_history_counts_pods_and_ages_and_knows_former_numbers() -> None:
    owner, revisions = web("web:1", "web:2")
    renumber(revisions, "web-a", 3)
    owner["spec"]["template"]["spec"]["containers"][0]["image"] = "web:1"
    revisions[0]["metadata"]["creationTimestamp"] = "1970-01-02T00:00:00Z"
    revisions[0]["status"] = {"replicas": 3, "readyReplicas": 2}
    revisions[0]["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
    owner["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "10m"}}
    newest, _older = history(owner, revisions, (), 3 * DAY)
    assert (newest["revision"], newest["former"], newest["live"]) == (3, [1], True)
    assert (newest["replicas"], newest["ready"], newest["age"]) == (3, 2, 2 * DAY)
    assert newest["requests"] == {"app": {"cpu": "10m"}}


@pytest.mark.parametrize(("kind", "digest"), [("StatefulSet", "web-b"), ("DaemonSet", "b")])
def test_pods_of_a_controller_revision_are_counted_by_their_hash_and_owner(kind: str, digest: str) -> None:
    owner, revisions = web("web:1", "web:2", kind=kind)
    pods = []
    for number, uid in enumerate(("uid-web", "uid-web", "other")):
        found = pod(f"web-{number}", {"controller-revision-hash": digest}, ready=number == 0)
        found["metadata"]["ownerReferences"] = [{"controller": True, "uid": uid}]
        pods.append(found)
    newest, older = history(owner, revisions, pods, 0)
    assert (newest["replicas"], newest["ready"], older["replicas"]) == (2, 1, 0)
    assert [(entry["name"], entry["revision"]) for entry in report_pods(owner, revisions, pods, 0)] == [("web-0", 2), ("web-1", 2)]


@pytest.mark.parametrize(
    ("status", "reason", "message"),
    [
        ({"state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}, "ErrImagePull", "container app: not found"),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"reason": "Error", "exitCode": 1}},
                "restartCount": 5,
            },
            "CrashLoopBackOff",
            "container app: Error with exit code 1, restarted 5 times",
        ),
        ({}, "", "container app runs and is not ready"),
    ],
)
def test_a_pod_says_why_it_is_not_ready(status: dict[str, Any], reason: str, message: str) -> None:
    owner, revisions = web("web:1")
    (told,) = report_pods(owner, revisions, [pod("web-1", {}, ready=False, **status)], 0)
    assert (told["reason"], told["message"]) == (reason, message)


def test_a_pod_without_a_node_says_so_in_the_schedulers_words() -> None:
    owner, revisions = web("web:1")
    homeless = pod("web-1", {}, ready=False)
    homeless["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: Insufficient cpu"}],
    }
    (told,) = report_pods(owner, revisions, [homeless], 0)
    assert (told["reason"], told["message"]) == ("Unschedulable", "0/1 nodes: Insufficient cpu")
