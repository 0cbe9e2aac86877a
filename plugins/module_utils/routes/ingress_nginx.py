# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``ingress_nginx``: a second Ingress beside the main one, whose annotations give the canary its share.

The main Ingress carries no canary annotation: with one it would itself be a canary, and of nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, Manifest, Query, Ref, annotations, metadata
from . import audiences
from .rules import Audience, Condition, Documents, Mirror, Rule, Sides, Split, choose, main_of, match_of

KIND = "Ingress"
PREFIX = "nginx.ingress.kubernetes.io/"
CANARY = PREFIX + "canary"
WEIGHT = PREFIX + "canary-weight"
TOTAL = PREFIX + "canary-weight-total"
BY_HEADER = PREFIX + "canary-by-header"
BY_VALUE = PREFIX + "canary-by-header-value"
BY_PATTERN = PREFIX + "canary-by-header-pattern"
BY_COOKIE = PREFIX + "canary-by-cookie"
MATCHES = (BY_HEADER, BY_VALUE, BY_PATTERN, BY_COOKIE)
AFFINITY = PREFIX + "affinity"
COOKIE_NAME = PREFIX + "session-cookie-name"
COOKIE_SECONDS = PREFIX + "session-cookie-max-age"
MADE_FOR = ANNOTATION_PREFIX + "canary-of"
KEEPS = ANNOTATION_PREFIX + "keeps-users"


def twin(ref: Ref) -> Ref:
    """Return what the canary's Ingress is called."""
    return Ref(KIND, ref.namespace, f"{ref.name}-canary")


def rules(manifest: Manifest) -> list[Rule]:
    """Return the paths of the Ingress, in their order; a rule's name is its host."""
    found: list[Rule] = []
    for rule in (manifest.get("spec") or {}).get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            service = (path.get("backend") or {}).get("service") or {}
            hosts = (rule["host"],) if rule.get("host") else ()
            weights = {service["name"]: 1} if service.get("name") else {}
            found.append(Rule(len(found), "", hosts, path.get("path") or "/", weights))
    return found


def check_main(ref: Ref, manifest: Manifest) -> None:
    """Raise InvalidRequest where the main Ingress is a canary itself."""
    if annotations(manifest).get(CANARY) == "true":
        raise InvalidRequest(
            f"{ref} carries the annotation {CANARY} itself, so it is no main Ingress and a canary of nothing;"
            " take its canary annotations off, or name the main Ingress"
        )


def known(ref: Ref, documents: Documents, _sides: Sides) -> list[Rule]:
    """Return the rules of the route; an audience is in the canary's Ingress."""
    return rules(main_of(ref, documents))


def needs(ref: Ref, _manifest: Manifest, _sides: Sides) -> Sequence[Ref | Query]:
    """Return what else belongs to the route: the canary's Ingress."""
    return (twin(ref),)


def service_of(_ref: Ref, _documents: Documents, name: str) -> str:
    """Return the Service of a side: its name is the side's own."""
    return name


def split(ref: Ref, documents: Documents, sides: Sides) -> Split:
    """Return who gets what; without the canary's Ingress all is stable's."""
    manifest, canary = main_of(ref, documents), documents.get(twin(ref))
    check_main(ref, manifest)
    chosen = choose(ref, rules(manifest), sides)
    share = 0.0
    if canary is not None and annotations(canary).get(CANARY) == "true" and _backend_of(canary) == sides.canary:
        share = 100.0 * _number(canary, WEIGHT, 0) / (_number(canary, TOTAL, 100) or 100)
    matches = _matches(manifest, canary, sides) if canary is not None and annotations(canary).get(CANARY) == "true" else ()
    return Split({sides.stable: 100.0 - share, sides.canary: share}, matches, rules=tuple(str(rule.index) for rule in chosen))


def _matches(manifest: Manifest, canary: Manifest, sides: Sides) -> tuple[Mapping[str, Any], ...]:
    """Return who gets the canary in any case: a header's, a cookie's, and those whom a cookie keeps there."""
    notes, to = annotations(canary), _backend_of(canary) or sides.canary
    conditions: list[Condition] = []
    if notes.get(BY_HEADER):
        pattern = notes.get(BY_PATTERN)
        value = Condition("header", notes[BY_HEADER], notes.get(BY_VALUE) or "always")
        conditions.append(audiences.from_regex("header", notes[BY_HEADER], pattern) if pattern and not notes.get(BY_VALUE) else value)
    if notes.get(BY_COOKIE):
        conditions.append(Condition("cookie", notes[BY_COOKIE], "always"))
    if notes.get(KEEPS):
        conditions.append(Condition("cookie", annotations(manifest).get(COOKIE_NAME) or "INGRESSCOOKIE", to))
    return tuple(match_of([condition], to) for condition in conditions)


