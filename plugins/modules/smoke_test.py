#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step smoke_test: a request is answered as expected."""

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: A request is answered as expected
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Makes an HTTP GET and compares the answer's status, text and JSON with what is expected, a few times before it
    gives up. Every attempt is reported.
  - With O(via=exec) the request is made inside a pod, with whatever client its image has (curl, wget, python3, node);
    with V(pod_proxy) and V(service_proxy) through the API server; with V(url) from where the step runs.
  - The pod is one of the workload's newest revision that is ready and not on its way out.
  - Changes nothing. In check mode the request is made too, since a GET changes nothing either.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
options:
  via:
    description: Which way the request goes.
    type: str
    default: exec
    choices: [exec, pod_proxy, service_proxy, url]
  kind:
    description: Kind of the workload whose pod is asked.
    type: str
    default: Deployment
    choices: [Deployment, StatefulSet, DaemonSet]
  name:
    description: Name of the workload whose pod is asked, for V(exec) and V(pod_proxy).
    type: str
  service:
    description: Name of the Service that is asked, for V(service_proxy).
    type: str
  container:
    description: The container that is asked. The default is the pod's first.
    type: str
  port:
    description: >-
      Number or name of the port. The default is the container's first port, or the Service's first.
    type: str
  scheme:
    description: The scheme inside the pod or behind the proxy. Certificates are not verified there.
    type: str
    default: http
    choices: [http, https]
  path:
    description: The path that is asked.
    type: str
    default: /
  url:
    description: The whole address, for V(url). Redirects are not followed.
    type: str
  headers:
    description: Request headers. They are on the client's command line inside the pod with V(exec), so no place for secrets.
    type: dict
  status:
    description: The status codes that pass.
    type: list
    elements: int
    default: [200]
  text:
    description: Text that the answer must contain.
    type: str
  json:
    description:
      - Expected values by JMESPath expression. Needs the Python package jmespath.
      - Numbers and booleans equal their text, since YAML reads V(2.0) as a number.
    type: dict
  timeout:
    description: Seconds for one attempt.
    type: float
    default: 5
  retries:
    description: How often to try again after the first attempt.
    type: int
    default: 3
  delay:
    description: Seconds between attempts.
    type: float
    default: 1
seealso:
  - module: progressive.delivery.wait_rollout
"""

EXAMPLES = r"""
- name: The new pods answer before any user sees them
  progressive.delivery.smoke_test:
    namespace: shop
    name: web-green
    path: /healthz

- name: They are the version that was meant
  progressive.delivery.smoke_test:
    namespace: shop
    name: web-green
    via: pod_proxy
    path: /version
    json:
      version: 2.0.0

- name: What users see, from here
  progressive.delivery.smoke_test:
    via: url
    url: https://shop.example.com/healthz
    status: [200, 204]
    retries: 10
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
status:
  description: The status code of the attempt that passed.
  returned: success
  type: int
  sample: 200
body:
  description: The answer of the attempt that passed, its first 2000 characters.
  returned: success
  type: str
  sample: '{"version": "2.0.0"}'
by:
  description: The pod, Service or address that answered.
  returned: success
  type: str
  sample: web-green-6d5f-abcde
tries:
  description: Every attempt, also on failure.
  returned: always
  type: list
  elements: dict
  sample:
    - {number: 1, by: web-green-6d5f-abcde, status: 500, passed: false, problem: status 500 instead of 200, seconds: 0.08}
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
  sample: 0.12
"""

from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import WORKLOAD_KINDS, Cluster, Ref, Result
from ansible_collections.progressive.delivery.plugins.module_utils.probing import TEST_OPTIONS, SmokeTest, run_test
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module

OPTIONS = {
    **TEST_OPTIONS,
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str"},
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Make the request until it passes, and return what was answered."""
    test = SmokeTest.of(options, options.get("validate_certs"))
    ref = Ref(options["kind"], options["namespace"], options["name"]) if options.get("name") else None
    if ref is None and test.via in ("exec", "pod_proxy"):
        raise InvalidRequest(f"a smoke test via {test.via} needs name, the workload whose pod is asked")
    return Result(extra=run_test(cluster, options["namespace"], test, ref))


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
