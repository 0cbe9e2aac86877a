# SPDX-License-Identifier: GPL-3.0-or-later
"""How many pods a canary gets for a weight, where the split is one of pods behind one Service."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, Manifest, Ref, annotations
from .rollout import replicas_of

TOTAL = ANNOTATION_PREFIX + "canary-total"
"""On the stable Deployment: how many pods both sides share while there is a canary."""


@dataclass(frozen=True)
class Pods:
    """Pods on both sides of a split."""

    stable: int
    canary: int

    @property
    def weight(self) -> float:
        """Return the percentage of the pods that are the canary's; 0 where there are none."""
        total = self.stable + self.canary
        return 100.0 * self.canary / total if total else 0.0


def parse_surge(total: int, max_surge: int | str) -> int:
    """Return a surge in pods: a number, or a percentage of the total, rounded up as Kubernetes does; raise InvalidRequest."""
    text = str(max_surge).strip()
    share = text.endswith("%")
    try:
        number = int(text[:-1] if share else text)
    except ValueError:
        number = -1
    if number < 0:
        raise InvalidRequest(f'max_surge must be a number of pods from 0, or a percentage such as "25%", got "{max_surge}"')
    return math.ceil(total * number / 100) if share else number


def canary_replicas(total: int, weight: int, max_weight: int = 100, max_surge: int | str = "25%") -> Pods:
    """Return the pods of both sides that come closest to ``weight`` out of ``max_weight``.

    Candidates are the ceiling and the floor of the exact number, over ``total`` and, where there is a surge, over
    ``total + 1``. The one closest to the exact weight wins, the first on a tie. Strictly between 0 and the maximum
    neither side gets 0 pods, unless there is one pod and no surge. (The rule of Argo Rollouts' basic canary, its
    utils/replicaset/canary.go.)
    """
    if total < 0:
        raise InvalidRequest(f"the total number of pods must be 0 or more, got {total}")
    if max_weight < 1:
        raise InvalidRequest(f"max_weight must be 1 or more, got {max_weight}")
    if not 0 <= weight <= max_weight:
        raise InvalidRequest(f"weight must be between 0 and {max_weight}, got {weight}")
    surge = parse_surge(total, max_surge)
    if total == 0 or weight == 0:
        return Pods(total, 0)
    if weight == max_weight:
        return Pods(0, total)
    may_be_empty = total == 1 and not surge
    candidates = [
        Pods(pods - canary, canary)
        for pods in ((total, total + 1) if surge else (total,))
        for canary in (-(-pods * weight // max_weight), pods * weight // max_weight)
        if 0 < canary < pods or may_be_empty
    ]
    # In whole numbers: a tie must be one, whatever a division makes of it.
    return min(candidates, key=lambda pods: _distance(pods, weight, max_weight))


def _distance(pods: Pods, weight: int, max_weight: int) -> Fraction:
    """Return how far the share of the pods is from the wanted one."""
    return abs(Fraction(pods.canary, pods.stable + pods.canary) - Fraction(weight, max_weight))


def total_of(stable: Manifest, canary: Manifest, wanted: int | None) -> int:
    """Return how many pods both sides share: what is asked for, else what was noted, else what they have now."""
    if wanted is not None:
        return wanted
    noted = annotations(stable).get(TOTAL, "")
    return int(noted) if noted.isdigit() else replicas_of(stable) + replicas_of(canary)


def check_behind(service: Ref, manifest: Manifest, workload: Ref, deployment: Manifest) -> None:
    """Raise InvalidRequest where the Service does not send to the pods of the Deployment."""
    selector = (manifest.get("spec") or {}).get("selector") or {}
    labels = (((deployment.get("spec") or {}).get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not selector:
        raise InvalidRequest(f"{service} has no selector, so pods cannot share its requests; give it one, or choose another provider")
    for key, value in selector.items():
        if labels.get(key) != value:
            raise InvalidRequest(
                f"{service} selects {key}={value}, and the pods of {workload} have {key}={labels.get(key, '')}: both sides must be"
                " behind one Service for provider replicas; correct the names, or choose a provider that routes by weight"
            )
