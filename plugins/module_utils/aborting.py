# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets Flagger take a release back, and sees that it does: its own write may come between, and is then written over again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import Conflict, InvalidRequest, WaitFailed
from .following import require_canary
from .model import Change, Cluster, Manifest, Query, Ref, metadata
from .plan.flagger_status import canary_status, plan_abort, primary_of, progress_line
from .run import MOST_PLANS
from .watching import Stream

Progress = Callable[..., None]


def abort_release(cluster: Cluster, ref: Ref, check: bool, timeout: float | None, progress: Progress) -> tuple[Change, Manifest]:
    """Return what was changed and the Canary after it; with a timeout, once Flagger has taken the release back (phase Failed).

    Raise WaitFailed where it did something else: a look that was under way at the time of the write may promote the release.
    """
    change, canary = _write(cluster, ref, check)
    if check or timeout is None or not _is_going(canary):
        return change, canary
    query = Query("Canary", ref.namespace, fields=f"metadata.name={ref.name}")
    with Stream(cluster, [query], timeout) as stream:
        for event in stream.events():
            for found in (event.items or (event.object,)) if event else ():
                if not found or event is None or event.type == "DELETED" or metadata(found).get("uid") != metadata(canary).get("uid"):
                    raise WaitFailed(f"{ref} was deleted while its release was taken back", reason="Deleted")
                canary = found
            if canary_status(canary).phase == "Failed":
                return change, canary
            _check_not_ended(ref, canary)
            try:
                # Flagger counts on from what it has read before.
                _again, canary = _write(cluster, ref, check, canary)
            except InvalidRequest as error:
                canary = require_canary(cluster, ref)
                _check_not_ended(ref, canary)
                raise WaitFailed(error.message, reason=error.reason, status=canary_status(canary).to_dict(), changed=True) from None
            progress(progress_line(canary, (), False))
    raise WaitFailed(
        f"{ref} is {canary_status(canary).phase} still after {timeout:g} s: Flagger takes a release back only while the pods of the"
        " canary are ready; give them the image that they had, and see whether Flagger runs",
        reason="Timeout",
        status=canary_status(canary).to_dict(),
    )


def _check_not_ended(ref: Ref, canary: Manifest) -> None:
    """Raise WaitFailed where a release that was to be taken back came to another end, or cannot come to one."""
    status = canary_status(canary)
    if status.phase in ("Progressing", "WaitingPromotion") and not status.suspended:
        return
    said: dict[str, Any] = {"status": status.to_dict(), "changed": True}
    if status.phase in ("Promoting", "Finalising", "Succeeded"):
        raise WaitFailed(
            f"{ref} was promoted while it was to be taken back: Flagger had decided so already, and is {status.phase};"
            f" {primary_of(canary)} runs the new revision - release the version before",
            reason="Promoted",
            **said,
        )
    if status.suspended:
        raise WaitFailed(
            f"{ref} was suspended while its release was taken back, and Flagger does nothing with it; set its spec.suspend to false, and"
            " run this again",
            reason="Suspended",
            **said,
        )
    raise WaitFailed(
        f"{ref} is {status.phase or 'not seen by Flagger'} and not Failed: somebody has begun something else with it; look what, and run"
        " this again where it is to be taken back",
        reason="Superseded",
        **said,
    )


def _is_going(canary: Manifest) -> bool:
    """Return whether Flagger still has a release to take back; one that waits for its first gate has no traffic."""
    status = canary_status(canary)
    return status.is_under_way and status.phase != "Waiting"


def _write(cluster: Cluster, ref: Ref, check: bool, observed: Manifest | None = None) -> tuple[Change, Manifest]:
    """Plan and write until no other writer came between; return the change and the Canary after it."""
    for _attempt in range(MOST_PLANS):
        canary = observed if observed is not None else require_canary(cluster, ref)
        observed = None
        change = plan_abort(ref, canary)
        if not change.changed:
            return change, canary
        try:
            return change, cluster.patch(ref, change.patch, change.patch_type, dry_run=check, subresource="status")
        except Conflict:
            continue
    raise Conflict(f"{ref} was changed by others {MOST_PLANS} times while this step tried to; see who else writes to it")
