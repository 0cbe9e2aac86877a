#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step clone_workload: a Deployment like another one exists, told apart by a label."""

from __future__ import annotations

DOCUMENTATION = r"""
module: clone_workload
short_description: A Deployment like another one exists
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Makes a Deployment as a copy of another one, told apart from it by labels in its selector, where there is none of
    that name. One that exists is left as it is.
  - Everything in the source's spec is copied, except replicas, the labels that differ and the images that are named.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  name:
    description: Name of the Deployment that shall exist.
    type: str
    required: true
  source:
    description: Name of the Deployment that it is made from.
    type: str
    required: true
  labels:
    description: Labels whose values differ from the source's. The source must have each of them in its selector.
    type: dict
    required: true
  replicas:
    description: How many pods a new one has.
    type: int
    default: 0
  images:
    description: Image by container name for a new one; V(*) stands for the only container.
    type: dict
seealso:
  - module: progressive.delivery.set_image
"""

EXAMPLES = r"""
- name: The green Deployment exists, made from the blue one
  progressive.delivery.clone_workload:
    namespace: shop
    name: web-green
    source: web-blue
    labels:
      version: green

- name: With its image and pods at once
  progressive.delivery.clone_workload:
    namespace: shop
    name: web-green
    source: web-blue
    labels:
      version: green
    replicas: 3
    images:
      app: localhost:32000/podinfo:2.0.0

- name: See whether it would be made
  progressive.delivery.clone_workload:
    namespace: shop
    name: web-green
    source: web-blue
    labels:
      version: green
  check_mode: true
  diff: true
"""

RETURN = r"""
before:
  description: What was there before.
  returned: success
  type: dict
  sample: {exists: false}
after:
  description: What is there after.
  returned: success
  type: dict
  sample: {exists: true, labels: {app: web, version: green}, replicas: 0, images: {app: "localhost:32000/podinfo:1.0.0"}}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["made Deployment shop/web-green from Deployment shop/web-blue"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.03
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, InvalidRequest, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Manifest, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import template_images
from ansible_collections.progressive.delivery.plugins.module_utils.plan.workload import copy_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "name": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "labels": {"type": "dict", "required": True},
    "replicas": {"type": "int", "default": 0},
    "images": {"type": "dict"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Make the Deployment where it does not exist."""
    ref = Ref("Deployment", options["namespace"], options["name"])
    source = Ref("Deployment", options["namespace"], options["source"])
    if ref == source:
        raise InvalidRequest(f"{ref} cannot be a copy of itself; source and name must differ")
    if options["replicas"] < 0:
        raise InvalidRequest(f"replicas of {ref} must be 0 or more, got {options['replicas']}")
    for key, value in options["labels"].items():
        if value is None or isinstance(value, (dict, list)) or str(value) == "":
            raise InvalidRequest(f'labels of {ref}: "{key}" has no value that a label can have, got {value!r}')
    labels = {str(key): str(value) for key, value in options["labels"].items()}
    exists = {"exists": True}
    try:
        _check_labels(ref, cluster.get(ref), labels)
        return Result(before=exists, after=exists)
    except NotFound:
        pass
    twin = copy_of(require(cluster, source), ref.name, labels, options["replicas"], options.get("images"))
    try:
        cluster.create(ref, twin, dry_run=check)
    except Conflict as error:
        _check_labels(ref, cluster.get(ref), labels)
        # Where the answer to our own request was lost, the second one finds it done, and by us.
        if not error.details.get("unsure"):
            return Result(before=exists, after=exists)
    template = twin["spec"]["template"]
    after = {
        "exists": True,
        "labels": template["metadata"]["labels"],
        "replicas": options["replicas"],
        "images": template_images(template),
    }
    return Result(True, {"exists": False}, after, (f"made {ref} from {source}",))


def _check_labels(ref: Ref, there: Manifest, labels: dict[str, str]) -> None:
    """Raise InvalidRequest where the Deployment that exists is another than the one wanted."""
    found = ((there["spec"]["template"].get("metadata") or {}).get("labels")) or {}
    for key, value in labels.items():
        if found.get(key) != value:
            raise InvalidRequest(
                f'{ref} exists, and its pods have {key}="{found.get(key, "")}" and not "{value}": it is another application or'
                " another color; correct the name or the labels"
            )


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
