# SPDX-License-Identifier: GPL-3.0-or-later
"""A route that is there already, and what Flagger would write in its place: what it would lose is refused.

Flagger (1.43) replaces the whole spec of an HTTPRoute, a VirtualService or a TraefikService that has the name of the Service, by one rule
made of the Canary's ``spec.service`` (``pkg/router/gateway_api.go``, ``istio.go``, ``traefik.go``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Ref, metadata
from .flagger import Names

ELSEWHERE = "move it to a route of its own, or let service_name be a name that no route has"
FILTER_OPTIONS = {
    "CORS": "cors_policy",
    "RequestHeaderModifier": "headers",
    "RequestMirror": "spec (service, mirror)",
    "ResponseHeaderModifier": "headers",
    "URLRewrite": "rewrite",
}
"""The filters of an HTTPRoute that Flagger can write, and the option of each."""
ISTIO_OPTIONS = {
    "corsPolicy": "cors_policy",
    "headers": "headers",
    "retries": "retries",
    "rewrite": "rewrite",
    "timeout": "request_timeout",
}
"""What Flagger can write of a VirtualService's rule, beside its match, and the option of each."""


def check_route(route: Manifest | None, names: Names, spec: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where Flagger would take something away from a route by which requests come; None is no route."""
    if route is None:
        return
    about, service = named(route), spec.get("service") or {}
    found, kind = route.get("spec") or {}, route.get("kind")
    if kind == "TraefikService":
        _check_weighted(about, names, service, found)
        return
    _check_hosts(about, names, service, found, str(kind))
    _check_parents(about, names, service, found)
    rules = found.get("rules") or []
    if kind == "VirtualService":
        is_tcp = str(service.get("appProtocol") or "").lower() == "tcp"
        for section in ("tls", "http" if is_tcp else "tcp"):
            if found.get(section):
                raise InvalidRequest(f"{about} has rules for {section}, which Flagger would take away; {ELSEWHERE}")
        rules = found.get("tcp" if is_tcp else "http") or []
    for rule in rules:
        for backend in _backends(rule, names, service):
            raise InvalidRequest(f"{about} leads to {backend} too, and Flagger would take that rule away; {ELSEWHERE}")
    if len(rules) > 1 and not (spec.get("analysis") or {}).get("match"):
        raise InvalidRequest(
            f"{about} has {len(rules)} rules, and Flagger writes one; make it one with several matches, given as route_match, or"
            " rename the route"
        )
    # With an A/B test the first one is for its visitors, and the last for all others.
    for rule in rules[-1:]:
        _check_matches(about, service, rule, str(kind))
        if kind == "HTTPRoute":
            _check_gateway_rule(about, service, rule)
        else:
            _check_istio_rule(about, service, rule)


def _check_hosts(about: str, names: Names, service: Mapping[str, Any], found: Mapping[str, Any], kind: str) -> None:
    """Raise InvalidRequest where a host would go."""
    given = service.get("hosts") or []
    hosts = found.get("hostnames") or [host for host in found.get("hosts") or [] if host not in names.own_hosts]
    lost = [host for host in hosts if host not in given]
    # Flagger's HTTPRoute without hosts is for all of them.
    if lost and (given or kind == "VirtualService"):
        raise InvalidRequest(f"{about} has host {lost[0]}, which Flagger would take away; add it to hosts")
    if lost:
        raise InvalidRequest(
            f"{about} is for host {lost[0]}, and without hosts Flagger would let it take the requests for every other one; add it to hosts"
        )
    if kind == "HTTPRoute" and not hosts and given:
        raise InvalidRequest(
            f"{about} is for every host of its Gateway, and Flagger would leave it {', '.join(map(str, given))} alone; leave hosts out"
        )


def _check_parents(about: str, names: Names, service: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where a Gateway would go."""
    for parent in found.get("parentRefs") or []:
        if not any(same_parent(parent, ref, names.namespace) for ref in service.get("gatewayRefs") or []):
            raise InvalidRequest(f"{about} belongs to Gateway {parent.get('name')}, which Flagger would take away; add it to gateway_refs")
    # A VirtualService without gateways is the mesh's.
    gateways = (found.get("gateways") or ["mesh"]) if "hosts" in found else []
    for gateway in gateways:
        if gateway not in (service.get("gateways") or ["mesh"]):
            raise InvalidRequest(f"{about} belongs to gateway {gateway}, which Flagger would take away; add it to gateways")


def same_parent(one: Mapping[str, Any], other: Mapping[str, Any], namespace: str) -> bool:
    """Return whether two references of a route mean one Gateway."""
    return all(
        (one.get(key) or default) == (other.get(key) or default)
        for key, default in (("name", ""), ("namespace", namespace), ("sectionName", ""), ("port", 0))
    )


def _backends(rule: Mapping[str, Any], names: Names, service: Mapping[str, Any]) -> Iterable[str]:
    """Yield what a rule leads to beside the Service and its port, as a sentence names it."""
    known = (names.service, f"{names.service}-primary", f"{names.service}-canary")
    port = str(service.get("port"))
    for ref in rule.get("backendRefs") or []:
        name, space = str(ref.get("name")), ref.get("namespace") or names.namespace
        if name not in known or space != names.namespace or (ref.get("kind") or "Service") != "Service":
            yield name if space == names.namespace else f"{space}/{name}"
        elif ref.get("port") not in (None, "") and str(ref["port"]) != port:
            yield f"port {ref['port']} of {name}"
        elif ref.get("filters"):
            yield f"{name} with filters"
    for entry in rule.get("route") or []:
        target = entry.get("destination") or {}
        host = str(target.get("host"))
        name, _dot, space = host.partition(".")
        number = (target.get("port") or {}).get("number")
        if name not in known or (space or names.namespace).split(".")[0] != names.namespace:
            yield host
        elif target.get("subset"):
            yield f"subset {target['subset']} of {host}"
        elif number is not None and str(number) != port:
            yield f"port {number} of {host}"
        elif entry.get("headers"):
            yield f"{host} with headers of its own"


# -- What a rule is for --------------------------------------------------------------------------------------------------


def _check_matches(about: str, service: Mapping[str, Any], rule: Mapping[str, Any], kind: str) -> None:
    """Raise InvalidRequest where a rule would be for other requests than it is now."""
    if kind == "HTTPRoute":
        have = [_gateway_match(match) for match in rule.get("matches") or [{}]]
        want = [_gateway_match(match) for match in map(_translated, service.get("match") or [])] or [_gateway_match({})]
    else:
        have = [_plain(match) for match in rule.get("match") or []] or [{}]
        want = [_plain(match) for match in service.get("match") or []] or [{}]
    lost = [match for match in have if match not in want]
    more = [match for match in want if match not in have]
    if lost or more:
        what = f"for {_shown(lost[0])}, which Flagger would take away" if lost else f"not for {_shown(more[0])}, which Flagger would add"
        raise InvalidRequest(f"{about} is {what}; set route_match to what the route has")


def _translated(match: Mapping[str, Any]) -> dict[str, Any]:
    """Return a match in Istio's words as Flagger writes it into an HTTPRoute."""
    found: dict[str, Any] = {}
    for key, kind in (("regex", "RegularExpression"), ("exact", "Exact"), ("prefix", "PathPrefix")):
        if (match.get("uri") or {}).get(key):
            found["path"] = {"type": kind, "value": match["uri"][key]}
            break
    if (match.get("method") or {}).get("exact"):
        found["method"] = match["method"]["exact"]
    for ours, theirs in (("headers", "headers"), ("queryParams", "queryParams")):
        entries = []
        for name, test in (match.get(ours) or {}).items():
            kind = "Exact" if test.get("exact") else "RegularExpression"
            entries.append({"name": name, "type": kind, "value": test.get("exact") or test.get("regex")})
        if entries:
            found[theirs] = entries
    return found


def _gateway_match(match: Mapping[str, Any]) -> dict[str, Any]:
    """Return a match of an HTTPRoute in one form: with what the API server fills in, and the tests in one order."""
    path = match.get("path") or {}
    found: dict[str, Any] = {"path": {"type": path.get("type") or "PathPrefix", "value": path.get("value") or "/"}}
    if match.get("method"):
        found["method"] = match["method"]
    for key in ("headers", "queryParams"):
        tests = [(str(test["name"]), test.get("type") or "Exact", str(test.get("value"))) for test in match.get(key) or []]
        if tests:
            found[key] = sorted((name.lower() if key == "headers" else name, kind, value) for name, kind, value in tests)
    return found


def _shown(match: Mapping[str, Any]) -> str:
    """Return which requests a match is for, as a sentence names them; the values of headers may be secret."""
    if not match or match == _gateway_match({}):
        return "all requests"
    path = match.get("path") or match.get("uri") or {}
    said = f"path {path.get('value') or next(iter(path.values()), '')}" if path else "some requests"
    beside = [word for word, key in (("a method", "method"), ("headers", "headers"), ("a query", "queryParams")) if match.get(key)]
    return f"{said} with {' and '.join(beside)}" if beside else said


# -- What a rule does ----------------------------------------------------------------------------------------------------


def _check_gateway_rule(about: str, service: Mapping[str, Any], rule: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where a rule of an HTTPRoute does something that Flagger's would not."""
    written = [_filter(entry) for entry in _filters(service)]
    for entry in rule.get("filters") or []:
        kind = str(entry.get("type"))
        if _filter(entry) in written or (kind == "CORS" and service.get("corsPolicy")):
            continue
        option = FILTER_OPTIONS.get(kind)
        way_out = f"set {option} to what it does" if option else ELSEWHERE
        raise InvalidRequest(f"{about} has a filter {kind}, which Flagger would take away; {way_out}")
    timeouts = rule.get("timeouts") or {}
    if timeouts.get("request") and not service.get("timeout"):
        raise InvalidRequest(f"{about} has a timeout of {timeouts['request']}, which Flagger would take away; set request_timeout")
    others = {key: value for key, value in rule.items() if key not in ("name", "matches", "filters", "timeouts", "backendRefs")}
    others["timeouts.backendRequest"] = timeouts.get("backendRequest")
    _check_rest(about, others)


def _filters(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the filters that Flagger writes into an HTTPRoute."""
    found: list[dict[str, Any]] = []
    headers = service.get("headers") or {}
    for side, kind, key in (
        ("request", "RequestHeaderModifier", "requestHeaderModifier"),
        ("response", "ResponseHeaderModifier", "responseHeaderModifier"),
    ):
        given = headers.get(side)
        if given:
            lists = {what: [{"name": name, "value": value} for name, value in (given.get(what) or {}).items()] for what in ("add", "set")}
            found.append({"type": kind, key: {**lists, "remove": given.get("remove")}})
    rewrite = service.get("rewrite")
    if rewrite:
        url: dict[str, Any] = {"hostname": rewrite.get("authority")}
        if rewrite.get("uri"):
            kind = "ReplacePrefixMatch" if rewrite.get("type") == "ReplacePrefixMatch" else "ReplaceFullPath"
            url["path"] = {"type": kind, f"r{kind[1:]}": rewrite["uri"]}
        found.append({"type": "URLRewrite", "urlRewrite": url})
    return found + [{"type": "RequestMirror", "requestMirror": mirror} for mirror in service.get("mirror") or []]


def _filter(entry: Mapping[str, Any]) -> str:
    """Return a filter in one form: without what is empty or filled in, names of headers in small letters, lists in one order."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            kept = {key: plain(inner) for key, inner in value.items() if (key, inner) not in (("group", ""), ("kind", "Service"))}
            if set(kept) == {"name", "value"}:
                kept["name"] = str(kept["name"]).lower()
            return {key: inner for key, inner in kept.items() if inner not in (None, {}, [], "")}
        if isinstance(value, list):
            return sorted((plain(inner) for inner in value), key=lambda inner: json.dumps(inner, sort_keys=True))
        return value

    return json.dumps(plain(entry), sort_keys=True)


def _check_istio_rule(about: str, service: Mapping[str, Any], rule: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where a rule of a VirtualService does something that Flagger's would not."""
    for key, option in ISTIO_OPTIONS.items():
        have, want = _plain(rule.get(key)), _plain(service.get(key))
        if key == "rewrite" and isinstance(want, dict):
            want = {name: value for name, value in want.items() if name in ("authority", "uri")}
        if have and (not want or (key in ("headers", "rewrite") and have != want)):
            raise InvalidRequest(f"{about} has {key}, which Flagger would take away; set {option} to what it has")
    known = {"name", "match", "route", *ISTIO_OPTIONS}
    _check_rest(about, {key: value for key, value in rule.items() if key not in known})


def _check_rest(about: str, others: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a part of a rule that Flagger never writes."""
    lost = sorted(key for key, value in others.items() if value not in (None, {}, [], ""))
    if lost:
        raise InvalidRequest(f"{about} has {lost[0]}, which Flagger does not write and would take away; {ELSEWHERE}")


def _check_weighted(about: str, names: Names, service: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a TraefikService of which Flagger would take something away; one of another kind ends Flagger itself."""
    weighted = found.get("weighted")
    if not weighted:
        raise InvalidRequest(f"{about} has no weighted services, and Flagger knows no others; {ELSEWHERE}")
    _check_rest(about, {key: value for key, value in found.items() if key != "weighted"})
    _check_rest(about, {f"weighted.{key}": value for key, value in weighted.items() if key != "services"})
    refs = []
    for entry in weighted.get("services") or []:
        known = ("name", "namespace", "port", "weight", "kind")
        _check_rest(about, {f"weighted.services.{key}": value for key, value in entry.items() if key not in known})
        refs.append({key: entry.get(key) for key in ("name", "namespace", "port", "kind")})
    for backend in _backends({"backendRefs": refs}, names, service):
        raise InvalidRequest(f"{about} leads to {backend} too, and Flagger would take that away; {ELSEWHERE}")


def _plain(value: Any) -> Any:
    """Return something without what is empty in it."""
    if isinstance(value, Mapping):
        kept = {key: _plain(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in (None, {}, [], "")}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def named(manifest: Manifest) -> str:
    """Return an object as a sentence names it."""
    meta = metadata(manifest)
    return str(Ref(str(manifest.get("kind")), str(meta.get("namespace") or ""), str(meta.get("name"))))
