# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step set_audience."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import set_audience
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs set_audience where it would run anyway."""

    step = set_audience
