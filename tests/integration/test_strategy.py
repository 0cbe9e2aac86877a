# SPDX-License-Identifier: GPL-3.0-or-later
"""set_strategy on a real cluster: the pods of an update are counted, and the API server is asked about each refusal."""

from __future__ import annotations

import copy
import threading
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Manifest, Query, metadata
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import is_ready, is_terminating
from ansible_collections.progressive.delivery.plugins.module_utils.watching import Stream
from ansible_collections.progressive.delivery.plugins.modules import scale, set_image, set_strategy, wait_rollout
from support.live import Shop
from support.podinfo import IMAGE, LABELS, podinfo

pytestmark = pytest.mark.cluster
BLOCK = {"Deployment": "strategy", "StatefulSet": "updateStrategy", "DaemonSet": "updateStrategy"}
# A ReplicaSet that gives up a pod may do so a moment after another one has made its own.
MOMENT = 1.0


def strategy(shop: Shop, kind: str = "Deployment", **given: Any) -> dict[str, Any]:
    """Run set_strategy."""
    return shop.step(set_strategy, kind=kind, name="thing", **given)


def spec(shop: Shop, kind: str = "Deployment") -> Manifest:
    """Return the workload's spec."""
    return shop.get(kind, "thing")["spec"]


def idle(kind: str, **given: Any) -> Manifest:
    """Return a workload without pods."""
    found = podinfo(kind, replicas=0, **given)
    found["metadata"] = {**found["metadata"], "annotations": {"team": "shop"}}
    if kind == "DaemonSet":
        found["spec"]["template"]["spec"]["nodeSelector"] = {"there-is": "no-such-node"}
    return found


