# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may release: a Lease that one holder has until it ends it or its time runs out."""

from __future__ import annotations

import datetime
from typing import Any

from ..errors import WaitFailed
from ..model import ANNOTATION_PREFIX, MERGE_PATCH, Change, Manifest, Ref, annotations, metadata

RUN = f"{ANNOTATION_PREFIX}run"
FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


def stamp(now: datetime.datetime) -> str:
    """Return a time as Kubernetes' MicroTime has it."""
    return now.astimezone(datetime.timezone.utc).strftime(FORMAT)


def parse(text: str | None) -> datetime.datetime | None:
    """Return the time of a MicroTime, or None."""
    if not text:
        return None
    for form in (FORMAT, "%Y-%m-%dT%H:%M:%SZ"):
        try:
            return datetime.datetime.strptime(text, form).replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            continue
    return None


def expires(lease: Manifest) -> datetime.datetime | None:
    """Return when the Lease runs out, or None where it never was renewed."""
    spec = lease.get("spec") or {}
    renewed = parse(spec.get("renewTime") or spec.get("acquireTime"))
    return renewed + datetime.timedelta(seconds=spec.get("leaseDurationSeconds") or 0) if renewed else None


def holder_of(lease: Manifest, now: datetime.datetime) -> str:
    """Return who holds the Lease now, or an empty string."""
    end = expires(lease)
    holder = (lease.get("spec") or {}).get("holderIdentity") or ""
    return holder if end is not None and end > now else ""


def run_of(lease: Manifest) -> str:
    """Return which run of the holder took the Lease last."""
    return annotations(lease).get(RUN) or ""


def lease_of(ref: Ref, holder: str, seconds: int, now: datetime.datetime, run: str = "") -> Manifest:
    """Return a new Lease that the holder has."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": ref.name, "namespace": ref.namespace, "annotations": {RUN: run}},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": stamp(now),
            "renewTime": stamp(now),
        },
    }


def plan_hold(ref: Ref, lease: Manifest, holder: str, seconds: int, now: datetime.datetime, force: bool, run: str = "") -> Change:
    """Return the change by which ``holder`` has the Lease; raise WaitFailed(Locked) where somebody else does.

    The same holder enters again: that is how a run that was killed goes on. It is renewed when half its time is over, and
    when ``run`` is another: then it is that one's to give back.
    """
    held = holder_of(lease, now)
    if held and held != holder and not force:
        end = expires(lease)
        raise WaitFailed(
            f'{ref} is held by "{held}" until {stamp(end)[:19]}Z; wait for that run to end, or delete the Lease if nothing runs any more; '
            "a way back takes it over at once"
            if end
            else f'{ref} is held by "{held}"',
            reason="Locked",
            holder=held,
        )
    before: dict[str, Any] = {"holder": held}
    spec: dict[str, Any] = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": stamp(now)}
    action = f"took {ref} for {holder}"
    if held == holder:
        end = expires(lease)
        if run == run_of(lease) and end is not None and end - now > datetime.timedelta(seconds=seconds / 2):
            return Change(before, {"holder": holder})
        action = f"renewed {ref} for {holder}"
    else:
        spec["acquireTime"] = stamp(now)
    patch = {"metadata": {"resourceVersion": metadata(lease).get("resourceVersion"), "annotations": {RUN: run}}, "spec": spec}
    return Change(before, {"holder": holder}, patch, MERGE_PATCH, (action,))
