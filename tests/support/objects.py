# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects as the API server gives them."""

from __future__ import annotations

import copy
from typing import Any

Manifest = dict[str, Any]


def deployment(name: str = "web", color: str = "", image: str = "podinfo:1.0.0", replicas: int = 3, **status: Any) -> Manifest:
    """Return a Deployment whose rollout is complete, unless ``status`` says otherwise."""
    labels = {"app": "web", **({"version": color} if color else {})}
    done = {key: replicas for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "generation": 2,
            "annotations": {"deployment.kubernetes.io/revision": "2", "team": "shop"},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {"containers": [{"name": "app", "image": image, "ports": [{"containerPort": 9898}]}]},
            },
        },
        "status": {"observedGeneration": 2, **done, **status},
    }


def replica_set(owner: Manifest, revision: int, digest: str, image: str) -> Manifest:
    """Return a ReplicaSet that a Deployment owns: its pod template with another image."""
    template = copy.deepcopy(owner["spec"]["template"])
    template["metadata"]["labels"]["pod-template-hash"] = digest
    template["spec"]["containers"][0]["image"] = image
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{owner['metadata']['name']}-{digest}",
            "namespace": "shop",
            "labels": {**owner["spec"]["selector"]["matchLabels"], "pod-template-hash": digest},
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"controller": True, "uid": owner["metadata"]["uid"]}],
        },
        "spec": {"template": template},
        "status": {"replicas": 3},
    }


def controller_revision(owner: Manifest, revision: int, digest: str, image: str) -> Manifest:
    """Return a ControllerRevision that a StatefulSet or DaemonSet owns, with data as their controllers write them."""
    template = copy.deepcopy(owner["spec"]["template"])
    template["spec"]["containers"][0]["image"] = image
    template["metadata"]["creationTimestamp"] = None
    return {
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{owner['metadata']['name']}-{digest}",
            "namespace": "shop",
            "labels": {**owner["spec"]["selector"]["matchLabels"], "controller-revision-hash": digest},
            "annotations": {},
            "ownerReferences": [{"controller": True, "uid": owner["metadata"]["uid"]}],
        },
        "data": {"spec": {"template": {**template, "$patch": "replace"}}},
        "revision": revision,
    }


def pod(
    name: str, labels: dict[str, str], ready: bool = True, address: str = "10.0.0.1", owner: Manifest | None = None, **container: Any
) -> Manifest:
    """Return a pod, of a ReplicaSet where one is given; ``container`` is merged into its container's status."""
    owners = {"ownerReferences": [{"controller": True, "uid": owner["metadata"]["uid"]}]} if owner else {}
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels, **owners},
        "spec": {"containers": [{"name": "app", "image": "podinfo:1.0.0", "ports": [{"containerPort": 9898}]}]},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": "app", "restartCount": 0, "state": {"running": {}}, **container}],
        },
    }


def service(name: str = "web", color: str | None = "blue") -> Manifest:
    """Return a Service that selects a colour, or none."""
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "annotations": {"owner": "shop"}},
        "spec": {"selector": {"app": "web", **({"version": color} if color else {})}, "ports": [{"port": 80}]},
    }


def ingress(*services: str, name: str = "web") -> Manifest:
    """Return an Ingress with one rule a Service: host h0, h1, ..."""
    rules = [
        {
            "host": f"h{index}",
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": entry, "port": {"number": 80}}}}]},
        }
        for index, entry in enumerate(services)
    ]
    return {"kind": "Ingress", "metadata": {"name": name, "namespace": "shop"}, "spec": {"rules": rules}}
