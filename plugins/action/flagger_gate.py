# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step flagger_gate."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import flagger_gate
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs flagger_gate where it would run anyway."""

    step = flagger_gate
