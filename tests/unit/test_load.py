# SPDX-License-Identifier: GPL-3.0-or-later
"""load_test and the observer of traffic against a real server on this host: what came back, what is refused, what is never shown."""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import load
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.plan.load import Numbers, Outcome, check_thresholds, missed, percentile
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec, header_secrets, perform, run_in_process
from ansible_collections.progressive.delivery.plugins.module_utils.watching_traffic import PROBE_OPTIONS, Probe, watch_share
from ansible_collections.progressive.delivery.plugins.modules import load_test
from support.answering import Server, certificate, closed_port
from support.fake import FakeCluster


def test_load(url: str, check: bool = False, **given: Any) -> dict[str, Any]:
    """Run the step and return its outcome."""
    spec = argument_spec(load_test.OPTIONS)
    options = {**{key: entry.get("default") for key, entry in spec.items()}, "namespace": "shop", "url": url, **given}
    return perform(load_test.execute, options, check, connector=lambda _options: FakeCluster())


test_load.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture
def server() -> Iterator[Server]:
    """Return a server whose every fourth answer is of version 2.0.0."""
    with Server(lambda number: "1.0.0" if number % 4 else "2.0.0") as found:
        yield found


# What came back


def test_so_many_requests_are_made_and_their_numbers_told(server: Server) -> None:
    found = test_load(server.url + "/", requests=200, rate=400, concurrency=5, version_field="version", thresholds={"error_rate": "1%"})
    assert not found.get("failed") and found["changed"] is False
    assert found["requests"] == len(server.requests) == 200
    assert (found["failures"], found["error_rate"], found["errors"], found["missed"]) == (0, 0.0, {}, [])
    assert {name: entry["requests"] for name, entry in found["by_version"].items()} == {"1.0.0": 150, "2.0.0": 50}
    assert found["by_version"]["2.0.0"]["share"] == 25.0
    assert 0 < found["p50"] <= found["p90"] <= found["p95"] <= found["p99"] <= found["max"]
    assert 0.45 <= found["seconds"] <= 2 and found["rps"] == pytest.approx(200 / found["seconds"], rel=0.01)
    assert server.connections <= 5
    assert found["summary"][-1] == "thresholds that hold: error_rate"


def test_without_a_number_and_a_time_there_are_100_requests(server: Server) -> None:
    assert test_load(server.url)["requests"] == 100


def test_a_time_ends_it(server: Server) -> None:
    found = test_load(server.url, duration=0.5, rate=100)
    assert 45 <= found["requests"] <= 50 and found["seconds"] < 1.5


@pytest.mark.parametrize(("given", "expected"), [({"version_header": "X-Version"}, 2), ({"version_field": "app.version"}, 2), ({}, 0)])
def test_the_version_is_told_by_a_header_or_a_field(server: Server, given: dict[str, str], expected: int) -> None:
    assert len(test_load(server.url, requests=20, **given)["by_version"]) == expected


def test_the_version_is_told_by_jmespath(server: Server) -> None:
    assert set(test_load(server.url, requests=20, version_field="join('-', values(app))")["by_version"]) == {"1.0.0", "2.0.0"}


def test_answers_that_do_not_tell_the_version_are_counted(server: Server) -> None:
    assert test_load(server.url, requests=10, version_field="nope")["by_version"]["unknown"]["requests"] == 10


def test_a_connection_is_kept_or_made_anew(server: Server) -> None:
    test_load(server.url, requests=30, concurrency=3)
    assert server.connections <= 3
    before = server.connections
    test_load(server.url, requests=30, concurrency=3, keep_alive=False)
    assert server.connections - before == 30


def test_a_request_is_sent_as_it_was_asked_for(server: Server) -> None:
    test_load(server.url + "/a?b=c", requests=1, method="post", headers={"Host": "shop.example", "X-One": 1}, body={"a": 1})
    _number, method, path, headers, body = server.requests[0]
    assert (method, path, headers["host"], headers["x-one"]) == ("POST", "/a?b=c", "shop.example", "1")
    assert (headers["content-type"], json.loads(body)) == ("application/json", {"a": 1})


def test_http2_by_prior_knowledge() -> None:
    with Server(http2=True) as server:
        found = test_load(server.url, requests=50, concurrency=4, http_version="2", version_field="version")
    assert found["failures"] == 0 and found["by_version"]["1.0.0"]["requests"] == 50, found
    assert server.requests[0][3][":scheme"] == "http" and server.connections <= 4


