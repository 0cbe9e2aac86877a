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
  - Returns the revisions of a Deployment, StatefulSet or DaemonSet with their images, change cause, age and pods, which
    one is live, how far its rollout is, its conditions, and its pods with the reasons why they are not ready.
  - Revisions and pods are found by who owns them, so that another workload with like labels is never mistaken for this one.
  - RV(summary) says the same in a few lines; with C(-v) they are printed as they are. The filter
    P(progressive.delivery.rollout_table#filter) makes one text of them.
  - What looks like a password or a token in a change cause is not shown.
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
  - module: progressive.delivery.undo_rollout
  - module: progressive.delivery.wait_rollout
  - plugin: progressive.delivery.rollout_table
    plugin_type: filter
"""

EXAMPLES = r"""
- name: What runs now, and what ran before
  progressive.delivery.rollout_info:
    namespace: shop
    name: web
  register: web

- name: Show it as a table
  ansible.builtin.debug:
    msg: "{{ web.summary }}"

- name: Go on only where everything runs the newest revision
  ansible.builtin.assert:
    that: web.status.phase == 'complete'
    fail_msg: "{{ web | progressive.delivery.rollout_table }}"

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
kind:
  description: Kind of the workload.
  returned: success
  type: str
  sample: Deployment
namespace:
  description: Namespace of the workload.
  returned: success
  type: str
  sample: shop
name:
  description: Name of the workload.
  returned: success
  type: str
  sample: web
partition:
  description: Of a StatefulSet, the ordinal from which on pods are replaced; V(0) for all, none for another kind.
  returned: success
  type: int
  sample: 0
paused:
  description: Whether the rollout is paused.
  returned: success
  type: bool
  sample: false
released_images:
  description: The images that M(progressive.delivery.mark_released) has recorded on the workload, newest first.
  returned: success
  type: list
  elements: str
  sample: ["registry.example.com/web:2.0.0", "registry.example.com/web:1.0.0"]
revision:
  description: Number of the newest revision; none while the controller has not numbered it.
  returned: success
  type: int
  sample: 4
revisions:
  description: The revisions that are kept, newest first.
  returned: success
  type: list
  elements: dict
  contains:
    revision:
      description: Its number.
      type: int
    former:
      description:
        - The numbers that it had before it was gone back to.
        - For a StatefulSet or DaemonSet they are known where M(progressive.delivery.undo_rollout) did that.
      type: list
      elements: int
    name:
      description: Name of its ReplicaSet or ControllerRevision.
      type: str
    images:
      description: Image by container.
      type: dict
    requests:
      description: What each container requests of a node, where it requests something.
      type: dict
    change_cause:
      description: Why it was released, as C(kubernetes.io/change-cause) had it.
      type: str
    created:
      description: When it was made first.
      type: str
    age:
      description: Seconds since then.
      type: int
    replicas:
      description: Pods of this revision that there are now, without those on their way out.
      type: int
    ready:
      description: How many of these are ready.
      type: int
    live:
      description: Whether it is the one of the newest template.
      type: bool
  sample:
    - revision: 4
      former: [1]
      name: web-6d5f
      images: {app: "localhost:32000/podinfo:2.0.0"}
      requests: {app: {cpu: 10m, memory: 16Mi}}
      change_cause: release 2.0.0
      created: "2026-11-23T10:00:00Z"
      age: 7260
      replicas: 3
      ready: 3
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
  description:
    - The workload's pods. C(reason) is empty, or what a container waits for, C(Unschedulable), or why the pod was ended;
      C(message) says it in a sentence.
    - C(last_termination) is how a container ended last, where one has.
  returned: success
  type: list
  elements: dict
  sample:
    - name: web-6d5f-abcde
      revision: 4
      phase: Running
      ready: false
      reason: CrashLoopBackOff
      message: "container app: Error with exit code 1, restarted 5 times"
      restarts: 5
      last_termination: {container: app, reason: Error, exit_code: 1, finished: "2026-11-23T10:03:00Z"}
      created: "2026-11-23T10:00:00Z"
      age: 190
      node: node-1
      images: {app: "podinfo:2.0.0"}
summary:
  description: The same in a few lines, aligned - the status, the revisions, and the pods that are not ready with their reasons.
  returned: success
  type: list
  elements: str
  sample:
    - "Deployment shop/web: complete, revision 4, 3 updated, 3 ready, 3 available of 3 pods"
    - ""
    - "REVISION  LIVE  PODS  READY  AGE  IMAGES                         CHANGE CAUSE"
    - "       4  *        3      3  2h   localhost:32000/podinfo:2.0.0  release 2.0.0"
    - "       3           0      0  5d   localhost:32000/podinfo:1.0.0  release 1.0.0"
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

import time
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Query, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.released import released_images
from ansible_collections.progressive.delivery.plugins.module_utils.plan.revisions import history, report_pods
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import (
    current_revision,
    label_query,
    rollout_status,
    template_images,
)
from ansible_collections.progressive.delivery.plugins.module_utils.plan.table import rollout_lines
from ansible_collections.progressive.delivery.plugins.module_utils.reading import revisions_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Return history, status, conditions and pods, and a summary of them."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    workload = require(cluster, ref)
    revisions = revisions_of(cluster, workload)
    pods = cluster.list(Query("Pod", ref.namespace, label_query(workload))).items
    spec = workload.get("spec") or {}
    now = time.time()
    found: dict[str, Any] = {
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "revision": current_revision(workload, revisions),
        "revisions": history(workload, revisions, pods, now),
        "replicas": spec.get("replicas"),
        "images": template_images(spec.get("template") or {}),
        "paused": bool(spec.get("paused")),
        "partition": ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition"),
        "released_images": released_images(workload),
        "status": rollout_status(workload).to_dict(),
        "conditions": (workload.get("status") or {}).get("conditions") or [],
        "pods": report_pods(workload, revisions, pods, now),
    }
    return Result(extra={**found, "summary": rollout_lines(found)})


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
