#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step set_canary_weight: a share of the requests goes to the canary."""

from __future__ import annotations

DOCUMENTATION = r"""
module: set_canary_weight
short_description: A share of the requests goes to the canary
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sends O(weight) percent of a route's requests to the canary and the rest to stable, by the smallest patch, which tests
    that the route still is what was read. Rules, filters, hosts, timeouts and retries of others stay as they are.
  - V(gateway_api) sets the weights of an HTTPRoute's backends, V(istio) those of a VirtualService's destinations - two hosts,
    or two subsets of one -, V(traefik) those of an IngressRoute's services. V(ingress_nginx) makes a second Ingress called
    C(<name>-canary) from the main one and sets its annotations; the main Ingress carries none of them.
  - V(replicas) needs no router. Two Deployments behind one Service share its requests by their numbers of pods, so a weight is
    as close as pods can come to it, and what is achieved is returned. The side that grows gets its pods first, and only when
    they are ready does the other one lose any, by as many at a time as O(max_surge) says and one at least. On the way off the canary
    a stable that cannot grow does not keep the requests there; room is made for it by the canary's pods.
  - For V(ingress_nginx) a share counts for the whole Service, so every path and Ingress of the namespace that leads to the same
    stable Service has it. Give paths that must not have it a Service of their own; M(progressive.delivery.route_info) names them.
  - Several routes of one application move together. All are read and checked, and each write is tried as a dry run, before the
    first is made; where one is refused none moves.
  - A side that would get more requests than before and has no ready endpoints is refused.
  - Where half of the pods of a side that had no requests have been ready for less than three seconds, it waits until they have been.
    A router that is told of a route before it is told of the pods answers 503.
  - So is a weight that the controller of the route will not honour, for example the annotations of V(ingress_nginx) with
    a Traefik before 3.7, or an HTTPRoute that no Gateway accepts. What may not be read is taken as good.
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
    choices: [gateway_api, ingress_nginx, istio, replicas, traefik]
  stable:
    description:
      - The side that has the requests - a Service of the route, or for V(istio) also a subset.
      - For V(replicas) the Deployment; O(name) is the Service that sends to the pods of both.
    type: str
    required: true
  canary:
    description: The side that gets the share - a Service in the same namespace, for V(istio) also a subset, for V(replicas) a Deployment.
    type: str
    required: true
  weight:
    description: Percent of the requests that go to the canary, 0 to 100. At 0 it gets none, at 100 stable gets none.
    type: int
  state:
    description: >-
      V(absent) takes the canary out of the route, with all that was put there for it; stable gets everything. For V(replicas)
      stable has all pods again and the canary none.
    type: str
    default: present
    choices: [absent, present]
  canary_labels:
    description: For V(istio) with subsets, the labels of the canary's pods, by which its subset is made where it is missing.
    type: dict
  total:
    description:
      - For V(replicas), how many pods both sides share. Strictly between 0 and 100 percent neither side has none, unless there is
        one pod and no surge.
      - The default is what was noted when the first weight was set, else what both have now. It is noted on stable as the
        annotation C(progressive.delivery/canary-total), which goes with the canary.
    type: int
  max_surge:
    description:
      - For V(replicas), pods beyond O(total) that may be used to come closer to the weight, as a number or a percentage; with any,
        one more is tried.
      - The rule is that of the filter P(progressive.delivery.canary_replicas#filter).
    type: str
    default: 25%
  wait_timeout:
    description:
      - Seconds until the data plane must do the weight that O(probe) measures; for V(replicas) also for the pods of the side that
        grows to get ready.
      - The default is 30, for V(replicas) 300.
    type: float
  force:
    description: Send requests even to a side that has no ready endpoints; for V(replicas), wait for no pod.
    type: bool
    default: false
  annotations:
    description:
      - Annotations that the first route gets in the same patch; for V(replicas) the Service, before any pod.
      - Text is kept as it is, anything else as JSON; a null or empty value takes one away.
    type: dict
  if_annotations:
    description:
      - Move only if these annotations of the first route, for V(replicas) of the Service, are what they were when somebody looked; else
        fail (C(Superseded)) and change nothing. It is tested in the write itself.
      - A null or empty value means that the annotation is not there.
    type: dict
seealso:
  - module: progressive.delivery.route_info
  - module: progressive.delivery.switch_color
"""

