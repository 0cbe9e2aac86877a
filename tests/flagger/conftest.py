# SPDX-License-Identifier: GPL-3.0-or-later
"""Flagger, installed by our own role on the cluster with routers; without such a cluster these tests are skipped.

DELIVERY_ROUTED_KUBECONFIG names it: a cluster that ``tests/cluster/cluster up NAME --with traefik,istio,flagger`` has started.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import flagger as installing
from support.live import Shop


@pytest.fixture(scope="session")
def routed_kubeconfig() -> str:
    """Return the kubeconfig of the cluster with routers."""
    path = os.environ.get("DELIVERY_ROUTED_KUBECONFIG")
    if not path:
        pytest.skip("DELIVERY_ROUTED_KUBECONFIG is not set; start a cluster with routers and Flagger's images, and name its kubeconfig")
    return path


@pytest.fixture(scope="session")
def flagger(routed_kubeconfig: str) -> str:
    """Return the kubeconfig of the cluster, on which Flagger runs by then: our role has installed it."""
    absent = installing.missing(routed_kubeconfig)
    if absent:
        pytest.skip(absent)
    # Several processes of the tests: Helm takes one at a time.
    with (Path(tempfile.gettempdir()) / "progressive-delivery-flagger.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installing.apply(Shop(routed_kubeconfig, installing.NAMESPACE), installing.settings(routed_kubeconfig))
    return routed_kubeconfig


@pytest.fixture(scope="session")
def flagger_kubeconfig(flagger: str) -> str:
    """Return the same."""
    return flagger
