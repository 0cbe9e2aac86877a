# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole canaries through real routers, under continuous traffic: released, aborted, killed, and refused by what they are."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Query
from ansible_collections.progressive.delivery.plugins.modules import release_lock, scale
from support.releasing import KINDS, Application, changed, released, starting
from support.routed import IMAGE, PROVIDERS, Provider

pytestmark = pytest.mark.cluster
TRAEFIK = Provider("gateway_api", "traefik")
ISTIO = Provider("istio", "istio")
PLAYBOOK = "progressive.delivery.canary"


@pytest.fixture
def web(application: Application) -> Application:
    """Return a namespace with the application in version 1.0.0, without a route."""
    return application


def variables(web: Application, provider: Provider, image: str = "2.0.0", **more: Any) -> dict[str, Any]:
    """Return the variables of a release."""
    given = {
        "kubeconfig": web.kubeconfig,
        "namespace": web.namespace,
        "provider": provider.name,
        "route": "web",
        "stable": "web",
        "image": f"{IMAGE}:{image}",
        "steps": [30, 100],
        "pause": 1,
        "observe_interval": 1,
        "settle": 2,
        "probe": {"url": web.base(provider.router), "headers": {"Host": web.host}, "version_field": "version", "rate": 200},
        "drain": 1,
        "timeout": 90,
        "smoke_tests": [{"path": "/healthz"}, {"path": "/version", "retries": 1}],
        **more,
    }
    return {f"canary_{key}": value for key, value in given.items()}


def canary(web: Application, provider: Provider, *arguments: str, fails: bool = False, **more: Any) -> str:
    """Run the playbook, and return what it printed."""
    return released(web, PLAYBOOK, variables(web, provider, **more), *arguments, fails=fails)


def until_weight(web: Application, provider: Provider, weight: int, timeout: float = 120) -> None:
    """Return when the route sends so much to the canary."""
    deadline = time.monotonic() + timeout
    while web.weight(provider) != weight:
        assert time.monotonic() < deadline, f"the canary has {web.weight(provider)} % and not {weight}"
        time.sleep(0.1)


@pytest.mark.parametrize("provider", PROVIDERS, ids=str)
def test_a_canary_that_is_aborted_and_one_that_is_released_lose_no_request(web: Application, provider: Provider) -> None:
    web.lead(provider)
    before = web.state(KINDS[provider.name])
    with web.traffic_at(provider.router) as traffic:
        waiting = canary(web, provider, approval=True)
        assert "waits for an approval" in waiting and web.weight(provider) == 30 and web.image() == "1.0.0"
        canary(web, provider, state="aborted")
        assert web.state(KINDS[provider.name]) == before and web.image() == "1.0.0"
        canary(web, provider, steps=[50, 100])
    assert traffic.seen["failed"] == 0, json.dumps(traffic.seen)
    assert set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"}
    assert web.state(KINDS[provider.name]) == before
    assert web.image() == "2.0.0" and set(web.ask(provider.router, 50)) == {"2.0.0"}


def test_an_abort_at_each_step_and_a_canary_that_gets_sick_lose_no_request(web: Application) -> None:
    web.step(scale, name="web", replicas=3)
    web.wait_for("web")
    web.lead(TRAEFIK)
    before = web.state("HTTPRoute")
    with web.traffic_at("traefik") as traffic:
        for step, pods in ((5, 1), (100, 3)):
            canary(web, TRAEFIK, approval=True, steps=[step])
            assert web.weight(TRAEFIK) == step and web.get("Deployment", "web-canary")["spec"]["replicas"] == pods
            canary(web, TRAEFIK, state="aborted")
            assert web.state("HTTPRoute") == before
        process = starting(PLAYBOOK, variables(web, TRAEFIK, steps=[50, 100], pause=60))
        until_weight(web, TRAEFIK, 50)
        time.sleep(3)
        # One of two: the other one answers until the traffic is off the canary.
        sick = web.cluster.list(Query("Pod", web.namespace, "app=web-canary")).items[0]
        web.cluster.delete(web.ref("Pod", sick["metadata"]["name"]))
        output, _nothing = process.communicate(timeout=120)
        assert process.returncode != 0 and "all traffic is on web, which is as it was, and the canary is gone" in output, output
        assert web.state("HTTPRoute") == before
    assert traffic.seen["failed"] == 0, json.dumps(traffic.seen)
    assert web.image() == "1.0.0" and web.get("Deployment", "web")["spec"]["replicas"] == 3


