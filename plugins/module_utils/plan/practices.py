# SPDX-License-Identifier: GPL-3.0-or-later
"""Good practices as checks: what is true of a workload before it is released, what is wrong, and what puts it right.

Each check returns a Finding. Its ``fix`` has what a task writes: ``annotations``, ``pod`` (fields of the pod's spec) and
``containers`` {name: fields} are parts of the workload, so that several fixes become one rollout; ``object`` is an object
of its own and ``groups`` are those of a rule file. Where there is none, ``unfixable`` says why.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import DeliveryError, InvalidRequest
from ..model import CHANGE_CAUSE, Manifest, Ref, annotations, metadata
from . import alerts, budgets
from .released import is_same_image, released_images
from .rollout import replicas_of, rollout_status, template_images
from .workload import check_image

CHECKS = (
    "readiness_probe",
    "disruption_budget",
    "image_tag",
    "resources",
    "graceful_stop",
    "annotations",
    "alert",
    "staged",
)
STRATEGY = "deployment-strategy"
ROLLBACK = "rollback-procedure"
ANNOTATIONS = (STRATEGY, ROLLBACK, CHANGE_CAUSE)
SIDECARS = ("istio-proxy", "linkerd-proxy")
DEFAULT_GRACE = 30

_PROBE_HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")
# semver.org, with a v before it; a plus sign cannot be part of a tag.
_VERSION = re.compile(r"v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?")
_SLEEP = re.compile(r"(?:^|[\s;&|(/'\"])sleep\s+([0-9]+(?:\.[0-9]+)?)([smh]?)(?![\w.])")
_SLEEP_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Finding:
    """What a check found: ``message`` is one sentence that names the object, what is wrong and the way out."""

    check: str
    ok: bool
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)
    fix: Mapping[str, Any] = field(default_factory=dict)
    unfixable: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as a step reports it."""
        return asdict(self)


def unreadable(check: str, error: DeliveryError) -> Finding:
    """Return the finding of a check for which the cluster does not let us look."""
    message = f"{error.message}; or leave the check {check} out"
    return Finding(check, False, message, {"reason": error.reason}, {}, "what there is cannot be read")


# -- containers ---------------------------------------------------------------------------------------------------


def pod_spec(workload: Manifest) -> dict[str, Any]:
    """Return the spec of the workload's pods."""
    return ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}


