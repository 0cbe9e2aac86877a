# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers of routes by name. A new one is a file beside this, imported here: AnsiballZ finds imports by reading."""

from __future__ import annotations

from types import ModuleType

from ..errors import InvalidRequest
from . import ingress, service

COLOR_PROVIDERS: dict[str, ModuleType] = {"ingress": ingress, "service": service}


def color_provider(name: str) -> ModuleType:
    """Return the provider that switches colours, or raise InvalidRequest."""
    if name not in COLOR_PROVIDERS:
        raise InvalidRequest(f'there is no provider "{name}"; provider is one of {", ".join(sorted(COLOR_PROVIDERS))}')
    return COLOR_PROVIDERS[name]
