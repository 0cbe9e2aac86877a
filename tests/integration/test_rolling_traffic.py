# SPDX-License-Identifier: GPL-3.0-or-later
"""Updates under 200 requests a second, on new connections and on kept ones: none is lost where the pods are made for it.

docs/guides/zero_downtime.md has what was measured with each part left out; what is left out here shows that a loss is seen.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Ref
from ansible_collections.progressive.delivery.plugins.modules import set_image, wait_rollout
from support.live import Shop

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"
LABELS = {"app": "web"}
REPLICAS = 4


def rolling(surge: Any, unavailable: Any) -> dict[str, Any]:
    """Return a strategy."""
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


# {name: (strategy, the fewest pods that may be available)}
STRATEGIES = {
    "conservative": (rolling(1, 0), REPLICAS),
    "balanced": (rolling(1, 1), REPLICAS - 1),
    "fast": (rolling("100%", "50%"), REPLICAS // 2),
}


def started(shop: Shop, strategy: dict[str, Any], readiness: bool = True, pre_stop: int = 3, start: int = 0) -> None:
    """Make podinfo with these parts, and a Service; at the level debug it ends at once on SIGTERM and adds no delay of its own."""
    app: dict[str, Any] = {"name": "app", "image": f"{IMAGE}:1.0.0", "ports": [{"name": "http", "containerPort": 9898}]}
    app["command"] = ["sh", "-c", f"sleep {start}; exec /bin/podinfo --port=9898 --level=debug"]
    if readiness:
        app["readinessProbe"] = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1}
    if pre_stop:
        app["lifecycle"] = {"preStop": {"sleep": {"seconds": pre_stop}}}
    pods = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": 15, "containers": [app]}}
    spec = {"replicas": REPLICAS, "selector": {"matchLabels": LABELS}, "template": pods}
    shop.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    # The port of the node is for clusters whose Services cannot be reached from here.
    service = {"type": "NodePort", "selector": LABELS, "ports": ports}
    shop.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service})
    body = {"spec": {"strategy": {"rollingUpdate": None, **strategy}}}
    shop.cluster.patch(Ref("Deployment", shop.namespace, "web"), body, MERGE_PATCH)


def updated(shop: Shop, tag: str = "2.0.0", timeout: float = 3) -> tuple[dict[str, Any], dict[str, Any]]:
    """Update it under traffic, until the old pods are gone; return what the clients saw and what the wait said."""
    with shop.traffic(200, timeout=timeout) as traffic:
        shop.step(set_image, name="web", images={"app": f"{IMAGE}:{tag}"})
        waited = shop.step(wait_rollout, name="web", timeout=120)
        assert "failed" not in waited, waited
        old = [entry["name"] for entry in waited["pods"] if not entry["images"]["app"].endswith(f":{tag}")]
        for name in old:
            shop.wait_gone("Pod", name)
    return traffic.seen, waited


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_update_loses_no_request(empty: Shop, name: str) -> None:
    strategy, least = STRATEGIES[name]
    started(empty, strategy)
    seen, waited = updated(empty)
    assert seen["failed"] == 0, seen
    assert seen["sent"] > 500 and set(seen["versions"]) == {"1.0.0", "2.0.0"}, seen
    # Connections that were kept to pods that ended were opened anew, and no request was lost with them.
    assert seen["reopened"] > 0, seen
    assert waited["downtime"] == 0.0 and waited["availability"]["least"] >= least, waited


MISSING = {
    "no preStop": ({"pre_stop": 0}, {"ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "TimeoutError"}),
    "no readinessProbe": ({"readiness": False, "start": 2}, {"ConnectionRefusedError"}),
}


@pytest.mark.parametrize(("given", "errors"), MISSING.values(), ids=MISSING)
def test_without_one_of_the_parts_requests_are_lost(empty: Shop, given: dict[str, Any], errors: set[str]) -> None:
    started(empty, STRATEGIES["fast"][0], **given)
    seen, waited = updated(empty)
    assert seen["failed"] > 0 and set(seen["errors"]) & errors, seen
    # What Kubernetes counts looks well all the same: that is why the parts are checked.
    assert waited["downtime"] == 0.0, waited


def test_the_downtime_that_is_told_is_the_one_that_clients_see(empty: Shop) -> None:
    """Clients see a little more: a process closes its port before that is told, and rules follow after a pod is ready."""
    started(empty, {"type": "Recreate"})
    rounds = []
    for tag in ("2.0.0", "3.0.0", "1.0.0"):
        seen, waited = updated(empty, tag, timeout=0.4)
        assert seen["failed"] > 0 and waited["availability"] == {"least": 0}, (seen, waited)
        rounds.append((waited["downtime"], seen["outage"]))
        if -0.5 < seen["outage"] - waited["downtime"] < 1.5:
            return
    pytest.fail(f"told and seen, in seconds: {rounds}")
