# SPDX-License-Identifier: GPL-3.0-or-later
"""From two manifests the smallest JSON patch between them, so that a provider only says what a route shall be like."""

from __future__ import annotations

from typing import Any

from ..model import pointer

Operations = list[dict[str, Any]]


def smallest_patch(before: Any, after: Any, path: str = "") -> Operations:
    """Return the operations (RFC 6902) that make ``after`` of ``before``; nothing that is the same is named.

    Lists are compared from both ends: what was put in or taken out of the middle moves nothing else.
    """
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return _of_mappings(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        return _of_lists(before, after, path)
    return [{"op": "replace", "path": path, "value": after}]


def _of_mappings(before: dict[str, Any], after: dict[str, Any], path: str) -> Operations:
    """Return the operations for two mappings."""
    found: Operations = []
    for key in sorted(before.keys() | after.keys()):
        where = f"{path}/{pointer(key)}"
        if key not in after:
            found.append({"op": "remove", "path": where})
        elif key not in before:
            found.append({"op": "add", "path": where, "value": after[key]})
        else:
            found += smallest_patch(before[key], after[key], where)
    return found


def _of_lists(before: list[Any], after: list[Any], path: str) -> Operations:
    """Return the operations for two lists: what lies between their common beginning and end is changed, added or removed."""
    shortest = min(len(before), len(after))
    start = 0
    while start < shortest and before[start] == after[start]:
        start += 1
    end = 0
    while end < shortest - start and before[-1 - end] == after[-1 - end]:
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    found: Operations = []
    for number in range(min(len(old), len(new))):
        found += smallest_patch(old[number], new[number], f"{path}/{start + number}")
    for number in reversed(range(len(new), len(old))):
        found.append({"op": "remove", "path": f"{path}/{start + number}"})
    for number in range(len(old), len(new)):
        found.append({"op": "add", "path": f"{path}/{start + number}", "value": new[number]})
    return found


def dropped(wanted: Any, made: Any, path: str = "") -> list[str]:
    """Return the places that are in ``wanted`` and not in ``made``, as ``spec.rules[1].filters``; what differs or is new is none."""
    if isinstance(wanted, dict):
        if not isinstance(made, dict):
            return [path] if wanted else []
        found = [f"{path}.{key}" for key, value in wanted.items() if key not in made and value not in (None, {}, [])]
        return found + [place for key in wanted.keys() & made.keys() for place in dropped(wanted[key], made[key], f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(made, list):
        pairs = enumerate(zip(wanted, made, strict=False))
        return [place for number, (one, other) in pairs for place in dropped(one, other, f"{path}[{number}]")]
    return []
