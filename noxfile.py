# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks that need an environment other than .venv: the oldest versions that the README names."""

from __future__ import annotations

import os
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
OLDEST_CLIENT = "24.2.0"

nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "venv"


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """Run what may differ by version on Python 3.11, ansible-core 2.19 and the oldest client.

    That is the unit tests, and with a cluster both doors of the steps, what they ask of the API server, and a release.
    """
    done = Path(session.virtualenv.location) / "stamp"
    wanted = (ROOT / "requirements" / "py311.txt").read_text() + OLDEST_CLIENT
    if not done.exists() or done.read_text() != wanted:
        session.install("-q", "-r", "requirements/py311.txt")
        session.install("-q", f"kubernetes=={OLDEST_CLIENT}")
        done.write_text(wanted)
    site = next(Path(session.virtualenv.location).glob("lib/python3.*/site-packages"))
    link = site / "ansible_collections" / "progressive" / "delivery"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(ROOT)
    session.run("pytest", "-q", "-n", "2", "tests/unit", *session.posargs)
    if os.environ.get("DELIVERY_KUBECONFIG"):
        parallel = ("-n", "4", "--dist", "loadgroup", "--reruns", "1")
        session.run("pytest", "-q", *parallel, "tests/contract", "tests/integration", "-m", "oldest")
