# SPDX-License-Identifier: GPL-3.0-or-later
"""Provider ``ingress``: a Service for each colour, and an Ingress whose backend names one of them."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Manifest
from .colored import Backend

KIND = "Ingress"


def backends(manifest: Manifest) -> Iterator[Backend]:
    """Yield every Service backend of the Ingress, in its order; the rules count by their paths."""
    spec = manifest.get("spec") or {}
    service = (spec.get("defaultBackend") or {}).get("service")
    if service:
        yield _backend("/spec/defaultBackend", -1, "", "(default)", service)
    number = 0
    for index, rule in enumerate(spec.get("rules") or []):
        for place, path in enumerate((rule.get("http") or {}).get("paths") or []):
            service = (path.get("backend") or {}).get("service")
            if service:
                where = f"/spec/rules/{index}/http/paths/{place}/backend"
                yield _backend(where, number, rule.get("host") or "", path.get("path") or "/", service)
            number += 1


def _backend(where: str, rule: int, host: str, path: str, service: Manifest) -> Backend:
    """Return one place that names a Service."""
    port = (service.get("port") or {}).get("number") or (service.get("port") or {}).get("name")
    return Backend(f"{where}/service/name", (host,), path, service["name"], service["name"], port, rule=rule)
