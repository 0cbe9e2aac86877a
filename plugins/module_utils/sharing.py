# SPDX-License-Identifier: GPL-3.0-or-later
"""A share of the requests goes to the canary: by the number of pods behind one Service (provider ``replicas``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import DeliveryError, InvalidRequest, NotFound
from .model import JSON_PATCH, Change, Cluster, Manifest, Ref, Result, metadata
from .plan.canary import TOTAL, Pods, canary_replicas, check_behind, replicas_of, total_of
from .plan.colors import annotation_operations, as_text
from .plan.goal import Goal
from .plan.workload import plan_scale
from .reading import autoscaler_of
from .run import Progress, settle
from .waiting import require, wait_for_rollout
from .weighing import PODS_TIMEOUT, measured, probe_of, wait_timeout

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
    for ref, manifest in ((sides.stable, stable), (sides.canary, canary)):
        if manifest is not None:
            check_behind(sides.service, service, ref, manifest)
            _check_autoscaler(cluster, ref)
    total = total_of(stable, canary or NOBODY, options.get("total"))
    now = Pods(replicas_of(stable), replicas_of(canary or NOBODY))
    pods = canary_replicas(total, weight or 0, 100, options["max_surge"])
    before, after = sides.told(now), sides.told(pods)
    actions: list[str] = []
    if notes:
        change, _service = settle(cluster, sides.service, lambda found: _annotated(sides.service, found, notes), check)
        before["annotations"], after["annotations"] = change.before, change.after
        actions += change.actions
    # What both sides share is noted before any pod comes or goes, and forgotten after: whoever runs this again must know it.
    if weight is not None:
        actions += _note(cluster, sides.stable, str(total), check)
    turns = [(sides.stable, pods.stable, now.stable)]
    turns += [(sides.canary, pods.canary, now.canary)] if canary is not None else []
    turns.sort(key=lambda turn: turn[1] < turn[2])
    for number, (ref, replicas, _now) in enumerate(turns):
        change, _object = settle(cluster, ref, _planner(ref, replicas), check)
        actions += change.actions
        if not check and (change.changed or (replicas and not number)):
            _wait(cluster, ref, timeout, progress, bool(actions), options["force"])
    if weight is None:
        actions += _note(cluster, sides.stable, None, check)
    extra = {"weights": after["weights"], "replicas": after["replicas"], "achieved": round(pods.weight, 2)}
    if probe is not None and not check:
        # The weight that the pods make of it: no other one can be seen.
        accepted = time.monotonic() if actions else 0.0
        extra |= measured(probe, str(sides.service), pods.weight, round(now.weight, 2), accepted, timeout, progress)
    return Result(bool(actions), before, after, actions, extra)


def _canary_of(cluster: Cluster, ref: Ref, weight: int | None) -> Manifest | None:
    """Return the canary's Deployment. One that shall get nothing may be gone already: None."""
    try:
        return require(cluster, ref)
    except NotFound:
        if weight:
            raise
        return None


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


def _wait(cluster: Cluster, ref: Ref, timeout: float, progress: Progress, changed: bool, force: bool) -> None:
    """Wait until the pods of a side are ready; say what stays as it was where they do not get so."""
    if force:
        return
    try:
        wait_for_rollout(cluster, ref, timeout, Goal(), progress)
    except DeliveryError as error:
        raise type(error)(
            f"{error.message}; no pod was taken from the other side", error.reason, **{**error.details, "changed": changed}
        ) from None
