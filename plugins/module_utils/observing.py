# SPDX-License-Identifier: GPL-3.0-or-later
"""Observation of a workload that has traffic: pods by a watch, smoke tests at an interval, ended by the first fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .coloring import Route
from .errors import NotFound, Unavailable, WaitFailed
from .model import Cluster, Manifest, Query, Ref, WatchEvent, metadata
from .plan.rollout import is_observed, is_ready, pods_in_words, template_key
from .plan.strategy import wanted_pods
from .probing import SmokeTest, run_test
from .reading import steady
from .turns import Turn
from .waiting import AWAY, Watched, queries_for, require
from .watching import Stream

FIRST_LOOK = 30.0
# At the end the controller gets two seconds to see a spec that was just written.
LAST_LOOKS, LAST_PAUSE = 10, 0.2


@dataclass(frozen=True)
class Watchman:
    """What is observed, and what is not let pass. ``min_ready`` None means as many as the spec asks for."""

    ref: Ref
    min_ready: int | None
    max_restarts: int
    tests: Sequence[SmokeTest]
    interval: float
    route: Mapping[str, Any] | None = None

    def needed(self, workload: Manifest) -> int:
        """Return how many ready pods there must be by what the workload asks for now."""
        if self.min_ready is not None:
            return self.min_ready
        return wanted_pods(workload["kind"], workload)


@dataclass
class Memory:
    """What an observation must know of its past; times are seconds since its first call."""

    template: str = ""
    started: float | None = None
    next_round: float = 0.0
    fewest: int = 0
    first: dict[str, int] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=lambda: {"observed": 0.0, "ready": None, "restarts": 0, "rounds": 0})

    @classmethod
    def of(cls, turn: Turn) -> Memory:
        """Return what the calls before knew; raise InvalidRequest where that is not what they have returned."""
        if not turn.memory:
            return cls()
        try:
            told = dict(turn.memory)
            started = told["started"]
            return cls(
                str(told["template"]),
                None if started is None else float(started),
                float(told["next_round"]),
                int(told["fewest"]),
                {str(name): int(count) for name, count in told["first"].items()},
                {key: told["seen"][key] for key in ("observed", "ready", "restarts", "rounds")},
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise turn.refusal("that has been changed") from None

    def line(self, turn: Turn, seconds: float) -> str:
        """Return what was seen as one line of progress."""
        if self.started is None:
            return "looking for its pods"
        width = len(f"{seconds:.0f}")
        past = f"{min(turn.elapsed - self.started, seconds):{width}.0f} of {seconds:.0f} s"
        parts = [f"never less than {pods_in_words(self.seen['ready'] or 0, 'ready')}", _counted(self.seen["restarts"], "restart")]
        if self.seen["rounds"]:
            parts.append(f"{_counted(self.seen['rounds'], 'round')} of smoke tests passed")
        return f"{past}: {', '.join(parts)}"


def _counted(number: int, what: str) -> str:
    """Return a number of things as a sentence has it: ``1 restart``, ``2 restarts``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def observe(
    cluster: Cluster, watchman: Watchman, seconds: float, progress: Callable[..., None], turn: Turn | None = None
) -> dict[str, Any]:
    """Return what was seen in these seconds, or what the next call needs; raise WaitFailed at the first fault."""
    turn = turn or Turn(str(watchman.ref), FIRST_LOOK + seconds)
    memory, ref = Memory.of(turn), watchman.ref
    try:
        workload = require(cluster, ref)
    except NotFound:
        if not turn.memory:
            raise
        raise _deleted(watchman, memory.seen) from None
    except Unavailable:
        if not turn.memory or not turn.left:
            raise
        return {**memory.seen, **turn.hand_over(asdict(memory), AWAY)}
    memory.template = memory.template or template_key(workload)
    watched, seen = Watched(ref, workload), memory.seen
    queries = queries_for(ref, workload)
    route = Route.of({**watchman.route, "namespace": ref.namespace}, cluster) if watchman.route else None
    if route is not None:
        queries.append(Query(route.ref.kind, ref.namespace, fields=f"metadata.name={route.ref.name}"))
    synced: set[str] = set()
    with Stream(cluster, queries, turn.left, turn.clock) as stream:
        for event in stream.events(tick=min(0.5, watchman.interval)):
            if event is not None and route is not None and event.query.kind == route.ref.kind:
                _check_route(route, watchman, event, seen)
                synced.add(event.query.kind)
                continue
            if event is not None:
                watched.take(event)
                if event.type == "SYNCED":
                    synced.add(event.query.kind)
            if len(synced) < len(queries):
                continue
            if memory.started is None and not is_observed(watched.workload):
                continue
            if memory.started is None:
                memory.started = memory.next_round = turn.elapsed
                memory.first, memory.fewest = steady(watched.newest_pods()), watchman.needed(watched.workload)
            seen["observed"] = round(min(turn.elapsed - memory.started, seconds), 3)
            _check(cluster, watchman, watched, memory)
            over = turn.elapsed - memory.started >= seconds
            if watchman.tests and turn.elapsed >= memory.next_round and not (over and seen["rounds"]):
                _check_tests(cluster, watchman, seen)
                memory.next_round = turn.elapsed + watchman.interval
            away = f"{AWAY} - " if stream.is_away else ""
            progress(away + memory.line(turn, seconds), (away, seen["ready"], seen["restarts"]))
            # What happened during the tests still waits to be looked at.
            if turn.elapsed - memory.started >= seconds and stream.is_drained():
                seen["observed"] = round(min(turn.elapsed - memory.started, seconds), 3)
                return _last_word(cluster, watchman, watched, memory, route)
    if not turn.is_last:
        return {**seen, **turn.hand_over(asdict(memory), memory.line(turn, seconds))}
    if memory.started is not None:
        return _last_word(cluster, watchman, watched, memory, route)
    raise WaitFailed(f"{ref} could not be observed: the API server did not answer within {FIRST_LOOK:g} s", reason="Timeout")


