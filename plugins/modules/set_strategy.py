#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step set_strategy: a workload replaces its pods in this way."""

from __future__ import annotations

DOCUMENTATION = r"""
module: set_strategy
short_description: A workload replaces its pods in this way
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sets how a Deployment, StatefulSet or DaemonSet goes from one revision to the next, and says how many pods there will
    be meanwhile. It starts no rollout; the next one goes by it, and so does the rest of one that is under way.
  - Only what differs is written, by a merge patch that carries the C(resourceVersion) it was decided on. What is not
    given stays as it is. With nothing given the step changes nothing and tells what there is.
  - What the API server would refuse is refused before it is asked, in one sentence.
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
  type:
    description:
      - V(RollingUpdate) replaces the pods a few at a time, within O(max_surge) and O(max_unavailable).
      - V(Recreate) ends all pods, waits until they are gone and makes the new ones, so that two versions never run at
        once and nothing answers in between. For a Deployment.
      - V(OnDelete) replaces a pod when somebody deletes it. For a StatefulSet or DaemonSet.
      - The default is V(RollingUpdate) where O(profile), O(max_surge), O(max_unavailable) or O(partition) is given, and
        else what the workload has.
      - The other two have no limits, so a switch to one of them drops those that are there, and the partition.
    type: str
    choices: [Recreate, RollingUpdate, OnDelete]
  profile:
    description:
      - A name for a pair of O(max_surge) and O(max_unavailable), instead of these.
      - V(conservative) is 1 and 0. There are never fewer pods than wanted. A DaemonSet has two pods on a node for a
        while, which does not go with a C(hostPort). A StatefulSet cannot have it, because it ends a pod before it makes
        the next one of that name.
      - V(balanced) is 1 and 1. A DaemonSet takes only one of the two, and a StatefulSet has no surge; for them it is one
        pod missing at a time.
      - V(fast) is 100% and 50%. Half of the pods may be missing, and a Deployment starts all new ones at once, which
        needs room for them. A DaemonSet and a StatefulSet have half of their pods missing and no surge; the latter needs
        what is said at O(max_unavailable).
    type: str
    choices: [conservative, balanced, fast]
  max_surge:
    description:
      - How many pods there may be above the wanted number, as a number or as a percentage of it such as V(25%), which
        is rounded up. Not for a StatefulSet.
      - A DaemonSet can have this or O(max_unavailable) above 0, not both.
    type: str
  max_unavailable:
    description:
      - How many pods may be missing from the wanted number, as a number or as a percentage of it, at most V(100%). It
        is rounded down, for a DaemonSet up.
      - V(0) goes only together with a surge above 0.
      - A StatefulSet can have more than V(1) only where the cluster's feature gate C(MaxUnavailableStatefulSet) is on. In
        Kubernetes 1.36 it is off by default, and the API server then drops the field without a word. The step finds that
        out by a dry run and refuses.
    type: str
  partition:
    description:
      - Of a StatefulSet, only the pods from this one on are replaced, counted from 0. V(0) replaces all of them.
    type: int
  min_ready_seconds:
    description: How long a new pod must be ready before it counts as available.
    type: int
  progress_deadline_seconds:
    description:
      - After how many seconds without progress a Deployment's rollout counts as failed. Must be more than
        O(min_ready_seconds). V(2147483647) stands for never.
    type: int
  revision_history_limit:
    description:
      - How many old revisions are kept to go back to. V(0) leaves no way back.
      - Of a StatefulSet the API server takes less than 0, with a warning. The step does not, because older controllers
        crash on it.
    type: int
notes:
  - A HorizontalPodAutoscaler changes the wanted number whenever it likes. RV(pods) goes by the number that there is now.
seealso:
  - module: progressive.delivery.set_image
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: Never fewer pods than wanted, and one at a time
  progressive.delivery.set_strategy:
    namespace: shop
    name: web
    profile: conservative
    min_ready_seconds: 10

- name: A quarter more, none missing, and five minutes for the next pod to come up
  progressive.delivery.set_strategy:
    namespace: shop
    name: web
    max_surge: 25%
    max_unavailable: 0
    progress_deadline_seconds: 300

- name: Two versions must never run at once
  progressive.delivery.set_strategy:
    namespace: shop
    name: worker
    type: Recreate

- name: Try the new version on the last of three pods
  progressive.delivery.set_strategy:
    namespace: shop
    kind: StatefulSet
    name: db
    partition: 2

- name: Refuse to release where an update would leave fewer than four pods
  progressive.delivery.set_strategy:
    namespace: shop
    name: web
    profile: balanced
  check_mode: true
  register: strategy
  failed_when: strategy is failed or strategy.pods.at_least < 4
"""

