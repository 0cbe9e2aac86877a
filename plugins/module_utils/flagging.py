# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and keeps a Flagger Canary, and takes a running workload over without a lost request.

Flagger's own order turns the Service to the primary and scales the target to 0 at once. Here the Canary is suspended as soon as the
primary is there; when its pods are ready the Service is turned, the routers have time to hear of it while both are there, and only then
may Flagger go on. A killed run leaves the Canary suspended and marked: the next run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .asking import check_metrics, check_webhooks
from .errors import Conflict, DeliveryError, Forbidden, InvalidRequest, NotFound, WaitFailed
from .model import JSON_PATCH, SERVICE_LABEL, Change, Cluster, Manifest, Query, Ref, Result, annotations, metadata, pointer, unchanged
from .plan.flagger import (
    ADOPTING,
    APPLIED,
    BEFORE,
    LEAVABLE,
    SUSPENDED,
    Names,
    Settings,
    applied,
    as_note,
    check_provider,
    differences,
    merged,
    provider_of,
    settings_of,
    templates,
    told,
    wanted_spec,
)
from .plan.flagger_routes import check_route
from .plan.takeover import (
    check_others,
    check_port,
    check_ports_kept,
    check_provider_kept,
    check_selector,
    check_service,
    check_staying,
    is_owned,
    record,
    selector_label,
)
from .reading import autoscaler_of
from .routes.controllers import MIRROR
from .routing import check_controller
from .run import Progress, settle
from .waiting import require, wait_for_rollout
from .watching import Stream

NO_KIND = "this cluster has no kind Canary (flagger.app/v1beta1): install Flagger, for example by the role flagger of this collection"
ADOPT_TIMEOUT = 600.0
START_INTERVAL = "10s"
"""The interval while a workload is taken over: Flagger begins at once, and again at once when it is given the real one."""


@dataclass
class Facts:
    """What was read before anything is written."""

    names: Names
    spec: dict[str, Any]
    provider: str
    settings: Settings | None
    canary: Manifest | None
    workload: Manifest
    service: Manifest | None
    route: Manifest | None
    label: str
    value: str
    templates: list[Manifest] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)


def keep_canary(options: Mapping[str, Any], cluster: Cluster, check: bool, progress: Progress) -> Result:
    """Make the Canary what the options ask for; where it is new, or still being made, take its workload over."""
    ref = Ref("Canary", options["namespace"], options["name"])
    timeout = float(options.get("wait_timeout") or ADOPT_TIMEOUT)
    if timeout <= 0 or float(options["drain"]) < 0:
        raise InvalidRequest(f"wait_timeout must be more than 0 seconds and drain 0 or more, got {timeout:g} and {options['drain']:g}")
    spec = wanted_spec(options)
    facts = read_facts(options, cluster, ref, spec)
    current = dict((facts.canary or {}).get("spec") or {})
    takes_over = is_to_be_taken_over(facts.canary)
    wanted = merged(applied(facts.canary) if facts.canary else {}, facts.spec, without_interim(current) if takes_over else current)
    actions = put_templates(cluster, ref, facts.templates, check)
    if takes_over:
        takeover = Takeover(cluster, facts, wanted, options, timeout, progress)
        actions += takeover.foreseen(check) if check else takeover.make()
        phase = ("Initialized" if takeover.waits else "Initializing") if check else takeover.phase
    else:
        actions += update(cluster, facts, wanted, current, check)
        phase = phase_of(facts.canary)
        if options["wait"] and phase in ("", "Initializing"):
            phase = "Initialized" if check else wait_initialized(cluster, ref, timeout, progress)
    before = {"spec": told(current) if facts.canary else None}
    after = {"spec": told(wanted)} if actions else before
    extra = {"phase": phase, "provider": facts.provider, "checks": facts.checks, "canary": {"name": ref.name, "namespace": ref.namespace}}
    return Result(bool(actions), before, after, actions, extra)


def is_to_be_taken_over(canary: Manifest | None) -> bool:
    """Return whether a workload is not under Flagger yet, or a run that took it over was killed."""
    if canary is None or ADOPTING in annotations(canary):
        return True
    return phase_of(canary) in ("", "Initializing") and BEFORE not in annotations(canary)


