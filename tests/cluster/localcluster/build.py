# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds parts from the Go modules that modules/ pins, or takes them out of a wheel, once, into the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .config import HERE, ClusterError, cache, locked

KUBERNETES = "v1.36.3"
PODINFO_VERSION = "github.com/stefanprodan/podinfo/pkg/version.VERSION"
PROMETHEUS_VERSION = "github.com/prometheus/common/version.Version"
PROMETHEUS = "3.16.0"
TRAEFIK_CRDS = "docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml"
LINE_EVERY = 20.0


@dataclass(frozen=True)
class Part:
    """Something that is built: the folder of its module, what is built of it, and how it is linked.

    ``module`` is a folder under modules/; ``packages`` are import paths, or ``tool`` for all that its go.mod names.
    ``files`` are taken as they are from a Go module: (module, path in it, name beside the binaries).
    ``wheel`` is a program in the Python wheel that requirements.txt pins. ``tags`` are those of the build.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ("tool",)
    ldflags: str = ""
    rename: tuple[tuple[str, str], ...] = ()
    # Not in repr, which is what the builds of parts without them are known by.
    files: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)
    wheel: str = field(default="", repr=False)
    tags: tuple[str, ...] = field(default=(), repr=False)


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
        Part("gateway-api", "gateway-api", packages=(), files=(("sigs.k8s.io/gateway-api", "config/crd/standard", "crds"),)),
        Part("helm", "helm"),
        Part(
            "prometheus-operator",
            "prometheus-operator",
            packages=(),
            files=(("github.com/prometheus-operator/prometheus-operator", "example/prometheus-operator-crd", "crds"),),
        ),
        Part("traefik", "traefik", files=(("github.com/traefik/traefik/v3", TRAEFIK_CRDS, "crds.yaml"),)),
        Part(
            "istio",
            "istio",
            files=(
                ("istio.io/istio", "manifests/charts/base", "charts/base"),
                ("istio.io/istio", "manifests/charts/istio-control/istio-discovery", "charts/istiod"),
                ("istio.io/istio", "manifests/charts/gateway", "charts/gateway"),
                ("istio.io/istio", "tools/packaging/common/envoy_bootstrap.json", "envoy_bootstrap.json"),
            ),
        ),
        Part("envoy", "envoy", packages=(), wheel="envoy/_bin/envoy"),
        Part(
            "flagger",
            "flagger",
            files=(
                ("github.com/fluxcd/flagger", "charts/flagger", "charts/flagger"),
                ("github.com/fluxcd/flagger", "charts/loadtester", "charts/loadtester"),
            ),
        ),
        Part("hey", "hey"),
        # It finds what it asks in Kubernetes alone: without the clouds it is built in a fifth of the time.
        Part(
            "prometheus",
            "prometheus",
            ldflags=f"-X {PROMETHEUS_VERSION}={PROMETHEUS}",
            tags=("remove_all_sd", "enable_kubernetes_sd"),
        ),
    )
}
ON_DEMAND = ("gateway-api", "helm", "traefik", "istio", "envoy", "flagger", "hey", "prometheus", "prometheus-operator")
BASE = tuple(name for name in PARTS if name not in ON_DEMAND)


def digest(part: Part) -> str:
    """Return what a build of the part depends on, as a short hash."""
    found = hashlib.sha256(repr(part).encode())
    if part.files or part.wheel:
        found.update(repr((part.files, part.wheel)).encode())
    if part.tags:
        found.update(repr(part.tags).encode())
    folder = HERE / "modules" / part.module
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".go", ".mod", ".sum", ".txt"):
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
    print(f"building {part.name} (once; kubernetes, traefik and istio take some minutes)", flush=True)
    started = time.monotonic()
    log = cache() / f"build-{part.name}.log"
    log.write_text("")
    try:
        if part.packages:
            _compile(part, scratch, log)
        for module, path, name in part.files:
            _take(part, module, path, scratch / name, log)
        if part.wheel:
            _unpack(part, scratch, log)
    except ClusterError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    for old, new in part.rename:
        if (scratch / old).exists():
            (scratch / old).rename(scratch / new)
    scratch.chmod(0o755)
    scratch.rename(target)
    print(f"built {part.name} in {time.monotonic() - started:.0f} s", flush=True)


def _compile(part: Part, scratch: Path, log: Path) -> None:
    """Compile the part's packages into ``scratch``."""
    command = [_go(), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {part.ldflags}", "-o", f"{scratch}/"]
    _run(part, [*command, f"-tags={','.join(part.tags)}", *part.packages], log)


def _take(part: Part, module: str, path: str, target: Path, log: Path) -> None:
    """Copy a file or a folder of a Go module that the part pins."""
    _run(part, [_go(), "mod", "download", module], log)
    root = Path(_run(part, [_go(), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module], log))
    source = root / path
    if not source.exists():
        raise ClusterError(f"building {part.name} failed: {module} has no {path}")
    for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if file.is_file():
            # Without the modes of the module cache, where nothing can be removed.
            copy = target / file.relative_to(source) if source.is_dir() else target
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())


def _unpack(part: Part, scratch: Path, log: Path) -> None:
    """Fetch the wheel that requirements.txt pins, and take the program out of it; pip compares the checksum."""
    wheels = scratch / "wheels"
    chosen = ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--dest={wheels}", "--requirement=requirements.txt"]
    _run(part, [*_pip(), "download", "--quiet", "--disable-pip-version-check", *chosen], log)
    program = scratch / Path(part.wheel).name
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            program.write_bytes(archive.read(part.wheel))
    program.chmod(0o755)
    shutil.rmtree(wheels)


def _pip() -> list[str]:
    """Return the command pip, of this Python or another, or raise ClusterError."""
    for command in ([sys.executable, "-m", "pip"], ["pip3"], [f"{HERE.parent.parent}/.venv/bin/python", "-m", "pip"]):
        if shutil.which(command[0]) and subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise ClusterError("pip is missing: install Debian's python3-pip or its counterpart; Envoy is taken out of a Python wheel")


def _run(part: Part, command: Sequence[str], log: Path) -> str:
    """Run a command in the part's module and return what it printed; its errors go to the log, a line tells that it still runs."""
    environment: Mapping[str, str] = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    started = told = time.monotonic()
    with log.open("a") as handle, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=HERE / "modules" / part.module, env=environment, stdout=output, stderr=handle)
        while process.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                print(f"  still building {part.name}, {told - started:.0f} s", flush=True)
        output.seek(0)
        said = output.read().strip()
    if process.returncode:
        lines = (log.read_text().strip() or said).splitlines()[-5:]
        raise ClusterError(f"building {part.name} failed, see {log}: " + " / ".join(lines))
    return said
