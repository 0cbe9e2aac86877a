# SPDX-License-Identifier: GPL-3.0-or-later
"""A canary without a router: two Deployments behind one Service, under continuous traffic."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query
from support.live import WEB, Shop

pytestmark = pytest.mark.cluster
MANIFEST = WEB.with_name("canary.yml")


def canary(shop: Shop, *arguments: str, fails: bool = False, **more: Any) -> str:
    """Run the playbook, and return what it printed."""
    given = {
        "kubeconfig": shop.kubeconfig,
        "namespace": shop.namespace,
        "stable": "web",
        "provider": "replicas",
        "image": "localhost:32000/podinfo:2.0.0",
        "steps": [25, 100],
        "pause": 1,
        "settle": 1,
        "drain": 1,
        "timeout": 90,
        "smoke_tests": [{"path": "/healthz"}],
        **more,
    }
    done = shop.playbook("progressive.delivery.canary", {f"canary_{key}": value for key, value in given.items()}, *arguments)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout


def own(shop: Shop) -> dict[str, Any]:
    """Return what a canary may change and must leave as it was."""
    names = {
        kind: sorted(
            entry["metadata"]["name"]
            for entry in shop.cluster.list(Query(kind, shop.namespace)).items
            if not entry["metadata"].get("deletionTimestamp")
        )
        for kind in ("Deployment", "Service")
    }
    web, service = shop.get("Deployment", "web"), shop.get("Service", "web")
    notes = [key for entry in (web, service) for key in entry["metadata"].get("annotations") or {} if "/canary" in key]
    return {**names, "replicas": web["spec"]["replicas"], "selector": service["spec"]["selector"], "notes": notes}


def image(shop: Shop) -> str:
    """Return the tag of the image that stable runs."""
    return shop.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]


def replicas(shop: Shop) -> tuple[int, int]:
    """Return the pods of both sides."""
    return tuple(shop.get("Deployment", name)["spec"]["replicas"] for name in ("web", "web-canary"))  # type: ignore[return-value]


def test_a_canary_by_pods_is_aborted_and_then_released_without_a_lost_request(empty: Shop) -> None:
    empty.apply(MANIFEST)
    before = own(empty)
    assert before["notes"] == [] and before["replicas"] == 4
    with empty.traffic() as traffic:
        assert "waits for an approval" in canary(empty, approval=True)
        assert replicas(empty) == (3, 1) and image(empty) == "1.0.0"
        canary(empty, state="aborted")
        assert own(empty) == before and image(empty) == "1.0.0"
        canary(empty)
    assert traffic.seen["failed"] == 0, traffic.seen
    assert own(empty) == before and image(empty) == "2.0.0"
    assert re.findall(r"changed=(\d+)", canary(empty)) == ["0"]


def test_a_canary_by_pods_needs_a_label_that_the_service_does_not_select_by(empty: Shop) -> None:
    empty.apply(WEB)
    assert "with one label more, such as track: stable" in canary(empty, fails=True)
    assert own(empty)["Deployment"] == ["web"]
