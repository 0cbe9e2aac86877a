# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert on the share of requests that a workload answers with 5xx: how one is made, and how one is recognised.

A rule is about a workload where its object carries the label ``progressive.delivery/workload``, or where a quoted string
of its expression names it (``pod=~"web-.*"``, ``deployment="web"``). It is about 5xx where a quoted string matches such a
status, or where a recorded metric of an object with that label is named after errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, Manifest, Ref, labels, metadata

WORKLOAD_LABEL = ANNOTATION_PREFIX + "workload"
NAMESPACE_LABEL = ANNOTATION_PREFIX + "namespace"

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_SERVER_ERROR = re.compile(r"(?<![0-9.])5(?:[0-9x.][0-9x.]|\.[*+]|\[0-9\]|\\+d)")
_RECORDED_ERRORS = re.compile(r"5xx|error", re.IGNORECASE)
_RANGE = re.compile(r"\[[^\]]*\]")
_THRESHOLD = re.compile(r"([<>])=?\s*(?:bool\s+)?\(?\s*([0-9.]+(?:e-?[0-9]+)?)\s*\)?\s*\)?$", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_DURATION = re.compile(r"([0-9]+)(ms|[smhdwy])")


@dataclass(frozen=True)
class Alerting:
    """What a good alert is: the share of 5xx and for how long, and the names that the application's metrics have."""

    share: float = 0.05
    seconds: float = 120
    window: str = "5m"
    metric: str = "http_requests_total"
    status_label: str = "status"
    namespace_label: str = "namespace"
    pod_label: str = "pod"
    severity: str = "critical"
    labels: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InvalidRequest where no rule can be made of it."""
        if not 0 < self.share < 1:
            raise InvalidRequest(f"share of alert must be more than 0 and less than 1 (0.05 is 5 %), got {self.share:g}")
        if self.seconds < 0:
            raise InvalidRequest(f"seconds of alert must be 0 or more, got {self.seconds:g}")
        if duration(self.window) is None or duration(self.window) == 0:
            raise InvalidRequest(f'window of alert must be a duration of Prometheus as 5m, got "{self.window}"')
        for option in ("metric", "status_label", "namespace_label", "pod_label"):
            value = getattr(self, option)
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*" if option != "metric" else r"[a-zA-Z_:][a-zA-Z0-9_:]*", value):
                raise InvalidRequest(f'{option} of alert must be a name as Prometheus has them, got "{value}"')


@dataclass(frozen=True)
class Rule:
    """An alerting rule about the workload, and where it is from; ``wrong`` says what keeps it from being a good one."""

    name: str
    origin: str
    expression: str
    wrong: str = ""


def duration(text: Any) -> float | None:
    """Return a duration of Prometheus in seconds, or None where it is none."""
    text = str(text if text is not None else "0").strip()
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def shown(seconds: float) -> str:
    """Return seconds as Prometheus writes a duration."""
    return (
        f"{seconds / 60:g}m" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g}s" if seconds % 1 == 0 else f"{seconds * 1000:.0f}ms"
    )


def pods_pattern(ref: Ref) -> str:
    """Return the regular expression of the names that the workload's pods have."""
    name = re.sub(r"\.", "[.]", ref.name)
    return name + {"Deployment": "-[a-z0-9]+-[a-z0-9]+", "StatefulSet": "-[0-9]+", "DaemonSet": "-[a-z0-9]+"}[ref.kind]


def expression(ref: Ref, wanted: Alerting) -> str:
    """Return the share of the workload's requests that are answered with 5xx, compared with the limit."""
    chosen = f'{wanted.namespace_label}="{ref.namespace}",{wanted.pod_label}=~"{pods_pattern(ref)}"'
    errors = f'sum(rate({wanted.metric}{{{chosen},{wanted.status_label}=~"5.."}}[{wanted.window}]))'
    return f"{errors} / sum(rate({wanted.metric}{{{chosen}}}[{wanted.window}])) > {wanted.share:g}"


def rule_group(ref: Ref, wanted: Alerting, way_back: str) -> dict[str, Any]:
    """Return the group of rules with the alert, as rule files and PrometheusRules have it."""
    share = f"{wanted.share * 100:g} %"
    return {
        "name": f"{ANNOTATION_PREFIX}{ref.namespace}/{ref.name}",
        "rules": [
            {
                "alert": "ReleaseHighErrorRate",
                "expr": expression(ref, wanted),
                "for": shown(wanted.seconds),
                "labels": {"severity": wanted.severity, "namespace": ref.namespace, "workload": ref.name},
                "annotations": {
                    "summary": f"{ref} answers more than {share} of its requests with 5xx",
                    "description": f"For {shown(wanted.seconds)} more than {share} were. The way back: {way_back}",
                },
            }
        ],
    }


def with_group(groups: Iterable[Any], group: Mapping[str, Any]) -> list[Any]:
    """Return the groups with this one in the place of the one of its name."""
    return [entry for entry in groups if not (isinstance(entry, Mapping) and entry.get("name") == group["name"])] + [dict(group)]


def rule_object(
    ref: Ref, namespace: str, group: Mapping[str, Any], object_labels: Mapping[str, str], present: Iterable[Manifest]
) -> Manifest:
    """Return the PrometheusRule with the alert; groups that the object of this name has besides stay."""
    name = f"{ref.name}-release-alerts" if namespace == ref.namespace else f"{ref.namespace}-{ref.name}-release-alerts"
    before = next((entry for entry in present if metadata(entry).get("name") == name), {})
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**object_labels, WORKLOAD_LABEL: ref.name, NAMESPACE_LABEL: ref.namespace},
        },
        "spec": {"groups": with_group((before.get("spec") or {}).get("groups") or [], group)},
    }


