# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets the requests of a route now: what is read of it for a person, or for the next step, over the Protocol ``Cluster``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from .coloring import Route as Colors
from .errors import DeliveryError, Forbidden, InvalidRequest, NotFound
from .model import ANNOTATION_PREFIX, KINDS, SERVICE_LABEL, Cluster, Manifest, Query, Ref, annotations, labels, metadata, selector_string
from .plan.colors import ready_addresses
from .plan.rollout import replicas_of, template_images
from .reading import ready_pods
from .routes import ingress_nginx
from .routes.colored import targets_of
from .routes.controllers import Served, serves_nginx_annotations
from .routes.registry import COLOR_PROVIDERS, ROUTERS
from .routes.rules import Documents, Rule, Sides, Split, choose, main_of, originals_of, percentages
from .routing import Route, served_by
from .weighing import tidy

NOBODY = " "
"""A side that no route has: it stands for the canary of a route that has none."""


@dataclass(frozen=True)
class Told:
    """A route: the chosen rules, who gets what by them, and who serves it; ``backends`` {side: {service, ready}}."""

    route: Route
    rules: Sequence[Rule]
    chosen: Sequence[Rule]
    split: Split
    served: Served
    backends: Mapping[str, Mapping[str, Any]]
    annotations: Mapping[str, str]

    def as_result(self) -> dict[str, Any]:
        """Return what a step reports of it."""
        numbers = {rule.index for rule in self.chosen}
        return {
            "provider": self.route.provider,
            "route": str(self.route.ref),
            "split": {side: tidy(share) for side, share in self.split.weights.items()},
            "matches": [dict(match) for match in self.split.matches],
            "mirror": dict(self.split.mirror) if self.split.mirror else None,
            "rules": [{**_rule(rule), "chosen": rule.index in numbers} for rule in self.rules],
            "controller": {**asdict(self.served), "notes": list(self.served.notes), "features": _listed(self.served.features)},
            "backends": {side: dict(found) for side, found in self.backends.items()},
            "annotations": dict(self.annotations),
            "summary": self.lines(),
        }

    def lines(self) -> list[str]:
        """Return it as lines for a person."""
        if self.split.weights:
            parts = [f"{side} {tidy(share)} % ({self._ready(side)})" for side, share in self.split.weights.items()]
            places = ", ".join(dict.fromkeys(_places(rule) for rule in self.chosen))
            found = [f"{self.route.ref}, {places}: {', '.join(parts)}"]
        elif self.rules:
            found = [f"{self.route.ref} has several rules; name one with rule, rule_host or rule_path:"]
        else:
            found = [f"{self.route.ref} has no rules"]
        found += [f"  {' and '.join(match['conditions'])} -> {match['to']}" for match in self.split.matches]
        if self.split.mirror:
            methods = f" of {', '.join(self.split.mirror['methods'])} requests" if self.split.mirror.get("methods") else ""
            found.append(f"  copies of {self.split.mirror['percent']:g} %{methods} -> {self.split.mirror['to']}")
        others = [rule for rule in self.rules if rule not in self.chosen]
        found += [f"  rule {rule}" for rule in others]
        who = " ".join(filter(None, [self.served.name, self.served.version])) or "nobody knows whom"
        accepted = {True: ", which accepts it", False: ", which does not accept it"}.get(self.served.accepted, "")  # type: ignore[call-overload]
        return [*found, f"  served by {who}{accepted}", *(f"  note: {note}" for note in self.served.notes)]

    def _ready(self, side: str) -> str:
        """Return how many endpoints of a side are ready, as words."""
        found = self.backends.get(side) or {}
        if not found.get("exists", True):
            return f"there is no Service {found['service']}"
        return f"{found.get('ready', 0)} ready"


def _listed(values: Sequence[str] | None) -> list[str] | None:
    """Return a sequence as a list, None as None."""
    return None if values is None else list(values)


def _rule(rule: Rule) -> dict[str, Any]:
    """Return a rule as a result has it."""
    return {
        "rule": rule.number,
        "name": rule.name,
        "hosts": list(rule.hosts),
        "path": rule.path,
        "conditions": list(rule.conditions),
        "weights": dict(rule.weights),
        "words": str(rule),
    }


