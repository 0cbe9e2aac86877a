# SPDX-License-Identifier: GPL-3.0-or-later
"""Kinds that a cluster has or has not: made for a test and taken away after it, or waited for to be gone.

A kind is the whole cluster's. Tests that make one, and tests that need it not to be there, stand in one xdist group.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query

from .live import Shop

ROOT = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# On the definitions of the tests: what a test that was killed has left is told from what is really there.
OURS = "progressive.delivery/made-by-a-test"
# To delete a kind takes the API server 5 s and more, and much more on a machine that is busy.
PATIENCE = 90.0


def until(reached: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Return when it is reached; the time counts from the call."""
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(0.2)


def is_served(shop: Shop, kind: str) -> bool:
    """Return whether the API server knows the kind."""
    try:
        shop.cluster.list(Query(kind, shop.namespace))
    except NotFound:
        return False
    return True


@contextlib.contextmanager
def there(shop: Shop, kind: str, manifest: dict[str, Any]) -> Iterator[None]:
    """Have the kind on the cluster; one that was made here goes again, unless somebody has come to use it meanwhile."""
    meta = {**manifest["metadata"], "labels": {OURS: "true"}}
    path = f"{ROOT}/{meta['name']}"

    def stands() -> bool:
        """Return whether there is a definition that is not on its way out, if need be a new one."""
        try:
            shop.cluster._json("POST", ROOT, {}, {**manifest, "metadata": meta})
        except Conflict:
            with contextlib.suppress(NotFound):
                return "deletionTimestamp" not in shop.cluster._json("GET", path)["metadata"]
            return False
        return True

    until(stands, f"{kind} is defined")
    until(lambda: is_served(shop, kind), f"{kind} is served")
    before = shop.cluster._json("GET", path)["metadata"]
    yield
    now = shop.cluster._json("GET", path)["metadata"]
    if OURS not in now.get("labels", {}) or any(now.get(key) != before.get(key) for key in ("generation", "annotations")):
        return
    if any(entry["metadata"]["namespace"] != shop.namespace for entry in shop.cluster.list(Query(kind, "")).items):
        return
    _delete(shop, kind, now)


def absent(shop: Shop, kind: str, name: str) -> None:
    """Return when the cluster has no such kind; skip the test where it really has it."""
    try:
        meta = shop.cluster._json("GET", f"{ROOT}/{name}")["metadata"]
    except NotFound:
        meta = {}
    if meta and OURS not in meta.get("labels", {}):
        pytest.skip(f"this cluster has the kind {kind}; the test is about those that have not")
    if meta and "deletionTimestamp" not in meta:
        _delete(shop, kind, meta)
    until(lambda: not is_served(shop, kind), f"{kind} is gone")


def _delete(shop: Shop, kind: str, meta: dict[str, Any]) -> None:
    """Delete a definition as it was seen, and wait until the kind is gone."""
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"resourceVersion": meta["resourceVersion"]}}
    shop.cluster._json("DELETE", f"{ROOT}/{meta['name']}", {}, body)
    until(lambda: not is_served(shop, kind), f"{kind} is gone")
