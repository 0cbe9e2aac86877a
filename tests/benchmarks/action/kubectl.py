# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs kubectl between the tasks it is compared with, and times the command alone, without the task around it."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The action ``kubectl`` of the benchmarks: ``argv`` is the command."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the command and return the seconds from its start to its end."""
        result = super().run(tmp, task_vars)
        started = time.monotonic()
        done = subprocess.run(self._task.args["argv"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        result.update(duration=time.monotonic() - started, failed=done.returncode != 0, msg=done.stderr.strip())
        return result
