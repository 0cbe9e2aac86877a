# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for a release that Flagger drives: a watch on the Canary, its events, its workloads and their pods."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import DeliveryError, Forbidden, InvalidRequest, NotFound, Unavailable, WaitFailed
from .model import Cluster, Manifest, Query, Ref, WatchEvent, metadata
from .plan.flagger_status import (
    CanaryStatus,
    Check,
    Gate,
    Told,
    as_written,
    canary_status,
    checks_of,
    config_checksum,
    failure_of,
    gate_of,
    images_of,
    interval_of,
    is_decided,
    is_same_template,
    is_told_to_the_end,
    pods_query,
    primary_of,
    progress_line,
    target_of,
    told_of,
    tracked_configs,
)
from .plan.rollout import (
    Trouble,
    current_revision,
    in_words,
    live_hash,
    live_pods,
    pod_summary,
    pod_trouble,
    replicas_of,
    template_key,
    unschedulable,
    workload_trouble,
)
from .reading import revision_kind, with_log
from .turns import Turn
from .watching import Stream

AWAY = "the API server does not answer"
FOLLOWED = ("Deployment", "DaemonSet")
# Seconds for which the last events of a release that failed are waited for: they come a little after the status.
LAST_WORDS = 2.0
# Seconds beyond two intervals after which Flagger should have seen a new revision.
PICKUP_GRACE = 20.0
MOST_EVENTS = 20

Progress = Callable[..., None]


@dataclass(frozen=True)
class Wish:
    """What a wait for a Canary is for.

    ``until`` is one of flagger_status.UNTIL; ``revision`` is the one of the target that must be the newest; ``pickup`` the seconds
    that Flagger gets to see it (None: two intervals and a little); ``grace`` those for which a pod may find no node; ``tells_stuck``
    whether pods that will not become ready are told of and Flagger's own verdict is waited for.
    """

    until: str = "succeeded"
    revision: int | None = None
    pickup: float | None = None
    grace: float = 30.0
    tells_stuck: bool = False

    @property
    def words(self) -> str:
        """Return what is waited for, as a sentence has it."""
        return {
            "initialized": "get its primary",
            "waiting": "come to a gate or to an end",
            "succeeded": "succeed",
            "off": "come to rest",
        }[self.until]


@dataclass
class Memory:
    """What a wait must know of its past: what it looks at, whether it saw the release under way, since when it waits for what."""

    uid: str = ""
    template: str = ""
    version: str = ""
    applied: str = ""
    active: bool = False
    pending_since: float | None = None
    homeless_since: float | None = None
    failed_since: float | None = None
    line: str = ""

    @classmethod
    def of(cls, turn: Turn) -> Memory:
        """Return what the calls before knew; raise InvalidRequest where that is not what they have returned."""
        if not turn.memory:
            return cls()
        try:
            given = {key: turn.memory[key] for key in cls.__dataclass_fields__}
            for key in ("pending_since", "homeless_since", "failed_since"):
                given[key] = None if given[key] is None else float(given[key])
            return cls(**given)
        except (KeyError, TypeError, ValueError):
            raise turn.refusal("that has been changed") from None

    def to_dict(self) -> dict[str, Any]:
        """Return what the next call needs to know."""
        return {key: getattr(self, key) for key in self.__dataclass_fields__}


