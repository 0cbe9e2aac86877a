# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes when each task of a run started and ended to the file that BENCH_STAMPS names, as JSON lines.

A task ends where the next one starts: that is all the time that it costs its play. Times are of the monotonic clock,
which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: stamps
type: aggregate
short_description: When each task started and ended
description: Writes JSON lines for the benchmarks.
"""


class CallbackModule(CallbackBase):
    """The callback of the benchmarks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "stamps"

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._tasks: list[dict[str, Any]] = []

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Take the start of a task, which is the end of the one before."""
        now = self._end()
        self._tasks.append({"name": task.get_name(), "action": task.action, "started": now, "step": None, "failed": ""})

    def _end(self) -> float:
        """Note the end of the newest task, and return it."""
        now = time.monotonic()
        if self._tasks:
            self._tasks[-1].setdefault("ended", now)
        return now

    def _take(self, result: Any) -> None:
        """Add what a step says that it took."""
        seconds = result._result.get("duration")
        if self._tasks and isinstance(seconds, (int, float)):
            self._tasks[-1]["step"] = (self._tasks[-1]["step"] or 0.0) + seconds

    def v2_runner_on_ok(self, result: Any) -> None:
        """Take a task that succeeded."""
        self._take(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Take an item of a task that succeeded."""
        self._take(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Take a task that failed."""
        self._tasks[-1]["failed"] = str(result._result.get("msg") or "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Take a task that could not run."""
        self.v2_runner_on_failed(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write all of them, when nothing is measured any more."""
        self._end()
        with open(os.environ["BENCH_STAMPS"], "w", encoding="utf-8") as handle:
            handle.writelines(json.dumps(task) + "\n" for task in self._tasks)
