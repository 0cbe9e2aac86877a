#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step undo_rollout: the pod template of a workload is that of a revision."""

from __future__ import annotations

DOCUMENTATION = r"""
module: undo_rollout
short_description: The pod template of a workload is that of a revision
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Takes a Deployment, StatefulSet or DaemonSet back to the revision before, or to the one that is named. Everything in
    the pod template is as it was in that revision; what a newer one has added is gone. The number of replicas, the
    annotations and all else in the workload stay.
  - Run twice, it does not go forward again. What was undone is noted on the workload in the annotation
    C(progressive.delivery/undone), in the same write; as long as nothing else was released since, there is no more to undo.
  - The controller does not make an old revision anew. It gives it the next number, so that the history has no longer the
    number that was gone back to. RV(revision) is the new one; O(to_revision) understands the old one too.
  - The revisions are found by who owns them, and the decision is taken on a state that the controller has numbered. For
    that it is waited for up to five seconds.
  - It does not wait for the pods; M(progressive.delivery.wait_rollout) does.
  - Values of variables that are secrets by their name or their text are not shown, and what a Secret holds never is.
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
  to_revision:
    description:
      - The revision to go back to, as M(progressive.delivery.rollout_info) lists them.
      - The default is the newest other one whose images M(progressive.delivery.mark_released) has recorded. Where there is
        none, it is the newest other one that has ready pods now, or else the one before, and RV(note) says so.
      - One that is gone is refused, with the names of those that there are.
    type: int
  if_revision:
    description:
      - Undo only where this is the current revision. At another one nothing is done, and RV(msg) says so.
      - With the revision that M(progressive.delivery.set_image) returned, a release takes back its own change and nobody else's.
    type: int
  unless_image:
    description: Do nothing where a container of the workload has this image already.
    type: str
  change_cause:
    description:
      - Why, for the annotation C(kubernetes.io/change-cause). The default is the change cause of the revision that is gone
        back to, so that the history stays true.
      - In the history of a StatefulSet or DaemonSet a revision keeps the cause that it was made with.
    type: str
  resume:
    description:
      - Undo a paused Deployment too, and resume it in the same write.
      - Without this a paused one is refused, since its pods would not follow. To resume it first would let the rollout go
        on that is to be undone.
    type: bool
    default: false
  delete_stuck_pods:
    description:
      - Delete the pods of a StatefulSet that are not ready and of another revision than the one that is gone back to.
      - With C(podManagementPolicy) C(OrderedReady), a StatefulSet replaces no pod while one is not ready, not even that
        one. So it does not come back from a revision whose pods never become ready, unless somebody deletes them.
      - Without this they are named in RV(stuck_pods) and RV(msg).
    type: bool
    default: false
seealso:
  - module: progressive.delivery.rollout_info
  - module: progressive.delivery.set_image
  - module: progressive.delivery.wait_rollout
  - plugin: progressive.delivery.rollout_table
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Back to what ran before
  progressive.delivery.undo_rollout:
    namespace: shop
    name: web
  register: undo

- name: Wait until it does
  progressive.delivery.wait_rollout:
    namespace: shop
    name: web
    revision: "{{ undo.revision }}"

- name: See what would change
  progressive.delivery.undo_rollout:
    namespace: shop
    name: web
  check_mode: true
  diff: true

- name: Back to a revision that is known to be good
  progressive.delivery.undo_rollout:
    namespace: shop
    kind: StatefulSet
    name: database
    to_revision: 7
    delete_stuck_pods: true
    change_cause: back to 7, which has the old index, ticket SHOP-14

- name: Release, and take back this release alone where it fails
  block:
    - name: Put version 2 on the container app
      progressive.delivery.set_image:
        namespace: shop
        name: web
        images:
          app: localhost:32000/podinfo:2.0.0
      register: image

    - name: Wait for the rollout
      progressive.delivery.wait_rollout:
        namespace: shop
        name: web
        revision: "{{ image.revision }}"
  rescue:
    - name: Go back, unless somebody else has released meanwhile
      progressive.delivery.undo_rollout:
        namespace: shop
        name: web
        if_revision: "{{ image.revision }}"
      when: image is changed
"""

