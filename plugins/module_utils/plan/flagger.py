# SPDX-License-Identifier: GPL-3.0-or-later
"""A Flagger Canary: its spec from flat options, what Flagger would take silently for something else, and the smallest change.

What is said of Flagger here was read in its sources (1.43): ``pkg/apis/flagger/v1beta1/canary.go``, ``pkg/router/factory.go`` and
``pkg/controller/scheduler.go``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import ANNOTATION_PREFIX, Manifest, Ref, annotations, metadata
from .masking import is_secret_name, masked, shown_url

APPLIED = ANNOTATION_PREFIX + "canary-spec"
"""The annotation with the spec that this collection wrote last: what is not in it is somebody else's."""
BEFORE = ANNOTATION_PREFIX + "canary-before"
"""The annotation with what there was before Flagger: replicas, Service, route."""
ADOPTING = ANNOTATION_PREFIX + "canary-adopting"
"""The annotation of a Canary whose workload is being taken over; a killed run is gone on with."""
SUSPENDED = ANNOTATION_PREFIX + "canary-leaving"
TEMPLATE_LABEL = ANNOTATION_PREFIX + "canary"

FLOOR = 10.0
"""Seconds below which Flagger takes 10 for an analysis interval, without a word."""
SELECTOR_LABELS = ("app", "name", "app.kubernetes.io/name")
"""The labels by which Flagger tells the pods of target and primary apart, unless it was started with others."""
SCALED_TO_ZERO = "flagger.app/scale-to-zero"
"""The node selector by which Flagger takes the pods off a DaemonSet."""
QUIET_PHASES = ("", "Initializing", "Initialized", "Succeeded", "Failed", "Terminated")
"""The phases in which no release is under way."""

GROUPS: dict[str, str] = {
    "apisix": "apisix.apache.org",
    "appmesh": "appmesh.k8s.aws",
    "appmesh:v1beta2": "appmesh.k8s.aws",
    "contour": "projectcontour.io",
    "gatewayapi:v1": "gateway.networking.k8s.io",
    "gatewayapi:v1beta1": "gateway.networking.k8s.io",
    "gloo": "gateway.solo.io",
    "istio": "networking.istio.io",
    "knative": "serving.knative.dev",
    "kubernetes": "",
    "kuma": "kuma.io",
    "linkerd": "split.smi-spec.io",
    "nginx": "networking.k8s.io",
    "osm": "split.smi-spec.io",
    "skipper": "networking.k8s.io",
    "smi:v1alpha1": "split.smi-spec.io",
    "smi:v1alpha2": "split.smi-spec.io",
    "smi:v1alpha3": "split.smi-spec.io",
    "traefik": "traefik.io",
}
"""The providers that Flagger knows, and the API group in which it writes the routes of each; empty for none."""

ROUTE_KINDS = {"gatewayapi:v1": "HTTPRoute", "gatewayapi:v1beta1": "HTTPRoute", "istio": "VirtualService", "traefik": "TraefikService"}
"""The kind that Flagger writes under the name of the Service, for the providers whose routes are put back."""
LEAVABLE = (*ROUTE_KINDS, "kubernetes", "nginx")
MIRRORING = ("istio", "gatewayapi:v1", "gatewayapi:v1beta1")
HOOKS = (
    "confirm-promotion",
    "confirm-rollout",
    "confirm-traffic-increase",
    "event",
    "post-rollout",
    "pre-rollout",
    "rollback",
    "rollout",
)
SEVERITIES = ("info", "warn", "error")
BUILTIN = ("request-success-rate", "request-duration")

