# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for a rollout: a watch on the workload, its revisions and its pods, ended by the event that decides it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import DeliveryError, Forbidden, NotFound, Unavailable, WaitFailed
from .model import WORKLOAD_KINDS, Cluster, Manifest, Query, Ref, WatchEvent, metadata
from .plan.availability import Availability
from .plan.capacity import has_room_again
from .plan.goal import Goal
from .plan.rollout import (
    RolloutStatus,
    Trouble,
    current_revision,
    is_owned,
    is_ready,
    is_terminating,
    label_query,
    live_hash,
    live_pods,
    live_replica_set,
    pod_summary,
    pod_trouble,
    pods_in_words,
    rollout_status,
    template_key,
    unschedulable,
    workload_trouble,
)
from .plan.undo import stuck_pods
from .reading import failure, revision_kind, revisions_of
from .turns import Turn
from .watching import Stream

AWAY = "the API server does not answer"
# Seconds for which a quota stays full after the last pod that ended is gone, before that is believed.
QUOTA_GRACE = 3.0
# Seconds in which a service account may come, as the one of a new namespace does a moment after it.
ACCOUNT_GRACE = 10.0
NO_ACCOUNT = "error looking up service account"

Progress = Callable[..., None]


@dataclass
class Watched:
    """The newest state of what a wait looks at, fed by watch events."""

    ref: Ref
    workload: Manifest
    pods: dict[str, Manifest] = field(default_factory=dict)
    revisions: dict[str, Manifest] = field(default_factory=dict)
    happenings: dict[str, Manifest] = field(default_factory=dict)
    vanished: bool = False
    synced: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)

    def take(self, event: WatchEvent) -> None:
        """Take in one event."""
        kind = event.query.kind
        if event.type == "SYNCED":
            self.synced.add(kind)
        if kind == self.ref.kind:
            found = event.object if event.type != "SYNCED" else event.items[0] if event.items else {}
            if event.type == "DELETED" or not self.is_same(found):
                self.vanished = True
            else:
                self.workload = found
            return
        table = {"Pod": self.pods, "Event": self.happenings}.get(kind, self.revisions)
        if event.type == "SYNCED":
            table.clear()
            table.update({metadata(entry)["name"]: entry for entry in event.items})
        elif event.type == "DELETED":
            table.pop(metadata(event.object)["name"], None)
        else:
            table[metadata(event.object)["name"]] = event.object
        if table is self.revisions:
            self.owners |= {metadata(entry).get("uid") or "" for entry in table.values() if is_owned(entry, self.workload)}

    def is_same(self, found: Manifest) -> bool:
        """Return whether an object is the one that is looked at, and not on its way out: another may have taken its name."""
        meta = metadata(found)
        return bool(found) and not meta.get("deletionTimestamp") and meta.get("uid") == metadata(self.workload).get("uid")

    @property
    def knows_pods(self) -> bool:
        """Return whether the pods and the revisions that they belong to were listed."""
        return {"Pod", revision_kind(self.ref.kind)} <= self.synced

    @property
    def knows_revisions(self) -> bool:
        """Return whether the revisions were listed."""
        return revision_kind(self.ref.kind) in self.synced

    def refresh(self, cluster: Cluster) -> None:
        """Read everything anew: what came by a watch may be old, or have come in another order than it happened."""
        self.workload = require(cluster, self.ref)
        self.revisions = {metadata(entry)["name"]: entry for entry in revisions_of(cluster, self.workload)}
        pods = cluster.list(Query("Pod", self.ref.namespace, label_query(self.workload))).items
        self.pods = {metadata(entry)["name"]: entry for entry in pods}

    def newest_pods(self) -> list[Manifest]:
        """Return the pods of the newest revision that stay."""
        live = live_hash(self.workload, self.revisions.values())
        return live_pods(self.workload, self.pods.values(), live)

    def own_pods(self) -> list[Manifest] | None:
        """Return all pods of the workload, those on their way out too; None while they are not known.

        A label selector alone may also find those of another workload.
        """
        if not self.knows_pods:
            return None
        owners = self.owners if self.ref.kind == "Deployment" else {metadata(self.workload).get("uid")}
        return [
            pod
            for pod in self.pods.values()
            if any(owner.get("controller") and owner.get("uid") in owners for owner in metadata(pod).get("ownerReferences") or [])
        ]

    def coming(self) -> int:
        """Return how many pods the newest revision will have if nothing more is rolled out; 0 where that is not known."""
        live = live_replica_set(self.workload, self.revisions.values()) if self.ref.kind == "Deployment" else None
        return ((live or {}).get("spec") or {}).get("replicas") or 0

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


