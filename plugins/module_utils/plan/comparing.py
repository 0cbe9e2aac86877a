# SPDX-License-Identifier: GPL-3.0-or-later
"""How two workloads answered side by side: what a page of metrics says of requests, and whether the one does worse than the other.

A page is in Prometheus' text format. What counts is one histogram with the duration of requests: its count is the number of them,
its status label tells the errors, its sum and its buckets the latency.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest

Sample = dict[str, float]
"""What a pod has counted since it began: ``requests``, ``errors``, ``time`` (ms) and ``le BOUND`` (ms), requests not above it."""

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
UNITS = {"seconds": 1000.0, "milliseconds": 1.0}


@dataclass(frozen=True)
class Series:
    """Which series of a page count: the histogram, the label with the status, and what other labels must be like, as whole regular
    expressions - those of ``match`` must fit, those of ``ignore`` must not.
    """

    histogram: str = "http_request_duration_seconds"
    status: str = "status"
    unit: str = "seconds"
    match: Mapping[str, str] = field(default_factory=dict)
    ignore: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InvalidRequest for what is no regular expression, or no unit."""
        if self.unit not in UNITS:
            raise InvalidRequest(f'unit must be one of {", ".join(UNITS)}, got "{self.unit}"')
        for option, patterns in (("match", self.match), ("ignore", self.ignore)):
            for label, pattern in patterns.items():
                try:
                    re.compile(str(pattern))
                except re.error as error:
                    raise InvalidRequest(f'{option} has "{pattern}" for {label}, which is no regular expression: {error}') from None

    def counts(self, labels: Mapping[str, str]) -> bool:
        """Return whether a series with these labels counts."""
        fits = all(re.fullmatch(str(pattern), labels.get(label, "")) for label, pattern in self.match.items())
        return fits and not any(re.fullmatch(str(pattern), labels.get(label, "")) for label, pattern in self.ignore.items())


def read_page(page: str, series: Series) -> Sample | None:
    """Return what a pod's page says, None where the histogram is not on it."""
    found: Sample = {"requests": 0.0, "errors": 0.0, "time": 0.0}
    is_there, scale = False, UNITS[series.unit]
    for line in page.splitlines():
        if not line.startswith(series.histogram):
            continue
        parsed = _LINE.match(line)
        if not parsed:
            continue
        name, inside, value = parsed.groups()
        suffix = name[len(series.histogram) :]
        if suffix not in ("_count", "_sum", "_bucket"):
            continue
        is_there = True
        labels = {key: text.replace('\\"', '"').replace("\\\\", "\\") for key, text in _LABEL.findall(inside or "")}
        number = float(value)
        if not series.counts(labels) or math.isnan(number):
            continue
        if suffix == "_sum":
            found["time"] += number * scale
        elif suffix == "_count":
            found["requests"] += number
            found["errors"] += number if labels.get(series.status, "").startswith("5") else 0.0
        else:
            bound = float(labels.get("le", "+Inf"))
            key = f"le {bound * scale:g}"
            found[key] = found.get(key, 0.0) + number
    return found if is_there else None


