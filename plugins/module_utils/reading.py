# SPDX-License-Identifier: GPL-3.0-or-later
"""What steps read of a workload, over the Protocol ``Cluster``: its revisions, its pods, its autoscaler."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from .errors import Forbidden, WaitFailed
from .model import Cluster, Manifest, Query, Ref, metadata
from .plan.colors import too_fresh
from .plan.revisions import is_numbered, live_revision, next_number, revisions_in
from .plan.rollout import (
    WAY_OUT,
    Trouble,
    current_revision,
    is_numbered_late,
    is_ready,
    is_terminating,
    label_query,
    live_hash,
    live_pods,
)
from .plan.workload import is_autoscaler_of
from .watching import Stream

LOG_LINES = 10


def revision_kind(kind: str) -> str:
    """Return the kind that holds the revisions of a workload."""
    return "ReplicaSet" if kind == "Deployment" else "ControllerRevision"


def revisions_of(cluster: Cluster, workload: Manifest) -> list[Manifest]:
    """Return the ReplicaSets or ControllerRevisions in the reach of the workload's selector; ownership is the plan's."""
    # ControllerRevisions carry the labels of the pod template, so the same selector finds them.
    query = Query(revision_kind(workload["kind"]), metadata(workload)["namespace"], label_query(workload))
    return cluster.list(query).items


def autoscaler_of(cluster: Cluster, ref: Ref) -> Manifest | None:
    """Return the HorizontalPodAutoscaler that scales the workload; None where there is none or none may be read."""
    try:
        found = cluster.list(Query("HorizontalPodAutoscaler", ref.namespace)).items
    except Forbidden:
        return None
    return next((entry for entry in found if is_autoscaler_of(entry, ref)), None)


def numbered_revision(cluster: Cluster, ref: Ref, workload: Manifest, timeout: float) -> int | None:
    """Return the workload's revision, waiting for its controller to number it; None where that takes too long."""
    generation = metadata(workload).get("generation") or 0

    def number(manifest: Manifest) -> int | None:
        if ((manifest.get("status") or {}).get("observedGeneration") or 0) < generation:
            return None
        if manifest["kind"] == "Deployment":
            return foreseen_revision(cluster, manifest) if is_numbered_late(manifest) else current_revision(manifest)
        return current_revision(manifest, revisions_of(cluster, manifest))

    workload.setdefault("kind", ref.kind)
    try:
        return number(workload) or _awaited_number(cluster, ref, workload, timeout, number)
    except Forbidden:
        return None


def foreseen_revision(cluster: Cluster, deployment: Manifest) -> int:
    """Return the number that the ReplicaSet of a Deployment's template has, or will have when the controller makes it.

    It holds for a template that the controller has seen; before that it may still make a ReplicaSet of the one before.
    """
    manifests = revisions_of(cluster, deployment)
    live = live_revision(deployment, manifests)
    return next_number(metadata(live)["name"] if live else None, revisions_in(deployment, manifests))


def _awaited_number(cluster: Cluster, ref: Ref, workload: Manifest, timeout: float, number: Callable[[Manifest], int | None]) -> int | None:
    """Return the first number that the workload's changes give within the time."""
    query = Query(ref.kind, ref.namespace, fields=f"metadata.name={ref.name}")
    with Stream(cluster, [query], timeout, since=metadata(workload).get("resourceVersion")) as stream:
        for event in stream.events():
            for manifest in (event.items or (event.object,)) if event else ():
                found = number(manifest) if manifest else None
                if found is not None:
                    return found
    return None


def numbered_history(cluster: Cluster, ref: Ref, workload: Manifest, timeout: float) -> tuple[Manifest, list[Manifest]]:
    """Return the workload and its revisions once its controller has numbered the newest template, or as they are after the timeout."""
    workload = {**workload, "kind": ref.kind}
    manifests = revisions_of(cluster, workload)
    if is_numbered(workload, manifests):
        return workload, manifests
    queries = [Query(ref.kind, ref.namespace, fields=f"metadata.name={ref.name}")]
    queries.append(Query(revision_kind(ref.kind), ref.namespace, label_query(workload)))
    with contextlib.suppress(Forbidden), Stream(cluster, queries, timeout) as stream:
        for event in stream.events():
            if event is None:
                continue
            if event.query.kind == ref.kind and event.type != "DELETED":
                found = next(iter(event.items or (event.object,)), None)
                workload = {**found, "kind": ref.kind} if found else workload
            # Two watches do not keep step. What is listed after the workload is at least as new.
            manifests = revisions_of(cluster, workload)
            if is_numbered(workload, manifests):
                break
    return workload, manifests


def pods_of_newest(cluster: Cluster, workload: Manifest) -> list[Manifest]:
    """Return the pods of the workload's newest revision that are not on their way out; empty while it is unknown."""
    live = live_hash(workload, revisions_of(cluster, workload))
    if live is None:
        return []
    query = Query("Pod", metadata(workload)["namespace"], label_query(workload))
    return live_pods(workload, cluster.list(query).items, live)


def ready_pods(cluster: Cluster, namespace: str, labels: str) -> list[Manifest]:
    """Return the pods that a selector finds which are ready and not on their way out."""
    return [pod for pod in cluster.list(Query("Pod", namespace, labels)).items if is_ready(pod)]


def let_router_know(pods: Sequence[Manifest], who: str, progress: Callable[..., None] = lambda _line: None) -> None:
    """Wait until a router surely knows pods that have just become ready: at once, or three seconds at most."""
    seconds = too_fresh(pods, time.time())
    if seconds > 0:
        progress(f"the pods of {who} have just become ready: waiting {seconds:.0f} s, until the router surely knows them")
        time.sleep(seconds)


def with_log(cluster: Cluster, namespace: str, trouble: Trouble) -> Trouble:
    """Return the trouble with the last log lines of the container, where it has crashed and left some."""
    if not trouble.crashed or trouble.log:
        return trouble
    pod = Ref("Pod", namespace, trouble.pod)
    lines = cluster.logs(pod, trouble.container, LOG_LINES, previous=True) or cluster.logs(pod, trouble.container, LOG_LINES)
    return Trouble(trouble.reason, trouble.message, trouble.pod, trouble.container, True, tuple(lines))


def failure(cluster: Cluster, ref: Ref, trouble: Trouble) -> WaitFailed:
    """Return the error that tells a trouble in one sentence, with pod, container, reason and log as details."""
    trouble = with_log(cluster, ref.namespace, trouble)
    where = f" in container {trouble.container} of pod {trouble.pod}" if trouble.container else ""
    where = where or (f" for pod {trouble.pod}" if trouble.pod else "")
    said = f'; its last words: "{trouble.log[-1].strip()[:200]}"' if trouble.log else ""
    way_out = f"; {WAY_OUT[trouble.reason]}" if trouble.reason in WAY_OUT else ""
    words = " ".join(trouble.message.split())
    # A message of the API may be a whole sentence, and this one goes on.
    words = words.rstrip(".") if said or way_out else words
    return WaitFailed(
        f"{ref} will not become ready: {trouble.reason}{where}: {words}{said}{way_out}",
        reason=trouble.reason,
        pod=trouble.pod,
        container=trouble.container,
        log=list(trouble.log),
    )


def steady(pods: Sequence[Manifest]) -> dict[str, int]:
    """Return {pod: restarts} of the pods that stay."""
    return {
        metadata(pod)["name"]: sum(entry.get("restartCount") or 0 for entry in (pod.get("status") or {}).get("containerStatuses") or [])
        for pod in pods
        if not is_terminating(pod)
    }
