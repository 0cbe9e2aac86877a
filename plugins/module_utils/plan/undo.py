# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a revision: which one, whether there is anything to do, and the patch that restores its pod template.

What was undone is noted on the workload in the same write. Without that, the revision before would be the one that was
just left, and a second run would bring it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest
from ..model import CHANGE_CAUSE, JSON_PATCH, UNDONE, Change, Manifest, Ref, annotations, labels, metadata, pointer
from .differences import template_changes
from .masking import masked_text
from .released import released_images
from .revisions import (
    Revision,
    is_numbered,
    live_revision,
    named_images,
    named_revisions,
    next_number,
    note_of,
    revisions_in,
    serving_revisions,
    template_of,
)
from .rollout import CONTROLLER_HASH, is_owned, is_ready, is_terminating, pod_trouble, template_images
from .workload import check_image


@dataclass(frozen=True)
class Asked:
    """What undo_rollout was asked for."""

    to_revision: int | None = None
    if_revision: int | None = None
    unless_image: str | None = None
    change_cause: str | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        """Raise InvalidRequest for what no workload could have."""
        for name in ("to_revision", "if_revision"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise InvalidRequest(f"{name} must be 1 or more, got {number}; rollout_info lists the revisions there are")
        if self.unless_image is not None:
            check_image(self.unless_image, "unless_image")


@dataclass(frozen=True)
class Undo:
    """What was decided: the change, and what the step says about it.

    ``revision`` is the number after it, None where that cannot be foreseen. ``target`` is the name of the revision that
    the workload has then; it is empty where the workload was left as it is for another reason than that it is there.
    ``note`` says that nothing tells whether the target ever worked; it is empty where something does.
    """

    change: Change
    from_revision: int
    to_revision: int
    revision: int | None
    images: Mapping[str, str]
    change_cause: str
    message: str
    target: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Seen:
    """What was observed of a workload: its revisions, the live one of them, and the number that this one has or gets."""

    ref: Ref
    workload: Manifest
    revisions: tuple[Revision, ...]
    live: Revision | None
    current: int
    numbered: bool
    record: Mapping[str, Any] = field(default_factory=dict)
    serving: frozenset[str] = frozenset()

    def left(self, message: str, target: str = "", revision: Revision | None = None) -> Undo:
        """Return that there is nothing to do, and why."""
        number = self.current if revision is None else next_number(revision.name, self.revisions)
        state = {"revision": number}
        cause = masked_text(annotations(self.workload).get(CHANGE_CAUSE) or "")
        images = template_images(template_of(self.workload))
        return Undo(Change(state, state), number, number, number, images, cause, message, target)

    def find(self, number: int) -> Revision | None:
        """Return the revision of a number, or the one that had it before its controller gave it a new one."""
        by_number = (entry for entry in self.revisions if entry.number == number)
        return next(by_number, None) or next((entry for entry in self.revisions if number in entry.former), None)


def plan_undo(ref: Ref, workload: Manifest, manifests: Sequence[Manifest], asked: Asked) -> Undo:
    """Return the change that gives the workload the pod template of a revision, or that there is nothing to do."""
    seen = _seen(ref, workload, manifests)
    if asked.if_revision is not None and asked.if_revision != seen.current:
        return seen.left(f"{ref} is at revision {seen.current} and not at {asked.if_revision}: nothing was undone")
    running = [name for name, image in template_images(template_of(workload)).items() if image == asked.unless_image]
    if running:
        return seen.left(f"container {running[0]} of {ref} already runs {asked.unless_image}: nothing was undone")
    back = _undone(seen)
    if asked.to_revision is None and back is not None and not _is_dead_end(seen, back):
        return seen.left(
            f"{ref} was taken back from revision {seen.record.get('from')} to {seen.record.get('to')} and nothing was released"
            f" since: nothing was undone; to go back further, name one of its revisions: {_others(seen, back.name)}",
            back.name,
            back,
        )
    target = _target(seen, asked.to_revision)
    if (seen.live is not None and target.name == seen.live.name) or target.template == template_of(workload):
        number = asked.to_revision or target.number
        return seen.left(f"{ref} has the pod template of revision {number} already: nothing was undone", target.name, target)
    paused = bool((workload.get("spec") or {}).get("paused"))
    if paused and not asked.resume:
        raise InvalidRequest(
            f"{ref} is paused, so its pods would not follow; give resume: true, which goes back to revision {target.number} and resumes"
            f" it in one write (resuming it first would go on with revision {seen.current})"
        )
    return _decided(seen, target, asked, paused)


def _seen(ref: Ref, workload: Manifest, manifests: Sequence[Manifest]) -> _Seen:
    """Return what was observed; a template without a number counts as the one that it will get."""
    revisions = revisions_in(workload, manifests)
    live = live_revision(workload, manifests)
    name = metadata(live)["name"] if live is not None else None
    found = next((entry for entry in revisions if entry.name == name), None)
    return _Seen(
        ref,
        workload,
        tuple(revisions),
        found,
        next_number(name, revisions),
        is_numbered(workload, manifests),
        note_of(workload),
        serving_revisions(workload, manifests),
    )


def _undone(seen: _Seen) -> Revision | None:
    """Return the revision that an undo went back to, where that is what the workload still has."""
    record = seen.record
    there = next((entry for entry in seen.revisions if entry.name == record.get("name")), None)
    if there is None:
        return None
    # Nothing in the spec was changed since, whatever the controller has numbered so far. It only grows: where somebody wrote
    # between the look and the write, it never equals what was noted.
    if record.get("generation") == metadata(seen.workload).get("generation"):
        return there
    # A number alone does not tell: a template that came before the controller saw ours has got the number that was ours.
    same = seen.live is not None and seen.live.name == there.name
    return there if same and record.get("revision") in (None, seen.current) else None


def _is_proven(seen: _Seen, revision: Revision) -> bool:
    """Return whether the images of a revision are recorded as released."""
    return set(revision.images.values()) <= set(released_images(seen.workload))


def _serving(seen: _Seen) -> frozenset[str]:
    """Return the names of the revisions that have ready pods, without the one that an undo has just left."""
    number = seen.record.get("from")
    left = seen.find(number) if isinstance(number, int) and _undone(seen) is not None else None
    return seen.serving - {left.name if left is not None else ""}


def _is_dead_end(seen: _Seen, back: Revision) -> bool:
    """Return whether an undo went back to what was never proven and has no ready pod, while the pods of a third revision serve.

    Those of the revision that was left do not count: they are ready until the ones that came back are.
    """
    if seen.live is None or back.name in seen.serving or _is_proven(seen, back):
        return False
    return any(entry.name in _serving(seen) for entry in seen.revisions)


def _target(seen: _Seen, number: int | None) -> Revision:
    """Return the revision to go back to; raise InvalidRequest, naming those that there are, where it is gone."""
    others = [entry for entry in seen.revisions if seen.live is None or entry.name != seen.live.name]
    limit = (seen.workload.get("spec") or {}).get("revisionHistoryLimit")
    kept = f"; it keeps {limit} old ones (revisionHistoryLimit)" if limit is not None else ""
    if number is None:
        if not others:
            raise InvalidRequest(
                f"{seen.ref} has no revision before {seen.current} ({named_images(template_images(template_of(seen.workload)))})"
                f" to go back to{kept}; put another image on it with set_image"
            )
        # One that was put on the workload and never proven is no way back, as long as there is one that was.
        # Where nothing is recorded, one that serves now has proven itself.
        proven = (entry for entry in others if _is_proven(seen, entry))
        serving = (entry for entry in others if entry.name in _serving(seen))
        return next(proven, None) or next(serving, others[0])
    found = seen.find(number)
    if found is None:
        raise InvalidRequest(f"{seen.ref} has no revision {number}; it has: {named_revisions(seen.revisions)}{kept}")
    return found


def _unproven(seen: _Seen, target: Revision) -> str:
    """Return that nothing tells whether a revision ever worked, and how to name another; empty where something does."""
    if _is_proven(seen, target) or target.name in seen.serving:
        return ""
    live = seen.live.name if seen.live is not None else ""
    others = [entry for entry in seen.revisions if entry.name not in (target.name, live)]
    way_out = f"; to go to another, give to_revision (there are: {named_revisions(others)})" if others else ""
    return f"nothing is recorded of revision {target.number}: it was never released by this collection{way_out}"


def _others(seen: _Seen, name: str) -> str:
    """Return the revisions other than one, as a sentence lists them."""
    return named_revisions([entry for entry in seen.revisions if entry.name != name])


def _decided(seen: _Seen, target: Revision, asked: Asked, paused: bool) -> Undo:
    """Return the change to the template of a revision."""
    ref, workload = seen.ref, seen.workload
    number = next_number(target.name, seen.revisions) if seen.numbered else None
    cause = asked.change_cause if asked.change_cause is not None else target.change_cause
    old, new = template_changes(template_of(workload), target.template)
    before: dict[str, Any] = {"revision": seen.current, **old}
    after: dict[str, Any] = {"revision": number, **new}
    shown = [masked_text(text or "") for text in (annotations(workload).get(CHANGE_CAUSE), cause)]
    if shown[0] != shown[1]:
        before["change_cause"], after["change_cause"] = shown
    actions = [f"took {ref} back from revision {seen.current} to revision {target.number} ({named_images(target.images)})"]
    if paused:
        before["paused"], after["paused"] = True, False
        actions.append(f"resumed {ref}")
    later = f", which is its revision {number} now" if number is not None and number != target.number else ""
    message = f"{ref} went back from revision {seen.current} to revision {target.number}{later}: {named_images(target.images)}"
    patch = _patch(seen, target, cause, number, paused)
    change = Change(before, after, patch, JSON_PATCH, tuple(actions))
    note = "" if asked.to_revision is not None else _unproven(seen, target)
    message = "; ".join(filter(None, (message, note)))
    return Undo(change, seen.current, target.number, number, target.images, shown[1], message, target.name, note)


def _patch(seen: _Seen, target: Revision, cause: str, number: int | None, paused: bool) -> list[dict[str, Any]]:
    """Return the patch: the template as a whole, since a merge would leave what a newer one has added, and two annotations.

    It tests the object and the template that were decided on, not the resourceVersion: the status, which is written all the
    time while a rollout fails, and the annotations of others are no reason to decide again.
    """
    meta = metadata(seen.workload)
    record: dict[str, Any] = {
        "from": seen.current,
        "to": target.number,
        "revision": number,
        "name": target.name,
        "generation": (meta.get("generation") or 0) + 1,
        "uid": meta.get("uid"),
    }
    if seen.ref.kind != "Deployment":
        # The controllers of the others do not write down which number a revision had before.
        there = {entry.name for entry in seen.revisions}
        was = {old: name for old, name in (seen.record.get("was") or {}).items() if name in there}
        record["was"] = {**was, str(target.number): target.name}
    where = "/metadata/annotations/" + pointer(CHANGE_CAUSE)
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/uid", "value": meta.get("uid")},
        {"op": "test", "path": "/spec/template", "value": seen.workload["spec"]["template"]},
        {"op": "replace", "path": "/spec/template", "value": dict(target.template)},
    ]
    if not annotations(seen.workload):
        patch.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    patch.append({"op": "add", "path": "/metadata/annotations/" + pointer(UNDONE), "value": json.dumps(record)})
    patch.append({"op": "add", "path": where, "value": cause})
    if not cause:
        # A revision without a cause must not get that of the one which is left. What is not there cannot be removed: it was just added.
        patch.append({"op": "remove", "path": where})
    if paused:
        patch.append({"op": "add", "path": "/spec/paused", "value": False})
    return patch


