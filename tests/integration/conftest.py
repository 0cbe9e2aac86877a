# SPDX-License-Identifier: GPL-3.0-or-later
"""A namespace on the real cluster for each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.live import WEB, Receiver, Shop


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """Return the kubeconfig of the cluster under test."""
    path = os.environ.get("DELIVERY_KUBECONFIG")
    if not path:
        pytest.exit("DELIVERY_KUBECONFIG is not set; run the tests with make test, or: make cluster")
    return path


@pytest.fixture
def shop(kubeconfig: str) -> Iterator[Shop]:
    """Return a namespace with the application, blue active."""
    with Shop(kubeconfig) as found:
        found.apply()
        yield found


@pytest.fixture
def empty(kubeconfig: str) -> Iterator[Shop]:
    """Return an empty namespace."""
    with Shop(kubeconfig) as found:
        yield found


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """Return a receiver that listens."""
    found = Receiver(tmp_path / "requests.jsonl")
    yield found
    found.close()


@pytest.fixture
def web(empty: Shop) -> Shop:
    """Return a namespace with three pods of podinfo 1.0.0 behind the Service web."""
    empty.apply(WEB)
    return empty