def lacking(workload: Manifest, sidecars: Iterable[str], has: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """Return the containers that serve and have not what is asked: those with ports, or all where none declares any.

    Sidecars do not count; they are those that are named, and all that are init containers (``restartPolicy: Always``).
    """
    own = [entry for entry in pod_spec(workload).get("containers") or [] if entry["name"] not in sidecars]
    serving = [entry for entry in own if entry.get("ports")]
    if not serving and any(has(entry) for entry in own):
        return []
    return [entry["name"] for entry in serving or own if not has(entry)]


def by_container(given: Mapping[str, Any], names: Sequence[str], keys: Sequence[str], what: str, shared: bool) -> dict[str, Any]:
    """Return {container: value} for the containers in need, from one value or from values by container.

    One value is told by its ``keys``. It goes to several containers only where it is ``shared``. Raise InvalidRequest where
    something is missing; its message is the reason why nothing can be put right.
    """
    if not given:
        raise InvalidRequest(f"{what} is not given")
    if any(key in given for key in keys):
        if len(names) > 1 and not shared:
            raise InvalidRequest(f"{what} is one for the containers {', '.join(names)}; give it by container")
        return {name: dict(given) for name in names}
    missing = [name for name in names if not isinstance(given.get(name), Mapping)]
    if missing:
        raise InvalidRequest(f"{what} has none for container {missing[0]}; it has: {', '.join(map(str, given))}")
    return {name: dict(given[name]) for name in names}


def _named(names: Sequence[str]) -> str:
    """Return containers as a sentence names them."""
    return f"container {names[0]}" if len(names) == 1 else f"containers {', '.join(names)}"


def readiness_probe(ref: Ref, workload: Manifest, sidecars: Iterable[str] = SIDECARS, probe: Mapping[str, Any] | None = None) -> Finding:
    """Return whether every container that serves tells when it can take requests."""
    names = lacking(workload, sidecars, lambda entry: bool(entry.get("readinessProbe")))
    details = {"missing": names}
    if not names:
        return Finding("readiness_probe", True, f"{ref} tells by a readinessProbe when it can take requests", details)
    message = (
        f"{_named(names)} of {ref} {'has' if len(names) == 1 else 'have'} no readinessProbe, so requests are sent before"
        " they can be answered; add one"
    )
    if not any(entry.get("ports") for entry in pod_spec(workload).get("containers") or []):
        # One is enough where nobody knows which container serves.
        names = [name for name in names if name in (probe or {})] or names
    try:
        found = by_container(probe or {}, names, _PROBE_HANDLERS, "readiness_probe", shared=False)
    except InvalidRequest as error:
        return Finding("readiness_probe", False, message, details, {}, error.message)
    parts = {name: {"name": name, "readinessProbe": value} for name, value in found.items()}
    return Finding("readiness_probe", False, message, details, {"containers": parts})


def resources(ref: Ref, workload: Manifest, wanted: Mapping[str, Any] | None = None) -> Finding:
    """Return whether every container, those that run beside all along included, requests cpu and memory."""
    spec = pod_spec(workload)
    beside = [entry for entry in spec.get("initContainers") or [] if entry.get("restartPolicy") == "Always"]
    for_all = (spec.get("resources") or {}).get("requests") or {}
    missing: dict[str, list[str]] = {}
    present: dict[str, Mapping[str, Any]] = {}
    for entry in [*(spec.get("containers") or []), *beside]:
        given = entry.get("resources") or {}
        # A limit without a request is a request of the same amount.
        asked = {**for_all, **(given.get("limits") or {}), **(given.get("requests") or {})}
        without = [name for name in ("cpu", "memory") if name not in asked]
        present[entry["name"]] = given
        if without:
            missing[entry["name"]] = without
    details = {"missing": missing}
    if not missing:
        return Finding("resources", True, f"every container of {ref} requests cpu and memory", details)
    words = ", ".join(f"{name} ({' and '.join(without)})" for name, without in missing.items())
    message = (
        f"containers of {ref} do not request what they need: {words}; set resources.requests, or a node is given more pods than it can run"
    )
    try:
        found = by_container(wanted or {}, list(missing), ("requests", "limits"), "resources", shared=True)
    except InvalidRequest as error:
        return Finding("resources", False, message, details, {}, error.message)
    parts: dict[str, dict[str, Any]] = {}
    for name, without in missing.items():
        asked = found[name].get("requests") or {}
        short = [entry for entry in without if entry not in asked]
        if short:
            return Finding("resources", False, message, details, {}, f"resources requests no {short[0]} for container {name}")
        limits = {key: value for key, value in (found[name].get("limits") or {}).items() if key not in (present[name].get("limits") or {})}
        parts[name] = {"name": name, "resources": {"requests": {entry: asked[entry] for entry in without}}}
        if limits:
            parts[name]["resources"]["limits"] = limits
    initial = {entry["name"] for entry in beside}
    fix = {"containers": {name: part for name, part in parts.items() if name not in initial}}
    if initial & set(parts):
        fix["initContainers"] = {name: part for name, part in parts.items() if name in initial}
    return Finding("resources", False, message, details, fix)


def stop_seconds(container: Mapping[str, Any]) -> float | None:
    """Return how long the container's preStop hook takes: 0 without one, None where it cannot be told."""
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    if not hook:
        return 0.0
    if "sleep" in hook:
        return float((hook["sleep"] or {}).get("seconds") or 0)
    found = _SLEEP.findall(" ".join((hook.get("exec") or {}).get("command") or []))
    return sum(float(number) * _SLEEP_UNITS[unit] for number, unit in found) if found else None


def graceful_stop(ref: Ref, workload: Manifest, delay: float = 3, sidecars: Iterable[str] = SIDECARS) -> Finding:
    """Return whether pods that end take requests until no endpoint names them any more, and have time to finish them."""
    if delay <= 0:
        raise InvalidRequest(f"stop_delay must be more than 0 seconds, got {delay:g}")
    spec = pod_spec(workload)
    containers = {entry["name"]: entry for entry in spec.get("containers") or []}
    names = lacking(workload, sidecars, lambda entry: (stop_seconds(entry) or 0) >= delay)
    seconds = {name: stop_seconds(entry) for name, entry in containers.items()}
    grace = DEFAULT_GRACE if spec.get("terminationGracePeriodSeconds") is None else spec["terminationGracePeriodSeconds"]
    longest = max([delay if names else 0.0, *(value or 0.0 for value in seconds.values())])
    details = {"missing": names, "seconds": seconds, "grace_period": grace, "needed": delay}
    if not names and grace > longest:
        message = f"{ref} takes requests for {longest:g} s while it ends, and has {grace} s to finish them"
        return Finding("graceful_stop", True, message, details)
    wrong, way, fix = [], [], {}
    if names:
        how = _how_it_stops(containers[names[0]])
        wrong.append(f"{_named(names)} of {ref} {how}, and {delay:g} s are needed until no endpoint names it")
        way.append(f"add a preStop sleep of {math.ceil(delay)} s")
        hook = {"lifecycle": {"preStop": {"sleep": {"seconds": math.ceil(delay)}}}}
        fix["containers"] = {name: {"name": name, **hook} for name in names}
    if grace <= longest:
        enough = math.ceil(longest) + DEFAULT_GRACE
        wrong.append(f"the grace period of {grace} s {'' if names else f'that {ref} has '}leaves no time after {longest:g} s of preStop")
        way.append(f"set terminationGracePeriodSeconds to {enough}")
        fix["pod"] = {"terminationGracePeriodSeconds": enough}
    message = f"{' and '.join(wrong)}; {' and '.join(way)}"
    own = [name for name in names if set((containers[name].get("lifecycle") or {}).get("preStop") or {}) - {"sleep"}]
    if own:
        return Finding(
            "graceful_stop", False, message, details, {}, f"container {own[0]} has a preStop hook of its own, which a sleep would replace"
        )
    return Finding("graceful_stop", False, message, details, fix)


def _how_it_stops(container: Mapping[str, Any]) -> str:
    """Return how a container stops, as the middle of a sentence."""
    seconds = stop_seconds(container)
    if seconds is None:
        return "has a preStop hook of which nobody knows how long it takes"
    return f"waits for {seconds:g} s in preStop" if seconds else "gets its SIGTERM at once"


# -- images -------------------------------------------------------------------------------------------------------


def given_images(ref: Ref, image: str | None, images: Mapping[str, Any] | None) -> dict[str, str]:
    """Return {container: image} of what is about to be released; empty where nothing is said."""
    if image and images:
        raise InvalidRequest(f"both image and images say what is released on {ref}; give one of them")
    named = {"*": image} if image else dict(images or {})
    return {container: check_image(value, f"container {container} of {ref}") for container, value in named.items()}


def own_images(workload: Manifest, sidecars: Iterable[str] = SIDECARS) -> dict[str, str]:
    """Return {container: image} of what the workload has now, without sidecars."""
    return {name: image for name, image in template_images({"spec": pod_spec(workload)}).items() if name not in sidecars}


def image_parts(image: str) -> tuple[str, str, str]:
    """Return name, tag and digest of an image reference; the last two may be empty."""
    rest, _at, digest = image.partition("@")
    path, slash, last = rest.rpartition("/")
    name, _colon, tag = last.partition(":")
    return path + slash + name, tag, digest


def image_tag(ref: Ref, images: Mapping[str, str]) -> Finding:
    """Return whether every image says by its tag which version it is."""
    wrong = {}
    for container, image in images.items():
        _name, tag, digest = image_parts(image)
        if not tag:
            wrong[container] = f"{image} has no tag" + ("" if digest else " and is whatever latest is when a node pulls it")
        elif tag == "latest":
            wrong[container] = (
                f"{image} is whatever latest is when a node pulls it" if not digest else f"{image} says latest and no version"
            )
        elif not _VERSION.fullmatch(tag) and not digest:
            wrong[container] = f'the tag "{tag}" of {image} is no version'
    details = {"images": dict(images), "wrong": list(wrong)}
    if not wrong:
        return Finding("image_tag", True, f"every image of {ref} has a version as its tag: {', '.join(images.values())}", details)
    message = f"{ref}: {', '.join(wrong.values())}; give it a semantic version as 2.1.0, or a digest beside its tag"
    return Finding("image_tag", False, message, details, {}, "no task can know which version an image is; release it by a tag that says so")


def staged(ref: Ref, images: Mapping[str, str], there: Ref, workload: Manifest | None) -> Finding:
    """Return whether these images were released on another workload first: it runs them, or its record names them."""
    details: dict[str, Any] = {"where": str(there), "images": dict(images), "running": {}, "released": []}
    unfixable = "no task can release it there without you; do that first"
    if workload is None:
        message = f"{there} does not exist, so {', '.join(images.values())} was not released there before {ref}; release it there first"
        return Finding("staged", False, message, details, {}, unfixable)
    status = rollout_status({**workload, "kind": there.kind})
    running = template_images((workload.get("spec") or {}).get("template") or {})
    record = released_images(workload)
    details.update(running=running, released=record, phase=status.phase)
    live = list(running.values()) if status.phase == "complete" else []
    missing = [image for image in images.values() if not any(is_same_image(image, other) for other in [*live, *record])]
    if not missing:
        return Finding("staged", True, f"{', '.join(images.values())} was released on {there} first", details)
    why = f"it runs {', '.join(running.values())}"
    if any(is_same_image(missing[0], other) for other in running.values()):
        why = f"it runs it, but its rollout is not complete ({status.message})"
    message = f"{missing[0]} was not released on {there} before {ref}: {why}; release it there first"
    return Finding("staged", False, message, details, {}, unfixable)


# -- objects beside the workload ------------------------------------------------------------------------------------


def disruption_budget(
    ref: Ref,
    workload: Manifest,
    present: Sequence[Manifest],
    workloads: Sequence[Manifest] = (),
    autoscaler: Manifest | None = None,
    wanted: Mapping[str, Any] | None = None,
) -> Finding:
    """Return whether one PodDisruptionBudget keeps some of the pods and still lets a node be drained.

    ``present`` are the budgets of the namespace, and ``workloads`` what else they may select.
    """
    field_of = budgets.wanted_limit(wanted or {})
    if ref.kind == "DaemonSet":
        return Finding("disruption_budget", True, f"{ref} needs no PodDisruptionBudget: a drain leaves its pods alone", {"budgets": []})
    pod_labels = budgets.pod_labels_of(workload)
    mine = [entry for entry in present if budgets.selects((entry.get("spec") or {}).get("selector"), pod_labels)]
    replicas, lowest = replicas_of(workload), budgets.lowest_replicas(workload, autoscaler)
    names = [metadata(entry)["name"] for entry in mine]
    details: dict[str, Any] = {"budgets": names, "replicas": replicas, "lowest": lowest}
    if len(mine) > 1:
        message = (
            f"{len(mine)} PodDisruptionBudgets ({', '.join(names)}) select the pods of {ref}, so every eviction of them fails; keep one"
        )
        return Finding("disruption_budget", False, message, details, {}, "no task can know which of them is the right one")
    if replicas == 0:
        return Finding("disruption_budget", True, f"{ref} is scaled to 0, so there is no pod to protect", details)
    spec: Mapping[str, Any] = {}
    others: list[budgets.Covered] = []
    if mine:
        spec = mine[0].get("spec") or {}
        everyone = budgets.covered(mine[0], workloads, {(ref.kind, ref.name): lowest})
        others = [entry for entry in everyone if (entry.kind, entry.name) != (ref.kind, ref.name)]
        expected = lowest + sum(entry.replicas for entry in others)
        details.update(
            covers=[f"{entry.kind} {entry.name}" for entry in others],
            limit=budgets.limit(spec),
            expected=expected,
            must_stay=budgets.must_stay(spec, expected),
            allowed=budgets.may_go(spec, expected),
        )
    of_lowest = f"{lowest} pod{'s' if lowest != 1 else ''}" + (" at its autoscaler's minimum" if lowest != replicas else "")
    if lowest == 1:
        message = (
            f"{ref} has {of_lowest}, and no PodDisruptionBudget can both keep 1 pod of 1 and let its node be drained"
            f"{_with_one(names, details)}; run 2 or more"
        )
        return Finding("disruption_budget", False, message, details, {}, "a second replica is needed first")
    if not mine:
        fix, unfixable = _new_budget(ref, workload, present, field_of, lowest)
        message = (
            f"no PodDisruptionBudget selects the {of_lowest} of {ref}, so a drain may take all at once; make one with"
            f" {budgets.limit(field_of)}"
        )
        return Finding("disruption_budget", False, message, details, fix, unfixable)
    return _judged(ref, names[0], spec, details, others, lowest, of_lowest)


def _with_one(names: Sequence[str], details: Mapping[str, Any]) -> str:
    """Return what the budget of a workload with one pod does, as a part of a sentence."""
    if not names:
        return ""
    what = "blocks every drain" if details["allowed"] == 0 else "keeps nothing"
    return f" (PodDisruptionBudget {names[0]} with {details['limit']} {what})"


def _new_budget(
    ref: Ref, workload: Manifest, present: Sequence[Manifest], field_of: Mapping[str, Any], lowest: int
) -> tuple[dict[str, Any], str]:
    """Return the fix that makes a budget, or why the one that is wanted would be no good."""
    allowed = budgets.may_go(field_of, lowest)
    if not 0 < allowed < lowest:
        return {}, f"disruption_budget with {budgets.limit(field_of)} would let {allowed} of {lowest} pods go"
    taken = {metadata(entry)["name"] for entry in present}
    name = next(
        name for name in (ref.name, f"{ref.name}-{ref.kind.lower()}", f"{ref.name}-budget") if name not in taken or name.endswith("-budget")
    )
    manifest = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": ref.namespace},
        "spec": {**field_of, "selector": (workload.get("spec") or {}).get("selector")},
    }
    return {"object": manifest}, ""


