# SPDX-License-Identifier: GPL-3.0-or-later
"""The queries that Flagger will ask for a Canary's metrics, and what an answer of Prometheus is worth before the first release.

The queries of Flagger's own two metrics are those of ``pkg/metrics/observers`` (1.43), the template that of Go's text/template as far as
Flagger's templates use it: a function, a field of ``variables``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import InvalidRequest
from .flagger import BUILTIN

DEFAULT_WINDOW = "1m"
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FUNCTIONS = ("name", "namespace", "target", "service", "ingress", "route", "interval")

_HTTP = 'kubernetes_namespace="{{ namespace }}", kubernetes_pod_name=~"{{ target }}-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)"'
_ISTIO = 'reporter="destination", destination_workload_namespace="{{ namespace }}", destination_workload=~"{{ target }}"'
_NGINX = 'namespace="{{ namespace }}", ingress="{{ ingress }}", canary!=""'
_TRAEFIK = 'service=~"{{ namespace }}-{{ target }}-canary-[0-9a-zA-Z-]+@kubernetescrd"'


def _ratio(counter: str, labels: str, good: str) -> str:
    """Return the query for the percentage of good requests."""
    return f"sum(rate({counter}{{{labels}, {good}}}[{{{{ interval }}}}])) / sum(rate({counter}{{{labels}}}[{{{{ interval }}}}])) * 100"


def _p99(bucket: str, labels: str) -> str:
    """Return the query for the slowest but one of a hundred requests."""
    return f"histogram_quantile(0.99, sum(rate({bucket}{{{labels}}}[{{{{ interval }}}}])) by (le))"


# By provider: the query of each metric, and the series that must be there even before a canary has had a request.
QUERIES: dict[str, dict[str, tuple[str, str]]] = {
    "http": {
        "request-success-rate": (
            _ratio("http_request_duration_seconds_count", _HTTP, 'status!~"5.*"'),
            "http_request_duration_seconds_count",
        ),
        "request-duration": (_p99("http_request_duration_seconds_bucket", _HTTP), "http_request_duration_seconds_bucket"),
    },
    "istio": {
        "request-success-rate": (_ratio("istio_requests_total", _ISTIO, 'response_code!~"5.*"'), "istio_requests_total"),
        "request-duration": (_p99("istio_request_duration_milliseconds_bucket", _ISTIO), "istio_request_duration_milliseconds_bucket"),
    },
    "nginx": {
        "request-success-rate": (_ratio("nginx_ingress_controller_requests", _NGINX, 'status!~"5.*"'), "nginx_ingress_controller_requests"),
        "request-duration": (
            f"sum(rate(nginx_ingress_controller_response_duration_seconds_sum{{{_NGINX}}}[{{{{ interval }}}}]))"
            f" / sum(rate(nginx_ingress_controller_response_duration_seconds_count{{{_NGINX}}}[{{{{ interval }}}}])) * 1000",
            "nginx_ingress_controller_response_duration_seconds_sum",
        ),
    },
    "traefik": {
        "request-success-rate": (
            _ratio("traefik_service_request_duration_seconds_bucket", f'{_TRAEFIK}, le="+Inf"', 'code!~"5.."'),
            "traefik_service_request_duration_seconds_bucket",
        ),
        "request-duration": (
            _p99("traefik_service_request_duration_seconds_bucket", _TRAEFIK),
            "traefik_service_request_duration_seconds_bucket",
        ),
    },
}
# These count requests to the canary only, so they find nothing before the first release.
CANARY_ONLY = ("nginx", "traefik")


def observer_of(provider: str) -> str:
    """Return whose queries Flagger asks for its own metrics with a provider; empty where they are not known here."""
    if provider == "kubernetes" or provider.startswith("gatewayapi"):
        return "http"
    return provider if provider in QUERIES else ""


@dataclass(frozen=True)
class Question:
    """A metric whose query can be asked: of whom, and how; ``queries`` are tried one after another until one finds something."""

    name: str
    address: str
    queries: tuple[str, ...]
    series: str = ""


@dataclass(frozen=True)
class Unasked:
    """A metric that cannot be asked from here, and why."""

    name: str
    why: str


def questions(
    canary: str, namespace: str, spec: Mapping[str, Any], provider: str, server: str, templates: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[Question | Unasked]:
    """Return what can be asked about the metrics of a spec.

    ``server`` is the address of Flagger's Prometheus, ``templates`` {(namespace, name): the spec of a MetricTemplate}. A template that is
    missing raises InvalidRequest.
    """
    found: list[Question | Unasked] = []
    for metric in (spec.get("analysis") or {}).get("metrics") or []:
        name = str(metric.get("name"))
        model = model_of(canary, namespace, spec, metric)
        primary = {**model, "target": f"{model['target']}-primary"}
        reference = metric.get("templateRef")
        if reference:
            place = (str(reference.get("namespace") or namespace), str(reference.get("name")))
            template = templates.get(place)
            if template is None:
                raise InvalidRequest(f'metric "{name}": MetricTemplate {place[0]}/{place[1]} does not exist; make it, or give template')
            source = template.get("provider") or {}
            if source.get("type") != "prometheus":
                found.append(Unasked(name, f"its provider is {source.get('type')}"))
            elif source.get("secretRef") or source.get("headers"):
                found.append(Unasked(name, "its Prometheus wants credentials"))
            else:
                found.append(_asked(name, str(source.get("address") or ""), str(template.get("query") or ""), model, primary))
            continue
        if name not in BUILTIN:
            continue
        observer = observer_of(provider)
        if not observer:
            found.append(Unasked(name, f"the queries of provider {provider} are not known here"))
            continue
        query, series = QUERIES[observer][name]
        queries = () if observer in CANARY_ONLY else (_rendered(name, query, model), _rendered(name, query, primary))
        found.append(Question(name, server, queries, series if not queries else ""))
    return found


def _asked(name: str, address: str, query: str, model: Mapping[str, Any], primary: Mapping[str, Any]) -> Question | Unasked:
    """Return the question of a template, or why it cannot be written here."""
    first = render(name, query, model)
    if first is None:
        return Unasked(name, "its query has more of a template than can be filled in here")
    second = render(name, query, primary)
    return Question(name, address, (first,) if second in (None, first) else (first, second or ""))


def _rendered(name: str, query: str, model: Mapping[str, Any]) -> str:
    """Return one of Flagger's own queries."""
    return render(name, query, model) or query


