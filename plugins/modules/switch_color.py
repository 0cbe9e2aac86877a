#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step switch_color: all traffic of a route goes to one colour."""

from __future__ import annotations

DOCUMENTATION = r"""
module: switch_color
short_description: All traffic of a route goes to one color
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sends the traffic of a route to the pods of one color, by one JSON patch that tests that the route still is what was
    read. Whatever else is in the route stays as it is.
  - Provider V(service) changes the color label in the selector of a Service.
  - The others have a Service for each color, and change the Service that the backends of the route name, for every backend that
    points at the old color or those that are chosen - of an Ingress with V(ingress), an HTTPRoute with V(gateway_api),
    a VirtualService with V(istio), an IngressRoute with V(traefik). For V(istio) it may also be two subsets of one host.
  - A color that has fewer ready pods than it needs is refused, so that the switch loses no request.
  - Where the pods of the color have been ready for less than three seconds, it waits until they have been, for every provider but
    V(service). A router that is told of a route before it is told of the pods answers 503.
  - A rule whose weights are split between two colors is refused, since a canary is on its way there. Where the weight of one
    of them is 0, the two change places.
  - A route whose controller will not honour it is refused, see O(check_controller).
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  provider:
    description: What does the routing - V(gateway_api), V(ingress), V(istio), V(service) or V(traefik).
    type: str
    default: service
  name:
    description:
      - Name of the route - the Service for V(service), the Ingress for V(ingress), the HTTPRoute for V(gateway_api),
        the VirtualService for V(istio), the IngressRoute for V(traefik).
    type: str
    required: true
  color:
    description: The color that gets the traffic.
    type: str
    required: true
  color_label:
    description: The label whose value is the color, in the selectors of Services and on the pods.
    type: str
    default: version
  services:
    description:
      - For every provider but V(service), the name of the Service of each color, by color; for V(istio) also of the subset.
      - The default are the Services whose selectors differ from the active one's by O(color_label) alone.
    type: dict
  rule:
    description: For a route with several rules, the one that is switched, by its name or its number from 0. The default is all.
    type: str
    version_added: 0.2.0
  rule_host:
    description: The host of the rule that is switched, as the route spells it. The default is any. Not for provider V(service).
    type: str
  rule_path:
    description: The path that is switched, as the route spells it. The default is any. Not for provider V(service).
    type: str
  min_ready:
    description: Ready pods that the color must have. The default is as many as the active color has, and at least one.
    type: int
  force:
    description: Switch even to a color without enough ready pods.
    type: bool
    default: false
  check_controller:
    description:
      - Refuse a switch where the controller of the route will not honour it, for example an HTTPRoute that no Gateway accepts.
      - What may not be read is taken as good. A way back sets this to false, since it must not depend on anything.
    type: bool
    default: true
    version_added: 0.2.0
  if_color:
    description: Switch only if this color is active; with another than this and O(color), fail (C(Superseded)).
    type: str
  annotations:
    description:
      - Annotations that the route gets in the same patch.
      - Text is kept as it is, anything else as JSON; a null or empty value takes one away.
    type: dict
  wait:
    description: >-
      For provider V(service), wait after a switch until the Service's EndpointSlices hold the pods of the new color
      and no others, which is what every node's proxy acts on.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait for that.
    type: float
    default: 30
seealso:
  - module: progressive.delivery.route_info
  - module: progressive.delivery.set_canary_weight
"""

EXAMPLES = r"""
- name: Green gets the traffic of the Service web
  progressive.delivery.switch_color:
    namespace: shop
    name: web
    color: green

- name: The way back, only if green still is what users see
  progressive.delivery.switch_color:
    namespace: shop
    name: web
    color: blue
    if_color: green

- name: Two Services and an Ingress, of which one path is switched
  progressive.delivery.switch_color:
    provider: ingress
    namespace: shop
    name: web
    rule_host: shop.example.com
    rule_path: /
    services:
      blue: web-blue
      green: web-green
    color: green

- name: An HTTPRoute, of which one rule is switched
  progressive.delivery.switch_color:
    provider: gateway_api
    namespace: shop
    name: web
    rule: "0"
    color: green

- name: What would happen?
  progressive.delivery.switch_color:
    namespace: shop
    name: web
    color: green
  check_mode: true
  diff: true
"""

