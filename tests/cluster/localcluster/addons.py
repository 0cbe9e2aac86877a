# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in the cluster from the start: CoreDNS."""

from __future__ import annotations

import json

from . import build
from .config import DNS, REGISTRY, Cluster, ClusterError
from .processes import run

COREFILE = """.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa {
        pods insecure
        ttl 5
    }
    cache 5
    reload
}
"""


def kubectl(cluster: Cluster, *arguments: str, data: str | None = None) -> str:
    """Run kubectl as the cluster's administrator; what it remembers of the API goes when the cluster goes."""
    command = f"{build.folder('kubernetes')}/kubectl"
    return run([command, f"--kubeconfig={cluster.kubeconfig}", f"--cache-dir={cluster.dir}/kubectl-cache", *arguments], data=data)


def ensure(cluster: Cluster) -> None:
    """Apply the addons and wait for them; nothing is asked of the cluster where that was done before."""
    mark = cluster.dir / "etcd" / "addons"
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": _dns()})
    if mark.exists() and mark.read_text() == text:
        return
    kubectl(cluster, "apply", "-f", "-", data=text)
    try:
        kubectl(cluster, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
    except ClusterError as error:
        pods = kubectl(cluster, "-n", "kube-system", "get", "pods", "-o", "wide")
        raise ClusterError(f"CoreDNS does not come up: {error}; {pods}") from None
    mark.write_text(text)


def _dns() -> list[dict[str, object]]:
    """Return the manifests of CoreDNS."""
    meta = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    container = {
        "name": "coredns",
        "image": f"{REGISTRY}/coredns:1",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:coredns"}, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": COREFILE}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": DNS, "selector": labels, "ports": ports},
        },
    ]
