# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and attributes that every module for MicroK8s has."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation that the modules for MicroK8s share."""

    DOCUMENTATION = r"""
options:
  executable:
    description: >-
      The program of MicroK8s on the node. C(/snap/bin) is often missing from the path of another user, so it is named whole.
    type: path
    default: /snap/bin/microk8s
  snap_executable:
    description: The program of snapd on the node.
    type: path
    default: /usr/bin/snap
  timeout:
    description: >-
      Seconds for all that the module does. A call that does not end is stopped, with what it started, and the module fails
      with a sentence.
    type: float
    default: 300
requirements:
  - MicroK8s 1.26 or newer, or snapd to install it
"""

    ACTIONS = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return a changed status prediction without modifying the target.
    support: full
    details: No command that changes something is run.
  diff_mode:
    description: Returns what has changed, in the words of the domain.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  action_group:
    description: Is part of the action group C(progressive.delivery.microk8s), for C(module_defaults).
    support: full
    membership:
      - progressive.delivery.microk8s
"""

    READS = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return a changed status prediction without modifying the target.
    support: full
    details: This module writes nothing.
  diff_mode:
    description: Returns what has changed, in the words of the domain.
    support: none
    details: This module changes nothing.
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  action_group:
    description: Is part of the action group C(progressive.delivery.microk8s), for C(module_defaults).
    support: full
    membership:
      - progressive.delivery.microk8s
"""