@dataclass
class Seen:
    """The newest state of what a wait looks at, fed by watch events."""

    ref: Ref
    canary: Manifest
    target: Manifest = field(default_factory=dict)
    primary: Manifest = field(default_factory=dict)
    tables: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    vanished: bool = False

    @property
    def target_ref(self) -> Ref | None:
        """Return the workload that is released; None where it is of a kind that has no pods of its own."""
        kind, name = target_of(self.canary)
        return Ref(kind, self.ref.namespace, name) if kind in FOLLOWED else None

    @property
    def primary_name(self) -> str:
        """Return the name of the workload that has the traffic."""
        return primary_of(self.canary)

    def take(self, event: WatchEvent) -> None:
        """Take in one event."""
        kind = event.query.kind
        found = list(event.items) if event.type == "SYNCED" else [event.object]
        if kind == "Canary":
            entry = next(iter(found), {})
            if event.type == "DELETED" or not entry or metadata(entry).get("uid") != metadata(self.canary).get("uid"):
                self.vanished = True
            else:
                self.canary = entry
            return
        table = self.tables.setdefault(kind, {})
        if event.type == "SYNCED":
            table.clear()
        for entry in found:
            name = metadata(entry)["name"]
            if event.type == "DELETED":
                table.pop(name, None)
            else:
                table[name] = entry
        if self.target_ref and kind == self.target_ref.kind:
            for name, entry in table.items():
                self._take_workload(name, {**entry, "kind": kind})

    def _take_workload(self, name: str, entry: Manifest) -> None:
        """Take the newest state of target or primary."""
        if self.target_ref and name == self.target_ref.name:
            self.target = as_written(entry)
        elif name == self.primary_name:
            self.primary = entry

    def told(self) -> list[Told]:
        """Return what Flagger has said of the Canary."""
        return told_of(self.tables.get("Event", {}).values(), self.canary)

    def newest_pods(self, workload: Manifest) -> list[Manifest]:
        """Return the pods of a workload's newest revision that stay; none while its revisions were not listed."""
        kind = revision_kind(workload["kind"])
        if not {kind, "Pod"} <= self.tables.keys():
            return []
        revisions = list(self.tables[kind].values())
        return live_pods(workload, self.tables["Pod"].values(), live_hash(workload, revisions))

    def pods(self) -> list[dict[str, Any]]:
        """Return all pods as a step reports them."""
        return [pod_summary(pod) for _name, pod in sorted(self.tables.get("Pod", {}).items())]


@dataclass(frozen=True)
class Outcome:
    """How a wait ended. ``result`` is released, unchanged, failed, initialized, waiting or off; empty where the wait goes on."""

    result: str
    seen: Seen
    resume: Mapping[str, Any] | None = None

    def report(self) -> dict[str, Any]:
        """Return it as a step reports it."""
        told = self.seen.told()
        gate = gate_of(self.seen.canary, told)
        found: dict[str, Any] = {
            "outcome": self.result,
            "status": canary_status(self.seen.canary).to_dict(),
            "gate": gate.to_dict() if gate else {},
            "checks": [check.to_dict() for check in checks_of(told)],
            "events": [entry.to_dict() for entry in told[-MOST_EVENTS:]],
            "pods": self.seen.pods(),
            "images": {"target": images_of(self.seen.target), "primary": images_of(self.seen.primary)},
            "target": dict(zip(("kind", "name"), target_of(self.seen.canary))),
        }
        return {**found, **(self.resume or {})}


def require_canary(cluster: Cluster, ref: Ref) -> Manifest:
    """Return the Canary, or raise NotFound with those that there are, or with the way to get the kind."""
    try:
        return cluster.get(ref)
    except NotFound as error:
        if "there is no namespace" in error.message:
            raise
    try:
        names = sorted(metadata(entry)["name"] for entry in cluster.list(Query("Canary", ref.namespace)).items)
    except NotFound:
        raise NotFound(f"{ref} does not exist: the cluster does not know the kind Canary; install Flagger with the role flagger") from None
    raise NotFound(f"{ref} does not exist; Canaries in namespace {ref.namespace}: {', '.join(names[:10]) or 'none'}")


