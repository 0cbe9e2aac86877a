# SPDX-License-Identifier: GPL-3.0-or-later
"""Which controller serves a route, what it will not honour, and that what cannot be read is allowed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.routes.controllers import Served, version_of
from ansible_collections.progressive.delivery.plugins.module_utils.routing import Route, served_by
from support.fake import FakeCluster
from support.routes import http_route, ingress_class, ingress_route, main_ingress, routed, virtual_service

Manifest = dict[str, Any]
TRAEFIK = "traefik.io/gateway-controller"
ABLE = ("HTTPRoute", "HTTPRouteRequestMirror", "HTTPRouteQueryParamMatching")


class Counting(FakeCluster):
    """A cluster that counts what is read."""

    def __init__(self, other: FakeCluster) -> None:
        super().__init__()
        self.groups, self.forbidden, self._objects = other.groups, other.forbidden, other._objects
        self.reads: list[str] = []

    def get(self, ref: Ref) -> Any:
        """Count, and return the object."""
        self.reads.append(ref.kind)
        return super().get(ref)

    def list(self, query: Any) -> Any:
        """Count, and return the objects."""
        self.reads.append(query.kind)
        return super().list(query)


def gateway(name: str = "public", of: str = "traefik") -> Manifest:
    """Return a Gateway of a class."""
    return {"kind": "Gateway", "metadata": {"name": name, "namespace": "gateways"}, "spec": {"gatewayClassName": of}}


def gateway_class(controller: str = TRAEFIK, features: tuple[str, ...] | None = ABLE, accepted: str = "True") -> Manifest:
    """Return the GatewayClass traefik, with the features that its controller says it has."""
    status: Manifest = {"conditions": [{"type": "Accepted", "status": accepted, "message": "Waiting for controller"}]}
    if features is not None:
        status["supportedFeatures"] = [{"name": name} for name in features]
    return {"kind": "GatewayClass", "metadata": {"name": "traefik"}, "spec": {"controllerName": controller}, "status": status}


def pod(name: str, image: str, **labels: str) -> Manifest:
    """Return a controller's pod."""
    chosen = labels or {"app.kubernetes.io/name": name}
    spec = {"containers": [{"name": "c", "image": image}]}
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "system", "labels": chosen}, "spec": spec}


def saying(*parents: tuple[str, str], route: Manifest | None = None, generation: int = 1, about: int = 1) -> Manifest:
    """Return an HTTPRoute of whose parents each says (Accepted, reason); none has said anything where there are none."""
    made = copy.deepcopy(route or http_route())
    made["metadata"]["generation"] = generation
    made["status"]["parents"] = [
        {
            "parentRef": {"name": "public"},
            "conditions": [{"type": "Accepted", "status": status, "reason": reason, "message": "", "observedGeneration": about}],
        }
        for status, reason in parents
    ]
    return made


def listed(cluster: FakeCluster, provider: str) -> tuple[Route, Any]:
    """Return the route web and its objects."""
    route = Route.listed({"provider": provider, "name": "web", "namespace": "shop"}, "web", "web-canary")[0]
    return route, route.read(cluster)


def refused(cluster: FakeCluster, provider: str, *features: str) -> str:
    """Return the sentence with which features are refused, empty where they are not."""
    route, documents = listed(cluster, provider)
    try:
        route.check_controller(cluster, documents, *features)
    except InvalidRequest as error:
        assert error.reason == "NotSupported" and cluster.writes == []
        return error.message
    return ""


OFF_MARK = http_route(parentRefs=[])
OFF_MARK["status"] = {}
GATEWAY_API: dict[str, tuple[list[Manifest], tuple[str, ...], str]] = {
    "accepted, and nothing else is read": ([http_route()], ("weight",), ""),
    "mirrors": ([http_route(), gateway(), gateway_class()], ("mirror",), ""),
    "does not say what it can do": ([http_route(), gateway(), gateway_class(features=None)], ("mirror", "mirror_percent"), ""),
    "does not mirror": (
        [http_route(), gateway(), gateway_class(features=("HTTPRoute",))],
        ("mirror",),
        "HTTPRoute shop/web cannot have copies of requests: traefik.io/gateway-controller leaves HTTPRouteRequestMirror out of what"
        " GatewayClass traefik supports, and requests may fail if they are asked for; leave the mirror out, or mirror with provider"
        " traefik or istio",
    ),
    "mirrors, but no share": ([http_route(), gateway(), gateway_class()], ("mirror", "mirror_percent"), "copies of a share"),
    "no match by query": ([http_route(), gateway(), gateway_class(features=("HTTPRoute",))], ("audience", "query"), "by query parameter"),
    "needs only what is core": ([http_route(), gateway(), gateway_class(features=("HTTPRoute",))], ("audience",), ""),
    "the class is not there": ([http_route(), gateway()], ("mirror",), "GatewayClass traefik, which its Gateway names, does not exist"),
    "no parents": ([OFF_MARK], ("weight",), "HTTPRoute shop/web has no parentRefs"),
    "not accepted": (
        [saying(("False", "NotAllowedByListeners"))],
        ("weight",),
        "HTTPRoute shop/web is accepted by no parent, so it gets no requests: Gateway public says NotAllowedByListeners;",
    ),
    "accepted by one of two": ([saying(("False", "NoMatchingParent"), ("True", "Accepted"))], ("weight",), ""),
    "not accepted, but that was an older spec": ([saying(("False", "X"), generation=2), gateway(), gateway_class()], ("weight",), ""),
    "nobody has said anything": ([saying(), gateway(), gateway_class()], ("weight",), ""),
    "no Gateway": ([saying()], ("weight",), "gets no requests: Gateway gateways/public does not exist; correct its parentRefs"),
    "no controller": (
        [saying(), gateway(), gateway_class(accepted="Unknown")],
        ("weight",),
        "no controller serves GatewayClass traefik (Waiting for controller); install it",
    ),
}


