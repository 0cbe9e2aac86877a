# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``traefik``: an IngressRoute whose routes have weighted Services (Traefik 3, traefik.io/v1alpha1)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Query, Ref, metadata
from .colored import Backend
from .rules import Documents, Rule, Sides, Split, choose, main_of, split_of

KIND = "IngressRoute"
_CALL = re.compile(r"(!?)\s*(\w+)\(([^)]*)\)")
_QUOTED = re.compile(r"`([^`]*)`|\"([^\"]*)\"")


def rules(manifest: Manifest) -> list[Rule]:
    """Return the routes of the IngressRoute, in their order."""
    return [_rule(index, entry) for index, entry in enumerate((manifest.get("spec") or {}).get("routes") or [])]


def _rule(index: int, entry: Mapping[str, Any]) -> Rule:
    """Return one route: its hosts and path as its match says them."""
    hosts: list[str] = []
    path, conditions = "/", []
    for negated, function, arguments in _CALL.findall(entry.get("match") or ""):
        values = [first or second for first, second in _QUOTED.findall(arguments)]
        if function == "Host" and not negated:
            hosts += values
        elif function in ("Path", "PathPrefix", "PathRegexp") and not negated:
            path = values[0] if values else path
        else:
            conditions.append(f"{negated}{function} {' '.join(values)}")
    services = entry.get("services") or []
    weights = {service["name"]: 1 if service.get("weight") is None else service["weight"] for service in services}
    return Rule(index, "", tuple(hosts), path, weights, tuple(conditions))


def needs(_ref: Ref, _manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: nothing does."""
    return ()


def backends(manifest: Manifest) -> Iterator[Backend]:
    """Yield every place that names a Service of the route's own namespace; a TraefikService is none."""
    here = metadata(manifest).get("namespace")
    for rule, entry in zip(rules(manifest), (manifest.get("spec") or {}).get("routes") or [], strict=True):
        for number, service in enumerate(entry.get("services") or []):
            if (service.get("kind") or "Service") == "Service" and service.get("namespace") in (None, here):
                weight = 1 if service.get("weight") is None else service["weight"]
                where = f"/spec/routes/{rule.index}/services/{number}/name"
                name = service["name"]
                yield Backend(where, rule.hosts, rule.path, name, name, service.get("port"), weight, rule.index, rule.name)


def service_of(_ref: Ref, _documents: Documents, name: str) -> str:
    """Return the Service of a side: its name is the side's own."""
    return name


def split(ref: Ref, documents: Documents, sides: Sides) -> Split:
    """Return who gets what by the chosen routes."""
    return split_of(ref, rules(main_of(ref, documents)), sides)


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the IngressRoute in which ``weight`` percent go to the canary; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    for rule in choose(ref, rules(after), sides):
        services = after["spec"]["routes"][rule.index]["services"]
        stable = next(entry for entry in services if entry["name"] == sides.stable)
        canary = next((entry for entry in services if entry["name"] == sides.canary), None)
        if stable.get("kind") == "TraefikService":
            raise InvalidRequest(
                f'{ref} leads to the TraefikService "{sides.stable}", whose own weights decide;'
                " name the Service behind it in an IngressRoute"
            )
        if weight is None:
            if canary is not None:
                services.remove(canary)
                stable.pop("weight", None)
            continue
        if canary is None:
            if weight == 0:
                continue
            canary = {**copy.deepcopy(stable), "name": sides.canary}
            services.insert(services.index(stable) + 1, canary)
        stable["weight"], canary["weight"] = 100 - weight, weight
    return {**documents, ref: after}
