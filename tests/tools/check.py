#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stages of the tests in their order, says how long each took, and stops at the first that fails.

usage: check.py [STAGE...]

Without arguments it runs all but those that run only when they are named: flagger, whose releases take minutes each, provision, which
installs Istio on a cluster of its own, microk8s, which tests on a double, and routers-lifecycle, which makes a cluster of its own.

The routers have a second cluster. In the first one, their API types would change what the other tests find there, and their pods would
take part in the times that these measure.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / ".venv" / "bin"
COUNTS = re.compile(r"(\d+) (passed|failed|error|errors|skipped|rerun)\b")
# A real cluster on a machine that is busy: what fails is tried once more, and the last line tells how many were.
ONCE_MORE = ("--reruns", "1", "-r", "R")
TWICE_MORE = ("--reruns", "2", "-r", "R")

# They wait more than they work: four at a time on two cores.
SIDE_BY_SIDE = ("-n", "4", "--dist", "loadgroup")


@dataclass(frozen=True)
class Stage:
    """A stage: its name, its commands, whether they need the cluster, programs without which it is skipped, whether it must be named.

    ``kubeconfig`` is the variable for a cluster that a command of the stage says that it has started.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    cluster: bool = False
    needs: tuple[str, ...] = ()
    named: bool = False
    kubeconfig: str = "DELIVERY_KUBECONFIG"


MICROK8S = "tests/integration/test_microk8s.py"
ROUTER_GROUPS = ("gateway.networking.k8s.io", "networking.istio.io", "traefik.io")
DOCS = (f"{BIN}/antsibull-docs", "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", "--check-extra-docs-refs", ".")
STAGES = (
    Stage(
        "lint-quick",
        (
            (f"{BIN}/ruff", "check", "--quiet", "."),
            (f"{BIN}/ruff", "format", "--check", "--quiet", "."),
            (f"{BIN}/yamllint", "--strict", "."),
        ),
    ),
    Stage("unit", ((f"{BIN}/pytest", "-q", "-n", "2", "tests/unit"),)),
    Stage(
        "lint",
        (
            (f"{BIN}/ansible-lint", "--profile", "production", "--strict", "--offline"),
            (f"{BIN}/antsibull-changelog", "lint"),
            DOCS,
        ),
    ),
    Stage("sanity", ((f"{BIN}/python", "tests/tools/sanity.py"),)),
    Stage("cluster", ((f"{ROOT}/tests/cluster/cluster", "up"),), cluster=True),
    Stage("contract", ((f"{BIN}/pytest", "-q", *SIDE_BY_SIDE, *ONCE_MORE, "tests/contract"),), cluster=True),
    Stage("oldest", ((f"{BIN}/nox", "--error-on-missing-interpreters", "-s", "oldest"),), cluster=True, needs=("python3.11",)),
    Stage("integration", ((f"{BIN}/pytest", "-q", *SIDE_BY_SIDE, *TWICE_MORE, f"--ignore={MICROK8S}", "tests/integration"),), cluster=True),
    # Before the scenarios that go through the routers. Once built - 20 minutes on two cores, the first time - they start in a minute.
    Stage(
        "routers",
        (
            (f"{ROOT}/tests/cluster/cluster", "up", "routed", "--with", "traefik,istio"),
            # Two data planes on the cores that the tests have too: what a stall has cost is tried twice more, and told.
            (f"{BIN}/pytest", "-q", *SIDE_BY_SIDE, *TWICE_MORE, "tests/routers"),
        ),
        kubeconfig="DELIVERY_ROUTED_KUBECONFIG",
    ),
    # Flagger looks at a release every ten seconds at most: they wait, and several can do so at once.
    Stage(
        "flagger",
        (
            (f"{ROOT}/tests/cluster/cluster", "up", "routed", "--with", "traefik,istio,flagger"),
            (f"{BIN}/pytest", "-q", "-n", "3", "--dist", "loadgroup", *ONCE_MORE, "tests/flagger"),
            (f"{BIN}/python", "tests/tools/run_molecule.py", "flagger"),
            (f"{BIN}/python", "tests/tools/run_molecule.py", "flagger_release"),
        ),
        kubeconfig="DELIVERY_ROUTED_KUBECONFIG",
        named=True,
    ),
    Stage("molecule", ((f"{BIN}/python", "tests/tools/run_molecule.py"),), cluster=True),
    Stage("local-cluster", ((f"{BIN}/pytest", "-q", *ONCE_MORE, "tests/cluster/tests"),)),
    # A double of the command of MicroK8s, where no snap can be installed.
    Stage(
        "microk8s",
        (
            (f"{BIN}/pytest", "-q", *SIDE_BY_SIDE, *ONCE_MORE, MICROK8S),
            (f"{BIN}/python", "tests/tools/run_molecule.py", "microk8s", "microk8s_failures", "microk8s_nodes", "microk8s_upgrade"),
        ),
        cluster=True,
        named=True,
    ),
    # They change a cluster as a whole, so it is one of their own.
    Stage(
        "provision",
        (
            (f"{ROOT}/tests/cluster/cluster", "up", "provision"),
            (f"{BIN}/pytest", "-q", "tests/provision"),
            (f"{BIN}/python", "tests/tools/run_molecule.py", "istio"),
            (f"{BIN}/python", "tests/tools/run_molecule.py", "platform"),
            (f"{ROOT}/tests/cluster/cluster", "down", "provision"),
        ),
        named=True,
        kubeconfig="DELIVERY_PROVISION_KUBECONFIG",
    ),
    Stage("routers-lifecycle", ((f"{BIN}/pytest", "-q", "tests/cluster/tests/test_routers.py"),), named=True),
)


def main(names: list[str]) -> int:
    """Run the named stages, or all; return the exit code."""
    unknown = [name for name in names if name not in {stage.name for stage in STAGES}]
    if unknown:
        print(f"check: there is no stage {unknown[0]}; stages are: {', '.join(stage.name for stage in STAGES)}")
        return 2
    wanted = {*names, *("cluster" for stage in STAGES if stage.cluster and stage.name in names)}
    chosen = [stage for stage in STAGES if stage.name in wanted or not (names or stage.named)]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ.get('PATH', '')}", "ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1"}
    if "routers-lifecycle" in names:
        environment["DELIVERY_ROUTERS"] = "1"
    given = environment.get("DELIVERY_KUBECONFIG")
    totals = {"passed": 0, "failed": 0, "skipped": 0, "rerun": 0}
    rows: list[tuple[str, str, float]] = []
    for stage in chosen:
        if given and stage.name in ("cluster", "local-cluster", "provision", "routers-lifecycle"):
            rows.append((stage.name, "not needed: KUBECONFIG was given", 0.0))
            continue
        commands = stage.commands
        if given and stage.kubeconfig != "DELIVERY_KUBECONFIG":
            absent_kinds = _kinds_missing(given)
            if absent_kinds:
                rows.append((stage.name, f"skipped: the cluster of KUBECONFIG has no {absent_kinds}", 0.0))
                totals["skipped"] += 1
                continue
            environment[stage.kubeconfig], commands = given, stage.commands[1:]
        absent = [command for command in stage.needs if not shutil.which(command)]
        if absent:
            rows.append((stage.name, f"skipped: there is no {absent[0]} here", 0.0))
            totals["skipped"] += 1
            continue
        print(f"\n== {stage.name}", flush=True)
        started = time.monotonic()
        passed = all(_run(command, environment, totals, stage.kubeconfig) for command in commands)
        rows.append((stage.name, "passed" if passed else "FAILED", time.monotonic() - started))
        if not passed:
            totals["failed"] = max(1, totals["failed"])
            break
    print()
    for name, outcome, seconds in rows:
        print(f"{name:<18} {seconds:6.0f} s  {outcome}")
    print(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped, {totals['rerun']} run twice")
    return 1 if totals["failed"] else 0


def _kinds_missing(kubeconfig: str) -> str:
    """Return which API groups of the routers a cluster does not serve, empty where it serves all."""
    from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
    from ansible_collections.progressive.delivery.plugins.module_utils.login import connect

    try:
        served = connect({"kubeconfig": kubeconfig, "retry_timeout": 10}).api_groups()
    except DeliveryError as error:
        return f"routers that could be found ({error.message})"
    return " and no ".join(group for group in ROUTER_GROUPS if group not in served)


def _run(command: tuple[str, ...], environment: dict[str, str], totals: dict[str, int], kubeconfig: str) -> bool:
    """Run a command, show its output as it comes, add pytest's counts; return whether it succeeded."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    last = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        last = line if line.strip() else last
        if line.startswith("KUBECONFIG="):
            environment[kubeconfig] = line.strip().removeprefix("KUBECONFIG=")
    if process.wait() == 0 and not Path(command[0]).name.startswith("pytest"):
        totals["passed"] += 1
    elif Path(command[0]).name.startswith("pytest"):
        for number, word in COUNTS.findall(last):
            totals["failed" if word.startswith("error") else word] += int(number)
    return process.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
