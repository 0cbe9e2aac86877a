# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``traefik``: an IngressRoute whose routes have weighted Services (Traefik 3, traefik.io/v1alpha1).

A route may lead to a TraefikService, and its weights or its mirrors are then those of that object. A mirror and users who are kept
on a side need one; it is made for the route, and goes with what it is there for (``traefik_services``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Query, Ref, metadata
from . import audiences, rewriting, traefik_services
from .audiences import Asked
from .colored import Backend
from .rewriting import Entry
from .rules import Audience, Condition, Documents, Mirror, Rule, Sides, Split, choose, main_of, marked, match_of, split_of, weigh
from .traefik_services import MIRRORING, STICKY, behind, folded, plain, routes_of, unfolded

KIND = "IngressRoute"
# What a shadow's entry has of the stable side's: how it is reached.
REACHED = ("namespace", "passHostHeader", "port", "scheme", "serversTransport")
_CALL = re.compile(r"(!?)\s*(\w+)\(((?:`[^`]*`|\"(?:\\.|[^\"\\])*\"|[^)`\"])*)\)")
_QUOTED = re.compile(r"`([^`]*)`|\"((?:\\.|[^\"\\])*)\"")
_OURS = re.compile(r"(Header|HeaderRegexp|Query|QueryRegexp)\(`([^`]*)`, `([^`]*)`\)")
_METHOD = re.compile(r"Method\(`([A-Z]+)`\)")


def rules(manifest: Manifest) -> list[Rule]:
    """Return the routes of the IngressRoute, in their order."""
    return [_rule(index, entry) for index, entry in enumerate((manifest.get("spec") or {}).get("routes") or [])]


def _rule(index: int, entry: Mapping[str, Any]) -> Rule:
    """Return one route: its hosts and path as its match says them."""
    hosts: list[str] = []
    path, conditions = "/", []
    for negated, function, texts in _calls(entry.get("match") or ""):
        if function == "Host" and not negated:
            hosts += texts
        elif function in ("Path", "PathPrefix", "PathRegexp") and not negated:
            path = texts[0] if texts else path
        else:
            found = [] if negated else _conditions(function, texts)
            conditions += [str(condition) for condition in found] or [f"{negated}{function} {' '.join(texts)}"]
    services = entry.get("services") or []
    weights = {service["name"]: 1 if service.get("weight") is None else service["weight"] for service in services}
    return Rule(index, "", tuple(hosts), path, weights, tuple(conditions))


def _calls(text: str) -> list[tuple[str, str, list[str]]]:
    """Return the functions of a match: "!" where one is negated, its name, and the texts that it is given."""
    return [
        (negated, name, [first or second for first, second in _QUOTED.findall(arguments)])
        for negated, name, arguments in _CALL.findall(text)
    ]


def _conditions(function: str, texts: Sequence[str]) -> list[Condition]:
    """Return the conditions that a function of a match stands for, none where it is about something else."""
    if function not in ("Header", "HeaderRegexp", "Query", "QueryRegexp") or len(texts) != 2:
        return []
    where = "query" if function.startswith("Query") else "header"
    name, text = texts
    if not function.endswith("Regexp"):
        return [Condition(where, name, text)]
    if where == "header" and name.lower() == "cookie":
        return audiences.from_cookies_regex(text)
    return [audiences.from_regex(where, name, text)]


def known(ref: Ref, documents: Documents, sides: Sides) -> list[Rule]:
    """Return the routes with the weights and mirrors of the TraefikServices that they lead to, and marked what is for an audience."""
    entries = routes_of(ref, documents)
    found: list[Rule] = []
    copies: dict[int, tuple[int, list[str]]] = {}
    for index, entry in enumerate(entries):
        services, mirrors, _passed = behind(ref, documents, entry)
        told = tuple({"to": mirror.get("name") or "", "percent": mirror.get("percent") or 0} for mirror in mirrors)
        found.append(replace(_rule(index, {**entry, "services": services}), mirrors=told))
        if traefik_services.is_mirrored(ref, documents, entry):
            for other, base in enumerate(entries[index + 1 :], index + 1):
                opening = f"({base.get('match') or ''}) && ("
                if (entry.get("match") or "").startswith(opening):
                    copies[index] = (other, _METHOD.findall(entry["match"][len(opening) :]))
    return rewriting.with_audiences(marked(found, copies), entries, sides, _Form(ref, documents))


def needs(ref: Ref, _manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: the TraefikServices, to which it leads or may lead."""
    return (Query(traefik_services.KIND, ref.namespace, optional=True),)


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
    found = split_of(ref, known(ref, documents, sides), sides)
    name = ((unfolded(ref, documents)[int(found.rules[0])].get(STICKY) or {}).get("cookie") or {}).get("name")
    if name is None or not found.weights.get(sides.canary):
        return found
    kept = tuple(match_of([Condition("cookie", name, side)], side) for side in (sides.canary, sides.stable))
    return replace(found, matches=found.matches + kept)


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the objects in which ``weight`` percent go to the canary, where its weights stand; None takes it out."""
    main_of(ref, documents)
    after = {key: copy.deepcopy(manifest) for key, manifest in documents.items()}
    for rule in choose(ref, known(ref, after, sides), sides, two=bool(weight)):
        services, _mirrors, passed = behind(ref, after, main_of(ref, after)["spec"]["routes"][rule.index])
        stable = next(entry for entry in services if entry["name"] == sides.stable)
        canary = next((entry for entry in services if entry["name"] == sides.canary), None)
        if stable.get("kind") == traefik_services.KIND:
            raise InvalidRequest(
                f'{ref} leads to the TraefikService "{sides.stable}", whose own weights decide;'
                " name the Service behind it in an IngressRoute, or one of those between which it splits"
            )
        if passed and passed[-1][1] == MIRRORING:
            raise InvalidRequest(
                f"{ref} leads to {passed[-1][0]}, of somebody else, which mirrors and leads to {sides.stable} alone; let it lead to a"
                " TraefikService of kind weighted"
            )
        if weight is None:
            if canary is not None:
                weigh(services, stable, canary, 0)
                services.remove(canary)
                if len(services) == 1:
                    stable.pop("weight", None)
            continue
        if canary is None:
            if weight == 0:
                continue
            canary = {**copy.deepcopy(stable), "name": sides.canary}
            services.insert(services.index(stable) + 1, canary)
        weigh(services, stable, canary, weight)
    return after


def audience(ref: Ref, documents: Documents, sides: Sides, wanted: Audience | None) -> Documents:
    """Return the objects with a route before the chosen ones that leads an audience to the variant; None takes it out.

    A share of the users is a TraefikService with a cookie, to which the chosen route then leads.
    """
    found, form = known(ref, documents, sides), _Form(ref, documents)
    return folded(ref, documents, rewriting.aimed(ref, found, unfolded(ref, documents), sides, wanted, form))


def unfit(service: Manifest) -> str:
    """Return why a Service cannot be a shadow: Traefik reaches it by its own address, so that it may have no pods."""
    if (service.get("spec") or {}).get("clusterIP") == "None" or (service.get("spec") or {}).get("type") == "ExternalName":
        return "it has no address of its own, without which Traefik would fail the live requests too when its pods are gone"
    return ""


def mirrored(ref: Ref, documents: Documents, sides: Sides, mirror: Mirror | None) -> Documents:
    """Return the objects in which the chosen routes' requests are copied to the canary's side; None ends that."""
    if mirror is not None and not float(mirror.percent).is_integer():
        raise InvalidRequest(f"percent is {mirror.percent:g}, and Traefik mirrors whole percents; round it")
    found, entries, form = known(ref, documents, sides), unfolded(ref, documents), _Form(ref, documents)
    if mirror is not None and mirror.methods:
        _check_priorities(ref, found, entries, sides, form)
    return folded(ref, documents, rewriting.mirrored(ref, found, entries, sides, mirror, form))


def _check_priorities(ref: Ref, found: Sequence[Rule], entries: Sequence[Entry], sides: Sides, form: _Form) -> None:
    """Raise InvalidRequest where another route has a priority that one for some methods alone would need."""
    chosen = choose(ref, found, sides, two=False)
    mine: set[int] = set()
    needed: set[int] = set()
    for rule in chosen:
        family = {rule.index} | {one.index for one in rewriting.followers(ref, found, entries, rule, sides, form)}
        mine |= family
        needed |= {priority(entries[index]) + 1 for index in family if rule.copy_of is None}
    for index, entry in enumerate(entries):
        if index not in mine and priority(entry) in needed:
            raise InvalidRequest(
                f'route {index} of {ref} ("{entry.get("match")}") has priority {priority(entry)}, which a route for some methods alone'
                " would need; give that route another priority, or leave methods out"
            )


class _Form:
    """How an IngressRoute, unfolded, writes an audience and a mirror: the route with the highest priority has the request."""

    ADVICE = "give that rule a higher priority"
    RULES_KEEP = False

    def __init__(self, ref: Ref, documents: Documents) -> None:
        self.ref, self.documents = ref, documents

    def _stable(self, entry: Entry, sides: Sides) -> dict[str, Any]:
        """Return the service of the stable side, which may stand in a TraefikService of somebody else."""
        services = behind(self.ref, self.documents, entry)[0]
        return next(service for service in services if service["name"] == sides.stable)

    def extras(self, entry: Entry, base: Entry) -> list[Condition] | None:
        """Return what a route's match asks for beyond another one's; None where it does not begin with that."""
        start = f"({base.get('match') or ''}) && "
        text = entry.get("match") or ""
        if not text.startswith(start):
            return None
        calls = list(_OURS.finditer(text, len(start)))
        if not calls or " && ".join(call.group() for call in calls) != text[len(start) :]:
            return None
        return [condition for call in calls for condition in _conditions(call.group(1), call.groups()[1:])]

    def conditioned(self, ref: Ref, entry: Entry, conditions: Sequence[Condition], side: str, sides: Sides) -> Entry:
        """Return a copy of the route that also asks for the conditions and leads to ``side`` alone.

        Without a priority the longer match would go first, and so before other routes that are more specific than the base.
        """
        if entry.get("syntax") == "v2":
            raise InvalidRequest(f'the rule of {ref} is written in the syntax "v2"; write it in that of Traefik 3')
        stable = self._stable(entry, sides)
        if stable.get("kind") == traefik_services.KIND:
            raise InvalidRequest(
                f'{ref} leads to the TraefikService "{sides.stable}", which has no port that the variant could have;'
                " name the Service behind it in an IngressRoute"
            )
        found = copy.deepcopy(entry)
        found["match"] = f"({entry['match']}) && {_calls_for(conditions)}"
        found["priority"] = priority(entry) + 1
        found["services"] = [{**plain(stable), "name": side}]
        return found

    def shared(self, ref: Ref, entry: Entry, audience: Audience, sides: Sides) -> Entry:
        """Return the route with a share for the variant, and a cookie by which the router keeps each user on his side."""
        if traefik_services.is_one(entry["services"]):
            raise InvalidRequest(
                f"{ref} leads to TraefikService {entry['services'][0]['name']}, of somebody else, which shares the requests itself; let it"
                f" lead to the Service {sides.stable}, or name the audience by conditions"
            )
        stable, weight = plain(self._stable(entry, sides)), audience.weight or 0
        services = [{**stable, "weight": 100 - weight}, {**stable, "name": sides.canary, "weight": weight}]
        cookie = {"name": audience.cookie, "maxAge": audience.seconds, "path": "/", "sameSite": "lax"}
        return {**entry, "services": services, STICKY: {"cookie": cookie}}

    def unshared(self, entry: Entry, sides: Sides) -> Entry:
        """Return the route without what ``shared`` put there; a share that keeps nobody is a canary's, and stays."""
        if STICKY not in entry:
            return entry
        found = {key: value for key, value in entry.items() if key != STICKY}
        return {**found, "services": [plain(self._stable(entry, sides))]}

    def put(self, entry: Entry, sides: Sides, mirror: Mirror) -> None:
        """Let a route mirror to the canary's side, which is reached as the stable one is, or change how it does."""
        stable = self._stable(entry, sides)
        if stable.get("kind") == traefik_services.KIND or stable.get("port") is None:
            raise InvalidRequest(
                f'{self.ref} leads to "{sides.stable}" without a port, so it is not known at which one "{sides.canary}" is reached;'
                " name as stable a Service that has one there"
            )
        mirroring = entry.setdefault(MIRRORING, {"mirrors": []})
        mine = next((each for each in mirroring["mirrors"] if each["name"] == sides.canary), None)
        if mine is None:
            mine = {**{field: stable[field] for field in REACHED if field in stable}, "name": sides.canary, "nativeLB": True}
            mirroring["mirrors"].append(mine)
        mine["percent"] = int(mirror.percent)
        for field, value in (("mirrorBody", mirror.body), ("maxBodySize", mirror.most_bytes)):
            if value is not None:
                mirroring[field] = value

    def take(self, entry: Entry, sides: Sides) -> None:
        """Take the canary's side out of the mirrors of a route."""
        mirrors = (entry.get(MIRRORING) or {}).get("mirrors") or []
        left = [each for each in mirrors if each["name"] != sides.canary]
        if left:
            entry[MIRRORING]["mirrors"] = left
        else:
            entry.pop(MIRRORING, None)

    def limited(self, _ref: Ref, entry: Entry, mirror: Mirror) -> Entry:
        """Return the route again, for some methods alone; it goes just before the other one."""
        methods = " || ".join(f"Method(`{method}`)" for method in mirror.methods)
        match = f"({entry.get('match') or ''}) && ({methods})"
        return {**copy.deepcopy(entry), "match": match, "priority": priority(entry) + 1}

    def asked(self, entry: Entry) -> list[Asked]:
        """Return what a route's match asks for, as far as it is one of functions that all must hold."""
        text = entry.get("match") or ""
        calls = _calls(text)
        if "||" in _CALL.sub("", text) or any(negated for negated, _name, _texts in calls):
            return [Asked(("unknown", text), other=frozenset([text]), priority=priority(entry))]
        path, method = ("prefix", "/"), ""
        conditions: list[Condition] = []
        other: list[str] = []
        for _negated, name, texts in calls:
            if name in ("Path", "PathPrefix"):
                path = ("exact" if name == "Path" else "prefix", texts[0])
            elif name == "Method":
                method = texts[0]
            elif name == "Host":
                conditions.append(Condition("host", "", texts[0]))
            elif found := _conditions(name, texts):
                conditions += found
            else:
                other.append(f"{name} {' '.join(texts)}")
        return [Asked(path, method, frozenset(conditions), frozenset(other), priority(entry))]

    def goes_first(self, theirs: tuple[int, Asked], mine: tuple[int, Asked]) -> bool | None:
        """Return whether the match of others has the higher priority; of two with the same Traefik does not say which is first."""
        one, other = theirs[1].priority, mine[1].priority
        return None if one == other else one > other


def priority(entry: Entry) -> int:
    """Return the priority of a route: its own, or else the length of its match."""
    return entry.get("priority") or len(entry.get("match") or "")


def _calls_for(conditions: Sequence[Condition]) -> str:
    """Return the conditions as functions of a match; raise InvalidRequest for a text that cannot be quoted."""
    found = []
    cookies = [condition for condition in conditions if condition.where == "cookie"]
    for condition in conditions:
        name = {"header": "Header", "query": "Query"}.get(condition.where)
        if name is not None:
            exact = condition.value is not None and not condition.regex
            text = condition.value if exact else audiences.whole(condition)
            found.append((name if exact else f"{name}Regexp", condition.name, text or ""))
    if cookies:
        found.append(("HeaderRegexp", "Cookie", audiences.cookies_regex(cookies)))
    for _function, name, text in found:
        if "`" in name + text:
            raise InvalidRequest(f'"{name}" with "{text}" has a backtick, in which Traefik quotes its rules; ask for something without one')
    return " && ".join(f"{function}(`{name}`, `{text}`)" for function, name, text in found)
