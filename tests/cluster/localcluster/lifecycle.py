# SPDX-License-Identifier: GPL-3.0-or-later
"""Up and down: each finds out what is there, and does what is missing."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Container
from pathlib import Path

from . import addons, build, components, host, images, network, pki
from .config import STATE, Cluster, ClusterError, allocate, find, locked
from .processes import NAMES, boot_id, forget_ended, pid_of, run, signal_to, started_on, stop, wait_alive, wait_until

PACKAGES = {
    "conntrack": "conntrack",
    "ip": "iproute2",
    "ss": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "sysctl": "procps",
}
FILES = {"/usr/lib/cni/bridge": "containernetworking-plugins"}
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"


def missing_packages() -> list[str]:
    """Return the Debian packages that are not there."""
    absent = [package for command, package in PACKAGES.items() if not shutil.which(command, path=SEARCH)]
    absent += [package for path, package in FILES.items() if not Path(path).exists()]
    if not images.BUSYBOX.exists() or not Path("/usr/share/doc/busybox-static").exists():
        absent.append("busybox-static")
    return absent


def ensure_packages(wanted: Container[str] | None = None) -> None:
    """Install the Debian packages that are missing, all or those wanted, or say which they are."""
    absent = [package for package in missing_packages() if wanted is None or package in wanted]
    if not absent:
        return
    words = " ".join(absent)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ClusterError(f"the cluster needs programs that are missing; install Debian's packages or their counterparts: {words}")
    print(f"installing Debian packages: {words}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *absent]):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def up(name: str) -> Cluster:
    """Bring the cluster up, from nothing or from whatever state it is in, and return it when it is ready."""
    if os.geteuid() != 0:
        raise ClusterError("the cluster needs root, for network namespaces and containers; run it with sudo")
    ensure_packages()
    for part in build.BASE:
        build.build(part)
    cluster = allocate(name)
    with locked(STATE / f".{name}.lock"):
        if not (cluster.dir / "number").exists():
            raise ClusterError(f"cluster {name} was taken down meanwhile; run it again")
        _forget_other_boot(cluster)
        if not is_healthy(cluster):
            _start(cluster)
        images.ensure(cluster)
        addons.ensure(cluster)
    return cluster


def _start(cluster: Cluster) -> None:
    """Start what does not run, in the order in which it is needed."""
    started = time.monotonic()
    print(f"starting cluster {cluster.name}", flush=True)
    forget_ended(cluster)
    host.remember()
    network.ensure(cluster)
    network.ensure_cgroup(cluster)
    pki.ensure(cluster)
    components.write(cluster)
    components.start_base(cluster)
    wait_alive(cluster, lambda: _registry_answers(cluster), "the registry", 30)
    images.ensure(cluster)
    wait_alive(cluster, lambda: ask(cluster, "/readyz") is not None, "the API server", 90)
    components.start_rest(cluster)
    wait_alive(cluster, lambda: node_is_ready(cluster), "a ready node", 120)
    print(f"cluster {cluster.name} is ready after {time.monotonic() - started:.1f} s", flush=True)


def is_healthy(cluster: Cluster) -> bool:
    """Return whether everything runs and answers."""
    running = all(pid_of(cluster, name) for name in NAMES)
    return running and network.exists(cluster) and node_is_ready(cluster)


def node_is_ready(cluster: Cluster) -> bool:
    """Return whether the node says that it is ready, and said so after it was started."""
    node = ask(cluster, "/api/v1/nodes/node-1")
    if not node:
        return False
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started_on(cluster, "kubelet")))
    conditions = {entry["type"]: entry["status"] for entry in node["status"].get("conditions", []) if entry["lastHeartbeatTime"] >= since}
    tainted = any(taint["key"].startswith("node.kubernetes.io/") for taint in node["spec"].get("taints") or [])
    return conditions.get("Ready") == "True" and not tainted


def ask(cluster: Cluster, path: str) -> dict[str, object] | None:
    """GET a path of the API server as its administrator; None where it does not answer or not well."""
    try:
        context = ssl.create_default_context(cafile=str(cluster.dir / "pki" / "ca.crt"))
        context.load_cert_chain(cluster.dir / "pki" / "admin.crt", cluster.dir / "pki" / "admin.key")
        connection = http.client.HTTPSConnection(cluster.address, 6443, timeout=3, context=context)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read()
        connection.close()
    except (OSError, http.client.HTTPException):
        return None
    if response.status != 200:
        return None
    return json.loads(text) if text.startswith(b"{") else {"text": text.decode()}


def _registry_answers(cluster: Cluster) -> bool:
    """Return whether the registry listens."""
    return ":32000" in run(["nsenter", f"--net=/run/netns/{cluster.netns}", "ss", "-Hltn"], check=False)


def _forget_other_boot(cluster: Cluster) -> None:
    """After a reboot nothing runs and the databases were cut off: start again with an empty cluster."""
    mark = cluster.dir / "boot"
    if mark.exists() and mark.read_text() != boot_id():
        for name in ("etcd", "kubelet", "containerd", "cni-addresses", "pids"):
            shutil.rmtree(cluster.dir / name, ignore_errors=True)
    mark.write_text(boot_id())


def down(name: str) -> bool:
    """Take the cluster down with all that it left; return whether there was one."""
    cluster = find(name)
    if cluster is None:
        return False
    if os.geteuid() != 0:
        raise ClusterError("the cluster needs root, to be taken down too; run it with sudo")
    with locked(STATE / f".{name}.lock"):
        for component in ("kube-proxy", "kubelet", "kube-scheduler", "kube-controller-manager"):
            stop(cluster, component)
        sockets = _shim_sockets(cluster)
        shims = _shims(cluster)
        network.kill_cgroup(cluster)
        _end(lambda: [pid for pid in _shims(cluster) if pid in shims])
        for component in ("containerd", "kube-apiserver", "registry", "etcd"):
            stop(cluster, component)
        _unmount(cluster)
        for path in sockets:
            path.unlink(missing_ok=True)
        network.remove(cluster)
        for path in Path("/var/log/containers").glob("*.log"):
            if path.is_symlink() and str(path.readlink()).startswith(f"{cluster.dir}/"):
                path.unlink()
        _remove_cni_results(cluster)
        _remove_folder(cluster)
    (STATE / f".{name}.lock").unlink(missing_ok=True)
    host.put_back()
    return True


def _shims(cluster: Cluster) -> list[int]:
    """Return the pids of the containers' shims, which name the cluster's containerd in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"containerd-shim-runc-v2" in words[0] and str(cluster.socket).encode() in words:
            found.append(int(path.parent.name))
    return found


