#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module microk8s_addon: an addon of MicroK8s is enabled, or not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: microk8s_addon
short_description: An addon of MicroK8s is enabled, or not
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Enables or disables one addon, and waits until MicroK8s says so and the workloads that came with it are rolled out.
  - It runs on a node of the control plane and needs root or the group of MicroK8s.
  - A name that no repository has is refused, with those that there are. MicroK8s itself calls C(enable core/typo) a success.
  - MicroK8s does not keep what an addon was enabled with. The module keeps a digest of O(arguments) in the ConfigMap
    C(kube-system/progressive-delivery-addons), so that a second run with the same arguments changes nothing. It cannot know the
    arguments of an addon that was enabled without it, nor that somebody changed them by hand since.
  - Enabled means that the addon's objects exist. Aliases such as C(helm) and C(helm3) are enabled together.
notes:
  - Some addons rewrite the arguments of the API server and restart it. What runs on the cluster goes on; requests to the API fail
    for a moment, and this module waits through that.
  - C(disable ingress) deletes the CRDs of Gateway API with all routes, those of other routers among them. C(disable hostpath-storage)
    deletes its volumes, with their data. While there are such routes or volumes, that is refused unless O(force) is set.
  - C(disable hostpath-storage) asks whether to delete the volumes, and nobody is there to answer, so O(arguments=[destroy-storage]) is
    needed for it.
extends_documentation_fragment:
  - progressive.delivery.microk8s
  - progressive.delivery.microk8s.actions
options:
  name:
    description: Name of the addon, with its repository where several have it, as in V(dns) or V(core/dns).
    type: str
    required: true
  state:
    description: Whether it shall be enabled.
    type: str
    default: present
    choices: [present, absent]
  arguments:
    description:
      - What it is enabled with, one word each, as in C("1.1.1.1,8.8.8.8") for the addon C(dns) or C(--size) and C(40Gi) for C(registry).
        For O(state=absent), what it is disabled with.
      - Without it, arguments are not looked at.
      - Where a secret is among them, give the task C(no_log). The module itself shows none of them.
      - They are given to MicroK8s as separate words and never behind a colon, where an IPv6 address would be cut in pieces.
    type: list
    elements: str
  on_changed_arguments:
    description:
      - What happens where the addon is enabled with other arguments.
      - V(refuse) fails with a sentence. V(keep) leaves it as it is and says so in RV(note).
      - V(reenable) disables it, with all that it has, and enables it anew; also where the arguments are not known.
    type: str
    default: refuse
    choices: [refuse, keep, reenable]
  force:
    description:
      - Disable the addon though others lose by it - C(ingress) with routes and Gateways of Gateway API, C(hostpath-storage) with volumes.
        Also for O(on_changed_arguments=reenable), which disables it for a moment.
    type: bool
    default: false
  wait:
    description: Whether to wait until the Deployments, StatefulSets and DaemonSets that came with it are rolled out.
    type: bool
    default: true
seealso:
  - module: progressive.delivery.microk8s_info
"""

EXAMPLES = r"""
- name: DNS with these servers
  progressive.delivery.microk8s_addon:
    name: dns
    arguments: ["1.1.1.1,8.8.8.8"]
  become: true

- name: A registry of 40 GiB
  progressive.delivery.microk8s_addon:
    name: core/registry
    arguments: [--size, 40Gi]
  become: true

- name: Several, by a loop
  progressive.delivery.microk8s_addon:
    name: "{{ item }}"
  loop: [ingress, metrics-server, observability]
  become: true

- name: No load balancer
  progressive.delivery.microk8s_addon:
    name: metallb
    state: absent
  become: true
"""

RETURN = r"""
before:
  description: Whether it was enabled; where arguments were given, whether by these (V(as given)), by V(others) or V(unknown).
  returned: success
  type: dict
  sample: {state: absent}
after:
  description: The same as it is now.
  returned: success
  type: dict
  sample: {state: present, arguments: as given}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: [enabled core/dns]
addon:
  description: The addon's whole name.
  returned: success
  type: str
  sample: core/dns
note:
  description: What is worth knowing, or empty.
  returned: success
  type: str
  sample: core/dns keeps the other arguments that it was enabled with
