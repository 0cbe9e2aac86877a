# SPDX-License-Identifier: GPL-3.0-or-later
"""load_test through real routers, and what the observer sees of a change of weight beside what the data plane itself shows of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.load import Target, Teller, Traffic
from ansible_collections.progressive.delivery.plugins.module_utils.plan.load import Outcome
from ansible_collections.progressive.delivery.plugins.module_utils.watching_traffic import Probe, watch_share
from ansible_collections.progressive.delivery.plugins.modules import load_test
from support.routed import CANARY, PROVIDERS, STABLE, Provider, Routed, manifests

pytestmark = pytest.mark.cluster
GATEWAYS = [provider for provider in PROVIDERS if provider.name == "gateway_api"]


def load(routed: Routed, provider: Provider, path: str = "/", **given: Any) -> dict[str, Any]:
    """Run the step through a router."""
    return routed.step(load_test, url=routed.base(provider.router) + path, headers={"Host": routed.host}, **given)


@pytest.fixture(scope="module", params=GATEWAYS, ids=str)
def half(request: pytest.FixtureRequest, shared: Routed) -> tuple[Routed, Provider]:
    """Return a namespace with a route that sends 25 percent to the canary."""
    shared.clear()
    shared.route(request.param, 25)
    return shared, request.param


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept", "anew"])
@pytest.mark.parametrize("http_version", ["1.1", "2"])
def test_both_versions_of_http_on_connections_that_are_kept_or_not(
    half: tuple[Routed, Provider], http_version: str, keep_alive: bool
) -> None:
    common = {"requests": 400, "rate": 200, "version_field": "version", "http_version": http_version, "keep_alive": keep_alive}
    found = load(*half, **common, thresholds={"error_rate": 0, "p99": 10_000, "rps": 20})
    assert not found.get("failed") and found["requests"] == 400 and found["failures"] == 0, found
    counts = {name: entry["requests"] for name, entry in found["by_version"].items()}
    # Five standard deviations: Envoy draws for each request.
    assert set(counts) == {STABLE, CANARY} and abs(counts[CANARY] - 100) <= 45, counts
    assert 0 < found["p50"] <= found["p99"] <= found["max"]


def test_limits_that_do_not_hold_are_named(half: tuple[Routed, Provider]) -> None:
    found = load(*half, "/delay/1", requests=10, timeout=5, thresholds={"p50": 500, "error_rate": 0.01})
    assert found["failed"] and found["reason"] == "ThresholdMissed" and len(found["missed"]) == 1, found
    assert found["missed"][0].startswith("p50 is 1") and found["p50"] >= 1000


def test_errors_by_kind(half: tuple[Routed, Provider]) -> None:
    routed, provider = half
    assert load(*half, "/status/500", requests=20)["errors"] == {"status_500": 20}
    assert load(*half, "/delay/3", requests=4, timeout=0.5)["errors"] == {"timeout": 4}
    refused = routed.step(load_test, url=f"http://{routed.node}:30999/", requests=4)
    assert refused["errors"] == {"refused": 4} and refused["failed"] and refused["reason"] == "Unavailable"
    nowhere = routed.step(load_test, url=routed.base(provider.router), requests=4, headers={"Host": "nobody.example"})
    assert nowhere["errors"] == {"status_404": 4}


def probe(routed: Routed, provider: Provider, **given: Any) -> Probe:
    """Return how the route is asked; a machine that is busy with other tests may stand still for a second or two."""
    about = {"url": f"{routed.base(provider.router)}/", "headers": {"Host": routed.host}, "timeout": 5}
    return Probe.of({**about, "version_field": "version", "canary": CANARY, **given})


def marked(routed: Routed, provider: Provider, weight: int, mark: str) -> list[dict[str, Any]]:
    """Return the route with a weight, and with a response header that changes with it."""
    items = manifests(provider, routed.host, weight)
    if provider.name == "istio":
        items[-1]["spec"]["http"][-1]["headers"] = {"response": {"set": {"x-mark": mark}}}
    else:
        headers = {"set": [{"name": "x-mark", "value": mark}]}
        items[-1]["spec"]["rules"][-1]["filters"] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers}]
    return items


# The goal is 0.2 s; other tests run on the same two cores. From 99 on it takes some 800 requests: 0.99 ** 100 is 37 percent.
CHANGES = ((0, 5, 1.0), (5, 20, 1.0), (20, 50, 1.0), (50, 0, 1.0), (0, 99, 1.0), (99, 100, 5.0), (100, 0, 1.0))


@pytest.mark.parametrize("provider", [found for found in PROVIDERS if found.name in ("gateway_api", "istio")], ids=str)
def test_a_change_of_weight_is_measured_soon_after_the_data_plane_does_it(shared: Routed, provider: Provider) -> None:
    shared.clear()
    shared.put(*marked(shared, provider, 0, "start"))
    shared.route(provider, 0)
    for before, weight, most in CHANGES:
        mark, first = f"{before}-{weight}", []

        def take(outcome: Outcome, mark: str = mark, first: list[float] = first) -> None:
            if outcome.version == mark and not first:
                first.append(outcome.ended)

        # A second client: the header changes in the same write, and so tells when the data plane has it.
        target = Target(f"{shared.base(provider.router)}/", headers={"Host": shared.host}, timeout=2, teller=Teller("x-mark"))
        witness = Traffic(target, take, 8, 200, duration=30)
        witness.start()
        time.sleep(0.3)
        accepted = shared.put(*marked(shared, provider, weight, mark))
        seen = watch_share(probe(shared, provider), weight, 20, before=before)
        decided = time.monotonic()
        time.sleep(0.1)
        witness.stop()
        assert seen.settled and seen.failed == 0 and first, (before, weight, seen)
        there, added = first[0] - accepted, decided - first[0]
        print(f"\n{provider} {before:3} -> {weight:3}: data plane {there:.3f} s, added {added:.3f} s, {seen}", end="")
        assert -0.05 <= added <= most, (before, weight, added, seen)
        if weight in (0, 100):
            assert set(shared.ask(provider.router, 200)) == {CANARY if weight else STABLE}


def test_every_provider_settles_and_is_exact_at_the_ends(shared: Routed, provider: Provider) -> None:
    shared.clear()
    shared.route(provider, 0)
    for before, weight in ((0, 33), (33, 100), (100, 0)):
        shared.weigh(provider, weight)
        seen = watch_share(probe(shared, provider), weight, 20, before=before)
        assert seen.settled and seen.failed == 0, (before, weight, seen)
        if weight in (0, 100):
            assert set(shared.ask(provider.router, 300)) == {CANARY if weight else STABLE}
        else:
            assert abs(seen.share - weight) <= 20


def test_without_the_weight_before_it_is_measured_too(half: tuple[Routed, Provider]) -> None:
    for http2 in (False, True):
        seen = watch_share(probe(*half, http2=http2), 25, 20)
        assert seen.settled and abs(seen.share - 25) <= 5, seen
    assert not watch_share(probe(*half), 60, 2).settled


def test_a_canary_without_pods_is_not_taken_for_one_without_traffic(routed: Routed) -> None:
    provider = PROVIDERS[-1]
    routed.route(provider, 50)
    routed.cluster.patch(routed.ref("Deployment", "canary"), {"spec": {"replicas": 0}}, "application/merge-patch+json")
    deadline = time.monotonic() + 60
    while "503" not in routed.ask(provider.router, 20):
        assert time.monotonic() < deadline
    seen = watch_share(probe(routed, provider), 0, 1.5, before=50)
    assert not seen.settled and seen.failed > 50, seen
    routed.weigh(provider, 0)
    seen = watch_share(probe(routed, provider), 0, 20, before=50)
    assert seen.settled and seen.share == 0, seen
