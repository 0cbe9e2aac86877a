#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step clone_service: a Service beside another one, for the pods of a copy of its workload."""

from __future__ import annotations

DOCUMENTATION = r"""
module: clone_service
short_description: A Service beside another one leads to the pods of a copy
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Makes a Service with the ports of another one that leads to other pods, where there is none of that name. One that
    exists is left as it is. A route can then split its requests between both.
  - The new one has type C(ClusterIP), addresses of its own and the source's labels and annotations, but no node ports, and
    nothing that asks for a load balancer or a DNS name or says that a tool manages it.
  - V(absent) deletes the copy, and nothing that is not a copy of O(source).
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  name:
    description: Name of the Service that shall exist.
    type: str
    required: true
  source:
    description: Name of the Service that it is made from.
    type: str
    required: true
  labels:
    description:
      - Labels of the pods that it leads to, over those of the source's selector. At least one must differ.
      - RV(progressive.delivery.clone_workload#module:copy_labels) has those of a copy.
      - Needed for state V(present).
    type: dict
  state:
    description: Whether the copy is there.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: progressive.delivery.clone_workload
"""

EXAMPLES = r"""
- name: A canary of the Deployment
  progressive.delivery.clone_workload:
    namespace: shop
    name: web-canary
    source: web
    beside: web
  register: canary

- name: And a Service that leads to its pods
  progressive.delivery.clone_service:
    namespace: shop
    name: web-canary
    source: web
    labels: "{{ canary.copy_labels }}"

- name: See whether it would be made
  progressive.delivery.clone_service:
    namespace: shop
    name: web-canary
    source: web
    labels:
      app: web-canary
  check_mode: true
  diff: true

- name: It is gone
  progressive.delivery.clone_service:
    namespace: shop
    name: web-canary
    source: web
    state: absent
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
  sample: {exists: true, selector: {app: web-canary}, ports: [80]}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["made Service shop/web-canary from Service shop/web"]
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
from ansible_collections.progressive.delivery.plugins.module_utils.plan.copies import copy_of_service
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "name": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "labels": {"type": "dict"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Make the Service where it does not exist, or delete it where it does."""
    ref, source = copy_refs("Service", options)
    if options["state"] == "absent":
        return remove_copy(cluster, ref, source, check)
    labels = wanted_labels(ref, options.get("labels"))
    return make_copy(
        cluster,
        ref,
        source,
        lambda: copy_of_service(require(cluster, source), ref.name, labels),
        lambda there: _check_selector(ref, there, labels),
        lambda twin: {"selector": twin["spec"]["selector"], "ports": [port.get("port") for port in twin["spec"]["ports"]]},
        check,
    )


def _check_selector(ref: Ref, there: Manifest, labels: dict[str, str]) -> None:
    """Raise InvalidRequest where the Service that exists leads to other pods than those wanted."""
    found = (there.get("spec") or {}).get("selector") or {}
    for key, value in labels.items():
        if found.get(key) != value:
            raise InvalidRequest(
                f'{ref} exists, and it selects pods with {key}="{found.get(key, "")}" and not "{value}": it is another'
                " application's; correct the name or the labels"
            )


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
