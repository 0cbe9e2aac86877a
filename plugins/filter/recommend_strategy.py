# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter recommend_strategy: which strategy suits a release, why, and what it costs."""

from __future__ import annotations

DOCUMENTATION = r"""
name: recommend_strategy
short_description: Which strategy suits a release
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Walks a tree of questions - the purpose, the kind of workload, its volumes, downtime, room and budget for twice the
    resources, the way back, the risk - and answers with a strategy, the reasons in the order of the questions, what it
    costs, what is missing for it here, and why it is no other.
  - The facts are those of M(progressive.delivery.strategy_info), together with what is said here. Each of them may be
    left out; what is not known is named among what is missing, and is never taken for granted.
  - What the cluster cannot do is never recommended. There is no Blue-Green where twice the pods do not fit, only Recreate
    for a Deployment with a ReadWriteOnce claim, and a StatefulSet is updated pod by pod.
positional: _input
options:
  _input:
    description:
      - The facts as M(progressive.delivery.strategy_info) returns them, C({}) for none.
      - What is said may be part of them too, under the names of the options.
    type: dict
    required: true
  purpose:
    description:
      - What the new version is for. V(release) replaces the old one, V(compare_variants) finds the better of two by what
        users do, V(rehearse) tries it with real requests before a user meets it.
    type: str
    choices: [release, compare_variants, rehearse]
    default: release
  downtime_ok:
    description: A downtime is acceptable. Where nobody says so, it is not.
    type: bool
  double_resources:
    description:
      - There is a budget to run the workload twice for a while. Where nobody says so, the room that is free decides.
      - A budget does not make room. Where the pods do not fit, the answer is as without one.
    type: bool
  instant_rollback:
    description: The way back must take a moment, not a rollout.
    type: bool
  risky:
    description:
      - The change is risky, so few users shall meet it first.
      - Where nobody says so, it is not, unless a budget is given with O(double_resources) and no instant way back is
        asked for; then the budget is for that.
    type: bool
  metrics:
    description: Something measures how each version does. Without it, nobody can judge a canary.
    type: bool
notes:
  - A value that is empty, as an unanswered question of a survey gives it, counts as not said.
seealso:
  - module: progressive.delivery.strategy_info
  - plugin: progressive.delivery.strategy_table
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Look at the workload
  progressive.delivery.strategy_info:
    namespace: shop
    name: web
  register: web

- name: Which strategy
  ansible.builtin.debug:
    msg: "{{ (web.facts | progressive.delivery.recommend_strategy(instant_rollback=true)).strategy }}"
  # blue_green

- name: Without a cluster
  ansible.builtin.debug:
    msg: "{{ ({} | progressive.delivery.recommend_strategy(double_resources=false)).strategy }}"
  # rolling_update

- name: Release with what suits
  ansible.builtin.include_role:
    name: "{{ advice.playbook }}"
  vars:
    advice: "{{ web.facts | progressive.delivery.recommend_strategy }}"
"""

RETURN = r"""
_value:
  description: The recommendation.
  type: dict
  contains:
    strategy:
      description: Name of the strategy.
      type: str
      choices: [recreate, rolling_update, blue_green, canary, flagger, ab_test, shadow]
      sample: blue_green
    title:
      description: The strategy as a text has it.
      type: str
      sample: Blue-Green
    target:
      description: The workload that it is for, empty where the facts name none.
      type: str
      sample: Deployment shop/web
    reasons:
      description: Why, one sentence for each question on the way.
      type: list
      elements: str
      sample: ["A downtime is not acceptable.", "The way back must be instant."]
    path:
      description: The questions on the way, with their answers.
      type: list
      elements: dict
      sample: [{question: "Is a downtime acceptable?", answer: "no"}]
    costs:
      description:
        - C(downtime) and C(way_back) in words, C(resources) as a factor of what the workload takes, C(more_pods) that run
          meanwhile (none where the replicas are not known), C(complexity) from 1 to 5, and C(duration) in words.
      type: dict
      sample: {downtime: none, way_back: instant, resources: 2.0, more_pods: 3, complexity: 3, duration: short}
    needs:
      description: What is missing here - for what was asked for and cannot be had, and for the strategy itself.
      type: list
      elements: str
      sample: ["A second replica: with one, the loss of its node is a downtime."]
    alternatives:
      description: The other strategies, those that are possible here first, each with why not.
      type: list
      elements: dict
      sample: [{strategy: recreate, title: Recreate, possible: true, why_not: It has a downtime., playbook: progressive.delivery.recreate}]
    playbook:
      description: The playbook that follows the strategy.
      type: str
      sample: progressive.delivery.blue_green
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.plan.strategies import SAID, SAID_BOOLEANS, recommend


def recommend_strategy(facts: Any, **said: Any) -> dict[str, Any]:
    """Return the strategy that suits the facts and what is said."""
    for key in said:
        if key not in SAID:
            raise AnsibleFilterError(f'recommend_strategy has no option "{key}"; it has: {", ".join(SAID)}')
    try:
        return recommend(_joined(facts, said)).to_dict()
    except DeliveryError as error:
        raise AnsibleFilterError(f"recommend_strategy: {error.message}") from error


def _joined(facts: Any, said: dict[str, Any]) -> Any:
    """Return the facts with what is said; an empty text is nothing, and a boolean may be a word."""
    if not hasattr(facts, "items"):
        return facts
    joined = {**facts, **{key: value for key, value in said.items() if value not in ("", None)}}
    for key in SAID:
        value = joined.get(key)
        if value == "":
            del joined[key]
        elif key in SAID_BOOLEANS and value is not None:
            try:
                joined[key] = boolean(value)
            except TypeError:
                pass
    return joined


class FilterModule:
    """The filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by its name."""
        return {"recommend_strategy": recommend_strategy}
