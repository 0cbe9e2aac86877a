# SPDX-License-Identifier: GPL-3.0-or-later
"""The revisions of a workload: its ReplicaSets or ControllerRevisions, found by who owns them and told apart by their number.

When a controller goes back to an old revision, it does not make it anew: it gives the old one the next number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..model import CHANGE_CAUSE, REVISION, UNDONE, Manifest, annotations, labels, metadata
from .masking import masked_text
from .rollout import (
    CONTROLLER_HASH,
    TEMPLATE_HASH,
    current_revision,
    is_observed,
    is_owned,
    is_ready,
    is_terminating,
    live_replica_set,
    pod_summary,
    template_images,
)

REVISION_HISTORY = "deployment.kubernetes.io/revision-history"


@dataclass(frozen=True)
class Revision:
    """One revision: its number and name, its pod template as the workload would have it, and the numbers it had before."""

    number: int
    name: str
    template: Mapping[str, Any]
    change_cause: str = ""
    former: tuple[int, ...] = ()

    @property
    def images(self) -> dict[str, str]:
        """Return the image of each container."""
        return template_images(self.template)


def revision_number(manifest: Manifest) -> int:
    """Return the number of a ReplicaSet or ControllerRevision; 0 while it has none."""
    number = annotations(manifest).get(REVISION) if manifest["kind"] == "ReplicaSet" else manifest.get("revision")
    try:
        return int(number or 0)
    except ValueError:
        return 0


def template_of(manifest: Manifest) -> dict[str, Any]:
    """Return the pod template of a revision, or of a workload, without what is only true of the revision.

    A ReplicaSet adds a label. A ControllerRevision's data is a patch of the workload that replaces the template:
    ``{"spec": {"template": {"$patch": "replace", ...}}}``, with empty metadata written out.
    """
    spec = (manifest.get("data") or manifest).get("spec") or {}
    template = {key: value for key, value in (spec.get("template") or {}).items() if key != "$patch"}
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value}
    if manifest.get("kind") == "ReplicaSet" and "labels" in meta:
        meta["labels"] = {key: value for key, value in meta["labels"].items() if key != TEMPLATE_HASH}
    return {**template, "metadata": meta}


def note_of(workload: Manifest) -> dict[str, Any]:
    """Return what was noted on the workload when it was undone last; empty where nothing was, or it was of another object."""
    try:
        found = json.loads(annotations(workload).get(UNDONE) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("uid") == metadata(workload).get("uid") else {}


def _former(workload: Manifest, manifest: Manifest) -> tuple[int, ...]:
    """Return the numbers that a revision had: as the Deployment controller writes them, which alone does, or as was noted."""
    if manifest["kind"] == "ReplicaSet":
        numbers = annotations(manifest).get(REVISION_HISTORY, "").split(",")
    else:
        was = note_of(workload).get("was") or {}
        numbers = [number for number, name in was.items() if name == metadata(manifest)["name"]]
    return tuple(int(number) for number in numbers if number.strip().isdigit() and int(number) != revision_number(manifest))


def revisions_in(workload: Manifest, manifests: Sequence[Manifest]) -> list[Revision]:
    """Return the revisions that the workload owns, the highest number first; one without a number is left out."""
    found = []
    for entry in manifests:
        number = revision_number(entry)
        if number and is_owned(entry, workload):
            cause = annotations(entry).get(CHANGE_CAUSE) or ""
            found.append(Revision(number, metadata(entry)["name"], template_of(entry), cause, _former(workload, entry)))
    return sorted(found, key=lambda revision: revision.number, reverse=True)


def live_revision(workload: Manifest, manifests: Sequence[Manifest]) -> Manifest | None:
    """Return the revision of the workload's newest template; None while its controller has not made it."""
    if workload["kind"] == "Deployment":
        return live_replica_set(workload, manifests)
    owned = [entry for entry in manifests if is_owned(entry, workload)]
    if is_observed(workload):
        if workload["kind"] == "StatefulSet":
            wanted = (workload.get("status") or {}).get("updateRevision")
            return next((entry for entry in owned if metadata(entry)["name"] == wanted), None)
        return max(owned, key=revision_number, default=None)
    wanted = template_of(workload)
    return max((entry for entry in owned if template_of(entry) == wanted), key=revision_number, default=None)


def next_number(name: str | None, revisions: Sequence[Revision]) -> int:
    """Return the number that the controller gives the revision of this name when its template becomes the newest.

    All three controllers do the same: one more than the highest of all others, unless it has that or more already
    (Deployment: sync.go getNewReplicaSet; StatefulSet: getStatefulSetRevisions; DaemonSet: constructHistory).
    """
    others = max((revision.number for revision in revisions if revision.name != name), default=0)
    own = next((revision.number for revision in revisions if revision.name == name), 0)
    return own if own > others else others + 1


def is_numbered(workload: Manifest, manifests: Sequence[Manifest]) -> bool:
    """Return whether the controller has given the newest template its number, or will not: it makes none while paused."""
    live = live_revision(workload, manifests)
    if live is not None:
        return revision_number(live) == next_number(metadata(live)["name"], revisions_in(workload, manifests))
    seen = is_observed(workload)
    return seen and bool((workload.get("spec") or {}).get("paused"))


