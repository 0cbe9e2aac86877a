# SPDX-License-Identifier: GPL-3.0-or-later
"""A share of the requests goes to the canary: by the number of pods behind one Service (provider ``replicas``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import DeliveryError, InvalidRequest, NotFound
from .model import JSON_PATCH, Change, Cluster, Manifest, Ref, Result, metadata
from .plan.canary import TOTAL, Pods, canary_replicas, check_behind, parse_surge, total_of
from .plan.colors import annotation_operations, as_text
from .plan.goal import Goal
from .plan.rollout import replicas_of
from .plan.workload import plan_scale
from .reading import autoscaler_of
from .run import Progress, settle
from .waiting import require, wait_for_rollout
from .weighing import PODS_TIMEOUT, check_expected, measured, probe_of, wait_timeout

# A Deployment that is not there has no pods.
NOBODY: Manifest = {"spec": {"replicas": 0}}


@dataclass(frozen=True)
class Sides:
    """Both Deployments, and the Service that sends to the pods of both."""

    service: Ref
    stable: Ref
    canary: Ref

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Sides:
        """Return the sides that a step's options name."""
        namespace = options["namespace"]
        for key in ("routes", "rule", "rule_host", "rule_path", "canary_labels"):
            if options.get(key):
                raise InvalidRequest(f"{key} is for routes; provider replicas shares the requests of one Service, named by name")
        if not options.get("name"):
            raise InvalidRequest("name is not set; name the Service that sends to both Deployments")
        if options["stable"] == options["canary"]:
            raise InvalidRequest(f'stable and canary are both "{options["stable"]}"; a split needs two')
        return cls(
            Ref("Service", namespace, options["name"]),
            Ref("Deployment", namespace, options["stable"]),
            Ref("Deployment", namespace, options["canary"]),
        )

    def told(self, pods: Pods) -> dict[str, Any]:
        """Return the pods of both sides and the percentages that they make, as a result has them."""
        share = round(pods.weight, 2)
        return {
            "replicas": {self.stable.name: pods.stable, self.canary.name: pods.canary},
            "weights": {self.stable.name: round(100 - share, 2) if pods.stable + pods.canary else 0, self.canary.name: share},
        }


def share_pods(options: Mapping[str, Any], weight: int | None, cluster: Cluster, check: bool, progress: Progress) -> Result:
    """Give both sides their pods: the side that grows first, and the other one only when those are ready.

    ``weight`` None takes the canary out: stable has all pods again, and what was noted on it goes.
    """
    sides, notes = Sides.of(options), options.get("annotations") or {}
    probe, timeout = probe_of(options), wait_timeout(options, PODS_TIMEOUT)
    service, stable = require(cluster, sides.service), require(cluster, sides.stable)
    canary = _canary_of(cluster, sides.canary, weight)
    check_expected(sides.service, service, options.get("if_annotations") or {}, notes)
    total = total_of(stable, canary or NOBODY, options.get("total"))
    now = Pods(replicas_of(stable), replicas_of(canary or NOBODY))
    pods = canary_replicas(total, weight or 0, 100, options["max_surge"])
    for ref, manifest in ((sides.stable, stable), (sides.canary, canary)):
        if manifest is not None:
            check_behind(sides.service, service, ref, manifest)
            # The way off the canary is open, whatever has come up since.
            if weight and pods.weight > now.weight:
                _check_autoscaler(cluster, ref)
    before, after = sides.told(now), sides.told(pods)
    actions: list[str] = []
    if notes:
        change, _service = settle(cluster, sides.service, lambda found: _annotated(sides.service, found, notes), check)
        before["annotations"], after["annotations"] = change.before, change.after
        actions += change.actions
    # What both sides share is noted before any pod comes or goes, and forgotten after: whoever runs this again must know it.
    if weight is not None:
        actions += _note(cluster, sides.stable, str(total), check)
    turn = Turn(sides, cluster, max(1, parse_surge(total, options["max_surge"])), not weight, options["force"], timeout, progress)
    actions += turn.foreseen(now, pods) if check else turn.make(now, pods, bool(actions))
    if weight is None:
        actions += _note(cluster, sides.stable, None, check)
    extra = {"weights": after["weights"], "replicas": after["replicas"], "achieved": round(pods.weight, 2)}
    if probe is not None and not check:
        # The weight that the pods make of it: no other one can be seen.
        accepted = time.monotonic() if actions else 0.0
        extra |= measured(probe, str(sides.service), pods.weight, round(now.weight, 2), accepted, timeout, progress)
    return Result(bool(actions), before, after, actions, extra)


