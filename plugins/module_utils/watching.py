# SPDX-License-Identifier: GPL-3.0-or-later
"""List and watch several kinds at once, resumed for as long as a deadline allows; clock and deadline are parameters."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from .errors import DeliveryError, Forbidden, Gone, InvalidRequest, NotFound, Unavailable
from .model import Cluster, Query, WatchEvent, metadata

LONGEST_WATCH = 60.0
LONGEST_PAUSE = 2.0
# An API server that has just started may refuse what it allows: its own watches on Roles have not begun yet.
SETTLING = 10.0


class Stream:
    """Lists each query, then watches it from there, and hands out every event in one iteration.

    The first event of a query, and the first after a gap (410 Gone, an API server that was away), is SYNCED with the
    whole list; ``since``, the resourceVersion of an answer, saves the first list. A watch that ends is taken up where it
    was. A refusal (403, 404, 400) is raised in the iteration; an API server that is away is waited for until the
    deadline, and ``is_away`` says so meanwhile.
    """

    def __init__(
        self,
        cluster: Cluster,
        queries: Sequence[Query],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        since: str | None = None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self.deadline = clock() + timeout
        self._queue: queue.Queue[WatchEvent | DeliveryError] = queue.Queue()
        self._stop = threading.Event()
        self._away: set[Query] = set()
        for query in queries:
            threading.Thread(target=self._follow, args=(query, since), daemon=True).start()

    def __enter__(self) -> Stream:
        """Return the stream."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Tell the threads to end with their next event; they are daemons, so that none holds the process up."""
        self._stop.set()

    def events(self, tick: float = 1.0) -> Iterator[WatchEvent | None]:
        """Yield events until the deadline; None each ``tick`` seconds without one, so that a caller can report."""
        while True:
            left = self.deadline - self._clock()
            if left <= 0:
                return
            try:
                event = self._queue.get(timeout=min(tick, left))
            except queue.Empty:
                yield None
                continue
            if isinstance(event, DeliveryError):
                raise event
            yield event

    def is_drained(self) -> bool:
        """Return whether every event that came was handed out."""
        return self._queue.empty()

    @property
    def is_away(self) -> bool:
        """Return whether the API server did not answer the last request of a query."""
        return bool(self._away)

    def _follow(self, query: Query, version: str | None) -> None:
        """List, unless there is a version to go on from, and watch one query until the deadline or the end of the stream."""
        pause, refused_until = 0.05, self._clock()
        while not self._stop.is_set() and self._clock() < self.deadline:
            try:
                if version is None:
                    listing = self._cluster.list(query)
                    version = listing.resource_version
                    self._away.discard(query)
                    self._queue.put(WatchEvent("SYNCED", query, items=tuple(listing.items)))
                left = min(LONGEST_WATCH, max(1.0, self.deadline - self._clock()))
                began = self._clock()
                for kind, manifest in self._cluster.watch(query, version, left):
                    if self._stop.is_set():
                        return
                    version = metadata(manifest).get("resourceVersion") or version
                    pause = 0.05
                    if kind != "BOOKMARK":
                        self._queue.put(WatchEvent(kind, query, manifest))
                if self._clock() - began < 1:
                    # Something in between ends watches at once.
                    self._stop.wait(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
            except Gone:
                version = None
            except Unavailable:
                # Where it stood is not known to one that starts again; a list that is answered says that it is back.
                version = None
                self._away.add(query)
                refused_until = self._clock() + SETTLING
                self._stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            except (Forbidden, NotFound, InvalidRequest) as error:
                if self._clock() < refused_until:
                    self._stop.wait(pause)
                    continue
                self._queue.put(WatchEvent("SYNCED", query) if query.optional else error)
                return
            except Exception as error:  # a bug in a thread must not become a silent wait
                self._queue.put(DeliveryError(f"watching {query.kind} failed: {type(error).__name__}: {error}"))
                return
