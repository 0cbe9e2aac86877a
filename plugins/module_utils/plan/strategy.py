# SPDX-License-Identifier: GPL-3.0-or-later
"""How a workload replaces its pods: what was asked for, checked by the API server's own rules, the change, and its arithmetic.

The rules are those of pkg/apis/apps/validation and pkg/apis/apps/v1/defaults.go in k8s.io/kubernetes; the arithmetic is
that of each kind's controller. tests/integration/test_strategy.py holds both against a real API server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import InvalidRequest
from ..model import Change, Manifest, Ref, metadata
from .rollout import replicas_of

LARGEST = 2**31 - 1
ROLLING = "RollingUpdate"
TYPES = {
    "Deployment": ("Recreate", ROLLING),
    "StatefulSet": (ROLLING, "OnDelete"),
    "DaemonSet": (ROLLING, "OnDelete"),
}
PROFILES: dict[str, dict[str, dict[str, str]]] = {
    "Deployment": {
        "conservative": {"max_surge": "1", "max_unavailable": "0"},
        "balanced": {"max_surge": "1", "max_unavailable": "1"},
        "fast": {"max_surge": "100%", "max_unavailable": "50%"},
    },
    # A DaemonSet takes one of the two.
    "DaemonSet": {
        "conservative": {"max_surge": "1", "max_unavailable": "0"},
        "balanced": {"max_surge": "0", "max_unavailable": "1"},
        "fast": {"max_surge": "0", "max_unavailable": "50%"},
    },
    # A StatefulSet has no surge.
    "StatefulSet": {
        "balanced": {"max_unavailable": "1"},
        "fast": {"max_unavailable": "50%"},
    },
}
OF_ROLLING = {"max_surge": "maxSurge", "max_unavailable": "maxUnavailable", "partition": "partition"}
OF_SPEC = {
    "min_ready_seconds": "minReadySeconds",
    "progress_deadline_seconds": "progressDeadlineSeconds",
    "revision_history_limit": "revisionHistoryLimit",
}
ENDS_FIRST = "a StatefulSet ends a pod before it makes the next one of that name"
FEATURE_GATE = "MaxUnavailableStatefulSet"


@dataclass(frozen=True)
class Amount:
    """A number of pods, or a share of them in percent."""

    number: int
    percent: bool = False

    @classmethod
    def parse(cls, value: Any) -> Amount | None:
        """Return the amount that an option or a field says, or None where it says none; 0% is 0."""
        text = str(value)
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]+%?", text):
            return None
        number = int(text.rstrip("%"))
        return cls(number, text.endswith("%") and number > 0)

    @property
    def plain(self) -> int | str:
        """Return the amount as a manifest has it."""
        return f"{self.number}%" if self.percent else self.number

    def of(self, total: int, round_up: bool) -> int:
        """Return the number of pods that this is of a total."""
        if not self.percent:
            return self.number
        share = self.number * total
        return -(-share // 100) if round_up else share // 100


@dataclass(frozen=True)
class Strategy:
    """What governs how pods are replaced, in the words of the options; None is what is not asked for, or what the kind has not."""

    type: str | None = None
    max_surge: Amount | None = None
    max_unavailable: Amount | None = None
    partition: int | None = None
    min_ready_seconds: int | None = None
    progress_deadline_seconds: int | None = None
    revision_history_limit: int | None = None

    def words(self, asked: Strategy) -> dict[str, Any]:
        """Return the strategy as a step reports it: type and limits always, the rest where it was asked for."""
        found: dict[str, Any] = {"type": self.type}
        for name in OF_ROLLING if self.type == ROLLING else ():
            value = getattr(self, name)
            if value is not None:
                found[name] = value.plain if isinstance(value, Amount) else value
        found.update({name: getattr(self, name) for name in OF_SPEC if getattr(asked, name) is not None})
        return found


# What the API server fills in; of a StatefulSet's max_unavailable it is what the controller goes by without one.
DEFAULTS = {
    "Deployment": Strategy(ROLLING, Amount(25, True), Amount(25, True), None, 0, 600, 10),
    "StatefulSet": Strategy(ROLLING, None, Amount(1), 0, 0, None, 10),
    "DaemonSet": Strategy(ROLLING, Amount(0), Amount(1), None, 0, None, 10),
}


def asked_strategy(ref: Ref, options: Mapping[str, Any]) -> Strategy:
    """Return what the options ask for, the profile resolved; raise InvalidRequest for what this kind cannot have."""
    given = {name: options.get(name) for name in ("type", "profile", *OF_ROLLING, *OF_SPEC)}
    _check_profile(ref, given)
    given.update(PROFILES[ref.kind].get(given.pop("profile") or "", {}))
    _check_kind(ref, given)
    for name in ("max_surge", "max_unavailable"):
        given[name] = _amount(ref, name, given[name])
    for name in ("partition", *OF_SPEC):
        if given[name] is not None and not 0 <= given[name] <= LARGEST:
            raise InvalidRequest(f"{name} of {ref} must be a whole number from 0 to {LARGEST}, got {given[name]}")
    rolling = [name for name in OF_ROLLING if given[name] is not None]
    many = len(rolling) > 1
    if rolling and given["type"] not in (None, ROLLING):
        raise InvalidRequest(
            f"{' and '.join(rolling)} of {ref} {'belong' if many else 'belongs'} to type RollingUpdate and not to {given['type']};"
            f" leave {'them' if many else 'it'} out, or set type: RollingUpdate"
        )
    return Strategy(**{**given, "type": given["type"] or (ROLLING if rolling else None)})


def _check_profile(ref: Ref, given: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where a profile is asked for that the kind has not, or together with what it stands for."""
    profile = given["profile"]
    if not profile:
        return
    twice = [name for name in ("max_surge", "max_unavailable") if given[name] is not None]
    if twice:
        raise InvalidRequest(
            f"profile {profile} of {ref} stands for max_surge and max_unavailable; leave out profile, or {' and '.join(twice)}"
        )
    if given["type"] not in (None, ROLLING):
        raise InvalidRequest(f"profile {profile} of {ref} is one of type RollingUpdate and not of {given['type']}; leave one of them out")
    if profile not in PROFILES[ref.kind]:
        raise InvalidRequest(
            f"{ref} cannot have the profile {profile}: {ENDS_FIRST}, so one is always missing; use {' or '.join(PROFILES[ref.kind])}"
        )


