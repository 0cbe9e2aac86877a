# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of an object is there, or is gone: what the steps clone_service and clone_workload have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .errors import Conflict, InvalidRequest, NotFound
from .model import Cluster, Manifest, Ref, Result, metadata
from .plan.copies import check_copied

MOST_TRIES = 8


def copy_refs(kind: str, options: Mapping[str, Any]) -> tuple[Ref, Ref]:
    """Return the copy and its source; raise InvalidRequest where they are one."""
    ref, source = (Ref(kind, options["namespace"], options[name]) for name in ("name", "source"))
    if ref == source:
        raise InvalidRequest(f"{ref} cannot be a copy of itself; source and name must differ")
    return ref, source


def wanted_labels(ref: Ref, given: Mapping[Any, Any] | None) -> dict[str, str]:
    """Return the labels of a copy as text; raise InvalidRequest for none, and for one without a value."""
    if not given:
        raise InvalidRequest(f"{ref} needs labels that tell its pods from those of its source")
    for key, value in given.items():
        if value is None or isinstance(value, (dict, list)) or str(value) == "":
            raise InvalidRequest(f'labels of {ref}: "{key}" has no value that a label can have, got {value!r}')
    return {str(key): str(value) for key, value in given.items()}


def make_copy(
    cluster: Cluster,
    ref: Ref,
    source: Ref,
    twin: Callable[[], Manifest],
    check_there: Callable[[Manifest], None],
    described: Callable[[Manifest], Mapping[str, Any]],
    check: bool,
) -> Result:
    """Create the object where there is none of its name.

    ``check_there`` raises InvalidRequest for one that is there and is another than the one wanted; ``described`` tells
    the new one in words.
    """
    exists = {"exists": True}
    try:
        check_there(cluster.get(ref))
        return Result(before=exists, after=exists)
    except NotFound:
        pass
    made = twin()
    try:
        cluster.create(ref, made, dry_run=check)
    except Conflict as error:
        check_there(cluster.get(ref))
        # Where the answer to our own request was lost, the second one finds it done, and by us.
        if not error.details.get("unsure"):
            return Result(before=exists, after=exists)
    return Result(True, {"exists": False}, {"exists": True, **described(made)}, (f"made {ref} from {source}",))


def remove_copy(cluster: Cluster, ref: Ref, source: Ref, check: bool) -> Result:
    """Delete the object where it was made as a copy of the source; raise InvalidRequest where it was not.

    The pods of a Deployment go with it: the API server's default for apps/v1 is to delete what it owns in the background.
    """
    gone = {"exists": False}
    for _try in range(MOST_TRIES):
        try:
            there = cluster.get(ref)
        except NotFound as error:
            if "there is no namespace" in error.message:
                raise
            return Result(before=gone, after=gone)
        check_copied(ref, there, source)
        if metadata(there).get("deletionTimestamp"):
            return Result(before=gone, after=gone)
        try:
            cluster.delete(ref, dry_run=check, resource_version=metadata(there).get("resourceVersion"))
        except NotFound:
            pass
        except Conflict:
            # A controller has written its status meanwhile.
            continue
        return Result(True, {"exists": True}, gone, (f"deleted {ref}, the copy of {source}",))
    raise Conflict(f"{ref}: changed by others {MOST_TRIES} times while this step tried to delete it; see who else writes to it")