@pytest.mark.parametrize(("manifests", "features", "sentence"), GATEWAY_API.values(), ids=GATEWAY_API)
def test_gateway_api(manifests: list[Manifest], features: tuple[str, ...], sentence: str) -> None:
    cluster = routed(*manifests)
    if not any(manifest["kind"] == "Gateway" for manifest in manifests):
        cluster.drop(Ref("Gateway", "gateways", "public"))
    told = refused(cluster, "gateway_api", *features)
    assert sentence in told if sentence else told == ""


NGINX = "k8s.io/ingress-nginx"
UNNAMED = main_ingress()
del UNNAMED["spec"]["ingressClassName"]
NAMED_OTHERWISE = copy.deepcopy(UNNAMED)
NAMED_OTHERWISE["metadata"]["annotations"]["kubernetes.io/ingress.class"] = "other"
DEFAULT = {"ingressclass.kubernetes.io/is-default-class": "true"}
INGRESS: dict[str, tuple[list[Manifest], str]] = {
    "nobody knows who runs it": ([main_ingress()], ""),
    "ingress-nginx": ([main_ingress(), pod("ingress-nginx", "registry.k8s.io/ingress-nginx/controller:v1.14.1@sha256:0")], ""),
    "a second ingress-nginx": ([main_ingress(), ingress_class(controller="k8s.io/internal-ingress-nginx")], ""),
    "Traefik 3.7": ([main_ingress(), pod("traefik", "docker.io/traefik:v3.7.0-ea.3")], ""),
    "Traefik 3.6": (
        [main_ingress(), pod("traefik", "docker.io/traefik:v3.6.13")],
        'Ingress shop/web is of class "nginx", which Traefik 3.6.13 serves, and Traefik honours the annotations of a canary only from',
    ),
    "Traefik of an unknown version": ([main_ingress(), pod("traefik", "traefik@sha256:00")], ""),
    "both": ([main_ingress(), pod("traefik", "traefik:3.6.2"), pod("ingress-nginx", "controller:v1.14.1")], ""),
    "Traefik's own class": (
        [main_ingress(), ingress_class(controller="traefik.io/ingress-controller")],
        'Ingress shop/web is of class "nginx", which Traefik serves without the annotations of ingress-nginx',
    ),
    "another controller": (
        [main_ingress(), ingress_class(controller="ingress.k8s.aws/alb")],
        "whose controller ingress.k8s.aws/alb does not know the annotations of ingress-nginx; use provider gateway_api",
    ),
    "another by annotation": ([NAMED_OTHERWISE, ingress_class("other", "haproxy.org/ingress-controller")], "haproxy.org"),
    "another by default": ([UNNAMED, ingress_class("d", "projectcontour.io/ingress-controller", **DEFAULT)], 'is of class "d"'),
    "no class": ([UNNAMED], ""),
    "no such class": (
        [main_ingress(), {**main_ingress(), "spec": {**main_ingress()["spec"], "ingressClassName": "nope"}}],
        'Ingress shop/web is of class "nope", and there is no such IngressClass, so nobody serves it',
    ),
    "an old class without an object": ([NAMED_OTHERWISE], ""),
}


@pytest.mark.parametrize(("manifests", "sentence"), INGRESS.values(), ids=INGRESS)
def test_ingress_nginx(manifests: list[Manifest], sentence: str) -> None:
    told = refused(routed(*manifests), "ingress_nginx", "weight")
    assert sentence in told if sentence else told == ""


def istio(*gateways: str) -> Manifest:
    """Return a VirtualService for Gateways."""
    made = virtual_service()
    made["spec"]["gateways"] = list(gateways)
    return made


