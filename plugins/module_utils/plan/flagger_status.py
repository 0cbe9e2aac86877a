# SPDX-License-Identifier: GPL-3.0-or-later
"""What the observed state of a Canary means: how far Flagger is with a release, what it waits for, and why one failed.

Flagger looks at a Canary at each interval of its analysis (10 s at least). It writes down a hash of the pod template when
it begins (``lastAppliedSpec``) and when it has promoted (``lastPromotedSpec``); nobody else can compute that hash. So what
is to be released is told by comparing the target with the primary, as Flagger makes the one from the other
(pkg/canary/deployment_controller.go). A revision that failed is not tried again until the template is another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ..errors import InvalidRequest
from ..model import MERGE_PATCH, Change, Manifest, Ref, metadata
from .flagger import FLOOR, SCALED_TO_ZERO, SELECTOR_LABELS, go_seconds
from .rollout import in_words, template_images

UNDER_WAY = ("Waiting", "Progressing", "WaitingPromotion", "Promoting", "Finalising")
SETTLED = ("Initialized", "Succeeded", "Failed")
BEGINNING = ("", "Initializing")
UNTIL = ("initialized", "waiting", "succeeded", "off")

# Seconds between two looks of Flagger at a Canary where none is set.
DEFAULT_INTERVAL = 60.0

_COMBINED = "(combined from similar events): "
_BEGINS = "New revision detected!"
_ADVANCE = "Advance "
_ROLLED_BACK = "Canary failed! Scaling down"
_METRIC = re.compile(r"^Halt \S+ advancement (?P<name>.+) (?P<value>\S+) (?P<operator>[<>]) (?P<limit>\S+)$")
_NO_VALUES = re.compile(r"^Halt advancement no values found for (?:custom metric: |metric: |\S+ metric )(?P<name>[^\s:]+)")
_QUERY = re.compile(r"^(?:Prometheus|Metric) query failed(?: for (?P<name>[^:]+))?: (?P<value>.*)$")
_TEMPLATE = re.compile(r"^Metric template (?P<name>\S+) (?:provider |secret |query render )?.*?error: (?P<value>.*)$")
_WEBHOOK = re.compile(r"^Halt \S+ advancement (?:external|pre-rollout) check (?P<name>.+?) failed ?(?P<value>.*)$")
_GATE = re.compile(r"^Halt \S+ advancement waiting for (?P<kind>|promotion |traffic increase )approval (?P<name>.+)$")
_BUILT_IN = {"success rate": "request-success-rate", "request duration": "request-duration"}
_KINDS = (
    ("WebhookFailed", _WEBHOOK),
    ("MetricFailed", _METRIC),
    ("NoValues", _NO_VALUES),
    ("QueryFailed", _QUERY),
    ("QueryFailed", _TEMPLATE),
)
# The type of webhook that holds a release up, by phase and by what Flagger says.
_GATE_OF_PHASE = {"Waiting": "confirm-rollout", "WaitingPromotion": "confirm-promotion"}
_GATE_OF_WORDS = {"": "confirm-rollout", "promotion ": "confirm-promotion", "traffic increase ": "confirm-traffic-increase"}


@dataclass(frozen=True)
class CanaryStatus:
    """How far Flagger is. ``steps`` is the number of iterations or the greatest weight that it goes to; counts are as Flagger has them.

    ``phase`` is Flagger's own word, empty while it has not looked at the Canary.
    """

    phase: str
    weight: int
    max_weight: int
    iterations: int
    max_iterations: int
    failed_checks: int
    threshold: int
    suspended: bool
    message: str
    last_applied: str
    last_promoted: str

    @property
    def is_under_way(self) -> bool:
        """Return whether Flagger is at work on a release."""
        return self.phase in UNDER_WAY

    @property
    def is_settled(self) -> bool:
        """Return whether Flagger has nothing under way."""
        return self.phase in SETTLED

    @property
    def is_beginning(self) -> bool:
        """Return whether there is no primary yet that has the traffic."""
        return self.phase in BEGINNING

    def counts(self) -> str:
        """Return the numbers of a release that is under way: ``weight 20 of 50, 1 of 5 failed checks``."""
        if not self.is_under_way:
            return ""
        how = f"weight {self.weight} of {self.max_weight}"
        if self.max_iterations:
            how = f"iteration {self.iterations} of {self.max_iterations}"
        return f"{how}, {self.failed_checks} of {in_words(self.threshold, 'failed check')}"

    def to_dict(self) -> dict[str, Any]:
        """Return the status as a step reports it."""
        return asdict(self)


@dataclass(frozen=True)
class Told:
    """Something that Flagger has said of a Canary in an Event; ``at`` is the API's time, ``type`` Normal or Warning."""

    at: str
    type: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return it as a step reports it."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """Why Flagger did not go on, or went back; ``reason`` is one word, the others are empty where Flagger does not say them."""

    reason: str
    message: str
    name: str = ""
    value: str = ""
    operator: str = ""
    limit: str = ""

    @property
    def words(self) -> str:
        """Return the check as a sentence has it."""
        if self.reason == "MetricFailed":
            return f"metric {self.name} was {self.value} {self.operator} {self.limit}"
        if self.reason == "NoValues":
            return f"metric {self.name} had no values: does anybody send requests to it, and does Prometheus have them"
        if self.reason == "QueryFailed":
            return f"the query{f' of metric {self.name}' if self.name else ''} failed: {self.value}"
        if self.reason == "WebhookFailed":
            return f"webhook {self.name} refused{f': {self.value}' if self.value else ''}"
        return self.message

    def to_dict(self) -> dict[str, str]:
        """Return it as a step reports it."""
        return asdict(self)


@dataclass(frozen=True)
class Gate:
    """A webhook at which a release waits for somebody: its type and its name."""

    type: str
    name: str

    @property
    def words(self) -> str:
        """Return the gate as a sentence has it."""
        return f"gate {self.type}" + (f" ({self.name})" if self.name else "")

    def to_dict(self) -> dict[str, str]:
        """Return it as a step reports it."""
        return asdict(self)


# -- the Canary -------------------------------------------------------------------------------------------------------


def analysis_of(canary: Manifest) -> dict[str, Any]:
    """Return the Canary's analysis, by its new name or the deprecated one; empty where it has none, and Flagger skips it."""
    spec = canary.get("spec") or {}
    return spec.get("analysis") or spec.get("canaryAnalysis") or {}


