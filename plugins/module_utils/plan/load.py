# SPDX-License-Identifier: GPL-3.0-or-later
"""What the requests of a load test came to: percentiles, errors by kind, versions, and the limits that were asked for."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LATENCIES = (*PERCENTILES, "max", "mean")
# What a threshold may be set on: what must not be more, and what must not be less.
AT_MOST, AT_LEAST = (*LATENCIES, "error_rate", "errors"), ("rps",)
UNKNOWN = "unknown"
# Sent so many seconds after it was due: nothing was free to send it.
LATE = 0.01
LONGEST = 60


@dataclass(frozen=True)
class Outcome:
    """One request. Times are seconds of one clock; ``due`` is when it should have been sent.

    ``status`` is 0 where no answer came; ``error`` is the kind of the fault, empty for an answer that passes, and ``said`` the
    fault in its own words. ``version`` is None where the answer does not tell it. ``is_timeout``: it waited all of its time.
    """

    due: float
    sent: float
    ended: float
    status: int = 0
    error: str = ""
    said: str = ""
    version: str | None = None
    repeated: bool = False

    @property
    def latency(self) -> float:
        """Return the seconds from when the request was due to the end of its answer."""
        return self.ended - self.due

    @property
    def has_latency(self) -> bool:
        """Return whether its time is one of a service: it was answered, or it waited in vain."""
        return self.status > 0 or self.error == "timeout"


@dataclass
class Part:
    """The requests of one version, or of all: latencies in milliseconds."""

    count: int = 0
    failed: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))

    def add(self, outcome: Outcome) -> None:
        """Count a request."""
        self.count += 1
        self.failed += bool(outcome.error)
        if outcome.has_latency:
            self.latencies.append(outcome.latency * 1000)

    def times(self) -> dict[str, float | None]:
        """Return the percentiles, the maximum and the mean in milliseconds; None without a latency."""
        ordered = sorted(self.latencies)
        if not ordered:
            return {name: None for name in LATENCIES}
        found: dict[str, float | None] = {name: round(percentile(ordered, share), 2) for name, share in PERCENTILES.items()}
        return {**found, "max": round(ordered[-1], 2), "mean": round(sum(ordered) / len(ordered), 2)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of all is not above (the nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


@dataclass
class Numbers:
    """All requests of a load test as they come in."""

    whole: Part = field(default_factory=Part)
    versions: dict[str, Part] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    late: int = 0
    repeated: int = 0

    def add(self, outcome: Outcome, told: bool) -> None:
        """Count a request; ``told`` says whether answers are asked for their version."""
        self.whole.add(outcome)
        self.answered += outcome.status > 0
        self.late += outcome.sent - outcome.due > LATE
        self.repeated += outcome.repeated
        if outcome.error:
            self.errors[outcome.error] += 1
            self.said.setdefault(outcome.error, outcome.said)
        if told and outcome.status:
            self.versions.setdefault(UNKNOWN if outcome.version is None else outcome.version, Part()).add(outcome)

    def report(self, seconds: float) -> dict[str, Any]:
        """Return all numbers; ``seconds`` is how long the requests took."""
        count, failed = self.whole.count, self.whole.failed
        return {
            "requests": count,
            "failures": failed,
            "error_rate": round(failed / count, 6) if count else 0.0,
            "errors": dict(sorted(self.errors.items())),
            "seconds": round(seconds, 3),
            "rps": round((count - failed) / seconds, 2) if seconds > 0 else 0.0,
            "late": self.late,
            "repeated": self.repeated,
            **self.whole.times(),
            "by_version": {name: self._version(part) for name, part in sorted(self.versions.items())},
        }

    def _version(self, part: Part) -> dict[str, Any]:
        """Return the numbers of one version; its share is in percent of the answers."""
        times = part.times()
        shown = {name: times[name] for name in ("p50", "p95", "p99")}
        return {"requests": part.count, "share": round(100 * part.count / max(1, self.answered), 2), "failures": part.failed, **shown}

    def line(self, elapsed: float, planned: str) -> str:
        """Return how far it is as one line of progress."""
        count = self.whole.count
        rate = f"{count / elapsed:.0f} a second" if elapsed > 0 else "just begun"
        faults = ", ".join(f"{kind} {number}" for kind, number in sorted(dict(self.errors).items()))
        return f"{count} requests{planned}, {rate}, {self.whole.failed} failed" + (f" ({faults})" if faults else "")


def check_thresholds(thresholds: Mapping[str, Any]) -> dict[str, float]:
    """Return the limits as numbers; raise InvalidRequest for one that is none. ``error_rate`` may be in percent: ``1%``."""
    found: dict[str, float] = {}
    for name, value in thresholds.items():
        if name not in AT_MOST + AT_LEAST:
            raise InvalidRequest(f'thresholds: there is none on "{name}"; there are: {", ".join(AT_MOST + AT_LEAST)}')
        text = str(value).strip()
        percent = name == "error_rate" and text.endswith("%")
        try:
            number = float(text[:-1]) / 100 if percent else float(text)
        except ValueError:
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number) or number < 0:
            raise InvalidRequest(f'thresholds: {name} must be a number that is 0 or more, got "{value}"')
        if name == "error_rate" and number > 1:
            raise InvalidRequest(f'thresholds: error_rate is a share between 0 and 1, got "{value}"; write 0.01 or 1%')
        found[name] = number
    return found


def missed(thresholds: Mapping[str, float], numbers: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each limit that does not hold."""
    found = []
    for name, limit in thresholds.items():
        value = numbers["failures"] if name == "errors" else numbers[name]
        if value is None:
            found.append(f"{name} is not known, since no request was answered, and must be {_words(name, limit)} at most")
        elif name in AT_LEAST and value < limit:
            found.append(f"{name} is {_words(name, value)} and must be {_words(name, limit)} at least")
        elif name in AT_MOST and value > limit:
            found.append(f"{name} is {_words(name, value)} and must be {_words(name, limit)} at most")
    return found


