# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``istio``: a VirtualService whose HTTP routes have weighted destinations, hosts or subsets of one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Query, Ref, metadata
from .colored import Backend
from .rules import Documents, Rule, Sides, Split, choose, main_of, split_of

KIND = "VirtualService"
SUBSETS = "DestinationRule"


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


def needs(ref: Ref, manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: the DestinationRules, where a destination is a subset."""
    return (Query(SUBSETS, ref.namespace),) if any(entry.get("subset") for entry in _destinations(manifest)) else ()


def _destinations(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """Yield every destination of the VirtualService's HTTP routes."""
    for entry in (manifest.get("spec") or {}).get("http") or []:
        for route in entry.get("route") or []:
            yield route.get("destination") or {}


def backends(manifest: Manifest) -> Iterator[Backend]:
    """Yield every place that names a Service of the route's own namespace, or a subset of one."""
    here = metadata(manifest).get("namespace")
    for rule, entry in zip(rules(manifest), (manifest.get("spec") or {}).get("http") or [], strict=True):
        routes = entry.get("route") or []
        for number, route in enumerate(routes):
            target = route.get("destination") or {}
            service, _dot, domain = (target.get("host") or "").partition(".")
            if domain and domain.split(".")[0] != here:
                continue
            where = f"/spec/http/{rule.index}/route/{number}/destination"
            field = "subset" if target.get("subset") else "host"
            weight = 100 if len(routes) == 1 else route.get("weight") or 0
            port, subset = (target.get("port") or {}).get("number"), target.get("subset") or ""
            yield Backend(f"{where}/{field}", rule.hosts, rule.path, service, target[field], port, weight, rule.index, rule.name, subset)


def color_needs(ref: Ref, manifest: Manifest) -> Sequence[Query]:
    """Return what tells the pods of each colour: the Services, and where subsets are named the DestinationRules."""
    subsets = any(entry.get("subset") for entry in _destinations(manifest))
    return (Query("Service", ref.namespace), *((Query(SUBSETS, ref.namespace),) if subsets else ()))


def service_of(ref: Ref, documents: Documents, name: str) -> str:
    """Return the Service of a side: that of a subset's host, or the side's own name."""
    for destination in _destinations(main_of(ref, documents)):
        if destination.get("subset") == name:
            return (destination.get("host") or "").split(".")[0]
    return name


def _subset(ref: Ref, documents: Documents, host: str, sides: Sides, wanted: bool) -> Documents:
    """Return the documents with the canary's subset in the DestinationRule of the host, or without it where it was made here.

    Raise InvalidRequest where there is none and no labels are known to make it of.
    """
    short = host.split(".")[0]
    mine = [
        (key, entry)
        for key, entry in documents.items()
        if key.kind == SUBSETS and entry is not None and ((entry.get("spec") or {}).get("host") or "").split(".")[0] == short
    ]
    if not mine:
        raise InvalidRequest(
            f"{ref} leads to subsets of {host}, and no DestinationRule in namespace {ref.namespace} says what they are; make one"
        )
    found = [(key, entry) for key, entry in mine if any(subset["name"] == sides.canary for subset in _subsets(entry))]
    if bool(found) == wanted or not (wanted or sides.labels):
        return documents
    key, entry = (mine if wanted else found)[0]
    after = copy.deepcopy(entry)
    if wanted:
        if not sides.labels:
            names = ", ".join(subset["name"] for subset in _subsets(entry)) or "none"
            raise InvalidRequest(
                f'{key} has no subset "{sides.canary}"; it has: {names}; add it, or give canary_labels, the labels of the canary\'s pods'
            )
        after["spec"]["subsets"] = [*_subsets(after), {"name": sides.canary, "labels": dict(sides.labels)}]
    else:
        ours = {"name": sides.canary, "labels": dict(sides.labels)}
        after["spec"]["subsets"] = [subset for subset in _subsets(after) if subset != ours]
    return {**documents, key: after}


def _subsets(manifest: Manifest) -> list[dict[str, Any]]:
    """Return the subsets of a DestinationRule."""
    return list((manifest.get("spec") or {}).get("subsets") or [])


def split(ref: Ref, documents: Documents, sides: Sides) -> Split:
    """Return who gets what by the chosen rules."""
    return split_of(ref, rules(main_of(ref, documents)), sides)


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the VirtualService in which ``weight`` percent go to the canary; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    for rule in choose(ref, rules(after), sides):
        routes = after["spec"]["http"][rule.index]["route"]
        stable = next(entry for entry in routes if side(entry["destination"]) == sides.stable)
        canary = next((entry for entry in routes if side(entry["destination"]) == sides.canary), None)
        host, is_subset = stable["destination"].get("host") or "", bool(stable["destination"].get("subset"))
        if weight is None:
            if canary is not None:
                routes.remove(canary)
                stable.pop("weight", None)
            if is_subset:
                documents = _subset(ref, documents, host, sides, wanted=False)
            continue
        if canary is None:
            if weight == 0:
                continue
            if is_subset:
                documents = _subset(ref, documents, host, sides, wanted=True)
            canary = {**copy.deepcopy(stable), "destination": _twin(stable["destination"], sides)}
            routes.insert(routes.index(stable) + 1, canary)
        stable["weight"], canary["weight"] = 100 - weight, weight
    return {**documents, ref: after}


def _twin(destination: Mapping[str, Any], sides: Sides) -> dict[str, Any]:
    """Return the canary's destination: another subset of the same host, or another host in the same form."""
    if destination.get("subset"):
        return {**destination, "subset": sides.canary}
    _service, dot, rest = (destination.get("host") or "").partition(".")
    return {**destination, "host": f"{sides.canary}{dot}{rest}"}