def duration_seconds(text: str | None, default: float) -> float:
    """Return a duration as Go writes it (``1m30s``) in seconds; the default where it is none."""
    found = go_seconds(text)
    return default if found is None else found


def interval_of(canary: Manifest) -> float:
    """Return the seconds between two looks of Flagger: the analysis' interval, 60 without one, never less than 10."""
    return max(FLOOR, duration_seconds(analysis_of(canary).get("interval"), DEFAULT_INTERVAL))


def canary_status(canary: Manifest) -> CanaryStatus:
    """Return how far Flagger is with a Canary, from the object alone."""
    spec, status, analysis = canary.get("spec") or {}, canary.get("status") or {}, analysis_of(canary)
    weights = analysis.get("stepWeights") or []
    condition = next(iter(status.get("conditions") or []), {})
    return CanaryStatus(
        phase=status.get("phase") or "",
        weight=status.get("canaryWeight") or 0,
        max_weight=min(100, weights[-1]) if weights else analysis.get("maxWeight") or 100,
        iterations=max(0, status.get("iterations") or 0),
        max_iterations=analysis.get("iterations") or 0,
        failed_checks=status.get("failedChecks") or 0,
        threshold=max(1, analysis.get("threshold") or 0),
        suspended=bool(spec.get("suspend")),
        message=condition.get("message") or "",
        last_applied=status.get("lastAppliedSpec") or "",
        last_promoted=status.get("lastPromotedSpec") or "",
    )


