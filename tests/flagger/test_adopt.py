# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain Deployment comes under Flagger and leaves it while 200 requests a second are answered; gates let a release go on, or end it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import flagging, unflagging
from ansible_collections.progressive.delivery.plugins.module_utils.errors import NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Query
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import wait_for_rollout
from ansible_collections.progressive.delivery.plugins.modules import flagger_canary, flagger_gate, set_image
from support.flagged import GATEWAY, ISTIO, LOADTESTER, PROMETHEUS, Flagged
from support.guides import follow
from support.live import Traffic
from support.releasing import changed, released
from support.routed import IMAGE, Provider

pytestmark = pytest.mark.cluster


@pytest.fixture
def flagged(flagger: str) -> Iterator[Flagged]:
    """Return a namespace with podinfo 1.0.0 as one Deployment ``web`` behind one Service, without a route."""
    with Flagged(flagger) as found:
        found.deploy()
        yield found


def well(outcome: dict[str, Any], changed: bool = True) -> dict[str, Any]:
    """Return the outcome of a step that must have succeeded."""
    assert not outcome.get("failed"), outcome
    assert outcome["changed"] is changed, outcome
    return outcome


@pytest.mark.parametrize("provider", [GATEWAY, ISTIO], ids=str)
def test_a_workload_comes_and_leaves_and_no_request_is_lost(flagged: Flagged, provider: Provider) -> None:
    flagged.lead(provider)
    before = flagged.state(provider)
    options = flagged.canary(provider)
    foreseen = well(flagged.step(flagger_canary, check=True, **options))
    assert flagged.state(provider) == before and not flagged.exists("Canary", "web")
    with flagged.traffic_at(provider.router) as traffic:
        come = well(flagged.step(flagger_canary, **options))
        assert come["phase"] == "Initialized" and come["actions"] == foreseen["actions"]
        assert flagged.get("Deployment", "web")["spec"]["replicas"] == 0
        assert flagged.get("Deployment", "web-primary")["spec"]["replicas"] == 2
        well(flagged.step(flagger_canary, **options), changed=False)
        # A release of Flagger's own in between: what leaves is what was promoted.
        well(flagged.step(set_image, name="web", images={"app": f"{IMAGE}:2.0.0"}))
        flagged.until("Succeeded", timeout=180)
        flagged.answers(provider, "2.0.0")
        told = well(flagged.step(flagger_canary, check=True, name="web", state="absent"))
        gone = well(flagged.step(flagger_canary, name="web", state="absent"))
        assert told["actions"] == gone["actions"]
        well(flagged.step(flagger_canary, name="web", state="absent"), changed=False)
    assert traffic.seen["failed"] == 0 and traffic.seen["sent"] > 5000, traffic.seen
    after = flagged.state(provider)
    assert after.pop("template")["spec"]["containers"][0]["image"] == f"{IMAGE}:2.0.0"
    before.pop("template")
    assert after == before


def test_what_leaves_after_a_failed_release_is_the_version_that_had_the_requests(flagged: Flagged) -> None:
    flagged.lead(GATEWAY)
    before = flagged.state(GATEWAY)
    hooks = [{"name": "back", "type": "rollback", "url": f"{LOADTESTER}/rollback/check"}]
    well(flagged.step(flagger_canary, **flagged.canary(GATEWAY, webhooks=hooks)))
    refused = flagged.step(flagger_gate, name="web", gate="rollback")
    assert refused["failed"] and "there is no release to take back" in refused["msg"]
    with flagged.traffic_at("traefik") as traffic:
        well(flagged.step(set_image, name="web", images={"app": f"{IMAGE}:2.0.0"}))
        flagged.until("Progressing")
        well(flagged.step(flagger_gate, name="web", gate="rollback"))
        well(flagged.step(flagger_gate, name="web", gate="rollback"), changed=False)
        flagged.until("Failed")
        well(flagged.step(flagger_gate, name="web", gate="rollback", state="closed"))
        assert flagged.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:2.0.0"
        gone = well(flagged.step(flagger_canary, name="web", state="absent"))
        assert "gave Deployment" in gone["actions"][0]
    assert traffic.seen["failed"] == 0, traffic.seen
    assert flagged.state(GATEWAY) == before


