# SPDX-License-Identifier: GPL-3.0-or-later
"""An audience, a mirror and a weight on one route of real routers: each does its part under the others, and nobody waits."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query
from ansible_collections.progressive.delivery.plugins.modules import mirror_traffic, set_audience, set_canary_weight
from support.routed import CANARY, GATEWAYS, PROVIDERS, STABLE, Manifest, Provider, Routed, service, version

COMBINING = [entry for entry in PROVIDERS if entry.name != "ingress_nginx" and str(entry) != "gateway_api-traefik"]
STEPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "audience": (set_audience, {"variant": "canary", "headers": {"X-Beta": "yes"}}),
    "mirror": (mirror_traffic, {"to": "shadow"}),
    "reads": (mirror_traffic, {"to": "shadow", "methods": ["GET"]}),
    "share": (set_audience, {"variant": "canary", "weight": 50}),
    "weight": (set_canary_weight, {"canary": "canary", "weight": 20}),
}
SIDES = ("variant", "to", "canary")


def manifest(provider: Provider, host: str) -> Manifest:
    """Return a route ``web`` that leads to stable."""
    meta = {"name": "web"}
    if provider.name == "gateway_api":
        namespace, name = GATEWAYS[provider.router]
        rules = [{"backendRefs": [{"name": "stable", "port": 80}]}]
        spec = {"parentRefs": [{"name": name, "namespace": namespace}], "hostnames": [host], "rules": rules}
        return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}
    if provider.name == "istio":
        spec = {"hosts": [host], "gateways": ["istio-system/istio"], "http": [{"route": [{"destination": {"host": "stable"}}]}]}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
    entry = {"kind": "Rule", "match": f"Host(`{host}`)", "services": [{"name": "stable", "port": 80}]}
    spec = {"entryPoints": ["web"], "routes": [entry]}
    return {"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": meta, "spec": spec}


class Combined:
    """A namespace with a route and a shadow, and the steps on it."""

    def __init__(self, there: Routed, provider: Provider) -> None:
        self.there, self.provider = there, provider
        self.kind = manifest(provider, "")["kind"]
        there.put(manifest(provider, there.host))
        self.until(lambda: self.ask(5) == {STABLE: 5})
        self.spec = there.read(self.kind)["spec"]

    def until(self, done: Callable[[], bool], timeout: float = 60) -> None:
        """Return when something holds."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def ask(self, count: int = 50, **headers: str) -> Counter[str]:
        """Send requests and return who answered."""
        return self.there.ask(self.provider.router, count, **headers)

    def step(self, name: str, check: bool = False, **more: Any) -> dict[str, Any]:
        """Run a step as it is in STEPS."""
        step, given = STEPS[name]
        done = self.there.step(step, check, provider=self.provider.name, name="web", stable="stable", **{**given, **more})
        assert not done.get("failed"), done
        return done

    def end(self, name: str) -> None:
        """Run a step with state absent, twice."""
        only = {key: None for key in STEPS[name][1] if key not in SIDES}
        assert self.step(name, state="absent", **only)["changed"] and not self.step(name, state="absent", **only)["changed"]

    def copies(self) -> int:
        """Return how many requests to / the shadow has answered."""
        (pod,) = self.there.cluster.list(Query("Pod", self.there.namespace, "version=shadow")).items
        text = self.there.cluster.proxy_get(self.there.ref("Pod", pod["metadata"]["name"]), "9898", "/metrics", {}, 5).body
        lines = [line for line in text.splitlines() if line.startswith("http_request_duration_seconds_count") and 'path="root"' in line]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines)

    def copied(self, count: int = 20, **headers: str) -> int:
        """Return how many copies the shadow got of some requests."""
        before = self.copies()
        self.ask(count, **headers)
        time.sleep(1)
        return self.copies() - before


@pytest.fixture(scope="module")
def shadowed(shared: Routed) -> Routed:
    """Return a namespace with a shadow beside both sides."""
    shared.create(service("shadow", {"app": "web", "version": "shadow"}))
    shared.create(version("shadow", "3.0.0"))
    return shared


@pytest.fixture(params=COMBINING, ids=str)
def combined(request: pytest.FixtureRequest, shadowed: Routed) -> Iterator[Combined]:
    """Return a route of each provider that can mirror, in turn."""
    found = Combined(shadowed, request.param)
    yield found
    shadowed.cluster.delete(shadowed.ref(found.kind, "web"))
    for entry in shadowed.cluster.list(Query("TraefikService", shadowed.namespace)).items:
        shadowed.cluster.delete(shadowed.ref("TraefikService", entry["metadata"]["name"]))


@pytest.mark.parametrize("mirror", ["mirror", "reads"])
@pytest.mark.parametrize("order", list(itertools.permutations(("audience", "mirror", "weight"))), ids="-".join)
def test_each_does_its_part_whichever_came_first_and_leaves_nothing(combined: Combined, order: tuple[str, ...], mirror: str) -> None:
    names = [mirror if name == "mirror" else name for name in order]
    for name in names:
        foreseen, done = combined.step(name, check=True), combined.step(name)
        assert (foreseen["changed"], foreseen["after"]) == (True, done["after"])
    assert not any(combined.step(name)["changed"] for name in names)
    combined.until(lambda: combined.copied() == 20 and combined.copied(x_beta="yes") == 20)
    assert combined.ask(x_beta="yes") == {CANARY: 50}
    seen = combined.ask(400)
    assert set(seen) == {STABLE, CANARY} and 40 <= seen[CANARY] <= 120
    combined.step("weight", weight=0)
    combined.until(lambda: combined.ask() == {STABLE: 50})
    assert combined.ask(x_beta="yes") == {CANARY: 50} and combined.copied(x_beta="yes") == 20
    combined.end(names[0])
    assert not any(combined.step(name, **({"weight": 0} if name == "weight" else {}))["changed"] for name in names[1:])
    for name in names[1:]:
        combined.end(name)
    found = combined.there.read(combined.kind)
    assert found["spec"] == combined.spec
    assert not combined.there.cluster.list(Query("TraefikService", combined.there.namespace)).items
    combined.until(lambda: combined.ask() == {STABLE: 50} and combined.ask(x_beta="yes") == {STABLE: 50} and combined.copied() == 0)


@pytest.mark.parametrize("mirror", ["mirror", "reads"])
def test_users_stay_on_their_side_and_are_mirrored_and_no_request_is_lost(combined: Combined, mirror: str) -> None:
    with combined.there.traffic_at(combined.provider.router, rate=50) as traffic:
        for name in (mirror, "share"):
            combined.step(name)
            time.sleep(1)
        combined.end(mirror)
        assert combined.step(mirror)["changed"] and not combined.step("share")["changed"]
        time.sleep(2)
    assert traffic.seen["sent"] > 100 and traffic.seen["failed"] == 0, traffic.seen
    combined.until(lambda: combined.copied(cookie="variant=canary") == 20 and combined.copied() == 20 and len(combined.ask(40)) == 2)
    if combined.provider.name != "traefik":
        assert combined.ask(cookie="variant=canary") == {CANARY: 50} and combined.ask(cookie="variant=stable") == {STABLE: 50}
    with combined.there.traffic_at(combined.provider.router, rate=50) as traffic:
        combined.end("share")
        time.sleep(2)
    assert traffic.seen["failed"] == 0, traffic.seen
    combined.until(lambda: combined.ask(cookie="variant=canary") == {STABLE: 50} and combined.copied() == 20)
    combined.end(mirror)
    assert combined.there.read(combined.kind)["spec"] == combined.spec
