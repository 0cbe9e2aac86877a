# SPDX-License-Identifier: GPL-3.0-or-later
"""The application under test as a workload of any kind."""

from __future__ import annotations

from typing import Any

IMAGE = "localhost:32000/podinfo"
LABELS = {"app": "thing"}


def podinfo(kind: str = "Deployment", image: str = "1.0.0", replicas: int = 2, **spec: Any) -> dict[str, Any]:
    """Return a workload named thing that runs podinfo; ``spec`` is what else its spec has."""
    app = {
        "name": "app",
        "image": f"{IMAGE}:{image}",
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1},
    }
    pods = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [app]}}
    found: dict[str, Any] = {"selector": {"matchLabels": LABELS}, "template": pods, **spec}
    if kind != "DaemonSet":
        found["replicas"] = replicas
    if kind == "StatefulSet":
        found["serviceName"] = "thing"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "thing"}, "spec": found}
