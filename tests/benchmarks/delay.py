# SPDX-License-Identifier: GPL-3.0-or-later
"""The time between a rollout being complete on the API server and the wait for it being over."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import wait_for_rollout
from ansible_collections.progressive.delivery.plugins.modules import set_image, wait_rollout
from bench import HERE, IMAGE, Bench, BenchError, deployment, median, run
from support.live import Shop

EXECUTE, TASK, CORE, KUBECTL = "execute", "task", "core", "kubectl"
WORDS = {
    TASK: "wait_rollout, as a task",
    EXECUTE: "wait_rollout, its code alone",
    CORE: "kubernetes.core.k8s with wait",
    KUBECTL: "kubectl rollout status",
}
GOAL = 0.1
TIMEOUT = 60
# A wait may have the event a little before the watcher has it. One that ends earlier than this did not wait for it.
EARLY = -0.1


@dataclass(frozen=True)
class Delays:
    """The delays of each way to wait, in seconds; less than 0 is a wait that was over before the rollout was."""

    seconds: dict[str, list[float]]
    rollouts: list[float]


def measure(bench: Bench, rounds: int) -> Delays:
    """Roll out ``rounds`` times with each way to wait, in turn, and return the delays."""
    ways = [way for way in WORDS if way != KUBECTL or bench.kubectl]
    delays = Delays({way: [] for way in ways}, [])
    with bench.shop() as shop, _watcher(bench, shop) as seen:
        for way in ways:
            shop.create(deployment(way, replicas=1), wait=False)
        for way in ways:
            wait_for_rollout(shop.cluster, Ref("Deployment", shop.namespace, way), TIMEOUT)
        for number in range(rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                ref = Ref("Deployment", shop.namespace, way)
                # Rollouts of different lengths, so that they do not all end at the same moment of a poll's 5 seconds.
                shop.cluster.patch(ref, {"spec": {"minReadySeconds": number % 5}}, "application/merge-patch+json")
                wait_for_rollout(shop.cluster, ref, TIMEOUT)
                started, ended = _roll_out(bench, shop, way, f"{IMAGE}:{number % 2 + 2}.0.0")
                generation = shop.get("Deployment", way)["metadata"]["generation"]
                complete = _complete(seen, way, generation)
                delays.seconds[way].append(ended - complete)
                delays.rollouts.append(complete - started)
    return delays


def _roll_out(bench: Bench, shop: Shop, way: str, image: str) -> tuple[float, float]:
    """Give the Deployment this image and wait; return when that began and when the wait was over."""
    started = time.monotonic()
    about = {"namespace": shop.namespace, "name": way}
    if way == EXECUTE:
        shop.step(set_image, name=way, images={"app": image})
        outcome = shop.step(wait_rollout, name=way, timeout=TIMEOUT)
        ended = time.monotonic()
        if outcome.get("failed"):
            raise BenchError(outcome["msg"])
        return started, ended
    if way == KUBECTL:
        for words in (("set", "image", f"deployment/{way}", f"app={image}"), ("rollout", "status", f"deployment/{way}")):
            run(bench.command(shop.namespace, *words))
        return started, time.monotonic()
    if way == TASK:
        tasks = [
            {"name": "set", "progressive.delivery.set_image": {**about, "images": {"app": image}}},
            {"name": "wait", "progressive.delivery.wait_rollout": {**about, "timeout": TIMEOUT}},
        ]
    else:
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}
        definition = {"api_version": "apps/v1", "kind": "Deployment", "state": "patched", "definition": patch}
        tasks = [{"name": "wait", "kubernetes.core.k8s": {**about, **definition, "wait": True, "wait_timeout": TIMEOUT}}]
    # The wait is over where another task could begin.
    ran = bench.play(shop, [*tasks, {"name": "next", "ansible.builtin.set_fact": {"next": True}}])
    return ran[0].started, ran[-1].started


@contextmanager
def _watcher(bench: Bench, shop: Shop) -> Iterator[Path]:
    """Run the watcher, and give the file that it writes to."""
    path = bench.scratch / "complete.jsonl"
    with path.open("w") as handle:
        command = [sys.executable, str(HERE / "watcher.py"), bench.kubeconfig, shop.namespace]
        process = subprocess.Popen(command, stdout=handle)
        try:
            yield path
        finally:
            process.terminate()
            process.wait()


def _complete(seen: Path, name: str, generation: int) -> float:
    """Return when the watcher saw this generation to be complete, which may be after a wait that ended too early."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        for line in map(json.loads, seen.read_text().splitlines()):
            if (line["name"], line["generation"]) == (name, generation):
                return line["at"]
        time.sleep(0.05)
    raise BenchError(f"the watcher did not see generation {generation} of {name} to be complete")


def report(delays: Delays) -> list[str]:
    """Return the table."""
    rounds = len(delays.seconds[TASK])
    lines = [
        "The delay from complete on the API server to the end of the wait, in seconds",
        f"({rounds} rollouts each way, which took {min(delays.rollouts):.1f} to {max(delays.rollouts):.1f} s)",
        "",
        f"{'way to wait':<32}{'median':>9}{'worst':>9}{'times':>9}{'ended too early':>18}",
    ]
    for way, seconds in delays.seconds.items():
        early = sum(value < EARLY for value in seconds)
        late = _late(seconds)
        times = median(late) / median(_late(delays.seconds[TASK]))
        lines.append(f"{WORDS[way]:<32}{median(late):9.3f}{max(late):9.3f}{times:9.1f}{early:>11} of {rounds:>3}")
    return lines


def _late(seconds: list[float]) -> list[float]:
    """Return the delays of the waits that did not end too early."""
    return [max(0.0, value) for value in seconds if value >= EARLY] or [0.0]


def goals(delays: Delays) -> list[tuple[str, bool, str]]:
    """Return the goals: what, whether met, and the figure that decides it."""
    worst, early = max(delays.seconds[TASK]), min(delays.seconds[TASK]) < EARLY
    words = f"wait_rollout returns less than {GOAL:g} s after the rollout is complete"
    return [(words, worst < GOAL and not early, f"{worst:.3f} s at worst" + (", but too early once" if early else ""))]
