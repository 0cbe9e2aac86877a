# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step release_lock."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import release_lock
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs release_lock where it would run anyway."""

    step = release_lock
