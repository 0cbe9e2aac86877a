#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step pause_rollout: the rollout of a Deployment is paused, or goes on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pause_rollout
short_description: The rollout of a Deployment is paused, or goes on
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Pauses a Deployment, so that its pods stay as they are whatever its pod template says, or resumes it.
  - A rollout that is under way stops where it is - some pods of the new revision and the rest of the old one. That is a
    canary by the number of pods.
  - Only Deployments can be paused. For a StatefulSet or DaemonSet the step fails with the way that there is instead.
  - It does not wait; M(progressive.delivery.wait_rollout) does.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
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
  state:
    description: Whether the rollout shall be paused, or go on.
    type: str
    default: paused
    choices: [paused, resumed]
seealso:
  - module: progressive.delivery.undo_rollout
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: Hold the rollout where it is
  progressive.delivery.pause_rollout:
    namespace: shop
    name: web

- name: Go on with it
  progressive.delivery.pause_rollout:
    namespace: shop
    name: web
    state: resumed

- name: Change several things in one rollout
  block:
    - name: Pause
      progressive.delivery.pause_rollout:
        namespace: shop
        name: web

    - name: Set the image
      progressive.delivery.set_image:
        namespace: shop
        name: web
        images:
          app: localhost:32000/podinfo:2.0.0
  always:
    - name: Resume
      progressive.delivery.pause_rollout:
        namespace: shop
        name: web
        state: resumed
"""

RETURN = r"""
before:
  description: Whether it was paused before.
  returned: success
  type: dict
  sample: {paused: false}
after:
  description: Whether it is paused now.
  returned: success
  type: dict
  sample: {paused: true}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["paused the rollout of Deployment shop/web"]
paused:
  description: Whether it is paused now.
  returned: success
  type: bool
  sample: true
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.024
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.workload import plan_pause
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "default": "paused", "choices": ["paused", "resumed"]},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Pause or resume, where it is not so already."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    paused = options["state"] == "paused"
    change, _workload = settle(cluster, ref, lambda workload: plan_pause(ref, workload, paused), check, require(cluster, ref))
    return Result.of(change, paused=paused)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