def without_interim(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec without what a takeover has put there for its own time."""
    found_spec = {key: value for key, value in spec.items() if key not in ("suspend", "skipAnalysis")}
    analysis = {key: value for key, value in (spec.get("analysis") or {}).items() if key != "interval"}
    return {**found_spec, "analysis": analysis}


def phase_of(canary: Manifest | None) -> str:
    """Return the phase of a Canary, empty while Flagger has not seen it."""
    return str(((canary or {}).get("status") or {}).get("phase") or "")


def found(cluster: Cluster, ref: Ref | None) -> Manifest | None:
    """Return an object, None where it is not there (or its kind is not)."""
    if ref is None:
        return None
    try:
        return {**cluster.get(ref), "kind": ref.kind}
    except NotFound:
        return None


def listed(cluster: Cluster, query: Query) -> list[Manifest] | None:
    """Return the objects that a query selects; None where they may not be read, or there is no such kind."""
    try:
        return cluster.list(query).items
    except (Forbidden, NotFound):
        return None


def find_flagger(cluster: Cluster, canary: Ref, namespace: str | None) -> tuple[Settings | None, bool]:
    """Return how the Flagger that will see a Canary was started, and whether it could be looked for at all."""
    candidates: list[Settings] = []
    looked = False
    for labels in ("app.kubernetes.io/name=flagger", "app=flagger", *([""] if namespace else [])):
        items = listed(cluster, Query("Deployment", namespace or "", labels))
        looked = looked or items is not None
        candidates += [settings for settings in map(settings_of, items or []) if settings]
        if candidates:
            break
    seeing = [settings for settings in candidates if settings.watches == canary.namespace]
    seeing += [settings for settings in candidates if not settings.watches]
    return (seeing or candidates or [None])[0], looked


def read_facts(options: Mapping[str, Any], cluster: Cluster, ref: Ref, spec: dict[str, Any]) -> Facts:
    """Read what there is, and raise InvalidRequest for what would not do; nothing is written."""
    groups = cluster.api_groups()
    if "flagger.app" not in groups:
        raise InvalidRequest(f"{ref} cannot be made: {NO_KIND}")
    force = options["force"]
    canary = found(cluster, ref)
    names = Names.of(ref, spec)
    if canary is not None and SUSPENDED in annotations(canary):
        raise InvalidRequest(
            f"{ref} is on its way out: a run with state: absent did not come to its end; let it, then make the Canary again"
        )
    check_staying(ref, canary, canary)
    _check_moved(canary, names)
    workload = {**require(cluster, names.workload), "kind": names.kind}
    settings, looked = find_flagger(cluster, ref, options.get("flagger_namespace"))
    known = settings or Settings()
    current = (canary or {}).get("spec") or {}
    # What others have put there counts too.
    whole = merged(applied(canary), spec, current) if canary is not None else spec
    check_provider(ref, whole, settings, groups)
    provider = provider_of(whole, settings)
    label, value = selector_label(workload, known)
    service, route = found(cluster, names.apex), found(cluster, names.route(provider))
    facts = Facts(names, spec, provider, settings, canary, workload, service, route, label, value, templates(ref, options))
    check_port(workload, spec["service"], service)
    if canary is not None:
        _check_changed(cluster, facts, current, whole)
    _check_references(cluster, facts)
    if is_to_be_taken_over(canary):
        _check_staying(cluster, facts)
    if is_to_be_taken_over(canary) and not force:
        _check_flagger(ref, settings, looked)
        _check_takeover(cluster, facts)
    hooks = (spec.get("analysis") or {}).get("webhooks") or []
    # A run that changes nothing must not depend on whether a receiver answers at this moment.
    is_new = is_to_be_taken_over(canary) or hooks != ((current.get("analysis") or {}).get("webhooks") or [])
    if options["check_webhooks"] and is_new and not force:
        facts.checks += check_webhooks(cluster, ref, spec, known.namespace or options.get("flagger_namespace") or "")
    asked = differences(_metrics(current), _metrics(spec)) or canary is None or _changed_templates(cluster, facts.templates)
    if options["check_metrics"] and not force and asked:
        home = known.namespace or options.get("flagger_namespace") or ""
        server = str(spec.get("metricsServer") or (settings.metrics_server if settings else ""))
        facts.checks += check_metrics(cluster, ref, spec, provider, server, home, facts.templates)
    return facts


def _metrics(spec: Mapping[str, Any]) -> Any:
    """Return the metrics of a spec, with what their queries depend on."""
    return {
        "metrics": (spec.get("analysis") or {}).get("metrics") or [],
        "provider": spec.get("provider"),
        "server": spec.get("metricsServer"),
    }


def _changed_templates(cluster: Cluster, wanted: Sequence[Manifest]) -> bool:
    """Return whether a MetricTemplate is to be made or changed."""
    for template in wanted:
        present = found(cluster, _template_ref(template))
        if present is None or present.get("spec") != template["spec"]:
            return True
    return False


def _check_moved(canary: Manifest | None, names: Names) -> None:
    """Raise InvalidRequest where a Canary is to be of another workload or Service: Flagger would leave all that it made behind."""
    if canary is None:
        return
    present = Names.of(names.canary, canary.get("spec") or {})
    for what, old, new in (("its workload", present.workload, names.workload), ("its Service", present.apex, names.apex)):
        if old != new:
            raise InvalidRequest(
                f"{names.canary} has {old} for {what}, and cannot move to {new}: Flagger would leave what it made behind;"
                " take it off with state: absent first"
            )


def _check_changed(cluster: Cluster, facts: Facts, current: Mapping[str, Any], whole: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for a change of a living Canary by which requests would be lost; ``whole`` is its spec after it."""
    names = facts.names
    before, after = current.get("service") or {}, whole.get("service") or {}
    check_provider_kept(names, provider_of(current, facts.settings), facts.provider, phase_of(facts.canary), facts.route)
    check_ports_kept(names, facts.workload, before, after)
    if before.get("targetPort") != after.get("targetPort"):
        primary = found(cluster, names.primary)
        if primary is not None:
            # It has the requests, and may be older than the workload.
            check_port(primary, after, None)


def _check_flagger(ref: Ref, settings: Settings | None, looked: bool) -> None:
    """Raise InvalidRequest where no Flagger runs that could take the workload over."""
    if settings is None and looked:
        raise InvalidRequest(
            f"{ref} would not be seen: no Flagger was found, by the label app.kubernetes.io/name=flagger or app=flagger; install it,"
            " for example"
            " by the role flagger, or name its namespace with flagger_namespace"
        )
    if settings is not None and not settings.ready:
        raise InvalidRequest(f"{ref} would not be seen: {settings.where}, which is Flagger, has no ready pod; see what it logs")


def _check_staying(cluster: Cluster, facts: Facts) -> None:
    """Raise InvalidRequest where something of the workload is on its way out: what is built on it would go with it."""
    names, canary = facts.names, facts.canary
    check_staying(names.workload, facts.workload, canary)
    check_staying(names.primary, found(cluster, names.primary), canary)
    check_staying(names.apex, facts.service, canary)
    route = names.route(facts.provider)
    if route is not None:
        check_staying(route, facts.route, canary)


def _check_takeover(cluster: Cluster, facts: Facts) -> None:
    """Raise InvalidRequest where Flagger would take away what others need, or leave something without pods."""
    names = facts.names
    for other in cluster.list(Query("Canary", names.namespace)).items:
        target = (other.get("spec") or {}).get("targetRef") or {}
        if metadata(other).get("name") != names.name and (target.get("kind"), target.get("name")) == (names.kind, names.target):
            raise InvalidRequest(
                f"{names.workload} is released by Canary {names.namespace}/{metadata(other)['name']} already, and two of them would"
                " undo each other"
            )
    primary = found(cluster, names.primary)
    if primary is not None and not is_owned(primary, facts.canary):
        raise InvalidRequest(
            f"{names.primary} is there already, and Flagger would take it for its own as it is; rename it, or delete it where nothing"
            " needs it"
        )
    services = cluster.list(Query("Service", names.namespace)).items
    workloads = [
        item for kind in ("Deployment", "DaemonSet", "StatefulSet") for item in listed(cluster, Query(kind, names.namespace)) or []
    ]
    if facts.service is not None:
        check_service(facts.workload, facts.spec["service"], facts.service)
    check_others(names, facts.workload, facts.label, facts.value, services, workloads)
    if facts.service is not None and not is_owned(facts.service, facts.canary):
        check_selector(names, facts.workload, facts.service, workloads, facts.canary is not None)
    if facts.route is not None and not is_owned(facts.route, facts.canary):
        check_route(facts.route, names, facts.spec)
    scaler = autoscaler_of(cluster, names.workload)
    if scaler is None:
        return
    owners = metadata(scaler).get("ownerReferences") or []
    # One that KEDA has made is its own business, and goes by the name of what it was made for.
    kind, name = next(
        (("ScaledObject", str(owner["name"])) for owner in owners if owner.get("kind") == "ScaledObject"),
        ("HorizontalPodAutoscaler", str(metadata(scaler)["name"])),
    )
    given = facts.spec.get("autoscalerRef") or {}
    if (given.get("kind"), given.get("name")) != (kind, name):
        beside = f" and autoscaler_kind: {kind}" if kind == "ScaledObject" else ""
        raise InvalidRequest(
            f"{kind} {names.namespace}/{name} scales {names.workload}, and the primary would stay as it is; set autoscaler: {name}{beside}"
        )


def _check_references(cluster: Cluster, facts: Facts) -> None:
    """Raise InvalidRequest for something that the spec names and that is not there."""
    spec, names = facts.spec, facts.names
    wanted: list[tuple[str, Ref]] = []
    scaler = spec.get("autoscalerRef") or {}
    if scaler.get("kind") in ("HorizontalPodAutoscaler", "ScaledObject"):
        wanted.append(("autoscaler", Ref(scaler["kind"], names.namespace, scaler["name"])))
    if spec.get("ingressRef"):
        wanted.append(("ingress", Ref("Ingress", names.namespace, spec["ingressRef"]["name"])))
    if facts.provider.startswith("gatewayapi"):
        for entry in spec["service"].get("gatewayRefs") or []:
            wanted.append(("gateway_refs", Ref("Gateway", entry.get("namespace") or names.namespace, entry["name"])))
    if facts.provider == "istio":
        for gateway in spec["service"].get("gateways") or []:
            namespace, slash, name = str(gateway).partition("/")
            if gateway != "mesh":
                wanted.append(("gateways", Ref("Gateway.networking.istio.io", namespace if slash else names.namespace, name or namespace)))
    for alert in (spec.get("analysis") or {}).get("alerts") or []:
        place = alert["providerRef"]
        wanted.append(("alerts", Ref("AlertProvider", place.get("namespace") or names.namespace, place["name"])))
    for option, ref in wanted:
        try:
            cluster.get(ref)
        except NotFound:
            raise InvalidRequest(f"{names.canary}: {ref}, which {option} names, does not exist") from None
        except Forbidden:
            facts.checks.append(f"{ref} was not looked at: it may not be read")
    _check_mirror(cluster, facts)
    if facts.settings and facts.settings.no_cross_namespace:
        analysis = spec.get("analysis") or {}
        entries = [entry.get("templateRef") or {} for entry in analysis.get("metrics") or []]
        entries += [entry.get("providerRef") or {} for entry in analysis.get("alerts") or []]
        for entry in entries:
            if entry.get("namespace") not in (None, names.namespace):
                raise InvalidRequest(
                    f"{names.canary} names {entry['name']} in namespace {entry['namespace']}, and {facts.settings.where} was started with"
                    " -no-cross-namespace-refs; make it in the namespace of the Canary"
                )


def _check_mirror(cluster: Cluster, facts: Facts) -> None:
    """Raise InvalidRequest where the Gateway's controller does not mirror: Traefik answers 500 to each request of such a route."""
    names, spec = facts.names, facts.spec
    if not facts.provider.startswith("gatewayapi") or not (spec.get("analysis") or {}).get("mirror"):
        return
    route = {"spec": {"parentRefs": spec["service"].get("gatewayRefs") or []}}
    try:
        check_controller(cluster, "gateway_api", Ref("HTTPRoute", names.namespace, names.service), route, MIRROR)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{names.canary} cannot have mirror: {error.message.partition('; ')[0]}; leave mirror out, or use provider istio",
            reason="NotSupported",
        ) from None


