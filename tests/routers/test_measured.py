# SPDX-License-Identifier: GPL-3.0-or-later
"""set_canary_weight with a probe: it ends when the data plane really does the weight, and says after how long."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import set_canary_weight
from support.routed import CANARY, STABLE, Provider, Routed

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


def test_a_data_plane_that_does_not_do_it_is_told(shared: Routed, provider: Provider) -> None:
    if provider.name != "gateway_api":
        pytest.skip("once a router is enough")
    shared.clear()
    shared.route(provider, 0)
    given = {"provider": provider.name, "name": "web", "stable": "stable", "canary": "canary", "wait_timeout": 2}
    # The probe asks a path that the application does not know, so that nobody tells a version.
    wrong = {**probe(shared, provider), "url": f"{shared.base(provider.router)}/nowhere"}
    failed = shared.step(set_canary_weight, **given, weight=50, probe=wrong)
    assert failed["failed"] and failed["reason"] == "NotSettled" and failed["changed"], failed
    assert failed["measured"]["requests"] and failed["measured"]["failed"] == failed["measured"]["requests"]
    assert f"HTTPRoute {shared.namespace}/web asks for 50 % to the canary, and 2 s later 0.0 % of the requests" in failed["msg"]
