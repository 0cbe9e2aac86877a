# SPDX-License-Identifier: GPL-3.0-or-later
"""The time between a phase of a Canary being on the API server and somebody who waits for it being told."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Query, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec, perform
from ansible_collections.progressive.delivery.plugins.modules import wait_canary
from bench import Bench, BenchError, deployment, median
from support.live import BIN, ROOT, Shop, clean_environment, login

OURS, KUBECTL, CORE = "ours", "kubectl", "core"
WORDS = {
    OURS: "wait_canary, its line of progress",
    KUBECTL: "kubectl wait --for=jsonpath",
    CORE: "kubernetes.core.k8s_info, until",
}
GOAL = 0.2
TIMEOUT = 60
PHASES = ("Progressing", "WaitingPromotion")


@dataclass(frozen=True)
class Phases:
    """The delays of each way to wait, in seconds; none where the cluster does not know the kind Canary."""

    seconds: dict[str, list[float]]


def measure(bench: Bench, rounds: int) -> Phases:
    """Change the phase ``rounds`` times for each way to wait, in turn, and return the delays."""
    with bench.shop() as shop:
        try:
            shop.cluster.list(Query("Canary", shop.namespace))
        except NotFound:
            return Phases({})
        ways = [way for way in WORDS if way != KUBECTL or bench.kubectl]
        found = Phases({way: [] for way in ways})
        _canary(shop)
        for number in range(rounds):
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                _write(shop, PHASES[0])
                found.seconds[way].append(_delay(bench, shop, way, 2 + number % 5))
        return found


def _canary(shop: Shop) -> None:
    """Make a Canary that Flagger looks at once an hour, so that its phase is ours to write."""
    shop.create(deployment("web", replicas=1))
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    analysis = {"interval": "60m", "threshold": 5, "iterations": 5}
    spec = {"provider": "kubernetes", "targetRef": target, "service": {"port": 80}, "analysis": analysis}
    shop.create({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "web"}, "spec": spec})
    deadline = time.monotonic() + 30
    # Where Flagger runs, it has its first look now, and the next in an hour.
    while "status" not in shop.get("Canary", "web") and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)


def _write(shop: Shop, phase: str) -> float:
    """Write a phase as Flagger does; return when the API server has answered."""
    status: dict[str, Any] = {"phase": phase, "canaryWeight": 0, "failedChecks": 0, "iterations": 0}
    shop.cluster.patch(Ref("Canary", shop.namespace, "web"), {"status": status}, MERGE_PATCH, subresource="status")
    return time.monotonic()


def _delay(bench: Bench, shop: Shop, way: str, lead: float) -> float:
    """Let somebody wait, write the phase after so many seconds, and return how long after that it was known."""
    known: list[float] = []
    waiter = threading.Thread(target=_waiter(bench, shop, way, known))
    waiter.start()
    time.sleep(lead)
    written = _write(shop, PHASES[1])
    waiter.join(TIMEOUT)
    if not known:
        raise BenchError(f"{WORDS[way]} did not come to an end")
    return known[0] - written


def _waiter(bench: Bench, shop: Shop, way: str, known: list[float]) -> Callable[[], None]:
    """Return what waits, and notes when it knows."""
    if way == OURS:
        return lambda: _ours(shop, known)
    if way == KUBECTL:
        command = bench.command(
            shop.namespace, "wait", "canary/web", f"--for=jsonpath={{.status.phase}}={PHASES[1]}", f"--timeout={TIMEOUT}s"
        )
        return lambda: _command(command, known)
    task = {
        "kubernetes.core.k8s_info": {
            "kubeconfig": bench.kubeconfig,
            "namespace": shop.namespace,
            "api_version": "flagger.app/v1beta1",
            "kind": "Canary",
            "name": "web",
        },
        "register": "found",
        "until": f"found.resources[0].status.phase == '{PHASES[1]}'",
        "retries": TIMEOUT,
    }
    return lambda: _play(bench, task, known)


def _ours(shop: Shop, known: list[float]) -> None:
    """Wait with the step's own code, and note when it says the phase."""

    def say(line: str, _news: object = None) -> None:
        if line.startswith(PHASES[1]) and not known:
            known.append(time.monotonic())

    defaults = {key: entry.get("default") for key, entry in argument_spec(wait_canary.OPTIONS).items()}
    options = {**defaults, "kubeconfig": shop.kubeconfig, "namespace": shop.namespace, "name": "web", "until": "waiting"}
    outcome = perform(wait_canary.execute, options, False, say, connector=login)
    if outcome.get("failed"):
        raise BenchError(outcome["msg"])


def _command(command: list[str], known: list[float]) -> None:
    """Run a command that waits, and note when it has ended."""
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        known.append(time.monotonic())


def _play(bench: Bench, task: dict[str, Any], known: list[float]) -> None:
    """Run a task that looks again and again, and note when its play has ended."""
    path = bench.scratch / "until.json"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), str(path)],
        capture_output=True,
        env=clean_environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode == 0:
        known.append(time.monotonic())


def report(phases: Phases) -> list[str]:
    """Return the table."""
    if not phases.seconds:
        return ["The delay from a Canary's phase: not measured, since the cluster does not know the kind Canary"]
    rounds, ours = len(phases.seconds[OURS]), median(phases.seconds[OURS])
    lines = [f"The delay from a Canary's phase on the API server to its being known, in seconds ({rounds} times each)", ""]
    lines.append(f"{'way to wait':<36}{'median':>9}{'worst':>9}{'times':>9}")
    for way, seconds in phases.seconds.items():
        lines.append(f"{WORDS[way]:<36}{median(seconds):9.3f}{max(seconds):9.3f}{median(seconds) / max(ours, 0.001):9.1f}")
    return lines


def goals(phases: Phases) -> list[tuple[str, bool, str]]:
    """Return the goals: what, whether met, and the figure that decides it."""
    if not phases.seconds:
        return []
    worst = max(phases.seconds[OURS])
    return [(f"wait_canary tells a phase less than {GOAL:g} s after it is on the API server", worst < GOAL, f"{worst:.3f} s at worst")]
