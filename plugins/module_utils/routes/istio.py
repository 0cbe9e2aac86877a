# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``istio``: a VirtualService whose HTTP routes have weighted destinations, hosts or subsets of one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..model import Manifest, Ref
from .rules import Rule, Sides, Split, choose, split_of

KIND = "VirtualService"


def rules(manifest: Manifest) -> list[Rule]:
    """Return the HTTP routes of the VirtualService, in their order; TCP and TLS routes are not split."""
    spec = manifest.get("spec") or {}
    hosts = tuple(spec.get("hosts") or ())
    return [_rule(index, entry, hosts) for index, entry in enumerate(spec.get("http") or [])]


def _rule(index: int, entry: Mapping[str, Any], hosts: tuple[str, ...]) -> Rule:
    """Return one HTTP route. Its only destination gets all, and has no weight."""
    matches = entry.get("match") or [{}]
    paths = [next(iter((match.get("uri") or {}).values()), "/") for match in matches]
    routes = entry.get("route") or []
    weights = {side(route.get("destination") or {}): route.get("weight") or 0 for route in routes}
    if len(routes) == 1:
        weights = dict.fromkeys(weights, 100)
    return Rule(
        index,
        entry.get("name") or "",
        hosts,
        paths[0],
        weights,
        tuple(condition for match in matches for condition in _conditions(match)),
        _mirror_of(entry),
    )


def side(destination: Mapping[str, Any]) -> str:
    """Return the name of a destination's side: its subset, else the Service that its host names."""
    return destination.get("subset") or (destination.get("host") or "").split(".")[0]


def _conditions(match: Mapping[str, Any]) -> list[str]:
    """Return what a match asks for beside the path, as words."""
    found = [f"header {name}" for name in match.get("headers") or {}]
    found += [f"query {name}" for name in match.get("queryParams") or {}]
    return found + ([str(next(iter(match["method"].values())))] if match.get("method") else [])


def _mirror_of(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return who gets copies, and of how many percent; all where none are named."""
    if not entry.get("mirror"):
        return None
    share = (entry.get("mirrorPercentage") or {}).get("value")
    return {"to": side(entry["mirror"]), "percent": 100.0 if share is None else share}


def split(ref: Ref, manifest: Manifest, sides: Sides) -> Split:
    """Return who gets what by the chosen rules."""
    return split_of(ref, rules(manifest), sides)


def weighted(ref: Ref, manifest: Manifest, sides: Sides, weight: int | None) -> Manifest:
    """Return the VirtualService in which ``weight`` percent go to the canary; None takes it out."""
    after = copy.deepcopy(manifest)
    for rule in choose(ref, rules(manifest), sides):
        routes = after["spec"]["http"][rule.index]["route"]
        stable = next(entry for entry in routes if side(entry["destination"]) == sides.stable)
        canary = next((entry for entry in routes if side(entry["destination"]) == sides.canary), None)
        if weight is None:
            if canary is not None:
                routes.remove(canary)
                stable.pop("weight", None)
            continue
        if canary is None:
            if weight == 0:
                continue
            canary = {**copy.deepcopy(stable), "destination": _twin(stable["destination"], sides)}
            routes.insert(routes.index(stable) + 1, canary)
        stable["weight"], canary["weight"] = 100 - weight, weight
    return after


def _twin(destination: Mapping[str, Any], sides: Sides) -> dict[str, Any]:
    """Return the canary's destination: another subset of the same host, or another host in the same form."""
    if destination.get("subset"):
        return {**destination, "subset": sides.canary}
    _service, dot, rest = (destination.get("host") or "").partition(".")
    return {**destination, "host": f"{sides.canary}{dot}{rest}"}
