# SPDX-License-Identifier: GPL-3.0-or-later
"""How a workload comes under Flagger and leaves it: what Flagger would take away, what there was before, and how it is put back.

Flagger (1.43) makes ``<target>-primary`` and waits until it is ready; then, within one step, it turns the Service to the primary, scales
the target to 0 and writes the route. Routers hear of the turn a moment later, and the pods that they still send to are on their way out
by then. And it takes the Service and the route of that name for its own: other ports, other hosts and other rules go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from ..model import Manifest, Ref, annotations, labels, metadata
from .flagger import QUIET_PHASES, ROUTE_KINDS, SCALED_TO_ZERO, Names, Settings, parsed
from .flagger_routes import named, same_parent

SIDECARS = ("istio-proxy", "envoy")
FLAGGER_ID = "flagger-id"
ORIGINAL = "flagger.kubernetes.io/original-configuration"
"""The annotation in which Flagger keeps what an Istio VirtualService was."""
MARKS = ("helm.toolkit.fluxcd.io/driftDetection", "kustomize.toolkit.fluxcd.io/reconcile", ORIGINAL)
"""Annotations that Flagger adds to a route, by which Flux leaves it alone."""
PAUSED = "autoscaling.keda.sh/paused-replicas"
"""The annotation by which Flagger keeps KEDA from giving the target pods: while it is there, KEDA scales to that number."""
KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def selector_label(workload: Manifest, settings: Settings) -> tuple[str, str]:
    """Return the label and its value by which Flagger tells the pods apart, or raise InvalidRequest."""
    match = ((workload.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    for label in settings.labels:
        if label in match:
            return label, str(match[label])
    raise InvalidRequest(
        f"{named(workload)} has none of the labels {', '.join(settings.labels)} in its selector, by which Flagger tells pods apart;"
        " start Flagger with -selector-labels that name one that it has"
    )


def pod_labels(workload: Manifest) -> dict[str, str]:
    """Return the labels of a workload's pods."""
    return dict((((workload.get("spec") or {}).get("template") or {}).get("metadata") or {}).get("labels") or {})


def primary_labels(workload: Manifest, label: str, value: str) -> dict[str, str]:
    """Return the labels that the pods of the primary will have."""
    return {**pod_labels(workload), label: f"{value}-primary"}


def selects(selector: Mapping[str, str] | None, found: Mapping[str, str]) -> bool:
    """Return whether a Service's selector finds pods with these labels; one that is empty finds none."""
    return bool(selector) and all(found.get(key) == value for key, value in (selector or {}).items())


def check_port(workload: Manifest, service: Mapping[str, Any], present: Manifest | None) -> None:
    """Raise InvalidRequest where the pods have no port such as the Service would send to."""
    port = service.get("targetPort", service.get("port"))
    declared = [
        entry for container in _containers(workload) if container.get("name") not in SIDECARS for entry in container.get("ports") or []
    ]
    known = {str(entry[key]) for entry in declared for key in ("name", "containerPort") if entry.get(key) is not None}
    used = {str(entry.get("targetPort", entry.get("port"))) for entry in ((present or {}).get("spec") or {}).get("ports") or []}
    # A number that no container declares may be listened on all the same, as long as none is declared.
    if str(port) in known | used or (not declared and str(port).isdigit()):
        return
    option = "target_port" if "targetPort" in service else "port (there is no target_port)"
    has = f"they have {', '.join(sorted(known))}" if known else "they name none"
    raise InvalidRequest(f"the pods of {named(workload)} have no port {port}, which {option} asks for; {has}")


def _containers(workload: Manifest) -> list[Mapping[str, Any]]:
    """Return the containers of a workload's pods."""
    return ((((workload.get("spec") or {}).get("template") or {}).get("spec")) or {}).get("containers") or []


