# SPDX-License-Identifier: GPL-3.0-or-later
"""A blue-green release and its way back through each router, under traffic all the time, and what route_info tells then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import route_info, switch_color
from support.live import APPLICATION
from support.routed import GATEWAYS, STABLE, Provider, Routed, service

pytestmark = pytest.mark.cluster
Manifest = dict[str, Any]
# What a route leads to, with the Services web-blue and web-green or, for Istio, also the subsets blue and green of web.
SUBSETS = Provider("istio", "subsets")
VARIANTS = (
    Provider("gateway_api", "traefik"),
    Provider("gateway_api", "istio"),
    Provider("traefik", "traefik"),
    Provider("istio", "istio"),
    SUBSETS,
)


def routes(variant: Provider, host: str) -> list[Manifest]:
    """Return the route ``web`` to blue."""
    if variant.name == "gateway_api":
        namespace, gateway = GATEWAYS[variant.router]
        rules = [{"backendRefs": [{"name": "web-blue", "port": 80}]}]
        spec: Manifest = {"parentRefs": [{"name": gateway, "namespace": namespace}], "hostnames": [host], "rules": rules}
        return [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": spec}]
    if variant.name == "traefik":
        entry = {"kind": "Rule", "match": f"Host(`{host}`)", "services": [{"name": "web-blue", "port": 80}]}
        spec = {"entryPoints": ["web"], "routes": [entry]}
        return [{"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "web"}, "spec": spec}]
    destination = {"host": "web", "subset": "blue"} if variant == SUBSETS else {"host": "web-blue"}
    spec = {"hosts": [host], "gateways": ["istio-system/istio"], "http": [{"route": [{"destination": destination}]}]}
    subsets = [{"name": color, "labels": {"version": color}} for color in ("blue", "green")]
    api = "networking.istio.io/v1"
    return [
        {"apiVersion": api, "kind": "DestinationRule", "metadata": {"name": "web"}, "spec": {"host": "web", "subsets": subsets}},
        {"apiVersion": api, "kind": "VirtualService", "metadata": {"name": "web"}, "spec": spec},
    ]


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Provider:
    """Return each variant in turn."""
    return request.param


@pytest.fixture
def shop(routed_kubeconfig: str, variant: Provider) -> Iterator[Routed]:
    """Return a namespace with podinfo as web-blue, a Service for all of it and one for each color, and a route that answers."""
    with Routed(routed_kubeconfig) as found:
        found.apply(APPLICATION)
        for color in ("blue", "green"):
            found.create(service(f"web-{color}", {"app": "web", "version": color}))
        found.create(service("web", {"app": "web"}))
        found.put(*routes(variant, found.host))
        deadline = time.monotonic() + 30
        while set(found.ask(router(variant), 5)) != {STABLE}:
            assert time.monotonic() < deadline, f"{variant} does not route {found.host}"
            time.sleep(0.1)
        yield found


def router(variant: Provider) -> str:
    """Return which router reads the route."""
    return "istio" if variant == SUBSETS else variant.router


def test_a_release_and_its_way_back_lose_no_request(shop: Routed, variant: Provider) -> None:
    chosen = {"provider": variant.name, "name": "web"}
    given = {"blue_green_provider": variant.name, "blue_green_scale_down_delay": 0, "blue_green_observe": 1}
    with shop.traffic_at(router(variant)) as traffic:
        done = shop.blue_green(**given)
        assert done.returncode == 0, done.stdout
        assert shop.get("Deployment", "web-blue")["spec"]["replicas"] == 0
        told = shop.step(route_info, **chosen, color_label="version")
        assert told["color"] == "green" and list(told["split"].values()) == [100] and told["annotations"]["phase"] == "released", told
        assert next(iter(told["backends"].values()))["ready"] == told["colors"]["green"]["replicas"] > 0
        assert told["controller"]["name"] == router(variant) and told["controller"]["version"]
        assert shop.step(switch_color, **chosen, color="green")["changed"] is False
        back = shop.blue_green(**given, blue_green_state="rolled_back")
        assert back.returncode == 0, back.stdout
    assert traffic.seen["failed"] == 0, traffic.seen
    assert {STABLE, "2.0.0"} <= set(traffic.seen["versions"])
    assert traffic.seen["sent"] > 150 * traffic.seen["seconds"]
    assert shop.step(route_info, provider="auto", name="web" if variant == SUBSETS else "web-blue")["provider"] == variant.name
