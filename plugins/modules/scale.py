#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step scale: a workload has this many replicas."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scale
short_description: A workload has this many replicas
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sets the replicas of a Deployment or StatefulSet, by a patch that carries the C(resourceVersion) it was decided on.
  - Knows of HorizontalPodAutoscalers. A number outside of the limits of the one that scales the workload is refused,
    since it would be undone at once. V(0) is always possible, because an autoscaler rests while its target has no pods.
  - It does not wait for the pods; M(progressive.delivery.wait_rollout) does.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  kind:
    description: Kind of the workload.
    type: str
    default: Deployment
    choices: [Deployment, StatefulSet]
  name:
    description: Name of the workload.
    type: str
    required: true
  replicas:
    description: How many pods it shall have, V(0) or more.
    type: int
    required: true
  if_replicas:
    description: Refuse unless it has this many now, or already the wanted number.
    type: int
seealso:
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: Five pods
  progressive.delivery.scale:
    namespace: shop
    name: web-green
    replicas: 5

- name: Take the idle color out, after its traffic is off
  progressive.delivery.scale:
    namespace: shop
    name: web-blue
    replicas: 0

- name: Say the cluster once for all steps of a play
  hosts: localhost
  module_defaults:
    group/progressive.delivery.delivery:
      kubeconfig: ~/.kube/production
      namespace: shop
  tasks:
    - name: Three pods
      progressive.delivery.scale:
        name: web
        replicas: 3
"""

RETURN = r"""
before:
  description: The replicas before.
  returned: success
  type: dict
  sample: {replicas: 3}
after:
  description: The replicas after.
  returned: success
  type: dict
  sample: {replicas: 5}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["scaled Deployment shop/web-green from 3 to 5"]
replicas:
  description: The replicas after.
  returned: success
  type: int
  sample: 5
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.028
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict
from ansible_collections.progressive.delivery.plugins.module_utils.model import Change, Cluster, Manifest, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.workload import plan_scale
from ansible_collections.progressive.delivery.plugins.module_utils.reading import autoscaler_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": ["Deployment", "StatefulSet"]},
    "name": {"type": "str", "required": True},
    "replicas": {"type": "int", "required": True},
    "if_replicas": {"type": "int"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Set the replicas unless an autoscaler would undo it."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    replicas, expected = options["replicas"], options.get("if_replicas")

    def plan(workload: Manifest) -> Change:
        change = plan_scale(ref, workload, replicas)
        if change.changed and expected is not None and change.before["replicas"] != expected:
            raise Conflict(f"{ref} has {change.before['replicas']} replicas and not {expected}; nothing was changed")
        # The autoscaler is read only where there is something that it could undo.
        return plan_scale(ref, workload, replicas, autoscaler_of(cluster, ref)) if change.changed and replicas else change

    change, _workload = settle(cluster, ref, plan, check)
    return Result.of(change, replicas=replicas)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
