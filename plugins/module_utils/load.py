# SPDX-License-Identifier: GPL-3.0-or-later
"""Bounded HTTP traffic: requests by several connections at once, HTTP/1.1 or 2, each outcome told as it comes.

The one file that imports httpx. Each connection has a thread of its own and httpx's transport, which is the connection without
what a client puts around it: no redirects, no cookies, no proxies of the environment.

With a rate the load is open: requests are due at fixed times, whatever the answers take, and the time of each counts from when it
was due. A service that stands still for a second then shows in all requests of this second, and not in one of them alone (the
"coordinated omission" of closed loops).
"""

from __future__ import annotations

import json
import math
import re
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .errors import InvalidRequest, MissingLibrary
from .http_probe import compile_expression
from .plan.load import Outcome

HTTPX_IMPORT_ERROR: str | None
try:
    import httpx

    HTTPX_IMPORT_ERROR = None
except ImportError:
    HTTPX_IMPORT_ERROR = traceback.format_exc()

HTTP2_IMPORT_ERROR: str | None
try:
    import h2.connection  # noqa: F401  # pylint: disable=unused-import

    HTTP2_IMPORT_ERROR = None
except ImportError:
    HTTP2_IMPORT_ERROR = traceback.format_exc()

# A body that is longer is read to its end, and not asked for a version.
MOST_BODY = 1_000_000
MOST_REQUESTS = 1_000_000
MOST_SECONDS = 3600.0
MOST_CONCURRENCY = 256
# A request may be sent twice where the server closed the connection meanwhile: those that may be repeated (RFC 9110, 9.2.2).
REPEATABLE = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
DOTTED = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")
AGENT = "progressive.delivery"


def require_httpx(http2: bool = False) -> None:
    """Raise MissingLibrary where what makes the requests is not installed."""
    if HTTPX_IMPORT_ERROR:
        raise MissingLibrary("httpx", HTTPX_IMPORT_ERROR)
    if http2 and HTTP2_IMPORT_ERROR:
        raise MissingLibrary("h2", HTTP2_IMPORT_ERROR)


def check_url(url: str) -> None:
    """Raise InvalidRequest for an address that cannot be asked, or that carries a password."""
    if not url.startswith(("http://", "https://")):
        raise InvalidRequest(f'url must start with http:// or https://, got "{url.split("@")[-1]}"')
    if "@" in url.split("://", 1)[1].split("/", 1)[0]:
        raise InvalidRequest("url must not carry a user or a password, which would be shown; send them as the header Authorization")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f'url "{url}" is no address: {error}') from None
    if not host or re.search(r"[\s\x00-\x1f]", url):
        raise InvalidRequest(f'url "{url}" is no address: it needs a host, and no space')