def rules_about(ref: Ref, objects: Iterable[Manifest], groups: Iterable[Any], wanted: Alerting) -> list[Rule]:
    """Return the alerting rules on the workload's 5xx in PrometheusRules and in the groups of a rule file."""
    found = []
    for entry in objects:
        namespace, given = metadata(entry).get("namespace") or "", labels(entry)
        labelled = given.get(WORKLOAD_LABEL) == ref.name and given.get(NAMESPACE_LABEL, namespace) == ref.namespace
        # In a namespace of all alerts, a name alone may be that of another namespace's workload.
        at_home = namespace == ref.namespace
        origin = f"PrometheusRule {namespace}/{metadata(entry).get('name')}"
        found += _rules(ref, origin, (entry.get("spec") or {}).get("groups") or [], labelled, at_home, wanted)
    return found + _rules(ref, "the rule file", groups, False, False, wanted)


def _rules(ref: Ref, origin: str, groups: Iterable[Any], labelled: bool, at_home: bool, wanted: Alerting) -> list[Rule]:
    """Return those rules of some groups that are alerts on the workload's 5xx."""
    found = []
    for group in groups:
        for rule in (group.get("rules") if isinstance(group, Mapping) else None) or []:
            if not isinstance(rule, Mapping) or not rule.get("alert"):
                continue
            text = str(rule.get("expr") or "")
            strings = [entry[1:-1] for entry in _QUOTED.findall(text)]
            named = any(_names(entry, ref.name) for entry in strings) and (
                at_home or any(_names(entry, ref.namespace) for entry in strings)
            )
            errors = any(_SERVER_ERROR.search(entry) for entry in strings) or (labelled and _RECORDED_ERRORS.search(text) is not None)
            if errors and (labelled or named):
                found.append(Rule(str(rule["alert"]), origin, text, _wrong(text, rule, wanted)))
    return found


def _names(text: str, name: str) -> bool:
    """Return whether a quoted string names the workload, or its pods by a pattern; web-blue does not name web."""
    text = re.sub(r"\[\.\]|\\+\.", ".", text)
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-]|\.\w)|(?<![\w.-]){re.escape(name)}-(?=[.\[(\\])", text) is not None


def _wrong(text: str, rule: Mapping[str, Any], wanted: Alerting) -> str:
    """Return what is wrong with an alert on 5xx, or an empty string; what cannot be read of it counts as right."""
    bare = _RANGE.sub("", _QUOTED.sub('""', text)).strip()
    if "rate(" in bare.replace(" ", "") and "/" not in bare:
        return "compares requests a second and not a share of them; divide by the rate of all requests"
    waits = duration(rule.get("for"))
    if waits is not None and waits > wanted.seconds:
        return f"fires only after {shown(waits)}; {shown(wanted.seconds)} are enough"
    found = _THRESHOLD.search(bare)
    if found:
        value = float(found.group(2))
        if re.search(r"\*\s*100(?![0-9])", bare) or value > 1:
            value /= 100
        share = 1 - value if found.group(1) == "<" else value
        if share > wanted.share + 1e-9:
            return f"fires only over {share * 100:g} %, and {wanted.share * 100:g} % are too many"
    return ""