RETURN = r"""
before:
  description: The strategy before; of the other options those that were given.
  returned: success
  type: dict
  sample: {type: RollingUpdate, max_surge: "25%", max_unavailable: "25%", min_ready_seconds: 0}
after:
  description: The strategy after; of the other options those that were given.
  returned: success
  type: dict
  sample: {type: RollingUpdate, max_surge: 1, max_unavailable: 0, min_ready_seconds: 10}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample:
    - set max_surge of Deployment shop/web from 25% to 1
    - set max_unavailable of Deployment shop/web from 25% to 0
    - set min_ready_seconds of Deployment shop/web from 0 to 10
pods:
  description:
    - How many pods there will be during an update that starts with all of them available.
    - Pods can be missing for other reasons too, such as a node that goes away.
    - Where rounding leaves no surge and no missing pod, one may be missing, since nothing could be replaced otherwise.
  returned: success
  type: dict
  sample: {wanted: 5, at_most: 6, at_least: 4}
  contains:
    wanted:
      description: The workload's replicas; of a DaemonSet the nodes that it is for.
      type: int
      sample: 5
    at_most:
      description:
        - The pods that exist, without those on their way out. In a Deployment a new pod may come some milliseconds before
          an old one is told to go, since each ReplicaSet carries out its own part; what they are told never adds up to more.
        - With V(RollingUpdate) a Deployment does not wait for a pod to be gone before it makes the next one, and has no
          field that would make it wait (C(podReplacementPolicy) is one of a Job). So the pods that still end,
          C(status.terminatingReplicas), come on top, each for its termination grace period at most. A quota needs room for them.
        - With V(Recreate), in a StatefulSet, and in a DaemonSet without surge the number includes all pods whose
          containers still run.
      type: int
      sample: 6
    at_least:
      description:
        - The pods that are available.
        - With O(type=OnDelete) it is all of them, because only who deletes a pod takes it away.
      type: int
      sample: 4
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.027
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    MERGE_PATCH,
    WORKLOAD_KINDS,
    Change,
    Cluster,
    Manifest,
    Ref,
    Result,
)
from ansible_collections.progressive.delivery.plugins.module_utils.plan.strategy import (
    asked_strategy,
    check_trial,
    observed_strategy,
    plan_strategy,
    pod_limits,
    trial,
    wanted_pods,
)
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["Recreate", "RollingUpdate", "OnDelete"]},
    "profile": {"type": "str", "choices": ["conservative", "balanced", "fast"]},
    "max_surge": {"type": "str"},
    "max_unavailable": {"type": "str"},
    "partition": {"type": "int"},
    "min_ready_seconds": {"type": "int"},
    "progress_deadline_seconds": {"type": "int"},
    "revision_history_limit": {"type": "int"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Set what differs of the strategy, and tell how many pods there will be during an update."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    asked = asked_strategy(ref, options)

    def plan(workload: Manifest) -> Change:
        change = plan_strategy(ref, workload, asked)
        tried = trial(ref, workload, change)
        if tried is not None:
            check_trial(ref, cluster.patch(ref, tried, MERGE_PATCH, dry_run=True))
        return change

    change, workload = settle(cluster, ref, plan, check)
    strategy = observed_strategy(ref.kind, workload)
    return Result.of(change, pods=pod_limits(ref.kind, strategy, wanted_pods(ref.kind, workload)))


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
