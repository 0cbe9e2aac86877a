# SPDX-License-Identifier: GPL-3.0-or-later
"""Two workloads compared while both get requests, by what their pods count themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import InvalidRequest, NotFound, Unavailable, WaitFailed
from .model import Cluster, Manifest, Ref, metadata
from .plan.comparing import Answers, Limits, Sample, Series, added, histograms_on, increase, judge, read_page
from .reading import pods_of_newest
from .turns import Turn
from .waiting import require

TIMEOUT = 5.0
SLACK = 60.0


@dataclass(frozen=True)
class Page:
    """Where a pod's metrics are."""

    path: str
    port: str | None
    scheme: str
    series: Series

    def port_of(self, pod: Manifest) -> str:
        """Return the port that is asked: the one that is named, else the first that the pod declares."""
        declared = [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
        if self.port and self.port.isdigit():
            return self.port
        for entry in declared:
            if self.port in (None, entry.get("name")):
                return str(entry["containerPort"])
        raise InvalidRequest(f"Pod {metadata(pod)['name']} declares no port{f' {self.port}' if self.port else ''}; set port")


@dataclass
class Counted:
    """What was counted of one workload: in all, and the newest sample of each pod, from which the next one is counted."""

    total: Sample = field(default_factory=dict)
    last: dict[str, Sample] = field(default_factory=dict)
    began: bool = False

    def take(self, samples: Mapping[str, Sample]) -> None:
        """Add what was counted since the sample before; a pod that has come since has counted all of it here."""
        for name, sample in samples.items():
            if self.began:
                self.total = added(self.total, increase(self.last.get(name, {}), sample))
            self.last[name] = sample
        self.began = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as the next call gets it."""
        return {"total": self.total, "last": self.last, "began": self.began}


def sample(cluster: Cluster, ref: Ref, page: Page) -> tuple[dict[str, Sample], list[str] | None]:
    """Return what each pod of a workload has counted, and the histograms of pages that lack the one that is wanted; None for no page."""
    found: dict[str, Sample] = {}
    others: list[str] | None = None
    for pod in pods_of_newest(cluster, require(cluster, ref)):
        if (pod.get("status") or {}).get("phase") != "Running":
            continue
        name = metadata(pod)["name"]
        port = page.port_of(pod)
        try:
            answer = cluster.proxy_get(
                Ref("Pod", ref.namespace, name), f"https:{port}" if page.scheme == "https" else port, page.path, {}, TIMEOUT
            )
        except (NotFound, Unavailable):
            # It may just be going, or not be listening: what it counted until then is known.
            continue
        if answer.status != 200:
            continue
        mine = read_page(answer.body, page.series)
        if mine is None:
            others = [*(others or []), *histograms_on(answer.body)]
        else:
            found[name] = mine
    return found, others


def compare(
    cluster: Cluster,
    sides: tuple[Ref, Ref],
    page: Page,
    limits: Limits,
    seconds: float,
    interval: float,
    progress: Callable[..., None],
    turn: Turn,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Return how both workloads answered in these seconds, with the verdict, or what the next call needs."""
    memory = turn.memory
    try:
        counted = [Counted(**memory[name]) if memory else Counted() for name in ("baseline", "candidate")]
        started = float(memory["started"]) if memory else turn.elapsed
    except (KeyError, TypeError, ValueError):
        raise turn.refusal("that has been changed") from None
    for ref in () if memory else sides:
        require(cluster, ref)
    while True:
        for number, (ref, side) in enumerate(zip(sides, counted, strict=True)):
            try:
                samples, others = sample(cluster, ref, page)
            except Unavailable:
                # The API server is away: the counters go on without it.
                continue
            side.take(samples)
            if number == 0 and not side.last and others is not None:
                raise InvalidRequest(
                    f"the pods of {ref} have no histogram {page.series.histogram} at {page.path}; name one with histogram;"
                    f" histograms there: {', '.join(sorted(set(others))) or 'none'}"
                )
        past = turn.elapsed - started
        both = [Answers.of(side.total) for side in counted]
        progress(f"{min(past, seconds):.0f} of {seconds:.0f} s: {sides[0].name} {both[0].words()}; {sides[1].name} {both[1].words()}", None)
        if past >= seconds or (turn.left <= 0 and turn.is_last):
            return _told(sides, both, limits, past)
        kept = {"baseline": counted[0].to_dict(), "candidate": counted[1].to_dict(), "started": started}
        if turn.left <= 0:
            line = f"{past:.0f} of {seconds:.0f} s"
            return turn.hand_over(kept, line)
        sleep(max(0.01, min(interval, seconds - past, turn.left)))


def _told(sides: tuple[Ref, Ref], both: list[Answers], limits: Limits, past: float) -> dict[str, Any]:
    """Return the verdict with the numbers."""
    verdict, reasons = judge(both[0], both[1], limits)
    return {
        "verdict": verdict,
        "reasons": reasons,
        "baseline": both[0].as_result(),
        "candidate": both[1].as_result(),
        "observed": round(past, 1),
        "summary": [
            f"baseline {sides[0].name}: {both[0].words()}",
            f"candidate {sides[1].name}: {both[1].words()}",
            *(f"{verdict}: {reason}" for reason in reasons),
        ],
    }


def check_verdict(sides: tuple[Ref, Ref], told: Mapping[str, Any], on_no_data: str) -> None:
    """Raise WaitFailed for a verdict that does not pass."""
    if told["verdict"] == "pass" or (told["verdict"] == "inconclusive" and on_no_data == "pass"):
        return
    if told["verdict"] == "inconclusive":
        what = f"{sides[1]} cannot be compared with {sides[0]}"
        out = "let it run longer, send it more requests, or set on_no_data to pass"
        raise WaitFailed(f"{what}: {'; '.join(told['reasons'])}; {out}", reason="NoData", **told)
    raise WaitFailed(f"{sides[1]} does worse than {sides[0]}: {'; '.join(told['reasons'])}", reason="ThresholdMissed", **told)
