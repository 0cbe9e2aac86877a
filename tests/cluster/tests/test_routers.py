# SPDX-License-Identifier: GPL-3.0-or-later
"""Traefik and Istio in a real cluster split, match and mirror real requests. Building them takes a while: only when asked for."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from localcluster import build, config, routers
from localcluster.addons import kubectl
from localcluster.config import Cluster
from localcluster.processes import wait_until

pytestmark = pytest.mark.skipif(
    os.environ.get("DELIVERY_ROUTERS") != "1",
    reason="builds Traefik and Istio; ask for it with DELIVERY_ROUTERS=1, or tests/tools/check.py routers-lifecycle",
)

PROGRAM = str(Path(__file__).resolve().parent.parent / "cluster")
NAME = "test-routers"
QUICK = 5.0
BUILDING = 90 * 60
REQUESTS = 500
STABLE, CANARY, SHADOW = "1.0.0", "2.0.0", "3.0.0"
Manifest = dict[str, Any]

# Requests one after another on one connection; what came back is counted by status and by the version that answered.
SEND = """
import collections, http.client, json, sys
address, host, count, headers = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
seen, connection = collections.Counter(), http.client.HTTPConnection(address, 80, timeout=10)
for _number in range(count):
    connection.request("GET", "/", headers={"Host": host, **headers})
    response = connection.getresponse()
    text = response.read()
    seen[json.loads(text)["version"] if response.status == 200 else response.status] += 1
print(json.dumps(seen))
"""
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


def cluster(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program and return what it said."""
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False, timeout=BUILDING)


@pytest.fixture(scope="module")
def plain() -> Iterator[Cluster]:
    """Bring a cluster up without a router, and take it down in the end."""
    cluster("down", NAME)
    said = cluster("up", NAME)
    assert said.returncode == 0, said.stderr
    there = config.find(NAME)
    assert there
    yield there
    cluster("down", NAME)


@pytest.fixture(scope="module")
def bare(plain: Cluster) -> dict[str, str]:
    """Return what is in the cluster before a router was asked for."""
    types = kubectl(plain, "get", "customresourcedefinitions", "-o", "name")
    namespaces = kubectl(plain, "get", "namespaces", "-o", "name")
    return {"types": types, "namespaces": namespaces, "status": cluster("status").stdout}


@pytest.fixture(scope="module")
def there(plain: Cluster, bare: dict[str, str]) -> Cluster:
    """Return the cluster after both routers were added to it, with the application in three versions."""
    said = cluster("up", NAME, "--with", "traefik,istio")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == f"KUBECONFIG={plain.kubeconfig}"
    _apply(plain, *(_version(name, version) for name, version in (("stable", STABLE), ("canary", CANARY), ("shadow", SHADOW))))
    _apply(
        plain,
        *(_service(name, {"app": "web", "version": name}) for name in ("stable", "canary", "shadow")),
        _service("web", {"app": "web"}),
    )
    for name in ("stable", "canary", "shadow"):
        kubectl(plain, "rollout", "status", f"deployment/{name}", "--timeout=90s")
    return plain


def _apply(there: Cluster, *items: Manifest) -> None:
    """Apply manifests."""
    kubectl(there, "apply", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)}))


def _version(name: str, version: str) -> Manifest:
    """Return a Deployment of podinfo."""
    labels = {"app": "web", "version": name}
    probe = {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1}
    container = {
        "name": "app",
        "image": f"{config.REGISTRY}/podinfo:{version}",
        "ports": [{"containerPort": 9898}],
        "readinessProbe": probe,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}},
        },
    }


def _service(name: str, selector: dict[str, str]) -> Manifest:
    """Return a Service."""
    spec = {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 9898}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


# Routes, as people write them. Each gets a host of its own, weights of the canary, a header that asks for it, or a share that is mirrored.


