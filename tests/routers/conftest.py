# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace on the cluster with routers for each test; without such a cluster they are skipped.

DELIVERY_ROUTED_KUBECONFIG names it: a cluster that ``tests/cluster/cluster up NAME --with traefik,istio`` has started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.releasing import Application
from support.routed import PROVIDERS, Provider, Routed

# Fixtures of the tests that run whole releases under traffic. They are what loads the machine; the others wait for a data plane.
RELEASES = {"application", "web", "shop"}
LANES = 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the releases in a few groups, one worker each, so that the workers do not all release at once."""
    releases = [item for item in items if RELEASES & set(getattr(item, "fixturenames", ()))]
    for number, item in enumerate(releases):
        item.add_marker(pytest.mark.xdist_group(f"releases-{number % LANES}"))


@pytest.fixture(scope="session")
def routed_kubeconfig() -> str:
    """Return the kubeconfig of the cluster with routers."""
    path = os.environ.get("DELIVERY_ROUTED_KUBECONFIG")
    if not path:
        pytest.skip("DELIVERY_ROUTED_KUBECONFIG is not set; start a cluster with routers and name its kubeconfig")
    return path


@pytest.fixture
def routed(routed_kubeconfig: str) -> Iterator[Routed]:
    """Return a namespace with podinfo 1.0.0 as ``stable`` and 2.0.0 as ``canary``, without a route."""
    with Routed(routed_kubeconfig) as found:
        found.deploy()
        yield found


@pytest.fixture
def application(routed_kubeconfig: str) -> Iterator[Application]:
    """Return a namespace with podinfo 1.0.0 as one Deployment ``web`` behind one Service, without a route."""
    with Application(routed_kubeconfig) as found:
        found.deploy()
        yield found


@pytest.fixture(scope="module")
def shared(routed_kubeconfig: str) -> Iterator[Routed]:
    """Return the same, one for all tests of a file."""
    with Routed(routed_kubeconfig) as found:
        found.deploy()
        yield found


@pytest.fixture(params=PROVIDERS, ids=str)
def provider(request: pytest.FixtureRequest) -> Provider:
    """Return each provider in turn."""
    return request.param