class CanaryWait:
    """One call of a wait for a Canary."""

    def __init__(self, cluster: Cluster, ref: Ref, wish: Wish, turn: Turn, timeout: float, progress: Progress) -> None:
        self._cluster = cluster
        self._ref = ref
        self._wish = wish
        self._turn = turn
        self._timeout = timeout
        self._progress = progress
        self._memory = Memory.of(turn)
        self._seen: Seen | None = None

    def run(self) -> Outcome:
        """Look, watch, and return or raise what was found."""
        try:
            return self._run()
        except DeliveryError as error:
            if self._seen is None:
                raise
            outcome = "failed" if isinstance(error, WaitFailed) else ""
            raise error.with_details(**{**Outcome(outcome, self._seen).report(), **error.details}) from None

    def look(self) -> Outcome:
        """Return what there is to see now, without waiting; raise where it is clear already that it will not be."""
        self._seen = Seen(self._ref, require_canary(self._cluster, self._ref))
        self._read_workloads()
        self._begin()
        self._read_events()
        return Outcome(self._result(is_look=True), self._seen)

    def _run(self) -> Outcome:
        """Look at the Canary, then at each event, until one of them decides it or the time is over."""
        try:
            canary = require_canary(self._cluster, self._ref)
        except NotFound:
            if not self._turn.memory:
                raise
            raise self._deleted() from None
        except Unavailable as error:
            if not self._turn.memory:
                raise
            return self._over(error)
        if self._memory.uid not in ("", metadata(canary).get("uid") or ""):
            raise self._deleted()
        self._seen = seen = Seen(self._ref, canary)
        self._read_workloads()
        self._begin()
        result = self._result()
        if result:
            self._read_events()
            return Outcome(result, seen)
        with Stream(self._cluster, self._queries(), self._turn.left, self._turn.clock) as stream:
            for event in stream.events():
                if event is not None:
                    seen.take(event)
                if seen.vanished:
                    raise self._deleted()
                # The phase is told as soon as it is known; what it means may need a request.
                self._tell(stream.is_away)
                result = self._result()
                if result:
                    self._tell(False)
                    return Outcome(result, seen)
                self._check_stuck()
                self._tell(stream.is_away)
            away = stream.is_away
        return self._over(None, away)

    # -- looking ------------------------------------------------------------------------------------------------------

    def _queries(self) -> list[Query]:
        """Return what a wait watches."""
        namespace, seen = self._ref.namespace, self._seen
        queries = [
            Query("Canary", namespace, fields=f"metadata.name={self._ref.name}"),
            Query("Event", namespace, fields=f"involvedObject.kind=Canary,involvedObject.name={self._ref.name}", optional=True),
        ]
        ref = seen.target_ref if seen else None
        if ref and seen and seen.target:
            queries += [
                Query(ref.kind, namespace, fields=f"metadata.name={ref.name}"),
                Query(ref.kind, namespace, fields=f"metadata.name={seen.primary_name}"),
            ]
            labels = pods_query(seen.target)
            queries += [Query(revision_kind(ref.kind), namespace, labels), Query("Pod", namespace, labels)]
        return queries

    def _read_workloads(self) -> None:
        """Read target and primary; raise NotFound where there is no target."""
        seen = self._seen
        ref = seen.target_ref if seen else None
        if seen is None or ref is None:
            return
        try:
            seen.target = as_written({**self._cluster.get(ref), "kind": ref.kind})
        except NotFound:
            raise NotFound(f"{self._ref} releases {ref}, which does not exist; make it, or correct targetRef") from None
        self._read_primary()

    def _read_primary(self) -> None:
        """Read the primary, where there is one."""
        seen = self._seen
        ref = seen.target_ref if seen else None
        if seen and ref:
            with contextlib.suppress(NotFound):
                seen.primary = {**self._cluster.get(Ref(ref.kind, ref.namespace, seen.primary_name)), "kind": ref.kind}

    def _read_events(self) -> None:
        """Read what Flagger has said, where that may be read."""
        if self._seen:
            query = Query("Event", self._ref.namespace, fields=f"involvedObject.kind=Canary,involvedObject.name={self._ref.name}")
            with contextlib.suppress(DeliveryError):
                self._seen.take(WatchEvent("SYNCED", query, items=tuple(self._cluster.list(query).items)))

    def _begin(self) -> None:
        """Remember how it was at the first look of all."""
        seen, memory = self._seen, self._memory
        if seen and not memory.uid:
            memory.uid = metadata(seen.canary).get("uid") or ""
            self._start_over()

    def _start_over(self) -> None:
        """Remember the revision that is waited for, and how far Flagger was when it came."""
        seen, memory = self._seen, self._memory
        if seen is None:
            return
        memory.template = template_key(seen.target) if seen.target else ""
        memory.version = metadata(seen.canary).get("resourceVersion") or ""
        memory.applied = canary_status(seen.canary).last_applied
        memory.active, memory.pending_since, memory.failed_since = False, None, None

    # -- deciding -----------------------------------------------------------------------------------------------------

    def _result(self, is_look: bool = False) -> str:
        """Return how the wait ended, empty while it goes on; raise WaitFailed where what is waited for will not be."""
        seen, memory, wish = self._seen, self._memory, self._wish
        if seen is None:
            return ""
        if metadata(seen.canary).get("deletionTimestamp"):
            raise self._deleted()
        status = canary_status(seen.canary)
        if not is_look:
            self._check_revision()
        memory.active = memory.active or status.is_under_way
        if wish.until == "initialized" and not status.is_beginning:
            return "initialized"
        if wish.until == "waiting" and gate_of(seen.canary, seen.told()):
            return "waiting"
        result = self._settled(status, is_look) if status.is_settled else ""
        if not result and wish.until == "off" and status.phase == "Waiting" and self._is_released():
            # Nothing but its gate is left of it, and no request goes there.
            result = "off"
        if not result and status.suspended and not is_look:
            raise WaitFailed(
                f"{self._ref} is suspended in phase {status.phase or 'none'}, and Flagger does nothing with it;"
                " set its spec.suspend to false",
                reason="Suspended",
            )
        if not result:
            return ""
        if wish.until == "off":
            return "off"
        if result == "failed" and not is_look:
            return "" if self._still_talking() else self._raise_failed()
        return result

    def _settled(self, status: CanaryStatus, is_look: bool) -> str:
        """Return what a phase in which nothing is under way means: released, unchanged, failed, or empty while that is open."""
        seen, memory = self._seen, self._memory
        if seen is None:
            return ""
        if status.phase == "Failed":
            return self._failed(status)
        if not self._is_released():
            # What came by one watch may be behind what came by another.
            self._read_primary()
        if self._is_released():
            memory.pending_since = None
            return "released" if memory.active and status.phase == "Succeeded" else "unchanged"
        return self._pending(is_look)

    def _failed(self, status: CanaryStatus) -> str:
        """Return what the phase Failed means: that of the revision that is waited for, or that of one before it."""
        seen, memory = self._seen, self._memory
        if seen is None:
            return ""
        if memory.active:
            return "failed"
        has_looked = (metadata(seen.canary).get("resourceVersion") or "") != memory.version
        if self._is_released():
            # Somebody has put the target back. Where it matters that Flagger knows it, it does after one more look.
            is_known = has_looked or is_decided(seen.canary, seen.target)
            return "unchanged" if self._wish.until != "off" or is_known else ""
        if status.last_applied != memory.applied:
            return self._pending(False)
        return "failed" if has_looked or is_decided(seen.canary, seen.target) else self._pending(False)

    def _pending(self, is_look: bool) -> str:
        """Return empty while Flagger has time to see the new revision; unchanged where it finds nothing in it; else raise WaitFailed."""
        seen, memory = self._seen, self._memory
        if seen is None or is_look:
            return ""
        now = self._turn.elapsed
        memory.pending_since = now if memory.pending_since is None else memory.pending_since
        pickup = self._wish.pickup if self._wish.pickup is not None else 2 * interval_of(seen.canary) + PICKUP_GRACE
        if canary_status(seen.canary).suspended or now - memory.pending_since < pickup:
            return ""
        if images_of(seen.target) == images_of(seen.primary):
            return "unchanged"
        raise WaitFailed(
            f"Flagger has not begun to release what {seen.target_ref} runs ({_in_line(images_of(seen.target))}) within {pickup:g} s:"
            f" {self._ref} is {canary_status(seen.canary).phase}; see whether Flagger runs and watches namespace {self._ref.namespace}."
            " A revision that it has promoted, or that has failed, is not tried again: change the pod template, say by an annotation",
            reason="NotPickedUp",
        )

    def _is_released(self) -> bool:
        """Return whether the primary runs what the target is to run, configuration included."""
        seen = self._seen
        if seen is None or seen.target_ref is None:
            return True
        return bool(seen.primary) and is_same_template(seen.target, seen.primary) and not self._has_new_config()

    def _has_new_config(self) -> bool:
        """Return whether a ConfigMap or Secret that Flagger follows has other data than it has noted; one that may not be read has not."""
        seen = self._seen
        for (kind, name), checksum in (tracked_configs(seen.canary) if seen else {}).items():
            with contextlib.suppress(NotFound, Forbidden):
                if config_checksum(self._cluster.get(Ref(kind, self._ref.namespace, name)).get("data")) != checksum:
                    return True
        return False

    def _check_revision(self) -> None:
        """Follow a new pod template of the target, or raise WaitFailed where a revision is waited for."""
        seen, memory, wanted = self._seen, self._memory, self._wish.revision
        if seen is None or not seen.target:
            return
        now = current_revision(seen.target)
        if wanted is not None and (template_key(seen.target) != memory.template or (now is not None and now != wanted)):
            raise WaitFailed(
                f"{seen.target_ref} is at revision {now if now is not None else 'unknown'} and not at {wanted}, which was waited for:"
                " somebody else changed it; wait without revision to follow the newest",
                reason="Superseded",
            )
        if template_key(seen.target) != memory.template:
            self._start_over()
            self._progress(f"{target_of(seen.canary)[1]} has a newer revision ({_in_line(images_of(seen.target))}): following that")

    def _check_stuck(self) -> None:
        """Raise WaitFailed, or tell, where pods will not become ready and Flagger still waits for them."""
        seen, memory, now = self._seen, self._memory, self._turn.elapsed
        status = canary_status(seen.canary) if seen else None
        if seen is None or status is None or status.is_settled:
            return
        workload = seen.primary if status.is_beginning else seen.target
        if not workload or replicas_of(workload) == 0:
            return
        newest = seen.newest_pods(workload)
        kind = revision_kind(workload["kind"])
        trouble = pod_trouble(newest) or workload_trouble(workload, (), seen.tables.get(kind, {}).values())
        homeless = unschedulable(newest)
        memory.homeless_since = None if homeless is None else now if memory.homeless_since is None else memory.homeless_since
        if homeless and memory.homeless_since is not None and now - memory.homeless_since >= self._wish.grace:
            trouble = trouble or homeless
        if trouble is None:
            return
        if self._wish.tells_stuck:
            self._progress(_stuck(metadata(workload)["name"], trouble))
            return
        trouble = with_log(self._cluster, self._ref.namespace, trouble)
        said = f'; its last words: "{trouble.log[-1].strip()[:200]}"' if trouble.log else ""
        meanwhile = f"Flagger waits for its progress deadline, and {seen.primary_name} serves"
        raise WaitFailed(
            f"{self._ref} will not get on: {_stuck(metadata(workload)['name'], trouble)}{said};"
            f" {'the traffic is where it was' if status.is_beginning else meanwhile}. Set the image that it had, or one that works",
            reason=trouble.reason,
            pod=trouble.pod,
            container=trouble.container,
            log=list(trouble.log),
        )

    # -- telling ------------------------------------------------------------------------------------------------------

    def _tell(self, is_away: bool) -> None:
        """Report how far it is."""
        if self._seen:
            self._memory.line = progress_line(self._seen.canary, self._seen.told(), not self._memory.active)
            self._progress(self._told(is_away))

    def _told(self, is_away: bool) -> str:
        """Return how far it is as one line, and that it may not be true any more while the API server is away."""
        return " - last seen: ".join(filter(None, (AWAY, self._memory.line))) if is_away else self._memory.line

    def _still_talking(self) -> bool:
        """Return whether Flagger may still say why the release failed, which it does a moment after it has."""
        seen, since = self._seen, self._memory.failed_since
        if seen is None:
            return False
        if since is None:
            since = self._memory.failed_since = self._turn.elapsed
        if not seen.tables.get("Event"):
            self._read_events()
        is_quiet = not self._memory.active or is_told_to_the_end(seen.told())
        return not is_quiet and self._turn.elapsed - since < LAST_WORDS

    def _raise_failed(self) -> str:
        """Raise WaitFailed with why the release failed."""
        seen = self._seen
        if seen is None:
            return "failed"
        if not seen.tables.get("Event"):
            self._read_events()
        status, check = canary_status(seen.canary), failure_of(seen.canary, seen.told())
        raise self._failure(seen, status, check)

    def _failure(self, seen: Seen, status: CanaryStatus, check: Check) -> WaitFailed:
        """Return the error that tells why Flagger took a release back."""
        is_counted = check.reason not in ("RolledBack", "ProgressDeadlineExceeded", "CanaryFailed")
        often = f" (its threshold is {in_words(status.threshold, 'failed check')})" if is_counted else ""
        name = target_of(seen.canary)[1]
        return WaitFailed(
            f"{self._ref} failed, and Flagger has all traffic on {seen.primary_name}: {check.words.rstrip('.')}{often};"
            f" correct {name} and release it anew - this revision of it is not tried again",
            reason=check.reason,
            check=check.to_dict(),
        )

    def _deleted(self) -> WaitFailed:
        """Return the error for a Canary that is gone."""
        return WaitFailed(f"{self._ref} was deleted while it was waited for; make it again with flagger_canary", reason="Deleted")

    def _over(self, away: Unavailable | None, is_away: bool = True) -> Outcome:
        """Return what the next call needs, or raise WaitFailed where the whole time is over."""
        seen = self._seen or Seen(self._ref, {})
        if not self._turn.is_last or (self._turn.left and away):
            return Outcome("", seen, self._turn.hand_over(self._memory.to_dict(), self._told(is_away)))
        if away is None:
            try:
                # A connection that is half open tells nothing: the last word is the server's own.
                seen.canary = require_canary(self._cluster, self._ref)
                self._read_workloads()
                result = self._result()
                if result:
                    return Outcome(result, seen)
            except Unavailable as error:
                away = error
        told = "; last seen: ".join(filter(None, (away.message if away else "", self._memory.line)))
        gate = gate_of(seen.canary, seen.told())
        way_out = f"open the {gate.words}" if gate else "see the events in the result"
        raise WaitFailed(
            f"{self._ref} did not {self._wish.words} within {self._timeout:g} s: {told};"
            f" {way_out}, or give it more time with timeout. Flagger goes on with it",
            reason="Timeout",
        )


