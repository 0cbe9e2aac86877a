#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of MicroK8s' command line and of snap's: not the real ones.

No snap store can be reached where the tests run. This program keeps to the contract of the real command line at its
newest version: formats, exit codes, texts, and the traps among them. Its state is a folder; a node is a folder in it.

usage: double.py make ROOT NODE...           make the nodes, with MicroK8s not installed
       double.py knob ROOT NODE JSON         set knobs of a node, see KNOBS
       double.py microk8s|snap ROOT NODE ... be that program; ROOT/NODE/bin has a script for each

Every call is kept in ROOT/calls.jsonl.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# {name: what it does}. A number counts down, call by call.
KNOBS = {
    "permission": "true: this user is neither root nor in the group; of a strict snap, not root",
    "hang": "list of subcommands that never end, as enable metallb does",
    "mute": "list of subcommands that fail with code 1 and no word, as a prompt without a terminal does",
    "ask": "list of subcommands that print a question and fail",
    "garbage": "list of subcommands whose answer is no YAML and no JSON, with code 0",
    "not_ready": "for so many calls of status, the API server is not ready",
    "away": "for so many calls of kubectl, the API server does not answer",
    "late": "for so many calls of status, an addon that was enabled does not show",
    "rolling": "for so many looks at workloads, those of a new addon are not ready",
    "gone": "list of addons that status has, and enable has not any more",
    "stuck_pod": "true: a pod cannot be evicted",
    "join_code": "code with which join fails",
    "low_memory": "for so many calls of join, the node has too little memory for the control plane",
    "only_copy": "true: leave ends with 3",
    "snap_busy": "true: snapd has a change in progress",
    "store_down": "true: the snap store does not answer",
    "old_snapd": "true: snap refresh knows no --hold",
    "kubeconfig": "path: kubectl and config are those of this real cluster",
    "kubectl": "path of the real kubectl, for kubeconfig",
}
ADDONS = {
    "core": {
        "cert-manager": "Cloud native certificate management",
        "dns": "CoreDNS",
        "ha-cluster": "Configure high availability on the current node",
        "helm": "Helm - the package manager for Kubernetes",
        "helm3": "Helm 3 - the package manager for Kubernetes",
        "hostpath-storage": "Storage class; allocates storage from host directory",
        "ingress": "Ingress controller for external access",
        "metallb": "Loadbalancer for your Kubernetes cluster",
        "metrics-server": "K8s Metrics Server for API access to service metrics",
        "observability": "A lightweight observability stack for logs, traces and metrics",
        "rbac": "Role-Based Access Control for authorisation",
        "registry": "Private image registry exposed on localhost:32000",
        "storage": "Alias to hostpath-storage add-on, deprecated",
    },
    "community": {"istio": "Core Istio service mesh services", "ingress": "Another one: of the same name"},
}
ALIASES = ({"helm", "helm3"}, {"storage", "hostpath-storage"})
BY_DEFAULT = ("ha-cluster", "helm", "helm3")
READS = ("status", "version", "config", "addons", "inspect")
STOPPED = "microk8s is not running, try microk8s start"
NOT_READY = "microk8s is not running. Use microk8s inspect for a deeper inspection."
WORKER = "This MicroK8s deployment is acting as a node in a cluster.\nPlease use the control plane node."
PERMISSION = """Insufficient permissions to access MicroK8s.
You can either try again with sudo or add the user ops to the 'microk8s' group:

    sudo usermod -a -G microk8s ops
    sudo chown -R ops ~/.kube

After this, reload the user groups either via a reboot or by running 'newgrp microk8s'."""

# What the wrappers of the strictly confined snap say to anybody but root, whatever group that is in.
ELEVATED = "Elevated permissions are needed for this command. Please use sudo."


class Stop(Exception):
    """Ends the program: a code, and what it says."""

    def __init__(self, code: int, out: str = "", err: str = "") -> None:
        super().__init__(code)
        self.code, self.out, self.err = code, out, err


