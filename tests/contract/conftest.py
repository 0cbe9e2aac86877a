# SPDX-License-Identifier: GPL-3.0-or-later
"""One suite, two clusters: the fake of the unit tests, and a real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.fake import FakeCluster
from support.live import APPLICATION, Shop


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """Return the kubeconfig of the cluster under test."""
    path = os.environ.get("DELIVERY_KUBECONFIG")
    if not path:
        pytest.exit("DELIVERY_KUBECONFIG is not set; run the tests with make test, or: make cluster")
    return path


@pytest.fixture(params=["fake", "real"])
def cluster(request: pytest.FixtureRequest, kubeconfig: str) -> Iterator[tuple[Any, str]]:
    """Return a cluster and an empty namespace on it."""
    if request.param == "fake":
        yield FakeCluster(), "shop"
        return
    with Shop(kubeconfig) as shop:
        yield shop.cluster, shop.namespace


@pytest.fixture
def shop(kubeconfig: str) -> Iterator[Shop]:
    """Return a namespace on the real cluster with the application, and a route that leads to it."""
    with Shop(kubeconfig) as found:
        found.apply()
        found.apply(APPLICATION.with_name("routes.yml"))
        yield found
