# SPDX-License-Identifier: GPL-3.0-or-later
"""The in-process door of the step wait_canary."""

from __future__ import annotations

from ansible_collections.progressive.delivery.plugins.plugin_utils.step import ActionModule

__all__ = ["ActionModule"]
