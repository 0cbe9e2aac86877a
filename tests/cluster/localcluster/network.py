# SPDX-License-Identifier: GPL-3.0-or-later
"""The network namespace of a cluster, its link to the host, its cgroup, and the way to take them away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from .config import SERVICES, Cluster
from .processes import run, signal_to

CGROUPS = Path("/sys/fs/cgroup")


def ensure(cluster: Cluster) -> None:
    """Make what is missing of the namespace: one link to the host, and a default route that ends in a bridge without ports.

    So the host reaches the API server, and nothing in the namespace reaches anything outside of it.
    """
    inside = ["ip", "-n", cluster.netns]
    if cluster.netns not in {line.split()[0] for line in run(["ip", "netns", "list"]).splitlines() if line.strip()}:
        run(["ip", "netns", "add", cluster.netns])
    if not Path(f"/sys/class/net/{cluster.link}").exists():
        run(["ip", "link", "add", cluster.link, "type", "veth", "peer", "name", "eth0", "netns", cluster.netns])
    run(["ip", "addr", "replace", f"{cluster.host_address}/24", "dev", cluster.link])
    run(["ip", "link", "set", cluster.link, "up"])
    run([*inside, "addr", "replace", f"{cluster.address}/24", "dev", "eth0"])
    run([*inside, "link", "set", "eth0", "up"])
    run([*inside, "link", "set", "lo", "up"])
    # The kernel has no dummy device here; an empty bridge swallows what it is sent just as well.
    if "sink" not in run([*inside, "-br", "link"]):
        run([*inside, "link", "add", "sink", "type", "bridge"])
    run([*inside, "link", "set", "sink", "up"])
    run([*inside, "route", "replace", SERVICES, "dev", "sink"])
    run([*inside, "route", "replace", "default", "dev", "sink"])
    for switch in ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"):
        run(["nsenter", f"--net=/run/netns/{cluster.netns}", "sysctl", "-qw", switch])


def exists(cluster: Cluster) -> bool:
    """Return whether the namespace and the link are there."""
    return Path(f"/run/netns/{cluster.netns}").exists() and Path(f"/sys/class/net/{cluster.link}").exists()


def remove(cluster: Cluster) -> None:
    """Take the namespace and the link away."""
    run(["ip", "netns", "del", cluster.netns], check=False)
    run(["ip", "link", "del", cluster.link], check=False)


def hierarchies() -> list[Path]:
    """Return the roots of the cgroup hierarchies: one with version 2, one a controller with version 1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return sorted({path.resolve() for path in CGROUPS.iterdir() if path.is_dir()})


def ensure_cgroup(cluster: Cluster) -> None:
    """Make the cgroup under which the kubelet puts its pods, so that two kubelets leave each other's alone."""
    for root in hierarchies():
        group = root / cluster.cgroup.strip("/")
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (root / name).exists() and (group / name).exists() and not (group / name).read_text().strip():
                (group / name).write_text((root / name).read_text())
        if (root / "cgroup.controllers").exists():
            enabled = " ".join(f"+{word}" for word in (root / "cgroup.controllers").read_text().split())
            for folder in (root, group):
                (folder / "cgroup.subtree_control").write_text(enabled)


def kill_cgroup(cluster: Cluster) -> None:
    """End every process of the cluster's pods, and take its cgroups away."""
    groups = [root / cluster.cgroup.strip("/") for root in hierarchies()]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = {pid for folder in _folders(groups) for pid in _read(folder / "cgroup.procs")}
        if not pids:
            break
        for pid in pids:
            signal_to(pid, signal.SIGKILL)
        time.sleep(0.05)
    for folder in _folders(groups):
        _rmdir(folder)


def _folders(groups: Iterable[Path]) -> list[Path]:
    """Return cgroups with all that are in them, the deepest first; containerd may remove some meanwhile, which os.walk passes over."""
    return [Path(path) for group in groups for path, _names, _files in os.walk(group, topdown=False)]


def _read(path: Path) -> list[int]:
    """Return the pids in a cgroup.procs file; it may vanish meanwhile."""
    try:
        return [int(word) for word in path.read_text().split()]
    except OSError:
        return []


def _rmdir(folder: Path) -> None:
    """Remove a cgroup; the kernel needs a moment after its last process has ended."""
    for _attempt in range(40):
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
