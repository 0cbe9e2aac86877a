# SPDX-License-Identifier: GPL-3.0-or-later
"""A workload leaves Flagger without a lost request: it gets the primary's template and pods, the requests, and only then Flagger's go.

The order is: suspend the Canary, let the target be what the primary is and wait for its pods, turn the Service back, turn the route
back, and delete the Canary, with which everything goes that Flagger made. Each step looks at what there is, so a killed run goes on.
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
    drop_templates,
    find_flagger,
    found,
    noted,
    pause,
    phase_of,
    turned,
)
from .model import JSON_PATCH, Change, Cluster, Manifest, Ref, Result, annotations, labels, metadata
from .plan.flagger import BEFORE, LEAVABLE, QUIET_PHASES, SUSPENDED, Names, Settings, parsed, provider_of
from .plan.takeover import (
    Back,
    disowned,
    is_owned,
    notes_before,
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
        self._owned_service = self.service is not None and is_owned(self.service, canary)
        self._owned_route = self.route is not None and is_owned(self.route, canary)

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
        if self.back.is_new:
            said.append(f"gave {names.workload} the pod template of {names.primary.name}")
        have, want = replicas_of(self.workload), self.back.replicas
        if want is not None and have != want:
            noted_before = self.before.get("replicas")
            beside = f" (before Flagger it had {noted_before})" if noted_before not in (None, want) else ""
            said.append(f"scaled {names.workload} from {have} to {want}{beside}, and waited for its pods")
        if self.service is not None and (not self._owned_service or self.keep):
            said.append(f"turned {names.apex} back to {names.workload}")
        if self.route_ref is not None and self.route is not None:
            if not self._owned_route:
                said.append(f"gave {self.route_ref} back what it was")
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
        try:
            self._fill_target()
        except DeliveryError as error:
            raise type(error)(
                f"{error.message}; the requests still go to {self.names.primary.name}, and {self.ref} is suspended: run this again to"
                " go on",
                error.reason,
                **{**error.details, "changed": True},
            ) from None
        if self._turn_service():
            await_endpoints(self.cluster, self.names.apex, self.names.workload, f"{self.label}={self.value}", self._left())
            pause(self.drain, f"gives routers {self.drain:g} s to hear of the Service", self.progress)
        if self._turn_route():
            pause(self.drain, f"gives routers {self.drain:g} s to hear of the route", self.progress)
        self._delete()
        return said

    def _suspend(self) -> None:
        """Stop Flagger: it would take the target's new template for a release."""
        self.progress(f"suspends {self.ref}")

        def plan(canary: Manifest) -> Change:
            spec = {**(canary.get("spec") or {}), "suspend": True, "revertOnDeletion": False}
            if spec == canary.get("spec") and SUSPENDED in annotations(canary):
                return Change({}, {})
            guard = {"op": "test", "path": "/metadata/resourceVersion", "value": metadata(canary).get("resourceVersion")}
            return Change(
                {}, {}, [guard, {"op": "replace", "path": "/spec", "value": spec}, *noted(canary, {SUSPENDED: "yes"})], JSON_PATCH
            )

        change, _canary = settle(self.cluster, self.ref, plan, False)
        if change.changed:
            # A step of Flagger that has just begun ends by its own; it takes a moment.
            time.sleep(1.0)

    def _fill_target(self) -> None:
        """Give the target the primary's template and pods, and wait until they are ready."""
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
            guard = {"op": "test", "path": "/metadata/resourceVersion", "value": metadata(workload).get("resourceVersion")}
            return Change({}, {}, [guard, *body] if body else None, JSON_PATCH)

        settle(self.cluster, names.workload, plan, False, self.workload)
        wait_for_rollout(self.cluster, names.workload, self._left(), progress=self.progress)

    def _may_scale(self, workload: Manifest) -> bool:
        """Return whether the number of the target's pods is still ours to set: once it has the requests it is not."""
        selector = ((self.service or {}).get("spec") or {}).get("selector") or {}
        serves = self.service is not None and selector.get(self.label) == self.value
        return not (serves and (replicas_of(workload) or 0) > 0)

    def _turn_service(self) -> bool:
        """Turn the Service back to the target; return whether anything was changed."""
        service, names = self.service, self.names
        if service is None:
            return False
        wanted = service_before(service, self.before, self.label, self.value)
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
            guard = {"op": "test", "path": "/metadata/resourceVersion", "value": metadata(route).get("resourceVersion")}
            return Change({}, {}, [guard, *body] if body else None, JSON_PATCH)

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
            guard = {"op": "test", "path": "/metadata/resourceVersion", "value": metadata(present).get("resourceVersion")}
            change = (
                {"op": "replace", "path": "/metadata/ownerReferences", "value": owners}
                if owners
                else {"op": "remove", "path": "/metadata/ownerReferences"}
            )
            return Change({}, {}, [guard, change], JSON_PATCH)

        settle(self.cluster, ref, plan, False, manifest)

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


def _with_node_ports(service: Manifest, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a Service gets back, with the ports as they are where they only differ in what the API server fills in."""
    present = (service.get("spec") or {}).get("ports") or []

    def plain(ports: Any) -> list[dict[str, Any]]:
        return [{key: value for key, value in entry.items() if key != "nodePort"} for entry in ports]

    return {**wanted, "ports": present if plain(present) == plain(wanted["ports"]) else wanted["ports"]}
