# SPDX-License-Identifier: GPL-3.0-or-later
"""A smoke test: one request by one of four ways, made again until the answer is as expected, each attempt reported."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest, NotFound, Unavailable, WaitFailed
from .http_probe import check_expressions, commands, get_url, is_missing, mismatch, parse_exec
from .model import Answer, Cluster, Manifest, Ref, metadata
from .plan.rollout import in_words, is_ready
from .reading import pods_of_newest
from .waiting import require

WAYS = ("exec", "pod_proxy", "service_proxy", "url")
MOST_REPORTED = 2000

TEST_OPTIONS: dict[str, dict[str, Any]] = {
    "via": {"type": "str", "default": "exec", "choices": list(WAYS)},
    "service": {"type": "str"},
    "container": {"type": "str"},
    "port": {"type": "str"},
    "scheme": {"type": "str", "default": "http", "choices": ["http", "https"]},
    "path": {"type": "str", "default": "/"},
    "url": {"type": "str"},
    "headers": {"type": "dict"},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "text": {"type": "str"},
    "json": {"type": "dict"},
    "timeout": {"type": "float", "default": 5},
    "retries": {"type": "int", "default": 3},
    "delay": {"type": "float", "default": 1},
}


@dataclass(frozen=True)
class SmokeTest:
    """What is asked, of whom, and what the answer must be. ``timeout`` and ``delay`` are in seconds."""

    via: str = "exec"
    service: str | None = None
    container: str | None = None
    port: str | None = None
    scheme: str = "http"
    path: str = "/"
    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: tuple[int, ...] = (200,)
    text: str | None = None
    json: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 5
    retries: int = 3
    delay: float = 1
    validate_certs: bool = True

    @classmethod
    def of(cls, options: Mapping[str, Any], validate_certs: Any = None) -> SmokeTest:
        """Return the test that options ask for, or raise InvalidRequest; options that are no test's are left alone."""
        try:
            return cls._of(options, validate_certs)
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"a smoke test has an option of the wrong kind: {error}") from None

    @classmethod
    def listed(cls, options: Any, validate_certs: Any = None) -> SmokeTest:
        """Return a test out of a list of tests, in which an option that no test has is a mistake."""
        unknown = sorted(set(options) - set(TEST_OPTIONS)) if isinstance(options, Mapping) else [str(options)]
        if unknown:
            raise InvalidRequest(f'smoke_tests: a smoke test has no option "{unknown[0]}"; it has: {", ".join(sorted(TEST_OPTIONS))}')
        return cls.of(options, validate_certs)

    @classmethod
    def _of(cls, options: Mapping[str, Any], validate_certs: Any) -> SmokeTest:
        """Return the test, its options as the kinds that they are."""
        chosen = {key: options[key] for key in TEST_OPTIONS if options.get(key) is not None}
        for key, kind in (("timeout", float), ("delay", float), ("retries", int)):
            if key in chosen:
                chosen[key] = kind(chosen[key])
        status = chosen.get("status", [200])
        chosen["status"] = tuple(int(code) for code in (status if isinstance(status, (list, tuple)) else [status]))
        if chosen.get("port") is not None:
            chosen["port"] = str(chosen["port"])
        chosen["headers"] = {str(key): str(value) for key, value in (chosen.get("headers") or {}).items()}
        test = cls(**chosen, validate_certs=validate_certs is not False)
        test.check()
        return test

    def check(self) -> None:
        """Raise InvalidRequest where the test cannot be made as it is asked for."""
        if self.via not in WAYS:
            raise InvalidRequest(f'via must be one of {", ".join(WAYS)}, got "{self.via}"')
        if self.via == "url" and not self.url:
            raise InvalidRequest("a smoke test via url needs url, the address that is asked")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise InvalidRequest(f'url must start with http:// or https://, got "{self.url.split("@")[-1]}"')
        if self.url is not None and "@" in self.url.split("://", 1)[1].split("/", 1)[0]:
            raise InvalidRequest("url must not carry a user or a password, which would be shown; send them as the header Authorization")
        wrong = [code for code in self.status if not 100 <= code <= 599]
        if wrong:
            raise InvalidRequest(f"status {wrong[0]} is no HTTP status code; they go from 100 to 599")
        if not self.status:
            raise InvalidRequest("status is empty; name the status codes that pass")
        if self.via == "service_proxy" and not self.service:
            raise InvalidRequest("a smoke test via service_proxy needs service, the name of the Service that is asked")
        if not self.path.startswith("/"):
            raise InvalidRequest(f'path must start with "/", got "{self.path}"')
        if not (math.isfinite(self.timeout) and math.isfinite(self.delay)):
            raise InvalidRequest(f"timeout and delay must be numbers, got timeout={self.timeout}, delay={self.delay}")
        if self.retries < 0 or self.delay < 0 or self.timeout <= 0:
            raise InvalidRequest(
                f"retries and delay must be 0 or more and timeout more than 0,"
                f" got retries={self.retries}, delay={self.delay:g}, timeout={self.timeout:g}"
            )
        if self.via in ("pod_proxy", "service_proxy") and any(name.lower() == "authorization" for name in self.headers):
            raise InvalidRequest(
                f"a smoke test via {self.via} cannot send the header Authorization: the API server would take it for its own;"
                " use via: exec or via: url"
            )
        check_expressions(self.json)