def _backend_of(manifest: Manifest) -> str | None:
    """Return the Service that the first path of an Ingress leads to."""
    return next((name for rule in rules(manifest) for name in rule.weights), None)


def _number(manifest: Manifest, key: str, default: int) -> int:
    """Return the number in an annotation; one that is none counts as not there, as the controller has it."""
    text = annotations(manifest).get(key, "")
    return int(text) if text.isdigit() else default


def weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the documents in which the canary's Ingress has a weight; None takes it away.

    One that leads to others, or picks an audience, stays as it is; a weight beside it is refused.
    """
    canary = documents.get(twin(ref))
    if canary is not None and annotations(canary).get(CANARY) == "true":
        to = _backend_of(canary)
        picks = any(key in annotations(canary) for key in (*MATCHES, KEEPS))
        if to != sides.canary or picks:
            if not weight:
                check_main(ref, main_of(ref, documents))
                choose(ref, rules(main_of(ref, documents)), sides)
                return documents
            what = f"leads to {to}" if to != sides.canary else "picks an audience"
            raise InvalidRequest(f"{twin(ref)} already {what}, and an Ingress has one canary; end that first, or name the right sides")
    return _weighted(ref, documents, sides, weight)


def _weighted(ref: Ref, documents: Documents, sides: Sides, weight: int | None) -> Documents:
    """Return the documents in which the canary's Ingress has a weight, whoever else it is for; None takes it away.

    It is made from the main one, of the chosen paths alone.
    """
    manifest, canary = main_of(ref, documents), documents.get(twin(ref))
    check_main(ref, manifest)
    chosen = {rule.index for rule in choose(ref, rules(manifest), sides)}
    if canary is not None and annotations(canary).get(CANARY) != "true":
        raise InvalidRequest(f"{twin(ref)} exists and is no canary of {ref}; rename it, since that is what the canary's Ingress is called")
    if weight is None:
        return {**documents, twin(ref): None}
    if canary is None and weight == 0:
        return documents
    made: dict[str, Any] = copy.deepcopy(canary) if canary is not None else _made(ref, manifest)
    made["spec"] = {**(made.get("spec") or {}), "rules": _rules(manifest, chosen, sides)}
    made["metadata"]["annotations"] = {
        **annotations(made),
        CANARY: "true",
        WEIGHT: str(weight if TOTAL not in annotations(made) else weight * _number(made, TOTAL, 100) // 100),
        MADE_FOR: ref.name,
    }
    return {**documents, twin(ref): made}


def _made(ref: Ref, manifest: Manifest) -> dict[str, Any]:
    """Return the beginning of the canary's Ingress: the class of the main one, and whose it is."""
    spec = manifest.get("spec") or {}
    classes = {"kubernetes.io/ingress.class": annotations(manifest).get("kubernetes.io/ingress.class")}
    meta = metadata(manifest)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": KIND,
        "metadata": {
            "name": twin(ref).name,
            "namespace": ref.namespace,
            "labels": dict(meta.get("labels") or {}),
            "annotations": {key: value for key, value in classes.items() if value},
        },
        "spec": {"ingressClassName": spec["ingressClassName"]} if spec.get("ingressClassName") else {},
    }


def _rules(manifest: Manifest, chosen: set[int], sides: Sides) -> list[dict[str, Any]]:
    """Return the main Ingress' chosen paths with the canary as their backend, in their order."""
    found: list[dict[str, Any]] = []
    index = 0
    for rule in manifest["spec"].get("rules") or []:
        paths = []
        for path in (rule.get("http") or {}).get("paths") or []:
            if index in chosen:
                paths.append(_with_backend(path, sides.canary))
            index += 1
        if paths:
            found.append({**({"host": rule["host"]} if rule.get("host") else {}), "http": {"paths": paths}})
    return found