def test_who_approves_goes_on_and_a_second_run_changes_nothing(web: Application) -> None:
    web.lead(TRAEFIK)
    before, generation = web.state("HTTPRoute"), web.get("Deployment", "web")["metadata"]["generation"]
    steps = {"approval": True, "steps": [20, 100]}
    foreseen = canary(web, TRAEFIK, "--check", "--diff", **steps)
    assert changed(foreseen) > 0 and "would get 20, 100 % of the requests to web" in foreseen
    assert web.state("HTTPRoute") == before and web.get("Deployment", "web")["metadata"]["generation"] == generation
    assert changed(canary(web, TRAEFIK, state="aborted")) == 0
    canary(web, TRAEFIK, **steps)
    assert web.weight(TRAEFIK) == 20
    assert changed(canary(web, TRAEFIK, **steps)) == 0 and web.weight(TRAEFIK) == 20
    canary(web, TRAEFIK, approved=True, **steps)
    assert web.weight(TRAEFIK) == 100 and web.image() == "1.0.0"
    canary(web, TRAEFIK, approved=True, **steps)
    assert web.image() == "2.0.0" and web.state("HTTPRoute") == before
    assert changed(canary(web, TRAEFIK, **steps)) == 0


def test_a_run_that_is_killed_between_two_steps_goes_on_where_it_was(web: Application) -> None:
    # With two subsets of one Service, whose canary is made from nothing.
    subsets = {"subset": "stable", "steps": [10, 50, 100], "pause": 3}
    web.lead(ISTIO, subset="stable")
    before = web.state("VirtualService", "DestinationRule")
    lowest: list[float] = []
    with web.traffic_at("istio") as traffic:
        process = starting(PLAYBOOK, variables(web, ISTIO, **subsets))
        until_weight(web, ISTIO, 50)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert "held by" in canary(web, ISTIO, image="3.0.0", fails=True, **subsets)
        refused = canary(web, ISTIO, image="3.0.0", fails=True, lock=False, **subsets)
        assert "podinfo:2.0.0 is being released to web and has 50 % of the traffic" in refused
        assert web.weight(ISTIO) == 50
        done = threading.Event()
        watcher = threading.Thread(target=lambda: _watch(web, lowest, done))
        watcher.start()
        canary(web, ISTIO, **subsets)
        done.set()
        watcher.join()
    assert traffic.seen["failed"] == 0, json.dumps(traffic.seen)
    # Not from the beginning again: it only fell when stable had the new image.
    assert [weight for weight in lowest if weight < 50] == [], lowest
    assert web.state("VirtualService", "DestinationRule") == before and web.image() == "2.0.0"


def _watch(web: Application, lowest: list[float], done: threading.Event) -> None:
    """Note the canary's weight for as long as stable has the old image."""
    while not done.is_set():
        if web.image() == "1.0.0":
            lowest.append(web.weight(ISTIO))
        done.wait(0.2)


@pytest.mark.parametrize(("image", "reason"), [("broken-500", "status 500 instead of 200"), ("broken-ready", "web-canary")])
def test_an_image_that_is_no_good_is_taken_back_by_itself(web: Application, image: str, reason: str) -> None:
    web.lead(TRAEFIK)
    before = web.state("HTTPRoute")
    with web.traffic_at("traefik", 50) as traffic:
        output = canary(web, TRAEFIK, image=image, timeout=12, fails=True)
    assert reason in output and "all traffic is on web, which is as it was, and the canary is gone" in output
    assert set(traffic.seen["versions"]) == {"1.0.0"} and traffic.seen["failed"] == 0
    assert web.state("HTTPRoute") == before and web.image() == "1.0.0"


