# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP server on this host, HTTP/1.1 and HTTP/2, with or without TLS, that fails in the ways that its paths name.

``/`` answers with the version as podinfo does, ``/status/503`` with a status, ``/slow/0.5`` after so many seconds, ``/drop`` closes
the connection instead of an answer, ``/trickle`` sends a body that never ends, ``/nonsense`` what is no HTTP.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Server:
    """Listens on a port of its own; ``requests`` are those that it read, as (connection, method, path, headers, body)."""

    def __init__(
        self, version: Callable[[int], str] = lambda _number: "1.0.0", certificate: Path | None = None, http2: bool = False
    ) -> None:
        self.version, self.http2 = version, http2
        self.requests: list[tuple[int, str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self.close_after = 0
        self._lock = threading.Lock()
        self._context = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
            self._context.set_alpn_protocols(["h2"] if http2 else ["http/1.1"])
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Server:
        """Listen."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Listen no more."""
        self._listener.close()

    def _accept(self) -> None:
        """Give each connection a thread."""
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    number = self.connections
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        """Answer on one connection."""
        with contextlib.suppress(OSError, ValueError, ssl.SSLError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            there: Any = self._context.wrap_socket(connection, server_side=True) if self._context else connection
            (self._serve_http2 if self.http2 else self._serve_http1)(there, number)
            there.close()

    def _take(self, number: int, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes, str]:
        """Note a request and return the status, the body and the version of its answer."""
        with self._lock:
            self.requests.append((number, method, path, headers, body))
            version = self.version(len(self.requests) - 1)
        if path.startswith("/slow/"):
            time.sleep(float(path.rpartition("/")[2]))
        status = int(path.rpartition("/")[2]) if path.startswith("/status/") else 200
        return status, json.dumps({"version": version, "app": {"version": version}}).encode(), version

    def _serve_http1(self, there: Any, number: int) -> None:
        """Answer in HTTP/1.1 until the other side has enough."""
        reader = there.makefile("rb")
        answered = 0
        while line := reader.readline():
            method, path, _version = line.decode().split()
            headers = {}
            while (entry := reader.readline().decode().strip()) != "":
                name, _colon, value = entry.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", 0)))
            status, text, version = self._take(number, method, path, headers, body)
            if path == "/drop":
                return
            if path == "/nonsense":
                there.sendall(b"this is no HTTP\r\n\r\n")
                return
            if path == "/trickle":
                there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _part in range(1000):
                    there.sendall(b"x")
                    time.sleep(0.05)
            there.sendall(f"HTTP/1.1 {status} Fine\r\nContent-Length: {len(text)}\r\nX-Version: {version}\r\n\r\n".encode() + text)
            answered += 1
            if headers.get("connection") == "close" or answered == self.close_after:
                return

    def _serve_http2(self, there: Any, number: int) -> None:
        """Answer in HTTP/2 until the other side has enough."""
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        state.initiate_connection()
        there.sendall(state.data_to_send())
        while data := there.recv(65536):
            for event in state.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    headers = dict(event.headers)
                    status, text, version = self._take(number, headers[":method"], headers[":path"], headers, b"")
                    state.send_headers(event.stream_id, [(":status", str(status)), ("x-version", version)])
                    state.send_data(event.stream_id, text, end_stream=True)
            there.sendall(state.data_to_send())


def certificate(folder: Path, name: str = "shop.example") -> Path:
    """Make a certificate for a name and for this host that signs itself; return the file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Return a port that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
