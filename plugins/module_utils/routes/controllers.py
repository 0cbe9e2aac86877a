# SPDX-License-Identifier: GPL-3.0-or-later
"""Which controller serves a route, and what it will not honour. What cannot be read is unknown, and unknown is allowed.

A provider asks for objects one after the other - the next question may lie in the last answer - and judges by what was found.
One that has nothing here, as a new one may, serves everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..model import Manifest, Query, Ref, annotations, metadata

Need = Ref | Query
COLOR, AUDIENCE, MIRROR, MIRROR_PERCENT, QUERY, METHOD, WEIGHT = (
    "color",
    "audience",
    "mirror",
    "mirror_percent",
    "query",
    "method",
    "weight",
)
"""What a step needs of the controller: matches by header are an audience, by query parameter or method more than that."""
INFO = "info"
"""Not a feature: whoever asks wants to know all that can be known."""

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
NAME_LABEL = "app.kubernetes.io/name"
NGINX_SINCE = (3, 7)
_TAG = re.compile(r":v?(\d+(?:\.\d+)+)[^/@]*(?:@.*)?$")


@dataclass(frozen=True)
class Found:
    """What was found for the questions: {Ref: object, or None where there is none}, {Query: objects}. The unreadable is in neither."""

    objects: Mapping[Ref, Manifest | None] = field(default_factory=dict)
    lists: Mapping[Query, Sequence[Manifest]] = field(default_factory=dict)

    def there(self, ref: Ref) -> Manifest:
        """Return an object, empty where it is not there or not known."""
        return self.objects.get(ref) or {}

    def is_missing(self, ref: Ref) -> bool:
        """Return whether it is known that an object is not there."""
        return ref in self.objects and self.objects[ref] is None


@dataclass(frozen=True)
class Served:
    """Who serves a route: a name, a version, whether it has accepted the route, what it says that it can do, and what to know of it.

    Empty or None is unknown.
    """

    name: str = ""
    version: str = ""
    accepted: bool | None = None
    features: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Judge:
    """How one provider asks, tells and refuses."""

    asks: Callable[[Ref, Manifest, frozenset[str], Found], list[Need]]
    served: Callable[[Ref, Manifest, Found], Served]
    refusal: Callable[[Ref, Manifest, frozenset[str], Found], str]


def asks(provider: str, ref: Ref, manifest: Manifest, features: Iterable[str], found: Found) -> list[Need]:
    """Return what to read next to know whether the features are served; empty when there is nothing more to ask."""
    judge = _JUDGES.get(provider)
    return judge.asks(ref, manifest, frozenset(features), found) if judge else []


def served(provider: str, ref: Ref, manifest: Manifest, found: Found) -> Served:
    """Return who serves the route, as far as it was found."""
    judge = _JUDGES.get(provider)
    return judge.served(ref, manifest, found) if judge else Served()


def refusal(provider: str, ref: Ref, manifest: Manifest, features: Iterable[str], found: Found) -> str:
    """Return one sentence with the way out where a feature will not be honoured, else an empty text."""
    judge = _JUDGES.get(provider)
    return judge.refusal(ref, manifest, frozenset(features), found) if judge else ""


# -- whose pods they are ---------------------------------------------------------------------------------------------


def _pods(labels: str) -> list[Need]:
    """Return the question for the pods with labels, in any namespace: they have them wherever their Deployment or DaemonSet has."""
    return [Query("Pod", "", labels)]


def _running(found: Found, labels: str, name: str) -> tuple[bool, str]:
    """Return whether pods of a controller are there, and their version, empty where no image says it."""
    key = labels.partition(" ")[0].partition("=")[0]
    pods = [entry for entry in found.lists.get(Query("Pod", "", labels)) or [] if (metadata(entry).get("labels") or {}).get(key) == name]
    images = [container.get("image") or "" for pod in pods for container in (pod.get("spec") or {}).get("containers") or []]
    return bool(pods), next((version for version in map(version_of, images) if version), "")


def version_of(image: str) -> str:
    """Return the version in an image's tag, empty where there is none: ``3.7.5`` of ``traefik:v3.7.5``."""
    tag = _TAG.search(image)
    return tag.group(1) if tag else ""


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version's numbers."""
    return tuple(int(part) for part in version.split("."))


