#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step abort_canary: the release that Flagger drives is taken back, by Flagger itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: abort_canary
short_description: The release that Flagger drives is taken back
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Lets Flagger take back the release that is under way. It leads all traffic to the primary and scales the canary to 0, as
    after an analysis that failed. That needs no webhook and no load tester.
  - The step gives the C(Canary) as many failed checks as its threshold, in the status, which is what Flagger goes by at its next look.
    So a user of this step needs the verb C(patch) on C(canaries/status).
  - To put the image of the target back instead does not do it. Flagger takes a pod template that it has promoted before for no
    new revision, goes on with the steps of the analysis, and notes the version that was given up as the promoted one.
  - The target keeps the image, with 0 pods. Put that back after this step with M(progressive.delivery.set_image), so that the
    same image can be released again.
  - Where no release is under way, and where one waits for its first gate (phase C(Waiting)) and has no traffic, nothing is done.
    One that is promoted (C(Promoting), C(Finalising)) is refused - let it end, and release the version before. So is one of a
    C(Canary) that is suspended (reason C(Suspended)), and one with C(skipAnalysis), which Flagger promotes without a check.
  - With O(wait) only the phase C(Failed) is success. Flagger may have decided to promote just before the write; then the step fails
    with the reason C(Promoted).
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  name:
    description: Name of the C(Canary).
    type: str
    required: true
  wait:
    description: Wait until Flagger has taken the release back.
    type: bool
    default: true
  wait_timeout:
    description:
      - Seconds to wait at most. Flagger looks at each interval of the analysis, and only while the pods of the canary are ready.
      - The default is two intervals and 60 seconds.
    type: float
seealso:
  - module: progressive.delivery.set_image
  - module: progressive.delivery.wait_canary
"""

EXAMPLES = r"""
- name: Take the release back, and put the image back
  block:
    - name: What the primary runs
      progressive.delivery.wait_canary:
        namespace: shop
        name: web
      check_mode: true
      register: release

    - name: All traffic goes to the primary
      progressive.delivery.abort_canary:
        namespace: shop
        name: web

    - name: The target is to run the same
      progressive.delivery.set_image:
        namespace: shop
        name: "{{ release.target.name }}"
        images: "{{ release.images.primary }}"

- name: See what it would do
  progressive.delivery.abort_canary:
    namespace: shop
    name: web
  check_mode: true

- name: Only ask for it
  progressive.delivery.abort_canary:
    namespace: shop
    name: web
    wait: false
"""

RETURN = r"""
before:
  description: The phase and the failed checks before.
  returned: success
  type: dict
  sample: {phase: Progressing, failed_checks: 0}
after:
  description: The phase at the time of the write, and the failed checks that were written.
  returned: success
  type: dict
  sample: {phase: Progressing, failed_checks: 5}
status:
  description: The last status that was seen; also where Flagger did not do it in time.
  returned: success
  type: dict
  sample: {phase: Failed, weight: 0, max_weight: 50, iterations: 0, max_iterations: 0, failed_checks: 0, threshold: 5, suspended: false}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["gave Canary shop/web as many failed checks as its threshold (5): Flagger takes the release back at its next look"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 8.412
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.aborting import abort_release
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.following import require_canary
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.flagger_status import canary_status, interval_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    "name": {"type": "str", "required": True},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "float"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Let Flagger take the release back, and see that it does."""
    ref, timeout = Ref("Canary", options["namespace"], options["name"]), options.get("wait_timeout")
    if timeout is not None and timeout <= 0:
        raise InvalidRequest(f"wait_timeout must be more than 0 seconds, got {timeout:g}")
    canary = require_canary(cluster, ref)
    seconds = (timeout if timeout is not None else 2 * interval_of(canary) + 60) if options["wait"] else None
    change, canary = abort_release(cluster, ref, check, seconds, progress)
    return Result.of(change, status=canary_status(canary).to_dict())


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