@dataclass
class Memory:
    """What a wait must know of its past: how it began, what it saw last, since when a pod finds no node or is refused, availability."""

    uid: str = ""
    template: str = ""
    line: str = ""
    homeless_since: float | None = None
    refused_since: float | None = None
    availability: Availability = field(default_factory=Availability)

    @classmethod
    def of(cls, turn: Turn) -> Memory:
        """Return what the calls before knew; raise InvalidRequest where that is not what they have returned."""
        if not turn.memory:
            return cls()
        try:
            homeless, refused = (turn.memory[key] for key in ("homeless_since", "refused_since"))
            return cls(
                str(turn.memory["uid"]),
                str(turn.memory["template"]),
                str(turn.memory["line"]),
                None if homeless is None else float(homeless),
                None if refused is None else float(refused),
                Availability.of(turn.memory["availability"]),
            )
        except (KeyError, TypeError, ValueError):
            raise turn.refusal("that has been changed") from None

    def to_dict(self) -> dict[str, Any]:
        """Return what the next call needs to know."""
        return {
            "uid": self.uid,
            "template": self.template,
            "line": self.line,
            "homeless_since": self.homeless_since,
            "refused_since": self.refused_since,
            "availability": self.availability.to_dict(),
        }


@dataclass(frozen=True)
class Outcome:
    """How a wait ended; ``resume`` is set where this call did not come to an end. A look has no downtime, and is no wait."""

    status: RolloutStatus | None
    pods: list[dict[str, Any]]
    availability: Availability
    resume: Mapping[str, Any] | None = None
    is_wait: bool = True

    def report(self) -> dict[str, Any]:
        """Return it as a step reports it."""
        found: dict[str, Any] = {"pods": self.pods, "availability": {"least": self.availability.least}}
        found["status"] = self.status.to_dict() if self.status else None
        found["downtime"] = self.availability.seconds_down(self.status) if self.status and self.is_wait else None
        return {**found, **(self.resume or {})}


def wait_for_rollout(
    cluster: Cluster,
    ref: Ref,
    timeout: float,
    goal: Goal | None = None,
    progress: Progress = lambda _line: None,
    turn: Turn | None = None,
) -> Outcome:
    """Return when the goal is met, or the turn is over; raise WaitFailed as soon as it is known that it will not be.

    A revision in the goal makes a change of the pod template by somebody else a failure (Superseded); without it the wait
    follows the newest template.
    """
    return RolloutWait(cluster, ref, goal or Goal(), turn or Turn(str(ref), timeout), timeout, progress).run()