@contextlib.contextmanager
def opened(root: Path) -> Iterator[dict[str, Any]]:
    """Give the state, and keep what became of it; one program at a time."""
    with open(root / "lock", "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        path = root / "state.json"
        state = json.loads(path.read_text()) if path.exists() else {"nodes": {}, "clusters": {}}
        try:
            yield state
        finally:
            path.with_suffix(".new").write_text(json.dumps(state, indent=1))
            path.with_suffix(".new").replace(path)


def make(root: Path, names: list[str]) -> None:
    """Make nodes on which nothing is installed."""
    root.mkdir(parents=True, exist_ok=True)
    with opened(root) as state:
        for number, name in enumerate(names, len(state["nodes"]) + 1):
            state["nodes"][name] = {"number": number, "snap": None, "knobs": {}}
            (root / name / "bin").mkdir(parents=True, exist_ok=True)
            _script(root, name, "snap")


def _script(root: Path, name: str, program: str) -> None:
    """Write the script by which a node has a program."""
    path = root / name / "bin" / program
    words = [sys.executable, "-S", str(Path(__file__).resolve()), program, str(root), name]
    path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    path.chmod(0o755)


def knob(root: Path, name: str, knobs: dict[str, Any]) -> None:
    """Set knobs of a node; null takes one out."""
    unknown = set(knobs) - set(KNOBS)
    if unknown:
        raise SystemExit(f"double: there is no knob {unknown}")
    with opened(root) as state:
        state["nodes"][name]["knobs"] = {
            key: value for key, value in {**state["nodes"][name]["knobs"], **knobs}.items() if value is not None
        }


def calls(root: Path) -> list[list[str]]:
    """Return every call: [node, program, arguments...]."""
    path = root / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_changing(call: list[str]) -> bool:
    """Return whether a call changes something."""
    _node, program, *arguments = call
    verb = arguments[0] if arguments else ""
    if program == "snap":
        return verb != "list"
    if verb == "kubectl":
        return arguments[1] != "get"
    return verb not in READS or arguments[1:3] == ["repo", "add"]


def changing(root: Path) -> list[list[str]]:
    """Return the calls that change something: [snap, arguments...] and [arguments of microk8s...]."""
    found = (call for call in calls(root) if is_changing(call))
    return [call[1:] if call[1] == "snap" else call[2:] for call in found]


class Node:
    """One node, as a program on it finds it."""

    def __init__(self, root: Path, name: str, state: dict[str, Any]) -> None:
        self.root, self.name, self.state = root, name, state
        self.own = state["nodes"][name]
        self.knobs = self.own["knobs"]

    @property
    def cluster(self) -> dict[str, Any]:
        """Return the cluster that the node is part of."""
        return self.state["clusters"][self.own["cluster"]]

    def count(self, name: str) -> bool:
        """Return whether a knob that counts down still does, and count."""
        left = self.knobs.get(name) or 0
        if left:
            self.knobs[name] = left - 1
        return bool(left)

    def address(self, name: str | None = None) -> str:
        """Return the address of a node."""
        return f"10.0.0.{self.state['nodes'][name or self.name]['number']}"

    # --- microk8s

    def microk8s(self, arguments: list[str]) -> Stop:
        """Be the program microk8s."""
        verb, rest = (arguments[0] if arguments else "help"), arguments[1:]
        if self.knobs.get("permission"):
            strict = self.own["snap"] and not self.own["snap"]["classic"]
            return Stop(1, ELEVATED) if strict else Stop(1, err=PERMISSION)
        actions = {
            "status": self.status,
            "version": self.version,
            "enable": lambda words: self.xable("enable", words),
            "disable": lambda words: self.xable("disable", words),
            "add-node": self.add_node,
            "join": self.join,
            "leave": self.leave,
            "remove-node": self.remove_node,
            "kubectl": self.kubectl,
            "config": self.config,
            "addons": self.repositories,
            "start": lambda _words: self.stop(False),
            "stop": lambda _words: self.stop(True),
        }
        if verb not in actions:
            return Stop(1, f"'{verb}' is not a valid MicroK8s subcommand.\nAvailable subcommands are:\n\tadd-node\n\taddons")
        if verb in self.knobs.get("mute", ()):
            return Stop(1)
        if verb in self.knobs.get("ask", ()):
            return Stop(1, "Enabling MetalLB\nEnter each IP address range delimited by comma: ")
        if verb in self.knobs.get("garbage", ()):
            return Stop(0, "Segmentation fault in squashfuse")
        if self.own.get("stopped") and verb not in ("start", "stop", "version"):
            return Stop(0, STOPPED) if verb == "status" else Stop(1, err=STOPPED)
        if self.own["role"] == "worker" and verb not in ("start", "stop", "version", "leave"):
            return Stop(0 if verb in ("status", "kubectl", "config", "helm") else 1, WORKER)
        return actions[verb](rest)

    def stop(self, stopped: bool) -> Stop:
        """Stop, or start."""
        self.own["stopped"] = stopped
        return Stop(0, "Stopped." if stopped else "Started.")

    def version(self, _words: list[str]) -> Stop:
        """Say the version."""
        return Stop(0, f"MicroK8s {self.own['snap']['version']} revision {self.own['snap']['revision']}")

    def status(self, words: list[str]) -> Stop:
        """Say how it is; the YAML is printed as the real one prints it."""
        if "--timeout" not in words and "--wait-ready" in words:
            time.sleep(3600)
        if self.count("not_ready"):
            text = "microk8s:\n   running: False\nhigh-availability:\n   enabled: False\n"
            return Stop(1, f"{text}   message: {NOT_READY}" if "yaml" in words else NOT_READY)
        lines = [
            "microk8s:",
            "   running: True",
            "high-availability:",
            f"   enabled: {'ha-cluster' in self.cluster['enabled']}",
            "   nodes:",
        ]
        for number, name in enumerate(self.members()):
            lines += [f"     - address: {self.address(name)}:19001", f"       role: {'voter' if number < 3 else 'standby'}"]
        lines.append("addons:")
        late = self.count("late")
        shown = self.cluster["shown"] if late else self.cluster["enabled"]
        self.cluster["shown"] = list(shown)
        for wanted in ("enabled", "disabled"):
            for repository, addon, text in self.available():
                on = f"{repository}/{addon}" in shown or (repository == "core" and addon in shown)
                if on is (wanted == "enabled"):
                    lines += [f"   - name: {addon}", f"     repository: {repository}", f"     description: {text}"]
                    lines += [f"     version: {'1.13.1' if addon == 'dns' else ''}", f"     status: {wanted}"]
        return Stop(0, "\n".join(lines))

    def members(self) -> list[str]:
        """Return the nodes of the control plane."""
        return [
            name for name, node in self.state["nodes"].items() if node.get("cluster") == self.own["cluster"] and node["role"] != "worker"
        ]

    def available(self) -> list[tuple[str, str, str]]:
        """Return the addons that there are."""
        found = [("core", *pair) for pair in ADDONS["core"].items()]
        return found + (
            [("community", *pair) for pair in ADDONS["community"].items()] if "community" in self.cluster["repositories"] else []
        )

    def repositories(self, words: list[str]) -> Stop:
        """List the repositories, or add one."""
        if words[:2] == ["repo", "add"]:
            if words[2] in self.cluster["repositories"]:
                return Stop(1, f"Repository '{words[2]}' already exists!")
            self.cluster["repositories"].append(words[2])
            return Stop(0)
        return Stop(0, json.dumps([{"name": name, "addons": 1} for name in self.cluster["repositories"]]))

    def xable(self, verb: str, words: list[str]) -> Stop:
        """Enable or disable an addon, with all the traps."""
        if "-h" in words or "--help" in words:
            return Stop(0, f"Addon {words[0]} does not yet have a help message.")
        there = {(repository, name) for repository, name, _text in self.available()}
        names = {name for _repository, name in there} | {f"{repository}/{name}" for repository, name in there}
        several = {word.split(":")[0] for word in words} < names
        out, changed = [], False
        for word in words if several else words[:1]:
            name, *arguments = word.split(":")
            arguments = arguments if several else words[1:]
            repository, _slash, addon = name.rpartition("/")
            if not repository:
                found = sorted(entry[0] for entry in there if entry[1] == addon)
                if not found:
                    return Stop(1, "\n".join(out), f"Addon {addon} was not found in any repository")
                if len(found) > 1:
                    return Stop(1, err=f"Addon {addon} exists in more than repository. Please explicitly specify\nthe repository")
                repository = found[0]
                out.append(f"Infer repository {repository} for addon {addon}")
            if (repository, addon) not in there or f"{repository}/{addon}" in self.knobs.get("gone", ()):
                out.append(f"Addon {repository}/{addon} not found")
                continue
            key = addon if repository == "core" else f"{repository}/{addon}"
            if (key in self.cluster["enabled"]) is (verb == "enable"):
                out.append(f"Addon {repository}/{addon} is already {verb}d")
                continue
            changed = self._hook(verb, key, addon, arguments) or changed
            out.append(f"{addon} is {verb}d")
        return Stop(0, "\n".join(out))

    def _hook(self, verb: str, key: str, addon: str, arguments: list[str]) -> bool:
        """Do what the addon's own hook does."""
        if verb == "enable" and addon == "metallb" and not arguments:
            raise Stop(1, "Enabling MetalLB")
        together = next((alias for alias in ALIASES if key in alias), {key})
        if verb == "enable":
            self.cluster["enabled"] += sorted(together)
            self.cluster["arguments"][key] = arguments
            self.cluster["workloads"][key] = secrets.token_hex(8)
            self.cluster["rolling"] = self.knobs.get("rolling") or 0
        else:
            self.cluster["enabled"] = [entry for entry in self.cluster["enabled"] if entry not in together]
            for entry in together:
                self.cluster["arguments"].pop(entry, None)
                self.cluster["workloads"].pop(entry, None)
            if addon == "hostpath-storage" and arguments != ["destroy-storage"]:
                raise Stop(1, "Disabling default storage\nRemove PVC storage at /var/snap/microk8s/common/default-storage ? (Y/N): ")
        return True

    def add_node(self, words: list[str]) -> Stop:
        """Mint a token: every call appends one."""
        seconds = int(words[words.index("--token-ttl") + 1]) if "--token-ttl" in words else -1
        token = words[words.index("--token") + 1] if "--token" in words else secrets.token_hex(16)
        if len(token) < 32:
            return Stop(1, "Invalid token size.  It must be 32 characters long.")
        self.cluster["tokens"].append({"token": token, "until": None if seconds == -1 else time.time() + seconds})
        urls = [f"{address}:25000/{token}/aabbccddeeff" for address in (self.address(), f"fd00::{self.own['number']}")]
        if "json" not in words:
            return Stop(0, f"From the node you wish to join to this cluster, run the following:\nmicrok8s join {urls[0]}")
        return Stop(0, json.dumps({"token": f"{token}/aabbccddeeff", "urls": urls}, indent=2))

    def join(self, words: list[str]) -> Stop:
        """Join by a token."""
        if not words:
            return Stop(2, err="Usage: microk8s join [OPTIONS] CONNECTION")
        if self.knobs.get("join_code"):
            return Stop(self.knobs["join_code"], f"Contacting cluster at {words[0]}", "Connection failed.")
        if self.count("low_memory") and "--worker" not in words:
            return Stop(
                1, f"This node does not have enough RAM to host the Kubernetes control plane services\nmicrok8s join {words[0]} --worker"
            )
        _place, token = words[0].split("/")[:2]
        for name, cluster in self.state["clusters"].items():
            for entry in list(cluster["tokens"]):
                if entry["token"] != token or (entry["until"] is not None and entry["until"] < time.time()):
                    continue
                if entry["until"] is None:
                    cluster["tokens"].remove(entry)
                self.own.update(cluster=name, role="worker" if "--worker" in words else "control_plane")
                return Stop(0, f"Contacting cluster at {self.address(name)}\nSuccessfully joined the cluster.")
        return Stop(6, "Connection failed. invalid token (500).")

    def leave(self, _words: list[str]) -> Stop:
        """Leave the cluster."""
        if self.own["cluster"] == self.name:
            return Stop(1, "This MicroK8s deployment is not acting as a node in a cluster.")
        if self.knobs.get("only_copy"):
            return Stop(3, "This node currently holds the only copy of the Kubernetes database so it cannot leave the cluster.")
        self.cluster["left"].append(self.name)
        self.own.update(cluster=self.name, role="control_plane")
        self.state["clusters"][self.name] = new_cluster()
        return Stop(0, "Generating new cluster certificates.\nWaiting for node to start.")

    def remove_node(self, words: list[str]) -> Stop:
        """Let the cluster forget a node."""
        name = words[0]
        if name not in self.node_names():
            return Stop(1, f"Node {name} does not exist in Kubernetes.")
        if name in self.members() and "--force" not in words:
            return Stop(
                1, f"Removal failed. Node {name} is registered with dqlite. Please, run first 'microk8s leave' on the departing node. "
            )
        self.cluster["left"] = [entry for entry in self.cluster["left"] if entry != name]
        for key in ("cordoned", "drained"):
            self.cluster[key] = [entry for entry in self.cluster[key] if entry != name]
        self.cluster["marked"].pop(name, None)
        if name in self.state["nodes"] and self.state["nodes"][name].get("cluster") == self.own["cluster"]:
            self.state["nodes"][name].update(cluster=name, role="control_plane")
            self.state["clusters"][name] = new_cluster()
        return Stop(0)

    def node_names(self) -> list[str]:
        """Return the names of the nodes that Kubernetes has: who left is among them until it is removed."""
        return [name for name, node in self.state["nodes"].items() if node.get("cluster") == self.own["cluster"]] + self.cluster["left"]

    def config(self, _words: list[str]) -> Stop:
        """Print the kubeconfig."""
        if self.knobs.get("kubeconfig"):
            return Stop(0, Path(self.knobs["kubeconfig"]).read_text())
        server = f"https://{self.address()}:16443"
        return Stop(
            0,
            "apiVersion: v1\nkind: Config\nclusters:\n- name: microk8s-cluster\n"
            f"  cluster: {{server: '{server}'}}\ncontexts:\n- name: microk8s\n  context: {{cluster: microk8s-cluster, user: admin}}\n"
            "current-context: microk8s\nusers:\n- name: admin\n  user: {token: double-admin-token}\n",
        )

    # --- kubectl

    def kubectl(self, words: list[str]) -> Stop:
        """Be kubectl, as far as the collection uses it; or the real one on a real cluster."""
        if self.knobs.get("kubeconfig"):
            os.execv(self.knobs["kubectl"], ["kubectl", f"--kubeconfig={self.knobs['kubeconfig']}", *words])
        if self.count("away"):
            return Stop(1, err="The connection to the server 127.0.0.1:16443 was refused - did you specify the right host or port?")
        verb, what = words[0], (words[1] if len(words) > 1 else "")
        if verb in ("cordon", "uncordon", "drain"):
            return self._cordon(verb, what)
        if verb == "annotate":
            key, _equals, value = words[3].partition("=")
            marks = {name: mark for name, mark in self.cluster["marked"].items() if name != words[2]}
            self.cluster["marked"] = marks if key.endswith("-") else {**marks, words[2]: value}
            return Stop(0, f"node/{words[2]} annotated")
        if verb == "get" and what == "nodes":
            return Stop(0, json.dumps({"kind": "List", "items": [self._node(name) for name in self.node_names()]}))
        if verb == "get" and what == "pods":
            name = next(word for word in words if word.startswith("--field-selector=")).rpartition("=")[2]
            return Stop(0, json.dumps({"kind": "List", "items": self._pods(name)}))
        if verb == "get" and what == "configmap":
            data = self.cluster["record"]
            return Stop(0, "" if data is None else json.dumps({"kind": "ConfigMap", "data": data}))
        if verb == "get":
            return Stop(0, json.dumps({"kind": "List", "items": self._workloads()}))
        if verb == "create" and what == "configmap":
            if self.cluster["record"] is not None:
                return Stop(1, err=f'error: failed to create configmap: configmaps "{words[2]}" already exists')
            key, _equals, value = words[-1].removeprefix("--from-literal=").partition("=")
            self.cluster["record"] = {key: value}
            return Stop(0, f"configmap/{words[2]} created")
        if verb == "patch":
            patch = json.loads(words[-1].removeprefix("--patch="))
            merged = {**(self.cluster["record"] or {}), **patch["data"]}
            self.cluster["record"] = {key: value for key, value in merged.items() if value is not None}
            return Stop(0, f"configmap/{words[2]} patched")
        return Stop(1, err=f"error: the double has no kubectl {verb} {what}")

    def _cordon(self, verb: str, name: str) -> Stop:
        """Cordon, uncordon or drain a node."""
        if name not in self.node_names():
            return Stop(1, err=f'Error from server (NotFound): nodes "{name}" not found')
        cordoned = set(self.cluster["cordoned"])
        self.cluster["cordoned"] = sorted(cordoned - {name} if verb == "uncordon" else cordoned | {name})
        if verb == "drain" and self.knobs.get("stuck_pod"):
            return Stop(1, err="error: unable to drain node: Cannot evict pod as it would violate the pod's disruption budget.")
        if verb == "drain":
            self.cluster["drained"] = sorted({*self.cluster["drained"], name})
        if verb == "uncordon":
            self.cluster["drained"] = [entry for entry in self.cluster["drained"] if entry != name]
        return Stop(0, f"node/{name} {verb}ed")

    def _node(self, name: str) -> dict[str, Any]:
        """Return a node as Kubernetes has it."""
        there = self.state["nodes"].get(name) or {}
        member = there.get("cluster") == self.own["cluster"]
        labels = {"node.kubernetes.io/microk8s-worker": "microk8s-worker"} if member and there.get("role") == "worker" else {}
        ready = member and not there.get("stopped")
        return {
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": {"progressive.delivery/drained": self.cluster["marked"][name]} if name in self.cluster["marked"] else {},
            },
            "spec": {"unschedulable": True} if name in self.cluster["cordoned"] else {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": self.address(name)}, {"type": "Hostname", "address": name}],
                "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
                "nodeInfo": {"kubeletVersion": (there.get("snap") or {}).get("version", "")},
            },
        }

    def _pods(self, name: str) -> list[dict[str, Any]]:
        """Return the pods of a node: one of a DaemonSet, and one that a drain takes off."""
        owners = [("calico-node", "DaemonSet")] + ([] if name in self.cluster["drained"] else [("web", "ReplicaSet")])
        return [
            {
                "metadata": {"name": f"{pod}-{name}", "namespace": "shop", "ownerReferences": [{"kind": kind, "controller": True}]},
                "status": {"phase": "Running"},
            }
            for pod, kind in owners
        ]

    def _workloads(self) -> list[dict[str, Any]]:
        """Return a Deployment for each addon."""
        ready = 1
        if self.cluster.get("rolling"):
            self.cluster["rolling"] -= 1
            ready = 0
        return [
            {
                "kind": "Deployment",
                "metadata": {"uid": uid, "name": key.rpartition("/")[2], "namespace": "kube-system", "generation": 1},
                "spec": {"replicas": 1},
                "status": {"observedGeneration": 1, "readyReplicas": ready, "updatedReplicas": 1},
            }
            for key, uid in self.cluster["workloads"].items()
        ]

    # --- snap

    def snap(self, arguments: list[str]) -> Stop:
        """Be the program snap."""
        verb, words = arguments[0], arguments[1:]
        found = self.own["snap"]
        if verb == "list":
            if not found:
                return Stop(1, err="error: no matching snaps installed")
            notes = [note for note, on in (("classic", found["classic"]), ("held", found["held"])) if on]
            head = "Name      Version  Rev   Tracking     Publisher    Notes"
            return Stop(
                0, f"{head}\nmicrok8s  {found['version']}  {found['revision']}  {found['channel']}  canonical**  {','.join(notes) or '-'}"
            )
        if self.knobs.get("snap_busy"):
            return Stop(1, err='error: snap "microk8s" has "refresh-snap" change in progress')
        flags = {word.split("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}
        channel = flags.get("--channel", "")
        if channel and self.knobs.get("store_down"):
            return Stop(1, err="error: unable to contact snap store")
        if verb == "install":
            # Of a snap that is strictly confined, snapd takes no notice of the flag.
            return self._install(channel, "--classic" in flags and "-strict" not in channel)
        if not found:
            return Stop(1, err='error: snap "microk8s" is not installed')
        if verb == "remove":
            self.own.update(snap=None, cluster=None)
            (self.root / self.name / "bin" / "microk8s").unlink()
            return Stop(0, "microk8s removed")
        if verb == "refresh" and ("--hold" in flags or "--unhold" in flags):
            if self.knobs.get("old_snapd"):
                return Stop(1, err="error: unknown flag `hold'")
            found["held"] = "--hold" in flags
            return Stop(
                0, 'General refreshes of "microk8s" held indefinitely' if found["held"] else "Removed general refresh hold of microk8s"
            )
        if verb == "refresh":
            found.update(version_of(channel), channel=channel)
            return Stop(0, f"microk8s ({channel}) {found['version']} from Canonical refreshed")
        return Stop(1, err=f"error: unknown command {verb}")

    def _install(self, channel: str, classic: bool) -> Stop:
        """Install; the hook reads the launch configuration, and a bad one fails it."""
        if "-strict" not in channel and not classic:
            return Stop(1, err='error: This revision of snap "microk8s" was published using classic confinement')
        folder = self.root / self.name / "var"
        launch = folder / "common" / ".microk8s.yaml"
        enabled = [*BY_DEFAULT, "dns"]
        if launch.exists():
            import site

            site.main()
            import yaml

            document = yaml.safe_load(launch.read_text())
            if not isinstance(document, dict) or document.get("version") not in ("0.1.0", "0.2.0"):
                return Stop(1, err='error: cannot perform the following tasks:\n- Run install hook of "microk8s" snap (exit status 1)')
            enabled = [*BY_DEFAULT, *(entry["name"] for entry in document.get("addons") or ())]
        for name in ("common", "current/args"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.own.update(
            snap={**version_of(channel), "channel": channel, "classic": classic, "held": False},
            cluster=self.name,
            role="control_plane",
            stopped=False,
        )
        self.state["clusters"][self.name] = {**new_cluster(), "enabled": enabled, "shown": enabled}
        _script(self.root, self.name, "microk8s")
        return Stop(0, f"microk8s ({channel}) {self.own['snap']['version']} from Canonical installed")


def version_of(channel: str) -> dict[str, str]:
    """Return the version and the revision that a channel has."""
    found = re.match(r"1\.(\d+)", channel)
    minor = int(found.group(1)) if found else 36
    return {"version": f"v1.{minor}.2", "revision": str(7000 + minor)}


def new_cluster() -> dict[str, Any]:
    """Return a cluster of one node."""
    enabled = [*BY_DEFAULT, "dns"]
    return {
        "enabled": enabled,
        "shown": enabled,
        "arguments": {},
        "workloads": {},
        "repositories": ["core"],
        "tokens": [],
        "left": [],
        "cordoned": [],
        "drained": [],
        "marked": {},
        "record": None,
        "rolling": 0,
    }


def answer(program: str, root: Path, name: str, arguments: list[str]) -> Stop | None:
    """Return what a program on a node says and its exit code, or None where it never ends."""
    with opened(root) as state:
        with open(root / "calls.jsonl", "a") as log:
            log.write(json.dumps([name, program, *arguments]) + "\n")
        node = Node(root, name, state)
        if arguments and arguments[0] in node.knobs.get("hang", ()):
            return None
        try:
            return node.microk8s(arguments) if program == "microk8s" else node.snap(arguments)
        except Stop as stop:
            return stop


def be(program: str, root: Path, name: str, arguments: list[str]) -> int:
    """Be a program on a node; return its exit code."""
    found = answer(program, root, name, arguments)
    if found is None:
        print("Waiting for Metallb controller to be ready.", flush=True)
        time.sleep(3600)
        return 1
    for text, stream in ((found.out, sys.stdout), (found.err, sys.stderr)):
        if text:
            print(text, file=stream)
    return found.code


def main(words: list[str]) -> int:
    """Run the command that the first word names."""
    what, root, *rest = words
    if what == "make":
        shutil.rmtree(root, ignore_errors=True)
        make(Path(root), rest)
        return 0
    if what == "knob":
        knob(Path(root), rest[0], json.loads(rest[1]))
        return 0
    return be(what, Path(root), rest[0], rest[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
