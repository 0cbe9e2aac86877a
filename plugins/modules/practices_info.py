#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step practices_info: which good practices a workload keeps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: practices_info
short_description: Which good practices a workload keeps
version_added: 0.2.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Looks at a Deployment, StatefulSet or DaemonSet and what belongs to it, and returns one finding for each check - whether
    it is kept, one sentence with what is wrong and the way out, and what would put it right.
  - "C(readiness_probe): every container that declares ports has a readinessProbe; where none declares ports, one has."
  - "C(disruption_budget): exactly one PodDisruptionBudget selects the pods. It keeps at least one of them and lets at
    least one go, reckoned at full health as the API server does - allowed are the replicas without C(minAvailable), or
    C(maxUnavailable), percentages rounded up. With an autoscaler its minimum counts. A workload with one replica cannot
    have such a budget."
  - "C(image_tag): the tag is a semantic version, as C(2.1.0), C(v2.1.0) or C(2.1.0-rc.1), or there is a digest beside a
    tag. C(latest) and no tag are none."
  - "C(resources): every container requests cpu and memory."
  - "C(graceful_stop): a rolling update loses no request only if a pod that ends goes on to take requests until no
    endpoint names it any more. So every container that declares ports waits in a preStop hook for at least O(stop_delay)
    seconds, and C(terminationGracePeriodSeconds) is longer than that. A command with C(sleep N) counts as N seconds; of
    any other hook nobody knows."
  - "C(annotations): the workload has C(deployment-strategy), C(rollback-procedure) and C(kubernetes.io/change-cause)."
  - "C(alert): an alert fires when more than 5 % of the requests are answered with 5xx for two minutes. It is looked for in
    PrometheusRules, where the cluster has that kind, and in O(alert.groups). A rule is about the workload if its object
    has the label C(progressive.delivery/workload), or a quoted string of its expression names it, and about 5xx if a
    quoted string matches such a status. A rate that is not divided by the rate of all requests is no share, and does not
    count."
  - "C(staged): the images were released in another place first. The workload there runs them and its rollout is complete,
    or its record names them, which M(progressive.delivery.mark_released) writes."
  - What may not be read is a finding that is not kept, with the reason.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.reads
