# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things live, and the numbers of a cluster: each has its own namespace, addresses, sockets and folders."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
STATE = Path("/var/lib/progressive-delivery/clusters")
MOST_CLUSTERS = 200
REGISTRY = "localhost:32000"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/24"
DNS = "10.96.0.10"


class ClusterError(Exception):
    """What went wrong, in one sentence."""


def cache() -> Path:
    """Return the folder of what was built, outside of the checkout."""
    base = os.environ.get("PROGRESSIVE_DELIVERY_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "progressive-delivery"


@dataclass(frozen=True)
class Cluster:
    """One cluster: its name, and the number from which its addresses come."""

    name: str
    number: int

    @property
    def dir(self) -> Path:
        """Return the folder that holds everything of the cluster."""
        return STATE / self.name

    @property
    def netns(self) -> str:
        """Return the name of the network namespace."""
        return f"pd-{self.name}"

    @property
    def link(self) -> str:
        """Return the name of the interface on the host's side."""
        return f"pd{self.number}host"

    @property
    def address(self) -> str:
        """Return the address of the node, in its namespace."""
        return f"10.77.{self.number}.2"

    @property
    def host_address(self) -> str:
        """Return the address of the host's side."""
        return f"10.77.{self.number}.1"

    @property
    def cgroup(self) -> str:
        """Return the cgroup under which the kubelet keeps its pods."""
        return f"/pd-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        """Return the administrator's kubeconfig, for use from the host."""
        return self.dir / "admin.kubeconfig"

    @property
    def socket(self) -> Path:
        """Return containerd's socket."""
        return self.dir / "containerd.sock"


def check_name(name: str) -> str:
    """Return the name, or raise ClusterError: it becomes part of sockets, interfaces and cgroups."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name):
        raise ClusterError(f'"{name}" is no name for a cluster: use up to 20 lower-case letters, digits and dashes, a letter first')
    return name


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a file for as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def find(name: str) -> Cluster | None:
    """Return the cluster of that name, or None where there is none."""
    try:
        return Cluster(name, int((STATE / name / "number").read_text()))
    except PermissionError:
        raise ClusterError("the clusters of this machine belong to root; run it with sudo") from None
    except (OSError, ValueError):
        return None


def known() -> list[Cluster]:
    """Return all clusters that have state on this machine."""
    names = sorted(path.name for path in STATE.iterdir() if path.is_dir()) if STATE.exists() else []
    return [cluster for cluster in map(find, names) if cluster]


def allocate(name: str) -> Cluster:
    """Return the cluster of that name, with a free number where it is new."""
    with locked(STATE / ".lock"):
        found = find(check_name(name))
        if found:
            return found
        taken = {cluster.number for cluster in known()}
        number = next((candidate for candidate in range(MOST_CLUSTERS) if candidate not in taken), None)
        if number is None:
            raise ClusterError(f"there are {MOST_CLUSTERS} clusters already; take one down first")
        (STATE / name).mkdir(mode=0o700, exist_ok=True)
        unfinished = STATE / name / "number.new"
        unfinished.write_text(str(number))
        unfinished.rename(STATE / name / "number")
        return Cluster(name, number)