# -- Gateway API -----------------------------------------------------------------------------------------------------

_GATEWAY_GROUP = "gateway.networking.k8s.io"
_EXTENDED = {
    MIRROR: ("HTTPRouteRequestMirror", "copies of requests", "leave the mirror out, or mirror with provider traefik or istio"),
    MIRROR_PERCENT: (
        "HTTPRouteRequestPercentageMirror",
        "copies of a share of the requests",
        "mirror 100 percent, or mirror with provider traefik or istio",
    ),
    QUERY: ("HTTPRouteQueryParamMatching", "matches by query parameter", "match a header"),
    METHOD: ("HTTPRouteMethodMatching", "matches by method", "match a header"),
}
"""What is no part of Gateway API's core: the name of the feature, what it is, and the way out."""
_CONTROLLERS = {
    "istio.io/gateway-controller": ("istio", "app=istiod", "istiod"),
    "traefik.io/gateway-controller": ("traefik", f"{NAME_LABEL}=traefik", "traefik"),
}
"""Known controllers: a short name, and the label by which their pods are found."""


def _parents(ref: Ref, manifest: Manifest) -> list[Ref]:
    """Return the Gateways of a route; a parent may also be a Service, which is a mesh's."""
    found = []
    for parent in (manifest.get("spec") or {}).get("parentRefs") or []:
        if (parent.get("kind") or "Gateway") == "Gateway" and (parent.get("group") or _GATEWAY_GROUP) == _GATEWAY_GROUP:
            found.append(Ref("Gateway", parent.get("namespace") or ref.namespace, parent["name"]))
    return list(dict.fromkeys(found))


def _classes(ref: Ref, manifest: Manifest, found: Found) -> list[Ref]:
    """Return the GatewayClasses of the route's Gateways, as far as these are known."""
    names = [(found.there(gateway).get("spec") or {}).get("gatewayClassName") for gateway in _parents(ref, manifest)]
    return [Ref("GatewayClass", "", name) for name in dict.fromkeys(names) if name]


def conditions(entry: Mapping[str, Any], generation: int | None = None) -> dict[str, Mapping[str, Any]]:
    """Return an object's or a parent's conditions by type, without those that are about an older spec."""
    return {
        condition["type"]: condition
        for condition in entry.get("conditions") or []
        if generation is None or (condition.get("observedGeneration") or generation) >= generation
    }


def _accepted(manifest: Manifest) -> tuple[bool | None, str]:
    """Return whether a parent has accepted the route as it is now - None where none has said anything -, and why it has not."""
    generation, reasons = metadata(manifest).get("generation"), []
    for parent in (manifest.get("status") or {}).get("parents") or []:
        said = conditions(parent, generation).get("Accepted") or {}
        if said.get("status") == "True":
            return True, ""
        if said.get("status") == "False":
            name = (parent.get("parentRef") or {}).get("name")
            reasons.append(f"Gateway {name} says {': '.join(filter(None, [said.get('reason'), said.get('message')]))}")
    return (False, "; ".join(dict.fromkeys(reasons))) if reasons else (None, "")


def _features(manifest: Manifest) -> tuple[str, ...] | None:
    """Return what a GatewayClass says that its controller can do, None where it does not say."""
    listed = (manifest.get("status") or {}).get("supportedFeatures")
    if listed is None:
        return None
    return tuple(entry["name"] if isinstance(entry, Mapping) else str(entry) for entry in listed)


