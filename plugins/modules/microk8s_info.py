#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module microk8s_info: what MicroK8s is like on a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: microk8s_info
short_description: What MicroK8s is like on a node
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Returns whether MicroK8s is installed and from which channel, whether it runs, its nodes, its addons, and whether its
    automatic refreshes are held.
  - It runs on the node itself and asks the programs C(microk8s) and C(snap). That user must be root or in the group of MicroK8s.
  - A node where MicroK8s is not installed, is stopped, is not ready or is a worker is no failure; RV(state) says so. What such
    a node cannot tell is empty, and RV(addons) is null - never a list of addons that are not enabled.
extends_documentation_fragment:
  - progressive.delivery.microk8s
  - progressive.delivery.microk8s.reads
options:
  wait_ready:
    description: >-
      Wait until MicroK8s is ready, for O(timeout) seconds at most, and fail where it is not. A node that is stopped fails at
      once, a worker counts as ready. In check mode it does not wait.
    type: bool
    default: false
seealso:
  - module: progressive.delivery.microk8s_addon
  - module: progressive.delivery.microk8s_node
  - module: progressive.delivery.microk8s_snap
"""

EXAMPLES = r"""
- name: What is there
  progressive.delivery.microk8s_info:
  become: true
  register: node

- name: Go on when MicroK8s is ready, or fail after two minutes
  progressive.delivery.microk8s_info:
    wait_ready: true
    timeout: 120
  become: true

- name: Refuse to go on where refreshes may come at any time
  ansible.builtin.assert:
    that: node.held
    fail_msg: hold them with microk8s_snap
"""

RETURN = r"""
before:
  description: Always empty, since this module changes nothing.
  returned: success
  type: dict
  sample: {}
after:
  description: Always empty, since this module changes nothing.
  returned: success
  type: dict
  sample: {}
actions:
  description: Always empty, since this module changes nothing.
  returned: success
  type: list
  elements: str
  sample: []
installed:
  description: Whether MicroK8s is installed.
  returned: success
  type: bool
  sample: true
state:
  description: V(absent), V(running), V(not_running) where the API server is not ready, V(stopped), or V(worker).
  returned: success
  type: str
  sample: running
running:
  description: Whether it runs and is ready; of a worker that is not known from the worker, and true.
  returned: success
  type: bool
  sample: true
version:
  description: The version; empty where it is not known.
  returned: success
  type: str
  sample: v1.32.3
revision:
  description: The revision of the snap.
  returned: success
  type: str
  sample: "8148"
channel:
  description: The channel that the snap tracks; empty where C(snap) does not know it.
  returned: success
  type: str
  sample: 1.32/stable
confinement:
  description: V(classic) or V(strict); empty where C(snap) does not know it.
  returned: success
  type: str
  sample: classic
held:
  description: Whether automatic refreshes of the snap are held.
  returned: success
  type: bool
  sample: true
clustered:
  description: Whether the node is one of several.
  returned: success
  type: bool
  sample: true
high_availability:
  description: Whether the datastore can have several members, and at least three of them vote.
  returned: success
  type: bool
  sample: true
datastore:
  description: The members of the datastore and their roles - V(voter), V(standby) or V(spare).
  returned: success
  type: list
  elements: dict
  sample: [{address: "10.0.0.1:19001", role: voter}]
nodes:
  description: >-
    The nodes as Kubernetes has them; empty on a worker, which cannot ask. C(drained) is what one was drained for, the
    O(progressive.delivery.microk8s_node#module:purpose), and empty for all others.
  returned: success
  type: list
  elements: dict
  sample: [{name: n1, addresses: [10.0.0.1], ready: true, schedulable: true, role: control_plane, version: v1.32.3, drained: ""}]
addons:
  description: >-
    The addons that there are; null where it is not known. That one is enabled means that its objects exist, not that they are healthy.
  returned: success
  type: list
  elements: dict
  sample: [{name: dns, repository: core, enabled: true, version: 1.13.1, description: CoreDNS}]
duration:
  description: Seconds that the module took.
  returned: always
  type: float
  sample: 1.2
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.microk8s import CLI_OPTIONS, Cli, connect_cli, not_running
from ansible_collections.progressive.delivery.plugins.module_utils.model import Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.microk8s import (
    RUNNING,
    STOPPED,
    WORKER,
    Node,
    Snap,
    Status,
    is_clustered,
)
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {"wait_ready": {"type": "bool", "default": False}}
# Reasons for which one of the two programs cannot tell: the other one may.
SILENT = ("NotInstalled", "NotRunning", "Worker")


def execute(options: dict[str, Any], cli: Cli, check: bool, progress: Progress = quiet) -> Result:
    """Return what the two programs tell, or raise where this user may not ask."""
    snap = installed(cli)
    try:
        version, revision = cli.version()
    except DeliveryError as error:
        if error.reason != "NotInstalled" or (snap is not None and "disabled" not in snap.notes) or options["wait_ready"] and not check:
            raise
        return Result(extra=_facts(snap, "absent" if snap is None else STOPPED, ("", ""), None, ()))
    status = cli.status()
    if options["wait_ready"] and not check and status.state not in (RUNNING, WORKER):
        if status.state != STOPPED:
            status = cli.status(wait=True)
        if status.state not in (RUNNING, WORKER):
            raise not_running(status.state, f"MicroK8s was to be ready within {cli.timeout:g} s")
    nodes = cli.nodes() if status.state == RUNNING else ()
    return Result(extra=_facts(snap, status.state, (version, revision), status, nodes))


def installed(cli: Cli) -> Snap | None:
    """Return the snap, or None where it is not installed or there is no snapd: MicroK8s may be there all the same."""
    try:
        return cli.installed()
    except DeliveryError as error:
        if error.reason not in SILENT:
            raise
        return None


def _facts(snap: Snap | None, state: str, version: tuple[str, str], status: Status | None, nodes: tuple[Node, ...]) -> dict[str, Any]:
    """Return the facts as the module has them."""
    addons = status.addons if status else None
    members = status.members if status else ()
    return {
        "installed": state != "absent",
        "state": state,
        "running": state in (RUNNING, WORKER),
        "version": version[0] or (snap.version if snap else ""),
        "revision": version[1] or (snap.revision if snap else ""),
        "channel": snap.channel if snap else "",
        "confinement": snap.confinement if snap else "",
        "held": bool(snap and snap.held),
        "clustered": bool(status and is_clustered(status, nodes)),
        "high_availability": bool(status and status.high_availability) and sum(member.role == "voter" for member in members) > 2,
        "datastore": [{"address": member.address, "role": member.role} for member in members],
        "nodes": [
            {
                "name": node.name,
                "addresses": list(node.addresses),
                "ready": node.ready,
                "schedulable": node.schedulable,
                "role": "worker" if node.worker else "control_plane",
                "version": node.version,
                "drained": node.drained,
            }
            for node in nodes
        ],
        "addons": None
        if addons is None
        else [
            {
                "name": addon.name,
                "repository": addon.repository,
                "enabled": addon.enabled,
                "version": addon.version,
                "description": addon.description,
            }
            for addon in addons
        ],
    }


def main() -> None:
    """Run the module."""
    run_module(execute, OPTIONS, CLI_OPTIONS, connect_cli)


if __name__ == "__main__":
    main()
