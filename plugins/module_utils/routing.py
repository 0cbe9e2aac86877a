# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes on a cluster: which are meant, what they are, and moving several of them as one - all or none.

A provider in ``routes/`` says what the objects of a route shall be like; here they are read, and the difference is written:
what is new first, then what changes, then what goes. With several writes each is tried as a dry run before the first is made,
and where one fails all the same, those before it are taken back.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from .errors import Conflict, DeliveryError, Forbidden, InvalidRequest, NotFound
from .model import JSON_PATCH, KINDS, SERVICE_LABEL, Cluster, Manifest, Query, Ref, metadata, selector_string, unchanged
from .plan.colors import annotation_operations, ready_addresses
from .reading import let_router_know, ready_pods
from .routes import controllers
from .routes.colored import targets_of
from .routes.controllers import Found, Served
from .routes.patching import dropped, smallest_patch
from .routes.registry import router
from .routes.rules import Documents, Rule, Sides, choose, main_of, numbered

MOST_PLANS = 10
# A router hears of each kind by a stream of its own: what a route leads to must have come before the route does, and go after it.
SETTLE = 0.2
SERVER_SIDE = ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp", "selfLink")

_WHICH: dict[str, dict[str, Any]] = {
    "provider": {"type": "str"},
    "name": {"type": "str"},
    "rule": {"type": "str"},
    "rule_host": {"type": "str"},
    "rule_path": {"type": "str"},
}
ROUTE_OPTIONS: dict[str, dict[str, Any]] = {**_WHICH, "routes": {"type": "list", "elements": "dict", "options": _WHICH}}
"""Options of every step that moves routes: one route, or several that move together. The step says what ``provider`` is without."""


@dataclass(frozen=True)
class Route:
    """One route: its object, the provider that understands it, and the sides and rules that are meant."""

    ref: Ref
    provider: str
    router: ModuleType
    sides: Sides

    @classmethod
    def listed(cls, options: Mapping[str, Any], stable: str, canary: str, labels: Mapping[str, str] | None = None) -> list[Route]:
        """Return the routes that a step's options name; what an entry of ``routes`` leaves out is as beside it."""
        Sides(stable, canary).check()
        entries = options.get("routes") or [{}]
        found: list[Route] = []
        for number, entry in enumerate(entries):
            chosen = {key: entry.get(key) if entry.get(key) is not None else options.get(key) for key in _WHICH}
            if not chosen["name"]:
                where = f"routes[{number}] has no name and name is not set" if options.get("routes") else "name is not set"
                raise InvalidRequest(f"{where}; name the route")
            provider = router(chosen["provider"])
            sides = Sides(stable, canary, chosen["rule"], chosen["rule_host"], chosen["rule_path"], labels or {})
            found.append(cls(Ref(provider.KIND, options["namespace"], chosen["name"]), chosen["provider"], provider, sides))
        return found

    def read(self, cluster: Cluster) -> Documents:
        """Return the route's objects; raise NotFound where its own is not there, or its kind."""
        main = _required(cluster, self)
        documents: dict[Ref, Manifest | None] = {self.ref: main}
        for need in self.router.needs(self.ref, main, self.sides):
            if isinstance(need, Ref):
                documents[need] = _optional(cluster, need)
            else:
                listed = _listed(cluster, need)
                documents.update({Ref(need.kind, need.namespace, metadata(entry)["name"]): entry for entry in listed})
        return documents

    def rules(self, documents: Documents) -> list[Rule]:
        """Return the rules of the route, with the numbers by which they are named."""
        return numbered(self.router.known(self.ref, documents, self.sides))

    def chosen(self, documents: Documents) -> list[Rule]:
        """Return the rules of the route that are meant, however many sides they have."""
        return choose(self.ref, self.rules(documents), self.sides, two=False)

    def check_controller(self, cluster: Cluster, documents: Documents, *features: str) -> None:
        """Raise InvalidRequest where the controller that serves the route will not honour a feature; what cannot be read is allowed."""
        check_controller(cluster, self.provider, self.ref, main_of(self.ref, documents), *features)


def check_controller(cluster: Cluster, provider: str, ref: Ref, manifest: Manifest, *features: str) -> None:
    """Raise InvalidRequest where the controller that serves a route will not honour a feature; what cannot be read is allowed."""
    found = _found(cluster, provider, ref, manifest, features)
    refusal = controllers.refusal(provider, ref, manifest, features, found)
    if refusal:
        raise InvalidRequest(refusal, reason="NotSupported")