@pytest.mark.parametrize("http2", [False, True], ids=["1.1", "2"])
def test_tls_with_its_own_authority(tmp_path: Path, http2: bool) -> None:
    path = certificate(tmp_path)
    version = "2" if http2 else "1.1"
    with Server(certificate=path, http2=http2) as server:
        found = test_load(server.url, requests=10, concurrency=2, http_version=version, ca_path=str(path), headers={"Host": "shop.example"})
        assert found["failures"] == 0, found
        # A name that the certificate is not for.
        refused = test_load(server.url, requests=3, http_version=version, ca_path=str(path), headers={"Host": "other.example"})
        assert refused["errors"] == {"tls": 3}, refused
        assert test_load(server.url, requests=3, http_version=version)["errors"] == {"tls": 3}
        assert test_load(server.url, requests=3, http_version=version, validate_certs=False)["failures"] == 0


def test_a_server_that_chooses_http_1_is_no_http_2(tmp_path: Path) -> None:
    with Server(certificate=certificate(tmp_path)) as server:
        found = test_load(server.url, requests=4, http_version="2", validate_certs=False)
    assert found["errors"] == {"protocol": 4} and "does not speak HTTP/2" in found["msg"]


# Errors by kind


def test_errors_have_kinds(server: Server) -> None:
    with closed_port() as port:
        assert test_load(f"http://127.0.0.1:{port}", requests=3)["errors"] == {"refused": 3}
    assert test_load(f"{server.url}/slow/2", requests=2, timeout=0.2)["errors"] == {"timeout": 2}
    assert test_load(f"{server.url}/trickle", requests=2, timeout=0.3)["errors"] == {"timeout": 2}
    assert test_load(f"{server.url}/drop", requests=2)["errors"] == {"reset": 2}
    assert test_load(f"{server.url}/nonsense", requests=2)["errors"] == {"protocol": 2}
    assert test_load(server.url.replace("http:", "https:"), requests=2, timeout=2)["errors"] in ({"tls": 2}, {"reset": 2}, {"timeout": 2})
    assert test_load("http://no-such-host.invalid/", requests=1)["errors"] in ({"dns": 1}, {"timeout": 1})
    found = test_load(f"{server.url}/status/503", requests=5)
    assert (found["errors"], found["failures"], found["error_rate"]) == ({"status_503": 5}, 5, 1.0)
    assert not found.get("failed") and found["p99"] > 0 and found["rps"] == 0.0
    assert test_load(f"{server.url}/status/503", requests=5, status=[503])["failures"] == 0
    assert test_load(f"{server.url}/status/302", requests=5)["failures"] == 0


def test_where_nothing_answers_the_step_fails_and_says_why() -> None:
    with closed_port() as port:
        found = test_load(f"http://127.0.0.1:{port}", requests=3, thresholds={"p99": 5})
    assert found["failed"] and found["reason"] == "Unavailable" and "\n" not in found["msg"]
    assert f"none of 3 requests to http://127.0.0.1:{port} was answered (refused 3: " in found["msg"]
    assert found["p99"] is None and found["missed"] == ["p99 is not known, since no request was answered, and must be 5 ms at most"]


def test_a_kept_connection_that_the_server_closes_is_no_fault(server: Server) -> None:
    server.close_after = 2
    found = test_load(server.url, requests=40, concurrency=2)
    assert found["failures"] == 0, found
    assert server.connections >= 20


# Limits


def test_each_limit_that_does_not_hold_gets_a_sentence_and_the_numbers_stay(server: Server) -> None:
    found = test_load(f"{server.url}/status/500", requests=20, thresholds={"p99": 0.001, "error_rate": 0.01, "rps": 1, "max": 60000})
    assert found["failed"] and found["reason"] == "ThresholdMissed" and found["requests"] == 20
    assert found["missed"] == [
        f"p99 is {found['p99']:.10g} ms and must be 0.001 ms at most",
        "error_rate is 100 % and must be 1 % at most",
        "rps is 0 a second and must be 1 a second at least",
    ]
    assert found["msg"] == f"{server.url}/status/500 misses its thresholds: {'; '.join(found['missed'])}"
    assert [line for line in found["summary"] if line.startswith("missed: ")] == [f"missed: {fault}" for fault in found["missed"]]