def stuck_pods(workload: Manifest, pods: Sequence[Manifest], target: str) -> list[Manifest]:
    """Return the pods of other revisions for which a StatefulSet would wait for ever after it was taken back.

    With podManagementPolicy OrderedReady its controller replaces no pod while one is not ready, not even that one
    (https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback).
    """
    spec = workload.get("spec") or {}
    strategy = spec.get("updateStrategy") or {}
    if not waits_for_each_pod(workload) or not target:
        return []
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    return [
        pod
        for pod in pods
        if is_owned(pod, workload)
        and not is_ready(pod)
        and not is_terminating(pod)
        and labels(pod).get(CONTROLLER_HASH) != target
        and _ordinal(pod) >= partition
    ]


def superseded_pods(workload: Manifest, pods: Sequence[Manifest], target: str) -> list[Manifest]:
    """Return the stuck pods that a release may delete on its way to ``target``, since nobody can want them any more.

    Those are of a revision that was never rolled out whole, or can never become ready. One of the revision that was, and that is
    only slow to come up, may be busy with its data: it is waited for.
    """
    proven = (workload.get("status") or {}).get("currentRevision")
    return [pod for pod in stuck_pods(workload, pods, target) if labels(pod).get(CONTROLLER_HASH) != proven or pod_trouble([pod])]


def waits_for_each_pod(workload: Manifest) -> bool:
    """Return whether a workload replaces its pods one after the other, and none while another one is not ready."""
    spec = workload.get("spec") or {}
    ordered = (spec.get("podManagementPolicy") or "OrderedReady") == "OrderedReady"
    return workload["kind"] == "StatefulSet" and ordered and (spec.get("updateStrategy") or {}).get("type") != "OnDelete"


def _ordinal(pod: Manifest) -> int:
    """Return the ordinal of a StatefulSet's pod."""
    number = metadata(pod)["name"].rpartition("-")[2]
    return int(number) if number.isdigit() else 0