def served_by(cluster: Cluster, provider: str, ref: Ref, manifest: Manifest) -> Served:
    """Return who serves a route, with all that can be known of it."""
    return controllers.served(provider, ref, manifest, _found(cluster, provider, ref, manifest, (controllers.INFO,)))


def _found(cluster: Cluster, provider: str, ref: Ref, manifest: Manifest, features: Sequence[str]) -> Found:
    """Return the answers to what a provider asks about the controller, one after the other."""
    found = Found()
    asked: set[Ref | Query] = set()
    while needs := [need for need in controllers.asks(provider, ref, manifest, features, found) if need not in asked]:
        for need in dict.fromkeys(needs):
            asked.add(need)
            try:
                found = _with(found, cluster, need)
            except Forbidden:
                continue
    return found


def _with(found: Found, cluster: Cluster, need: Ref | Query) -> Found:
    """Return what was found, and the answer to one more question; raise Forbidden where it may not be read."""
    if isinstance(need, Ref):
        return Found({**found.objects, need: _optional(cluster, need)}, found.lists)
    return Found(found.objects, {**found.lists, need: _listed(cluster, need)})


def _required(cluster: Cluster, route: Route) -> Manifest:
    """Return the route's own object, or raise NotFound with those that there are."""
    ref = route.ref
    try:
        manifest = cluster.get(ref)
    except NotFound as error:
        if "there is no namespace" in error.message:
            raise
        try:
            names = sorted(metadata(entry)["name"] for entry in cluster.list(Query(ref.kind, ref.namespace)).items)
        except NotFound:
            raise NotFound(
                f"the cluster has no kind {ref.kind} ({KINDS[ref.kind].group_version}), which provider {route.provider} needs;"
                " install it, or choose another provider",
                reason="NoSuchKind",
            ) from None
        there = ", ".join(names[:10]) or "none"
        raise NotFound(f"{ref} does not exist; {ref.kind}s in namespace {ref.namespace}: {there}") from None
    manifest.setdefault("kind", ref.kind)
    return manifest


def _optional(cluster: Cluster, ref: Ref) -> Manifest | None:
    """Return an object, or None where it is not there."""
    try:
        return cluster.get(ref)
    except NotFound:
        return None


def _listed(cluster: Cluster, query: Query) -> Sequence[Manifest]:
    """Return the objects of a kind, none where the kind is not served, or not allowed and optional."""
    try:
        return cluster.list(query).items
    except NotFound:
        return []
    except Forbidden:
        if query.optional:
            return []
        raise


@dataclass(frozen=True)
class Write:
    """One write: an object from what it is to what it shall be; None where it is not there."""

    ref: Ref
    before: Manifest | None
    after: Manifest | None

    def send(self, cluster: Cluster, dry_run: bool = False) -> Manifest | None:
        """Make the write, if the object still is what it was; return what the API server made of it."""
        if self.before is None:
            return cluster.create(self.ref, self.after or {}, dry_run=dry_run)
        if self.after is None:
            cluster.delete(self.ref, dry_run=dry_run, resource_version=metadata(self.before).get("resourceVersion"))
            return None
        operations = _annotated(self.before, self.after) + smallest_patch(_plain(self.before), _plain(self.after))
        return cluster.patch(self.ref, [unchanged(self.before), *operations], JSON_PATCH, dry_run=dry_run)

    def undo(self, cluster: Cluster, written: Manifest | None) -> None:
        """Take the write back; raise Conflict where the object is neither what it was nor what was ``written``."""
        now = _optional(cluster, self.ref)
        if _content(now) == _content(self.before):
            return
        if _content(now) != _content(written):
            raise Conflict(f"{self.ref} was changed by somebody else meanwhile")
        back = None
        if self.before is not None:
            back = copy.deepcopy(self.before)
            if now is None:
                back["metadata"] = {key: value for key, value in metadata(back).items() if key not in SERVER_SIDE}
        Write(self.ref, now, back).send(cluster)


def _annotated(before: Manifest, after: Manifest) -> list[dict[str, Any]]:
    """Return the JSON patch for the annotations, which the object may have none of yet."""
    old, new = metadata(before).get("annotations") or {}, metadata(after).get("annotations") or {}
    return annotation_operations(before, {**dict.fromkeys(old.keys() - new.keys()), **new})


