# SPDX-License-Identifier: GPL-3.0-or-later
"""promtool, which checks and tests rules of Prometheus: the machine's own, or taken out of Debian's package, once."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def cache() -> Path:
    """Return the folder for what is fetched once."""
    return Path(os.environ.get("PROGRESSIVE_DELIVERY_CACHE") or Path.home() / ".cache" / "progressive-delivery")


def find() -> tuple[str, str]:
    """Return the path of promtool, or an empty one and the reason why there is none.

    The package is downloaded and unpacked, not installed, so that no Prometheus is started.
    """
    kept = cache() / "promtool"
    found = shutil.which("promtool") or (str(kept) if kept.exists() else "")
    if found:
        return found, ""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "", "there is no promtool, and no apt-get to take it out of Debian's package prometheus"
    with tempfile.TemporaryDirectory(prefix="promtool-") as scratch:
        for command in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", "prometheus"]):
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        packages = list(Path(scratch).glob("prometheus_*.deb"))
        if done.returncode or not packages:
            return "", f"there is no promtool, and Debian's package prometheus cannot be had: {' '.join(done.stderr.split())[:200]}"
        subprocess.run(["dpkg", "-x", str(packages[0]), f"{scratch}/unpacked"], check=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # In one move, so that two tests at once do not see half of it.
        arriving = kept.with_name(f"promtool.{os.getpid()}")
        shutil.copy2(f"{scratch}/unpacked/usr/bin/promtool", arriving)
        arriving.rename(kept)
    return str(kept), ""
