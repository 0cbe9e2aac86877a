# SPDX-License-Identifier: GPL-3.0-or-later
"""The API server is killed and started again while a rollout is waited for, on a cluster that is this test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.modules import set_image
from support.live import LOCAL, ROOT, Shop

sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from localcluster import config
from localcluster.processes import pid_of

pytestmark = pytest.mark.cluster
NAME = "waits"
PROGRAM = str(ROOT / "tests" / "cluster" / "cluster")
AWAY = 17.0


@pytest.fixture
def spare(kubeconfig: str) -> Iterator[config.Cluster]:
    """Return a cluster whose API server nobody else needs."""
    if Path(kubeconfig).resolve().parent.parent != LOCAL or os.geteuid() != 0:
        pytest.skip("needs the local cluster's programs and root")
    try:
        up()
        found = config.find(NAME)
        assert found is not None
        yield found
    finally:
        subprocess.run([PROGRAM, "down", NAME], check=True, capture_output=True)


def up() -> None:
    """Start what does not run."""
    subprocess.run([PROGRAM, "up", NAME], check=True, capture_output=True)


def workload() -> dict[str, Any]:
    """Return a Deployment whose rollout takes longer than the API server is away."""
    app = {"name": "app", "image": "localhost:32000/podinfo:1.0.0", "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}}}
    labels = {"app": "web"}
    spec = {
        "replicas": 2,
        "minReadySeconds": 20,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [app]}},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def progress(lines: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the lines of progress."""
    return [(at, line) for at, line in lines if line.startswith("  web ")]


def test_a_wait_outlives_a_restart_of_the_api_server_through_both_doors(spare: config.Cluster, tmp_path: Path) -> None:
    book = tmp_path / "wait.yml"
    with Shop(str(spare.kubeconfig)) as shop:
        shop.create(workload())
        revision = shop.step(set_image, name="web", images={"app": "localhost:32000/podinfo:2.0.0"})["revision"]
        options = {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace, "name": "web", "revision": revision, "timeout": 200}
        result = {"content": "{{ found | to_json }}", "dest": f"{tmp_path}/{{{{ delivery_door }}}}.json", "mode": "0600"}
        tasks = [{"progressive.delivery.wait_rollout": options, "register": "found"}, {"ansible.builtin.copy": result}]
        book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        codes: dict[str, int] = {}
        lines: dict[str, list[tuple[float, str]]] = {"auto": [], "module": []}

        def wait(door: str) -> None:
            codes[door] = shop.timed_playbook(str(book), {"delivery_door": door}, lines[door])

        waits = [threading.Thread(target=wait, args=(door,)) for door in lines]
        for thread in waits:
            thread.start()
        deadline = time.monotonic() + 60
        while not all(progress(seen) for seen in lines.values()) and time.monotonic() < deadline:
            time.sleep(0.1)
        pid = pid_of(spare, "kube-apiserver")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        time.sleep(AWAY)
        up()
        for thread in waits:
            thread.join()
    for door, seen in lines.items():
        text = "\n".join(f"{at:6.1f} {line}" for at, line in seen)
        print(text)
        assert codes[door] == 0, text
        found = json.loads((tmp_path / f"{door}.json").read_text())
        assert found["status"]["phase"] == "complete" and found["status"]["updated"] == 2, found
        assert found["downtime"] == 0.0 and found["availability"] == {"least": 2} and found["duration"] > AWAY, found
        told = progress(seen)
        assert any("the API server does not answer" in line for _at, line in told), text
        assert max(later[0] - earlier[0] for earlier, later in zip(told, told[1:])) < 15.5, text
        assert len({line for _at, line in told}) == len(told), text
