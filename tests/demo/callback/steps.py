# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes what each step of a release did, and how long it took, to the file that DEMO_STEPS names, as JSON lines."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: steps
type: aggregate
short_description: Steps of the demo, with their durations
description: Writes JSON lines for the demo's tables.
"""


class CallbackModule(CallbackBase):
    """The callback of the demo."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "steps"

    def _write(self, result: Any, failed: bool) -> None:
        """Append one step: those of this collection report their duration."""
        found = result._result
        if "duration" not in found and not failed:
            return
        name = (result._task_fields.get("name") if hasattr(result, "_task_fields") else "") or ""
        line = {"name": name, "seconds": found.get("duration"), "changed": found.get("changed"), "failed": failed, "msg": found.get("msg")}
        with open(os.environ["DEMO_STEPS"], "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Take a step that succeeded."""
        self._write(result, False)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Take an item of a step that succeeded."""
        self._write(result, False)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Take an item of a step that failed."""
        self._write(result, True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Take a step that failed."""
        self._write(result, True)
