# SPDX-License-Identifier: GPL-3.0-or-later
"""The one file that sends requests to Kubernetes: implements ``model.Cluster`` over the official client's connection pool.

The client's generated calls differ between versions, and its discovery costs requests. What is the same from 24 to 37
is used: the urllib3 pool with its TLS and proxy settings, and the exec stream. ``login.py`` makes one from options.
"""

from __future__ import annotations

import ast
import json
import random
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from .errors import Conflict, DeliveryError, Forbidden, Gone, InvalidRequest, NotFound, Unavailable
from .model import (
    FIELD_MANAGER,
    KINDS,
    Answer,
    Kind,
    Listing,
    Manifest,
    Query,
    Ran,
    Ref,
)

KUBERNETES_IMPORT_ERROR: str | None
try:
    import urllib3
    from kubernetes import client as k8s_client
    from kubernetes.stream import ws_client

    KUBERNETES_IMPORT_ERROR = None
except ImportError:
    KUBERNETES_IMPORT_ERROR = traceback.format_exc()

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
RETRY_STATUS = (429, 500, 502, 503, 504)
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 3.0
PROTOCOL = {"sec-websocket-protocol": "v4.channel.k8s.io"}


class KubernetesCluster:
    """A cluster, reached with the credentials that the options name.

    ``patience`` is the number of seconds for which a request is tried again while the API server is overloaded or away.
    """

    def __init__(
        self,
        api_client: Any,
        default_namespace: str,
        context: str | None,
        patience: float = 10.0,
        groups: Sequence[str] = (),
        on_close: Callable[[], object] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.default_namespace = default_namespace
        self.context = context
        self.patience = patience
        self._api = api_client
        self._pool = api_client.rest_client.pool_manager
        self._base = api_client.configuration.host.rstrip("/")
        self._groups = tuple(groups)
        self._on_close = on_close
        self._sleep = sleep
        self._clock = clock

    def close(self) -> None:
        """Give back what the login has put on disk; there are no requests after that."""
        self._on_close()

    # -- the Protocol -------------------------------------------------------------------------------------------

    def get(self, ref: Ref) -> Manifest:
        """Return the object, or raise NotFound."""
        return self._json("GET", ref.path, about=ref, verb="get")

    def list(self, query: Query) -> Listing:
        """Return the objects that the query selects."""
        path = KINDS[query.kind].path(query.namespace)
        answer = self._json("GET", path, self._selection(query), about=query, verb="list")
        items = answer.get("items") or []
        for item in items:
            item.setdefault("kind", query.kind)
        return Listing(items, answer["metadata"]["resourceVersion"])

    def api_groups(self) -> Sequence[str]:
        """Return the names of the API groups that are served: which kinds of others are installed."""
        return sorted(entry["name"] for entry in self._json("GET", "/apis").get("groups") or [])

    def watch(self, query: Query, resource_version: str, timeout: float) -> Iterator[tuple[str, Manifest]]:
        """Yield (type, object) from ``resource_version`` on; end after ``timeout`` seconds; raise Gone when too old."""
        parameters = {
            **self._selection(query),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, int(timeout))),
        }
        path = KINDS[query.kind].path(query.namespace)
        response = self._send("GET", path, parameters, stream=True, read_timeout=timeout + 5)
        try:
            if response.status >= 400:
                raise self._error(response.status, self._text(response), query, "watch")
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event.get("object") or {}
                    raise self._error(int(status.get("code") or 500), json.dumps(status), query, "watch")
                event["object"].setdefault("kind", query.kind)
                yield event["type"], event["object"]
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"the watch on {query.kind} in {query.namespace} broke off: {reason_of(error)}") from error
        finally:
            response.close()

    def patch(self, ref: Ref, body: Any, patch_type: str, dry_run: bool = False, subresource: str = "") -> Manifest:
        """Patch the object, or a subresource of it, and return it; raise Conflict where a precondition in the body does not hold."""
        path = f"{ref.path}/{subresource}" if subresource else ref.path
        return self._json("PATCH", path, _writing(dry_run), body, content_type=patch_type, about=ref, verb="patch")

    def create(self, ref: Ref, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """Create the object and return it; raise Conflict where it exists."""
        path = KINDS[ref.kind].path(ref.namespace)
        return self._json("POST", path, _writing(dry_run), manifest, about=ref, verb="create")

    def delete(self, ref: Ref, dry_run: bool = False, resource_version: str | None = None) -> None:
        """Delete the object; raise NotFound or Conflict."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if resource_version:
            body["preconditions"] = {"resourceVersion": resource_version}
        if dry_run:
            body["dryRun"] = ["All"]
        self._json("DELETE", ref.path, {}, body, about=ref, verb="delete")

    def logs(self, ref: Ref, container: str, lines: int = 10, previous: bool = False) -> list[str]:
        """Return the last log lines of a container, or an empty list where there are none."""
        parameters = {"container": container, "tailLines": str(lines)}
        if previous:
            parameters["previous"] = "true"
        try:
            response = self._send("GET", ref.path + "/log", parameters)
        except DeliveryError:
            return []
        return self._text(response).splitlines() if response.status == 200 else []

    def exec(self, ref: Ref, container: str, command: Sequence[str], timeout: float) -> Ran:
        """Run a command in a container of the pod."""
        headers = self._headers()
        if "Impersonate-User" in headers or "Impersonate-Group" in headers:
            raise InvalidRequest(
                f"cannot exec into {ref} as an impersonated user: the client's WebSocket does not carry impersonation;"
                " use via: pod_proxy, or log in as that user"
            )
        query = [("command", word) for word in command]
        query += [("container", container), ("stdout", "true"), ("stderr", "true")]
        try:
            # Not by the generated API, whose import takes longer than all the rest.
            channel = ws_client.websocket_call(
                self._api.configuration,
                "GET",
                f"{self._base}{ref.path}/exec",
                query_params=query,
                headers={"authorization": headers["authorization"], **PROTOCOL} if "authorization" in headers else PROTOCOL,
                _preload_content=False,
            )
        except k8s_client.exceptions.ApiException as error:
            status = error.status or _handshake_status(str(error.reason)) or 500
            raise self._error(status, _handshake_body(str(error.reason)), ref, "exec into") from error
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise Unavailable(f"cannot exec into {ref}: {reason_of(error)}") from error
        try:
            try:
                channel.run_forever(timeout=timeout)
            except (OSError, ws_client.websocket.WebSocketException) as error:
                raise Unavailable(f"the exec into {ref} broke off: {reason_of(error)}") from error
            if channel.is_open():
                raise Unavailable(f"the command in {ref} did not end within {timeout:g} s", reason="Timeout")
            stdout, stderr = channel.read_stdout(timeout=0) or "", channel.read_stderr(timeout=0) or ""
            code, refusal = _ended(channel)
            return Ran(code, stdout, stderr + refusal)
        finally:
            channel.close()

    def proxy_get(self, ref: Ref, port: str, path: str, headers: Mapping[str, str], timeout: float) -> Answer:
        """GET a path of a Service or pod through the API server; ``port`` may be ``https:8443``."""
        return self._proxy("GET", ref, port, path, timeout, headers=headers)

    def proxy_post(self, ref: Ref, port: str, path: str, body: Any, timeout: float) -> Answer:
        """POST a document as JSON to a path of a Service or pod through the API server."""
        return self._proxy("POST", ref, port, path, timeout, body=body)

    def _proxy(self, method: str, ref: Ref, port: str, path: str, timeout: float, **sent: Any) -> Answer:
        """Send a request to a Service or pod through the API server; raise where it is the API server that refuses."""
        scheme, _colon, number = port.rpartition(":")
        target = f"{scheme}:{ref.name}:{number}" if scheme else f"{ref.name}:{number}"
        kind = KINDS[ref.kind]
        url = f"{kind.path(ref.namespace)}/{quote(target)}/proxy/{path.lstrip('/')}"
        response = self._send(method, url, {}, read_timeout=timeout, **sent)
        answer = Answer(response.status, self._text(response), dict(response.headers))
        refused = _status_message(answer.body) if answer.status in (401, 403, 404) else ""
        if refused and "proxy" in refused or answer.status == 403 and "forbidden" in refused:
            raise self._error(answer.status, answer.body, ref, "proxy to")
        return answer

    # -- requests -----------------------------------------------------------------------------------------------

    def _json(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        about: Ref | Query | None = None,
        verb: str = "get",
    ) -> Any:
        """Send a request, again while the server is away, and return its JSON; raise what the status means."""
        deadline = self._clock() + self.patience
        pause, unsure = FIRST_PAUSE, False
        while True:
            failure: DeliveryError
            try:
                response = self._send(method, path, parameters or {}, body, content_type)
                text = self._text(response)
            except Unavailable as error:
                failure, unsure = error, True
            else:
                if response.status < 400:
                    return self._parsed(response.status, text)
                failure = self._error(response.status, text, about, verb)
                if response.status not in RETRY_STATUS:
                    raise failure.with_details(**({"unsure": True} if unsure else {}))
            pause = min(pause * 2, LONGEST_PAUSE)
            wait = pause * (0.5 + random.random() / 2)
            if self._clock() + wait > deadline:
                raise failure
            self._sleep(wait)

    def _parsed(self, status: int, text: str) -> Any:
        """Return the JSON of an answer; raise InvalidRequest where it is none, which no API server does."""
        try:
            return json.loads(text)
        except ValueError:
            raise InvalidRequest(
                f"the server at {self._base} is no Kubernetes API server (it answers {status} without JSON); check host"
            ) from None

    def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        read_timeout: float = READ_TIMEOUT,
    ) -> Any:
        """Send one request and return urllib3's response; raise Unavailable where none came."""
        url = self._base + path + (f"?{urlencode(parameters)}" if parameters else "")
        try:
            return self._pool.request(
                method,
                url,
                body=json.dumps(body).encode() if body is not None else None,
                headers=self._headers({**({"Content-Type": content_type} if body is not None else {}), **(headers or {})}),
                preload_content=not stream,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT, read_timeout), read=read_timeout),
                retries=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(
                f"the API server at {self._base} does not answer: {reason_of(error)}; check that it runs, the address in"
                " the kubeconfig and the network between"
            ) from error

    def _headers(self, more: Mapping[str, str] | None = None) -> Any:
        """Return the default headers with the credentials, refreshed where the kubeconfig's plugin does that."""
        headers = urllib3.HTTPHeaderDict({"Accept": "application/json", **self._api.default_headers})
        for setting in self._api.configuration.auth_settings().values():
            if setting.get("in") == "header" and setting.get("value"):
                headers[setting["key"]] = setting["value"]
        for group in self._groups:
            headers.add("Impersonate-Group", group)
        for name, value in (more or {}).items():
            headers[name] = value
        return headers

    @staticmethod
    def _text(response: Any) -> str:
        """Return the whole body as text."""
        data = response.data
        return data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""

    @staticmethod
    def _selection(query: Query) -> dict[str, str]:
        """Return the query parameters that narrow a list."""
        chosen = {"labelSelector": query.labels, "fieldSelector": query.fields}
        return {key: value for key, value in chosen.items() if value}

    def _error(self, status: int, text: str, about: Ref | Query | None, verb: str) -> DeliveryError:
        """Return the error that an HTTP status and the server's own words mean."""
        said = _without_objects(_status_message(text)) or " ".join(text.split())[:300] or f"HTTP {status}"
        what = _what(about)
        if status == 401:
            return Forbidden(
                f"the API server at {self._base} does not accept the credentials (401 Unauthorized); log in again or"
                " choose another context",
                reason="Unauthorized",
            )
        if status == 403:
            if isinstance(about, Ref) and ("exceeded quota" in said or "admission" in said or "is being terminated" in said):
                return Forbidden(f"Cannot {verb} {what}: {said}")
            # The server's own words do not name what an exec needs.
            needs = " (that takes the verbs create and get on pods/exec)" if verb == "exec into" else ""
            return Forbidden(f"Not allowed to {verb} {what}{needs}: {said.strip(': ')}; grant it with a Role and a RoleBinding")
        if status == 404:
            return self._not_found(about, said)
        if status == 410:
            return Gone(f"{what}: {said}")
        if status == 409 or (status == 422 and _test_failed(said)):
            return Conflict(f"Cannot {verb} {what}: {said}")
        if status in (400, 422):
            return InvalidRequest(f"Cannot {verb} {what}: {said}")
        return Unavailable(f"Cannot {verb} {what}: the API server answers {status}: {said}")

    def _not_found(self, about: Ref | Query | None, said: str) -> DeliveryError:
        """Return NotFound, naming the namespace where that is what is missing."""
        if not said.strip().startswith(("<", "404")) and isinstance(about, Ref) and about.namespace and about.kind != "Namespace":
            try:
                response = self._send("GET", KINDS["Namespace"].path(name=about.namespace), {})
                if response.status == 404:
                    return NotFound(
                        f'{about} does not exist: there is no namespace "{about.namespace}"; check the name and the context'
                        + (f' (now "{self.context}")' if self.context else "")
                    )
            except DeliveryError:
                pass
        if isinstance(about, Ref) and "could not find the requested resource" not in said:
            return NotFound(f"{about} does not exist; check the name and the namespace")
        return NotFound(f"{_what(about)}: {said}")


