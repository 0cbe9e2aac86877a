#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step wait_canary: a release that Flagger drives has come to its end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wait_canary
short_description: A release that Flagger drives has come to its end
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Waits, by a watch and not by polling, until Flagger has released what the target of a C(Canary) is to run, or has taken it back.
  - While it waits it prints phase, weight or iteration, failed checks and what Flagger said last, whenever one of them changes
    and at least every 15 seconds, also where the module runs on another host. With C(no_log) it prints nothing.
  - Fails as soon as the outcome is known, with what Flagger said - the metric that failed, its value and its limit
    (C(MetricFailed)); a metric without values (C(NoValues)); a query that failed (C(QueryFailed)); a webhook that refused
    (C(WebhookFailed)); the progress deadline (C(ProgressDeadlineExceeded)); the gate C(rollback) (C(RolledBack)); anything
    else (C(CanaryFailed)). Kubernetes keeps events for an hour, and Flagger's are dropped where there are many of them. What
    is not there cannot be told.
  - Fails where pods of the new revision will not become ready (C(ImagePullBackOff), C(CrashLoopBackOff) and others, as in
    M(progressive.delivery.wait_rollout)), at once, while Flagger still waits for its progress deadline; see O(on_stuck).
  - Fails where the C(Canary) is suspended (C(Suspended)) or deleted (C(Deleted)).
  - What there is to release is told by comparing the target's pod template with that of the primary. Where they are the
    same, there is nothing to wait for, and V(unchanged) is returned at once. Where they differ, Flagger gets
    O(pickup_timeout) seconds to begin (C(NotPickedUp)). A revision that failed is not tried again by Flagger; to wait for it
    is to fail.
  - Changes nothing. In check mode it looks once, does not wait, fails for nothing that it finds, and reports the status.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
  - progressive.delivery.cluster.turns
options:
  name:
    description: Name of the C(Canary).
    type: str
    required: true
  until:
    description:
      - What is waited for.
      - V(succeeded) - the primary runs what the target is to run.
      - V(initialized) - the primary has been made and has the traffic. That is what a new C(Canary) begins with.
      - V(waiting) - the release stands at a gate (C(confirm-rollout), C(confirm-traffic-increase), C(confirm-promotion)), or has ended.
      - V(off) - no release is under way, however it ended, and Flagger has seen the target as it is. The canary gets no traffic.
    type: str
    choices: [initialized, waiting, succeeded, "off"]
    default: succeeded
  timeout:
    description: Seconds to wait at most. Flagger goes on with the release after that.
    type: float
    default: 1800
    aliases: [wait_timeout]
  revision:
    description:
      - The revision of the target to wait for, as M(progressive.delivery.set_image) returns it.
      - When somebody else gives the target another template meanwhile, the step fails (C(Superseded)). Without a revision it
        follows the newest template, as Flagger does, and says so.
    type: int
  pickup_timeout:
    description: Seconds within which Flagger must begin. The default is two intervals of the analysis and 20 seconds.
    type: float
  on_stuck:
    description:
      - What pods of the new revision lead to that will not become ready. V(fail) - the wait fails. V(tell) - it is printed, and
        Flagger's own verdict is waited for.
    type: str
    choices: [fail, tell]
    default: fail
  unschedulable_grace:
    description: Seconds for which a pod may find no node before it counts as one that will not become ready.
    type: float
    default: 30
notes:
  - Flagger reads a time between two looks of less than 10 seconds as 10 seconds. So each step of a release takes that long at least.
seealso:
  - module: progressive.delivery.abort_canary
  - module: progressive.delivery.set_image
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: Release an image, and see it through
  block:
    - name: The target gets the image
      progressive.delivery.set_image:
        namespace: shop
        name: web
        images: {app: registry.example.com/web:2.0.0}
      register: image

    - name: Flagger releases it
      progressive.delivery.wait_canary:
        namespace: shop
        name: web
        revision: "{{ image.revision }}"
        timeout: 3600

- name: Wait until a new Canary has its primary
  progressive.delivery.wait_canary:
    namespace: shop
    name: web
    until: initialized
    timeout: 300

- name: Wait until somebody is asked
  progressive.delivery.wait_canary:
    namespace: shop
    name: web
    until: waiting
  register: release

- name: Tell at which gate it stands
  ansible.builtin.debug:
    msg: "{{ release.gate.type | default('none') }}"