def model_of(canary: str, namespace: str, spec: Mapping[str, Any], metric: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template can name."""
    target = str((spec.get("targetRef") or {}).get("name"))
    return {
        "name": canary,
        "namespace": namespace,
        "target": target,
        "service": (spec.get("service") or {}).get("name") or target,
        "ingress": (spec.get("ingressRef") or {}).get("name") or target,
        "route": (spec.get("routeRef") or {}).get("name") or target,
        "interval": metric.get("interval") or DEFAULT_WINDOW,
        "variables": metric.get("templateVariables") or {},
    }


def render(metric: str, query: str, model: Mapping[str, Any]) -> str | None:
    """Return a query with its template filled in, white space as Flagger has it; None where it holds more than names.

    Raise InvalidRequest for a variable that is not given, for which Flagger would fail each check.
    """
    unknown = False

    def filled(action: re.Match[str]) -> str:
        nonlocal unknown
        words = action[1].split()
        if len(words) == 1 and words[0] in _FUNCTIONS:
            return str(model[words[0]])
        first, _dot, key = words[0].partition(".") if len(words) == 1 else ("", "", "")
        if first == "variables" and key:
            if key not in model["variables"]:
                raise InvalidRequest(f'metric "{metric}": its query asks for the variable {key}; give it in template_variables')
            return str(model["variables"][key])
        if len(words) == 3 and words[:2] == ["index", "variables"]:
            key = words[2].strip('"')
            if key not in model["variables"]:
                raise InvalidRequest(f'metric "{metric}": its query asks for the variable {key}; give it in template_variables')
            return str(model["variables"][key])
        if len(words) == 1 and words[0] not in ("end", "else", "break", "continue") and re.fullmatch(r"[A-Za-z_]+", words[0]):
            raise InvalidRequest(
                f'metric "{metric}": its query has {{{{ {words[0]} }}}}, which Flagger does not know; it knows:'
                f" {', '.join(_FUNCTIONS)}, variables"
            )
        unknown = True
        return ""

    text = " ".join(_ACTION.sub(filled, query).split())
    return None if unknown else text


@dataclass(frozen=True)
class Found:
    """What Prometheus answered: how many results, and the value of a single one (None where it is no number)."""

    results: int
    value: float | None = None


def read_answer(metric: str, query: str, body: str) -> Found:
    """Return what an answer of Prometheus holds; raise InvalidRequest where it refuses the query, or returns several results."""
    try:
        answer = json.loads(body)
        if answer.get("status") != "success":
            raise InvalidRequest(f'metric "{metric}": Prometheus refuses its query: {answer.get("error")}; it asks: {query}')
        data = answer["data"]
        results = [data["result"]] if data.get("resultType") in ("scalar", "string") else data["result"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidRequest(f'metric "{metric}": what its address leads to is no Prometheus') from None
    if len(results) > 1:
        raise InvalidRequest(
            f'metric "{metric}": its query finds {len(results)} results, of which Flagger would take the last without a word; sum'
            f" them up. It asks: {query}"
        )
    if not results:
        return Found(0)
    entry = results[0]["value"] if isinstance(results[0], Mapping) else results[0]
    number = float(entry[1])
    return Found(1, None if math.isnan(number) else number)


@dataclass(frozen=True)
class Address:
    """An address in the cluster: a Service, and a path there."""

    namespace: str
    service: str
    port: str
    path: str
    is_sure: bool = True


def address_of(url: str, home: str) -> Address | None:
    """Return the Service that a URL leads to as it is looked up in the namespace ``home``; None where it is outside the cluster.

    ``web.shop`` may be a host of the world as well: then ``is_sure`` is False.
    """
    parts = urlsplit(url)
    words = (parts.hostname or "").split(".")
    if not words[0] or re.fullmatch(r"[\d.]+|.*:.*", parts.hostname or ""):
        return None
    sure = len(words) == 1 or (len(words) >= 3 and words[2] == "svc")
    if len(words) > 2 and not sure:
        return None
    namespace = words[1] if len(words) > 1 else home
    port = str(parts.port or (443 if parts.scheme == "https" else 80))
    return Address(namespace, words[0], f"https:{port}" if parts.scheme == "https" else port, parts.path or "/", sure)


def of_series(names: Sequence[str]) -> str:
    """Return the query for whether any of some series is there."""
    return f'count({{__name__=~"{"|".join(names)}"}})'
