#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module microk8s_snap: the snap of MicroK8s is installed, follows a channel, and is held."""

from __future__ import annotations

DOCUMENTATION = r"""
module: microk8s_snap
short_description: The snap of MicroK8s is installed, follows a channel, and is held
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Installs the snap C(microk8s), brings it to a channel, holds its automatic refreshes, or removes it. It runs on the node, as root.
  - A channel is changed to the same minor version of Kubernetes or to the next one. More than one at a time, and a way back, is
    refused with a sentence before anything is changed, as Kubernetes asks for. From a numbered track to C(latest) there is no way.
  - It knows nothing of the node's pods. Drain it before its minor version changes; the role P(progressive.delivery.microk8s#role) does.
extends_documentation_fragment:
  - progressive.delivery.microk8s
  - progressive.delivery.microk8s.actions
options:
  channel:
    description:
      - The channel, as in V(1.32/stable), V(1.32-strict/stable) or V(latest/edge). Without a risk level it is C(stable).
      - Needed where the snap is not installed. Without it, an installed one keeps its channel.
    type: str
  hold:
    description: >-
      Whether automatic refreshes are held, for ever. Without it that stays as it is. A refresh by this module works all the same.
      Needs snapd 2.58 or newer.
    type: bool
  purge:
    description: With O(state=absent), do not keep a snapshot of the data.
    type: bool
    default: false
  state:
    description: Whether the snap shall be there.
    type: str
    default: present
    choices: [present, absent]
seealso:
  - module: progressive.delivery.microk8s_info
"""

EXAMPLES = r"""
- name: MicroK8s 1.32, which is refreshed when we say so
  progressive.delivery.microk8s_snap:
    channel: 1.32/stable
    hold: true
  become: true

- name: The next minor version
  progressive.delivery.microk8s_snap:
    channel: 1.33/stable
    timeout: 900
  become: true

- name: Take it away with all its data
  progressive.delivery.microk8s_snap:
    state: absent
    purge: true
  become: true
"""

RETURN = r"""
before:
  description: What was there.
  returned: success
  type: dict
  sample: {state: absent}
after:
  description: What is there now.
  returned: success
  type: dict
  sample: {state: present, channel: 1.32/stable, held: true}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: [installed the snap microk8s from 1.32/stable, held its automatic refreshes]
version:
  description: The version that is installed now; in check mode the one before.
  returned: success
  type: str
  sample: v1.32.3
duration:
  description: Seconds that the module took.
  returned: always
  type: float
  sample: 48.3
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.microk8s import CLI_OPTIONS, Cli, connect_cli
from ansible_collections.progressive.delivery.plugins.module_utils.model import Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.microk8s import last_words, plan_snap, trouble
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    "channel": {"type": "str"},
    "hold": {"type": "bool"},
    "purge": {"type": "bool", "default": False},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
}


def execute(options: dict[str, Any], cli: Cli, check: bool, progress: Progress = quiet) -> Result:
    """Install, refresh, hold or remove, where it is not so."""
    snap = cli.installed()
    plan = plan_snap(snap, options["state"] == "present", options["channel"], options["hold"], options["purge"])
    if not check:
        for command in plan.commands:
            _run(cli, command)
        if plan.commands:
            snap = cli.installed()
    return Result(bool(plan.commands), plan.before, plan.after, plan.actions, {"version": snap.version if snap else ""})


def _run(cli: Cli, command: tuple[str, ...]) -> None:
    """Run a command of snap that changes something, or raise what it says."""
    ran = cli.snap(*command)
    said = f"snap {command[0]} microk8s"
    problem = trouble(ran, said)
    if problem is None:
        return
    if problem.reason == "Busy":
        raise problem
    words = f"{ran.stdout}\n{ran.stderr}"
    if "access denied" in words or "requires root" in words:
        raise DeliveryError(f"{said} needs root; use become: true", "Forbidden")
    if "unable to contact snap store" in words or "no such host" in words:
        raise DeliveryError(
            f"{said}: the snap store cannot be reached from this node; set its proxy: snap set system proxy.https", "Unavailable"
        )
    if "unknown flag" in words:
        raise DeliveryError(f"{said}: this snapd is too old to hold refreshes; use 2.58 or newer, or leave out hold", "InvalidRequest")
    raise DeliveryError(f"{said} failed: {last_words(ran).removeprefix('error: ')}", problem.reason)


def main() -> None:
    """Run the module."""
    run_module(execute, OPTIONS, CLI_OPTIONS, connect_cli)


if __name__ == "__main__":
    main()
