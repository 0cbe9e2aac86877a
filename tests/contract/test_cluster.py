# SPDX-License-Identifier: GPL-3.0-or-later
"""What every implementation of the Protocol ``Cluster`` does alike."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import (
    JSON_PATCH,
    KINDS,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Kind,
    Query,
    Ref,
)
from ansible_collections.progressive.delivery.plugins.module_utils.watching import Stream

pytestmark = [pytest.mark.cluster, pytest.mark.oldest]
LABELS = {"app": "web"}


def deployment(namespace: str) -> dict[str, Any]:
    """Return a Deployment without pods."""
    containers = [{"name": "app", "image": "a:1", "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "b:1"}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace, "labels": LABELS, "annotations": {"team": "shop"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": {"containers": containers}},
        },
    }


@pytest.fixture
def made(cluster: tuple[Any, str]) -> tuple[Any, Ref]:
    """Return a cluster with a Deployment."""
    found, namespace = cluster
    ref = Ref("Deployment", namespace, "web")
    found.create(ref, deployment(namespace))
    return found, ref


def test_get_and_not_found(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    assert cluster.get(ref)["metadata"]["name"] == "web"
    with pytest.raises(NotFound, match="Deployment .*/nope does not exist"):
        cluster.get(Ref("Deployment", ref.namespace, "nope"))


def test_create_refuses_what_exists_and_a_dry_run_makes_nothing(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    with pytest.raises(Conflict):
        cluster.create(ref, deployment(ref.namespace))
    other = Ref("Deployment", ref.namespace, "other")
    manifest = deployment(ref.namespace)
    manifest["metadata"]["name"] = "other"
    cluster.create(other, manifest, dry_run=True)
    with pytest.raises(NotFound):
        cluster.get(other)


def test_list_selects_by_label_and_field(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    for labels, fields, count in (("app=web", "", 1), ("app=x", "", 0), ("", "metadata.name=web", 1), ("", "metadata.name=x", 0)):
        assert len(cluster.list(Query("Deployment", ref.namespace, labels, fields)).items) == count


def test_list_takes_what_a_field_is_not_and_all_namespaces(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    for fields, there in (("metadata.name!=web", False), ("metadata.name!=x,metadata.name!=y", True)):
        found = cluster.list(Query("Deployment", "", fields=fields)).items
        assert (ref.namespace in [entry["metadata"]["namespace"] for entry in found]) is there


def test_a_kind_whose_group_is_not_served_is_not_found(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    groups = cluster.api_groups()
    assert {"apps", "networking.k8s.io"} <= set(groups) and list(groups) == sorted(groups)
    for kind, group in (("IngressRoute", "traefik.io"), ("VirtualService", "networking.istio.io"), ("Ingress", "networking.k8s.io")):
        if group in groups:
            cluster.list(Query(kind, ref.namespace))
        else:
            with pytest.raises(NotFound):
                cluster.list(Query(kind, ref.namespace))


def test_an_object_without_namespace_is_listed_and_read(cluster: tuple[Any, str]) -> None:
    found, _namespace = cluster
    name = f"contract-{uuid.uuid4().hex[:6]}"
    ref = Ref("IngressClass", "", name)
    manifest = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name}, "spec": {"controller": "a.b/c"}}
    found.create(ref, manifest)
    try:
        assert found.get(ref)["spec"] == {"controller": "a.b/c"}
        assert name in [entry["metadata"]["name"] for entry in found.list(Query("IngressClass", "")).items]
    finally:
        found.delete(ref)


def test_a_list_of_a_kind_that_is_not_served_is_not_found(cluster: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
    found, namespace = cluster
    monkeypatch.setitem(KINDS, "Nothing", Kind("Nothing", "nothing.progressive.delivery/v1", "nothings"))
    with pytest.raises(NotFound, match=f"nothings in namespace {namespace}"):
        found.list(Query("Nothing", namespace))


def test_a_merge_patch_with_a_stale_version_conflicts(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    before = cluster.get(ref)
    stale = before["metadata"]["resourceVersion"]
    cluster.patch(ref, {"metadata": {"annotations": {"a": "1"}}}, MERGE_PATCH)
    with pytest.raises(Conflict):
        cluster.patch(ref, {"metadata": {"resourceVersion": stale, "annotations": {"a": "2"}}}, MERGE_PATCH)
    assert cluster.get(ref)["metadata"]["annotations"]["a"] == "1"
    assert cluster.get(ref)["metadata"]["annotations"]["team"] == "shop"


def test_a_dry_run_answers_and_writes_nothing(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    answer = cluster.patch(ref, {"metadata": {"annotations": {"a": "1"}}}, MERGE_PATCH, dry_run=True)
    assert answer["metadata"]["annotations"]["a"] == "1"
    assert "a" not in cluster.get(ref)["metadata"]["annotations"]


def test_a_strategic_patch_merges_containers_by_name(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    cluster.patch(ref, {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "a:2"}]}}}}, STRATEGIC_PATCH)
    containers = {entry["name"]: entry for entry in cluster.get(ref)["spec"]["template"]["spec"]["containers"]}
    assert containers["app"]["image"] == "a:2" and containers["side"]["image"] == "b:1"
    assert containers["app"]["env"][0]["value"] == "1"


def test_a_stateful_set_keeps_max_unavailable_only_where_it_fills_it_in(cluster: tuple[Any, str]) -> None:
    found, namespace = cluster
    ref = Ref("StatefulSet", namespace, "db")
    manifest = {**deployment(namespace), "kind": "StatefulSet", "metadata": {"name": "db", "namespace": namespace}}
    manifest["spec"] = {**manifest["spec"], "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}
    found.create(ref, manifest)
    filled_in = "maxUnavailable" in found.get(ref)["spec"]["updateStrategy"]["rollingUpdate"]
    body = {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}}
    for dry_run in (True, False):
        rolling = found.patch(ref, body, MERGE_PATCH, dry_run=dry_run)["spec"]["updateStrategy"]["rollingUpdate"]
        assert rolling == {"partition": 1, **({"maxUnavailable": 2} if filled_in else {})}


def test_a_json_patch_whose_test_fails_conflicts(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    where = "/metadata/annotations/team"
    with pytest.raises(Conflict):
        cluster.patch(ref, [{"op": "test", "path": where, "value": "x"}, {"op": "replace", "path": where, "value": "y"}], JSON_PATCH)
    cluster.patch(ref, [{"op": "test", "path": where, "value": "shop"}, {"op": "replace", "path": where, "value": "y"}], JSON_PATCH)
    assert cluster.get(ref)["metadata"]["annotations"]["team"] == "y"
    version = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}, {"op": "replace", "path": where, "value": "z"}]
    with pytest.raises(Conflict):
        cluster.patch(ref, version, JSON_PATCH)


def test_a_json_patch_tests_a_whole_template_and_replaces_it(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    template = cluster.get(ref)["spec"]["template"]
    wanted = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "app", "image": "a:2"}]}}
    patch = [{"op": "test", "path": "/spec/template", "value": template}, {"op": "replace", "path": "/spec/template", "value": wanted}]
    cluster.patch(ref, patch, JSON_PATCH)
    (container,) = cluster.get(ref)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "a:2" and "env" not in container
    with pytest.raises(Conflict):
        cluster.patch(ref, patch, JSON_PATCH)


def test_an_annotation_is_a_new_generation_of_a_deployment_and_of_no_other_workload(cluster: tuple[Any, str]) -> None:
    found, namespace = cluster
    for kind in ("Deployment", "DaemonSet"):
        ref = Ref(kind, namespace, "web")
        manifest = {**deployment(namespace), "kind": kind}
        if kind == "DaemonSet":
            del manifest["spec"]["replicas"]
            manifest["spec"]["template"]["spec"]["nodeSelector"] = {"no": "node"}
        assert found.create(ref, manifest)["metadata"]["generation"] == 1
        annotated = found.patch(ref, {"metadata": {"annotations": {"a": "1"}}}, MERGE_PATCH)
        assert annotated["metadata"]["generation"] == (2 if kind == "Deployment" else 1)
        labelled = found.patch(ref, {"metadata": {"labels": {"a": "1"}}}, MERGE_PATCH)
        assert labelled["metadata"]["generation"] == annotated["metadata"]["generation"]
        changed = found.patch(ref, {"spec": {"minReadySeconds": 1}}, MERGE_PATCH)
        assert changed["metadata"]["generation"] == annotated["metadata"]["generation"] + 1


def test_delete_with_a_stale_version_conflicts(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    with pytest.raises(Conflict):
        cluster.delete(ref, resource_version="1")
    cluster.delete(ref, dry_run=True)
    cluster.get(ref)
    cluster.delete(ref)
    with pytest.raises(NotFound):
        cluster.delete(Ref("Deployment", ref.namespace, "nope"))


def test_a_stream_gives_the_list_and_then_each_change(made: tuple[Any, Ref]) -> None:
    cluster, ref = made
    query = Query("Deployment", ref.namespace, fields="metadata.name=web")

    def annotate() -> None:
        cluster.patch(ref, {"metadata": {"annotations": {"seen": "1"}}}, MERGE_PATCH)

    kinds: list[str] = []
    with Stream(cluster, [query], timeout=15) as stream:
        for event in stream.events():
            if event is None:
                continue
            kinds.append(event.type)
            if event.type == "SYNCED":
                assert [item["metadata"]["name"] for item in event.items] == ["web"]
                threading.Thread(target=annotate).start()
            elif event.object["metadata"]["annotations"].get("seen"):
                break
    assert kinds[0] == "SYNCED" and kinds[-1] == "MODIFIED"
