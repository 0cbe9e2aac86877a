#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ansible-test sanity on a copy of the collection: it wants the path ansible_collections/progressive/delivery, no symlink.

tests/cluster is left out of the copy: it is a program for a Linux host and not part of what the collection ships.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LEFT_OUT = (
    "tests/cluster/",
    "tests/tools/",
    "tests/support/",
    "tests/demo/",
    "tests/integration/",
    "tests/routers/",
    "tests/contract/",
    "tests/benchmarks/",
    "tests/unit/",
)


def bootstrap() -> None:
    """Put the file in place by which ansible-test installs pip where it cannot download its own: Python's ensurepip."""
    import ansible_test

    source = Path(ansible_test.__file__).parent / "_internal" / "python_requirements.py"
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in set(re.findall(r"pip['\"]?\s*[=:]\s*['\"](\d[\d.]+)['\"]", source.read_text())):
        path = cache / f"get_pip_{version.replace('.', '_')}.py"
        if not path.exists():
            path.write_text("import ensurepip\nensurepip.bootstrap(upgrade=True)\n")


def main() -> int:
    """Copy, run, and return ansible-test's exit code."""
    bootstrap()
    with tempfile.TemporaryDirectory(prefix="sanity-") as scratch:
        target = Path(scratch) / "ansible_collections" / "progressive" / "delivery"
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in listed.stdout.splitlines():
            if not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)
        subprocess.run(["git", "init", "-q"], cwd=target, check=True)
        subprocess.run(["git", "add", "-A"], cwd=target, check=True)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        command = [str(Path(sys.executable).parent / "ansible-test"), "sanity", "--venv", "--python", version, "-v", "--color", "no"]
        return subprocess.run(command, cwd=target, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
