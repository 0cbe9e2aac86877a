# SPDX-License-Identifier: GPL-3.0-or-later
"""strategy_info against the fake cluster: what it finds, and that what may not be read is none and named."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.plan.strategies import recommend
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec
from ansible_collections.progressive.delivery.plugins.modules import strategy_info
from support.fake import FakeCluster
from support.objects import deployment, ingress, pod, service


def look(cluster: FakeCluster, **given: Any) -> dict[str, Any]:
    """Run the step and return its facts."""
    spec = argument_spec(strategy_info.OPTIONS)
    options = {**{key: entry.get("default") for key, entry in spec.items()}, "namespace": "shop", "name": "web", **given}
    result = strategy_info.execute(options, cluster, False)
    assert not result.changed and cluster.writes == []
    assert result.extra["unknown"] == result.extra["facts"]["unknown"]
    return result.extra["facts"]


def node(name: str = "n1", **spec: Any) -> dict[str, Any]:
    """Return a node for five pods."""
    return {"kind": "Node", "metadata": {"name": name}, "spec": spec, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "5"}}}


def thing(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """Return any object."""
    return {"kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def placed(name: str, namespace: str = "shop") -> dict[str, Any]:
    """Return a pod on the node."""
    found = pod(name, {"app": "web" if namespace == "shop" else "other"})
    found["metadata"]["namespace"] = namespace
    found["spec"]["nodeName"] = "n1"
    return found


def test_a_workload_alone() -> None:
    cluster = FakeCluster(deployment(), node(), placed("a"), placed("b", namespace="other"))
    facts = look(cluster)
    assert facts["unknown"] == [] and (facts["kind"], facts["replicas"], facts["update_strategy"]) == ("Deployment", 3, None)
    assert facts["capacity"] == {"pods": 3, "cpu": 4.0, "memory": 8 * 2**30, "nodes": 1, "quota": None}
    assert facts["selector"] == {"app": "web"} and facts["readiness_probe"] is False
    assert facts["claims"] == [] and facts["autoscaler"] is None
    assert facts["routes"] == {"services": [], "ingresses": [], "http_routes": [], "virtual_services": [], "ingress_routes": []}
    assert facts["api_groups"] == sorted(cluster.groups)
    assert recommend(facts).strategy == "rolling_update"


def test_the_newest_pod_tells_what_one_takes() -> None:
    cluster = FakeCluster(deployment(), node(), placed("a"))
    added = placed("b")
    added["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
    added["spec"]["containers"].append({"name": "sidecar", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}})
    cluster.put(added)
    facts = look(cluster)
    assert facts["requests"] == {"cpu": 2.0, "memory": 2**30} and facts["capacity"]["pods"] == 1


def test_what_is_around_it() -> None:
    workload = deployment()
    workload["spec"]["template"]["spec"]["volumes"] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "lost", "persistentVolumeClaim": {"claimName": "lost"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    workload["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/"}}
    scaler = thing("HorizontalPodAutoscaler", "web", scaleTargetRef={"kind": "Deployment", "name": "web"}, maxReplicas=9)
    quota = {**thing("ResourceQuota", "small", hard={"pods": "4"}), "status": {"used": {"pods": "3"}}}
    claim = thing("PersistentVolumeClaim", "data", accessModes=["ReadWriteOnce"])
    cluster = FakeCluster(workload, node(), scaler, quota, claim, service(color=None), service("blue", "blue"))
    cluster.put({**thing("Service", "headless"), "spec": {}})
    facts = look(cluster)
    assert facts["routes"]["services"] == ["web"]
    assert facts["autoscaler"] == {"name": "web", "min": 1, "max": 9}
    assert facts["capacity"]["quota"] == {"name": "small", "pods": 1}
    assert facts["claims"] == [{"name": "data", "access_modes": ["ReadWriteOnce"]}, {"name": "lost", "access_modes": None}]
    assert facts["unknown"] == ["claim lost"] and facts["readiness_probe"] is True
    assert recommend(facts).strategy == "recreate"


@pytest.mark.parametrize(
    ("named", "classes", "found"),
    [
        ({"ingressClassName": "nginx"}, {"nginx": "k8s.io/ingress-nginx"}, ("nginx", "k8s.io/ingress-nginx")),
        ({"ingressClassName": "gone"}, {"nginx": "k8s.io/ingress-nginx"}, ("gone", None)),
        ({}, {"traefik*": "traefik.io/ingress-controller", "nginx": "x"}, ("traefik", "traefik.io/ingress-controller")),
        ({}, {"nginx": "k8s.io/ingress-nginx"}, (None, None)),
    ],
)
def test_an_ingress_has_the_controller_of_its_class(named: dict[str, Any], classes: dict[str, str], found: tuple[Any, Any]) -> None:
    route = ingress("other", "web")
    route["spec"].update(named)
    cluster = FakeCluster(deployment(), service(color=None), route, ingress("other", name="other"))
    for name, controller in classes.items():
        notes = {"ingressclass.kubernetes.io/is-default-class": "true"} if name.endswith("*") else {}
        meta = {"name": name.rstrip("*"), "annotations": notes}
        cluster.put({"kind": "IngressClass", "metadata": meta, "spec": {"controller": controller}})
    assert look(cluster)["routes"]["ingresses"] == [{"name": "web", "class": found[0], "controller": found[1]}]


def test_routes_of_other_groups_are_read_where_the_group_is_served() -> None:
    routes = [
        thing("HTTPRoute", "web", rules=[{"backendRefs": [{"name": "other"}, {"name": "web", "port": 80}]}]),
        thing("HTTPRoute", "other", rules=[{"backendRefs": [{"name": "other"}]}, {"filters": []}]),
        thing("VirtualService", "short", http=[{"route": [{"destination": {"host": "web"}}]}]),
        thing("VirtualService", "long", http=[{"route": [{"destination": {"host": "web.shop.svc.cluster.local"}}]}]),
        thing("VirtualService", "elsewhere", http=[{"route": [{"destination": {"host": "web.other"}}]}]),
        thing("IngressRoute", "web", routes=[{"services": [{"name": "web", "port": 80}]}]),
        thing("IngressRoute", "split", routes=[{"services": [{"name": "web", "kind": "TraefikService"}]}]),
    ]
    cluster = FakeCluster(deployment(), service(color=None), *routes)
    assert look(cluster)["routes"]["http_routes"] == []
    cluster.groups += ["gateway.networking.k8s.io", "networking.istio.io", "traefik.io"]
    found = look(cluster)["routes"]
    assert (found["http_routes"], found["virtual_services"], found["ingress_routes"]) == (["web"], ["long", "short"], ["web"])


KINDS_READ = {
    "Pod": ["pods of the namespace", "pods of all namespaces"],
    "Node": ["nodes"],
    "ResourceQuota": ["quotas"],
    "HorizontalPodAutoscaler": ["autoscalers"],
    "Service": ["services"],
    "Ingress": ["ingresses"],
    "IngressClass": ["ingress classes"],
    "HTTPRoute": ["HTTPRoutes"],
    "PersistentVolumeClaim": ["claim data"],
}


def full() -> FakeCluster:
    """Return a cluster with all that the step looks for."""
    workload = deployment()
    workload["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    claim = thing("PersistentVolumeClaim", "data", accessModes=["ReadWriteMany"])
    cluster = FakeCluster(workload, node(), placed("a"), service(color=None), ingress("web"), claim)
    cluster.groups.append("gateway.networking.k8s.io")
    return cluster


@pytest.mark.parametrize(("kind", "unknown"), KINDS_READ.items(), ids=KINDS_READ)
def test_what_may_not_be_read_is_none_and_no_failure(kind: str, unknown: list[str]) -> None:
    cluster = full()
    assert look(cluster)["unknown"] == []
    cluster.forbidden = {kind}
    facts = look(cluster)
    assert facts["unknown"] == unknown
    assert any("could not be read" in need for need in recommend(facts).needs)


def test_who_may_read_the_workload_alone_gets_an_answer() -> None:
    cluster = full()
    cluster.forbidden = set(KINDS_READ)
    facts = look(cluster)
    assert facts["capacity"] == {"pods": None, "cpu": None, "memory": None, "nodes": None, "quota": None}
    assert facts["routes"]["services"] is None and facts["routes"]["ingresses"] is None
    answer = recommend({**facts, "instant_rollback": True})
    assert answer.strategy == "blue_green" and any("Room for 3 more pods" in need for need in answer.needs)


def test_a_group_without_the_kind_is_told_as_unknown() -> None:
    cluster = full()
    cluster.groups += ["networking.istio.io"]
    cluster.unserved = {"VirtualService"}
    assert look(cluster)["unknown"] == ["VirtualServices"]


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_the_other_kinds(kind: str) -> None:
    workload = deployment()
    workload.update(kind=kind)
    workload["spec"]["updateStrategy"] = {"type": "OnDelete"}
    if kind == "DaemonSet":
        del workload["spec"]["replicas"]
        workload["status"]["desiredNumberScheduled"] = 2
    facts = look(FakeCluster(workload), kind=kind)
    assert (facts["replicas"], facts["update_strategy"]) == (2 if kind == "DaemonSet" else 3, "OnDelete")


def test_a_workload_that_is_not_there_is_named_with_those_that_are() -> None:
    cluster = FakeCluster(deployment("api"))
    with pytest.raises(DeliveryError, match="Deployment shop/web does not exist; Deployments in namespace shop: api"):
        look(cluster)
    cluster.forbidden = {"Deployment"}
    with pytest.raises(DeliveryError, match="Not allowed to get Deployment shop/api"):
        look(cluster, name="api")
