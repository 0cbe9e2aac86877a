# SPDX-License-Identifier: GPL-3.0-or-later
"""What the observed state of a workload means: how far its rollout is, and whether it can still succeed.

The rule of completeness is that of ``kubectl rollout status`` and of Flagger's ``deployment_ready.go``: the controller
has seen the spec, all pods are of the new revision, none of the old is left, and all are available.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import InvalidRequest
from ..model import REVISION, Manifest, annotations, labels, metadata

TEMPLATE_HASH = "pod-template-hash"
CONTROLLER_HASH = "controller-revision-hash"

# Waiting reasons of a container from which nobody comes back without a change (kubelet's own words).
FATAL_WAITING = (
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
)
CRASHED = ("CrashLoopBackOff", "RunContainerError")

_IMAGE = "check the image's name and tag, the registry and the pull secret"
_TEMPLATE = "correct the pod template, or make what it refers to"
_CRASH = "correct what its log tells of, or go back to the revision before"
# What can be done about each reason for which a rollout will not complete.
WAY_OUT = {
    "CrashLoopBackOff": _CRASH,
    "CreateContainerConfigError": _TEMPLATE,
    "CreateContainerError": _TEMPLATE,
    "ErrImageNeverPull": _IMAGE,
    "ErrImagePull": _IMAGE,
    "FailedCreate": "raise the quota, or correct what is refused",
    "ImageInspectError": _IMAGE,
    "ImagePullBackOff": _IMAGE,
    "InvalidImageName": _IMAGE,
    "ProgressDeadlineExceeded": "see why its pods are not ready and go back to the revision before, or raise progressDeadlineSeconds",
    "RunContainerError": _CRASH,
    "Unschedulable": "add nodes or lower what the pod asks for; raise unschedulable_grace where an autoscaler adds nodes",
}


@dataclass(frozen=True)
class RolloutStatus:
    """How far a rollout is. ``phase`` is one of complete, progressing, paused, scaled_to_zero, on_delete, failed."""

    phase: str
    message: str
    wanted: int
    updated: int
    ready: int
    available: int
    replicas: int
    generation: int
    observed_generation: int

    @property
    def done(self) -> bool:
        """Return whether there is nothing more to wait for."""
        return self.phase in ("complete", "scaled_to_zero")

    def counts(self) -> str:
        """Return the numbers of pods, each as wide as the number that is wanted: lines of progress stand under each other."""
        width = len(str(self.wanted))
        updated, ready, available = (f"{count:{width}}" for count in (self.updated, self.ready, self.available))
        return f"{updated} of {self.wanted} updated, {ready} ready, {available} available"

    def line(self) -> str:
        """Return the status as one line of progress."""
        return f"{self.counts()}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """Return the status as a step reports it."""
        return asdict(self)


@dataclass(frozen=True)
class Trouble:
    """Why a rollout will not complete."""

    reason: str
    message: str
    pod: str = ""
    container: str = ""
    crashed: bool = False
    log: tuple[str, ...] = field(default_factory=tuple)


def pods_in_words(count: int, which: str = "") -> str:
    """Return a number of pods as a sentence has it: ``1 pod``, ``2 more pods``."""
    return " ".join(filter(None, (str(count), which, "pod" if count == 1 else "pods")))


def in_words(count: int, thing: str) -> str:
    """Return a number of things as a sentence has it: ``1 time``, ``2 times``."""
    return f"{count} {thing}" + ("" if count == 1 else "s")


def template_key(workload: Manifest) -> str:
    """Return a digest of the pod template: it differs when, and only when, there is another revision to roll out."""
    text = json.dumps((workload.get("spec") or {}).get("template"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def label_query(workload: Manifest) -> str:
    """Return the workload's pod selector as a list request takes it, expressions included."""
    selector = (workload.get("spec") or {}).get("selector") or {}
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        key, operator = expression["key"], expression["operator"]
        values = ",".join(expression.get("values") or [])
        terms.append({"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}[operator])
    return ",".join(terms)


def rollout_status(workload: Manifest) -> RolloutStatus:
    """Return how far the rollout of a Deployment, StatefulSet or DaemonSet is, from the object alone."""
    return {"Deployment": _deployment, "StatefulSet": _stateful_set, "DaemonSet": _daemon_set}[workload["kind"]](workload)


def _counts(workload: Manifest, wanted: int, updated: int, ready: int, available: int, replicas: int) -> dict[str, int]:
    """Return the fields of a status that every kind has."""
    return {
        "wanted": wanted,
        "updated": updated,
        "ready": ready,
        "available": available,
        "replicas": replicas,
        "generation": metadata(workload).get("generation") or 0,
        "observed_generation": (workload.get("status") or {}).get("observedGeneration") or 0,
    }


def replicas_of(workload: Manifest) -> int:
    """Return how many pods a Deployment or StatefulSet asks for; the API's default is 1."""
    asked = (workload.get("spec") or {}).get("replicas")
    return 1 if asked is None else asked


def _deployment(workload: Manifest) -> RolloutStatus:
    """Return the status of a Deployment."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    wanted = replicas_of(workload)
    updated, replicas = status.get("updatedReplicas") or 0, status.get("replicas") or 0
    ready, available = status.get("readyReplicas") or 0, status.get("availableReplicas") or 0
    counts = _counts(workload, wanted, updated, ready, available, replicas)
    if counts["observed_generation"] < counts["generation"]:
        return RolloutStatus("progressing", "the controller has not seen the newest spec yet", **counts)
    progress = condition(workload, "Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded" and not spec.get("paused"):
        return RolloutStatus("failed", progress.get("message") or "the progress deadline passed", **counts)
    if updated < wanted:
        if spec.get("paused"):
            return RolloutStatus("paused", "the rollout is paused; resume it to go on", **counts)
        return RolloutStatus("progressing", f"waiting for {pods_in_words(wanted - updated, 'more')} of the new revision", **counts)
    if replicas > updated:
        if spec.get("paused"):
            return RolloutStatus("paused", "the rollout is paused; resume it to go on", **counts)
        return RolloutStatus("progressing", f"waiting for {pods_in_words(replicas - updated)} of the old revision to end", **counts)
    return _available(counts, wanted)


def _available(counts: Mapping[str, int], wanted: int) -> RolloutStatus:
    """Return the end of every kind's rule: what counts is that all are ready and available."""
    if wanted == 0:
        if counts["replicas"]:
            return RolloutStatus("progressing", f"waiting for {pods_in_words(counts['replicas'])} to end", **counts)
        return RolloutStatus("scaled_to_zero", "complete, with no pods: it is scaled to 0", **counts)
    if counts["ready"] < wanted:
        return RolloutStatus("progressing", f"waiting for {pods_in_words(wanted - counts['ready'])} to become ready", **counts)
    if counts["available"] < wanted:
        return RolloutStatus("progressing", f"waiting for {pods_in_words(wanted - counts['available'])} to become available", **counts)
    return RolloutStatus("complete", "complete", **counts)


def _stateful_set(workload: Manifest) -> RolloutStatus:
    """Return the status of a StatefulSet: with a partition, only the ordinals from it on are of the new revision."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    wanted = replicas_of(workload)
    strategy = spec.get("updateStrategy") or {}
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    same = status.get("updateRevision") == status.get("currentRevision")
    replicas = status.get("replicas") or 0
    # updatedReplicas is dropped from the status when current and update revision are the same.
    updated = status.get("updatedReplicas") or (status.get("currentReplicas") or 0 if same else 0)
    available = status.get("availableReplicas")
    ready = status.get("readyReplicas") or 0
    counts = _counts(workload, wanted, updated, ready, ready if available is None else available, replicas)
    if counts["observed_generation"] < counts["generation"]:
        return RolloutStatus("progressing", "the controller has not seen the newest spec yet", **counts)
    # One that goes back before its rollout was complete has but one revision again, and pods of the other.
    target = wanted if same else max(wanted - partition, 0)
    if updated < target:
        # Pods that are not there yet are made without anybody's help.
        if strategy.get("type") == "OnDelete" and replicas > updated:
            return RolloutStatus("on_delete", "its strategy is OnDelete: pods are replaced only when they are deleted", **counts)
        return RolloutStatus("progressing", f"waiting for {pods_in_words(target - updated, 'more')} of the new revision", **counts)
    if replicas > wanted:
        return RolloutStatus("progressing", f"waiting for {pods_in_words(replicas - wanted)} to end", **counts)
    return _available(counts, wanted)


def _daemon_set(workload: Manifest) -> RolloutStatus:
    """Return the status of a DaemonSet."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    wanted = status.get("desiredNumberScheduled") or 0
    updated, ready = status.get("updatedNumberScheduled") or 0, status.get("numberReady") or 0
    replicas = status.get("currentNumberScheduled") or 0
    counts = _counts(workload, wanted, updated, ready, status.get("numberAvailable") or 0, replicas)
    if counts["observed_generation"] < counts["generation"]:
        return RolloutStatus("progressing", "the controller has not seen the newest spec yet", **counts)
    if updated < wanted:
        # Pods that are not there yet are made without anybody's help.
        if (spec.get("updateStrategy") or {}).get("type") == "OnDelete" and replicas > updated:
            return RolloutStatus("on_delete", "its strategy is OnDelete: pods are replaced only when they are deleted", **counts)
        return RolloutStatus("progressing", f"waiting for {pods_in_words(wanted - updated, 'more')} of the new revision", **counts)
    return _available(counts, wanted)


def condition(manifest: Manifest, kind: str) -> dict[str, Any]:
    """Return the condition of a type from the object's status, or an empty dict."""
    for entry in (manifest.get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind:
            return dict(entry)
    return {}


def workload_trouble(workload: Manifest, events: Iterable[Manifest] = (), revisions: Iterable[Manifest] = ()) -> Trouble | None:
    """Return why the workload itself cannot go on: its deadline passed, or pods are refused (quota, admission).

    ``revisions`` are its ReplicaSets or ControllerRevisions: with them, what is left from a rollout before is told apart.
    """
    kind, spec = workload["kind"], workload.get("spec") or {}
    progress = condition(workload, "Progressing")
    seen = is_observed(workload)
    refused = condition(workload, "ReplicaFailure")
    if kind == "Deployment" and seen and refused.get("status") == "True":
        return Trouble(refused.get("reason") or "FailedCreate", refused.get("message") or "pods cannot be created")
    if (
        kind == "Deployment"
        and seen
        and not spec.get("paused")
        and progress.get("reason") == "ProgressDeadlineExceeded"
        and not _is_of_another(progress, live_replica_set(workload, revisions))
    ):
        return Trouble("ProgressDeadlineExceeded", progress.get("message") or "the progress deadline passed")
    if kind == "Deployment":
        return None
    told = [event for event in events if event.get("reason") in ("FailedCreate", "SuccessfulCreate") and _is_about(event, workload)]
    newest = max(told, key=_happened, default={})
    template = _newest_revision(revisions, workload) or {}
    if newest.get("reason") == "FailedCreate" and _happened(newest) >= (metadata(template).get("creationTimestamp") or ""):
        return Trouble("FailedCreate", newest.get("message") or "pods cannot be created")
    return None


def _is_of_another(progress: Mapping[str, Any], live: Manifest | None) -> bool:
    """Return whether a Progressing condition names another ReplicaSet than the live one.

    The controller keeps the condition of a rollout that timed out until the next one makes progress.
    """
    named = re.match(r'ReplicaSet "([^"]+)"', progress.get("message") or "")
    return bool(named) and live is not None and metadata(live)["name"] != named.group(1)


def _happened(event: Manifest) -> str:
    """Return when an event happened last; times of the API compare as text."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"), metadata(event).get("creationTimestamp"))
    return next((time[:19] + "Z" for time in times if time), "")


def _is_about(event: Manifest, workload: Manifest) -> bool:
    """Return whether an event is about this very object, not one of the same name before it."""
    about = event.get("involvedObject") or {}
    return about.get("kind") == workload["kind"] and about.get("uid") == metadata(workload).get("uid")


def is_observed(workload: Manifest) -> bool:
    """Return whether the controller has seen the newest spec: before that, nobody knows which pods it is for."""
    return ((workload.get("status") or {}).get("observedGeneration") or 0) >= (metadata(workload).get("generation") or 0)


def is_terminating(pod: Manifest) -> bool:
    """Return whether the pod is on its way out."""
    return bool(metadata(pod).get("deletionTimestamp"))


def is_ready(pod: Manifest) -> bool:
    """Return whether the pod serves: ready and not on its way out."""
    return not is_terminating(pod) and condition(pod, "Ready").get("status") == "True"


def is_owned(manifest: Manifest, owner: Manifest) -> bool:
    """Return whether the object's controller is the owner."""
    uid = metadata(owner).get("uid")
    return any(ref.get("controller") and ref.get("uid") == uid for ref in metadata(manifest).get("ownerReferences") or [])


def live_replica_set(deployment: Manifest, replica_sets: Iterable[Manifest]) -> Manifest | None:
    """Return the ReplicaSet of the Deployment's current template, as the controller finds it (FindNewReplicaSet).

    Not by its revision: when the controller goes back to an old ReplicaSet, it numbers the Deployment later than that.
    """
    wanted = _plain_template(deployment)
    twins = [entry for entry in replica_sets if is_owned(entry, deployment) and _plain_template(entry) == wanted]
    return min(twins, key=lambda entry: metadata(entry).get("creationTimestamp") or "", default=None)


def _plain_template(manifest: Manifest) -> dict[str, Any]:
    """Return a pod template without the label that a ReplicaSet adds to it, and without what is empty."""
    template = dict((manifest.get("spec") or {}).get("template") or {})
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value}
    found = {key: value for key, value in (meta.get("labels") or {}).items() if key != TEMPLATE_HASH}
    return {**template, "metadata": {**meta, "labels": found}}


def live_hash(workload: Manifest, replica_sets: Iterable[Manifest], pods: Iterable[Manifest] = ()) -> str | None:
    """Return the value that the pods of the newest revision carry in their hash label, or None while it is unknown."""
    seen = is_observed(workload)
    if not seen:
        return None
    if workload["kind"] == "Deployment":
        live = live_replica_set(workload, replica_sets)
        return labels(live).get(TEMPLATE_HASH) if live else None
    if workload["kind"] == "StatefulSet":
        return (workload.get("status") or {}).get("updateRevision")
    newest = _newest_revision(replica_sets, workload)
    return labels(newest).get(CONTROLLER_HASH) if newest else None


def _newest_revision(revisions: Iterable[Manifest], workload: Manifest) -> Manifest | None:
    """Return the ControllerRevision with the highest number that the workload owns."""
    owned = [entry for entry in revisions if is_owned(entry, workload)]
    return max(owned, key=lambda entry: entry.get("revision") or 0, default=None)


def live_pods(workload: Manifest, pods: Iterable[Manifest], live: str | None) -> list[Manifest]:
    """Return the pods of the newest revision that are not on their way out."""
    label = TEMPLATE_HASH if workload["kind"] == "Deployment" else CONTROLLER_HASH
    return [pod for pod in pods if live and labels(pod).get(label) == live and not is_terminating(pod)]


def pod_trouble(pods: Iterable[Manifest]) -> Trouble | None:
    """Return the first thing in these pods from which the rollout will not recover."""
    for pod in pods:
        status = pod.get("status") or {}
        for entry in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
            waiting = (entry.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason") or ""
            if reason in FATAL_WAITING:
                message = waiting.get("message") or _last_end(entry) or reason
                if reason == "CrashLoopBackOff":
                    message = _last_end(entry) or message
                return Trouble(reason, message, metadata(pod)["name"], entry["name"], reason in CRASHED)
    return None


def _last_end(status: Mapping[str, Any]) -> str:
    """Return how a container ended last, as words."""
    ended = (status.get("lastState") or {}).get("terminated") or {}
    if not ended:
        return ""
    restarts = in_words(status.get("restartCount", 0), "time")
    return f"{ended.get('reason') or 'ended'} with exit code {ended.get('exitCode')}, restarted {restarts}"


def unschedulable(pods: Iterable[Manifest]) -> Trouble | None:
    """Return the scheduler's own words for the first pod that it finds no node for; it may still find one."""
    for pod in pods:
        scheduled = condition(pod, "PodScheduled")
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            return Trouble("Unschedulable", scheduled.get("message") or "no node takes it", metadata(pod)["name"])
    return None


def pod_summary(pod: Manifest) -> dict[str, Any]:
    """Return a pod as a step reports it: what it waits for, in Kubernetes' own words, and how a container ended last."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    reason, message = _pod_reason(pod)
    return {
        "name": metadata(pod)["name"],
        "phase": status.get("phase") or "Pending",
        "ready": is_ready(pod),
        "reason": reason,
        "message": message,
        "restarts": sum(entry.get("restartCount") or 0 for entry in containers),
        "last_termination": _last_termination(status),
        "node": (pod.get("spec") or {}).get("nodeName") or "",
        "images": {entry["name"]: entry["image"] for entry in (pod.get("spec") or {}).get("containers") or []},
    }


def _pod_reason(pod: Manifest) -> tuple[str, str]:
    """Return why a pod is not ready, as a word and as a sentence; both empty where there is nothing to say."""
    status = pod.get("status") or {}
    if is_terminating(pod):
        return "Terminating", ""
    for entry in (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or []):
        waiting = (entry.get("state") or {}).get("waiting") or {}
        # The containers wait for the init containers, which have told their own reason.
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            words = _last_end(entry) if waiting["reason"] in CRASHED else ""
            return waiting["reason"], f"container {entry['name']}: {words or waiting.get('message') or waiting['reason']}"
    homeless = unschedulable([pod])
    if homeless:
        return homeless.reason, homeless.message
    if status.get("reason"):
        return status["reason"], status.get("message") or ""
    unready = [entry["name"] for entry in status.get("containerStatuses") or [] if not entry.get("ready")]
    if unready and status.get("phase") == "Running" and not is_ready(pod):
        return "", f"container {', '.join(unready)} runs and is not ready"
    return "", ""


def _last_termination(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return how and when the container ended that ended last; empty where none has, or none but init containers that were done."""
    ended = []
    for where in ("initContainerStatuses", "containerStatuses"):
        for entry in status.get(where) or []:
            for state in (entry.get("state") or {}, entry.get("lastState") or {}):
                found = state.get("terminated")
                if found and (where == "containerStatuses" or found.get("exitCode")):
                    ended.append({**found, "container": entry["name"]})
    last = max(ended, key=lambda entry: entry.get("finishedAt") or "", default={})
    fields = {"container": "container", "reason": "reason", "exit_code": "exitCode", "message": "message", "finished": "finishedAt"}
    return {name: last[key] for name, key in fields.items() if last.get(key) not in (None, "")}


def current_revision(workload: Manifest, revisions: Iterable[Manifest] = ()) -> int | None:
    """Return the revision number of the newest template, or None while the controller has not numbered it."""
    seen = is_observed(workload)
    if not seen:
        return None
    if workload["kind"] == "Deployment":
        number = annotations(workload).get(REVISION)
        return int(number) if number else None
    if workload["kind"] == "StatefulSet":
        wanted = (workload.get("status") or {}).get("updateRevision")
        return next((entry.get("revision") for entry in revisions if metadata(entry)["name"] == wanted), None)
    newest = _newest_revision(revisions, workload)
    return newest.get("revision") if newest else None


def next_revision(before: Manifest, after: Manifest) -> int | None:
    """Return the revision that a Deployment's new pod template will get; None where that cannot be known beforehand.

    The controller gives a new template the highest number of its ReplicaSets and one, also when it goes back to an old
    ReplicaSet (deployment_util.go: MaxRevision). Where it has seen the spec before, that highest number is the Deployment's -
    unless it makes the ReplicaSet later (is_numbered_late), and may never make the one of the spec before.
    """
    revision = current_revision(before) if before.get("kind") == "Deployment" and not is_numbered_late(before) else None
    return revision + 1 if revision is not None and template_key(before) != template_key(after) else None


def is_numbered_late(deployment: Manifest) -> bool:
    """Return whether the controller has seen a template long before it makes its ReplicaSet.

    With Recreate it makes it when the last old pod is gone (recreate.go: rolloutRecreate), and while paused not at all.
    """
    spec = deployment.get("spec") or {}
    return bool(spec.get("paused")) or (spec.get("strategy") or {}).get("type") == "Recreate"


def template_images(template: Mapping[str, Any]) -> dict[str, str]:
    """Return {container: image} of a pod template, init containers left out."""
    return {entry["name"]: entry.get("image") or "" for entry in (template.get("spec") or {}).get("containers") or []}


def parse_revision(value: Any) -> int | None:
    """Return a revision number, or None for none; raise InvalidRequest for anything else."""
    if value is None or value == "":
        return None
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise InvalidRequest(f'revision must be a whole number from 1, got "{value}"; rollout_info lists those there are')
    return number
