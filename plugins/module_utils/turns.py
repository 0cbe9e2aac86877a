# SPDX-License-Identifier: GPL-3.0-or-later
"""A wait in turns: several calls of a step that are one wait, so that somebody can tell how far it is in between.

A module that runs elsewhere says nothing until it ends. With the option ``slice`` it ends after so many seconds, and
what must outlive the call - how much of the time has passed, what has been seen - goes to the next call as ``resume``.
Times in there are seconds since the wait began, so that no two clocks are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InvalidRequest

TURN_OPTIONS: dict[str, dict[str, Any]] = {"slice": {"type": "float", "default": 0}, "resume": {"type": "dict"}}


class Turn:
    """One call of a wait: the whole time of the wait, how much this call may take of it, and what the calls before knew."""

    def __init__(
        self,
        what: str,
        timeout: float,
        length: float = 0,
        resume: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if length < 0:
            raise InvalidRequest(f"slice must be 0 seconds (none) or more, got {length:g}")
        self._what, self._timeout, self._wall = what, timeout, wall
        self.clock = clock
        self.memory: dict[str, Any] = {}
        before = 0.0
        if resume:
            before, self.memory = self._taken_up(resume)
        self._began = clock() - before
        self._end = min(timeout, before + length) if length else timeout

    @classmethod
    def of(cls, what: str, timeout: float, options: Mapping[str, Any]) -> Turn:
        """Return the turn that a step's options ask for."""
        return cls(what, timeout, options.get("slice") or 0, options.get("resume"))

    def _taken_up(self, resume: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
        """Return how much of the time has passed, the time between the calls included, and what the calls before knew."""
        try:
            if resume["what"] != self._what:
                raise self.refusal(f'that is "{resume["what"]}"')
            between = max(0.0, self._wall() - float(resume["at"]))
            return float(resume["elapsed"]) + between, dict(resume["memory"])
        except (KeyError, TypeError, ValueError):
            raise self.refusal("that is something else") from None

    def refusal(self, instead: str) -> InvalidRequest:
        """Return the error for a ``resume`` that is not of this wait."""
        return InvalidRequest(
            f'resume must be what the slice before returned for "{self._what}", and {instead}; leave it out to begin a wait'
        )

    @property
    def elapsed(self) -> float:
        """Return the seconds since the wait began, those of the calls before included."""
        return self.clock() - self._began

    @property
    def left(self) -> float:
        """Return the seconds that this call may still take."""
        return max(0.0, self._end - self.elapsed)

    @property
    def is_last(self) -> bool:
        """Return whether the whole time is over with this call."""
        return self._end >= self._timeout

    def hand_over(self, memory: Mapping[str, Any], line: str) -> dict[str, Any]:
        """Return what a call reports that leaves the outcome to the next one."""
        told = {"what": self._what, "at": self._wall(), "elapsed": round(self.elapsed, 3), "memory": dict(memory)}
        return {"resume": told, "progress": line}
