# SPDX-License-Identifier: GPL-3.0-or-later
"""Strategies: what may be asked for, what is written for it, and how many pods there are meanwhile."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Change, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.strategy import (
    LARGEST,
    PROFILES,
    Amount,
    asked_strategy,
    observed_strategy,
    plan_strategy,
    pod_limits,
    wanted_pods,
)
from support.fake import FakeCluster
from support.objects import deployment

Manifest = dict[str, Any]
NAMES = {"Deployment": "web", "StatefulSet": "db", "DaemonSet": "agent"}
# As the API server fills them in.
FILLED_IN: dict[str, Manifest] = {
    "Deployment": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    "StatefulSet": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    "DaemonSet": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
}


def workload(kind: str = "Deployment", strategy: Manifest | None = None, pods: int = 5, **spec: Any) -> Manifest:
    """Return a workload with a strategy, or with the one that the API server fills in."""
    found = {**deployment(NAMES[kind], replicas=pods), "kind": kind}
    found["metadata"]["resourceVersion"] = "7"
    found["spec"]["strategy" if kind == "Deployment" else "updateStrategy"] = copy.deepcopy(strategy or FILLED_IN[kind])
    found["spec"].update({"revisionHistoryLimit": 10, **({"progressDeadlineSeconds": 600} if kind == "Deployment" else {}), **spec})
    if kind == "DaemonSet":
        del found["spec"]["replicas"]
        found["status"]["desiredNumberScheduled"] = pods
    return found


def plan(found: Manifest, **given: Any) -> Change:
    """Return the change that these options make of a workload."""
    ref = Ref(found["kind"], "shop", found["metadata"]["name"])
    return plan_strategy(ref, found, asked_strategy(ref, given))


def applied(found: Manifest, **given: Any) -> Manifest:
    """Return a workload as it is after the change that these options make of it."""
    cluster = FakeCluster(found)
    cluster.max_unavailable_of_stateful_sets = True
    ref = Ref(found["kind"], "shop", found["metadata"]["name"])
    change = plan(cluster.get(ref), **given)
    return cluster.patch(ref, change.patch, MERGE_PATCH) if change.changed else found


def limits(found: Manifest) -> tuple[int, int]:
    """Return the least and the most pods during an update of a workload."""
    kind = found["kind"]
    pods = pod_limits(kind, observed_strategy(kind, found), wanted_pods(kind, found))
    return pods["at_least"], pods["at_most"]


RECREATE = {"type": "Recreate"}
ON_DELETE = {"type": "OnDelete"}
# {what: (kind, strategy that is there, options, the patch under spec)}
PATCHES: dict[str, tuple[str, Manifest | None, Manifest, Manifest]] = {
    "a profile": (
        "Deployment",
        None,
        {"profile": "conservative"},
        {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
    ),
    "one limit, the other stays": ("Deployment", None, {"max_surge": "2"}, {"strategy": {"rollingUpdate": {"maxSurge": 2}}}),
    "a percentage": ("Deployment", None, {"max_surge": "150%"}, {"strategy": {"rollingUpdate": {"maxSurge": "150%"}}}),
    "Recreate drops the limits": (
        "Deployment",
        None,
        {"type": "Recreate"},
        {"strategy": {"type": "Recreate", "rollingUpdate": None}},
    ),
    "back, with the limits that the API server fills in": (
        "Deployment",
        RECREATE,
        {"type": "RollingUpdate"},
        {"strategy": {"type": "RollingUpdate"}},
    ),
    "back by a profile alone": (
        "Deployment",
        RECREATE,
        {"profile": "fast"},
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "50%"}}},
    ),
    "back by a limit that is the default": ("Deployment", RECREATE, {"max_surge": "25%"}, {"strategy": {"type": "RollingUpdate"}}),
    "seconds alone": ("Deployment", RECREATE, {"min_ready_seconds": 5}, {"minReadySeconds": 5}),
    "all of the spec": (
        "Deployment",
        None,
        {"min_ready_seconds": 700, "progress_deadline_seconds": 701, "revision_history_limit": 0},
        {"minReadySeconds": 700, "progressDeadlineSeconds": 701, "revisionHistoryLimit": 0},
    ),
    "a partition": ("StatefulSet", None, {"partition": 2}, {"updateStrategy": {"rollingUpdate": {"partition": 2}}}),
    "a partition for one that has no limits": (
        "StatefulSet",
        ON_DELETE,
        {"partition": 2},
        {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}},
    ),
    "OnDelete drops the partition": (
        "StatefulSet",
        {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}},
        {"type": "OnDelete"},
        {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}},
    ),
    "half of a StatefulSet": (
        "StatefulSet",
        None,
        {"profile": "fast"},
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}},
    ),
    "a surge instead of missing pods": (
        "DaemonSet",
        None,
        {"profile": "conservative"},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
    ),
    "the limits that a DaemonSet kept": (
        "DaemonSet",
        {"type": "OnDelete", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 3}},
        {"max_unavailable": "3"},
        {"updateStrategy": {"type": "RollingUpdate"}},
    ),
}


@pytest.mark.parametrize(("kind", "strategy", "given", "patch"), PATCHES.values(), ids=PATCHES)
def test_writes_what_differs_and_nothing_else(kind: str, strategy: Manifest | None, given: Manifest, patch: Manifest) -> None:
    found = workload(kind, strategy)
    change = plan(found, **given)
    assert change.patch == {"metadata": {"resourceVersion": "7"}, "spec": patch}
    assert change.before != change.after and change.actions
    again = plan(applied(found, **given), **given)
    assert not again.changed and again.before == again.after == change.after


# {what: (kind, strategy that is there, options that it fulfils)}
THE_SAME: dict[str, tuple[str, Manifest | None, Manifest]] = {
    "a number as text": (
        "Deployment",
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        {"max_surge": "1"},
    ),
    "a number as a number": (
        "Deployment",
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        {"max_surge": 1},
    ),
    "a percentage": ("Deployment", None, {"max_surge": "25%", "max_unavailable": "25%"}),
    "leading zeros": ("Deployment", None, {"max_surge": "025%"}),
    "no percent": (
        "Deployment",
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "0%"}},
        {"max_unavailable": "0"},
    ),
    "a profile": (
        "Deployment",
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        {"profile": "balanced"},
    ),
    "Recreate": ("Deployment", RECREATE, {"type": "Recreate"}),
    "no seconds": ("Deployment", None, {"min_ready_seconds": 0, "progress_deadline_seconds": 600, "revision_history_limit": 10}),
    "nothing asked": ("DaemonSet", None, {}),
    "a StatefulSet without the feature gate": ("StatefulSet", None, {"profile": "balanced"}),
    "a StatefulSet without any limits": ("StatefulSet", {"type": "RollingUpdate"}, {"max_unavailable": "1", "partition": 0}),
    "OnDelete with limits that rest": ("DaemonSet", {"type": "OnDelete", "rollingUpdate": {"maxUnavailable": 3}}, {"type": "OnDelete"}),
}


@pytest.mark.parametrize(("kind", "strategy", "given"), THE_SAME.values(), ids=THE_SAME)
def test_what_is_the_same_is_no_change(kind: str, strategy: Manifest | None, given: Manifest) -> None:
    change = plan(workload(kind, strategy), **given)
    assert not change.changed and change.before == change.after and not change.actions


def test_a_number_and_a_percentage_that_come_to_the_same_differ() -> None:
    found = workload(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    assert plan(found, max_surge="20%").patch["spec"] == {"strategy": {"rollingUpdate": {"maxSurge": "20%"}}}


def test_before_and_after_have_the_words_that_were_asked_for() -> None:
    change = plan(workload(), profile="conservative", min_ready_seconds=10)
    assert change.before == {"type": "RollingUpdate", "max_surge": "25%", "max_unavailable": "25%", "min_ready_seconds": 0}
    assert change.after == {"type": "RollingUpdate", "max_surge": 1, "max_unavailable": 0, "min_ready_seconds": 10}
    assert change.actions[0] == "set max_surge of Deployment shop/web from 25% to 1"
    gone = plan(workload(), type="Recreate")
    assert gone.after == {"type": "Recreate"}
    assert gone.actions == ("set type of Deployment shop/web from RollingUpdate to Recreate",)


# {what: (kind, strategy that is there, options, the sentence)}. Those that the API server refuses too, in the same words
# or others, stand again in tests/integration/test_strategy.py, where it is asked.
REFUSED: dict[str, tuple[str, Manifest | None, Manifest, str]] = {
    "Recreate of a StatefulSet": (
        "StatefulSet",
        None,
        {"type": "Recreate"},
        "StatefulSet shop/db cannot have the type Recreate; a StatefulSet has RollingUpdate or OnDelete",
    ),
    "Recreate of a DaemonSet": ("DaemonSet", None, {"type": "Recreate"}, "a DaemonSet has RollingUpdate or OnDelete"),
    "OnDelete of a Deployment": ("Deployment", None, {"type": "OnDelete"}, "a Deployment has Recreate or RollingUpdate"),
    "a profile and a limit": (
        "Deployment",
        None,
        {"profile": "fast", "max_surge": "1"},
        "profile fast of Deployment shop/web stands for max_surge and max_unavailable; leave out profile, or max_surge",
    ),
    "a profile and both limits": (
        "Deployment",
        None,
        {"profile": "fast", "max_surge": "1", "max_unavailable": "1"},
        "leave out profile, or max_surge and max_unavailable",
    ),
    "a profile and Recreate": (
        "Deployment",
        None,
        {"profile": "fast", "type": "Recreate"},
        "profile fast of Deployment shop/web is one of type RollingUpdate and not of Recreate; leave one of them out",
    ),
    "limits and Recreate": (
        "Deployment",
        None,
        {"type": "Recreate", "max_surge": "1"},
        "max_surge of Deployment shop/web belongs to type RollingUpdate and not to Recreate",
    ),
    "limits and OnDelete": (
        "StatefulSet",
        None,
        {"type": "OnDelete", "max_unavailable": "1", "partition": 1},
        "max_unavailable and partition of StatefulSet shop/db belong to type RollingUpdate and not to OnDelete",
    ),
    "no number": (
        "Deployment",
        None,
        {"max_surge": "some"},
        'max_surge of Deployment shop/web must be a whole number, or a percentage such as "25%", got "some"',
    ),
    "a fraction": ("Deployment", None, {"max_surge": "0.25"}, 'got "0.25"'),
    "a fraction of a percent": ("Deployment", None, {"max_surge": "2.5%"}, 'got "2.5%"'),
    "less than nothing": ("Deployment", None, {"max_unavailable": "-1"}, "max_unavailable of Deployment shop/web must be a whole number"),
    "less than no percent": ("Deployment", None, {"max_unavailable": "-1%"}, 'got "-1%"'),
    "a plus": ("Deployment", None, {"max_surge": "+1"}, 'got "+1"'),
    "a space": ("Deployment", None, {"max_surge": "25 %"}, 'got "25 %"'),
    "a line": ("Deployment", None, {"max_surge": "25%\n"}, "must be a whole number"),
    "digits of another script": ("Deployment", None, {"max_surge": "\u0665"}, "must be a whole number"),
    "nothing at all": ("Deployment", None, {"max_surge": ""}, 'got ""'),
    "true": ("Deployment", None, {"max_surge": True}, 'got "True"'),
    "more than the field holds": ("Deployment", None, {"max_surge": str(LARGEST + 1)}, "must be 2147483647 at most, got 2147483648"),
    "more than a controller can count": (
        "Deployment",
        None,
        {"max_surge": str(LARGEST)},
        "max_surge 2147483647 of Deployment shop/web allows 2147483652 pods, more than a controller can count; use less",
    ),
    "more than all missing": (
        "Deployment",
        None,
        {"max_unavailable": "101%"},
        "max_unavailable of Deployment shop/web must be 100% at most, got 101%",
    ),
    "more than all missing, of a StatefulSet": ("StatefulSet", None, {"max_unavailable": "101%"}, "must be 100% at most, got 101%"),
    "more than twice a DaemonSet": (
        "DaemonSet",
        None,
        {"max_surge": "101%", "max_unavailable": "0"},
        "max_surge of DaemonSet shop/agent must be 100% at most",
    ),
    "both 0": (
        "Deployment",
        None,
        {"max_surge": "0", "max_unavailable": "0"},
        "Deployment shop/web could replace no pod with max_surge 0 and max_unavailable 0; raise one of them",
    ),
    "both 0 in percent": (
        "Deployment",
        None,
        {"max_surge": "0%", "max_unavailable": "00%"},
        "could replace no pod with max_surge 0 and max_unavailable 0;",
    ),
    "0 where the other is 0": (
        "Deployment",
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        {"max_unavailable": "0"},
        "could replace no pod with max_surge 0 (as it is) and max_unavailable 0; raise one of them",
    ),
    "0 where the other is 0 by default": (
        "DaemonSet",
        ON_DELETE,
        {"max_unavailable": "0"},
        "DaemonSet shop/agent could replace no pod with max_surge 0 (as it is) and max_unavailable 0",
    ),
    "both limits of a DaemonSet": (
        "DaemonSet",
        None,
        {"max_surge": "1", "max_unavailable": "1"},
        "DaemonSet shop/agent cannot have both max_surge 1 and max_unavailable 1: a DaemonSet takes one of them; set the other one to 0",
    ),
    "a surge where pods may be missing": ("DaemonSet", None, {"max_surge": "1"}, "max_surge 1 and max_unavailable 1 (as it is)"),
    "a StatefulSet without missing pods": (
        "StatefulSet",
        None,
        {"max_unavailable": "0"},
        "max_unavailable of StatefulSet shop/db cannot be 0",
    ),
    "the surge of a StatefulSet": (
        "StatefulSet",
        None,
        {"max_surge": "1"},
        "StatefulSet shop/db has no max_surge: a StatefulSet ends a pod before",
    ),
    "the careful profile of a StatefulSet": (
        "StatefulSet",
        None,
        {"profile": "conservative"},
        "so one is always missing; use balanced or fast",
    ),
    "the partition of a Deployment": (
        "Deployment",
        None,
        {"partition": 1},
        "Deployment shop/web has no partition, only a StatefulSet has; pause a Deployment's rollout to update a part of it",
    ),
    "the partition of a DaemonSet": ("DaemonSet", None, {"partition": 1}, "has no partition, only a StatefulSet has; leave it out"),
    "a partition below 0": ("StatefulSet", None, {"partition": -1}, "partition of StatefulSet shop/db must be a whole number from 0 to"),
    "the deadline of a StatefulSet": (
        "StatefulSet",
        None,
        {"progress_deadline_seconds": 60},
        "has no progress_deadline_seconds, only a Deployment has; give the timeout of wait_rollout instead",
    ),
    "a deadline that is not more": (
        "Deployment",
        None,
        {"progress_deadline_seconds": 30, "min_ready_seconds": 30},
        "Deployment shop/web cannot have progress_deadline_seconds 30 and min_ready_seconds 30: the deadline must be more;",
    ),
    "seconds that reach the deadline": (
        "Deployment",
        None,
        {"min_ready_seconds": 600},
        "progress_deadline_seconds 600 (as it is) and min_ready_seconds 600",
    ),
    "no deadline": ("Deployment", None, {"progress_deadline_seconds": 0}, "progress_deadline_seconds 0 and min_ready_seconds 0 (as it is)"),
    "a deadline below 0": ("Deployment", None, {"progress_deadline_seconds": -1}, "must be a whole number from 0 to 2147483647, got -1"),
    "seconds below 0": ("DaemonSet", None, {"min_ready_seconds": -1}, "min_ready_seconds of DaemonSet shop/agent must be"),
    "seconds beyond the field": ("DaemonSet", None, {"min_ready_seconds": LARGEST + 1}, "got 2147483648"),
    "less than no history": ("StatefulSet", None, {"revision_history_limit": -1}, "revision_history_limit of StatefulSet shop/db must be"),
}


@pytest.mark.parametrize(("kind", "strategy", "given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence(kind: str, strategy: Manifest | None, given: Manifest, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan(workload(kind, strategy), **given)
    assert sentence in caught.value.message
    assert f"{kind} shop/{NAMES[kind]}" in caught.value.message


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("Deployment", {"max_surge": "1000%"}),
        ("Deployment", {"max_unavailable": "100%", "max_surge": "0"}),
        ("Deployment", {"max_unavailable": "1000"}),
        ("Deployment", {"progress_deadline_seconds": LARGEST}),
        ("Deployment", {"progress_deadline_seconds": 1}),
        ("StatefulSet", {"partition": 100, "min_ready_seconds": LARGEST}),
        ("DaemonSet", {"max_unavailable": "100%"}),
    ],
)
def test_what_the_api_server_takes_is_taken(kind: str, given: Manifest) -> None:
    assert plan(workload(kind), **given).changed


# (kind, surge, unavailable, {replicas: (available at least, existing at most)})
CONSERVATIVE = {0: (0, 0), 1: (1, 2), 2: (2, 3), 3: (3, 4), 5: (5, 6), 10: (10, 11), 1000: (1000, 1001)}
BALANCED = {0: (0, 0), 1: (0, 2), 2: (1, 3), 3: (2, 4), 5: (4, 6), 10: (9, 11), 1000: (999, 1001)}
FAST = {0: (0, 0), 1: (1, 2), 2: (1, 4), 3: (2, 6), 5: (3, 10), 10: (5, 20), 1000: (500, 2000)}
ONE_MISSING = {0: (0, 0), 1: (0, 1), 2: (1, 2), 3: (2, 3), 5: (4, 5), 10: (9, 10), 1000: (999, 1000)}
ARITHMETIC: dict[str, tuple[str, Manifest, dict[int, tuple[int, int]]]] = {
    "Deployment conservative": ("Deployment", {"profile": "conservative"}, CONSERVATIVE),
    "Deployment balanced": ("Deployment", {"profile": "balanced"}, BALANCED),
    "Deployment fast": ("Deployment", {"profile": "fast"}, FAST),
    "Deployment as the API server makes it": (
        "Deployment",
        {},
        {0: (0, 0), 1: (1, 2), 2: (2, 3), 3: (3, 4), 4: (3, 5), 5: (4, 7), 10: (8, 13), 100: (75, 125)},
    ),
    "Deployment, both round to 0": (
        "Deployment",
        {"max_surge": "0", "max_unavailable": "1%"},
        {0: (0, 0), 1: (0, 1), 5: (4, 5), 200: (198, 200)},
    ),
    "Deployment, a surge of one percent": (
        "Deployment",
        {"max_surge": "1%", "max_unavailable": "0"},
        {1: (1, 2), 100: (100, 101), 101: (101, 103)},
    ),
    "Deployment, more missing than there are": ("Deployment", {"max_unavailable": "7"}, {0: (0, 0), 3: (0, 4), 7: (0, 9), 8: (1, 10)}),
    "Deployment, all missing": ("Deployment", {"max_surge": "0", "max_unavailable": "100%"}, {1: (0, 1), 5: (0, 5)}),
    "Recreate": ("Deployment", {"type": "Recreate"}, {0: (0, 0), 1: (0, 1), 5: (0, 5)}),
    "StatefulSet balanced": ("StatefulSet", {"profile": "balanced"}, ONE_MISSING),
    "StatefulSet fast": ("StatefulSet", {"profile": "fast"}, {0: (0, 0), 1: (0, 1), 2: (1, 2), 3: (2, 3), 5: (3, 5), 10: (5, 10)}),
    "StatefulSet with a partition": (
        "StatefulSet",
        {"max_unavailable": "3", "partition": 4},
        {0: (0, 0), 3: (3, 3), 4: (4, 4), 5: (4, 5), 6: (4, 6), 7: (4, 7), 10: (7, 10)},
    ),
    "StatefulSet OnDelete": ("StatefulSet", {"type": "OnDelete"}, {0: (0, 0), 5: (5, 5)}),
    "DaemonSet conservative": ("DaemonSet", {"profile": "conservative"}, CONSERVATIVE),
    "DaemonSet balanced": ("DaemonSet", {"profile": "balanced"}, ONE_MISSING),
    # Of a DaemonSet, what may be missing is rounded up.
    "DaemonSet fast": ("DaemonSet", {"profile": "fast"}, {0: (0, 0), 1: (0, 1), 2: (1, 2), 3: (1, 3), 5: (2, 5), 10: (5, 10)}),
    "DaemonSet, two pods a node at most": (
        "DaemonSet",
        {"max_surge": "9", "max_unavailable": "0"},
        {0: (0, 0), 1: (1, 2), 5: (5, 10), 10: (10, 19)},
    ),
    "DaemonSet OnDelete": ("DaemonSet", {"type": "OnDelete"}, {5: (5, 5)}),
}


@pytest.mark.parametrize(("kind", "given", "table"), ARITHMETIC.values(), ids=ARITHMETIC)
def test_the_number_of_pods_during_an_update(kind: str, given: Manifest, table: dict[int, tuple[int, int]]) -> None:
    found = {}
    for pods in table:
        found[pods] = limits(applied(workload(kind, pods=pods), **given))
    assert found == table


AMOUNTS = ("0", "1", "2", "7", "1%", "10%", "25%", "33%", "50%", "99%", "100%")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
@pytest.mark.parametrize("pods", [0, 1, 2, 3, 4, 5, 7, 10, 33, 100, 101])
def test_an_update_can_always_go_on_and_never_takes_more_than_it_may(kind: str, pods: int) -> None:
    tried = 0
    for surge in AMOUNTS if kind != "StatefulSet" else (None,):
        for unavailable in AMOUNTS:
            given = {"max_unavailable": unavailable, **({"max_surge": surge} if surge else {})}
            try:
                least, most = limits(applied(workload(kind, pods=pods), **given))
            except InvalidRequest:
                continue
            tried += 1
            assert 0 <= least <= pods <= most
            # One pod more or one less, else nothing could be replaced; nothing to replace, nothing that moves.
            assert (least < pods or most > pods) == (pods > 0)
            if kind == "StatefulSet":
                assert most == pods
            else:
                # No part of a surge is lost by rounding.
                amount = Amount.parse(surge)
                assert amount is not None and most - pods >= min(amount.of(pods, round_up=False), pods)
    assert tried >= 10


@pytest.mark.parametrize("kind", list(PROFILES))
@pytest.mark.parametrize("pods", [1, 2, 3, 5, 10, 100])
def test_profiles_go_from_careful_to_fast(kind: str, pods: int) -> None:
    rows = [limits(applied(workload(kind, pods=pods), profile=profile)) for profile in PROFILES[kind]]
    risk = [pods - least for least, _most in rows]
    # A half of one pod, rounded down, is none: for one pod, fast is a surge and nothing missing.
    assert pods == 1 or risk == sorted(risk)
    if kind != "StatefulSet":
        assert rows[0][0] == pods


def test_a_profile_is_a_fixed_point() -> None:
    for kind, profiles in PROFILES.items():
        for profile in profiles:
            after = applied(workload(kind), profile=profile)
            assert not plan(after, profile=profile).changed
            assert not plan(after, **profiles[profile]).changed


def test_the_way_to_recreate_and_back_leaves_no_trace() -> None:
    before = workload()
    there = applied(before, type="Recreate")
    assert there["spec"]["strategy"] == {"type": "Recreate"}
    back = applied(there, max_surge="25%", max_unavailable="25%")
    assert observed_strategy("Deployment", back) == observed_strategy("Deployment", before)


def test_too_large_a_surge_is_refused_where_there_are_no_pods_yet() -> None:
    with pytest.raises(InvalidRequest, match="more than a controller can count"):
        plan(workload(pods=0), max_surge=str(LARGEST))
    assert plan(workload(pods=0), max_surge=str(LARGEST - 1)).changed
