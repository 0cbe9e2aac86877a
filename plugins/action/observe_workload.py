# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step observe_workload."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import observe_workload
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs observe_workload where it would run anyway."""

    step = observe_workload