def _gateway_asks(ref: Ref, manifest: Manifest, features: frozenset[str], found: Found) -> list[Need]:
    """Return the route's Gateways and their classes, where a feature beyond the core is asked for or nobody took the route."""
    if not features & (_EXTENDED.keys() | {INFO}) and _accepted(manifest)[0] is not None:
        return []
    classes = _classes(ref, manifest, found)
    needed: list[Need] = [*_parents(ref, manifest), *classes]
    if INFO in features:
        for entry in classes:
            known = _CONTROLLERS.get((found.there(entry).get("spec") or {}).get("controllerName") or "")
            needed += _pods(known[1]) if known else []
    return needed


def _gateway_served(ref: Ref, manifest: Manifest, found: Found) -> Served:
    """Return whose GatewayClasses the route's Gateways have."""
    names, versions, features, notes = [], [], None, []
    for entry in _classes(ref, manifest, found):
        controller = (found.there(entry).get("spec") or {}).get("controllerName") or ""
        name, labels, pods = _CONTROLLERS.get(controller, (controller, "", ""))
        names.append(name)
        versions.append(_running(found, labels, pods)[1] if labels else "")
        mine = _features(found.there(entry))
        features = mine if features is None or mine is None else tuple(each for each in features if each in mine)
    accepted, why = _accepted(manifest)
    if why:
        notes.append(f"no parent accepts the route: {why}")
    elif accepted is None:
        notes.append("no controller has said yet whether it accepts the route")
    generation = metadata(manifest).get("generation")
    for parent in (manifest.get("status") or {}).get("parents") or []:
        said = conditions(parent, generation).get("ResolvedRefs") or {}
        if said.get("status") == "False":
            notes.append(f"a backend is not found: {said.get('message') or said.get('reason')}")
    version = versions[0] if len(set(names)) == 1 else ""
    return Served(", ".join(filter(None, dict.fromkeys(names))), version, accepted, features, tuple(dict.fromkeys(notes)))


def _gateway_refusal(ref: Ref, manifest: Manifest, features: frozenset[str], found: Found) -> str:
    """Return why the route gets no requests, or which feature its controller leaves out of what it can do."""
    gateways = _parents(ref, manifest)
    if not (manifest.get("spec") or {}).get("parentRefs"):
        return f"{ref} has no parentRefs, so no Gateway gives it requests; name its Gateway there"
    accepted, why = _accepted(manifest)
    if accepted is False:
        return f"{ref} is accepted by no parent, so it gets no requests: {why}; correct its parentRefs or the Gateway's listeners"
    if gateways and all(found.is_missing(gateway) for gateway in gateways):
        return f"{ref} gets no requests: {', '.join(map(str, gateways))} does not exist; correct its parentRefs, or make the Gateway"
    for entry in _classes(ref, manifest, found):
        if found.is_missing(entry):
            return f"{ref} gets no requests: {entry}, which its Gateway names, does not exist; correct gatewayClassName"
        said = conditions(found.there(entry).get("status") or {}).get("Accepted") or {}
        if accepted is None and said and said.get("status") != "True":
            return f"{ref} gets no requests: no controller serves {entry} ({said.get('message') or said.get('reason')}); install it"
        able = _features(found.there(entry))
        for feature in sorted(features & _EXTENDED.keys()):
            name, what, way_out = _EXTENDED[feature]
            if able is not None and name not in able:
                controller = (found.there(entry).get("spec") or {}).get("controllerName") or "its controller"
                return (
                    f"{ref} cannot have {what}: {controller} leaves {name} out of what {entry} supports, and requests may fail"
                    f" if they are asked for; {way_out}"
                )
    return ""


# -- Ingress with the annotations of ingress-nginx -------------------------------------------------------------------

_NGINX_OR_TRAEFIK = f"{NAME_LABEL} in (ingress-nginx,traefik)"


def _serves_annotations(controller: str) -> bool:
    """Return whether an IngressClass is for ingress-nginx or whoever stands in for it.

    Second ones get names of their own, by convention with the project's name in it; two clouds' builds have other names.
    """
    return "ingress-nginx" in controller or controller in ("webapprouting.kubernetes.azure.com/nginx", "higress.io/higress-controller")