duration:
  description: Seconds that the module took.
  returned: always
  type: float
  sample: 14.1
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.microk8s import CLI_OPTIONS, Cli, connect_cli, require_running
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ran, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.microk8s import (
    Addon,
    check_arguments,
    check_losses,
    choose_addon,
    digest,
    losses,
    lost,
    not_ready,
    plan_addon,
    record_key,
    workloads,
)
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
    "arguments": {"type": "list", "elements": "str"},
    "on_changed_arguments": {"type": "str", "default": "refuse", "choices": ["refuse", "keep", "reenable"]},
    "force": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": True},
}
WORKLOADS = ("get", "deployments,statefulsets,daemonsets", "--all-namespaces")


def execute(options: dict[str, Any], cli: Cli, check: bool, progress: Progress = quiet) -> Result:
    """Enable or disable the addon where it is not so, and wait until it is."""
    present, arguments = options["state"] == "present", options["arguments"]
    addons = require_running(cli, f'the addon "{options["name"]}"').addons
    addon = choose_addon(addons, options["name"])
    check_arguments(arguments or (), addons or ())
    record = cli.record() if present and arguments is not None else None
    plan = plan_addon(addon, present, arguments, (record or {}).get(record_key(addon)), options["on_changed_arguments"])
    if not options["force"] and any(command[0] == "disable" for command in plan.commands):
        check_losses(addon, lost(addon, [_objects(cli, words) for words in losses(addon)]))
    # Somebody else was quicker where the command line says that it was so already.
    done = [action for command, action in zip(plan.commands, plan.actions) if check or _change(cli, addon, command, options["wait"])]
    if plan.commands and not check:
        _remember(cli, record_key(addon), digest(arguments) if present and arguments is not None else None)
    if plan.commands and not done:
        return Result(before=plan.after, after=plan.after, extra={"addon": addon.id, "note": plan.note})
    return Result(bool(done), plan.before, plan.after, tuple(done), {"addon": addon.id, "note": plan.note})


def _objects(cli: Cli, words: tuple[str, ...]) -> dict[str, Any]:
    """Return the objects of a type, none where the cluster does not have it."""
    try:
        return cli.document("get", *words) or {}
    except DeliveryError as error:
        if "the server doesn't have a resource type" in error.message:
            return {}
        raise


def _change(cli: Cli, addon: Addon, command: tuple[str, ...], wait: bool) -> bool:
    """Run a command that enables or disables, wait until it is so, and return whether it did anything."""
    verb = command[0]
    before = workloads(cli.document(*WORKLOADS) or {}) if wait and verb == "enable" else {}
    ran = cli.must(*command)
    _check(ran, addon, verb)
    cli.wait(lambda: _missing(cli, addon, verb == "enable"), f"{addon.id} was to be {verb}d")
    if wait and verb == "enable":
        cli.wait(
            lambda: ", ".join(not_ready(before, workloads(cli.document(*WORKLOADS) or {}))), f"the workloads of {addon.id} were to be ready"
        )
    return f"is already {verb}d" not in ran.stdout


def _check(ran: Ran, addon: Addon, verb: str) -> None:
    """Raise for an answer that says with exit code 0 that nothing was done."""
    said = f"{ran.stdout}\n{ran.stderr}"
    if f"Addon {addon.id} not found" in said or "was not found in any repository" in said:
        raise DeliveryError(f"microk8s {verb}: {addon.id} is not there any more; look at: microk8s addons repo list", "NotFound")
    if "does not yet have a help message" in said:
        raise DeliveryError(f"microk8s {verb} {addon.id} only printed a text: one of the arguments asks for help", "InvalidRequest")


def _missing(cli: Cli, addon: Addon, enabled: bool) -> str:
    """Return what is still to come until the addon is enabled, or is not."""
    status = require_running(cli, addon.id)
    if choose_addon(status.addons, addon.id).enabled is enabled:
        return ""
    return f"MicroK8s says that it is {'not enabled' if enabled else 'still enabled'}"


def _remember(cli: Cli, key: str, value: str | None) -> None:
    """Keep the digest of the arguments, or take it out; the API server may be on its way back."""

    def kept() -> str:
        cli.remember(key, value)
        return ""

    cli.wait(kept, "the record of its arguments was to be kept")


def main() -> None:
    """Run the module."""
    run_module(execute, OPTIONS, CLI_OPTIONS, connect_cli)


if __name__ == "__main__":
    main()
