# SPDX-License-Identifier: GPL-3.0-or-later
"""A route of colours on a cluster: what steps read of it, over the Protocol ``Cluster``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .errors import InvalidRequest, WaitFailed
from .model import Cluster, Colors, Manifest, Query, Ref, Wanted, metadata, selector_string
from .plan.colors import ready_addresses
from .plan.rollout import is_ready
from .reading import ready_pods
from .routes import controllers
from .routes.colored import Colored
from .routes.registry import color_provider
from .routing import check_controller
from .watching import Stream


@dataclass
class Route:
    """A route, the provider that understands it and its name, and the cluster it is on."""

    ref: Ref
    provider: ModuleType | Colored
    wanted: Wanted
    cluster: Cluster
    router: str = "service"

    @classmethod
    def of(cls, options: Mapping[str, Any], cluster: Cluster) -> Route:
        """Return the route that a step's options name."""
        provider = color_provider(options["provider"])
        services = options.get("services") or {}
        for color, name in services.items():
            if not isinstance(name, str) or not name:
                raise InvalidRequest(f'services must name a Service for each color, got {name!r} for "{color}"')
        wanted = Wanted(
            options.get("color_label") or "version", options.get("rule_host"), options.get("rule_path"), services, options.get("rule")
        )
        ref = Ref(provider.KIND, options["namespace"], options["name"])
        return cls(ref, provider, wanted, cluster, options["provider"])

    def read(self, manifest: Manifest) -> Colors:
        """Return the colours of the route; other objects are read only for a provider that needs them."""
        others = [entry for query in self.provider.others(self.ref, manifest) for entry in self.cluster.list(query).items]
        return self.provider.read(self.ref, manifest, others, self.wanted)

    def check_controller(self, manifest: Manifest) -> None:
        """Raise InvalidRequest where the controller that serves the route will not honour a colour."""
        check_controller(self.cluster, self.router, self.ref, manifest, controllers.COLOR)

    def ready(self, colors: Colors, color: str) -> list[Manifest]:
        """Return the ready pods of a colour."""
        return ready_pods(self.cluster, self.ref.namespace, selector_string(colors.selector(color)))

    def deployments(self, colors: Colors) -> dict[str, list[Manifest]]:
        """Return {color: Deployments} of those whose pods the route could select."""
        found: dict[str, list[Manifest]] = {}
        for entry in self.cluster.list(Query("Deployment", self.ref.namespace)).items:
            labels = ((((entry.get("spec") or {}).get("template") or {}).get("metadata")) or {}).get("labels") or {}
            if colors.label in labels and all(labels.get(key) == value for key, value in colors.base.items()):
                found.setdefault(labels[colors.label], []).append(entry)
        return found

    def check_exists(self, colors: Colors, color: str) -> None:
        """Raise InvalidRequest where no Deployment has the colour."""
        there = self.deployments(colors)
        if color not in there:
            known = ", ".join(sorted(there)) or "none"
            labels = selector_string(colors.selector(color))
            raise InvalidRequest(
                f'no Deployment in namespace {self.ref.namespace} has color "{color}" (pods with {labels}), so {self.ref} stays'
                f" on {colors.active}; colors there are: {known}"
            )


def settle_endpoints(
    cluster: Cluster, route: Route, colors: Colors, color: str, timeout: float, progress: Callable[..., None] = lambda _line: None
) -> float:
    """Wait until the Service's EndpointSlices hold ready pods of the colour and no others; return the seconds it took."""
    started = time.monotonic()
    slices = Query("EndpointSlice", route.ref.namespace, selector_string(route.provider.slices_of(route.ref, colors, color)))
    pods = Query("Pod", route.ref.namespace, selector_string(colors.selector(color)))
    known: dict[str, dict[str, Manifest]] = {"EndpointSlice": {}, "Pod": {}}
    synced: set[str] = set()
    with Stream(cluster, [slices, pods], timeout) as stream:
        for event in stream.events():
            if event is None:
                continue
            table = known[event.query.kind]
            if event.type == "SYNCED":
                synced.add(event.query.kind)
                table.clear()
                table.update({metadata(entry)["name"]: entry for entry in event.items})
            elif event.type == "DELETED":
                table.pop(metadata(event.object)["name"], None)
            else:
                table[metadata(event.object)["name"]] = event.object
            serving = ready_addresses(list(known["EndpointSlice"].values()))
            mine = {
                address["ip"] for pod in known["Pod"].values() if is_ready(pod) for address in (pod.get("status") or {}).get("podIPs") or []
            }
            if len(synced) < 2:
                continue
            if serving and serving <= mine:
                return round(time.monotonic() - started, 3)
            progress(f"switched to {color}; of {len(serving)} addresses that get traffic {len(serving & mine)} are {color}'s")
    raise WaitFailed(
        f"{route.ref} was switched to {color}, but its EndpointSlices did not follow within {timeout:g} s;"
        " check that the endpoint slice controller runs",
        reason="EndpointsNotSettled",
        changed=True,
    )
