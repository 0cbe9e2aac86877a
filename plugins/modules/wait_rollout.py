#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step wait_rollout: the rollout of a workload is complete."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wait_rollout
short_description: The rollout of a workload is complete
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Waits, by a watch and not by polling, until the newest revision of a Deployment, StatefulSet or DaemonSet is rolled
    out - the controller has seen the spec, all pods are of the new revision, none of the old is left, all are ready and
    available.
  - Fails at once when the outcome is known. The rollout's progress deadline passed (C(ProgressDeadlineExceeded)); a
    quota or admission refuses pods (C(FailedCreate)); an image cannot be pulled (C(ErrImagePull), C(ImagePullBackOff),
    C(InvalidImageName)); a container crashes (C(CrashLoopBackOff)) or cannot be made (C(CreateContainerConfigError));
    the workload is paused (C(Paused)), deleted (C(Deleted)) or waits for its pods to be deleted (C(OnDelete)); no node
    takes a pod for O(unschedulable_grace) seconds (C(Unschedulable)).
  - Changes nothing. In check mode it looks once, does not wait, and reports the status.
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
  timeout:
    description: Seconds to wait at most.
    type: float
    default: 300
    aliases: [wait_timeout]
  revision:
    description:
      - The revision to wait for, as M(progressive.delivery.set_image) returns it.
      - When somebody else gives the workload another template meanwhile, the step fails (C(Superseded)). Without a
        revision it follows the newest template.
    type: int
  unschedulable_grace:
    description:
      - Seconds for which a pod may find no node before the wait fails. An autoscaler of nodes needs minutes to add one.
    type: float
    default: 30
seealso:
  - module: progressive.delivery.rollout_info
"""

EXAMPLES = r"""
- name: Wait for the rollout, five minutes at most
  progressive.delivery.wait_rollout:
    namespace: shop
    name: web

- name: Wait for exactly what the step before started
  progressive.delivery.wait_rollout:
    namespace: shop
    name: web
    revision: "{{ image.revision }}"
    timeout: 120

- name: Go back when the new version does not come up
  block:
    - name: Wait for the rollout
      progressive.delivery.wait_rollout:
        namespace: shop
        name: web
  rescue:
    - name: Put the version back that ran before
      progressive.delivery.set_image:
        namespace: shop
        name: web
        images: "{{ image.before.images }}"
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
status:
  description: The last status that was seen; also on failure.
  returned: always
  type: dict
  sample:
    phase: complete
    message: complete
    wanted: 3
    updated: 3
    ready: 3
    available: 3
    replicas: 3
    generation: 4
    observed_generation: 4
pods:
  description: The pods of the workload at the end, where it was not complete at the first look.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: web-6d5f-abcde, phase: Running, ready: true, reason: "", restarts: 0, node: node-1, images: {app: "podinfo:2.0.0"}}
reason:
  description: Why the rollout will not complete, in Kubernetes' own word, or C(Timeout).
  returned: failure
  type: str
  sample: ImagePullBackOff
pod:
  description: The pod that shows the reason.
  returned: failure
  type: str
  sample: web-6d5f-abcde
container:
  description: The container that shows the reason.
  returned: failure
  type: str
  sample: app
log:
  description: The last log lines of a container that crashed.
  returned: failure
  type: list
  elements: str
  sample: ["cannot open database: connection refused"]
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
  sample: 3.412
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import parse_revision, rollout_status
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require, wait_for_rollout

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "timeout": {"type": "float", "default": 300, "aliases": ["wait_timeout"]},
    "revision": {"type": "int"},
    "unschedulable_grace": {"type": "float", "default": 30},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Wait until the rollout is complete, or known not to be; in check mode look once."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    revision = parse_revision(options.get("revision"))
    if options["timeout"] <= 0:
        raise InvalidRequest(f"timeout must be more than 0 seconds, got {options['timeout']:g}")
    workload = require(cluster, ref)
    if check:
        return Result(extra={"status": rollout_status(workload).to_dict(), "pods": []})
    status, watched = wait_for_rollout(cluster, ref, options["timeout"], revision, progress, grace=options["unschedulable_grace"])
    return Result(extra={"status": status.to_dict(), "pods": watched.report()})


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
