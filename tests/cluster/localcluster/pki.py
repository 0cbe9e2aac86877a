# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and kubeconfigs of a cluster, made with openssl, once."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from .config import Cluster
from .processes import run

DAYS = "3650"


def users(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """Return {name: (subject, subject alternative names)} of the certificates."""
    return {
        "apiserver": (
            "/CN=kube-apiserver",
            f"IP:{cluster.address},IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,"
            "DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
        ),
        "admin": ("/O=system:masters/CN=admin", "DNS:admin"),
        "controller-manager": ("/CN=system:kube-controller-manager", "DNS:controller-manager"),
        "scheduler": ("/CN=system:kube-scheduler", "DNS:scheduler"),
        "proxy": ("/CN=system:kube-proxy", "DNS:proxy"),
        "kubelet": ("/O=system:nodes/CN=system:node:node-1", f"DNS:node-1,IP:{cluster.address}"),
    }


def ensure(cluster: Cluster) -> None:
    """Make what is missing: the authority, the certificates, the key of service accounts, the kubeconfigs."""
    pki = cluster.dir / "pki"
    pki.mkdir(mode=0o700, exist_ok=True)
    if not (pki / "done").exists():
        _authority(pki)
        for name, (subject, names) in users(cluster).items():
            _certificate(pki, name, subject, names)
        run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{pki}/sa.key"])
        run(["openssl", "ec", "-in", f"{pki}/sa.key", "-pubout", "-out", f"{pki}/sa.pub"])
        (pki / "done").touch()
    for name in users(cluster):
        if name != "apiserver":
            _kubeconfig(cluster, pki, name)


def _authority(pki: Path) -> None:
    """Make the certificate authority; TLS in Python 3.13 refuses one that does not state its key usage."""
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-keyout", f"{pki}/ca.key", "-out", f"{pki}/ca.crt", "-subj", "/CN=local-cluster", "-days", DAYS]
        + ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    )


def _certificate(pki: Path, name: str, subject: str, names: str) -> None:
    """Make a certificate that serves as a server's and as a client's."""
    extensions = pki / f"{name}.ext"
    extensions.write_text(
        f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\nauthorityKeyIdentifier=keyid\n"
    )
    run(
        ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-keyout", f"{pki}/{name}.key", "-out", f"{pki}/{name}.csr", "-subj", subject]
    )
    run(
        ["openssl", "x509", "-req", "-in", f"{pki}/{name}.csr", "-CA", f"{pki}/ca.crt", "-CAkey", f"{pki}/ca.key"]
        + ["-CAcreateserial", "-out", f"{pki}/{name}.crt", "-days", DAYS, "-extfile", str(extensions)]
    )


def _kubeconfig(cluster: Cluster, pki: Path, name: str) -> None:
    """Write the kubeconfig of a user, with everything in it (JSON is YAML)."""

    def data(file: str) -> str:
        return base64.b64encode((pki / file).read_bytes()).decode()

    target = cluster.dir / f"{name}.kubeconfig"
    context = f"local-{cluster.name}"
    server = {"server": f"https://{cluster.address}:6443", "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": server}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
        "current-context": context,
    }
    text = json.dumps(document, indent=1) + "\n"
    if not target.exists() or target.read_text() != text:
        target.touch(mode=0o600)
        target.write_text(text)
