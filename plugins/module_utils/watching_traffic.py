# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures when a data plane sends a canary its share: asks the route itself, and sees who answers.

That the API server has accepted a weight says nothing about the router, which needs from a tenth of a second to several seconds
to do it, and nothing tells when it has. The requests go to the route as a user's would; ``plan/measuring.py`` decides on the answers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest
from .load import Target, Teller, Traffic, check_headers
from .plan.load import Outcome
from .plan.measuring import ShareTest, check_percent, share_test

# So many connections at once: they carry the default rate while answers take 30 ms, and reach every pod of a gateway that there is.
CONNECTIONS = 16
# A connection is made anew after so many requests, so that a pod of the gateway which is new, or which is avoided, is asked too.
PER_CONNECTION = 100
MOST_RATE = 5000.0
TELL = 0.5
# So many answers tell the share while nothing is decided.
NEWEST = 200

PROBE_OPTIONS: dict[str, dict[str, Any]] = {
    "url": {"type": "str", "required": True},
    "headers": {"type": "dict"},
    "version_header": {"type": "str"},
    "version_field": {"type": "str"},
    "stable": {"type": "str"},
    "canary": {"type": "str"},
    "rate": {"type": "float", "default": 500},
    "timeout": {"type": "float", "default": 2},
    "http2": {"type": "bool", "default": False},
    "validate_certs": {"type": "bool", "default": True},
}


def quiet(_line: str, _news: object = None) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Probe:
    """One way to ask the route, and to tell who answered.

    ``version_header`` or ``version_field`` (a JSON field: its path, or JMESPath) has the value that stable and the canary differ in.
    ``stable`` None: stable is whatever is not the canary's value; ``canary`` None: the canary is whatever is not stable's. ``rate``
    is in requests a second at most, ``timeout`` in seconds for one of them.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    version_header: str | None = None
    version_field: str | None = None
    stable: str | None = None
    canary: str | None = None
    rate: float = 500
    timeout: float = 2
    http2: bool = False
    validate_certs: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Probe:
        """Return the probe that the options ask for; raise InvalidRequest for a mistake, MissingLibrary without httpx."""
        unknown = sorted(set(options) - set(PROBE_OPTIONS))
        if unknown:
            raise InvalidRequest(f'probe has no option "{unknown[0]}"; it has: {", ".join(sorted(PROBE_OPTIONS))}')
        if not options.get("url"):
            raise InvalidRequest("probe needs url, the address of the route as its users ask it")
        chosen = {key: options[key] for key in PROBE_OPTIONS if options.get(key) is not None}
        try:
            for key in ("rate", "timeout"):
                chosen.update({key: float(chosen[key])} if key in chosen else {})
            headers = dict(chosen.get("headers") or {})
        except (TypeError, ValueError) as error:
            raise InvalidRequest(f"probe has an option of the wrong kind: {error}") from None
        for key in ("stable", "canary", "url", "version_header", "version_field"):
            chosen.update({key: str(chosen[key])} if key in chosen else {})
        probe = cls(**{**chosen, "headers": check_headers(headers)})
        probe.check()
        return probe

    def check(self) -> None:
        """Raise InvalidRequest where nothing could be measured like that."""
        if not (self.version_header or self.version_field):
            raise InvalidRequest("probe needs version_header or version_field, which tells whether stable or the canary has answered")
        if self.stable is None and self.canary is None:
            raise InvalidRequest("probe needs canary or stable, the value that one of them answers with; the other may be anything else")
        if self.stable == self.canary:
            raise InvalidRequest(f'probe: stable and canary both answer with "{self.canary}", so nobody can tell which it was')
        if not 0 < self.rate <= MOST_RATE:
            raise InvalidRequest(f"probe: rate must be more than 0 and at most {MOST_RATE:g} requests a second, got {self.rate:g}")
        self.target().check()

    def target(self) -> Target:
        """Return what is asked."""
        return Target(
            self.url,
            headers=self.headers,
            timeout=self.timeout,
            http2=self.http2,
            per_connection=PER_CONNECTION,
            validate_certs=self.validate_certs,
            teller=Teller(self.version_header, self.version_field),
        )

    def side(self, version: str | None) -> bool | None:
        """Return whether the canary gave an answer; None where it was neither of the two."""
        if version is None:
            return None
        if self.canary is not None and version == self.canary:
            return True
        if self.stable is not None and version == self.stable:
            return False
        if self.stable is None:
            return False
        return True if self.canary is None else None


@dataclass(frozen=True)
class Seen:
    """What was measured. ``settled``: the share is as wanted, and ``seconds`` have passed until that was sure.

    ``requests`` were answered or failed by then, ``failed`` of them the latter (no answer, or a status from 400 on). ``share`` is
    the canary's in percent, among the answers that the decision goes by; without one, among the newest. ``by_version`` counts
    the answers of the whole time, those to the old weight too.
    """

    settled: bool
    seconds: float
    requests: int
    failed: int
    share: float
    by_version: Mapping[str, int]

    def report(self) -> dict[str, Any]:
        """Return it as a step's result has it."""
        return {
            "settled": self.settled,
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "failed": self.failed,
            "share": round(self.share, 2),
            "by_version": dict(self.by_version),
        }