@dataclass
class Turn:
    """The way from some pods to others: ``most`` more than there were at a time; ``off`` where it takes the requests off the canary."""

    sides: Sides
    cluster: Cluster
    most: int
    off: bool
    force: bool
    timeout: float
    progress: Progress
    changed: bool = False
    deadline: float = 0.0

    def foreseen(self, now: Pods, pods: Pods) -> list[str]:
        """Ask the API server whether it would take the last step for both sides; return what would be done."""
        for ref, have, want in self._both(now, pods):
            if have != want:
                settle(self.cluster, ref, _planner(ref, want), True)
        return self._said(now, pods)

    def make(self, now: Pods, pods: Pods, changed: bool) -> list[str]:
        """Scale both sides; raise WaitFailed where the side that grows does not get its pods. Return what was done."""
        self.changed = changed
        self.deadline = time.monotonic() + self.timeout
        both = self._both(now, pods)
        up = [(ref, have, want) for ref, have, want in both if have < want]
        down = [(ref, have, want) for ref, have, want in both if have > want]
        if up and down:
            self._exchange(up[0], down[0])
        else:
            for ref, _have, want in up:
                self._scale(ref, want)
            # A run before this one may have been killed before those that stay were ready.
            for ref in [ref for ref, have, want in both if up or (down and have == want and want)]:
                self._wait(ref)
            for ref, _have, want in down:
                self._scale(ref, want)
        for ref, _have, _want in down + (up if self.off else []):
            self._wait(ref, last=True)
        return self._said(now, pods)

    def _exchange(self, up: tuple[Ref, int, int], down: tuple[Ref, int, int]) -> None:
        """Let one side grow and the other shrink, so many pods at a time.

        On the way off the canary a stable that gets no pods is no reason to stay: the canary's go step by step, which makes room, and
        the last one when a pod of stable is ready.
        """
        grows, has, wants = up
        shrinks, left, least = down
        while has < wants or left > least:
            if has < wants:
                has = min(wants, has + self.most)
                self._scale(grows, has)
            trouble = self._wait(grows)
            floor = least if trouble is None or self._has_ready() else max(1, least)
            if trouble is not None and left <= floor and (floor > least or has == wants):
                raise trouble
            left = floor if trouble is None and has == wants else max(floor, left - self.most)
            self._scale(shrinks, left)

    def _both(self, now: Pods, pods: Pods) -> list[tuple[Ref, int, int]]:
        """Return both sides with the pods that they have and shall have; a canary that is not there, and shall have none, is left out."""
        found = [(self.sides.stable, now.stable, pods.stable)]
        return found + ([(self.sides.canary, now.canary, pods.canary)] if now.canary or pods.canary else [])

    def _said(self, now: Pods, pods: Pods) -> list[str]:
        """Return what a change of the pods is, one sentence a side."""
        return [f"scaled {ref} from {have} to {want}" for ref, have, want in self._both(now, pods) if have != want]

    def _scale(self, ref: Ref, replicas: int) -> None:
        """Scale one side."""
        change, _object = settle(self.cluster, ref, _planner(ref, replicas), False)
        self.changed = self.changed or change.changed

    def _wait(self, ref: Ref, last: bool = False) -> DeliveryError | None:
        """Wait until the pods of a side are ready. What hinders that is raised; on the way off the canary it is returned first."""
        if self.force:
            return None
        try:
            wait_for_rollout(self.cluster, ref, max(1.0, self.deadline - time.monotonic()), Goal(), self.progress)
        except DeliveryError as error:
            kept = "" if last or self.off else "; no pod was taken from the other side for them"
            failure = type(error)(f"{error.message}{kept}", error.reason, **{**error.details, "changed": self.changed})
            if self.off and not last:
                return failure
            raise failure from None
        return None

    def _has_ready(self) -> bool:
        """Return whether a pod of stable is ready, which can have the requests."""
        status = require(self.cluster, self.sides.stable).get("status") or {}
        return bool(status.get("readyReplicas"))


def _planner(ref: Ref, replicas: int) -> Callable[[Manifest], Change]:
    """Return what plans one side."""
    return lambda workload: plan_scale(ref, workload, replicas)


def _note(cluster: Cluster, ref: Ref, total: str | None, check: bool) -> tuple[str, ...]:
    """Note on stable how many pods both sides share, or forget it; return what was done."""
    change, _object = settle(cluster, ref, lambda workload: _annotated(ref, workload, {TOTAL: total}), check)
    said = f"noted on {ref} that both sides share {total} pods" if total is not None else f"forgot on {ref} how many pods both sides shared"
    return (said,) if change.changed else ()


def _annotated(ref: Ref, manifest: Manifest, notes: Mapping[str, Any]) -> Change:
    """Return the change of an object's annotations."""
    operations = annotation_operations(manifest, notes)
    present = metadata(manifest).get("annotations") or {}
    before = {key: present[key] for key in sorted(notes) if key in present}
    after = {key: as_text(value) for key, value in sorted(notes.items()) if value not in (None, "")}
    guard = {"op": "test", "path": "/metadata/uid", "value": metadata(manifest).get("uid")}
    return Change(before, after, [guard, *operations] if operations else None, JSON_PATCH, (f"annotated {ref}",) if operations else ())


def _check_autoscaler(cluster: Cluster, ref: Ref) -> None:
    """Raise InvalidRequest where an autoscaler would undo the ratio."""
    autoscaler = autoscaler_of(cluster, ref)
    if autoscaler is not None:
        raise InvalidRequest(
            f"{ref} is scaled by HorizontalPodAutoscaler {metadata(autoscaler)['name']}, which would undo a ratio of pods;"
            " take it off for the release, or choose a provider that routes by weight"
        )


def _canary_of(cluster: Cluster, ref: Ref, weight: int | None) -> Manifest | None:
    """Return the canary's Deployment. One that shall get nothing may be gone already: None."""
    try:
        return require(cluster, ref)
    except NotFound:
        if weight:
            raise
        return None
