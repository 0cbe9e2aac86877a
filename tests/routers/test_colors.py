# SPDX-License-Identifier: GPL-3.0-or-later
"""A blue-green release and its way back through each router, under traffic all the time, and what route_info tells then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import clone_workload, route_info, switch_color, wait_rollout
from support.live import APPLICATION
from support.routed import GATEWAYS, STABLE, Provider, Routed, service

pytestmark = pytest.mark.cluster
Manifest = dict[str, Any]
# What a route leads to, with the Services web-blue and web-green or, for Istio, also the subsets blue and green of web.
SUBSETS = Provider("istio", "subsets")
# A whole release takes a while: each router and each API has one, and the rest is switched by the step alone.
RELEASED = (Provider("gateway_api", "traefik"), Provider("traefik", "traefik"), Provider("istio", "istio"))
SWITCHED = (Provider("gateway_api", "istio"), SUBSETS)


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


@pytest.fixture
def shop(routed_kubeconfig: str, variant: Provider) -> Iterator[Routed]:
    """Return a namespace with podinfo as web-blue, a Service for all of it and one for each color, and a route that answers."""
    with Routed(routed_kubeconfig) as found:
        found.apply(APPLICATION)
        for color in ("blue", "green"):
            found.create(service(f"web-{color}", {"app": "web", "version": color}))
        found.create(service("web", {"app": "web"}))
        found.put(*routes(variant, found.host))
        deadline = time.monotonic() + 60
        while set(found.ask(router(variant), 5)) != {STABLE}:
            assert time.monotonic() < deadline, f"{variant} does not route {found.host}"
            time.sleep(0.1)
        yield found


def router(variant: Provider) -> str:
    """Return which router reads the route."""
    return "istio" if variant == SUBSETS else variant.router


@pytest.mark.parametrize("variant", RELEASED, ids=str)
def test_a_release_and_its_way_back_lose_no_request(shop: Routed, variant: Provider) -> None:
    chosen = {"provider": variant.name, "name": "web"}
    given = {"blue_green_provider": variant.name, "blue_green_scale_down_delay": 0, "blue_green_observe": 1}
    # Ten seconds: a machine that is busy may be slow, and a pod that is gone never answers.
    with shop.traffic_at(router(variant), timeout=10) as traffic:
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


@pytest.mark.parametrize("variant", SWITCHED, ids=str)
def test_switches_lose_no_request(shop: Routed, variant: Provider) -> None:
    images = {"app": "localhost:32000/podinfo:2.0.0"}
    made = {"name": "web-green", "source": "web-blue", "labels": {"version": "green"}, "replicas": 2, "images": images}
    assert shop.step(clone_workload, **made)["changed"]
    with shop.traffic_at(router(variant), timeout=10) as traffic:
        # At once: the router has not heard of the pods yet.
        assert "failed" not in shop.step(wait_rollout, name="web-green")
        for color, version in (("green", "2.0.0"), ("blue", STABLE), ("green", "2.0.0")):
            foreseen = shop.step(switch_color, check=True, provider=variant.name, name="web", color=color)
            done = shop.step(switch_color, provider=variant.name, name="web", color=color)
            assert done["changed"] and (done["before"], done["after"]) == (foreseen["before"], foreseen["after"]), done
            assert shop.step(switch_color, provider=variant.name, name="web", color=color)["changed"] is False
            deadline = time.monotonic() + 60
            while set(seen := shop.ask(router(variant), 20)) != {version}:
                assert time.monotonic() < deadline, seen
                time.sleep(0.05)
        told = shop.step(route_info, provider=variant.name, name="web", color_label="version")
        assert told["color"] == "green" and next(iter(told["backends"].values()))["ready"] == 2, told
    assert traffic.seen["failed"] == 0, traffic.seen
