# SPDX-License-Identifier: GPL-3.0-or-later
"""What a wait for a rollout is for: the whole of it, or so many pods of the newest revision, there or ready."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidRequest
from ..model import Manifest, Ref
from .rollout import RolloutStatus, pods_in_words


@dataclass(frozen=True)
class Goal:
    """``min_updated`` pods of the newest revision that exist, ``min_ready`` that are ready; with neither, the whole rollout.

    ``revision`` is the one that must be the newest; ``grace`` is how long a pod may find no node, in seconds.
    """

    min_updated: int | None = None
    min_ready: int | None = None
    revision: int | None = None
    grace: float = 30.0

    def __post_init__(self) -> None:
        """Raise InvalidRequest for a number of pods that no workload has."""
        for option, count in self._counts().items():
            if count < 0:
                raise InvalidRequest(f"{option} must be 0 or more, got {count}")

    @property
    def is_whole(self) -> bool:
        """Return whether it is the whole rollout."""
        return not self._counts()

    @property
    def words(self) -> str:
        """Return what the workload is to do, as a sentence has it."""
        if self.is_whole:
            return "complete its rollout"
        there = [pods_in_words(self.min_updated)] if self.min_updated is not None else []
        ready = [pods_in_words(self.min_ready, "ready")] if self.min_ready is not None else []
        return f"have {' and '.join(there + ready)} of its newest revision"

    def _counts(self) -> dict[str, int]:
        """Return the numbers of pods that were asked for, by option."""
        asked = {"min_updated": self.min_updated, "min_ready": self.min_ready}
        return {option: count for option, count in asked.items() if count is not None}

    def check(self, ref: Ref, workload: Manifest, status: RolloutStatus) -> None:
        """Raise InvalidRequest where the workload will never have as many pods of its newest revision."""
        if status.observed_generation < status.generation and ref.kind != "Deployment":
            # How many pods a DaemonSet has, and where a partition begins to count, is only known after that.
            return
        most = most_updated(workload, status)
        for option, count in self._counts().items():
            if count > most:
                why = f"asks for {pods_in_words(status.wanted)}"
                if most < status.wanted:
                    why += f", of which its partition lets {most} be of the newest revision"
                raise InvalidRequest(f"{option} is {count}, but {ref} {why}; use {most} or less")

    def is_met(self, status: RolloutStatus, ready: int) -> bool:
        """Return whether there is nothing more to wait for; ``ready`` counts the ready pods of the newest revision."""
        if status.done:
            return True
        if self.is_whole or status.observed_generation < status.generation:
            return False
        return status.updated >= (self.min_updated or 0) and ready >= (self.min_ready or 0)

    def is_stuck(self, status: RolloutStatus, coming: int) -> bool:
        """Return whether the rollout stands still before the goal; ``coming`` counts the pods that the newest revision will have."""
        if status.phase not in ("paused", "on_delete"):
            return False
        return self.is_whole or max(status.updated, coming) < max(self._counts().values())

    def line(self, status: RolloutStatus, ready: int) -> str:
        """Return how far it is as one line of progress."""
        if self.is_whole or status.done or status.observed_generation < status.generation:
            return status.line()
        missing = []
        if self.min_updated is not None and status.updated < self.min_updated:
            missing.append(pods_in_words(self.min_updated - status.updated, "more"))
        if self.min_ready is not None and ready < self.min_ready:
            missing.append(pods_in_words(self.min_ready - ready, "more ready"))
        if not missing:
            return f"{status.counts()}: enough of the new revision"
        return f"{status.counts()}: waiting for {' and '.join(missing)} of the new revision"


def most_updated(workload: Manifest, status: RolloutStatus) -> int:
    """Return how many pods can be of the newest revision: a StatefulSet's partition holds the others back."""
    if workload["kind"] != "StatefulSet":
        return status.wanted
    told = workload.get("status") or {}
    if told.get("updateRevision") == told.get("currentRevision"):
        return status.wanted
    partition = (((workload.get("spec") or {}).get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition") or 0
    return max(status.wanted - partition, 0)
