# SPDX-License-Identifier: GPL-3.0-or-later
"""mirror_traffic on real routers: the shadow gets copies, its answers reach nobody, and its failures hurt nobody."""

from __future__ import annotations

import http.client
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Query, annotations
from ansible_collections.progressive.delivery.plugins.modules import load_test, mirror_traffic, set_canary_weight
from support.routed import CANARY, IMAGE, NODE_PORTS, PROVIDERS, STABLE, Provider, Routed, manifests, service, version

Manifest = dict[str, Any]
SHADOW = "3.0.0"
REQUESTS = 1000
MIRRORING = [entry for entry in PROVIDERS if entry.name != "ingress_nginx" and str(entry) != "gateway_api-traefik"]
KIND = {"gateway_api": "HTTPRoute", "istio": "VirtualService", "traefik": "IngressRoute"}


@pytest.fixture(scope="module")
def there(shared: Routed) -> Routed:
    """Return a namespace with a shadow beside both sides."""
    shared.create(service("shadow", {"app": "web", "version": "shadow"}))
    shared.create(version("shadow", SHADOW))
    return shared


@pytest.fixture(params=MIRRORING, ids=str)
def provider(request: pytest.FixtureRequest) -> Provider:
    """Return each provider that can mirror, in turn."""
    return request.param


@pytest.fixture
def route(there: Routed, provider: Provider) -> Iterator[Provider]:
    """Make the route of a provider with 20 percent for the canary, and take it away in the end."""
    there.route(provider, 20)
    yield provider
    for manifest in manifests(provider, there.host):
        there.cluster.delete(there.ref(manifest["kind"], "web"))


def mirror(there: Routed, provider: Provider, check: bool = False, **given: Any) -> dict[str, Any]:
    """Mirror the route to the shadow."""
    sides = {"provider": provider.name, "name": "web", "stable": "stable", "to": "shadow"}
    return there.step(mirror_traffic, check, **{**sides, **given})


def copies(there: Routed) -> dict[str, int]:
    """Return how many requests to / the shadow's pods have answered, by method."""
    found: dict[str, int] = {}
    for pod in there.cluster.list(Query("Pod", there.namespace, "version=shadow")).items:
        ref = there.ref("Pod", pod["metadata"]["name"])
        for line in there.cluster.proxy_get(ref, "9898", "/metrics", {}, 5).body.splitlines():
            if line.startswith("http_request_duration_seconds_count") and 'path="root"' in line:
                method = line.partition('method="')[2].partition('"')[0]
                found[method] = found.get(method, 0) + int(float(line.rpartition(" ")[2]))
    return found


def settled(there: Routed, method: str = "GET") -> int:
    """Return the number of copies when it does not grow any more: one may arrive after the answer to its original."""
    before = -1
    while (now := copies(there).get(method, 0)) != before:
        before = now
        time.sleep(0.5)
    return before


def until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Return when a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def until_mirrored(there: Routed, provider: Provider) -> None:
    """Return when the router mirrors."""

    def once() -> bool:
        before = copies(there).get("GET", 0)
        there.ask(provider.router, 10)
        time.sleep(0.1)
        return copies(there).get("GET", 0) > before

    until(once, f"{provider} does not mirror")


def until_ended(there: Routed, provider: Provider) -> None:
    """Return when the router does not mirror any more."""

    def once() -> bool:
        before = settled(there)
        there.ask(provider.router, 20)
        return settled(there) == before

    until(once, f"{provider} still mirrors")


def post(there: Routed, provider: Provider, count: int) -> set[int]:
    """Send POST requests with a body; return the statuses."""
    connection = http.client.HTTPConnection(there.node, NODE_PORTS[provider.router], timeout=10)
    found: set[int] = set()
    for _number in range(count):
        connection.request("POST", "/", body=b"x" * 2000, headers={"Host": there.host})
        answer = connection.getresponse()
        answer.read()
        found.add(answer.status)
    connection.close()
    return found


def spec(there: Routed, provider: Provider) -> Any:
    """Return what somebody has asked for in the route and the TraefikServices of the namespace."""
    route = there.read(KIND[provider.name])
    beside = there.cluster.list(Query("TraefikService", there.namespace)).items
    return route["spec"], annotations(route), {entry["metadata"]["name"]: entry["spec"] for entry in beside}


