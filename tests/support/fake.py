# SPDX-License-Identifier: GPL-3.0-or-later
"""An in-memory API server: the Protocol ``Cluster`` with versions, preconditions, dry runs and watches.

It stores objects and answers as the API server does; no controller runs in it. tests/contract runs the same suite
against this and against a real cluster.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import (
    Conflict,
    Forbidden,
    Gone,
    InvalidRequest,
    NotFound,
)
from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    JSON_PATCH,
    KINDS,
    STRATEGIC_PATCH,
    WORKLOAD_KINDS,
    Answer,
    Listing,
    Manifest,
    Query,
    Ran,
    Ref,
)

MERGED_BY_NAME = ("containers", "initContainers", "env", "ports", "volumes")
# What every API server serves: its own groups without a domain, and these.


class FakeCluster:
    """A cluster in memory; ``writes`` records what was written, ``before_patch`` is a hook for races.

    ``definitions`` are the kinds beyond Kubernetes' own for which there is a CustomResourceDefinition; others are not found.
    """

    def __init__(self, *objects: Manifest, namespace: str = "shop") -> None:
        self.default_namespace = namespace
        self.context: str | None = "fake"
        self.writes: list[tuple[str, Ref]] = []
        self.before_patch: Any = None
        self.runs: list[Ran] = []
        self.commands: list[list[str]] = []
        self.answers: list[Answer | Exception] = []
        self.posts: list[tuple[Ref, str, Any]] = []
        self.log_lines: list[str] = []
        # The feature gate MaxUnavailableStatefulSet, off as it is by default.
        self.max_unavailable_of_stateful_sets = False
        # What is served beside the core; the kinds that may not be read; those that a group is served without.
        self.groups = ["apps", "autoscaling", "coordination.k8s.io", "discovery.k8s.io", "networking.k8s.io", "policy"]
        self.forbidden: set[str] = set()
        self.unserved: set[str] = set()
        self._version = 1
        self._objects: dict[Ref, Manifest] = {}
        self._events: list[tuple[int, str, Manifest]] = []
        self._oldest = 0
        self._changed = threading.Condition()
        for manifest in objects:
            self.put(manifest)

    # -- for tests ----------------------------------------------------------------------------------------------

    def put(self, manifest: Manifest) -> Manifest:
        """Store an object as some other client would."""
        ref = _ref(manifest)
        with self._changed:
            known = ref in self._objects
            # As it comes over the wire: a copy would keep it that two fields are one object.
            stored = json.loads(json.dumps(manifest))
            meta = stored.setdefault("metadata", {})
            if ref.namespace:
                meta.setdefault("namespace", ref.namespace)
            meta["uid"] = self._objects[ref]["metadata"]["uid"] if known else meta.get("uid") or str(uuid.uuid4())
            return self._store(ref, stored, "MODIFIED" if known else "ADDED")

    def drop(self, ref: Ref) -> None:
        """Delete an object as some other client would."""
        with self._changed:
            gone = self._objects.pop(ref)
            self._version += 1
            gone["metadata"]["resourceVersion"] = str(self._version)
            self._events.append((self._version, "DELETED", copy.deepcopy(gone)))
            self._changed.notify_all()

    def forget_events(self) -> None:
        """Make every watch from before now too old, as compaction does."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
            self._events.clear()

    # -- the Protocol -------------------------------------------------------------------------------------------

    def get(self, ref: Ref) -> Manifest:
        """Return the object, or raise NotFound."""
        self._check_readable(ref.kind, f"get {ref}")
        with self._changed:
            if ref not in self._objects:
                raise NotFound(f"{ref} does not exist; check the name and the namespace")
            return copy.deepcopy(self._objects[ref])

    def list(self, query: Query) -> Listing:
        """Return the objects that the query selects; raise NotFound where the kind is not served."""
        self._check_readable(query.kind, f"list {KINDS[query.kind].plural}", f" in namespace {query.namespace}")
        with self._changed:
            found = [
                copy.deepcopy(item) for ref, item in sorted(self._objects.items(), key=lambda pair: pair[0].name) if _selects(query, item)
            ]
            return Listing(found, str(self._version))

    def api_groups(self) -> list[str]:
        """Return the groups that the test has put there."""
        return sorted(self.groups)

    def watch(self, query: Query, resource_version: str, timeout: float) -> Iterator[tuple[str, Manifest]]:
        """Yield events from a version on; raise Gone where that is forgotten."""
        seen, deadline = int(resource_version), time.monotonic() + timeout
        while True:
            with self._changed:
                if seen < self._oldest:
                    raise Gone("too old resource version")
                found = [event for event in self._events if event[0] > seen and _selects(query, event[2])]
                if not found:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return
                    self._changed.wait(min(left, 0.5))
                    continue
            for version, kind, manifest in found:
                seen = version
                yield kind, copy.deepcopy(manifest)

    def close(self) -> None:
        """Give back nothing."""

    def patch(self, ref: Ref, body: Any, patch_type: str, dry_run: bool = False, subresource: str = "") -> Manifest:
        """Patch the object, or a subresource of it; raise Conflict where a precondition does not hold."""
        if self.before_patch:
            hook, self.before_patch = self.before_patch, None
            hook()
        with self._changed:
            current = self.get(ref)
            if patch_type == JSON_PATCH:
                wanted = _json_patch(copy.deepcopy(current), body)
            else:
                asked = (body.get("metadata") or {}).get("resourceVersion")
                if asked and asked != current["metadata"]["resourceVersion"]:
                    raise Conflict(f"Cannot patch {ref}: the object has been modified")
                wanted = _merge(copy.deepcopy(current), body, patch_type == STRATEGIC_PATCH)
            if ref.kind == "StatefulSet" and not self.max_unavailable_of_stateful_sets and _max_unavailable(current) is None:
                (wanted["spec"].get("updateStrategy") or {}).get("rollingUpdate", {}).pop("maxUnavailable", None)
            wanted["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
            if dry_run or wanted == current:
                return wanted
            self.writes.append(("patch", ref))
            if "generation" in wanted["metadata"] and _is_new_generation(ref.kind, current, wanted):
                wanted["metadata"]["generation"] += 1
            return self._store(ref, wanted, "MODIFIED")

    def create(self, ref: Ref, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """Create the object; raise Conflict where it exists."""
        with self._changed:
            if ref in self._objects:
                raise Conflict(f"Cannot create {ref}: it already exists")
            if dry_run:
                return copy.deepcopy(manifest)
            self.writes.append(("create", ref))
            made = copy.deepcopy({**manifest, "kind": ref.kind})
            if ref.kind in WORKLOAD_KINDS:
                made["metadata"]["generation"] = 1
            return self.put(made)

    def delete(self, ref: Ref, dry_run: bool = False, resource_version: str | None = None) -> None:
        """Delete the object; raise NotFound or Conflict."""
        with self._changed:
            current = self.get(ref)
            if resource_version and resource_version != current["metadata"]["resourceVersion"]:
                raise Conflict(f"Cannot delete {ref}: the object has been modified")
            if not dry_run:
                self.writes.append(("delete", ref))
                self.drop(ref)

    def logs(self, ref: Ref, container: str, lines: int = 10, previous: bool = False) -> list[str]:
        """Return the lines that the test has put there."""
        return self.log_lines[-lines:]

    def exec(self, ref: Ref, container: str, command: Any, timeout: float) -> Ran:
        """Return the next result that the test has put there."""
        self.commands.append(list(command))
        return self.runs.pop(0)

    def proxy_get(self, ref: Ref, port: str, path: str, headers: Any, timeout: float) -> Answer:
        """Return the next answer that the test has put there."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def proxy_post(self, ref: Ref, port: str, path: str, body: Any, timeout: float) -> Answer:
        """Note what was sent, and return the next answer that the test has put there."""
        self.posts.append((ref, path, body))
        return self.proxy_get(ref, port, path, {}, timeout)

    def _check_readable(self, kind: str, attempt: str, where: str = "") -> None:
        """Raise Forbidden or NotFound where the kind may not be read, or is not served."""
        if kind in self.forbidden:
            raise Forbidden(f"Not allowed to {attempt}")
        group, slash, _version = KINDS[kind].group_version.partition("/")
        if (slash and group not in self.groups) or kind in self.unserved:
            raise NotFound(f"{KINDS[kind].plural}{where}: the server could not find the requested resource")

    def _store(self, ref: Ref, manifest: Manifest, event: str) -> Manifest:
        """Store an object with the next version, and tell the watches."""
        self._version += 1
        manifest["metadata"]["resourceVersion"] = str(self._version)
        self._objects[ref] = manifest
        self._events.append((self._version, event, copy.deepcopy(manifest)))
        self._changed.notify_all()
        return copy.deepcopy(manifest)


def _ref(manifest: Manifest) -> Ref:
    """Return what names an object."""
    namespace = (manifest["metadata"].get("namespace") or "shop") if KINDS[manifest["kind"]].namespaced else ""
    return Ref(manifest["kind"], namespace, manifest["metadata"]["name"])


def _max_unavailable(stateful_set: Manifest) -> Any:
    """Return how many pods of a StatefulSet may be missing, or None where that is not there."""
    strategy = (stateful_set.get("spec") or {}).get("updateStrategy") or {}
    return (strategy.get("rollingUpdate") or {}).get("maxUnavailable")


def _is_new_generation(kind: str, old: Manifest, new: Manifest) -> bool:
    """Return whether a write counts as a new generation: for a Deployment, whose ReplicaSet gets its annotations, they count too."""
    noted = kind == "Deployment" and (old["metadata"].get("annotations") or {}) != (new["metadata"].get("annotations") or {})
    return noted or new.get("spec") != old.get("spec")


def _selects(query: Query, manifest: Manifest) -> bool:
    """Return whether a query selects the object; equality and ``in`` are all that the fake knows."""
    meta = manifest["metadata"]
    if manifest["kind"] != query.kind or (query.namespace and meta.get("namespace") != query.namespace):
        return False
    present = meta.get("labels") or {}
    for term in filter(None, re.split(r",(?![^(]*\))", query.labels)):
        key, _in, values = term.partition(" in ")
        key, _equals, value = (key, "", "") if values else term.partition("=")
        if present.get(key) not in (values.strip("()").split(",") if values else [value]):
            return False
    for term in filter(None, query.fields.split(",")):
        key, _equals, value = term.partition("=")
        found: Any = manifest
        for part in key.rstrip("!").split("."):
            found = (found or {}).get(part)
        if (found == value) is key.endswith("!"):
            return False
    return True


def _merge(current: Any, patch: Any, strategic: bool) -> Any:
    """Apply a merge patch (RFC 7386); a strategic one merges the lists that have a merge key by name."""
    if not isinstance(patch, dict):
        return patch
    result = current if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif strategic and key in MERGED_BY_NAME and isinstance(value, list):
            entries = {entry["name"]: entry for entry in result.get(key) or []}
            for entry in value:
                entries[entry["name"]] = _merge(entries.get(entry["name"], {}), entry, True)
            result[key] = list(entries.values())
        else:
            result[key] = _merge(result.get(key), value, strategic)
    return result


def _json_patch(document: Any, operations: Any) -> Any:
    """Apply a JSON patch (RFC 6902), as far as steps use it."""
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        parent = document
        for part in parts[:-1]:
            try:
                parent = parent[int(part)] if isinstance(parent, list) else parent[part]
            except (KeyError, IndexError):
                raise InvalidRequest(f"the path {operation['path']} does not exist") from None
        key: Any = int(parts[-1]) if isinstance(parent, list) else parts[-1]
        if operation["op"] == "test":
            if (parent.get(key) if isinstance(parent, dict) else parent[key]) != operation["value"]:
                raise Conflict(f"testing {operation['path']} failed")
        elif operation["op"] == "remove":
            del parent[key]
        elif operation["op"] == "add" and isinstance(parent, list):
            parent.insert(key, operation["value"])
        else:
            parent[key] = operation["value"]
    return document
