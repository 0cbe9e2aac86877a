# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster with routers and Flagger; without one these tests are skipped.

DELIVERY_ROUTED_KUBECONFIG names it: a cluster that ``tests/cluster/cluster up NAME --with traefik,istio`` has started, and in
which the role flagger has installed Flagger, its load tester and Prometheus.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ansible_collections.progressive.delivery.plugins.module_utils.errors import NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query
from support.flagged import Flagged
from support.live import login


@pytest.fixture(scope="session")
def flagger_kubeconfig() -> str:
    """Return the kubeconfig of the cluster with Flagger."""
    path = os.environ.get("DELIVERY_ROUTED_KUBECONFIG")
    if not path:
        pytest.skip("DELIVERY_ROUTED_KUBECONFIG is not set; start a cluster with routers and name its kubeconfig")
    cluster = login({"kubeconfig": path})
    try:
        cluster.list(Query("Canary", "default"))
    except NotFound:
        pytest.skip("the cluster does not know the kind Canary; install Flagger there with the role flagger")
    finally:
        cluster.close()
    return path


@pytest.fixture
def flagged(flagger_kubeconfig: str) -> Iterator[Flagged]:
    """Return an empty namespace; what is released there is made by the test."""
    with Flagged(flagger_kubeconfig) as found:
        yield found
