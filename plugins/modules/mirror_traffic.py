#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step mirror_traffic: a copy of the requests goes to a shadow."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_traffic
short_description: A copy of the requests goes to a shadow
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sends a copy of O(percent) percent of a route's requests to a shadow, whose answers reach nobody. Who answers stays as it is,
    also where several do by weight. Rules, filters, hosts, timeouts and retries of others stay as they are, and so do the mirrors
    of others.
  - V(gateway_api) puts a RequestMirror filter into the rule of an HTTPRoute. V(istio) puts an entry into C(mirrors) of a
    VirtualService. V(traefik) leads the route of an IngressRoute to a TraefikService of kind mirroring called C(<name>-mirror),
    which leads to where the route led; O(state=absent) gives the route back what it had and removes what was made.
  - With O(methods) a copy of the rule is put before it, for requests of these methods, and that one mirrors. Its weights are those
    of the rule, and the steps of this collection move both.
  - The rules that M(progressive.delivery.set_audience) has put before the rule mirror too, whichever of both was set first.
  - A shadow that fails, is slow or has no pods does no harm to the live requests. Its Service must stay while it is mirrored to.
    End the mirror before you delete it.
  - A copied write is a second write. Unless O(methods) leaves them out there is a warning, since the shadow must not write where
    the stable side writes.
  - V(ingress_nginx) is refused. Its annotation C(mirror-target) takes no Service and no share, and Traefik does not honour it.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
  - progressive.delivery.route
options:
  provider:
    description:
      - What does the routing - V(gateway_api), V(istio) or V(traefik).
      - Traefik accepts an HTTPRoute that mirrors and then answers an error to each of its requests. So V(gateway_api) is refused
        where the GatewayClass says what it supports, and mirroring is not in it.
    type: str
    default: gateway_api
  stable:
    description: The side that answers, whose rule is meant - a Service of the route, or for V(istio) also a subset.
    type: str
    required: true
  to:
    description: The shadow - a Service in the same namespace, or for V(istio) also a subset of the stable side's host.
    type: str
    required: true
  percent:
    description:
      - Percent of the requests that are copied, 0 to 100. The default is 100.
      - V(gateway_api) and V(istio) take fractions of a percent, V(traefik) does not.
      - Before Gateway API 1.3 an HTTPRoute has no field for a share, and only 100 is possible.
    type: float
  methods:
    description: Only requests of these methods are copied, for instance C(GET). The default is all.
    type: list
    elements: str
  mirror_body:
    description: For V(traefik), whether the body is copied too. The default is Traefik's, which is that it is.
    type: bool
  max_body_size:
    description:
      - For V(traefik), a request with a longer body, in bytes, is not copied. The default is no limit.
      - Traefik keeps the whole body of each request that it copies in memory, so set it where people upload.
    type: int
  state:
    description: V(absent) ends the mirror to O(to), with all that was put there for it.
    type: str
    default: present
    choices: [absent, present]
  force:
    description:
      - Mirror even to a shadow that has no ready endpoints.
      - With it, V(gateway_api) does not insist on reading what the controller supports, where that is not allowed.
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
- name: Half of the requests that only read are copied to the shadow
  progressive.delivery.mirror_traffic:
    namespace: shop
    name: web
    stable: web
    to: web-shadow
    percent: 50
    methods: [GET, HEAD]

- name: Two routes of one application are mirrored, or neither is
  progressive.delivery.mirror_traffic:
    namespace: shop
    stable: web
    to: web-shadow
    percent: 10
    routes:
      - name: web
        provider: traefik
      - name: web-internal
        provider: istio

- name: The mirror ends
  progressive.delivery.mirror_traffic:
    namespace: shop
    name: web
    stable: web
    to: web-shadow
    state: absent
"""

RETURN = r"""
before:
  description: The mirror before, none where there was none, and the annotations where some were asked for.
  returned: success
  type: dict
  sample: {mirror: null}
after:
  description: The same after.
  returned: success
  type: dict
  sample: {mirror: {to: web-shadow, percent: 50, methods: [GET, HEAD]}}
mirror:
  description: Who gets copies, of how many percent of the requests, and of which methods where it is some.
  returned: success
  type: dict
  sample: {to: web-shadow, percent: 50, methods: [GET, HEAD]}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["mirrored 50 % of the GET, HEAD requests of HTTPRoute shop/web to web-shadow, it was 0 %"]
warnings:
  description: That writes are copied, and that somebody else mirrors the route too.
  returned: when there is something to say
  type: list
  elements: str
  sample: ["HTTPRoute shop/web is mirrored by somebody else too, to audit; that stays as it is"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.06
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.mirroring import mirror_routes
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.routing import ROUTE_OPTIONS
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    **ROUTE_OPTIONS,
    "provider": {"type": "str", "default": "gateway_api"},
    "stable": {"type": "str", "required": True},
    "to": {"type": "str", "required": True},
    "percent": {"type": "float"},
    "methods": {"type": "list", "elements": "str"},
    "mirror_body": {"type": "bool"},
    "max_body_size": {"type": "int"},
    "state": {"type": "str", "default": "present", "choices": ["absent", "present"]},
    "force": {"type": "bool", "default": False},
    "annotations": {"type": "dict"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Give the shadow its copies."""
    return mirror_routes(options, cluster, check)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
