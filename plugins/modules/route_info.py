#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step route_info: who gets the traffic of a route now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: route_info
short_description: Who gets the traffic of a route now
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Returns the active color of a Service or an Ingress, the Deployments of every color that it could be switched to,
    how many pods of each are ready, and the annotations that this collection keeps on the route.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
options:
  provider:
    description: What does the routing, as in M(progressive.delivery.switch_color).
    type: str
    default: service
  name:
    description: Name of the route - the Service for V(service), the Ingress for V(ingress).
    type: str
    required: true
  color_label:
    description: The label whose value is the color.
    type: str
    default: version
  services:
    description: For provider V(ingress), the Service of each color.
    type: dict
  rule_host:
    description: For provider V(ingress), the host of the rule that is looked at. The default is any.
    type: str
  rule_path:
    description: For provider V(ingress), the path that is looked at. The default is any.
    type: str
seealso:
  - module: progressive.delivery.switch_color
"""

EXAMPLES = r"""
- name: Which color do users see?
  progressive.delivery.route_info:
    namespace: shop
    name: web
  register: web

- name: The same for two Services and an Ingress
  progressive.delivery.route_info:
    provider: ingress
    namespace: shop
    name: web
    rule_host: shop.example.com

- name: Refuse to go on unless blue is active
  ansible.builtin.assert:
    that: web.color == "blue"
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
color:
  description: The color that gets the traffic.
  returned: success
  type: str
  sample: blue
colors:
  description: What there is of each color - Deployments, replicas asked for, ready pods, images by container.
  returned: success
  type: dict
  sample:
    blue: {deployments: [web-blue], replicas: 3, ready: 3, images: {app: "localhost:32000/podinfo:1.0.0"}}
    green: {deployments: [web-green], replicas: 0, ready: 0, images: {app: "localhost:32000/podinfo:2.0.0"}}
split:
  description: Percent of the traffic that each color gets.
  returned: success
  type: dict
  sample: {blue: 100, green: 0}
matches:
  description: Requests that go elsewhere by what they carry. The providers that there are know none.
  returned: success
  type: list
  elements: dict
  sample: []
mirror:
  description: Where a copy of the requests goes. The providers that there are know none.
  returned: success
  type: dict
  sample: null
selector:
  description: The labels, without the color, of the pods that the route can select.
  returned: success
  type: dict
  sample: {app: web}
others:
  description: >-
    For provider V(ingress), the places of the Ingress beside those that were chosen that lead to a color too, by color.
  returned: success
  type: dict
  sample: {blue: [other.example.com/]}
services:
  description: The Service of each color, for provider ingress; empty for others.
  returned: success
  type: dict
  sample: {blue: web-blue, green: web-green}
annotations:
  description: The annotations of this collection on the route, without their prefix.
  returned: success
  type: dict
  sample: {previous-color: green, phase: released}
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

from ansible_collections.progressive.delivery.plugins.module_utils.coloring import Route
from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    ANNOTATION_PREFIX,
    Cluster,
    Result,
    annotations,
    metadata,
)
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import template_images
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    "provider": {"type": "str", "default": "service"},
    "name": {"type": "str", "required": True},
    "color_label": {"type": "str", "default": "version"},
    "services": {"type": "dict"},
    "rule_host": {"type": "str"},
    "rule_path": {"type": "str"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Return the active colour and what there is of each."""
    route = Route.of(options, cluster)
    manifest = cluster.get(route.ref)
    colors = route.read(manifest)
    found: dict[str, Any] = {}
    for color, deployments in sorted(route.deployments(colors).items()):
        images: dict[str, str] = {}
        for entry in deployments:
            images.update(template_images(entry["spec"]["template"]))
        found[color] = {
            "deployments": sorted(metadata(entry)["name"] for entry in deployments),
            "replicas": sum(1 if entry["spec"].get("replicas") is None else entry["spec"]["replicas"] for entry in deployments),
            "ready": len(route.ready(colors, color)),
            "images": images,
        }
    kept = {key[len(ANNOTATION_PREFIX) :]: value for key, value in annotations(manifest).items() if key.startswith(ANNOTATION_PREFIX)}
    return Result(
        extra={
            "color": colors.active,
            "split": {color: 100 if color == colors.active else 0 for color in sorted({colors.active, *found})},
            "matches": [],
            "mirror": None,
            "colors": found,
            "selector": dict(colors.base),
            "services": dict(colors.services),
            "others": {color: list(places) for color, places in colors.others.items() if places},
            "annotations": kept,
        }
    )


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