def test_a_release_waits_at_its_gate_until_it_is_opened(flagged: Flagged) -> None:
    flagged.lead(GATEWAY)
    hooks = [{"name": "promote", "type": "confirm-promotion", "url": f"{LOADTESTER}/gate/check"}]
    well(flagged.step(flagger_canary, **flagged.canary(GATEWAY, webhooks=hooks)))
    well(flagged.step(set_image, name="web", images={"app": f"{IMAGE}:2.0.0"}))
    with flagged.traffic_at("traefik") as traffic:
        flagged.until("WaitingPromotion", timeout=180)
        looked = well(flagged.step(flagger_gate, name="web", state="checked"), changed=False)
        assert looked["open"] is False and looked["webhooks"] == ["promote"]
        well(flagged.step(flagger_gate, check=True, name="web", state="approved"))
        assert flagged.step(flagger_gate, name="web", state="checked")["open"] is False
        busy = flagged.step(flagger_canary, name="web", state="absent")
        assert busy["failed"] and "in the middle of a release" in busy["msg"]
        opened = well(flagged.step(flagger_gate, name="web", state="approved"))
        assert opened["actions"] == [f"opened the advance gate of Canary {flagged.namespace}/web for promote"]
        well(flagged.step(flagger_gate, name="web"), changed=False)
        flagged.until("Succeeded", timeout=180)
        well(flagged.step(flagger_gate, name="web", state="halted"))
    assert traffic.seen["failed"] == 0, traffic.seen


def test_what_would_do_harm_is_refused_and_nothing_is_written(flagged: Flagged) -> None:
    flagged.lead(GATEWAY)
    before = flagged.state(GATEWAY)
    for given, sentence in (
        ({"target": "nope"}, "Deployment"),
        ({"target_port": "grpc"}, "have no port grpc"),
        ({"hosts": []}, "the requests for every other one; add it to hosts"),
        ({"provider": "contour"}, "this cluster has no kinds of projectcontour.io"),
        ({"gateway_refs": [{"name": "nope"}]}, "does not exist"),
        ({"webhooks": [{"name": "a", "url": "http://nope.flagger-system/"}]}, "Service flagger-system/nope does not exist"),
        ({"webhooks": [{"name": "a", "url": f"{LOADTESTER}:81/"}]}, "has no port 81"),
        ({"interval": "5s"}, "below Flagger's floor of 10 s"),
    ):
        outcome = flagged.step(flagger_canary, **flagged.canary(GATEWAY, **given))
        assert outcome.get("failed") and sentence in outcome["msg"], outcome
        assert "\n" not in outcome["msg"]
    assert flagged.state(GATEWAY) == before and not flagged.exists("Canary", "web")


