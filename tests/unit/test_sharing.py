# SPDX-License-Identifier: GPL-3.0-or-later
"""set_canary_weight by pods: how many each side gets, in which order, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.progressive.delivery.plugins.filter.canary_replicas import canary_replicas
from ansible_collections.progressive.delivery.plugins.module_utils import sharing
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, WaitFailed
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.canary import TOTAL
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import set_canary_weight
from support.fake import FakeCluster
from support.objects import deployment, service

STABLE, CANARY = Ref("Deployment", "shop", "web"), Ref("Deployment", "shop", "web-canary")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what was waited for: no controller in the fake makes pods."""
    found: list[str] = []
    monkeypatch.setattr(sharing, "wait_for_rollout", lambda _cluster, ref, *_rest: found.append(ref.name))
    return found


def shop(stable: int = 5, canary: int = 0) -> FakeCluster:
    """Return two Deployments behind one Service."""
    return FakeCluster(
        deployment("web", "stable", replicas=stable), deployment("web-canary", "canary", replicas=canary), service(color=None)
    )


def weigh(cluster: FakeCluster, check: bool = False, **given: Any) -> Any:
    """Run the step with its defaults and the usual sides."""
    defaults = {key: entry.get("default") for key, entry in argument_spec(set_canary_weight.OPTIONS).items()}
    sides = {"provider": "replicas", "name": "web", "stable": "web", "canary": "web-canary", "namespace": "shop"}
    return set_canary_weight.execute({**defaults, **sides, **given}, cluster, check)


def pods(cluster: FakeCluster) -> tuple[int, int]:
    """Return the pods that both sides ask for."""
    return tuple(cluster.get(ref)["spec"]["replicas"] for ref in (STABLE, CANARY))  # type: ignore[return-value]


def test_the_side_that_grows_goes_first_and_the_other_when_it_is_ready(waits: list[str]) -> None:
    cluster = shop()
    foreseen = weigh(cluster, True, weight=20, max_surge="0")
    assert cluster.writes == [] and waits == []
    done = weigh(cluster, weight=20, max_surge="0")
    # First what both share is noted on stable.
    assert [ref.name for _verb, ref in cluster.writes] == ["web", "web-canary", "web"] and waits[0] == "web-canary"
    assert (foreseen.changed, foreseen.before, foreseen.after, foreseen.actions) == (True, done.before, done.after, done.actions)
    assert done.before == {"replicas": {"web": 5, "web-canary": 0}, "weights": {"web": 100.0, "web-canary": 0.0}}
    assert done.after == {"replicas": {"web": 4, "web-canary": 1}, "weights": {"web": 80.0, "web-canary": 20.0}}
    assert done.extra["achieved"] == 20.0 and pods(cluster) == (4, 1)
    cluster.writes.clear()
    waits.clear()
    weigh(cluster, weight=0, max_surge="0")
    assert [ref.name for _verb, ref in cluster.writes] == ["web", "web-canary"] and waits == ["web", "web-canary", "web"]


def test_the_total_is_kept_whatever_surge_and_weights_come_between(waits: list[str]) -> None:
    cluster = shop()
    for weight, wanted in ((33, (4, 2)), (33, (4, 2)), (50, (3, 3)), (100, (0, 5)), (5, (5, 1)), (0, (5, 0))):
        weigh(cluster, weight=weight, max_surge="1")
        assert pods(cluster) == wanted, weight
        assert not weigh(cluster, weight=weight, max_surge="1").changed
    assert cluster.get(STABLE)["metadata"]["annotations"][TOTAL] == "5"
    gone = weigh(cluster, state="absent", max_surge="1")
    assert gone.changed and TOTAL not in cluster.get(STABLE)["metadata"]["annotations"]
    assert not weigh(cluster, state="absent").changed


def test_a_killed_run_goes_on_and_waits_before_it_takes_pods_away(waits: list[str]) -> None:
    cluster = shop(stable=5, canary=1)
    assert weigh(cluster, weight=20, total=5, max_surge="0").changed
    assert waits[0] in ("web", "web-canary") and pods(cluster) == (4, 1)


def test_where_new_pods_do_not_get_ready_the_other_side_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_rest: Any) -> None:
        raise WaitFailed("Deployment shop/web-canary: ImagePullBackOff", reason="ImagePullBackOff")

    monkeypatch.setattr(sharing, "wait_for_rollout", never)
    cluster = shop()
    with pytest.raises(WaitFailed, match="ImagePullBackOff; no pod was taken from the other side") as caught:
        weigh(cluster, weight=20, max_surge="0")
    assert pods(cluster) == (5, 1) and caught.value.reason == "ImagePullBackOff" and caught.value.details["changed"]


def test_pods_change_places_so_many_at_a_time(waits: list[str]) -> None:
    cluster = shop(stable=8)
    most = []
    real = cluster.patch

    def counted(*given: Any, **more: Any) -> Any:
        made = real(*given, **more)
        most.append(sum(pods(cluster)))
        return made

    cluster.patch = counted  # type: ignore[method-assign]
    for weight in (50, 100, 0):
        weigh(cluster, weight=weight)
    assert pods(cluster) == (8, 0) and max(most) == 10


class Full(FakeCluster):
    """A cluster with room for so many pods: those that came first have it."""

    room = 5

    def get(self, ref: Ref) -> Any:
        """Return the object; stable has as many ready pods as the canary's leave room for."""
        found = super().get(ref)
        if ref == STABLE:
            left = self.room - super().get(CANARY)["spec"]["replicas"]
            found["status"]["readyReplicas"] = max(0, min(left, found["spec"]["replicas"]))
        return found