def _judged(
    ref: Ref, name: str, spec: Mapping[str, Any], details: Mapping[str, Any], others: Sequence[Any], lowest: int, of_lowest: str
) -> Finding:
    """Return the finding about the one budget that there is."""
    expected, allowed, limit = details["expected"], details["allowed"], details["limit"]
    pods = of_lowest if not others else f"{expected} pods (with those of {', '.join(details['covers'])})"
    budget = f"PodDisruptionBudget {ref.namespace}/{name}"
    if 0 < allowed < lowest:
        message = f"{budget} with {limit} keeps {details['must_stay']} of the {pods} of {ref} and lets {allowed} go at once"
        return Finding("disruption_budget", True, message, details)
    # The field stays the one that its owner has chosen.
    better = {"minAvailable": lowest - 1} if spec.get("minAvailable") is not None else {"maxUnavailable": 1}
    if others:
        way, unfixable = "give each workload its own", f"{budget} is also that of {', '.join(details['covers'])}"
    else:
        way, unfixable = f"set {budgets.limit(better)}", ""
    if allowed == 0:
        message = f"{budget} with {limit} of the {pods} of {ref} lets 0 go, so it blocks every drain; {way}"
    else:
        message = f"{budget} with {limit} of the {pods} lets {allowed} go at once, which may be all {lowest} of {ref}; {way}"
    fix = {}
    if not unfixable:
        manifest = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": ref.namespace}}
        fix = {"object": {**manifest, "spec": better}}
    return Finding("disruption_budget", False, message, details, fix, unfixable)


