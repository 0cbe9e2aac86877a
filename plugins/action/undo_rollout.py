# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step undo_rollout."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import undo_rollout
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs undo_rollout where it would run anyway."""

    step = undo_rollout