SERVICE_FIELDS = {
    "service_name": "name",
    "port": "port",
    "port_name": "portName",
    "app_protocol": "appProtocol",
    "port_discovery": "portDiscovery",
    "gateways": "gateways",
    "gateway_refs": "gatewayRefs",
    "hosts": "hosts",
    "request_timeout": "timeout",
    "retries": "retries",
    "headers": "headers",
    "route_match": "match",
    "rewrite": "rewrite",
    "cors_policy": "corsPolicy",
    "traffic_policy": "trafficPolicy",
    "apex": "apex",
    "primary": "primary",
    "canary": "canary",
}
ANALYSIS_FIELDS = {
    "interval": "interval",
    "threshold": "threshold",
    "max_weight": "maxWeight",
    "step_weight": "stepWeight",
    "step_weights": "stepWeights",
    "step_weight_promotion": "stepWeightPromotion",
    "iterations": "iterations",
    "match": "match",
    "mirror": "mirror",
    "mirror_weight": "mirrorWeight",
    "primary_ready_threshold": "primaryReadyThreshold",
    "canary_ready_threshold": "canaryReadyThreshold",
}
SPEC_FIELDS = {
    "provider": "provider",
    "metrics_server": "metricsServer",
    "progress_deadline": "progressDeadlineSeconds",
    "skip_analysis": "skipAnalysis",
    "suspend": "suspend",
    "revert_on_deletion": "revertOnDeletion",
}
AFFINITY_FIELDS = {
    "cookie_name": "cookieName",
    "primary_cookie_name": "primaryCookieName",
    "domain": "domain",
    "http_only": "httpOnly",
    "max_age": "maxAge",
    "partitioned": "partitioned",
    "path": "path",
    "same_site": "sameSite",
    "secure": "secure",
}

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_ALLOWED = re.compile(r"[0-9]+(m|s)")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def go_seconds(text: Any) -> float | None:
    """Return a duration as Go writes it (``1m30s``) in seconds, None where it is none."""
    found, at = 0.0, 0
    for part in _PART.finditer(str(text)):
        if part.start() != at:
            break
        found, at = found + float(part[1]) * _UNITS[part[2]], part.end()
    return found if at and at == len(str(text)) else None


def seconds(option: str, text: Any) -> float:
    """Return a duration in seconds, or raise InvalidRequest for one that the kind Canary does not take."""
    found = go_seconds(text)
    if found is None or not _ALLOWED.match(str(text)):
        raise InvalidRequest(f'{option} must be a whole number of seconds or minutes as Flagger takes it, such as 30s or 1m, got "{text}"')
    return found


def look_seconds(spec: Mapping[str, Any], is_quiet: bool) -> float:
    """Return how long to wait for Flagger's next look at a Canary that was just suspended.

    Between releases a look takes a moment, so the wait is short. In a release it asks webhooks (10 s each by default) and metrics.
    """
    analysis = spec.get("analysis") or {}
    interval = max(FLOOR, go_seconds(analysis.get("interval") or "1m") or 60.0)
    if is_quiet:
        return min(interval, 15.0) + 2.0
    hooks = sum(go_seconds(hook.get("timeout") or "10s") or 10.0 for hook in analysis.get("webhooks") or [])
    return min(max(interval, hooks) + 5.0, 120.0)


@dataclass(frozen=True)
class Names:
    """The names that Flagger gives what it makes for a Canary."""

    name: str
    namespace: str
    kind: str
    target: str
    service: str

    @classmethod
    def of(cls, canary: Ref, spec: Mapping[str, Any]) -> Names:
        """Return the names of a Canary with this spec."""
        target = spec.get("targetRef") or {}
        name = str(target.get("name") or canary.name)
        service = str((spec.get("service") or {}).get("name") or name)
        return cls(canary.name, canary.namespace, str(target.get("kind") or "Deployment"), name, service)

    @property
    def canary(self) -> Ref:
        """Return the Canary itself."""
        return Ref("Canary", self.namespace, self.name)

    @property
    def workload(self) -> Ref:
        """Return the workload that is released."""
        return Ref(self.kind, self.namespace, self.target)

    @property
    def primary(self) -> Ref:
        """Return the workload that Flagger makes for the version that has the requests."""
        return Ref(self.kind, self.namespace, f"{self.target}-primary")

    @property
    def apex(self) -> Ref:
        """Return the Service by which requests come."""
        return Ref("Service", self.namespace, self.service)

    @property
    def own_hosts(self) -> tuple[str, ...]:
        """Return the names by which the cluster itself knows the Service."""
        name, space = self.service, f"{self.service}.{self.namespace}"
        return name, space, f"{space}.svc", f"{space}.svc.cluster.local"

    def scaler(self, spec: Mapping[str, Any]) -> Ref | None:
        """Return KEDA's ScaledObject of the workload, None where the spec names none."""
        named = spec.get("autoscalerRef") or {}
        return Ref("ScaledObject", self.namespace, str(named["name"])) if named.get("kind") == "ScaledObject" else None

    def route(self, provider: str) -> Ref | None:
        """Return the route that Flagger writes for a provider, None where it writes none, or none that is known here."""
        kind = ROUTE_KINDS.get(provider)
        return Ref(kind, self.namespace, self.service) if kind else None