def flagger_ports(workload: Manifest, service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the ports of the Services that Flagger writes: the one that is asked for, and with port discovery all of the containers."""
    target = service.get("targetPort", service["port"])
    first = {"name": service.get("portName") or "http", "port": int(service["port"]), "targetPort": target}
    if service.get("appProtocol"):
        first["appProtocol"] = service["appProtocol"]
    found = [first]
    if service.get("portDiscovery"):
        for container in _containers(workload):
            for place, entry in enumerate(container.get("ports") or []):
                if container.get("name") in SIDECARS or target in (entry.get("containerPort"), entry.get("name")):
                    continue
                name = entry.get("name") or f"tcp-{container.get('name')}-{place}"
                found.append({"name": name, "port": entry["containerPort"], "targetPort": entry["containerPort"]})
    return found


def check_service(workload: Manifest, service: Mapping[str, Any], present: Manifest) -> None:
    """Raise InvalidRequest where Flagger would take a port away from a Service that is there, or name it otherwise."""
    about = f"Service {metadata(present).get('namespace')}/{metadata(present).get('name')}"
    spec = present.get("spec") or {}
    if spec.get("type") == "ExternalName":
        raise InvalidRequest(f"{about} is of type ExternalName, and Flagger would point it at pods; choose another service_name")
    wanted = {entry["port"]: entry for entry in flagger_ports(workload, service)}
    for entry in spec.get("ports") or []:
        kept = wanted.get(entry.get("port"))
        if kept is None:
            raise InvalidRequest(
                f"{about} has port {entry.get('port')}, which Flagger would take away: it writes port {service['port']} only;"
                " give that port, use port_discovery: true where pods have it by the same number, or move it to a Service of its own"
            )
        if entry.get("name") and kept["name"] != entry["name"]:
            raise InvalidRequest(
                f'{about} calls its port {entry["port"]} "{entry["name"]}", and Flagger would call it "{kept["name"]}"; set'
                f" port_name: {entry['name']}"
            )
        if entry.get("appProtocol") and kept.get("appProtocol") != entry["appProtocol"]:
            raise InvalidRequest(
                f"{about} says appProtocol {entry['appProtocol']} of its port {entry['port']}, which Flagger would take away;"
                f" set app_protocol: {entry['appProtocol']}"
            )
        if _as_number(workload, entry.get("targetPort", entry["port"])) != _as_number(workload, kept["targetPort"]):
            raise InvalidRequest(
                f"{about} sends its port {entry['port']} to port {entry.get('targetPort', entry['port'])} of the pods, and Flagger"
                " would send it to"
                f" {kept['targetPort']}; set target_port: {entry.get('targetPort', entry['port'])}"
            )


def check_selector(names: Names, workload: Manifest, present: Manifest, workloads: Sequence[Manifest], is_begun: bool) -> None:
    """Raise InvalidRequest where a Service does not lead to the target's pods, and to them alone: Flagger points it at the primary.

    ``is_begun``: a takeover that was killed may have turned it to the primary already.
    """
    selector = (present.get("spec") or {}).get("selector") or {}
    if not selector:
        raise InvalidRequest(
            f"{names.apex} has no selector, so its endpoints are somebody else's, and Flagger would replace them by the pods of"
            f" {names.primary.name}; choose another service_name"
        )
    leads_to = {
        (str(other.get("kind")), str(metadata(other).get("name"))): selects(selector, pod_labels(other)) for other in (*workloads, workload)
    }
    mine, primary = (names.kind, names.target), (names.kind, names.primary.name)
    if not leads_to.get(mine) and not (is_begun and leads_to.get(primary)):
        found = ",".join(f"{key}={text}" for key, text in sorted(selector.items()))
        raise InvalidRequest(
            f"{names.apex} does not lead to the pods of {names.workload} (its selector is {found}), and Flagger would turn it away from"
            " what it leads to; name the Service of this workload with service_name, or another one that is not there yet"
        )
    others = sorted(place for place, leads in leads_to.items() if leads and place not in (mine, primary))
    if others:
        kind, name = others[0]
        raise InvalidRequest(
            f"{names.apex} leads to the pods of {kind} {names.namespace}/{name} too, which Flagger would take away from it; give it a"
            f" selector that finds the pods of {names.workload} alone, or choose another service_name"
        )


def _as_number(workload: Manifest, port: Any) -> Any:
    """Return a port of the pods by its number, where a container names it."""
    for container in _containers(workload):
        for entry in container.get("ports") or []:
            if entry.get("name") == port:
                return entry.get("containerPort")
    return port


def check_others(
    names: Names, workload: Manifest, label: str, value: str, services: Sequence[Manifest], workloads: Sequence[Manifest]
) -> None:
    """Raise InvalidRequest where another Service would lose its pods, or Flagger's Services would find those of another workload."""
    now, then = pod_labels(workload), primary_labels(workload, label, value)
    own = {names.service, f"{names.service}-canary", f"{names.service}-primary"}
    for service in services:
        name, selector = metadata(service).get("name"), (service.get("spec") or {}).get("selector")
        if name in own or not selects(selector, now) or selects(selector, then):
            continue
        raise InvalidRequest(
            f"Service {names.namespace}/{name} sends to the pods of {names.workload} too, which Flagger scales to 0; name it as"
            " service_name, or"
            f" let it choose by labels other than {label}, which the pods of {names.primary.name} do not have"
        )
    for other in workloads:
        kind, name = other.get("kind"), metadata(other).get("name")
        if (kind, name) in ((names.kind, names.target), (names.kind, names.primary.name)):
            continue
        if pod_labels(other).get(label) in (value, f"{value}-primary"):
            raise InvalidRequest(
                f"{kind} {names.namespace}/{name} has pods with {label}={pod_labels(other)[label]} too, and Flagger tells pods apart"
                " by that label"
                f" alone: {names.service}-canary would send requests to them; give them another value of {label}"
            )


# -- What may change while a workload is under Flagger ----------------------------------------------------------------


def check_ports_kept(names: Names, workload: Manifest, current: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InvalidRequest where a port of the Service would go, or be called otherwise: ``current`` and ``wanted`` are spec.service.

    Flagger writes the Services at its next look and the route after them, so requests that ask for the old port are lost.
    """
    if current.get("port") in (None, ""):
        return
    after = {entry["port"]: entry for entry in flagger_ports(workload, wanted)}
    for entry in flagger_ports(workload, current):
        kept = after.get(entry["port"])
        if kept is None:
            what = f"take port {entry['port']} away from {names.apex} at once, and write port {wanted['port']}"
        elif kept["name"] != entry["name"]:
            what = f'call port {entry["port"]} of {names.apex} "{kept["name"]}" and not "{entry["name"]}", by which others may ask for it'
        else:
            continue
        raise InvalidRequest(
            f"{names.canary} cannot change the ports of its Service while the workload is under Flagger: Flagger would {what};"
            " take the workload off with state: absent, then make the Canary anew"
        )


def check_provider_kept(names: Names, old: str, new: str, phase: str, route: Manifest | None) -> None:
    """Raise InvalidRequest where another provider would leave a route behind that nobody turns back, or take one unseen.

    Safe are a provider that writes the same object, and, between releases, a route where there was none (from provider kubernetes).
    ``route`` is that of the new provider, as far as it is there already.
    """
    kind = ROUTE_KINDS.get(new)
    if not old or not new or old == new or (kind and kind == ROUTE_KINDS.get(old)):
        return
    if old != "kubernetes":
        left = f"its {ROUTE_KINDS[old]}" if old in ROUTE_KINDS else "what it has written"
        why = f"Flagger would leave {left} as it is, leading to {names.primary.name}, and never look at it again"
    elif phase not in QUIET_PHASES:
        why = f"it is in the middle of a release ({phase})"
    elif route is not None:
        why = f"Flagger would write {kind} {names.namespace}/{names.service}, which is there already, and nobody would know what it was"
    elif kind is None and new != "nginx":
        why = f"whether there is a route of provider {new} already is not known here"
    else:
        return
    raise InvalidRequest(
        f"{names.canary} has provider {old}, and cannot change to {new} while the workload is under Flagger: {why}; take the workload off"
        " with state: absent, then make the Canary anew"
    )


# -- What there was before ------------------------------------------------------------------------------------------


def record(workload: Manifest, service: Manifest | None, route: Manifest | None, scaler: Manifest | None = None) -> dict[str, Any]:
    """Return what is noted on the Canary before Flagger touches anything: replicas, the Service's selector and ports, the route.

    ``scaler`` is KEDA's ScaledObject; noted is at how many pods somebody has paused it.
    """
    found: dict[str, Any] = {"replicas": (workload.get("spec") or {}).get("replicas"), "service": None, "route": None}
    if service is not None:
        spec = service.get("spec") or {}
        found["service"] = {"selector": spec.get("selector") or {}, "ports": spec.get("ports") or []}
    if route is not None:
        notes = {key: text for key, text in annotations(route).items() if key != KUBECTL}
        found["route"] = {"labels": labels(route), "annotations": notes, "spec": route.get("spec") or {}}
    if scaler is not None:
        found["paused"] = annotations(scaler).get(PAUSED)
    return found


def paused_before(scaler: Manifest, before: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the annotation that a ScaledObject gets back, {} where it is as it was: Flagger pauses it at 0 pods, and nobody else does."""
    noted = before.get("paused")
    return {PAUSED: noted} if annotations(scaler).get(PAUSED) == "0" and noted != "0" else {}


def _is_of(owner: Mapping[str, Any], canary: Manifest) -> bool:
    """Return whether a reference to an owner means this very Canary, and not one of its name that is gone."""
    return owner.get("kind") == "Canary" and owner.get("uid") == metadata(canary).get("uid")


def is_owned(manifest: Manifest, canary: Manifest | None) -> bool:
    """Return whether Flagger made an object for this Canary: it goes with the Canary."""
    return canary is not None and any(_is_of(owner, canary) for owner in metadata(manifest).get("ownerReferences") or [])


def disowned(manifest: Manifest, canary: Manifest) -> list[dict[str, Any]] | None:
    """Return the owners of an object without the Canary; None where there is nothing to change."""
    owners = metadata(manifest).get("ownerReferences") or []
    kept = [owner for owner in owners if not _is_of(owner, canary)]
    return None if kept == owners else kept


def check_staying(ref: Ref, manifest: Manifest | None, canary: Manifest | None) -> None:
    """Raise InvalidRequest for an object that is on its way out: it is being deleted, or the Canary that it goes with is gone."""
    if manifest is None:
        return
    wait = "wait until it is gone, and run this again"
    if metadata(manifest).get("deletionTimestamp"):
        raise InvalidRequest(f"{ref} is being deleted; {wait}")
    strange = [
        owner
        for owner in metadata(manifest).get("ownerReferences") or []
        if owner.get("kind") == "Canary" and not (canary is not None and _is_of(owner, canary))
    ]
    if strange:
        raise InvalidRequest(
            f"{ref} belongs to Canary {strange[0].get('name')} (uid {strange[0].get('uid')}), which is not there (any more): Kubernetes"
            f" deletes it with that; {wait}, or take that owner off it where it is to stay"
        )


@dataclass(frozen=True)
class Led:
    """What a Service gets back: its selector and ports, and why they are others than those noted, as the end of a sentence.

    ``later``: the selector that was noted, where it finds the primary's pods too, and is put back when these are gone.
    """

    selector: Mapping[str, str]
    ports: Sequence[Mapping[str, Any]]
    later: Mapping[str, str] | None = None
    why: str = ""


def service_before(
    service: Manifest,
    before: Mapping[str, Any],
    label: str,
    value: str,
    after: Manifest | None = None,
    others: Sequence[Manifest] = (),
) -> Led:
    """Return what a Service gets back; one that Flagger made, or that nobody noted, leads to the target.

    What was noted may be old: ``after`` is the target as it will be, ``others`` all workloads beside it. A selector that would not
    find the target's pods, or those of others too, is not put back.
    """
    own = {label: value}
    present = list((service.get("spec") or {}).get("ports") or [])
    noted = before.get("service") or {}
    stored = parsed(annotations(service).get(KUBECTL)).get("spec") or {}
    selector = dict(noted.get("selector") or stored.get("selector") or own)
    ports = list(noted.get("ports") or present)
    if after is None:
        return Led(selector, ports)
    target, said = named(after), []
    later = None
    shown = ",".join(f"{key}={text}" for key, text in sorted(selector.items()))
    found = [other for other in others if selects(selector, pod_labels(other))]
    strange = [other for other in found if pod_labels(other).get(label) != f"{value}-primary"]
    if not selects(selector, pod_labels(after)):
        selector = own
        said.append(f"by {label}={value}, for the selector that it had before ({shown}) finds no pods of {target} any more")
    elif strange:
        selector = own
        said.append(f"by {label}={value}, for the selector that it had before ({shown}) finds the pods of {named(strange[0])} too")
    elif found:
        selector, later = own, selector
    lost = next((entry for entry in ports if not _listens(after, entry.get("targetPort", entry.get("port")), present)), None)
    if lost is not None:
        ports = present
        gone = lost.get("targetPort", lost.get("port"))
        said.append(f"with the ports that it has now, for the pods of {target} have no port {gone} any more, to which it led before")
    return Led(selector, ports, later, " and ".join(said))


def _listens(workload: Manifest, port: Any, present: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the pods of a workload have a port, as far as they say; what a Service sends to already is one."""
    declared = [entry for container in _containers(workload) for entry in container.get("ports") or []]
    known = {str(entry[key]) for entry in declared for key in ("name", "containerPort") if entry.get(key) is not None}
    known |= {str(_as_number(workload, entry.get("targetPort", entry.get("port")))) for entry in present}
    return str(port) in known or (not declared and str(port).isdigit())


def route_before(route: Manifest, before: Mapping[str, Any], names: Names, port: int) -> dict[str, Any]:
    """Return the spec that a route gets back: what was noted, what Flagger noted, or all its rules to the Service.

    Hosts and Gateways that it got since stay.
    """
    noted = before.get("route")
    if noted:
        return _with_newer(route, noted["spec"], names)
    stored = parsed(annotations(route).get(ORIGINAL)) or parsed(annotations(route).get(KUBECTL)).get("spec")
    if stored:
        return _with_newer(route, stored, names)
    return led_to(route, names, port)


def newer_of(route: Manifest, before: Mapping[str, Any], names: Names) -> list[str]:
    """Return the hosts and Gateways that a route has got while it was Flagger's, as they are named; they stay."""
    noted = (before.get("route") or {}).get("spec")
    return [name for entries in _newer(route, noted, names).values() for name, _entry in entries] if noted else []


def _with_newer(route: Manifest, noted: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return a noted spec with the hosts and the Gateways that the route has got since."""
    spec = dict(noted)
    for key, entries in _newer(route, noted, names).items():
        if entries:
            spec[key] = [*(spec.get(key) or (["mesh"] if key == "gateways" else [])), *(entry for _name, entry in entries)]
    return spec


def _newer(route: Manifest, noted: Mapping[str, Any], names: Names) -> dict[str, list[tuple[str, Any]]]:
    """Return the hosts and Gateways of a route that are not in a noted spec: {key of the spec: [(name, entry)]}."""
    spec = route.get("spec") or {}
    found: dict[str, list[tuple[str, Any]]] = {}
    if route.get("kind") == "HTTPRoute":
        # One without hosts is for all of them.
        known = noted.get("hostnames") or spec.get("hostnames") or []
        found["hostnames"] = [(f"host {host}", host) for host in spec.get("hostnames") or [] if host not in known]
        parents = noted.get("parentRefs") or []
        found["parentRefs"] = [
            (f"Gateway {entry.get('name')}", entry)
            for entry in spec.get("parentRefs") or []
            if not any(same_parent(entry, parent, names.namespace) for parent in parents)
        ]
    elif route.get("kind") == "VirtualService":
        hosts = [*(noted.get("hosts") or []), *names.own_hosts]
        found["hosts"] = [(f"host {host}", host) for host in spec.get("hosts") or [] if host not in hosts]
        gateways = noted.get("gateways") or ["mesh"]
        found["gateways"] = [(f"gateway {entry}", entry) for entry in spec.get("gateways") or [] if entry not in gateways]
    return found


def notes_before(route: Manifest, before: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the annotations that a route gets back, and (None) those that Flagger has added; what others have changed since stays."""
    old = (before.get("route") or {}).get("annotations") or {}
    present = annotations(route)
    lost: dict[str, str | None] = {key: text for key, text in old.items() if key not in present}
    return {**lost, **{key: None for key in MARKS if key not in old}}


def led_to(route: Manifest, names: Names, port: int) -> dict[str, Any]:
    """Return the spec of a route whose every rule leads to the Service, without what Flagger needs for a canary."""
    spec = dict(route.get("spec") or {})
    canary = f"{names.service}-canary"
    if route.get("kind") == "HTTPRoute":
        spec["rules"] = _once([_plain_rule(rule, names.service, canary, port) for rule in spec.get("rules") or []])
    elif route.get("kind") == "VirtualService":
        for protocol in ("http", "tcp"):
            if spec.get(protocol):
                spec[protocol] = _once([_plain_http(rule, names.service) for rule in spec[protocol]])
    elif route.get("kind") == "TraefikService":
        spec = {
            "weighted": {"services": [{"kind": "Service", "name": names.service, "namespace": names.namespace, "port": port, "weight": 1}]}
        }
    return spec


def _plain_rule(rule: Mapping[str, Any], service: str, canary: str, port: int) -> dict[str, Any]:
    """Return a rule of an HTTPRoute that leads to the Service, and mirrors nothing to the canary."""
    found = {key: value for key, value in rule.items() if key not in ("backendRefs", "filters")}
    filters = [
        entry for entry in rule.get("filters") or [] if ((entry.get("requestMirror") or {}).get("backendRef") or {}).get("name") != canary
    ]
    if filters:
        found["filters"] = filters
    found["backendRefs"] = [{"group": "", "kind": "Service", "name": service, "port": port, "weight": 1}]
    return found


def _plain_http(rule: Mapping[str, Any], service: str) -> dict[str, Any]:
    """Return a route of a VirtualService that leads to the Service."""
    found = {key: value for key, value in rule.items() if key not in ("route", "mirror", "mirrorPercentage")}
    return {**found, "route": [{"destination": {"host": service}}]}


def _once(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rules without those for requests that another one takes anyway: they lead to one place now."""
    plain = [rule for rule in rules if not _has_headers(rule)]
    return plain or rules


def _has_headers(rule: Mapping[str, Any]) -> bool:
    """Return whether a rule is for requests with some header only: that of an A/B test, or of session affinity."""
    matches = rule.get("matches") or rule.get("match") or []
    return bool(matches) and all(entry.get("headers") for entry in matches)


# -- Back to the target ---------------------------------------------------------------------------------------------


def as_target(primary: Manifest, workload: Manifest, label: str, value: str, copies: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod template that the target gets: the primary's, under the target's names.

    ``copies`` {name of a copy that Flagger made of a ConfigMap or Secret: name of the original}.
    """
    template: dict[str, Any] = _renamed((primary.get("spec") or {}).get("template") or {}, copies)
    meta = dict(template.get("metadata") or {})
    notes = {key: text for key, text in (meta.get("annotations") or {}).items() if key != FLAGGER_ID}
    meta = {key: text for key, text in meta.items() if key not in ("annotations", "creationTimestamp")}
    meta["labels"] = {**(meta.get("labels") or {}), label: value}
    if notes:
        meta["annotations"] = notes
    spec = dict(template.get("spec") or {})
    _rename_values(spec, label, f"{metadata(workload)['name']}-primary", str(metadata(workload)["name"]))
    nodes = {key: text for key, text in (spec.get("nodeSelector") or {}).items() if key != SCALED_TO_ZERO}
    spec.pop("nodeSelector", None)
    if nodes:
        spec["nodeSelector"] = nodes
    return {"metadata": meta, "spec": spec}


def _renamed(value: Any, copies: Mapping[str, str], inside: str = "") -> Any:
    """Return a part of a pod template in which copies of ConfigMaps and Secrets have the names of the originals."""
    if isinstance(value, Mapping):
        found = {}
        for key, entry in value.items():
            names = key in ("name", "secretName") and inside in (
                "configMap",
                "secret",
                "configMapKeyRef",
                "secretKeyRef",
                "configMapRef",
                "secretRef",
            )
            found[key] = copies.get(entry, entry) if names and isinstance(entry, str) else _renamed(entry, copies, key)
        return found
    if isinstance(value, list):
        return [_renamed(entry, copies, inside) for entry in value]
    return value


def _rename_values(spec: dict[str, Any], label: str, old: str, new: str) -> None:
    """Give affinity and spread rules the target's name back, to which Flagger has added -primary."""
    anti = (spec.get("affinity") or {}).get("podAntiAffinity") or {}
    selectors = [entry.get("labelSelector") for entry in spec.get("topologySpreadConstraints") or []]
    selectors += [entry.get("labelSelector") for entry in anti.get("requiredDuringSchedulingIgnoredDuringExecution") or []]
    preferred = anti.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    selectors += [(entry.get("podAffinityTerm") or {}).get("labelSelector") for entry in preferred]
    for selector in selectors:
        for key, value in ((selector or {}).get("matchLabels") or {}).items():
            if key == label and value == old:
                selector["matchLabels"][key] = new
        for entry in (selector or {}).get("matchExpressions") or []:
            if entry.get("key") == label:
                entry["values"] = [new if value == old else value for value in entry.get("values") or []]


def references(template: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the ConfigMaps and Secrets that a pod template uses, as (kind, name)."""
    found: set[tuple[str, str]] = set()

    def look(value: Any, inside: str) -> None:
        if isinstance(value, Mapping):
            kind = {"configMap": "ConfigMap", "configMapKeyRef": "ConfigMap", "configMapRef": "ConfigMap"}.get(inside)
            kind = kind or {"secret": "Secret", "secretKeyRef": "Secret", "secretRef": "Secret"}.get(inside)
            name = value.get("name") or value.get("secretName")
            if kind and isinstance(name, str):
                found.add((kind, name))
            for key, entry in value.items():
                look(entry, key)
        elif isinstance(value, list):
            for entry in value:
                look(entry, inside)

    look(template, "")
    return found


@dataclass(frozen=True)
class Back:
    """What the target becomes: so many pods of the primary's template; ``changes`` are the places in which it differs now."""

    template: Mapping[str, Any] | None
    replicas: int | None

    @property
    def is_new(self) -> bool:
        """Return whether the target has another template now."""
        return self.template is not None


def replicas_of(workload: Manifest) -> int | None:
    """Return how many pods a workload asks for; None for a DaemonSet."""
    return None if workload.get("kind") == "DaemonSet" else int((workload.get("spec") or {}).get("replicas", 1))


def way_back(
    primary: Manifest | None, workload: Manifest, before: Mapping[str, Any], label: str, value: str, copies: Mapping[str, str]
) -> Back:
    """Return what the target becomes. Without a primary it is as it was; a primary of no pods counts for nothing."""
    wanted = before.get("replicas") or 1
    if primary is None:
        return Back(None, max(int(wanted), replicas_of(workload) or 0) if workload.get("kind") != "DaemonSet" else None)
    replicas = None if workload.get("kind") == "DaemonSet" else (replicas_of(primary) or int(wanted))
    template = as_target(primary, workload, label, value, copies)
    return Back(None if _same(template, _present(workload)) else template, replicas)


def _present(workload: Manifest) -> dict[str, Any]:
    """Return the target's own template as it is compared with the primary's."""
    template = (workload.get("spec") or {}).get("template") or {}
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if key != "creationTimestamp"}
    if "annotations" in meta and not meta["annotations"]:
        meta.pop("annotations")
    return {"metadata": meta, "spec": template.get("spec") or {}}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two templates are one, Flagger's own mark and Flux's aside, which it leaves out."""

    def plain(template: Mapping[str, Any]) -> dict[str, Any]:
        meta = dict(template["metadata"])
        notes = {
            key: text for key, text in (meta.pop("annotations", None) or {}).items() if "toolkit.fluxcd.io" not in key and key != FLAGGER_ID
        }
        marks = {key: text for key, text in (meta.pop("labels", None) or {}).items() if "toolkit.fluxcd.io" not in key}
        return {"notes": notes, "labels": marks, "spec": template["spec"]}

    return plain(one) == plain(other)