def test_a_route_that_flagger_made_stays_where_it_is_asked_for(flagged: Flagged) -> None:
    """Without a route of its own the application gets Flagger's, and keeps it."""
    well(flagged.step(flagger_canary, **flagged.canary(GATEWAY)))
    flagged.answers(GATEWAY, "1.0.0")
    for given, sentence in (({"provider": "istio"}, "leave its HTTPRoute as it is"), ({"port": 8080}, "would take port 80 away")):
        refused = flagged.step(flagger_canary, **flagged.canary(GATEWAY, **given))
        assert refused["failed"] and sentence in refused["msg"] and "state: absent" in refused["msg"]
    with flagged.traffic_at("traefik") as traffic:
        gone = well(flagged.step(flagger_canary, name="web", state="absent"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert any(action.startswith("kept HTTPRoute") for action in gone["actions"])
    route = flagged.read("HTTPRoute")
    assert "ownerReferences" not in route["metadata"]
    assert [entry["name"] for entry in route["spec"]["rules"][0]["backendRefs"]] == ["web"]


def test_what_its_owner_has_changed_meanwhile_is_not_put_back(flagged: Flagged) -> None:
    """A selector that would find no pod any more, and a host that has come since; the selector that also finds the primary is put back."""
    flagged.lead(GATEWAY)
    both = {"app": "web", "tier": "front"}
    body = {"spec": {"template": {"metadata": {"labels": both}}}}
    flagged.cluster.patch(flagged.ref("Deployment", "web"), body, MERGE_PATCH)
    wait_for_rollout(flagged.cluster, flagged.ref("Deployment", "web"), 60)
    flagged.cluster.patch(flagged.ref("Service", "web"), {"spec": {"selector": {"app": None, "tier": "front"}}}, MERGE_PATCH)
    with flagged.traffic_at("traefik") as traffic:
        well(flagged.step(flagger_canary, **flagged.canary(GATEWAY)))
        host = f"more.{flagged.host}"
        well(flagged.step(flagger_canary, **flagged.canary(GATEWAY, hosts=[flagged.host, host])))
        deadline = time.monotonic() + 30
        while flagged.read("HTTPRoute")["spec"]["hostnames"] != [flagged.host, host]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        gone = well(flagged.step(flagger_canary, name="web", state="absent"))
        assert f"gave HTTPRoute {flagged.namespace}/web back what it was, with host {host} that it has got since" in gone["actions"]
        assert flagged.get("Service", "web")["spec"]["selector"] == {"tier": "front"}
        assert flagged.read("HTTPRoute")["spec"]["hostnames"] == [flagged.host, host]

        well(flagged.step(flagger_canary, **flagged.canary(GATEWAY, hosts=[flagged.host, host], skip_analysis=True)))
        # A release without the label by which the Service found the pods.
        body = {"spec": {"template": {"metadata": {"labels": {"tier": "back"}}}}}
        flagged.cluster.patch(flagged.ref("Deployment", "web"), body, MERGE_PATCH)
        flagged.until("Succeeded", timeout=180)
        gone = well(flagged.step(flagger_canary, name="web", state="absent"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert any("(tier=front) finds no pods of Deployment" in action for action in gone["actions"]), gone
    assert flagged.get("Service", "web")["spec"]["selector"] == {"app": "web"}


def serves(shop: Flagged) -> bool:
    """Return whether the cluster knows ScaledObjects by now."""
    try:
        shop.cluster.list(Query("ScaledObject", shop.namespace))
    except NotFound:
        return False
    return True


@pytest.fixture
def keda(flagger: str) -> Iterator[None]:
    """Let the cluster have the kind ScaledObject, as far as Flagger and we use it; nothing scales by it."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject", "listKind": "ScaledObjectList"},
        "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": spec,
    }
    with Flagged(flagger) as shop:
        shop.cluster._json("POST", path, body=definition)
        try:
            deadline = time.monotonic() + 30
            while not serves(shop):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield
        finally:
            shop.cluster._json("DELETE", f"{path}/scaledobjects.keda.sh")


def test_what_flagger_has_paused_scales_again_when_the_workload_has_left(keda: None, flagged: Flagged) -> None:
    target = {"scaleTargetRef": {"name": "web"}, "triggers": [{"type": "cpu", "metadata": {"value": "60"}}]}
    flagged.create({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"}, "spec": target})
    flagged.lead(GATEWAY)
    before = flagged.state(GATEWAY)
    options = flagged.canary(GATEWAY, autoscaler="web", autoscaler_kind="ScaledObject")
    with flagged.traffic_at("traefik") as traffic:
        well(flagged.step(flagger_canary, **options))
        assert flagged.get("ScaledObject", "web")["metadata"]["annotations"] == {"autoscaling.keda.sh/paused-replicas": "0"}
        assert flagged.exists("ScaledObject", "web-primary")
        gone = well(flagged.step(flagger_canary, name="web", state="absent"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert gone["actions"][0].startswith("let ScaledObject")
    assert "autoscaling.keda.sh/paused-replicas" not in (flagged.get("ScaledObject", "web")["metadata"].get("annotations") or {})
    assert flagged.state(GATEWAY) == before


class Killed(Exception):
    """The run ends here."""


def killed(*_arguments: Any, **_options: Any) -> None:
    """End a run."""
    raise Killed


@pytest.mark.parametrize("where", ["_suspend", "_await_ready", "_turn", "_let_go_on"])
def test_a_takeover_that_was_killed_is_gone_on_with(flagged: Flagged, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flagged.lead(GATEWAY)
    before = flagged.state(GATEWAY)
    options = flagged.canary(GATEWAY, skip_analysis=True)
    with flagged.traffic_at("traefik") as traffic:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(flagging.Takeover, where, killed)
            flagged.step(flagger_canary, **options)
        come = well(flagged.step(flagger_canary, **options))
        assert come["phase"] == "Initialized" and flagged.get("Canary", "web")["spec"]["skipAnalysis"] is True
        well(flagged.step(flagger_canary, **options), changed=False)
        if where in ("_suspend", "_turn"):
            step = {"_suspend": "_turn_service", "_turn": "_delete"}[where]
            with monkeypatch.context() as patched, pytest.raises(Killed):
                patched.setattr(unflagging.Leaving, step, killed)
                flagged.step(flagger_canary, name="web", state="absent")
            well(flagged.step(flagger_canary, name="web", state="absent"))
    assert traffic.seen["failed"] == 0, traffic.seen
    if where in ("_suspend", "_turn"):
        assert flagged.state(GATEWAY) == before


def test_a_daemonset_behind_a_service_alone_comes_and_leaves(flagged: Flagged) -> None:
    """Without a router: provider kubernetes, and requests by the Service."""
    workload = flagged.get("Deployment", "web")
    flagged.cluster.delete(flagged.ref("Deployment", "web"))
    flagged.wait_gone("Deployment", "web")
    spec = {key: workload["spec"][key] for key in ("selector", "template")}
    made = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "web"}, "spec": spec}
    wait_for_rollout(flagged.cluster, flagged.create(made), 120)
    template = flagged.get("DaemonSet", "web")["spec"]["template"]
    options = {"name": "web", "target_kind": "DaemonSet", "provider": "kubernetes", "port": 80, "target_port": "http", "iterations": 2}
    address = flagged.get("Service", "web")["spec"]["clusterIP"]
    with Traffic(flagged, f"http://{address}/", 200, 3) as traffic:
        well(flagged.step(flagger_canary, interval="10s", wait_timeout=180, **options))
        well(flagged.step(flagger_canary, interval="10s", **options), changed=False)
        flagged.without_pods("app=web")
        well(flagged.step(flagger_canary, name="web", state="absent"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert flagged.get("DaemonSet", "web")["spec"]["template"] == template
    assert flagged.get("Service", "web")["spec"]["selector"] == {"app": "web"}


def test_commands_of_the_guide_run_as_they_stand(flagged: Flagged, tmp_path: Path) -> None:
    flagged.lead(GATEWAY)
    before = flagged.state(GATEWAY)
    places = (("name: public", "name: traefik"), ("namespace: gateways", "namespace: traefik"), ("shop.example.com", "shop.example"))
    with flagged.traffic_at("traefik") as traffic:
        follow("flagger_adopt.md", flagged, tmp_path, places)
    assert traffic.seen["failed"] == 0, traffic.seen
    assert flagged.state(GATEWAY) == before


def test_metrics_are_asked_of_the_prometheus_of_flagger(flagged: Flagged) -> None:
    flagged.lead(GATEWAY)
    metrics: list[dict[str, Any]] = [{"name": "request-success-rate", "min": 99}, {"name": "request-duration", "max": 500}]
    idle = flagged.step(flagger_canary, check=True, **flagged.canary(GATEWAY, metrics=metrics, metrics_server="http://nope.flagger-system"))
    assert "Service flagger-system/nope does not exist" in idle["msg"]
    with flagged.traffic_at("traefik", rate=20):
        deadline = time.monotonic() + 60
        while (found := flagged.step(flagger_canary, check=True, **flagged.canary(GATEWAY, metrics=metrics))).get("failed"):
            assert "finds nothing" in found["msg"] and time.monotonic() < deadline, found
            time.sleep(1)
        assert found["checks"] == []
        for query, sentence in (
            (
                'http_request_duration_seconds_count{kubernetes_namespace="{{ namespace }}"}',
                "would take the last without a word",
            ),
            ('sum(no_such_series{kubernetes_namespace="{{ namespace }}"})', "finds nothing"),
            ("sum(", "Prometheus refuses its query"),
        ):
            template = {"provider": {"type": "prometheus", "address": PROMETHEUS}, "query": query}
            refused = flagged.step(flagger_canary, **flagged.canary(GATEWAY, metrics=[{"name": "own", "max": 1, "template": template}]))
            assert sentence in refused.get("msg", ""), refused
    assert not flagged.exists("Canary", "web") and not flagged.exists("MetricTemplate", "web-own")


def test_the_ordinary_module_does_the_same(flagged: Flagged, tmp_path: Path) -> None:
    flagged.lead(GATEWAY)
    before = flagged.state(GATEWAY)
    hooks = [{"name": "promote", "type": "confirm-promotion", "url": f"{LOADTESTER}/gate/check"}]
    login = {"namespace": flagged.namespace, "kubeconfig": flagged.kubeconfig}
    come = {**login, **flagged.canary(GATEWAY, webhooks=hooks)}
    gate = {**login, "name": "web"}
    leave = {**gate, "state": "absent"}
    tasks = [
        {"progressive.delivery.flagger_canary": come},
        {"progressive.delivery.flagger_gate": {**gate, "state": "open"}},
        {"progressive.delivery.flagger_gate": {**gate, "state": "closed"}},
        {"progressive.delivery.flagger_canary": leave},
    ]
    book = tmp_path / "both.yml"
    book.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    output = released(flagged, str(book), {"delivery_door": "module"})
    assert changed(output) == 4
    assert flagged.state(GATEWAY) == before
