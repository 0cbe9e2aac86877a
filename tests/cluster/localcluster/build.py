# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds parts from the Go modules that modules/ pins, once, into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .config import HERE, ClusterError, cache, locked

KUBERNETES = "v1.36.3"
PODINFO_VERSION = "github.com/stefanprodan/podinfo/pkg/version.VERSION"
LINE_EVERY = 20.0


@dataclass(frozen=True)
class Part:
    """Something that is built: the folder of its module, what is built of it, and how it is linked.

    ``module`` is a folder under modules/; ``packages`` are import paths, or ``tool`` for all that its go.mod names.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ("tool",)
    ldflags: str = ""
    rename: tuple[tuple[str, str], ...] = ()


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            "kubernetes",
            "kubernetes",
            ldflags=f"-X k8s.io/component-base/version.gitVersion={KUBERNETES} -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}",
        ),
        Part("etcd", "etcd", rename=(("server", "etcd"), ("v3", "etcd"))),
        Part("containerd", "containerd"),
        Part("coredns", "coredns"),
        Part("registry", "registry"),
        Part("podinfo-1.0.0", "podinfo", ldflags=f"-X {PODINFO_VERSION}=1.0.0"),
        Part("podinfo-2.0.0", "podinfo", ldflags=f"-X {PODINFO_VERSION}=2.0.0"),
        Part("podinfo-3.0.0", "podinfo", ldflags=f"-X {PODINFO_VERSION}=3.0.0"),
        Part("faulty", "faulty", packages=(".",)),
    )
}
BASE = tuple(PARTS)


def digest(part: Part) -> str:
    """Return what a build of the part depends on, as a short hash."""
    found = hashlib.sha256(repr(part).encode())
    folder = HERE / "modules" / part.module
    for path in sorted(folder.iterdir()):
        if path.suffix in (".go", ".mod", ".sum"):
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def folder(name: str) -> Path:
    """Return where the binaries of a part are, built or not."""
    part = _part(name)
    return cache() / "bin" / f"{part.name}-{digest(part)}"


def build(name: str) -> Path:
    """Return the folder with the part's binaries, after building them where that was not done before."""
    part, target = _part(name), folder(name)
    if target.exists():
        return target
    with locked(cache() / "bin" / f"{part.name}.lock"):
        if not target.exists():
            _build(part, target)
            for stale in target.parent.glob(f"{part.name}-*"):
                if stale != target and stale.is_dir() and len(stale.name) == len(target.name):
                    shutil.rmtree(stale, ignore_errors=True)
    return target


def _part(name: str) -> Part:
    """Return the part, or raise ClusterError."""
    if name not in PARTS:
        raise ClusterError(f'there is no part "{name}"; parts are: {", ".join(PARTS)}')
    return PARTS[name]


def _go() -> str:
    """Return the go command, or raise ClusterError."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if not found:
        raise ClusterError("Go is missing: install Go 1.26 or newer and put it on PATH; the cluster is built from Go modules")
    return found


def _build(part: Part, target: Path) -> None:
    """Build the part into ``target``, saying what goes on."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{part.name}-", dir=target.parent))
    print(f"building {part.name} (Go modules, once; kubernetes takes some minutes)", flush=True)
    started = told = time.monotonic()
    log = cache() / f"build-{part.name}.log"
    command = [_go(), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {part.ldflags}", "-o", f"{scratch}/"]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    with log.open("w") as handle:
        process = subprocess.Popen(
            [*command, *part.packages], cwd=HERE / "modules" / part.module, env=environment, stdout=handle, stderr=handle
        )
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                print(f"  still building {part.name}, {told - started:.0f} s", flush=True)
    if process.returncode:
        shutil.rmtree(scratch, ignore_errors=True)
        lines = log.read_text().strip().splitlines()[-5:]
        raise ClusterError(f"building {part.name} failed, see {log}: " + " / ".join(lines))
    for old, new in part.rename:
        if (scratch / old).exists():
            (scratch / old).rename(scratch / new)
    scratch.chmod(0o755)
    scratch.rename(target)
    print(f"built {part.name} in {time.monotonic() - started:.0f} s", flush=True)