def _with_backend(path: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a path that leads to another Service, by the same port."""
    copied = copy.deepcopy(dict(path))
    copied["backend"]["service"]["name"] = name
    return copied


def audience(ref: Ref, documents: Documents, sides: Sides, wanted: Audience | None) -> Documents:
    """Return the documents in which the canary's Ingress leads an audience to the variant; None takes it away.

    For a share of the users the main Ingress gets a cookie, unless it has one already.
    """
    manifest, canary = main_of(ref, documents), documents.get(twin(ref))
    check_main(ref, manifest)
    if canary is not None and annotations(canary).get(CANARY) == "true" and _backend_of(canary) != sides.canary:
        raise InvalidRequest(
            f"{twin(ref)} already leads to {_backend_of(canary)}, and an Ingress has one canary; take that out first, or name it as variant"
        )
    if canary is not None and _number(canary, WEIGHT, 0) and KEEPS not in annotations(canary):
        raise InvalidRequest(
            f"{twin(ref)} already gives {sides.canary} a weight that keeps nobody; take it out by set_canary_weight with state absent first"
        )
    without: Documents = {**documents, ref: _kept(manifest, None, canary)}
    if wanted is None:
        return _weighted(ref, without, sides, None)
    notes = {BY_HEADER: "", BY_VALUE: "", BY_PATTERN: "", BY_COOKIE: "", KEEPS: ""}
    notes.update(_notes(ref, wanted))
    if wanted.conditions:
        _check_below(ref, manifest, sides)
    after = dict(_weighted(ref, without, sides, wanted.weight or 1))
    made = copy.deepcopy(after[twin(ref)] or {})
    there = {**annotations(made), **notes}
    there[WEIGHT] = there[WEIGHT] if wanted.weight is not None else "0"
    if wanted.weight is not None and AFFINITY not in annotations(main_of(ref, without)):
        after[ref] = _kept(main_of(ref, without), wanted, None)
        there[KEEPS] = "made"
    made["metadata"]["annotations"] = {key: value for key, value in there.items() if value}
    after[twin(ref)] = made
    return after


def _check_below(ref: Ref, manifest: Manifest, sides: Sides) -> None:
    """Raise InvalidRequest where a chosen path has others below it: Traefik, which serves these annotations, leads them along.

    It orders its rules by their length, and that of an audience is longer (traefik/traefik issue 13785).
    """
    found = rules(manifest)
    chosen = choose(ref, found, sides)
    indices = {rule.index for rule in chosen}
    for rule in chosen:
        start = rule.path.rstrip("/") + "/"
        below = [other for other in found if other.index not in indices and other.hosts == rule.hosts and other.path.startswith(start)]
        if below:
            raise InvalidRequest(
                f"{ref} has the path {below[0].path} below {rule.path}, and Traefik would lead its requests to {sides.canary} too;"
                " use provider gateway_api or traefik, or give that path a host of its own"
            )


def _notes(ref: Ref, wanted: Audience) -> dict[str, str]:
    """Return the annotations for an audience; raise InvalidRequest for one that there are none for."""
    if wanted.weight is not None:
        return {KEEPS: "there"}
    out = "name one header, or use provider gateway_api, istio or traefik"
    if len(wanted.conditions) > 1:
        raise InvalidRequest(f"{ref}: the annotations of ingress-nginx take one condition, and there are {len(wanted.conditions)}; {out}")
    condition = wanted.conditions[0]
    if condition.where == "query":
        raise InvalidRequest(f"{ref}: the annotations of ingress-nginx know no query parameters; {out}")
    if condition.where == "cookie":
        if condition.value != "always" or condition.regex:
            raise InvalidRequest(f'{ref}: the annotations of ingress-nginx take a cookie of the value "always"; give it that value, {out}')
        return {BY_COOKIE: condition.name}
    if condition.value is not None and not condition.regex:
        return {BY_HEADER: condition.name, BY_VALUE: condition.value}
    return {BY_HEADER: condition.name, BY_PATTERN: audiences.whole(condition)}


def _kept(manifest: Manifest, wanted: Audience | None, canary: Manifest | None) -> Manifest:
    """Return the main Ingress with the cookie of an audience, or without the one that was made here, as the canary's says."""
    notes = {AFFINITY: "cookie", COOKIE_NAME: "", COOKIE_SECONDS: ""}
    if wanted is not None:
        notes.update({COOKIE_NAME: wanted.cookie, COOKIE_SECONDS: str(wanted.seconds)})
        there = {**annotations(manifest), **notes}
    elif canary is not None and annotations(canary).get(KEEPS) == "made":
        there = {key: value for key, value in annotations(manifest).items() if key not in notes}
    else:
        return manifest
    return {**manifest, "metadata": {**metadata(manifest), "annotations": there}}


def mirrored(ref: Ref, _documents: Documents, _sides: Sides, _mirror: Mirror | None) -> Documents:
    """Raise InvalidRequest: the annotation mirror-target takes a URI, copies everything, and not every controller honours it."""
    raise InvalidRequest(
        f"provider ingress_nginx does not mirror {ref}: its annotation mirror-target takes no Service, no share and no methods, and"
        " Traefik does not honour it; lead the host through an HTTPRoute (gateway_api), a VirtualService (istio) or an IngressRoute"
        " (traefik)"
    )


def unfit(_service: Manifest) -> str:
    """Return why a Service cannot be a shadow; none is ever asked."""
    return ""
