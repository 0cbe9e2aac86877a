# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a Deployment and of a Service, and the label that tells their pods apart."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ref
from ansible_collections.progressive.delivery.plugins.module_utils.plan.copies import COPIED_FROM, copy_of, copy_of_service, telling_labels
from ansible_collections.progressive.delivery.plugins.modules import clone_workload
from support.fake import FakeCluster
from support.objects import deployment, service

DEPLOYMENT, SERVICE = Ref("Deployment", "shop", "web"), Ref("Service", "shop", "web")


def selecting(workload: dict[str, str], its: dict[str, str], more: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a Deployment and a Service with these selectors; its pods have ``more`` labels."""
    made, leads = deployment(), service()
    made["spec"]["selector"]["matchLabels"] = dict(workload)
    made["spec"]["template"]["metadata"]["labels"] = {**workload, **(more or {})}
    leads["spec"]["selector"] = dict(its)
    return made, leads


@pytest.mark.parametrize(
    ("mine", "its", "served", "found"),
    [
        ({"app": "web"}, {"app": "web"}, False, {"app": "web-canary"}),
        ({"app": "web", "track": "stable"}, {"app": "web"}, False, {"app": "web-canary"}),
        ({"app": "web", "track": "stable"}, {"app": "web"}, True, {"track": "stable-canary"}),
        ({"tier": "front", "app": "web"}, {"tier": "front"}, False, {"tier": "front-canary"}),
        ({"b": "1", "a": "1"}, {"a": "1", "b": "1"}, False, {"a": "1-canary"}),
    ],
)
def test_the_label_that_tells_a_copy_apart(mine: dict[str, str], its: dict[str, str], served: bool, found: dict[str, str]) -> None:
    made, leads = selecting(mine, its)
    labels = telling_labels(DEPLOYMENT, made, SERVICE, leads, "canary", served)
    assert labels == found
    pods = copy_of(made, "web-canary", labels, 1)["spec"]["template"]["metadata"]["labels"]
    assert all(pods[key] == value for key, value in its.items()) is served
    assert any(pods[key] != value for key, value in mine.items())


@pytest.mark.parametrize(
    ("mine", "its", "more", "served", "sentence"),
    [
        ({"app": "web"}, {"app": "web"}, {}, True, "with one label more, such as track: stable"),
        ({"app": "web"}, {"tier": "front"}, {"tier": "front"}, False, "none of these labels is in the Deployment's selector"),
        ({"app": "web"}, {"app": "other"}, {}, False, "does not lead to the pods of Deployment shop/web: it selects {'app': 'other'}"),
        ({"app": "web"}, {}, {}, False, "it selects nothing"),
        ({"app": "w" * 57}, {"app": "w" * 57}, {}, False, "cannot be the value of label app: 63 characters"),
    ],
)
def test_where_no_label_can_tell_it_is_refused(
    mine: dict[str, str], its: dict[str, str], more: dict[str, str], served: bool, sentence: str
) -> None:
    made, leads = selecting(mine, its, more)
    with pytest.raises(InvalidRequest) as refused:
        telling_labels(DEPLOYMENT, made, SERVICE, leads, "canary", served)
    assert sentence in refused.value.message


def test_a_service_is_copied_without_what_is_its_own_alone() -> None:
    source = service()
    source["metadata"]["labels"] = {"app": "web", "team": "shop", "argocd.argoproj.io/instance": "shop"}
    source["metadata"]["annotations"] = {
        "owner": "shop",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "meta.helm.sh/release-name": "web",
        "argocd.argoproj.io/tracking-id": "web",
        "external-dns.alpha.kubernetes.io/hostname": "shop.example.com",
        "progressive.delivery/phase": "released",
    }
    source["spec"] = {
        "type": "LoadBalancer",
        "clusterIP": "10.0.0.9",
        "clusterIPs": ["10.0.0.9"],
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000,
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "sessionAffinity": "ClientIP",
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080, "appProtocol": "http"}],
    }
    source["status"] = {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}
    assert copy_of_service(source, "web-canary", {"app": "web-canary"}) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "web-canary",
            "namespace": "shop",
            "labels": {"app": "web-canary", "team": "shop"},
            "annotations": {"owner": "shop", COPIED_FROM: "web"},
        },
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "ClientIP",
            "selector": {"app": "web-canary"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "http"}],
        },
    }


def test_a_headless_service_stays_one_and_one_without_a_selector_is_refused() -> None:
    source = service()
    source["spec"]["clusterIP"] = "None"
    assert copy_of_service(source, "x", {"version": "x"})["spec"]["clusterIP"] == "None"
    del source["spec"]["selector"]
    with pytest.raises(InvalidRequest, match="has no selector"):
        copy_of_service(source, "x", {"version": "x"})


def options(**given: Any) -> dict[str, Any]:
    """Return options of clone_workload for the deletion of web-canary."""
    return {"namespace": "shop", "name": "web-canary", "source": "web", "state": "absent", **given}


def copied() -> FakeCluster:
    """Return a cluster with a Deployment and its copy."""
    return FakeCluster(deployment(), copy_of(deployment(), "web-canary", {"app": "web-canary"}, 1))


def test_what_is_gone_already_is_no_change() -> None:
    cluster = FakeCluster(deployment())
    gone = clone_workload.execute(options(), cluster, False)
    assert not gone.changed and gone.after == {"exists": False} and cluster.writes == []


def test_a_status_written_meanwhile_does_not_keep_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, refused = copied(), []
    plain = cluster.delete

    def delete(*args: Any, **given: Any) -> None:
        if len(refused) < 3:
            refused.append(args)
            raise Conflict("the object has been modified")
        plain(*args, **given)

    monkeypatch.setattr(cluster, "delete", delete)
    assert clone_workload.execute(options(), cluster, False).changed
    assert cluster.writes == [("delete", Ref("Deployment", "shop", "web-canary"))]


def test_what_never_stops_changing_is_said() -> None:
    cluster = copied()
    cluster.delete = lambda *_args, **_given: (_ for _ in ()).throw(Conflict("the object has been modified"))
    with pytest.raises(Conflict, match="see who else writes to it"):
        clone_workload.execute(options(), cluster, False)
