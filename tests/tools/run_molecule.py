#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run molecule scenarios, with the cluster that DELIVERY_KUBECONFIG names: those that are named, or all but those
that are stages of their own.

Three run at a time: each has a namespace of its own, and they wait more than they work. What one printed comes when it has ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SCENARIOS = ROOT / "extensions" / "molecule"
AT_A_TIME = 3
# Those of a stage of their own.
BY_NAME = ("flagger", "istio", "microk8s", "platform")
# They change a cluster as a whole, or need what the others' cluster has not: {scenario: the variable that names theirs}.
OWN = {
    "flagger_release": "DELIVERY_ROUTED_KUBECONFIG",
    "istio": "DELIVERY_PROVISION_KUBECONFIG",
    "platform": "DELIVERY_PROVISION_KUBECONFIG",
}


def run(name: str) -> tuple[str, int, float, str]:
    """Run one scenario; return its name, exit code, seconds and output."""
    started = time.monotonic()
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "COLUMNS": "160", "PATH": f"{bin_folder}:{os.environ.get('PATH', '')}"}
    if os.environ.get(OWN.get(name, "")):
        environment["DELIVERY_KUBECONFIG"] = os.environ[OWN[name]]
    # A copy that is installed elsewhere must not be what is tested.
    environment["ANSIBLE_COLLECTIONS_PATH"] = sysconfig.get_paths()["purelib"]
    command = [str(bin_folder / "molecule"), "test", "--scenario-name", name]
    # A folder of its own: in the one that all would share, one notes that it was prepared, and another is not prepared then.
    with tempfile.TemporaryDirectory(prefix="molecule-") as folder:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, "MOLECULE_EPHEMERAL_DIRECTORY": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    return name, done.returncode, time.monotonic() - started, done.stdout


def main(names: list[str]) -> int:
    """Run the scenarios and return 1 where one failed."""
    # Default only starts and stops a cluster.
    chosen = names or sorted(
        path.parent.name for path in SCENARIOS.glob("*/converge.yml") if not path.parent.name.startswith(("default", *BY_NAME))
    )
    failed = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for job in as_completed([pool.submit(run, name) for name in chosen]):
            name, code, seconds, output = job.result()
            if code:
                failed.append(name)
                print(output, flush=True)
            print(f"molecule {name}: {'failed' if code else 'passed'} in {seconds:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