def _deleted(watchman: Watchman, seen: Mapping[str, Any]) -> WaitFailed:
    """Return the error for a workload that is gone."""
    return WaitFailed(f"{watchman.ref} was deleted while it was observed; deploy it again", reason="Deleted", **seen)


def _check(cluster: Cluster, watchman: Watchman, watched: Watched, memory: Memory) -> None:
    """Raise WaitFailed where the pods are not as they must be, and are not either when they are read anew."""
    worst = dict(memory.seen)
    try:
        _check_pods(watchman, watched, memory)
    except WaitFailed as error:
        if error.reason != "NotReady":
            raise
        # The event of a pod may come before that of the workload which was scaled.
        try:
            watched.refresh(cluster)
        except (NotFound, Unavailable):
            raise error from None
        memory.seen.update(worst)
        _check_pods(watchman, watched, memory)


def _last_word(cluster: Cluster, watchman: Watchman, watched: Watched, memory: Memory, route: Route | None) -> dict[str, Any]:
    """Return what was seen, after a look at the server's own state: a watch that is half open tells nothing."""
    ref = watchman.ref
    try:
        for _attempt in range(LAST_LOOKS):
            watched.refresh(cluster)
            if is_observed(watched.workload):
                break
            time.sleep(LAST_PAUSE)
        _check_pods(watchman, watched, memory)
        if route is not None:
            query = Query(route.ref.kind, ref.namespace, fields=f"metadata.name={route.ref.name}")
            _check_route(route, watchman, WatchEvent("SYNCED", query, items=tuple(cluster.list(query).items)), memory.seen)
    except NotFound:
        raise _deleted(watchman, memory.seen) from None
    except Unavailable as error:
        raise WaitFailed(
            f"{ref} could not be read at the end of its observation, so nobody knows how it is: {error.message}",
            reason="Unavailable",
            **memory.seen,
        ) from None
    return memory.seen


def _check_route(route: Route, watchman: Watchman, event: WatchEvent, seen: Mapping[str, Any]) -> None:
    """Raise WaitFailed where the route does not send its traffic to the colour any more."""
    wanted = (watchman.route or {})["color"]
    if event.type == "DELETED" or (event.type == "SYNCED" and not event.items):
        raise WaitFailed(f"{route.ref} was deleted while {watchman.ref} was observed", reason="Deleted", **seen)
    manifest = event.items[0] if event.type == "SYNCED" else event.object
    manifest.setdefault("kind", route.ref.kind)
    active = route.read(manifest).active
    if active != wanted:
        raise WaitFailed(
            f'{route.ref} sends its traffic to "{active}" and not to "{wanted}" any more: somebody else switched it',
            reason="Superseded",
            **seen,
        )


def _check_pods(watchman: Watchman, watched: Watched, memory: Memory) -> None:
    """Raise WaitFailed where pods are missing, restarted, or of another template; note the worst in what was seen."""
    ref, seen, first = watchman.ref, memory.seen, memory.first
    if watched.vanished:
        raise _deleted(watchman, seen)
    if template_key(watched.workload) != memory.template:
        raise WaitFailed(
            f"{ref} got another pod template while it was observed: somebody else changed it", reason="TemplateChanged", **seen
        )
    if not is_observed(watched.workload):
        return
    # Pods that an autoscaler adds meanwhile are not there yet, and none of those that were is missing.
    needed = min(memory.fewest, watchman.needed(watched.workload))
    pods = watched.newest_pods()
    restarts = {name: count - first.get(name, 0) for name, count in steady(pods).items()}
    seen["restarts"] = max(seen["restarts"], sum(restarts.values()))
    ready = sum(1 for pod in pods if is_ready(pod))
    seen["ready"] = ready if seen["ready"] is None else min(seen["ready"], ready)
    if seen["restarts"] > watchman.max_restarts:
        worst = max(restarts, key=lambda name: restarts[name])
        raise WaitFailed(
            f"{ref} restarted a container after {seen['observed']:g} s: pod {worst}", reason="ContainerRestarted", pod=worst, **seen
        )
    if ready < needed:
        faint = ", ".join(metadata(pod)["name"] for pod in pods if not is_ready(pod)) or "none are left"
        raise WaitFailed(
            f"{ref} has {ready} ready pods and must have {needed}, after {seen['observed']:g} s; not ready: {faint}",
            reason="NotReady",
            **seen,
        )


def _check_tests(cluster: Cluster, watchman: Watchman, seen: dict[str, Any]) -> None:
    """Make every smoke test once, with the retries that it has; count the round."""
    for test in watchman.tests:
        try:
            run_test(cluster, watchman.ref.namespace, test, watchman.ref)
        except WaitFailed as error:
            raise error.with_details(**seen) from None
    seen["rounds"] += 1
