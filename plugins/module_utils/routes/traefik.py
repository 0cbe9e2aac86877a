# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``traefik``: an IngressRoute whose routes have weighted Services (Traefik 3, traefik.io/v1alpha1).

A route may lead to a TraefikService, and its weights or its mirrors are then those of that object. To mirror, the route is led to
one of kind mirroring that is made for it, and which leads to where the route led before: to a TraefikService, or to one of kind
weighted, made too, that holds the route's former services as they were. So weights are set in it while it mirrors, and ending the
mirror gives the services back to the route.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, Manifest, Query, Ref, annotations, metadata
from .colored import Backend
from .rules import Documents, Mirror, Rule, Sides, Split, check_shadow, choose, main_of, marked, mirror_to, split_of

KIND = "IngressRoute"
BESIDE = "TraefikService"
MADE_FOR = ANNOTATION_PREFIX + "mirror-of"
MOST_LEVELS = 10
# What a shadow's entry has of the stable side's: how it is reached.
REACHED = ("namespace", "passHostHeader", "port", "scheme", "serversTransport")
_CALL = re.compile(r"(!?)\s*(\w+)\(([^)]*)\)")
_METHOD = re.compile(r"Method\(`([A-Z]+)`\)")
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


def known(ref: Ref, documents: Documents) -> list[Rule]:
    """Return the routes with the weights and the mirrors of the TraefikServices that they lead to."""
    entries = (main_of(ref, documents).get("spec") or {}).get("routes") or []
    found: list[Rule] = []
    copies: dict[int, tuple[int, list[str]]] = {}
    for index, entry in enumerate(entries):
        services, mirrors = _behind(ref, documents, entry)[:2]
        rule = _rule(index, {**entry, "services": services})
        told = tuple({"to": mirror.get("name") or "", "percent": mirror.get("percent") or 0} for mirror in mirrors)
        found.append(replace(rule, mirrors=told))
        if _made(ref, documents, entry) is not None:
            for other, base in enumerate(entries[index + 1 :], index + 1):
                opening = f"({base.get('match') or ''}) && ("
                if (entry.get("match") or "").startswith(opening):
                    copies[index] = (other, _METHOD.findall(entry["match"][len(opening) :]))
    return marked(found, copies)


def _behind(
    ref: Ref, documents: Documents, entry: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[Ref, str]]]:
    """Return the services between which a route's requests are split, who gets copies, and by which TraefikServices of what kind.

    The lists are the manifests' own, but where the last one is of kind mirroring: that leads to one service, and has no list.
    """
    services: list[dict[str, Any]] = entry.get("services") or []
    mirrors: list[dict[str, Any]] = []
    passed: list[tuple[Ref, str]] = []
    while len(services) == 1 and services[0].get("kind") == BESIDE and len(passed) < MOST_LEVELS:
        key = Ref(BESIDE, services[0].get("namespace") or ref.namespace, services[0]["name"])
        spec = (documents.get(key) or {}).get("spec") or {}
        if spec.get("weighted"):
            services = spec["weighted"].get("services") or []
            passed.append((key, "weighted"))
        elif spec.get("mirroring"):
            services = [spec["mirroring"]]
            mirrors += spec["mirroring"].get("mirrors") or []
            passed.append((key, "mirroring"))
        else:
            break
    return services, mirrors, passed


def _made(ref: Ref, documents: Documents, entry: Mapping[str, Any]) -> Ref | None:
    """Return the mirroring TraefikService that was made for this IngressRoute, where a route leads to one."""
    services = entry.get("services") or []
    if len(services) != 1 or services[0].get("kind") != BESIDE:
        return None
    key = Ref(BESIDE, ref.namespace, services[0]["name"])
    found = documents.get(key)
    is_ours = found is not None and annotations(found).get(MADE_FOR) == ref.name and bool((found.get("spec") or {}).get("mirroring"))
    return key if is_ours else None


