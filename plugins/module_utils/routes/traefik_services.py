# SPDX-License-Identifier: GPL-3.0-or-later
"""TraefikServices, to which a route of an IngressRoute may lead: weights, cookies that keep users on a side, and mirrors.

What cannot be said in a route is made for it here: a TraefikService of kind mirroring, and one of kind weighted with a cookie. To
decide anything, what they hold is looked at as if it stood in the route (``unfolded``): the route has its plain services again, and
beside them ``sticky`` and ``mirroring``. ``folded`` is the way back.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..model import ANNOTATION_PREFIX, Manifest, Ref, annotations
from .rewriting import Entry
from .rules import Documents, main_of

KIND = "TraefikService"
MADE_FOR = ANNOTATION_PREFIX + "made-for"
"""Says for which IngressRoute one was made. One without it is somebody else's: it is led to, and its weights are set, no more."""
WEIGHTED, MIRRORING, STICKY = "weighted", "mirroring", "sticky"
MOST_LEVELS = 10
# What one of kind mirroring says of its mirrors; the rest says where it leads.
OF_MIRRORS = ("mirrors", "mirrorBody", "maxBodySize")

Services = list[dict[str, Any]]


def routes_of(ref: Ref, documents: Documents) -> list[Entry]:
    """Return the routes as the IngressRoute has them."""
    return list((main_of(ref, documents).get("spec") or {}).get("routes") or [])


def behind(ref: Ref, documents: Documents, entry: Mapping[str, Any]) -> tuple[Services, Services, list[tuple[Ref, str]]]:
    """Return the services between which a route's requests are split, who gets copies, and by which TraefikServices of what kind.

    The lists are the manifests' own, but where the last one is of kind mirroring: that leads to one service, and has no list.
    """
    services: Services = entry.get("services") or []
    mirrors: Services = []
    passed: list[tuple[Ref, str]] = []
    while is_one(services) and len(passed) < MOST_LEVELS:
        key = Ref(KIND, services[0].get("namespace") or ref.namespace, services[0]["name"])
        spec = (documents.get(key) or {}).get("spec") or {}
        if spec.get(WEIGHTED):
            services = spec[WEIGHTED].get("services") or []
            passed.append((key, WEIGHTED))
        elif spec.get(MIRRORING):
            services = [spec[MIRRORING]]
            mirrors += spec[MIRRORING].get("mirrors") or []
            passed.append((key, MIRRORING))
        else:
            break
    return services, mirrors, passed


