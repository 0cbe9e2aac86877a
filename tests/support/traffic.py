#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send requests at a steady rate until standard input closes or the time is up, then print what came back, as JSON.

Standard library only: it runs inside the cluster's network namespace, on whatever Python that is. Half of the
connections are kept alive, half are made anew for each request.

A server that ends closes the connections that are kept alive and idle. As every HTTP client does (RFC 9112, section
9.3.1), this one then opens another, and counts how often. Where the two cross on the wire - the request was sent while the
server closed - the request is repeated once on a new connection, as those clients do; that is counted apart. A request
that gets no answer on a new connection failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import select
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Seen:
    """What came back; the timeline has an entry for each time that another version began to answer.

    Times are those at which a request was sent. The gap is from the first one that failed to the last one, the outage the
    longest time in which none succeeded: a single request that fails long after does not count in it.
    """

    sent: int = 0
    failed: int = 0
    reopened: int = 0
    repeated: int = 0
    first_failed: float = 0.0
    last_failed: float = 0.0
    succeeded: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    versions: dict[str, dict[str, float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gap(self) -> float:
        """Return the seconds between the first failed request and the last one."""
        return self.last_failed - self.first_failed

    @property
    def outage(self) -> float:
        """Return the longest time between two requests that succeeded."""
        times = sorted(self.succeeded)
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=0.0)

    def add(self, at: float, version: str, error: str) -> None:
        """Count one request."""
        with self.lock:
            self.sent += 1
            if error:
                self.failed += 1
                self.errors[error] = self.errors.get(error, 0) + 1
                self.first_failed = min(self.first_failed or at, at)
                self.last_failed = max(self.last_failed, at)
            else:
                self.succeeded.append(at)
            entry = self.versions.setdefault(version or "none", {"count": 0, "first": at, "last": at})
            entry["count"] += 1
            entry["last"] = at


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> tuple[str, str]:
    """Make one request; return the version that answered and the error, one of them empty."""
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        return "", f"status {response.status}"
    try:
        return str(json.loads(body).get("version") or "unknown"), ""
    except (ValueError, AttributeError):
        return "unknown", ""


def is_closed(connection: http.client.HTTPConnection) -> bool:
    """Return whether the server has closed a connection that is idle."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])


def client(options: argparse.Namespace, number: int, seen: Seen, stop: threading.Event) -> None:
    """Send this client's share of the requests at their times."""
    where = urlsplit(options.url)
    path = where.path or "/"
    keep = number % 2 == 0
    connection: http.client.HTTPConnection | None = None
    pause = options.clients / options.rate
    due = time.monotonic() + pause * number / options.clients
    while not stop.is_set():
        left = due - time.monotonic()
        if left > 0:
            if stop.wait(left):
                break
        due = max(due + pause, time.monotonic() - 1)
        at, version, error = time.time(), "", ""
        kept = connection is not None
        if connection is not None and is_closed(connection):
            connection.close()
            connection, kept = None, False
            seen.reopened += 1
        for last in (not kept, True):
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=options.timeout)
                version, error = ask(connection, path, options.headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as problem:
                error = type(problem).__name__
                if not last:
                    connection = connection and connection.close()
                    seen.repeated += 1
                    continue
            except (OSError, http.client.HTTPException) as problem:
                error = type(problem).__name__
            break
        seen.add(at, version, error)
        if connection is not None and (error or not keep):
            connection.close()
            connection = None


def wait_for_service(options: argparse.Namespace) -> None:
    """Return when the Service has answered ten times in a row: one that was just made is not yet known to every proxy."""
    where = urlsplit(options.url)
    well, deadline = 0, time.monotonic() + 30
    while well < 10 and time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=1)
            _version, error = ask(connection, where.path or "/", options.headers)
            connection.close()
            well = 0 if error else well + 1
        except (OSError, http.client.HTTPException):
            well = 0
        if not well:
            time.sleep(0.1)


def main() -> None:
    """Send until told to stop, and print what came back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--host")
    parser.add_argument("--header", action="append", default=[], help="one more header, as NAME=VALUE")
    parser.add_argument("--rate", type=float, default=200, help="requests a second, all clients together")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=3)
    parser.add_argument("--seconds", type=float, default=600, help="the most that it sends for")
    options = parser.parse_args()
    options.headers = {**({"Host": options.host} if options.host else {}), **dict(entry.split("=", 1) for entry in options.header)}
    seen, stop = Seen(), threading.Event()
    wait_for_service(options)
    print("started", flush=True)
    started = time.time()
    threads = [threading.Thread(target=client, args=(options, number, seen, stop), daemon=True) for number in range(options.clients)]
    for thread in threads:
        thread.start()
    threading.Timer(options.seconds, stop.set).start()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    stop.wait()
    for thread in threads:
        thread.join(options.timeout + 1)
    result: dict[str, Any] = {
        "sent": seen.sent,
        "failed": seen.failed,
        "errors": seen.errors,
        "gap": round(seen.gap, 3),
        "outage": round(seen.outage, 3),
        "reopened": seen.reopened,
        "repeated": seen.repeated,
        "versions": seen.versions,
        "started": started,
        "seconds": time.time() - started,
    }
    print(json.dumps(result), flush=True)
    # The timer may still wait; nothing is left to do.
    os._exit(0)


if __name__ == "__main__":
    main()