class Count:
    """Counts the pods of the workload at each change of one, for as long as the block runs.

    ``existing`` are those not on their way out, ``running`` all whose containers have not ended.
    """

    def __init__(self, shop: Shop) -> None:
        self.existing: list[tuple[float, int]] = []
        self.running: list[int] = []
        self.available: list[int] = []
        self.versions: list[set[str]] = []
        self.allowed: list[int] = []
        self._ending = 0
        self._shop, self._synced, self._stop = shop, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Count:
        """Start, and return when the first list is there."""
        self._thread.start()
        assert self._synced.wait(20)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop when the last pod on its way out is gone."""
        time.sleep(1)
        deadline = time.monotonic() + 60
        while self._ending and time.monotonic() < deadline:
            time.sleep(0.2)
        self._stop.set()
        self._thread.join(30)

    def longest_above(self, most: int) -> float:
        """Return for how long at a stretch there were more pods than that."""
        longest, since = 0.0, None
        for at, number in self.existing:
            longest = max(longest, at - since if since is not None else 0.0)
            since = (since if since is not None else at) if number > most else None
        return longest if since is None else float("inf")

    def _follow(self) -> None:
        """Take in events until told to stop."""
        tables: dict[str, dict[str, Manifest]] = {"Pod": {}, "ReplicaSet": {}}
        queries = [Query(kind, self._shop.namespace, f"app={LABELS['app']}") for kind in tables]
        with Stream(self._shop.cluster, queries, 300) as stream:
            synced = 0
            for event in stream.events(0.2):
                if event is None:
                    if self._stop.is_set() and stream.is_drained():
                        return
                    continue
                table = tables[event.query.kind]
                if event.type == "SYNCED":
                    table.clear()
                    table.update({metadata(entry)["name"]: entry for entry in event.items})
                    synced += 1
                elif event.type == "DELETED":
                    table.pop(metadata(event.object)["name"], None)
                else:
                    table[metadata(event.object)["name"]] = event.object
                self._take(list(tables["Pod"].values()), list(tables["ReplicaSet"].values()), event.query.kind)
                if synced == len(tables):
                    self._synced.set()

    def _take(self, pods: list[Manifest], replica_sets: list[Manifest], kind: str) -> None:
        """Count what there is now."""
        if kind == "ReplicaSet":
            self.allowed.append(sum(entry["spec"]["replicas"] for entry in replica_sets))
            return
        running = [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        self.existing.append((time.monotonic(), sum(not is_terminating(pod) for pod in pods)))
        self._ending = sum(is_terminating(pod) for pod in pods)
        self.running.append(len(running))
        self.available.append(sum(is_ready(pod) for pod in pods))
        self.versions.append({pod["spec"]["containers"][0]["image"] for pod in running})


def counted_update(shop: Shop, kind: str) -> Count:
    """Return the counts of an update to another image, from a complete rollout to the next."""
    with Count(shop) as count:
        outcome = shop.step(set_image, kind=kind, name="thing", images={"app": f"{IMAGE}:2.0.0"})
        assert outcome["changed"], outcome
        outcome = shop.step(wait_rollout, kind=kind, name="thing", timeout=180)
        assert "failed" not in outcome, outcome
    return count


ROLLING = {
    "conservative": ({"profile": "conservative"}, (5, 6)),
    "balanced": ({"profile": "balanced"}, (4, 6)),
    "fast": ({"profile": "fast"}, (3, 10)),
    "what the API server fills in": ({}, (4, 7)),
    "no surge": ({"max_surge": 0, "max_unavailable": "40%"}, (3, 5)),
}


@pytest.mark.parametrize(("given", "announced"), ROLLING.values(), ids=ROLLING)
def test_a_rolling_update_of_a_deployment_stays_within_what_is_announced(empty: Shop, given: Manifest, announced: tuple[int, int]) -> None:
    least, most = announced
    empty.create(podinfo(replicas=5))
    outcome = strategy(empty, **given)
    assert outcome["pods"] == {"wanted": 5, "at_most": most, "at_least": least}, outcome
    count = counted_update(empty, "Deployment")
    assert min(count.available) == least
    # What the controller allows never adds up to more; its ReplicaSets carry that out each for itself.
    assert max(count.allowed) == most
    assert count.longest_above(most) < MOMENT, count.existing
    # Both versions run at once, and who checks the numbers has seen an update.
    assert {f"{IMAGE}:1.0.0", f"{IMAGE}:2.0.0"} in count.versions and count.versions[-1] == {f"{IMAGE}:2.0.0"}


def test_recreate_never_runs_two_versions_at_once(empty: Shop) -> None:
    empty.create(podinfo(replicas=5))
    assert strategy(empty, type="Recreate")["pods"] == {"wanted": 5, "at_most": 5, "at_least": 0}
    count = counted_update(empty, "Deployment")
    assert min(count.available) == 0
    assert max(count.running) == 5
    assert all(len(versions) <= 1 for versions in count.versions) and count.versions[-1] == {f"{IMAGE}:2.0.0"}


@pytest.mark.parametrize(
    ("partition", "least", "versions"),
    [(0, 4, {f"{IMAGE}:2.0.0"}), (3, 4, {f"{IMAGE}:1.0.0", f"{IMAGE}:2.0.0"}), (5, 5, {f"{IMAGE}:1.0.0"})],
)
def test_a_stateful_set_ends_a_pod_before_it_makes_the_next(empty: Shop, partition: int, least: int, versions: set[str]) -> None:
    empty.create(podinfo("StatefulSet", replicas=5, podManagementPolicy="Parallel"), wait=False)
    assert "failed" not in empty.step(wait_rollout, kind="StatefulSet", name="thing", timeout=120)
    outcome = strategy(empty, "StatefulSet", profile="balanced", partition=partition)
    assert outcome["pods"] == {"wanted": 5, "at_most": 5, "at_least": least}, outcome
    count = counted_update(empty, "StatefulSet")
    assert min(count.available) == least
    assert max(count.running) == 5
    assert count.versions[-1] == versions


@pytest.mark.parametrize("profile", ["conservative", "balanced"])
def test_a_daemon_set_has_two_pods_on_a_node_or_none(empty: Shop, profile: str) -> None:
    empty.create(podinfo("DaemonSet"), wait=False)
    assert "failed" not in empty.step(wait_rollout, kind="DaemonSet", name="thing", timeout=120)
    nodes = empty.get("DaemonSet", "thing")["status"]["desiredNumberScheduled"]
    pods = strategy(empty, "DaemonSet", profile=profile)["pods"]
    surge = profile == "conservative"
    assert pods == {"wanted": nodes, "at_most": nodes + surge, "at_least": nodes - (not surge)}
    count = counted_update(empty, "DaemonSet")
    assert min(count.available) == pods["at_least"]
    if surge:
        assert max(number for _at, number in count.existing) == pods["at_most"]
    else:
        assert max(count.running) == pods["at_most"]


CHANGES: dict[str, tuple[str, Manifest]] = {
    "Deployment, profile": ("Deployment", {"profile": "conservative"}),
    "Deployment, percentages": ("Deployment", {"max_surge": "150%", "max_unavailable": "0%"}),
    "Deployment, Recreate": ("Deployment", {"type": "Recreate"}),
    "Deployment, seconds": ("Deployment", {"min_ready_seconds": 700, "progress_deadline_seconds": 701}),
    "Deployment, no deadline": ("Deployment", {"progress_deadline_seconds": 2147483647}),
    "Deployment, history": ("Deployment", {"revision_history_limit": 0}),
    "StatefulSet, partition": ("StatefulSet", {"partition": 2, "min_ready_seconds": 5, "revision_history_limit": 3}),
    "StatefulSet, OnDelete": ("StatefulSet", {"type": "OnDelete"}),
    "DaemonSet, profile": ("DaemonSet", {"profile": "conservative", "min_ready_seconds": 5}),
    "DaemonSet, share": ("DaemonSet", {"max_unavailable": "100%"}),
    "DaemonSet, OnDelete": ("DaemonSet", {"type": "OnDelete"}),
}


@pytest.mark.parametrize(("kind", "given"), CHANGES.values(), ids=CHANGES)
def test_changes_once_and_check_mode_foresees_it(empty: Shop, kind: str, given: Manifest) -> None:
    empty.create(idle(kind), wait=False)
    time.sleep(0.5)
    before = empty.get(kind, "thing")
    foreseen = empty.step(set_strategy, check=True, kind=kind, name="thing", **given)
    assert foreseen["changed"], foreseen
    assert empty.get(kind, "thing")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    done = strategy(empty, kind, **given)
    assert {**done, "duration": 0} == {**foreseen, "duration": 0}
    again = strategy(empty, kind, **given)
    assert not again["changed"] and again["before"] == again["after"] == done["after"], again
    # What the server has is what was told, in all words that it tells without being asked.
    told = strategy(empty, kind)
    assert told["after"] == {name: value for name, value in done["after"].items() if name in told["after"]}
    after = empty.get(kind, "thing")
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    for part in (before, after):
        for field in (BLOCK[kind], "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"):
            part["spec"].pop(field, None)
    assert after["spec"] == before["spec"]


def test_there_and_back_again(empty: Shop) -> None:
    empty.create(idle("Deployment", strategy={"rollingUpdate": {"maxSurge": 3}}), wait=False)
    assert spec(empty)["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": "25%"}}
    there = strategy(empty, type="Recreate")
    assert there["before"] == {"type": "RollingUpdate", "max_surge": 3, "max_unavailable": "25%"} and there["after"] == {"type": "Recreate"}
    assert spec(empty)["strategy"] == {"type": "Recreate"}
    back = strategy(empty, type="RollingUpdate")
    assert back["after"] == {"type": "RollingUpdate", "max_surge": "25%", "max_unavailable": "25%"}
    assert spec(empty)["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    strategy(empty, type="Recreate")
    assert strategy(empty, max_unavailable=0)["after"] == {"type": "RollingUpdate", "max_surge": "25%", "max_unavailable": 0}
    assert spec(empty)["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}


def test_a_change_starts_no_rollout_and_is_no_obstacle_to_one_that_runs(empty: Shop) -> None:
    empty.create(podinfo(replicas=3))
    before = {metadata(pod)["uid"] for pod in empty.cluster.list(Query("Pod", empty.namespace)).items}
    strategy(empty, profile="fast", min_ready_seconds=1)
    assert empty.step(wait_rollout, name="thing", timeout=60)["status"]["phase"] == "complete"
    assert {metadata(pod)["uid"] for pod in empty.cluster.list(Query("Pod", empty.namespace)).items} == before
    # While the controller writes the status all the time.
    empty.step(set_image, name="thing", images={"app": f"{IMAGE}:2.0.0"})
    for surge in range(1, 6):
        assert strategy(empty, max_surge=surge, max_unavailable=0)["changed"]
    assert empty.step(wait_rollout, name="thing", timeout=60)["status"]["phase"] == "complete"


# {what: (kind, the options that are refused, the same as a patch under spec)}: the API server does not take it either.
BOTH_REFUSE: dict[str, tuple[str, Manifest, Manifest]] = {
    "no number": ("Deployment", {"max_surge": "some"}, {"strategy": {"rollingUpdate": {"maxSurge": "some"}}}),
    "a fraction": ("Deployment", {"max_surge": "2.5%"}, {"strategy": {"rollingUpdate": {"maxSurge": "2.5%"}}}),
    "a plus": ("Deployment", {"max_surge": "+1"}, {"strategy": {"rollingUpdate": {"maxSurge": "+1"}}}),
    "below 0": ("Deployment", {"max_unavailable": "-1"}, {"strategy": {"rollingUpdate": {"maxUnavailable": -1}}}),
    "beyond the field": ("Deployment", {"max_surge": "2147483648"}, {"strategy": {"rollingUpdate": {"maxSurge": 2147483648}}}),
    "all and more": ("Deployment", {"max_unavailable": "101%"}, {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}),
    "both 0": (
        "Deployment",
        {"max_surge": "0", "max_unavailable": "0%"},
        {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
    ),
    "OnDelete of a Deployment": ("Deployment", {"type": "OnDelete"}, {"strategy": {"type": "OnDelete", "rollingUpdate": None}}),
    "Recreate with limits": (
        "Deployment",
        {"type": "Recreate", "max_surge": "1"},
        {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
    ),
    "a deadline that is not more": ("Deployment", {"min_ready_seconds": 600}, {"minReadySeconds": 600}),
    "no deadline": ("Deployment", {"progress_deadline_seconds": 0}, {"progressDeadlineSeconds": 0}),
    "seconds below 0": ("Deployment", {"min_ready_seconds": -1}, {"minReadySeconds": -1}),
    "history below 0": ("Deployment", {"revision_history_limit": -1}, {"revisionHistoryLimit": -1}),
    "Recreate of a StatefulSet": ("StatefulSet", {"type": "Recreate"}, {"updateStrategy": {"type": "Recreate", "rollingUpdate": None}}),
    "OnDelete with a partition": (
        "StatefulSet",
        {"type": "OnDelete", "partition": 1},
        {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
    ),
    "a partition below 0": ("StatefulSet", {"partition": -1}, {"updateStrategy": {"rollingUpdate": {"partition": -1}}}),
    "seconds of a StatefulSet below 0": ("StatefulSet", {"min_ready_seconds": -1}, {"minReadySeconds": -1}),
    "Recreate of a DaemonSet": ("DaemonSet", {"type": "Recreate"}, {"updateStrategy": {"type": "Recreate"}}),
    "a surge where pods may be missing": ("DaemonSet", {"max_surge": "1"}, {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}),
    "both limits of a DaemonSet": (
        "DaemonSet",
        {"max_surge": "1", "max_unavailable": "1"},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}},
    ),
    "no limit of a DaemonSet": ("DaemonSet", {"max_unavailable": "0"}, {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
    "a DaemonSet and more": (
        "DaemonSet",
        {"max_surge": "101%", "max_unavailable": "0"},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": "101%", "maxUnavailable": 0}}},
    ),
    "history of a DaemonSet below 0": ("DaemonSet", {"revision_history_limit": -1}, {"revisionHistoryLimit": -1}),
}
# The API server would take it: it drops what a kind has not, and it lets through what its controllers cannot do.
WE_REFUSE: dict[str, tuple[str, Manifest, Manifest]] = {
    "more than a controller can count": (
        "Deployment",
        {"max_surge": "2147483647"},
        {"strategy": {"rollingUpdate": {"maxSurge": 2147483647}}},
    ),
    "the partition of a Deployment": ("Deployment", {"partition": 1}, {"strategy": {"rollingUpdate": {"partition": 1}}}),
    "the surge of a StatefulSet": ("StatefulSet", {"max_surge": "1"}, {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}),
    "the deadline of a StatefulSet": ("StatefulSet", {"progress_deadline_seconds": 9}, {"progressDeadlineSeconds": 9}),
    "history of a StatefulSet below 0": ("StatefulSet", {"revision_history_limit": -1}, {"revisionHistoryLimit": -1}),
    "OnDelete of a DaemonSet with limits": (
        "DaemonSet",
        {"type": "OnDelete", "max_unavailable": "2"},
        {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"maxUnavailable": 2}}},
    ),
}


def test_what_is_refused_the_api_server_refuses_too(empty: Shop) -> None:
    refs = {kind: empty.create(idle(kind), wait=False) for kind in BLOCK}
    time.sleep(1)
    before = {kind: empty.cluster.get(ref) for kind, ref in refs.items()}
    for what, (kind, given, patch) in {**BOTH_REFUSE, **WE_REFUSE}.items():
        outcome = strategy(empty, kind, **given)
        assert outcome["failed"] and outcome["reason"] == "InvalidRequest", (what, outcome)
        assert str(refs[kind]) in outcome["msg"] and "Cannot patch" not in outcome["msg"] and "\n" not in outcome["msg"], (what, outcome)
        if what in WE_REFUSE:
            empty.cluster.patch(refs[kind], {"spec": patch}, MERGE_PATCH, dry_run=True)
        else:
            with pytest.raises(InvalidRequest, match="is invalid"):
                empty.cluster.patch(refs[kind], {"spec": patch}, MERGE_PATCH, dry_run=True)
    assert {kind: empty.cluster.get(ref) for kind, ref in refs.items()} == before


def test_a_limit_that_the_api_server_drops_in_silence_is_refused(empty: Shop) -> None:
    ref = empty.create(idle("StatefulSet"), wait=False)
    if "maxUnavailable" in spec(empty, "StatefulSet")["updateStrategy"]["rollingUpdate"]:
        pytest.skip("the feature gate MaxUnavailableStatefulSet is on here")
    time.sleep(1)
    before = empty.cluster.get(ref)
    for given in ({"max_unavailable": 2}, {"profile": "fast"}):
        for check in (True, False):
            outcome = empty.step(set_strategy, check=check, kind="StatefulSet", name="thing", **given)
            assert outcome["failed"] and "would be dropped by the API server" in outcome["msg"], outcome
    assert empty.cluster.get(ref) == before
    assert not strategy(empty, "StatefulSet", profile="balanced")["changed"]


def test_more_than_a_controller_can_count_stands_still(empty: Shop) -> None:
    """Show why that is refused: the API server takes it, and the rollout never begins."""
    ref = empty.create(podinfo(replicas=1))
    limits = {"maxSurge": 2147483647, "maxUnavailable": 0}
    empty.cluster.patch(ref, {"spec": {"strategy": {"rollingUpdate": limits}}}, MERGE_PATCH)
    empty.step(set_image, name="thing", images={"app": f"{IMAGE}:2.0.0"})
    stuck = empty.step(wait_rollout, name="thing", timeout=6)
    assert stuck["failed"] and stuck["status"]["updated"] == 0, stuck
    assert strategy(empty, profile="conservative")["changed"]
    assert "failed" not in empty.step(wait_rollout, name="thing", timeout=60)


def test_the_numbers_follow_the_replicas(empty: Shop) -> None:
    empty.create(idle("Deployment"), wait=False)
    assert strategy(empty, profile="fast")["pods"] == {"wanted": 0, "at_most": 0, "at_least": 0}
    empty.step(scale, name="thing", replicas=3)
    outcome = strategy(empty, profile="fast")
    assert not outcome["changed"] and outcome["pods"] == {"wanted": 3, "at_most": 6, "at_least": 2}
    kept = copy.deepcopy(spec(empty))
    assert not strategy(empty, max_surge="100%", max_unavailable="50%")["changed"] and spec(empty) == kept
