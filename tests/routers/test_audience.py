# SPDX-License-Identifier: GPL-3.0-or-later
"""set_audience on real routers: who is asked for gets the variant, everybody else stays, nobody waits, and all goes again."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.modules import set_audience
from support.routed import CANARY, GATEWAYS, NODE_PORTS, PROVIDERS, STABLE, Manifest, Provider, Routed, service

ASKED = 100
RULED = [provider for provider in PROVIDERS if provider.name != "ingress_nginx"]


def manifest(provider: Provider, host: str) -> Manifest:
    """Return a route ``web`` that leads to stable, and a foreign rule that is more specific: /version to ``other``.

    An Ingress has no such rule: there an audience is refused.
    """
    meta = {"name": "web"}
    if provider.name == "gateway_api":
        namespace, name = GATEWAYS[provider.router]
        rules = [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/version"}}], "backendRefs": [{"name": "other", "port": 80}]},
            {"backendRefs": [{"name": "stable", "port": 80}]},
        ]
        spec = {"parentRefs": [{"name": name, "namespace": namespace}], "hostnames": [host], "rules": rules}
        return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}
    if provider.name == "istio":
        http_routes = [
            {"match": [{"uri": {"prefix": "/version"}}], "route": [{"destination": {"host": "other"}}]},
            {"route": [{"destination": {"host": "stable"}}]},
        ]
        spec = {"hosts": [host], "gateways": ["istio-system/istio"], "http": http_routes}
        return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}
    if provider.name == "traefik":
        routes = [
            {"kind": "Rule", "match": f"Host(`{host}`) && PathPrefix(`/version`)", "services": [{"name": "other", "port": 80}]},
            {"kind": "Rule", "match": f"Host(`{host}`) && PathPrefix(`/`)", "services": [{"name": "stable", "port": 80}]},
        ]
        spec = {"entryPoints": ["web"], "routes": routes}
        return {"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": meta, "spec": spec}
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "stable", "port": {"number": 80}}}}
    spec = {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


class Aimed:
    """A namespace with a route, and its step."""

    def __init__(self, there: Routed, provider: Provider) -> None:
        self.there, self.provider = there, provider
        self.kind = manifest(provider, "")["kind"]
        there.put(service("other", {"app": "web", "version": "stable"}), manifest(provider, there.host))
        self.wait(lambda: self.ask(5) == {STABLE: 5} and self.ask(5, "/version") == {STABLE: 5})
        self.spec = there.read(self.kind)["spec"]

    def wait(self, done: Callable[[], bool], timeout: float = 60) -> None:
        """Return when something holds."""
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def step(self, **given: Any) -> dict[str, Any]:
        """Run set_audience for the route."""
        done = self.there.step(set_audience, provider=self.provider.name, name="web", stable="stable", variant="canary", **given)
        assert not done.get("failed"), done
        return done

    def ask(self, count: int = ASKED, path: str = "/", **headers: str) -> Counter[str]:
        """Send requests and return who answered."""
        return self.there.ask(self.provider.router, count, path, **headers)

    def aim(self, **given: Any) -> dict[str, Any]:
        """Set an audience, as it was predicted and once."""
        foreseen = self.step(check=True, **given)
        done = self.step(**given)
        assert (foreseen["changed"], foreseen["after"]) == (True, done["after"])
        assert not self.step(**given)["changed"]
        return done

    def is_gone(self) -> None:
        """Take the audience out, and see that all is as it was."""
        assert self.step(state="absent")["changed"] and not self.step(state="absent")["changed"]
        found = self.there.read(self.kind)
        assert found["spec"] == self.spec and not found["metadata"].get("annotations")


@pytest.fixture
def aimed(shared: Routed, provider: Provider) -> Iterator[Aimed]:
    """Return a route of the provider in the namespace of the file. Two routes with one host would meet: it is deleted in the end."""
    found = Aimed(shared, provider)
    yield found
    shared.cluster.delete(shared.ref(found.kind, "web"))


# What is asked for, what meets it, what does not.
MATCHES: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]]]] = {
    "header": (
        {"headers": {"X-Beta": "yes"}},
        [("/", {"x_beta": "yes"}), ("/?a=b", {"X_BETA": "yes"})],
        [("/", {}), ("/", {"x_beta": "no"}), ("/", {"x_beta": "yess"}), ("/version", {"x_beta": "yes"})],
    ),
    "header there": ({"headers": {"X-Beta": None}}, [("/", {"x_beta": "yes"})], [("/", {}), ("/", {"x_alpha": "yes"})]),
    "header regex": (
        {"headers": {"X-Beta": {"regex": "y.+|on"}}},
        [("/", {"x_beta": "yes"}), ("/", {"x_beta": "on"})],
        [("/", {"x_beta": "y"}), ("/", {"x_beta": "on1"}), ("/", {"x_beta": "aon"})],
    ),
    "cookie": (
        {"cookies": {"beta": "always"}},
        [("/", {"cookie": "beta=always"}), ("/", {"cookie": "x=1; beta=always; y=2"})],
        [("/", {}), ("/", {"cookie": "beta=alwayss"}), ("/", {"cookie": "xbeta=always"}), ("/version", {"cookie": "beta=always"})],
    ),
}
RULED_ALONE: dict[str, tuple[dict[str, Any], list[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]]]] = {
    "cookie value": (
        {"cookies": {"beta": "1.5+x"}},
        [("/", {"cookie": "a=b; beta=1.5+x"})],
        [("/", {"cookie": "beta=1a5+x"}), ("/", {"cookie": "beta=2; a=beta=1.5+x"})],
    ),
    "cookie there": (
        {"cookies": {"beta": None}},
        [("/", {"cookie": "beta="}), ("/", {"cookie": "a=b; beta=c"})],
        [("/", {"cookie": "b=c"})],
    ),
    "cookie regex": (
        {"cookies": {"beta": {"regex": ".*x"}}},
        [("/", {"cookie": "a=1; beta=yx; c=2"})],
        [("/", {"cookie": "beta=y; c=x"}), ("/", {"cookie": "beta=xy"})],
    ),
    "two cookies": (
        {"cookies": {"a": "1", "b": "2"}},
        [("/", {"cookie": "a=1; b=2"}), ("/", {"cookie": "b=2; c=3; a=1"})],
        [("/", {"cookie": "a=1"}), ("/", {"cookie": "b=2; a=2"})],
    ),
    "query": (
        {"query": {"beta": "1.0"}},
        [("/?beta=1.0", {}), ("/?x=1&beta=1.0&y=2", {})],
        [("/", {}), ("/?beta=1a0", {}), ("/?xbeta=1.0", {}), ("/version?beta=1.0", {})],
    ),
    "query encoded": (
        {"query": {"beta": {"regex": r"a( |\+|%20)b"}}},
        [("/?beta=a%20b", {}), ("/?beta=a+b&y=2", {})],
        [("/", {}), ("/?beta=ab", {})],
    ),
    "query there": ({"query": {"beta": None}}, [("/?beta=1", {}), ("/?a=b&beta=", {}), ("/?beta", {})], [("/", {}), ("/?bet=1", {})]),
    "query regex": ({"query": {"beta": {"regex": "[0-9]+"}}}, [("/?beta=12", {})], [("/?beta=12a", {}), ("/?beta=a12", {})]),
    "all of them": (
        {"headers": {"X-Beta": "yes", "X-Lang": {"regex": "d."}}, "cookies": {"lang": "de"}, "query": {"v": "2"}},
        [("/?v=2", {"x_beta": "yes", "x_lang": "de", "cookie": "lang=de"})],
        [
            ("/?v=2", {"x_beta": "yes", "x_lang": "de"}),
            ("/", {"x_beta": "yes", "x_lang": "de", "cookie": "lang=de"}),
            ("/?v=2", {"x_lang": "de", "cookie": "lang=de"}),
        ],
    ),
}


@pytest.mark.parametrize("case", [*MATCHES, *RULED_ALONE])
def test_who_is_asked_for_gets_the_variant_and_nobody_else(aimed: Aimed, case: str) -> None:
    if case in RULED_ALONE and aimed.provider not in RULED:
        assert aimed.there.step(
            set_audience, provider="ingress_nginx", name="web", stable="stable", variant="canary", **RULED_ALONE[case][0]
        )["failed"]
        return
    asked, meets, others = {**MATCHES, **RULED_ALONE}[case]
    aimed.aim(**asked)
    aimed.wait(lambda: aimed.ask(3, meets[0][0], **meets[0][1]) == {CANARY: 3})
    for path, headers in meets:
        assert aimed.ask(ASKED, path, **headers) == {CANARY: ASKED}, (path, headers)
    for path, headers in others:
        if path.startswith("/version") and aimed.provider not in RULED:
            continue
        assert aimed.ask(ASKED, path, **headers) == {STABLE: ASKED}, (path, headers)
    aimed.is_gone()
    aimed.wait(lambda: aimed.ask(3, meets[0][0], **meets[0][1]) == {STABLE: 3})


class Users:
    """People with browsers: each has a cookie jar of his own."""

    def __init__(self, aimed: Aimed) -> None:
        self.aimed = aimed
        self.jars: list[dict[str, str]] = []
        self.sides: list[str] = []
        self.connection = http.client.HTTPConnection(aimed.there.node, NODE_PORTS[aimed.provider.router], timeout=10)

    def visit(self, jar: dict[str, str]) -> str:
        """Send a request with the cookies of a jar, keep those of the answer, and return who answered."""
        headers = {"Host": self.aimed.there.host, **({"Cookie": "; ".join(f"{k}={v}" for k, v in jar.items())} if jar else {})}
        self.connection.request("GET", "/", headers=headers)
        response = self.connection.getresponse()
        text = response.read()
        for value in response.headers.get_all("Set-Cookie") or []:
            name, _sign, rest = value.partition("=")
            jar[name] = rest.partition(";")[0]
        return str(json.loads(text)["version"]) if response.status == 200 else str(response.status)

    def come(self, count: int) -> None:
        """Let new users come."""
        for _number in range(count):
            self.jars.append({"session": "1"})
            self.sides.append(self.visit(self.jars[-1]))

    def come_again(self, times: int = 3) -> int:
        """Let all users come again; return how many were not on their side."""
        return sum(self.visit(jar) != side for jar, side in zip(self.jars, self.sides, strict=True) for _time in range(times))


def test_a_share_of_the_users_stays_together(aimed: Aimed) -> None:
    count, weight = 1000, 20
    done = aimed.aim(weight=weight, cookie="ab", cookie_seconds=600)
    assert done["audience"][0].startswith("20 % of the users, kept by cookie ")
    aimed.wait(lambda: CANARY in aimed.ask(50))
    users = Users(aimed)
    users.come(count)
    seen = Counter(users.sides)
    assert set(seen) == {STABLE, CANARY}
    assert abs(seen[CANARY] - count * weight / 100) <= 5 * math.sqrt(count * weight / 100 * (1 - weight / 100))
    assert users.come_again() == 0
    # The share changes, and everybody keeps the side that he has.
    aimed.aim(weight=70, cookie="ab", cookie_seconds=600)
    aimed.wait(lambda: aimed.ask(200)[CANARY] > 100)
    assert users.come_again(1) == 0
    # A more specific rule of others is nobody's audience.
    assert aimed.provider not in RULED or aimed.ask(ASKED, "/version") == {STABLE: ASKED}
    aimed.is_gone()
    aimed.wait(lambda: aimed.ask(20) == {STABLE: 20})
    assert {users.visit(jar) for jar in users.jars[:200]} == {STABLE}


def test_no_request_fails_while_an_audience_comes_changes_and_goes(aimed: Aimed) -> None:
    with aimed.there.traffic_at(aimed.provider.router) as traffic:
        for given in ({"headers": {"X-Beta": "yes"}}, {"headers": {"X-Beta": "no"}}, {"weight": 50}, {"weight": 90}, {"state": "absent"}):
            aimed.step(**given)
            time.sleep(2.5)
        for given in ({"weight": 50}, {"headers": {"X-Beta": "yes"}}, {"state": "absent"}):
            aimed.step(**given)
            time.sleep(0.3)
        time.sleep(2.5)
    assert traffic.seen["failed"] == 0, traffic.seen
    assert traffic.seen["sent"] > 3000 and set(traffic.seen["versions"]) == {STABLE, CANARY}
