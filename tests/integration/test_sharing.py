# SPDX-License-Identifier: GPL-3.0-or-later
"""set_canary_weight by pods, on the real cluster and under 200 requests a second: none is lost on any way."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query, Ref, selector_string
from ansible_collections.progressive.delivery.plugins.modules import scale, set_canary_weight, set_image
from support.live import WEB, Shop

pytestmark = pytest.mark.cluster
SIDES = {"provider": "replicas", "name": "web", "stable": "web-stable", "canary": "web-canary", "wait_timeout": 60}
STABLE, NEW = "1.0.0", "2.0.0"


@pytest.fixture
def both(empty: Shop) -> Iterator[Shop]:
    """Return a namespace with two Deployments behind the Service web: four pods of stable, none of the canary."""
    for manifest in filter(None, yaml.safe_load_all(WEB.read_text())):
        if manifest["kind"] != "Deployment":
            empty.create(manifest)
            continue
        for side, replicas, version in (("stable", 4, STABLE), ("canary", 0, NEW)):
            twin = copy.deepcopy(manifest)
            twin["metadata"]["name"] = f"web-{side}"
            twin["spec"]["replicas"] = replicas
            twin["spec"]["selector"]["matchLabels"]["track"] = side
            twin["spec"]["template"]["metadata"]["labels"]["track"] = side
            twin["spec"]["template"]["spec"]["containers"][0]["image"] = f"localhost:32000/podinfo:{version}"
            empty.create(twin)
    yield empty


def pods(shop: Shop, side: str) -> int:
    """Return how many pods of a side stay."""
    found = shop.cluster.list(Query("Pod", shop.namespace, selector_string({"track": side}))).items
    return sum(1 for pod in found if not pod["metadata"].get("deletionTimestamp"))


def test_pods_share_the_requests_and_none_is_lost_on_the_way(both: Shop) -> None:
    with both.traffic(200) as traffic:
        for weight, surge, stable, canary in ((20, "0", 3, 1), (50, "0", 2, 2), (33, "1", 3, 2), (100, "0", 0, 4), (0, "0", 4, 0)):
            given = {**SIDES, "weight": weight, "max_surge": surge}
            foreseen = both.step(set_canary_weight, check=True, **given)
            done = both.step(set_canary_weight, **given)
            assert "failed" not in done and done["changed"], done
            assert (foreseen["before"], foreseen["after"], foreseen["actions"]) == (done["before"], done["after"], done["actions"])
            assert done["replicas"] == {"web-stable": stable, "web-canary": canary}
            assert (pods(both, "stable"), pods(both, "canary")) == (stable, canary)
            assert done["achieved"] == round(100 * canary / (stable + canary), 2)
            assert not both.step(set_canary_weight, **given)["changed"]
    assert traffic.seen["failed"] == 0, traffic.seen
    assert set(traffic.seen["versions"]) == {STABLE, NEW}, traffic.seen
    gone = both.step(set_canary_weight, **SIDES, state="absent")
    assert gone["changed"] and not any("canary-total" in key for key in both.get("Deployment", "web-stable")["metadata"]["annotations"])


def test_a_canary_that_does_not_get_ready_takes_no_pod_from_stable(both: Shop) -> None:
    both.step(set_image, name="web-canary", images={"app": "localhost:32000/podinfo:broken-crash"})
    with both.traffic(200) as traffic:
        failed = both.step(set_canary_weight, **SIDES, weight=50)
        assert failed["failed"] and failed["reason"] == "CrashLoopBackOff" and failed["changed"], failed
        assert failed["msg"].endswith("no pod was taken from the other side for them")
        back = both.step(set_canary_weight, **SIDES, state="absent")
        assert back["after"]["replicas"] == {"web-stable": 4, "web-canary": 0}
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {STABLE}, traffic.seen


def test_a_run_that_was_killed_in_the_middle_goes_on(both: Shop) -> None:
    # As it is when the canary has its pods and stable still has all of its own.
    both.step(set_canary_weight, **SIDES, weight=0, total=4)
    both.step(scale, name="web-canary", replicas=1)
    done = both.step(set_canary_weight, **SIDES, weight=20, max_surge="0")
    assert done["before"]["replicas"] == {"web-stable": 4, "web-canary": 1}
    assert done["after"]["replicas"] == {"web-stable": 3, "web-canary": 1} and (pods(both, "stable"), pods(both, "canary")) == (3, 1)
    assert (
        both.cluster.get(Ref("Deployment", both.namespace, "web-stable"))["metadata"]["annotations"]["progressive.delivery/canary-total"]
        == "4"
    )