- name: Tell how far a release is, without waiting
  progressive.delivery.wait_canary:
    namespace: shop
    name: web
  check_mode: true
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
outcome:
  description:
    - V(released) - Flagger has promoted while it was waited for. V(unchanged) - the primary runs already what the target is to run.
      V(initialized), V(waiting), V(off) - as O(until). V(failed) - only on failure and in check mode. Empty where it is not over yet.
  returned: always
  type: str
  sample: released
status:
  description: The last status that was seen; also on failure.
  returned: always
  type: dict
  sample:
    phase: Progressing
    weight: 20
    max_weight: 50
    iterations: 0
    max_iterations: 0
    failed_checks: 1
    threshold: 5
    suspended: false
    message: New revision detected, progressing canary analysis.
    last_applied: 5b6c6d7f9c
    last_promoted: 7c9d8f6b5d
gate:
  description: The gate at which the release stands; empty where it stands at none.
  returned: always
  type: dict
  sample: {type: confirm-promotion, name: approve}
checks:
  description: The checks that held the last release up, the oldest first, as far as there are events of them.
  returned: always
  type: list
  elements: dict
  sample:
    - reason: MetricFailed
      name: request-success-rate
      value: 87.50%
      operator: "<"
      limit: 99%
      message: Halt web.shop advancement success rate 87.50% < 99%
check:
  description: The check that the release failed for.
  returned: failure, where Flagger took the release back
  type: dict
  sample:
    reason: MetricFailed
    name: error-rate
    value: "12.50"
    operator: ">"
    limit: "1"
    message: Halt web.shop advancement error-rate 12.50 > 1
events:
  description: What Flagger has said of the Canary, the last 20 of it.
  returned: always
  type: list
  elements: dict
  sample:
    - {at: "2026-11-25T10:00:00Z", type: Normal, message: Advance web.shop canary weight 20}
images:
  description: The images of the target and of the primary by container.
  returned: always
  type: dict
  sample: {target: {app: "podinfo:2.0.0"}, primary: {app: "podinfo:1.0.0"}}
target:
  description: The workload that is released.
  returned: always
  type: dict
  sample: {kind: Deployment, name: web}
pods:
  description: The pods of target and primary at the end, where it was not over at the first look.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: web-6d5f-abcde, phase: Running, ready: true, reason: "", restarts: 0, node: node-1, images: {app: "podinfo:2.0.0"}}
resume:
  description: What the next call needs, where O(slice) ended before the wait did.
  returned: when a slice is over and the wait is not
  type: dict
  sample: {what: wait_canary of Canary shop/web, at: 1795514400.1, elapsed: 15.01, memory: {}}
progress:
  description: How far it is, as one line, where O(slice) ended before the wait did.
  returned: when a slice is over and the wait is not
  type: str
  sample: "Progressing, weight 20 of 50, 0 of 5 failed checks: New revision detected! Scaling up web.shop"
reason:
  description: Why the wait failed, as one word.
  returned: failure
  type: str
  sample: MetricFailed
pod:
  description: The pod that will not become ready.
  returned: failure, where it was for a pod
  type: str
  sample: web-6d5f-abcde
container:
  description: The container that will not become ready.
  returned: failure, where it was for a pod
  type: str
  sample: app
log:
  description: The last log lines of a container that crashed.
  returned: failure, where it was for a pod
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
  sample: 93.412
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.following import Wish, check_wish, look_at_canary, wait_for_canary
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.flagger_status import UNTIL
from ansible_collections.progressive.delivery.plugins.module_utils.plan.rollout import parse_revision
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.turns import TURN_OPTIONS, Turn

OPTIONS = {
    "name": {"type": "str", "required": True},
    "until": {"type": "str", "default": "succeeded", "choices": list(UNTIL)},
    "timeout": {"type": "float", "default": 1800, "aliases": ["wait_timeout"]},
    "revision": {"type": "int"},
    "pickup_timeout": {"type": "float"},
    "on_stuck": {"type": "str", "default": "fail", "choices": ["fail", "tell"]},
    "unschedulable_grace": {"type": "float", "default": 30},
    **TURN_OPTIONS,
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Wait until the release is where it is waited for, or known not to get there; in check mode look once."""
    ref, timeout = Ref("Canary", options["namespace"], options["name"]), options["timeout"]
    wish = Wish(
        options["until"],
        parse_revision(options.get("revision")),
        options.get("pickup_timeout"),
        options["unschedulable_grace"],
        options["on_stuck"] == "tell",
    )
    check_wish(wish, timeout)
    turn = Turn.of(f"wait_canary of {ref}", timeout, options)
    outcome = look_at_canary(cluster, ref, wish, turn) if check else wait_for_canary(cluster, ref, wish, timeout, progress, turn)
    return Result(extra=outcome.report())


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