def named_revisions(revisions: Sequence[Revision]) -> str:
    """Return the revisions as a sentence lists them: ``4 (app web:2.0.0), 3 (app web:1.0.0)``."""
    return ", ".join(f"{revision.number} ({named_images(revision.images)})" for revision in revisions) or "none"


def named_images(images: Mapping[str, str]) -> str:
    """Return the images of containers as a sentence lists them."""
    return ", ".join(f"{container} {image}" for container, image in images.items()) or "no containers"


def history(
    workload: Manifest, manifests: Sequence[Manifest], pods: Sequence[Manifest] = (), now: float | None = None
) -> list[dict[str, Any]]:
    """Return the revisions that the workload owns as a step reports them, newest first.

    ``pods`` are counted where the revision itself does not say how many it has; ages are those at ``now``.
    """
    live = live_revision(workload, manifests)
    current = revision_number(live) if live is not None else current_revision(workload, manifests)
    entries = []
    for revision in revisions_in(workload, manifests):
        manifest = next(entry for entry in manifests if metadata(entry)["name"] == revision.name and is_owned(entry, workload))
        replicas, ready = _replicas(workload, manifest, pods)
        created = metadata(manifest).get("creationTimestamp") or ""
        entries.append(
            {
                "revision": revision.number,
                "former": list(revision.former),
                "name": revision.name,
                "images": revision.images,
                "requests": _requests(revision.template),
                "change_cause": masked_text(revision.change_cause),
                "created": created,
                "age": age_of(created, now),
                "replicas": replicas,
                "ready": ready,
                "live": revision.number == current,
            }
        )
    return entries


def report_pods(workload: Manifest, manifests: Sequence[Manifest], pods: Sequence[Manifest], now: float) -> list[dict[str, Any]]:
    """Return the workload's pods as a step reports them, with the number of the revision that each was made from."""
    found = []
    for pod in pods:
        if _belongs(pod, workload, manifests):
            created = metadata(pod).get("creationTimestamp") or ""
            number = _pod_revision(pod, workload, manifests)
            found.append({**pod_summary(pod), "revision": number, "created": created, "age": age_of(created, now)})
    return found


def age_of(created: str, now: float | None) -> int | None:
    """Return the seconds since a time as the API writes it; None where either is unknown."""
    if not created or now is None:
        return None
    then = datetime.strptime(created[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    # The clock here may be behind that of the API server.
    return max(0, int(now - then))


def serving_revisions(workload: Manifest, manifests: Sequence[Manifest]) -> frozenset[str]:
    """Return the names of the revisions that have ready pods, as far as the controllers say so; they do not for a DaemonSet.

    A ReplicaSet counts its ready pods. A StatefulSet names the revision that was rolled out whole before the newest one.
    """
    if workload["kind"] == "Deployment":
        owned = [entry for entry in manifests if is_owned(entry, workload)]
        return frozenset(metadata(entry)["name"] for entry in owned if (entry.get("status") or {}).get("readyReplicas"))
    status = workload.get("status") or {}
    serves = workload["kind"] == "StatefulSet" and status.get("currentReplicas") and status.get("readyReplicas")
    return frozenset({status["currentRevision"]} if serves and status.get("currentRevision") else ())


def _belongs(pod: Manifest, workload: Manifest, manifests: Sequence[Manifest]) -> bool:
    """Return whether a pod that the selector finds is the workload's, or nobody's: labels of two workloads may be alike."""
    owners = [workload] if workload["kind"] != "Deployment" else [entry for entry in manifests if is_owned(entry, workload)]
    controlled = any(ref.get("controller") for ref in metadata(pod).get("ownerReferences") or [])
    return not controlled or any(is_owned(pod, owner) for owner in owners)


def _pod_revision(pod: Manifest, workload: Manifest, manifests: Sequence[Manifest]) -> int | None:
    """Return the number of the revision that a pod was made from; None where that is gone."""
    owned = (entry for entry in manifests if is_owned(entry, workload))
    return next((revision_number(entry) for entry in owned if _made(entry, pod, workload)), None)


def _made(manifest: Manifest, pod: Manifest, workload: Manifest) -> bool:
    """Return whether a pod was made from a revision: it carries its hash, or for a StatefulSet its name."""
    if workload["kind"] == "Deployment":
        return is_owned(pod, manifest)
    wanted = metadata(manifest)["name"] if workload["kind"] == "StatefulSet" else labels(manifest).get(CONTROLLER_HASH)
    return bool(wanted) and labels(pod).get(CONTROLLER_HASH) == wanted


def _replicas(workload: Manifest, manifest: Manifest, pods: Sequence[Manifest]) -> tuple[int, int]:
    """Return how many pods a revision has, and how many of them are ready; those on their way out do not count."""
    if workload["kind"] == "Deployment":
        status = manifest.get("status") or {}
        return status.get("replicas") or 0, status.get("readyReplicas") or 0
    own = [pod for pod in pods if _made(manifest, pod, workload) and is_owned(pod, workload) and not is_terminating(pod)]
    return len(own), sum(is_ready(pod) for pod in own)


def _requests(template: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return what each container of a pod template requests of a node, where it requests something."""
    containers = (template.get("spec") or {}).get("containers") or []
    found = {entry["name"]: dict((entry.get("resources") or {}).get("requests") or {}) for entry in containers}
    return {name: requests for name, requests in found.items() if requests}