class RolloutWait:
    """One call of a wait for a rollout."""

    def __init__(self, cluster: Cluster, ref: Ref, goal: Goal, turn: Turn, timeout: float, progress: Progress) -> None:
        self._cluster = cluster
        self._ref = ref
        self._goal = goal
        self._turn = turn
        self._timeout = timeout
        self._progress = progress
        self._memory = Memory.of(turn)
        self._watched = Watched(ref, {})
        self._status: RolloutStatus | None = None

    def run(self) -> Outcome:
        """Look, watch, and return or raise what was found."""
        try:
            return self._run()
        except DeliveryError as error:
            if self._status is None:
                raise
            raise error.with_details(**{**self._outcome().report(), **error.details}) from None

    def _run(self) -> Outcome:
        """Look at the workload, then at each event, until one of them decides it or the time is over."""
        try:
            workload = require(self._cluster, self._ref)
        except NotFound:
            if not self._turn.memory:
                raise
            raise self._deleted() from None
        except Unavailable as error:
            if not self._turn.memory:
                raise
            return self._over(error)
        uid = metadata(workload).get("uid") or ""
        if self._memory.uid not in ("", uid):
            raise self._deleted()
        self._watched.workload = workload
        self._memory.uid, self._memory.template = uid, self._memory.template or template_key(workload)
        if self._is_met():
            return self._outcome()
        with Stream(self._cluster, queries_for(self._ref, workload), self._turn.left, self._turn.clock) as stream:
            for event in stream.events():
                if event is not None:
                    self._watched.take(event)
                if self._watched.vanished:
                    raise self._deleted()
                if self._is_met():
                    self._catch_up()
                    self._progress(self._memory.line)
                    return self._outcome()
                self._check_hopeless()
                self._progress(self._told(stream.is_away))
            away = stream.is_away
        return self._over(None, away)

    def _catch_up(self) -> None:
        """Read the pods anew where their events are behind that of the workload: they are to be told as they are."""
        ready = sum(1 for pod in self._watched.newest_pods() if is_ready(pod))
        if self._status is not None and self._status.done and ready < self._status.wanted:
            with contextlib.suppress(DeliveryError):
                self._watched.refresh(self._cluster)

    def _told(self, is_away: bool) -> str:
        """Return how far it is as one line, and that it may not be true any more while the API server is away."""
        return " - last seen: ".join(filter(None, (AWAY, self._memory.line))) if is_away else self._memory.line

    def _over(self, away: Unavailable | None, is_away: bool = True) -> Outcome:
        """Return what the next call needs, or raise WaitFailed where the whole time is over."""
        if not self._turn.is_last or (self._turn.left and away):
            return self._outcome(self._turn.hand_over(self._memory.to_dict(), self._told(is_away)))
        if away is None:
            try:
                # A connection that is half open tells nothing: the last word is the server's own.
                self._watched.workload = require(self._cluster, self._ref)
                if self._is_met():
                    return self._outcome()
            except NotFound:
                raise self._deleted() from None
            except Unavailable as error:
                away = error
        told = "; last seen: ".join(filter(None, (away.message if away else "", self._memory.line)))
        if self._status is not None and self._status.done and self._goal.revision is not None:
            now = current_revision(self._watched.workload, self._watched.revisions.values())
            told += f", at revision {now} and not at {self._goal.revision}"
        raise WaitFailed(
            f"{self._ref} did not {self._goal.words} within {self._timeout:g} s: {' '.join(told.split())};"
            " see the pods in the result, or give it more time with timeout",
            reason="Timeout",
        )

    def _outcome(self, resume: Mapping[str, Any] | None = None) -> Outcome:
        """Return what has been seen."""
        return Outcome(self._status, self._watched.report(), self._memory.availability, resume)

    def _deleted(self) -> WaitFailed:
        """Return the error for a workload that is gone."""
        return WaitFailed(f"{self._ref} was deleted while its rollout was waited for; deploy it again", reason="Deleted")

    def _is_met(self) -> bool:
        """Take a look; return whether the goal is met, and raise WaitFailed where the look forbids to say so."""
        watched, goal = self._watched, self._goal
        self._status = status = rollout_status(watched.workload)
        self._memory.availability.note(self._turn.elapsed, status, watched.own_pods())
        self._check_superseded()
        goal.check(self._ref, watched.workload, status)
        ready = sum(1 for pod in watched.newest_pods() if is_ready(pod))
        self._memory.line = goal.line(status, ready)
        return goal.is_met(status, ready) and self._is_at_revision()

    def _is_at_revision(self) -> bool:
        """Return whether the workload is at the revision that is waited for, where one is; a controller may number it late."""
        if self._goal.revision is None:
            return True
        if self._ref.kind != "Deployment" and not self._watched.knows_revisions:
            return False
        return current_revision(self._watched.workload, self._watched.revisions.values()) == self._goal.revision

    def _check_superseded(self) -> None:
        """Raise WaitFailed where a revision is waited for and the workload has been given another template."""
        revision, workload = self._goal.revision, self._watched.workload
        if revision is None:
            return
        now = current_revision(workload, self._watched.revisions.values())
        # A lower number is one that the controller has not raised yet: it does so last when it goes back to an old ReplicaSet.
        passed = now is not None and (now > revision or (now < revision and self._ref.kind != "Deployment"))
        if template_key(workload) != self._memory.template or passed:
            raise WaitFailed(
                f"{self._ref} is at revision {now if now is not None else 'unknown'} and not at {revision}, which was waited for:"
                " somebody else changed it; wait without revision to follow the newest",
                reason="Superseded",
            )

    def _check_hopeless(self) -> None:
        """Raise WaitFailed where the goal cannot be met without somebody's help."""
        watched, status = self._watched, self._status
        if status is None:
            return
        known = self._goal.is_whole or watched.knows_pods
        if known and self._goal.is_stuck(status, watched.coming()):
            done = f"{status.updated} of {pods_in_words(status.wanted)} updated"
            waited = "" if self._goal.is_whole else f", and is to {self._goal.words}"
            if status.phase == "paused":
                raise WaitFailed(f"{self._ref} is paused with {done}{waited}; resume it", reason="Paused")
            raise WaitFailed(f"{self._ref} has {done} and the strategy OnDelete{waited}; delete its pods to go on", reason="OnDelete")
        if not watched.knows_revisions:
            # Which revision a trouble belongs to is not known: it may be left from the rollout before.
            return
        newest = watched.newest_pods()
        self._check_stuck()
        trouble: Trouble | None = pod_trouble(newest) or workload_trouble(
            watched.workload, watched.happenings.values(), watched.revisions.values()
        )
        trouble = self._standing(trouble)
        homeless, now = unschedulable(newest), self._turn.elapsed
        if homeless is None and watched.knows_pods:
            self._memory.homeless_since = None
        elif homeless and self._memory.homeless_since is None:
            self._memory.homeless_since = now
        elif homeless and now - self._memory.homeless_since >= self._goal.grace:
            trouble = trouble or homeless
        if trouble:
            raise failure(self._cluster, self._ref, trouble)

    def _standing(self, trouble: Trouble | None) -> Trouble | None:
        """Return the trouble, or None where it may be over: a quota that may have room by now, a service account that may come yet.

        A pod that ends gives back what it has of a quota, a moment after it is gone; the controller tries again, later and later,
        and its condition says meanwhile what was true the first time.
        """
        memory, now = self._memory, self._turn.elapsed
        if trouble and NO_ACCOUNT in trouble.message:
            memory.refused_since = now if memory.refused_since is None else memory.refused_since
            return None if now - memory.refused_since < ACCOUNT_GRACE else trouble
        if trouble is None or "exceeded quota" not in trouble.message or any(map(is_terminating, self._watched.own_pods() or ())):
            memory.refused_since = None
            return trouble if trouble and "exceeded quota" not in trouble.message else None
        if memory.refused_since is None:
            memory.refused_since = now
        if now - memory.refused_since < QUOTA_GRACE:
            return None
        try:
            quotas = self._cluster.list(Query("ResourceQuota", self._ref.namespace)).items
        except DeliveryError:
            # Who may not read them has the server's word for it.
            return trouble
        if has_room_again(trouble.message, quotas):
            memory.refused_since = None
            return None
        return trouble

    def _check_stuck(self) -> None:
        """Raise WaitFailed where a StatefulSet waits for a pod of an older revision that will never be ready."""
        live = live_hash(self._watched.workload, self._watched.revisions.values())
        stuck = stuck_pods(self._watched.workload, self._watched.own_pods() or [], live or "")
        trouble = pod_trouble(stuck)
        if trouble:
            raise WaitFailed(
                f"{self._ref} waits for pod {trouble.pod} of an older revision, which will not become ready ({trouble.reason}), and"
                f" replaces none while it is not; delete that pod, or go back with undo_rollout and delete_stuck_pods",
                reason="StuckPod",
                pod=trouble.pod,
                container=trouble.container,
            )


