# SPDX-License-Identifier: GPL-3.0-or-later
"""A load test: what its options ask for, the traffic, and whether the limits hold."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import DeliveryError, InvalidRequest, Unavailable
from .load import MOST_CONCURRENCY, MOST_REQUESTS, MOST_SECONDS, Target, Teller, Traffic, check_headers, check_seconds
from .plan.load import Numbers, Outcome, check_thresholds, missed, summary

VERSIONS = ("1.1", "2")
DEFAULT_REQUESTS = 100
# How often it is told how far it is; and for how long an answer may take longer than its timeout before it is given up.
TELL, GRACE = 0.5, 2.0

LOAD_OPTIONS: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "method": {"type": "str", "default": "GET"},
    "headers": {"type": "dict"},
    "body": {"type": "raw"},
    "requests": {"type": "int"},
    "duration": {"type": "float"},
    "rate": {"type": "float"},
    "concurrency": {"type": "int", "default": 10},
    "http_version": {"type": "str", "default": "1.1", "choices": list(VERSIONS)},
    "keep_alive": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 10},
    "status": {"type": "list", "elements": "int"},
    "thresholds": {"type": "dict"},
    "version_header": {"type": "str"},
    "version_field": {"type": "str"},
    "ca_path": {"type": "path"},
}


@dataclass(frozen=True)
class LoadTest:
    """What is asked how often, and the limits. ``requests`` or ``duration`` in seconds ends it, whichever comes first."""

    target: Target
    concurrency: int = 10
    rate: float | None = None
    requests: int = MOST_REQUESTS
    duration: float = MOST_SECONDS
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> LoadTest:
        """Return the test that the options ask for, or raise InvalidRequest or MissingLibrary."""
        headers, body = check_headers(options.get("headers") or {}), options.get("body")
        if isinstance(body, (Mapping, list)):
            body = json.dumps(body)
            headers = (
                headers if any(name.lower() == "content-type" for name in headers) else {**headers, "Content-Type": "application/json"}
            )
        status = options.get("status") or []
        wrong = [code for code in status if not 100 <= code <= 599]
        if wrong:
            raise InvalidRequest(f"status {wrong[0]} is no HTTP status code; they go from 100 to 599")
        target = Target(
            options["url"],
            options["method"].upper(),
            headers,
            b"" if body is None else str(body).encode(),
            options["timeout"],
            options["http_version"] == "2",
            0 if options["keep_alive"] else 1,
            options.get("validate_certs") is not False,
            options.get("ca_path"),
            frozenset(status),
            Teller(options.get("version_header"), options.get("version_field")),
        )
        requests, duration = options.get("requests"), options.get("duration")
        if requests is None and duration is None:
            requests = DEFAULT_REQUESTS
        thresholds = check_thresholds(options.get("thresholds") or {})
        test = cls(target, options["concurrency"], options.get("rate"), requests or MOST_REQUESTS, duration or MOST_SECONDS, thresholds)
        test.check(requests, duration)
        return test

    def check(self, requests: int | None, duration: float | None) -> None:
        """Raise InvalidRequest where there is too much or too little of something."""
        if requests is not None and not 1 <= requests <= MOST_REQUESTS:
            raise InvalidRequest(f"requests must be between 1 and {MOST_REQUESTS}, got {requests}")
        if duration is not None and not (math.isfinite(duration) and 0 < duration <= MOST_SECONDS):
            raise InvalidRequest(f"duration must be more than 0 and at most {MOST_SECONDS:g} seconds, got {duration:g}")
        if not 1 <= self.concurrency <= MOST_CONCURRENCY:
            raise InvalidRequest(f"concurrency must be between 1 and {MOST_CONCURRENCY}, got {self.concurrency}")
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise InvalidRequest(f"rate must be more than 0 requests a second, got {self.rate:g}")
        if self.rate and requests is None and self.rate * self.duration > MOST_REQUESTS:
            raise InvalidRequest(
                f"rate {self.rate:g} for {self.duration:g} seconds is {self.rate * self.duration:.0f} requests, and"
                f" {MOST_REQUESTS} is the most; lower rate or duration"
            )
        if self.rate and requests is not None and duration is None and requests / self.rate > MOST_SECONDS:
            raise InvalidRequest(f"{requests} requests at rate {self.rate:g} take more than {MOST_SECONDS:g} seconds; raise rate")
        check_seconds("timeout", self.target.timeout)
        self.target.check()

    @property
    def planned(self) -> str:
        """Return how much is asked for, in words."""
        parts = [] if self.requests == MOST_REQUESTS else [f"{self.requests} requests"]
        parts += [] if self.duration == MOST_SECONDS else [f"{self.duration:g} s"]
        rate = f" at {self.rate:g} a second" if self.rate else ""
        return f"{' or '.join(parts)}{rate} over {self.concurrency} connections"

    def foresee(self) -> dict[str, Any]:
        """Return the result of check mode, in which no request is made."""
        lines = [f"check mode: no request was made; {self.planned} would go to {self.target.url}"]
        return {**Numbers().report(0), "thresholds": dict(self.thresholds), "missed": [], "summary": lines}

    def run(self, progress: Callable[..., None], clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
        """Make the requests and return the numbers; raise DeliveryError(ThresholdMissed) with them where a limit does not hold."""
        numbers, told = Numbers(), self.target.teller.tells
        last = [0.0]

        def take(outcome: Outcome) -> None:
            numbers.add(outcome, told)
            last[0] = outcome.ended

        traffic = Traffic(self.target, take, self.concurrency, self.rate, self.requests, self.duration)
        planned = "" if self.requests == MOST_REQUESTS else f" of {self.requests}"
        end = self.duration + self.target.timeout + GRACE
        traffic.start()
        try:
            while not traffic.is_over(TELL) and clock() - traffic.began < end:
                progress(numbers.line(clock() - traffic.began, planned), tuple(sorted(dict(numbers.errors))))
        finally:
            traffic.stop()
        found = numbers.report(max(last[0] - traffic.began, 0.0))
        faults = missed(self.thresholds, found)
        lines = summary(self.target.url, found, numbers.said, self.thresholds)
        found.update(thresholds=dict(self.thresholds), missed=faults, summary=lines)
        if not numbers.answered:
            said = "; ".join(f"{kind} {number}: {numbers.said[kind]}" for kind, number in found["errors"].items())
            raise Unavailable(f"none of {found['requests']} requests to {self.target.url} was answered ({said}); check url", **found)
        if faults:
            raise DeliveryError(f"{self.target.url} misses its thresholds: {'; '.join(faults)}", reason="ThresholdMissed", **found)
        return found