EXAMPLES = r"""
- name: Every twentieth request goes to the canary
  progressive.delivery.set_canary_weight:
    namespace: shop
    name: web
    stable: web
    canary: web-canary
    weight: 5

- name: The same, and wait until the router does it
  progressive.delivery.set_canary_weight:
    namespace: shop
    name: web
    stable: web
    canary: web-canary
    weight: 5
    probe:
      url: https://shop.example.com/version
      version_field: version
      canary: 2.0.0

- name: Two routes of one application move together, or neither does
  progressive.delivery.set_canary_weight:
    namespace: shop
    stable: web
    canary: web-canary
    weight: 50
    routes:
      - name: web
      - name: web-internal
        provider: istio

- name: Two subsets of one host
  progressive.delivery.set_canary_weight:
    namespace: shop
    provider: istio
    name: web
    stable: v1
    canary: v2
    weight: 20

- name: No router - of ten pods behind the Service web two are the canary's
  progressive.delivery.set_canary_weight:
    namespace: shop
    provider: replicas
    name: web
    stable: web
    canary: web-canary
    weight: 20
    total: 10

- name: The canary is taken out of the route
  progressive.delivery.set_canary_weight:
    namespace: shop
    name: web
    stable: web
    canary: web-canary
    state: absent
"""

RETURN = r"""
before:
  description: Percent of the requests of each side before, and the annotations where some were asked for.
  returned: success
  type: dict
  sample: {weights: {web: 95, web-canary: 5}}
after:
  description: The same after.
  returned: success
  type: dict
  sample: {weights: {web: 80, web-canary: 20}}
weights:
  description: Percent of the requests of each side; for V(replicas) what the pods make of it.
  returned: success
  type: dict
  sample: {web: 80, web-canary: 20}
replicas:
  description: The pods of each side.
  returned: for provider V(replicas)
  type: dict
  sample: {web: 8, web-canary: 2}
achieved:
  description: The percentage of the pods that are the canary's, beside the weight that was asked for.
  returned: for provider V(replicas)
  type: float
  sample: 20.0
settled:
  description: >-
    Seconds from the API server's answer until it was sure that the data plane sends the canary its share; none where nothing was
    changed.
  returned: with O(probe), not in check mode
  type: float
  sample: 0.21
measured:
  description: >-
    What the requests of the probe saw - how many there were, how many failed, the percentage of the canary among the newest, and
    who answered how often.
  returned: with O(probe), not in check mode
  type: dict
  sample: {requests: 96, failed: 0, seconds: 0.18, share: 5.2, by_version: {"1.0.0": 91, "2.0.0": 5}}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["sent 20 % of HTTPRoute shop/web to web-canary, it was 5 %"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.05
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.routing import ROUTE_OPTIONS
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.sharing import share_pods
from ansible_collections.progressive.delivery.plugins.module_utils.watching_traffic import PROBE_OPTIONS
from ansible_collections.progressive.delivery.plugins.module_utils.weighing import wanted_weight, weigh_routes

OPTIONS = {
    **ROUTE_OPTIONS,
    "provider": {"type": "str", "default": "gateway_api", "choices": ["gateway_api", "ingress_nginx", "istio", "replicas", "traefik"]},
    "stable": {"type": "str", "required": True},
    "canary": {"type": "str", "required": True},
    "weight": {"type": "int"},
    "state": {"type": "str", "default": "present", "choices": ["absent", "present"]},
    "canary_labels": {"type": "dict"},
    "total": {"type": "int"},
    "max_surge": {"type": "str", "default": "25%"},
    "wait_timeout": {"type": "float"},
    "probe": {"type": "dict", "options": PROBE_OPTIONS},
    "force": {"type": "bool", "default": False},
    "annotations": {"type": "dict"},
    "if_annotations": {"type": "dict"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Give the canary its share of the requests."""
    weight = wanted_weight(options)
    if options["provider"] == "replicas":
        return share_pods(options, weight, cluster, check, progress)
    return weigh_routes(options, weight, cluster, check, progress)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
