# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers of routes by name. A new one is a file beside this, imported here: AnsiballZ finds imports by reading."""

from __future__ import annotations

from types import ModuleType

from ..errors import InvalidRequest
from . import gateway_api, ingress, ingress_nginx, istio, service, traefik
from .colored import Colored

COLOR_PROVIDERS: dict[str, ModuleType | Colored] = {
    "gateway_api": Colored(gateway_api.KIND, gateway_api.backends),
    "ingress": Colored(ingress.KIND, ingress.backends),
    "istio": Colored(istio.KIND, istio.backends, istio.color_needs),
    "service": service,
    "traefik": Colored(traefik.KIND, traefik.backends),
}
"""Providers that send all traffic to one colour. Each has KIND, others, read, operations, slices_of."""
ROUTERS: dict[str, ModuleType] = {"gateway_api": gateway_api, "ingress_nginx": ingress_nginx, "istio": istio, "traefik": traefik}
"""Providers that split the requests of a route. Each has KIND, rules, needs, known, backends, service_of,
split, weighted, audience, mirrored, unfit."""


def color_provider(name: str) -> ModuleType | Colored:
    """Return the provider that switches colours, or raise InvalidRequest."""
    if name not in COLOR_PROVIDERS:
        raise InvalidRequest(f'there is no provider "{name}"; provider is one of {", ".join(sorted(COLOR_PROVIDERS))}')
    return COLOR_PROVIDERS[name]


def router(name: str) -> ModuleType:
    """Return the provider that splits requests, or raise InvalidRequest."""
    if name not in ROUTERS:
        raise InvalidRequest(f'there is no provider "{name}"; provider is one of {", ".join(sorted(ROUTERS))}')
    return ROUTERS[name]