def _plain(manifest: Manifest) -> Manifest:
    """Return a manifest without what the API server writes in it, and without annotations."""
    meta = {key: value for key, value in metadata(manifest).items() if key not in (*SERVER_SIDE, "annotations")}
    return {**{key: value for key, value in manifest.items() if key != "status"}, "metadata": meta}


def _content(manifest: Manifest | None) -> Any:
    """Return what of an object somebody has asked for."""
    return None if manifest is None else (_plain(manifest), metadata(manifest).get("annotations") or {})


@dataclass
class Moved:
    """What moving routes did: their objects before and after, the writes, and when the API server had accepted the last."""

    before: list[Documents]
    after: list[Documents]
    writes: list[Write] = field(default_factory=list)
    accepted: float = 0.0

    @property
    def changed(self) -> bool:
        """Return whether anything was written, or would be."""
        return bool(self.writes)


def move(
    cluster: Cluster,
    routes: Sequence[Route],
    change: Callable[[Route, Documents], Documents],
    check: bool,
    before_writing: Callable[[list[Documents], list[Documents]], None] = lambda _before, _after: None,
    whole: str = "",
) -> Moved:
    """Read the routes, let ``change`` say what each shall be like, and write the difference: all of it or nothing.

    ``change`` and ``before_writing`` raise InvalidRequest for what cannot be; nothing was written then. So does, where ``whole``
    says the way out, a field that the API server would drop because its version of the kind does not know it. On the conflict
    with another writer everything is taken back, read and decided again.
    """
    for _attempt in range(MOST_PLANS):
        before, after = _changed(routes, [route.read(cluster) for route in routes], change)
        writes = _ordered(routes, before, after)
        if not writes:
            return Moved(before, after)
        before_writing(before, after)
        try:
            if check or whole or len(writes) > 1:
                for write in writes:
                    _check_whole(write, write.send(cluster, dry_run=True), whole)
            if not check:
                _send_all(cluster, writes, {route.ref for route in routes})
            return Moved(before, after, writes, time.monotonic())
        except Conflict:
            continue
    names = ", ".join(str(route.ref) for route in routes)
    raise Conflict(f"{names}: changed by others {MOST_PLANS} times while this step tried to; see who else writes to it")


def _changed(
    routes: Sequence[Route], seen: Sequence[Documents], change: Callable[[Route, Documents], Documents]
) -> tuple[list[Documents], list[Documents]]:
    """Return the objects of each route before and after. Where several are of one object, each changes what the one before left."""
    known: dict[Ref, Manifest | None] = {}
    for documents in reversed(seen):
        known.update(documents)
    now = dict(known)
    keys: list[list[Ref]] = []
    for route, documents in zip(routes, seen, strict=True):
        made = change(route, {ref: now[ref] for ref in documents})
        now.update(made)
        keys.append(list(dict.fromkeys((*documents, *made))))
    before = [{ref: known.get(ref) for ref in refs} for refs in keys]
    return before, [{ref: now.get(ref) for ref in refs} for refs in keys]


def _ordered(routes: Sequence[Route], before: Sequence[Documents], after: Sequence[Documents]) -> list[Write]:
    """Return the writes: what is new, then what changes, then what goes. Two routes may share an object.

    Of what changes, that to which a route is about to lead gets what it needs before the route, and loses it after.
    """
    found: dict[Ref, Write] = {}
    for old, new in zip(before, after, strict=True):
        for ref in [*old, *(key for key in new if key not in old)]:
            if _content(old.get(ref)) != _content(new.get(ref)):
                found.setdefault(ref, Write(ref, old.get(ref), new.get(ref)))
    own = {route.ref for route in routes}

    def turn(write: Write) -> tuple[bool, bool, int]:
        beside = 0 if write.ref in own else -1 if len(str(write.after)) >= len(str(write.before)) else 1
        return write.after is None, write.before is not None, beside

    return sorted(found.values(), key=turn)


def _check_whole(write: Write, made: Manifest | None, way_out: str) -> None:
    """Raise InvalidRequest where a dry run came back without a field that was in it."""
    if not way_out or write.after is None or made is None:
        return
    lost = dropped(_plain(write.after).get("spec"), _plain(made).get("spec"), "spec")
    if lost:
        raise InvalidRequest(
            f"{write.ref} cannot have {lost[0]}: this cluster's version of {write.ref.kind}"
            f" ({KINDS[write.ref.kind].group_version}) does not know it; {way_out}",
            reason="NoSuchField",
        )


