# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole shadow runs through real routers, under continuous traffic: compared, refused by what they are, killed, and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.live import BIN, ROOT, clean_environment
from support.releasing import KINDS, Application, changed, released
from support.routed import IMAGE, PROVIDERS, Provider

pytestmark = pytest.mark.cluster
MIRRORING = [entry for entry in PROVIDERS if entry.name != "ingress_nginx" and str(entry) != "gateway_api-traefik"]
TRAEFIK = Provider("traefik", "traefik")
PLAYBOOK = "progressive.delivery.shadow"


@pytest.fixture
def web(routed_kubeconfig: str) -> Iterator[Application]:
    """Return a namespace with the application in version 1.0.0, without a route."""
    with Application(routed_kubeconfig) as found:
        found.deploy()
        yield found


def variables(web: Application, provider: Provider, image: str = "2.0.0", **more: Any) -> dict[str, Any]:
    """Return the variables of a run."""
    given = {
        "kubeconfig": web.kubeconfig,
        "namespace": web.namespace,
        "provider": provider.name,
        "route": "web",
        "stable": "web",
        "image": f"{IMAGE}:{image}",
        "duration": 6,
        "interval": 2,
        "timeout": 60,
        # Two cores, and others at work on them: an answer that takes 2 ms may take 30.
        "latency_grace": 100,
        "smoke_tests": [{"path": "/healthz"}],
        **more,
    }
    return {f"shadow_{key}": value for key, value in given.items()}


def shadow(web: Application, provider: Provider, *arguments: str, fails: bool = False, **more: Any) -> str:
    """Run the playbook, and return what it printed."""
    return released(web, PLAYBOOK, variables(web, provider, **more), *arguments, fails=fails)


def state(web: Application, provider: Provider) -> dict[str, Any]:
    """Return what a run may change and must leave as it was."""
    return {**web.state(KINDS[provider.name]), "TraefikService": web.names("TraefikService")}


@pytest.mark.parametrize("provider", MIRRORING, ids=str)
def test_a_shadow_is_compared_and_gone_without_a_lost_request(web: Application, provider: Provider) -> None:
    web.lead(provider)
    before = state(web, provider)
    foreseen = shadow(web, provider, "--check", "--diff")
    assert changed(foreseen) > 0 and "would be copied to web-shadow" in foreseen and state(web, provider) == before
    with web.traffic_at(provider.router) as traffic:
        output = shadow(web, provider)
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    told = {side: int(count) for side, count in re.findall(r"(baseline|candidate) web\S*: (\d+) requests", output)}
    assert told["baseline"] > 600 and abs(told["candidate"] - told["baseline"]) < told["baseline"] * 0.25, output
    assert state(web, provider) == before and web.image() == "1.0.0"
    assert changed(shadow(web, provider, state="ended")) == 0


def test_one_by_one_and_each_of_them_once(web: Application) -> None:
    web.lead(TRAEFIK)
    before = state(web, TRAEFIK)
    with web.traffic_at("traefik") as traffic:
        assert changed(shadow(web, TRAEFIK, state="started", percent=50)) > 0
        assert web.names("Deployment") == ["web", "web-shadow"] and web.image("web-shadow") == "2.0.0"
        assert changed(shadow(web, TRAEFIK, state="started", percent=50)) == 0
        assert changed(shadow(web, TRAEFIK, "--check", state="started", percent=50)) == 0
        assert changed(shadow(web, TRAEFIK, state="compared", percent=50)) == 0
        foreseen = shadow(web, TRAEFIK, "--check", state="ended")
        assert changed(foreseen) > 0 and web.names("Service") == ["foreign", "web", "web-shadow"]
        assert changed(shadow(web, TRAEFIK, state="ended")) > 0
        assert state(web, TRAEFIK) == before
        assert changed(shadow(web, TRAEFIK, state="ended")) == 0
    assert traffic.seen["failed"] == 0, traffic.seen


@pytest.mark.parametrize(
    ("image", "more", "reason"),
    [
        ("broken-ready", {"timeout": 12}, "web-shadow"),
        ("broken-500", {"smoke_tests": [{"path": "/version", "retries": 0}]}, "status 500 instead of 200"),
        ("broken-crash", {}, "web-shadow"),
    ],
)
def test_an_image_that_does_not_run_gets_no_copies_and_is_gone(web: Application, image: str, more: dict[str, Any], reason: str) -> None:
    web.lead(TRAEFIK)
    before = state(web, TRAEFIK)
    with web.traffic_at("traefik", 50) as traffic:
        output = shadow(web, TRAEFIK, image=image, fails=True, **more)
    assert reason in output and "web and web are as they were, and the shadow is gone" in output, output
    assert state(web, TRAEFIK) == before and traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}


def test_a_shadow_that_counts_nothing_says_nothing_and_is_held_where_that_is_asked_for(web: Application) -> None:
    # It answers 500 to everything, its page of metrics too.
    web.lead(TRAEFIK)
    before = state(web, TRAEFIK)
    with web.traffic_at("traefik") as traffic:
        output = shadow(web, TRAEFIK, image="broken-500", on_failure="hold", smoke_tests=[], fails=True)
        assert "the candidate answered 0 requests and 20 are needed" in output and "the shadow stays as it is" in output, output
        assert web.names("Deployment") == ["web", "web-shadow"]
        shadow(web, TRAEFIK, state="ended")
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    assert state(web, TRAEFIK) == before


def test_a_run_that_is_killed_is_finished_by_the_next(web: Application) -> None:
    web.lead(TRAEFIK)
    before = state(web, TRAEFIK)
    with web.traffic_at("traefik") as traffic:
        process = subprocess.Popen(
            [str(BIN / "ansible-playbook"), PLAYBOOK, "-e", json.dumps(variables(web, TRAEFIK, duration=60))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=clean_environment(),
            cwd=ROOT,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while "web-mirror" not in web.names("TraefikService"):
            assert time.monotonic() < deadline, "it was not mirrored"
            time.sleep(0.2)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        refused = shadow(web, TRAEFIK, image="3.0.0", fails=True)
        assert "shadow finished of web with" in refused, refused
        shadow(web, TRAEFIK, lock=False)
        assert state(web, TRAEFIK) == before
    assert traffic.seen["failed"] == 0, traffic.seen


REFUSED = {
    "no image": ({"image_given": ""}, "shadow_image is missing"),
    "no share": ({"percent": 0}, "shadow_percent must be more than 0"),
    "too much": ({"percent": 101}, "shadow_percent must be more than 0 and 100 at most, got 101"),
    "no route": ({"route": "nope"}, "IngressRoute"),
    "no such Service": ({"service": "nope"}, "nope"),
    "metrics": ({"metrics": {"nonsense": 1}}, "shadow_metrics has nonsense"),
}


def test_bad_input_is_one_sentence_and_changes_nothing(web: Application) -> None:
    web.lead(TRAEFIK)
    before = state(web, TRAEFIK)
    for given, sentence in REFUSED.values():
        given = dict(given)
        if given.pop("image_given", None) is not None:
            done = web.playbook(PLAYBOOK, {**variables(web, TRAEFIK), "shadow_image": ""})
            assert done.returncode and sentence in done.stdout, done.stdout
            continue
        output = shadow(web, TRAEFIK, fails=True, **given)
        assert sentence in output and "changed=0" in output, output
    assert state(web, TRAEFIK) == before
