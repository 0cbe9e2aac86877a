#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every molecule scenario, with the cluster that DELIVERY_KUBECONFIG names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

if __name__ == "__main__":
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "COLUMNS": "160", "PATH": f"{bin_folder}:{os.environ.get('PATH', '')}"}
    # A copy that is installed elsewhere must not be what is tested.
    environment["ANSIBLE_COLLECTIONS_PATH"] = sysconfig.get_paths()["purelib"]
    command = [str(bin_folder / "molecule"), "test", "--all"]
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
