# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints how far a step is: what changes as it changes, and something at least every 15 seconds, whatever the step does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONGEST_SILENCE = 15.0
SHORTEST_PAUSE = 1.0


class Reporter:
    """Takes lines of progress from a step and prints them with the time that has passed.

    A line that is news is printed at once, or after a pause where lines come fast; of those in between only the newest is.
    Without news the newest line comes after the longest silence: systems that run jobs end those that say nothing. A
    thread does that, so that a step which hangs in a request is not silent either.
    """

    def __init__(
        self,
        show: Callable[[str], None],
        silence: float = LONGEST_SILENCE,
        pause: float = SHORTEST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._silence = silence
        self._pause = pause
        self._clock = clock
        self._began = clock()
        self._line = "still at work"
        self._news: object = None
        self._shown: object = None
        self._shown_at = self._began - pause
        self._spoke_at = self._began
        self._ended = False
        self._changed = threading.Condition()

    def __enter__(self) -> Reporter:
        """Begin to listen to the silence."""
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Print what is left to print, and end."""
        with self._changed:
            if self._news != self._shown:
                self._print()
            self._ended = True
            self._changed.notify()

    @property
    def elapsed(self) -> float:
        """Return the seconds since the step began."""
        return self._clock() - self._began

    def say(self, line: str, news: object = None) -> None:
        """Take a line, and print it if it is news and not too early; ``news`` is what counts where the line says more."""
        with self._changed:
            self._line = line
            self._news = line if news is None else news
            if self._news != self._shown:
                if self._clock() - self._shown_at >= self._pause:
                    self._print()
                self._changed.notify()

    def _watch(self) -> None:
        """Print what had to wait, and what has been said before when it was long ago."""
        with self._changed:
            while not self._ended:
                now = self._clock()
                due = self._shown_at + self._pause if self._news != self._shown else self._spoke_at + self._silence
                if now >= due:
                    self._print()
                else:
                    self._changed.wait(due - now)

    def _print(self) -> None:
        """Print the newest line."""
        self._shown = self._news
        self._shown_at = self._spoke_at = self._clock()
        self._show(f"{self.elapsed:7.1f} s  {self._line}")