class Watcher:
    """Takes outcomes, one at a time, until the test is decided."""

    def __init__(self, probe: Probe, test: ShareTest) -> None:
        self._probe, self._test = probe, test
        self.requests = self.failed = 0
        self.versions: Counter[str] = Counter()
        self._newest: deque[bool] = deque(maxlen=NEWEST)
        self.decided = threading.Event()
        self.decided_at = 0.0

    def take(self, outcome: Outcome) -> None:
        """Count an outcome, and ask the test."""
        if self.decided.is_set():
            return
        self.requests += 1
        self.failed += bool(outcome.error)
        side = self._probe.side(outcome.version)
        if outcome.version is not None:
            self.versions[outcome.version] += 1
        if side is not None:
            self._newest.append(side)
        if side is None:
            # Nobody knows whose it was: a canary without pods answers nothing, and is asked all the same.
            self._test.reset()
        elif self._test.add(side):
            self.decided_at = time.monotonic()
            self.decided.set()

    @property
    def share(self) -> float:
        """Return the canary's share in percent: of the answers that decided, and before of the newest ones."""
        if self.decided.is_set():
            return self._test.share
        newest = list(self._newest)
        return 100 * sum(newest) / len(newest) if newest else 0.0

    def line(self, weight: float) -> str:
        """Return how far it is as one line of progress."""
        seen = ", ".join(f"{name} {count}" for name, count in sorted(dict(self.versions).items())) or "no version yet"
        goal = f"waiting until {weight:g} % go to the canary: {self.share:.0f} % seen"
        return f"{goal}, {self.requests} requests ({seen}), {self.failed} failed"


def watch_share(
    probe: Probe,
    weight: float,
    timeout: float,
    progress: Callable[..., None] = quiet,
    before: float | None = None,
) -> Seen:
    """Ask until it is sure that ``weight`` percent of the requests go to the canary, for ``timeout`` seconds at most.

    ``before`` is the share until now, where known: the more it differs, the sooner it is decided. The chance to say it too early
    is 1 percent, and 0.1 percent at the weights 0 and 100. Where ``before`` is not known, or less than a few points away, the
    newest answers are compared with ``weight``: no more than 5 points beside it, less near the ends. Failed requests are
    counted; at 0 and 100 they begin the count anew, and between they are left out of the share.
    """
    check_percent("weight", weight)
    watcher = Watcher(probe, share_test(weight, before))
    # Bounded by the rate and the time; nobody can wait for longer than that anyway.
    traffic = Traffic(probe.target(), watcher.take, CONNECTIONS, probe.rate, duration=timeout)
    traffic.start()
    try:
        while not watcher.decided.wait(max(0.0, min(TELL, traffic.began + timeout - time.monotonic()))):
            if time.monotonic() - traffic.began >= timeout:
                break
            progress(watcher.line(weight), (watcher.failed > 0, len(watcher.versions)))
    finally:
        traffic.stop()
    settled = watcher.decided.is_set()
    ended = watcher.decided_at if settled else time.monotonic()
    return Seen(settled, ended - traffic.began, watcher.requests, watcher.failed, watcher.share, dict(watcher.versions))