def test_limits_are_numbers_with_names() -> None:
    assert check_thresholds({"p99": "300", "error_rate": "0.5%", "errors": 0}) == {"p99": 300.0, "error_rate": 0.005, "errors": 0.0}
    for wrong, sentence in (
        ({"p98": 1}, 'there is none on "p98"; there are: p50, p90, p95, p99, max, mean, error_rate, errors, rps'),
        ({"p99": "300ms"}, 'p99 must be a number that is 0 or more, got "300ms"'),
        ({"p99": -1}, "0 or more"),
        ({"p99": True}, "0 or more"),
        ({"error_rate": 5}, "a share between 0 and 1"),
        ({"rps": "10%"}, "0 or more"),
        ({"max": math.nan}, "0 or more"),
    ):
        with pytest.raises(InvalidRequest, match="thresholds: ") as caught:
            check_thresholds(wrong)
        assert sentence in caught.value.message


def test_at_a_limit_it_holds() -> None:
    numbers = {"p99": 300.0, "error_rate": 0.01, "rps": 100.0, "failures": 2}
    assert missed({"p99": 300, "error_rate": 0.01, "rps": 100, "errors": 2}, numbers) == []
    assert len(missed({"p99": 299.9, "error_rate": 0.009, "rps": 100.1, "errors": 1}, numbers)) == 4


# The statistics


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99)] == [50, 90, 95, 99]
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7
    assert percentile([1.0, 2.0, 3.0], 0.99) == 3


def test_the_latency_counts_from_when_a_request_was_due() -> None:
    numbers = Numbers()
    numbers.add(Outcome(due=1.0, sent=1.5, ended=1.6, status=200), False)
    numbers.add(Outcome(due=1.0, sent=1.0, ended=2.0, error="timeout"), False)
    numbers.add(Outcome(due=1.0, sent=1.0, ended=1.001, error="refused"), False)
    found = numbers.report(1.0)
    assert (found["p50"], found["max"], found["late"], found["requests"], found["failures"]) == (600.0, 1000.0, 1, 3, 2)


def test_a_service_that_stands_still_shows_in_all_requests_that_were_due_meanwhile() -> None:
    """With a rate, the 50 requests that are due in half a second of silence wait for it; without, a few hide them."""
    began = time.monotonic()

    def version(number: int) -> str:
        if 0.3 < time.monotonic() - began < 0.8:
            time.sleep(max(0.0, began + 0.8 - time.monotonic()))
        return "1.0.0"

    with Server(version) as server:
        opened = test_load(server.url, requests=100, rate=100, concurrency=4)
        began = time.monotonic()
        closed = test_load(server.url, duration=1, concurrency=4)
    assert opened["p90"] > 300 and opened["late"] >= 30, opened
    assert closed["p90"] < 100 and closed["max"] > 300, closed


# Input that is refused before a request is made

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({"url": "ftp://x"}, "url must start with http:// or https://"),
    "a password in it": ({"url": "http://user:s3cret@x/"}, "url must not carry a user or a password"),
    "no host": ({"url": "http:///x"}, "is no address"),
    "a port that is none": ({"url": "http://x:99999/"}, "is no address"),
    "no requests": ({"requests": 0}, "requests must be between 1 and 1000000, got 0"),
    "no time": ({"duration": 0.0}, "duration must be more than 0 and at most 3600 seconds"),
    "too long": ({"duration": 4000.0}, "duration must be more than 0 and at most 3600 seconds"),
    "no rate": ({"rate": 0.0}, "rate must be more than 0"),
    "a rate that is too much": ({"rate": 5000.0, "duration": 3600.0}, "is 18000000 requests, and 1000000 is the most"),
    "a rate that is too little": ({"rate": 0.001, "requests": 100}, "take more than 3600 seconds; raise rate"),
    "no connection": ({"concurrency": 0}, "concurrency must be between 1 and 256, got 0"),
    "no timeout": ({"timeout": 0.0}, "timeout must be more than 0 seconds"),
    "no method": ({"method": "GET /"}, 'method "GET /" is none of HTTP'),
    "no status": ({"status": [99]}, "status 99 is no HTTP status code"),
    "no header": ({"headers": {"a b": "c"}}, '"a b" is no name of a header'),
    "a line break": ({"headers": {"X-A": "s3cret\r\nX-B: c"}}, "the value of X-A has a line break"),
    "two ways to tell": ({"version_header": "a", "version_field": "b"}, "give one of them"),
    "no JMESPath": ({"version_field": "a["}, 'version_field: "a[" is not JMESPath'),
    "no authorities": ({"url": "https://x", "ca_path": "/nonexistent"}, "ca_path /nonexistent cannot be read as certificates"),
    "no limit": ({"thresholds": {"p42": 1}}, 'thresholds: there is none on "p42"'),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("check", [False, True])
