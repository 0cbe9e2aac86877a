# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found on a real cluster, what follows from it, and that the room that is told is the scheduler's own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.module_utils.model import JSON_PATCH, KINDS, MERGE_PATCH, Query, Ref, pointer
from ansible_collections.progressive.delivery.plugins.module_utils.plan.strategies import STRATEGIES, Recommendation, recommend
from ansible_collections.progressive.delivery.plugins.modules import scale, strategy_info
from support import kinds
from support.live import ROOT, Shop

# Together, since they make and remove what the whole cluster has.
pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("recommend")]
IMAGE = "localhost:32000/podinfo:1.0.0"
LABELS = {"app": "web", "version": "blue"}
GUIDE = ROOT / "docs" / "guides" / "choosing_a_strategy.md"
GATEWAY = "gateway.networking.k8s.io"


def workload(kind: str = "Deployment", replicas: int = 2, requests: Any = None, **spec: Any) -> dict[str, Any]:
    """Return podinfo as a workload named web; ``spec`` is of its pods."""
    app = {
        "name": "app",
        "image": IMAGE,
        "ports": [{"name": "http", "containerPort": 9898}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi", **(requests or {})}, "limits": dict(requests or {})},
    }
    pods = {"metadata": {"labels": LABELS}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [app], **spec}}
    found: dict[str, Any] = {"selector": {"matchLabels": LABELS}, "template": pods}
    if kind != "DaemonSet":
        found["replicas"] = replicas
    if kind == "StatefulSet":
        found["serviceName"] = "web"
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": found}


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": LABELS, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
}
OTHER = {**SERVICE, "metadata": {"name": "other"}, "spec": {**SERVICE["spec"], "selector": {"app": "other"}}}


def facts(shop: Shop, kind: str = "Deployment", **options: Any) -> dict[str, Any]:
    """Run strategy_info and return what it found."""
    outcome = shop.step(strategy_info, kind=kind, name="web", **options)
    assert "failed" not in outcome and not outcome["changed"], outcome
    return outcome["facts"]


def advice(shop: Shop, kind: str = "Deployment", options: Any = None, **said: Any) -> Recommendation:
    """Return the recommendation for what is found and said."""
    return recommend({**facts(shop, kind, **(options or {})), **said})


def has(sentences: Any, words: str) -> bool:
    """Return whether one of the sentences has the words."""
    return any(words in sentence for sentence in sentences)


def test_podinfo_without_a_service_and_with_one(empty: Shop) -> None:
    empty.create(workload())
    found = facts(empty)
    assert found["routes"]["services"] == [] and found["replicas"] == 2 and found["readiness_probe"] is True
    assert found["requests"] == {"cpu": 0.005, "memory": 8 * 2**20} and found["update_strategy"] == "RollingUpdate"
    assert found["capacity"]["nodes"] >= 1 and found["capacity"]["pods"] >= 2 and found["unknown"] == []
    alone = advice(empty, instant_rollback=True)
    assert alone.strategy == "rolling_update" and has(alone.reasons, "No Service selects its pods")
    assert has(alone.needs, "For an instant way back: no Service selects its pods")
    empty.create(SERVICE)
    empty.create(OTHER)
    assert facts(empty)["routes"]["services"] == ["web"]
    served = advice(empty, instant_rollback=True)
    assert served.strategy == "blue_green" and has(served.reasons, "Service web can be switched") and served.needs == ()
    assert served.playbook == "progressive.delivery.blue_green" and served.costs["more_pods"] == 2


def test_what_the_ingress_controller_can_decides(empty: Shop) -> None:
    empty.create(workload(replicas=1))
    empty.create(SERVICE)
    name = f"class-{empty.namespace}"
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"host": "shop.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    meta = {"name": "web"}
    spec = {"ingressClassName": name, "rules": [rule]}
    empty.create({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec})
    assert facts(empty)["routes"]["ingresses"] == [{"name": "web", "class": name, "controller": None}]
    assert has(advice(empty, risky=True, api_groups=["apps"]).needs, "whether there is one is not known")
    for controller, strategy in (("k8s.io/ingress-nginx", "ab_test"), ("example.com/router", "rolling_update")):
        ref = Ref("IngressClass", "", name)
        made = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name}}
        made["spec"] = {"controller": controller}
        empty.cluster.create(ref, made)
        try:
            assert facts(empty)["routes"]["ingresses"] == [{"name": "web", "class": name, "controller": controller}]
            found = advice(empty, purpose="compare_variants", api_groups=["apps"])
            assert found.strategy == strategy, found
        finally:
            empty.cluster.delete(ref)


