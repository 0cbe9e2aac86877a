# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the guides to what routers do runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.guides import ROUTED, follow
from support.releasing import Application

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("guide", sorted(ROUTED))
def test_commands_of_a_guide_run_as_they_stand(application: Application, tmp_path: Path, guide: str) -> None:
    provider = ROUTED[guide]
    application.lead(provider)
    # The host is found by its header: no name leads to it.
    places = (("https://gateway.example.com", application.base(provider.router)), ("shop.example.com", application.host))
    follow(guide, application, tmp_path, places)
