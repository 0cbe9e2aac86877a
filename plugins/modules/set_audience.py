#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step set_audience: who gets the variant in an A/B test."""

from __future__ import annotations

DOCUMENTATION = r"""
module: set_audience
short_description: Who gets the variant in an A/B test
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Leads the requests that meet all of O(headers), O(cookies) and O(query) to O(variant); all others stay with O(stable). Or, with
    O(weight), a share of the users, each of whom keeps his side by a cookie.
  - V(gateway_api) gets a rule before the one that is meant, V(istio) and V(traefik) a route; it is a copy of that with its filters,
    timeouts and retries, and asks for more. V(ingress_nginx) makes a second Ingress called C(<name>-canary) from the main one and
    sets its annotations. The rules of others stay as they are, in their order.
  - A mirror of the rule is one of its audience too. The weights of the rule are for all who are not in the audience.
  - An audience whose requests another rule would take, or that would take those of another rule, is refused.
  - Several routes of one application move together. All are read and checked, and each write is tried as a dry run, before the
    first is made; where one is refused none moves.
notes:
  - Regular expressions are those of RE2 and match the whole value. A name of a header is the same in upper and lower case; a name of
    a cookie or a parameter is not.
  - The annotations of ingress-nginx take one condition - a header, or a cookie whose value is V(always) - and no parameter.
  - With O(weight) a user who has no cookie yet is drawn, and told to keep his side. Who has one keeps it when O(weight) changes.
    Clients without cookies are drawn at each request.
  - For O(weight), V(ingress_nginx) gives the main Ingress a session cookie, and V(traefik) makes a TraefikService called
    C(<name>-audience); the value of their cookies is the router's own.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
  - progressive.delivery.route
  - progressive.delivery.route.probe
options:
  provider:
    description: What does the routing.
    type: str
    default: gateway_api
    choices: [gateway_api, ingress_nginx, istio, traefik]
  stable:
    description: The side that has the requests - a Service of the route, or for V(istio) also a subset.
    type: str
    required: true
  variant:
    description: The side that gets the audience - a Service in the same namespace, or for V(istio) also a subset.
    type: str
    required: true
  headers:
    description:
      - What headers a request must carry, by their names.
      - 'The value is a text for an exact match, C({exact: text}), C({regex: expression}), or null for any value.'
    type: dict
  cookies:
    description: What cookies a request must carry, in the same form. Up to three.
    type: dict
  query:
    description: What query parameters a request must carry, in the same form.
    type: dict
  weight:
    description: Instead of conditions, the percentage of new users that get the variant, 1 to 99, and keep it.
    type: int
  cookie:
    description: With O(weight), the name of the cookie that keeps a user on his side.
    type: str
    default: variant
  cookie_seconds:
    description: With O(weight), for how many seconds the cookie is kept.
    type: int
    default: 86400
  state:
    description: V(absent) takes the variant's audience out, with all that was put there for it; stable gets everything.
    type: str
    default: present
    choices: [absent, present]
  variant_labels:
    description: For V(istio) with subsets, the labels of the variant's pods, by which its subset is made where it is missing.
    type: dict
  wait_timeout:
    description:
      - Seconds until the data plane must do what O(probe) measures. That asks as somebody of the audience does, who must get the variant
        each time, or stable with state V(absent); with O(weight) it asks without a cookie.
      - The default is 30.
    type: float
  force:
    description: Lead an audience even to a side that has no ready endpoints.
    type: bool
    default: false
  annotations:
    description:
      - Annotations that the first route gets in the same patch.
      - Text is kept as it is, anything else as JSON; a null or empty value takes one away.
    type: dict
seealso:
  - module: progressive.delivery.route_info
  - module: progressive.delivery.set_canary_weight
"""

EXAMPLES = r"""
- name: Who sends the header gets the variant
  progressive.delivery.set_audience:
    namespace: shop
    name: web
    stable: web
    variant: web-b
    headers:
      X-Beta: "yes"
    probe:
      url: https://shop.example.com/version
      headers:
        X-Beta: "yes"
      version_field: version
      canary: 2.0.0

- name: Users of the new app in two languages
  progressive.delivery.set_audience:
    namespace: shop
    provider: istio
    name: web
    stable: web
    variant: web-b
    headers:
      User-Agent:
        regex: "ShopApp/[5-9].*"
    cookies:
      lang:
        regex: de|fr

- name: A fifth of the users, each of whom keeps his side for a week
  progressive.delivery.set_audience:
    namespace: shop
    name: web
    stable: web
    variant: web-b
    weight: 20
    cookie_seconds: 604800

- name: The test is over
  progressive.delivery.set_audience:
    namespace: shop
    name: web
    stable: web
    variant: web-b
    state: absent
"""

RETURN = r"""
before:
  description: The variant's audience before, and the annotations where some were asked for.
  returned: success
  type: dict
  sample: {audience: [], variant: web-b}
after:
  description: The same after.
  returned: success
  type: dict
  sample: {audience: ["header X-Beta=yes"], variant: web-b}
audience:
  description: The variant's audience - the conditions that its requests meet, or the share of the users; empty where there is none.
  returned: success
  type: list
  elements: str
  sample: ["header X-Beta=yes"]
settled:
  description: With O(probe), seconds from when the API server had accepted the change until the data plane was seen to do it.
  returned: when O(probe) is given and not in check mode
  type: float
  sample: 0.31
measured:
  description: With O(probe), what was measured.
  returned: when O(probe) is given and not in check mode
  type: dict
  sample: {share: 100.0, requests: 120, failed: 0, by_version: {2.0.0: 120}}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["led header X-Beta=yes of HTTPRoute shop/web to web-b"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.05
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.picking import pick_audience
from ansible_collections.progressive.delivery.plugins.module_utils.routing import ROUTE_OPTIONS
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.watching_traffic import PROBE_OPTIONS

OPTIONS = {
    **ROUTE_OPTIONS,
    "provider": {"type": "str", "default": "gateway_api", "choices": ["gateway_api", "ingress_nginx", "istio", "traefik"]},
    "stable": {"type": "str", "required": True},
    "variant": {"type": "str", "required": True},
    "headers": {"type": "dict"},
    "cookies": {"type": "dict"},
    "query": {"type": "dict"},
    "weight": {"type": "int"},
    "cookie": {"type": "str", "default": "variant"},
    "cookie_seconds": {"type": "int", "default": 86400},
    "state": {"type": "str", "default": "present", "choices": ["absent", "present"]},
    "variant_labels": {"type": "dict"},
    "wait_timeout": {"type": "float"},
    "probe": {"type": "dict", "options": PROBE_OPTIONS},
    "force": {"type": "bool", "default": False},
    "annotations": {"type": "dict"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Lead the audience to the variant."""
    return pick_audience(options, cluster, check, progress)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
