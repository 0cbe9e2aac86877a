# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sidecar of Istio's each pod has, and which workload makes pods like it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

PROXY = "istio-proxy"
STATUS = "sidecar.istio.io/status"
INJECT = "sidecar.istio.io/inject"
# By these a pod chooses a proxy of its own.
IMAGES = ("sidecar.istio.io/proxyImage", "sidecar.istio.io/proxyImageType")
VARIANT = re.compile(r"-(distroless|debug)$")


def sidecars(pods: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each pod that runs and can have a sidecar.

    A row is {namespace, name, kind, workload, revision, tag, gateway}: the workload that makes it, the Pod itself where none does; the
    revision that has injected it, empty where none has; the tag of the proxy's image, empty where there is no proxy, or where the pod has
    chosen it; whether the proxy is all that is in it. Left out are pods that have ended, that go, that have the host's network, and that
    want no sidecar.
    """
    return [_row(pod) for pod in pods if _counts(pod)]


def outdated(rows: Iterable[Mapping[str, Any]], revision: str, tag: str) -> list[dict[str, str]]:
    """Return the workloads, {namespace, kind, name} each, with a pod whose sidecar is missing, or of another revision or tag.

    The variants of an image, as -distroless, are of one tag: which one a pod gets can be said in many places.
    Gateways are none of them, nor are Pods that no workload makes and Jobs: neither can be rolled out.
    """
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        if row["gateway"] or row["kind"] not in ("Deployment", "StatefulSet", "DaemonSet"):
            continue
        if row["revision"] != revision or (tag and row["tag"] and VARIANT.sub("", row["tag"]) != VARIANT.sub("", tag)):
            key = (row["namespace"], row["kind"], row["workload"])
            found[key] = dict(zip(("namespace", "kind", "name"), key))
    return [found[key] for key in sorted(found)]


def _counts(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod is one that a sidecar is a matter for."""
    meta, spec = pod["metadata"], pod["spec"]
    wish = {**(meta.get("annotations") or {}), **(meta.get("labels") or {})}.get(INJECT)
    over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not (over or meta.get("deletionTimestamp") or spec.get("hostNetwork") or wish == "false")


def _row(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be known of a pod."""
    meta, spec = pod["metadata"], pod["spec"]
    notes, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    # A native sidecar is an init container that goes on.
    others = [container for container in spec["containers"] if container["name"] != PROXY]
    proxies = [item for item in (*spec["containers"], *(spec.get("initContainers") or ())) if item["name"] == PROXY]
    owner = next((item for item in meta.get("ownerReferences") or () if item.get("controller")), {})
    kind, workload = owner.get("kind", "Pod"), owner.get("name", meta["name"])
    template = labels.get("pod-template-hash", "")
    if kind == "ReplicaSet" and template and workload.endswith(f"-{template}"):
        kind, workload = "Deployment", workload.removesuffix(f"-{template}")
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "kind": kind,
        "workload": workload,
        "revision": _revision(notes) if proxies else "",
        "tag": _tag(proxies[0].get("image", "")) if proxies and not any(key in notes for key in IMAGES) else "",
        "gateway": bool(proxies) and not others,
    }


def _revision(notes: Mapping[str, str]) -> str:
    """Return the revision that has injected a pod, as its annotations say; ``default`` is the one without a name."""
    try:
        said = json.loads(notes.get(STATUS, "{}")).get("revision", "")
    except (ValueError, AttributeError):
        said = ""
    return said or notes.get("istio.io/rev", "") or "default"


def _tag(image: str) -> str:
    """Return an image's tag, or its digest, empty where it has neither."""
    name, at, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or (digest if at else "")
