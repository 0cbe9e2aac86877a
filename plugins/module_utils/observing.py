# SPDX-License-Identifier: GPL-3.0-or-later
"""Observation of a workload that has traffic: pods by a watch, smoke tests at an interval, ended by the first fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .coloring import Route
from .errors import WaitFailed
from .model import Cluster, Manifest, Query, Ref, WatchEvent, metadata
from .plan.rollout import is_ready, template_key
from .probing import SmokeTest, run_test
from .reading import steady
from .waiting import Watched, queries_for, require
from .watching import Stream

FIRST_LOOK = 30.0


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
        if workload["kind"] == "DaemonSet":
            return (workload.get("status") or {}).get("desiredNumberScheduled") or 0
        replicas = (workload.get("spec") or {}).get("replicas")
        return 1 if replicas is None else replicas


def observe(
    cluster: Cluster,
    watchman: Watchman,
    seconds: float,
    progress: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Return what was seen in these seconds, or raise WaitFailed with it at the first fault."""
    ref = watchman.ref
    workload = require(cluster, ref)
    key, watched = template_key(workload), Watched(ref, workload)
    queries = queries_for(ref, workload)
    route = Route.of({**watchman.route, "namespace": ref.namespace}, cluster) if watchman.route else None
    if route is not None:
        queries.append(Query(route.ref.kind, ref.namespace, fields=f"metadata.name={route.ref.name}"))
    seen: dict[str, Any] = {"observed": 0.0, "ready": None, "restarts": 0, "rounds": 0}
    first: dict[str, int] = {}
    fewest = 0
    synced: set[str] = set()
    started: float | None = None
    next_round = 0.0
    with Stream(cluster, queries, FIRST_LOOK + seconds, clock) as stream:
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
            if started is None:
                started, first, next_round = clock(), steady(watched.newest_pods()), clock()
                fewest = watchman.needed(watched.workload)
            seen["observed"] = round(clock() - started, 3)
            # Pods that an autoscaler adds meanwhile are not there yet, and none of those that were is missing.
            _check_pods(watchman, watched, key, first, min(fewest, watchman.needed(watched.workload)), seen)
            over = clock() - started >= seconds
            if watchman.tests and clock() >= next_round and not (over and seen["rounds"]):
                _check_tests(cluster, watchman, seen)
                next_round = clock() + watchman.interval
                progress(f"round {seen['rounds']} of the smoke tests passed, {seen['ready']} pods ready ({clock() - started:.0f} s)")
            # What happened during the tests still waits to be looked at.
            if clock() - started >= seconds and stream.is_drained():
                seen["observed"] = round(clock() - started, 3)
                return seen
    if started is not None:
        return seen
    raise WaitFailed(f"{ref} could not be observed: the API server did not answer within {FIRST_LOOK:g} s", reason="Timeout")


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


def _check_pods(watchman: Watchman, watched: Watched, key: str, first: Mapping[str, int], needed: int, seen: dict[str, Any]) -> None:
    """Raise WaitFailed where pods are missing, restarted, or of another template; note the worst in ``seen``."""
    ref = watchman.ref
    if watched.vanished:
        raise WaitFailed(f"{ref} was deleted while it was observed", reason="Deleted", **seen)
    if template_key(watched.workload) != key:
        raise WaitFailed(
            f"{ref} got another pod template while it was observed: somebody else changed it", reason="TemplateChanged", **seen
        )
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
