# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster that the roles may change as a whole: DELIVERY_PROVISION_KUBECONFIG names one that ``tests/cluster/cluster up`` has started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.live import Shop
from support.provision import flagger, istio


@pytest.fixture(scope="session")
def provision_kubeconfig() -> str:
    """Return the kubeconfig of that cluster."""
    path = os.environ.get("DELIVERY_PROVISION_KUBECONFIG")
    if not path:
        pytest.skip("DELIVERY_PROVISION_KUBECONFIG is not set; run tests/tools/check.py provision")
    return path


@pytest.fixture(scope="session")
def given(provision_kubeconfig: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the variables of role istio that name what was built."""
    return istio(provision_kubeconfig, tmp_path_factory.mktemp("istio"))


@pytest.fixture(scope="session")
def supplied(provision_kubeconfig: str) -> dict[str, Any]:
    """Return the variables of role flagger that name what was built."""
    return flagger(provision_kubeconfig)


@pytest.fixture
def empty(provision_kubeconfig: str) -> Iterator[Shop]:
    """Return an empty namespace."""
    with Shop(provision_kubeconfig) as found:
        yield found
