#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step strategy_info: what the choice of a strategy depends on, as it is found on the cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: strategy_info
short_description: What the choice of a strategy depends on
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Looks at a workload and at what is around it - its replicas and volumes, how many more of its pods would fit, what
    routes lead to it, and which routers and controllers the cluster has.
  - The facts have the shape that the filter P(progressive.delivery.recommend_strategy#filter) takes.
  - It takes a dozen requests and the right to read the workload. What else may not be read is none, and is listed under
    C(unknown); that is no failure. The one large request is the list of all running pods, which the free room takes.
  - Whether a pod fits is counted node by node, by requests, number of pods, taints, node selector, required node affinity
    and host ports. Affinity between pods, topology spread, zones of volumes and preemption are not considered. Quotas
    with scopes are left out.
  - Routes are looked for in the workload's own namespace.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
options:
  kind:
    description: Kind of the workload.
    type: str
    default: Deployment
    choices: [Deployment, StatefulSet, DaemonSet]
  name:
    description: Name of the workload.
    type: str
    required: true
seealso:
  - plugin: progressive.delivery.recommend_strategy
    plugin_type: filter
  - module: progressive.delivery.rollout_info
"""

EXAMPLES = r"""
- name: What is there
  progressive.delivery.strategy_info:
    namespace: shop
    name: web
  register: web

- name: Which strategy suits a release that must be taken back in a moment
  ansible.builtin.debug:
    msg: "{{ web.facts | progressive.delivery.recommend_strategy(instant_rollback=true) }}"

- name: The same as a text
  ansible.builtin.debug:
    msg: "{{ (web.facts | progressive.delivery.recommend_strategy | progressive.delivery.strategy_table).splitlines() }}"

- name: Refuse to go on without room for a second color
  ansible.builtin.assert:
    that: web.facts.capacity.pods is none or web.facts.capacity.pods >= web.facts.replicas
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
facts:
  description: What was found, as the filter P(progressive.delivery.recommend_strategy#filter) takes it.
  returned: success
  type: dict
  contains:
    namespace:
      description: Namespace of the workload.
      type: str
      sample: shop
    name:
      description: Name of the workload.
      type: str
      sample: web
    kind:
      description: Kind of the workload.
      type: str
      sample: Deployment
    replicas:
      description: The pods that it shall have; for a DaemonSet, the nodes that it is for.
      type: int
      sample: 3
    update_strategy:
      description: The type of its update strategy.
      type: str
      sample: RollingUpdate
    selector:
      description: The labels by which it selects its pods.
      type: dict
      sample: {app: web}
    readiness_probe:
      description: Whether one of its containers has a readinessProbe.
      type: bool
      sample: true
    requests:
      description: What one pod requests - cpu in cores, memory in bytes. From its newest pod, else from the template.
      type: dict
      sample: {cpu: 0.01, memory: 16777216}
    capacity:
      description:
        - How many more pods like this one fit on the C(nodes) that accept it, and the C(cpu) in cores and C(memory) in
          bytes that are free on these.
        - C(quota) is the ResourceQuota of the namespace that allows the fewest more, none where no quota limits them.
      type: dict
      sample: {pods: 84, cpu: 1.2, memory: 5368709120, nodes: 2, quota: {name: small, pods: 4}}
    claims:
      description: The PersistentVolumeClaims that its pods share, with their access modes.
      type: list
      elements: dict
      sample: [{name: data, access_modes: [ReadWriteOnce]}]
    autoscaler:
      description: The HorizontalPodAutoscaler that scales it, with its limits.
      type: dict
      sample: {name: web, min: 2, max: 10}
    routes:
      description: The Services that select its pods, and what leads to these.
      type: dict
      sample:
        services: [web]
        ingresses: [{name: web, class: nginx, controller: k8s.io/ingress-nginx}]
        http_routes: []
        virtual_services: []
        ingress_routes: []
    api_groups:
      description: The API groups that the cluster serves.
      type: list
      elements: str
      sample: [apps, gateway.networking.k8s.io]
    unknown:
      description: What could not be read.
      type: list
      elements: str
      sample: [nodes]
unknown:
  description: What could not be read, as in the facts.
  returned: success
  type: list
  elements: str
  sample: [nodes]
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
  sample: 0.09
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.surveying import Survey

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Return the facts, and what could not be read."""
    survey = Survey(cluster, Ref(options["kind"], options["namespace"], options["name"]))
    return Result(extra={"facts": survey.facts(), "unknown": list(survey.unknown)})


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
