# SPDX-License-Identifier: GPL-3.0-or-later
"""set_canary_weight with a probe: it ends when the data plane really does the weight, and says after how long."""

from __future__ import annotations

import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import scale, set_canary_weight
from support.routed import CANARY, PROVIDERS, STABLE, Provider, Routed

pytestmark = pytest.mark.cluster


def probe(routed: Routed, provider: Provider) -> dict[str, Any]:
    """Return how the route is asked."""
    return {"url": f"{routed.base(provider.router)}/", "headers": {"Host": routed.host}, "version_field": "version", "canary": CANARY}


def test_a_step_ends_when_the_data_plane_does_the_weight(shared: Routed, provider: Provider) -> None:
    shared.clear()
    shared.route(provider, 0)
    given = {"provider": provider.name, "name": "web", "stable": "stable", "canary": "canary", "probe": probe(shared, provider)}
    with shared.traffic_at(provider.router) as traffic:
        for weight in (5, 20, 100, 99, 0):
            done = shared.step(set_canary_weight, **given, weight=weight)
            assert not done.get("failed") and done["changed"] and done["measured"]["failed"] == 0, done
            # Traefik takes up changes two seconds apart, by its own setting.
            assert done["settled"] < 10, done
            if weight in (0, 100):
                assert set(shared.ask(provider.router, 300)) == {CANARY if weight else STABLE}
        again = shared.step(set_canary_weight, **given, weight=0)
        assert not again["changed"] and again["settled"] is None and again["measured"]["share"] == 0, again
    assert traffic.seen["failed"] == 0, traffic.seen


@pytest.mark.parametrize("provider", [found for found in PROVIDERS if found.name == "gateway_api"], ids=str)
def test_a_data_plane_that_does_not_do_it_is_told(shared: Routed, provider: Provider) -> None:
    shared.clear()
    shared.route(provider, 0)
    given = {"provider": provider.name, "name": "web", "stable": "stable", "canary": "canary", "wait_timeout": 4}
    # The probe asks a path that the application does not know, so that nobody tells a version.
    wrong = {**probe(shared, provider), "url": f"{shared.base(provider.router)}/nowhere"}
    failed = shared.step(set_canary_weight, **given, weight=50, probe=wrong)
    assert failed["failed"] and failed["reason"] == "RequestsFail" and failed["changed"], failed
    assert failed["measured"]["requests"] and failed["measured"]["failed"] == failed["measured"]["requests"]
    assert f"HTTPRoute {shared.namespace}/web asks for 50 % to the canary, and 100 % of the requests fail (" in failed["msg"]
    # One that tells a version, but never the canary's.
    blind = {**probe(shared, provider), "canary": "9.9.9"}
    failed = shared.step(set_canary_weight, **given, weight=60, probe=blind)
    assert failed["failed"] and failed["reason"] == "NotSettled" and failed["changed"], failed
    assert f"HTTPRoute {shared.namespace}/web asks for 60 % to the canary, and 4 s later 0.0 % of the requests" in failed["msg"]


def test_a_canary_without_pods_costs_nobody_else_on_traefik(shared: Routed) -> None:
    shared.clear()
    entry = {"kind": "Rule", "match": f"Host(`{shared.host}`)", "services": [{"name": "stable", "port": 80}]}
    spec = {"entryPoints": ["web"], "routes": [entry]}
    shared.put({"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "web"}, "spec": spec})
    given = {"provider": "traefik", "name": "web", "stable": "stable", "canary": "canary"}
    there = {"url": f"{shared.base('traefik')}/", "headers": {"Host": shared.host}, "version_field": "version", "canary": CANARY}
    done = shared.step(set_canary_weight, **given, weight=20, probe=there)
    assert not done.get("failed"), done
    shared.step(scale, name="canary", replicas=0)
    try:
        # Traefik would drop the whole route, for all users, if it looked for the canary's pods itself. The node refuses a connection
        # to a Service without pods once a second (net.ipv4.icmp_ratelimit); until then the connection waits, up to Traefik's 30 s.
        deadline = time.monotonic() + 60
        while set(shared.ask("traefik", 20, timeout=40)) == {STABLE, CANARY}:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        seen = shared.ask("traefik", 30, timeout=40)
        assert seen[STABLE] >= 23 and "404" not in seen, seen
        failed = shared.step(set_canary_weight, **given, weight=50, force=True, probe=there)
        assert failed["reason"] == "RequestsFail" and "% of the requests fail (" in failed["msg"] and failed["duration"] < 20, failed
        back = shared.step(set_canary_weight, **given, weight=0, probe=there)
        assert not back.get("failed") and set(shared.ask("traefik", 100)) == {STABLE}, back
    finally:
        shared.step(scale, name="canary", replicas=1)
        shared.wait_for("canary")
