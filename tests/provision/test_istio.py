# SPDX-License-Identifier: GPL-3.0-or-later
"""Role istio on a real cluster: installed, upgraded by a revision under traffic, taken away, and everything is as it was before."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
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


def own_sidecar() -> dict[str, Any]:
    """Return a Deployment with a sidecar in its template, as istioctl kube-inject writes one."""
    notes = {"sidecar.istio.io/status": '{"revision": "1-1-0"}'}
    tags = {"app": "own", "service.istio.io/canonical-name": "own"}
    image = "localhost:32000/podinfo:1.0.0"
    proxy = {"name": "istio-proxy", "image": image, "command": ["/bin/podinfo", "--port=9899"]}
    spec = {"containers": [{"name": "web", "image": image}, proxy], "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "own"},
        "spec": {
            "selector": {"matchLabels": {"app": "own"}},
            "template": {"metadata": {"labels": tags, "annotations": notes}, "spec": spec},
        },
    }


def kubectl(shop: Shop, *words: str) -> str:
    """Run kubectl and return what it printed."""
    command = [str(build.folder("kubernetes") / "kubectl"), f"--kubeconfig={shop.kubeconfig}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def everything(shop: Shop) -> list[str]:
    """Return what is in the cluster."""
    lines = kubectl(shop, "get", KINDS, "--all-namespaces", "-o", COLUMNS).splitlines()
    return sorted(" ".join(line.split()) for line in lines if "apiserver-" not in line and "Lease kube-node-lease" not in line)


def sidecars(shop: Shop) -> set[str]:
    """Return the revisions of the sidecars in the namespace, empty for a pod that has none."""
    pods = json.loads(kubectl(shop, "-n", shop.namespace, "get", "pods", "-o", "json"))["items"]
    live = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return {json.loads(pod["metadata"].get("annotations", {}).get("sidecar.istio.io/status", "{}")).get("revision", "") for pod in live}


def labels(shop: Shop) -> dict[str, str]:
    """Return the namespace's labels, but the one that each has."""
    found = json.loads(kubectl(shop, "get", "namespace", shop.namespace, "-o", "json"))["metadata"]["labels"]
    return {key: value for key, value in found.items() if key != "kubernetes.io/metadata.name"}


@contextlib.contextmanager
def repository(given: dict[str, Any], folder: Path) -> Iterator[str]:
    """Serve a repository with charts of both versions, and give its address."""
    folder.mkdir()
    for version in ("1.0.0", "1.1.0"):
        for name in ("base", "istiod", "gateway"):
            chart = f"{given['istio_charts'].replace('1.0.0', version)}/{name}"
            subprocess.run([given["istio_helm"], "package", chart, "--destination", str(folder)], check=True, capture_output=True)
    subprocess.run([given["istio_helm"], "repo", "index", str(folder)], check=True, capture_output=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def play(shop: Shop, variables: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Apply the playbook; return how many tasks changed something, and what it printed."""
    done = shop.playbook("progressive.delivery.istio", variables, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return sum(int(number) for number in re.findall(r"changed=(\d+)", done.stdout)), done.stdout


def test_from_nothing_over_an_upgrade_to_nothing(empty: Shop, given: dict[str, Any], tmp_path: Path) -> None:
    shop = empty
    shop.apply(WEB)
    before = everything(shop)
    # Somebody has wanted sidecars here before; where there is no Istio that means nothing.
    kubectl(shop, "label", "namespace", shop.namespace, "istio-injection=enabled")
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

    # Without a version the one that is there stays, though the repository has a newer one.
    with repository(given, tmp_path / "repository") as address:
        assert play(shop, {**wanted, "istio_charts": address})[0] == 0
        words = shop.refusals("istio", [{**wanted, "istio_charts": address, "istio_revision": "1-1-0"}])
        assert "istio_version is empty, and istiod is there already, of another revision than 1-1-0" in words[0]
    assert everything(shop) == there

    # An Istio without the record of it was installed by somebody else.
    record = json.loads(kubectl(shop, "-n", "istio-system", "get", "configmap", "istio-before", "-o", "json"))
    assert json.loads(record["data"]["before"])["releases"] == [
        {"name": name, "namespace": "istio-system"} for name in ("istio-base", "istiod", "istio-ingressgateway")
    ]
    kubectl(shop, "-n", "istio-system", "delete", "configmap", "istio-before")
    assert "istiod was not installed by this role, or its record" in shop.refusals("istio", [{**wanted, "istio_state": "absent"}])[0]
    (tmp_path / "record.json").write_text(json.dumps({**record, "metadata": {"name": "istio-before", "namespace": "istio-system"}}))
    kubectl(shop, "create", "-f", str(tmp_path / "record.json"))
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

    # A pod whose template has a sidecar in it gets that again: it stops there, with a control plane, and the way back is open.
    gone = {**newer, "istio_state": "absent"}
    with Shop(shop.kubeconfig) as other:
        other.create(own_sidecar())
        done = shop.playbook("progressive.delivery.istio", gone)
        assert (
            done.returncode != 0 and f"{other.namespace}/own: there are still pods with a sidecar of Istio's" in done.stdout + done.stderr
        )
        assert kubectl(shop, "-n", "istio-system", "get", "deployments", "-o", "name").split() == planes
    assert play(shop, newer)[0] > 0
    assert labels(shop) == {"istio.io/rev": "stable"} and sidecars(shop) == {"1-1-0"}
    assert play(shop, newer)[0] == 0

    # Somebody's objects keep the API types, and the namespace; when they are gone, nothing is left of Istio.
    shop.create(VIRTUAL_SERVICE)
    kubectl(shop, "-n", "istio-system", "create", "secret", "generic", "theirs", "--from-literal=key=value")
    _changed, printed = play(shop, gone)
    assert "there are objects of virtualservices.networking.istio.io, so the API types stay" in printed
    assert labels(shop) == {"istio-injection": "enabled"} and sidecars(shop) == {""}
    kubectl(shop, "-n", shop.namespace, "delete", "virtualservice", "web")
    _changed, printed = play(shop, gone)
    assert "namespace istio-system stays, since it has Secret theirs; " in printed, printed
    assert kubectl(shop, "-n", "istio-system", "get", "secret", "theirs", "-o", "jsonpath={.data.key}") == "dmFsdWU="
    kubectl(shop, "-n", "istio-system", "delete", "secret", "theirs")
    play(shop, gone)
    assert everything(shop) == labelled
    assert play(shop, gone)[0] == 0
    kubectl(shop, "label", "namespace", shop.namespace, "istio-injection-")
    assert everything(shop) == before
