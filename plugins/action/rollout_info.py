# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step rollout_info."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import rollout_info
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs rollout_info where it would run anyway."""

    step = rollout_info