def needs(ref: Ref, _manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: the TraefikServices, to which it leads or may lead."""
    return (Query(BESIDE, ref.namespace, optional=True),)


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
    return split_of(ref, known(ref, documents), sides)


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the objects in which ``weight`` percent go to the canary, where its weights stand; None takes it out."""
    main_of(ref, documents)
    after = {key: copy.deepcopy(manifest) for key, manifest in documents.items()}
    for rule in choose(ref, known(ref, after), sides):
        services, _mirrors, passed = _behind(ref, after, main_of(ref, after)["spec"]["routes"][rule.index])
        stable = next(entry for entry in services if entry["name"] == sides.stable)
        canary = next((entry for entry in services if entry["name"] == sides.canary), None)
        if stable.get("kind") == BESIDE:
            raise InvalidRequest(
                f'{ref} leads to the TraefikService "{sides.stable}", whose own weights decide;'
                " name the Service behind it in an IngressRoute, or one of those between which it splits"
            )
        if passed and passed[-1][1] == "mirroring":
            raise InvalidRequest(
                f"{ref} leads to {passed[-1][0]}, of somebody else, which mirrors and leads to {sides.stable} alone; let it lead to a"
                " TraefikService of kind weighted"
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
    return after


def unfit(service: Manifest) -> str:
    """Return why a Service cannot be a shadow: Traefik reaches it by its own address, so that it may have no pods."""
    if (service.get("spec") or {}).get("clusterIP") == "None" or (service.get("spec") or {}).get("type") == "ExternalName":
        return "it has no address of its own, without which Traefik would fail the live requests too when its pods are gone"
    return ""


def mirrored(ref: Ref, documents: Documents, sides: Sides, mirror: Mirror | None) -> Documents:
    """Return the objects in which the chosen routes' requests are copied to the canary's side; None ends that."""
    if mirror is not None and not float(mirror.percent).is_integer():
        raise InvalidRequest(f"percent is {mirror.percent:g}, and Traefik mirrors whole percents; round it")
    main_of(ref, documents)
    after: dict[Ref, Manifest | None] = {key: copy.deepcopy(manifest) for key, manifest in documents.items()}
    routes = main_of(ref, after)["spec"]["routes"]
    chosen = choose(ref, known(ref, after), sides, two=False)
    check_shadow(ref, chosen, sides, mirror)
    entries = {rule.index: routes[rule.index] for rule in chosen}
    for rule in chosen:
        if rule.copy_of is not None:
            continue
        base = entries[rule.index]
        copied = next((entries[other.index] for other in chosen if other.copy_of == rule.index and mirror_to([other], sides.canary)), None)
        if copied is not None and (mirror is None or not mirror.methods):
            routes.remove(copied)
        if mirror is None or mirror.methods:
            _end(ref, after, base, sides)
        if mirror is None:
            continue
        if not mirror.methods:
            _lead(ref, after, base, base.get("services") or [], sides, mirror)
            continue
        if copied is None:
            copied = {**copy.deepcopy(base), "services": []}
            routes.insert(routes.index(base), copied)
        led = copied["services"]
        copied.clear()
        copied.update(
            {**copy.deepcopy(base), "match": _limited(base, mirror), "priority": _before(ref, routes, base, copied), "services": led}
        )
        _lead(ref, after, copied, copy.deepcopy(base.get("services") or []), sides, mirror)
    return _without_leftovers(ref, after)


def _limited(base: Mapping[str, Any], mirror: Mirror) -> str:
    """Return a route's match with the methods that are wanted."""
    return f"({base.get('match') or ''}) && ({' || '.join(f'Method(`{method}`)' for method in mirror.methods)})"


def _before(ref: Ref, routes: Sequence[Mapping[str, Any]], base: Mapping[str, Any], copied: Mapping[str, Any]) -> int:
    """Return the priority just above a route's own, which is the length of its match; raise InvalidRequest where another has it."""
    wanted = _priority(base) + 1
    for index, entry in enumerate(routes):
        if entry is not copied and entry is not base and _priority(entry) == wanted:
            raise InvalidRequest(
                f'route {index} of {ref} ("{entry.get("match")}") has priority {wanted}, which a route for some methods alone would need;'
                " give that route another priority, or leave methods out"
            )
    return wanted


def _priority(entry: Mapping[str, Any]) -> int:
    """Return the priority of a route."""
    return int(entry.get("priority") or len(entry.get("match") or ""))


def _lead(
    ref: Ref, after: dict[Ref, Manifest | None], entry: dict[str, Any], services: list[dict[str, Any]], sides: Sides, mirror: Mirror
) -> None:
    """Lead a route to a mirroring TraefikService of ours, which leads to ``services``; change the one that it leads to already."""
    key = _made(ref, after, entry)
    is_copy = entry.get("services") is not services
    stable = next(each for each in _behind(ref, after, {"services": services})[0] if each["name"] == sides.stable)
    if stable.get("kind") == BESIDE or stable.get("port") is None:
        raise InvalidRequest(
            f'{ref} leads to "{sides.stable}" without a port, so it is not known at which one "{sides.canary}" is reached;'
            " name as stable a Service that has one there"
        )
    if key is None:
        key, holder = _names(ref, after)
        after[key] = _object(ref, key, {"mirroring": {"mirrors": []}}, after.get(key))
        entry["services"] = [{"name": key.name, "kind": BESIDE}]
    else:
        holder = _holder(key)
    mirroring = (after[key] or {})["spec"]["mirroring"]
    if is_copy or not mirroring.get("name"):
        mirroring.update(_main(ref, after, holder, services))
    mine = next((each for each in mirroring["mirrors"] if each["name"] == sides.canary), None)
    if mine is None:
        mine = {**{field: stable[field] for field in REACHED if field in stable}, "name": sides.canary, "nativeLB": True}
        mirroring["mirrors"].append(mine)
    mine["percent"] = int(mirror.percent)
    for field, value in (("mirrorBody", mirror.body), ("maxBodySize", mirror.most_bytes)):
        if value is not None:
            mirroring[field] = value


def _main(ref: Ref, after: dict[Ref, Manifest | None], holder: Ref, services: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a mirroring TraefikService leads to: the one that the route led to, else one that holds the route's services."""
    if len(services) == 1 and services[0].get("kind") == BESIDE:
        return copy.deepcopy(services[0])
    after[holder] = _object(ref, holder, {"weighted": {"services": copy.deepcopy(services)}}, after.get(holder))
    return {"name": holder.name, "kind": BESIDE}


def _end(ref: Ref, after: dict[Ref, Manifest | None], entry: dict[str, Any], sides: Sides) -> None:
    """Take the canary's side out of the mirrors of a route; the last one gives the route its services back."""
    key = _made(ref, after, entry)
    if key is None:
        return
    mirroring = (after[key] or {})["spec"]["mirroring"]
    left = [each for each in mirroring.get("mirrors") or [] if each["name"] != sides.canary]
    if left:
        mirroring["mirrors"] = left
        return
    held = (after.get(_holder(key)) or {}).get("spec") or {}
    if mirroring.get("name") == _holder(key).name and held:
        entry["services"] = held["weighted"]["services"]
    else:
        own = ("mirrors", "mirrorBody", "maxBodySize")
        entry["services"] = [{field: value for field, value in mirroring.items() if field not in own}]


def _object(ref: Ref, key: Ref, spec: dict[str, Any], left: Manifest | None) -> Manifest:
    """Return a TraefikService that says for which IngressRoute it is there, out of what is ``left`` of one where there is that."""
    if left is not None:
        return {**left, "spec": spec}
    meta = {"name": key.name, "namespace": key.namespace, "annotations": {MADE_FOR: ref.name}}
    return {"apiVersion": "traefik.io/v1alpha1", "kind": BESIDE, "metadata": meta, "spec": spec}


def _holder(key: Ref) -> Ref:
    """Return the TraefikService that holds a route's services for a mirroring one: ``web-mirror-2`` has ``web-mirror-2-main``."""
    return Ref(BESIDE, key.namespace, f"{key.name}-main")


def _names(ref: Ref, after: Mapping[Ref, Manifest | None]) -> tuple[Ref, Ref]:
    """Return what a new pair of TraefikServices is called: names that nobody has, or that one of ours has which nothing leads to."""
    used = _used(ref, after)
    number = 1
    while True:
        key = Ref(BESIDE, ref.namespace, f"{ref.name}-mirror" if number == 1 else f"{ref.name}-mirror-{number}")
        if all(after.get(one) is None or (_is_ours(ref, after[one]) and one not in used) for one in (key, _holder(key))):
            return key, _holder(key)
        number += 1


def _is_ours(ref: Ref, manifest: Manifest | None) -> bool:
    """Return whether a TraefikService was made for this IngressRoute."""
    return manifest is not None and annotations(manifest).get(MADE_FOR) == ref.name


def _used(ref: Ref, after: Mapping[Ref, Manifest | None]) -> set[Ref]:
    """Return the TraefikServices that the IngressRoute's routes lead to, each with what it leads to itself."""
    found: set[Ref] = set()
    for entry in main_of(ref, after)["spec"]["routes"]:
        for service in entry.get("services") or []:
            found |= {key for key, _kind in _behind(ref, after, {"services": [service]})[2]}
    return found


def _without_leftovers(ref: Ref, after: dict[Ref, Manifest | None]) -> Documents:
    """Return the objects without those of ours to which nothing leads any more."""
    used = _used(ref, after)
    return {key: None if key.kind == BESIDE and _is_ours(ref, entry) and key not in used else entry for key, entry in after.items()}
