# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of a history and of an undo, and the filter that makes it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.progressive.delivery.plugins.filter.rollout_table import rollout_table
from ansible_collections.progressive.delivery.plugins.module_utils.plan.table import age_words, undo_lines

STATUS = {
    "phase": "progressing",
    "message": "waiting for 1 more pods of the new revision",
    "wanted": 3,
    "updated": 1,
    "ready": 3,
    "available": 3,
}


def revision(number: int, **given: Any) -> dict[str, Any]:
    """Return a revision as rollout_info reports it."""
    found = {"revision": number, "former": [], "images": {"app": f"web:{number}"}, "change_cause": f"release {number}", "age": 190}
    return {**found, "replicas": 0, "ready": 0, "live": False, **given}


def info(*revisions: dict[str, Any], **given: Any) -> dict[str, Any]:
    """Return a result of rollout_info."""
    about = {"kind": "Deployment", "namespace": "shop", "name": "web"}
    return {**about, "status": STATUS, "revision": 3, "revisions": list(revisions), "pods": [], **given}


def test_a_history_is_aligned_and_says_why_pods_are_not_ready() -> None:
    crash = {"reason": "CrashLoopBackOff", "message": "container app: Error with exit code 1", "restarts": 5, "age": 200, "revision": 3}
    pods = [{"name": "web-c-1", "ready": False, "phase": "Running", **crash}, {"name": "web-b-1", "ready": True}]
    revisions = [revision(3, live=True, replicas=1), revision(2, replicas=3, ready=3, age=7300), revision(1, age=400000, change_cause="")]
    assert rollout_table(info(*revisions, pods=pods)) == (
        "Deployment shop/web: progressing, revision 3, 1 updated, 3 ready, 3 available of 3 pods\n"
        "  waiting for 1 more pods of the new revision\n"
        "\n"
        "REVISION  LIVE  PODS  READY  AGE  IMAGES  CHANGE CAUSE\n"
        "       3  *        1      0  3m   web:3   release 3\n"
        "       2           3      3  2h   web:2   release 2\n"
        "       1           0      0  4d   web:1\n"
        "\n"
        "POD NOT READY  REVISION  AGE  RESTARTS  REASON\n"
        "web-c-1               3  3m          5  CrashLoopBackOff: container app: Error with exit code 1"
    )


def test_former_numbers_several_containers_and_long_causes_fit() -> None:
    found = revision(4, former=[1, 2], images={"app": "web:1", "side": "side:1"}, change_cause="because\n" + "x" * 100)
    lines = rollout_table(info(found, revision=None, status={**STATUS, "phase": "complete", "message": "complete"}), lines=True)
    assert lines[0].startswith("Deployment shop/web: complete, revision not numbered yet, 1 updated")
    assert lines[2].split() == ["REVISION", "WAS", "LIVE", "PODS", "READY", "AGE", "IMAGES", "CHANGE", "CAUSE"]
    assert lines[3].split()[:2] == ["4", "1,2"] and "app=web:1, side=side:1" in lines[3]
    assert lines[3].endswith("because " + "x" * 59 + "...")


def test_an_undo_is_a_table_of_what_changes() -> None:
    before = {"revision": 3, "containers": {"app": {"image": "web:3", "env": {"LEVEL": "debug", "EMPTY": ""}}}, "paused": True}
    after = {"revision": None, "containers": {"app": {"image": "web:2", "args": ["a", "b"]}}, "paused": False, "volumes": {"x": {}}}
    result = {"msg": "went back", "changed": True, "from_revision": 3, "before": before, "after": after}
    assert undo_lines(result) == [
        "went back",
        "",
        "WHAT                      BEFORE  AFTER",
        "revision                  3       -",
        "containers app image      web:3   web:2",
        "containers app env LEVEL  debug   -",
        'containers app env EMPTY  ""      -',
        "containers app args       -       a b",
        "paused                    true    false",
        "volumes x                 -       present",
    ]
    assert rollout_table({**result, "changed": False}) == "went back"


def test_the_result_of_a_loop_is_one_table_after_the_other() -> None:
    two = rollout_table({"results": [info(revision(1)), info(revision(2))]}, lines=True)
    one = rollout_table(info(revision(1)), lines=True)
    assert two[: len(one)] == one and two[len(one)] == "" and len(two) == 2 * len(one) + 1


@pytest.mark.parametrize("given", [{}, "text", None, [], {"revisions": []}, {"results": [{}]}, {"failed": True, "msg": "no"}])
def test_what_is_no_result_is_refused_in_one_sentence(given: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="rollout_table takes the result of rollout_info or of undo_rollout"):
        rollout_table(given)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (86400, "1d"), (10 * 86400, "10d")],
)
def test_ages_are_those_that_people_say(seconds: int | None, words: str) -> None:
    assert age_words(seconds) == words
