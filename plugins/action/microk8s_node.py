# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module microk8s_node, and hides a result that has a token in it: what a task prints is seen by many."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import merge_hash


class ActionModule(ActionBase):
    """The module as it is, with the result of an invitation hidden. What is registered has it."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the module's result."""
        result = super().run(tmp, task_vars)
        result = merge_hash(result, self._execute_module(task_vars=task_vars))
        if result.get("url"):
            result["_ansible_no_log"] = True
        return result