def annotated(ref: Ref, workload: Manifest, values: Mapping[str, Any] | None = None, images: Mapping[str, str] | None = None) -> Finding:
    """Return whether the workload says how it is released, how to go back, and why it is as it is."""
    values = values or {}
    wanted = {**dict.fromkeys(values, ""), **_known(ref, workload, images), **{key: str(value) for key, value in values.items() if value}}
    present = annotations(workload)
    missing = [key for key in wanted if not (present.get(key) or "").strip()]
    details = {"missing": missing}
    if not missing:
        return Finding("annotations", True, f"{ref} has its annotations: {', '.join(wanted)}", details)
    message = (
        f"{ref} lacks the annotation{'s' if len(missing) > 1 else ''} {', '.join(missing)}; say there how it is released,"
        " how to go back and why"
    )
    unknown = [key for key in missing if not wanted[key]]
    if unknown:
        return Finding("annotations", False, message, details, {}, f"annotations has no value for {unknown[0]}")
    return Finding("annotations", False, message, details, {"annotations": {key: wanted[key] for key in missing}})


def way_back(ref: Ref) -> str:
    """Return the command that takes the workload back."""
    kind = "" if ref.kind == "Deployment" else f" -e rollback_kind={ref.kind}"
    return f"ansible-playbook progressive.delivery.rollback -e rollback_namespace={ref.namespace} -e rollback_name={ref.name}{kind}"


