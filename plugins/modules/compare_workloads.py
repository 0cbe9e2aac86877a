#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step compare_workloads: one workload answers no worse than another."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compare_workloads
short_description: A workload answers no worse than another
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Compares how two workloads answer while both get requests - a shadow beside the one that is live, or a canary beside stable. It
    reads what their pods count themselves, before and after O(seconds) and at each O(interval) between, and compares the
    differences - requests, the share of 5xx answers, and the mean and the 99th percentile of the latency.
  - The pods must have a page of metrics in Prometheus' format with a histogram of the duration of requests. It is read through the
    API server, so nothing else has to be installed or reached.
  - It fails where the candidate does worse than the limits let pass, with a sentence for each, and returns all numbers all the same.
  - A percentile is worked out from the buckets of the histogram, as Prometheus does it. It is as exact as these are narrow.
  - Changes nothing. In check mode it reads once and judges nothing.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
  - progressive.delivery.cluster.turns
options:
  baseline:
    description: The Deployment that the other one is compared with.
    type: str
    required: true
  candidate:
    description: The Deployment that must not do worse.
    type: str
    required: true
  seconds:
    description: For so many seconds both are looked at.
    type: float
    default: 60
  interval:
    description: Seconds between two looks. What a pod counted after the last look before it went is lost.
    type: float
    default: 5
  histogram:
    description: The histogram with the duration of requests, without C(_count), C(_sum) and C(_bucket).
    type: str
    default: http_request_duration_seconds
  unit:
    description: What the histogram counts in.
    type: str
    choices: [seconds, milliseconds]
    default: seconds
  status_label:
    description: Its label that has the status of the answer; those that begin with 5 are errors.
    type: str
    default: status
  match:
    description: Only series whose labels are like this count, {label - regular expression for the whole value}.
    type: dict
  ignore:
    description:
      - Series whose labels are like this do not count.
      - The default leaves out probes and the page of metrics itself, as far as the label C(path) tells them.
    type: dict
    default: {path: "/?(healthz|readyz|livez|metrics)"}
  path:
    description: The path of the page of metrics.
    type: str
    default: /metrics
  port:
    description: Number or name of its port. The default is the first one that the pod declares.
    type: str
  scheme:
    description: The scheme of the page. Certificates are not verified there.
    type: str
    choices: [http, https]
    default: http
  max_error_rate:
    description: The candidate's share of errors may be higher by so much, 0 to 1. V(0.01) is one of a hundred.
    type: float
    default: 0.01
  max_latency:
    description: The candidate's mean and 99th percentile may be so many times as long as the baseline's.
    type: float
    default: 1.5
  latency_grace:
    description: So many milliseconds more are let pass in any case.
    type: float
    default: 10
  min_requests:
    description: Fewer requests than that on either side say nothing.
    type: int
    default: 20
  on_no_data:
    description: What too few requests lead to.
    type: str
    choices: [fail, pass]
    default: fail
seealso:
  - module: progressive.delivery.load_test
  - module: progressive.delivery.mirror_traffic
"""

EXAMPLES = r"""
- name: The shadow does no worse than what is live
  progressive.delivery.compare_workloads:
    namespace: shop
    baseline: web
    candidate: web-shadow
    seconds: 300

- name: Only what is mirrored counts on both sides, and the latency may double
  progressive.delivery.compare_workloads:
    namespace: shop
    baseline: web
    candidate: web-shadow
    match:
      method: GET|HEAD
    max_latency: 2

- name: An application with names of its own
  progressive.delivery.compare_workloads:
    namespace: shop
    baseline: web
    candidate: web-canary
    histogram: http_server_requests_seconds
    port: "8081"
    path: /actuator/prometheus
    ignore:
      uri: /actuator.*
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(inconclusive).
  returned: success or failure
  type: str
  sample: pass
reasons:
  description: A sentence for each limit that does not hold.
  returned: success or failure
  type: list
  elements: str
  sample: []
