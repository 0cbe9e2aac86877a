# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``gateway_api``: an HTTPRoute whose rules have weighted backends (Gateway API v1)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Query, Ref, metadata
from .colored import Backend
from .rules import Documents, Mirror, Mirroring, Rule, Sides, Split, choose, main_of, split_of

KIND = "HTTPRoute"
MIRROR = "RequestMirror"


def rules(manifest: Manifest) -> list[Rule]:
    """Return the rules of the route, in their order."""
    spec = manifest.get("spec") or {}
    hosts = tuple(spec.get("hostnames") or ())
    entries = spec.get("rules") or []
    return _MIRRORING.copies(entries, [_rule(index, entry, hosts) for index, entry in enumerate(entries)])


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
        _mirrors(entry),
    )


def _conditions(match: Mapping[str, Any]) -> list[str]:
    """Return what a match asks for beside the path, as words."""
    found = [f"header {entry['name']}" for entry in match.get("headers") or []]
    found += [f"query {entry['name']}" for entry in match.get("queryParams") or []]
    return found + ([match["method"]] if match.get("method") else [])


def _mirrors(entry: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return who gets copies by the rule's filters, and of how many percent."""
    found: list[dict[str, Any]] = []
    for mirror in (each.get("requestMirror") or {} for each in entry.get("filters") or [] if each.get("type") == MIRROR):
        fraction = mirror.get("fraction") or {}
        percent: float = mirror.get("percent") if mirror.get("percent") is not None else 100
        if fraction:
            percent = round(100.0 * fraction["numerator"] / (fraction.get("denominator") or 100), 4)
        found.append({"to": (mirror.get("backendRef") or {}).get("name") or "", "percent": percent})
    return tuple(found)


def known(ref: Ref, documents: Documents) -> list[Rule]:
    """Return the rules of the route, with what the objects beside it say of them."""
    return rules(main_of(ref, documents))


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
    return split_of(ref, known(ref, documents), sides)


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


def mirrored(ref: Ref, documents: Documents, sides: Sides, mirror: Mirror | None) -> Documents:
    """Return the route in which the chosen rules' requests are copied to the canary's side; None ends that."""
    if mirror is not None and (mirror.body is not None or mirror.most_bytes is not None):
        raise InvalidRequest(f"{ref}: mirror_body and max_body_size are for provider traefik; the Gateway API has no such setting")
    after = copy.deepcopy(main_of(ref, documents))
    known = rules(after)
    if mirror is not None and mirror.methods:
        _check_precedence(ref, known, after, sides)
    _MIRRORING.apply(ref, after["spec"]["rules"], known, sides, mirror)
    return {**documents, ref: after}


def unfit(_service: Manifest) -> str:
    """Return why a Service cannot be a shadow; any can."""
    return ""


def _put(entry: dict[str, Any], sides: Sides, mirror: Mirror) -> None:
    """Put the filter that mirrors into a rule, or change the one that is there."""
    filters = entry.setdefault("filters", [])
    mine = next((each["requestMirror"] for each in filters if _leads(each, sides)), None)
    if mine is None:
        stable = next(each for each in entry["backendRefs"] if each["name"] == sides.stable)
        backend = {key: stable[key] for key in ("group", "kind", "namespace", "port") if key in stable}
        mine = {"backendRef": {**backend, "name": sides.canary}}
        filters.append({"type": MIRROR, "requestMirror": mine})
    share = Fraction(str(mirror.percent)) / 100
    if "fraction" in mine and Fraction(mine["fraction"]["numerator"], mine["fraction"].get("denominator") or 100) == share:
        return
    if mine.get("percent") == 100 and share == 1:
        return
    for key in ("percent", "fraction"):
        mine.pop(key, None)
    # All of them need no field: every version of the API has that.
    if (share * 100).denominator == 1:
        mine.update({} if share == 1 else {"percent": int(share * 100)})
    else:
        mine["fraction"] = {"numerator": share.numerator, "denominator": share.denominator}


def _take(entry: dict[str, Any], sides: Sides) -> None:
    """Take the filter that mirrors out of a rule."""
    left = [each for each in entry.get("filters") or [] if not _leads(each, sides)]
    if left:
        entry["filters"] = left
    else:
        entry.pop("filters", None)


def _leads(each: Mapping[str, Any], sides: Sides) -> bool:
    """Return whether a filter mirrors to the canary's side."""
    mirror = each.get("requestMirror") or {}
    return each.get("type") == MIRROR and (mirror.get("backendRef") or {}).get("name") == sides.canary


_MIRRORING = Mirroring("matches", str, str, _put, _take)


def _check_precedence(ref: Ref, known: Sequence[Rule], manifest: Manifest, sides: Sides) -> None:
    """Raise InvalidRequest where a rule for some methods would take requests of another: a method counts more than a header."""
    chosen = choose(ref, known, sides, two=False)
    entries = manifest["spec"]["rules"]
    mine = [match for rule in chosen if rule.copy_of is None for match in entries[rule.index].get("matches") or [{}]]
    indices = {rule.index for rule in chosen}
    for rule in known:
        for match in () if rule.index in indices else entries[rule.index].get("matches") or [{}]:
            if not match.get("method") and any(_same_path(match, own) and _picks(match) > _picks(own) for own in mine):
                raise InvalidRequest(
                    f"rule {rule} of {ref} picks requests of the same path by header or query, and in the Gateway API a rule for a method"
                    " goes before it and would take them; leave methods out, or give that rule its methods"
                )


def _same_path(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two matches are for one path, in one way."""
    first, second = one.get("path") or {}, other.get("path") or {}
    return (first.get("type") or "PathPrefix", first.get("value") or "/") == (
        second.get("type") or "PathPrefix",
        second.get("value") or "/",
    )


def _picks(match: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many headers and query parameters a match asks for: the order in which rules go before others."""
    return len(match.get("headers") or []), len(match.get("queryParams") or [])