@pytest.fixture
def slots(empty: Shop) -> Iterator[str]:
    """Return a resource of which one node has five, and that nothing else asks for."""
    name = f"example.com/{empty.namespace}"
    node = empty.cluster.list(Query("Node", "")).items[0]["metadata"]["name"]
    path = KINDS["Node"].path(None, node, "status")
    at = [f"/status/{where}/{pointer(name)}" for where in ("capacity", "allocatable")]
    empty.cluster._json("PATCH", path, {}, [{"op": "add", "path": entry, "value": "5"} for entry in at], content_type=JSON_PATCH)
    yield name
    status = empty.cluster.get(Ref("Node", "", node))["status"]
    gone = [{"op": "remove", "path": entry} for entry, where in zip(at, ("capacity", "allocatable")) if name in status[where]]
    empty.cluster._json("PATCH", path, {}, gone, content_type=JSON_PATCH)


def states(shop: Shop) -> list[str]:
    """Return the state of each pod, as far as its place goes: placed or homeless."""
    found = []
    for pod in shop.cluster.list(Query("Pod", shop.namespace, "app=web")).items:
        conditions = {entry["type"]: entry for entry in pod["status"].get("conditions") or []}
        homeless = conditions.get("PodScheduled", {}).get("reason") == "Unschedulable"
        found.append("homeless" if homeless else "placed" if pod["spec"].get("nodeName") else "undecided")
    return sorted(found)


