# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``istio``: a VirtualService whose HTTP routes have weighted destinations, hosts or subsets of one."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Query, Ref, metadata
from . import audiences, rewriting
from .audiences import Asked
from .colored import Backend
from .rewriting import Entry
from .rules import Audience, Condition, Documents, Methods, Mirror, Rule, Sides, Split, choose, main_of, split_of, weigh

KIND = "VirtualService"
SUBSETS = "DestinationRule"
# What a match has by these names Istio leaves out of its headers.
NO_HEADERS = ("uri", "scheme", "method", "authority")


def rules(manifest: Manifest) -> list[Rule]:
    """Return the HTTP routes of the VirtualService, in their order; TCP and TLS routes are not split."""
    spec = manifest.get("spec") or {}
    hosts = tuple(spec.get("hosts") or ())
    entries = spec.get("http") or []
    return METHODS.copies(entries, [_rule(index, entry, hosts) for index, entry in enumerate(entries)])


def _rule(index: int, entry: Mapping[str, Any], hosts: tuple[str, ...]) -> Rule:
    """Return one HTTP route. Its only destination gets all, and has no weight."""
    matches = entry.get("match") or [{}]
    paths = [next(iter((match.get("uri") or {}).values()), "/") for match in matches]
    routes = entry.get("route") or []
    weights = {side(route.get("destination") or {}): route.get("weight") or 0 for route in routes}
    if len(routes) == 1:
        weights = dict.fromkeys(weights, 100)
    asked = [_conditions(match.get("headers"), match.get("queryParams")) for match in matches]
    words = [word for match, found in zip(matches, asked, strict=True) for word in (*map(str, found), _method(match)) if word]
    return Rule(index, entry.get("name") or "", hosts, paths[0], weights, tuple(words), _mirrors(entry))


def side(destination: Mapping[str, Any]) -> str:
    """Return the name of a destination's side: its subset, else the Service that its host names."""
    return destination.get("subset") or (destination.get("host") or "").split(".")[0]


def _conditions(headers: Mapping[str, Any] | None, parameters: Mapping[str, Any] | None) -> list[Condition]:
    """Return what headers and parameters of a match ask for."""
    found: list[Condition] = []
    for where, entries in (("header", headers or {}), ("query", parameters or {})):
        for name, text in entries.items():
            if (text or {}).get("regex") is not None:
                is_cookie = where == "header" and name.lower() == "cookie"
                regex = text["regex"]
                found += audiences.from_cookies_regex(regex) if is_cookie else [audiences.from_regex(where, name, regex)]
            elif (text or {}).get("prefix") is not None:
                found.append(Condition(where, name, audiences.quoted(text["prefix"]) + audiences.ANY, regex=True))
            else:
                found.append(Condition(where, name, (text or {}).get("exact")))
    return found


def _method(match: Mapping[str, Any]) -> str:
    """Return the method that a match asks for, or nothing."""
    return str(next(iter((match.get("method") or {}).values()), ""))


