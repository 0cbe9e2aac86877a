#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the checkout's virtual environment: pinned packages, kubernetes.core, and this collection where Ansible finds it.

Runs on any Python 3.8 or newer, with the standard library alone, and looks for the newest Python from 3.11 on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
VERSIONS = ((3, 14), (3, 13), (3, 12), (3, 11))
# Users get kubernetes.core from a Galaxy server, by galaxy.yml. The package "ansible" carries it too.
BUNDLES = {"py311": "ansible==12.3.0", "py312": "ansible==14.5.0"}
TAKEN = "ansible_collections/kubernetes/"


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def fail(sentence: str) -> None:
    """End with one sentence."""
    sys.exit(f"setup: {sentence}")


def version_of(command: str) -> tuple[int, int] | None:
    """Return the version of an interpreter that runs and can make virtual environments, or None."""
    probe = "import sys, ensurepip, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([command, "-c", probe], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return None
    words = done.stdout.split()
    return (int(words[0]), int(words[1])) if done.returncode == 0 and len(words) == 2 else None


def find_python() -> str:
    """Return the newest usable interpreter; install Debian's where there is none and we may."""
    candidates = [sys.executable]
    for major, minor in VERSIONS:
        candidates.append(shutil.which(f"python{major}.{minor}") or "")
        candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{major}.{minor}*/bin/python3")), reverse=True)
    found = {command: version_of(command) for command in candidates if command}
    usable = {command: version for command, version in found.items() if version in VERSIONS}
    if usable:
        return max(usable, key=lambda command: usable[command])
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing Debian packages: python3 python3-venv")
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-y", "-qq", "python3", "python3-venv"], check=False, stdout=subprocess.DEVNULL)
        if version_of("/usr/bin/python3") in VERSIONS:
            return "/usr/bin/python3"
    fail("Python 3.11 or newer with venv is missing; install it (Debian: apt-get install python3 python3-venv)")
    return ""


def main() -> None:
    """Make or update the virtual environment; do nothing where it is as it shall be."""
    with (ROOT / "requirements" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure()


def ensure() -> None:
    """Make the virtual environment unless its stamp says that it is the one wanted."""
    stamp = VENV / "stamp"
    if stamp.exists() and stamp.read_text() == wanted_stamp(stamp.read_text().split()[0]):
        return
    python = find_python()
    version = version_of(python) or (0, 0)
    name = "py311" if version == (3, 11) else "py312"
    say(f"making .venv with Python {version[0]}.{version[1]} ({python}), once")
    shutil.rmtree(VENV, ignore_errors=True)
    run([python, "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    say(f"  installing the pinned packages of requirements/{name}.txt")
    run([*pip, "install", "-q", "-r", str(ROOT / "requirements" / f"{name}.txt")])
    site = next((VENV / "lib").glob("python3.*/site-packages"))
    say(f"  taking kubernetes.core out of {BUNDLES[name]}")
    take_collection(pip, BUNDLES[name], site)
    link = site / "ansible_collections" / "progressive" / "delivery"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(ROOT)
    stamp.write_text(wanted_stamp(name))


def wanted_stamp(name: str) -> str:
    """Return what the environment is made from, as text."""
    lock = ROOT / "requirements" / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + Path(__file__).read_bytes()).hexdigest() if lock.exists() else ""
    return f"{name} {digest} {ROOT}"


def take_collection(pip: list[str], bundle: str, site: Path) -> None:
    """Download the bundle and unpack the one collection that is needed."""
    folder = VENV / "bundle"
    run([*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder), bundle])
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(site, [name for name in archive.namelist() if name.startswith(TAKEN)])
    shutil.rmtree(folder)


def run(command: list[str]) -> None:
    """Run a command; end with its own words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"https?://\S+", "(address)", (done.stderr or done.stdout).strip())
        fail(f"{' '.join(command[:4])} ... failed: " + " / ".join(said.splitlines()[-3:]))


if __name__ == "__main__":
    main()
