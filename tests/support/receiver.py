#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A webhook's other end: an HTTP server on loopback that writes each request as a line of JSON to a file.

usage: receiver.py FILE [--port-file FILE] [--seconds N]

It prints its port, and ends after --seconds, when it is asked for /stop, or when its standard input closes; with a file for
the port nobody need hold the other end of that. The first part of a path says how it answers: /500/x with that status, /slow/x
after three seconds, /twice/x with 503 the first two times, anything else with 200.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def handler(log: Path) -> type[BaseHTTPRequestHandler]:
    """Return what answers, and writes to the log."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            word = self.path.split("/")[1]
            if word == "stop":
                threading.Thread(target=self.server.shutdown, daemon=True).start()
            with lock:
                seen[self.path] += 1
                with log.open("a") as out:
                    out.write(json.dumps({"path": self.path, "headers": dict(self.headers), "body": json.loads(body or "null")}) + "\n")
            if word == "slow":
                time.sleep(3)
            status = int(word) if word.isdigit() else 503 if word == "twice" and seen[self.path] < 3 else 200
            try:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"ok")
            except OSError:
                pass

        def log_message(self, *_words: object) -> None:
            """Log nothing."""

    return Receiver


def main() -> None:
    """Serve until the time is over or the standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(given.file))
    server.daemon_threads = True
    timer = threading.Timer(given.seconds, server.shutdown)
    timer.daemon = True
    timer.start()
    if given.port_file:
        given.port_file.write_text(str(server.server_port))
    else:
        threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
