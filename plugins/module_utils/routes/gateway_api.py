# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``gateway_api``: an HTTPRoute whose rules have weighted backends (Gateway API v1)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Query, Ref, metadata
from . import audiences, rewriting
from .audiences import Asked
from .colored import Backend
from .rewriting import Entry
from .rules import Audience, Condition, Documents, Methods, Mirror, Rule, Sides, Split, choose, main_of, split_of, weigh

KIND = "HTTPRoute"
MIRROR = "RequestMirror"
MODIFIER = "ResponseHeaderModifier"
REGEX = "RegularExpression"
MOST_RULES, MOST_MATCHES, MOST_IN_ALL = 16, 64, 128


def rules(manifest: Manifest) -> list[Rule]:
    """Return the rules of the route, in their order."""
    spec = manifest.get("spec") or {}
    hosts = tuple(spec.get("hostnames") or ())
    entries = spec.get("rules") or []
    return METHODS.copies(entries, [_rule(index, entry, hosts) for index, entry in enumerate(entries)])


def _rule(index: int, entry: Mapping[str, Any], hosts: tuple[str, ...]) -> Rule:
    """Return one rule. Without a match it is for every path."""
    matches = entry.get("matches") or [{}]
    paths = [(match.get("path") or {}).get("value") or "/" for match in matches]
    asked = [_conditions(match.get("headers"), match.get("queryParams")) for match in matches]
    words = [word for match, found in zip(matches, asked, strict=True) for word in (*map(str, found), match.get("method") or "") if word]
    return Rule(
        index,
        entry.get("name") or "",
        hosts,
        paths[0],
        {ref["name"]: 1 if ref.get("weight") is None else ref["weight"] for ref in entry.get("backendRefs") or []},
        tuple(words),
        _mirrors(entry),
    )


def _conditions(headers: Sequence[Mapping[str, Any]] | None, parameters: Sequence[Mapping[str, Any]] | None) -> list[Condition]:
    """Return what headers and parameters of a match ask for."""
    found: list[Condition] = []
    for where, entries in (("header", headers or ()), ("query", parameters or ())):
        for entry in entries:
            if entry.get("type") != REGEX:
                found.append(Condition(where, entry["name"], entry.get("value")))
            elif where == "header" and entry["name"].lower() == "cookie":
                found += audiences.from_cookies_regex(entry["value"])
            else:
                found.append(audiences.from_regex(where, entry["name"], entry["value"]))
    return found


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


def known(ref: Ref, documents: Documents, sides: Sides) -> list[Rule]:
    """Return the rules of the route, those marked that are there for an audience of these sides."""
    manifest = main_of(ref, documents)
    return rewriting.with_audiences(rules(manifest), _entries(manifest), sides, FORM)


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
    return split_of(ref, known(ref, documents, sides), sides)


def _entries(manifest: Manifest) -> list[Entry]:
    """Return the rules as the route has them."""
    return list((manifest.get("spec") or {}).get("rules") or [])


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the route in which ``weight`` percent of the chosen rules' requests go to the canary; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    for rule in choose(ref, known(ref, documents, sides), sides, two=bool(weight)):
        refs = after["spec"]["rules"][rule.index]["backendRefs"]
        stable = next(entry for entry in refs if entry["name"] == sides.stable)
        canary = next((entry for entry in refs if entry["name"] == sides.canary), None)
        if weight is None:
            if canary is not None:
                weigh(refs, stable, canary, 0)
                refs.remove(canary)
                if len(refs) == 1:
                    stable["weight"] = 1
            continue
        if canary is None:
            if weight == 0:
                continue
            canary = {**copy.deepcopy(stable), "name": sides.canary}
            refs.insert(refs.index(stable) + 1, canary)
        weigh(refs, stable, canary, weight)
    return {**documents, ref: after}


def mirrored(ref: Ref, documents: Documents, sides: Sides, mirror: Mirror | None) -> Documents:
    """Return the route in which the chosen rules' requests are copied to the canary's side; None ends that."""
    if mirror is not None and (mirror.body is not None or mirror.most_bytes is not None):
        raise InvalidRequest(f"{ref}: mirror_body and max_body_size are for provider traefik; the Gateway API has no such setting")
    after = copy.deepcopy(main_of(ref, documents))
    found, entries = known(ref, documents, sides), _entries(after)
    if mirror is not None and mirror.methods:
        _check_precedence(ref, found, entries, sides)
    after["spec"]["rules"] = rewriting.mirrored(ref, found, entries, sides, mirror, FORM)
    return {**documents, ref: after}


def unfit(_service: Manifest) -> str:
    """Return why a Service cannot be a shadow; any can."""
    return ""


