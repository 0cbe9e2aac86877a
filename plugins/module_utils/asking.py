# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks, through the API server, whether what a Canary's webhooks and metrics name answers: the load tester, and Prometheus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from .errors import DeliveryError, Forbidden, InvalidRequest, NotFound
from .model import Answer, Cluster, Manifest, Ref, metadata
from .plan.canary_metrics import Address, Question, Unasked, address_of, of_series, questions, read_answer
from .plan.masking import shown_url

TIMEOUT = 5.0


def service_of(cluster: Cluster, url: str, home: str, about: str) -> Address | None:
    """Return the Service in the cluster that a URL leads to; None where it is outside, or may not be looked at.

    Raise InvalidRequest where it names a Service or a port that is not there.
    """
    address = address_of(url, home)
    if address is None or not address.namespace:
        return None
    try:
        service = cluster.get(Ref("Service", address.namespace, address.service))
    except Forbidden:
        return None
    except NotFound:
        if not address.is_sure and not _is_namespace(cluster, address.namespace):
            return None
        raise InvalidRequest(f"{about} asks {shown_url(url)}, and Service {address.namespace}/{address.service} does not exist") from None
    ports = [str(entry.get("port")) for entry in (service.get("spec") or {}).get("ports") or []]
    if address.port.rpartition(":")[2] not in ports:
        raise InvalidRequest(
            f"{about} asks {shown_url(url)}, and Service {address.namespace}/{address.service} has no port"
            f" {address.port.rpartition(':')[2]}; it has {', '.join(ports) or 'none'}"
        )
    return address


def _is_namespace(cluster: Cluster, name: str) -> bool:
    """Return whether there is a namespace of this name, as far as that may be known."""
    try:
        cluster.get(Ref("Namespace", "", name))
    except DeliveryError:
        return False
    return True


def ask(cluster: Cluster, address: Address, path: str, about: str, url: str) -> Answer | None:
    """Return what a Service answers to a GET; None where asking is not allowed. Raise InvalidRequest where it does not answer."""
    try:
        answer = cluster.proxy_get(Ref("Service", address.namespace, address.service), address.port, path, {}, TIMEOUT)
    except Forbidden:
        return None
    except DeliveryError as error:
        raise InvalidRequest(f"{about} asks {shown_url(url)}, which does not answer: {error.message}") from None
    if answer.status in (502, 503, 504):
        said = " ".join(answer.body.split())[:200]
        raise InvalidRequest(f"{about} asks {shown_url(url)}, which does not answer: {answer.status} {said}")
    return answer


def check_webhooks(cluster: Cluster, canary: Ref, spec: Mapping[str, Any], home: str) -> list[str]:
    """Raise InvalidRequest for a webhook whose Service does not answer; return what could not be asked."""
    unasked, asked = [], set()
    for hook in (spec.get("analysis") or {}).get("webhooks") or []:
        about, url = f'webhook "{hook["name"]}" of {canary}', str(hook["url"])
        address = service_of(cluster, url, home, about)
        if address is None:
            unasked.append(f'webhook "{hook["name"]}" was not asked: its address is not a Service of this cluster that may be read')
            continue
        place = (address.namespace, address.service, address.port)
        if place in asked:
            continue
        # A path that no receiver acts upon: an answer of any kind shows that it is there.
        if ask(cluster, address, "/healthz", about, url) is None:
            unasked.append(f'webhook "{hook["name"]}" was not asked: it takes the verb get on services/proxy')
        asked.add(place)
    return unasked


def check_metrics(
    cluster: Cluster, canary: Ref, spec: Mapping[str, Any], provider: str, server: str, home: str, brought: Sequence[Manifest]
) -> list[str]:
    """Raise InvalidRequest for a metric whose query finds nothing, or more than one value; return what could not be asked."""
    metrics = (spec.get("analysis") or {}).get("metrics") or []
    known = {(metadata(template)["namespace"], metadata(template)["name"]): template["spec"] for template in brought}
    unasked = []
    for metric in metrics:
        reference = metric.get("templateRef") or {}
        place = (str(reference.get("namespace") or canary.namespace), str(reference.get("name")))
        if reference and place not in known:
            try:
                known[place] = cluster.get(Ref("MetricTemplate", *place)).get("spec") or {}
            except NotFound:
                continue
            except Forbidden:
                known[place] = {"provider": {"type": "unknown: it may not be read"}}
    for entry in questions(canary.name, canary.namespace, spec, provider, server, known):
        if isinstance(entry, Unasked):
            unasked.append(f'metric "{entry.name}" was not asked: {entry.why}')
            continue
        said = _check_metric(cluster, canary, entry, home)
        if said:
            unasked.append(f'metric "{entry.name}" was not asked: {said}')
    return unasked


def _check_metric(cluster: Cluster, canary: Ref, question: Question, home: str) -> str:
    """Ask the queries of a metric until one finds something; return why they could not be asked."""
    about = f'metric "{question.name}" of {canary}'
    if not question.address:
        return "it is not known where Flagger's Prometheus is"
    address = service_of(cluster, question.address, home, about)
    if address is None:
        return "its Prometheus is not a Service of this cluster that may be read"
    for query in question.queries or (of_series([question.series]),):
        path = f"{address.path.rstrip('/')}/api/v1/query?{urlencode({'query': query})}"
        answer = ask(cluster, address, path, about, question.address)
        if answer is None:
            return "it takes the verb get on services/proxy"
        if read_answer(question.name, query, answer.body).results:
            return ""
    what = question.queries[0] if question.queries else question.series
    raise InvalidRequest(
        f"{about} finds nothing at {shown_url(question.address)}, and Flagger would count each such check as failed: see that the"
        f" application is scraped and has requests, or set check_metrics: false; it asks: {what}"
    )
