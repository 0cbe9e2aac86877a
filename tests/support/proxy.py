# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain HTTP door in front of a real API server, which fails on request: answers 429 or 503, drops connections, goes away.

What it forwards is real; only the faults are its own. It listens on loopback.
"""

from __future__ import annotations

import http.client
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import yaml

FORWARDED = ("Accept", "Content-Type")


class FaultyDoor:
    """Forwards to the API server of a kubeconfig, except for the faults that ``fail`` was given."""

    def __init__(self, kubeconfig: str, folder: Any) -> None:
        document = yaml.safe_load(open(kubeconfig, encoding="utf-8"))
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._target = urlsplit(cluster["server"])
        self._context = ssl.create_default_context(cafile=_file(cluster, "certificate-authority", folder))
        self._context.load_cert_chain(_file(user, "client-certificate", folder), _file(user, "client-key", folder))
        self._faults: list[tuple[Callable[[str, str], bool], str]] = []
        self._open: set[Any] = set()
        self._lock = threading.Lock()
        self.away = False
        self.seen: list[tuple[str, str]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultyDoor:
        """Listen."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.cut()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, how: str, times: int = 1, method: str = "", path: str = "") -> None:
        """Fail the next requests: ``how`` is a status, ``drop`` (not forwarded) or ``lose`` (forwarded, the answer lost)."""
        self._faults += [(lambda m, p: m == (method or m) and path in p, how)] * times

    def cut(self) -> None:
        """Break off every connection that is open."""
        with self._lock:
            for handler in list(self._open):
                try:
                    handler.connection.shutdown(2)
                except OSError:
                    pass

    def go_away(self, seconds: float) -> None:
        """Break everything off, and answer nothing for some seconds."""
        self.away = True
        self.cut()
        time.sleep(seconds)
        self.away = False

    def _next_fault(self, method: str, path: str) -> str:
        """Return how this request fails, or an empty string."""
        with self._lock:
            for number, (applies, how) in enumerate(self._faults):
                if applies(method, path):
                    del self._faults[number]
                    return how
        return ""

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        """Return the class that handles a request."""
        door = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                door.seen.append((self.command, self.path))
                how = "drop" if door.away else door._next_fault(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if how.isdigit():
                    self._answer_status(int(how))
                elif how == "drop":
                    self.close_connection = True
                else:
                    self._forward(body, lose=how == "lose")

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

            def _answer_status(self, status: int) -> None:
                """Answer as an API server that is overloaded does."""
                said = json.dumps({"kind": "Status", "status": "Failure", "code": status, "message": "the door was told to fail"}).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def _forward(self, body: bytes, lose: bool) -> None:
                """Hand the request on and the answer back, as it comes."""
                connection = http.client.HTTPSConnection(door._target.hostname or "", door._target.port, context=door._context)
                headers = {name: self.headers[name] for name in FORWARDED if self.headers[name]}
                try:
                    connection.request(self.command, self.path, body or None, headers)
                    response = connection.getresponse()
                    if lose:
                        response.read()
                        self.close_connection = True
                        return
                    self.close_connection = True
                    self.send_response(response.status)
                    self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
                    self.send_header("Connection", "close")
                    self.end_headers()
                    with door._lock:
                        door._open.add(self)
                    while True:
                        chunk = response.read1(65536)
                        if not chunk:
                            break
                        self.wfile.write(chunk)
                        self.wfile.flush()
                except OSError:
                    self.close_connection = True
                finally:
                    with door._lock:
                        door._open.discard(self)
                    connection.close()

            def log_message(self, *_words: Any) -> None:
                """Say nothing."""

        return Handler


def _file(entry: dict[str, str], name: str, folder: Any) -> str:
    """Return the path of a certificate that a kubeconfig names or carries."""
    if entry.get(name):
        return entry[name]
    import base64

    path = folder / name
    path.write_bytes(base64.b64decode(entry[f"{name}-data"]))
    path.chmod(0o600)
    return str(path)