def check_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers as text; raise InvalidRequest for one that HTTP does not have. No value is told: it may be a secret."""
    found = {}
    for name, value in headers.items():
        text = str(value)
        if not TOKEN.fullmatch(str(name)):
            raise InvalidRequest(f'headers: "{name}" is no name of a header; it has letters, digits and "-" and no space')
        if text != text.strip() or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
            raise InvalidRequest(f"headers: the value of {name} has a line break or a space at its end, which HTTP does not have")
        found[str(name)] = text
    return found


def check_seconds(name: str, value: float) -> None:
    """Raise InvalidRequest for a time that is not more than 0."""
    if not (math.isfinite(value) and value > 0):
        raise InvalidRequest(f"{name} must be more than 0 seconds, got {value:g}")


class Teller:
    """Finds out which version answered: by a response header, or by a field of a JSON body."""

    def __init__(self, header: str | None = None, expression: str | None = None) -> None:
        if header and expression:
            raise InvalidRequest("version_header and version_field are two ways to tell the version; give one of them")
        if header and not TOKEN.fullmatch(header):
            raise InvalidRequest(f'version_header: "{header}" is no name of a header')
        self.header = header.lower() if header else None
        self._path = expression.split(".") if expression and DOTTED.fullmatch(expression) else None
        self._search = compile_expression("version_field", expression) if expression and not self._path else None
        self.reads_body = bool(expression)

    @property
    def tells(self) -> bool:
        """Return whether there is a way to tell the version."""
        return bool(self.header or self.reads_body)

    def version(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """Return the version that an answer tells, or None."""
        if self.header:
            return headers.get(self.header)
        if not self.reads_body:
            return None
        try:
            found = json.loads(body)
        except ValueError:
            return None
        if self._search:
            found = self._search(found)
        for key in self._path or ():
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is None or isinstance(found, (Mapping, list)):
            return None
        return json.dumps(found) if isinstance(found, bool) else str(found)


@dataclass(frozen=True)
class Target:
    """What is asked, and how. ``timeout`` is in seconds and for the whole of a request.

    ``per_connection`` is how many requests a connection carries before another one is made; 0 for no limit. ``accepted`` are the
    status codes that are no fault; empty for 200 to 399.
    """

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    timeout: float = 10.0
    http2: bool = False
    per_connection: int = 0
    validate_certs: bool = True
    ca_path: str | None = None
    accepted: frozenset[int] = frozenset()
    teller: Teller = field(default_factory=Teller)

    def check(self) -> None:
        """Raise InvalidRequest where it cannot be asked, and MissingLibrary without what asks."""
        check_url(self.url)
        if not TOKEN.fullmatch(self.method):
            raise InvalidRequest(f'method "{self.method}" is none of HTTP')
        check_seconds("timeout", self.timeout)
        require_httpx(self.http2)
        self.context()

    def context(self) -> ssl.SSLContext | None:
        """Return how certificates are checked: by the system's authorities, and those of ``ca_path``; None without TLS."""
        if not self.url.startswith("https:"):
            return None
        context = ssl.create_default_context()
        if self.ca_path:
            try:
                context.load_verify_locations(self.ca_path)
            except (OSError, ssl.SSLError) as error:
                raise InvalidRequest(f"ca_path {self.ca_path} cannot be read as certificates: {error}") from None
        if not self.validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class Connection:
    """One connection, opened anew when it must be."""

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        self._target, self._context = target, context
        self._transport: Any = None
        self._carried = 0
        headers = {"Accept": "*/*", "User-Agent": AGENT, **target.headers}
        extensions: dict[str, Any] = {"timeout": httpx.Timeout(target.timeout).as_dict()}
        named = next((value for name, value in target.headers.items() if name.lower() == "host"), "")
        if named and context:
            # The name that the certificate is asked for, too.
            extensions["sni_hostname"] = named.partition(":")[0]
        if target.per_connection == 1 and not target.http2:
            headers.setdefault("Connection", "close")
        self._request = httpx.Request(target.method, target.url, headers=headers, content=target.body or None, extensions=extensions)

    def ask(self, due: float) -> Outcome:
        """Send the request and return what came of it; a connection that the server closed meanwhile is no fault of the service."""
        sent = time.monotonic()
        repeated = False
        while True:
            is_kept = self._carried > 0
            try:
                status, version = self._once(sent + self._target.timeout)
            except (httpx.TransportError, httpx.InvalidURL, OSError, ValueError) as error:
                self.close()
                kind = kind_of(error)
                if is_kept and not repeated and kind in ("reset", "closed") and self._target.method in REPEATABLE:
                    repeated = True
                    continue
                return Outcome(due, sent, time.monotonic(), 0, "reset" if kind == "closed" else kind, words_of(error), None, repeated)
            ended = time.monotonic()
            accepted = self._target.accepted
            passes = status in accepted if accepted else 200 <= status < 400
            fault = "" if passes else f"status_{status}"
            return Outcome(due, sent, ended, status, fault, f"the answer has the status {status}" if fault else "", version, repeated)

    def _once(self, deadline: float) -> tuple[int, str | None]:
        """Send the request once; return the status and the version of the answer, whose body is read to its end."""
        if self._transport is None:
            # Prior knowledge without TLS; with it the server chooses, and its choice is looked at.
            http1 = not self._target.http2 or self._context is not None
            self._transport = httpx.HTTPTransport(
                verify=self._context or False,
                http1=http1,
                http2=self._target.http2,
                trust_env=False,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None),
            )
        response = self._transport.handle_request(self._request)
        try:
            parts, length = [], 0
            keeps = self._target.teller.reads_body
            for part in response.stream:
                length += len(part)
                if keeps and length <= MOST_BODY:
                    parts.append(part)
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the answer was not whole in time")
        finally:
            response.close()
        if self._target.http2 and response.extensions.get("http_version") != b"HTTP/2":
            raise httpx.RemoteProtocolError("the server does not speak HTTP/2 here: it chose HTTP/1.1")
        version = self._target.teller.version(response.headers, b"".join(parts)) if length <= MOST_BODY else None
        self._carried += 1
        if self._target.per_connection and self._carried >= self._target.per_connection:
            self.close()
        return response.status_code, version

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        transport, self._transport, self._carried = self._transport, None, 0
        if transport is not None:
            try:
                transport.close()
            except (httpx.TransportError, OSError, RuntimeError):
                pass