def _lines(response: Any) -> Iterator[bytes]:
    """Yield the lines of a streamed body as they arrive."""
    buffer = b""
    for chunk in response.stream(amt=None, decode_content=False) if response.chunked else response.stream(amt=1):
        buffer += chunk
        *complete, buffer = buffer.split(b"\n")
        yield from (line for line in complete if line.strip())


def _writing(dry_run: bool) -> dict[str, str]:
    """Return the query parameters of a write."""
    parameters = {"fieldManager": FIELD_MANAGER}
    return {**parameters, "dryRun": "All"} if dry_run else parameters


def _what(about: Ref | Query | None) -> str:
    """Return what a request was about, as a sentence names it."""
    if isinstance(about, Query):
        kind: Kind = KINDS[about.kind]
        return f"{kind.plural} in namespace {about.namespace}"
    return str(about) if about else "the API server"


def _status_message(text: str) -> str:
    """Return the message of a Kubernetes Status, or an empty string."""
    try:
        status = json.loads(text)
    except ValueError:
        return ""
    return status.get("message") or "" if isinstance(status, dict) and status.get("kind") == "Status" else ""


def _without_objects(said: str) -> str:
    """Return the server's words without an object that it could not read, which it quotes whole, secrets and all."""
    return re.sub(r"\{.*\}|map\[.*\]", "{...}", said, flags=re.DOTALL) if len(said) > 600 else said