# -- What is written -------------------------------------------------------------------------------------------------


def _template_ref(template: Manifest) -> Ref:
    """Return what names a MetricTemplate."""
    return Ref("MetricTemplate", metadata(template)["namespace"], metadata(template)["name"])


def put_templates(cluster: Cluster, canary: Ref, wanted: Sequence[Manifest], check: bool) -> list[str]:
    """Make the MetricTemplates of a Canary what they are to be; return what was done. Those that it needs no more stay for now."""
    actions = []
    for template in wanted:
        ref = _template_ref(template)
        present = found(cluster, ref)
        if present is None:
            cluster.create(ref, template, dry_run=check)
            actions.append(f"made {ref}")
        elif present.get("spec") != template["spec"]:
            body = [unchanged(present), {"op": "replace", "path": "/spec", "value": template["spec"]}]
            answer = cluster.patch(ref, body, JSON_PATCH, dry_run=True)
            if answer.get("spec") != present.get("spec"):
                if not check:
                    cluster.patch(ref, body, JSON_PATCH)
                actions.append(f"changed the query of {ref}")
    return actions


def drop_templates(cluster: Cluster, canary: Ref, kept: Sequence[Manifest], check: bool) -> list[str]:
    """Delete the MetricTemplates that were made for metrics which the Canary does not have any more; return what was done."""
    from_here = listed(cluster, Query("MetricTemplate", canary.namespace, f"progressive.delivery/canary={canary.name}")) or []
    names = {metadata(template)["name"] for template in kept}
    actions = []
    for template in from_here:
        ref = Ref("MetricTemplate", canary.namespace, metadata(template)["name"])
        if ref.name not in names:
            cluster.delete(ref, dry_run=check)
            actions.append(f"deleted {ref}")
    return actions


def noted(manifest: Manifest, notes: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return the operations that set annotations, or take them away (None)."""
    present = annotations(manifest)
    found_ops: list[dict[str, Any]] = []
    if not metadata(manifest).get("annotations") and any(value is not None for value in notes.values()):
        found_ops.append({"op": "add", "path": "/metadata/annotations", "value": {}})
    for key, value in notes.items():
        path = f"/metadata/annotations/{pointer(key)}"
        if value is None and key in present:
            found_ops.append({"op": "remove", "path": path})
        elif value is not None and present.get(key) != value:
            found_ops.append({"op": "add", "path": path, "value": value})
    return found_ops


def update(cluster: Cluster, facts: Facts, wanted: dict[str, Any], current: dict[str, Any], check: bool) -> list[str]:
    """Change the spec of a Canary whose workload is under Flagger; return what was done."""
    ref = facts.names.canary
    said: list[str] = []
    places = differences(current, wanted)

    def plan(canary: Manifest) -> Change:
        present = dict(canary.get("spec") or {})
        new = merged(applied(canary), facts.spec, present)
        notes = noted(canary, {APPLIED: as_note(facts.spec)})
        body = [unchanged(canary), *([{"op": "replace", "path": "/spec", "value": new}] if new != present else []), *notes]
        if len(body) == 1:
            return Change({}, {})
        answer = cluster.patch(ref, body, JSON_PATCH, dry_run=True)
        # The API server fills in what the kind has defaults for: what comes out the same is no change.
        if answer.get("spec") == present and not notes:
            return Change({}, {})
        said[:] = (
            [f"changed {', '.join(places)} of {ref}"] if answer.get("spec") != present else [f"noted on {ref} what it was asked to be"]
        )
        return Change({}, {}, body, JSON_PATCH)

    change, _canary = settle(cluster, ref, plan, check, facts.canary)
    actions = said if change.changed else []
    return actions + drop_templates(cluster, ref, facts.templates, check)


class Takeover:
    """One workload that comes under Flagger."""

    def __init__(
        self, cluster: Cluster, facts: Facts, wanted: dict[str, Any], options: Mapping[str, Any], timeout: float, progress: Progress
    ) -> None:
        self.cluster, self.facts, self.wanted, self.progress = cluster, facts, wanted, progress
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.drain = float(options["drain"])
        self.waits = bool(options["wait"] or wanted.get("suspend"))
        self.phase = "Initializing"
        self._service = facts.service if facts.service and not is_owned(facts.service, facts.canary) else None
        self._route = facts.route if facts.route and not is_owned(facts.route, facts.canary) else None

    def foreseen(self, check: bool) -> list[str]:
        """Ask the API server whether it would take the Canary; return what would be done."""
        ref = self.facts.names.canary
        if self.facts.canary is None:
            self.cluster.create(ref, self._manifest(), dry_run=check)
        return self._said()

    def _said(self) -> list[str]:
        """Return what the takeover is, in sentences."""
        names, said = self.facts.names, []
        said.append(f"made {names.canary}" if self.facts.canary is None else f"went on with {names.canary}")
        said.append(f"let Flagger make {names.primary} and wait for it to be ready")
        was = " and was there before" if self._service else ""
        said.append(f"turned {names.apex} to {names.primary.name}: it is Flagger's now{was}")
        if self._route:
            said.append(
                f"gave {self._route['kind']} {names.namespace}/{names.service} to Flagger, which was there before; what it was is noted"
            )
        said.append(f"let Flagger scale {names.workload} to 0: it is the next release's")
        if self.facts.provider not in LEAVABLE:
            said.append(f"noted no route: that of provider {self.facts.provider} is not put back by state: absent")
        return said

    def _interim(self, wanted: Mapping[str, Any], suspend: bool = False) -> dict[str, Any]:
        """Return the spec with which Flagger makes the primary, and waits until it is ready."""
        analysis = {**(wanted.get("analysis") or {}), "interval": START_INTERVAL}
        return {**wanted, "analysis": analysis, "suspend": suspend, "skipAnalysis": False}

    def _begun(self, canary: Manifest, suspend: bool) -> dict[str, Any]:
        """Return the spec for the time of the takeover, from the Canary as it is: what others have put there stays."""
        present = without_interim(canary.get("spec") or {})
        return self._interim(merged(applied(canary), self.facts.spec, present), suspend)

    def _ended(self, canary: Manifest) -> dict[str, Any]:
        """Return the spec without what the takeover has put there for its own time, and nothing else changed."""
        present, wanted = dict(canary.get("spec") or {}), dict(self.wanted)
        if wanted.get("suspend"):
            # Flagger must take the workload over first.
            wanted["suspend"] = False
        analysis = _with_keys(present.get("analysis") or {}, wanted.get("analysis") or {}, ("interval",))
        return {**_with_keys(present, wanted, ("suspend", "skipAnalysis")), "analysis": analysis}

    def _manifest(self) -> Manifest:
        """Return the Canary as it is made."""
        names = self.facts.names
        notes = {BEFORE: self._record(), ADOPTING: "yes", APPLIED: as_note(self.facts.spec)}
        meta = {"name": names.name, "namespace": names.namespace, "annotations": notes}
        return {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": meta, "spec": self._interim(self.wanted)}

    def _record(self) -> str:
        """Return what is noted of the time before Flagger."""
        scaler = found(self.cluster, self.facts.names.scaler(self.facts.spec))
        return as_note(record(self.facts.workload, self._service, self._route, scaler))

    def make(self) -> list[str]:
        """Take the workload over; raise WaitFailed where that stops half-way, with the requests on a version that works."""
        names = self.facts.names
        if self.facts.canary is None or found(self.cluster, names.primary) is None:
            self._begin()
            self._await_primary()
        self._suspend()
        self._await_ready()
        self._turn()
        self._let_go_on()
        if self.waits:
            self.phase = wait_initialized(self.cluster, names.canary, self._left(), self.progress)
            if self.wanted.get("suspend"):
                self._write(lambda canary: {**(canary.get("spec") or {}), "suspend": True}, {})
        return [*self._said(), *drop_templates(self.cluster, names.canary, self.facts.templates, False)]

    def _begin(self) -> None:
        """Make the Canary, or let one go on that a killed run has left before there was a primary."""
        names = self.facts.names
        self.progress(f"makes {names.canary}")
        if self.facts.canary is not None:
            notes: dict[str, str | None] = {ADOPTING: "yes", APPLIED: as_note(self.facts.spec)}
            if BEFORE not in annotations(self.facts.canary):
                notes[BEFORE] = self._record()
            self._write(lambda canary: self._begun(canary, False), notes)
            return
        try:
            self.cluster.create(names.canary, self._manifest())
        except Conflict:
            # The answer to our own write was lost, or somebody made it at this moment.
            notes = annotations(found(self.cluster, names.canary) or {})
            mine = self._manifest()["metadata"]["annotations"]
            if any(notes.get(key) != text for key, text in mine.items()):
                raise Conflict(
                    f"{names.canary} was made by somebody else at this moment; nothing of it was changed: see who does, and run this again"
                ) from None

    def _write(self, make: Callable[[Manifest], dict[str, Any]], notes: Mapping[str, str | None]) -> None:
        """Write the spec that is made of the Canary as it is, and the notes."""

        def plan(canary: Manifest) -> Change:
            spec = make(canary)
            replace = [{"op": "replace", "path": "/spec", "value": spec}] if canary.get("spec") != spec else []
            body = [*replace, *noted(canary, notes)]
            return Change({}, {}, [unchanged(canary), *body] if body else None, JSON_PATCH)

        settle(self.cluster, self.facts.names.canary, plan, False)

    def _suspend(self) -> None:
        """Stop Flagger before it goes on by itself, and note what there was where nobody has."""
        canary = found(self.cluster, self.facts.names.canary) or {}
        notes: dict[str, str | None] = {ADOPTING: "yes", APPLIED: as_note(self.facts.spec)}
        if BEFORE not in annotations(canary):
            notes[BEFORE] = self._record()
        self._write(lambda present: self._begun(present, True), notes)

    def _await_primary(self) -> Manifest:
        """Return the primary as soon as Flagger has made it; else suspend the Canary and raise WaitFailed."""
        names = self.facts.names
        self.progress(f"waits for Flagger to make {names.primary}")
        query = Query(names.kind, names.namespace, fields=f"metadata.name={names.primary.name}")
        made = await_object(self.cluster, query, lambda _item: True, min(self._left(), 120.0))
        if made is not None:
            return made
        self._suspend()
        raise WaitFailed(
            f"Flagger made no {names.primary} for {names.canary}{last_warning(self.cluster, names.canary)}; see what Flagger logs."
            f" {names.workload} is as it was; run this again to go on",
            reason="NoPrimary",
            changed=True,
        )

    def _await_ready(self) -> None:
        """Return when the pods of the primary are ready; raise what hinders them, with the requests where they were."""
        names = self.facts.names
        self.progress(f"waits for {names.primary} to be ready")
        try:
            wait_for_rollout(self.cluster, names.primary, self._left(), progress=self.progress)
        except DeliveryError as error:
            raise type(error)(
                f"{error.message}; the requests still go to {names.workload}, and {names.canary} is suspended: run this again to go on",
                error.reason,
                **{**error.details, "changed": True},
            ) from None

    def _turn(self) -> None:
        """Turn the Service to the primary while the target's pods are there, and give the routers time to hear of it."""
        names, label = self.facts.names, self.facts.label
        if self._service is None:
            return
        selector = {label: f"{self.facts.value}-primary"}
        self.progress(f"turns {names.apex} to {names.primary.name}")
        change, _service = settle(self.cluster, names.apex, lambda service: turned(names.apex, service, {"selector": selector}), False)
        await_endpoints(self.cluster, names.apex, names.primary, f"{label}={self.facts.value}-primary", self._left())
        if change.changed or self.drain:
            pause(self.drain, f"gives routers {self.drain:g} s to hear of it", self.progress)

    def _let_go_on(self) -> None:
        """Let Flagger scale the target to 0 and write the route, with the spec that is wanted."""
        self.progress("lets Flagger go on")
        self._write(self._ended, {ADOPTING: None})

    def _left(self) -> float:
        """Return the seconds that are left."""
        return max(1.0, self.deadline - time.monotonic())


def _with_keys(present: Mapping[str, Any], wanted: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a dictionary with some keys as they are in another one, and without those that are not there."""
    kept = {key: value for key, value in present.items() if key not in keys}
    return {**kept, **{key: wanted[key] for key in keys if key in wanted}}


# -- What both ways need --------------------------------------------------------------------------------------------


def turned(ref: Ref, service: Manifest, wanted: Mapping[str, Any]) -> Change:
    """Return the change that gives a Service another selector, and other ports where they are given."""
    spec = service.get("spec") or {}
    operations = [{"op": "replace", "path": f"/spec/{key}", "value": value} for key, value in wanted.items() if spec.get(key) != value]
    if not operations:
        return Change({}, {})
    body = [{"op": "test", "path": "/metadata/uid", "value": metadata(service).get("uid")}, *operations]
    return Change({}, {}, body, JSON_PATCH, (f"turned {ref}",))


def await_object(cluster: Cluster, query: Query, test: Callable[[Manifest], bool], timeout: float) -> Manifest | None:
    """Return the first object of a watch that passes a test; None where none has in time."""
    with Stream(cluster, [query], timeout) as stream:
        for event in stream.events():
            if event is None:
                continue
            items = event.items if event.type == "SYNCED" else () if event.type == "DELETED" else (event.object,)
            for item in items:
                if test(item):
                    return item
    return None


def await_gone(cluster: Cluster, ref: Ref, timeout: float) -> bool:
    """Return whether an object went away in time."""
    query = Query(ref.kind, ref.namespace, fields=f"metadata.name={ref.name}")
    with Stream(cluster, [query], timeout) as stream:
        for event in stream.events():
            if event is not None and (event.type == "DELETED" or (event.type == "SYNCED" and not event.items)):
                return True
    return False


def await_endpoints(cluster: Cluster, service: Ref, workload: Ref, labels: str, timeout: float) -> None:
    """Return when all ready endpoints of a Service are pods of a workload; raise WaitFailed where they do not become so.

    ``labels`` select its pods, as Flagger tells them apart: their names do not, for a pod ``web-primary-x7k2p`` of the DaemonSet
    web-primary could be one of web by its name.
    """
    query = Query("EndpointSlice", service.namespace, f"{SERVICE_LABEL}={service.name}")
    slices: dict[str, Manifest] = {}
    with Stream(cluster, [query], min(timeout, 60.0)) as stream:
        for event in stream.events():
            if event is None:
                continue
            if event.type == "SYNCED":
                slices = {metadata(item)["name"]: item for item in event.items}
            elif event.type == "DELETED":
                slices.pop(metadata(event.object)["name"], None)
            else:
                slices[metadata(event.object)["name"]] = event.object
            found_pods = ready_endpoints(slices.values())
            if found_pods and found_pods <= {metadata(pod)["name"] for pod in cluster.list(Query("Pod", service.namespace, labels)).items}:
                return
    raise WaitFailed(f"{service} does not lead to the pods of {workload} alone after a minute; see its EndpointSlices", changed=True)


def ready_endpoints(slices: Iterable[Manifest]) -> set[str]:
    """Return the names of the pods that are ready endpoints; empty for one that is no pod."""
    return {
        str((endpoint.get("targetRef") or {}).get("name") or "")
        for item in slices
        for endpoint in item.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") is not False
    }


def wait_initialized(cluster: Cluster, ref: Ref, timeout: float, progress: Progress) -> str:
    """Return the phase when Flagger has taken the workload over; raise WaitFailed where it does not in time."""
    progress(f"waits for {ref} to be Initialized")
    query = Query("Canary", ref.namespace, fields=f"metadata.name={ref.name}")
    done = await_object(cluster, query, lambda item: phase_of(item) not in ("", "Initializing"), timeout)
    if done is None:
        raise WaitFailed(
            f"{ref} is not Initialized after {timeout:.0f} s{last_warning(cluster, ref)}; see what Flagger logs",
            changed=True,
        )
    return phase_of(done)


def last_warning(cluster: Cluster, ref: Ref) -> str:
    """Return what Flagger last complained of, as the end of a sentence."""
    events = listed(cluster, Query("Event", ref.namespace, fields=f"involvedObject.name={ref.name},type=Warning")) or []
    if not events:
        return ""
    newest = max(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f" (Flagger says: {newest.get('message')})"


def pause(seconds: float, line: str, progress: Progress) -> None:
    """Wait a while, and say so."""
    if seconds > 0:
        progress(line)
        time.sleep(seconds)
