# SPDX-License-Identifier: GPL-3.0-or-later
"""Colours in a route that names Services, or subsets of one: which of them it names, and naming another instead.

A provider tells the places of a manifest where a Service is named, and what else must be read; all the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import SERVICE_LABEL, Colors, Manifest, Query, Ref, Wanted, metadata


@dataclass(frozen=True)
class Backend:
    """One place in a route that names a Service: the pointer to it, the text there, and the rule that it is in.

    ``subset`` is a DestinationRule's, where the text names that. ``weight`` is what the place gets of its rule, 0 for nothing.
    """

    pointer: str
    hosts: tuple[str, ...]
    path: str
    service: str
    text: str
    port: int | str | None = None
    weight: float = 1
    rule: int = 0
    name: str = ""
    subset: str = ""

    def __str__(self) -> str:
        """Return the place as a sentence names it."""
        return f"{','.join(filter(None, self.hosts)) or '*'}{self.path}"

    @property
    def key(self) -> str:
        """Return what the place leads to: ``web``, or ``web/v1`` for a subset."""
        return f"{self.service}/{self.subset}" if self.subset else self.service

    def named(self, key: str) -> str:
        """Return the text that leads to something else, in the same form: a host keeps its domain."""
        service, _slash, subset = key.partition("/")
        return subset or service + self.text.removeprefix(self.service)


@dataclass(frozen=True)
class Target:
    """What a place may lead to: the labels of the pods behind it, and the ports that it has, by number and name."""

    selector: Mapping[str, str]
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Colored:
    """A provider of colours. ``others`` says which objects must be read beside the route: the Services by default."""

    KIND: str
    backends: Callable[[Manifest], Iterable[Backend]]
    others: Callable[[Ref, Manifest], Sequence[Query]] = lambda ref, _manifest: (Query("Service", ref.namespace),)

    def read(self, ref: Ref, manifest: Manifest, others: Sequence[Manifest], wanted: Wanted) -> Colors:
        """Return the colour that the chosen places name; raise InvalidRequest where they disagree or name none."""
        return _read(ref, tuple(self.backends(manifest)), targets_of(others), wanted)

    def operations(self, manifest: Manifest, colors: Colors, color: str) -> list[dict[str, Any]]:
        """Return the JSON patch that names the colour in each chosen place, if they still are what was read.

        A place without weight that names the colour names the one before then: a split that is over stays one.
        """
        patch: list[dict[str, Any]] = []
        old, new = colors.services[colors.active], colors.services[color]
        for entry in self.backends(manifest):
            key = new if entry.pointer in colors.backends else old if entry.pointer in colors.spare and entry.key == new else None
            if key is not None:
                patch.append({"op": "test", "path": entry.pointer, "value": entry.text})
                patch.append({"op": "replace", "path": entry.pointer, "value": entry.named(key)})
        return patch

    def slices_of(self, _ref: Ref, colors: Colors, color: str) -> Mapping[str, str]:
        """Return the labels of the EndpointSlices behind a colour's Service."""
        return {SERVICE_LABEL: colors.services[color].partition("/")[0]}


def targets_of(others: Sequence[Manifest]) -> dict[str, Target]:
    """Return {what a place may name: target} for Services, and for the subsets of DestinationRules."""
    found: dict[str, Target] = {}
    for entry in others:
        if entry["kind"] == "Service":
            spec = entry.get("spec") or {}
            ports = [str(value) for port in spec.get("ports") or [] for value in (port.get("port"), port.get("name")) if value is not None]
            found[metadata(entry)["name"]] = Target(dict(spec.get("selector") or {}), tuple(ports))
    for entry in others:
        if entry["kind"] == "DestinationRule":
            spec = entry.get("spec") or {}
            service = (spec.get("host") or "").split(".")[0]
            behind = found.get(service, Target({}, ()))
            for subset in spec.get("subsets") or []:
                selector = {**behind.selector, **(subset.get("labels") or {})} if behind.selector else {}
                found[f"{service}/{subset['name']}"] = Target(selector, behind.ports)
    return found


def _is_chosen(entry: Backend, wanted: Wanted) -> bool:
    """Return whether a place is one that the options name."""
    return (
        (wanted.rule is None or wanted.rule in (entry.name, str(entry.rule)))
        and (wanted.host is None or wanted.host in entry.hosts)
        and (wanted.path is None or wanted.path == entry.path)
    )


