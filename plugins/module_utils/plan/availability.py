# SPDX-License-Identifier: GPL-3.0-or-later
"""How available a workload was while it was looked at: the fewest available pods, and for how long there was none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..model import Manifest
from .rollout import RolloutStatus, condition, is_ready


@dataclass
class Availability:
    """What the looks so far have shown. Times are seconds since the first look.

    Down means that no pod is ready. One that is on its way out counts for as long as it is ready: a Service goes on
    sending to it where there is no other.
    """

    least: int | None = None
    down_since: float | None = None
    downtime: float = 0.0
    seen_at: float = 0.0

    def note(self, at: float, status: RolloutStatus, pods: Iterable[Manifest] | None) -> None:
        """Take in a look at the workload and its pods; ``pods`` is None while they are not known."""
        self.seen_at = at
        available, serving = status.available, status.ready
        if pods is not None:
            pods = list(pods)
            # Each of the two lags behind the other in one direction.
            available = min(available, sum(1 for pod in pods if is_ready(pod)))
            serving = sum(1 for pod in pods if condition(pod, "Ready").get("status") == "True")
        self.least = available if self.least is None else min(self.least, available)
        if self.down_since is not None and (serving or status.wanted == 0):
            self.downtime += at - self.down_since
            self.down_since = None
        elif self.down_since is None and not serving and status.wanted and pods is not None:
            self.down_since = at

    def seconds_down(self, status: RolloutStatus) -> float | None:
        """Return for how long no pod was ready; None for a workload that shall have none."""
        if status.wanted == 0:
            return None
        now = self.seen_at - self.down_since if self.down_since is not None else 0.0
        return round(self.downtime + now, 3)

    def to_dict(self) -> dict[str, Any]:
        """Return what another call needs to go on."""
        return {"least": self.least, "down_since": self.down_since, "downtime": self.downtime, "seen_at": self.seen_at}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Availability:
        """Return what ``to_dict`` has told."""
        least, since = told["least"], told["down_since"]
        return cls(
            None if least is None else int(least),
            None if since is None else float(since),
            float(told["downtime"]),
            float(told["seen_at"]),
        )
