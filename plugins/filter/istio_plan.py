# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter istio_plan: what the role istio does, or why not."""

from __future__ import annotations

DOCUMENTATION = r"""
name: istio_plan
short_description: What the role istio does, or why not
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - The part of the role C(istio) that thinks. It compares what was seen on the cluster with what is wanted.
  - It is there for that role, and what it takes and returns may change with it.
positional: _input, wanted
options:
  _input:
    description: >-
      What was seen - lists of objects by C(planes), C(namespaces), C(types), C(tags), C(validators), C(pods), C(releases) and
      C(inside), and C(kept) as JSON.
    type: dict
    required: true
  wanted:
    description: The variables of the role, without their prefix, and the C(version) of the charts.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: What is in the way
  ansible.builtin.assert:
    that: (seen | progressive.delivery.istio_plan(wanted)).refusal | length == 0
"""

RETURN = r"""
_value:
  description: What is to be done, and C(refusal), a sentence that says why not, or empty.
  type: dict
  sample: {refusal: "", name: istiod-1-30-2, revision: 1-30-2, relabel: [{name: shop, labels: {istio.io/rev: 1-30-2}}]}
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.plan.istio import plan


class FilterModule:
    """The filter's place."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"istio_plan": plan}
