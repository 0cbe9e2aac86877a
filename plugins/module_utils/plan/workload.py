# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to a workload: its images, and its number of replicas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest
from ..model import CHANGE_CAUSE, JSON_PATCH, STRATEGIC_PATCH, Change, Manifest, Ref, metadata
from .rollout import replicas_of, template_images

# The grammar of github.com/distribution/reference: domain[:port]/path[:tag][@digest].
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"^(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{{32,}})?$"
)
LARGEST = 2**31 - 1


def check_image(image: Any, where: str) -> str:
    """Return the image reference, or raise InvalidRequest where it is none."""
    if not isinstance(image, str) or not _REFERENCE.fullmatch(image):
        raise InvalidRequest(f'"{image}" is not an image reference ({where}); write it as registry/name:tag or registry/name@sha256:digest')
    return image


def resolve_images(ref: Ref, template: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, str]:
    """Return {container: image} with ``*`` resolved to the only container; raise InvalidRequest for unknown ones."""
    present = [entry["name"] for entry in (template.get("spec") or {}).get("containers") or []]
    initial = [entry["name"] for entry in (template.get("spec") or {}).get("initContainers") or []]
    if not images:
        raise InvalidRequest(f"images is empty; name at least one container of {ref}: {', '.join(present)}")
    wanted: dict[str, str] = {}
    for container, image in images.items():
        name = container
        if container == "*":
            if len(present) != 1:
                raise InvalidRequest(f"{ref} has {len(present)} containers ({', '.join(present)}); name the one that gets {image}")
            name = present[0]
        elif container not in present + initial:
            raise InvalidRequest(f'{ref} has no container "{container}"; it has: {", ".join(present + initial)}')
        wanted[name] = check_image(image, f"container {name} of {ref}")
    return wanted


def plan_images(ref: Ref, workload: Manifest, images: Mapping[str, Any], change_cause: str | None = None) -> Change:
    """Return the change that makes the containers run these images; the cause is recorded only where one differs."""
    template = (workload.get("spec") or {}).get("template") or {}
    spec = template.get("spec") or {}
    wanted = resolve_images(ref, template, images)
    initial = {entry["name"]: entry.get("image") or "" for entry in spec.get("initContainers") or []}
    present = {**initial, **template_images(template)}
    before = {"images": {name: present[name] for name in wanted}}
    after: dict[str, Any] = {"images": dict(wanted)}
    changes = {name: image for name, image in wanted.items() if present[name] != image}
    if not changes:
        return Change(before, after)
    pod: dict[str, Any] = {}
    for name, image in changes.items():
        pod.setdefault("initContainers" if name in initial else "containers", []).append({"name": name, "image": image})
    patch: dict[str, Any] = {
        "metadata": {"resourceVersion": metadata(workload).get("resourceVersion")},
        "spec": {"template": {"spec": pod}},
    }
    cause = change_cause or "set_image " + ", ".join(f"{name}={image}" for name, image in sorted(changes.items()))
    patch["metadata"]["annotations"] = {CHANGE_CAUSE: cause}
    actions = tuple(f"set container {name} of {ref} from {present[name]} to {image}" for name, image in sorted(changes.items()))
    return Change(before, after, patch, STRATEGIC_PATCH, actions)


def plan_scale(ref: Ref, workload: Manifest, replicas: int, autoscaler: Manifest | None = None) -> Change:
    """Return the change to this number of replicas; refuse one that an autoscaler would undo.

    A HorizontalPodAutoscaler rests while its target has 0 replicas, so 0 is always possible, and so is the way back
    into its range.
    """
    if isinstance(replicas, bool) or replicas < 0:
        raise InvalidRequest(f"replicas of {ref} must be 0 or more, got {replicas}")
    if replicas > LARGEST:
        raise InvalidRequest(f"replicas of {ref} must be {LARGEST} at most, got {replicas}")
    if ref.kind == "DaemonSet":
        raise InvalidRequest(f"{ref} has one pod a node and no replicas; it cannot be scaled")
    spec = workload.get("spec") or {}
    now = replicas_of(workload)
    before, after = {"replicas": now}, {"replicas": replicas}
    if now == replicas:
        return Change(before, after)
    if autoscaler is not None and replicas > 0:
        limits = autoscaler.get("spec") or {}
        low, high = limits.get("minReplicas") or 1, limits.get("maxReplicas") or replicas
        if not low <= replicas <= high:
            raise InvalidRequest(
                f"{ref} is scaled by HorizontalPodAutoscaler {metadata(autoscaler)['name']} between {low} and {high},"
                f" which would undo {replicas} replicas; change its limits, or set replicas within them"
            )
    # Tests the one field that was decided on: a controller that only writes the status is no reason to decide again.
    where = "/spec/replicas"
    patch = [{"op": "test", "path": where, "value": spec.get("replicas")}, {"op": "add", "path": where, "value": replicas}]
    return Change(before, after, patch, JSON_PATCH, actions=(f"scaled {ref} from {now} to {replicas}",))


def plan_pause(ref: Ref, workload: Manifest, paused: bool) -> Change:
    """Return the change that pauses or resumes a rollout; raise InvalidRequest, with the way out, for a kind that cannot be paused."""
    if ref.kind == "StatefulSet":
        raise InvalidRequest(
            f"{ref} cannot be paused, only a Deployment can; hold its rollout with set_strategy: a partition keeps the pods below that"
            " ordinal as they are, type OnDelete keeps all until they are deleted"
        )
    if ref.kind != "Deployment":
        raise InvalidRequest(
            f"{ref} cannot be paused, only a Deployment can; hold its rollout with set_strategy: type OnDelete keeps the pods as they are"
            " until they are deleted"
        )
    now = bool((workload.get("spec") or {}).get("paused"))
    before, after = {"paused": now}, {"paused": paused}
    if now == paused:
        return Change(before, after)
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": metadata(workload).get("uid")},
        {"op": "add", "path": "/spec/paused", "value": paused},
    ]
    return Change(before, after, patch, JSON_PATCH, (f"{'paused' if paused else 'resumed'} the rollout of {ref}",))


def is_autoscaler_of(autoscaler: Manifest, ref: Ref) -> bool:
    """Return whether a HorizontalPodAutoscaler scales the workload."""
    target = (autoscaler.get("spec") or {}).get("scaleTargetRef") or {}
    return target.get("kind") == ref.kind and target.get("name") == ref.name
