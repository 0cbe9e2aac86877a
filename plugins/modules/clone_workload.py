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
  - The labels are given with O(labels), or found - with O(beside) or O(behind) - from what a Service selects.
  - V(absent) deletes the copy and its pods, and nothing that is not a copy of O(source).
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
    description:
      - Labels whose values differ from the source's. The source must have each of them in its selector.
      - Needed for state V(present), unless O(beside) or O(behind) finds them.
    type: dict
  beside:
    description:
      - A Service that leads to the source's pods and must not lead to those of the copy, as it is where a route splits its
        requests between this Service and one of the copy's own (M(progressive.delivery.clone_service)).
      - The label that differs is then the first one that both selectors have.
    type: str
    version_added: 0.2.0
  behind:
    description:
      - A Service that leads to the source's pods and must lead to those of the copy as well, as it is where the number of
        pods or the subsets of a DestinationRule split its requests.
      - The label that differs is then the first one of the source's selector that the Service does not select by.
    type: str
    version_added: 0.2.0
  suffix:
    description: What the value of the label that O(beside) or O(behind) finds has more than the source's, after a dash.
    type: str
    default: canary
    version_added: 0.2.0
  replicas:
    description: How many pods a new one has.
    type: int
    default: 0
  images:
    description: Image by container name for a new one; V(*) stands for the only container.
    type: dict
  state:
    description: Whether the copy is there.
    type: str
    choices: [present, absent]
    default: present
    version_added: 0.2.0
seealso:
  - module: progressive.delivery.clone_service
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

- name: A canary whose pods the Service web does not lead to, because they are app=web-canary where its own are app=web
  progressive.delivery.clone_workload:
    namespace: shop
    name: web-canary
    source: web
    beside: web
    replicas: 1
  register: canary

- name: It is gone, and its pods with it
  progressive.delivery.clone_workload:
    namespace: shop
    name: web-canary
    source: web
    state: absent

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
copy_labels:
  description: The labels that tell the pods of the copy from those of the source; none for state V(absent).
  returned: success
  type: dict
  version_added: 0.2.0
  sample: {app: web-canary}
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

from ansible_collections.progressive.delivery.plugins.module_utils.copying import copy_refs, make_copy, remove_copy, wanted_labels
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Manifest, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.copies import copy_of, telling_labels
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import template_images
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "name": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "labels": {"type": "dict"},
    "beside": {"type": "str"},
    "behind": {"type": "str"},
    "suffix": {"type": "str", "default": "canary"},
    "replicas": {"type": "int", "default": 0},
    "images": {"type": "dict"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Make the Deployment where it does not exist, or delete it where it does."""
    ref, source = copy_refs("Deployment", options)
    if options["state"] == "absent":
        gone = remove_copy(cluster, ref, source, check)
        return Result(gone.changed, gone.before, gone.after, gone.actions, {"copy_labels": {}})
    if options["replicas"] < 0:
        raise InvalidRequest(f"replicas of {ref} must be 0 or more, got {options['replicas']}")
    labels = _labels(options, cluster, ref, source)

    def described(twin: Manifest) -> dict[str, Any]:
        template = twin["spec"]["template"]
        return {"labels": template["metadata"]["labels"], "replicas": options["replicas"], "images": template_images(template)}

    made = make_copy(
        cluster,
        ref,
        source,
        lambda: copy_of(require(cluster, source), ref.name, labels, options["replicas"], options.get("images")),
        lambda there: _check_labels(ref, there, labels),
        described,
        check,
    )
    return Result(made.changed, made.before, made.after, made.actions, {"copy_labels": labels})


def _labels(options: dict[str, Any], cluster: Cluster, ref: Ref, source: Ref) -> dict[str, str]:
    """Return the labels of the copy: those given, or the one that a Service's selector asks for."""
    given = [name for name in ("labels", "beside", "behind") if options.get(name)]
    if len(given) != 1:
        raise InvalidRequest(
            f"{ref} is told from {source} by one of labels, beside and behind, and"
            f" {' and '.join(given) + ' are' if given else 'none of them is'} given"
        )
    if given == ["labels"]:
        return wanted_labels(ref, options["labels"])
    service = Ref("Service", options["namespace"], options[given[0]])
    return telling_labels(
        source, require(cluster, source), service, require(cluster, service), str(options["suffix"]), served=given == ["behind"]
    )


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
