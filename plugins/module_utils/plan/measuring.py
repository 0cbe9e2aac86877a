# SPDX-License-Identifier: GPL-3.0-or-later
"""When it is sure that a canary gets its share: tests on a stream of answers, each of which is the canary's or not.

A data plane goes from one share to another at a moment that nobody knows. Where the old share is known, the question is which
of the two the answers look like, and since when: Page's CUSUM, which is Wald's sequential test begun anew whenever the answers
look like the old share. Each answer adds the logarithm of how much likelier it is at the new share than at the old; a sum that
falls to 0 is begun anew; a sum that passes a limit decides.

The limit keeps the chance to decide while the old share still holds below a risk that is stated. The likelihood ratio is a
martingale of mean 1 at the old share, so an attempt that begins with one answer passes the limit with a chance of
``exp(first - limit)`` at most (Ville's inequality). The k-th attempt may spend ``risk / (k * (k + 1))`` of it, and the sum of
these over all k is the risk, for however long it takes.

At 0 and 100 percent that is exact: an answer of the other side is impossible at the new share, so it begins the count anew, and
what decides is a number of answers in a row that is unlikely at the old share p of the other side: ``(1 - p) ** n``.

The test tells the new share from the old one, and not from any third. So what decides is compared with the new share too: where it
would be a rare thing there, that is no decision, and the next attempt begins.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from ..errors import InvalidRequest

# The chance to decide although the data plane still does the old share.
RISK = 0.01
# At 0 and 100 percent somebody scales pods down afterwards. With n pods of a gateway of which one alone still does the old
# share, the chance to miss that is RISK_AT_END ** (1 / n) at most: 3 percent with two.
RISK_AT_END = 0.001
# The old share of the side that must end, where nobody says what it was: the smallest that a weight in whole percent has.
SMALLEST = 1.0
# An old share of 0 is taken for this part of the new one, so that one stray answer does not decide: two soon after each other do.
FAINT = 0.001
# What decides must not be rarer than this at the new share.
RARE = 0.005
# Nothing is decided by fewer answers than this. A share is then one, and not two of two; and 0 and 100 percent are not taken for
# there while some pods of the gateway lag behind: with half of what the old share was 50, 0.75 ** 50 is nothing.
FEWEST = 50
# Two shares that take more answers than this to be told apart are taken for one: a window is compared with the new share.
MOST_ANSWERS = 2000
# 99 percent of all windows lie within so many standard deviations.
DEVIATIONS = 2.576
NARROWEST, WIDEST = 1.0, 5.0


class ShareTest(Protocol):
    """Takes answers one after another and says whether the share is as wanted."""

    def add(self, canary: bool) -> bool:
        """Take an answer; return whether it is decided."""

    def reset(self) -> None:
        """Forget the answers: something came that neither side explains."""

    @property
    def share(self) -> float:
        """Return the percent of the canary among the answers that the test goes by."""


def check_percent(name: str, percent: float) -> None:
    """Raise InvalidRequest for a weight that is none."""
    if not (math.isfinite(percent) and 0 <= percent <= 100):
        raise InvalidRequest(f"{name} must be between 0 and 100 percent, got {percent:g}")


def share_test(weight: float, before: float | None = None) -> ShareTest:
    """Return the test of whether the canary gets ``weight`` percent now; ``before`` is what it got until now, if known."""
    check_percent("weight", weight)
    if before is not None:
        check_percent("before", before)
    if weight in (0, 100):
        old = before if before not in (None, weight) else abs(weight - SMALLEST)
        return Cusum(weight, float(old or 0), RISK_AT_END)
    if before is None or before == weight or expected_answers(weight, before) > MOST_ANSWERS:
        return Window(weight)
    return Cusum(weight, before, RISK)


def expected_answers(weight: float, before: float) -> float:
    """Return how many answers it takes about, from the moment at which the share changes, to tell the new from the old."""
    risk = RISK_AT_END if weight in (0, 100) else RISK
    gains, new = _gains(weight / 100, before / 100), weight / 100
    drift = sum(share * gain for share, gain in ((1 - new, gains[0]), (new, gains[1])) if share)
    # The limit of the fifth attempt.
    answers = math.inf if drift <= 0 else (math.log(30 / risk) + max(gains)) / drift
    return max(answers, FEWEST)


def _gains(new: float, old: float) -> tuple[float, float]:
    """Return what an answer of stable, and what one of the canary adds to the sum: the logarithm of new over old likelihood."""
    old = min(max(old, new * FAINT), 1 - (1 - new) * FAINT)
    return _log_ratio(1 - new, 1 - old), _log_ratio(new, old)


def _log_ratio(new: float, old: float) -> float:
    """Return the logarithm of a ratio; what cannot be at the new share begins the count anew."""
    return math.log(new / old) if new > 0 else -math.inf


def is_rare(canary: int, answers: int, share: float, is_more: bool) -> bool:
    """Return whether so many of the canary's or more - or fewer, for ``is_more`` false - are rare at this share (0 to 1)."""
    if not 0 < share < 1 or not answers:
        return False
    tail = range(canary, answers + 1) if is_more else range(canary + 1)
    chance = 0.0
    for count in tail:
        ways = math.lgamma(answers + 1) - math.lgamma(count + 1) - math.lgamma(answers - count + 1)
        chance += math.exp(ways + count * math.log(share) + (answers - count) * math.log1p(-share))
    return chance < RARE