def _shim_sockets(cluster: Cluster) -> list[Path]:
    """Return the sockets on which the shims listen; they lie outside of the cluster's folder."""
    found = []
    for path in (cluster.dir / "containerd" / "state").glob("io.containerd.runtime.v2.task/*/*/bootstrap.json"):
        address = json.loads(path.read_text()).get("address", "")
        found.append(Path(address.removeprefix("unix://")))
    return found


def _end(find_pids: Callable[[], list[int]]) -> None:
    """End processes until none is found."""

    def gone() -> bool:
        pids = find_pids()
        for pid in pids:
            signal_to(pid, signal.SIGKILL)
        return not pids

    wait_until(gone, 10)


def _unmount(cluster: Cluster) -> None:
    """Unmount everything in the cluster's folder, the deepest first."""
    for _round in range(3):
        points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        mine = sorted((point for point in points if point.startswith(f"{cluster.dir}/")), reverse=True)
        if not mine:
            return
        for point in mine:
            run(["umount", "-l", point], check=False)


def _remove_cni_results(cluster: Cluster) -> None:
    """Remove what the CNI library remembers of the cluster's pods, and no other cluster's whose name begins alike."""
    results = Path("/var/lib/cni/results")
    for path in list(results.glob(f"pods-{cluster.name}-*")):
        found = re.fullmatch(rf"pods-{cluster.name}-([0-9a-f]{{64}})-eth0", path.name)
        if found:
            path.unlink(missing_ok=True)
            (results / f"cni-loopback-{found[1]}-lo").unlink(missing_ok=True)


def _remove_folder(cluster: Cluster) -> None:
    """Remove the cluster's folder, its number last: a removal that was interrupted can be asked for again."""
    for path in cluster.dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "number":
            path.unlink()
    shutil.rmtree(cluster.dir)
