#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step rollout_info: history and status of a workload."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_info
short_description: History and status of a workload
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Returns the revisions of a Deployment, StatefulSet or DaemonSet with their images, change cause and age, which one
    is live, how far its rollout is, its conditions and its pods.
  - Revisions are found by who owns them, so that another workload with like labels is never mistaken for this one.
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
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: What runs now, and what ran before
  progressive.delivery.rollout_info:
    namespace: shop
    name: web
  register: web

- name: Show the history
  ansible.builtin.debug:
    msg: "{{ web.revisions | map(attribute='images') }}"

- name: Look at a StatefulSet with another kubeconfig
  progressive.delivery.rollout_info:
    kubeconfig: ~/.kube/production
    namespace: shop
    kind: StatefulSet
    name: database
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
revision:
  description: Number of the newest revision; none while the controller has not numbered it.
  returned: success
  type: int
  sample: 4
revisions:
  description: The revisions that are kept, newest first. Replicas are known for Deployments alone.
  returned: success
  type: list
  elements: dict
  sample:
    - revision: 4
      name: web-6d5f
      images: {app: "localhost:32000/podinfo:2.0.0"}
      change_cause: release 2.0.0
      created: "2026-11-23T10:00:00Z"
      replicas: 3
      live: true
replicas:
  description: The replicas that the spec asks for; none for a DaemonSet.
  returned: success
  type: int
  sample: 3
images:
  description: The images of the newest template by container.
  returned: success
  type: dict
  sample: {app: "localhost:32000/podinfo:2.0.0"}
status:
  description: How far the rollout is.
  returned: success
  type: dict
  sample: {phase: complete, message: complete, wanted: 3, updated: 3, ready: 3, available: 3}
conditions:
  description: The workload's conditions as the API has them.
  returned: success
  type: list
  elements: dict
  sample: [{type: Available, status: "True", reason: MinimumReplicasAvailable}]
pods:
  description: The workload's pods.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: web-6d5f-abcde, phase: Running, ready: true, reason: "", restarts: 0, node: node-1, images: {app: "podinfo:2.0.0"}}
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

from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Query, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import (
    current_revision,
    history,
    label_query,
    pod_summary,
    rollout_status,
    template_images,
)
from ansible_collections.progressive.delivery.plugins.module_utils.reading import revisions_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Return history, status, conditions and pods."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    workload = require(cluster, ref)
    revisions = revisions_of(cluster, workload)
    pods = cluster.list(Query("Pod", ref.namespace, label_query(workload))).items
    spec = workload.get("spec") or {}
    return Result(
        extra={
            "revision": current_revision(workload, revisions),
            "revisions": history(workload, revisions),
            "replicas": spec.get("replicas"),
            "images": template_images(spec.get("template") or {}),
            "status": rollout_status(workload).to_dict(),
            "conditions": (workload.get("status") or {}).get("conditions") or [],
            "pods": [pod_summary(pod) for pod in pods],
        }
    )


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
