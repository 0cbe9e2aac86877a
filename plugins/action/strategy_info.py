# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step strategy_info."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import strategy_info
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs strategy_info where it would run anyway."""

    step = strategy_info
