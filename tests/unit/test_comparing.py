# SPDX-License-Identifier: GPL-3.0-or-later
"""compare_workloads: what a page of metrics says, and which differences are let pass."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import comparing as over
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.model import Answer
from ansible_collections.progressive.delivery.plugins.module_utils.plan.comparing import (
    Answers,
    Limits,
    Series,
    increase,
    judge,
    quantile,
    read_page,
)
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import compare_workloads
from support.fake import FakeCluster
from support.objects import deployment, pod, replica_set

IGNORE = {"path": "/?(healthz|readyz|livez|metrics)"}


def page(ok: int, bad: int = 0, slow: int = 0, name: str = "http_request_duration_seconds") -> str:
    """Return a page: good answers of 4 ms, bad ones of 4 ms, and slow good ones of 90 ms; and probes, which are 1000 answers of 9 s."""
    lines = ["# HELP x y", f"# TYPE {name} histogram"]
    for status, path, fast, late, each in (
        ("200", "root", ok, slow, 0.004),
        ("500", "root", bad, 0, 0.004),
        ("200", "readyz", 1000, 0, 9.0),
    ):
        labels = f'method="GET",path="{path}",status="{status}"'
        for bound in (0.005, 0.1, "+Inf"):
            below = fast if bound != "+Inf" and each <= float(bound) else 0 if bound != "+Inf" else fast
            below += late if bound in (0.1, "+Inf") else 0
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {below}')
        lines.append(f"{name}_sum{{{labels}}} {fast * each + late * 0.09}")
        lines.append(f"{name}_count{{{labels}}} {fast + late}")
    return "\n".join(lines)


def test_a_page_says_requests_errors_and_latency_of_what_counts() -> None:
    found = read_page(page(90, 10, 100), Series(ignore=IGNORE))
    assert found == {"requests": 200, "errors": 10, "time": pytest.approx(9400), "le 5": 100, "le 100": 200, "le inf": 200}
    answers = Answers.of(found or {})
    assert (answers.error_rate, answers.mean) == (0.05, pytest.approx(47.0)) and 98 < (answers.p99 or 0) < 100
    assert read_page(page(90), Series("other")) is None
    assert (read_page(page(5), Series(match={"method": "POST"})) or {})["requests"] == 0


def test_a_pod_that_began_anew_counts_from_nothing_and_one_that_came_has_counted_all_of_it() -> None:
    assert increase({"requests": 10, "le 5": 8}, {"requests": 15, "le 5": 9}) == {"requests": 5, "le 5": 1}
    assert increase({"requests": 10, "le 5": 8}, {"requests": 3, "le 5": 2}) == {"requests": 3, "le 5": 2}
    assert increase({}, {"requests": 3}) == {"requests": 3}


def test_a_quantile_lies_within_its_bucket_and_what_is_above_all_is_at_the_last_bound() -> None:
    assert quantile({"le 10": 50, "le 20": 100, "le inf": 100}, 0.5) == 10
    assert quantile({"le 10": 50, "le 20": 100, "le inf": 100}, 0.75) == 15
    assert quantile({"le 10": 50, "le inf": 100}, 0.99) == 10
    assert quantile({"le 10": 0, "le inf": 0}, 0.99) is None and quantile({}, 0.99) is None


GOOD = Answers(1000, 0, 10, 40)


@pytest.mark.parametrize(
    ("candidate", "verdict", "sentence"),
    [
        (Answers(1000, 0, 10, 40), "pass", ""),
        (Answers(1000, 10, 15, 60), "pass", ""),
        (Answers(1000, 11, 10, 40), "fail", "1.1 % of the candidate's answers are errors"),
        (Answers(1000, 0, 10, 61), "fail", "the candidate's p99 is 61 ms, the baseline's 40 ms"),
        (Answers(1000, 0, 20.1, 40), "fail", "the candidate's mean is 20.1 ms"),
        (Answers(19, 19, None, None), "inconclusive", "the candidate answered 19 requests and 20 are needed"),
    ],
)
def test_what_is_worse_than_the_limits_is_told(candidate: Answers, verdict: str, sentence: str) -> None:
    found, reasons = judge(GOOD, candidate, Limits())
    assert found == verdict and (not sentence or sentence in reasons[0])


class Shop(FakeCluster):
    """A cluster with a pod each of web-blue and web-green, which have a page for each look."""

    def __init__(self, blue: list[str], green: list[str]) -> None:
        workloads = [deployment("web-blue", "blue"), deployment("web-green", "green")]
        images = [workload["spec"]["template"]["spec"]["containers"][0]["image"] for workload in workloads]
        sets = [replica_set(workload, 1, digest, image) for workload, digest, image in zip(workloads, "ab", images, strict=True)]
        pods = [
            pod(name, {"app": "web", "version": color, "pod-template-hash": digest})
            for name, color, digest in (("b", "blue", "a"), ("g", "green", "b"))
        ]
        super().__init__(*workloads, *sets, *pods)
        self.pages = {"b": list(blue), "g": list(green)}

    def proxy_get(self, ref: Any, port: str, path: str, headers: Any, timeout: float) -> Answer:
        """Return the next page of a pod, the last one again and again."""
        pages = self.pages[ref.name]
        return Answer(200, pages.pop(0) if len(pages) > 1 else pages[0])


def run(cluster: FakeCluster, check: bool = False, **given: Any) -> Any:
    """Compare web-green with web-blue."""
    defaults = {key: entry.get("default") for key, entry in argument_spec(compare_workloads.OPTIONS).items()}
    sides = {"namespace": "shop", "baseline": "web-blue", "candidate": "web-green", "seconds": 0.05, "interval": 0.02}
    return compare_workloads.execute({**defaults, **sides, **given}, cluster, check)


def test_only_what_is_counted_meanwhile_counts() -> None:
    told = run(Shop([page(1000, 500), page(1100, 500)], [page(7), page(107)])).extra
    assert told["verdict"] == "pass" and told["baseline"]["requests"] == 100 and told["candidate"]["requests"] == 100
    assert told["baseline"]["error_rate"] == 0 and len(told["summary"]) == 2


REFUSED = {
    "worse": (
        [page(0), page(100)],
        [page(0), page(90, 10)],
        {},
        "web-green does worse than Deployment shop/web-blue: 10 %",
    ),
    "slower": ([page(0), page(100)], [page(0), page(50, 0, 50)], {}, "the candidate's mean is"),
    "idle": ([page(0), page(100)], [page(0)], {}, "cannot be compared.*answered 0 requests and 20 are needed; let it run longer"),
    "no histogram at all": (["x 1"], ["x 1"], {}, "histograms there: none"),
    "no histogram": (
        [page(0, name="mine_ms")],
        [page(0, name="mine_ms")],
        {},
        "no histogram http_request_duration_seconds at.*mine_ms",
    ),
    "itself": ([""], [""], {"candidate": "web-blue"}, 'baseline and candidate are both "web-blue"'),
    "no pattern": ([""], [""], {"match": {"path": "("}}, "which is no regular expression"),
    "no limit": ([""], [""], {"max_latency": 0.5}, "max_latency must be 1"),
    "no share": ([""], [""], {"max_error_rate": 5.0}, "max_error_rate must be between 0 and 1"),
    "no time": ([""], [""], {"interval": 0}, "interval more than 0"),
    "no path": ([""], [""], {"path": "metrics"}, 'path must start with "/"'),
    "no Deployment": ([""], [""], {"candidate": "nope"}, "Deployment shop/nope does not exist"),
    "no port": ([page(0)], [page(0)], {"port": "nope"}, "declares no port nope; set port"),
}


@pytest.mark.parametrize(("blue", "green", "given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_pass_is_one_sentence(blue: list[str], green: list[str], given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DeliveryError, match=sentence):
        run(Shop(blue, green), **given)


def test_too_few_requests_may_pass_and_check_mode_judges_nothing() -> None:
    assert run(Shop([page(0)], [page(0)]), on_no_data="pass").extra["verdict"] == "inconclusive"
    assert run(Shop([page(0)], [page(0)]), True).extra["verdict"] == "inconclusive"


def test_what_one_slice_counted_the_next_goes_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Shop([page(0), page(40), page(80), page(100)], [page(0), page(30), page(60), page(100)])
    told = run(cluster, seconds=0.2, interval=0.05, slice=0.06).extra
    assert set(told) == {"resume", "progress"}
    while "resume" in told:
        told = run(cluster, seconds=0.2, interval=0.05, slice=0.06, resume=told["resume"]).extra
    assert told["baseline"]["requests"] == 100 and told["candidate"]["requests"] == 100
    with pytest.raises(DeliveryError, match="resume must be what the slice before returned"):
        run(cluster, resume={"what": "x"})
    assert over.SLACK > 0