def _check_kind(ref: Ref, given: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for an option that the kind does not have."""
    if given["type"] is not None and given["type"] not in TYPES[ref.kind]:
        raise InvalidRequest(f"{ref} cannot have the type {given['type']}; a {ref.kind} has {' or '.join(TYPES[ref.kind])}")
    if ref.kind == "StatefulSet" and given["max_surge"] is not None:
        raise InvalidRequest(f"{ref} has no max_surge: {ENDS_FIRST}; use max_unavailable")
    for name, kind, way_out in (
        ("partition", "StatefulSet", "pause a Deployment's rollout to update a part of it" if ref.kind == "Deployment" else "leave it out"),
        ("progress_deadline_seconds", "Deployment", "give the timeout of wait_rollout instead"),
    ):
        if given[name] is not None and ref.kind != kind:
            raise InvalidRequest(f"{ref} has no {name}, only a {kind} has; {way_out}")


def _amount(ref: Ref, name: str, value: Any) -> Amount | None:
    """Return the amount that an option says; raise InvalidRequest for one that the API server would refuse."""
    if value is None:
        return None
    amount = Amount.parse(value)
    if amount is None:
        raise InvalidRequest(f'{name} of {ref} must be a whole number, or a percentage such as "25%", got "{value}"')
    if amount.number > LARGEST:
        raise InvalidRequest(f"{name} of {ref} must be {LARGEST} at most, got {value}")
    if amount.percent and amount.number > 100 and (name == "max_unavailable" or ref.kind != "Deployment"):
        raise InvalidRequest(f"{name} of {ref} must be 100% at most, got {value}")
    return amount


def observed_strategy(kind: str, workload: Manifest) -> Strategy:
    """Return the workload's strategy with what the API server or the controller takes for what is not there.

    The limits are told also where another type than RollingUpdate lets them rest.
    """
    spec = workload.get("spec") or {}
    block = spec.get(_block(kind)) or {}
    rolling = block.get("rollingUpdate") or {}
    found = {"type": block.get("type")}
    found.update({name: Amount.parse(rolling.get(key)) for name, key in OF_ROLLING.items() if name != "partition"})
    found.update(partition=rolling.get("partition"), **{name: spec.get(key) for name, key in OF_SPEC.items()})
    default = DEFAULTS[kind]
    return replace(default, **{name: value for name, value in found.items() if value is not None and getattr(default, name) is not None})


def plan_strategy(ref: Ref, workload: Manifest, asked: Strategy) -> Change:
    """Return the change that gives the workload what was asked for; raise InvalidRequest where it cannot have that with what it has."""
    now = observed_strategy(ref.kind, workload)
    wanted = {entry.name: getattr(asked, entry.name) for entry in fields(asked)}
    then = replace(now, **{name: value for name, value in wanted.items() if value is not None})
    _check_limits(ref, then, asked)
    _check_deadline(ref, then, asked)
    _check_countable(ref, then, asked, wanted_pods(ref.kind, workload))
    before, after = now.words(asked), then.words(asked)
    patch = _patch(ref.kind, workload, now, then)
    if not patch:
        return Change(before, after)
    meta = {"resourceVersion": metadata(workload).get("resourceVersion")}
    return Change(before, after, {"metadata": meta, "spec": patch}, actions=_actions(ref, before, after))


def _check_limits(ref: Ref, then: Strategy, asked: Strategy) -> None:
    """Raise InvalidRequest where the limits of a rolling update would let no pod be replaced, or exclude each other."""
    if then.type != ROLLING or then.max_unavailable is None:
        return
    if then.max_surge is None:
        if then.max_unavailable.number == 0:
            raise InvalidRequest(f"max_unavailable of {ref} cannot be 0: {ENDS_FIRST}; use 1 or more")
        return
    both = " and ".join(_told(name, then, asked) for name in ("max_surge", "max_unavailable"))
    if then.max_surge.number == 0 and then.max_unavailable.number == 0:
        raise InvalidRequest(f"{ref} could replace no pod with {both}; raise one of them")
    if ref.kind == "DaemonSet" and then.max_surge.number and then.max_unavailable.number:
        raise InvalidRequest(f"{ref} cannot have both {both}: a DaemonSet takes one of them; set the other one to 0")


def _check_deadline(ref: Ref, then: Strategy, asked: Strategy) -> None:
    """Raise InvalidRequest where the progress deadline would pass before a pod can count as available."""
    if asked.min_ready_seconds is None and asked.progress_deadline_seconds is None:
        return
    if then.progress_deadline_seconds is not None and then.progress_deadline_seconds <= (then.min_ready_seconds or 0):
        both = " and ".join(_told(name, then, asked) for name in ("progress_deadline_seconds", "min_ready_seconds"))
        raise InvalidRequest(f"{ref} cannot have {both}: the deadline must be more; raise the one or lower the other")


def _check_countable(ref: Ref, then: Strategy, asked: Strategy, wanted: int) -> None:
    """Raise InvalidRequest for a surge with which the controller's own sum overflows: its rollout would stand still without a word."""
    if asked.max_surge is None:
        return
    most = pod_limits(ref.kind, then, max(wanted, 1))["at_most"]
    if most > LARGEST:
        raise InvalidRequest(f"max_surge {asked.max_surge.plain} of {ref} allows {most} pods, more than a controller can count; use less")


def _told(name: str, then: Strategy, asked: Strategy) -> str:
    """Return an option and its value as a sentence has them, and whether that was not asked for but is so already."""
    return f"{name} {_plain(getattr(then, name))}" + ("" if getattr(asked, name) is not None else " (as it is)")


def _patch(kind: str, workload: Manifest, now: Strategy, then: Strategy) -> dict[str, Any]:
    """Return the part of a merge patch under ``spec`` that makes ``now`` into ``then``; empty where nothing differs."""
    present = ((workload.get("spec") or {}).get(_block(kind))) or {}
    block: dict[str, Any] = {}
    if then.type != now.type:
        block["type"] = then.type
        if then.type != ROLLING and "rollingUpdate" in present:
            block["rollingUpdate"] = None
    rolling = {key: _plain(getattr(then, name)) for name, key in OF_ROLLING.items() if getattr(then, name) != getattr(now, name)}
    if rolling:
        block["rollingUpdate"] = rolling
    patch = {key: getattr(then, name) for name, key in OF_SPEC.items() if getattr(then, name) != getattr(now, name)}
    return {**({_block(kind): block} if block else {}), **patch}


def _actions(ref: Ref, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Return one sentence for each word that differs; limits that go with their type are not worth one."""
    changed = [name for name in after if before.get(name) != after[name]]
    return tuple(
        f"set {name} of {ref} from {before[name]} to {after[name]}" if name in before else f"set {name} of {ref} to {after[name]}"
        for name in changed
    )


def trial(ref: Ref, workload: Manifest, change: Change) -> dict[str, Any] | None:
    """Return the patch to try without writing where the API server may drop a part of the change in silence, else None.

    Without its feature gate, it drops the maxUnavailable of a StatefulSet that has none yet.
    """
    if ref.kind != "StatefulSet" or not change.changed:
        return None
    wanted = (change.patch["spec"].get(_block(ref.kind)) or {}).get("rollingUpdate") or {}
    present = ((workload.get("spec") or {}).get(_block(ref.kind)) or {}).get("rollingUpdate") or {}
    return {"spec": change.patch["spec"]} if "maxUnavailable" in wanted and "maxUnavailable" not in present else None


def check_trial(ref: Ref, answer: Manifest) -> None:
    """Raise InvalidRequest where the answer to a trial lacks what was tried."""
    rolling = ((answer.get("spec") or {}).get(_block(ref.kind)) or {}).get("rollingUpdate") or {}
    if "maxUnavailable" not in rolling:
        raise InvalidRequest(
            f"max_unavailable of {ref} would be dropped by the API server, which replaces the pods of a StatefulSet one by one"
            f" unless its feature gate {FEATURE_GATE} is on; turn that on, or use max_unavailable: 1 (the profile balanced)"
        )


def wanted_pods(kind: str, workload: Manifest) -> int:
    """Return how many pods the workload is to have: its replicas, or for a DaemonSet the nodes that it is for."""
    if kind == "DaemonSet":
        return (workload.get("status") or {}).get("desiredNumberScheduled") or 0
    return replicas_of(workload)


def pod_limits(kind: str, strategy: Strategy, wanted: int) -> dict[str, int]:
    """Return how many pods there are at most and available at least while an update runs.

    Deployment: deployment_util.go, ResolveFenceposts. DaemonSet: update.go, updatedDesiredNodeCounts, which rounds both up
    and never puts more than two pods on a node. StatefulSet: getStatefulSetMaxUnavailable, for the pods above the partition.
    """
    surge, unavailable = 0, 0
    if strategy.type == "Recreate":
        unavailable = wanted
    elif strategy.type == ROLLING and strategy.max_unavailable is not None:
        unavailable = strategy.max_unavailable.of(wanted, round_up=kind == "DaemonSet")
        surge = strategy.max_surge.of(wanted, round_up=True) if strategy.max_surge is not None else 0
        if surge == 0:
            unavailable = max(unavailable, 1)
        unavailable = min(unavailable, wanted)
        if kind == "StatefulSet":
            unavailable = min(unavailable, max(wanted - (strategy.partition or 0), 0))
        if wanted == 0:
            surge = 0
        elif kind == "DaemonSet":
            surge = min(surge, wanted)
    return {"wanted": wanted, "at_most": wanted + surge, "at_least": wanted - unavailable}


def _block(kind: str) -> str:
    """Return the field of the spec that holds the strategy."""
    return "strategy" if kind == "Deployment" else "updateStrategy"


def _plain(value: Any) -> Any:
    """Return a value as a manifest has it."""
    return value.plain if isinstance(value, Amount) else value
