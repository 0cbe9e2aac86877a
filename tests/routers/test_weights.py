# SPDX-License-Identifier: GPL-3.0-or-later
"""set_canary_weight on real data planes: they do each weight, rules of others stay as they were, and several routes move as one."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import set_canary_weight
from support.routed import CANARY, GATEWAYS, STABLE, Routed, service

pytestmark = pytest.mark.cluster
Manifest = dict[str, Any]
WEIGHTS = (0, 1, 5, 20, 33, 50, 99, 100)
REQUESTS = 1000
# How likely it is that a data plane that does what it shall is taken for one that does not, for each measurement. With 48 of them
# one of 20,000 runs of this file fails without a reason.
RISK = 1e-6
SETTLE = 30


@dataclass(frozen=True)
class Variant:
    """A way to write a route with a foreign rule before it and one after it, and what its sides are called."""

    provider: str
    router: str
    make: Callable[[str, str, str], Manifest]
    kind: str
    sides: tuple[str, str] = ("", "canary")
    name: str = ""

    def __str__(self) -> str:
        """Return it as a test's id names it."""
        return f"{self.provider}-{self.name or self.router}".replace("_", "-")


def http_route(router: str) -> Callable[[str, str, str], Manifest]:
    """Return what makes an HTTPRoute at a router's Gateway."""

    def make(name: str, host: str, stable: str) -> Manifest:
        namespace, gateway = GATEWAYS[router]
        header = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-kept", "value": "yes"}]}}
        rules = [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/version"}}], "backendRefs": [{"name": "foreign", "port": 80}]},
            {"filters": [header], "backendRefs": [{"name": stable, "port": 80}]},
            {"matches": [{"path": {"type": "Exact", "value": "/healthz"}}], "backendRefs": [{"name": "foreign", "port": 80}]},
        ]
        spec = {"parentRefs": [{"name": gateway, "namespace": namespace}], "hostnames": [host], "rules": rules}
        return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}

    return make


def ingress(name: str, host: str, stable: str) -> Manifest:
    """Return an Ingress."""

    def path(where: str, backend: str) -> Manifest:
        return {"path": where, "pathType": "Prefix", "backend": {"service": {"name": backend, "port": {"number": 80}}}}

    paths = [path("/version", "foreign"), path("/", stable), path("/healthz", "foreign")]
    spec = {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": paths}}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec}


def virtual_service(subsets: bool) -> Callable[[str, str, str], Manifest]:
    """Return what makes a VirtualService, to a host or to a subset of one."""

    def make(name: str, host: str, stable: str) -> Manifest:
        foreign = [{"destination": {"host": "foreign"}}]
        destination = {"host": "web", "subset": stable} if subsets else {"host": stable}
        http = [
            {"match": [{"uri": {"prefix": "/version"}}], "route": foreign},
            {"match": [{"uri": {"exact": "/healthz"}}], "route": foreign},
            {"route": [{"destination": destination}], "timeout": "10s", "retries": {"attempts": 2}},
            {"match": [{"uri": {"prefix": "/never"}}], "route": foreign},
        ]
        spec = {"hosts": [host], "gateways": ["istio-system/istio"], "http": http}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name}, "spec": spec}

    return make


def ingress_route(name: str, host: str, stable: str) -> Manifest:
    """Return an IngressRoute."""

    def entry(more: str, backend: str) -> Manifest:
        return {"kind": "Rule", "match": f"Host(`{host}`){more}", "services": [{"name": backend, "port": 80, "passHostHeader": True}]}

    routes = [entry(" && PathPrefix(`/version`)", "foreign"), entry("", stable), entry(" && Path(`/healthz`)", "foreign")]
    spec = {"entryPoints": ["web"], "routes": routes}
    return {"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": name}, "spec": spec}


