# SPDX-License-Identifier: GPL-3.0-or-later
"""An audience goes to the variant: requests with a header, a cookie or a parameter, or a share of the users that stays together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .errors import InvalidRequest
from .model import Cluster, Result
from .reporting import reported
from .routes import controllers
from .routes.audiences import audience_of, spoken
from .routes.rules import Audience, Documents
from .routing import Route, check_side, let_know_of_side, move
from .run import Progress
from .weighing import ROUTE_TIMEOUT, measured, noted, probe_of, wait_timeout


def pick_audience(options: Mapping[str, Any], cluster: Cluster, check: bool, progress: Progress) -> Result:
    """Set the variant's audience in the routes that the options name, all or none."""
    wanted = wanted_audience(options)
    probe, timeout = probe_of(options), wait_timeout(options, ROUTE_TIMEOUT)
    stable, variant = options["stable"], options["variant"]
    labels = {str(key): str(value) for key, value in (options.get("variant_labels") or {}).items()}
    routes = Route.listed(options, stable, variant, labels)
    notes = options.get("annotations") or {}

    def change(route: Route, documents: Documents) -> Documents:
        if wanted is not None:
            route.check_controller(cluster, documents, *_features(wanted))
        after: Documents = route.router.audience(route.ref, documents, route.sides, wanted)
        return noted(route, after, notes) if route is routes[0] else after

    def check_sides(before: list[Documents], after: list[Documents]) -> None:
        for route, old, new in zip(routes, before, after, strict=True):
            was, will = _audience(route, old), _audience(route, new)
            if was != will:
                check_side(cluster, route, new, stable if wanted is None else variant, options["force"])
                if wanted is not None and not was and not check:
                    let_know_of_side(cluster, route, new, variant)

    moved = move(cluster, routes, change, check, check_sides)
    result = reported(routes, moved, "audience", _audience, _sentence, notes, variant=variant)
    if probe is None or check:
        return result
    share = 0.0 if wanted is None else 100.0 if wanted.weight is None else float(wanted.weight)
    before = 0.0 if result.before and not result.before["audience"] else None
    seen = measured(probe, str(routes[0].ref), share, before, moved.accepted, timeout, progress)
    return replace(result, extra={**result.extra, **seen})


def _features(wanted: Audience) -> tuple[str, ...]:
    """Return what an audience needs of the controller."""
    found = {controllers.AUDIENCE} | ({controllers.WEIGHT} if wanted.weight is not None else set())
    return tuple(sorted(found | ({controllers.QUERY} if any(entry.where == "query" for entry in wanted.conditions) else set())))


def wanted_audience(options: Mapping[str, Any]) -> Audience | None:
    """Return the audience that is asked for, None for taking it out; raise InvalidRequest for none or a wrong one."""
    if options["state"] != "absent":
        return audience_of(options)
    given = [name for name in ("headers", "cookies", "query", "weight") if options.get(name) not in (None, {})]
    if given:
        raise InvalidRequest(f"{given[0]} and state absent cannot both be; absent takes the variant's audience out, whoever it is")
    return None


def _audience(route: Route, documents: Documents) -> list[str]:
    """Return the audience of the variant in words."""
    return spoken(route.router.split(route.ref, documents, route.sides), route.sides)


def _sentence(route: Route, _old: list[str], audience: list[str]) -> str:
    """Return what was done to a route."""
    variant = route.sides.canary
    if not audience:
        return f"took the audience of {variant} out of {route.ref}"
    return f"led {' and '.join(audience)} of {route.ref} to {variant}"