def primary_of(canary: Manifest) -> str:
    """Return the name of the workload that has the traffic."""
    return f"{target_of(canary)[1]}-primary"


def target_of(canary: Manifest) -> tuple[str, str]:
    """Return kind and name of the workload that the Canary releases."""
    target = (canary.get("spec") or {}).get("targetRef") or {}
    return target.get("kind") or "", target.get("name") or ""


# -- what there is to release -----------------------------------------------------------------------------------------


def is_same_template(target: Manifest, primary: Manifest) -> bool:
    """Return whether the primary runs the target's pod template, but for what Flagger makes another of it.

    It adds an annotation, and ``-primary`` to the label that tells the pods apart and to the names of the configuration.
    """
    one, other = ((entry.get("spec") or {}).get("template") or {} for entry in (target, primary))
    return _is_same(one.get("spec") or {}, other.get("spec") or {}) and all(
        _is_same(_kept(metadata(one).get(key) or {}), _kept(metadata(other).get(key) or {})) for key in ("labels", "annotations")
    )


def _kept(notes: Mapping[str, str]) -> dict[str, str]:
    """Return labels or annotations without those that Flagger adds or leaves out."""
    return {key: value for key, value in notes.items() if key != "flagger-id" and "toolkit.fluxcd.io" not in key}


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are the same, where the second may have names that end with -primary."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return one == other or (isinstance(one, str) and other == f"{one}-primary")


def as_written(target: Manifest) -> Manifest:
    """Return a target as its owner has written it: Flagger scales a DaemonSet to 0 by a node selector in its pod template."""
    template = (target.get("spec") or {}).get("template") or {}
    selector = (template.get("spec") or {}).get("nodeSelector") or {}
    if SCALED_TO_ZERO not in selector:
        return target
    kept = {key: value for key, value in selector.items() if key != SCALED_TO_ZERO}
    pods = {key: value for key, value in template["spec"].items() if key != "nodeSelector"} | ({"nodeSelector": kept} if kept else {})
    return {**target, "spec": {**target["spec"], "template": {**template, "spec": pods}}}


def images_of(workload: Manifest) -> dict[str, str]:
    """Return {container: image} of a workload."""
    return template_images((workload.get("spec") or {}).get("template") or {})


