# SPDX-License-Identifier: GPL-3.0-or-later
"""Flagger on the cluster with routers, installed by our own role from the charts and images of the local cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .live import LOCAL, ROOT, Shop

NAMESPACE, RELEASE = "flagger-system", "flagger"
PROMETHEUS = f"http://{RELEASE}-prometheus.{NAMESPACE}:9090"
LOADTESTER = f"http://flagger-loadtester.{NAMESPACE}"
PLAYBOOK = "progressive.delivery.flagger"
PROGRAM = ROOT / "tests" / "cluster" / "cluster"


def sources(kubeconfig: str) -> dict[str, Any]:
    """Return where helm, the charts and the images are: beside a cluster of ours, else where the role looks by itself."""
    if Path(kubeconfig).resolve().parent.parent != LOCAL:
        return {}
    sys.path.insert(0, str(ROOT / "tests" / "cluster"))
    from localcluster import build, supplies

    charts = supplies.charts()
    return {
        "flagger_helm_binary": str(build.folder("helm") / "helm"),
        "flagger_chart": str(charts.get("flagger", "")),
        "flagger_loadtester_chart": str(charts.get("loadtester", "")),
        "flagger_registry": "localhost:32000",
    }


def missing(kubeconfig: str) -> str:
    """Return what is missing to install Flagger, empty where nothing is."""
    found = sources(kubeconfig)
    if not found:
        return "" if shutil.which("helm") else "helm is not on PATH"
    if not found["flagger_chart"] or not Path(found["flagger_helm_binary"]).exists():
        return "Flagger was not built; run: tests/cluster/cluster up routed --with traefik,istio,flagger"
    return ""


def settings(kubeconfig: str, **more: Any) -> dict[str, Any]:
    """Return the variables of the role for the Flagger of the tests."""
    return {
        "delivery_kubeconfig": kubeconfig,
        **sources(kubeconfig),
        "flagger_provider": "gatewayapi:v1",
        "flagger_prometheus": True,
        "flagger_prometheus_interval": "2s",
        "flagger_loadtester": True,
        **more,
    }


def apply(shop: Shop, variables: Mapping[str, Any], *arguments: str) -> tuple[int, str]:
    """Run the playbook; return how many tasks changed something, and what it printed. It must not fail."""
    done = shop.playbook(PLAYBOOK, variables, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return int(re.findall(r"changed=(\d+)", done.stdout)[-1]), said


def helm(kubeconfig: str, *words: str) -> str:
    """Run helm and return what it printed."""
    program = sources(kubeconfig).get("flagger_helm_binary") or "helm"
    return subprocess.run([program, f"--kubeconfig={kubeconfig}", *words], capture_output=True, text=True, check=True).stdout


def get(shop: Shop, path: str) -> dict[str, Any] | None:
    """Return what the API server has at a path, None where there is nothing."""
    from ansible_collections.progressive.delivery.plugins.module_utils.errors import NotFound

    try:
        return json.loads(json.dumps(shop.cluster._json("GET", path)))
    except NotFound:
        return None