def _ingress_class(manifest: Manifest, found: Found) -> tuple[str, Manifest]:
    """Return the name of the Ingress' class, empty where it has none, and its object, empty where it is not known."""
    name = (manifest.get("spec") or {}).get("ingressClassName") or annotations(manifest).get(CLASS_ANNOTATION) or ""
    if name:
        return name, found.there(Ref("IngressClass", "", name))
    for entry in found.lists.get(Query("IngressClass", "")) or []:
        if annotations(entry).get(DEFAULT_CLASS) == "true":
            return metadata(entry)["name"], entry
    return "", {}


def _controller_of(manifest: Manifest, found: Found) -> str:
    """Return the controller that the Ingress' class names, empty where it is not known."""
    _name, entry = _ingress_class(manifest, found)
    controller: str = (entry.get("spec") or {}).get("controller") or ""
    return controller


def _ingress_asks(_ref: Ref, manifest: Manifest, _features: frozenset[str], found: Found) -> list[Need]:
    """Return the Ingress' class, and where that is ingress-nginx' who stands behind it."""
    name, _entry = _ingress_class(manifest, Found())
    needed: list[Need] = [Ref("IngressClass", "", name) if name else Query("IngressClass", "")]
    if _serves_annotations(_controller_of(manifest, found)):
        needed += _pods(_NGINX_OR_TRAEFIK)
    return needed


def _ingress_served(_ref: Ref, manifest: Manifest, found: Found) -> Served:
    """Return who stands behind the Ingress' class: ingress-nginx, or Traefik in its place."""
    name, _entry = _ingress_class(manifest, found)
    controller = _controller_of(manifest, found)
    if not name:
        return Served(notes=("the Ingress has no class, so it is not known who serves it",))
    if not controller:
        return Served(notes=(f"IngressClass {name} cannot be read, so it is not known who serves it",))
    if not _serves_annotations(controller):
        return Served(controller, notes=("it does not honour the annotations of ingress-nginx",))
    for who in ("ingress-nginx", "traefik"):
        runs, version = _running(found, _NGINX_OR_TRAEFIK, who)
        if runs:
            retired = ("ingress-nginx was retired in March 2026 and gets no fixes; move to Gateway API",) if who == "ingress-nginx" else ()
            return Served(who, version, notes=retired)
    return Served(controller, notes=("it is not known who runs it: its pods are not found by their label, or may not be read",))


def serves_nginx_annotations(told: Served) -> bool:
    """Return whether who serves an Ingress honours a canary's annotations; an unknown one is taken to do so, Traefik of old not."""
    known = told.name in ("", "ingress-nginx") or _serves_annotations(told.name)
    return known or (told.name == "traefik" and (not told.version or _numbers(told.version) >= NGINX_SINCE))


def _ingress_refusal(ref: Ref, manifest: Manifest, _features: frozenset[str], found: Found) -> str:
    """Return why the controller of the Ingress' class does not honour ingress-nginx' annotations."""
    name, _entry = _ingress_class(manifest, found)
    if (manifest.get("spec") or {}).get("ingressClassName") and found.is_missing(Ref("IngressClass", "", name)):
        return f'{ref} is of class "{name}", and there is no such IngressClass, so nobody serves it; correct ingressClassName'
    controller = _controller_of(manifest, found)
    if controller == "traefik.io/ingress-controller":
        return (
            f'{ref} is of class "{name}", which Traefik serves without the annotations of ingress-nginx, so a canary\'s would change'
            " nothing; use provider traefik or gateway_api, or, with Traefik 3.7 or newer, a class whose controller is k8s.io/ingress-nginx"
        )
    if controller and not _serves_annotations(controller):
        return (
            f'{ref} is of class "{name}", whose controller {controller} does not know the annotations of ingress-nginx;'
            " use provider gateway_api, or a class whose controller is k8s.io/ingress-nginx"
        )
    who = _ingress_served(ref, manifest, found)
    if who.name == "traefik" and who.version and _numbers(who.version) < NGINX_SINCE:
        return (
            f'{ref} is of class "{name}", which Traefik {who.version} serves, and Traefik honours the annotations of a canary only from'
            " 3.7 on: the canary's Ingress would be a plain second one; upgrade Traefik, or use provider traefik or gateway_api"
        )
    return ""


