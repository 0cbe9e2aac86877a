# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmarks share: the cluster and its tools, one run of Ansible with the times of its tasks, and figures."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.live import APPLICATION, LOCAL, Shop

HERE = Path(__file__).resolve().parent
IMAGE = "localhost:32000/podinfo"


class BenchError(Exception):
    """Why something could not be measured, in one sentence."""


@dataclass(frozen=True)
class Task:
    """A task of a run: ``step`` is what the step itself says that it took, all times are in seconds."""

    name: str
    started: float
    ended: float
    step: float | None

    @property
    def seconds(self) -> float:
        """Return what the task cost its play: the time from its start to that of the next."""
        return self.ended - self.started


@dataclass(frozen=True)
class Bench:
    """A cluster to measure on, the kubectl to compare with, and a folder for what is thrown away afterwards."""

    kubeconfig: str
    kubectl: str | None
    scratch: Path

    def shop(self) -> Shop:
        """Return a namespace of its own."""
        return Shop(self.kubeconfig)

    def command(self, namespace: str, *arguments: str) -> list[str]:
        """Return a kubectl command."""
        if not self.kubectl:
            raise BenchError("there is no kubectl")
        cache = f"--cache-dir={self.scratch / 'kubectl-cache'}"
        return [self.kubectl, f"--kubeconfig={self.kubeconfig}", cache, f"--namespace={namespace}", *arguments]

    def play(self, shop: Shop, tasks: Sequence[Mapping[str, Any]]) -> list[Task]:
        """Run these tasks as one play on this machine and return their times."""
        path = self.scratch / "play.json"
        path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": list(tasks)}]))
        return self.playbook(shop, str(path), {})

    def playbook(self, shop: Shop, name: str, variables: Mapping[str, Any]) -> list[Task]:
        """Run a playbook and return the times of its tasks; raise BenchError where it failed."""
        with tempfile.NamedTemporaryFile("r", suffix=".jsonl", dir=self.scratch) as stamps:
            done = shop.playbook(
                name,
                variables,
                K8S_AUTH_KUBECONFIG=self.kubeconfig,
                ANSIBLE_ACTION_PLUGINS=str(HERE / "action"),
                ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback"),
                ANSIBLE_CALLBACKS_ENABLED="stamps",
                BENCH_STAMPS=stamps.name,
            )
            lines = [json.loads(line) for line in stamps.read().splitlines()]
        failed = [f"{line['name']}: {line['failed']}" for line in lines if line["failed"]]
        if done.returncode or failed:
            said = failed or (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise BenchError(f"ansible-playbook {name} failed: {' / '.join(said)}")
        return [Task(line["name"], line["started"], line["ended"], line["step"]) for line in lines]


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    """Return the application's Deployment under another name, with these parts of its spec."""
    manifest = next(entry for entry in yaml.safe_load_all(APPLICATION.read_text()) if entry["kind"] == "Deployment")
    labels = {"app": name}
    manifest["metadata"] = {"name": name, "labels": labels}
    manifest["spec"]["selector"]["matchLabels"] = manifest["spec"]["template"]["metadata"]["labels"] = labels
    manifest["spec"].update(spec)
    return manifest


def find_kubectl(kubeconfig: str) -> str | None:
    """Return the kubectl that was built with the local cluster, or the one on PATH, or None."""
    if Path(kubeconfig).resolve().is_relative_to(LOCAL):
        from localcluster.build import folder

        built = folder("kubernetes") / "kubectl"
        if built.exists():
            return str(built)
    return shutil.which("kubectl")


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed; raise BenchError with its own words where it failed."""
    done = subprocess.run(list(command), capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise BenchError(f"{Path(command[0]).name} failed with exit code {done.returncode}: {said}")
    return done.stdout


def median(samples: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(samples)