def pick_pod(cluster: Cluster, workload: Manifest) -> Manifest:
    """Return a ready pod of the workload's newest revision that is not on its way out, or raise Unavailable."""
    newest = pods_of_newest(cluster, workload)
    ready = sorted((pod for pod in newest if is_ready(pod)), key=lambda pod: metadata(pod)["name"])
    if not ready:
        about = f"{workload['kind']} {metadata(workload)['namespace']}/{metadata(workload)['name']}"
        raise Unavailable(f"{about} has no ready pod of its newest revision ({len(newest)} are not ready)", reason="NotReady")
    return ready[0]


def _container(pod: Manifest, wanted: str | None) -> Mapping[str, Any]:
    """Return the container of the pod that is asked, the first one by default."""
    containers = pod["spec"]["containers"]
    for entry in containers:
        if wanted in (None, entry["name"]):
            return entry
    names = ", ".join(entry["name"] for entry in containers)
    raise InvalidRequest(f'Pod {metadata(pod)["name"]} has no container "{wanted}"; it has: {names}')


def _port(container: Mapping[str, Any], wanted: str | None) -> str:
    """Return the number of the port that is asked: by number, by name, or the first that the container declares."""
    declared = container.get("ports") or []
    if wanted and wanted.isdigit():
        return wanted
    for entry in declared:
        if wanted in (None, entry.get("name")):
            return str(entry["containerPort"])
    if wanted:
        raise InvalidRequest(f'container {container["name"]} has no port named "{wanted}"; give its number')
    raise InvalidRequest(f"container {container['name']} declares no port; set port")


def ask(cluster: Cluster, namespace: str, test: SmokeTest, workload: Manifest | None) -> tuple[Answer, str]:
    """Make the request once; return the answer and who gave it."""
    if test.via == "url":
        url = str(test.url)
        return get_url(url, test.headers, test.timeout, test.validate_certs), url
    prefix = "https:" if test.scheme == "https" else ""
    if test.via == "service_proxy":
        ref = Ref("Service", namespace, str(test.service))
        ports = (cluster.get(ref).get("spec") or {}).get("ports") or []
        if not test.port and not ports:
            raise InvalidRequest(f"{ref} has no ports; set port")
        port = test.port or str(ports[0]["port"])
        return cluster.proxy_get(ref, prefix + port, test.path, test.headers, test.timeout), str(ref)
    if workload is None:
        raise InvalidRequest(f"a smoke test via {test.via} needs name, the workload whose pod is asked")
    pod = pick_pod(cluster, workload)
    container = _container(pod, test.container)
    port = _port(container, test.port)
    ref = Ref("Pod", namespace, metadata(pod)["name"])
    if test.via == "pod_proxy":
        return cluster.proxy_get(ref, prefix + port, test.path, test.headers, test.timeout), ref.name
    # By address: a static client in an image without libraries cannot resolve even "localhost".
    loopback = "[::1]" if ":" in ((pod.get("status") or {}).get("podIP") or "") else "127.0.0.1"
    url = f"{test.scheme}://{loopback}:{port}{test.path}"
    for command in commands(url, test.timeout, test.headers):
        ran = cluster.exec(ref, container["name"], command, test.timeout + 5)
        if not is_missing(ran):
            return parse_exec(ran), ref.name
    raise InvalidRequest(
        f"container {container['name']} of pod {ref.name} has no curl, wget, python3 or node to ask with;"
        " use via: pod_proxy or via: service_proxy"
    )


def run_test(
    cluster: Cluster,
    namespace: str,
    test: SmokeTest,
    workload_ref: Ref | None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Return what the passing attempt answered; raise WaitFailed(SmokeTestFailed) when none of them passed."""
    attempts: list[dict[str, Any]] = []
    for number in range(1, test.retries + 2):
        started = time.monotonic()
        attempt: dict[str, Any] = {"number": number, "by": "", "status": None}
        answer = None
        try:
            workload = require(cluster, workload_ref) if workload_ref and test.via in ("exec", "pod_proxy") else None
            answer, attempt["by"] = ask(cluster, namespace, test, workload)
            attempt["status"] = answer.status
            problem = mismatch(answer, test.status, test.text, test.json)
        except Unavailable as error:
            problem = error.message
        except NotFound as error:
            # A pod may go between being picked and being asked.
            if not str(attempt["by"] or error.message).startswith("Pod "):
                raise
            problem = error.message
        attempt.update(passed=not problem, problem=problem, seconds=round(time.monotonic() - started, 3))
        attempts.append(attempt)
        if not problem and answer is not None:
            return {"tries": attempts, "status": answer.status, "body": answer.body[:MOST_REPORTED], "by": attempt["by"]}
        if number <= test.retries:
            sleep(test.delay)
    last = attempts[-1]
    about = test.url if test.via == "url" else f"{test.path} of {workload_ref or 'Service ' + namespace + '/' + str(test.service)}"
    raise WaitFailed(
        f"the smoke test of {about} via {test.via} failed {in_words(len(attempts), 'time')}: {last['problem']}"
        + (f" (answered by {last['by']})" if last["by"] else ""),
        reason="SmokeTestFailed",
        tries=attempts,
    )