def wanted_spec(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Canary's spec that the options ask for; ``spec`` is laid over it. Raise InvalidRequest where it cannot be."""
    kind = options["target_kind"]
    spec: dict[str, Any] = {"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": options.get("target") or options["name"]}}
    spec.update(_taken(options, SPEC_FIELDS))
    if options.get("autoscaler"):
        api = {"HorizontalPodAutoscaler": "autoscaling/v2", "ScaledObject": "keda.sh/v1alpha1"}[options["autoscaler_kind"]]
        spec["autoscalerRef"] = {"apiVersion": api, "kind": options["autoscaler_kind"], "name": options["autoscaler"]}
    if options.get("ingress"):
        spec["ingressRef"] = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": options["ingress"]}
    if options.get("route"):
        spec["routeRef"] = {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": options["route"]}
    service = _taken(options, SERVICE_FIELDS)
    if options.get("target_port") not in (None, ""):
        port = str(options["target_port"])
        service["targetPort"] = int(port) if port.isdigit() else port
    analysis = _taken(options, ANALYSIS_FIELDS)
    if options.get("session_affinity"):
        analysis["sessionAffinity"] = _renamed("session_affinity", options["session_affinity"], AFFINITY_FIELDS)
    for key, one in (("metrics", _metric), ("webhooks", _webhook), ("alerts", _alert)):
        if options.get(key) is not None:
            analysis[key] = [one(options, entry, place) for place, entry in enumerate(options[key], 1)]
    spec["service"], spec["analysis"] = service, analysis
    merged = _laid_over(spec, options.get("spec") or {})
    # The kind demands them even where Flagger has a default, and for a release without any check.
    filled = {"interval": "1m", "threshold": 1, **(merged.get("analysis") or {})}
    if merged.get("skipAnalysis") and not any(filled.get(key) for key in ("iterations", "stepWeight", "stepWeights")):
        filled["iterations"] = 1
    merged["analysis"] = filled
    check_spec(merged)
    return merged


def _taken(options: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that are set, under Flagger's names."""
    return {field: options[option] for option, field in fields.items() if options.get(option) is not None}


def _renamed(option: str, given: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """Return a dictionary with Flagger's keys; both ways to write one are taken."""
    known = {**fields, **{field: field for field in fields.values()}}
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidRequest(f'{option} has no key "{unknown[0]}"; it has: {", ".join(sorted(fields))}')
    return {known[key]: value for key, value in given.items() if value is not None}


def _laid_over(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dictionary with another laid over it, key by key; lists are taken whole."""
    found = dict(base)
    for key, value in over.items():
        inner = found.get(key)
        found[key] = _laid_over(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return found


METRIC_KEYS = {
    "name": "name",
    "interval": "interval",
    "threshold_range": "thresholdRange",
    "template_ref": "templateRef",
    "template_variables": "templateVariables",
}
WEBHOOK_KEYS = {
    "name": "name",
    "type": "type",
    "url": "url",
    "timeout": "timeout",
    "metadata": "metadata",
    "retries": "retries",
    "mute_alert": "muteAlert",
    "disable_tls": "disableTLS",
}
ALERT_KEYS = {"name": "name", "severity": "severity", "provider_ref": "providerRef"}


def _metric(options: Mapping[str, Any], entry: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return a metric as Flagger has it: ``min``, ``max`` and ``template`` are ours."""
    name = str(entry.get("name") or "")
    about = f'metric "{name}"' if name else f"metric {place}"
    if not name:
        raise InvalidRequest(f"{about} has no name; name it, for example request-success-rate")
    ours = {key: entry[key] for key in ("min", "max", "template") if entry.get(key) is not None}
    rest = {key: value for key, value in entry.items() if key not in ("min", "max", "template") and value is not None}
    deprecated = [key for key in ("threshold", "query") if key in rest]
    if deprecated:
        better = "min or max" if deprecated[0] == "threshold" else "template with provider and query"
        raise InvalidRequest(f"{about} has {deprecated[0]}, which Flagger has deprecated; use {better}")
    found = _renamed(about, rest, METRIC_KEYS)
    limits = {key: ours[key] for key in ("min", "max") if key in ours}
    if limits and "thresholdRange" in found:
        raise InvalidRequest(f"{about} has min or max and threshold_range; keep one of them")
    if limits:
        found["thresholdRange"] = {key: _number(about, key, value) for key, value in limits.items()}
    if not {key: value for key, value in (found.get("thresholdRange") or {}).items() if value is not None}:
        raise InvalidRequest(f"{about} has no limit, so Flagger would take 0 for the most that it may be; give min or max")
    if "interval" in found:
        seconds(f"the interval of {about}", found["interval"])
    if "template" in ours:
        if "templateRef" in found:
            raise InvalidRequest(f"{about} has template and template_ref; keep one of them")
        found["templateRef"] = {"name": template_name(options["name"], name)}
    if name in BUILTIN and "templateRef" in found:
        raise InvalidRequest(
            f"{about} is one that Flagger has of its own, which a template of this name does not replace; give it another name"
        )
    if name not in BUILTIN and "templateRef" not in found:
        raise InvalidRequest(f"{about} has no query; give it template (provider and query) or template_ref, or use {' or '.join(BUILTIN)}")
    return found


def _number(about: str, key: str, value: Any) -> float:
    """Return a limit as a number, or raise InvalidRequest."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f'{key} of {about} must be a number, got "{value}"') from None
    return int(number) if number.is_integer() else number


def _webhook(_options: Mapping[str, Any], entry: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return a webhook as Flagger has it."""
    about = f'webhook "{entry["name"]}"' if entry.get("name") else f"webhook {place}"
    found = _renamed(about, entry, WEBHOOK_KEYS)
    if not found.get("name"):
        raise InvalidRequest(f"{about} has no name")
    kind = found.setdefault("type", "rollout")
    if kind not in HOOKS:
        raise InvalidRequest(f'{about} has type "{kind}"; it can be one of {", ".join(HOOKS)}')
    if not str(found.get("url") or "").startswith(("http://", "https://")):
        raise InvalidRequest(f"{about} needs url, an address that starts with http:// or https://")
    if "timeout" in found:
        seconds(f"the timeout of {about}", found["timeout"])
    if "metadata" in found:
        found["metadata"] = {str(key): str(value) for key, value in found["metadata"].items()}
    return found


def _alert(_options: Mapping[str, Any], entry: Mapping[str, Any], place: int) -> dict[str, Any]:
    """Return an alert as Flagger has it; ``provider`` is the name of an AlertProvider."""
    about = f'alert "{entry["name"]}"' if entry.get("name") else f"alert {place}"
    given = {key: value for key, value in entry.items() if key != "provider"}
    found = _renamed(about, given, ALERT_KEYS)
    if entry.get("provider"):
        found["providerRef"] = {"name": str(entry["provider"])}
    if not found.get("name") or not (found.get("providerRef") or {}).get("name"):
        raise InvalidRequest(f"{about} needs name and provider, the name of an AlertProvider")
    if found.get("severity", "info") not in SEVERITIES:
        raise InvalidRequest(f'{about} has severity "{found["severity"]}"; it can be one of {", ".join(SEVERITIES)}')
    return found


def template_name(canary: str, metric: str) -> str:
    """Return the name of the MetricTemplate that is made for a metric of a Canary."""
    return re.sub(r"[^a-z0-9-]+", "-", f"{canary}-{metric}".lower()).strip("-")[:253]


def templates(canary: Ref, options: Mapping[str, Any]) -> list[Manifest]:
    """Return the MetricTemplates that the metrics of the options bring with them."""
    found = []
    for entry in options.get("metrics") or []:
        template = entry.get("template")
        if not template:
            continue
        provider = template.get("provider") or {}
        about = f'the template of metric "{entry["name"]}"'
        if not isinstance(provider, Mapping) or not provider.get("type") or not str(template.get("query") or "").strip():
            raise InvalidRequest(f"{about} needs query, and provider with its type, for example prometheus, and its address")
        if set(template) - {"provider", "query"}:
            raise InvalidRequest(f'{about} has no key "{sorted(set(template) - {"provider", "query"})[0]}"; it has: provider, query')
        meta = {"name": template_name(canary.name, entry["name"]), "namespace": canary.namespace, "labels": {TEMPLATE_LABEL: canary.name}}
        spec = {"provider": dict(provider), "query": str(template["query"])}
        found.append({"apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate", "metadata": meta, "spec": spec})
    return found


def check_spec(spec: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a spec that Flagger would refuse, or take for something else without a word."""
    if "canaryAnalysis" in spec:
        raise InvalidRequest("canaryAnalysis is deprecated, and Flagger takes no notice of it beside analysis; give its fields as options")
    provider = spec.get("provider")
    if provider is not None and provider not in GROUPS:
        raise InvalidRequest(f'Flagger has no provider "{provider}"; it has: {", ".join(GROUPS)}')
    if (spec.get("service") or {}).get("port") in (None, ""):
        raise InvalidRequest("port is not set; it is the port of the Service by which requests come")
    _check_steps(spec.get("analysis") or {}, bool(spec.get("skipAnalysis")), provider)


def _check_steps(analysis: Mapping[str, Any], skipped: bool, provider: str | None) -> None:
    """Raise InvalidRequest for steps that exclude each other, or that go nowhere."""
    interval = analysis.get("interval")
    if interval is not None and seconds("interval", interval) < FLOOR:
        raise InvalidRequest(
            f"interval {interval} is below Flagger's floor of 10 s, for which it would be taken without a word; use 10s or more"
        )
    weights = [
        name
        for name, key in (("step_weight", "stepWeight"), ("step_weights", "stepWeights"), ("max_weight", "maxWeight"))
        if analysis.get(key)
    ]
    iterations = analysis.get("iterations") or 0
    if iterations and weights:
        raise InvalidRequest(
            f"iterations and {weights[0]} cannot both be: with iterations Flagger sends all requests at once (blue-green, or A/B with"
            " match),"
            f" and {weights[0]} would have no effect; keep one of them"
        )
    if "step_weights" in weights and len(weights) > 1:
        other = next(name for name in weights if name != "step_weights")
        raise InvalidRequest(f"step_weights and {other} cannot both be: the last of step_weights is the most; keep one of them")
    for name, key in (
        ("max_weight", "maxWeight"),
        ("step_weight", "stepWeight"),
        ("step_weight_promotion", "stepWeightPromotion"),
        ("mirror_weight", "mirrorWeight"),
        ("primary_ready_threshold", "primaryReadyThreshold"),
        ("canary_ready_threshold", "canaryReadyThreshold"),
    ):
        if not 0 <= int(analysis.get(key) or 0) <= 100:
            raise InvalidRequest(f"{name} is a percentage, 0 to 100, got {analysis[key]}")
    steps = [int(step) for step in analysis.get("stepWeights") or []]
    if any(not 0 < step <= 100 for step in steps) or steps != sorted(set(steps)):
        raise InvalidRequest(f"step_weights must grow from step to step, from 1 to 100, got {steps}")
    if analysis.get("match") and not iterations and not skipped:
        raise InvalidRequest(
            "match is for A/B, which needs iterations, the number of checks; without it the weights would count for the matching"
            " requests only"
        )
    if provider == "kubernetes" and (weights or analysis.get("match")):
        what = weights[0] if weights else "match"
        raise InvalidRequest(f"provider kubernetes has no router, so {what} would have no effect; use iterations (blue-green)")
    if analysis.get("mirror") and provider is not None and provider not in MIRRORING:
        raise InvalidRequest(f"Flagger mirrors requests with {', '.join(MIRRORING)} only, not with {provider}; leave mirror out")
    if analysis.get("sessionAffinity") and provider is not None and provider not in MIRRORING:
        raise InvalidRequest(f"Flagger has session_affinity with {', '.join(MIRRORING)} only, not with {provider}; leave it out")
    if analysis.get("sessionAffinity") and not analysis["sessionAffinity"].get("cookieName"):
        raise InvalidRequest("session_affinity needs cookie_name")
    going = iterations or analysis.get("stepWeight") or steps
    if not going and not skipped:
        raise InvalidRequest(
            "the analysis has no steps, so a release would never go on; set step_weight, step_weights or iterations, or skip_analysis: true"
        )
    if int(analysis.get("threshold", 1)) < 1:
        raise InvalidRequest(f"threshold is a number of failed checks, 1 or more, got {analysis['threshold']}")


def check_for_provider(canary: Ref, spec: Mapping[str, Any], provider: str) -> None:
    """Raise InvalidRequest where the provider that Flagger will use needs something that the spec does not have."""
    _check_steps(spec.get("analysis") or {}, bool(spec.get("skipAnalysis")), provider)
    service = spec.get("service") or {}
    if provider.startswith("gatewayapi") and not service.get("gatewayRefs"):
        raise InvalidRequest(
            f"{canary} needs gateway_refs with provider {provider}: the Gateways that its HTTPRoute belongs to, by name and namespace"
        )
    if provider == "nginx" and not spec.get("ingressRef"):
        raise InvalidRequest(
            f"{canary} needs ingress with provider nginx: the Ingress that leads to Service {service.get('name') or canary.name}"
        )
    if provider == "apisix" and not spec.get("routeRef"):
        raise InvalidRequest(f"{canary} needs route with provider apisix: the ApisixRoute that leads to its Service")


# -- Flagger as it runs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How a Flagger was started: the flags that a Canary depends on."""

    where: str = ""
    namespace: str = ""
    provider: str = "istio"
    metrics_server: str = "http://prometheus:9090"
    labels: tuple[str, ...] = SELECTOR_LABELS
    watches: str = ""
    no_cross_namespace: bool = False
    ready: bool = True


def settings_of(deployment: Manifest) -> Settings | None:
    """Return how the Flagger of a Deployment was started; None where it is no Flagger (its load tester is none)."""
    meta = metadata(deployment)
    containers = ((deployment.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or []
    for container in containers:
        words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
        image = str(container.get("image") or "").partition("@")[0].rpartition("/")[2].partition(":")[0]
        flags = _flags(words)
        if image != "flagger" and not any(flag in flags for flag in ("mesh-provider", "metrics-server")):
            continue
        found = {
            "provider": flags.get("mesh-provider"),
            "metrics_server": flags.get("metrics-server"),
            "watches": flags.get("namespace"),
        }
        labels = tuple(label.strip() for label in flags.get("selector-labels", "").split(",") if label.strip())
        return Settings(
            where=f"Deployment {meta.get('namespace')}/{meta.get('name')}",
            namespace=str(meta.get("namespace") or ""),
            no_cross_namespace=flags.get("no-cross-namespace-refs", "false") in ("true", "1", "t", ""),
            ready=bool((deployment.get("status") or {}).get("readyReplicas")),
            **{key: value for key, value in found.items() if value},
            **({"labels": labels} if labels else {}),
        )
    return None


def _flags(words: Sequence[str]) -> dict[str, str]:
    """Return the flags of a Go program: ``-name=value`` or ``--name value``."""
    found: dict[str, str] = {}
    for place, word in enumerate(words):
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        following = words[place + 1] if place + 1 < len(words) else "-"
        found[name] = value if equals else ("" if following.startswith("-") else following)
    return found


def provider_of(spec: Mapping[str, Any], settings: Settings | None) -> str:
    """Return the provider that Flagger uses for a spec; empty where nobody knows."""
    return str(spec.get("provider") or (settings.provider if settings else ""))


def check_provider(canary: Ref, spec: Mapping[str, Any], settings: Settings | None, groups: Sequence[str]) -> None:
    """Raise InvalidRequest where Flagger cannot do what the provider needs."""
    provider = provider_of(spec, settings)
    started = f"; {settings.where} was started with -mesh-provider={settings.provider}" if settings else ""
    if provider not in GROUPS:
        if provider:
            raise InvalidRequest(f'{canary} has no provider, and Flagger takes its own "{provider}" for istio{started}; set provider')
        return
    group = GROUPS[provider]
    if group and group not in groups:
        raise InvalidRequest(
            f"{canary} cannot be routed by provider {provider}: this cluster has no kinds of {group}{started}; install them, or"
            " choose another"
        )
    if settings and settings.watches and settings.watches != canary.namespace:
        raise InvalidRequest(f"{canary} would not be seen: {settings.where} was started with -namespace={settings.watches}")
    check_for_provider(canary, spec, provider)


# -- What is written -------------------------------------------------------------------------------------------------


def merged(last: Any, wanted: Any, current: Any) -> Any:
    """Return ``current`` as it is wanted: what was written last and is not wanted any more goes, what others have put there stays."""
    if not isinstance(wanted, Mapping) or not isinstance(current, Mapping):
        return wanted
    known = last if isinstance(last, Mapping) else {}
    found = {key: value for key, value in current.items() if key in wanted or key not in known}
    for key, value in wanted.items():
        found[key] = merged(known.get(key), value, current.get(key))
    return found


def applied(manifest: Manifest) -> dict[str, Any]:
    """Return the spec that this collection wrote last."""
    return parsed(annotations(manifest).get(APPLIED))


def parsed(text: str | None) -> dict[str, Any]:
    """Return a dictionary that an annotation holds, an empty one where it is none."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def as_note(value: Any) -> str:
    """Return something as an annotation holds it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the places in which two specs differ, as ``analysis.stepWeight``."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = sorted(set(before) | set(after))
        return [place for key in keys for place in differences(before.get(key), after.get(key), f"{path}.{key}".strip("."))]
    return [] if before == after else [path]


def told(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec as ``before`` and ``after`` show it.

    Without what may be secret: the values of headers, what webhooks carry (a command as well), and of addresses all but the host.
    """
    shown: dict[str, Any] = json.loads(json.dumps(spec))
    service, analysis = shown.get("service") or {}, shown.get("analysis") or {}
    if service.get("headers"):
        service["headers"] = _hidden(service["headers"])
    for match in [*(service.get("match") or []), *(analysis.get("match") or [])]:
        if isinstance(match, dict) and isinstance(match.get("headers"), dict):
            match["headers"] = {name: _hidden(test) if is_secret_name(name) else test for name, test in match["headers"].items()}
    if shown.get("metricsServer"):
        shown["metricsServer"] = shown_url(str(shown["metricsServer"]))
    for hook in analysis.get("webhooks") or []:
        if not isinstance(hook, dict):
            continue
        if hook.get("url"):
            hook["url"] = shown_url(str(hook["url"]))
        if hook.get("metadata"):
            hook["metadata"] = _hidden(hook["metadata"])
    for metric in analysis.get("metrics") or []:
        if isinstance(metric, dict) and isinstance(metric.get("templateVariables"), dict):
            metric["templateVariables"] = {key: masked(key, value) for key, value in metric["templateVariables"].items()}
    return shown


def _hidden(value: Any) -> Any:
    """Return something with all its values hidden; the names of what is removed (``remove``) are none."""
    if isinstance(value, Mapping):
        return {key: entry if key == "remove" else _hidden(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_hidden(entry) for entry in value]
    return "..."
