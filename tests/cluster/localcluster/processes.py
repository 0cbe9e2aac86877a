# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of a cluster: started in its namespace, known by pid and start time, ended only when they are ours."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .config import Cluster, ClusterError

NAMES = ("etcd", "containerd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "registry")


def boot_id() -> str:
    """Return what identifies this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_at(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot, or None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _pidfile(cluster: Cluster, name: str) -> Path:
    """Return the file that remembers a process."""
    return cluster.dir / "pids" / name


def pid_of(cluster: Cluster, name: str) -> int | None:
    """Return the pid of a component that runs, or None; a pid that now is another process is none of ours."""
    try:
        pid, ticks, boot = _pidfile(cluster, name).read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if boot == boot_id() and started_at(int(pid)) == ticks else None


def start(cluster: Cluster, name: str, command: Sequence[str], path: Sequence[str] = ()) -> bool:
    """Start a component in the cluster's network namespace unless it runs; return whether it was started."""
    if pid_of(cluster, name):
        return False
    log = cluster.dir / "log" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": ":".join([*path, os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])}
    environment.pop("KUBECONFIG", None)
    pidfile = _pidfile(cluster, name)
    pidfile.parent.mkdir(exist_ok=True)

    def remember() -> None:
        pidfile.write_text(f"{os.getpid()} {started_at(os.getpid())} {boot_id()}")

    with log.open("a") as handle:
        # The process itself writes its pid, before it is what it will be: whoever is killed here, none runs unknown.
        subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{cluster.netns}", *command],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            env=environment,
            cwd="/",
            preexec_fn=remember,
        )
    return True


def stop(cluster: Cluster, name: str, patience: float = 8.0) -> None:
    """End a component: ask, wait, insist."""
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        pid = pid_of(cluster, name)
        if pid:
            signal_to(pid, number)
            wait_until(lambda: pid_of(cluster, name) is None, seconds)
    _pidfile(cluster, name).unlink(missing_ok=True)


def signal_to(pid: int, number: int) -> None:
    """Send a signal to a process, which may have ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def forget_ended(cluster: Cluster) -> None:
    """Forget the components that have ended: they are started anew, and not taken for ones that just failed."""
    for name in NAMES:
        if pid_of(cluster, name) is None:
            _pidfile(cluster, name).unlink(missing_ok=True)


def started_on(cluster: Cluster, name: str) -> float:
    """Return when a component was started, in seconds since the epoch; 0 where it never was."""
    try:
        return _pidfile(cluster, name).stat().st_mtime
    except OSError:
        return 0.0


def last_words(cluster: Cluster, name: str, lines: int = 4) -> str:
    """Return the last lines of a component's log."""
    log = cluster.dir / "log" / f"{name}.log"
    return " / ".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def wait_until(holds: Callable[[], bool], timeout: float, pause: float = 0.05) -> bool:
    """Return whether the condition came to hold within the time."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def wait_alive(cluster: Cluster, holds: Callable[[], bool], what: str, timeout: float) -> None:
    """Wait for a condition; raise ClusterError with the last words of a component that ended meanwhile, or at the deadline."""
    deadline = time.monotonic() + timeout
    while not holds():
        for name in NAMES:
            if _pidfile(cluster, name).exists() and pid_of(cluster, name) is None:
                raise ClusterError(f"{name} of cluster {cluster.name} ended: {last_words(cluster, name)}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} did not come within {timeout:.0f} s; logs are in {cluster.dir / 'log'}")
        time.sleep(0.1)


def run(command: Sequence[str], check: bool = True, data: str | None = None) -> str:
    """Run a command and return its output; raise ClusterError with its own words where it fails."""
    done = subprocess.run(list(command), input=data, capture_output=True, text=True, check=False)
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ClusterError(f"{' '.join(command[:4])} failed: {said}")
    return done.stdout
