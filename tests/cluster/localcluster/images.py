# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that the registry serves: one layer each, made from binaries, pushed over the registry's own API.

Run as a program inside the cluster's namespace (``python3 -m localcluster.images base``) it pushes what is missing.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import build
from .config import REGISTRY, Cluster, ClusterError
from .processes import run

BUSYBOX = Path("/bin/busybox") if Path("/bin/busybox").exists() else Path("/usr/bin/busybox")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
# The versions that modules/ pins; Istio's has no release tag that is a version of a Go module.
TRAEFIK = "3.7.5"
ISTIO = "1.31-eed52ebb66ad"
# As the charts name them.
FLAGGER = "1.43.0"
LOADTESTER = "0.37.0"
APPLETS = ("sh", "sleep", "timeout", "wget")
# Flagger's load tester runs commands in bash; there is none that needs no libraries, and this shell does for what they say.
BASH = '#!/bin/sh\nexec /bin/sh "$@"\n'
# The charts ask for health with options that the wget of Debian's busybox does not know. Who asks ends it in time. Not by busybox' timeout:
# that leaves a process behind, which ends under the first one of the container, and Flagger as the first one collects none.
WGET = """#!/bin/sh
for word; do
  shift
  case "$word" in
    --tries=* | --timeout=*) ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec busybox wget "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image: its tag, the part and binary it runs, the command, and whether a shell is in it.

    ``files`` are further ones, {path in the image: part/path}; ``linked`` names the one of them whose libraries come along.
    ``applets`` are the commands of the shell, ``texts`` files whose content is given: {path in the image: text}.
    """

    repository: str
    tag: str
    part: str
    binary: str
    command: tuple[str, ...]
    shell: bool = True
    user: str = "1000"
    files: tuple[tuple[str, str], ...] = ()
    linked: str = ""
    applets: tuple[str, ...] = APPLETS
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> list[str]:
        """Return the parts that the image is made from."""
        return [part for part in (self.part, *(source.partition("/")[0] for _path, source in self.files)) if part]

    @property
    def name(self) -> str:
        """Return the image as a pod names it, without the registry."""
        return f"{self.repository}:{self.tag}"


def _podinfo(tag: str, version: str, *arguments: str, shell: bool = True) -> Image:
    """Return an image of podinfo."""
    return Image("podinfo", tag, f"podinfo-{version}", "podinfo", ("/bin/podinfo", "--port=9898", "--level=warn", *arguments), shell)


def _faulty(tag: str, fault: str) -> Image:
    """Return an image with a fault."""
    return Image("podinfo", tag, "faulty", "faulty", ("/bin/faulty", fault))


IMAGES: tuple[Image, ...] = (
    _podinfo("1.0.0", "1.0.0"),
    _podinfo("2.0.0", "2.0.0"),
    _podinfo("3.0.0", "3.0.0"),
    _podinfo("no-client", "1.0.0", shell=False),
    _podinfo("broken-ready", "2.0.0", "--unready"),
    _faulty("broken-500", "answers-500"),
    _faulty("broken-crash", "crash"),
    _faulty("broken-late", "late"),
    Image("coredns", "1", "coredns", "coredns", ("/bin/coredns",), shell=False, user="0"),
    Image("pause", "1", "", "", ("/bin/sleep", "2147483647"), user="65535"),
)
# What is in the registry of a cluster from the start, and what comes with each router.
SETS: dict[str, tuple[Image, ...]] = {
    "base": IMAGES,
    "traefik": (Image("traefik", TRAEFIK, "traefik", "traefik", ("/bin/traefik",), shell=False),),
    "istio": (
        Image("istio/pilot", ISTIO, "istio", "pilot-discovery", ("/bin/pilot-discovery",), shell=False, user="1337"),
        Image(
            "istio/proxyv2",
            ISTIO,
            "istio",
            "pilot-agent",
            ("/bin/pilot-agent",),
            shell=False,
            user="1337",
            files=(
                ("usr/local/bin/envoy", "envoy/envoy"),
                ("var/lib/istio/envoy/envoy_bootstrap_tmpl.json", "istio/envoy_bootstrap.json"),
            ),
            linked="usr/local/bin/envoy",
        ),
    ),
    # At the paths that the charts call.
    "flagger": (
        Image(
            "flagger",
            FLAGGER,
            "",
            "",
            ("/flagger",),
            user="10001",
            files=(("flagger", "flagger/flagger"),),
            applets=("busybox", "sh"),
            texts=(("bin/wget", WGET),),
        ),
        Image(
            "flagger-loadtester",
            LOADTESTER,
            "",
            "",
            ("/loadtester",),
            user="100",
            files=(("loadtester", "flagger/loadtester"), ("bin/hey", "hey/hey")),
            applets=("busybox", "cat", "echo", "env", "false", "grep", "seq", "sh", "sleep", "timeout", "true"),
            texts=(("bin/bash", BASH), ("bin/wget", WGET)),
        ),
        Image("prometheus", f"v{build.PROMETHEUS}", "prometheus", "prometheus", ("/bin/prometheus",), shell=False, user="65534"),
    ),
}


