#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step flagger_gate: a gate of Flagger's load tester is open or closed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flagger_gate
short_description: A gate of Flagger's load tester is open or closed
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Opens or closes the gate that the webhooks of a Canary ask before a release goes on, or the one by which it is taken back.
  - A gate is by Canary, so all webhooks of a Canary that ask C(/gate/check) at one load tester ask the same gate. It is in the load
    tester's memory - closed until somebody opens it, and after the load tester has started anew -, and it stays open for the next
    release until it is closed.
  - C(/gate/approve) and C(/gate/halt) of the load tester always say yes and no, whatever a gate is. A Canary whose webhook asks them
    instead of C(/gate/check) is refused, as is one without such a webhook, since nothing would come of it.
  - The load tester is reached by its Service through the API server, which takes the verb C(create) on C(services/proxy), or at O(url).
  - In check mode the gate is asked, and not turned.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  name:
    description: Name of the Canary.
    type: str
    required: true
  state:
    description:
      - What the gate is. V(approved) is the same as V(open), and V(halted) as V(closed).
      - V(checked) changes nothing and tells how it is.
    type: str
    default: open
    choices: [approved, checked, closed, halted, open]
  gate:
    description:
      - V(advance) is the gate of the webhooks that confirm that a release begins, goes on, or is promoted (C(/gate/check)).
      - V(rollback) is the one of the webhook of type C(rollback) (C(/rollback/check)) - open, it takes the release back at Flagger's
        next check. Where no release is under way it is refused, unless O(force), since the next one would be taken back at once.
    type: str
    default: advance
    choices: [advance, rollback]
  webhook:
    description: Only the gate that this webhook asks, by its name. The default is that of all of them.
    type: str
  url:
    description: Address of the load tester, where it is not to be reached through the API server, for example V(http://localhost:8080).
    type: str
  flagger_namespace:
    description: Namespace that Flagger runs in, in which it looks up the host of a webhook that has no namespace.
    type: str
  force:
    description: Open the gate V(rollback) also where no release is under way.
    type: bool
    default: false
seealso:
  - module: progressive.delivery.flagger_canary
"""

EXAMPLES = r"""
- name: The release may go on
  progressive.delivery.flagger_gate:
    namespace: shop
    name: web
    state: approved

- name: Take the release back
  progressive.delivery.flagger_gate:
    namespace: shop
    name: web
    gate: rollback
    state: open

- name: How is the gate?
  progressive.delivery.flagger_gate:
    namespace: shop
    name: web
    state: checked
  register: gate
"""

RETURN = r"""
before:
  description: How the gate was, for each load tester.
  returned: success
  type: dict
  sample: {gates: {"http://flagger-loadtester.flagger-system": closed}}
after:
  description: The same after.
  returned: success
  type: dict
  sample: {gates: {"http://flagger-loadtester.flagger-system": open}}
open:
  description: Whether the gate is open, at all load testers that are asked.
  returned: success
  type: bool
  sample: true
webhooks:
  description: The webhooks that ask the gate.
  returned: success
  type: list
  elements: str
  sample: [approve]
phase:
  description: The phase of the Canary.
  returned: success
  type: str
  sample: WaitingPromotion
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["opened the advance gate of Canary shop/web for approve"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.06
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.gating import set_gate
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "default": "open", "choices": ["approved", "checked", "closed", "halted", "open"]},
    "gate": {"type": "str", "default": "advance", "choices": ["advance", "rollback"]},
    "webhook": {"type": "str"},
    "url": {"type": "str"},
    "flagger_namespace": {"type": "str"},
    "force": {"type": "bool", "default": False},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Open or close a gate, or look how it is."""
    return set_gate(options, cluster, check)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
