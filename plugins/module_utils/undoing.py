# SPDX-License-Identifier: GPL-3.0-or-later
"""Going back to a revision, over the Protocol ``Cluster``: the decision, its one write, and the pods that would block it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .errors import Conflict, Forbidden, NotFound
from .model import Change, Cluster, Manifest, Query, Ref, metadata
from .plan.revisions import is_numbered, live_revision, revision_number
from .plan.rollout import label_query
from .plan.undo import Asked, Undo, plan_undo, stuck_pods, superseded_pods, waits_for_each_pod
from .reading import numbered_history
from .run import MOST_PLANS, settle
from .waiting import require

Choice = Callable[[Manifest, Sequence[Manifest], str], list[Manifest]]


def take_back(cluster: Cluster, ref: Ref, asked: Asked, check: bool, timeout: float) -> tuple[Undo, Manifest]:
    """Give the workload the pod template that was asked for; return what was decided, and the workload after it."""
    planned: list[Undo] = []

    def plan(workload: Manifest) -> Change:
        planned.append(plan_undo(ref, *numbered_history(cluster, ref, workload, timeout), asked))
        return planned[-1].change

    change, workload = settle(cluster, ref, plan, check, require(cluster, ref))
    # Not always the last plan: after an answer that was lost, that one finds everything done.
    return next(undo for undo in planned if undo.change is change), {**workload, "kind": ref.kind}


def given_number(cluster: Cluster, ref: Ref, workload: Manifest, timeout: float) -> int | None:
    """Return the number that the controller gives the newest template; None where that takes too long."""
    workload, manifests = numbered_history(cluster, ref, workload, timeout)
    live = live_revision(workload, manifests)
    return revision_number(live) if live is not None and is_numbered(workload, manifests) else None


def release(cluster: Cluster, ref: Ref, workload: Manifest, is_new: bool, check: bool, timeout: float) -> list[str]:
    """Delete the pods that would keep a StatefulSet from its newest template for ever, and return their names.

    ``is_new`` says that the template was changed just now. A pod that is deleted before the controller has seen that comes back
    as it was.
    """
    if not waits_for_each_pod(workload):
        return []
    if check and is_new:
        # No pod can be of a revision that there will be.
        return free(cluster, ref, workload, "none yet", True, check, superseded_pods)[1]
    workload, manifests = numbered_history(cluster, ref, workload, timeout)
    workload = {**workload, "kind": ref.kind}
    live = live_revision(workload, manifests)
    if live is None or not is_numbered(workload, manifests):
        return []
    return free(cluster, ref, workload, metadata(live)["name"], True, check, superseded_pods)[1]


def free(
    cluster: Cluster, ref: Ref, workload: Manifest, target: str, delete: bool, check: bool, choose: Choice = stuck_pods
) -> tuple[list[str], list[str]]:
    """Return the pods that block the way, and those that were deleted because they would have; ``choose`` says which do.

    A StatefulSet's pod has the same name again when it comes back, so that one is deleted by its version and not by name.
    """
    deleted: dict[str, None] = {}
    if not target or not waits_for_each_pod(workload):
        return [], []
    for _attempt in range(MOST_PLANS):
        try:
            pods = cluster.list(Query("Pod", ref.namespace, label_query(workload))).items
        except Forbidden:
            if delete:
                raise
            return [], []
        stuck = choose(workload, pods, target)
        if not delete or not stuck:
            return [metadata(pod)["name"] for pod in stuck], list(deleted)
        try:
            for pod in stuck:
                name = metadata(pod)["name"]
                cluster.delete(Ref("Pod", ref.namespace, name), dry_run=check, resource_version=metadata(pod).get("resourceVersion"))
                deleted[name] = None
            return [], list(deleted)
        except (Conflict, NotFound):
            continue
    raise Conflict(f"the pods of {ref} changed {MOST_PLANS} times while this step tried to delete those that are stuck; run it again")
