# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``traefik``: an IngressRoute whose routes have weighted Services (Traefik 3, traefik.io/v1alpha1)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, Manifest, Query, Ref, annotations, metadata
from . import audiences
from .audiences import Asked, Entry
from .colored import Backend
from .rules import Audience, Condition, Documents, Rule, Sides, Split, choose, main_of

KIND = "IngressRoute"
SERVICES = "TraefikService"
MADE_FOR = ANNOTATION_PREFIX + "audience-of"
_CALL = re.compile(r"(!?)\s*(\w+)\(((?:`[^`]*`|\"(?:\\.|[^\"\\])*\"|[^)`\"])*)\)")
_QUOTED = re.compile(r"`([^`]*)`|\"((?:\\.|[^\"\\])*)\"")
_OURS = re.compile(r"(Header|HeaderRegexp|Query|QueryRegexp)\(`([^`]*)`, `([^`]*)`\)")


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


def beside(ref: Ref) -> Ref:
    """Return what the TraefikService is called that keeps users on their side."""
    return Ref(SERVICES, ref.namespace, f"{ref.name}-audience")


def needs(ref: Ref, _manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: the TraefikService of an audience that is a share of the users."""
    return (Query(SERVICES, ref.namespace, fields=f"metadata.name={beside(ref).name}", optional=True),)


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
    manifest = _expanded(ref, documents)
    found = audiences.split_with(ref, rules(manifest), _entries(manifest), sides, FORM)
    name = _cookie_of(ref, documents)
    if name is None or not found.weights.get(sides.canary):
        return found
    kept = tuple(audiences.match_of([Condition("cookie", name, side)], side) for side in (sides.canary, sides.stable))
    return replace(found, matches=found.matches + kept)


def _entries(manifest: Manifest) -> list[Entry]:
    """Return the routes as the IngressRoute has them."""
    return list((manifest.get("spec") or {}).get("routes") or [])


def _leads_beside(ref: Ref, entry: Entry) -> bool:
    """Return whether a route leads to the TraefikService that keeps users on their side."""
    services = entry.get("services") or []
    return len(services) == 1 and services[0].get("kind") == SERVICES and services[0]["name"] == beside(ref).name


def _expanded(ref: Ref, documents: Documents) -> Manifest:
    """Return the IngressRoute with the Services in it that are in the TraefikService of a share."""
    found = copy.deepcopy(main_of(ref, documents))
    shares = documents.get(beside(ref))
    for entry in _entries(found):
        if shares is not None and _leads_beside(ref, entry):
            entry["services"] = copy.deepcopy(shares["spec"]["weighted"]["services"])
    return found


def _cookie_of(ref: Ref, documents: Documents) -> str | None:
    """Return the name of the cookie that keeps users on their side, None where none does."""
    shares = documents.get(beside(ref)) or {}
    if not any(_leads_beside(ref, entry) for entry in _entries(main_of(ref, documents))):
        return None
    name: str | None = ((((shares.get("spec") or {}).get("weighted") or {}).get("sticky") or {}).get("cookie") or {}).get("name")
    return name


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


def audience(ref: Ref, documents: Documents, sides: Sides, wanted: Audience | None) -> Documents:
    """Return the IngressRoute with a route before the chosen ones that leads an audience to the variant; None takes it out.

    A share of the users is a TraefikService with a cookie, to which the chosen route then leads.
    """
    shares = documents.get(beside(ref))
    if shares is not None and annotations(shares).get(MADE_FOR) != ref.name:
        raise InvalidRequest(f"{beside(ref)} exists and is of no audience of {ref}; rename it: that is what the audience's own is called")
    after = _expanded(ref, documents)
    # What is shared has its Services again before anything is decided; the others stay as they are.
    shared = [place for place, entry in enumerate(_entries(main_of(ref, documents))) if _leads_beside(ref, entry)]
    entries, parsed = _entries(after), rules(after)
    chosen = audiences.chosen_of(ref, parsed, audiences.owners(parsed, entries, sides, FORM), sides)
    if any(place not in chosen for place in shared):
        raise InvalidRequest(f"the share of the users in {beside(ref)} is of other rules of {ref}; name all of them, or take it out first")
    for place in shared:
        entries[place]["services"] = [_plain(service) for service in entries[place]["services"] if service["name"] == sides.stable]
    after["spec"]["routes"] = entries
    after["spec"]["routes"] = audiences.rewritten(ref, rules(after), entries, sides, wanted, FORM)
    made = None
    if wanted is not None and wanted.weight is not None:
        stable = next(service for service in entries[chosen[0]]["services"] if service["name"] == sides.stable)
        if any(service != stable for place in chosen for service in entries[place]["services"]):
            raise InvalidRequest(f"the rules of {ref} lead to {sides.stable} in different ways; give each a share of its own by rule")
        made = _shares(ref, shares, stable, wanted, sides)
        for entry in after["spec"]["routes"]:
            if entry.get("services") == [SHARED]:
                entry["services"] = [{"name": beside(ref).name, "kind": SERVICES}]
    return {**documents, ref: after, **({beside(ref): made} if made or shares else {})}


SHARED = {"name": "", "kind": SERVICES}


def _plain(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Service of a route without a weight."""
    return {key: value for key, value in service.items() if key != "weight"}


def _shares(ref: Ref, there: Manifest | None, stable: Mapping[str, Any], wanted: Audience, sides: Sides) -> Manifest:
    """Return the TraefikService that gives the variant its share of the users, and each user a cookie."""
    weight = wanted.weight or 0
    found: Manifest = (
        copy.deepcopy(there)
        if there is not None
        else {
            "apiVersion": "traefik.io/v1alpha1",
            "kind": SERVICES,
            "metadata": {"name": beside(ref).name, "namespace": ref.namespace, "annotations": {MADE_FOR: ref.name}},
        }
    )
    found["spec"] = {
        "weighted": {
            "services": [{**_plain(stable), "weight": 100 - weight}, {**_plain(stable), "name": sides.canary, "weight": weight}],
            "sticky": {"cookie": {"name": wanted.cookie, "maxAge": wanted.seconds, "path": "/", "sameSite": "lax"}},
        }
    }
    return found


class _Form:
    """How an IngressRoute writes an audience: the route with the highest priority has the request."""

    ADVICE = "give that rule a higher priority"
    RULES_KEEP = False

    def extras(self, entry: Entry, base: Entry) -> list[Condition] | None:
        """Return what a route's match asks for beyond another one's; None where it does not begin with that."""
        start = f"({base.get('match') or ''}) && "
        text = entry.get("match") or ""
        if not text.startswith(start):
            return None
        calls = list(_OURS.finditer(text, len(start)))
        if not calls or " && ".join(call.group() for call in calls) != text[len(start) :]:
            return None
        return [condition for call in calls for condition in _condition(*call.groups())]

    def conditioned(self, ref: Ref, entry: Entry, conditions: Sequence[Condition], side: str, sides: Sides) -> Entry:
        """Return a copy of the route that also asks for the conditions and leads to ``side`` alone.

        Without a priority the longer match would go first, and so before other routes that are more specific than the base.
        """
        if entry.get("syntax") == "v2":
            raise InvalidRequest(f'the rule of {ref} is written in the syntax "v2"; write it in that of Traefik 3')
        stable = next(service for service in entry["services"] if service["name"] == sides.stable)
        if stable.get("kind") == SERVICES:
            raise InvalidRequest(
                f'{ref} leads to the TraefikService "{sides.stable}", which has no port that the variant could have;'
                " name the Service behind it in an IngressRoute"
            )
        found = copy.deepcopy(entry)
        found["match"] = f"({entry['match']}) && {_calls_for(conditions)}"
        found["priority"] = priority(entry) + 1
        found["services"] = [{**_plain(stable), "name": side}]
        return found

    def shared(self, _ref: Ref, entry: Entry, _audience: Audience, _sides: Sides) -> Entry:
        """Return the route to the TraefikService of the share, which gets its name later."""
        return {**entry, "services": [SHARED]}

    def unshared(self, entry: Entry, _sides: Sides) -> Entry:
        """Return the route as it is: ``audience`` has put its Services back."""
        return entry

    def asked(self, entry: Entry) -> list[Asked]:
        """Return what a route's match asks for, as far as it is one of functions that all must hold."""
        text = entry.get("match") or ""
        calls = [(negated, name, tuple(_values(arguments))) for negated, name, arguments in _CALL.findall(text)]
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
            elif name in ("Header", "HeaderRegexp", "Query", "QueryRegexp") and len(texts) == 2:
                conditions += _condition(name, *texts)
            else:
                other.append(f"{name} {' '.join(texts)}")
        return [Asked(path, method, frozenset(conditions), frozenset(other), priority(entry))]

    def goes_first(self, theirs: tuple[int, Asked], mine: tuple[int, Asked]) -> bool | None:
        """Return whether the match of others has the higher priority; of two with the same Traefik does not say which is first."""
        one, other = theirs[1].priority, mine[1].priority
        return None if one == other else one > other


FORM = _Form()


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


def _condition(function: str, name: str, text: str) -> list[Condition]:
    """Return the conditions that a function of a match stands for."""
    where = "query" if function.startswith("Query") else "header"
    if not function.endswith("Regexp"):
        return [Condition(where, name, text)]
    if where == "header" and name.lower() == "cookie":
        return audiences.from_cookies_regex(text)
    return [audiences.from_regex(where, name, text)]


def _values(arguments: str) -> list[str]:
    """Return the texts that a function is given."""
    return [first or second for first, second in _QUOTED.findall(arguments)]
