# SPDX-License-Identifier: GPL-3.0-or-later
"""Traffic: requests a second of load_test's closed loop, and of peers that do the same requests on the same server, in turn."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from ansible_collections.progressive.delivery.plugins.module_utils.loading import LOAD_OPTIONS, LoadTest
from bench import Bench, median

OURS, SEVERAL = "load_test, 1 connection", "load_test, 8"
CLIENT, CURL = "httpx.Client", "curl, one call"
REQUESTS, CONNECTIONS = 1500, 8
# A server of its own process, so that it shares no interpreter with the client.
SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from support.answering import Server
server = Server()
print(server.url, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Figures:
    """Requests a second of each peer, one figure a round."""

    rates: dict[str, list[float]]


def ours(url: str, connections: int = 1) -> float:
    """Return the requests a second of load_test without a rate."""
    given = {"url": url, "requests": REQUESTS, "concurrency": connections}
    found = LoadTest.of({**{key: entry.get("default") for key, entry in LOAD_OPTIONS.items()}, **given}).run(lambda *_told: None)
    return found["rps"]


def client(url: str) -> float:
    """Return the requests a second of httpx's plain client, one after another."""
    with httpx.Client(trust_env=False) as found:
        found.get(url)
        started = time.monotonic()
        for _number in range(REQUESTS):
            found.get(url)
        return REQUESTS / (time.monotonic() - started)


def curl(url: str) -> float:
    """Return the requests a second of one call of curl that asks again and again over one connection; 0 without curl."""
    started = time.monotonic()
    try:
        done = subprocess.run(["curl", "-sS", "-o", "/dev/null", f"{url}/[1-{REQUESTS}]"], capture_output=True, check=False)
    except FileNotFoundError:
        return 0.0
    return REQUESTS / (time.monotonic() - started) if done.returncode == 0 else 0.0


def measure(_bench: Bench, rounds: int) -> Figures:
    """Let the peers take turns."""
    peers: dict[str, Any] = {OURS: ours, SEVERAL: lambda url: ours(url, CONNECTIONS), CLIENT: client, CURL: curl}
    rates: dict[str, list[float]] = {name: [] for name in peers}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(Path(__file__).resolve().parents[1])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    url = process.stdout.readline().strip() if process.stdout else ""
    try:
        for number in range(rounds + 1):
            for name, peer in peers.items():
                rate = peer(url)
                if number:
                    rates[name].append(rate)
    finally:
        process.communicate(timeout=20)
    return Figures(rates)


def report(found: Figures) -> list[str]:
    """Return the table."""
    lines = [
        f"Traffic, {REQUESTS} requests without a rate (medians of {len(found.rates[OURS])})",
        "",
        f"{'':<26}{'requests a second':>20}{'of ours':>10}",
    ]
    own = median(found.rates[OURS])
    for name, rates in found.rates.items():
        lines.append(f"{name:<26}{median(rates):20.0f}{median(rates) / own:10.2f}")
    return lines


def goals(found: Figures) -> list[tuple[str, bool, str]]:
    """Return the goal: what measures and counts is no slower than the plain client."""
    times = median(found.rates[OURS]) / median(found.rates[CLIENT])
    return [("load_test makes as many requests a second as httpx's plain client, or more", times >= 1, f"{times:.2f} times as many")]
