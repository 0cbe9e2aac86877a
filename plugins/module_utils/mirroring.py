# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the requests goes to a shadow, whose answers reach nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from .errors import Forbidden, InvalidRequest, NotFound
from .model import Cluster, Ref, Result
from .reporting import reported
from .routes.controllers import METHOD, MIRROR, MIRROR_PERCENT
from .routes.rules import Documents, Mirror, mirror_to, other_mirrors
from .routing import Moved, Route, check_side, move
from .weighing import noted, tidy

METHODS = ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
WRITES = ("DELETE", "PATCH", "POST", "PUT")
WHOLE = "ask for percent 100, which needs no such field, or install a newer version of these resources"

Told = Optional[dict[str, Any]]
"""A mirror as a result has it: {to, percent, methods}, the last where it is for some; None where there is none."""


def mirror_routes(options: Mapping[str, Any], cluster: Cluster, check: bool) -> Result:
    """Mirror the routes that the options name to the shadow, or end that; all or none."""
    mirror = wanted_mirror(options)
    stable, to = options["stable"], options["to"]
    if stable == to:
        raise InvalidRequest(f'stable and to are both "{to}"; a shadow is beside the one that answers')
    routes = Route.listed(options, stable, to)
    notes = options.get("annotations") or {}

    def change(route: Route, documents: Documents) -> Documents:
        after: Documents = route.router.mirrored(route.ref, documents, route.sides, mirror)
        return noted(route, after, notes) if route is routes[0] else after

    def check_shadows(before: list[Documents], after: list[Documents]) -> None:
        for route, old, new in zip(routes, before, after, strict=True):
            was, will = _told(route, old), _told(route, new)
            if mirror is not None and will is not None and was != will:
                check_honoured(cluster, route, new, mirror, options["force"])
                if was is None or will["percent"] > was["percent"]:
                    check_side(cluster, route, new, to, options["force"])

    moved = move(cluster, routes, change, check, check_shadows, whole=WHOLE if mirror is not None else "")
    result = reported(routes, moved, "mirror", _told, _sentence, notes)
    warnings = _warnings(routes, moved, to)
    return replace(result, extra={**result.extra, "warnings": warnings}) if warnings else result


def wanted_mirror(options: Mapping[str, Any]) -> Mirror | None:
    """Return the mirror that is asked for, None for ending it; raise InvalidRequest for a wrong one."""
    given = [name for name in ("percent", "methods", "mirror_body", "max_body_size") if options.get(name) is not None]
    if options["state"] == "absent":
        if given:
            raise InvalidRequest(f"{given[0]} and state absent cannot both be; absent ends the mirror")
        return None
    percent = 100.0 if options.get("percent") is None else options["percent"]
    if not 0 <= percent <= 100:
        raise InvalidRequest(f"percent must be between 0 and 100, got {percent:g}")
    methods = tuple(dict.fromkeys(options.get("methods") or ()))
    for method in methods:
        if method not in METHODS:
            raise InvalidRequest(f'methods has "{method}", which is no HTTP method; it may have {", ".join(METHODS)}')
    most = options.get("max_body_size")
    if most is not None and most < 0:
        raise InvalidRequest(f"max_body_size must be 0 or more bytes, got {most}; leave it out for no limit")
    return Mirror(tidy(percent), methods, options.get("mirror_body"), most)


def check_honoured(cluster: Cluster, route: Route, documents: Documents, mirror: Mirror, force: bool) -> None:
    """Raise InvalidRequest where the controller that serves the route does not mirror: it may answer an error to each live request.

    One that says nothing of what it can do is taken to be able. Where nobody may look, it takes ``force``.
    """
    features = [MIRROR] + ([MIRROR_PERCENT] if mirror.percent < 100 else []) + ([METHOD] if mirror.methods else [])
    route.check_controller(cluster, documents, *features)
    if force or route.provider != "gateway_api":
        return
    try:
        for gateway in ((documents[route.ref] or {}).get("spec") or {}).get("parentRefs") or []:
            if (gateway.get("kind") or "Gateway") == "Gateway":
                found = cluster.get(Ref("Gateway", gateway.get("namespace") or route.ref.namespace, gateway["name"]))
                cluster.get(Ref("GatewayClass", "", (found.get("spec") or {}).get("gatewayClassName") or "-"))
    except NotFound:
        return
    except Forbidden as error:
        raise InvalidRequest(
            f"whether the controller of {route.ref} mirrors could not be read, and one that does not may fail each of its requests:"
            f" {error.message}; allow to get gateways and gatewayclasses, or set force"
        ) from None


def _told(route: Route, documents: Documents) -> Told:
    """Return the mirror of a route as a result has it."""
    found = mirror_to(route.chosen(documents), route.sides.canary)
    return None if found is None else {**found, "percent": tidy(found["percent"])}


def _sentence(route: Route, old: Told, new: Told) -> str:
    """Return what was done to a route."""
    to = route.sides.canary
    if new is None:
        return f"ended the mirror of {route.ref} to {to}, it was {_share(old)}"
    return f"mirrored {_share(new)} of {route.ref} to {to}, it was {_share(old) if old else '0 %'}"


def _share(mirror: Told) -> str:
    """Return which requests are mirrored, as words."""
    told = mirror or {"percent": 0}
    methods = f" of the {', '.join(told['methods'])} requests" if told.get("methods") else ""
    return f"{told['percent']:g} %{methods}"


def _warnings(routes: list[Route], moved: Moved, to: str) -> list[str]:
    """Return what the user should know: that writes are copied, and who else gets copies."""
    found: list[str] = []
    for route, documents in zip(routes, moved.after, strict=True):
        mirror = _told(route, documents)
        if mirror is None:
            continue
        writes = [method for method in WRITES if not mirror.get("methods") or method in mirror["methods"]]
        if writes and mirror["percent"]:
            found.append(
                f"{', '.join(writes)} requests of {route.ref} are copied too: {to} must not write where {route.sides.stable} writes;"
                " methods says which are copied"
            )
        others = other_mirrors(route.chosen(documents), to)
        if others:
            found.append(f"{route.ref} is mirrored by somebody else too, to {', '.join(others)}; that stays as it is")
    return found
