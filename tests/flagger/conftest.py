# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster with routers and Flagger; without one these tests are skipped.

DELIVERY_ROUTED_KUBECONFIG names it: a cluster that ``tests/cluster/cluster up NAME --with traefik,istio`` has started, and in
which the role flagger has installed Flagger, its load tester and Prometheus.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ansible_collections.progressive.delivery.plugins.module_utils.login import connect


@pytest.fixture(scope="session")
def flagger() -> str:
    """Return the kubeconfig of a cluster with routers and Flagger."""
    path = os.environ.get("DELIVERY_ROUTED_KUBECONFIG")
    if not path:
        pytest.skip("DELIVERY_ROUTED_KUBECONFIG is not set; start a cluster with routers and Flagger and name its kubeconfig")
    cluster = connect({"kubeconfig": path})
    groups = cluster.api_groups()
    cluster.close()
    if "flagger.app" not in groups:
        pytest.skip("the cluster has no kind Canary; install Flagger on it")
    return path