def layer(files: dict[str, bytes]) -> bytes:
    """Return a layer with these files, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("bin", "data", "tmp"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755 if name == "bin" else 0o1777
            tar.addfile(info)
        seen: dict[bytes, str] = {}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            twin = seen.setdefault(hashlib.sha256(data).digest(), name)
            if twin != name:
                info.type, info.linkname = tarfile.LNKTYPE, twin
                tar.addfile(info)
                continue
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), compresslevel=1, mtime=0)


def content(image: Image) -> dict[str, bytes]:
    """Return the files of an image."""
    files = {f"bin/{image.binary}": (build.folder(image.part) / image.binary).read_bytes()} if image.part else {}
    if image.shell:
        for applet in image.applets:
            files[f"bin/{applet}"] = BUSYBOX.read_bytes()
    for path, source in image.files:
        part, _slash, name = source.partition("/")
        files[path] = (build.folder(part) / name).read_bytes()
        if path == image.linked:
            files.update(_libraries(build.folder(part) / name))
    files.update({path: text.encode() for path, text in image.texts})
    return files


def _libraries(program: Path) -> dict[str, bytes]:
    """Return the C library's files that a program is linked with: this machine's, where its own loader looks for them."""
    found = [word for line in run(["ldd", str(program)]).splitlines() for word in line.split() if word.startswith("/")]
    return {path.lstrip("/"): Path(path).read_bytes() for path in found}


def documents(image: Image, blob: bytes) -> tuple[bytes, bytes]:
    """Return the configuration and the manifest of an image whose layer is ``blob``."""
    plain = hashlib.sha256(gzip.decompress(blob)).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(image.command), "User": image.user, "WorkingDir": "/", "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain}"]},
    }
    config_blob = json.dumps(config, sort_keys=True).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CONFIG, config_blob),
        "layers": [_descriptor(LAYER, blob)],
    }
    return config_blob, json.dumps(manifest, sort_keys=True).encode()


def _descriptor(media: str, blob: bytes) -> dict[str, object]:
    """Return what a manifest says of a blob."""
    return {"mediaType": media, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def fingerprint(name: str) -> str:
    """Return what a set of images depends on, as a hash: pushed again only when it differs."""
    found = hashlib.sha256(Path(__file__).read_bytes() + str(BUSYBOX.stat().st_size).encode())
    for image in SETS[name]:
        for part in image.parts:
            found.update(build.folder(part).name.encode())
    return found.hexdigest()


def ensure(cluster: Cluster, name: str = "base") -> None:
    """Push a set of images, from inside of the cluster's namespace, unless the registry has these very ones."""
    mark = cluster.dir / "registry" / ("pushed" if name == "base" else f"pushed-{name}")
    if mark.exists() and mark.read_text() == fingerprint(name):
        return
    home = Path(__file__).resolve().parent.parent
    run(["nsenter", f"--net=/run/netns/{cluster.netns}", "env", f"PYTHONPATH={home}", sys.executable, "-m", "localcluster.images", name])
    mark.write_text(fingerprint(name))


def packed(wanted: Iterable[Image]) -> Iterator[tuple[Image, bytes, bytes, bytes]]:
    """Yield images, each with its layer, configuration and manifest."""
    layers: dict[tuple[object, ...], bytes] = {}
    for image in wanted:
        key = (image.part, image.binary, image.shell, image.files, image.applets, image.texts)
        layers[key] = layers.get(key) or layer(content(image))
        yield (image, layers[key], *documents(image, layers[key]))


def push_all(wanted: Iterable[Image], registry: str = "127.0.0.1:32000") -> list[str]:
    """Push images to a registry that speaks plain HTTP, and return their names."""
    names = []
    for image, blob, config, manifest in packed(wanted):
        for data in (blob, config):
            _push_blob(registry, image.repository, data)
        _ask(registry, "PUT", f"/v2/{image.repository}/manifests/{image.tag}", manifest, MANIFEST)
        names.append(f"{registry}/{image.name}")
    return names


def save(path: Path, wanted: Iterable[Image]) -> list[str]:
    """Write images as one OCI archive, as ``kind load image-archive`` and ``ctr import`` take it."""
    entries, blobs = [], {}
    for image, blob, config, manifest in packed(wanted):
        blobs.update({hashlib.sha256(data).hexdigest(): data for data in (blob, config, manifest)})
        name = {"io.containerd.image.name": f"{REGISTRY}/{image.name}", "org.opencontainers.image.ref.name": image.tag}
        entries.append({**_descriptor(MANIFEST, manifest), "annotations": name})
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    files.update({f"blobs/sha256/{digest}": data for digest, data in blobs.items()})
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for file, data in files.items():
            info = tarfile.TarInfo(file)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return [entry["annotations"]["io.containerd.image.name"] for entry in entries]


def _push_blob(registry: str, repository: str, data: bytes) -> None:
    """Push a blob unless the registry has it."""
    name = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if _ask(registry, "HEAD", f"/v2/{repository}/blobs/{name}", may_fail=True)[0] == 200:
        return
    _status, headers = _ask(registry, "POST", f"/v2/{repository}/blobs/uploads/")
    where = headers["location"].split("//", 1)[-1]
    path = "/" + where.split("/", 1)[1] if not headers["location"].startswith("/") else headers["location"]
    _ask(registry, "PUT", f"{path}{'&' if '?' in path else '?'}digest={name}", data, "application/octet-stream")


def _ask(
    registry: str, method: str, path: str, body: bytes | None = None, media: str = "", may_fail: bool = False
) -> tuple[int, dict[str, str]]:
    """Make a request to the registry and return its status and headers."""
    connection = http.client.HTTPConnection(registry, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": media} if media else {})
        response = connection.getresponse()
        said = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ClusterError(f"the registry {registry} does not answer over HTTP: {error}") from None
    finally:
        connection.close()
    if response.status >= 400 and not may_fail:
        raise ClusterError(f"the registry {registry} refuses {method} {path}: {response.status} {said[:200]!r}")
    return response.status, {key.lower(): value for key, value in response.getheaders()}


if __name__ == "__main__":
    push_all(SETS[sys.argv[1]])
