# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole A/B tests through real routers, under continuous traffic of both sides: won by either, killed, refused, taken back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH
from ansible_collections.progressive.delivery.plugins.module_utils.plan.copies import COPIED_FROM
from ansible_collections.progressive.delivery.plugins.modules import scale, set_image
from support.releasing import KINDS, Application, changed, released, starting
from support.routed import IMAGE, PROVIDERS, Provider, ingress_nginx

pytestmark = pytest.mark.cluster
TRAEFIK = Provider("gateway_api", "traefik")
ISTIO = Provider("istio", "istio")
PLAYBOOK = "progressive.delivery.ab_test"
BETA = {"x_beta": "yes"}


@pytest.fixture
def web(application: Application) -> Application:
    """Return a namespace with the application in version 1.0.0, without a route."""
    return application


def lead(web: Application, provider: Provider, subset: str = "") -> dict[str, Any]:
    """Make the route and return what must be the same in the end. An Ingress has one path: one below it has a host of its own."""
    web.lead(provider, subset)
    if provider.name == "ingress_nginx":
        (main,) = ingress_nginx(web.host, None)
        main["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "web"
        web.put(main)
    return web.state(KINDS[provider.name])


def variables(web: Application, provider: Provider, **more: Any) -> dict[str, Any]:
    """Return the variables of a test."""
    asked = {"url": web.base(provider.router) + "/", "headers": {"Host": web.host}, "version_field": "version"}
    given = {
        "kubeconfig": web.kubeconfig,
        "namespace": web.namespace,
        "provider": provider.name,
        "route": "web",
        "stable": "web",
        "image": f"{IMAGE}:2.0.0",
        "headers": {"X-Beta": "yes"},
        "settle": 2,
        "probe": {**asked, "rate": 200},
        "report": {**asked, "requests": 200, "concurrency": 4},
        "drain": 1,
        "timeout": 90,
        "smoke_tests": [{"path": "/healthz"}, {"path": "/version", "retries": 1}],
        **more,
    }
    return {f"ab_test_{key}": value for key, value in given.items() if value is not None}


def ab_test(web: Application, provider: Provider, state: str, *arguments: str, fails: bool = False, **more: Any) -> str:
    """Run the playbook, and return what it printed."""
    return released(web, PLAYBOOK, variables(web, provider, state=state, **more), *arguments, fails=fails)


def kill_after(process: subprocess.Popen[str], task: str) -> None:
    """Kill a run when it has begun a task."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("TASK") and task in line:
            break
    else:
        pytest.fail(f"the run ended without the task {task}")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("provider", PROVIDERS, ids=str)
def test_a_test_that_a_wins_and_one_that_b_wins_lose_no_request(web: Application, provider: Provider) -> None:
    before = lead(web, provider)
    foreseen = ab_test(web, provider, "started", "--check", "--diff")
    assert changed(foreseen) > 0 and "would run as web-b beside web" in foreseen and web.state(KINDS[provider.name]) == before
    with web.traffic_at(provider.router, 120) as everybody, web.traffic_at(provider.router, 80, **BETA) as audience:
        ab_test(web, provider, "started")
        assert set(web.ask(provider.router, 100, **BETA)) == {"2.0.0"} and set(web.ask(provider.router, 100)) == {"1.0.0"}
        assert changed(ab_test(web, provider, "started")) == 0
        reported = ab_test(web, provider, "reported")
        assert changed(reported) == 0
        assert re.search(r"a +200 requests, 0 failed, .* answered by 1\.0\.0", reported), reported
        assert re.search(r"b +200 requests, 0 failed, .* answered by 2\.0\.0", reported), reported
        ab_test(web, provider, "ended", winner="a")
        assert web.state(KINDS[provider.name]) == before and web.image() == "1.0.0"
        assert changed(ab_test(web, provider, "ended", winner="a")) == 0
        # A share of the users this time; who sends the header is one of them.
        ab_test(web, provider, "started", weight=50, headers=None)
        ab_test(web, provider, "ended", winner="b", weight=50, headers=None)
        assert changed(ab_test(web, provider, "ended", winner="b")) == 0
    for seen in (everybody.seen, audience.seen):
        assert seen["failed"] == 0 and set(seen["versions"]) == {"1.0.0", "2.0.0"}, seen
    assert web.state(KINDS[provider.name]) == before
    assert web.image() == "2.0.0" and set(web.ask(provider.router, 50)) == {"2.0.0"}


KILLED = {
    "before it has pods": ("started", "There is a Service", "1.0.0"),
    "before the audience": ("started", "Verify", "1.0.0"),
    "after the audience": ("started", "Start | Report", "1.0.0"),
    "before the image goes onto stable": ("ended", "The image goes onto web", "2.0.0"),
    "while stable rolls": ("ended", "The rollout is complete", "2.0.0"),
    "before the audience is taken off": ("ended", "Rollback", "2.0.0"),
    "before the pods go": ("ended", "Its Deployment is gone", "2.0.0"),
}


def test_a_run_that_is_killed_is_finished_by_the_next(web: Application) -> None:
    before = lead(web, ISTIO)
    given = {"probe": None, "lock_ttl": 1, "settle": 1}
    with web.traffic_at("istio", 100) as everybody, web.traffic_at("istio", 50, **BETA) as audience:
        for state, task, image in KILLED.values():
            if state == "ended":
                ab_test(web, ISTIO, "started", **given)
            kill_after(starting(PLAYBOOK, variables(web, ISTIO, state=state, winner="b", **given)), task)
            time.sleep(1)
            ab_test(web, ISTIO, state, winner="b", **given)
            if state == "ended":
                assert web.image() == image
                web.playbook(
                    "progressive.delivery.rollback",
                    {"rollback_kubeconfig": web.kubeconfig, "rollback_namespace": web.namespace, "rollback_name": "web"},
                )
            else:
                assert set(web.ask("istio", 50, **BETA)) == {"2.0.0"}
                ab_test(web, ISTIO, "ended", winner="a", **given)
            assert web.state("VirtualService") == before and web.image() == "1.0.0"
    assert everybody.seen["failed"] == audience.seen["failed"] == 0, (everybody.seen, audience.seen)


def test_the_way_back_leads_to_what_a_ran_last_whatever_else_is_wrong(web: Application) -> None:
    before = lead(web, TRAEFIK)
    with web.traffic_at("traefik", 80) as everybody, web.traffic_at("traefik", 40, **BETA) as audience:
        ab_test(web, TRAEFIK, "started", probe=None)
        # B keeps what somebody has added, and a release of A meanwhile is not undone.
        web.step(scale, name="web-b", replicas=3)
        web.step(set_image, name="web", images={"*": f"{IMAGE}:3.0.0"})
        web.wait_for("web-b")
        web.wait_for("web")
        assert changed(ab_test(web, TRAEFIK, "started", probe=None)) == 0
        assert web.get("Deployment", "web-b")["spec"]["replicas"] == 3
        # B's image is on A when the run is killed; one of another state holds the lock, and B is no copy any more.
        kill_after(
            starting(PLAYBOOK, variables(web, TRAEFIK, state="ended", winner="b", lock_ttl=1, probe=None)), "The rollout is complete"
        )
        kill_after(starting(PLAYBOOK, variables(web, TRAEFIK, state="started", probe=None)), "Validate | The Deployment")
        assert web.image() == "2.0.0"
        web.cluster.patch(web.ref("Deployment", "web-b"), {"metadata": {"annotations": {COPIED_FROM: None}}}, MERGE_PATCH)
        nobody = {"url": web.base("traefik")}
        wrong = {"image": f"{IMAGE}:9.9.9", "probe": nobody, "webhooks": [{"url": "nowhere"}]}
        assert 'is held by "A/B test of web, started"' in ab_test(web, TRAEFIK, "ended", winner="b", fails=True)
        ended = " ".join(ab_test(web, TRAEFIK, "ended", winner="a", fails=True, **wrong).split())
        assert "could not be measured that nobody gets web-b, so it is waited for: probe needs" in ended, ended
        assert "/web-b is not a copy of" in ended and "the route leads nobody to web-b any more, but it is there still" in ended, ended
        assert web.image() == "3.0.0" and web.get("Deployment", "web-b")["spec"]["replicas"] == 3
        assert web.state("HTTPRoute")["HTTPRoute"] == before["HTTPRoute"]
        assert set(web.ask("traefik", 50, **BETA)) == {"3.0.0"}
        web.cluster.delete(web.ref("Deployment", "web-b"))
        assert changed(ab_test(web, TRAEFIK, "ended", winner="a")) == 0
    assert everybody.seen["failed"] == audience.seen["failed"] == 0, (everybody.seen, audience.seen)
    assert web.state("HTTPRoute") == before


def test_an_image_that_is_no_good_is_taken_back_by_itself(web: Application) -> None:
    before = lead(web, TRAEFIK)
    with web.traffic_at("traefik", 50, **BETA) as traffic:
        refused = ab_test(web, TRAEFIK, "started", image=f"{IMAGE}:broken-500", fails=True)
        assert "status 500 instead of 200" in refused and "all traffic is on web, which is as it was, and B is gone" in refused
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}
    assert web.state("HTTPRoute") == before


def test_what_cannot_be_is_said_in_one_sentence_and_changes_nothing(web: Application) -> None:
    before = lead(web, TRAEFIK)
    refused = {
        "so A and B would be the same": {"image": f"{IMAGE}:1.0.0"},
        "nothing says who gets B": {"headers": {}},
        'header name "X Beta" is not valid': {"headers": {"X Beta": "yes"}},
        "weight must be between 1 and 99, got 100": {"headers": None, "weight": 100},
        "HTTPRoute .* does not exist": {"route": "nope"},
        "nothing has won": {"state": "ended", "winner": "b"},
        "no A/B test of web is under way": {"state": "reported"},
    }
    for sentence, given in refused.items():
        output = ab_test(web, TRAEFIK, str(given.pop("state", "started")), fails=True, **given)
        assert re.search(sentence, " ".join(output.split())), output
        assert web.state("HTTPRoute") == before
    ab_test(web, TRAEFIK, "started", probe=None)
    other = ab_test(web, TRAEFIK, "started", image=f"{IMAGE}:3.0.0", fails=True)
    assert "podinfo:2.0.0 is being tested against web with an audience" in " ".join(other.split())
    # Another audience takes the place of the one that is there.
    ab_test(web, TRAEFIK, "started", headers={"X-Beta": "no"})
    assert set(web.ask("traefik", 20, x_beta="no")) == {"2.0.0"} and set(web.ask("traefik", 20, **BETA)) == {"1.0.0"}
    # A would lose all its pods at once while everybody else is there.
    web.cluster.patch(web.ref("Deployment", "web"), {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}, MERGE_PATCH)
    outage = r"may lose all its pods at once when the image of B goes onto it \(Recreate\)"
    assert re.search(outage, " ".join(ab_test(web, TRAEFIK, "ended", winner="b", fails=True).split())) and web.image() == "1.0.0"
    ab_test(web, TRAEFIK, "ended", winner="a")
    assert re.search(outage, " ".join(ab_test(web, TRAEFIK, "started", fails=True).split()))
    assert web.state("HTTPRoute") == before
