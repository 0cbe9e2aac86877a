# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step mark_released."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import mark_released
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs mark_released where it would run anyway."""

    step = mark_released
