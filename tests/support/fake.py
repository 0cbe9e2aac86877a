# SPDX-License-Identifier: GPL-3.0-or-later
"""An in-memory API server: the Protocol ``Cluster`` with versions, preconditions, dry runs and watches.

It stores objects and answers as the API server does; no controller runs in it. tests/contract runs the same suite
against this and against a real cluster.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, Gone, InvalidRequest, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    JSON_PATCH,
    KINDS,
    STRATEGIC_PATCH,
    Answer,
    Listing,
    Manifest,
    Query,
    Ran,
    Ref,
)

MERGED_BY_NAME = ("containers", "initContainers", "env", "ports", "volumes")
# What every API server serves: its own groups without a domain, and these.
OWN_DOMAINS = ("coordination.k8s.io", "discovery.k8s.io", "networking.k8s.io")


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
        self.log_lines: list[str] = []
        self.definitions: set[str] = set()
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
        if not _is_own(ref.kind):
            self.definitions.add(ref.kind)
        with self._changed:
            known = ref in self._objects
            stored = copy.deepcopy(manifest)
            meta = stored.setdefault("metadata", {})
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
        with self._changed:
            if ref not in self._objects:
                raise NotFound(f"{ref} does not exist; check the name and the namespace")
            return copy.deepcopy(self._objects[ref])

    def list(self, query: Query) -> Listing:
        """Return the objects that the query selects; raise NotFound where the kind is not served."""
        if not (_is_own(query.kind) or query.kind in self.definitions):
            raise NotFound(f"{KINDS[query.kind].plural} in namespace {query.namespace}: 404 page not found")
        with self._changed:
            found = [
                copy.deepcopy(item) for ref, item in sorted(self._objects.items(), key=lambda pair: pair[0].name) if _selects(query, item)
            ]
            return Listing(found, str(self._version))

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

    def patch(self, ref: Ref, body: Any, patch_type: str, dry_run: bool = False) -> Manifest:
        """Patch the object; raise Conflict where a precondition does not hold."""
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
            wanted["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
            if dry_run or wanted == current:
                return wanted
            self.writes.append(("patch", ref))
            if wanted.get("spec") != current.get("spec") and "generation" in wanted["metadata"]:
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
            return self.put({**manifest, "kind": ref.kind})

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

    def _store(self, ref: Ref, manifest: Manifest, event: str) -> Manifest:
        """Store an object with the next version, and tell the watches."""
        self._version += 1
        manifest["metadata"]["resourceVersion"] = str(self._version)
        self._objects[ref] = manifest
        self._events.append((self._version, event, copy.deepcopy(manifest)))
        self._changed.notify_all()
        return copy.deepcopy(manifest)


def _is_own(kind: str) -> bool:
    """Return whether a kind is Kubernetes' own."""
    group, slash, _version = KINDS[kind].group_version.partition("/")
    return not slash or "." not in group or group in OWN_DOMAINS


def _ref(manifest: Manifest) -> Ref:
    """Return what names an object."""
    return Ref(manifest["kind"], manifest["metadata"].get("namespace") or "shop", manifest["metadata"]["name"])


def _selects(query: Query, manifest: Manifest) -> bool:
    """Return whether a query selects the object; equality terms are all that the fake knows."""
    meta = manifest["metadata"]
    if manifest["kind"] != query.kind or (query.namespace and meta.get("namespace") != query.namespace):
        return False
    present = meta.get("labels") or {}
    for term in filter(None, query.labels.split(",")):
        key, _equals, value = term.partition("=")
        if present.get(key) != value:
            return False
    for term in filter(None, query.fields.split(",")):
        key, _equals, value = term.partition("=")
        found: Any = manifest
        for part in key.split("."):
            found = (found or {}).get(part)
        if found != value:
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
        else:
            parent[key] = operation["value"]
    return document
