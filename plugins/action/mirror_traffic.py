# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step mirror_traffic."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.modules import mirror_traffic
from ansible_collections.progressive.delivery.plugins.plugin_utils.step import StepAction


class ActionModule(StepAction):
    """Runs mirror_traffic where it would run anyway."""

    step = mirror_traffic