@pytest.mark.parametrize("percent", [100, 50])
def test_the_shadow_gets_its_share_of_the_requests_and_no_answer_changes(there: Routed, route: Provider, percent: int) -> None:
    before = spec(there, route)
    foreseen = mirror(there, route, check=True, percent=percent)
    assert spec(there, route) == before
    done = mirror(there, route, percent=percent)
    assert done["changed"] and (done["before"], done["after"]) == (foreseen["before"], foreseen["after"]), done
    assert done["after"] == {"mirror": {"to": "shadow", "percent": percent}}
    assert not mirror(there, route, percent=percent)["changed"]
    until_mirrored(there, route)
    seen_before = settled(there)
    seen = there.ask(route.router, REQUESTS)
    assert set(seen) == {STABLE, CANARY} and abs(seen[CANARY] - REQUESTS * 0.2) <= 5 * math.sqrt(REQUESTS * 0.2 * 0.8)
    share = REQUESTS * percent / 100
    assert abs(settled(there) - seen_before - share) <= 5 * math.sqrt(share * (100 - percent) / 100)
    assert mirror(there, route, state="absent")["changed"]
    assert spec(there, route) == before
    until_ended(there, route)
    assert set(there.ask(route.router, 100)) == {STABLE, CANARY}
    assert not mirror(there, route, state="absent")["changed"]


def test_a_request_of_another_method_is_not_copied(there: Routed, route: Provider) -> None:
    before = spec(there, route)
    done = mirror(there, route, methods=["GET"])
    assert done["changed"] and "warnings" not in done, done
    assert not mirror(there, route, methods=["GET"])["changed"]
    until_mirrored(there, route)
    gets, posts = settled(there), settled(there, "POST")
    seen = there.ask(route.router, 200)
    assert set(seen) == {STABLE, CANARY}
    assert post(there, route, 100) <= {200, 202, 404, 405}
    assert settled(there, "POST") == posts and settled(there) - gets == 200
    # The weights of the copy move with those of its rule.
    weights = {"provider": route.name, "name": "web", "stable": "stable", "canary": "canary"}
    assert there.step(set_canary_weight, weight=100, **weights)["changed"]
    until(lambda: set(there.ask(route.router, 20)) == {CANARY}, "the weight does not reach the copy")
    assert not mirror(there, route, methods=["GET"])["changed"]
    assert there.step(set_canary_weight, weight=20, **weights)["changed"]
    mirror(there, route, state="absent")
    assert spec(there, route) == before


@pytest.mark.parametrize("methods", [None, ["GET"]], ids=["all", "reads alone"])
def test_no_request_fails_while_a_mirror_comes_changes_and_goes(there: Routed, route: Provider, methods: Any) -> None:
    before = spec(there, route)
    weights = {"provider": route.name, "name": "web", "stable": "stable", "canary": "canary"}
    with there.traffic_at(route.router) as traffic:
        for _round in range(2):
            for given in ({"percent": 100}, {"percent": 50}):
                assert mirror(there, route, methods=methods, **given)["changed"]
                time.sleep(2.5)
            there.step(set_canary_weight, weight=50, **weights)
            time.sleep(0.5)
            there.step(set_canary_weight, weight=20, **weights)
            assert mirror(there, route, state="absent")["changed"]
            time.sleep(2.5)
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {STABLE, CANARY}, traffic.seen
    assert spec(there, route) == before


FAULTS = ("answers 500", "crashes", "slow", "hangs", "no pods")