def _words(name: str, value: float) -> str:
    """Return a number with its unit."""
    if name in LATENCIES:
        return f"{value:.10g} ms"
    if name == "error_rate":
        return f"{100 * value:.4g} %"
    return f"{value:.10g} a second" if name == "rps" else f"{value:.10g}"


def summary(url: str, numbers: Mapping[str, Any], said: Mapping[str, str], limits: Mapping[str, float]) -> list[str]:
    """Return the numbers as a person likes to read them."""
    rate = f"{numbers['rps']:.10g} good answers a second"
    lines = [
        f"{url}: {numbers['requests']} requests in {numbers['seconds']:g} s, {rate}, {_words('error_rate', numbers['error_rate'])} failed"
    ]
    rows = [["LATENCY, MS", *(name.upper() for name in LATENCIES)], ["all", *(_number(numbers[name]) for name in LATENCIES)]]
    lines += ["", *_aligned(rows)]
    if numbers["by_version"]:
        rows = [["VERSION", "REQUESTS", "SHARE, %", "FAILED", "P50", "P95", "P99"]]
        for name, entry in numbers["by_version"].items():
            rows.append([name, *(_number(entry[key]) for key in ("requests", "share", "failures", "p50", "p95", "p99"))])
        lines += ["", *_aligned(rows)]
    if numbers["errors"]:
        lines += [
            "",
            *_aligned([["ERROR", "REQUESTS", "FIRST"], *([k, str(n), _cut(said.get(k, ""))] for k, n in numbers["errors"].items())], 2),
        ]
    if numbers["late"]:
        lines += ["", f"{numbers['late']} were sent late: all connections were busy (raise concurrency), or this host was"]
    if limits:
        faults = missed(limits, numbers)
        lines += ["", *(f"missed: {fault}" for fault in faults)] if faults else ["", f"thresholds that hold: {', '.join(limits)}"]
    return lines


def _number(value: Any) -> str:
    """Return a number of a table, or a dash."""
    return "-" if value is None else f"{value:.10g}"


def _cut(text: str) -> str:
    """Return a text in one line that is not longer than a table bears."""
    found = " ".join(text.split())
    return found if len(found) <= LONGEST else found[: LONGEST - 3] + "..."


def _aligned(rows: Sequence[Sequence[str]], last_left: int | None = None) -> list[str]:
    """Return rows with their columns aligned: the first and, from ``last_left`` on, the last ones left, numbers right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            is_left = column == 0 or (last_left is not None and column >= last_left)
            cells.append(cell.ljust(widths[column]) if is_left else cell.rjust(widths[column]))
        lines.append("  ".join(cells).rstrip())
    return lines
