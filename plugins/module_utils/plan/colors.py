# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision to switch a colour: whether it may be done, and the one patch that does it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest, WaitFailed
from ..model import JSON_PATCH, Change, Colors, Manifest, Ref, annotations, metadata, pointer, unchanged
from .revisions import age_of
from .rollout import condition

ROUTER_REST = 3.0
"""Seconds for which a pod is ready before a router surely knows it. Times of the API are whole seconds, so that 3 are more than 2."""


def as_text(value: Any) -> str:
    """Return a value as an annotation holds it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def annotation_operations(manifest: Manifest, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON patch that sets annotations, or takes them away where the value is None; empty when all hold."""
    present = annotations(manifest)
    patch: list[dict[str, Any]] = []
    for key, value in sorted(wanted.items()):
        where = f"/metadata/annotations/{pointer(key)}"
        if value is None or value == "":
            if key in present:
                patch.append({"op": "remove", "path": where})
        elif present.get(key) != as_text(value):
            patch.append({"op": "add", "path": where, "value": as_text(value)})
    if patch and metadata(manifest).get("annotations") is None:
        patch.insert(0, {"op": "add", "path": "/metadata/annotations", "value": {}})
    return patch


def plan_switch(
    ref: Ref,
    manifest: Manifest,
    colors: Colors,
    color: str,
    operations: Callable[[Manifest, Colors, str], list[dict[str, Any]]],
    notes: Mapping[str, Any],
    if_color: str | None = None,
) -> Change:
    """Return the change that sends all traffic to ``color`` and writes ``notes`` as annotations, in one patch."""
    if if_color and colors.active not in (if_color, color):
        raise WaitFailed(
            f'{ref} sends its traffic to "{colors.active}", not to "{if_color}" any more: somebody else switched it; nothing was changed',
            reason="Superseded",
        )
    colors.check(ref, color)
    switch = operations(manifest, colors, color) if colors.active != color else []
    noted = annotation_operations(manifest, notes)
    before: dict[str, Any] = {"color": colors.active}
    after: dict[str, Any] = {"color": color}
    if noted:
        present = annotations(manifest)
        before["annotations"] = {key: present[key] for key in sorted(notes) if key in present}
        after["annotations"] = {key: as_text(value) for key, value in sorted(notes.items()) if value not in (None, "")}
    if not switch and not noted:
        return Change(before, after)
    actions = (f"switched {ref} from {colors.active} to {color}",) if switch else (f"annotated {ref}",)
    return Change(before, after, [unchanged(manifest), *switch, *noted], JSON_PATCH, actions)


def check_color(color: str) -> None:
    """Raise InvalidRequest for a colour that cannot be the value of a label."""
    if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", color):
        raise InvalidRequest(f'color must be the value of a label (letters, digits, "-", "_", "."; 63 at most), got "{color}"')


def check_ready(ref: Ref, color: str, active: str, ready: int, active_ready: int, min_ready: int | None) -> None:
    """Raise InvalidRequest where a colour has fewer ready pods than it must have to take all traffic."""
    needed = max(1, active_ready) if min_ready is None else min_ready
    if ready < needed:
        why = f"as many as {active} has, at least 1" if min_ready is None else "min_ready"
        raise InvalidRequest(
            f'color "{color}" has {ready} ready pods and {needed} are needed ({why}), so {ref} stays on {active};'
            " scale it and wait for its rollout, lower min_ready, or set force",
            reason="NotReady",
            ready=ready,
            needed=needed,
        )


def too_fresh(pods: Sequence[Manifest], now: float, rest: float = ROUTER_REST) -> float:
    """Return for how many seconds more half of the ready pods have not been ready for ``rest``; 0 where that is not known.

    A router hears of pods and of routes by separate ways: one that is told of the route first has nobody to send requests to.
    """
    ages = sorted(age for pod in pods if (age := age_of(condition(pod, "Ready").get("lastTransitionTime") or "", now)) is not None)
    return min(rest, max(0.0, rest - ages[len(ages) // 2])) if ages else 0.0


def ready_addresses(slices: Sequence[Manifest]) -> set[str]:
    """Return the addresses of EndpointSlices that serve: ready and not terminating (absent means ready, as the API has it)."""
    found: set[str] = set()
    for entry in slices:
        for endpoint in entry.get("endpoints") or []:
            state = endpoint.get("conditions") or {}
            if state.get("ready") is not False and not state.get("terminating"):
                found.update(endpoint.get("addresses") or [])
    return found