def histograms_on(page: str) -> list[str]:
    """Return the names of the histograms that a page has."""
    return sorted({match.group(1) for match in re.finditer(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)_bucket\{", page, re.MULTILINE)})


def increase(before: Mapping[str, float], after: Mapping[str, float]) -> Sample:
    """Return what was counted between two samples of a pod; one that counts from 0 again has restarted."""
    base = before if after.get("requests", 0) >= before.get("requests", 0) else {}
    return {key: max(0.0, value - base.get(key, 0.0)) for key, value in after.items()}


def added(total: Mapping[str, float], more: Mapping[str, float]) -> Sample:
    """Return the sum of two samples."""
    return {key: total.get(key, 0.0) + more.get(key, 0.0) for key in {*total, *more}}


@dataclass(frozen=True)
class Answers:
    """How a workload answered: so many requests, so many of them errors (5xx), and the latency in ms, None where it is not known."""

    requests: float
    errors: float
    mean: float | None
    p99: float | None

    @classmethod
    def of(cls, sample: Mapping[str, float]) -> Answers:
        """Return what a sample says."""
        requests = sample.get("requests", 0.0)
        return cls(requests, sample.get("errors", 0.0), sample.get("time", 0.0) / requests if requests else None, quantile(sample, 0.99))

    @property
    def error_rate(self) -> float:
        """Return the share of errors, 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    def as_result(self) -> dict[str, Any]:
        """Return it as a result has it: whole requests, latencies in ms."""
        return {
            "requests": round(self.requests),
            "errors": round(self.errors),
            "error_rate": round(self.error_rate, 5),
            "mean": None if self.mean is None else round(self.mean, 2),
            "p99": None if self.p99 is None else round(self.p99, 2),
        }

    def words(self) -> str:
        """Return it as a sentence has it."""
        told = f"{self.requests:.0f} requests, {100 * self.error_rate:.3g} % errors"
        return told + ("" if self.mean is None or self.p99 is None else f", mean {self.mean:.3g} ms, p99 {self.p99:.3g} ms")


def quantile(sample: Mapping[str, float], share: float) -> float | None:
    """Return a quantile in ms by the buckets, evenly spread within one as Prometheus has it; the last bound for what is above it."""
    bounds = sorted((float(key[3:]), value) for key, value in sample.items() if key.startswith("le "))
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank, lower, below = share * bounds[-1][1], 0.0, 0.0
    for bound, value in bounds:
        if value >= rank:
            if math.isinf(bound):
                return lower or None
            return lower + (bound - lower) * ((rank - below) / (value - below) if value > below else 1.0)
        lower, below = bound, value
    return lower


@dataclass(frozen=True)
class Limits:
    """How much worse the candidate may be: its error rate by so much more, its mean and p99 so many times as long.

    Up to ``grace`` ms more are let pass in any case. Fewer than ``requests`` on a side say nothing.
    """

    error_rate: float = 0.01
    latency: float = 1.5
    grace: float = 10.0
    requests: int = 20

    def check(self) -> None:
        """Raise InvalidRequest for a limit that is none."""
        if not 0 <= self.error_rate <= 1:
            raise InvalidRequest(f"max_error_rate must be between 0 and 1 (0.01 is one of a hundred), got {self.error_rate:g}")
        if self.latency < 1:
            raise InvalidRequest(f"max_latency must be 1 (as long as the baseline's) or more, got {self.latency:g}")
        if self.grace < 0 or self.requests < 1:
            raise InvalidRequest(f"latency_grace must be 0 ms or more and min_requests 1 or more, got {self.grace:g} and {self.requests}")


def judge(baseline: Answers, candidate: Answers, limits: Limits) -> tuple[str, list[str]]:
    """Return the verdict - pass, fail, inconclusive - and a sentence for each limit that does not hold."""
    few = [
        f"the {name} answered {found.requests:.0f} requests and {limits.requests} are needed"
        for name, found in (("baseline", baseline), ("candidate", candidate))
        if found.requests < limits.requests
    ]
    if few:
        return "inconclusive", few
    broken: list[str] = []
    if candidate.error_rate > baseline.error_rate + limits.error_rate:
        broken.append(
            f"{100 * candidate.error_rate:.3g} % of the candidate's answers are errors, the baseline's are"
            f" {100 * baseline.error_rate:.3g} %, and {100 * limits.error_rate:.3g} points more are let pass"
        )
    for name in ("mean", "p99"):
        mine, theirs = getattr(candidate, name), getattr(baseline, name)
        if mine is not None and theirs is not None and mine > max(theirs * limits.latency, theirs + limits.grace):
            broken.append(
                f"the candidate's {name} is {mine:.3g} ms, the baseline's {theirs:.3g} ms, and {limits.latency:g} times that is let pass"
            )
    return ("fail" if broken else "pass"), broken
