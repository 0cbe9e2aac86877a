#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step mark_released: a workload's record names the images that were released on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mark_released
short_description: A workload's record names the images that were released on it
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Writes images into the annotation C(progressive.delivery/released-images) of a Deployment, StatefulSet or DaemonSet,
    a JSON list with the newest first, each image once and at most ten.
  - It is meant for the end of a release, when the new version is verified. The check C(staged) of
    M(progressive.delivery.practices_info) reads the record, so that production takes only what was released in staging,
    also when staging has gone on to the next version.
  - The workload's pods are not touched.
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
      - The images that were released.
      - The default are those that the workload runs, and then a rollout that is not complete is refused.
    type: list
    elements: str
seealso:
  - module: progressive.delivery.practices_info
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: The rollout is complete
  progressive.delivery.wait_rollout:
    namespace: staging
    name: web

- name: Remember what it runs as released
  progressive.delivery.mark_released:
    namespace: staging
    name: web

- name: Remember one image, whatever else runs beside it
  progressive.delivery.mark_released:
    namespace: staging
    name: web
    images: [localhost:32000/podinfo:2.0.0]
"""

RETURN = r"""
before:
  description: The record before.
  returned: success
  type: dict
  sample: {released_images: ["localhost:32000/podinfo:1.0.0"]}
after:
  description: The record after.
  returned: success
  type: dict
  sample: {released_images: ["localhost:32000/podinfo:2.0.0", "localhost:32000/podinfo:1.0.0"]}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["marked localhost:32000/podinfo:2.0.0 as released on Deployment staging/web"]
released_images:
  description: The record after, newest first.
  returned: success
  type: list
  elements: str
  sample: ["localhost:32000/podinfo:2.0.0", "localhost:32000/podinfo:1.0.0"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.03
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.released import plan_released
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "images": {"type": "list", "elements": "str"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Write the images into the record where they are not its newest."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    change, _workload = settle(cluster, ref, lambda workload: plan_released(ref, workload, options.get("images")), check)
    return Result.of(change, released_images=change.after["released_images"])


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
