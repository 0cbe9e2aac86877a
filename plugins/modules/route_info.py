#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step route_info: who gets the traffic of a route now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: route_info
short_description: Who gets the traffic of a route now
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - For a Service or an Ingress of colors, returns the active color, the Deployments of every color that it could be switched to,
    how many pods of each are ready, and the annotations that this collection keeps on the route.
  - For the routers V(gateway_api), V(ingress_nginx), V(istio) and V(traefik), returns who gets how many percent, who gets requests
    by what they carry, who gets copies, all rules with the number and the name by which O(rule) names them, how many endpoints
    of each backend are ready, and which controller serves the route. The colors too, where O(color_label) or O(services) is set.
  - With V(auto) it finds out which routes in the namespace lead to a Service.
  - What may not be read of the controller is told as unknown. Nothing is changed.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
options:
  provider:
    description:
      - What does the routing, as in M(progressive.delivery.switch_color) and M(progressive.delivery.set_canary_weight).
      - V(auto) looks for the routes that lead to the Service O(name). It tells all of the only one that there is, and of several
        their names in RV(routes).
    type: str
    default: service
    choices: [auto, gateway_api, ingress, ingress_nginx, istio, service, traefik]
  name:
    description:
      - Name of the route - the Service for V(service) and V(auto), the Ingress for V(ingress) and V(ingress_nginx), the HTTPRoute for
        V(gateway_api), the VirtualService for V(istio), the IngressRoute for V(traefik).
    type: str
    required: true
  stable:
    description: For a router, the side that has the requests. The default is the first backend of the rule.
    type: str
  canary:
    description: For a router, the side that gets a share. The default is the other backend of the rule.
    type: str
  rule:
    description:
      - For a router, the rule that is looked at, by its name or its number from 0.
      - The default is the only one, beside those that pick an audience.
    type: str
  rule_host:
    description: The host of the rule that is looked at, as the route spells it. The default is any.
    type: str
  rule_path:
    description: The path of the rule that is looked at, as the route spells it. The default is any.
    type: str
  color_label:
    description: The label whose value is the color. The default is C(version). For a router, colors are told only where this is set.
    type: str
  services:
    description: The Service of each color, for every provider but V(service).
    type: dict
seealso:
  - module: progressive.delivery.set_canary_weight
  - module: progressive.delivery.switch_color
"""

EXAMPLES = r"""
- name: Which color do users see?
  progressive.delivery.route_info:
    namespace: shop
    name: web
  register: web

- name: Refuse to go on unless blue is active
  ansible.builtin.assert:
    that: web.color == "blue"

- name: How many percent does the canary get?
  progressive.delivery.route_info:
    provider: gateway_api
    namespace: shop
    name: web
    rule_path: /

- name: Which routes lead to the Service web?
  progressive.delivery.route_info:
    provider: auto
    namespace: shop
    name: web

- name: The colors of two Services and an Ingress
  progressive.delivery.route_info:
    provider: ingress
    namespace: shop
    name: web
    rule_host: shop.example.com
"""

RETURN = r"""
before:
  description: Always empty, since this step changes nothing.
  returned: success
  type: dict
  sample: {}
after:
  description: Always empty, since this step changes nothing.
  returned: success
  type: dict
  sample: {}
provider:
  description: What does the routing; none where V(auto) found several routes.
  returned: success
  type: str
  sample: gateway_api
route:
  description: The object that is the route; none where V(auto) found several.
  returned: success
  type: str
  sample: HTTPRoute shop/web
routes:
  description: The routes that lead to the Service, with the numbers of their rules that do.
  returned: provider is auto
  type: list
  elements: dict
  sample:
    - {provider: gateway_api, name: web, rules: ["0"], words: "HTTPRoute shop/web, provider gateway_api, rule 0 (shop.example.com/)"}
split:
  description: Percent of the traffic that each color, or each backend of the chosen rule, gets; empty where several rules could be meant.
  returned: success
  type: dict
  sample: {web: 80, web-canary: 20}
matches:
  description: Requests that go elsewhere by what they carry.
  returned: success
  type: list
  elements: dict
  sample:
    - {conditions: ["header x-canary=always"], to: web-canary}
mirror:
  description: Where a copy of the requests goes, and of how many percent.
  returned: success
  type: dict
  sample: {to: web-shadow, percent: 100}
rules:
  description: All rules of the route, and which of them was looked at. C(rule) or C(name) is what options called rule take.
  returned: for the routers
  type: list
  elements: dict
  sample:
    - rule: 0
      name: ""
      hosts: [shop.example.com]
      path: /
      conditions: []
      weights: {web: 80, web-canary: 20}
      words: "0 (shop.example.com / -> web, web-canary)"
      chosen: true
controller:
  description:
    - Who serves the route, in which version, whether it has accepted the route, what it says that it supports, and what to know of it.
    - What is not known is empty or none.
  returned: for the routers
  type: dict
  sample: {name: traefik, version: 3.7.5, accepted: true, features: [HTTPRouteMethodMatching], notes: []}
backends:
  description: The Service of each side, whether it exists, and how many of its endpoints are ready; of a subset how many of its pods.
  returned: for the routers
  type: dict
  sample: {web: {service: web, exists: true, ready: 3}, web-canary: {service: web-canary, exists: true, ready: 1}}
summary:
  description: The same as lines for a person.
  returned: success
  type: list
  elements: str
  sample:
    - "HTTPRoute shop/web, rule 0 (shop.example.com /): web 80 % (3 ready), web-canary 20 % (1 ready)"
    - "  served by traefik 3.7.5, which accepts it"
color:
  description: The color that gets the traffic.
  returned: where colors are told
  type: str
  sample: blue
colors:
  description: What there is of each color - Deployments, replicas asked for, ready pods, images by container.
  returned: where colors are told
  type: dict
  sample:
    blue: {deployments: [web-blue], replicas: 3, ready: 3, images: {app: "localhost:32000/podinfo:1.0.0"}}
    green: {deployments: [web-green], replicas: 0, ready: 0, images: {app: "localhost:32000/podinfo:2.0.0"}}
selector:
  description: The labels, without the color, of the pods that the route can select.
  returned: where colors are told
  type: dict
  sample: {app: web}
others:
  description: The places of the route beside those that were chosen that lead to a color too, by color. None for provider service.
  returned: where colors are told
  type: dict
  sample: {blue: [other.example.com/]}
services:
  description: The Service of each color; empty for provider service. A subset is told with its Service, as C(web/v1).
  returned: where colors are told
  type: dict
  sample: {blue: web-blue, green: web-green}
annotations:
  description: The annotations of this collection on the route, without their prefix.
  returned: success
  type: dict
  sample: {previous-color: green, phase: released}
actions:
  description: Always empty, since this step changes nothing.
  returned: success
  type: list
  elements: str
  sample: []
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.03
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.telling import route_in_words

OPTIONS = {
    "provider": {
        "type": "str",
        "default": "service",
        "choices": ["auto", "gateway_api", "ingress", "ingress_nginx", "istio", "service", "traefik"],
    },
    "name": {"type": "str", "required": True},
    "stable": {"type": "str"},
    "canary": {"type": "str"},
    "rule": {"type": "str"},
    "rule_host": {"type": "str"},
    "rule_path": {"type": "str"},
    "color_label": {"type": "str"},
    "services": {"type": "dict"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Return who gets the traffic of the route."""
    return Result(extra=route_in_words(options, cluster))


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