def _test_failed(said: str) -> bool:
    """Return whether the server refused a JSON patch because one of its ``test`` operations did not hold.

    The API server answers 422 with the JSON patch library's words, or with none of its own.
    """
    return "testing " in said and "failed" in said or "the server rejected our request due to an error in our request" in said


def _handshake_status(text: str) -> int | None:
    """Return the HTTP status in a failed WebSocket handshake: ``Handshake status 403 Forbidden ...``."""
    words = text.split()
    return next((int(word) for word in words[:4] if word.isdigit() and len(word) == 3), None)


def _handshake_body(text: str) -> str:
    """Return what the API server said in a failed WebSocket handshake: after headers, as text or as bytes are written."""
    body = text.rpartition("-+-+- ")[2].strip()
    if body.startswith("{"):
        return body
    try:
        return ast.literal_eval(body).decode("utf-8", "replace")
    except (ValueError, SyntaxError, AttributeError):
        return text


def _ended(channel: Any) -> tuple[int, str]:
    """Return the exit code of an exec, and the words of a runtime that could not start it (then the code is 255).

    A stream that broke off before its end has no words either.
    """
    try:
        status = json.loads(channel.read_channel(ws_client.ERROR_CHANNEL, timeout=0) or "{}")
    except ValueError:
        return 255, ""
    if status.get("status") == "Success":
        return 0, ""
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode" and str(cause.get("message") or "").isdigit():
            return int(cause["message"]), ""
    return 255, status.get("message") or ""


def reason_of(error: BaseException) -> str:
    """Return the last part of a nested network error, which is the one that tells a person something."""
    inner: Any = error
    while getattr(inner, "reason", None) is not None and isinstance(inner.reason, BaseException):
        inner = inner.reason
    text = str(inner).strip() or type(inner).__name__
    return text.rsplit(">: ", 1)[-1].splitlines()[0]