VARIANTS = (
    Variant("gateway_api", "traefik", http_route("traefik"), "HTTPRoute"),
    Variant("gateway_api", "istio", http_route("istio"), "HTTPRoute"),
    Variant("ingress_nginx", "traefik", ingress, "Ingress"),
    Variant("traefik", "traefik", ingress_route, "IngressRoute"),
    Variant("istio", "istio", virtual_service(subsets=False), "VirtualService", name="hosts"),
    Variant("istio", "istio", virtual_service(subsets=True), "VirtualService", ("stable", "canary"), "subsets"),
)


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Return each variant in turn."""
    return request.param


@pytest.fixture(scope="module")
def there(shared: Routed) -> Routed:
    """Return the namespace with a Service ``stable-N`` for each route, one that others have, and the subsets of ``web``.

    The annotations of ingress-nginx are for a Service, not for a path: a route of its own needs a Service of its own.
    """
    for name in [*(f"stable-{weight}" for weight in WEIGHTS), "stable-marker", "foreign"]:
        shared.create(service(name, {"app": "web", "version": "stable"}))
    subsets = [{"name": name, "labels": {"version": name}} for name in ("stable", "canary")]
    meta, spec = {"name": "web"}, {"host": "web", "subsets": subsets}
    shared.put({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta, "spec": spec})
    return shared


class Routes:
    """Routes of one variant in a namespace, each with a host and a Service of its own."""

    def __init__(self, shop: Routed, variant: Variant) -> None:
        self.shop, self.variant = shop, variant

    def name(self, word: object) -> str:
        """Return what a route is called."""
        return f"{self.variant}-{word}"

    def host(self, word: object) -> str:
        """Return the host of a route."""
        return f"{self.name(word)}.{self.shop.host}"

    def stable(self, word: object) -> str:
        """Return the name of a route's stable side."""
        return self.variant.sides[0] or f"stable-{word}"

    def make(self, *words: object) -> None:
        """Make routes, all to stable, and wait until the data plane has them."""
        self.shop.put(*(self.variant.make(self.name(word), self.host(word), self.stable(word)) for word in words))
        for word in words:
            self.until(word, {STABLE})

    def until(self, word: object, versions: set[str]) -> None:
        """Return when a route answers with these versions alone."""
        deadline = time.monotonic() + SETTLE
        while set(seen := self.ask(word, 20)) != versions:
            assert time.monotonic() < deadline, f"{self.host(word)} answers {dict(seen)}"
            time.sleep(0.05)

    def ask(self, word: object, count: int = REQUESTS, path: str = "/") -> Counter[str]:
        """Return how many of so many requests each version answered."""
        return self.shop.ask(self.variant.router, count, path, Host=self.host(word))

    def weigh(self, word: object, weight: int, check: bool = False, **given: Any) -> dict[str, Any]:
        """Run the step on a route and return its outcome."""
        sides = {"name": self.name(word), "stable": self.stable(word), "canary": self.variant.sides[1]}
        return self.shop.step(set_canary_weight, check, provider=self.variant.provider, weight=weight, **{**sides, **given})

    def read(self, word: object) -> Manifest:
        """Return a route's object."""
        return self.shop.read(self.variant.kind, self.name(word))

    def rules(self, word: object) -> list[Any]:
        """Return the rules of a route."""
        spec = self.read(word)["spec"]
        if self.variant.kind == "Ingress":
            return list(spec["rules"][0]["http"]["paths"])
        return list(spec.get("rules") or spec.get("http") or spec["routes"])


def bounds(count: int, share: float, risk: float = RISK) -> tuple[int, int]:
    """Return between which numbers of ``count`` independent draws lie, of which each is the canary's with this probability.

    Exactly: fewer than the first, or more than the second, come with half of ``risk`` each at most, by the binomial distribution. A
    router that goes round robin comes closer than that.
    """

    def chance(canary: int) -> float:
        ways = math.lgamma(count + 1) - math.lgamma(canary + 1) - math.lgamma(count - canary + 1)
        return math.exp(ways + canary * math.log(share) + (count - canary) * math.log1p(-share))

    low, below = 0, chance(0)
    while below <= risk / 2:
        low += 1
        below += chance(low)
    high, above = count, chance(count)
    while above <= risk / 2:
        high -= 1
        above += chance(high)
    return low, high


def test_the_bounds_are_those_of_the_binomial_distribution() -> None:
    # By hand: 0.99 ** 1000 is 4.3e-5, so none of 1,000 may well be the canary's at 1 percent; half of 1,000 lies within 5 deviations.
    assert bounds(1000, 0.01) == (0, 29)
    low, high = bounds(1000, 0.5)
    assert low == 1000 - high and 420 < low < 425
    # Of 20, at most 2 come with 0.0002, at most 3 with 0.0013.
    assert bounds(20, 0.5, 0.002) == (3, 17)


def test_a_weight_is_what_the_data_plane_does_and_nothing_else_changes(there: Routed, variant: Variant) -> None:
    routes = Routes(there, variant)
    routes.make(*WEIGHTS, "marker")
    before = {weight: routes.read(weight) for weight in WEIGHTS}
    rules = {weight: routes.rules(weight) for weight in WEIGHTS}
    for weight in WEIGHTS:
        foreseen = routes.weigh(weight, weight, check=True)
        assert routes.read(weight)["metadata"]["resourceVersion"] == before[weight]["metadata"]["resourceVersion"], foreseen
        done = routes.weigh(weight, weight)
        assert done.get("changed") is (weight != 0), done
        assert {key: done[key] for key in ("changed", "before", "after", "actions")} == {
            key: foreseen[key] for key in ("changed", "before", "after", "actions")
        }
        sides = {routes.stable(weight): 100 - weight, "canary": weight}
        assert done["weights"] == sides and done["before"] == {"weights": {routes.stable(weight): 100, "canary": 0}}
        again = routes.weigh(weight, weight)
        assert again["changed"] is False and again["before"] == again["after"] == done["after"]
    # The marker is changed last, and a data plane takes changes in their order: where it is there, all before it are.
    assert routes.weigh("marker", 100)["changed"]
    routes.until("marker", {CANARY})
    for weight in WEIGHTS:
        seen = routes.ask(weight)
        if weight in (0, 100):
            assert seen == {CANARY if weight else STABLE: REQUESTS}, (weight, seen)
        else:
            low, high = bounds(REQUESTS, weight / 100)
            assert set(seen) == {STABLE, CANARY} and low <= seen[CANARY] <= high, (weight, seen, low, high)
        # The rules of others: the same in the route, and the same on the wire.
        assert routes.ask(weight, 10, "/version") == {STABLE: 10}
        now = routes.rules(weight)
        differing = [index for index, (old, new) in enumerate(zip(rules[weight], now, strict=True)) if old != new]
        assert differing == ([] if weight == 0 or variant.kind == "Ingress" else [2 if variant.kind == "VirtualService" else 1])
        if variant.kind == "Ingress":
            assert routes.read(weight)["spec"] == before[weight]["spec"]
            assert routes.read(weight)["metadata"].get("annotations") == before[weight]["metadata"].get("annotations")