def _nginx(host: str, **annotations: str) -> list[Manifest]:
    """Return a main Ingress, and before it the canary's: once the host answers, both are known."""

    def ingress(name: str, service: str, notes: dict[str, str]) -> Manifest:
        backend = {"service": {"name": service, "port": {"number": 80}}}
        rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": name, "annotations": {f"nginx.ingress.kubernetes.io/{key}": value for key, value in notes.items()}},
            "spec": {"ingressClassName": "nginx", "rules": [rule]},
        }

    name = host.partition(".")[0]
    notes = {"canary": "true", **{key.replace("_", "-"): value for key, value in annotations.items()}}
    return [ingress(f"{name}-canary", "canary", notes), ingress(name, "stable", {})]


def _http_route(parent: str, host: str, *rules: Manifest) -> list[Manifest]:
    """Return an HTTPRoute at a router's Gateway."""
    namespace, _slash, name = routers.ROUTERS[parent].gateway.partition("/")
    return [
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": host.partition(".")[0]},
            "spec": {"parentRefs": [{"name": name, "namespace": namespace}], "hostnames": [host], "rules": list(rules)},
        }
    ]


def _to(*weights: tuple[str, int]) -> list[Manifest]:
    """Return the backends of an HTTPRoute."""
    return [{"name": name, "port": 80, "weight": weight} for name, weight in weights]


def _ingress_route(host: str, *routes: tuple[str, Manifest]) -> Manifest:
    """Return an IngressRoute of routes, each a further condition and a service."""
    entries = [{"kind": "Rule", "match": f"Host(`{host}`){more}", "services": [service]} for more, service in routes]
    name = host.partition(".")[0]
    return {
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "IngressRoute",
        "metadata": {"name": name},
        "spec": {"entryPoints": ["web"], "routes": entries},
    }


def _traefik_service(host: str, spec: Manifest) -> list[Manifest]:
    """Return a TraefikService, and an IngressRoute to it."""
    name = host.partition(".")[0]
    service = {"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService", "metadata": {"name": name}, "spec": spec}
    return [service, _ingress_route(host, ("", {"name": name, "kind": "TraefikService"}))]


def _virtual_service(host: str, *http: Manifest) -> list[Manifest]:
    """Return a DestinationRule with a subset for each version, and a VirtualService at Istio's own Gateway."""
    name = host.partition(".")[0]
    subsets = [{"name": subset, "labels": {"version": subset}} for subset in ("stable", "canary", "shadow")]
    api = "networking.istio.io/v1"
    return [
        {"apiVersion": api, "kind": "DestinationRule", "metadata": {"name": "web"}, "spec": {"host": "web", "subsets": subsets}},
        {
            "apiVersion": api,
            "kind": "VirtualService",
            "metadata": {"name": name},
            "spec": {"hosts": [host], "gateways": ["istio-system/istio"], "http": list(http)},
        },
    ]


def _subset(name: str, weight: int = 100) -> Manifest:
    """Return a destination of a VirtualService."""
    return {"destination": {"host": "web", "subset": name}, "weight": weight}


@dataclass(frozen=True)
class Provider:
    """A way to write a route: the router that reads it, and how it splits by weight and matches the header ``x-canary: always``."""

    name: str
    router: str
    weighted: Callable[[str, int], list[Manifest]]
    matched: Callable[[str], list[Manifest]]


HEADER = {"headers": [{"name": "x-canary", "value": "always"}]}
PROVIDERS = (
    Provider(
        "ingress-nginx",
        "traefik",
        lambda host, weight: _nginx(host, canary_weight=str(weight)),
        lambda host: _nginx(host, canary_by_header="x-canary"),
    ),
    Provider(
        "gateway-api-traefik",
        "traefik",
        lambda host, weight: _http_route("traefik", host, {"backendRefs": _to(("stable", 100 - weight), ("canary", weight))}),
        lambda host: _http_route(
            "traefik", host, {"matches": [HEADER], "backendRefs": _to(("canary", 1))}, {"backendRefs": _to(("stable", 1))}
        ),
    ),
    Provider(
        "traefik",
        "traefik",
        lambda host, weight: _traefik_service(
            host,
            {
                "weighted": {
                    "services": [{"name": "stable", "port": 80, "weight": 100 - weight}, {"name": "canary", "port": 80, "weight": weight}]
                }
            },
        ),
        lambda host: [
            _ingress_route(host, (" && Header(`x-canary`, `always`)", {"name": "canary", "port": 80}), ("", {"name": "stable", "port": 80}))
        ],
    ),
    Provider(
        "istio",
        "istio",
        lambda host, weight: _virtual_service(host, {"route": [_subset("stable", 100 - weight), _subset("canary", weight)]}),
        lambda host: _virtual_service(
            host,
            {"match": [{"headers": {"x-canary": {"exact": "always"}}}], "route": [_subset("canary")]},
            {"route": [_subset("stable")]},
        ),
    ),
    Provider(
        "gateway-api-istio",
        "istio",
        lambda host, weight: _http_route("istio", host, {"backendRefs": _to(("stable", 100 - weight), ("canary", weight))}),
        lambda host: _http_route(
            "istio", host, {"matches": [HEADER], "backendRefs": _to(("canary", 1))}, {"backendRefs": _to(("stable", 1))}
        ),
    ),
)