def _in_line(images: Mapping[str, str]) -> str:
    """Return images as a sentence has them."""
    return ", ".join(images.values())


def _stuck(name: str, trouble: Trouble) -> str:
    """Return what is wrong with the pods of a workload."""
    where = f" in container {trouble.container} of pod {trouble.pod}" if trouble.container else ""
    where = where or (f" for pod {trouble.pod}" if trouble.pod else "")
    return f"the pods of {name} will not become ready: {trouble.reason}{where}: {' '.join(trouble.message.split()).rstrip('.')}"


def wait_for_canary(cluster: Cluster, ref: Ref, wish: Wish, timeout: float, progress: Progress, turn: Turn) -> Outcome:
    """Return when what is waited for is so, or the turn is over; raise WaitFailed as soon as it is known that it will not be."""
    return CanaryWait(cluster, ref, wish, turn, timeout, progress).run()


def look_at_canary(cluster: Cluster, ref: Ref, wish: Wish, turn: Turn) -> Outcome:
    """Return what there is to see now."""
    return CanaryWait(cluster, ref, wish, turn, 1.0, lambda *_words: None).look()


def check_wish(wish: Wish, timeout: float) -> None:
    """Raise InvalidRequest for numbers that cannot be."""
    for option, seconds in (("unschedulable_grace", wish.grace), ("pickup_timeout", wish.pickup or 0)):
        if seconds < 0:
            raise InvalidRequest(f"{option} must be 0 seconds or more, got {seconds:g}")
    if timeout <= 0:
        raise InvalidRequest(f"timeout must be more than 0 seconds, got {timeout:g}")


__all__ = ["CanaryWait", "Gate", "Outcome", "Wish", "check_wish", "look_at_canary", "require_canary", "wait_for_canary"]
