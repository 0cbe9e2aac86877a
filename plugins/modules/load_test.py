#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step load_test: latency and errors under load stay within limits."""

from __future__ import annotations

DOCUMENTATION = r"""
module: load_test
short_description: Latency and errors under load stay within limits
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Sends a bounded number of HTTP requests from where the step runs, and tells what came back - latency percentiles, errors by kind,
    which version answered. With O(thresholds) it fails where a limit does not hold, with a sentence for each, and returns all numbers
    all the same.
  - With O(rate) the load is open. Requests are due at fixed times and a late answer does not slow the others; the latency of each counts
    from when it was due, so that a service which stands still for a second shows in all requests of this second. Without O(rate)
    the load is closed; each connection sends its next request when it has the answer to the one before, and a slow answer
    hides the requests that were not sent meanwhile. Gil Tene named this "coordinated omission" (L(How NOT to Measure Latency,
    https://www.infoq.com/presentations/latency-response-time/)). For limits on latency, set O(rate).
  - Percentiles are nearest ranks over all requests that were answered, whatever the status, and those that timed out, with the time that
    they waited. A connection that is refused is an error and has no latency.
  - A request on a kept connection that the server closes at this very moment is sent once more on a new one, as HTTP clients do (RFC 9112,
    section 9.3.1), unless its method forbids that; RV(repeated) counts these.
  - Redirects are not followed, cookies are not kept, and proxies of the environment are not used.
  - Changes nothing by itself. What its requests change, the service does. In check mode it makes no request and says so.
  - It tells how far it is when another kind of error shows and at least every 15 seconds. It runs as one piece also where the module
    runs on another host, since pauses would make it another test; there it says no more than that it is still at work.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
options:
  url:
    description:
      - The whole address, without a user and a password. It is asked as it is; to reach a route by a router's address, set the
        header C(Host), which is the name that the certificate is checked for, too.
    type: str
    required: true
  method:
    description: The method of the requests.
    type: str
    default: GET
  headers:
    description:
      - Request headers. The values of those whose names say that they hold a secret (C(Authorization), C(Cookie), and what has C(token),
        C(key), C(secret), C(session) or the like in its name) are shown nowhere.
    type: dict
  body:
    description: The body of each request, as text. A dictionary or a list is sent as JSON.
    type: raw
  requests:
    description:
      - So many requests. Without O(requests) and O(duration) there are 100; with both, what comes first ends the test.
    type: int
  duration:
    description: For so many seconds, 3600 at most. Answers to what was sent by then are waited for.
    type: float
  rate:
    description:
      - Requests a second, all connections together. Without it, each connection sends as fast as it gets answers.
      - A few hundred to two thousand a second is what one process does. RV(late) says whether it kept up.
    type: float
  concurrency:
    description: How many connections there are, and so how many requests are on their way at once at most. 256 at most.
    type: int
    default: 10
  http_version:
    description:
      - The version of HTTP. V(2) over TLS is agreed on by ALPN, and a server that chooses 1.1 is an error of the kind C(protocol); without
        TLS the server must know (prior knowledge, h2c). V(2) needs the Python package h2.
    type: str
    default: "1.1"
    choices: ["1.1", "2"]
  keep_alive:
    description: Whether a connection carries one request after another. V(false) opens a new one for each, and its time counts.
    type: bool
    default: true
  timeout:
    description: Seconds for one request, its connection and its whole answer included.
    type: float
    default: 10
  status:
    description: The status codes that are no error. Without it, those from 200 to 399 are none.
    type: list
    elements: int
  thresholds:
    description:
      - Limits by name. C(p50), C(p90), C(p95), C(p99), C(max) and C(mean) are latencies in milliseconds at most; C(error_rate) is the share
        of failed requests at most, V(0.01) or V(1%); C(errors) their number at most; C(rps) the good answers a second at least.
    type: dict
  version_header:
    description: The response header that tells which version answered.
    type: str
  version_field:
    description:
      - The field of a JSON answer that tells which version answered, by its path (C(version), C(app.version)) or by any other JMESPath
        expression, which needs the Python package jmespath.
    type: str
  ca_path:
    description: A file with certificates of authorities that are trusted beside the system's, for O(url).
    type: path
  validate_certs:
    description: Verify certificates, that of the API server and that of O(url). Can also be set by E(K8S_AUTH_VERIFY_SSL).
    type: bool
    aliases: [verify_ssl]
requirements:
  - kubernetes >= 24.2.0
  - httpx >= 0.28
  - h2 (for HTTP/2)
seealso:
  - module: progressive.delivery.smoke_test
"""

