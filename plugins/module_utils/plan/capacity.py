# SPDX-License-Identifier: GPL-3.0-or-later
"""How many more pods of a workload fit: on each node as the scheduler would see it, and within the quotas of its namespace.

Of what the scheduler weighs, these count: requests, the number of pods, taints, the node selector, required node affinity
(matchExpressions) and host ports. Affinity between pods, topology spread, volumes' zones and preemption do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, labels, metadata

SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|)")

Resources = dict[str, Decimal]


def quantity(value: Any) -> Decimal:
    """Return a Kubernetes quantity as a number; raise InvalidRequest for what is none."""
    found = _QUANTITY.fullmatch(str(value).strip())
    if not found:
        raise InvalidRequest(f'"{value}" is not a quantity; write it as 250m, 1.5 or 512Mi')
    return Decimal(found.group(1)) * SUFFIXES[found.group(2)]


def demand(pod: Mapping[str, Any], what: str = "requests") -> Resources:
    """Return what a pod of this spec takes of each resource: its ``requests`` as the scheduler adds them, or its ``limits``."""
    steady: Resources = {}
    peak: Resources = {}
    for entry in pod.get("initContainers") or []:
        asked = _asked(entry, what)
        if entry.get("restartPolicy") == "Always":
            # A sidecar: it stays beside all that come after it.
            steady = _sum(steady, asked)
            peak = _most(peak, steady)
        else:
            peak = _most(peak, _sum(steady, asked))
    for entry in pod.get("containers") or []:
        steady = _sum(steady, _asked(entry, what))
    total = {**_most(peak, steady), **_asked(pod, what)}
    overhead = {name: quantity(value) for name, value in (pod.get("overhead") or {}).items()}
    return _sum(total, overhead)


def _asked(entry: Mapping[str, Any], what: str) -> Resources:
    """Return the requests of a container, or of a whole pod; a limit alone is a request too, as the API server has it."""
    resources = entry.get("resources") or {}
    chosen = (
        {**(resources.get("limits") or {}), **(resources.get("requests") or {})} if what == "requests" else resources.get("limits") or {}
    )
    return {name: quantity(value) for name, value in chosen.items()}


def _sum(one: Resources, other: Resources) -> Resources:
    """Return the sum of two sets of resources."""
    return {name: one.get(name, Decimal(0)) + other.get(name, Decimal(0)) for name in {**one, **other}}


def _most(one: Resources, other: Resources) -> Resources:
    """Return the larger of each resource."""
    return {name: max(one.get(name, Decimal(0)), other.get(name, Decimal(0))) for name in {**one, **other}}


def accepts(node: Manifest, pod: Mapping[str, Any]) -> bool:
    """Return whether the node may take a pod of this spec at all: not cordoned, taints tolerated, selector and affinity met."""
    spec = node.get("spec") or {}
    taints = list(spec.get("taints") or [])
    if spec.get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    for taint in taints:
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, pod.get("tolerations") or []):
            return False
    present = labels(node)
    if any(present.get(key) != value for key, value in (pod.get("nodeSelector") or {}).items()):
        return False
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms")
    return terms is None or any(all(_expressed(part, present) for part in term.get("matchExpressions") or []) for term in terms)


def _tolerated(taint: Mapping[str, Any], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether one of the tolerations is for the taint."""
    for entry in tolerations:
        if entry.get("effect") not in (None, "", taint.get("effect")):
            continue
        if not entry.get("key"):
            if entry.get("operator") == "Exists":
                return True
        elif entry["key"] == taint.get("key"):
            if entry.get("operator") == "Exists" or (entry.get("value") or "") == (taint.get("value") or ""):
                return True
    return False


def _expressed(part: Mapping[str, Any], present: Mapping[str, str]) -> bool:
    """Return whether a node's labels meet one expression of a node affinity."""
    value, values = present.get(part["key"]), part.get("values") or []
    if part["operator"] == "In":
        return value in values
    if part["operator"] == "NotIn":
        return value not in values
    if part["operator"] == "Exists":
        return value is not None
    if part["operator"] == "DoesNotExist":
        return value is None
    try:
        number, limit = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > limit if part["operator"] == "Gt" else number < limit


