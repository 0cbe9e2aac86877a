#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module microk8s_node: a node is part of a MicroK8s cluster, or not; it takes pods, or not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: microk8s_node
short_description: A node is part of a MicroK8s cluster, or not; it takes pods, or not
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Brings a node into a cluster and out of it again, and empties it before an upgrade.
  - To join takes two nodes. On one of the control plane, O(state=invited) mints a token, only where the node O(name) is not part of
    the cluster. On the other one, O(state=joined) joins by RV(url). The role P(progressive.delivery.microk8s#role) does both.
  - RV(url) has the token in it. Ansible hides the whole result of such a task, at any verbosity; do not print what was registered.
notes:
  - C(microk8s join) takes the token on its command line, so for as long as it runs, the processes of the joining node show it to whoever
    may see them. That is why it lives for O(token_ttl) seconds only.
  - MicroK8s knows tokens that are good for one join and never run out, and tokens that run out and are good for any number until then.
    There is none that does both. This module asks for the second kind.
  - A task with O(state=invited) cannot be asynchronous, since its result would be written to a file.
  - Names are those of Kubernetes, which are the host names in small letters. They are compared whole.
extends_documentation_fragment:
  - progressive.delivery.microk8s
  - progressive.delivery.microk8s.actions
options:
  name:
    description: >-
      Name of the node. Needed for all states but V(joined) and V(left), which are about the node that the module runs on.
    type: str
  state:
    description:
      - V(invited) - on a node of the control plane; the node O(name) is part of the cluster, or may join it by RV(url).
      - V(joined) - on the node itself; it is part of a cluster.
      - V(left) - on the node itself; it is alone again. All that ran on it is gone.
      - V(absent) - on a node of the control plane; the cluster does not have the node O(name) any more. A node of the control plane must
        have left before, unless it is dead and O(force) is given.
      - V(drained) - on a node of the control plane; the node O(name) takes no new pods, and those that it had are elsewhere. Where that
        fails, a node that took pods before takes them again.
      - V(schedulable) - on a node of the control plane; the node O(name) is ready, which is waited for, and takes pods.
    type: str
    required: true
    choices: [invited, joined, left, absent, drained, schedulable]
  url:
    description: For V(joined), where to join, with the token, as RV(url) of V(invited) has it. Not needed where the node has joined.
    type: str
  worker:
    description: For V(joined), join as a worker, which has no part of the control plane and of the datastore.
    type: bool
    default: false
  skip_verify:
    description: For V(joined), do not verify the certificate of the node that it joins at.
    type: bool
    default: false
  disable_low_memory_guard:
    description: For V(joined), join the control plane even with little memory.
    type: bool
    default: false
  is_member:
    description: >-
      For V(invited), what RV(progressive.delivery.microk8s_info#module:clustered) says on the node O(name). Where the two do not agree,
      the module fails with the way out, instead of minting a token that cannot be used.
    type: bool
  token_ttl:
    description: For V(invited), the seconds that the token lives.
    type: int
    default: 600
  address:
    description: For V(invited), the address of this node at which the other one joins. The default is the first one that is IPv4.
    type: str
  force:
    description: >-
      For V(absent), remove also a node of the control plane that is dead and never comes back. For V(drained), take off also pods that
      nothing makes anew.
    type: bool
    default: false
  purpose:
    description:
      - For V(drained), a word that the node is marked with where it took pods before, in its annotation C(progressive.delivery/drained).
        Without it there is no mark.
      - For V(schedulable), only a node with that mark takes pods again; one that somebody else has drained or cordoned stays so.
    type: str
  delete_emptydir_data:
    description: For V(drained), take off also pods with data in an emptyDir, which is lost.
    type: bool
    default: true
seealso:
  - module: progressive.delivery.microk8s_info
  - module: progressive.delivery.microk8s_snap
"""

EXAMPLES = r"""
- name: A place to join at, if n2 needs one
  progressive.delivery.microk8s_node:
    name: n2
    state: invited
  delegate_to: n1
  become: true
  register: invitation

- name: Join as a worker
  progressive.delivery.microk8s_node:
    state: joined
    worker: true
    url: "{{ invitation.url | default(omit, true) }}"
  become: true
  no_log: true

- name: Empty a node before its upgrade
  progressive.delivery.microk8s_node:
    name: n2
    state: drained
    timeout: 600
  delegate_to: n1
  become: true

- name: It takes pods again
  progressive.delivery.microk8s_node:
    name: n2
    state: schedulable
  delegate_to: n1
  become: true

- name: Leave the cluster
  progressive.delivery.microk8s_node:
    state: left
  become: true

- name: The cluster forgets it
  progressive.delivery.microk8s_node:
    name: n2
    state: absent
  delegate_to: n1
  become: true
"""

RETURN = r"""
before:
  description: What was so before.
  returned: success
  type: dict
  sample: {member: false}
after:
  description: What is so now.
  returned: success
  type: dict
  sample: {member: true, role: worker}
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: [joined a cluster as a worker]
url:
  description: >-
    For V(invited), where to join, with the token; empty where the node is part of the cluster, and in check mode. Hidden in what
    Ansible prints.
  returned: O(state=invited)
  type: str
  sample: ""
duration:
  description: Seconds that the module took.
  returned: always
  type: float
  sample: 31.5
"""

import contextlib
import re
import socket
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.microk8s import (
    CLI_OPTIONS,
    Cli,
    connect_cli,
    not_running,
    require_running,
)
from ansible_collections.progressive.delivery.plugins.module_utils.model import Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.microk8s import (
    DRAINED,
    NOT_RUNNING,
    RUNNING,
    STOPPED,
    WORKER,
    Node,
    Status,
    evicted,
    is_clustered,
    join_error,
    last_words,
    parse_invitation,
    trouble,
)
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    "name": {"type": "str"},
    "state": {"type": "str", "required": True, "choices": ["invited", "joined", "left", "absent", "drained", "schedulable"]},
    "url": {"type": "str", "no_log": True},
    "worker": {"type": "bool", "default": False},
    "skip_verify": {"type": "bool", "default": False},
    "disable_low_memory_guard": {"type": "bool", "default": False},
    "is_member": {"type": "bool"},
    "token_ttl": {"type": "int", "default": 600, "no_log": False},
    "address": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "purpose": {"type": "str"},
    "delete_emptydir_data": {"type": "bool", "default": True},
}
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
LONGEST_TTL = 86400


def execute(options: dict[str, Any], cli: Cli, check: bool, progress: Progress = quiet) -> Result:
    """Bring the node into the state, where it is not in it."""
    state = options["state"]
    if state == "joined":
        return _join(options, cli, check)
    if state == "left":
        return _leave(cli, check)
    name = options["name"] or ""
    if not NAME.fullmatch(name):
        raise InvalidRequest(f'state {state} needs the name of a node, in small letters as Kubernetes has it, got "{name}"')
    require_running(cli, f"node {name}")
    nodes = {node.name: node for node in cli.nodes()}
    if state == "invited":
        return _invite(options, cli, check, nodes)
    if state == "absent":
        return _remove(options, cli, check, nodes)
    if name not in nodes and not (state == "schedulable" and not check):
        raise InvalidRequest(f"the cluster has no node {name}; it has: {', '.join(nodes)}")
    return _drain(options, cli, check, nodes[name]) if state == "drained" else _schedule(options, cli, check, nodes.get(name))


def _invite(options: dict[str, Any], cli: Cli, check: bool, nodes: dict[str, Node]) -> Result:
    """Mint a token for a node that is not part of the cluster."""
    name, is_member, seconds = options["name"], options["is_member"], options["token_ttl"]
    if not 1 <= seconds <= LONGEST_TTL:
        raise InvalidRequest(
            f"token_ttl must be between 1 and {LONGEST_TTL} seconds, got {seconds}; one that never runs out is not made here"
        )
    if name in nodes:
        if is_member is False:
            raise InvalidRequest(
                f"the cluster has a node {name}, and that machine is in no cluster: it is an old one of the same name;"
                " remove it by state absent first, with force where it was in the control plane"
            )
        return Result(before={"member": True}, after={"member": True}, extra={"url": ""})
    if is_member:
        raise InvalidRequest(
            f"node {name} is part of another cluster, not of the one with {', '.join(nodes)}; let it leave that by state left first"
        )
    url = ""
    if not check:
        answer = cli.run("add-node", "--token-ttl", str(seconds), "--format", "json", shown="microk8s add-node")
        url = parse_invitation(answer).url(options["address"])
    return Result(
        True, {"member": False}, {"member": False, "invited": True}, (f"minted a token for {name} that lives {seconds} s",), {"url": url}
    )


def _here(cli: Cli, what: str) -> tuple[Status, tuple[Node, ...]]:
    """Return the status of this node and the nodes that it sees; raise where it does not run."""
    status = cli.status()
    if status.state in (STOPPED, NOT_RUNNING):
        raise not_running(status.state, what)
    return status, (cli.nodes() if status.state == RUNNING else ())


def _join(options: dict[str, Any], cli: Cli, check: bool) -> Result:
    """Join by the URL, where this node is alone."""
    status, nodes = _here(cli, "to join")
    role = "worker" if options["worker"] else "control_plane"
    after = {"member": True, "role": role}
    if is_clustered(status, nodes):
        now = "worker" if status.state == WORKER else "control_plane"
        if now != role:
            words = {"worker": "a worker", "control_plane": "part of the control plane"}
            raise InvalidRequest(
                f"this node has joined as {words[now]} and cannot become {words[role]} as it is; let it leave by state left, and join anew"
            )
        return Result(before=after, after=after)
    done = Result(
        True, {"member": False}, after, (f"joined a cluster as {'a worker' if role == 'worker' else 'part of the control plane'}",)
    )
    if check:
        return done
    if not options["url"]:
        raise InvalidRequest("this node has not joined a cluster and needs url, as state invited returns it on a node of the control plane")
    flags = ["--worker"] if role == "worker" else []
    flags += ["--skip-verify"] if options["skip_verify"] else []
    flags += ["--disable-low-memory-guard"] if options["disable_low_memory_guard"] else []
    ran = cli.run("join", options["url"], *flags, shown="microk8s join")
    if ran.code != 0 or trouble(ran, "microk8s join") is not None:
        raise join_error(ran)
    own = (options["name"] or socket.gethostname()).lower()
    cli.wait(lambda: _not_joined(cli, role, own), "this node was to be part of the cluster")
    return done


def _not_joined(cli: Cli, role: str, own: str) -> str:
    """Return what is missing until this node is part of the cluster."""
    status = cli.status()
    if role == "worker":
        return "" if status.state == WORKER else "it is not a worker yet"
    if status.state != RUNNING:
        return "MicroK8s is not ready"
    nodes = {node.name: node for node in cli.nodes()}
    if own in nodes and not nodes[own].ready:
        return f"node {own} is not ready"
    return "" if len(nodes) > 1 else "it sees no other node"


def _leave(cli: Cli, check: bool) -> Result:
    """Leave the cluster, where this node is in one."""
    status, nodes = _here(cli, "to leave")
    if not is_clustered(status, nodes):
        return Result(before={"member": False}, after={"member": False})
    done = Result(True, {"member": True}, {"member": False}, ("left the cluster",))
    if check:
        return done
    ran = cli.run("leave")
    if "is not acting as a node in a cluster" in ran.stdout + ran.stderr or "Not in clustering mode" in ran.stdout:
        # The others were workers that have left, or it never joined: a cluster formed around it.
        raise InvalidRequest(
            "this node has not joined a cluster, others have joined it; let them leave, and remove them by state absent on this node"
        )
    if ran.code == 3:
        raise DeliveryError(
            "microk8s leave: this node has the only copy of the cluster's database and cannot leave; let the others leave first,"
            " or have at least three nodes in the control plane",
            "OnlyCopy",
        )
    problem = trouble(ran, "microk8s leave")
    if problem is not None:
        raise problem
    cli.wait(lambda: _not_alone(cli), "this node was to be alone")
    return done


def _not_alone(cli: Cli) -> str:
    """Return what is missing until this node runs alone."""
    status = cli.status()
    if status.state != RUNNING:
        return "MicroK8s is not ready"
    return "it still sees other nodes" if len(cli.nodes()) > 1 else ""


def _remove(options: dict[str, Any], cli: Cli, check: bool, nodes: dict[str, Node]) -> Result:
    """Let the cluster forget a node."""
    name = options["name"]
    if name not in nodes:
        return Result(before={"member": False}, after={"member": False})
    done = Result(True, {"member": True}, {"member": False}, (f"removed node {name} from the cluster",))
    if check:
        return done
    ran = cli.run("remove-node", name, *(["--force"] if options["force"] else []))
    if "is registered with dqlite" in ran.stdout + ran.stderr:
        raise InvalidRequest(
            f"node {name} is part of the control plane and has not left; run state left on it first, or use force where it is dead for good"
        )
    problem = trouble(ran, f"microk8s remove-node {name}")
    if problem is not None:
        raise problem
    cli.wait(lambda: f"node {name} is still there" if name in {node.name for node in cli.nodes()} else "", f"node {name} was to be gone")
    return done


def _drain(options: dict[str, Any], cli: Cli, check: bool, node: Node) -> Result:
    """Cordon a node and take its pods off; where that fails, let it take pods again if it did."""
    pods = evicted(cli.document("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node.name}") or {})
    before = {"schedulable": node.schedulable, "pods": len(pods)}
    after = {"schedulable": False, "pods": 0}
    if before == after:
        return Result(before=before, after=after)
    done = Result(True, before, after, (f"drained node {node.name} of {len(pods)} pods",))
    if check:
        return done
    flags = ["--ignore-daemonsets", f"--timeout={max(1, int(cli.left - 5))}s"]
    flags += ["--delete-emptydir-data"] if options["delete_emptydir_data"] else []
    flags += ["--force"] if options["force"] else []
    marked = bool(node.schedulable and options["purpose"])
    if marked:
        # Whoever goes on after a run that was killed finds what it was drained for, and that nobody else wants it so.
        cli.must("kubectl", "annotate", "node", node.name, f"{DRAINED}={options['purpose']}", "--overwrite")
    try:
        ran = cli.run("kubectl", "drain", node.name, *flags, shown=f"microk8s kubectl drain {node.name}")
        problem = trouble(ran, f"draining node {node.name}")
        if problem is not None:
            what = f"draining node {node.name} failed: {last_words(ran)}"
            raise DeliveryError(f"{what}; it takes pods as before" if node.schedulable else what, problem.reason)
    except DeliveryError:
        if node.schedulable:
            # The time of the step may be over, and this is what must not be left out.
            with contextlib.suppress(DeliveryError):
                _uncordon(type(cli)(cli.executable, cli.snap_executable, 30), node.name, marked)
        raise
    return done


def _uncordon(cli: Cli, name: str, marked: bool) -> None:
    """Let a node take pods, and take the mark off it."""
    cli.must("kubectl", "uncordon", name)
    if marked:
        cli.must("kubectl", "annotate", "node", name, f"{DRAINED}-")


def _foresee(node: Node, purpose: str | None) -> Result:
    """Return what letting a node take pods does; with a purpose it is left alone where it bears another mark, or none."""
    before = {"schedulable": node.schedulable}
    ours = purpose is None or node.drained == purpose
    if not node.schedulable and ours:
        return Result(True, before, {"schedulable": True}, (f"let node {node.name} take pods",))
    if node.schedulable and ours and node.drained:
        # Left on it, whoever drains the node next would have it undone.
        return Result(
            True, {**before, "marked": True}, {**before, "marked": False}, (f"took the mark off node {node.name}, which takes pods",)
        )
    return Result(before=before, after=before)


def _schedule(options: dict[str, Any], cli: Cli, check: bool, node: Node | None) -> Result:
    """Wait until a node is ready, and let it take pods."""
    name, purpose = options["name"], options["purpose"]
    if check and node is not None:
        return _foresee(node, purpose)
    found: list[Node] = []

    def missing() -> str:
        found[:] = [entry for entry in cli.nodes() if entry.name == name]
        if not found:
            return f"the cluster has no node {name}"
        return "" if found[0].ready else f"node {name} is not ready"

    cli.wait(missing, f"node {name} was to be ready")
    done = _foresee(found[0], purpose)
    if done.changed:
        _uncordon(cli, name, bool(found[0].drained))
    return done


def main() -> None:
    """Run the module."""
    run_module(execute, OPTIONS, CLI_OPTIONS, connect_cli)


if __name__ == "__main__":
    main()