def look_once(cluster: Cluster, ref: Ref, goal: Goal) -> Outcome:
    """Return what there is to see now, or raise InvalidRequest where the goal can never be met."""
    workload = require(cluster, ref)
    status = rollout_status(workload)
    goal.check(ref, workload, status)
    return Outcome(status, [], Availability(status.available), is_wait=False)


def require(cluster: Cluster, ref: Ref) -> Manifest:
    """Return the workload, or raise NotFound with those that there are in its namespace."""
    try:
        manifest = cluster.get(ref)
    except NotFound as error:
        if "there is no namespace" in error.message:
            raise
        names = sorted(metadata(entry)["name"] for entry in cluster.list(Query(ref.kind, ref.namespace)).items)
        there = ", ".join(names[:10]) or "none"
        other = _namesake(cluster, ref)
        if other:
            raise NotFound(
                f"{ref} does not exist, but there is a {other} {ref.name} in namespace {ref.namespace}:"
                f" where that is meant, set kind: {other}"
            ) from None
        raise NotFound(f"{ref} does not exist; {ref.kind}s in namespace {ref.namespace}: {there}") from None
    manifest.setdefault("kind", ref.kind)
    return manifest


def _namesake(cluster: Cluster, ref: Ref) -> str:
    """Return another kind of workload that has an object of this name; empty where none has, or none may be looked at."""
    for kind in WORKLOAD_KINDS if ref.kind in WORKLOAD_KINDS else ():
        with contextlib.suppress(NotFound, Forbidden):
            if kind != ref.kind and cluster.get(Ref(kind, ref.namespace, ref.name)):
                return kind
    return ""