RETURN = r"""
before:
  description: The revision before, and what only its pod template has, by container and by name.
  returned: success
  type: dict
  sample:
    revision: 3
    containers: {app: {image: "localhost:32000/podinfo:2.0.0", env: {LEVEL: debug}}}
    change_cause: release 2.0.0
after:
  description: The revision after, and what only its pod template has. The revision is none where it cannot be foreseen.
  returned: success
  type: dict
  sample:
    revision: 4
    containers: {app: {image: "localhost:32000/podinfo:1.0.0"}}
    change_cause: release 1.0.0
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["took Deployment shop/web back from revision 3 to revision 2 (app localhost:32000/podinfo:1.0.0)"]
msg:
  description: What was done, or why nothing was, in one sentence.
  returned: always
  type: str
  sample: >-
    Deployment shop/web went back from revision 3 to revision 2, which is its revision 4 now: app localhost:32000/podinfo:1.0.0
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
revision:
  description:
    - The number of the workload's revision after the step, for O(progressive.delivery.wait_rollout#module:revision).
    - None in check mode where it cannot be foreseen, and where the controller did not number it within five seconds.
  returned: success
  type: int
  sample: 4
from_revision:
  description: The revision before the step.
  returned: success
  type: int
  sample: 3
to_revision:
  description: The revision that was gone back to, by the number that it had before.
  returned: success
  type: int
  sample: 2
images:
  description: The images after the step, by container.
  returned: success
  type: dict
  sample: {app: "localhost:32000/podinfo:1.0.0"}
change_cause:
  description: The workload's change cause after the step.
  returned: success
  type: str
  sample: release 1.0.0
note:
  description:
    - That nothing tells whether the revision that was gone back to ever worked, since it is not among the images that
      M(progressive.delivery.mark_released) records and has no ready pods; and which others there are.
    - Empty where something tells, where O(to_revision) names the revision, and where nothing was undone.
  returned: success
  type: str
  sample: >-
    nothing is recorded of revision 2: it was never released by this collection; to go to another, give to_revision
    (there are: 1 (app localhost:32000/podinfo:1.0.0))
stuck_pods:
  description: The pods for which a StatefulSet waits and that have to be deleted before it goes back.
  returned: success
  type: list
  elements: str
  sample: []
summary:
  description: RV(msg), and what changes of the pod template, as aligned lines.
  returned: success
  type: list
  elements: str
  sample:
    - "Deployment shop/web went back from revision 3 to revision 2, which is its revision 4 now: app podinfo:1.0.0"
    - ""
    - "WHAT                      BEFORE         AFTER"
    - "revision                  3              4"
    - "containers app image      podinfo:2.0.0  podinfo:1.0.0"
    - "containers app env LEVEL  debug          -"
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.041
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.table import undo_lines
from ansible_collections.progressive.delivery.plugins.module_utils.plan.undo import Asked
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.undoing import free, given_number, take_back

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "to_revision": {"type": "int"},
    "if_revision": {"type": "int"},
    "unless_image": {"type": "str"},
    "change_cause": {"type": "str"},
    "resume": {"type": "bool", "default": False},
    "delete_stuck_pods": {"type": "bool", "default": False},
}

REVISION_TIMEOUT = 5.0


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Go back to a revision, unless the workload is there or is not what was expected."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    asked = Asked(*(options[name] for name in ("to_revision", "if_revision", "unless_image", "change_cause", "resume")))
    undo, workload = take_back(cluster, ref, asked, check, REVISION_TIMEOUT)
    revision = undo.revision
    if undo.change.changed and not check and (revision is None or ref.kind != "Deployment"):
        # A wait for it takes a lower number for another release, unless it knows a Deployment, which gets its number last.
        given = given_number(cluster, ref, workload, REVISION_TIMEOUT)
        revision = given if revision is None else revision
    stuck, deleted = free(cluster, ref, workload, undo.target, options["delete_stuck_pods"], check)
    before, after, message = dict(undo.change.before), dict(undo.change.after), undo.message
    actions = [*undo.change.actions, *(f"deleted pod {name} of {ref}, which was not ready and not of the revision" for name in deleted)]
    if deleted:
        before["stuck_pods"], after["stuck_pods"] = deleted, []
    if stuck:
        message += (
            f"; it waits for pods of another revision that are not ready, and will not replace them: delete {', '.join(stuck)}, or give"
            " delete_stuck_pods: true"
        )
    changed = undo.change.changed or bool(deleted)
    found = {
        "msg": message,
        "kind": ref.kind,
        "namespace": ref.namespace,
        "name": ref.name,
        "revision": revision,
        "from_revision": undo.from_revision,
        "to_revision": undo.to_revision,
        "images": dict(undo.images),
        "change_cause": undo.change_cause,
        "note": undo.note,
        "stuck_pods": stuck,
    }
    summary = undo_lines({**found, "changed": changed, "before": before, "after": after})
    if stuck or not changed:
        progress(message)
    return Result(changed, before, after, actions, {**found, "summary": summary})


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
