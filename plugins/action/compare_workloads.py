# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step compare_workloads."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import compare_workloads
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs compare_workloads where it would run anyway."""

    step = compare_workloads