def _places(rule: Rule) -> str:
    """Return where a rule is, as words."""
    name = f' "{rule.name}"' if rule.name else ""
    return f"rule {rule.number}{name} ({','.join(rule.hosts) or '*'} {rule.path})"


def route_in_words(options: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Return what ``route_info`` reports of the route that the options name, or of the only one that leads to a Service."""
    if options["provider"] == "auto":
        return _found_out(options, cluster)
    told: dict[str, Any] = {}
    if options["provider"] in ROUTERS:
        told = tell(options, cluster).as_result()
        if not (options.get("color_label") or options.get("services")):
            return told
    colors = _colors(options, cluster)
    if told:
        # The split by backends says more than that by colours, which is all or nothing.
        return {**colors, **told, "summary": [*told["summary"], *(f"  {line}" for line in colors["summary"])]}
    return colors


def _found_out(options: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Return the routes that lead to a Service, and where it is one alone all that is known of it."""
    service = Ref("Service", options["namespace"], options["name"])
    found, unread = routes_to(cluster, service.namespace, service.name)
    if len(found) == 1:
        only = {**options, "provider": found[0]["provider"], "name": found[0]["name"]}
        if all(options.get(key) is None for key in ("rule", "rule_host", "rule_path", "stable")) and len(found[0]["rules"]) == 1:
            only["rule"] = found[0]["rules"][0] if only["provider"] in ROUTERS else None
        return {"routes": found, **route_in_words(only, cluster)}
    if found:
        lines = [f"{len(found)} routes lead to {service}:", *(f"  {entry['words']}" for entry in found)]
        nothing = {"provider": None, "route": None, "split": {}, "matches": [], "mirror": None, "annotations": {}}
        return {"routes": found, **nothing, "summary": [*lines, *(f"  not looked at: {each}" for each in unread)]}
    try:
        return {"routes": [], **_colors({**options, "provider": "service"}, cluster)}
    except InvalidRequest:
        looked = f"; not looked at: {'; '.join(unread)}" if unread else ""
        raise InvalidRequest(
            f"no route in namespace {service.namespace} leads to {service}, and it has no color of its own{looked};"
            " name the route with provider and name"
        ) from None


def _colors(options: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
    """Return the active colour of a route, and what there is of each."""
    route = Colors.of(options, cluster)
    manifest = cluster.get(route.ref)
    colors = route.read(manifest)
    found: dict[str, Any] = {}
    for color, deployments in sorted(route.deployments(colors).items()):
        images: dict[str, str] = {}
        for entry in deployments:
            images.update(template_images(entry["spec"]["template"]))
        found[color] = {
            "deployments": sorted(metadata(entry)["name"] for entry in deployments),
            "replicas": sum(replicas_of(entry) for entry in deployments),
            "ready": len(route.ready(colors, color)),
            "images": images,
        }
    lines = [f"{route.ref}: all traffic goes to {colors.active}"]
    for color, there in found.items():
        images_in_words = ", ".join(sorted(there["images"].values()))
        lines.append(f"  {color}: {there['ready']} of {there['replicas']} ready, {', '.join(there['deployments'])}, {images_in_words}")
    return {
        "provider": options["provider"],
        "route": str(route.ref),
        "color": colors.active,
        "split": {color: 100 if color == colors.active else 0 for color in sorted({colors.active, *found})},
        "matches": [],
        "mirror": None,
        "colors": found,
        "selector": dict(colors.base),
        "services": dict(colors.services),
        "others": {color: list(places) for color, places in colors.others.items() if places},
        "annotations": _kept(manifest),
        "summary": lines,
    }


def _kept(manifest: Manifest) -> dict[str, str]:
    """Return the annotations of this collection on an object, without their prefix."""
    return {key[len(ANNOTATION_PREFIX) :]: value for key, value in annotations(manifest).items() if key.startswith(ANNOTATION_PREFIX)}


def tell(options: Mapping[str, Any], cluster: Cluster) -> Told:
    """Return who gets the requests of the route that the options name; raise InvalidRequest for what is not in it."""
    stable, canary = options.get("stable"), options.get("canary")
    if canary and not stable:
        raise InvalidRequest("canary is set and stable is not; name both, or neither for all that the rule leads to")
    route = Route.listed({**options, "routes": None}, stable or NOBODY, canary or f"{NOBODY}{NOBODY}")[0]
    documents = route.read(cluster)
    rules = route.rules(documents)
    chosen = _chosen(route, rules, options)
    split = _split(route, documents, chosen, stable, canary)
    sides = list(dict.fromkeys([*split.weights, *(str(match["to"]) for match in split.matches), *_mirrored(split)]))
    main = main_of(route.ref, documents)
    served = served_by(cluster, route.provider, route.ref, main)
    return Told(
        route,
        rules,
        chosen,
        split,
        replace(served, notes=(*served.notes, *_shared(cluster, route, rules, chosen))),
        _backends(cluster, route, documents, sides),
        _kept(main),
    )


def _shared(cluster: Cluster, route: Route, rules: Sequence[Rule], chosen: Sequence[Rule]) -> list[str]:
    """Return who else gets a canary's share: its annotations count for a Service, wherever in the namespace that is named."""
    if route.provider != "ingress_nginx" or not chosen:
        return []
    services = set(chosen[0].weights)
    places = [f"rule {rule.index}" for rule in rules if rule.index not in {one.index for one in chosen} and services & set(rule.weights)]
    for entry in cluster.list(Query("Ingress", route.ref.namespace)).items:
        name = metadata(entry)["name"]
        if name not in (route.ref.name, ingress_nginx.twin(route.ref).name) and annotations(entry).get(ingress_nginx.CANARY) != "true":
            if any(services & set(rule.weights) for rule in ingress_nginx.rules(entry)):
                places.append(f"Ingress {name}")
    if not places:
        return []
    return [f"{', '.join(places)} leads to {', '.join(sorted(services))} too, and the share of a canary counts there as well"]


def _mirrored(split: Split) -> list[str]:
    """Return who gets copies."""
    return [split.mirror["to"]] if split.mirror else []


def _chosen(route: Route, rules: Sequence[Rule], options: Mapping[str, Any]) -> Sequence[Rule]:
    """Return the rules that are meant, none where several could be; raise InvalidRequest where what is named is not there."""
    stable = options.get("stable")
    if stable and options.get("canary"):
        return choose(route.ref, rules, route.sides)
    named = any(options.get(key) is not None for key in ("rule", "rule_host", "rule_path"))
    originals = originals_of(rules)
    found = [rule for rule in originals if route.sides.names(rule)]
    if named and not found:
        there = "; ".join(map(str, rules)) or "none"
        asked = ", ".join(f"{key} {options[key]}" for key in ("rule", "rule_host", "rule_path") if options.get(key) is not None)
        raise InvalidRequest(f"{route.ref} has no rule for {asked}; its rules are: {there}")
    leading = [rule for rule in found if not stable or stable in rule.weights]
    if stable and not leading:
        raise InvalidRequest(
            f'{route.ref} does not lead to "{stable}"; correct stable; its rules are: {"; ".join(map(str, rules)) or "none"}'
        )
    plain = [rule for rule in leading if not rule.conditions] or leading
    return plain if len(plain) == 1 else []


def _split(route: Route, documents: Documents, chosen: Sequence[Rule], stable: str | None, canary: str | None) -> Split:
    """Return who gets what: between the sides that are named, or between all that the only chosen rule leads to."""
    if not chosen:
        return Split({})
    rule = chosen[0]
    backends = list(rule.weights)
    first = stable or next(iter(backends), "")
    other = canary or _other(route, documents, rule, first)
    found = Split(percentages(rule.weights), rules=(str(rule.number),))
    if canary:
        found = route.router.split(route.ref, documents, route.sides)
    elif len(backends) <= 2 and other:
        with suppress(InvalidRequest):
            found = route.router.split(route.ref, documents, Sides(first, other, place=rule.index))
    rules = route.rules(documents)
    copies = [entry.mirror for entry in rules if entry.copy_of == rule.index and entry.mirror]
    mirror = found.mirror or rule.mirror or next(iter(copies), None)
    return replace(found, matches=found.matches or _matches(rules, rule), mirror=mirror)


def _other(route: Route, documents: Documents, rule: Rule, first: str) -> str:
    """Return the other side of a rule: its second backend, else that of the canary's Ingress or of a rule that picks an audience."""
    backends = list(rule.weights)
    if len(backends) != 1:
        return next((name for name in backends if name != first), "")
    if route.provider == "ingress_nginx":
        twin = documents.get(ingress_nginx.twin(route.ref))
        return next((name for entry in ingress_nginx.rules(twin or {}) if _same_place(entry, rule) for name in entry.weights), "")
    audiences = [entry for entry in route.rules(documents) if entry.conditions and entry.hosts == rule.hosts]
    return next((name for entry in audiences for name in entry.weights if name not in backends), "")


def _same_place(one: Rule, other: Rule) -> bool:
    """Return whether two rules are for the same host and path."""
    return one.hosts == other.hosts and one.path == other.path


def _matches(rules: Sequence[Rule], chosen: Rule) -> tuple[dict[str, Any], ...]:
    """Return the rules beside the chosen one that take its requests by what they carry."""
    return tuple(
        {"conditions": list(rule.conditions), "to": ", ".join(rule.weights)}
        for rule in rules
        if rule.conditions and rule.hosts == chosen.hosts and rule.index != chosen.index and rule.copy_of is None
    )


def _backends(cluster: Cluster, route: Route, documents: Documents, sides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {side: {service, exists, ready}}: the ready endpoints of its Service, for a subset the ready pods behind it."""
    if not sides:
        return {}
    namespace = route.ref.namespace
    services = cluster.list(Query("Service", namespace)).items
    targets = targets_of([*services, *(entry for ref, entry in documents.items() if ref.kind == "DestinationRule" and entry)])
    slices = cluster.list(Query("EndpointSlice", namespace)).items
    found: dict[str, dict[str, Any]] = {}
    for side in sides:
        service = route.router.service_of(route.ref, documents, side)
        subset = targets.get(f"{service}/{side}")
        mine = [entry for entry in slices if labels(entry).get(SERVICE_LABEL) == service]
        ready = len(ready_addresses(mine))
        if subset and subset.selector:
            ready = len(ready_pods(cluster, namespace, selector_string(subset.selector)))
        found[side] = {"service": service, "exists": service in targets, "ready": ready}
    return found


# -- which route is it? ----------------------------------------------------------------------------------------------


def routes_to(cluster: Cluster, namespace: str, service: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the routes in a namespace that lead to a Service - provider, name, rules - and what could not be looked at."""
    found: list[dict[str, Any]] = []
    unread: list[str] = []
    for provider in sorted(COLOR_PROVIDERS.keys() & {*ROUTERS, "ingress"}):
        kind = COLOR_PROVIDERS[provider].KIND
        try:
            entries = cluster.list(Query(kind, namespace)).items
        except NotFound:
            continue
        except Forbidden as error:
            unread.append(f"{KINDS[kind].plural} ({error.message})")
            continue
        for entry in entries:
            places = [place for place in COLOR_PROVIDERS[provider].backends(entry) if place.service == service]  # type: ignore[union-attr]
            if not places or provider == "ingress" and annotations(entry).get(ingress_nginx.CANARY) == "true":
                continue
            name = _ingress_provider(cluster, entry) if provider == "ingress" else provider
            rules = list(dict.fromkeys(str(place.rule) for place in places))
            ref = Ref(kind, namespace, metadata(entry)["name"])
            words = ", ".join(dict.fromkeys(f"rule {place.rule} ({place})" for place in places))
            found.append({"provider": name, "name": ref.name, "rules": rules, "words": f"{ref}, provider {name}, {words}"})
    return found, unread


def _ingress_provider(cluster: Cluster, manifest: Manifest) -> str:
    """Return ``ingress_nginx`` for an Ingress whose controller honours its annotations, as far as that can be read, else ``ingress``."""
    ref = Ref("Ingress", metadata(manifest).get("namespace") or "", metadata(manifest)["name"])
    try:
        return "ingress_nginx" if serves_nginx_annotations(served_by(cluster, "ingress_nginx", ref, manifest)) else "ingress"
    except DeliveryError:
        return "ingress"