def settled(shop: Shop, count: int) -> list[str]:
    """Return the states of so many pods when the scheduler has decided on each."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = states(shop)
        if len(found) == count and "undecided" not in found:
            return found
        time.sleep(0.3)
    return states(shop)


def test_the_room_that_is_told_is_what_the_scheduler_gives(empty: Shop, slots: str) -> None:
    empty.create(workload(replicas=2, requests={slots: "1"}))
    empty.create(SERVICE)
    found = facts(empty)
    assert found["capacity"]["pods"] == 3, found["capacity"]
    assert advice(empty, instant_rollback=True).strategy == "blue_green"
    empty.step(scale, name="web", replicas=5)
    assert settled(empty, 5) == ["placed"] * 5
    full = advice(empty, instant_rollback=True)
    assert full.strategy == "rolling_update" and has(full.reasons, "that takes 5 more pods, and there is room for none on the nodes")
    assert has(full.needs, "max_surge 0 and max_unavailable 1")
    empty.step(scale, name="web", replicas=6)
    assert settled(empty, 6) == ["homeless"] + ["placed"] * 5


def test_a_deployment_that_is_too_big_to_double(empty: Shop, slots: str) -> None:
    empty.create(workload(replicas=2, requests={slots: "2"}))
    empty.create(SERVICE)
    assert facts(empty)["capacity"]["pods"] == 0
    for said in ({"instant_rollback": True}, {"instant_rollback": True, "double_resources": True}, {"risky": True}):
        found = advice(empty, **said)
        assert found.strategy == "rolling_update" and not any(
            entry["possible"] for entry in found.alternatives if entry["strategy"] in ("blue_green", "canary", "shadow")
        ), found


def test_a_quota_limits_the_room_and_is_named(empty: Shop) -> None:
    empty.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": {"pods": "3"}}})
    deadline = time.monotonic() + 10
    while "used" not in empty.get("ResourceQuota", "small").get("status", {}) and time.monotonic() < deadline:
        time.sleep(0.2)
    empty.create(workload(replicas=2))
    empty.create(SERVICE)
    assert facts(empty)["capacity"]["quota"] == {"name": "small", "pods": 1}
    found = advice(empty, instant_rollback=True)
    assert found.strategy == "rolling_update" and has(found.reasons, "room for 1 in ResourceQuota small")
    # The quota's own verdict: a fourth pod is refused.
    empty.step(scale, name="web", replicas=4)
    time.sleep(1.5)
    assert len(states(empty)) == 3


def test_a_claim_for_one_leaves_recreate_alone(empty: Shop) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    empty.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    empty.create(workload(volumes=[volume]), wait=False)
    empty.create(SERVICE)
    assert facts(empty)["claims"] == [{"name": "data", "access_modes": ["ReadWriteOnce"]}]
    for said in ({}, {"instant_rollback": True, "double_resources": True}, {"risky": True}, {"purpose": "compare_variants"}):
        found = advice(empty, **said)
        assert found.strategy == "recreate" and has(found.reasons, "PersistentVolumeClaim data is ReadWriteOnce")
        assert has(found.needs, "For no downtime")
    assert has(advice(empty).needs, "set to Recreate: it is RollingUpdate now")


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_the_other_kinds_are_updated_in_place(empty: Shop, kind: str) -> None:
    empty.create(workload(kind, replicas=1), wait=False)
    deadline = time.monotonic() + 30
    while not facts(empty, kind)["replicas"] and time.monotonic() < deadline:
        time.sleep(0.3)
    found = advice(empty, kind, instant_rollback=True, downtime_ok=True)
    assert found.strategy == "rolling_update" and found.costs["more_pods"] == 0 and has(found.needs, "For an instant way back")


def test_an_autoscaler_is_found_and_needs_a_second_one(empty: Shop) -> None:
    empty.create(workload())
    empty.create(SERVICE)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 7}
    empty.create({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "grow"}, "spec": spec})
    assert facts(empty)["autoscaler"] == {"name": "grow", "min": 2, "max": 7}
    assert has(advice(empty, instant_rollback=True).needs, "grow (2 to 7 pods) scales the first alone")


def grant(shop: Shop, user: str, rules: list[dict[str, Any]]) -> None:
    """Let a user do this in the namespace."""
    group = "rbac.authorization.k8s.io"
    root = f"/apis/{group}/v1/namespaces/{shop.namespace}"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": user}, "rules": rules}
    reference = {"apiGroup": group, "kind": "Role", "name": user}
    subject = {"apiGroup": group, "kind": "User", "name": user}
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": user}, "roleRef": reference, "subjects": [subject]}
    shop.cluster._json("POST", f"{root}/roles", {}, role)
    shop.cluster._json("POST", f"{root}/rolebindings", {}, binding)


def test_a_user_of_the_namespace_alone_gets_an_answer_that_says_what_it_does_not_know(empty: Shop) -> None:
    empty.create(workload())
    empty.create(SERVICE)
    groups = ["", "apps", "autoscaling", "networking.k8s.io", GATEWAY, "networking.istio.io", "traefik.io"]
    grant(empty, "developer", [{"apiGroups": groups, "resources": ["*"], "verbs": ["get", "list"]}])
    grant(empty, "guest", [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}])
    found = facts(empty, impersonate_user="developer")
    assert found["unknown"] == ["nodes"] and found["capacity"]["pods"] is None
    assert found["routes"]["services"] == ["web"] and found["api_groups"], found
    answer = advice(empty, options={"impersonate_user": "developer"}, instant_rollback=True)
    assert answer.strategy == "blue_green" and has(answer.needs, "Room for 2 more pods: how much there is, is not known")
    assert has(answer.needs, "nodes could not be read")
    # With a budget or without, the answer stands; only what is missing differs.
    assert advice(empty, options={"impersonate_user": "developer"}, double_resources=False).strategy == "rolling_update"
    found = facts(empty, impersonate_user="guest")
    assert {"pods of the namespace", "nodes", "quotas", "autoscalers", "services"} <= set(found["unknown"])
    assert advice(empty, options={"impersonate_user": "guest"}).reasons
    outcome = empty.step(strategy_info, name="web", impersonate_user="stranger")
    assert outcome["failed"] and outcome["reason"] == "Forbidden" and f"Deployment {empty.namespace}/web" in outcome["msg"]


def http_route_definition() -> dict[str, Any]:
    """Return the real definition of HTTPRoute where Go's module cache has it, else one that lets everything pass."""
    cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=False).stdout.strip()
    there = sorted(Path(cache or "/nowhere").glob(f"sigs.k8s.io/gateway-api@v*/config/crd/standard/{GATEWAY}_httproutes.yaml"))
    if there:
        return next(iter(filter(None, yaml.safe_load_all(there[-1].read_text()))))
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Names that end in k8s.io are guarded by the API server: this annotation says that no reviewer is asked.
        "metadata": {"name": f"httproutes.{GATEWAY}", "annotations": {"api-approved.kubernetes.io": "unapproved, a double for tests"}},
        "spec": {
            "group": GATEWAY,
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "listKind": "HTTPRouteList", "plural": "httproutes", "singular": "httproute"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture
def gateway_api(empty: Shop) -> Iterator[None]:
    """Have HTTPRoutes on the cluster; take them away after, unless they were there or somebody has come to use them."""
    with kinds.there(empty, "HTTPRoute", http_route_definition()):
        yield


def test_gateway_api_is_found_and_so_is_the_route_that_leads_to_it(empty: Shop, gateway_api: None) -> None:
    empty.create(workload())
    empty.create(SERVICE)
    empty.create(OTHER)
    installed = advice(empty, risky=True)
    assert installed.strategy == "canary" and has(installed.needs, "A route: Gateway API can split requests by weight, but no HTTPRoute")

    def route(name: str, service: str) -> dict[str, Any]:
        rules = [{"backendRefs": [{"name": service, "port": 80}]}]
        spec = {"parentRefs": [{"name": "public"}], "hostnames": [f"{name}.test"], "rules": rules}
        return {"apiVersion": f"{GATEWAY}/v1", "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}

    empty.create(route("elsewhere", "other"))
    assert facts(empty)["routes"]["http_routes"] == []
    empty.create(route("web", "web"))
    assert facts(empty)["routes"]["http_routes"] == ["web"]
    assert not has(advice(empty, risky=True, metrics=True).needs, "A route")
    for purpose, strategy in (("compare_variants", "ab_test"), ("rehearse", "shadow")):
        found = advice(empty, purpose=purpose)
        assert (
            found.strategy == strategy
            and has(found.reasons, "HTTPRoute web leads to it")
            and found.playbook == STRATEGIES[strategy].playbook
        )


# -- the playbook -----------------------------------------------------------------------------------------------------


def printed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines that the playbook printed."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"changed=0 .*failed=0", done.stdout), done.stdout
    return json.loads(done.stdout[done.stdout.index('=> {\n    "msg"') + 3 : done.stdout.index("\n}\n") + 2])["msg"]


def everything(shop: Shop) -> dict[str, Any]:
    """Return the specs of all objects of the namespace that the playbook could touch."""
    kinds = ("Deployment", "ReplicaSet", "Service", "Pod", "Lease")
    found = {kind: shop.cluster.list(Query(kind, shop.namespace)).items for kind in kinds}
    return {kind: {entry["metadata"]["name"]: entry["spec"] for entry in items} for kind, items in found.items()}


def test_the_playbook_prints_it_and_changes_nothing(empty: Shop) -> None:
    empty.create(workload())
    empty.create(SERVICE)
    before = everything(empty)
    variables = {"recommend_namespace": empty.namespace, "recommend_name": "web", "recommend_kubeconfig": empty.kubeconfig}
    lines = printed(empty.playbook("progressive.delivery.recommend", variables))
    assert lines[0] == f"Rolling Update for Deployment {empty.namespace}/web" and "All strategies" in lines
    for said in ({"recommend_instant_rollback": True}, {"recommend_instant_rollback": "yes", "recommend_compare": False}):
        lines = printed(empty.playbook("progressive.delivery.recommend", {**variables, **said}, "--check", "--diff"))
        assert lines[0].startswith("Blue-Green for") and "  ansible-playbook progressive.delivery.blue_green" in lines
    assert "All strategies" not in lines
    assert everything(empty) == before


BAD = [
    ({"recommend_risky": "perhaps"}, "value of recommend_risky must be one of"),
    ({"recommend_purpose": "fun"}, "value of recommend_purpose must be one of"),
    ({"recommend_name": "nope"}, "Deployment {namespace}/nope does not exist; Deployments in namespace {namespace}: web"),
    ({"recommend_expected_context": "production"}, "production"),
]


def test_bad_input_gets_one_sentence(empty: Shop) -> None:
    empty.create(workload(replicas=0), wait=False)
    common = {"recommend_namespace": empty.namespace, "recommend_name": "web", "recommend_kubeconfig": empty.kubeconfig}
    for (wrong, sentence), words in zip(BAD, empty.refusals("recommend", [{**common, **wrong} for wrong, _sentence in BAD])):
        assert sentence.format(namespace=empty.namespace) in words, (wrong, words)


def test_the_commands_of_the_guide_run(empty: Shop) -> None:
    empty.create(workload())
    empty.create(SERVICE)
    commands = re.findall(r"^\$ ansible-playbook (\S+) (.*)$", GUIDE.read_text(), re.MULTILINE)
    assert len(commands) == 4
    titles = []
    for playbook, rest in commands:
        arguments = shlex.split(rest.replace("recommend_namespace=shop", f"recommend_namespace={empty.namespace}"))
        titles.append(printed(empty.playbook(playbook, {"recommend_kubeconfig": empty.kubeconfig}, *arguments))[0].split(" for ")[0])
    assert titles[:3] == ["Rolling Update", "Blue-Green", "Canary"]


def test_the_answer_follows_the_cluster(empty: Shop) -> None:
    empty.create(workload())
    empty.create(SERVICE)
    assert advice(empty, instant_rollback=True).strategy == "blue_green"
    empty.cluster.patch(Ref("Service", empty.namespace, "web"), {"spec": {"selector": {"app": "else"}}}, MERGE_PATCH)
    assert advice(empty, instant_rollback=True).strategy == "rolling_update"
    empty.cluster.delete(Ref("Deployment", empty.namespace, "web"))
    gone = empty.step(strategy_info, name="web")
    assert gone["failed"] and gone["reason"] == "NotFound", gone
