#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step flagger_canary: a workload is released by Flagger, or is not any more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flagger_canary
short_description: A workload is released by Flagger, or is not any more
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Makes and keeps a Canary (C(flagger.app/v1beta1)). What Flagger would take for something else without a word is refused first, in
    one sentence - see O(check_metrics), O(check_webhooks) and O(force).
  - A workload that runs is taken over without a lost request. Flagger by itself turns the Service to its primary and scales the workload
    to 0 in one step, while routers may still send to its pods. Here Flagger makes the primary, is suspended, the Service is turned when the
    primary is ready, routers get O(drain) seconds, and then Flagger goes on.
  - What there was before - replicas, the Service's selector and ports, the route - is noted on the Canary as the annotation
    C(progressive.delivery/canary-before).
  - A Canary whose workload is under Flagger keeps its workload, its Service with the ports and their names, and its provider, since Flagger
    would take the old port away at once, and leave the old route behind. Take the workload off with O(state=absent), then make the Canary
    anew. Another provider is safe, and taken, where it writes the same object (V(gatewayapi:v1), V(gatewayapi:v1beta1)), and from
    V(kubernetes) where there is no route of the new one yet. All else may change at any time.
  - With O(state=absent) the workload leaves Flagger without a lost request. It gets the pod template and the number of pods of the
    primary, then the Service and the route lead to it as they did before, then the Canary goes and with it all that Flagger made.
  - What was noted may be old by then. A selector that would not find the target's pods any more, or those of others too, is not put back,
    and neither are ports that the pods do not have any more; RV(actions) tells what the Service got. Hosts and Gateways that a route has
    got since, it keeps. A ScaledObject of KEDA, which Flagger has paused at no pods, scales the workload again.
  - Flagger cannot be stopped in the middle of a look at the Canary. On the way out such a look is waited for as long as Flagger may tell
    of it - up to 17 seconds, or in the middle of a release (O(force)) its interval and the timeouts of its webhooks, 120 seconds at most.
    Before the Canary is deleted, the workload, the Service and the route are looked at once more.
  - Flagger's own C(revertOnDeletion) brings back neither the template nor an HTTPRoute - which then leads to nothing -, so it is
    switched off for that.
  - A run that was killed is run again with the same options, and goes on.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  name:
    description: Name of the Canary.
    type: str
    required: true
  state:
    description: Whether Flagger releases the workload.
    type: str
    default: present
    choices: [absent, present]
  target:
    description: Name of the workload. The default is O(name).
    type: str
  target_kind:
    description: Kind of the workload.
    type: str
    default: Deployment
    choices: [DaemonSet, Deployment]
  provider:
    description:
      - What does the routing - V(istio), V(gatewayapi:v1), V(traefik), V(nginx), V(contour), V(kubernetes) or another one of Flagger's.
      - The default is the one that Flagger was started with. Another one does as well, as long as the cluster has its kinds.
      - A Canary whose workload is under Flagger keeps it; see above.
    type: str
  metrics_server:
    description: Address of the Prometheus for Flagger's own metrics. The default is the one that Flagger was started with.
    type: str
  service_name:
    description:
      - Name of the Service by which requests come, and of the route. The default is the name of the workload.
      - A Service that is there is taken over. Flagger would take away ports that it does not write, so they are refused.
      - A route that is there is taken over. Flagger replaces it by one rule of its own, so what this would lose is refused - a host, a
        Gateway, a match, a filter, a timeout, a rule that leads elsewhere -, with the option that keeps it.
    type: str
  port:
    description: Port of the Service. Needed with O(state=present).
    type: int
  port_name:
    description: Name of that port. Flagger's default is C(http).
    type: str
  target_port:
    description: Port of the pods, by number or by name. The default is O(port).
    type: str
  app_protocol:
    description: Protocol of the port, for example C(kubernetes.io/h2c).
    type: str
  port_discovery:
    description: Let the Service have all ports of the containers.
    type: bool
  gateways:
    description: For V(istio), the gateways of the VirtualService as C(namespace/name); C(mesh) is the mesh itself.
    type: list
    elements: str
  gateway_refs:
    description: >-
      For V(gatewayapi:v1), the Gateways that the HTTPRoute belongs to, each with C(name) and C(namespace), also C(sectionName) and
      C(port).
    type: list
    elements: dict
  hosts:
    description: Host names of the route. An HTTPRoute without them is for all hosts of its Gateways.
    type: list
    elements: str
  request_timeout:
    description: How long a request may take, for example C(15s).
    type: str
  retries:
    description: For V(istio), how a request is retried - C(attempts), C(perTryTimeout), C(retryOn).
    type: dict
  headers:
    description: For V(istio), headers that are added, set or removed - C(request) and C(response).
    type: dict
  route_match:
    description: Which requests the route is for, as Istio writes it; Flagger translates it for the Gateway API.
    type: list
    elements: dict
  rewrite:
    description: How the path or the host of a request is rewritten - C(uri), C(authority), C(type).
    type: dict
  cors_policy:
    description: For V(istio), the CORS policy.
    type: dict
  traffic_policy:
    description: For V(istio), the policy of the DestinationRules.
    type: dict
  apex:
    description: C(labels) and C(annotations) of the Service and the route by which requests come.
    type: dict
  primary:
    description: C(labels) and C(annotations) of the Service of the primary.
    type: dict
  canary:
    description: C(labels) and C(annotations) of the Service of the canary.
    type: dict
  autoscaler:
    description:
      - Name of the autoscaler of the workload; Flagger makes one like it for the primary.
      - It pauses a ScaledObject of the workload itself at no pods between releases.
    type: str
  autoscaler_kind:
    description: Kind of the autoscaler; V(ScaledObject) is KEDA's.
    type: str
    default: HorizontalPodAutoscaler
    choices: [HorizontalPodAutoscaler, ScaledObject]
  ingress:
    description: For V(nginx), the Ingress that leads to the Service.
    type: str
  route:
    description: For C(apisix), the ApisixRoute that leads to the Service.
    type: str
  interval:
    description: >-
      How often Flagger checks and goes a step on. Below 10 seconds is refused, since Flagger would take 10. The default is
      C(1m).
    type: str
  threshold:
    description: How many failed checks end a release. The default is 1.
    type: int
  max_weight:
    description: The most percent of the requests that go to the canary before it is promoted. Flagger's default is 100.
    type: int
  step_weight:
    description: How many percent more each step sends to the canary. Not with O(step_weights) or O(iterations).
    type: int
  step_weights:
    description: The percentages of the steps, growing. Not with O(step_weight), O(max_weight) or O(iterations).
    type: list
    elements: int
  step_weight_promotion:
    description: How many percent at a time go back to the primary when it has been promoted. The default is all at once.
    type: int
  iterations:
    description: How many checks there are where requests are not shared by weight - blue-green, or with O(match) A/B.
    type: int
  match:
    description: For A/B, which requests go to the canary - headers, as Istio writes it.
    type: list
    elements: dict
  mirror:
    description: Send the canary a copy of the requests first; for V(istio) and V(gatewayapi:v1).
    type: bool
  mirror_weight:
    description: For V(istio), of how many percent of the requests.
    type: int
  primary_ready_threshold:
    description: Percent of the primary's pods that must be ready. Flagger's default is 100.
    type: int
  canary_ready_threshold:
    description: Percent of the canary's pods that must be ready. Flagger's default is 100.
    type: int
  session_affinity:
    description:
      - A visitor who has come to the canary stays there, by a cookie - C(cookie_name), and C(max_age), C(path), C(domain), C(http_only),
        C(secure), C(same_site), C(partitioned), C(primary_cookie_name).
    type: dict
  metrics:
    description:
      - What must be well for a release to go on. Each has C(name), C(min) or C(max) or both, and C(interval), the window, by default 1m.
      - C(request-success-rate) (percent) and C(request-duration) (milliseconds) are Flagger's own.
      - Any other has C(template) with C(query) and C(provider) (C(type), C(address), C(secretRef) ...), of which a MetricTemplate
        C(<name>-<metric>) is made, or C(template_ref) with the C(name) and C(namespace) of one that is there, and C(template_variables).
    type: list
    elements: dict
  webhooks:
    description:
      - Whom Flagger asks or tells. Each has C(name), C(url), C(type) and C(timeout), C(metadata), C(retries), C(mute_alert),
        C(disable_tls).
      - C(type) is one of C(rollout) (the default), C(confirm-rollout), C(pre-rollout), C(confirm-traffic-increase),
        C(confirm-promotion), C(post-rollout), C(rollback), C(event).
    type: list
    elements: dict
  alerts:
    description: >-
      Whom Flagger alerts. Each has C(name), C(severity) (C(info), C(warn), C(error)) and C(provider), the name of an AlertProvider,
      or C(provider_ref).
    type: list
    elements: dict
  progress_deadline:
    description: Seconds in which a release must go on, else it fails. Flagger's default is 600.
    type: int
  skip_analysis:
    description: Promote without any check. A workload is taken over without a lost request all the same.
    type: bool
  suspend:
    description: Let Flagger do nothing with this Canary.
    type: bool
  revert_on_deletion:
    description: Let Flagger revert what it did when somebody deletes the Canary by hand. O(state=absent) does not need it.
    type: bool
  spec:
    description: Anything else of the Canary's spec, as Flagger writes it; it is laid over what the options say.
    type: dict
  check_metrics:
    description:
      - Ask each query of a Canary that is new, or that has other metrics than before, of its Prometheus, through the API server. One that
        finds nothing is refused, and so is one that finds several values, of which Flagger would take the last.
      - What cannot be asked is told in RV(checks) - a Prometheus outside the cluster, or one that wants credentials.
    type: bool
    default: true
  check_webhooks:
    description:
      - Ask whether the Service of each webhook answers, through the API server, at C(/healthz), where the Canary is new or has other
        webhooks than before. A run that changes none of them does not depend on their receivers.
    type: bool
    default: true
  keep_route:
    description:
      - With O(state=absent), keep the Service and the route where it was Flagger that made them, and let them lead to the workload; else
        they go with the Canary, and requests find nothing.
      - Those that were there before are always put back.
    type: bool
    default: true
  drain:
    description: Seconds that routers get to hear of a Service or a route that was turned, before pods go.
    type: float
    default: 5
  wait:
    description:
      - Wait until Flagger has taken the workload over (phase C(Initialized)), with O(state=absent) until what it made is gone.
      - Without it the workload is taken over up to where no request can be lost any more, and Flagger does the rest.
    type: bool
    default: true
  wait_timeout:
    description: Seconds for all of it. The default is 600.
    type: float
  flagger_namespace:
    description: Namespace that Flagger runs in. By default it is looked for by its labels in all of them, as far as that is allowed.
    type: str
  force:
    description:
      - Do not refuse what Flagger would take away, webhooks that do not answer and metrics that find nothing.
      - With O(state=absent), leave in the middle of a release as well; the workload gets what the primary runs.
    type: bool
    default: false