ISTIO_GATEWAY = {"kind": "Gateway.networking.istio.io", "metadata": {"name": "main", "namespace": "istio"}, "spec": {}}


@pytest.mark.parametrize(
    ("manifests", "sentence"),
    [
        ([virtual_service()], ""),
        ([istio("istio/main", "local"), ISTIO_GATEWAY], ""),
        ([istio("mesh", "istio/main")], ""),
        ([istio("istio/main", "local")], "Gateway.networking.istio.io istio/main, Gateway.networking.istio.io shop/local does not exist"),
    ],
    ids=["mesh", "one is there", "mesh and a missing one", "none is there"],
)
def test_istio(manifests: list[Manifest], sentence: str) -> None:
    told = refused(routed(*manifests), "istio", "weight")
    assert sentence in told if sentence else told == ""


def test_traefik_s_route_of_another_class() -> None:
    route = ingress_route()
    route["metadata"]["annotations"]["kubernetes.io/ingress.class"] = "nginx"
    assert 'is of class "nginx", which k8s.io/ingress-nginx serves and Traefik does not' in refused(routed(route), "traefik", "weight")
    assert refused(routed(ingress_route()), "traefik", "weight") == ""


HIDDEN = {"Gateway", "GatewayClass", "IngressClass", "Pod", "Gateway.networking.istio.io"}


@pytest.mark.parametrize(
    ("provider", "route"),
    [("gateway_api", saying()), ("ingress_nginx", main_ingress()), ("istio", istio("istio/main")), ("traefik", ingress_route())],
)
def test_what_may_not_be_read_is_allowed(provider: str, route: Manifest) -> None:
    cluster = routed(route, ingress_class(controller="ingress.k8s.aws/alb"), gateway_class(features=()))
    cluster.forbidden |= HIDDEN
    assert refused(cluster, provider, "weight", "mirror", "mirror_percent", "query") == ""
    route_of, documents = listed(cluster, provider)
    told = served_by(cluster, provider, route_of.ref, documents[route_of.ref])
    assert told.version == "" and told.features is None


@pytest.mark.parametrize(
    ("provider", "route", "reads"),
    [
        ("gateway_api", http_route(), []),
        ("ingress_nginx", main_ingress(), ["IngressClass", "Pod"]),
        ("istio", istio("istio/main"), ["Gateway.networking.istio.io"]),
        ("traefik", ingress_route(), []),
    ],
)
def test_few_things_are_read_for_a_weight(provider: str, route: Manifest, reads: list[str]) -> None:
    cluster = Counting(routed(route, ISTIO_GATEWAY, pod("traefik", "traefik:3.7.5")))
    found, documents = listed(cluster, provider)
    cluster.reads.clear()
    found.check_controller(cluster, documents, "weight")
    assert cluster.reads == reads


WHO: dict[str, tuple[str, list[Manifest], Served]] = {
    "gateway_api": (
        "gateway_api",
        [http_route(), gateway(), gateway_class(), pod("traefik", "traefik:3.7.5")],
        Served("traefik", "3.7.5", True, ABLE),
    ),
    "gateway_api, an unknown controller": (
        "gateway_api",
        [saying(), gateway(), gateway_class("example.com/c", None)],
        Served("example.com/c", notes=("no controller has said yet whether it accepts the route",)),
    ),
    "ingress_nginx by Traefik": ("ingress_nginx", [main_ingress(), pod("traefik", "traefik:3.7.5")], Served("traefik", "3.7.5")),
    "istio": (
        "istio",
        [virtual_service(), pod("istiod", "docker.io/istio/pilot:1.31.2", app="istiod")],
        Served("istio", "1.31.2"),
    ),
    "traefik": ("traefik", [ingress_route(), pod("traefik", "rancher/mirrored-library-traefik:3.6.1")], Served("traefik", "3.6.1")),
}


@pytest.mark.parametrize(("provider", "manifests", "expected"), WHO.values(), ids=WHO)
def test_who_serves_a_route(provider: str, manifests: list[Manifest], expected: Served) -> None:
    cluster = routed(*manifests)
    route, documents = listed(cluster, provider)
    assert served_by(cluster, provider, route.ref, documents[route.ref]) == expected


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("traefik:v3.7.5", "3.7.5"),
        ("localhost:32000/traefik:3.7", "3.7"),
        ("localhost:32000/traefik", ""),
        ("registry.k8s.io/ingress-nginx/controller:v1.14.1@sha256:95", "1.14.1"),
        ("localhost:32000/istio/pilot:1.31-eed52ebb66ad", "1.31"),
        ("traefik:latest", ""),
        ("", ""),
    ],
)
def test_a_version_is_read_of_an_image_s_tag(image: str, version: str) -> None:
    assert version_of(image) == version
