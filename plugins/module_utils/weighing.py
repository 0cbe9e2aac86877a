# SPDX-License-Identifier: GPL-3.0-or-later
"""A share of the requests goes to the canary: by the weights of routes, measured where somebody says how."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .errors import InvalidRequest, WaitFailed
from .model import Cluster, Manifest, Ref, Result, annotations
from .plan.colors import as_text
from .reporting import reported
from .routes import controllers
from .routes.rules import Documents, check_weight
from .routing import Route, check_side, let_know_of_side, move
from .run import Progress
from .watching_traffic import Probe, watch_share

Weights = dict[str, float]
ROUTE_TIMEOUT, PODS_TIMEOUT = 30.0, 300.0
"""Seconds that a data plane gets to do a weight, and the pods of a side to get ready, where nobody says how many."""


def weigh_routes(options: Mapping[str, Any], weight: int | None, cluster: Cluster, check: bool, progress: Progress) -> Result:
    """Set the canary's weight in the routes that the options name, all or none; None takes it out of them."""
    probe, timeout = probe_of(options), wait_timeout(options, ROUTE_TIMEOUT)
    stable, canary = options["stable"], options["canary"]
    labels = {str(key): str(value) for key, value in (options.get("canary_labels") or {}).items()}
    routes = Route.listed(options, stable, canary, labels)
    notes, expected = options.get("annotations") or {}, options.get("if_annotations") or {}

    def change(route: Route, documents: Documents) -> Documents:
        if route is routes[0]:
            check_expected(route.ref, documents[route.ref] or {}, expected, notes)
        if weight:
            route.check_controller(cluster, documents, controllers.WEIGHT)
        after: Documents = route.router.weighted(route.ref, documents, route.sides, weight)
        return noted(route, after, notes) if route is routes[0] else after

    def check_sides(before: list[Documents], after: list[Documents]) -> None:
        for route, old, new in zip(routes, before, after, strict=True):
            was, will = _weights(route, old), _weights(route, new)
            for side in (stable, canary):
                if will[side] > was[side]:
                    check_side(cluster, route, new, side, options["force"])
                    if not was[side] and not check:
                        let_know_of_side(cluster, route, new, side)

    moved = move(cluster, routes, change, check, check_sides)
    result = reported(routes, moved, "weights", _weights, _sentence, notes)
    if probe is None or check:
        return result
    was = result.before["weights"][canary] if result.before else None
    seen = measured(probe, str(routes[0].ref), weight or 0, was, moved.accepted, timeout, progress)
    return replace(result, extra={**result.extra, **seen})


def probe_of(options: Mapping[str, Any]) -> Probe | None:
    """Return how the share is measured, None where nobody says how; raise InvalidRequest for a probe that cannot be."""
    return Probe.of(options["probe"]) if options.get("probe") else None


def wait_timeout(options: Mapping[str, Any], default: float) -> float:
    """Return the seconds that a wait may take, or raise InvalidRequest."""
    timeout = default if options.get("wait_timeout") is None else float(options["wait_timeout"])
    if timeout <= 0:
        raise InvalidRequest(f"wait_timeout must be more than 0 seconds, got {timeout:g}")
    return timeout


def measured(
    probe: Probe, about: str, weight: float, before: float | None, accepted: float, timeout: float, progress: Progress
) -> dict[str, Any]:
    """Wait until the data plane sends the canary its share; return ``settled`` and ``measured`` as a result has them.

    ``settled`` is in seconds from when the API server had accepted the change (``accepted``, a monotonic time; 0 where there was
    none); ``before`` the share until then. Raise WaitFailed where it does not in time: what was written stays.
    """
    started = time.monotonic()
    # What was not changed now may have been a moment ago, from another share: it is measured as one that is not known.
    seen = watch_share(probe, weight, timeout, progress, before if accepted and before != weight else None)
    report = {key: value for key, value in seen.report().items() if key != "settled"}
    if seen.trouble:
        raise WaitFailed(
            f"{about} asks for {weight:g} % to the canary, and {seen.trouble}, asked at {probe.url}; see what the canary logs, and take it"
            " back, or check that probe asks this route",
            reason="RequestsFail",
            changed=bool(accepted),
            measured=report,
        )
    if not seen.settled:
        raise WaitFailed(
            f"{about} asks for {weight:g} % to the canary, and {timeout:g} s later {seen.share:.1f} % of the requests to {probe.url} go"
            f" there ({seen.requests} requests, {seen.failed} failed); check that probe asks this route, and the router's log",
            reason="NotSettled",
            changed=bool(accepted),
            measured=report,
        )
    return {"settled": round(started - accepted + seen.seconds, 3) if accepted else None, "measured": report}


def wanted_weight(options: Mapping[str, Any]) -> int | None:
    """Return the weight that is asked for, None for taking the canary out; raise InvalidRequest for none or a wrong one."""
    if options["state"] == "absent":
        if options.get("weight") is not None:
            raise InvalidRequest("weight and state absent cannot both be; absent takes the canary out of the route")
        return None
    if options.get("weight") is None:
        raise InvalidRequest("weight is not set; it is the percentage of the requests that go to the canary, 0 to 100")
    check_weight(options["weight"])
    return int(options["weight"])


def check_expected(ref: Ref, manifest: Manifest, expected: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Raise WaitFailed (Superseded) where annotations are not what they were when somebody looked; an empty value is one not there.

    What is to be written counts as well: the answer to a write may have been lost, and the second look finds it done.
    """
    present = annotations(manifest)
    for key, value in expected.items():
        allowed = ["" if one is None else as_text(one) for one in (value, *([notes[key]] if key in notes else []))]
        if present.get(key, "") not in allowed:
            raise WaitFailed(
                f"{ref} has another {key} than when it was looked at: somebody else has moved it meanwhile; nothing was changed",
                reason="Superseded",
            )


def noted(route: Route, documents: Documents, notes: Mapping[str, Any]) -> Documents:
    """Return the documents with annotations on the route's own object; an empty value takes one away."""
    main = documents[route.ref]
    if not notes or main is None:
        return documents
    kept = {key: value for key, value in annotations(main).items() if key not in notes}
    kept.update({key: as_text(value) for key, value in notes.items() if value not in (None, "")})
    changed: Manifest = {**main, "metadata": {**main["metadata"], "annotations": kept}}
    return {**documents, route.ref: changed}


def _weights(route: Route, documents: Documents) -> Weights:
    """Return the percentages of both sides."""
    found = route.router.split(route.ref, documents, route.sides).weights
    return {side: tidy(share) for side, share in found.items()}


def tidy(share: float) -> float:
    """Return a percentage without a fraction where it has none."""
    return int(share) if float(share).is_integer() else share


def _sentence(route: Route, old: Weights, new: Weights) -> str:
    """Return what was done to a route."""
    canary = route.sides.canary
    return f"sent {new[canary]:g} % of {route.ref} to {canary}, it was {old[canary]:g} %"
