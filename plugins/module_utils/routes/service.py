# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``service``: one Service whose selector names the colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from ..model import SERVICE_LABEL, Colors, Manifest, Query, Ref, Wanted, metadata, pointer

KIND = "Service"


def read(ref: Ref, manifest: Manifest, _services: Sequence[Manifest], wanted: Wanted) -> Colors:
    """Return the colour that the Service selects, and how the pods of any colour are found."""
    selector = dict((manifest.get("spec") or {}).get("selector") or {})
    if wanted.host or wanted.path or wanted.rule or wanted.services:
        raise InvalidRequest(f"rule, rule_host, rule_path and services are for the providers of routes; {ref} is switched by its selector")
    if not selector:
        raise InvalidRequest(f"{ref} has no selector, so it cannot be switched; give it one with the label {wanted.color_label}")
    if wanted.color_label not in selector:
        raise InvalidRequest(
            f'{ref} does not select by the label "{wanted.color_label}": its selector is {selector};'
            f" add {wanted.color_label}: <color> to it, or name the right label with color_label"
        )
    base = {key: value for key, value in selector.items() if key != wanted.color_label}
    return Colors(selector[wanted.color_label], base, wanted.color_label, services={}, backends=(metadata(manifest)["name"],))


def operations(manifest: Manifest, colors: Colors, color: str) -> list[dict[str, Any]]:
    """Return the JSON patch that selects ``color`` if the selector still is what was read."""
    path = f"/spec/selector/{pointer(colors.label)}"
    return [
        {"op": "test", "path": path, "value": colors.active},
        {"op": "replace", "path": path, "value": color},
    ]


def others(_ref: Ref, _manifest: Manifest) -> Sequence[Query]:
    """Return what must be read beside the Service: nothing."""
    return ()


def slices_of(ref: Ref, _colors: Colors, _color: str) -> Mapping[str, str]:
    """Return the labels of the EndpointSlices that show when the switch has reached the data plane's input."""
    return {SERVICE_LABEL: ref.name}
