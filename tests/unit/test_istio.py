# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role istio decides: labels, tags, old revisions, what goes back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.filter.istio_outdated import FilterModule as Outdated
from ansible_collections.progressive.delivery.plugins.filter.istio_plan import FilterModule as Plan
from ansible_collections.progressive.delivery.plugins.module_utils.plan.istio import plan, restarts
from ansible_collections.progressive.delivery.plugins.module_utils.plan.sidecars import sidecars

Object = dict[str, Any]
WANTED: Object = {
    "state": "present",
    "version": "1.30.2",
    "revision": "",
    "revision_tags": [],
    "namespace": "istio-system",
    "namespaces": ["shop"],
    "profile": "",
    "restart": False,
    "remove_old": False,
    "gateway": True,
    "gateway_name": "istio-ingressgateway",
    "gateway_namespace": "istio-system",
    "gateway_api": True,
    "take_ownership": False,
    "force": False,
}


def space(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": {key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()}}}


def plane(revision: str = "default", release: str | None = None, namespace: str = "istio-system", version: str = "1.30.0") -> Object:
    name = "istiod" if revision == "default" else f"istiod-{revision}"
    notes = {} if release == "" else {"meta.helm.sh/release-name": release or name}
    labels = {"istio.io/rev": revision, "app.kubernetes.io/version": version}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": notes}}


def crd(group: str, release: str = "") -> Object:
    return {"metadata": {"annotations": {"meta.helm.sh/release-name": release} if release else None}, "spec": {"group": group}}


def tag(name: str, revision: str) -> Object:
    return {"metadata": {"name": f"istio-revision-tag-{name}", "labels": {"istio.io/tag": name, "istio.io/rev": revision}}}


BASE, ISTIOD, GATEWAY = ({"name": name, "namespace": "istio-system"} for name in ("istio-base", "istiod", "istio-ingressgateway"))
OURS = json.dumps({"releases": [BASE, ISTIOD, GATEWAY]})


def release(name: str, namespace: str = "istio-system") -> Object:
    """Return Helm's Secret of a release."""
    return {
        "kind": "Secret",
        "type": "helm.sh/release.v1",
        "metadata": {"name": f"sh.helm.release.v1.{name}.v1", "namespace": namespace, "labels": {"name": name, "owner": "helm"}},
    }


def inside(kind: str, name: str, **meta: Any) -> Object:
    return {"kind": kind, "metadata": {"name": name, "namespace": "istio-system", **meta}}


WEB = ("ReplicaSet", "web-5c9f")


def pod(name: str = "web-5c9f-x", namespace: str = "shop", revision: str = "", owner: tuple[str, str] | None = WEB, **given: Any) -> Object:
    meta: Object = {"name": name, "namespace": namespace, "labels": {"pod-template-hash": "5c9f"}}
    if owner:
        meta["ownerReferences"] = [{"controller": True, "kind": owner[0], "name": owner[1]}]
    proxies = [{"name": "istio-proxy", "image": "localhost:32000/istio/proxyv2:1.30.0"}] if revision else []
    if revision:
        meta["annotations"] = {"sidecar.istio.io/status": json.dumps({"revision": revision})}
    meta.update(given.pop("metadata", {}))
    spec = {"containers": [{"name": "web"}], "initContainers": proxies, **given.pop("spec", {})}
    return {"metadata": meta, "spec": spec, "status": {"phase": given.pop("phase", "Running")}}


def gateway(revision: str, name: str = "istio-ingressgateway") -> Object:
    proxy = [{"name": "istio-proxy", "image": "hub/proxyv2:1.30.0"}]
    spec = {"containers": proxy, "initContainers": None}
    return pod(f"{name}-5c9f-x", "istio-system", revision, ("ReplicaSet", f"{name}-5c9f"), spec=spec)


def seen(**given: Any) -> Object:
    nothing: Object = {key: [] for key in ("planes", "types", "tags", "validators", "pods", "releases", "inside")}
    return {**nothing, "namespaces": [space("istio-system"), space("shop")], "kept": "", **given}


def decide(wanted: Object | None = None, **given: Any) -> Object:
    return plan(seen(**given), {**WANTED, **(wanted or {})})


def test_of_nothing_all_is_made() -> None:
    found = decide(namespaces=[])
    assert found["make"] == ["istio-system", "shop"] and found["name"] == "istiod" and found["refusal"] == ""
    assert found["relabel"] == [{"name": "shop", "labels": {"istio-injection": "enabled"}}]
    kept = {"labels": {"shop": {}}, "made": ["istio-system", "shop"], "gateway_api": True, "releases": [BASE, ISTIOD, GATEWAY]}
    assert found["kept"] == kept


def test_a_second_look_finds_nothing_to_do() -> None:
    first = decide(namespaces=[])
    there = [space("istio-system"), space("shop", istio_injection="enabled")]
    types = [crd("networking.istio.io", "istio-base"), crd("gateway.networking.k8s.io")]
    again = decide(namespaces=there, planes=[plane()], types=types, kept=json.dumps(first["kept"]), releases=[release("istiod")])
    assert (again["make"], again["relabel"], again["move"], again["old"], again["refusal"]) == ([], [], [], [], "")
    assert again["kept"] == first["kept"]


def test_the_label_that_wins_goes_and_is_told_and_comes_back() -> None:
    there = [space("istio-system"), space("shop", istio_injection="enabled", team="a")]
    found = decide({"revision": "1-30-2", "revision_tags": ["stable"]}, namespaces=there, planes=[plane()])
    assert found["relabel"] == [{"name": "shop", "labels": {"istio.io/rev": "stable", "istio-injection": None}}]
    assert found["said"] == ["namespace shop: the label istio-injection=enabled goes, since it wins over istio.io/rev"]
    assert found["move"] == ["stable"] and found["old"] == [{"name": "istiod", "namespace": "istio-system", "revision": "default"}]
    assert found["kept"]["labels"] == {"shop": {"istio-injection": "enabled"}}
    moved = [space("istio-system"), {"metadata": {"name": "shop", "labels": {"istio.io/rev": "stable", "team": "a"}}}]
    back = decide({"state": "absent"}, namespaces=moved, kept=json.dumps(found["kept"]))
    assert back["restore"] == [{"name": "shop", "labels": {"istio-injection": "enabled", "istio.io/rev": None}}]


def test_what_was_kept_first_stays_through_later_upgrades() -> None:
    kept: Object = {"labels": {"shop": {}}, "made": ["shop"], "gateway_api": True, "releases": [BASE, GATEWAY]}
    there = [space("istio-system"), space("shop", istio_injection="enabled")]
    found = decide({"revision": "1-31"}, namespaces=there, kept=json.dumps(kept), types=[crd("gateway.networking.k8s.io")])
    assert found["kept"] == {**kept, "releases": [BASE, GATEWAY, {"name": "istiod-1-31", "namespace": "istio-system"}]}


def test_what_was_installed_before_is_not_the_roles_own_and_stays() -> None:
    there = [release("istio-base"), release("istiod"), release("istio-ingressgateway", "edge")]
    assert decide(planes=[plane()], releases=there)["kept"]["releases"] == [GATEWAY]
    gone: Object = {"state": "absent", "gateway_name": "other"}
    found = decide(gone, kept=json.dumps({"releases": [BASE, ISTIOD, GATEWAY]}), planes=[plane()], releases=there)
    assert (found["releases"], found["base"], found["refusal"]) == ([GATEWAY, ISTIOD, BASE], True, "")
    assert (decide(gone)["releases"], decide(gone)["base"], decide(gone)["refusal"]) == ([], False, "")
    forced = decide({**gone, "force": True}, planes=[plane()], releases=there)
    assert (forced["releases"], forced["base"], forced["refusal"]) == ([ISTIOD, BASE], True, "")


LOCK = {"control-plane.alpha.kubernetes.io/leader": '{"holderIdentity":"istiod-1-31-5587b596f8-z87wc","leaseDurationSeconds":30}'}


def test_what_istiod_leaves_behind_is_known_by_what_it_is() -> None:
    left = [
        inside("ConfigMap", "istio-ca-root-cert", labels={"istio.io/config": "true"}),
        inside("ConfigMap", "istio-ip-autoallocate", annotations=LOCK),
        {**inside("Lease", "istio-gateway-deployment-1-31"), "spec": {"holderIdentity": "istiod-1-31-5587b596f8-z87wc"}},
        {**inside("Lease", "istio-gateway-deployment-default"), "spec": {"holderIdentity": ""}},
        {"kind": "GatewayClass", "metadata": {"name": "istio-remote"}, "spec": {"controllerName": "istio.io/unmanaged-gateway"}},
    ]
    others = [
        inside("ConfigMap", "istio-before"),
        inside("ConfigMap", "istio", annotations={}),
        inside("ConfigMap", "istio-tools"),
        {**inside("Lease", "istio-cni-repair"), "spec": {"holderIdentity": "somebody"}},
        {**inside("Lease", "flagger-leader"), "spec": {"holderIdentity": "istiod-x"}},
        {"kind": "GatewayClass", "metadata": {"name": "traefik"}, "spec": {"controllerName": "traefik.io/gateway-controller"}},
    ]
    assert decide({"state": "absent"}, kept=OURS, inside=[*others, *left])["leavings"] == left


def test_what_keeps_a_namespace() -> None:
    by_helm = {"annotations": {"meta.helm.sh/release-name": "istiod", "meta.helm.sh/release-namespace": "istio-system"}}
    of_role = [
        release("istiod"),
        inside("ConfigMap", "istio", **by_helm),
        inside("ConfigMap", "istio-before"),
        inside("ConfigMap", "istio-ca-root-cert", labels={"istio.io/config": "true"}),
        inside("ConfigMap", "istio-gateway-status-leader", annotations=LOCK),
        inside("ConfigMap", "istio-ip-autoallocate", annotations=LOCK),
        inside("ConfigMap", "kube-root-ca.crt"),
        inside("Secret", "istio-ca-secret"),
        inside("Pod", "istiod-x", ownerReferences=[{"kind": "ReplicaSet"}]),
        inside("Service", "going", deletionTimestamp="now"),
        inside("ServiceAccount", "default"),
        {**inside("Secret", "default-token"), "type": "kubernetes.io/service-account-token"},
    ]
    others = [
        inside("Secret", "cacerts"),
        release("pilot"),
        inside("ConfigMap", "mine", annotations={"meta.helm.sh/release-name": "istiod", "meta.helm.sh/release-namespace": "else"}),
    ]
    found = decide({"state": "absent"}, kept=OURS, inside=[*of_role, *others])
    assert found["foreign"] == {"istio-system": ["ConfigMap mine", "Secret cacerts", "Secret sh.helm.release.v1.pilot.v1"]}
    assert decide({"state": "absent"}, kept=OURS, inside=of_role)["foreign"] == {}


def test_tags_move_where_they_name_another_revision() -> None:
    wanted = {"revision": "b", "revision_tags": ["stable", "next"]}
    assert decide(wanted, tags=[tag("stable", "a"), tag("next", "b")])["move"] == ["stable"]


REFUSED: dict[str, tuple[Object, Object, str]] = {
    "dots": ({"revision": "1.30"}, {}, 'istio_revision has "1.30", which cannot be the name'),
    "default": ({"revision": "default"}, {}, 'istio_revision has "default"'),
    "a tag that is the revision": ({"revision": "a", "revision_tags": ["a"]}, {}, "give the tag a name of its own"),
    "no name of a namespace": ({"namespaces": ["Shop"]}, {}, 'istio_namespaces has "Shop"'),
    "kube-system": ({"namespaces": ["kube-system"]}, {}, "which Istio never injects"),
    "ambient": ({"profile": "ambient"}, {}, "needs the charts cni and ztunnel"),
    "elsewhere": ({}, {"planes": [plane(namespace="mesh")]}, "set istio_namespace: mesh"),
    "without Helm": ({}, {"planes": [plane(release="")]}, "istio-system/istiod was installed without Helm; take it away first"),
    "of another release": ({}, {"planes": [plane(release="pilot")]}, "by Helm release pilot"),
    "back": ({"version": "1.29.4"}, {"planes": [plane()]}, "does not go back to 1.29.4 in place"),
    "over a minor version": ({"version": "1.32.0"}, {"planes": [plane()]}, "cannot go to 1.32.0 in place, over a minor version"),
    "types of nobody": ({}, {"types": [crd("networking.istio.io")]}, "do not belong to the Helm release istio-base"),
    "an old one without Helm": (
        {"revision": "b", "remove_old": True},
        {"planes": [plane(release="")]},
        "istio_remove_old does not take it away",
    ),
    "a tag that stays": (
        {"revision": "b", "remove_old": True},
        {"planes": [plane("a")], "tags": [tag("stable", "a")]},
        "tag stable names revision a",
    ),
    "pods elsewhere": (
        {"revision": "b", "remove_old": True, "restart": True},
        {"planes": [plane("a")], "pods": [pod(namespace="other", revision="a")]},
        "Deployment other/web has a sidecar of revision a, which istio_remove_old takes away; put its namespace in istio_namespaces",
    ),
    "pods that stay": (
        {"revision": "b", "remove_old": True},
        {"planes": [plane("a")], "pods": [pod(revision="a")]},
        "set istio_restart: true with it",
    ),
    "a pod of nobody": (
        {"revision": "b", "remove_old": True, "restart": True},
        {"planes": [plane("a")], "pods": [pod("lone", revision="a", owner=None)]},
        "Pod shop/lone has a sidecar of revision a, and nothing rolls it out",
    ),
    "a namespace elsewhere": (
        {"revision": "b", "remove_old": True, "restart": True},
        {"planes": [plane()], "namespaces": [space("istio-system"), space("shop"), space("other", istio_injection="enabled")]},
        "namespace other is labelled for revision default, which istio_remove_old takes away; put it in istio_namespaces",
    ),
    "a namespace elsewhere, by a revision": (
        {"revision": "b", "remove_old": True, "restart": True},
        {"planes": [plane("a")], "namespaces": [space("istio-system"), space("shop"), space("other", **{"istio.io/rev": "a"})]},
        "namespace other is labelled for revision a",
    ),
    "absent of somebody else's": (
        {"state": "absent"},
        {"planes": [plane()]},
        "istio-system/istiod was not installed by this role, or its record, ConfigMap istio-system/istio-before, is gone",
    ),
    "absent beside somebody else's": (
        {"state": "absent"},
        {"planes": [plane(), plane("a")], "kept": OURS},
        "istio-system/istiod-a was not",
    ),
    "absent under somebody else's gateway": (
        {"state": "absent", "restart": True},
        {"planes": [plane()], "pods": [gateway("default")], "kept": json.dumps({"releases": [BASE, ISTIOD]})},
        "Deployment istio-system/istio-ingressgateway would be left",
    ),
    "absent under pods": (
        {"state": "absent"},
        {"kept": OURS, "planes": [plane()], "pods": [pod(revision="default"), pod("b-0", revision="default", owner=("StatefulSet", "b"))]},
        "Deployment shop/web and 1 more would be left with a sidecar",
    ),
    "absent under another gateway": (
        {"state": "absent", "restart": True},
        {"kept": OURS, "planes": [plane()], "pods": [gateway("default", "egress")]},
        "Deployment istio-system/egress would be left",
    ),
    "absent without Helm": ({"state": "absent"}, {"planes": [plane(release="")]}, "do it as it was installed"),
    "absent elsewhere": ({"state": "absent"}, {"planes": [plane(namespace="mesh")]}, "set istio_namespace: mesh"),
}


@pytest.mark.parametrize(("wanted", "there", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(wanted: Object, there: Object, sentence: str) -> None:
    found = decide(wanted, **there)["refusal"]
    assert sentence in found and "\n" not in found


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ({"take_ownership": True}, {"planes": [plane(release="")], "types": [crd("networking.istio.io")]}),
        ({"version": "1.31.0"}, {"planes": [plane()]}),
        ({"version": "edge"}, {"planes": [plane()]}),
        ({"revision": "b", "remove_old": True, "restart": True}, {"planes": [plane("a")], "pods": [pod(revision="a"), gateway("a")]}),
        (
            {"revision": "b", "remove_old": True},
            {
                "planes": [plane("a")],
                "tags": [tag("stable", "b")],
                "namespaces": [
                    space("istio-system"),
                    space("other", **{"istio.io/rev": "stable"}),
                    space("off", istio_injection="no", **{"istio.io/rev": "a"}),
                ],
            },
        ),
        ({"state": "absent", "restart": True}, {"kept": OURS, "planes": [plane()], "pods": [pod(revision="default"), gateway("default")]}),
        ({"state": "absent", "force": True}, {"planes": [plane()], "pods": [pod("lone", revision="default", owner=None)]}),
        ({"state": "absent"}, {"pods": [pod()]}),
    ],
)
def test_what_is_not_refused(wanted: Object, there: Object) -> None:
    assert decide(wanted, **there)["refusal"] == ""


def test_which_workloads_are_rolled_out() -> None:
    pods = [
        pod(revision="a"),
        pod("web-5c9f-y"),
        pod("db-0", owner=("StatefulSet", "db"), revision="b"),
        pod("agent-x", owner=("DaemonSet", "agent")),
        pod("lone", owner=None),
        pod("job-x", owner=("Job", "job")),
        gateway("a"),
    ]
    rows = [{"namespace": "shop", "kind": kind, "name": name} for kind, name in (("DaemonSet", "agent"), ("Deployment", "web"))]
    assert restarts(pods, "b") == rows
    assert {row["name"] for row in restarts(pods, "b", "1.31.0")} == {"agent", "db", "web"}
    assert {row["name"] for row in restarts(pods, "")} == {"db", "web"}
    # A variant is no other version, and a pod that has chosen its proxy has it for good.
    assert restarts([pod(revision="a")], "a", "1.30.0-distroless") == []
    notes = {"annotations": {"sidecar.istio.io/status": '{"revision": "a"}', "sidecar.istio.io/proxyImage": "mine/proxy:7"}}
    assert restarts([pod(revision="a", metadata=notes)], "a", "1.31.0") == []
    assert Outdated().filters()["istio_outdated"] is restarts and Plan().filters()["istio_plan"] is plan


@pytest.mark.parametrize(
    "given",
    [
        {"phase": "Succeeded"},
        {"metadata": {"deletionTimestamp": "now"}},
        {"metadata": {"annotations": {"sidecar.istio.io/inject": "false"}}},
        {"spec": {"hostNetwork": True}},
    ],
)
def test_pods_that_no_sidecar_is_for(given: Object) -> None:
    assert sidecars([pod(**given)]) == []


@pytest.mark.parametrize(("note", "revision"), [('{"revision": "a"}', "a"), ("{}", "default"), ("no JSON", "default"), ("[]", "default")])
def test_the_revision_of_a_sidecar(note: str, revision: str) -> None:
    row = sidecars([pod(revision="x", metadata={"annotations": {"sidecar.istio.io/status": note}})])[0]
    assert (row["revision"], row["tag"], row["kind"], row["workload"]) == (revision, "1.30.0", "Deployment", "web")