# -- Istio -----------------------------------------------------------------------------------------------------------

ISTIO_GATEWAY = "Gateway.networking.istio.io"
_ISTIOD = "app=istiod"


def _istio_gateways(ref: Ref, manifest: Manifest) -> list[Ref]:
    """Return the Gateways of a VirtualService; none where it is for the mesh, whose proxies are known nowhere."""
    names = (manifest.get("spec") or {}).get("gateways") or ["mesh"]
    if "mesh" in names:
        return []
    pairs = [name.partition("/") if "/" in name else (ref.namespace, "/", name) for name in names]
    return [Ref(ISTIO_GATEWAY, namespace, name) for namespace, _slash, name in pairs]


def _istio_asks(ref: Ref, manifest: Manifest, features: frozenset[str], found: Found) -> list[Need]:
    """Return the VirtualService's Gateways."""
    return [*_istio_gateways(ref, manifest), *(_pods(_ISTIOD) if INFO in features else [])]


def _istio_served(ref: Ref, manifest: Manifest, found: Found) -> Served:
    """Return Istio and its version, and which of the route's Gateways are not there."""
    missing = [str(gateway) for gateway in _istio_gateways(ref, manifest) if found.is_missing(gateway)]
    runs, version = _running(found, _ISTIOD, "istiod")
    notes = [f"{', '.join(missing)} does not exist"] if missing else []
    notes += [] if runs else ["istiod's pods are not found, or may not be read"]
    return Served("istio", version, notes=tuple(notes))


def _istio_refusal(ref: Ref, manifest: Manifest, _features: frozenset[str], found: Found) -> str:
    """Return that none of the route's Gateways exists."""
    gateways = _istio_gateways(ref, manifest)
    if gateways and all(found.is_missing(gateway) for gateway in gateways):
        return f"{ref} gets no requests: {', '.join(map(str, gateways))} does not exist; correct its gateways, or make the Gateway"
    return ""


# -- Traefik's own API -----------------------------------------------------------------------------------------------

_TRAEFIK = f"{NAME_LABEL}=traefik"


def _traefik_class(manifest: Manifest) -> str:
    """Return the class of an IngressRoute, empty where it has none, as most have."""
    return annotations(manifest).get(CLASS_ANNOTATION) or ""


def _traefik_asks(_ref: Ref, manifest: Manifest, features: frozenset[str], found: Found) -> list[Need]:
    """Return the class that the IngressRoute names."""
    name = _traefik_class(manifest)
    return [*([Ref("IngressClass", "", name)] if name else []), *(_pods(_TRAEFIK) if INFO in features else [])]


def _traefik_served(_ref: Ref, _manifest: Manifest, found: Found) -> Served:
    """Return Traefik and its version."""
    runs, version = _running(found, _TRAEFIK, "traefik")
    return Served("traefik", version, notes=() if runs else ("Traefik's pods are not found by their label, or may not be read",))


def _traefik_refusal(ref: Ref, manifest: Manifest, _features: frozenset[str], found: Found) -> str:
    """Return that the IngressRoute's class is another controller's."""
    name = _traefik_class(manifest)
    controller = (found.there(Ref("IngressClass", "", name)).get("spec") or {}).get("controller") or "" if name else ""
    if controller and "traefik" not in controller:
        return f'{ref} is of class "{name}", which {controller} serves and Traefik does not; correct its annotation {CLASS_ANNOTATION}'
    return ""


_JUDGES: dict[str, _Judge] = {
    "gateway_api": _Judge(_gateway_asks, _gateway_served, _gateway_refusal),
    "ingress_nginx": _Judge(_ingress_asks, _ingress_served, _ingress_refusal),
    "istio": _Judge(_istio_asks, _istio_served, _istio_refusal),
    "traefik": _Judge(_traefik_asks, _traefik_served, _traefik_refusal),
}
