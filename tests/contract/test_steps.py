# SPDX-License-Identifier: GPL-3.0-or-later
"""Each step that writes, on the real cluster and on the fake with the same objects in it: they say the same."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec, perform
from ansible_collections.progressive.delivery.plugins.modules import (
    clone_service,
    clone_workload,
    mark_released,
    pause_rollout,
    release_lock,
    scale,
    set_audience,
    set_canary_weight,
    set_image,
    set_strategy,
    switch_color,
    undo_rollout,
    wait_rollout,
)
from support.fake import FakeCluster
from support.live import Shop

pytestmark = pytest.mark.cluster
SAID = ("changed", "before", "after", "actions", "msg", "reason", "color", "previous_color", "from_revision", "to_revision", "images")
AUDIENCE = {"provider": "ingress_nginx", "name": "web", "stable": "web", "variant": "web-canary"}
SPLIT = {"provider": "ingress_nginx", "name": "web", "stable": "web", "canary": "web-canary"}
STEPS: list[tuple[Any, dict[str, Any]]] = [
    (release_lock, {"name": "web", "holder": "contract"}),
    (clone_workload, {"name": "web-green", "source": "web-blue", "labels": {"version": "green"}}),
    (clone_workload, {"name": "web-red", "source": "web-blue", "beside": "web", "suffix": "red"}),
    (clone_workload, {"name": "web-red", "source": "web-blue", "state": "absent"}),
    (clone_workload, {"name": "web-blue", "source": "web-green", "state": "absent"}),
    (clone_service, {"name": "web-green", "source": "web", "labels": {"version": "green"}}),
    (clone_service, {"name": "web-green", "source": "web", "state": "absent"}),
    (set_image, {"name": "web-blue", "images": {"app": "localhost:32000/podinfo:2.0.0"}}),
    (scale, {"name": "web-blue", "replicas": 3}),
    (set_strategy, {"name": "web-blue", "type": "Recreate"}),
    (set_strategy, {"name": "web-blue", "profile": "balanced", "min_ready_seconds": 1}),
    (mark_released, {"name": "web-blue", "images": ["localhost:32000/podinfo:2.0.0"]}),
    (pause_rollout, {"name": "web-blue"}),
    (undo_rollout, {"name": "web-blue", "resume": True}),
    (switch_color, {"name": "web", "color": "blue", "annotations": {"progressive.delivery/phase": "released"}}),
    (switch_color, {"name": "web", "color": "green"}),
    (switch_color, {"name": "web", "color": "green", "force": True, "wait": False}),
    (set_canary_weight, {**SPLIT, "weight": 20, "annotations": {"progressive.delivery/phase": "running"}}),
    (set_canary_weight, {**SPLIT, "weight": 100}),
    (set_canary_weight, {**SPLIT, "state": "absent"}),
    (set_audience, {**AUDIENCE, "headers": {"X-Beta": "yes"}, "annotations": {"progressive.delivery/phase": "started"}}),
    (set_audience, {**AUDIENCE, "weight": 20}),
    (set_audience, {**AUDIENCE, "state": "absent"}),
    (set_audience, {**AUDIENCE, "query": {"a": "b"}}),
    (set_audience, {**AUDIENCE, "weight": 5, "variant": "nope"}),
    (set_canary_weight, {**SPLIT, "weight": 5, "stable": "nope"}),
    (set_canary_weight, {**SPLIT, "weight": 5, "canary": "nope"}),
    (set_canary_weight, {**SPLIT, "weight": 5, "provider": "gateway_api", "name": "nope"}),
    (scale, {"name": "nope", "replicas": 1}),
    (set_image, {"name": "web-blue", "images": {"nope": "a:1"}}),
    (undo_rollout, {"name": "web-blue", "to_revision": 9}),
]
KINDS = ("Deployment", "Ingress", "Service", "Lease", "HorizontalPodAutoscaler", "ReplicaSet", "Pod", "EndpointSlice")


def copied(shop: Shop) -> FakeCluster:
    """Return a fake with what is in the namespace."""
    fake = FakeCluster(namespace=shop.namespace)
    for kind in KINDS:
        for manifest in shop.cluster.list(Query(kind, shop.namespace)).items:
            fake.put(manifest)
    return fake


def said(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what a step says that does not depend on time."""
    return {key: outcome[key] for key in SAID if key in outcome}


def on_fake(fake: FakeCluster, step: Any, given: dict[str, Any], check: bool) -> dict[str, Any]:
    """Run a step on the fake as its module does."""
    defaults = {key: entry.get("default") for key, entry in argument_spec(step.OPTIONS).items()}
    return perform(step.execute, {**defaults, **given}, check, connector=lambda _options: fake)


def test_the_fake_and_the_real_cluster_answer_a_step_alike(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for step, given in STEPS:
        if not shop.get("Deployment", "web-blue")["spec"].get("paused"):
            assert "failed" not in shop.step(wait_rollout, name="web-blue", timeout=60)
        fake = copied(shop)
        for check in (True, False):
            with monkeypatch.context() as patched:
                # No controller runs in the fake that would number a revision.
                if hasattr(step, "REVISION_TIMEOUT"):
                    patched.setattr(step, "REVISION_TIMEOUT", 0.1)
                pretended = said(on_fake(fake, step, given, check))
            real = said(shop.step(step, check=check, **given))
            assert pretended == real, (step.__name__, given, check)
