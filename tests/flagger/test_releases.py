# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that Flagger drives on a real cluster, under continuous traffic, with the metrics that Prometheus has of it."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import abort_canary, set_image, wait_canary
from support.followed import ERRORS, IMAGE, SUCCESS, Followed, application, gate, metric, template
from support.guides import follow
from support.releasing import changed, released, starting

pytestmark = [pytest.mark.cluster]

PLAYBOOK = "progressive.delivery.flagger_release"


@pytest.fixture
def web(flagger: str) -> Iterator[Followed]:
    """Return an empty namespace; what is released there is made by the test."""
    with Followed(flagger) as found:
        yield found


def lines_of(output: str) -> list[str]:
    """Return the lines of progress in what a playbook printed."""
    return [line.strip() for line in output.splitlines() if " s  " in line]


def test_a_canary_on_traefik_is_promoted_through_its_steps_by_real_metrics(web: Followed) -> None:
    web.create(template("success", SUCCESS))
    built_in = {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "10s"}
    web.begin("traefik", metrics=[metric("success", min=99), built_in])
    with web.users() as traffic:
        output = released(web, PLAYBOOK, web.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"} and set(web.ask("traefik")) == {"2.0.0"}
    told = "\n".join(lines_of(output))
    for words in ("weight 20 of 50", "weight 50 of 50", "Promoting", "Finalising", "Succeeded"):
        assert words in told, told
    assert web.image("web-primary") == "2.0.0" and web.phase() == "Succeeded"
    again = released(web, PLAYBOOK, web.release("2.0.0"))
    assert changed(again) == 0
    assert changed(released(web, PLAYBOOK, web.release("2.0.0"), "--check")) == 0
    foreseen = released(web, PLAYBOOK, web.release("3.0.0"), "--check", "--diff")
    assert changed(foreseen) == 2 and web.image() == "2.0.0"
    assert changed(released(web, PLAYBOOK, web.release("", flagger_release_state="aborted"))) == 0


def test_a_canary_on_istio_is_promoted_through_its_steps_by_the_application_s_metrics(web: Followed) -> None:
    web.create(template("success", SUCCESS))
    web.begin("istio", metrics=[metric("success", min=99)])
    with web.users() as traffic:
        output = released(web, PLAYBOOK, web.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"} and set(web.ask("istio")) == {"2.0.0"}
    assert "weight 50 of 50" in output and web.image("web-primary") == "2.0.0"


def test_a_canary_is_taken_back_for_its_error_rate_and_the_image_is_put_back(web: Followed) -> None:
    web.create(template("errors", ERRORS))
    web.begin("traefik", metrics=[metric("errors", max=5)])
    with web.users() as traffic:
        output = released(web, PLAYBOOK, web.release("broken-500"), fails=True)
        time.sleep(2)
    assert re.search(r"metric errors was \d+\.\d+ > 5 \(its threshold is 2 failed checks\)", output), output
    assert "all traffic is on web-primary, which runs localhost:32000/podinfo:1.0.0, and web has its image again" in output
    assert set(traffic.seen["errors"]) == {"status 500"}, traffic.seen
    assert set(web.ask("traefik")) == {"1.0.0"}
    assert web.image() == web.image("web-primary") == "1.0.0" and web.phase() == "Failed"
    # Flagger has seen that the image is back, so the same image would be tried again.
    found = web.step(wait_canary, name="web")
    assert found["outcome"] == "unchanged", found


def test_a_release_stops_at_a_gate_and_goes_on_when_it_is_opened(web: Followed) -> None:
    web.ask_gate("close")
    web.begin("traefik", webhooks=[gate("ask", "confirm-promotion")])
    with web.users() as traffic:
        # As on another host: in slices, with what was seen printed after each.
        output = released(web, PLAYBOOK, web.release("2.0.0", flagger_release_at_gate="end", delivery_door="module"))
        assert "weight 20 of 50" in output or "weight 50 of 50" in output, output
        assert "stands at the gate confirm-promotion (ask)" in output, output
        assert web.phase() == "WaitingPromotion" and web.image("web-primary") == "1.0.0"
        web.ask_gate("open")
        released(web, PLAYBOOK, web.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert web.phase() == "Succeeded" and set(web.ask("traefik")) == {"2.0.0"}


def test_an_a_b_test_by_header(web: Followed) -> None:
    match = [{"headers": {"x-group": {"exact": "b"}}}]
    web.begin("traefik", iterations=2, match=match)
    found: dict[str, Any] = {}

    def watch() -> None:
        deadline = time.monotonic() + 200
        while not found and time.monotonic() < deadline:
            if web.get("Canary", "web")["status"].get("iterations"):
                time.sleep(2)
                found.update(b=web.ask("traefik", 20, x_group="b"), a=web.ask("traefik", 20))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with web.users() as traffic, web.users(x_group="b") as audience:
        output = released(web, PLAYBOOK, web.release("2.0.0"))
    watcher.join()
    assert traffic.seen["failed"] == audience.seen["failed"] == 0, (traffic.seen, audience.seen)
    assert set(found["b"]) == {"2.0.0"} and set(found["a"]) == {"1.0.0"}, found
    assert "iteration 2 of 2" in output and web.image("web-primary") == "2.0.0"


def test_a_blue_green_with_copies_of_the_requests(web: Followed) -> None:
    web.create(template("success", SUCCESS))
    web.begin("istio", iterations=2, mirror=True, metrics=[metric("success", min=99)])
    with web.users() as traffic:
        output = released(web, PLAYBOOK, web.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert "iteration 2 of 2" in output and web.image("web-primary") == "2.0.0" and set(web.ask("istio")) == {"2.0.0"}


def test_a_bad_version_that_only_gets_copies_costs_no_request(web: Followed) -> None:
    web.create(template("success", SUCCESS))
    web.begin("istio", iterations=2, mirror=True, metrics=[metric("success", min=99)])
    with web.users() as traffic:
        output = released(web, PLAYBOOK, web.release("broken-500"), fails=True)
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    assert "metric success had no values" in output, output
    assert web.image() == "1.0.0"


def test_a_release_is_taken_back_by_hand_and_the_same_image_is_tried_again(web: Followed) -> None:
    web.begin("traefik", stepWeights=[20, 30, 40, 50, 60])
    with web.users() as traffic:
        assert "failed" not in web.step(set_image, name="web", images={"*": f"{IMAGE}:2.0.0"})
        weighs(web, 20)
        foreseen = released(web, PLAYBOOK, web.release("", flagger_release_state="aborted"), "--check")
        assert changed(foreseen) == 2 and web.phase() == "Progressing"
        released(web, PLAYBOOK, web.release("", flagger_release_state="aborted"))
        assert web.phase() == "Failed" and web.image() == "1.0.0"
        assert changed(released(web, PLAYBOOK, web.release("", flagger_release_state="aborted"))) == 0
        assert "failed" not in web.step(set_image, name="web", images={"*": f"{IMAGE}:2.0.0"})
        weighs(web, 20)
        assert "failed" not in web.step(abort_canary, name="web")
    assert traffic.seen["failed"] == 0, traffic.seen


def weighs(web: Followed, weight: int, timeout: float = 90) -> None:
    """Wait until Flagger sends so many percent to the canary."""
    deadline = time.monotonic() + timeout
    while (web.get("Canary", "web").get("status") or {}).get("canaryWeight", 0) < weight:
        assert time.monotonic() < deadline, web.get("Canary", "web")["status"]
        time.sleep(0.3)


def test_pods_that_cannot_start_end_a_release_at_once(web: Followed) -> None:
    web.begin("traefik")
    with web.users(50) as traffic:
        began = time.monotonic()
        output = released(web, PLAYBOOK, web.release("no-such-tag"), fails=True)
        took = time.monotonic() - began
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    assert "the pods of web will not become ready" in output and "has its image again" in output, output
    assert web.image() == "1.0.0" and web.phase() == "Failed" and took < 110, took


def test_a_run_that_was_killed_is_gone_on_with(web: Followed) -> None:
    web.begin("traefik", stepWeights=[20, 30, 40, 50])
    with web.users(50) as traffic:
        process = starting(PLAYBOOK, web.release("2.0.0"))
        weighs(web, 20)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert "held by" in released(web, PLAYBOOK, web.release("3.0.0"), fails=True)
        other = released(web, PLAYBOOK, web.release("3.0.0", flagger_release_lock=False), fails=True)
        assert "localhost:32000/podinfo:2.0.0 is being released to web" in other, other
        released(web, PLAYBOOK, web.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert web.image("web-primary") == "2.0.0"


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"flagger_release_canary": ""}, "flagger_release_canary is empty"),
    ({"flagger_release_canary": "nope"}, "does not exist; Canaries in namespace"),
    ({"flagger_release_image": ""}, "flagger_release_image is missing"),
    ({"flagger_release_container": "nope"}, "nope"),
    ({"flagger_release_timeout": 0}, "flagger_release_timeout (0)"),
    ({"flagger_release_pickup_timeout": "soon"}, "flagger_release_pickup_timeout (soon)"),
    ({"flagger_release_expected_context": "production"}, "production"),
]


def test_what_cannot_be_is_refused_before_anything_is_changed(web: Followed) -> None:
    web.begin("traefik")
    before = web.get("Deployment", "web")["metadata"]["generation"]
    said = web.refusals("flagger_release", [{**web.release("2.0.0"), **given} for given, _words in REFUSALS])
    for (given, words), sentence in zip(REFUSALS, said, strict=True):
        assert words in sentence, (given, sentence)
    web.set(suspend=True)
    assert "is suspended" in web.refusals("flagger_release", [web.release("2.0.0")])[0]
    assert web.get("Deployment", "web")["metadata"]["generation"] == before and web.image() == "1.0.0"


def test_commands_of_the_guide_run_as_they_stand(web: Followed, tmp_path: Path) -> None:
    web.create(application())
    # An analysis needs requests; they are answered from the moment at which the route is there.
    with web.users(50):
        follow("flagger.md", web, tmp_path)
    assert set(web.ask("traefik")) == {"2.0.0"} and web.image() == web.image("web-primary") == "2.0.0"