def room_on_nodes(pod: Mapping[str, Any], nodes: Iterable[Manifest], pods: Iterable[Manifest]) -> dict[str, Any]:
    """Return how many more pods of this spec fit on the nodes that accept it, and what is free on these: cpu in cores, memory in bytes."""
    wanted = {name: amount for name, amount in demand(pod).items() if amount > 0}
    ports = _host_ports(pod)
    on_node: dict[str, list[Mapping[str, Any]]] = {}
    for entry in pods:
        spec = entry.get("spec") or {}
        if spec.get("nodeName") and (entry.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            on_node.setdefault(spec["nodeName"], []).append(spec)
    fit, count = 0, 0
    cpu = memory = Decimal(0)
    for node in nodes:
        if not accepts(node, pod):
            continue
        count += 1
        there = on_node.get(metadata(node)["name"], [])
        free = {name: quantity(value) for name, value in ((node.get("status") or {}).get("allocatable") or {}).items()}
        for spec in there:
            for name, amount in demand(spec).items():
                free[name] = free.get(name, Decimal(0)) - amount
        slots = int(free.get("pods", Decimal(0))) - len(there)
        limits = [slots, *(int(max(free.get(name, Decimal(0)), Decimal(0)) // amount) for name, amount in wanted.items())]
        if ports:
            limits.append(0 if any(ports & _host_ports(spec) for spec in there) else 1)
        fit += max(min(limits), 0)
        cpu += max(free.get("cpu", Decimal(0)), Decimal(0))
        memory += max(free.get("memory", Decimal(0)), Decimal(0))
    return {"pods": fit, "cpu": float(cpu), "memory": int(memory), "nodes": count}


def _host_ports(pod: Mapping[str, Any]) -> set[tuple[int, str]]:
    """Return the ports of a node that a pod of this spec takes for itself."""
    found = set()
    for entry in pod.get("containers") or []:
        for port in entry.get("ports") or []:
            # With the node's network every port is one of the node; the API server writes it so, a template may not have it.
            number = port.get("hostPort") or (port.get("containerPort") if pod.get("hostNetwork") else None)
            if number:
                found.add((number, port.get("protocol") or "TCP"))
    return found


def room_in_quotas(pod: Mapping[str, Any], quotas: Sequence[Manifest]) -> dict[str, Any] | None:
    """Return the quota that allows the fewest more pods of this spec, with their number; None where none limits them.

    A quota with scopes is left out: whether it is for these pods depends on more than their requests.
    """
    requests, limits = demand(pod), demand(pod, "limits")
    each = {"pods": Decimal(1), "count/pods": Decimal(1)}
    each.update({name: amount for name, amount in requests.items() if name in ("cpu", "memory")})
    each.update({f"requests.{name}": amount for name, amount in requests.items()})
    each.update({f"limits.{name}": amount for name, amount in limits.items()})
    found: list[tuple[int, str]] = []
    for entry in quotas:
        spec, status = entry.get("spec") or {}, entry.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        used = status.get("used") or {}
        for name, hard in (spec.get("hard") or {}).items():
            amount = each.get(name, Decimal(0))
            if amount > 0:
                left = quantity(hard) - quantity(used.get(name, 0))
                found.append((max(int(left // amount), 0), metadata(entry)["name"]))
    if not found:
        return None
    pods, name = min(found)
    return {"name": name, "pods": pods}


_REFUSED = re.compile(r"exceeded quota: ([^\s,]+), requested: (\S+), used:")


def has_room_again(refusal: str, quotas: Iterable[Manifest]) -> bool:
    """Return whether the quota by which a pod was refused, in the API server's words, has room for it now."""
    found = _REFUSED.search(refusal)
    if not found:
        return False
    name, asked = found.group(1), dict(entry.split("=", 1) for entry in found.group(2).split(",") if "=" in entry)
    status = next((quota.get("status") or {} for quota in quotas if metadata(quota).get("name") == name), None)
    if status is None:
        # It was deleted.
        return True
    hard, used = status.get("hard") or {}, status.get("used") or {}
    return all(quantity(used.get(what, 0)) + quantity(number) <= quantity(hard[what]) for what, number in asked.items() if what in hard)


def per_pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one pod of this spec requests: cpu in cores, memory in bytes."""
    asked = demand(pod)
    return {"cpu": float(asked.get("cpu", Decimal(0))), "memory": int(asked.get("memory", Decimal(0)))}
