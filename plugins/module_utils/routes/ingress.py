# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``ingress``: a Service for each colour, and an Ingress whose backend names one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import Colors, Manifest, Ref, Wanted, metadata

KIND = "Ingress"


@dataclass(frozen=True)
class Backend:
    """One place in an Ingress that names a Service."""

    pointer: str
    host: str
    path: str
    service: str
    port: Any

    def __str__(self) -> str:
        """Return the place as a sentence names it."""
        return f"{self.host or '*'}{self.path}"


def backends(manifest: Manifest) -> Iterator[Backend]:
    """Yield every Service backend of the Ingress, in its order."""
    spec = manifest.get("spec") or {}
    service = (spec.get("defaultBackend") or {}).get("service")
    if service:
        yield Backend("/spec/defaultBackend/service/name", "", "(default)", service["name"], service.get("port"))
    for index, rule in enumerate(spec.get("rules") or []):
        for number, path in enumerate((rule.get("http") or {}).get("paths") or []):
            service = (path.get("backend") or {}).get("service")
            if service:
                where = f"/spec/rules/{index}/http/paths/{number}/backend/service/name"
                yield Backend(where, rule.get("host") or "", path.get("path") or "/", service["name"], service.get("port"))


def read(ref: Ref, manifest: Manifest, services: Sequence[Manifest], wanted: Wanted) -> Colors:
    """Return the colour that the chosen backends name; raise InvalidRequest where they disagree or name none."""
    chosen = [
        entry
        for entry in backends(manifest)
        if (wanted.host is None or entry.host == wanted.host) and (wanted.path is None or entry.path == wanted.path)
    ]
    if not chosen:
        there = ", ".join(str(entry) for entry in backends(manifest)) or "none"
        raise InvalidRequest(f"{ref} has no backend for host {wanted.host or '*'} and path {wanted.path or '/'}; it has: {there}")
    selectors = {metadata(entry)["name"]: dict((entry.get("spec") or {}).get("selector") or {}) for entry in services}
    if len(set(wanted.services.values())) < len(wanted.services):
        raise InvalidRequest(f"services names one Service for several colors ({dict(wanted.services)}); each color needs its own")
    by_color = dict(wanted.services) or _siblings(ref, chosen, selectors, wanted.color_label)
    for color, name in by_color.items():
        if name not in selectors:
            raise InvalidRequest(f'Service {ref.namespace}/{name}, which services names for color "{color}", does not exist')
    color_of = {name: color for color, name in by_color.items()}
    found = {color_of[entry.service] for entry in chosen if entry.service in color_of}
    if not found:
        names = ", ".join(sorted({entry.service for entry in chosen}))
        raise InvalidRequest(f"{ref} points at {names}, which is no Service of a color: {by_color}; correct services")
    if len(found) > 1:
        places = ", ".join(f"{entry} -> {entry.service}" for entry in chosen if entry.service in color_of)
        raise InvalidRequest(f"{ref} points at several colors ({places}); choose one backend with rule_host and rule_path")
    active = found.pop()
    base = {key: value for key, value in selectors[by_color[active]].items() if key != wanted.color_label}
    moved = [entry for entry in chosen if entry.service == by_color[active]]
    return Colors(
        active,
        base,
        wanted.color_label,
        services=by_color,
        backends=tuple(entry.pointer for entry in moved),
        selectors={color: selectors[name] for color, name in by_color.items()},
        faults=_faults(moved, services, by_color),
        others={
            color: tuple(str(entry) for entry in backends(manifest) if entry.service == name and entry not in chosen)
            for color, name in by_color.items()
        },
    )


def _faults(moved: Sequence[Backend], services: Sequence[Manifest], by_color: Mapping[str, str]) -> dict[str, str]:
    """Return {color: sentence} for the Services that a backend cannot lead to.

    One without a selector has no pods that are known; a switch changes the name alone, so the port must be there too.
    """
    found: dict[str, str] = {}
    chosen = {metadata(entry)["name"]: (entry.get("spec") or {}).get("selector") for entry in services}
    for color, name in by_color.items():
        if not chosen.get(name):
            found[color] = f"Service {name} has no selector, so nobody knows which pods are behind it"
    ports = {metadata(entry)["name"]: (entry.get("spec") or {}).get("ports") or [] for entry in services}
    for color, name in by_color.items():
        there = [str(value) for port in ports.get(name, []) for value in (port.get("port"), port.get("name")) if value is not None]
        for entry in moved:
            asked = (entry.port or {}).get("number") or (entry.port or {}).get("name")
            if asked is not None and str(asked) not in there:
                found[color] = f"the backend of {entry} asks for port {asked}, and Service {name} has {', '.join(there) or 'none'}"
    return found


def _siblings(ref: Ref, chosen: Sequence[Backend], selectors: Mapping[str, Mapping[str, str]], label: str) -> dict[str, str]:
    """Return {color: Service} for the Services that differ from the backends' own by the colour label alone."""
    for entry in chosen:
        selector = selectors.get(entry.service)
        if selector is None:
            raise InvalidRequest(f"{ref} points at Service {ref.namespace}/{entry.service}, which does not exist")
        if label in selector:
            base = {key: value for key, value in selector.items() if key != label}
            twins: dict[str, list[str]] = {}
            for name, other in selectors.items():
                if label in other and {key: value for key, value in other.items() if key != label} == base:
                    twins.setdefault(other[label], []).append(name)
            named = {entry.service for entry in chosen}
            return {color: _likely(names, named, entry.service, selector[label], color) for color, names in sorted(twins.items())}
    names = ", ".join(sorted({entry.service for entry in chosen}))
    raise InvalidRequest(
        f'{ref} points at {names}, whose selector has no label "{label}"; name the Services of the colors with services,'
        " or the label with color_label"
    )


def _likely(names: Sequence[str], named: set[str], active: str, active_color: str, color: str) -> str:
    """Return which of a colour's Services is meant: one that the Ingress names, else one that is called like the active one."""
    like = active.replace(active_color, color)
    return min(names, key=lambda name: (name not in named, name != like, name))


def operations(manifest: Manifest, colors: Colors, color: str) -> list[dict[str, Any]]:
    """Return the JSON patch that names the colour's Service in each chosen backend, if they still are what was read."""
    patch: list[dict[str, Any]] = []
    for pointer in colors.backends:
        patch.append({"op": "test", "path": pointer, "value": colors.services[colors.active]})
        patch.append({"op": "replace", "path": pointer, "value": colors.services[color]})
    return patch


def slices_of(_ref: Ref, colors: Colors, color: str) -> Mapping[str, str]:
    """Return the labels of the EndpointSlices behind a colour's Service."""
    return {"kubernetes.io/service-name": colors.services[color]}
