#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step set_image: containers of a workload run the images that are named."""

from __future__ import annotations

DOCUMENTATION = r"""
module: set_image
short_description: Containers of a workload run these images
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sets the images of containers of a Deployment, StatefulSet or DaemonSet, and records why in the annotation
    C(kubernetes.io/change-cause), which becomes part of the rollout's history.
  - Only the images that differ are written, by a strategic merge patch that carries the C(resourceVersion) it was
    decided on. Everything else in the workload stays as it is.
  - It does not wait for the rollout; M(progressive.delivery.wait_rollout) does.
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
  images:
    description:
      - Image by container name, init containers included.
      - The name V(*) stands for the only container of a workload that has one.
    type: dict
    required: true
  change_cause:
    description: Why the images change. The default names the containers and images. Written only together with a change.
    type: str
  delete_stuck_pods:
    description:
      - A StatefulSet replaces no pod while one is not ready, not even that one. With this option such pods are deleted, so that
        they come back with these images.
      - It deletes pods of a revision that was never rolled out whole, and those that can never become ready. A pod of the
        revision before that is only slow is left alone.
    type: bool
    default: false
    version_added: 0.2.0
seealso:
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: Put version 2 on the container app
  progressive.delivery.set_image:
    namespace: shop
    name: web-green
    images:
      app: localhost:32000/podinfo:2.0.0
    change_cause: release 2.0.0, ticket SHOP-12

- name: The workload has one container, whatever its name
  progressive.delivery.set_image:
    namespace: shop
    name: web
    images:
      "*": localhost:32000/podinfo:2.0.0

- name: See what would change, and whether it is allowed
  progressive.delivery.set_image:
    namespace: shop
    name: web
    images:
      app: localhost:32000/podinfo:2.0.0
  check_mode: true
  diff: true
"""

RETURN = r"""
before:
  description: The images before.
  returned: success
  type: dict
  sample: {images: {app: "localhost:32000/podinfo:1.0.0"}}
after:
  description: The images after.
  returned: success
  type: dict
  sample: {images: {app: "localhost:32000/podinfo:2.0.0"}}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["set container app of Deployment shop/web from localhost:32000/podinfo:1.0.0 to localhost:32000/podinfo:2.0.0"]
generation:
  description: The workload's generation after the step.
  returned: success
  type: int
  sample: 4
revision:
  description:
    - The revision that runs these images.
    - None where the controller did not number it within five seconds, and in check mode where it cannot be foreseen.
  returned: success
  type: int
  sample: 3
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.031
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    WORKLOAD_KINDS,
    Change,
    Cluster,
    Manifest,
    Ref,
    Result,
    metadata,
)
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import is_observed, next_revision
from ansible_collections.progressive.delivery.plugins.module_utils.plan.workload import plan_images
from ansible_collections.progressive.delivery.plugins.module_utils.reading import foreseen_revision, numbered_revision
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle
from ansible_collections.progressive.delivery.plugins.module_utils.undoing import release

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "images": {"type": "dict", "required": True},
    "change_cause": {"type": "str"},
    "delete_stuck_pods": {"type": "bool", "default": False},
}

REVISION_TIMEOUT = 5.0


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Set the images that differ, and return the revision that runs them."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    before: Manifest = {}

    def plan(manifest: Manifest) -> Change:
        nonlocal before
        before = {**manifest, "kind": ref.kind}
        return plan_images(ref, manifest, options["images"], options.get("change_cause"))

    change, workload = settle(cluster, ref, plan, check)
    revision = next_revision(before, workload)
    if revision is None and not (check and change.changed):
        revision = numbered_revision(cluster, ref, workload, REVISION_TIMEOUT)
    elif revision is None and is_observed(before) and ref.kind == "Deployment":
        revision = foreseen_revision(cluster, {**workload, "kind": ref.kind})
    deleted: list[str] = []
    if options["delete_stuck_pods"]:
        deleted = release(cluster, ref, {**workload, "kind": ref.kind}, change.changed, check, REVISION_TIMEOUT)
    extra = {"generation": metadata(workload).get("generation"), "revision": revision}
    if not deleted:
        return Result.of(change, **extra)
    actions = [*change.actions, *(f"deleted pod {name} of {ref}, for which it would have waited for ever" for name in deleted)]
    before, after = {**change.before, "stuck_pods": deleted}, {**change.after, "stuck_pods": []}
    return Result(True, before, after, actions, extra)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
