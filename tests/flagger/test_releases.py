# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that Flagger drives on a real cluster, under continuous traffic, with the metrics that Prometheus has of it."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import abort_canary, set_image, wait_canary
from support.flagged import ERRORS, IMAGE, SUCCESS, Flagged, gate, metric, template
from support.releasing import changed, released, starting

pytestmark = [pytest.mark.cluster]

PLAYBOOK = "progressive.delivery.flagger_release"


def lines_of(output: str) -> list[str]:
    """Return the lines of progress in what a playbook printed."""
    return [line.strip() for line in output.splitlines() if " s  " in line]


def test_a_canary_on_traefik_is_promoted_through_its_steps_by_real_metrics(flagged: Flagged) -> None:
    flagged.create(template("success", SUCCESS))
    built_in = {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "10s"}
    flagged.begin("traefik", metrics=[metric("success", min=99), built_in])
    with flagged.traffic_at("traefik") as traffic:
        output = released(flagged, PLAYBOOK, flagged.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"} and set(flagged.ask("traefik")) == {"2.0.0"}
    told = "\n".join(lines_of(output))
    for words in ("weight 20 of 50", "weight 50 of 50", "Promoting", "Finalising", "Succeeded"):
        assert words in told, told
    assert flagged.image("web-primary") == "2.0.0" and flagged.phase() == "Succeeded"
    again = released(flagged, PLAYBOOK, flagged.release("2.0.0"))
    assert changed(again) == 0
    assert changed(released(flagged, PLAYBOOK, flagged.release("2.0.0"), "--check")) == 0
    foreseen = released(flagged, PLAYBOOK, flagged.release("3.0.0"), "--check", "--diff")
    assert changed(foreseen) == 2 and flagged.image() == "2.0.0"
    assert changed(released(flagged, PLAYBOOK, flagged.release("", flagger_release_state="aborted"))) == 0


def test_a_canary_on_istio_is_promoted_through_its_steps_by_the_application_s_metrics(flagged: Flagged) -> None:
    flagged.create(template("success", SUCCESS))
    flagged.begin("istio", metrics=[metric("success", min=99)])
    with flagged.traffic_at("istio") as traffic:
        output = released(flagged, PLAYBOOK, flagged.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"} and set(flagged.ask("istio")) == {"2.0.0"}
    assert "weight 50 of 50" in output and flagged.image("web-primary") == "2.0.0"


def test_a_canary_is_taken_back_for_its_error_rate_and_the_image_is_put_back(flagged: Flagged) -> None:
    flagged.create(template("errors", ERRORS))
    flagged.begin("traefik", metrics=[metric("errors", max=5)])
    with flagged.traffic_at("traefik") as traffic:
        output = released(flagged, PLAYBOOK, flagged.release("broken-500"), fails=True)
        time.sleep(2)
    assert "metric errors was 100.00 > 5 (its threshold is 2 failed checks)" in output, output
    assert "all traffic is on web-primary, which runs localhost:32000/podinfo:1.0.0, and web has its image again" in output
    assert set(traffic.seen["errors"]) == {"status 500"}, traffic.seen
    assert set(flagged.ask("traefik")) == {"1.0.0"}
    assert flagged.image() == flagged.image("web-primary") == "1.0.0" and flagged.phase() == "Failed"
    # Flagger has seen that the image is back, so the same image would be tried again.
    found = flagged.step(wait_canary, name="web")
    assert found["outcome"] == "unchanged", found


def test_a_release_stops_at_a_gate_and_goes_on_when_it_is_opened(flagged: Flagged) -> None:
    flagged.ask_gate("close")
    flagged.begin("traefik", webhooks=[gate("ask", "confirm-promotion")])
    with flagged.traffic_at("traefik") as traffic:
        output = released(flagged, PLAYBOOK, flagged.release("2.0.0", flagger_release_at_gate="end"))
        assert "stands at the gate confirm-promotion (ask)" in output, output
        assert flagged.phase() == "WaitingPromotion" and flagged.image("web-primary") == "1.0.0"
        flagged.ask_gate("open")
        released(flagged, PLAYBOOK, flagged.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert flagged.phase() == "Succeeded" and set(flagged.ask("traefik")) == {"2.0.0"}


def test_an_a_b_test_by_header(flagged: Flagged) -> None:
    match = [{"headers": {"x-group": {"exact": "b"}}}]
    flagged.begin("traefik", iterations=2, match=match)
    found: dict[str, Any] = {}

    def watch() -> None:
        deadline = time.monotonic() + 200
        while not found and time.monotonic() < deadline:
            if flagged.get("Canary", "web")["status"].get("iterations"):
                time.sleep(2)
                found.update(b=flagged.ask("traefik", 20, x_group="b"), a=flagged.ask("traefik", 20))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with flagged.traffic_at("traefik") as traffic, flagged.traffic_at("traefik", x_group="b") as audience:
        output = released(flagged, PLAYBOOK, flagged.release("2.0.0"))
    watcher.join()
    assert traffic.seen["failed"] == audience.seen["failed"] == 0, (traffic.seen, audience.seen)
    assert set(found["b"]) == {"2.0.0"} and set(found["a"]) == {"1.0.0"}, found
    assert "iteration 2 of 2" in output and flagged.image("web-primary") == "2.0.0"


def test_a_blue_green_with_copies_of_the_requests(flagged: Flagged) -> None:
    flagged.create(template("success", SUCCESS))
    flagged.begin("istio", iterations=2, mirror=True, metrics=[metric("success", min=99)])
    with flagged.traffic_at("istio") as traffic:
        output = released(flagged, PLAYBOOK, flagged.release("2.0.0"))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert "iteration 2 of 2" in output and flagged.image("web-primary") == "2.0.0" and set(flagged.ask("istio")) == {"2.0.0"}


def test_a_bad_version_that_only_gets_copies_costs_no_request(flagged: Flagged) -> None:
    flagged.create(template("success", SUCCESS))
    flagged.begin("istio", iterations=2, mirror=True, metrics=[metric("success", min=99)])
    with flagged.traffic_at("istio") as traffic:
        output = released(flagged, PLAYBOOK, flagged.release("broken-500"), fails=True)
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    assert "metric success had no values" in output, output
    assert flagged.image() == "1.0.0"


def test_a_release_is_taken_back_by_hand_and_the_same_image_is_tried_again(flagged: Flagged) -> None:
    flagged.begin("traefik", stepWeights=[20, 30, 40, 50, 60])
    with flagged.traffic_at("traefik") as traffic:
        assert "failed" not in flagged.step(set_image, name="web", images={"*": f"{IMAGE}:2.0.0"})
        weighs(flagged, 20)
        foreseen = released(flagged, PLAYBOOK, flagged.release("", flagger_release_state="aborted"), "--check")
        assert changed(foreseen) == 2 and flagged.phase() == "Progressing"
        released(flagged, PLAYBOOK, flagged.release("", flagger_release_state="aborted"))
        assert flagged.phase() == "Failed" and flagged.image() == "1.0.0"
        assert changed(released(flagged, PLAYBOOK, flagged.release("", flagger_release_state="aborted"))) == 0
        assert "failed" not in flagged.step(set_image, name="web", images={"*": f"{IMAGE}:2.0.0"})
        weighs(flagged, 20)
        assert "failed" not in flagged.step(abort_canary, name="web")
    assert traffic.seen["failed"] == 0, traffic.seen


def weighs(flagged: Flagged, weight: int, timeout: float = 90) -> None:
    """Wait until Flagger sends so many percent to the canary."""
    deadline = time.monotonic() + timeout
    while (flagged.get("Canary", "web").get("status") or {}).get("canaryWeight", 0) < weight:
        assert time.monotonic() < deadline, flagged.get("Canary", "web")["status"]
        time.sleep(0.3)


def test_pods_that_cannot_start_end_a_release_at_once(flagged: Flagged) -> None:
    flagged.begin("traefik")
    with flagged.traffic_at("traefik", 50) as traffic:
        began = time.monotonic()
        output = released(flagged, PLAYBOOK, flagged.release("no-such-tag"), fails=True)
        took = time.monotonic() - began
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0"}, traffic.seen
    assert "the pods of web will not become ready" in output and "has its image again" in output, output
    assert flagged.image() == "1.0.0" and flagged.phase() == "Failed" and took < 110, took


def test_a_run_that_was_killed_is_gone_on_with(flagged: Flagged) -> None:
    flagged.begin("traefik")
    with flagged.traffic_at("traefik", 50) as traffic:
        process = starting(PLAYBOOK, flagged.release("2.0.0"))
        weighs(flagged, 20)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        other = released(flagged, PLAYBOOK, flagged.release("3.0.0", flagger_release_lock=False), fails=True)
        assert "localhost:32000/podinfo:2.0.0 is being released to web" in other, other
        released(flagged, PLAYBOOK, flagged.release("2.0.0", flagger_release_lock=False))
    assert traffic.seen["failed"] == 0, traffic.seen
    assert flagged.image("web-primary") == "2.0.0"


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"flagger_release_canary": ""}, "flagger_release_canary is empty"),
    ({"flagger_release_canary": "nope"}, "does not exist; Canaries in namespace"),
    ({"flagger_release_image": ""}, "flagger_release_image is missing"),
    ({"flagger_release_container": "nope"}, "nope"),
    ({"flagger_release_timeout": 0}, "flagger_release_timeout (0)"),
    ({"flagger_release_pickup_timeout": "soon"}, "flagger_release_pickup_timeout (soon)"),
    ({"flagger_release_expected_context": "production"}, "production"),
]


def test_what_cannot_be_is_refused_before_anything_is_changed(flagged: Flagged) -> None:
    flagged.begin("traefik")
    before = flagged.get("Deployment", "web")["metadata"]["generation"]
    said = flagged.refusals("flagger_release", [{**flagged.release("2.0.0"), **given} for given, _words in REFUSALS])
    for (given, words), sentence in zip(REFUSALS, said, strict=True):
        assert words in sentence, (given, sentence)
    flagged.set(suspend=True)
    assert "is suspended" in flagged.refusals("flagger_release", [flagged.release("2.0.0")])[0]
    assert flagged.get("Deployment", "web")["metadata"]["generation"] == before and flagged.image() == "1.0.0"