def _mirror_traefik(host: str, percent: int) -> list[Manifest]:
    """Return a mirroring TraefikService."""
    return _traefik_service(
        host, {"mirroring": {"name": "stable", "port": 80, "mirrors": [{"name": "shadow", "port": 80, "percent": percent}]}}
    )


def _mirror_istio(host: str, percent: int) -> list[Manifest]:
    """Return a VirtualService that mirrors."""
    mirror = {"mirror": {"host": "web", "subset": "shadow"}, "mirrorPercentage": {"value": percent}}
    return _virtual_service(host, {"route": [_subset("stable")], **mirror})


def _mirror_gateway_api(parent: str) -> Callable[[str, int], list[Manifest]]:
    """Return what makes an HTTPRoute that mirrors; the percentage is in the standard channel."""

    def make(host: str, percent: int) -> list[Manifest]:
        mirror = {"backendRef": {"name": "shadow", "port": 80}, "percent": percent}
        return _http_route(
            parent, host, {"backendRefs": _to(("stable", 1)), "filters": [{"type": "RequestMirror", "requestMirror": mirror}]}
        )

    return make


MIRRORS = {
    "traefik": ("traefik", _mirror_traefik),
    "istio": ("istio", _mirror_istio),
    "gateway-api-istio": ("istio", _mirror_gateway_api("istio")),
}


def send(there: Cluster, router: str, host: str, count: int = REQUESTS, **headers: str) -> dict[str, int]:
    """Send requests to a router from within the cluster's network and return how many each version answered."""
    words = [
        routers.ROUTERS[router].address,
        host,
        str(count),
        json.dumps({key.replace("_", "-"): value for key, value in headers.items()}),
    ]
    said = cluster("exec", there.name, "--", sys.executable, "-c", SEND, *words)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


@pytest.fixture
def route(there: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[[str, list[Manifest], str], None]]:
    """Return what applies the manifests of a route and waits until its host is routed; they are deleted in the end."""
    made: list[Manifest] = []

    def apply(router: str, manifests: list[Manifest], host: str) -> None:
        made.extend(manifests)
        _apply(there, *manifests)
        assert wait_until(lambda: "404" not in send(there, router, host, 1), 30, pause=0.2), f"{router} does not route {host}"

    yield apply
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    kubectl(there, "delete", "--ignore-not-found", "-f", "-", data=text)


def settled(count: Callable[[], int]) -> int:
    """Return a count that does not grow any more: a copy may arrive after the answer to its original."""
    before = count()
    for _attempt in range(20):
        time.sleep(0.5)
        now = count()
        if now == before:
            break
        before = now
    return before


def mirrored(there: Cluster) -> int:
    """Return how many requests to / the shadow has answered."""
    address = kubectl(there, "get", "service", "shadow", "-o", "jsonpath={.spec.clusterIP}")
    said = cluster("exec", there.name, "--", sys.executable, "-c", GET, f"http://{address}/metrics")
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if line.startswith("http_request_duration_seconds_count") and 'path="root"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


# On demand


