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
from . import audiences
from .audiences import Asked, Entry
from .colored import Backend
from .rules import Audience, Condition, Documents, Mirror, Rule, Sides, Split, check_shadow, choose, main_of, marked, mirror_to

KIND = "IngressRoute"
BESIDE = "TraefikService"
MADE_FOR = ANNOTATION_PREFIX + "mirror-of"
AUDIENCE_OF = ANNOTATION_PREFIX + "audience-of"
MOST_LEVELS = 10
# What a shadow's entry has of the stable side's: how it is reached.
REACHED = ("namespace", "passHostHeader", "port", "scheme", "serversTransport")
_CALL = re.compile(r"(!?)\s*(\w+)\(((?:`[^`]*`|\"(?:\\.|[^\"\\])*\"|[^)`\"])*)\)")
_METHOD = re.compile(r"Method\(`([A-Z]+)`\)")
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
    found = audiences.split_with(ref, known(ref, documents), _entries(main_of(ref, documents)), sides, _Form(ref, documents))
    cookies = [_cookie_of(ref, documents, _entries(main_of(ref, documents))[int(rule)]) for rule in found.rules]
    if not cookies or cookies[0] is None or not found.weights.get(sides.canary):
        return found
    kept = tuple(audiences.match_of([Condition("cookie", cookies[0], side)], side) for side in (sides.canary, sides.stable))
    return replace(found, matches=found.matches + kept)


def _entries(manifest: Manifest) -> list[Entry]:
    """Return the routes as the IngressRoute has them."""
    return list((manifest.get("spec") or {}).get("routes") or [])


def _cookie_of(ref: Ref, documents: Documents, entry: Entry) -> str | None:
    """Return the name of the cookie by which a TraefikService keeps users on the side that they have, None where none does."""
    for key, kind in _behind(ref, documents, entry)[2]:
        weighted = ((documents.get(key) or {}).get("spec") or {}).get(kind) or {}
        name: str | None = ((weighted.get("sticky") or {}).get("cookie") or {}).get("name")
        if name:
            return name
    return None


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


def shares_of(ref: Ref) -> Ref:
    """Return what the TraefikService is called that keeps the users of an audience on their side."""
    return Ref(BESIDE, ref.namespace, f"{ref.name}-audience")


def audience(ref: Ref, documents: Documents, sides: Sides, wanted: Audience | None) -> Documents:
    """Return the IngressRoute with a route before the chosen ones that leads an audience to the variant; None takes it out.

    A share of the users is a TraefikService with a cookie, to which the chosen route then leads.
    """
    key, after = shares_of(ref), copy.deepcopy(main_of(ref, documents))
    shares = documents.get(key)
    if shares is not None and annotations(shares).get(AUDIENCE_OF) != ref.name:
        raise InvalidRequest(f"{key} exists and is of no audience of {ref}; rename it: that is what the audience's own is called")
    entries, parsed, form = _entries(after), known(ref, documents), _Form(ref, documents)
    chosen = audiences.chosen_of(ref, parsed, audiences.owners(parsed, entries, sides, form), sides)
    shared = [place for place, entry in enumerate(entries) if entry.get("services") == [_to(key)]]
    if any(place not in chosen for place in shared):
        raise InvalidRequest(f"the share of the users in {key} is of other rules of {ref}; name all of them, or take it out first")
    if shares is not None and not shared and key in _used(ref, documents):
        raise InvalidRequest(f"{ref} leads to {key} by another TraefikService; take that out first")
    # What is shared has its Services again before anything is decided.
    for place in shared:
        held = (shares or {})["spec"]["weighted"]["services"]
        entries[place]["services"] = [_plain(service) for service in held if service["name"] == sides.stable]
    after["spec"]["routes"] = entries
    without: Documents = {**documents, ref: after, **({key: None} if shares is not None else {})}
    found = audiences.rewritten(ref, known(ref, without), entries, sides, wanted, _Form(ref, without))
    made: Documents = {}
    if wanted is not None and wanted.weight is not None:
        stable = form.stable(entries[chosen[0]], sides)
        if any(entries[place]["services"] != [stable] for place in chosen):
            raise InvalidRequest(
                f"the rules of {ref} do not lead to {sides.stable} in one way and directly, which a share of the users needs; end what is"
                " between them, or name one by rule"
            )
        made = {key: _shares(ref, shares, stable, wanted, sides)}
    return {**without, ref: {**after, "spec": {**after["spec"], "routes": found}}, **made}


def _to(key: Ref) -> dict[str, Any]:
    """Return how a route leads to a TraefikService."""
    return {"name": key.name, "kind": BESIDE}


def _plain(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Service of a route without a weight."""
    return {key: value for key, value in service.items() if key != "weight"}


def _shares(ref: Ref, there: Manifest | None, stable: Mapping[str, Any], wanted: Audience, sides: Sides) -> Manifest:
    """Return the TraefikService that gives the variant its share of the users, and each user a cookie."""
    key, weight = shares_of(ref), wanted.weight or 0
    meta = {"name": key.name, "namespace": key.namespace, "annotations": {AUDIENCE_OF: ref.name}}
    found: Manifest = copy.deepcopy(there) if there else {"apiVersion": "traefik.io/v1alpha1", "kind": BESIDE, "metadata": meta}
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

    def __init__(self, ref: Ref, documents: Documents) -> None:
        self._ref, self._documents = ref, documents

    def stable(self, entry: Entry, sides: Sides) -> dict[str, Any]:
        """Return the Service of the stable side, which may be behind TraefikServices; raise InvalidRequest where it is one itself."""
        services = _behind(self._ref, self._documents, entry)[0]
        found = next(service for service in services if service["name"] == sides.stable)
        if found.get("kind") == BESIDE or found.get("port") is None:
            raise InvalidRequest(
                f'{self._ref} leads to "{sides.stable}" without a port, so it is not known at which one "{sides.canary}" is reached;'
                " name as stable a Service that has one there"
            )
        return {field: value for field, value in found.items() if field not in ("weight", "mirrors", "mirrorBody", "maxBodySize")}

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
        found = copy.deepcopy(entry)
        found["match"] = f"({entry['match']}) && {_calls_for(conditions)}"
        found["priority"] = _priority(entry) + 1
        found["services"] = [{**self.stable(entry, sides), "name": side}]
        return found

    def shared(self, ref: Ref, entry: Entry, _audience: Audience, _sides: Sides) -> Entry:
        """Return the route to the TraefikService of the share."""
        return {**entry, "services": [_to(shares_of(ref))]}

    def unshared(self, entry: Entry, _sides: Sides) -> Entry:
        """Return the route as it is: ``audience`` has put its Services back."""
        return entry

    def asked(self, entry: Entry) -> list[Asked]:
        """Return what a route's match asks for, as far as it is one of functions that all must hold."""
        text = entry.get("match") or ""
        calls = [(negated, name, tuple(_values(arguments))) for negated, name, arguments in _CALL.findall(text)]
        if "||" in _CALL.sub("", text) or any(negated for negated, _name, _texts in calls):
            return [Asked(("unknown", text), other=frozenset([text]), priority=_priority(entry))]
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
        return [Asked(path, method, frozenset(conditions), frozenset(other), _priority(entry))]

    def goes_first(self, theirs: tuple[int, Asked], mine: tuple[int, Asked]) -> bool | None:
        """Return whether the match of others has the higher priority; of two with the same Traefik does not say which is first."""
        one, other = theirs[1].priority, mine[1].priority
        return None if one == other else one > other


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