def config_checksum(data: Mapping[str, Any] | None) -> str:
    """Return the checksum that Flagger notes of a ConfigMap or Secret: what Go's encoding/json makes of its data, hashed."""
    text = json.dumps(data or None, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(character, escaped)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tracked_configs(canary: Manifest) -> dict[tuple[str, str], str]:
    """Return {(kind, name): checksum} of the configuration that Flagger follows, as it was when the last release began."""
    kinds = {"configmap": "ConfigMap", "secret": "Secret"}
    found = {}
    for key, checksum in ((canary.get("status") or {}).get("trackedConfigs") or {}).items():
        kind, _slash, name = key.partition("/")
        if kind in kinds and name:
            found[kinds[kind], name] = checksum
    return found


def pods_query(target: Manifest) -> str:
    """Return a label query that finds the pods of the target and of its primary."""
    selector = ((target.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    for key in SELECTOR_LABELS:
        if key in selector:
            return f"{key} in ({selector[key]},{selector[key]}-primary)"
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))


def is_decided(canary: Manifest, target: Manifest) -> bool:
    """Return whether the phase Failed is surely about the target's template as it is now.

    While a Canary is Failed, Flagger writes its status at each look. Where the last of them was more than one interval after
    the template was changed, there was one before it that has seen the template, and has found nothing to begin.
    Both times are the API server's.
    """
    looked = _written(canary, is_status=True, path=("f:status",))
    changed = _written(target, is_status=False, path=("f:spec", "f:template"))
    return bool(looked and changed) and (looked - changed).total_seconds() > interval_of(canary) + 1  # type: ignore[operator]


def _written(manifest: Manifest, is_status: bool, path: Sequence[str]) -> datetime | None:
    """Return when a field of an object was written last, from its managed fields; None where they do not say it."""
    times = []
    for entry in metadata(manifest).get("managedFields") or []:
        if (entry.get("subresource") == "status") is is_status and _has(entry.get("fieldsV1") or {}, path) and entry.get("time"):
            times.append(datetime.fromisoformat(entry["time"].replace("Z", "+00:00")))
    return max(times, default=None)


def _has(fields: Mapping[str, Any], path: Sequence[str]) -> bool:
    """Return whether managed fields have a path."""
    for part in path:
        if part not in fields:
            return False
        fields = fields[part]
    return True


# -- what Flagger says ------------------------------------------------------------------------------------------------


def told_of(events: Iterable[Manifest], canary: Manifest) -> list[Told]:
    """Return what Flagger has said of this very Canary, the oldest first."""
    uid = metadata(canary).get("uid")
    mine = [event for event in events if (event.get("involvedObject") or {}).get("uid") == uid]
    found = []
    for event in sorted(mine, key=lambda entry: (_at(entry), _number(entry))):
        found.append(Told(_at(event), event.get("type") or "Normal", (event.get("message") or "").removeprefix(_COMBINED).strip()))
    return found


def _at(event: Manifest) -> str:
    """Return when an event happened last; times of the API compare as text."""
    times = (event.get("lastTimestamp"), event.get("eventTime"), metadata(event).get("creationTimestamp"))
    return next((time[:19] + "Z" for time in times if time), "")


def _number(event: Manifest) -> int:
    """Return what puts events of one second in order: their versions grow."""
    version = metadata(event).get("resourceVersion") or ""
    return int(version) if version.isdigit() else 0


def of_last_release(told: Sequence[Told]) -> list[Told]:
    """Return what was said since the last release began, or all where its beginning is not among it: events are kept for an hour."""
    begins = [number for number, entry in enumerate(told) if entry.message.startswith(_BEGINS)]
    return list(told[begins[-1] :]) if begins else list(told)


def is_told_to_the_end(told: Sequence[Told]) -> bool:
    """Return whether Flagger has said that it took the release back: events come a little later than the status."""
    return any(entry.message.startswith(_ROLLED_BACK) for entry in of_last_release(told))


def checks_of(told: Sequence[Told]) -> list[Check]:
    """Return the checks that held the last release up, the oldest first."""
    return [check for entry in of_last_release(told) if entry.type == "Warning" for check in [parse_check(entry.message)] if check]


def parse_check(message: str) -> Check | None:
    """Return the check that a message of Flagger tells of; None where it tells of something else."""
    for reason, pattern in _KINDS:
        found = pattern.match(message)
        if found:
            parts = {key: (value or "").strip() for key, value in found.groupdict().items()}
            parts["name"] = _BUILT_IN.get(parts["name"], parts["name"])
            return Check(reason, message, **parts)
    if "manual webhook invoked" in message:
        return Check("RolledBack", "somebody opened the gate rollback")
    if "progress deadline" in message:
        return Check("ProgressDeadlineExceeded", message)
    return None


def failure_of(canary: Manifest, told: Sequence[Told]) -> Check:
    """Return why the last release of a Canary failed, as far as Flagger has said it."""
    found = checks_of(told)
    decisive = [check for check in found if check.reason in ("RolledBack", "ProgressDeadlineExceeded")]
    if decisive:
        return decisive[-1]
    if found:
        return found[-1]
    warnings = [entry.message for entry in of_last_release(told) if entry.type == "Warning" and not entry.message.startswith(_ROLLED_BACK)]
    words = warnings[-1] if warnings else canary_status(canary).message or "Flagger does not say why"
    return Check("CanaryFailed", words)


def gate_of(canary: Manifest, told: Sequence[Told]) -> Gate | None:
    """Return the gate at which a release stands, or None."""
    status = canary_status(canary)
    said = next((_GATE.match(entry.message) for entry in reversed(told) if _GATE.match(entry.message)), None)
    kind = _GATE_OF_PHASE.get(status.phase)
    if kind:
        if said and _GATE_OF_WORDS[said["kind"]] == kind:
            return Gate(kind, said["name"])
        names = [entry.get("name") or "" for entry in analysis_of(canary).get("webhooks") or [] if entry.get("type") == kind]
        return Gate(kind, names[0] if names else "")
    if status.phase != "Progressing" or not told:
        return None
    newest = _GATE.match(told[-1].message)
    if newest and _GATE_OF_WORDS[newest["kind"]] == "confirm-traffic-increase":
        return Gate("confirm-traffic-increase", newest["name"])
    return None


def waits_for(canary: Manifest, told: Sequence[Told], pending: bool) -> str:
    """Return what is to happen next, or what Flagger has said last, as the end of a line of progress."""
    status, gate = canary_status(canary), gate_of(canary, told)
    _kind, name = target_of(canary)
    if status.suspended:
        return "it is suspended"
    if gate:
        return f"stands at the {gate.words}"
    if status.is_settled:
        return f"waiting for Flagger to see what {name} is to run (it looks every {interval_of(canary):g} s)" if pending else ""
    # The numbers before it say what an advance says, and say it earlier.
    said = told[-1].message if told and not told[-1].message.startswith(_ADVANCE) else ""
    if status.is_beginning:
        return said or f"waiting for Flagger to make {name}-primary"
    if status.phase == "Promoting":
        return said or f"{name}-primary gets the new revision"
    return said


def progress_line(canary: Manifest, told: Sequence[Told], pending: bool) -> str:
    """Return how far the release is, as one line."""
    status = canary_status(canary)
    head = ", ".join(filter(None, (status.phase or "not seen by Flagger yet", status.counts())))
    return ": ".join(filter(None, (head, " ".join(waits_for(canary, told, pending).split()))))


# -- taking a release back --------------------------------------------------------------------------------------------


def plan_abort(ref: Ref, canary: Manifest) -> Change:
    """Return the change that lets Flagger take the release back at its next look: as many failed checks as its threshold.

    Flagger itself then leads all traffic to the primary, scales the canary to 0 and notes both in its status. To put the image
    back alone does not do it: Flagger takes a template that it has promoted for no new revision, and goes on with the steps.
    Raises InvalidRequest where the primary gets the new revision already, or where Flagger would not look at failed checks.
    """
    status = canary_status(canary)
    before = {"phase": status.phase, "failed_checks": status.failed_checks}
    if status.phase in ("Promoting", "Finalising"):
        raise InvalidRequest(
            f"{ref} is {status.phase}: its analysis has passed, and {primary_of(canary)} gets the new revision;"
            " let it end, and release the version before"
        )
    if status.phase not in ("Progressing", "WaitingPromotion"):
        return Change(before, before)
    if status.suspended:
        raise InvalidRequest(
            f"{ref} is suspended in phase {status.phase}, and Flagger does nothing with it: the requests stay shared as they are (weight"
            f" {status.weight}); set its spec.suspend to false, and run this again",
            reason="Suspended",
        )
    if not analysis_of(canary) or (canary.get("spec") or {}).get("skipAnalysis"):
        raise InvalidRequest(
            f"{ref} has skipAnalysis: Flagger promotes at its next look, and does not ask for failed checks; set the image that"
            f" {primary_of(canary)} runs, or let it end and release the version before"
        )
    if status.failed_checks >= status.threshold:
        return Change(before, before)
    patch = {
        "metadata": {"resourceVersion": metadata(canary).get("resourceVersion")},
        "status": {"failedChecks": status.threshold},
    }
    after = {**before, "failed_checks": status.threshold}
    words = f"gave {ref} as many failed checks as its threshold ({status.threshold}): Flagger takes the release back at its next look"
    return Change(before, after, patch, MERGE_PATCH, (words,))
