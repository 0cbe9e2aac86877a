# SPDX-License-Identifier: GPL-3.0-or-later
"""The API server is killed and started again while a step is at work, on a cluster that is these tests' own."""

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
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH
from ansible_collections.progressive.delivery.plugins.modules import rollout_info, set_image, undo_rollout, wait_rollout
from support.live import LOCAL, ROOT, Shop

sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from localcluster import config
from localcluster.processes import pid_of

# One worker has the cluster.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("restart")]
NAME = "waits"
PROGRAM = str(ROOT / "tests" / "cluster" / "cluster")
AWAY = 17.0


@pytest.fixture(scope="module")
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


def kill(cluster: config.Cluster) -> None:
    """End the API server as a crash does."""
    pid = pid_of(cluster, "kube-apiserver")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def workload() -> dict[str, Any]:
    """Return a Deployment; all of its new pods are made at once."""
    app = {"name": "app", "image": "localhost:32000/podinfo:1.0.0", "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}}}
    labels = {"app": "web"}
    spec = {
        "replicas": 2,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 0}},
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
        # From here on a rollout takes longer than the API server is away.
        shop.cluster.patch(shop.ref("Deployment", "web"), {"spec": {"minReadySeconds": 25}}, MERGE_PATCH)
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
        kill(spare)
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
        # How many were available at least is no matter here: the pods before are too young for the new minReadySeconds.
        assert found["downtime"] == 0.0 and found["duration"] > AWAY, found
        told = progress(seen)
        assert any("the API server does not answer" in line for _at, line in told), text
        assert max(later[0] - earlier[0] for earlier, later in zip(told, told[1:])) < 15.5, text
        assert len({line for _at, line in told}) == len(told), text


def test_an_undo_outlives_a_restart_of_the_api_server_and_is_done_once(spare: config.Cluster) -> None:
    with Shop(str(spare.kubeconfig)) as shop:
        shop.create(workload())
        assert shop.step(set_image, name="web", images={"app": "localhost:32000/podinfo:2.0.0"})["revision"] == 2
        assert "failed" not in shop.step(wait_rollout, name="web", timeout=60, revision=2)
        starting = threading.Thread(target=up)

        def meanwhile() -> None:
            kill(spare)
            starting.start()

        outcome = shop.step(undo_rollout, name="web", meanwhile=meanwhile)
        starting.join()
        assert outcome["changed"] and (outcome["to_revision"], outcome["revision"]) == (1, 3), outcome
        again = shop.step(undo_rollout, name="web")
        assert not again["changed"] and again["revision"] == 3, again
        assert "failed" not in shop.step(wait_rollout, name="web", timeout=90, revision=3)
        images = [entry["images"]["app"].rpartition(":")[2] for entry in shop.step(rollout_info, name="web")["revisions"]]
        assert images == ["1.0.0", "2.0.0"]