def audience(ref: Ref, documents: Documents, sides: Sides, wanted: Audience | None) -> Documents:
    """Return the route with a rule before the chosen ones that leads an audience to the variant; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    found = rewriting.aimed(ref, known(ref, documents, sides), _entries(after), sides, wanted, FORM)
    count = [len(entry.get("matches") or [1]) for entry in found]
    if wanted is not None and (len(found) > MOST_RULES or sum(count) > MOST_IN_ALL or max(count) > MOST_MATCHES):
        raise InvalidRequest(
            f"with this audience {ref} would have {len(found)} rules with {sum(count)} matches; the Gateway API allows"
            f" {MOST_RULES} rules with {MOST_IN_ALL} matches in all; split the route into two"
        )
    after["spec"]["rules"] = found
    return {**documents, ref: after}


class _Form:
    """How an HTTPRoute writes an audience and a mirror: the most specific match has the request."""

    ADVICE = "ask for something that excludes what it asks for, or take it out"
    RULES_KEEP = True

    def extras(self, entry: Entry, base: Entry) -> list[Condition] | None:
        """Return what each match of ``entry`` asks for beyond that of ``base``; None where they are of different requests."""
        mine, theirs = entry.get("matches") or [{}], base.get("matches") or [{}]
        if len(mine) != len(theirs):
            return None
        found = [_extras(one, other) for one, other in zip(mine, theirs, strict=True)]
        return found[0] if all(found) and all(other == found[0] for other in found) else None

    def conditioned(self, ref: Ref, entry: Entry, conditions: Sequence[Condition], side: str, sides: Sides) -> Entry:
        """Return a copy of the rule that also asks for the conditions and leads to ``side`` alone."""
        stable = next(backend for backend in entry["backendRefs"] if backend["name"] == sides.stable)
        found = {key: copy.deepcopy(value) for key, value in entry.items() if key != "name"}
        found["matches"] = [_with(ref, match, conditions) for match in entry.get("matches") or [{}]]
        found["backendRefs"] = [{**copy.deepcopy(stable), "name": side, "weight": 1}]
        return found

    def shared(self, _ref: Ref, entry: Entry, audience: Audience, sides: Sides) -> Entry:
        """Return the rule with a share for the variant; each backend answers with the cookie of its side."""
        found = copy.deepcopy(entry)
        stable = next(backend for backend in found["backendRefs"] if backend["name"] == sides.stable)
        variant = {**copy.deepcopy(stable), "name": sides.canary}
        weight = audience.weight or 0
        for backend, side, share in ((stable, sides.stable, 100 - weight), (variant, sides.canary, weight)):
            backend["weight"] = share
            cookie = {"name": "Set-Cookie", "value": audiences.set_cookie(audience, side)}
            filters = backend.setdefault("filters", [])
            modifier = next((one for one in filters if one.get("type") == MODIFIER), None)
            if modifier is None:
                modifier = {"type": MODIFIER, "responseHeaderModifier": {}}
                filters.append(modifier)
            modifier["responseHeaderModifier"].setdefault("add", []).append(cookie)
        found["backendRefs"] = [stable, variant]
        return found

    def unshared(self, entry: Entry, sides: Sides) -> Entry:
        """Return the rule without what ``shared`` put there; a share that keeps nobody is a canary's, and stays."""
        if not any(_keeps(backend, backend["name"]) for backend in entry.get("backendRefs") or ()):
            return entry
        stable = copy.deepcopy(next(backend for backend in entry["backendRefs"] if backend["name"] == sides.stable))
        stable["weight"] = 1
        for modifier in [one for one in stable.get("filters") or () if one.get("type") == MODIFIER]:
            change = modifier["responseHeaderModifier"]
            change["add"] = [one for one in change.get("add") or () if not _is_ours(one, sides.stable)]
            if not change["add"]:
                del change["add"]
            if not change:
                stable["filters"].remove(modifier)
        if not stable.get("filters"):
            stable.pop("filters", None)
        return {**entry, "backendRefs": [stable]}

    def asked(self, entry: Entry) -> list[Asked]:
        """Return what each match of a rule asks for."""
        found = []
        for match in entry.get("matches") or [{}]:
            path = match.get("path") or {}
            kind = {"Exact": "exact", REGEX: "regex"}.get(path.get("type") or "", "prefix")
            conditions = frozenset(_conditions(match.get("headers"), match.get("queryParams")))
            found.append(Asked((kind, path.get("value") or "/"), match.get("method") or "", conditions))
        return found

    def goes_first(self, theirs: tuple[int, Asked], mine: tuple[int, Asked]) -> bool | None:
        """Return whether the match of others is the more specific one: by its path, then by what else it asks for, then by its place."""
        (place, one), (other_place, other) = theirs, mine
        if one.path != other.path:
            return (one.path[0] == "exact", len(one.path[1])) > (other.path[0] == "exact", len(other.path[1]))
        if one.rank > other.rank or (one.rank == other.rank and place < other_place):
            return True
        return None if one.conditions or one.method else False

    def put(self, entry: Entry, sides: Sides, mirror: Mirror) -> None:
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

    def take(self, entry: Entry, sides: Sides) -> None:
        """Take the filter that mirrors out of a rule."""
        left = [each for each in entry.get("filters") or [] if not _leads(each, sides)]
        if left:
            entry["filters"] = left
        else:
            entry.pop("filters", None)

    def limited(self, ref: Ref, entry: Entry, mirror: Mirror) -> Entry:
        """Return the rule again, for some methods alone."""
        return METHODS.limited(ref, entry, mirror)