def _mirrors(entry: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return who gets copies, and of how many percent; all where none are named. Of the two forms a route has one."""
    found = [(entry["mirror"], entry.get("mirrorPercentage"))] if entry.get("mirror") else []
    found += [(each.get("destination") or {}, each.get("percentage")) for each in entry.get("mirrors") or []]
    return tuple({"to": side(where), "percent": _percent(share)} for where, share in found)


def _percent(share: Mapping[str, Any] | None) -> float:
    """Return a share in percent: all where there is none, and 0 where it has no value."""
    value: float = 100 if share is None else share.get("value") or 0
    return value


def known(ref: Ref, documents: Documents, sides: Sides) -> list[Rule]:
    """Return the rules of the route, those marked that are there for an audience of these sides."""
    manifest = main_of(ref, documents)
    return rewriting.with_audiences(rules(manifest), _entries(manifest), sides, FORM)


def needs(ref: Ref, manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: the DestinationRules, where a destination is a subset."""
    return (Query(SUBSETS, ref.namespace),) if any(entry.get("subset") for entry in _destinations(manifest)) else ()


def _destinations(manifest: Manifest) -> Iterator[Mapping[str, Any]]:
    """Yield every destination of the VirtualService's HTTP routes, and then of their mirrors."""
    entries = (manifest.get("spec") or {}).get("http") or []
    for entry in entries:
        for route in entry.get("route") or []:
            yield route.get("destination") or {}
    for entry in entries:
        yield entry.get("mirror") or {}
        for mirror in entry.get("mirrors") or []:
            yield mirror.get("destination") or {}


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
    return split_of(ref, known(ref, documents, sides), sides)


def _entries(manifest: Manifest) -> list[Entry]:
    """Return the HTTP routes as the VirtualService has them."""
    return list((manifest.get("spec") or {}).get("http") or [])


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the VirtualService in which ``weight`` percent go to the canary; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    for rule in choose(ref, known(ref, documents, sides), sides, two=bool(weight)):
        routes = after["spec"]["http"][rule.index]["route"]
        stable = next(entry for entry in routes if side(entry["destination"]) == sides.stable)
        canary = next((entry for entry in routes if side(entry["destination"]) == sides.canary), None)
        host, is_subset = stable["destination"].get("host") or "", bool(stable["destination"].get("subset"))
        if weight is None:
            if canary is not None:
                weigh(routes, stable, canary, 0, 0)
                routes.remove(canary)
                if len(routes) == 1:
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
        weigh(routes, stable, canary, weight, 0)
    return {**documents, ref: after}


def _twin(destination: Mapping[str, Any], sides: Sides) -> dict[str, Any]:
    """Return the canary's destination: another subset of the same host, or another host in the same form."""
    if destination.get("subset"):
        return {**destination, "subset": sides.canary}
    _service, dot, rest = (destination.get("host") or "").partition(".")
    return {**destination, "host": f"{sides.canary}{dot}{rest}"}


def mirrored(ref: Ref, documents: Documents, sides: Sides, mirror: Mirror | None) -> Documents:
    """Return the VirtualService in which the chosen routes' requests are copied to the canary's side; None ends that."""
    if mirror is not None and (mirror.body is not None or mirror.most_bytes is not None):
        raise InvalidRequest(f"{ref}: mirror_body and max_body_size are for provider traefik; Istio has no such setting")
    after = copy.deepcopy(main_of(ref, documents))
    subsets = {
        subset["name"] for key, entry in documents.items() if key.kind == SUBSETS and entry is not None for subset in _subsets(entry)
    }
    after["spec"]["http"] = rewriting.mirrored(ref, known(ref, documents, sides), _entries(after), sides, mirror, _Form(subsets))
    return {**documents, ref: after}


def unfit(_service: Manifest) -> str:
    """Return why a Service cannot be a shadow; any can."""
    return ""


def audience(ref: Ref, documents: Documents, sides: Sides, wanted: Audience | None) -> Documents:
    """Return the VirtualService with a route before the chosen ones that leads an audience to the variant; None takes it out."""
    after = copy.deepcopy(main_of(ref, documents))
    entries, found = _entries(after), known(ref, documents, sides)
    for rule in choose(ref, found, sides):
        stable = _stable(entries[rule.index], sides)["destination"]
        if stable.get("subset"):
            documents = _subset(ref, documents, stable.get("host") or "", sides, wanted=wanted is not None)
    after["spec"]["http"] = rewriting.aimed(ref, found, entries, sides, wanted, FORM)
    return {**documents, ref: after}


def _stable(entry: Entry, sides: Sides) -> dict[str, Any]:
    """Return the destination of the stable side."""
    found: dict[str, Any] = next(route for route in entry["route"] if side(route["destination"]) == sides.stable)
    return found


class _Form:
    """How a VirtualService writes an audience and a mirror: the first route that matches has the request.

    ``subsets`` are those that there are.
    """

    ADVICE = ""
    RULES_KEEP = True

    def __init__(self, subsets: Collection[str] = ()) -> None:
        self.subsets = subsets

    def extras(self, entry: Entry, base: Entry) -> list[Condition] | None:
        """Return what each match of ``entry`` asks for beyond that of ``base``; None where they are of different requests."""
        mine, theirs = entry.get("match") or [{}], base.get("match") or [{}]
        if len(mine) != len(theirs):
            return None
        found = [_extras(one, other) for one, other in zip(mine, theirs, strict=True)]
        return found[0] if all(found) and all(other == found[0] for other in found) else None

    def conditioned(self, ref: Ref, entry: Entry, conditions: Sequence[Condition], name: str, sides: Sides) -> Entry:
        """Return a copy of the route that also asks for the conditions and leads to one side alone."""
        found = {key: copy.deepcopy(value) for key, value in entry.items() if key != "name"}
        found["match"] = [_with(ref, match, conditions) for match in entry.get("match") or [{}]]
        stable = copy.deepcopy(_stable(entry, sides))
        stable.pop("weight", None)
        stable["destination"] = stable["destination"] if name == sides.stable else _twin(stable["destination"], sides)
        found["route"] = [stable]
        return found

    def shared(self, ref: Ref, entry: Entry, audience: Audience, sides: Sides) -> Entry:
        """Return the route with a share for the variant; each destination answers with the cookie of its side."""
        found, weight = copy.deepcopy(entry), audience.weight or 0
        stable = _stable(found, sides)
        variant = {**copy.deepcopy(stable), "destination": _twin(stable["destination"], sides)}
        for route, name, share in ((stable, sides.stable, 100 - weight), (variant, sides.canary, weight)):
            route["weight"] = share
            added = route.setdefault("headers", {}).setdefault("response", {}).setdefault("add", {})
            if _cookie_key(added):
                raise InvalidRequest(
                    f"the route of {ref} to {name} already adds a cookie to its answers, and Istio adds one alone;"
                    " take it out, or name the audience by conditions"
                )
            added["Set-Cookie"] = audiences.set_cookie(audience, name)
        found["route"] = [stable, variant]
        return found

    def unshared(self, entry: Entry, sides: Sides) -> Entry:
        """Return the route without what ``shared`` put there; a share that keeps nobody is a canary's, and stays."""
        stable = copy.deepcopy(next((route for route in entry.get("route") or () if side(route["destination"]) == sides.stable), {}))
        added = ((stable.get("headers") or {}).get("response") or {}).get("add") or {}
        key = _cookie_key(added)
        if key is None or not audiences.is_set_cookie(added[key], sides.stable):
            return entry
        del added[key]
        response = stable["headers"]["response"]
        if not added:
            del response["add"]
        if not response:
            del stable["headers"]["response"]
        if not stable["headers"]:
            del stable["headers"]
        stable.pop("weight", None)
        return {**entry, "route": [stable]}

    def asked(self, entry: Entry) -> list[Asked]:
        """Return what each match of a route asks for."""
        found = []
        for match in entry.get("match") or [{}]:
            kind, path = next(iter((match.get("uri") or {"prefix": "/"}).items()))
            conditions = frozenset(_conditions(match.get("headers"), match.get("queryParams")))
            known = ("name", "uri", "method", "headers", "queryParams")
            other = frozenset(f"{key} {value}" for key, value in match.items() if key not in known)
            found.append(Asked((kind, path), _method(match), conditions, other))
        return found

    def goes_first(self, theirs: tuple[int, Asked], mine: tuple[int, Asked]) -> bool | None:
        """Return whether the match of others stands before."""
        return theirs[0] < mine[0]

    def put(self, entry: Entry, sides: Sides, mirror: Mirror) -> None:
        """Put the mirror into a route, or change the one that is there in either form."""
        old = entry.get("mirror")
        share = {"value": mirror.percent}
        if old and side(old) == sides.canary:
            if _percent(entry.get("mirrorPercentage")) != mirror.percent:
                entry["mirrorPercentage"] = share
            return
        if old:
            raise InvalidRequest(
                f'a rule that leads to "{sides.stable}" has the field mirror, of somebody else, to "{side(old)}", and Istio takes no'
                " further one beside it; write that one as an entry of mirrors, or end it"
            )
        mirrors = entry.setdefault("mirrors", [])
        mine = next((each for each in mirrors if side(each.get("destination") or {}) == sides.canary), None)
        if mine is None:
            stable = next(each["destination"] for each in entry["route"] if side(each["destination"]) == sides.stable)
            if stable.get("subset") and sides.canary not in self.subsets:
                stable = {key: value for key, value in stable.items() if key != "subset"}
            mirrors.append({"destination": _twin(stable, sides), "percentage": share})
        elif _percent(mine.get("percentage")) != mirror.percent:
            mine["percentage"] = share

    def take(self, entry: Entry, sides: Sides) -> None:
        """Take the mirror to the canary's side out of a route, in either form."""
        if entry.get("mirror") and side(entry["mirror"]) == sides.canary:
            entry.pop("mirror")
            entry.pop("mirrorPercentage", None)
        left = [each for each in entry.get("mirrors") or [] if side(each.get("destination") or {}) != sides.canary]
        if left:
            entry["mirrors"] = left
        else:
            entry.pop("mirrors", None)

    def limited(self, ref: Ref, entry: Entry, mirror: Mirror) -> Entry:
        """Return the route again, for some methods alone."""
        return METHODS.limited(ref, entry, mirror)


FORM = _Form()
METHODS = Methods("match", lambda method: {"exact": method}, lambda match: str(next(iter(match.values()))))


def _cookie_key(added: Mapping[str, Any]) -> str | None:
    """Return by which name a cookie is among the headers that are added."""
    return next((key for key in added if key.lower() == "set-cookie"), None)


def _extras(match: Mapping[str, Any], base: Mapping[str, Any]) -> list[Condition] | None:
    """Return what a match asks for beyond another one; None where it does not ask for all of the other's."""
    own = ("name", "headers", "queryParams")
    if {key: value for key, value in match.items() if key not in own} != {key: value for key, value in base.items() if key not in own}:
        return None
    left = []
    for key in ("headers", "queryParams"):
        mine, theirs = match.get(key) or {}, base.get(key) or {}
        if any(mine.get(name, ()) != text for name, text in theirs.items()):
            return None
        left.append({name: text for name, text in mine.items() if name not in theirs})
    return _conditions(*left)


def _with(ref: Ref, match: Mapping[str, Any], conditions: Sequence[Condition]) -> dict[str, Any]:
    """Return a match that also asks for the conditions; raise InvalidRequest where it asks for something of that name already."""
    found = {key: copy.deepcopy(value) for key, value in match.items() if key != "name"}
    cookies = [condition for condition in conditions if condition.where == "cookie"]
    wanted: list[tuple[str, str, dict[str, str]]] = []
    for condition in conditions:
        exact = condition.value is not None and not condition.regex
        text = {"exact": condition.value or ""} if exact else {"regex": audiences.whole(condition)}
        if condition.where == "header":
            name = condition.name.lower()
            if name in NO_HEADERS:
                raise InvalidRequest(f'Istio does not match a header of the name "{name}"; ask for a header of another name')
            wanted.append(("headers", name, {} if condition.value is None else text))
        elif condition.where == "query":
            wanted.append(("queryParams", condition.name, text))
    if cookies:
        wanted.append(("headers", "cookie", {"regex": audiences.cookies_regex(cookies)}))
    unwanted = set(match.get("withoutHeaders") or ())
    for key, name, text in wanted:
        there = {other.lower() for other in (*(match.get("headers") or ()), *unwanted)} if key == "headers" else match.get(key) or ()
        if name in there:
            raise InvalidRequest(
                f'matches overlap: the rule of {ref} already asks for {"header" if key == "headers" else "parameter"} "{name}";'
                " choose another rule, or ask for something else"
            )
        found[key] = {**(found.get(key) or {}), name: text}
    return found