def test_a_stable_that_gets_no_room_is_no_reason_to_stay_on_the_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Full(*(shop(stable=0, canary=5)._objects.values()))
    seen = []

    def wait(_cluster: Any, ref: Ref, *_rest: Any) -> None:
        found = cluster.get(ref)
        seen.append((*pods(cluster), cluster.get(STABLE)["status"]["readyReplicas"]))
        if ref == STABLE and found["status"]["readyReplicas"] < found["spec"]["replicas"]:
            raise WaitFailed("quota refused", reason="FailedCreate")

    monkeypatch.setattr(sharing, "wait_for_rollout", wait)
    assert weigh(cluster, weight=0, total=5, max_surge="0").changed and pods(cluster) == (5, 0)
    assert all(ready + canary >= 4 for _stable, canary, ready in seen), seen


def test_an_autoscaler_that_came_up_meanwhile_does_not_close_the_way_off(waits: list[str]) -> None:
    cluster = shop(stable=3, canary=2)
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9}
    cluster.put({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    assert weigh(cluster, weight=0, total=5).changed and pods(cluster) == (5, 0)
    with pytest.raises(DeliveryError, match="HorizontalPodAutoscaler web, which would undo"):
        weigh(cluster, weight=20)


def test_pods_are_tied_to_what_was_looked_at_too(waits: list[str]) -> None:
    cluster = shop()
    note = {"progressive.delivery/canary": "one"}
    weigh(cluster, weight=20, annotations=note, if_annotations={"progressive.delivery/canary": ""})
    with pytest.raises(WaitFailed, match="has another progressive.delivery/canary than when it was looked at") as caught:
        weigh(cluster, weight=50, if_annotations={"progressive.delivery/canary": "two"})
    assert caught.value.reason == "Superseded"
    assert weigh(cluster, weight=50, if_annotations=note).changed


def test_notes_go_to_the_service_before_any_pod(waits: list[str]) -> None:
    cluster = shop()
    weigh(cluster, weight=20, annotations={"progressive.delivery/phase": "running"})
    assert cluster.writes[0] == ("patch", Ref("Service", "shop", "web"))
    assert not weigh(cluster, weight=20, annotations={"progressive.delivery/phase": "running"}).changed


REFUSED = {
    "routes": ({"weight": 5, "routes": [{"name": "web"}]}, "routes is for routes; provider replicas shares"),
    "no name": ({"weight": 5, "name": ""}, "name is not set; name the Service"),
    "one side": ({"weight": 5, "canary": "web"}, 'stable and canary are both "web"'),
    "no Service": ({"weight": 5, "name": "nope"}, "Service shop/nope does not exist; Services in namespace shop: web"),
    "no Deployment": ({"weight": 5, "canary": "nope"}, "Deployment shop/nope does not exist"),
    "another application": ({"weight": 5, "canary": "api"}, "selects app=web, and the pods of Deployment shop/api have app=api"),
    "a negative total": ({"weight": 5, "total": -1}, "the total number of pods must be 0 or more, got -1"),
    "a surge": ({"weight": 5, "max_surge": "much"}, 'max_surge must be a number of pods from 0, or a percentage such as "25%", got "much"'),
    "a timeout": ({"weight": 5, "wait_timeout": 0}, "wait_timeout must be more than 0 seconds, got 0"),
    "a weight": ({"weight": 101}, "weight must be between 0 and 100, got 101"),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence_and_changes_nothing(given: dict[str, Any], sentence: str, waits: list[str]) -> None:
    cluster = shop()
    api = deployment("api")
    api["spec"]["template"]["metadata"]["labels"] = {"app": "api"}
    cluster.put(api)
    for check in (True, False):
        with pytest.raises(DeliveryError, match=sentence):
            weigh(cluster, check, **given)
    assert cluster.writes == []


def test_an_autoscaler_that_would_undo_the_ratio_is_named(waits: list[str]) -> None:
    cluster = shop()
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 9}
    cluster.put({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
    with pytest.raises(DeliveryError, match="scaled by HorizontalPodAutoscaler web, which would undo a ratio of pods"):
        weigh(cluster, weight=20)


def test_the_filter_takes_numbers_as_a_survey_gives_them() -> None:
    assert canary_replicas("10", "20") == {"stable": 8, "canary": 2}
    assert canary_replicas(5, 33, max_surge=1) == {"stable": 4, "canary": 2}
    assert canary_replicas(0, 50) == {"stable": 0, "canary": 0}
    for given, sentence in (((5, "many"), "weight must be a whole number"), ((5, 101), "weight must be between 0 and 100, got 101")):
        with pytest.raises(AnsibleFilterError, match=f"canary_replicas: {sentence}"):
            canary_replicas(*given)


def test_a_canary_that_is_gone_already_has_no_pods(waits: list[str]) -> None:
    cluster = shop(stable=2)
    cluster.drop(CANARY)
    assert weigh(cluster, weight=0, total=5).after == {
        "replicas": {"web": 5, "web-canary": 0},
        "weights": {"web": 100.0, "web-canary": 0.0},
    }
    assert weigh(cluster, state="absent").changed and not weigh(cluster, state="absent").changed
    assert cluster.get(STABLE)["spec"]["replicas"] == 5
    with pytest.raises(DeliveryError, match="Deployment shop/web-canary does not exist"):
        weigh(cluster, weight=20)