seealso:
  - module: progressive.delivery.flagger_gate
  - module: progressive.delivery.set_image
"""

EXAMPLES = r"""
- name: Flagger releases web, on a Gateway, a fifth of the requests more each minute
  progressive.delivery.flagger_canary:
    namespace: shop
    name: web
    provider: gatewayapi:v1
    port: 80
    target_port: http
    hosts: [shop.example.com]
    gateway_refs:
      - name: public
        namespace: gateways
    interval: 1m
    threshold: 3
    step_weight: 20
    max_weight: 60
    metrics:
      - name: request-success-rate
        min: 99
      - name: request-duration
        max: 500
    webhooks:
      - name: approve
        type: confirm-promotion
        url: http://flagger-loadtester.flagger-system/gate/check

- name: Blue-green on Istio, with a metric of our own
  progressive.delivery.flagger_canary:
    namespace: shop
    name: web
    provider: istio
    port: 80
    target_port: http
    hosts: [shop.example.com]
    gateways: [istio-system/public]
    interval: 30s
    threshold: 2
    iterations: 5
    mirror: true
    metrics:
      - name: not-found
        max: 5
        interval: 1m
        template:
          provider:
            type: prometheus
            address: http://prometheus.monitoring:9090
          query: >-
            {% raw %}
            sum(rate(istio_requests_total{destination_workload="{{ target }}", response_code="404"}[{{ interval }}]))
            / sum(rate(istio_requests_total{destination_workload="{{ target }}"}[{{ interval }}])) * 100
            {% endraw %}

