# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that the registry serves: one layer each, made from binaries, pushed over the registry's own API.

Run as a program inside the cluster's namespace (``python3 -m localcluster.images``) it pushes what is missing.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import build
from .config import REGISTRY, Cluster, ClusterError
from .processes import run

BUSYBOX = Path("/bin/busybox") if Path("/bin/busybox").exists() else Path("/usr/bin/busybox")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """An image: its tag, the part and binary it runs, the command, and whether a shell is in it."""

    repository: str
    tag: str
    part: str
    binary: str
    command: tuple[str, ...]
    shell: bool = True
    user: str = "1000"

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
        for applet in ("sh", "sleep", "timeout", "wget"):
            files[f"bin/{applet}"] = BUSYBOX.read_bytes()
    return files


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


def fingerprint() -> str:
    """Return what the images depend on, as a hash: pushed again only when it differs."""
    found = hashlib.sha256(Path(__file__).read_bytes() + str(BUSYBOX.stat().st_size).encode())
    for image in IMAGES:
        found.update(build.folder(image.part).name.encode() if image.part else b"")
    return found.hexdigest()


def ensure(cluster: Cluster) -> None:
    """Push the images, from inside of the cluster's namespace, unless the registry has these very ones."""
    mark = cluster.dir / "registry" / "pushed"
    if mark.exists() and mark.read_text() == fingerprint():
        return
    home = Path(__file__).resolve().parent.parent
    run(["nsenter", f"--net=/run/netns/{cluster.netns}", "env", f"PYTHONPATH={home}", sys.executable, "-m", "localcluster.images"])
    mark.write_text(fingerprint())


def packed(repository: str = "") -> Iterator[tuple[Image, bytes, bytes, bytes]]:
    """Yield the images, or those of one repository, each with its layer, configuration and manifest."""
    layers: dict[tuple[str, bool], bytes] = {}
    for image in IMAGES:
        if repository in ("", image.repository):
            key = (image.part, image.shell)
            layers[key] = layers.get(key) or layer(content(image))
            yield (image, layers[key], *documents(image, layers[key]))


def push_all(registry: str = "127.0.0.1:32000", repository: str = "") -> list[str]:
    """Push the images to a registry that speaks plain HTTP, and return their names."""
    names = []
    for image, blob, config, manifest in packed(repository):
        for data in (blob, config):
            _push_blob(registry, image.repository, data)
        _ask(registry, "PUT", f"/v2/{image.repository}/manifests/{image.tag}", manifest, MANIFEST)
        names.append(f"{registry}/{image.name}")
    return names


def save(path: Path, repository: str) -> list[str]:
    """Write the images of a repository as one OCI archive, as ``kind load image-archive`` and ``ctr import`` take it."""
    entries, blobs = [], {}
    for image, blob, config, manifest in packed(repository):
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
    push_all()