def test_bad_input_gets_one_sentence(server: Server, given: dict[str, Any], sentence: str, check: bool) -> None:
    found = test_load(**{"url": server.url, **given}, check=check)
    assert found["failed"] and found["reason"] == "InvalidRequest" and sentence in found["msg"], found
    assert "\n" not in found["msg"] and "s3cret" not in found["msg"]
    assert server.requests == []


def test_check_mode_makes_no_request_and_says_so(server: Server) -> None:
    found = test_load(server.url, check=True, requests=50, rate=10, thresholds={"p99": 1})
    assert not found.get("failed") and found["changed"] is False and server.connections == 0
    planned = f"50 requests at 10 a second over 10 connections would go to {server.url}"
    assert found["summary"] == [f"check mode: no request was made; {planned}"]
    real = test_load(server.url, requests=5, thresholds={"p99": 60000})
    assert set(found) == set(real) and found["p99"] is None and found["requests"] == 0


def test_a_library_that_is_missing_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "HTTP2_IMPORT_ERROR", "Traceback: no h2")
    assert "(h2)" in test_load(server.url, http_version="2")["msg"]
    assert not test_load(server.url, requests=1).get("failed")
    monkeypatch.setattr(load, "HTTPX_IMPORT_ERROR", "Traceback: no httpx")
    for check in (False, True):
        found = test_load(server.url, check=check)
        assert found["failed"] and found["reason"] == "MissingLibrary" and found["exception"] == "Traceback: no httpx"
        assert found["msg"].startswith("Failed to import the required Python library (httpx)")
    with pytest.raises(DeliveryError, match="httpx is missing"):
        Probe.of(probe_options(server.url))


def test_secrets_in_headers_are_shown_nowhere() -> None:
    headers = {"Authorization": "Bearer abcdefgh", "Cookie": "id=1", "X-Api-Key": "k3y-k3y", "x-canary": "always", "X-Token": "1"}
    assert header_secrets({"headers": headers}) == {"Bearer abcdefgh", "abcdefgh", "id=1", "k3y-k3y"}
    assert header_secrets({"probe": {"headers": headers}, "x": [{"headers": {"cookie": "12345"}}]}) >= {"abcdefgh", "12345"}
    assert header_secrets({"headers": None, "a": 1}) == set()
    arguments = {"url": "http://127.0.0.1:1/abcdefgh", "headers": headers, "kubeconfig": "/nonexistent"}
    assert "abcdefgh" not in json.dumps(run_in_process(load_test.execute, load_test.OPTIONS, arguments, False))


def test_it_tells_how_far_it_is_and_when_something_fails(server: Server) -> None:
    told: list[tuple[str, Any]] = []
    test = load_test.LoadTest.of(
        {
            **{key: entry.get("default") for key, entry in load_test.OPTIONS.items()},
            "url": f"{server.url}/status/500",
            "duration": 1.2,
            "rate": 50.0,
        }
    )
    test.run(lambda line, news=None: told.append((line, news)))
    assert len(told) >= 2 and told[-1][1] == ("status_500",)
    assert "requests, " in told[-1][0] and "(status_500 " in told[-1][0]


# The observer


def probe_options(address: str, **given: Any) -> dict[str, Any]:
    """Return the options of a probe as Ansible gives them, with None for what is not set."""
    return {
        **{key: entry.get("default") for key, entry in PROBE_OPTIONS.items()},
        "url": address,
        "version_field": "version",
        "canary": "2.0.0",
        **given,
    }


def test_a_probe_has_the_defaults_of_its_options() -> None:
    assert Probe.of(probe_options("http://x/")) == Probe.of({"url": "http://x/", "version_field": "version", "canary": "2.0.0"})
    assert Probe("http://x/").rate == PROBE_OPTIONS["rate"]["default"] and Probe("http://x/").timeout == PROBE_OPTIONS["timeout"]["default"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"url": None}, "probe needs url"),
        ({"url": "x"}, "url must start with http"),
        ({"url": "http://a:b@x"}, "must not carry a user"),
        ({"version_field": None}, "probe needs version_header or version_field"),
        ({"version_header": "x"}, "give one of them"),
        ({"canary": None}, "probe needs canary or stable"),
        ({"stable": "2.0.0"}, 'stable and canary both answer with "2.0.0"'),
        ({"rate": 0}, "rate must be more than 0"),
        ({"rate": "fast"}, "an option of the wrong kind"),
        ({"timeout": 0}, "timeout must be more than 0 seconds"),
        ({"headers": {"a b": "c"}}, "is no name of a header"),
        ({"nonsense": 1}, 'probe has no option "nonsense"'),
    ],
)
def test_a_probe_that_could_measure_nothing_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Probe.of(probe_options("http://x/", **given))
    assert sentence in caught.value.message and "\n" not in caught.value.message


