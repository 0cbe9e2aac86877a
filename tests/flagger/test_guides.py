# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the guides to Flagger runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.flagged import Flagged, application
from support.guides import FLAGGED, follow

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("guide", FLAGGED)
def test_commands_of_a_guide_run_as_they_stand(flagged: Flagged, tmp_path: Path, guide: str) -> None:
    flagged.create(application())
    # An analysis needs requests; they are answered from the moment at which the route is there.
    with flagged.traffic_at("traefik", 50):
        follow(guide, flagged, tmp_path, [("shop.example.com", flagged.host)])
    assert set(flagged.ask("traefik")) == {"2.0.0"} and flagged.image() == flagged.image("web-primary") == "2.0.0"