def kind_of(error: BaseException) -> str:
    """Return the kind of a fault: timeout, refused, reset, closed, tls, dns, unreachable, protocol or connect."""
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) and not isinstance(error, httpx.ConnectError):
            return "reset"
        for kinds, name in (
            (ssl.SSLError, "tls"),
            (socket.gaierror, "dns"),
            (UnicodeError, "dns"),
            (ConnectionRefusedError, "refused"),
            ((ConnectionResetError, BrokenPipeError, ConnectionAbortedError), "reset"),
            (TimeoutError, "timeout"),
        ):
            if isinstance(cause, kinds):
                return name
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.RemoteProtocolError):
        said = str(error)
        return "closed" if "disconnected" in said or "ConnectionTerminated" in said else "protocol"
    if isinstance(error, (httpx.ReadError, httpx.WriteError, httpx.CloseError)):
        return "closed"
    if isinstance(error, httpx.ConnectError):
        return "unreachable"
    return "protocol"


def words_of(error: BaseException) -> str:
    """Return what a fault says of itself, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


class Traffic:
    """Requests to a target by ``concurrency`` connections, until so many are sent or so many seconds are over.

    ``rate`` is in requests a second, all connections together; without it each sends as soon as it has its answer. ``take`` gets
    each outcome, one at a time. Threads that still wait for an answer at ``stop`` are left to end by themselves: the time of a
    request is bounded.
    """

    def __init__(
        self,
        target: Target,
        take: Callable[[Outcome], None],
        concurrency: int,
        rate: float | None = None,
        requests: int = MOST_REQUESTS,
        duration: float = MOST_SECONDS,
    ) -> None:
        self._target, self._take = target, take
        self._rate, self._requests, self._duration = rate, requests, duration
        self._context = target.context()
        self._lock, self._taking = threading.Lock(), threading.Lock()
        self._next = 0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _number in range(concurrency)]
        self.began = 0.0

    def start(self) -> None:
        """Begin to send."""
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more, and tell no more outcomes."""
        self._stopped.set()
        with self._taking:
            pass

    def is_over(self, timeout: float) -> bool:
        """Wait for so many seconds at most; return whether all is sent and answered."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
        return True

    def _due(self) -> float | None:
        """Return when the next request is due, or None where there is none."""
        with self._lock:
            number = self._next
            due = self.began + number / self._rate if self._rate else time.monotonic()
            if number >= self._requests or due - self.began >= self._duration or self._stopped.is_set():
                return None
            self._next += 1
            return due

    def _work(self) -> None:
        """Send over one connection."""
        connection = Connection(self._target, self._context)
        while True:
            due = self._due()
            if due is None:
                break
            pause = due - time.monotonic()
            if pause > 0 and self._stopped.wait(pause):
                break
            outcome = connection.ask(due)
            with self._taking:
                if not self._stopped.is_set():
                    self._take(outcome)
        connection.close()