def is_one(services: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a route leads to a TraefikService alone."""
    return len(services) == 1 and services[0].get("kind") == KIND


def plain(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a service is reached, without what share it gets and who else gets copies."""
    return {key: copy.deepcopy(value) for key, value in service.items() if key not in ("weight", *OF_MIRRORS)}


def is_mirrored(ref: Ref, documents: Documents, entry: Mapping[str, Any]) -> bool:
    """Return whether a route leads to a mirroring TraefikService that was made for it."""
    return _ours(ref, documents, entry.get("services") or [], MIRRORING) is not None


def _ours(ref: Ref, documents: Documents, services: Sequence[Mapping[str, Any]], kind: str) -> Ref | None:
    """Return the TraefikService of a kind to which services lead, where it was made for this IngressRoute."""
    if not is_one(services):
        return None
    key = Ref(KIND, ref.namespace, services[0]["name"])
    found = documents.get(key) or {}
    return key if _is_ours(ref, found) and (found.get("spec") or {}).get(kind) else None


def _is_ours(ref: Ref, manifest: Manifest | None) -> bool:
    """Return whether a TraefikService was made for this IngressRoute."""
    return manifest is not None and annotations(manifest).get(MADE_FOR) == ref.name


def unfolded(ref: Ref, documents: Documents) -> list[Entry]:
    """Return the routes with what stands in TraefikServices that were made for them: ``services``, ``sticky`` and ``mirroring``."""
    return [_unfolded(ref, documents, entry)[0] for entry in routes_of(ref, documents)]


def _unfolded(ref: Ref, documents: Documents, entry: Entry) -> tuple[Entry, Ref | None, Ref | None]:
    """Return a route unfolded, and the TraefikServices made for it: the mirroring one, and the one that keeps users on a side."""
    found, services = copy.deepcopy(entry), entry.get("services") or []
    mirror, held = _ours(ref, documents, services, MIRRORING), None
    if mirror is not None:
        spec = (documents[mirror] or {})["spec"][MIRRORING]
        found[MIRRORING] = {key: copy.deepcopy(spec[key]) for key in OF_MIRRORS if key in spec}
        services = [{key: value for key, value in spec.items() if key not in OF_MIRRORS}]
    held = _ours(ref, documents, services, WEIGHTED)
    if held is not None:
        spec = (documents[held] or {})["spec"][WEIGHTED]
        services = spec.get("services") or []
        if spec.get(STICKY):
            found[STICKY] = copy.deepcopy(spec[STICKY])
        else:
            held = None
    found["services"] = copy.deepcopy(services)
    return found, mirror, held


def folded(ref: Ref, documents: Documents, entries: Sequence[Entry]) -> Documents:
    """Return the objects for routes that are unfolded. What has not changed stays as it is, and what nothing leads to goes."""
    work = _Folding(ref, documents, {key: copy.deepcopy(manifest) for key, manifest in documents.items()})
    main = work.after[ref] or {}
    main["spec"]["routes"] = work.routes(entries)
    used = _used(ref, work.after, main["spec"]["routes"])
    return {key: None if _is_ours(ref, entry) and key.kind == KIND and key not in used else entry for key, entry in work.after.items()}


def _used(ref: Ref, documents: Documents, entries: Sequence[Entry]) -> set[Ref]:
    """Return the TraefikServices that routes lead to, each with what it leads to itself."""
    return {
        key
        for entry in entries
        for service in entry.get("services") or []
        for key, _kind in behind(ref, documents, {"services": [service]})[2]
    }


def _holder(key: Ref) -> Ref:
    """Return the TraefikService that holds a route's services for a mirroring one: ``web-mirror-2`` has ``web-mirror-2-main``."""
    return Ref(KIND, key.namespace, f"{key.name}-main")


@dataclass
class _Folding:
    """Putting routes back: ``taken`` are the TraefikServices that have a use, ``kept`` those that keep users by what they hold."""

    ref: Ref
    documents: Documents
    after: dict[Ref, Manifest | None]
    taken: set[Ref] = field(default_factory=set)
    kept: dict[str, Ref] = field(default_factory=dict)

    def routes(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the routes; a TraefikService that an unchanged one leads to is left to it."""
        was = routes_of(self.ref, self.documents)
        old = [_unfolded(self.ref, self.documents, entry) for entry in was]
        pairs = _paired([flat for flat, _mirror, _held in old], entries)
        found: list[Entry | None] = [None] * len(entries)
        for number, place in enumerate(pairs):
            if place is not None and old[place][0] == entries[number]:
                found[number] = copy.deepcopy(was[place])
                self.taken |= _used(self.ref, self.documents, [was[place]])
                held = old[place][2]
                if held is not None:
                    self.kept[_text((self.documents[held] or {})["spec"])] = held
        for number, place in enumerate(pairs):
            if found[number] is None:
                _flat, mirror, held = old[place] if place is not None else (None, None, None)
                found[number] = self._route(entries[number], mirror, held)
        return [entry for entry in found if entry is not None]

    def _route(self, entry: Entry, mirror: Ref | None, held: Ref | None) -> Entry:
        """Return one route, by the TraefikServices that it has had, or new ones."""
        services = copy.deepcopy(entry.get("services") or [])
        if entry.get(STICKY):
            services = [self._keeping({WEIGHTED: {"services": services, STICKY: entry[STICKY]}}, held)]
        if entry.get(MIRRORING):
            services = [self._mirroring(services, entry[MIRRORING], mirror)]
        return {**{key: value for key, value in entry.items() if key not in (STICKY, MIRRORING)}, "services": services}

    def _keeping(self, spec: dict[str, Any], held: Ref | None) -> dict[str, Any]:
        """Return what leads to a TraefikService with a cookie; routes that share their users in one way have one together."""
        key = self.kept.get(_text(spec))
        if key is None:
            key = held if held is not None and held not in self.taken else self._free("audience")
            self.kept[_text(spec)] = key
            self._make(key, spec)
        return {"name": key.name, "kind": KIND}

    def _mirroring(self, services: Services, mirrors: Mapping[str, Any], mirror: Ref | None) -> dict[str, Any]:
        """Return what leads to a mirroring TraefikService; that leads to another one, which holds the services where none does."""
        key = mirror if mirror is not None and mirror not in self.taken else self._free("mirror")
        self._make(key, {MIRRORING: {}})
        if not is_one(services):
            self._make(_holder(key), {WEIGHTED: {"services": services}})
            services = [{"name": _holder(key).name, "kind": KIND}]
        self._make(key, {MIRRORING: {**services[0], **copy.deepcopy(dict(mirrors))}})
        return {"name": key.name, "kind": KIND}

    def _make(self, key: Ref, spec: dict[str, Any]) -> None:
        """Put a TraefikService there that says for which IngressRoute it is, out of what is left of one where there is that."""
        self.taken.add(key)
        meta = {"name": key.name, "namespace": key.namespace, "annotations": {MADE_FOR: self.ref.name}}
        left = self.after.get(key) or {"apiVersion": "traefik.io/v1alpha1", "kind": KIND, "metadata": meta}
        self.after[key] = {**left, "spec": spec}

    def _free(self, word: str) -> Ref:
        """Return what a new one is called: a name that nobody has, or that one of ours has which nothing leads to or led to."""
        used = self.taken | _used(self.ref, self.documents, routes_of(self.ref, self.documents))
        number = 1
        while True:
            key = Ref(KIND, self.ref.namespace, f"{self.ref.name}-{word}" if number == 1 else f"{self.ref.name}-{word}-{number}")
            if all(self.after.get(one) is None or (_is_ours(self.ref, self.after[one]) and one not in used) for one in (key, _holder(key))):
                return key
            number += 1


def _text(spec: Any) -> str:
    """Return what a TraefikService holds as a text."""
    return json.dumps(spec, sort_keys=True)


def _paired(old: Sequence[Entry], new: Sequence[Entry]) -> list[int | None]:
    """Return for each new route which old one it is: the same, else one for the same requests, else one that leads the same way."""
    found: list[int | None] = [None] * len(new)
    left = list(range(len(old)))
    for is_it in (lambda one, other: one == other, lambda one, other: one.get("match") == other.get("match"), _leads_alike):
        for number, entry in enumerate(new):
            if found[number] is None:
                found[number] = next((place for place in left if is_it(old[place], entry)), None)
                left = [place for place in left if place != found[number]]
    return found


def _leads_alike(one: Entry, other: Entry) -> bool:
    """Return whether two routes differ by their requests alone."""
    own = ("match", "priority")
    return {key: value for key, value in one.items() if key not in own} == {key: value for key, value in other.items() if key not in own}
