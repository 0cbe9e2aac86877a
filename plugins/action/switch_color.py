# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step switch_color."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import switch_color
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs switch_color where it would run anyway."""

    step = switch_color
