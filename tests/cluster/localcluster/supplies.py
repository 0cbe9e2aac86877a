# SPDX-License-Identifier: GPL-3.0-or-later
"""Supplies: what tests install by themselves - images in the cluster's registry, and charts in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import build, images, routers
from .config import STATE, Cluster, ClusterError, locked


@dataclass(frozen=True)
class Supply:
    """A set of images that the registry serves on demand, the parts that it is built from, and nothing that runs."""

    name: str
    parts: tuple[str, ...]


SUPPLIES: dict[str, Supply] = {supply.name: supply for supply in (Supply("flagger", ("flagger", "helm", "hey", "prometheus")),)}
# Each chart by its name: the part that has it, and the folder in that.
CHARTS = {
    "base": ("istio", "charts/base"),
    "flagger": ("flagger", "charts/flagger"),
    "gateway": ("istio", "charts/gateway"),
    "istiod": ("istio", "charts/istiod"),
    "loadtester": ("flagger", "charts/loadtester"),
}


def named(words: str) -> tuple[list[routers.Router], list[Supply]]:
    """Return the routers and the supplies that ``--with`` names, or raise ClusterError."""
    names = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        if name not in routers.ROUTERS and name not in SUPPLIES:
            raise ClusterError(f'there is no router or supply "{name}"; --with takes: {", ".join((*routers.ROUTERS, *SUPPLIES))}')
    wanted = routers.named(",".join(name for name in names if name in routers.ROUTERS))
    return wanted, [SUPPLIES[name] for name in names if name in SUPPLIES]


def ensure(cluster: Cluster, supply: Supply) -> None:
    """Push a supply's images to the cluster's registry, unless it has these very ones."""
    with locked(STATE / f".{cluster.name}.lock"):
        if not (cluster.dir / "number").exists():
            raise ClusterError(f"cluster {cluster.name} was taken down meanwhile; run it again")
        images.ensure(cluster, supply.name)


def charts() -> dict[str, Path]:
    """Return the charts that were built, each with its folder."""
    found = {name: build.folder(part) / path for name, (part, path) in CHARTS.items()}
    return {name: path for name, path in found.items() if path.exists()}