@dataclass
class Tally:
    """How many answers, and how many of them the canary's."""

    answers: int = 0
    canary: int = 0

    def add(self, canary: bool) -> None:
        """Count an answer."""
        self.answers += 1
        self.canary += canary

    @property
    def share(self) -> float:
        """Return the percent of the canary; 0 without an answer."""
        return 100 * self.canary / self.answers if self.answers else 0.0


class Cusum:
    """Tells a new share from the old one, with a chance of ``risk`` at most to do so while the old one holds."""

    def __init__(self, weight: float, before: float, risk: float = RISK) -> None:
        self._share, self._is_more = weight / 100, weight > before
        self._gains = _gains(weight / 100, before / 100)
        self._risk = risk
        self._attempts = 0
        self._fewest = FEWEST
        self._sum = 0.0
        self._limit = math.inf
        self._tally = Tally()

    def add(self, canary: bool) -> bool:
        """Take an answer; return whether the answers show the new share."""
        gain = self._gains[canary]
        if self._sum <= 0:
            self._tally = Tally()
            if gain > 0:
                self._attempts += 1
                self._limit = gain + math.log(self._attempts * (self._attempts + 1) / self._risk)
        self._tally.add(canary)
        self._sum = max(0.0, self._sum + gain)
        if self._sum <= 0 or self._sum < self._limit or self._tally.answers < self._fewest:
            return False
        rest = self._rest()
        if is_rare(rest.canary, rest.answers, self._share, self._is_more):
            # What looks like a third share must look like the new one for longer.
            self._fewest *= 2
            self.reset()
            return False
        return True

    def reset(self) -> None:
        """Begin anew."""
        self._sum = 0.0

    def _rest(self) -> Tally:
        """Return the answers of the attempt without its first, which always is one that speaks for the new share."""
        if self._tally.answers < 2:
            return self._tally
        return Tally(self._tally.answers - 1, self._tally.canary - int(self._is_more))

    @property
    def share(self) -> float:
        """Return the percent of the canary since the attempt began."""
        return self._rest().share


class Window:
    """Tells that the newest answers are what the share would give, no more than a few points beside it.

    How many points: half of the way to the nearer end, 1 at least and 5 at most. The window is as long as it must be, so that
    99 of 100 windows at exactly this share lie within.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self.tolerance = min(max(min(weight, 100 - weight) / 2, NARROWEST), WIDEST)
        share = weight / 100
        self.size = math.ceil((DEVIATIONS * 100 / self.tolerance) ** 2 * share * (1 - share))
        self._newest: deque[bool] = deque(maxlen=self.size)
        self._canary = 0

    def add(self, canary: bool) -> bool:
        """Take an answer; return whether the newest ones are within, with both sides among them."""
        if len(self._newest) == self.size:
            self._canary -= self._newest[0]
        self._newest.append(canary)
        self._canary += canary
        is_full = len(self._newest) == self.size
        return is_full and 0 < self._canary < self.size and abs(self.share - self._weight) <= self.tolerance

    def reset(self) -> None:
        """Forget nothing: an answer of nobody says nothing of a share between the ends."""

    @property
    def share(self) -> float:
        """Return the percent of the canary in the window."""
        return 100 * self._canary / len(self._newest) if self._newest else 0.0
