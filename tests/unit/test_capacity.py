# SPDX-License-Identifier: GPL-3.0-or-later
"""How many more pods fit: quantities, what a pod takes, which nodes accept it, what quotas leave."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.plan.capacity import (
    accepts,
    demand,
    has_room_again,
    per_pod,
    quantity,
    room_in_quotas,
    room_on_nodes,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", "0.25"),
        ("1.5", "1.5"),
        (2, "2"),
        ("512Mi", str(512 * 2**20)),
        ("1e3", "1000"),
        ("1E", str(10**18)),
        ("1Ei", str(2**60)),
        ("12E2", "1200"),
        ("100n", "1e-7"),
        (".5k", "500"),
        ("0", "0"),
    ],
)
def test_a_quantity_is_read_as_kubernetes_does(text: Any, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Mi", "1 Gi", "1KB", "one", None])
def test_what_is_no_quantity_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequest, match="is not a quantity"):
        quantity(text)


def container(cpu: str = "", memory: str = "", limits: Any = None, **more: Any) -> dict[str, Any]:
    """Return a container that requests this."""
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    return {"name": "app", "resources": {"requests": requests, **({"limits": limits} if limits else {})}, **more}


@pytest.mark.parametrize(
    ("pod", "cpu"),
    [
        ({"containers": [container("100m"), container("200m")]}, "0.3"),
        ({"containers": [container()]}, "0"),
        # An init container counts where it takes more than all that run later.
        ({"containers": [container("100m")], "initContainers": [container("500m")]}, "0.5"),
        ({"containers": [container("100m")], "initContainers": [container("50m")]}, "0.1"),
        # A sidecar stays: beside the containers, and beside each init container after it.
        ({"containers": [container("100m")], "initContainers": [container("50m", restartPolicy="Always")]}, "0.15"),
        ({"containers": [container("1")], "initContainers": [container("1", restartPolicy="Always"), container("3")]}, "4"),
        ({"containers": [container("1")], "initContainers": [container("3"), container("1", restartPolicy="Always")]}, "3"),
        # A limit without a request is a request.
        ({"containers": [container(limits={"cpu": "2"})]}, "2"),
        ({"containers": [container("1", limits={"cpu": "2"})]}, "1"),
        # Requests of the whole pod stand in for those of its containers; the overhead of its runtime comes on top.
        ({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}, "3"),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, "1.25"),
    ],
)
def test_a_pod_takes_what_the_scheduler_says(pod: dict[str, Any], cpu: str) -> None:
    assert demand(pod).get("cpu", Decimal(0)) == Decimal(cpu)


def node(name: str = "n1", cpu: str = "2", memory: str = "4Gi", pods: str = "10", labels: Any = None, **spec: Any) -> dict[str, Any]:
    """Return a node."""
    allocatable = {"cpu": cpu, "memory": memory, "pods": pods}
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": {"allocatable": allocatable}}


def running(where: str, cpu: str = "", phase: str = "Running", **more: Any) -> dict[str, Any]:
    """Return a pod on a node."""
    return {"spec": {"nodeName": where, "containers": [container(cpu, **more)]}, "status": {"phase": phase}}


SMALL = {"containers": [container("500m", "128Mi")]}
TAINT = {"key": "team", "value": "shop", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("nodes", "pods", "fit"),
    [
        ([node()], [], 4),
        ([node()], [running("n1", "600m")], 2),
        # Half a pod on each of two nodes is no pod.
        ([node(), node("n2")], [running("n1", "1700m"), running("n2", "1700m")], 0),
        ([node(pods="3")], [running("n1"), running("n1")], 1),
        ([node()], [running("n1", "2", phase="Succeeded"), running("n1", "2", phase="Failed"), running("", "2")], 4),
        ([node(memory="200Mi")], [], 1),
        ([node()], [running("n1", "5")], 0),
        ([node(unschedulable=True)], [], 0),
        ([node(taints=[TAINT]), node("n2")], [], 4),
        ([], [], 0),
    ],
)
def test_pods_fit_node_by_node(nodes: list[Any], pods: list[Any], fit: int) -> None:
    assert room_on_nodes(SMALL, nodes, pods)["pods"] == fit


def test_what_is_free_is_told_for_the_nodes_that_accept_it() -> None:
    found = room_on_nodes(SMALL, [node(), node("n2", taints=[TAINT])], [running("n1", "500m")])
    assert found == {"pods": 3, "cpu": 1.5, "memory": 4 * 2**30, "nodes": 1}


def test_a_host_port_is_there_once_a_node() -> None:
    pod = {"containers": [container("100m", ports=[{"containerPort": 80, "hostPort": 80}])]}
    holder = running("n1", ports=[{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}])
    other = running("n2", ports=[{"containerPort": 80, "hostPort": 80, "protocol": "UDP"}])
    assert room_on_nodes(pod, [node(), node("n2")], [])["pods"] == 2
    assert room_on_nodes(pod, [node(), node("n2")], [holder, other])["pods"] == 1
    network = {"hostNetwork": True, "containers": [container(ports=[{"containerPort": 80}])]}
    assert room_on_nodes(network, [node(), node("n2")], [holder])["pods"] == 1


def test_other_resources_count_too() -> None:
    pod = {"containers": [{"name": "app", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}
    gpu = node("n2")
    gpu["status"]["allocatable"]["nvidia.com/gpu"] = "2"
    assert room_on_nodes(pod, [node(), gpu], [])["pods"] == 2


def affine(*expressions: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that must run where an expression holds."""
    terms = [{"matchExpressions": [entry]} for entry in expressions]
    return {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}


