# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step wait_canary."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import wait_canary
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs wait_canary where it would run anyway."""

    step = wait_canary
