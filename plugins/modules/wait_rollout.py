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
  - With O(min_updated) or O(min_ready) it waits for so many pods of the newest revision instead of for all of them. Set an
    image, wait for one pod, pause the rollout and test - that is a canary of one pod.
  - While it waits it prints how far the rollout is, whenever that changes and at least every 15 seconds, also where the
    module runs on another host. With C(no_log) it prints nothing. Ansible holds back what it prints to a pipe, unless
    E(PYTHONUNBUFFERED) is set.
  - An API server that goes away while it waits is waited for too, for as long as O(timeout) lasts.
  - Changes nothing. In check mode it looks once, does not wait, and reports the status.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
  - progressive.delivery.cluster.turns
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
  min_updated:
    description:
      - Wait until so many pods of the newest revision exist, ready or not, and return at the very event that says so. The
        rollout goes on; to hold it there, pause it right after.
      - No more than the workload has pods, nor than a StatefulSet's partition lets be of the newest revision.
    type: int
    version_added: 0.2.0
  min_ready:
    description:
      - Wait until so many pods of the newest revision are ready. A rollout that is paused is waited for too, where it has
        begun enough of them.
      - Together with O(min_updated), both must hold.
    type: int
    version_added: 0.2.0
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

- name: Hold the rollout at one new pod, and wait until that is ready
  block:
    - name: One pod of the new version exists
      progressive.delivery.wait_rollout:
        namespace: shop
        name: web
        revision: "{{ image.revision }}"
        min_updated: 1

    - name: No more of them
      progressive.delivery.pause_rollout:
        namespace: shop
        name: web
        state: paused

    - name: It is ready
      progressive.delivery.wait_rollout:
        namespace: shop
        name: web
        revision: "{{ image.revision }}"
        min_ready: 1

- name: Tell the downtime of an update with the strategy Recreate
  block:
    - name: Wait for the rollout
      progressive.delivery.wait_rollout:
        namespace: shop
        name: web
      register: rollout

    - name: Tell it
      ansible.builtin.debug:
        msg: "web was down for {{ rollout.downtime }} s"

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
downtime:
  description:
    - Seconds for which no pod of the workload was ready, from the first look to the end; V(0.0) where there always was one,
      none for a workload that is scaled to 0 and in check mode. A pod that is on its way out counts as long as it is ready,
      since a Service sends to it where there is no other. Also on failure.
    - Measured from the events of a watch with the clock of the host that the step runs on. A client sees a second or two
      more. An application closes its port before Kubernetes hears of it, and the nodes learn after that a pod is ready.
    - Where the module runs on another host, what happens between two calls of it (about a second every 12 seconds) is seen
      at the next one. While the API server is away, what was seen last counts.
    - The wait sees nothing of what was before it. To know the downtime of an update, let it follow right after the step
      that begins the update.
  returned: always
  type: float
  sample: 2.417
availability:
  description: >-
    V(least) is the fewest pods that were available at any look, the first one included: ready for C(minReadySeconds) and
    not on their way out. Also on failure.
  returned: always
  type: dict
  sample: {least: 2}
resume:
  description: What the next call needs, where O(slice) ended before the wait did.
  returned: when a slice is over and the wait is not
  type: dict
  sample: {what: wait_rollout of Deployment shop/web, at: 1795514400.1, elapsed: 15.01, memory: {}}
progress:
  description: How far it is, as one line, where O(slice) ended before the wait did.
  returned: when a slice is over and the wait is not
  type: str
  sample: "1 of 3 updated, 3 ready, 3 available: waiting for 2 more pods of the new revision"
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
from ansible_collections.progressive.delivery.plugins.module_utils.plan.goal import Goal
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import parse_revision
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.turns import TURN_OPTIONS, Turn
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import look_once, wait_for_rollout

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "timeout": {"type": "float", "default": 300, "aliases": ["wait_timeout"]},
    "revision": {"type": "int"},
    "min_updated": {"type": "int"},
    "min_ready": {"type": "int"},
    "unschedulable_grace": {"type": "float", "default": 30},
    **TURN_OPTIONS,
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Wait until the goal is met, or known not to be; in check mode look once."""
    ref, timeout = Ref(options["kind"], options["namespace"], options["name"]), options["timeout"]
    revision = parse_revision(options.get("revision"))
    goal = Goal(options.get("min_updated"), options.get("min_ready"), revision, options["unschedulable_grace"])
    if options["unschedulable_grace"] < 0:
        raise InvalidRequest(f"unschedulable_grace must be 0 seconds or more, got {options['unschedulable_grace']:g}")
    if timeout <= 0:
        raise InvalidRequest(f"timeout must be more than 0 seconds, got {timeout:g}")
    turn = Turn.of(f"wait_rollout of {ref}", timeout, options)
    outcome = look_once(cluster, ref, goal) if check else wait_for_rollout(cluster, ref, timeout, goal, progress, turn)
    return Result(extra=outcome.report())


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
