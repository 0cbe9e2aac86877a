# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``gateway_api``: an HTTPRoute whose rules have weighted backends (Gateway API v1)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..model import Manifest, Query, Ref, metadata
from .colored import Backend
from .rules import Documents, Rule, Sides, Split, choose, main_of, split_of

KIND = "HTTPRoute"
MIRROR = "RequestMirror"


def rules(manifest: Manifest) -> list[Rule]:
    """Return the rules of the route, in their order."""
    spec = manifest.get("spec") or {}
    hosts = tuple(spec.get("hostnames") or ())
    return [_rule(index, entry, hosts) for index, entry in enumerate(spec.get("rules") or [])]


def _rule(index: int, entry: Mapping[str, Any], hosts: tuple[str, ...]) -> Rule:
    """Return one rule. Without a match it is for every path."""
    matches = entry.get("matches") or [{}]
    paths = [(match.get("path") or {}).get("value") or "/" for match in matches]
    return Rule(
        index,
        entry.get("name") or "",
        hosts,
        paths[0],
        {ref["name"]: 1 if ref.get("weight") is None else ref["weight"] for ref in entry.get("backendRefs") or []},
        tuple(condition for match in matches for condition in _conditions(match)),
        _mirror_of(entry),
    )


def _conditions(match: Mapping[str, Any]) -> list[str]:
    """Return what a match asks for beside the path, as words."""
    found = [f"header {entry['name']}" for entry in match.get("headers") or []]
    found += [f"query {entry['name']}" for entry in match.get("queryParams") or []]
    return found + ([match["method"]] if match.get("method") else [])


def _mirror_of(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return who gets copies by the rule's first RequestMirror, and of how many percent."""
    for found in entry.get("filters") or []:
        if found.get("type") == MIRROR:
            mirror = found.get("requestMirror") or {}
            fraction = mirror.get("fraction") or {}
            percent: float = mirror.get("percent") if mirror.get("percent") is not None else 100
            if fraction:
                percent = round(100.0 * fraction["numerator"] / (fraction.get("denominator") or 100), 3)
            return {"to": (mirror.get("backendRef") or {}).get("name") or "", "percent": percent}
    return None


def needs(_ref: Ref, _manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: nothing does."""
    return ()


def backends(manifest: Manifest) -> Iterator[Backend]:
    """Yield every place that names a Service of the route's own namespace."""
    here = metadata(manifest).get("namespace")
    for rule, entry in zip(rules(manifest), (manifest.get("spec") or {}).get("rules") or [], strict=True):
        refs = entry.get("backendRefs") or []
        for number, ref in enumerate(refs):
            if (ref.get("kind") or "Service") == "Service" and ref.get("namespace") in (None, here):
                weight = 1 if ref.get("weight") is None else ref["weight"]
                where = f"/spec/rules/{rule.index}/backendRefs/{number}/name"
                yield Backend(where, rule.hosts, rule.path, ref["name"], ref["name"], ref.get("port"), weight, rule.index, rule.name)


def service_of(_ref: Ref, _documents: Documents, name: str) -> str:
    """Return the Service of a side: its name is the side's own."""
    return name


def split(ref: Ref, documents: Documents, sides: Sides) -> Split:
    """Return who gets what by the chosen rules."""
    return split_of(ref, rules(main_of(ref, documents)), sides)


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the route in which ``weight`` percent of the chosen rules' requests go to the canary; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    for rule in choose(ref, rules(after), sides):
        refs = after["spec"]["rules"][rule.index]["backendRefs"]
        stable = next(entry for entry in refs if entry["name"] == sides.stable)
        canary = next((entry for entry in refs if entry["name"] == sides.canary), None)
        if weight is None:
            if canary is not None:
                refs.remove(canary)
                stable["weight"] = 1
            continue
        if canary is None:
            if weight == 0:
                continue
            canary = {**copy.deepcopy(stable), "name": sides.canary}
            refs.insert(refs.index(stable) + 1, canary)
        stable["weight"], canary["weight"] = 100 - weight, weight
    return {**documents, ref: after}