def test_whose_an_answer_is() -> None:
    canary, stable, both = (Probe("http://x/", **given) for given in ({"canary": "2"}, {"stable": "1"}, {"canary": "2", "stable": "1"}))
    assert [probe.side("2") for probe in (canary, stable, both)] == [True, True, True]
    assert [probe.side("1") for probe in (canary, stable, both)] == [False, False, False]
    assert [probe.side("3") for probe in (canary, stable, both)] == [False, True, None]
    assert [probe.side(None) for probe in (canary, stable, both)] == [None, None, None]


class Turning:
    """A data plane of ours: the share of the canary, in turn, and from ``at`` seconds on another one."""

    def __init__(self, before: float, weight: float, at: float) -> None:
        self.before, self.weight, self.at = before, weight, at
        self.began = time.monotonic()
        self.due = 0.0

    def __call__(self, _number: int) -> str:
        share = self.before if time.monotonic() - self.began < self.at else self.weight
        self.due += share / 100
        canary = self.due >= 1 - 1e-9
        self.due -= canary
        return "2.0.0" if canary else "1.0.0"


@pytest.mark.parametrize(("before", "weight"), [(5, 20), (0, 5), (50, 0), (20, 100)])
def test_a_change_of_weight_is_seen_and_not_before_it_is_there(before: float, weight: float) -> None:
    turning = Turning(before, weight, 0.4)
    with Server(turning) as server:
        turning.began = time.monotonic()
        seen = watch_share(Probe.of(probe_options(server.url)), weight, 10, before=before)
    assert seen.settled and seen.failed == 0
    # A busy machine needs longer than the goal of 0.2 s.
    assert 0.35 <= seen.seconds <= 2.0, seen
    assert abs(seen.share - weight) <= 15 and sum(seen.by_version.values()) == seen.requests


def test_a_weight_that_never_comes_is_not_seen_and_the_time_is_kept() -> None:
    with Server(Turning(5, 5, 0)) as server:
        began = time.monotonic()
        seen = watch_share(Probe.of(probe_options(server.url, rate=300)), 50, 1.0, before=5)
        assert not seen.settled and 0.9 <= time.monotonic() - began <= 2
    assert seen.share < 30 and 200 <= seen.requests <= 300
    assert seen.report()["settled"] is False and set(seen.report()) == {"settled", "seconds", "requests", "failed", "share", "by_version"}


def test_without_the_weight_before_the_newest_answers_decide() -> None:
    with Server(Turning(20, 20, 0)) as server:
        seen = watch_share(Probe.of(probe_options(server.url, version_field=None, version_header="x-version")), 20, 10)
    assert seen.settled and 15 <= seen.share <= 25 and seen.requests >= 400


def test_a_route_to_nothing_is_not_off_because_nothing_answers() -> None:
    """Half of the requests are the dead canary's and fail: the other half does not show that the canary gets none."""
    with closed_port() as port:
        began = time.monotonic()
        seen = watch_share(Probe.of(probe_options(f"http://127.0.0.1:{port}", timeout=0.5)), 0, 0.5, before=50)
        assert time.monotonic() - began < 2
    assert not seen.settled and seen.failed == seen.requests > 100 and seen.by_version == {}


def test_progress_of_a_watch_is_told() -> None:
    told: list[str] = []
    with Server(Turning(5, 5, 0)) as server:
        watch_share(Probe.of(probe_options(server.url, rate=100)), 50, 1.3, lambda line, _news=None: told.append(line), 5)
    assert told and told[0].startswith("waiting until 50 % go to the canary: ") and "(1.0.0 " in told[0]


def test_a_host_that_does_not_resolve_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_arguments: Any, **_keywords: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert test_load("http://shop.example/", requests=2)["errors"] == {"dns": 2}