@pytest.fixture(params=FAULTS)
def fault(there: Routed, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a way in which the shadow fails; make a second shadow, ``faulty``, that answers for now."""
    there.create(service("faulty", {"app": "web", "version": "faulty"}))
    there.create(version("faulty", SHADOW))
    yield request.param
    there.cluster.delete(there.ref("Deployment", "faulty"))
    there.cluster.delete(there.ref("Service", "faulty"))


def fail(there: Routed, fault: str) -> None:
    """Make the second shadow one that fails, and wait until it does."""
    if fault == "no pods":
        there.cluster.patch(there.ref("Deployment", "faulty"), {"spec": {"replicas": 0}}, MERGE_PATCH)
    elif fault == "hangs":
        # An address that swallows what is sent to it.
        there.cluster.patch(there.ref("Service", "faulty"), {"spec": {"selector": None}}, MERGE_PATCH)
        slices = there.cluster.list(Query("EndpointSlice", there.namespace, "kubernetes.io/service-name=faulty")).items
        for entry in slices:
            there.cluster.delete(there.ref("EndpointSlice", entry["metadata"]["name"]))
        labels = {"kubernetes.io/service-name": "faulty"}
        there.create(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "faulty-sink", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 9898}],
                "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": True}}],
            }
        )
    else:
        container = version("faulty", SHADOW)["spec"]["template"]["spec"]["containers"][0]
        if fault == "slow":
            container["args"] = ["--random-delay", "--random-delay-min=300", "--random-delay-max=600", "--random-delay-unit=ms"]
        else:
            container["image"] = f"{IMAGE}:broken-{'500' if fault == 'answers 500' else 'crash'}"
        # Two that fail beside one that does not would hide it.
        spec = {"strategy": {"type": "Recreate", "rollingUpdate": None}, "template": {"spec": {"containers": [container]}}}
        there.cluster.patch(there.ref("Deployment", "faulty"), {"spec": spec}, MERGE_PATCH)
        if fault != "crashes":
            there.wait_for("faulty")
    time.sleep(4)


def load(there: Routed, provider: Provider, host: str) -> dict[str, Any]:
    """Send 50 requests a second to a host for some seconds; return what load_test says."""
    return there.step(load_test, url=f"{there.base(provider.router)}/", headers={"Host": host}, rate=50, duration=5, timeout=5)


@pytest.fixture
def plain(there: Routed, route: Provider) -> Iterator[str]:
    """Return the host of a second route like the first, which is not mirrored: what else the machine does slows both."""
    host = f"plain-{there.host}"
    own = [{**entry, "metadata": {"name": "plain"}} for entry in manifests(route, host, 20) if entry["kind"] == KIND[route.name]]
    there.put(*own)

    def answers() -> bool:
        connection = http.client.HTTPConnection(there.node, NODE_PORTS[route.router], timeout=10)
        connection.request("GET", "/", headers={"Host": host})
        status = connection.getresponse().status
        connection.close()
        return status == 200

    until(answers, f"{route} does not route {host}")
    yield host
    there.cluster.delete(there.ref(KIND[route.name], "plain"))


def test_a_shadow_that_fails_hurts_nobody(there: Routed, route: Provider, plain: str, fault: str) -> None:
    before = spec(there, route)
    with there.traffic_at(route.router, rate=100) as traffic:
        assert mirror(there, route, to="faulty")["changed"]
        time.sleep(2.5)
        fail(there, fault)
        with ThreadPoolExecutor(2) as pool:
            alone, beside = pool.map(lambda host: load(there, route, host), (plain, there.host))
        # Whatever else makes the router read its configuration anew.
        assert mirror(there, route, to="faulty", percent=90, force=True)["changed"]
        time.sleep(3)
        assert mirror(there, route, to="faulty", state="absent")["changed"]
        time.sleep(2.5)
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {STABLE, CANARY}, traffic.seen
    assert alone["errors"] == beside["errors"] == {}, (alone, beside)
    # A shadow that were waited for would show in the middle of the answers, by 300 ms and more.
    assert beside["p50"] < 2 * alone["p50"] + 50, (alone, beside)
    assert spec(there, route) == before


def test_two_routes_are_mirrored_or_neither_is(there: Routed) -> None:
    first, second = MIRRORING[0], Provider("gateway_api", "traefik")
    there.route(first, 20)
    there.put(*[{**manifest, "metadata": {"name": "refused"}} for manifest in manifests(second, f"refused-{there.host}", 20)])
    before = spec(there, first)
    both = {"routes": [{"name": "web", "provider": first.name}, {"name": "refused", "provider": second.name}]}
    done = there.step(mirror_traffic, stable="stable", to="shadow", **both)
    assert done["failed"] and "leaves HTTPRouteRequestMirror out of what" in done["msg"], done
    assert done["msg"].count(". ") == 0 and "provider traefik" in done["msg"]
    assert spec(there, first) == before
    for manifest in manifests(first, there.host):
        there.cluster.delete(there.ref(manifest["kind"], "web"))
    there.cluster.delete(there.ref("HTTPRoute", "refused"))
