#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure steps and releases on a real cluster against their peers, as ratios in one run: see README.md beside this file."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster"), str(Path(__file__).resolve().parent)]

import delay
import load
import phase
import release
import steps
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from bench import Bench, BenchError, find_kubectl, run
from support.live import local_cluster

# The name of each part, what measures it, and how often: a run takes less than four minutes on two cores.
PARTS: dict[str, tuple[Any, int]] = {
    "steps": (steps, 20),
    "delay": (delay, 5),
    "phase": (phase, 5),
    "load": (load, 5),
    "release": (release, 4),
}


def say(line: str = "") -> None:
    """Print a line at once."""
    print(line, flush=True)


def main() -> int:
    """Measure, print the tables, and return 0 where all was measured, whatever the figures are."""
    parser = argparse.ArgumentParser(description="Measure steps and releases against kubernetes.core and kubectl.")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every sample to this file")
    parser.add_argument("--only", metavar="PART", choices=PARTS, action="append", help=f"measure this part: {', '.join(PARTS)}")
    given = parser.parse_args()
    kubeconfig = os.environ.get("DELIVERY_KUBECONFIG") or local_cluster()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        bench = Bench(kubeconfig, find_kubectl(kubeconfig), Path(scratch))
        found: dict[str, Any] = {"versions": versions(bench)}
        say(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
        if not bench.kubectl:
            say("There is no kubectl on PATH, so nothing is compared with it.")
        goals: list[tuple[str, bool, str]] = []
        for name, (part, rounds) in PARTS.items():
            if given.only and name not in given.only:
                continue
            say()
            figures = part.measure(bench, rounds)
            found[name] = figures
            for line in part.report(figures):
                say(line)
            goals += part.goals(figures) if hasattr(part, "goals") else []
    if goals:
        say()
        say("goals")
    for words, met, figure in goals:
        say(f"  {'met' if met else 'MISSED':<8}{words}")
        say(f"{'':10}{figure}")
    say()
    say(f"measured in {time.monotonic() - started:.0f} s, at a load of {os.getloadavg()[0]:.1f} in the last minute")
    if given.json:
        found["goals"] = [{"goal": words, "met": met, "figure": figure} for words, met, figure in goals]
        given.json.write_text(json.dumps(found, indent=1, default=_plain) + "\n")
    return 0


def versions(bench: Bench) -> dict[str, str]:
    """Return what was measured, and on how many cores."""
    found = {"Python": platform.python_version()}
    for package in ("ansible-core", "kubernetes"):
        found[package] = importlib.metadata.version(package)
    manifest = next(ROOT.glob(".venv/lib/python3.*/site-packages/ansible_collections/kubernetes/core/MANIFEST.json"), None)
    if manifest:
        found["kubernetes.core"] = json.loads(manifest.read_text())["collection_info"]["version"]
    if bench.kubectl:
        found["kubectl"] = json.loads(run([bench.kubectl, "version", "--client", "--output=json"]))["clientVersion"]["gitVersion"]
    return {**found, "cores": str(os.cpu_count())}


def _plain(figures: Any) -> Any:
    """Return figures as JSON holds them."""
    return asdict(figures) if is_dataclass(figures) and not isinstance(figures, type) else str(figures)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchError, DeliveryError) as error:
        sys.exit(f"bench: {error}")
