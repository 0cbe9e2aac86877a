# SPDX-License-Identifier: GPL-3.0-or-later
"""What differs between two pod templates, in the words that their manifests have, by container and by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .masking import masked, masked_text, masked_words

# The field by which the entries of a list are told apart, as the API's own merge keys are.
KEYS = {
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "httpHeaders": ("name",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
WORDS = ("args", "command")
MAPS = ("annotations", "labels")
# Where people choose the names, a name tells whether the value is a secret.
NAMED_BY_PEOPLE = (*MAPS, "options", "volumeAttributes")
LEAVES = ("env", "httpHeaders")
OTHER = "(another value)"


def template_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what only the one and only the other pod template has; secrets are hidden, also where they differ."""
    return _differing("", _flat(before), _flat(after))


def _flat(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels, annotations and what the pods' spec has, side by side."""
    meta = template.get("metadata") or {}
    return {**{key: meta[key] for key in MAPS if meta.get(key)}, **(template.get("spec") or {})}


def _differing(parent: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the entries of two mappings that differ."""
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for key in dict.fromkeys([*before, *after]):
        if key not in after:
            old[key] = _shown(parent, key, before[key])
        elif key not in before:
            new[key] = _shown(parent, key, after[key])
        elif before[key] != after[key]:
            one, other = _pair(parent, key, before[key], after[key])
            # Of two mappings that differ, one may have nothing that the other has not.
            old.update({key: one} if one != {} else {})
            new.update({key: other} if other != {} else {})
    return old, new


def _pair(parent: str, key: str, before: Any, after: Any) -> tuple[Any, Any]:
    """Return two values that differ as they may be seen: no more of them than what differs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping) and parent not in LEAVES:
        return _differing(key, before, after)
    if key in KEYS and isinstance(before, list) and isinstance(after, list):
        old_entries, new_entries = _by_key(key, before), _by_key(key, after)
        old, new = _differing(key, old_entries, new_entries)
        # The same entries in another order: for variables, that can matter.
        return (old, new) if old or new else _apart(list(old_entries), list(new_entries))
    return _apart(_shown(parent, key, before), _shown(parent, key, after))


def _apart(old: Any, new: Any) -> tuple[Any, Any]:
    """Return two values that differ so that it shows, also where what differs is hidden."""
    if old != new:
        return old, new
    return old, [*new, OTHER] if isinstance(new, list) else f"{new} {OTHER}"


def _by_key(key: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries of a list by what names them."""
    fields = KEYS[key]
    found: dict[str, Any] = {}
    for entry in entries:
        name = "/".join(str(entry[field]) for field in fields if entry.get(field) is not None)
        found[name] = {field: value for field, value in entry.items() if field not in fields}
    return found


def _shown(parent: str, key: str, value: Any) -> Any:
    """Return a value as a person may see it: lists by name, variables as what they are or where they are from."""
    if parent == "env":
        return _variable(key, value)
    if parent == "httpHeaders":
        return masked(key, value.get("value"))
    if isinstance(value, Mapping):
        return {name: _shown(key, name, entry) for name, entry in value.items()}
    if isinstance(value, list):
        if key in KEYS:
            return {name: _shown(key, name, entry) for name, entry in _by_key(key, value).items()}
        return masked_words(value) if key in WORDS else [_shown("", "", entry) for entry in value]
    if isinstance(value, str):
        return masked(key, value) if parent in NAMED_BY_PEOPLE else masked_text(value)
    return value


def _variable(name: str, entry: Mapping[str, Any]) -> str:
    """Return a variable's value, or where it is from: never what a Secret holds."""
    source = entry.get("valueFrom")
    if not source:
        return str(masked(name, entry.get("value") or ""))
    for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
        if field in source:
            optional = ", optional" if source[field].get("optional") else ""
            return f"from {kind} {source[field].get('name')}, key {source[field].get('key')}{optional}"
    if "fieldRef" in source:
        return f"from field {source['fieldRef'].get('fieldPath')}"
    if "resourceFieldRef" in source:
        return f"from resource {source['resourceFieldRef'].get('resource')}"
    return "from " + ", ".join(f"{field} {dict(value)}" for field, value in source.items())