FORM = _Form()
METHODS = Methods("matches", str, str)


def _extras(match: Mapping[str, Any], base: Mapping[str, Any]) -> list[Condition] | None:
    """Return what a match asks for beyond another one; None where it does not ask for all of the other's."""
    root = {"type": "PathPrefix", "value": "/"}
    if (match.get("path") or root) != (base.get("path") or root) or match.get("method") != base.get("method"):
        return None
    left = []
    for key in ("headers", "queryParams"):
        mine, theirs = match.get(key) or [], base.get(key) or []
        if any(entry not in mine for entry in theirs):
            return None
        left.append([entry for entry in mine if entry not in theirs])
    return _conditions(*left)


def _with(ref: Ref, match: Mapping[str, Any], conditions: Sequence[Condition]) -> dict[str, Any]:
    """Return a match that also asks for the conditions, with all that the API server would add to it."""
    found = {"path": {"type": "PathPrefix", "value": "/"}, **copy.deepcopy(dict(match))}
    cookies = [condition for condition in conditions if condition.where == "cookie"]
    entries = [
        ("headers", condition.name, condition) if condition.where == "header" else ("queryParams", condition.name, condition)
        for condition in conditions
        if condition.where != "cookie"
    ]
    for key, name, condition in entries:
        exact = condition.value is not None and not condition.regex
        value = condition.value if exact else audiences.whole(condition)
        _add(ref, found, key, {"type": "Exact" if exact else REGEX, "name": name, "value": value})
    if cookies:
        _add(ref, found, "headers", {"type": REGEX, "name": "Cookie", "value": audiences.cookies_regex(cookies)})
    return found


def _add(ref: Ref, match: dict[str, Any], key: str, entry: dict[str, Any]) -> None:
    """Add to a match what it asks for; raise InvalidRequest where it already asks for something of that name."""
    for there in match.get(key) or ():
        if there["name"].lower() == entry["name"].lower():
            kind = "header" if key == "headers" else "parameter"
            raise InvalidRequest(
                f'matches overlap: the rule of {ref} already asks for {kind} "{there["name"]}", and the Gateway API takes one condition'
                " for a name; choose another rule, or ask for something else"
            )
    match[key] = [*(match.get(key) or ()), entry]


def _keeps(backend: Mapping[str, Any], side: str) -> bool:
    """Return whether a backend tells its users to keep it."""
    modifiers = [one.get("responseHeaderModifier") or {} for one in backend.get("filters") or () if one.get("type") == MODIFIER]
    return any(_is_ours(entry, side) for modifier in modifiers for entry in modifier.get("add") or ())


def _is_ours(entry: Mapping[str, Any], side: str) -> bool:
    """Return whether a header that is added to answers is the cookie that keeps users on a side."""
    return entry["name"].lower() == "set-cookie" and audiences.is_set_cookie(entry["value"], side)


def _leads(each: Mapping[str, Any], sides: Sides) -> bool:
    """Return whether a filter mirrors to the canary's side."""
    mirror = each.get("requestMirror") or {}
    return each.get("type") == MIRROR and (mirror.get("backendRef") or {}).get("name") == sides.canary


def _check_precedence(ref: Ref, found: Sequence[Rule], entries: Sequence[Entry], sides: Sides) -> None:
    """Raise InvalidRequest where a rule for some methods would take requests of another: a method counts more than a header."""
    chosen = choose(ref, found, sides, two=False)
    indices = {rule.index for rule in chosen}
    indices |= {one.index for rule in chosen for one in rewriting.followers(ref, found, entries, rule, sides, FORM)}
    mine = [match for index in indices for match in entries[index].get("matches") or [{}] if found[index].copy_of is None]
    for rule in found:
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