EXAMPLES = r"""
- name: The service stands 200 requests a second for half a minute
  progressive.delivery.load_test:
    url: https://shop.example.com/
    rate: 200
    duration: 30
    thresholds:
      p99: 300
      error_rate: 1%

- name: How the canary does beside stable, by what the application says of itself
  progressive.delivery.load_test:
    url: https://shop.example.com/
    requests: 2000
    rate: 100
    version_field: version
  register: load

- name: Nobody waits longer for the canary
  ansible.builtin.assert:
    that: load.by_version['2.0.0'].p95 <= 1.2 * load.by_version['1.0.0'].p95

- name: A route by the address of its router, HTTP/2 without TLS, a new connection for each request
  progressive.delivery.load_test:
    url: http://192.0.2.10:8080/
    headers:
      Host: shop.example.com
    http_version: "2"
    keep_alive: false
    requests: 500

- name: Go back when the new version does not stand the load
  block:
    - name: Load
      progressive.delivery.load_test:
        url: https://shop.example.com/
        rate: 200
        duration: 30
        thresholds: {p95: 250, error_rate: 0.001}
  rescue:
    - name: All traffic to the version before
      progressive.delivery.switch_color:
        namespace: shop
        name: web
        color: blue
"""

RETURN = r"""
before:
  description: Always empty, since this step changes nothing.
  returned: success
  type: dict
  sample: {}
after:
  description: Always empty, since this step changes nothing.
  returned: success
  type: dict
  sample: {}
requests:
  description: How many requests were made, those that failed included; V(0) in check mode.
  returned: once the options are checked
  type: int
  sample: 6000
failures:
  description: How many of them got no answer, or one with a status that is an error.
  returned: once the options are checked
  type: int
  sample: 3
error_rate:
  description: The share of them, between 0 and 1.
  returned: once the options are checked
  type: float
  sample: 0.0005
errors:
  description:
    - How many by kind. C(timeout), C(refused), C(reset) (the connection broke off), C(unreachable), C(dns), C(tls), C(protocol) (what
      came is not the HTTP that was asked for), and C(status_503) and so on.
  returned: once the options are checked
  type: dict
  sample: {status_503: 2, timeout: 1}
seconds:
  description: Seconds from the first request to the last answer.
  returned: once the options are checked
  type: float
  sample: 30.004
rps:
  description: Good answers a second.
  returned: once the options are checked
  type: float
  sample: 199.87
p50:
  description: Half of the requests took no longer than this, in milliseconds; none where nothing was answered, and in check mode.
  returned: once the options are checked
  type: float
  sample: 3.21
p90:
  description: The same for 90 percent.
  returned: once the options are checked
  type: float
  sample: 7.9
p95:
  description: The same for 95 percent.
  returned: once the options are checked
  type: float
  sample: 10.44
p99:
  description: The same for 99 percent.
  returned: once the options are checked
  type: float
  sample: 28.02
max:
  description: The longest, in milliseconds.
  returned: once the options are checked
  type: float
  sample: 71.5
mean:
  description: The mean, in milliseconds.
  returned: once the options are checked
  type: float
  sample: 4.4
by_version:
  description:
    - What each version answered, where O(version_header) or O(version_field) tells it; answers that do not tell it are C(unknown).
      The share is in percent of all answers, latencies are in milliseconds.
  returned: once the options are checked
  type: dict
  sample:
    1.0.0: {requests: 4801, share: 80.03, failures: 0, p50: 3.2, p95: 10.3, p99: 27.1}
    2.0.0: {requests: 1198, share: 19.97, failures: 2, p50: 3.3, p95: 10.9, p99: 28.4}
late:
  description: How many were sent more than 10 ms after they were due, since all connections were busy, or this host was.
  returned: once the options are checked
  type: int
  sample: 0
repeated:
  description: How many were sent once more, since the server had closed the kept connection.
  returned: once the options are checked
  type: int
  sample: 0
thresholds:
  description: The limits, as numbers.
  returned: once the options are checked
  type: dict
  sample: {p99: 300.0, error_rate: 0.01}
missed:
  description: A sentence for each limit that does not hold.
  returned: once the options are checked
  type: list
  elements: str
  sample: []
summary:
  description: The numbers as lines that a person reads; printed with C(-v).
  returned: once the options are checked
  type: list
  elements: str
  sample:
    - "https://shop.example.com/: 6000 requests in 30.004 s, 199.87 good answers a second, 0.05 % failed"
    - ""
    - "LATENCY, MS   P50  P90    P95    P99   MAX  MEAN"
    - "all          3.21  7.9  10.44  28.02  71.5   4.4"
reason:
  description: C(ThresholdMissed), or C(Unavailable) where not one request was answered.
  returned: failure
  type: str
  sample: ThresholdMissed
actions:
  description: Always empty, since this step changes nothing.
  returned: success
  type: list
  elements: str
  sample: []
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 30.02
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.loading import LOAD_OPTIONS, LoadTest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Result
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = dict(LOAD_OPTIONS)


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Make the requests and return the numbers; in check mode make none."""
    test = LoadTest.of(options)
    return Result(extra=test.foresee() if check else test.run(progress))


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
