# SPDX-License-Identifier: GPL-3.0-or-later
"""A recommendation as a text for a person at a terminal, and the comparison of all strategies."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InvalidRequest
from .strategies import STRATEGIES, Strategy

COLUMNS: tuple[tuple[str, str], ...] = (
    ("Strategy", "title"),
    ("Downtime", "downtime"),
    ("Way back", "way_back"),
    ("Resources", "resources"),
    ("Complexity", "complexity"),
    ("Duration", "duration"),
    ("Testing", "testing"),
    ("Needs", "tools"),
)
ANSWERED = ("strategy", "title", "reasons", "costs", "needs", "alternatives", "playbook")


def cells(strategy: Strategy) -> list[str]:
    """Return a strategy as a row of the comparison."""
    row = {key: str(getattr(strategy, key)) for _head, key in COLUMNS}
    return list({**row, "resources": _factor(strategy.resources), "complexity": f"{strategy.complexity} of 5"}.values())


def comparison(chosen: str = "") -> str:
    """Return the strategies as an aligned table; an arrow points at the chosen one."""
    rows = [
        ["", *(head for head, _key in COLUMNS)],
        *(["->" if name == chosen else "", *cells(entry)] for name, entry in STRATEGIES.items()),
    ]
    if not chosen:
        rows = [row[1:] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def report(answer: Any, compare: bool = True, width: int = 96) -> str:
    """Return a recommendation as a text; raise InvalidRequest for what is none."""
    missing = [key for key in ANSWERED if not isinstance(answer, Mapping) or key not in answer]
    if missing:
        raise InvalidRequest(f'this is no recommendation (it has no "{missing[0]}"); pass what recommend_strategy returns, or "all"')
    target = f" for {answer['target']}" if answer.get("target") else ""
    costs = answer["costs"]
    more = costs.get("more_pods")
    pods = "" if more is None else f", {more} more {'pod' if more == 1 else 'pods'} meanwhile" if more else ", no more pods"
    money = {
        "downtime": costs["downtime"],
        "way back": costs["way_back"],
        "resources": _factor(costs["resources"]) + pods,
        "complexity": f"{costs['complexity']} of 5",
        "duration": costs["duration"],
    }
    parts = [
        [f"{answer['title']}{target}"],
        ["Why", *_points(answer["reasons"], width)],
        ["What it costs", *(f"  {key:<12}{value}" for key, value in money.items())],
        ["What is missing here", *(_points(answer["needs"], width) or ["  - nothing"])],
        ["Why not another one", *_others(answer["alternatives"], width)],
    ]
    if compare:
        parts.append(["All strategies", *(f"  {line}" for line in comparison(answer["strategy"]).splitlines())])
    if answer["playbook"]:
        parts.append(["The playbook", f"  ansible-playbook {answer['playbook']}"])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _factor(value: float) -> str:
    """Return a factor of resources as the table has it: 1x, 1.2x."""
    return f"{value:g}x"


def _points(sentences: Iterable[str], width: int) -> list[str]:
    """Return sentences as a list of points."""
    return [line for sentence in sentences for line in _wrapped(sentence, "  - ", "    ", width)]


def _others(alternatives: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Return the other strategies, each with why not, under one another."""
    column = max((len(entry["title"]) for entry in alternatives), default=0) + 4
    lines: list[str] = []
    for entry in alternatives:
        said = entry["why_not"] if entry["possible"] else f"Not possible. {entry['why_not']}"
        lines += _wrapped(said, f"  {entry['title']}".ljust(column), " " * column, width)
    return lines


def _wrapped(text: str, first: str, rest: str, width: int) -> list[str]:
    """Return a text broken into lines."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False)
