# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a workload and of its Service under other names, and the label that tells the pods of both apart."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, CHANGE_CAUSE, REVISION, UNDONE, Manifest, Ref, annotations, labels, metadata
from .workload import resolve_images

COPIED_FROM = ANNOTATION_PREFIX + "copied-from"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# What says that a tool manages the source is not true of the copy: such a tool may delete it.
TOOLS = ("meta.helm.sh/", "argocd.argoproj.io/")
# A second Service is not to get the first one's DNS name or load balancer.
OUTSIDE = ("external-dns.alpha.kubernetes.io/", "service.beta.kubernetes.io/", "metallb.io/", "metallb.universe.tf/")
SERVICE_FIELDS = (
    *("internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy", "publishNotReadyAddresses"),
    *("sessionAffinity", "sessionAffinityConfig", "trafficDistribution"),
)
LONGEST_LABEL = 63
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


def copy_of(source: Manifest, name: str, new_labels: Mapping[str, str], replicas: int, images: Mapping[str, Any] | None = None) -> Manifest:
    """Return a Deployment like ``source`` under another name, told apart from it by ``new_labels`` in its selector.

    Status, identity, revision and what kubectl recorded are left behind; everything else is the source's own.
    """
    ref = Ref(source["kind"], metadata(source).get("namespace") or "", metadata(source)["name"])
    selector = selector_of(source)
    if all(selector.get(key) == value for key, value in new_labels.items()):
        raise InvalidRequest(f"a copy of {ref} needs at least one label whose value differs from {selector}")
    for key in new_labels:
        if key not in selector:
            raise InvalidRequest(
                f'{ref} has no label "{key}" in its selector {selector}, so the pods of a copy would be counted as its own;'
                f" deploy it again with {key} in spec.selector.matchLabels"
            )
    twin: Manifest = {
        "apiVersion": source.get("apiVersion") or "apps/v1",
        "kind": source["kind"],
        "metadata": _metadata(source, name, new_labels, (REVISION, CHANGE_CAUSE, UNDONE)),
        "spec": copy.deepcopy(source.get("spec") or {}),
    }
    spec = twin["spec"]
    spec["replicas"] = replicas
    spec["selector"]["matchLabels"].update(new_labels)
    spec["template"].setdefault("metadata", {}).setdefault("labels", {}).update(new_labels)
    if images:
        wanted = resolve_images(ref, spec["template"], images)
        for entry in spec["template"]["spec"]["containers"] + (spec["template"]["spec"].get("initContainers") or []):
            entry["image"] = wanted.get(entry["name"], entry.get("image"))
    return twin


def copy_of_service(source: Manifest, name: str, new_labels: Mapping[str, str]) -> Manifest:
    """Return a Service of type ClusterIP with the ports of ``source``, whose selector has ``new_labels`` over the source's.

    Addresses, node ports, what asks for a load balancer or a DNS name, our own notes and what tools recorded are left behind.
    """
    ref = Ref("Service", metadata(source).get("namespace") or "", metadata(source)["name"])
    spec = source.get("spec") or {}
    selector = dict(spec.get("selector") or {})
    if not selector:
        raise InvalidRequest(f"{ref} has no selector, so it is not known which pods a copy is for; give it one")
    if all(selector.get(key) == value for key, value in new_labels.items()):
        raise InvalidRequest(f"a copy of {ref} needs at least one label whose value differs from {selector}")
    fields = {key: copy.deepcopy(spec[key]) for key in SERVICE_FIELDS if key in spec}
    ports = [{key: value for key, value in port.items() if key != "nodePort"} for port in spec.get("ports") or []]
    headless = {"clusterIP": "None"} if spec.get("clusterIP") == "None" else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(source, name, new_labels, (), (ANNOTATION_PREFIX, *OUTSIDE)),
        "spec": {**fields, **headless, "type": "ClusterIP", "ports": ports, "selector": {**selector, **new_labels}},
    }


def telling_labels(ref: Ref, workload: Manifest, service: Ref, manifest: Manifest, suffix: str, served: bool) -> dict[str, str]:
    """Return the one label that tells the pods of a copy of ``workload`` from its own: ``{key: <its value>-<suffix>}``.

    With ``served`` the Service selects the pods of the copy too, as a split by number of pods or by subsets needs it: the
    key is one of the workload's selector that the Service's has not. Without, the Service must not select them, as a route
    that splits between two Services needs it: the key is one of both selectors. The first key in alphabetical order is
    taken. InvalidRequest, with the way out, where there is none.
    """
    mine, its = selector_of(workload), dict((manifest.get("spec") or {}).get("selector") or {})
    pods = ((((workload.get("spec") or {}).get("template") or {}).get("metadata")) or {}).get("labels") or {}
    if not its or any(pods.get(key) != value for key, value in its.items()):
        raise InvalidRequest(f"{service} does not lead to the pods of {ref}: it selects {its or 'nothing'}, and they have {pods}")
    found = sorted(key for key in mine if (key in its) is not served)
    if not found and served:
        raise InvalidRequest(
            f"{service} selects by every label that {ref} has in its selector ({mine}), so a copy cannot have pods of its own that"
            f" {service} leads to as well; deploy it again with one label more, such as track: stable, in spec.selector.matchLabels"
            " and in its pod template"
        )
    if not found:
        raise InvalidRequest(
            f"{service} would lead to the pods of any copy of {ref} too: it selects {its}, and none of these labels is in the"
            f" Deployment's selector ({mine}); deploy it again with one of them in spec.selector.matchLabels"
        )
    key = found[0]
    value = f"{mine[key]}-{suffix}"
    if len(value) > LONGEST_LABEL or not _LABEL.fullmatch(value):
        raise InvalidRequest(
            f'"{value}" cannot be the value of label {key}: {LONGEST_LABEL} characters of A-Z a-z 0-9 - _ . at most; give another suffix'
        )
    return {key: value}


def check_copied(ref: Ref, manifest: Manifest, source: Ref) -> None:
    """Raise InvalidRequest where an object was not made as a copy of the source: it is somebody else's to delete."""
    recorded = annotations(manifest).get(COPIED_FROM)
    if recorded != source.name:
        said = f"it is one of {recorded}" if recorded else f"it has no annotation {COPIED_FROM}"
        raise InvalidRequest(f"{ref} is not a copy of {source} ({said}), so it stays; correct source, or delete it yourself")


def selector_of(workload: Manifest) -> dict[str, str]:
    """Return the labels by which a workload finds its pods."""
    return dict(((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {})


def _metadata(
    source: Manifest, name: str, new_labels: Mapping[str, str], dropped: tuple[str, ...], prefixes: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a copy's metadata: the source's labels and annotations without what is true of the source alone."""
    kept = {
        key: value
        for key, value in annotations(source).items()
        if key not in (LAST_APPLIED, *dropped) and not key.startswith((*TOOLS, *prefixes))
    }
    own = {key: value for key, value in labels(source).items() if not key.startswith(TOOLS)}
    return {
        "name": name,
        "namespace": metadata(source).get("namespace") or "",
        "labels": {**own, **{key: value for key, value in new_labels.items() if key in own}},
        "annotations": {**kept, COPIED_FROM: metadata(source)["name"]},
    }