options:
  kind:
    description: Kind of the workload.
    type: str
    default: Deployment
    choices: [Deployment, StatefulSet, DaemonSet]
  name:
    description: Name of the workload.
    type: str
    required: true
  checks:
    description: The checks that are made. The default is all, C(staged) only together with O(staged).
    type: list
    elements: str
    choices: [readiness_probe, disruption_budget, image_tag, resources, graceful_stop, annotations, alert, staged]
  image:
    description:
      - The image that is about to be released, for C(image_tag) and C(staged).
      - The default are the images that the workload has now, without those of O(sidecars).
    type: str
  images:
    description: The same by container, where several are released at once. Not together with O(image).
    type: dict
  sidecars:
    description: Containers that do not take the workload's requests themselves, so that the checks leave them out.
    type: list
    elements: str
    default: [istio-proxy, linkerd-proxy]
  readiness_probe:
    description: The probe that would put C(readiness_probe) right, or such a probe by container.
    type: dict
  resources:
    description: The C(requests), and C(limits) if wanted, that would put C(resources) right, or such a value by container.
    type: dict
  stop_delay:
    description: Seconds that C(graceful_stop) asks of the preStop hook.
    type: float
    default: 3
  annotations:
    description:
      - Values that would put C(annotations) right. Keys that are not of the three are asked for too.
      - Without a value, C(deployment-strategy) is the workload's own (C(rolling-update)), C(rollback-procedure) is the
        command of the playbook C(progressive.delivery.rollback), and C(kubernetes.io/change-cause) names the images.
    type: dict
  disruption_budget:
    description: The budget that would put C(disruption_budget) right; one pod at a time where it is left out.
    type: dict
    suboptions:
      min_available:
        description: Number or percentage of the pods that stay.
        type: str
      max_unavailable:
        description: Number or percentage of the pods that may go.
        type: str
  alert:
    description: What a good alert is, and the names that the application's metrics have.
    type: dict
    suboptions:
      namespace:
        description: Where PrometheusRules are looked for and made. The default is the workload's namespace.
        type: str
      labels:
        description: Labels for a PrometheusRule that is made, such as those by which Prometheus chooses its rules.
        type: dict
        default: {}
      groups:
        description: The groups of a rule file that Prometheus loads; an empty list where the file is still to be made.
        type: list
        elements: dict
      share:
        description: The share of requests that may be answered with 5xx.
        type: float
        default: 0.05
      seconds:
        description: For how many seconds it may be more.
        type: float
        default: 120
      window:
        description: The range over which rates are taken.
        type: str
        default: 5m
      metric:
        description: The counter of requests.
        type: str
        default: http_requests_total
      status_label:
        description: Its label with the status code.
        type: str
        default: status
      namespace_label:
        description: Its label with the pod's namespace.
        type: str
        default: namespace
      pod_label:
        description: Its label with the pod's name.
        type: str
        default: pod
      severity:
        description: The label C(severity) of the alert.
        type: str
        default: critical
  staged:
    description:
      - Where the images must have been released first, on the same cluster.
      - For another cluster, run this step there with O(checks=staged) and O(image) or O(images). Then nothing but the
        workload that O(staged) names is read. The role P(progressive.delivery.practices#role) does that.
    type: dict
    suboptions:
      namespace:
        description: The namespace.
        type: str
        required: true
      name:
        description: Name of the workload there. The default is O(name).
        type: str
      kind:
        description: Kind of the workload there. The default is O(kind).
        type: str
        choices: [Deployment, StatefulSet, DaemonSet]
seealso:
  - module: progressive.delivery.mark_released
"""

EXAMPLES = r"""
- name: How good is it
  progressive.delivery.practices_info:
    namespace: shop
    name: web
  register: practices

- name: Say what is not
  ansible.builtin.debug:
    msg: "{{ practices.findings | rejectattr('ok') | map(attribute='message') }}"

- name: An image for production has a version and was released in staging
  progressive.delivery.practices_info:
    namespace: shop
    name: web
    image: registry.example.com/web:2.1.0
    checks: [image_tag, staged]
    staged:
      namespace: staging
  register: practices
  failed_when: not practices.ok

- name: What would give the pods ten seconds to leave the endpoints
  progressive.delivery.practices_info:
    namespace: shop
    name: web
    checks: [graceful_stop]
    stop_delay: 10
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
actions:
  description: Always empty, since this step changes nothing.
  returned: success
  type: list
  elements: str
  sample: []
ok:
  description: Whether every check is kept.
  returned: success
  type: bool
  sample: false
findings:
  description: What each check found, in the order of the checks.
  returned: success
  type: list
  elements: dict
  sample:
    - check: disruption_budget
      ok: false
      message: >-
        PodDisruptionBudget shop/web with minAvailable 3 of the 3 pods of Deployment shop/web lets 0 go, so it blocks every
        drain; set minAvailable 2
      details: {budgets: [web], replicas: 3, lowest: 3, limit: minAvailable 3, expected: 3, must_stay: 3, allowed: 0}
      fix: {object: {apiVersion: policy/v1, kind: PodDisruptionBudget}}
      unfixable: ""
  contains:
    check:
      description: The check.
      type: str
      returned: always
      sample: disruption_budget
    ok:
      description: Whether it is kept.
      type: bool
      returned: always
      sample: false
    message:
      description: One sentence that names the object, what is wrong and the way out; or, in what way it is kept.
      type: str
      returned: always
      sample: container app of Deployment shop/web has no readinessProbe, so requests are sent before they can be answered; add one
    details:
      description: What was seen.
      type: dict
      returned: always
      sample: {missing: [app]}
    fix:
      description:
        - What would put it right; empty where it is kept, or where C(unfixable) says why.
        - C(annotations), C(pod), C(containers) and C(initContainers) are parts of the workload, C(object) is an object of
          its own, and C(groups) are those of a rule file.
      type: dict
      returned: always
      sample: {containers: {app: {name: app, readinessProbe: {httpGet: {path: /readyz, port: 9898}}}}}
    unfixable:
      description: Why no task can put it right.
      type: str
      returned: always
      sample: readiness_probe is not given
images:
  description: The images that were looked at, by container; the container is V(*) for O(image).
  returned: success
  type: dict
  sample: {app: "localhost:32000/podinfo:2.0.0"}
workload:
  description: The workload, as sentences name it.
  returned: success
  type: str
  sample: Deployment shop/web
workload_namespace:
  description: Its namespace, also where that is the context's own.
  returned: success
  type: str
  sample: shop
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.05
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import Forbidden, InvalidRequest, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    WORKLOAD_KINDS,
    Cluster,
    Manifest,
    Query,
    Ref,
    Result,
)
from ansible_collections.progressive.delivery.plugins.module_utils.plan import practices
from ansible_collections.progressive.delivery.plugins.module_utils.plan.alerts import Alerting
from ansible_collections.progressive.delivery.plugins.module_utils.reading import autoscaler_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import require

