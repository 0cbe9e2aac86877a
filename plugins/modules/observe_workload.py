#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step observe_workload: a workload stays healthy for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: observe_workload
short_description: A workload stays healthy for a while
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Watches the pods of a workload's newest revision for a number of seconds and repeats smoke tests meanwhile. It fails
    at once when fewer pods are ready than must be, when a container restarts, when the workload gets another template,
    or when a smoke test fails.
  - This is what takes the place of a blind sleep after traffic was moved.
  - While it watches it prints what it has seen, whenever that changes and at least every 15 seconds, also where the module
    runs on another host.
  - Changes nothing. In check mode it looks once and does not wait.
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
  seconds:
    description: How long it must stay healthy. V(0) looks once.
    type: float
    default: 30
  min_ready:
    description: Ready pods of the newest revision that there must be at any time. The default is as many as the spec asks for.
    type: int
  max_restarts:
    description: How many restarts of containers are allowed, in all pods together, from the first look on.
    type: int
    default: 0
  smoke_tests:
    description:
      - Tests that are made again and again, each a dictionary with the options of M(progressive.delivery.smoke_test).
    type: list
    elements: dict
  interval:
    description: Seconds between two rounds of the smoke tests.
    type: float
    default: 5
  only_validate:
    description: Check the options, the smoke tests among them, and look at nothing. For a role, before it changes something.
    type: bool
    default: false
    version_added: 0.2.0
  route:
    description: A route that must keep its color meanwhile, as in M(progressive.delivery.switch_color); one that is switched ends the step.
    type: dict
    suboptions:
      provider:
        description: What does the routing.
        type: str
        default: service
      name:
        description: Name of the route.
        type: str
        required: true
      color:
        description: The color that must stay active.
        type: str
        required: true
      color_label:
        description: The label whose value is the color.
        type: str
        default: version
      services:
        description: For every provider but V(service), the Service of each color.
        type: dict
      rule:
        description: The rule that is meant, by its name or its number from 0.
        type: str
        version_added: 0.2.0
      rule_host:
        description: The host of the rule.
        type: str
      rule_path:
        description: The path of the rule.
        type: str
seealso:
  - module: progressive.delivery.smoke_test
"""

EXAMPLES = r"""
- name: Half a minute without a restart
  progressive.delivery.observe_workload:
    namespace: shop
    name: web-green
    seconds: 30

- name: And with a test every two seconds
  progressive.delivery.observe_workload:
    namespace: shop
    name: web-green
    seconds: 60
    interval: 2
    smoke_tests:
      - path: /healthz

- name: One look, now
  progressive.delivery.observe_workload:
    namespace: shop
    name: web-green
    seconds: 0
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
observed:
  description: Seconds that were observed.
  returned: always
  type: float
  sample: 30.0
ready:
  description: The fewest ready pods that were seen at any time.
  returned: always
  type: int
  sample: 3
restarts:
  description: Restarts of containers that were seen.
  returned: always
  type: int
  sample: 0
rounds:
  description: Rounds of smoke tests that passed.
  returned: always
  type: int
  sample: 6
resume:
  description: What the next call needs, where O(slice) ended before the observation did.
  returned: when a slice is over and the observation is not
  type: dict
  sample: {what: observe_workload of Deployment shop/web, at: 1795514400.1, elapsed: 15.01, memory: {}}
progress:
  description: What was seen, as one line, where O(slice) ended before the observation did.
  returned: when a slice is over and the observation is not
  type: str
  sample: "15 of 60 s: never less than 3 ready pods, 0 restarts, 3 rounds of smoke tests passed"
reason:
  description: Why it is not healthy.
  returned: failure
  type: str
  sample: ContainerRestarted
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
  sample: 30.1
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.observing import FIRST_LOOK, Watchman, observe
from ansible_collections.progressive.delivery.plugins.module_utils.probing import SmokeTest
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.turns import TURN_OPTIONS, Turn

ROUTE = {
    "provider": {"type": "str", "default": "service"},
    "name": {"type": "str", "required": True},
    "color": {"type": "str", "required": True},
    "color_label": {"type": "str", "default": "version"},
    "services": {"type": "dict"},
    "rule": {"type": "str"},
    "rule_host": {"type": "str"},
    "rule_path": {"type": "str"},
}
OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "seconds": {"type": "float", "default": 30},
    "min_ready": {"type": "int"},
    "max_restarts": {"type": "int", "default": 0},
    "smoke_tests": {"type": "list", "elements": "dict"},
    "interval": {"type": "float", "default": 5},
    "route": {"type": "dict", "options": ROUTE},
    "only_validate": {"type": "bool", "default": False},
    **TURN_OPTIONS,
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Observe the workload, and return what was seen."""
    for option in ("seconds", "max_restarts"):
        if options[option] < 0:
            raise InvalidRequest(f"{option} must be 0 or more, got {options[option]:g}")
    if options["interval"] <= 0:
        raise InvalidRequest(f"interval must be more than 0 seconds, got {options['interval']:g}")
    ref = Ref(options["kind"], options["namespace"], options["name"])
    tests = [SmokeTest.listed(entry, options.get("validate_certs")) for entry in options.get("smoke_tests") or []]
    watchman = Watchman(ref, options.get("min_ready"), options["max_restarts"], tests, options["interval"], options.get("route"))
    if options["only_validate"]:
        return Result(extra={"observed": 0.0, "ready": None, "restarts": 0, "rounds": 0})
    seconds = 0 if check else options["seconds"]
    turn = Turn.of(f"observe_workload of {ref}", FIRST_LOOK + seconds, options)
    return Result(extra=observe(cluster, watchman, seconds, progress, turn))


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