RETURN = r"""
before:
  description: The color before, and the annotations where some were asked for.
  returned: success
  type: dict
  sample: {color: blue}
after:
  description: The color after, and the annotations where some were asked for.
  returned: success
  type: dict
  sample: {color: green}
color:
  description: The color that gets the traffic.
  returned: success
  type: str
  sample: green
previous_color:
  description: The color that got it before the step; the same where nothing was switched.
  returned: success
  type: str
  sample: blue
ready:
  description: Ready pods of the color; none where no switch was needed.
  returned: success
  type: int
  sample: 3
settled:
  description: Seconds from the API server's answer until the EndpointSlices held the new color alone; none where not waited.
  returned: success
  type: float
  sample: 0.02
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["switched Service shop/web from blue to green"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.05
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.coloring import Route, settle_endpoints
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Change, Cluster, Manifest, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.colors import check_color, check_ready, plan_switch
from ansible_collections.progressive.delivery.plugins.module_utils.reading import let_router_know
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle

OPTIONS = {
    "provider": {"type": "str", "default": "service"},
    "name": {"type": "str", "required": True},
    "color_label": {"type": "str", "default": "version"},
    "services": {"type": "dict"},
    "rule": {"type": "str"},
    "rule_host": {"type": "str"},
    "rule_path": {"type": "str"},
    "color": {"type": "str", "required": True},
    "min_ready": {"type": "int"},
    "force": {"type": "bool", "default": False},
    "check_controller": {"type": "bool", "default": True},
    "if_color": {"type": "str"},
    "annotations": {"type": "dict"},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "float", "default": 30},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Switch the route to the colour, if it can take the traffic, and wait until the endpoints follow."""
    color, notes = options["color"], options.get("annotations") or {}
    if options.get("min_ready") is not None and options["min_ready"] < 0:
        raise InvalidRequest(f"min_ready must be 0 or more, got {options['min_ready']}")
    if options["wait_timeout"] <= 0:
        raise InvalidRequest(f"wait_timeout must be more than 0 seconds, got {options['wait_timeout']:g}")
    check_color(color)
    route = Route.of(options, cluster)
    seen: dict[str, Any] = {"ready": None}

    def plan(manifest: Manifest) -> Change:
        colors = route.read(manifest)
        change = plan_switch(route.ref, manifest, colors, color, route.provider.operations, notes, options.get("if_color"))
        seen["colors"] = colors
        if change.changed and colors.active != color:
            if options["check_controller"]:
                route.check_controller(manifest)
            pods = route.ready(colors, color)
            seen["ready"] = len(pods)
            if not options["force"]:
                if not seen["ready"]:
                    route.check_exists(colors, color)
                active = len(route.ready(colors, colors.active))
                check_ready(route.ref, color, colors.active, seen["ready"], active, options.get("min_ready"))
            if not check and route.ref.kind != "Service":
                let_router_know(pods, color, progress)
        return change

    change, _manifest = settle(cluster, route.ref, plan, check)
    previous, settled = change.before["color"], None
    if previous != color and not check and options["wait"] and route.ref.kind == "Service" and seen["ready"]:
        try:
            settled = settle_endpoints(cluster, route, seen["colors"], color, options["wait_timeout"], progress)
        except DeliveryError as error:
            told = {"changed": True, "color": color, "previous_color": previous, **error.details}
            raise type(error)(f"switched {route.ref} from {previous} to {color}, but: {error.message}", error.reason, **told) from None
    return Result.of(change, color=color, previous_color=previous, ready=seen["ready"], settled=settled)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