def _known(ref: Ref, workload: Manifest, images: Mapping[str, str] | None) -> dict[str, str]:
    """Return the values that the annotations have where nobody says others."""
    spec = workload.get("spec") or {}
    strategy = (spec.get("strategy") or spec.get("updateStrategy") or {}).get("type") or "RollingUpdate"
    return {
        STRATEGY: re.sub(r"(?<=[a-z])(?=[A-Z])", "-", strategy).lower(),
        ROLLBACK: way_back(ref),
        CHANGE_CAUSE: "release of " + ", ".join((images or {}).values()),
    }


def alert(ref: Ref, objects: Sequence[Manifest] | None, groups: Sequence[Any] | None, wanted: alerts.Alerting, namespace: str) -> Finding:
    """Return whether somebody is told when the workload answers with too many 5xx.

    ``objects`` are the PrometheusRules, None where the cluster has no such kind; ``groups`` are those of a rule file, None
    where there is no such file in use. ``namespace`` is where a PrometheusRule is made.
    """
    wanted.check()
    rules = alerts.rules_about(ref, objects or (), groups or (), wanted)
    good = next((rule for rule in rules if not rule.wrong), None)
    details: dict[str, Any] = {"crd": objects is not None, "rules": [asdict(rule) for rule in rules]}
    if good:
        return Finding("alert", True, f"{good.name} in {good.origin} tells when {ref} answers with too many 5xx", details)
    group = alerts.rule_group(ref, wanted, way_back(ref))
    if objects is not None:
        fix: dict[str, Any] = {"object": alerts.rule_object(ref, namespace, group, wanted.labels, objects)}
        way, unfixable = "make a PrometheusRule that does", ""
    elif groups is not None:
        fix, way, unfixable = {"groups": alerts.with_group(groups, group)}, "let the rule file do so", ""
    else:
        fix, way = {}, "let a rule file of Prometheus do so"
        unfixable = "the cluster has no kind PrometheusRule, and no rule file is named"
    limit = f"more than {wanted.share * 100:g} % of its requests with 5xx for {alerts.shown(wanted.seconds)}"
    message = f"nobody is told when {ref} answers {limit}; {way}"
    if rules:
        message = f"nobody is told when {ref} answers {limit}: {rules[0].name} in {rules[0].origin} {rules[0].wrong}"
    return Finding("alert", False, message, details, fix, unfixable)