@pytest.mark.parametrize(
    ("pod", "spec", "accepted"),
    [
        ({}, {}, True),
        ({}, {"unschedulable": True}, False),
        ({"tolerations": [{"operator": "Exists"}]}, {"unschedulable": True}, True),
        ({}, {"taints": [TAINT]}, False),
        ({}, {"taints": [{**TAINT, "effect": "PreferNoSchedule"}]}, True),
        ({}, {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}, False),
        ({"tolerations": [{"key": "team", "value": "shop"}]}, {"taints": [TAINT]}, True),
        ({"tolerations": [{"key": "team", "operator": "Exists", "effect": "NoSchedule"}]}, {"taints": [TAINT]}, True),
        ({"tolerations": [{"key": "team", "value": "other"}]}, {"taints": [TAINT]}, False),
        ({"tolerations": [{"key": "team", "operator": "Exists", "effect": "NoExecute"}]}, {"taints": [TAINT]}, False),
        ({"nodeSelector": {"disk": "ssd"}}, {}, True),
        ({"nodeSelector": {"disk": "tape"}}, {}, False),
        (affine({"key": "disk", "operator": "In", "values": ["ssd", "nvme"]}), {}, True),
        (affine({"key": "disk", "operator": "NotIn", "values": ["ssd"]}), {}, False),
        (affine({"key": "gpu", "operator": "Exists"}), {}, False),
        (affine({"key": "gpu", "operator": "DoesNotExist"}), {}, True),
        (affine({"key": "age", "operator": "Gt", "values": ["3"]}), {}, True),
        (affine({"key": "age", "operator": "Lt", "values": ["3"]}), {}, False),
        (affine({"key": "disk", "operator": "Gt", "values": ["3"]}), {}, False),
        # Terms are alternatives.
        (affine({"key": "gpu", "operator": "Exists"}, {"key": "disk", "operator": "Exists"}), {}, True),
    ],
)
def test_a_node_accepts_what_the_scheduler_would_put_there(pod: dict[str, Any], spec: dict[str, Any], accepted: bool) -> None:
    assert accepts(node(labels={"disk": "ssd", "age": "5"}, **spec), pod) is accepted


def quota(name: str = "small", used: Any = None, hard: Any = None, **spec: Any) -> dict[str, Any]:
    """Return a ResourceQuota."""
    return {"metadata": {"name": name}, "spec": {"hard": hard or {}, **spec}, "status": {"used": used or {}}}


@pytest.mark.parametrize(
    ("quotas", "found"),
    [
        ([], None),
        ([quota(hard={"services": "1"})], None),
        ([quota(hard={"pods": "5"}, used={"pods": "3"})], {"name": "small", "pods": 2}),
        ([quota(hard={"count/pods": "5"}, used={"count/pods": "7"})], {"name": "small", "pods": 0}),
        ([quota(hard={"requests.cpu": "2"}, used={"requests.cpu": "400m"})], {"name": "small", "pods": 3}),
        ([quota(hard={"memory": "1Gi"}), quota("tiny", hard={"cpu": "1"})], {"name": "tiny", "pods": 2}),
        ([quota(hard={"limits.cpu": "3"})], {"name": "small", "pods": 3}),
        ([quota(hard={"pods": "0"}, scopeSelector={"matchExpressions": []}), quota("b", hard={"pods": "1"})], {"name": "b", "pods": 1}),
        ([quota(hard={"pods": "0"}, scopes=["BestEffort"])], None),
    ],
)
def test_the_quota_that_leaves_least_is_the_one_that_counts(quotas: list[Any], found: Any) -> None:
    assert room_in_quotas({"containers": [container("500m", "128Mi", limits={"cpu": "1"})]}, quotas) == found


def test_what_a_pod_requests_is_told_in_plain_numbers() -> None:
    assert per_pod(SMALL) == {"cpu": 0.5, "memory": 128 * 2**20}
    assert per_pod({"containers": [container()]}) == {"cpu": 0.0, "memory": 0}


REFUSED = 'pods "web-1" is forbidden: exceeded quota: small, requested: {0}, used: pods=4, limited: pods=4; raise the quota'


@pytest.mark.parametrize(
    ("asked", "used", "room"),
    [
        ("pods=1", {"pods": "4"}, False),
        ("pods=1", {"pods": "3"}, True),
        ("pods=1,requests.cpu=500m", {"pods": "3", "requests.cpu": "1600m"}, False),
        ("pods=1,requests.cpu=500m", {"pods": "3", "requests.cpu": "1500m"}, True),
        ("requests.memory=64Mi", {"requests.memory": "0"}, True),
    ],
)
def test_a_quota_that_refused_a_pod_may_have_room_by_now(asked: str, used: Any, room: bool) -> None:
    full = {"metadata": {"name": "small"}, "status": {"hard": {"pods": "4", "requests.cpu": "2"}, "used": used}}
    assert has_room_again(REFUSED.format(asked), [quota("tiny"), full]) is room


def test_a_quota_that_is_gone_has_room_and_another_refusal_says_nothing_of_quotas() -> None:
    assert has_room_again(REFUSED.format("pods=1"), [quota("tiny")])
    assert not has_room_again("denied by the policy", [])
