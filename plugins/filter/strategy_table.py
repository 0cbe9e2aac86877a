# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter strategy_table: a recommendation, or the comparison of all strategies, as a text for a terminal."""

from __future__ import annotations

DOCUMENTATION = r"""
name: strategy_table
short_description: A recommendation, or all strategies, as a text
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Prints a recommendation of P(progressive.delivery.recommend_strategy#filter) for a person - the strategy, why, what it
    costs, what is missing, why it is no other, and how all compare.
  - V(all) prints the comparison alone.
positional: _input
options:
  _input:
    description: What P(progressive.delivery.recommend_strategy#filter) returns, or V(all).
    type: raw
    required: true
  compare:
    description: Whether the comparison of all strategies stands at the end of a recommendation.
    type: bool
    default: true
  width:
    description: Columns after which a sentence is broken. The table is not.
    type: int
    default: 96
seealso:
  - plugin: progressive.delivery.recommend_strategy
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Compare all strategies
  ansible.builtin.debug:
    msg: "{{ ('all' | progressive.delivery.strategy_table).splitlines() }}"

- name: Print a recommendation
  ansible.builtin.debug:
    msg: "{{ (web.facts | progressive.delivery.recommend_strategy | progressive.delivery.strategy_table).splitlines() }}"

- name: Keep it as a file, without the comparison
  ansible.builtin.copy:
    content: "{{ web.facts | progressive.delivery.recommend_strategy | progressive.delivery.strategy_table(compare=false) }}"
    dest: strategy.txt
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The text, with a line feed at the end of each line.
  type: str
  sample: |
    Rolling Update for Deployment shop/web

    Why
      - It is a release: the new version shall take the place of the old one.
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.plan.advice import comparison, report


def strategy_table(given: Any, compare: bool = True, width: int = 96) -> str:
    """Return the text of a recommendation, or of the comparison."""
    try:
        return comparison() if given == "all" else report(given, compare, width)
    except DeliveryError as error:
        raise AnsibleFilterError(f"strategy_table: {error.message}") from error


class FilterModule:
    """The filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filter by its name."""
        return {"strategy_table": strategy_table}