def _read(ref: Ref, places: Sequence[Backend], targets: Mapping[str, Target], wanted: Wanted) -> Colors:
    """Return the colour that the chosen places name."""
    chosen = [entry for entry in places if _is_chosen(entry, wanted)]
    if not chosen:
        asked = f"{f'rule {wanted.rule}, ' if wanted.rule else ''}host {wanted.host or '*'} and path {wanted.path or '/'}"
        there = ", ".join(dict.fromkeys(map(str, places))) or "none that names a Service"
        raise InvalidRequest(f"{ref} has no backend for {asked}; it has: {there}")
    if len(set(wanted.services.values())) < len(wanted.services):
        raise InvalidRequest(f"services names one Service for several colors ({dict(wanted.services)}); each color needs its own")
    by_color = _given(ref, chosen, targets, wanted) or _siblings(ref, chosen, targets, wanted.color_label)
    color_of = {key: color for color, key in by_color.items()}
    mine = [entry for entry in chosen if entry.key in color_of]
    leading = [entry for entry in mine if entry.weight > 0] or mine
    found = {color_of[entry.key] for entry in leading}
    if not found:
        names = ", ".join(sorted({entry.key for entry in chosen}))
        raise InvalidRequest(f"{ref} points at {names}, which is no Service of a color: {by_color}; correct services")
    if len(found) > 1:
        raise _several(ref, leading)
    active = found.pop()
    moved = [entry for entry in mine if entry.key == by_color[active]]
    return Colors(
        active,
        {key: value for key, value in targets[by_color[active]].selector.items() if key != wanted.color_label},
        wanted.color_label,
        services=by_color,
        backends=tuple(entry.pointer for entry in moved),
        spare=tuple(entry.pointer for entry in mine if entry not in leading),
        selectors={color: targets[key].selector for color, key in by_color.items()},
        faults=_faults(moved, targets, by_color),
        others={
            color: tuple(dict.fromkeys(str(entry) for entry in places if entry.key == key and entry not in chosen))
            for color, key in by_color.items()
        },
    )


def _several(ref: Ref, leading: Sequence[Backend]) -> InvalidRequest:
    """Return the refusal of a route that leads to several colours: of a split in one rule, or of rules that differ."""
    for number in dict.fromkeys(entry.rule for entry in leading):
        shared = [entry for entry in leading if entry.rule == number]
        if len({entry.key for entry in shared}) > 1:
            parts = ", ".join(f"{entry.key} {entry.weight:g}" for entry in shared)
            return InvalidRequest(
                f"{ref} splits the requests of {shared[0]} between several colors ({parts}), so there is a canary on its way;"
                " end it first: give one of them all with set_canary_weight, weight 0 or 100"
            )
    places = ", ".join(f"{entry} -> {entry.key}" for entry in leading)
    return InvalidRequest(f"{ref} points at several colors ({places}); choose one backend with rule, rule_host or rule_path")


def _faults(moved: Sequence[Backend], targets: Mapping[str, Target], by_color: Mapping[str, str]) -> dict[str, str]:
    """Return {color: sentence} for the Services that a backend cannot lead to.

    One without a selector has no pods that are known; a switch changes the name alone, so the port must be there too.
    """
    found: dict[str, str] = {}
    for color, key in by_color.items():
        target = targets[key]
        if not target.selector:
            found[color] = f"Service {key} has no selector, so nobody knows which pods are behind it"
        for entry in moved:
            if entry.port is not None and str(entry.port) not in target.ports:
                there = ", ".join(target.ports) or "none"
                found[color] = f"the backend of {entry} asks for port {entry.port}, and Service {key} has {there}"
    return found


def _given(ref: Ref, chosen: Sequence[Backend], targets: Mapping[str, Target], wanted: Wanted) -> dict[str, str]:
    """Return {color: what it is called} for what the option ``services`` names; a subset may go by its own name alone."""
    found: dict[str, str] = {}
    for color, name in wanted.services.items():
        known = [name, *(f"{entry.service}/{name}" for entry in chosen if entry.subset)]
        found[color] = next((key for key in reversed(known) if key in targets), "")
        if not found[color]:
            raise InvalidRequest(f'Service {ref.namespace}/{name}, which services names for color "{color}", does not exist')
    return found


def _siblings(ref: Ref, chosen: Sequence[Backend], targets: Mapping[str, Target], label: str) -> dict[str, str]:
    """Return {color: what it is called} for what differs from the backends' own by the colour label alone."""
    for entry in chosen:
        target = targets.get(entry.key)
        if target is None:
            kind = "subset" if entry.subset else "Service"
            raise InvalidRequest(f"{ref} points at {kind} {ref.namespace}/{entry.key}, which does not exist")
        if label in target.selector:
            base = _without(target.selector, label)
            twins: dict[str, list[str]] = {}
            for key, other in targets.items():
                alike = ("/" in key) == ("/" in entry.key) and _without(other.selector, label) == base
                if alike and label in other.selector and (not entry.subset or key.startswith(f"{entry.service}/")):
                    twins.setdefault(other.selector[label], []).append(key)
            named = {each.key for each in chosen}
            return {color: _likely(keys, named, entry.key, target.selector[label], color) for color, keys in sorted(twins.items())}
    names = ", ".join(sorted({entry.key for entry in chosen}))
    raise InvalidRequest(
        f'{ref} points at {names}, whose selector has no label "{label}"; name the Services of the colors with services,'
        " or the label with color_label"
    )


def _without(selector: Mapping[str, str], label: str) -> dict[str, str]:
    """Return a selector without a label."""
    return {key: value for key, value in selector.items() if key != label}


def _likely(keys: Sequence[str], named: set[str], active: str, active_color: str, color: str) -> str:
    """Return which of a colour's Services is meant: one that the route names, else one that is called like the active one."""
    like = active.replace(active_color, color)
    return min(keys, key=lambda key: (key not in named, key != like, key))
