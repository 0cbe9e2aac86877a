# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole blue-green release: the playbook of this collection against a script that does the same with kubectl."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import HERE, IMAGE, Bench, BenchError, median, run
from support.live import Shop, clean_environment

OURS, SCRIPT = "this collection", "kubectl"
PREFIX = "progressive.delivery.blue_green : "
COLOR = re.compile(r"\b(blue|green)$")
# What takes less is not worth a ratio.
LEAST = 0.05
# Three images in turn on two colors: every release rolls out something new.
TAGS = ("2.0.0", "3.0.0", "1.0.0")


@dataclass(frozen=True)
class Release:
    """One release: the seconds of the whole command, of its tasks, and of each step in them, in their order."""

    whole: float
    tasks: float
    steps: dict[str, float]

    @property
    def rollout(self) -> float:
        """Return the seconds that it waited for pods."""
        return sum(seconds for name, seconds in self.steps.items() if "rollout" in name)

    @property
    def others(self) -> float:
        """Return the seconds of all other steps."""
        return sum(self.steps.values()) - self.rollout

    @property
    def around(self) -> float:
        """Return the seconds of tasks that are no step, and of what Ansible does around one that is."""
        return self.tasks - self.rollout - self.others

    @property
    def ends(self) -> float:
        """Return the seconds before the first task and after the last."""
        return self.whole - self.tasks


Releases = dict[str, list[Release]]


def measure(bench: Bench, rounds: int) -> Releases:
    """Release ``rounds`` times each way, in turn, after one release each that makes the second color."""
    ways: dict[str, Callable[[Bench, Shop, str, int], Release]] = {OURS: _with_playbook, SCRIPT: _with_script}
    if not bench.kubectl:
        del ways[SCRIPT]
    releases: Releases = {way: [] for way in ways}
    with bench.shop() as mine, bench.shop() as scripted:
        for shop in (mine, scripted):
            shop.apply()
        # The script finds both colors there.
        for shop in (mine, scripted):
            _with_playbook(bench, shop, TAGS[0], 0)
        for number in range(1, rounds + 1):
            for way in sorted(ways, reverse=bool(number % 2)):
                tag = TAGS[number % len(TAGS)]
                releases[way].append(ways[way](bench, mine if way == OURS else scripted, tag, number))
    return releases


def _with_playbook(bench: Bench, shop: Shop, tag: str, number: int) -> Release:
    """Release with the playbook, with no time of observation."""
    variables = shop.variables(f"{IMAGE}:{tag}", blue_green_observe=0, blue_green_smoke_tests=[{"path": "/healthz"}])
    started = time.monotonic()
    ran = bench.playbook(shop, "progressive.delivery.blue_green", variables)
    whole = time.monotonic() - started
    steps: dict[str, float] = {}
    for task in ran:
        if task.step is not None:
            name = COLOR.sub("the new color", task.name.removeprefix(PREFIX))
            steps[name] = steps.get(name, 0.0) + task.step
    return Release(whole, ran[-1].ended - ran[0].started, steps)


def _with_script(bench: Bench, shop: Shop, tag: str, number: int) -> Release:
    """Release with the script."""
    color = "blue" if number % 2 else "green"
    command = [str(HERE / "blue-green.sh"), shop.namespace, f"{IMAGE}:{tag}", color, "2"]
    environment = {**clean_environment(), "KUBECONFIG": bench.kubeconfig, "KUBECTL": str(bench.kubectl)}
    environment["KUBECACHEDIR"] = str(bench.scratch / "kubectl-cache")
    started = time.monotonic()
    printed = run(command, environment)
    whole = time.monotonic() - started
    if shop.color() != color:
        raise BenchError(f"the script ended well, and the Service selects {shop.color()}")
    steps = {name: float(seconds) for seconds, name in (line.split(" ", 1) for line in printed.splitlines())}
    return Release(whole, sum(steps.values()), steps)


def _medians(releases: Sequence[Release], figure: Callable[[Release], float]) -> float:
    """Return the median of a figure."""
    return median([figure(release) for release in releases])


def report(releases: Releases) -> list[str]:
    """Return the tables."""
    mine, script = releases[OURS], releases.get(SCRIPT, [])
    lines = [
        f"A whole blue-green release, in seconds (medians of {len(mine)})",
        "",
        f"{'':<42}{'playbook':>10}{'kubectl script':>17}{'times':>9}",
    ]
    parts: tuple[tuple[str, Callable[[Release], float]], ...] = (
        ("the whole command", lambda release: release.whole),
        ("  steps: waiting for the new pods", lambda release: release.rollout),
        ("  steps: all others, summed", lambda release: release.others),
        ("  tasks that are no step, and around steps", lambda release: release.around),
        ("  before the first task, after the last", lambda release: release.ends),
    )
    for words, figure in parts:
        line = f"{words:<42}{_medians(mine, figure):10.2f}"
        if script:
            theirs = _medians(script, figure)
            line += f"{theirs:17.2f}" + (f"{_medians(mine, figure) / theirs:9.2f}" if theirs >= LEAST else "")
        lines.append(line)
    for title, found in (("step by step, the playbook", mine), ("step by step, the kubectl script", script)):
        if found:
            lines += ["", title]
            lines += [f"{_medians(found, lambda entry, name=name: entry.steps.get(name, 0.0)):9.3f}  {name}" for name in found[0].steps]
    return lines