def test_without_being_asked_for_no_router_is_there(bare: dict[str, str]) -> None:
    assert bare["types"] == ""
    assert "traefik" not in bare["namespaces"] and "istio" not in bare["namespaces"]
    assert "http://" not in bare["status"].partition(f"{NAME}: up")[2]


def test_a_router_that_is_unknown_is_refused_in_one_sentence() -> None:
    said = cluster("up", NAME, "--with", "traefik,nginx")
    assert (said.returncode, said.stderr) == (1, 'cluster: there is no router or supply "nginx"; --with takes: traefik, istio, flagger\n')


def test_up_again_with_the_routers_is_quick_and_deploys_nothing(there: Cluster) -> None:
    started = time.monotonic()
    said = cluster("up", NAME, "--with", "istio,traefik")
    assert time.monotonic() - started < QUICK
    assert said.stdout == f"KUBECONFIG={there.kubeconfig}\n"


@pytest.mark.parametrize("name", routers.ROUTERS)
def test_status_says_where_a_router_answers(there: Cluster, name: str) -> None:
    router = routers.ROUTERS[name]
    line = f"ready, http://{router.address} (from the host http://{there.address}:{router.node_port})"
    assert line in cluster("status").stdout


@pytest.mark.parametrize("name", routers.ROUTERS)
def test_a_router_answers_on_the_host_too(there: Cluster, name: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        opener.open(f"http://{there.address}:{routers.ROUTERS[name].node_port}/", timeout=10)


@pytest.mark.parametrize("name", routers.ROUTERS)
def test_up_deploys_again_what_was_deleted(there: Cluster, name: str) -> None:
    namespace, _slash, deployment = routers.ROUTERS[name].deployments[-1].partition("/")
    kubectl(there, "-n", namespace, "delete", "deployment", deployment)
    assert "not ready" in cluster("status").stdout.partition(f"{NAME}: up")[2]
    said = cluster("up", NAME, "--with", name)
    assert said.returncode == 0, said.stderr
    assert f"deploying {name} in cluster {NAME}\n" in said.stdout
    assert routers.is_ready(there, routers.ROUTERS[name])


@pytest.mark.parametrize("name", routers.ROUTERS)
def test_the_gateway_is_accepted_and_has_the_router_s_address(there: Cluster, name: str) -> None:
    namespace, _slash, gateway = routers.ROUTERS[name].gateway.partition("/")
    accepted = kubectl(there, "get", "gatewayclass", name, "-o", "jsonpath={.status.conditions[?(@.type=='Accepted')].status}")
    found = json.loads(kubectl(there, "-n", namespace, "get", "gateways.gateway.networking.k8s.io", gateway, "-o", "json"))
    conditions = {entry["type"]: entry["status"] for entry in found["status"]["conditions"]}
    assert accepted == "True" and conditions["Accepted"] == conditions["Programmed"] == "True"
    assert found["status"]["addresses"]


@pytest.mark.parametrize(
    ("namespace", "label", "port", "path", "metric"),
    [
        ("traefik", "app.kubernetes.io/name=traefik", 9100, "/metrics", "traefik_config_reloads_total"),
        ("istio-system", "istio=ingressgateway", 15090, "/stats/prometheus", "envoy_cluster_upstream_rq"),
    ],
    ids=["traefik", "istio"],
)
def test_the_metrics_of_a_data_plane_can_be_scraped(there: Cluster, namespace: str, label: str, port: int, path: str, metric: str) -> None:
    pods = json.loads(kubectl(there, "-n", namespace, "get", "pods", "-l", label, "-o", "json"))["items"]
    notes = pods[0]["metadata"]["annotations"]
    assert (notes["prometheus.io/scrape"], notes["prometheus.io/port"], notes["prometheus.io/path"]) == ("true", str(port), path)
    said = cluster("exec", NAME, "--", sys.executable, "-c", GET, f"http://{pods[0]['status']['podIP']}:{port}{path}")
    assert metric in said.stdout, said.stderr


# Splitting


@pytest.mark.parametrize("weight", [0, 20, 100])
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_the_canary_gets_its_weight(there: Cluster, route: Callable[..., None], provider: Provider, weight: int) -> None:
    host = f"w{weight}-{provider.name}.example"
    route(provider.router, provider.weighted(host, weight), host)
    seen = send(there, provider.router, host)
    if weight in (0, 100):
        assert seen == {CANARY if weight else STABLE: REQUESTS}
    else:
        # Five standard deviations: Envoy draws for each request.
        allowed = 5 * math.sqrt(REQUESTS * weight / 100 * (100 - weight) / 100)
        assert set(seen) == {STABLE, CANARY}
        assert abs(seen[CANARY] - REQUESTS * weight / 100) <= allowed


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_a_change_of_weight_reaches_the_data_plane(there: Cluster, route: Callable[..., None], provider: Provider) -> None:
    host = f"change-{provider.name}.example"
    route(provider.router, provider.weighted(host, 0), host)
    assert send(there, provider.router, host, 50) == {STABLE: 50}
    _apply(there, *provider.weighted(host, 100))
    assert wait_until(lambda: send(there, provider.router, host, 50) == {CANARY: 50}, 15, pause=0.1)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_a_header_asks_for_the_canary(there: Cluster, route: Callable[..., None], provider: Provider) -> None:
    host = f"header-{provider.name}.example"
    route(provider.router, provider.matched(host), host)
    assert send(there, provider.router, host, 100, x_canary="always") == {CANARY: 100}
    assert send(there, provider.router, host, 100) == {STABLE: 100}


# Mirroring


@pytest.mark.parametrize("percent", [100, 50])
@pytest.mark.parametrize("name", MIRRORS)
def test_the_shadow_gets_a_copy_and_its_answers_reach_nobody(there: Cluster, route: Callable[..., None], name: str, percent: int) -> None:
    router, make = MIRRORS[name]
    host = f"mirror{percent}-{name}.example"
    route(router, make(host, percent), host)
    before = settled(lambda: mirrored(there))
    assert send(there, router, host) == {STABLE: REQUESTS}
    copies = settled(lambda: mirrored(there)) - before
    allowed = 5 * math.sqrt(REQUESTS * percent / 100 * (100 - percent) / 100)
    assert abs(copies - REQUESTS * percent / 100) <= allowed


def features(there: Cluster, name: str) -> list[str]:
    """Return what a GatewayClass says that it can do."""
    return kubectl(there, "get", "gatewayclass", name, "-o", "jsonpath={.status.supportedFeatures[*].name}").split()


def test_traefik_leaves_mirroring_out_of_what_it_says_that_its_gateway_can_do(there: Cluster, route: Callable[..., None]) -> None:
    assert "HTTPRouteMethodMatching" in features(there, "traefik") and "HTTPRouteRequestMirror" not in features(there, "traefik")
    # Istio mirrors, and says nothing of what it can do.
    assert features(there, "istio") == []
    # Traefik accepts such a route all the same, and then answers 500 to each request.
    host = "refused.example"
    route("traefik", _mirror_gateway_api("traefik")(host, 100), host)
    assert send(there, "traefik", host, 20) == {"500": 20}
    accepted = "jsonpath={.status.parents[0].conditions[?(@.type=='Accepted')].status}"
    assert kubectl(there, "get", "httproute", "refused", "-o", accepted) == "True"


# The API types


def test_istio_refuses_a_route_that_makes_no_sense(there: Cluster) -> None:
    wrong = _virtual_service("wrong.example", {"route": [_subset("stable", -1)]})
    with pytest.raises(config.ClusterError, match="denied the request.*weight -1 < 0"):
        _apply(there, wrong[1])


def test_the_api_types_are_of_the_pinned_versions(there: Cluster) -> None:
    note = "jsonpath={.metadata.annotations.gateway\\.networking\\.k8s\\.io/"
    crd = ("get", "customresourcedefinition", "httproutes.gateway.networking.k8s.io", "-o")
    version, channel = kubectl(there, *crd, f"{note}bundle-version}}"), kubectl(there, *crd, f"{note}channel}}")
    assert channel == "standard"
    assert f"sigs.k8s.io/gateway-api {version}\n" in (build.HERE / "modules" / "gateway-api" / "go.mod").read_text()
