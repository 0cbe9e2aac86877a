# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter canary_replicas: how many pods each side of a canary gets for a weight."""

from __future__ import annotations

DOCUMENTATION = r"""
name: canary_replicas
short_description: How many pods each side of a canary gets for a weight
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Two Deployments behind one Service share its requests by their numbers of pods. This is how many each gets so that the share
    comes as close to a weight as pods can give.
  - Candidates are the ceiling and the floor of the exact number of canary pods, over the total and, where there is a surge, over
    one more. The one closest to the weight wins, the first on a tie - the ceiling first. Strictly between 0 and the maximum neither
    side gets 0 pods, unless there is one pod and no surge. It is the rule of Argo Rollouts' canary without a router.
positional: _input, weight, max_weight, max_surge
options:
  _input:
    description: How many pods both sides share, 0 or more.
    type: int
    required: true
  weight:
    description: The weight of the canary, from 0 to O(max_weight).
    type: int
    required: true
  max_weight:
    description: What counts as everything.
    type: int
    default: 100
  max_surge:
    description: Pods beyond the total that may be used, as a number or a percentage. With any, one more is tried.
    type: str
    default: 25%
seealso:
  - module: progressive.delivery.set_canary_weight
"""

EXAMPLES = r"""
- name: A fifth of ten pods
  ansible.builtin.debug:
    msg: "{{ 10 | progressive.delivery.canary_replicas(20) }}"  # {stable: 8, canary: 2}

- name: A third of five is closer with one pod more
  ansible.builtin.debug:
    msg: "{{ 5 | progressive.delivery.canary_replicas(33, max_surge=1) }}"  # {stable: 4, canary: 2}
"""

RETURN = r"""
_value:
  description: The pods of each side.
  type: dict
  sample: {stable: 8, canary: 2}
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.plan.canary import canary_replicas as pods_for


def canary_replicas(total: Any, weight: Any, max_weight: Any = 100, max_surge: Any = "25%") -> dict[str, int]:
    """Return {stable, canary}: the pods of each side."""
    try:
        numbers = [_whole(name, value) for name, value in (("total", total), ("weight", weight), ("max_weight", max_weight))]
        pods = pods_for(*numbers, max_surge)
    except DeliveryError as error:
        raise AnsibleFilterError(f"canary_replicas: {error.message}") from error
    return {"stable": pods.stable, "canary": pods.canary}


def _whole(name: str, value: Any) -> int:
    """Return a whole number, which a survey gives as text; raise AnsibleFilterError where it is none."""
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise AnsibleFilterError(f"canary_replicas: {name} must be a whole number, got {value!r}") from None


class FilterModule:
    """The filter's place."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"canary_replicas": canary_replicas}