def _send_all(cluster: Cluster, writes: Sequence[Write], own: Set[Ref]) -> None:
    """Make the writes; where one fails, take those before it back and say so. ``own`` are the routes themselves."""
    written: list[tuple[Write, Manifest | None]] = []
    for number, write in enumerate(writes):
        last = writes[number - 1].ref if number else write.ref
        if last.kind != write.ref.kind and (last in own) != (write.ref in own):
            time.sleep(SETTLE)
        try:
            written.append((write, write.send(cluster)))
        except DeliveryError as error:
            if (
                isinstance(error, Conflict)
                and error.details.get("unsure")
                and _content(_optional(cluster, write.ref)) == _content(write.after)
            ):
                # The answer to our own write was lost, and the second one met what it had done.
                written.append((write, write.after))
                continue
            # The answer may have been lost, and the write done: it is looked at too.
            stuck = _take_back(cluster, [*written, (write, write.after)])
            if isinstance(error, Conflict) and not stuck:
                raise
            said = f"; taken back: {', '.join(str(done.ref) for done, _object in written)}" if written and not stuck else ""
            said += f"; NOT taken back: {'; '.join(stuck)}" if stuck else ""
            raise type(error)(f"{error.message}{said}", error.reason, **{**error.details, "changed": bool(stuck)}) from None


def _take_back(cluster: Cluster, written: Sequence[tuple[Write, Manifest | None]]) -> list[str]:
    """Take writes back, the last one first; return a sentence for each that could not be."""
    stuck: list[str] = []
    for write, made in reversed(written):
        try:
            write.undo(cluster, made)
        except DeliveryError as error:
            stuck.append(f"{write.ref} ({error.message})")
    return stuck


def check_side(cluster: Cluster, route: Route, documents: Documents, name: str, force: bool = False) -> None:
    """Raise InvalidRequest where a side that shall get requests cannot answer: no Service, or nobody ready behind it."""
    service = Ref("Service", route.ref.namespace, route.router.service_of(route.ref, documents, name))
    manifest = _optional(cluster, service)
    if manifest is None:
        there = ", ".join(sorted(metadata(entry)["name"] for entry in cluster.list(Query("Service", service.namespace)).items)[:10])
        raise InvalidRequest(f"{service} does not exist, so {route.ref} cannot lead to it; make it; Services there: {there or 'none'}")
    fault = route.router.unfit(manifest) if name == route.sides.canary else ""
    if fault:
        raise InvalidRequest(f"{service} cannot get requests of {route.ref}: {fault}; give it a selector and an address of the cluster")
    if force:
        return
    labels = _labels_of(documents, manifest, name)
    if service.name != name and labels:
        # A subset is a part of its Service: that others of it are ready says nothing.
        if not ready_pods(cluster, service.namespace, selector_string(labels)):
            raise InvalidRequest(
                f'subset "{name}" of {service} has no ready pods ({selector_string(labels)}), so {route.ref} stays as it is;'
                " wait for the rollout of its pods, check the labels of the subset, or set force",
                reason="NotReady",
            )
        return
    slices = cluster.list(Query("EndpointSlice", service.namespace, f"{SERVICE_LABEL}={service.name}")).items
    if not ready_addresses(slices):
        raise InvalidRequest(
            f"{service} has no ready endpoints, so {route.ref} stays as it is; wait for the rollout of its pods, check that its"
            " selector is that of their labels, or set force",
            reason="NotReady",
        )


def let_know_of_side(cluster: Cluster, route: Route, documents: Documents, name: str) -> None:
    """Wait until the router surely knows the pods of a side that had no requests, where these have just become ready."""
    service = Ref("Service", route.ref.namespace, route.router.service_of(route.ref, documents, name))
    labels = _labels_of(documents, _optional(cluster, service) or {}, name)
    if labels:
        let_router_know(ready_pods(cluster, service.namespace, selector_string(labels)), name)


def _labels_of(documents: Documents, service: Manifest, name: str) -> Mapping[str, str]:
    """Return the labels of the pods of a side: those of its Service, and where it is a subset of that its own too."""
    if not service:
        return {}
    rules = [entry for ref, entry in documents.items() if ref.kind == "DestinationRule" and entry is not None]
    targets = targets_of([{"kind": "Service", **service}, *({"kind": "DestinationRule", **rule} for rule in rules)])
    own = metadata(service)["name"]
    found = targets.get(f"{own}/{name}") or targets.get(own)
    return found.selector if found else {}