NOTE = "progressive.delivery/canary.web"
COPIED_FROM = "progressive.delivery/copied-from"
RECREATE = {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}


def annotate(web: Application, kind: str, name: str, **notes: str | None) -> None:
    """Change annotations of an object as somebody else would; None takes one away."""
    web.cluster.patch(web.ref(kind, name), {"metadata": {"annotations": notes}}, MERGE_PATCH)


def noted(web: Application) -> dict[str, Any]:
    """Return the note on the route."""
    return json.loads(web.read("HTTPRoute")["metadata"]["annotations"][NOTE])


def test_the_release_of_somebody_else_stays_and_an_abort_takes_the_traffic_off_whatever_is_wrong(web: Application) -> None:
    web.lead(TRAEFIK)
    web.cluster.patch(web.ref("Deployment", "web"), RECREATE, MERGE_PATCH)
    web.step(release_lock, name="release-deployment-web", holder="A/B test of web, started")
    # Nothing to abort: the lock of another strategy is not even looked at.
    assert changed(canary(web, TRAEFIK, state="aborted")) == 0
    assert web.get("Lease", "release-deployment-web")["spec"]["holderIdentity"] == "A/B test of web, started"
    refused = canary(web, TRAEFIK, steps=[50], lock=False, fails=True)
    assert "may lose all its pods at once then (Recreate); let canary_steps end with 100" in refused
    with web.traffic_at("traefik") as traffic:
        process = starting(PLAYBOOK, variables(web, TRAEFIK, steps=[50, 100], pause=4, lock=False))
        until_weight(web, TRAEFIK, 50)
        annotate(web, "HTTPRoute", "web", **{NOTE: json.dumps({**noted(web), "image": f"{IMAGE}:3.0.0"})})
        output, _nothing = process.communicate(timeout=120)
        assert process.returncode != 0 and "taken back meanwhile by somebody else" in output, output
        assert "HTTPRoute" not in output or "this run has left that as it is" in output, output
        assert web.weight(TRAEFIK) == 50 and noted(web)["image"].endswith(":3.0.0") and noted(web)["phase"] == "step"
        for kind in ("Deployment", "Service"):
            annotate(web, kind, "web-canary", **{COPIED_FROM: None})
        wrong = {"webhooks": [{"url": "nonsense"}], "probe": {"url": "nonsense"}, "steps": [0]}
        assert 'held by "A/B test of web, started"' in canary(web, TRAEFIK, state="aborted", fails=True, **wrong)
        output = canary(web, TRAEFIK, state="aborted", lock=False, fails=True, **wrong)
        assert "web sends 0 % to web-canary" in output and "run it with canary_state: aborted again" in output, output
        assert "could not be measured" in output and web.weight(TRAEFIK) == 0
        assert set(web.ask("traefik", 50)) == {"1.0.0"}
    assert traffic.seen["failed"] == 0, json.dumps(traffic.seen)


def test_an_abort_of_the_promotion_waits_for_stable_where_nothing_else_is_left(web: Application) -> None:
    web.lead(TRAEFIK)
    before = web.state("HTTPRoute")
    canary(web, TRAEFIK, steps=[100], approval=True)
    annotate(web, "HTTPRoute", "web", **{NOTE: json.dumps({**noted(web), "phase": "promote"})})
    broken = {"template": {"spec": {"containers": [{"name": "app", "image": f"{IMAGE}:broken-ready"}]}}}
    for name in ("web", "web-canary"):
        patch = {"spec": {**RECREATE["spec"], **broken}}
        web.cluster.patch(web.ref("Deployment", name), patch, "application/strategic-merge-patch+json")
    canary(web, TRAEFIK, state="aborted")
    assert web.state("HTTPRoute") == before and web.image() == "1.0.0" and set(web.ask("traefik", 50)) == {"1.0.0"}