- name: The workload leaves Flagger, and is what it was
  progressive.delivery.flagger_canary:
    namespace: shop
    name: web
    state: absent
"""

RETURN = r"""
before:
  description: The Canary's spec before (or, with O(state=absent), its name); none where there was no Canary.
  returned: success
  type: dict
  sample: {spec: null}
after:
  description: The same after.
  returned: success
  type: dict
  sample: {spec: {provider: "gatewayapi:v1", analysis: {interval: 1m, stepWeight: 20}}}
phase:
  description: The phase of the Canary, as far as it was waited for; in check mode the one that the run would return.
  returned: success
  type: str
  sample: Initialized
provider:
  description: The provider that Flagger uses for it.
  returned: with O(state=present)
  type: str
  sample: gatewayapi:v1
canary:
  description: What names the Canary.
  returned: with O(state=present)
  type: dict
  sample: {name: web, namespace: shop}
checks:
  description: What could not be checked before, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["metric \"errors\" was not asked: its provider is datadog"]
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["made Canary shop/web", "turned Service shop/web to web-primary: it is Flagger's now and was there before"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 24.8
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.flagging import keep_canary
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.unflagging import drop_canary

OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "default": "present", "choices": ["absent", "present"]},
    "target": {"type": "str"},
    "target_kind": {"type": "str", "default": "Deployment", "choices": ["DaemonSet", "Deployment"]},
    "provider": {"type": "str"},
    "metrics_server": {"type": "str"},
    "service_name": {"type": "str"},
    "port": {"type": "int"},
    "port_name": {"type": "str"},
    "target_port": {"type": "str"},
    "app_protocol": {"type": "str"},
    "port_discovery": {"type": "bool"},
    "gateways": {"type": "list", "elements": "str"},
    "gateway_refs": {"type": "list", "elements": "dict"},
    "hosts": {"type": "list", "elements": "str"},
    "request_timeout": {"type": "str"},
    "retries": {"type": "dict"},
    "headers": {"type": "dict"},
    "route_match": {"type": "list", "elements": "dict"},
    "rewrite": {"type": "dict"},
    "cors_policy": {"type": "dict"},
    "traffic_policy": {"type": "dict"},
    "apex": {"type": "dict"},
    "primary": {"type": "dict"},
    "canary": {"type": "dict"},
    "autoscaler": {"type": "str"},
    "autoscaler_kind": {"type": "str", "default": "HorizontalPodAutoscaler", "choices": ["HorizontalPodAutoscaler", "ScaledObject"]},
    "ingress": {"type": "str"},
    "route": {"type": "str"},
    "interval": {"type": "str"},
    "threshold": {"type": "int"},
    "max_weight": {"type": "int"},
    "step_weight": {"type": "int"},
    "step_weights": {"type": "list", "elements": "int"},
    "step_weight_promotion": {"type": "int"},
    "iterations": {"type": "int"},
    "match": {"type": "list", "elements": "dict"},
    "mirror": {"type": "bool"},
    "mirror_weight": {"type": "int"},
    "primary_ready_threshold": {"type": "int"},
    "canary_ready_threshold": {"type": "int"},
    "session_affinity": {"type": "dict"},
    "metrics": {"type": "list", "elements": "dict"},
    "webhooks": {"type": "list", "elements": "dict"},
    "alerts": {"type": "list", "elements": "dict"},
    "progress_deadline": {"type": "int"},
    "skip_analysis": {"type": "bool"},
    "suspend": {"type": "bool"},
    "revert_on_deletion": {"type": "bool"},
    "spec": {"type": "dict"},
    "check_metrics": {"type": "bool", "default": True},
    "check_webhooks": {"type": "bool", "default": True},
    "keep_route": {"type": "bool", "default": True},
    "drain": {"type": "float", "default": 5},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "float"},
    "flagger_namespace": {"type": "str"},
    "force": {"type": "bool", "default": False},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Let Flagger release a workload, or let it leave."""
    if options["state"] == "absent":
        return drop_canary(options, cluster, check, progress)
    return keep_canary(options, cluster, check, progress)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
