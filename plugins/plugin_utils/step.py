# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a step inside the controller's process where that is where it would run anyway, else as an ordinary module.

Ansible imports the action plugin of a task before it forks a worker for it, so the worker finds the step and the
``kubernetes`` package loaded: that is what makes a step take a few hundredths of a second. Every step has a file of its
own in plugins/action/, which names its module, so that a play loads the steps that it has and no other. Were they routed
here by a redirect, Ansible would take them all for one action, and the ``module_defaults`` of one would be given to
every other.

A module says nothing until it ends. So a step that may wait for long and has the options of ``turns.py`` is called in
slices through the ordinary door, and how far it is is printed after each.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import merge_hash
from ansible_collections.progressive.delivery.plugins.module_utils.run import run_in_process
from ansible_collections.progressive.delivery.plugins.module_utils.turns import TURN_OPTIONS
from ansible_collections.progressive.delivery.plugins.plugin_utils.reporter import Reporter

# With the start of the module, and of a connection, one call takes 15 seconds at most.
SLICE = 12.0

# What the variable delivery_scope may hold; every role of the collection sets it for its steps.
SCOPE = ("namespace", "kubeconfig", "context", "expected_context")

display = Display()
# The first one of a process costs four times the others: it is made here, in the parent of all workers.
ssl.create_default_context()


class StepAction(ActionBase):
    """The action plugin of every step: each has a class of its own, which says which module is its ``step``."""

    step: ModuleType
    TRANSFERS_FILES = False
    _supports_async = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the step's result, by whichever door."""
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        name = self._task.action.rsplit(".", 1)[-1]
        arguments = self._arguments(task_vars)
        with Reporter(self._printer(name, task_vars)) as reporter:
            if self._is_here(task_vars):
                outcome = run_in_process(self.step.execute, self.step.OPTIONS, arguments, self._task.check_mode, reporter.say)
            else:
                outcome = self._run_module(name, arguments, task_vars, reporter)
        self._explain(outcome)
        return merge_hash(result, outcome)

    def _arguments(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return the task's arguments, and over them what a role says of the cluster and the namespace.

        A role cannot say it by ``module_defaults``: they would take the place of the play's own, an ``expected_context`` among them.
        """
        scope = self._templar.template(task_vars.get("delivery_scope") or {})
        return {**self._task.args, **{key: value for key, value in scope.items() if key in SCOPE and value not in (None, "", {})}}

    def _run_module(self, name: str, arguments: dict[str, Any], task_vars: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
        """Run the step as an ordinary module, again and again where it is one that waits, and return the last result."""
        is_sliced = "slice" in self.step.OPTIONS and not self._task.async_val and not arguments.get("slice")
        if is_sliced:
            arguments["slice"] = SLICE
        while True:
            outcome = self._execute_module(
                module_name=f"progressive.delivery.{name}",
                module_args=dict(arguments),
                task_vars=task_vars,
                wrap_async=self._task.async_val,
            )
            if not is_sliced:
                return outcome
            if outcome.get("failed") or not outcome.get("resume"):
                return self._whole(outcome, reporter.elapsed)
            reporter.say(outcome.get("progress") or "")
            arguments["resume"] = outcome["resume"]

    def _whole(self, outcome: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the result of the last slice as that of one call."""
        given = (outcome.get("invocation") or {}).get("module_args")
        if isinstance(given, dict):
            given.update({option: self._task.args.get(option, spec.get("default")) for option, spec in TURN_OPTIONS.items()})
        if "duration" in outcome:
            outcome["duration"] = round(seconds, 3)
        return outcome

    def _is_here(self, task_vars: dict[str, Any]) -> bool:
        """Return whether the step would run in this process's own interpreter, as this user, with its environment."""
        if self._task.async_val or self._task.become or self._play_context.become or self._has_environment():
            return False
        if str(self._templar.template(task_vars.get("delivery_door", "auto"))) == "module":
            return False
        if self._connection.transport not in ("local", "ansible.builtin.local"):
            return False
        host = self._task.delegate_to
        variables = task_vars.get("ansible_delegated_vars", {}).get(host, task_vars) if host else task_vars
        interpreter = str(variables.get("ansible_python_interpreter") or "auto")
        if interpreter.startswith("auto"):
            return True
        interpreter = str(self._templar.template(interpreter)) if "{{" in interpreter else interpreter
        return os.path.realpath(interpreter) == os.path.realpath(sys.executable) and _same_environment(interpreter)

    def _has_environment(self) -> bool:
        """Return whether the task, its block or its play sets environment variables."""
        environment = self._task.environment or []
        return any(bool(entry) for entry in (environment if isinstance(environment, list) else [environment]))

    def _printer(self, name: str, task_vars: dict[str, Any]) -> Callable[[str], None]:
        """Return what prints a line of progress; nothing is printed of a task whose results are hidden."""
        if self._task.no_log:
            return lambda _line: None
        several = len(task_vars.get("ansible_play_hosts_all") or ()) > 1
        where = f"[{task_vars.get('inventory_hostname')}] " if several else ""
        what = self._task.args.get("name") or name
        return lambda line: display.display(f"  {where}{what} {line}")

    def _explain(self, outcome: dict[str, Any]) -> None:
        """Print a step's summary with -v: the result itself has its lines all in one."""
        summary = outcome.get("summary")
        if isinstance(summary, list) and len(summary) > 1 and not self._task.no_log:
            for line in summary:
                display.v(f"  {line}")


def _same_environment(interpreter: str) -> bool:
    """Return whether an interpreter is of this virtual environment: two of them may link to one binary."""
    return os.path.dirname(os.path.abspath(interpreter)) == os.path.dirname(os.path.abspath(sys.executable))
