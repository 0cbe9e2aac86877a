# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step that moves routes reports: what each was and is, in the words of the step, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .model import Result, annotations
from .routes.rules import Documents
from .routing import Moved, Route, Write


def reported(
    routes: Sequence[Route],
    moved: Moved,
    word: str,
    read: Callable[[Route, Documents], Any],
    sentence: Callable[[Route, Any, Any], str],
    notes: Mapping[str, Any],
    **fixed: Any,
) -> Result:
    """Return the result of a move: under ``word`` what ``read`` finds in the first route, and with several also that of each.

    ``sentence`` says what was done to a route from what it was and is; ``notes`` are the annotations that were asked for, and
    ``fixed`` stands in before and after alike.
    """
    was = [read(route, documents) for route, documents in zip(routes, moved.before, strict=True)]
    will = [read(route, documents) for route, documents in zip(routes, moved.after, strict=True)]
    before, after = ({word: found[0], **fixed} for found in (was, will))
    for told, found, documents in ((before, was, moved.before[0]), (after, will, moved.after[0])):
        if len(routes) > 1:
            told["routes"] = {str(route.ref): one for route, one in zip(routes, found, strict=True)}
        if notes:
            present = annotations(documents[routes[0].ref] or {})
            told["annotations"] = {key: present[key] for key in sorted(notes) if key in present}
    actions = [sentence(route, old, new) for route, old, new in zip(routes, was, will, strict=True) if old != new]
    if moved.changed and not actions:
        actions = [f"{_verb(write)} {write.ref}" for write in moved.writes]
    return Result(moved.changed, before, after, tuple(actions), {word: after[word]})


def _verb(write: Write) -> str:
    """Return what a write does, as a sentence has it."""
    if write.before is None:
        return "made"
    return "removed" if write.after is None else "changed"
