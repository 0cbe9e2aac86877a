# SPDX-License-Identifier: GPL-3.0-or-later
"""Istio for a cluster of ours: its images in the registry there, and the variables of role istio that name what was built.

As a program, ``provision.py KUBECONFIG FOLDER``, it writes them to FOLDER/istio.json, and charts of two versions to FOLDER.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

from localcluster import build, config, images, routers, supplies

# The Envoy that is there has none of Istio's filters, and no pod here has iptables: the sidecar is one, but takes no traffic.
VALUES: dict[str, Any] = {
    "autoscaleEnabled": False,
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    "telemetry": {"enabled": False},
    # As it takes none, it takes none that is encrypted by the mesh.
    "meshConfig": {"enablePrometheusMerge": False, "enableAutoMtls": False, "defaultConfig": {"interceptionMode": "NONE"}},
    "env": {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"},
    "global": {
        "imagePullPolicy": "IfNotPresent",
        "defaultPodDisruptionBudget": {"enabled": False},
        "proxy": {"readinessPeriodSeconds": 1, "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}}},
    },
}
GATEWAY: dict[str, Any] = {
    "autoscaling": {"enabled": False},
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    "service": {"type": "NodePort"},
}


def istio(kubeconfig: str, folder: Path) -> dict[str, Any]:
    """Return the variables for a cluster of ours, whose registry gets the images; charts of version 1.0.0 and 1.1.0 go to the folder."""
    cluster = config.find(Path(kubeconfig).resolve().parent.name)
    assert cluster and Path(kubeconfig).resolve() == cluster.kubeconfig.resolve(), f"{kubeconfig} is none of a cluster of ours"
    for part in routers.ROUTERS["istio"].parts:
        build.build(part)
    images.ensure(cluster, "istio")
    for version in ("1.0.0", "1.1.0"):
        charts(folder / version, version)
    return {
        "istio_kubeconfig": kubeconfig,
        "istio_helm": str(build.folder("helm") / "helm"),
        "istio_charts": str(folder / "1.0.0"),
        "istio_gateway_api_crds": str(build.folder("gateway-api") / "crds"),
        "istio_hub": f"{config.REGISTRY}/istio",
        "istio_tag": images.ISTIO,
        "istio_platform": "microk8s",
        "istio_istiod_values": VALUES,
        "istio_gateway_values": GATEWAY,
        "istio_timeout": 300,
    }


def flagger(kubeconfig: str) -> dict[str, Any]:
    """Return the variables of role flagger for a cluster of ours, whose registry gets the images."""
    cluster = config.find(Path(kubeconfig).resolve().parent.name)
    assert cluster, f"{kubeconfig} is none of a cluster of ours"
    for part in supplies.SUPPLIES["flagger"].parts:
        build.build(part)
    supplies.ensure(cluster, supplies.SUPPLIES["flagger"])
    found = supplies.charts()
    return {
        "flagger_chart": str(found["flagger"]),
        "flagger_loadtester_chart": str(found["loadtester"]),
        "flagger_registry": config.REGISTRY,
        "flagger_prometheus_interval": "2s",
    }


def charts(folder: Path, version: str) -> None:
    """Put Istio's charts into a folder, as those of a version."""
    shutil.copytree(build.folder("istio") / "charts", folder, dirs_exist_ok=True)
    for path in folder.glob("*/Chart.yaml"):
        path.write_text(re.sub(r"^(version|appVersion): .*$", rf"\1: {version}", path.read_text(), flags=re.MULTILINE))


if __name__ == "__main__":
    place = Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    programs = {f"provision_{name}": str(build.folder(part) / name) for part, name in (("kubernetes", "kubectl"), ("helm", "helm"))}
    variables = {**istio(sys.argv[1], place), **programs}
    (place / "istio.json").write_text(json.dumps(variables))
