# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for a rollout: a watch on the workload, its revisions and its pods, ended by the event that decides it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import NotFound, WaitFailed
from .model import Cluster, Manifest, Query, Ref, WatchEvent, metadata
from .plan.rollout import (
    RolloutStatus,
    Trouble,
    current_revision,
    label_query,
    live_hash,
    live_pods,
    pod_summary,
    pod_trouble,
    rollout_status,
    template_key,
    unschedulable,
    workload_trouble,
)
from .reading import failure, revision_kind
from .watching import Stream

LINE_EVERY = 15.0
UNSCHEDULABLE_GRACE = 30.0

Progress = Callable[[str], None]


@dataclass
class Watched:
    """The newest state of what a wait looks at, fed by watch events."""

    ref: Ref
    workload: Manifest
    pods: dict[str, Manifest] = field(default_factory=dict)
    revisions: dict[str, Manifest] = field(default_factory=dict)
    happenings: dict[str, Manifest] = field(default_factory=dict)
    vanished: bool = False

    def take(self, event: WatchEvent) -> None:
        """Take in one event."""
        if event.query.kind == self.ref.kind:
            if event.type == "DELETED" or (event.type == "SYNCED" and not event.items):
                self.vanished = True
            else:
                self.workload = event.items[0] if event.type == "SYNCED" else event.object
            return
        table = {"Pod": self.pods, "Event": self.happenings}.get(event.query.kind, self.revisions)
        if event.type == "SYNCED":
            table.clear()
            table.update({metadata(entry)["name"]: entry for entry in event.items})
        elif event.type == "DELETED":
            table.pop(metadata(event.object)["name"], None)
        else:
            table[metadata(event.object)["name"]] = event.object

    def newest_pods(self) -> list[Manifest]:
        """Return the pods of the newest revision that stay."""
        live = live_hash(self.workload, self.revisions.values())
        return live_pods(self.workload, self.pods.values(), live)

    def report(self) -> list[dict[str, Any]]:
        """Return all pods of the workload as a step reports them."""
        return [pod_summary(pod) for _name, pod in sorted(self.pods.items())]


def queries_for(ref: Ref, workload: Manifest) -> list[Query]:
    """Return what a wait for the workload watches."""
    labels = label_query(workload)
    queries = [
        Query(ref.kind, ref.namespace, fields=f"metadata.name={ref.name}"),
        Query(revision_kind(ref.kind), ref.namespace, labels),
        Query("Pod", ref.namespace, labels),
    ]
    if ref.kind != "Deployment":
        # Only these two tell of refused pods by events alone; a Deployment has a condition for it.
        queries.append(Query("Event", ref.namespace, fields=f"involvedObject.name={ref.name}", optional=True))
    return queries


def wait_for_rollout(
    cluster: Cluster,
    ref: Ref,
    timeout: float,
    revision: int | None = None,
    progress: Progress = lambda _line: None,
    clock: Callable[[], float] = time.monotonic,
    grace: float = UNSCHEDULABLE_GRACE,
) -> tuple[RolloutStatus, Watched]:
    """Return the status of the complete rollout, or raise WaitFailed as soon as it is known that it will not be.

    ``revision`` makes a change of the pod template by somebody else a failure (Superseded); without it the wait
    follows the newest template. ``grace`` is how long a pod may wait for a node, in seconds.
    """
    started = clock()
    watched = Watched(ref, cluster.get(ref))
    watched.workload.setdefault("kind", ref.kind)
    key = template_key(watched.workload)
    status = rollout_status(watched.workload)
    _check_superseded(ref, watched, revision, key)
    if status.done and (revision is None or current_revision(watched.workload) in (revision, None)):
        return status, watched
    homeless_since: float | None = None
    told, told_at = "", started
    with Stream(cluster, queries_for(ref, watched.workload), timeout, clock) as stream:
        for event in stream.events():
            if event is not None:
                watched.take(event)
            if watched.vanished:
                raise WaitFailed(f"{ref} was deleted while its rollout was waited for", reason="Deleted")
            status = rollout_status(watched.workload)
            _check_superseded(ref, watched, revision, key)
            if status.done:
                progress(f"{status.line()} ({clock() - started:.1f} s)")
                return status, watched
            try:
                _check_hopeless(cluster, ref, watched, status)
            except WaitFailed as error:
                raise error.with_details(status=status.to_dict(), pods=watched.report()) from None
            homeless = unschedulable(watched.newest_pods())
            homeless_since = (homeless_since or clock()) if homeless else None
            if homeless and homeless_since is not None and clock() - homeless_since >= grace:
                raise failure(cluster, ref, homeless).with_details(status=status.to_dict(), pods=watched.report())
            if status.line() != told or clock() - told_at >= LINE_EVERY:
                told, told_at = status.line(), clock()
                progress(f"{told} ({told_at - started:.1f} s)")
    # A connection that is half open tells nothing: the last word is the server's own.
    watched.workload = {**cluster.get(ref), "kind": ref.kind}
    status = rollout_status(watched.workload)
    _check_superseded(ref, watched, revision, key)
    if status.done:
        return status, watched
    raise WaitFailed(
        f"{ref} did not complete its rollout within {timeout:g} s: {status.line()}",
        reason="Timeout",
        status=status.to_dict(),
        pods=watched.report(),
    )


def _check_superseded(ref: Ref, watched: Watched, revision: int | None, key: str) -> None:
    """Raise WaitFailed where a revision is waited for and the workload has been given another template."""
    if revision is None:
        return
    now = current_revision(watched.workload, watched.revisions.values())
    # A lower number is one that the controller has not raised yet: it does so last when it goes back to an old ReplicaSet.
    passed = now is not None and (now > revision or (now < revision and watched.ref.kind != "Deployment"))
    if template_key(watched.workload) != key or passed:
        raise WaitFailed(
            f"{ref} is at revision {now if now is not None else 'unknown'} and not at {revision}, which was waited for:"
            " somebody else changed it",
            reason="Superseded",
            status=rollout_status(watched.workload).to_dict(),
        )


def _check_hopeless(cluster: Cluster, ref: Ref, watched: Watched, status: RolloutStatus) -> None:
    """Raise WaitFailed where the rollout cannot complete without somebody's help."""
    if status.phase == "paused":
        raise WaitFailed(f"{ref} is paused with {status.updated} of {status.wanted} pods updated; resume it", reason="Paused")
    if status.phase == "on_delete":
        raise WaitFailed(
            f"{ref} has {status.updated} of {status.wanted} pods updated and the strategy OnDelete: delete its pods to go on",
            reason="OnDelete",
        )
    trouble: Trouble | None = pod_trouble(watched.newest_pods()) or workload_trouble(
        watched.workload, watched.happenings.values(), watched.revisions.values()
    )
    if trouble:
        raise failure(cluster, ref, trouble)


def require(cluster: Cluster, ref: Ref) -> Manifest:
    """Return the workload, or raise NotFound with those that there are in its namespace."""
    try:
        manifest = cluster.get(ref)
    except NotFound as error:
        if "there is no namespace" in error.message:
            raise
        names = sorted(metadata(entry)["name"] for entry in cluster.list(Query(ref.kind, ref.namespace)).items)
        there = ", ".join(names[:10]) or "none"
        raise NotFound(f"{ref} does not exist; {ref.kind}s in namespace {ref.namespace}: {there}") from None
    manifest.setdefault("kind", ref.kind)
    return manifest
