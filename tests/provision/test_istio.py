# SPDX-License-Identifier: GPL-3.0-or-later
"""Role istio on a real cluster: installed, upgraded by a revision under traffic, taken away, and everything is as it was before."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from localcluster import build
from support.live import WEB, Shop

KINDS = (
    "customresourcedefinitions,namespaces,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,"
    "validatingadmissionpolicies,validatingadmissionpolicybindings,configmaps,secrets,services,deployments,serviceaccounts,roles,rolebindings,"
    "leases,horizontalpodautoscalers,poddisruptionbudgets"
)
COLUMNS = "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,LABELS:.metadata.labels"
VIRTUAL_SERVICE = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "VirtualService",
    "metadata": {"name": "web"},
    "spec": {"hosts": ["web.example.com"], "http": [{"route": [{"destination": {"host": "web"}}]}]},
}


def kubectl(shop: Shop, *words: str) -> str:
    """Run kubectl and return what it printed."""
    command = [str(build.folder("kubernetes") / "kubectl"), f"--kubeconfig={shop.kubeconfig}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def everything(shop: Shop) -> list[str]:
    """Return what is in the cluster."""
    lines = kubectl(shop, "get", KINDS, "--all-namespaces", "-o", COLUMNS).splitlines()
    return sorted(" ".join(line.split()) for line in lines if "apiserver-" not in line)


def sidecars(shop: Shop) -> set[str]:
    """Return the revisions of the sidecars in the namespace, empty for a pod that has none."""
    pods = json.loads(kubectl(shop, "-n", shop.namespace, "get", "pods", "-o", "json"))["items"]
    live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return {json.loads(pod["metadata"].get("annotations", {}).get("sidecar.istio.io/status", "{}")).get("revision", "") for pod in live}


def labels(shop: Shop) -> dict[str, str]:
    """Return the namespace's labels, but the one that each has."""
    found = json.loads(kubectl(shop, "get", "namespace", shop.namespace, "-o", "json"))["metadata"]["labels"]
    return {key: value for key, value in found.items() if key != "kubernetes.io/metadata.name"}


def play(shop: Shop, variables: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Apply the playbook; return how many tasks changed something, and what it printed."""
    done = shop.playbook("progressive.delivery.istio", variables, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(int(number) for number in re.findall(r"changed=(\d+)", done.stdout)), done.stdout


def test_from_nothing_over_an_upgrade_to_nothing(empty: Shop, given: dict[str, Any], tmp_path: Path) -> None:
    shop = empty
    shop.apply(WEB)
    before = everything(shop)
    kubectl(shop, "label", "namespace", shop.namespace, "istio-injection=disabled")
    labelled = everything(shop)
    wanted = {**given, "istio_namespaces": [shop.namespace], "istio_restart": True}

    # Check mode predicts, and writes nothing.
    assert play(shop, wanted, "--check")[0] > 4
    assert everything(shop) == labelled

    # Installed: pods have a sidecar, and a second run changes nothing.
    assert play(shop, wanted)[0] > 4
    assert sidecars(shop) == {"default"} and labels(shop) == {"istio-injection": "enabled"}
    there = everything(shop)
    assert play(shop, wanted)[0] == 0
    assert everything(shop) == there

    # Bad input is one sentence, before anything is changed.
    old = tmp_path / "old"
    old.mkdir()
    rows: list[tuple[dict[str, Any], str]] = [
        ({"istio_helm": "/nowhere/helm"}, 'istio_helm "/nowhere/helm" is no Helm that runs here'),
        ({"istio_charts": str(old)}, "has no chart base, gateway, istiod"),
        ({"istio_version": "7.0.0"}, "are of version 1.0.0, not 7.0.0"),
        ({"istio_revision": "1.1"}, "cannot be the name of a revision"),
        ({"istio_profile": "ambient"}, "needs the charts cni and ztunnel"),
        ({"istio_namespaces": ["kube-system"]}, "which Istio never injects"),
        ({"istio_revision": "b", "istio_remove_old": True, "istio_restart": False}, "set istio_restart: true with it"),
        ({"istio_state": "absent", "istio_restart": False}, "would be left with a sidecar"),
    ]
    said = shop.refusals("istio", [{**wanted, **row} for row, _sentence in rows])
    assert [sentence in words and "\n" not in words for words, (_row, sentence) in zip(said, rows, strict=True)] == [True] * len(rows), said
    assert everything(shop) == there

    # Another version beside it, by a revision with a tag; everything moves, the old one goes, and no request is lost.
    newer = {
        **wanted,
        "istio_charts": given["istio_charts"].replace("1.0.0", "1.1.0"),
        "istio_revision": "1-1-0",
        "istio_revision_tags": ["stable"],
        "istio_remove_old": True,
    }
    with shop.traffic() as traffic:
        _changed, printed = play(shop, newer)
    assert traffic.seen["failed"] == 0 and traffic.seen["sent"] > 100, traffic.seen
    assert "the label istio-injection=enabled goes, since it wins over istio.io/rev" in printed
    assert labels(shop) == {"istio.io/rev": "stable"} and sidecars(shop) == {"1-1-0"}
    planes = kubectl(shop, "-n", "istio-system", "get", "deployments", "-o", "name").split()
    assert planes == ["deployment.apps/istio-ingressgateway", "deployment.apps/istiod-1-1-0"]
    assert play(shop, newer)[0] == 0

    # Somebody's objects keep the API types; when they are gone, nothing is left of Istio.
    shop.create(VIRTUAL_SERVICE)
    gone = {**newer, "istio_state": "absent"}
    _changed, printed = play(shop, gone)
    assert "there are objects of virtualservices.networking.istio.io, so the API types stay" in printed
    assert labels(shop) == {"istio-injection": "disabled"} and sidecars(shop) == {""}
    kubectl(shop, "-n", shop.namespace, "delete", "virtualservice", "web")
    play(shop, gone)
    assert everything(shop) == labelled
    assert play(shop, gone)[0] == 0
    kubectl(shop, "label", "namespace", shop.namespace, "istio-injection-")
    assert everything(shop) == before
