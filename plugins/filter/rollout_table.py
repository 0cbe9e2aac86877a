# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter rollout_table: the history of a workload, or what was undone, as a table."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout_table
short_description: The history of a workload, or what was undone, as a table
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Makes a text of the result of M(progressive.delivery.rollout_info) - the status, the revisions, and the pods that are
    not ready with their reasons.
  - Of the result of M(progressive.delivery.undo_rollout) it makes what was done, and what that changes of the pod template.
  - The result of a loop over one of them gives one table after the other.
positional: _input
options:
  _input:
    description: The result, as C(register) keeps it.
    type: dict
    required: true
  lines:
    description:
      - Return a list of lines and not one text.
      - C(ansible.builtin.debug) prints a text with line breaks in one line, unless the callback's C(result_format) is
        V(yaml). It prints a list line by line.
    type: bool
    default: false
seealso:
  - module: progressive.delivery.rollout_info
  - module: progressive.delivery.undo_rollout
"""

EXAMPLES = r"""
- name: What runs now, and what ran before
  progressive.delivery.rollout_info:
    namespace: shop
    name: web
  register: web

- name: Print it
  ansible.builtin.debug:
    msg: "{{ web | progressive.delivery.rollout_table(lines=true) }}"

- name: Keep it with the ticket
  ansible.builtin.copy:
    content: "{{ web | progressive.delivery.rollout_table }}\n"
    dest: history.txt
    mode: "0644"

- name: Ask before going back
  ansible.builtin.pause:
    prompt: "{{ web | progressive.delivery.rollout_table }}\nGo back? Ctrl-C and A to leave it"
"""

RETURN = r"""
_value:
  description: The table.
  type: raw
  sample:
    - "Deployment shop/web: progressing, revision 4, 1 updated, 2 ready, 2 available of 2 pods"
    - "  waiting for 1 more pod of the new revision"
    - ""
    - "REVISION  LIVE  PODS  READY  AGE  IMAGES         CHANGE CAUSE"
    - "       4  *        1      0  3m   podinfo:2.0.0  release 2.0.0"
    - "       3           2      2  5d   podinfo:1.0.0  release 1.0.0"
    - ""
    - "POD NOT READY   REVISION  AGE  RESTARTS  REASON"
    - "web-6d5f-abcde         4  3m          5  CrashLoopBackOff: container app: Error with exit code 1, restarted 5 times"
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.plan.table import lines_of


def rollout_table(result: Mapping[str, Any], lines: bool = False) -> Any:
    """Return the table of a result, as one text or as its lines."""
    try:
        found = lines_of(result)
    except DeliveryError as error:
        raise AnsibleFilterError(error.message) from error
    return found if lines else "\n".join(found)


class FilterModule:
    """The filter's place."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"rollout_table": rollout_table}
