# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step clone_workload."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import clone_workload
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs clone_workload where it would run anyway."""

    step = clone_workload