baseline:
  description: How the baseline answered - requests, errors, error_rate (0 to 1), mean and p99 in milliseconds.
  returned: success or failure
  type: dict
  sample: {requests: 6000, errors: 0, error_rate: 0.0, mean: 1.2, p99: 4.9}
candidate:
  description: The same of the candidate.
  returned: success or failure
  type: dict
  sample: {requests: 3000, errors: 3, error_rate: 0.001, mean: 1.3, p99: 5.1}
observed:
  description: Seconds between the first look and the last.
  returned: success or failure
  type: float
  sample: 300.2
summary:
  description: The same as lines for a person, printed with C(-v).
  returned: success or failure
  type: list
  elements: str
  sample: ["baseline web: 6000 requests, 0 % errors, mean 1.2 ms, p99 4.9 ms"]
resume:
  description: What the next call needs, where O(slice) ended before the comparison did.
  returned: when a slice is over and the comparison is not
  type: dict
  sample: {what: Deployment shop/web and Deployment shop/web-shadow, at: 1780000000.0, elapsed: 12.0, memory: {}}
progress:
  description: How far it is, as one line, where O(slice) ended before the comparison did.
  returned: when a slice is over and the comparison is not
  type: str
  sample: 12 of 60 s
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 300.4
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.comparing import SLACK, Page, check_verdict, compare
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.plan.comparing import Limits, Series
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.turns import TURN_OPTIONS, Turn

OPTIONS = {
    "baseline": {"type": "str", "required": True},
    "candidate": {"type": "str", "required": True},
    "seconds": {"type": "float", "default": 60},
    "interval": {"type": "float", "default": 5},
    "histogram": {"type": "str", "default": "http_request_duration_seconds"},
    "unit": {"type": "str", "choices": ["seconds", "milliseconds"], "default": "seconds"},
    "status_label": {"type": "str", "default": "status"},
    "match": {"type": "dict"},
    "ignore": {"type": "dict", "default": {"path": "/?(healthz|readyz|livez|metrics)"}},
    "path": {"type": "str", "default": "/metrics"},
    "port": {"type": "str"},
    "scheme": {"type": "str", "choices": ["http", "https"], "default": "http"},
    "max_error_rate": {"type": "float", "default": 0.01},
    "max_latency": {"type": "float", "default": 1.5},
    "latency_grace": {"type": "float", "default": 10},
    "min_requests": {"type": "int", "default": 20},
    "on_no_data": {"type": "str", "choices": ["fail", "pass"], "default": "fail"},
    **TURN_OPTIONS,
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Compare both, and fail where the candidate does worse."""
    baseline, candidate = (Ref("Deployment", options["namespace"], options[name]) for name in ("baseline", "candidate"))
    if baseline == candidate:
        raise InvalidRequest(f'baseline and candidate are both "{baseline.name}"; name two Deployments')
    if options["seconds"] < 0 or options["interval"] <= 0:
        raise InvalidRequest(f"seconds must be 0 or more and interval more than 0, got {options['seconds']:g} and {options['interval']:g}")
    if not options["path"].startswith("/"):
        raise InvalidRequest(f'path must start with "/", got "{options["path"]}"')
    series = Series(options["histogram"], options["status_label"], options["unit"], options.get("match") or {}, options.get("ignore") or {})
    series.check()
    limits = Limits(options["max_error_rate"], options["max_latency"], options["latency_grace"], options["min_requests"])
    limits.check()
    page = Page(options["path"], options.get("port"), options["scheme"], series)
    seconds = 0.0 if check else options["seconds"]
    turn = Turn.of(f"{baseline} and {candidate}", seconds + SLACK, options)
    told = compare(cluster, (baseline, candidate), page, limits, seconds, options["interval"], progress, turn)
    if "resume" not in told and not check:
        check_verdict((baseline, candidate), told, options["on_no_data"])
    return Result(extra=told)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
