# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step scale."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import scale
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs scale where it would run anyway."""

    step = scale
