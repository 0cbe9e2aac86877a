# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter istio_outdated: which workloads have pods without the sidecar that they shall have."""

from __future__ import annotations

DOCUMENTATION = r"""
name: istio_outdated
short_description: Which workloads have pods without the sidecar that they shall have
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Of pods, as M(kubernetes.core.k8s_info) returns them, it makes the workloads with a pod whose sidecar of Istio's is missing, or is
    of another revision or version.
  - Left out are gateways, pods that no Deployment, StatefulSet or DaemonSet makes, pods that have ended or that go, that have the network
    of their host, and that want no sidecar.
positional: _input, revision, tag
options:
  _input:
    description: The pods.
    type: list
    elements: dict
    required: true
  revision:
    description: The revision that pods shall have, V(default) for the control plane without a name; empty for no sidecar at all.
    type: str
    required: true
  tag:
    description: The tag that the proxy's image shall have; empty for any.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: The pods of the shop
  kubernetes.core.k8s_info:
    kind: Pod
    namespace: shop
  register: pods

- name: What is to be rolled out after an upgrade
  ansible.builtin.debug:
    msg: "{{ pods.resources | progressive.delivery.istio_outdated('1-30-2') }}"
"""

RETURN = r"""
_value:
  description: The workloads.
  type: list
  elements: dict
  sample: [{namespace: shop, kind: Deployment, name: web}]
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.plan.istio import restarts


class FilterModule:
    """The filter's place."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"istio_outdated": restarts}