OPTIONS = {
    "kind": {"type": "str", "default": "Deployment", "choices": list(WORKLOAD_KINDS)},
    "name": {"type": "str", "required": True},
    "checks": {"type": "list", "elements": "str", "choices": list(practices.CHECKS)},
    "image": {"type": "str"},
    "images": {"type": "dict"},
    "sidecars": {"type": "list", "elements": "str", "default": list(practices.SIDECARS)},
    "readiness_probe": {"type": "dict"},
    "resources": {"type": "dict"},
    "stop_delay": {"type": "float", "default": 3},
    "annotations": {"type": "dict"},
    "disruption_budget": {"type": "dict", "options": {"min_available": {"type": "str"}, "max_unavailable": {"type": "str"}}},
    "alert": {
        "type": "dict",
        "options": {
            "namespace": {"type": "str"},
            "labels": {"type": "dict", "default": {}},
            "groups": {"type": "list", "elements": "dict"},
            "share": {"type": "float", "default": 0.05},
            "seconds": {"type": "float", "default": 120},
            "window": {"type": "str", "default": "5m"},
            "metric": {"type": "str", "default": "http_requests_total"},
            "status_label": {"type": "str", "default": "status"},
            "namespace_label": {"type": "str", "default": "namespace"},
            "pod_label": {"type": "str", "default": "pod"},
            "severity": {"type": "str", "default": "critical"},
        },
    },
    "staged": {
        "type": "dict",
        "options": {
            "namespace": {"type": "str", "required": True},
            "name": {"type": "str"},
            "kind": {"type": "str", "choices": list(WORKLOAD_KINDS)},
        },
    },
}


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Return the finding of each check."""
    ref = Ref(options["kind"], options["namespace"], options["name"])
    checks = options.get("checks")
    if checks is None:
        checks = [name for name in practices.CHECKS if name != "staged" or options.get("staged")]
    checks = list(dict.fromkeys(checks))
    if "staged" in checks and not options.get("staged"):
        raise InvalidRequest("the check staged needs staged, with the namespace in which the image must have been released first")
    given = practices.given_images(ref, options.get("image"), options.get("images"))
    # The images of another place can be judged without the workload, which may be of another cluster.
    alone = bool(given) and set(checks) <= {"image_tag", "staged"}
    workload: Manifest = {} if alone else require(cluster, ref)
    images = given or practices.own_images(workload, options["sidecars"])
    make = _makers(options, cluster, ref, workload, images)
    findings = []
    for name in checks:
        try:
            findings.append(make[name]())
        except Forbidden as error:
            findings.append(practices.unreadable(name, error))
    return Result(
        extra={
            "ok": all(finding.ok for finding in findings),
            "findings": [finding.to_dict() for finding in findings],
            "images": images,
            "workload": str(ref),
            "workload_namespace": ref.namespace,
        }
    )


def _makers(
    options: dict[str, Any], cluster: Cluster, ref: Ref, workload: Manifest, images: dict[str, str]
) -> dict[str, Callable[[], practices.Finding]]:
    """Return what makes the finding of each check, reading only what that one needs."""
    sidecars = options["sidecars"]
    return {
        "readiness_probe": lambda: practices.readiness_probe(ref, workload, sidecars, options.get("readiness_probe")),
        "disruption_budget": lambda: _budget(options, cluster, ref, workload),
        "image_tag": lambda: practices.image_tag(ref, images),
        "resources": lambda: practices.resources(ref, workload, options.get("resources")),
        "graceful_stop": lambda: practices.graceful_stop(ref, workload, options["stop_delay"], sidecars),
        "annotations": lambda: practices.annotated(ref, workload, options.get("annotations"), images),
        "alert": lambda: _alert(options, cluster, ref),
        "staged": lambda: _staged(options, cluster, ref, images),
    }


def _budget(options: dict[str, Any], cluster: Cluster, ref: Ref, workload: Manifest) -> practices.Finding:
    """Read the budgets and, where there are any, what else they may select."""
    present = cluster.list(Query("PodDisruptionBudget", ref.namespace)).items
    kinds = ("Deployment", "StatefulSet") if present else ()
    workloads = [entry for kind in kinds for entry in cluster.list(Query(kind, ref.namespace)).items]
    autoscaler = autoscaler_of(cluster, ref) if ref.kind != "DaemonSet" else None
    return practices.disruption_budget(ref, workload, present, workloads, autoscaler, options.get("disruption_budget"))


def _alert(options: dict[str, Any], cluster: Cluster, ref: Ref) -> practices.Finding:
    """Read the PrometheusRules, where the cluster has that kind."""
    given = options.get("alert") or {}
    namespace = given.get("namespace") or ref.namespace
    names = {entry.name for entry in fields(Alerting)}
    wanted = Alerting(**{key: value for key, value in given.items() if key in names and value is not None})
    try:
        objects = cluster.list(Query("PrometheusRule", namespace)).items
    except NotFound:
        objects = None
    return practices.alert(ref, objects, given.get("groups"), wanted, namespace)


def _staged(options: dict[str, Any], cluster: Cluster, ref: Ref, images: dict[str, str]) -> practices.Finding:
    """Read the workload in the other place."""
    given = options["staged"]
    there = Ref(given.get("kind") or ref.kind, given["namespace"], given.get("name") or ref.name)
    try:
        workload = cluster.get(there)
    except NotFound:
        workload = None
    return practices.staged(ref, images, there, workload)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
