# SPDX-License-Identifier: GPL-3.0-or-later
"""What kubelet, containerd and CNI change of the machine itself: remembered before the first cluster, put back after the last."""

from __future__ import annotations

import json
from pathlib import Path

from . import config
from .processes import boot_id

TUNABLES = Path("/proc/sys")
# What the kubelet sets; nothing tells it not to.
SETTINGS = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
# These paths are compiled in; the deepest come first.
SOCKET = "/var/lib/kubelet/device-plugins/kubelet.sock"
FOLDERS = (
    "/run/containerd/s",
    "/run/containerd",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/log/containers",
)


def remember() -> None:
    """Remember the kernel's settings and which folders are absent, unless that was done for an earlier cluster."""
    with config.locked(config.STATE / ".lock"):
        known = _read()
        absent = known["absent"] if known else [path for path in (SOCKET, *FOLDERS) if not Path(path).exists()]
        if known.get("boot") == boot_id():
            return
        settings = {name: (TUNABLES / name).read_text().strip() for name in SETTINGS if (TUNABLES / name).exists()}
        _file().write_text(json.dumps({"boot": boot_id(), "settings": settings, "absent": absent}))


def put_back() -> None:
    """Put back the settings that still are the kubelet's, and remove the folders that were absent, once there is no cluster any more."""
    with config.locked(config.STATE / ".lock"):
        known = _read()
        if not known or config.known():
            return
        if known["boot"] == boot_id():
            for name, value in known["settings"].items():
                if value != SETTINGS.get(name) == (TUNABLES / name).read_text().strip():
                    (TUNABLES / name).write_text(value)
        for path in known["absent"]:
            _remove(Path(path))
        _file().unlink()


def _file() -> Path:
    """Return the file that remembers."""
    return config.STATE / ".host"


def _read() -> dict[str, object]:
    """Return what is remembered; nothing where there is no file, or half of one."""
    try:
        return json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}


def _remove(path: Path) -> None:
    """Remove a socket or an empty folder; what others put in meanwhile stays."""
    try:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    except OSError:
        pass
