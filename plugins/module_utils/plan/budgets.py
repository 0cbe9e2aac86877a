# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of PodDisruptionBudgets: which pods one selects, and how many of them may go at once.

The rules are those of the disruption controller (pkg/controller/disruption): percentages are of the replicas that the
workloads ask for, and round up. All is reckoned at full health, with every replica there and healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, labels, metadata
from .rollout import replicas_of

FIELDS = {"minAvailable": "min_available", "maxUnavailable": "max_unavailable"}


@dataclass(frozen=True)
class Covered:
    """A workload whose pods a budget selects, and how many it has."""

    kind: str
    name: str
    replicas: int


def selects(selector: Mapping[str, Any] | None, pod_labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects pods with these labels: an empty one selects all, none selects nothing."""
    if selector is None:
        return False
    if any(pod_labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(term, pod_labels) for term in selector.get("matchExpressions") or [])


def _holds(term: Mapping[str, Any], pod_labels: Mapping[str, str]) -> bool:
    """Return whether one expression of a selector holds; as in Kubernetes, NotIn also holds where the label is missing."""
    present, value = term["key"] in pod_labels, pod_labels.get(term["key"])
    values = term.get("values") or []
    return {
        "In": present and value in values,
        "NotIn": not present or value not in values,
        "Exists": present,
        "DoesNotExist": not present,
    }[term["operator"]]


def pod_labels_of(workload: Manifest) -> dict[str, str]:
    """Return the labels that the workload's pods carry."""
    return labels((workload.get("spec") or {}).get("template") or {})


def lowest_replicas(workload: Manifest, autoscaler: Manifest | None) -> int:
    """Return the fewest replicas that the workload has in its normal life: an autoscaler may go down to its minimum."""
    replicas = replicas_of(workload)
    if autoscaler is None or replicas == 0:
        return replicas
    return (autoscaler.get("spec") or {}).get("minReplicas") or 1


def covered(budget: Manifest, workloads: Iterable[Manifest], counts: Mapping[tuple[str, str], int]) -> list[Covered]:
    """Return the workloads whose pods the budget selects; ``counts`` overrides replicas by (kind, name)."""
    selector = (budget.get("spec") or {}).get("selector")
    found = []
    for workload in workloads:
        if selects(selector, pod_labels_of(workload)):
            key = (workload["kind"], metadata(workload)["name"])
            found.append(Covered(*key, counts.get(key, replicas_of(workload))))
    return found


def scaled(value: Any, expected: int) -> int:
    """Return a number or a percentage of ``expected``, rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return -(-expected * int(value[:-1]) // 100)
    return int(value)


def must_stay(spec: Mapping[str, Any], expected: int) -> int:
    """Return how many of the expected pods a budget keeps (the status field desiredHealthy)."""
    if spec.get("maxUnavailable") is not None:
        return max(0, expected - scaled(spec["maxUnavailable"], expected))
    if spec.get("minAvailable") is not None:
        return scaled(spec["minAvailable"], expected)
    return expected


def may_go(spec: Mapping[str, Any], expected: int) -> int:
    """Return how many of the expected pods may be evicted at full health (the status field disruptionsAllowed)."""
    return max(0, expected - must_stay(spec, expected))


def limit(spec: Mapping[str, Any]) -> str:
    """Return what a budget says, as it is written: ``minAvailable 2``."""
    return next((f"{field} {spec[field]}" for field in FIELDS if spec.get(field) is not None), "no limit")


def wanted_limit(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field and value of the budget that is asked for, or the default of one pod at a time."""
    named = {field: given[option] for field, option in FIELDS.items() if given.get(option) not in (None, "")}
    if len(named) > 1:
        raise InvalidRequest("disruption_budget has both min_available and max_unavailable; a PodDisruptionBudget takes one of them")
    if not named:
        return {"maxUnavailable": 1}
    ((field, value),) = named.items()
    text = str(value).strip()
    number = text[:-1] if text.endswith("%") else text
    if isinstance(value, bool) or not number.isdigit() or (text.endswith("%") and int(number) > 100):
        raise InvalidRequest(f'{FIELDS[field]} of disruption_budget must be a whole number or a percentage up to 100%, got "{value}"')
    return {field: text if text.endswith("%") else int(number)}
