# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step load_test."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import load_test
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs load_test where it would run anyway."""

    step = load_test
