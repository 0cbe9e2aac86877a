# SPDX-License-Identifier: GPL-3.0-or-later
"""What rollout_info and undo_rollout return, as aligned lines that a person reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from .rollout import pods_in_words

LONGEST = 70


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """Return the lines of the result of rollout_info or undo_rollout, or of a loop over one; raise InvalidRequest for another."""
    if isinstance(result, Mapping):
        if isinstance(result.get("results"), Sequence) and "revisions" not in result:
            blocks = [lines_of(entry) for entry in result["results"]]
            return [line for number, block in enumerate(blocks) for line in ([""] if number else []) + block]
        if isinstance(result.get("revisions"), Sequence) and isinstance(result.get("status"), Mapping):
            return rollout_lines(result)
        if "from_revision" in result:
            return undo_lines(result)
    raise InvalidRequest("rollout_table takes the result of rollout_info or of undo_rollout, as register keeps it")


def rollout_lines(info: Mapping[str, Any]) -> list[str]:
    """Return status, revisions, and the pods that are not ready with their reasons."""
    status = info["status"]
    counts = ", ".join(f"{status.get(field, 0)} {field}" for field in ("updated", "ready", "available"))
    number = info.get("revision")
    lines = [f"{_name(info)}: {status['phase']}, revision {'not numbered yet' if number is None else number}"]
    lines[0] += f", {counts} of {pods_in_words(status.get('wanted', 0))}"
    if status.get("message") not in (None, "", status["phase"]):
        lines.append(f"  {status['message']}")
    rows = [
        [
            str(entry["revision"]),
            ",".join(map(str, entry.get("former") or [])),
            "*" if entry["live"] else "",
            _number(entry.get("replicas")),
            _number(entry.get("ready")),
            age_words(entry.get("age")),
            _images(entry["images"]),
            _cut(entry["change_cause"]),
        ]
        for entry in info["revisions"]
    ]
    header = ["REVISION", "WAS", "LIVE", "PODS", "READY", "AGE", "IMAGES", "CHANGE CAUSE"]
    if not any(row[1] for row in rows):
        header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
    lines += ["", *_aligned(header, rows, right=("REVISION", "PODS", "READY"))]
    unready = [pod for pod in info.get("pods") or [] if not pod["ready"]]
    if unready:
        pods = [[pod["name"], _number(pod.get("revision")), age_words(pod.get("age")), str(pod["restarts"]), _why(pod)] for pod in unready]
        lines += ["", *_aligned(["POD NOT READY", "REVISION", "AGE", "RESTARTS", "REASON"], pods, right=("REVISION", "RESTARTS"))]
    return lines


def undo_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what was undone, and what that changes of the pod template."""
    lines = [str(result.get("msg") or _name(result))]
    before, after = dict(result.get("before") or {}), dict(result.get("after") or {})
    rows = [
        [" ".join(path), _value(old), _value(new)]
        for path, old, new in _leaves((), before, after)
        if old != new or path in (("revision",), ("paused",))
    ]
    if result.get("changed") and rows:
        lines += ["", *_aligned(["WHAT", "BEFORE", "AFTER"], rows)]
    return lines


def age_words(seconds: int | None) -> str:
    """Return an age as people say it: ``45s``, ``3m``, ``2h``, ``5d``."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _leaves(path: tuple[str, ...], before: Any, after: Any) -> list[tuple[tuple[str, ...], Any, Any]]:
    """Return (path, before, after) of each value that is none of two mappings; None where a side has nothing there."""
    if not any(isinstance(side, Mapping) and side for side in (before, after)):
        return [(path, before, after)]
    found = []
    sides = [side if isinstance(side, Mapping) else {} for side in (before, after)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        found += _leaves((*path, str(key)), sides[0].get(key), sides[1].get(key))
    return found


def _name(info: Mapping[str, Any]) -> str:
    """Return the workload as a sentence names it."""
    return f"{info.get('kind', 'Workload')} {info.get('namespace', '')}/{info.get('name', '')}"


def _why(pod: Mapping[str, Any]) -> str:
    """Return why a pod is not ready, in a line."""
    told = ": ".join(_line(part) for part in (pod.get("reason"), pod.get("message")) if part)
    return told or pod["phase"]


def _images(images: Mapping[str, str]) -> str:
    """Return the image of the only container, or container=image of each."""
    return next(iter(images.values())) if len(images) == 1 else ", ".join(f"{name}={image}" for name, image in images.items())


def _value(value: Any) -> str:
    """Return a value of a pod template in a line."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return _cut(" ".join(_value(entry) for entry in value))
    if isinstance(value, bool):
        return str(value).lower()
    return _cut(str(value)) if value not in ("", {}) else '""' if value == "" else "present"


def _number(value: Any) -> str:
    """Return a count, or a dash where there is none."""
    return "-" if value is None else str(value)


def _line(text: str) -> str:
    """Return a text in one line."""
    return " ".join(str(text).split())


def _cut(text: str) -> str:
    """Return a text in one line that is not longer than a table bears."""
    found = _line(text)
    return found if len(found) <= LONGEST else found[: LONGEST - 3] + "..."


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """Return the rows under their header, two spaces between columns; numbers are set right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [cell.rjust(widths[column]) if header[column] in right else cell.ljust(widths[column]) for column, cell in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines
