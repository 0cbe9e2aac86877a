# SPDX-License-Identifier: GPL-3.0-or-later
"""A workload leaves Flagger without a lost request: it gets the primary's template and pods, the requests, and only then Flagger's go.

The order is: suspend the Canary, let the target be what the primary is and wait for its pods, turn the Service back, turn the route
back, look at all of it once more, and delete the Canary, with which everything goes that Flagger made. Each step looks at what there is,
so a killed run goes on, and so a look of Flagger's that was under way when it was suspended undoes nothing.
Flagger's own way (``revertOnDeletion``) brings back neither the template nor an HTTPRoute, and it does not wait: it is switched off.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from .errors import Conflict, DeliveryError, Forbidden, InvalidRequest, NotFound, WaitFailed
from .flagging import (
    ADOPT_TIMEOUT,
    NO_KIND,
    await_endpoints,
    await_gone,
    await_object,
    drop_templates,
    find_flagger,
    found,
    listed,
    noted,
    pause,
    phase_of,
    turned,
)
from .model import JSON_PATCH, WORKLOAD_KINDS, Change, Cluster, Manifest, Query, Ref, Result, annotations, labels, metadata, unchanged
from .plan.flagger import BEFORE, LEAVABLE, QUIET_PHASES, SUSPENDED, Names, Settings, look_seconds, parsed, provider_of
from .plan.rollout import is_ready
from .plan.takeover import (
    Back,
    Led,
    disowned,
    is_owned,
    newer_of,
    notes_before,
    paused_before,
    references,
    replicas_of,
    route_before,
    selector_label,
    service_before,
    way_back,
)
from .run import Progress, settle
from .waiting import require, wait_for_rollout

FINALIZER = "finalizer.flagger.app"
SKIPPED = "object is suspended"
"""What Flagger says in an Event at each look at a Canary that is suspended: the look before has ended then."""
MOST_ROUNDS = 5
"""How many times all is looked at again, where somebody turns it back meanwhile."""


def drop_canary(options: Mapping[str, Any], cluster: Cluster, check: bool, progress: Progress) -> Result:
    """Take a workload off Flagger, and put back what there was; nothing is done where there is no Canary."""
    ref = Ref("Canary", options["namespace"], options["name"])
    if "flagger.app" not in cluster.api_groups():
        return Result(False, {"canary": None}, {"canary": None}, [], {"phase": None, "checks": [f"{ref} is not there: {NO_KIND}"]})
    canary = found(cluster, ref)
    actions: list[str] = []
    if canary is not None:
        leaving = Leaving(cluster, canary, options, progress)
        actions = leaving.foreseen() if check else leaving.make()
    actions += drop_templates(cluster, ref, [], check)
    before = {"canary": ref.name if canary else None}
    return Result(bool(actions), before, {"canary": None}, actions, {"phase": None, "checks": []})


class Leaving:
    """One workload on its way out of Flagger."""

    def __init__(self, cluster: Cluster, canary: Manifest, options: Mapping[str, Any], progress: Progress) -> None:
        """Read what there is; raise InvalidRequest for what would not do, before anything is written."""
        self.cluster, self.progress = cluster, progress
        self.drain = float(options["drain"])
        self.timeout = float(options.get("wait_timeout") or ADOPT_TIMEOUT)
        self.deadline = time.monotonic() + self.timeout
        self.wait, self.keep = bool(options["wait"]), bool(options["keep_route"])
        self.canary = canary
        self.ref = Ref("Canary", metadata(canary)["namespace"], metadata(canary)["name"])
        spec = canary.get("spec") or {}
        self.names = Names.of(self.ref, spec)
        self.before = parsed(annotations(canary).get(BEFORE))
        self.port = int((spec.get("service") or {}).get("port") or 80)
        settings, _looked = find_flagger(cluster, self.ref, options.get("flagger_namespace"))
        known = settings or Settings()
        self.provider = provider_of(spec, settings)
        force = options["force"]
        phase = phase_of(canary)
        if phase not in QUIET_PHASES and SUSPENDED not in annotations(canary) and not force:
            raise InvalidRequest(
                f"{self.ref} is in the middle of a release ({phase}); wait for its end, or set force: true, which ends it with the version"
                f" that {self.names.primary.name} runs"
            )
        if self.provider not in LEAVABLE and not force:
            raise InvalidRequest(
                f"{self.ref} has provider {self.provider or 'that is not known'}, whose routes are not put back here; let its routes"
                " lead to"
                f" {self.names.apex} yourself, then set force: true"
            )
        self.workload = {**require(cluster, self.names.workload), "kind": self.names.kind}
        self.primary = found(cluster, self.names.primary)
        self.service = found(cluster, self.names.apex)
        self.route_ref = self.names.route(self.provider)
        self.route = found(cluster, self.route_ref)
        self.label, self.value = selector_label(self.workload, known)
        self.copies = self._copies(force)
        self.back: Back = way_back(self.primary, self.workload, self.before, self.label, self.value, self.copies)
        self.scaler_ref = self.names.scaler(spec)
        self.scaler = found(cluster, self.scaler_ref)
        self.led = self._led()
        self._owned_service = self.service is not None and is_owned(self.service, canary)
        self._owned_route = self.route is not None and is_owned(self.route, canary)

    def _led(self) -> Led | None:
        """Return what the Service gets back, None where there is none."""
        if self.service is None:
            return None
        template = self.back.template or (self.workload.get("spec") or {}).get("template") or {}
        after = {**self.workload, "spec": {**(self.workload.get("spec") or {}), "template": template}}
        others = [
            {**item, "kind": kind}
            for kind in WORKLOAD_KINDS
            for item in listed(self.cluster, Query(kind, self.ref.namespace)) or []
            if (kind, metadata(item).get("name")) != (self.names.kind, self.names.target)
        ]
        return service_before(self.service, self.before, self.label, self.value, after, others)

    def _copies(self, force: bool) -> dict[str, str]:
        """Return {copy: original} of the ConfigMaps and Secrets that the primary has copies of.

        Raise InvalidRequest where an original is not what the copy is: with it the target would not be what the primary is.
        """
        if self.primary is None:
            return {}
        copies = {}
        used = {name for _kind, name in references((self.workload.get("spec") or {}).get("template") or {})}
        for kind, name in sorted(references((self.primary.get("spec") or {}).get("template") or {})):
            original = name.removesuffix("-primary")
            if original == name:
                continue
            copy, may_read = self._config(kind, name)
            if original not in used:
                if not may_read:
                    raise InvalidRequest(
                        f"{self.ref} cannot leave: {self.names.primary} uses {kind} {name}, and whether that is a copy which"
                        f" Flagger made, and deletes, may not be read; grant get on {kind.lower()}s"
                    )
                if copy is None or not is_owned(copy, self.canary):
                    continue
            copies[name] = original
            source, _may_read = self._config(kind, original)
            if not force and source is not None and copy is not None and (source.get("data") or {}) != (copy.get("data") or {}):
                raise InvalidRequest(
                    f"{kind} {self.ref.namespace}/{original} is not what {self.names.primary} runs with ({name}): a release that failed, or"
                    f" was never made, has changed it; set it back first, or set force: true to run with what is in {original}"
                )
        return copies

    def _config(self, kind: str, name: str) -> tuple[Manifest | None, bool]:
        """Return a ConfigMap or Secret, None where it is not there, and whether it may be read."""
        try:
            return found(self.cluster, Ref(kind, self.ref.namespace, name)), True
        except Forbidden:
            return None, False

    # -- What is done ------------------------------------------------------------------------------------------------

    def _said(self) -> list[str]:
        """Return what is done, in sentences."""
        names, said = self.names, []
        if self.scaler is not None and paused_before(self.scaler, self.before):
            said.append(f"let {self.scaler_ref} scale {names.workload} again, which Flagger had paused")
        if self.back.is_new:
            said.append(f"gave {names.workload} the pod template of {names.primary.name}")
        have, want = replicas_of(self.workload), self.back.replicas
        if want is not None and have != want:
            noted_before = self.before.get("replicas")
            beside = f" (before Flagger it had {noted_before})" if noted_before not in (None, want) else ""
            said.append(f"scaled {names.workload} from {have} to {want}{beside}, and waited for its pods")
        if self.led is not None and (not self._owned_service or self.keep):
            said.append(f"turned {names.apex} back to {names.workload}{f': {self.led.why}' if self.led.why else ''}")
        if self.route_ref is not None and self.route is not None:
            if not self._owned_route:
                newer = newer_of(self.route, self.before, names)
                beside = f", with {', '.join(newer)} that it has got since" if newer else ""
                said.append(f"gave {self.route_ref} back what it was{beside}")
            elif self.keep:
                said.append(f"kept {self.route_ref}, which Flagger made: it leads to {names.apex} now")
            else:
                said.append(f"deleted {self.route_ref}, which Flagger made")
        if self._owned_service:
            said.append(f"{'kept' if self.keep else 'deleted'} {names.apex}, which Flagger made")
        return [*said, f"deleted {self.ref}, and with it what Flagger made"]

    def foreseen(self) -> list[str]:
        """Ask the API server whether the Canary may be deleted; return what would be done."""
        self.cluster.delete(self.ref, dry_run=True)
        return self._said()

    def make(self) -> list[str]:
        """Take the workload off Flagger; raise what hinders it, with the requests where they were."""
        said = self._said()
        self._suspend()
        for _round in range(MOST_ROUNDS):
            if not self._lead_back():
                break
            self._look_again()
        else:
            raise WaitFailed(
                f"{self.names.apex}, its route or {self.names.workload} was turned back by somebody {MOST_ROUNDS} times; see who else"
                f" writes to them. {self.ref} is suspended, and {self.names.primary.name} is there: run this again to go on",
                changed=True,
            )
        self._delete()
        self._give_selector_back()
        return said

    def _lead_back(self) -> bool:
        """Let the target be what the primary is, and have the requests; return whether anything was to be changed."""
        try:
            self._resume()
            changed = self._fill_target()
            self._check_pods()
        except DeliveryError as error:
            where = self.names.target if self._serves() else self.names.primary.name
            raise type(error)(
                f"{error.message}; the requests go to {where}, and {self.ref} is suspended: run this again to go on",
                error.reason,
                **{**error.details, "changed": True},
            ) from None
        if self._turn_service():
            changed = True
            await_endpoints(self.cluster, self.names.apex, self.names.workload, f"{self.label}={self.value}", self._left())
            pause(self.drain, f"gives routers {self.drain:g} s to hear of the Service", self.progress)
        if self._turn_route():
            changed = True
            pause(self.drain, f"gives routers {self.drain:g} s to hear of the route", self.progress)
        return changed

    def _look_again(self) -> None:
        """Read what is there by now."""
        self.workload = {**require(self.cluster, self.names.workload), "kind": self.names.kind}
        self.service = found(self.cluster, self.names.apex)
        self.route = found(self.cluster, self.route_ref)

    def _suspend(self) -> None:
        """Stop Flagger: it would take the target's new template for a release."""
        self.progress(f"suspends {self.ref}")
        looks = Query("Event", self.ref.namespace, fields=f"involvedObject.kind=Canary,involvedObject.name={self.ref.name}")
        told = {_event(event) for event in listed(self.cluster, looks) or []}

        def plan(canary: Manifest) -> Change:
            spec = {**(canary.get("spec") or {}), "suspend": True, "revertOnDeletion": False}
            if spec == canary.get("spec") and SUSPENDED in annotations(canary):
                return Change({}, {})
            return Change(
                {},
                {},
                [unchanged(canary), {"op": "replace", "path": "/spec", "value": spec}, *noted(canary, {SUSPENDED: "yes"})],
                JSON_PATCH,
            )

        change, _canary = settle(self.cluster, self.ref, plan, False)
        if change.changed and not (self.canary.get("spec") or {}).get("suspend"):
            self._await_look(looks, told)

    def _await_look(self, looks: Query, told: set[tuple[str, str]]) -> None:
        """Return when Flagger has looked at the Canary and found it suspended: a look that was under way has ended then.

        Flagger's Events may not be readable, and Kubernetes drops some: the wait has its end, and what such a look would undo is seen.
        """
        seconds = min(look_seconds(self.canary.get("spec") or {}, phase_of(self.canary) in QUIET_PHASES), self._left())
        self.progress(f"waits up to {seconds:g} s for a look of Flagger's that is under way")

        def is_skipped(event: Manifest) -> bool:
            return SKIPPED in str(event.get("message")) and _event(event) not in told

        try:
            seen = await_object(self.cluster, looks, is_skipped, seconds)
        except Forbidden:
            # What a look takes while no release is under way.
            seen = None
            time.sleep(1.0)
        if seen is None:
            self.progress("Flagger has not said that it found it suspended; goes on, and looks again in the end")

    def _resume(self) -> None:
        """Let KEDA scale the target again: Flagger has paused that at no pods."""
        if self.scaler_ref is None or self.scaler is None:
            return

        def plan(scaler: Manifest) -> Change:
            body = noted(scaler, paused_before(scaler, self.before))
            return Change({}, {}, [unchanged(scaler), *body] if body else None, JSON_PATCH)

        settle(self.cluster, self.scaler_ref, plan, False)

    def _check_pods(self) -> None:
        """Raise WaitFailed where the selector that the Service gets finds no pod that is ready."""
        if self.led is None:
            return
        selector = ",".join(f"{key}={text}" for key, text in sorted(self.led.selector.items()))
        if not self._has_ready(selector):
            raise WaitFailed(f"{self.names.workload} has no ready pod with {selector}, by which {self.names.apex} would find it")

    def _has_ready(self, selector: str) -> bool:
        """Return whether a pod that a selector finds is ready, and stays."""
        pods = self.cluster.list(Query("Pod", self.ref.namespace, selector)).items
        return any(is_ready(pod) and not metadata(pod).get("deletionTimestamp") for pod in pods)

    def _fill_target(self) -> bool:
        """Give the target the primary's template and pods, and wait until they are ready; return whether anything was changed."""
        names = self.names
        self.progress(f"lets {names.workload} be what {names.primary.name} is")

        def plan(workload: Manifest) -> Change:
            typed = {**workload, "kind": names.kind}
            back = way_back(self.primary, typed, self.before, self.label, self.value, self.copies)
            body: list[dict[str, Any]] = []
            if back.template is not None:
                body.append({"op": "replace", "path": "/spec/template", "value": back.template})
            if back.replicas is not None and replicas_of(typed) != back.replicas and self._may_scale(typed):
                body.append({"op": "add", "path": "/spec/replicas", "value": back.replicas})
            return Change({}, {}, [unchanged(workload), *body] if body else None, JSON_PATCH)

        change, _workload = settle(self.cluster, names.workload, plan, False, self.workload)
        wait_for_rollout(self.cluster, names.workload, self._left(), progress=self.progress)
        return change.changed

    def _may_scale(self, workload: Manifest) -> bool:
        """Return whether the number of the target's pods is still ours to set: once it has the requests it is not."""
        return not (self._serves() and (replicas_of(workload) or 0) > 0)

    def _serves(self) -> bool:
        """Return whether the Service led to the target when it was last looked at."""
        selector = ((self.service or {}).get("spec") or {}).get("selector") or {}
        return selector.get(self.label) == self.value

    def _turn_service(self) -> bool:
        """Turn the Service back to the target; return whether anything was changed."""
        names, led = self.names, self.led
        if self.service is None or led is None:
            return False
        wanted = {"selector": dict(led.selector), "ports": list(led.ports)}
        self.progress(f"turns {names.apex} back to {names.workload}")
        change, after = settle(
            self.cluster, names.apex, lambda present: turned(names.apex, present, _with_node_ports(present, wanted)), False
        )
        if self.keep or not self._owned_service:
            self._disown(names.apex, after)
        return change.changed

    def _turn_route(self) -> bool:
        """Turn the route back; return whether anything was changed."""
        if self.route is None or self.route_ref is None:
            return False
        ref, mine = self.route_ref, self._owned_route
        self.progress(f"turns {ref} back to {self.names.apex}")

        def plan(route: Manifest) -> Change:
            typed = {**route, "kind": ref.kind}
            spec = route_before(typed, {} if mine else self.before, self.names, self.port)
            marks = (self.before.get("route") or {}).get("labels")
            body: list[dict[str, Any]] = [{"op": "replace", "path": "/spec", "value": spec}] if spec != route.get("spec") else []
            if not mine and marks is not None and marks != labels(route):
                body.append({"op": "add", "path": "/metadata/labels", "value": marks})
            body += noted(route, notes_before(route, {} if mine else self.before))
            return Change({}, {}, [unchanged(route), *body] if body else None, JSON_PATCH)

        change, after = settle(self.cluster, ref, plan, False)
        if self.keep or not mine:
            self._disown(ref, after)
        return change.changed

    def _disown(self, ref: Ref, manifest: Manifest) -> None:
        """Let an object outlive the Canary."""

        def plan(present: Manifest) -> Change:
            owners = disowned(present, self.canary)
            if owners is None:
                return Change({}, {})
            change = (
                {"op": "replace", "path": "/metadata/ownerReferences", "value": owners}
                if owners
                else {"op": "remove", "path": "/metadata/ownerReferences"}
            )
            return Change({}, {}, [unchanged(present), change], JSON_PATCH)

        settle(self.cluster, ref, plan, False, manifest)

    def _give_selector_back(self) -> None:
        """Give the Service the selector that it had, where that would have found the primary's pods too."""
        if self.led is None or self.led.later is None or (self._owned_service and not self.keep):
            return
        later, names = self.led.later, self.names
        self.progress(f"waits for the pods of {names.primary} to go")
        while self._has_ready(f"{self.label}={self.value}-primary"):
            if time.monotonic() > self.deadline:
                raise WaitFailed(
                    f"pods of {names.primary} are there yet after {self.timeout:g} s, and {names.apex} keeps the selector"
                    f" {self.label}={self.value}, by which it leads to {names.workload} alone",
                    changed=True,
                )
            time.sleep(0.5)
        settle(self.cluster, names.apex, lambda present: turned(names.apex, present, {"selector": dict(later)}), False)

    def _delete(self) -> None:
        """Delete the Canary, and wait until the primary is gone where that is asked for."""
        self.progress(f"deletes {self.ref}")

        def plan(canary: Manifest) -> Change:
            finalizers = metadata(canary).get("finalizers") or []
            if FINALIZER not in finalizers:
                return Change({}, {})
            place = finalizers.index(FINALIZER)
            guard = {"op": "test", "path": f"/metadata/finalizers/{place}", "value": FINALIZER}
            return Change({}, {}, [guard, {"op": "remove", "path": f"/metadata/finalizers/{place}"}], JSON_PATCH)

        with contextlib.suppress(NotFound):
            settle(self.cluster, self.ref, plan, False)
            with contextlib.suppress(Conflict):
                self.cluster.delete(self.ref)
        if not self.wait:
            return
        self.progress(f"waits for {self.names.primary} to go")
        for ref in (self.ref, self.names.primary):
            if not await_gone(self.cluster, ref, self._left()):
                raise WaitFailed(f"{ref} is not gone after {self.timeout:g} s; the requests go to {self.names.workload}", changed=True)

    def _left(self) -> float:
        """Return the seconds that are left."""
        return max(1.0, self.deadline - time.monotonic())


def _event(event: Manifest) -> tuple[str, str]:
    """Return what tells an Event from what it was before: one that comes again is counted up."""
    return str(metadata(event).get("name")), str(metadata(event).get("resourceVersion"))


def _with_node_ports(service: Manifest, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a Service gets back, with the ports as they are where they only differ in what the API server fills in."""
    present = (service.get("spec") or {}).get("ports") or []

    def plain(ports: Any) -> list[dict[str, Any]]:
        return [{key: value for key, value in entry.items() if key != "nodePort"} for entry in ports]

    return {**wanted, "ports": present if plain(present) == plain(wanted["ports"]) else wanted["ports"]}