def test_taking_the_canary_out_gives_back_what_was_there(there: Routed, variant: Variant) -> None:
    routes = Routes(there, variant)
    there.create(service("stable-gone", {"app": "web", "version": "stable"}))
    routes.make("gone")
    spec = routes.read("gone")["spec"]
    assert routes.weigh("gone", 100)["changed"]
    routes.until("gone", {CANARY})
    gone = routes.weigh("gone", weight=None, state="absent")  # type: ignore[arg-type]
    assert gone["changed"] and gone["weights"] == {routes.stable("gone"): 100, "canary": 0}
    routes.until("gone", {STABLE})
    assert routes.read("gone")["spec"] == spec
    assert routes.weigh("gone", weight=None, state="absent")["changed"] is False  # type: ignore[arg-type]


RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{}"
GROUPS = {"HTTPRoute": "gateway.networking.k8s.io", "Ingress": "networking.k8s.io", "IngressRoute": "traefik.io"}


def allow(shop: Routed, user: str, kind: str, names: list[str]) -> None:
    """Let a user read everything in the namespace, and change the objects of a kind that have these names."""
    group = GROUPS.get(kind, "networking.istio.io")
    plural = {"Ingress": "ingresses"}.get(kind, f"{kind.lower()}s")
    rules = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [group], "resources": [plural], "verbs": ["patch"], "resourceNames": names},
    ]
    meta, api = {"name": user, "namespace": shop.namespace}, "rbac.authorization.k8s.io"
    shop.cluster._json("POST", RBAC.format(shop.namespace, "roles"), {}, {"metadata": meta, "rules": rules})
    binding = {
        "metadata": meta,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": user},
        "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
    }
    shop.cluster._json("POST", RBAC.format(shop.namespace, "rolebindings"), {}, binding)


def _asked(manifest: Manifest) -> Manifest:
    """Return what of an object somebody has asked for, and how often."""
    meta = manifest["metadata"]
    return {"spec": manifest["spec"], "annotations": meta.get("annotations"), "generation": meta["generation"]}


def test_of_two_routes_one_is_refused_and_none_moves(there: Routed, variant: Variant) -> None:
    routes = Routes(there, variant)
    for word in ("first", "second"):
        there.create(service(f"stable-{word}", {"app": "web", "version": "stable"}))
    routes.shop.put(*(variant.make(routes.name(word), routes.host(word), "stable") for word in ("first", "second")))
    both = {"stable": "stable", "routes": [{"name": routes.name("first")}, {"name": routes.name("second")}]}
    assert routes.weigh("first", 10, **both)["after"]["routes"] == dict.fromkeys(
        (f"{variant.kind} {there.namespace}/{routes.name(word)}" for word in ("first", "second")), {"stable": 90, "canary": 10}
    )
    user = str(variant)
    allow(there, user, variant.kind, [routes.name("first"), f"{routes.name('first')}-canary"])
    before = {word: _asked(routes.read(word)) for word in ("first", "second")}
    options = {"impersonate_user": user, **both}
    # The role counts some milliseconds after it was made.
    deadline = time.monotonic() + 10
    while not (alone := routes.weigh("first", 10, impersonate_user=user, stable="stable")).get("weights"):
        assert time.monotonic() < deadline, alone
        time.sleep(0.1)
    for check in (True, False):
        refused = routes.weigh("first", 50, check, **options)
        assert refused.get("failed") and refused["changed"] is False and refused["reason"] == "Forbidden", refused
        assert f"{variant.kind} {there.namespace}/{routes.name('second')}" in refused["msg"]
    assert {word: _asked(routes.read(word)) for word in ("first", "second")} == before
    # It is the second route alone that this user may not move.
    assert routes.weigh("first", 50, impersonate_user=user, stable="stable")["changed"]
