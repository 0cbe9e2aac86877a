#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Release podinfo on a real cluster with traffic all the time: a good version, two bad ones, and the way back.

Ends with tables of what happened. Nothing is printed that was not measured in this run.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from support.live import APPLICATION, Shop, Traffic, local_cluster

IMAGE = "localhost:32000/podinfo"
BACK = "Recover | All traffic goes back to the color before"
QUIET = re.compile(r"Lock \| |Recover \| (Remember|Report)")


def say(line: str = "") -> None:
    """Print a line at once."""
    print(line, flush=True)


def main() -> int:
    """Run the demo and return 0 where everything came as it should."""
    kubeconfig = os.environ.get("DELIVERY_KUBECONFIG") or local_cluster()
    say(f"cluster: {kubeconfig}")
    with Shop(kubeconfig, f"demo-{os.getpid()}") as shop:
        say(f"namespace {shop.namespace}: podinfo 1.0.0 as blue, behind the Service web")
        shop.apply(APPLICATION)
        rows: list[tuple[Any, ...]] = []
        with shop.traffic(200) as traffic:
            rows.append(release(shop, "2.0.0", "a good version: it goes to green", "green"))
            rows.append(release(shop, "broken-500", "a bad version: the smoke test catches it, no user sees it", "green"))
            rows.append(
                release(shop, "broken-late", "it passes the smoke test and fails after the switch: it is taken back", "green", observe=15)
            )
            rows.append(release(shop, "3.0.0", "another good version", "blue"))
            rows.append(release(shop, "", "the way back, by hand", "green", state="rolled_back"))
        return report(rows, traffic)


def release(shop: Shop, tag: str, words: str, expected: str, observe: int = 4, state: str = "released") -> tuple[Any, ...]:
    """Run the playbook once, show its steps as they were, and return a row for the table."""
    say()
    say(f"== {tag or state}: {words}")
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as steps:
        variables = shop.variables(f"{IMAGE}:{tag or '2.0.0'}", blue_green_state=state, blue_green_observe=observe)
        started = time.monotonic()
        before = shop.color()
        done = shop.playbook(
            "progressive.delivery.blue_green",
            variables,
            ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "demo" / "callback"),
            ANSIBLE_CALLBACKS_ENABLED="steps",
            DEMO_STEPS=steps.name,
        )
        seconds = time.monotonic() - started
        failure, taken_back = "", False
        for line in map(json.loads, steps.read().splitlines()):
            failure = line["msg"] or failure if line["failed"] else failure
            taken_back = taken_back or (line["name"].endswith(BACK) and line["changed"])
            if QUIET.search(line["name"]) or line["seconds"] is None:
                continue
            mark = "failed" if line["failed"] else "changed" if line["changed"] else "ok"
            say(f"  {line['seconds']:7.2f} s  {mark:<8} {line['name'].removeprefix('progressive.delivery.blue_green : ')}")
    if failure:
        say(f"  {failure}")
    after = shop.color()
    outcome = "done" if done.returncode == 0 else "taken back" if taken_back else "refused" if before == after else "failed"
    return (tag or state, before, after, outcome, seconds, after == expected)


def report(rows: list[tuple[Any, ...]], traffic: Traffic) -> int:
    """Print the tables; return 0 where no request failed and every release ended as it should."""
    seen = traffic.seen
    say()
    say(f"{'release':<14} {'from':<7} {'to':<7} {'outcome':<11} {'seconds':>7}")
    for tag, before, after, outcome, seconds, _expected in rows:
        say(f"{tag:<14} {before:<7} {after:<7} {outcome:<11} {seconds:7.1f}")
    say()
    say(f"requests sent    {seen['sent']:>7}   ({seen['sent'] / seen['seconds']:.0f} a second, half of them on new connections)")
    say(f"requests failed  {seen['failed']:>7}   {seen['errors'] or ''}")
    say(f"connections that a server closed while idle, opened anew: {seen['reopened']}")
    say(f"requests that crossed such a close on the wire, sent again:   {seen['repeated']}")
    say()
    say("who answered     requests   from - to (seconds)")
    for version, entry in sorted(seen["versions"].items(), key=lambda pair: pair[1]["first"]):
        say(f"{version:<16} {entry['count']:>8}   {entry['first'] - seen['started']:6.1f} - {entry['last'] - seen['started']:.1f}")
    say("(a connection that is kept alive stays with the pod it was opened to, until that pod ends)")
    good = [row[3] for row in rows] == ["done", "refused", "taken back", "done", "done"] and all(row[5] for row in rows)
    return 0 if seen["failed"] == 0 and good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DeliveryError as error:
        sys.exit(f"demo: {error.message}")
    except KeyboardInterrupt:
        sys.exit(130)
