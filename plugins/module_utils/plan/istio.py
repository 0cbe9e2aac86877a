# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done so that Istio is on a cluster as it is wanted, or why not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from .sidecars import outdated, sidecars

INJECTION = "istio-injection"
REVISION = "istio.io/rev"
RELEASE = "meta.helm.sh/release-name"
RELEASE_SPACE = "meta.helm.sh/release-namespace"
GOES = "which istio_remove_old takes away"
VERSION = "app.kubernetes.io/version"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
BASE = "istio-base"
# What is in a namespace without anybody's doing; the role's own record; and what istiod makes and leaves behind when its release goes.
KUBERNETES = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
RECORD = ("ConfigMap", "istio-before")
ISTIOD = {("ConfigMap", "istio-ca-root-cert"), ("Secret", "istio-ca-secret")}
LEADER = "control-plane.alpha.kubernetes.io/leader"
Seen = Mapping[str, Any]
Row = Mapping[str, str]


def plan(seen: Seen, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the role istio does.

    ``seen`` has lists of objects: planes (Deployments of istiod), namespaces, types (CRDs, of Istio and of Gateway API), tags (webhooks),
    validators (webhooks), pods, releases (Helm's Secrets), and inside, what is in the namespaces that were made, or may be istiod's; and
    kept, what an earlier run has kept of before, as JSON. ``wanted`` has the role's variables, without their prefix, and version, that of
    the charts.

    The result has refusal, a sentence, empty where there is nothing to refuse; name and revision of the control plane; validator, the
    revision that checks objects until now; make, namespaces that are missing; move, tags to move; relabel and restore, namespaces with
    the labels that they get, None for one that goes; old and releases, the Helm releases of other revisions, and those that go with
    Istio; base, whether its API types are among them; kept, what is to be kept now; said, sentences to be told; leavings, the objects
    inside that istiod made; foreign, by namespace what else is in it; sidecars, workloads that have one.
    """
    labels = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in seen["namespaces"]}
    kept = {"labels": {}, "made": [], "gateway_api": False, "releases": [], **(json.loads(seen["kept"]) if seen["kept"] else {})}
    revision = wanted["revision"] or "default"
    here = [plane for plane in seen["planes"] if plane["metadata"]["namespace"] == wanted["namespace"]]
    old = [plane for plane in here if _revision(plane) != revision]
    spaces = list(dict.fromkeys(wanted["namespaces"]))
    relabel = [{"name": name, "labels": new} for name in spaces if (new := _wish(labels.get(name, {}), wanted))]
    changed = {row["name"] for row in relabel}
    rows = sidecars(seen["pods"])
    homes = [wanted["namespace"], *([wanted["gateway_namespace"]] if wanted["gateway"] and wanted["gateway_namespace"] else [])]
    make = [name for name in dict.fromkeys([*homes, *spaces]) if name not in labels]
    tags = {(item["metadata"].get("labels") or {}).get("istio.io/tag", ""): item["metadata"]["labels"] for item in seen["tags"]}
    there = [{"name": _label_of(item, "name"), "namespace": item["metadata"]["namespace"]} for item in seen["releases"]]
    ours = _releases(wanted)
    planes = [_release(_note(plane, RELEASE), wanted) for plane in here]
    releases = _going(kept["releases"], [*planes, *(row for row in ours if row in there)] if wanted["force"] else [])
    own = {(row["namespace"], row["name"]) for row in (releases if wanted["state"] == "absent" else ours)}
    result: dict[str, Any] = {
        "refusal": "",
        "name": f"istiod-{wanted['revision']}" if wanted["revision"] else "istiod",
        "revision": revision,
        "validator": next((_label_of(item, REVISION) for item in seen["validators"]), ""),
        "make": make,
        "move": [tag for tag in wanted["revision_tags"] if tags.get(tag, {}).get(REVISION) != revision],
        "relabel": relabel,
        "restore": _restore(labels, kept["labels"]),
        "old": [{"name": _note(plane, RELEASE), "namespace": wanted["namespace"], "revision": _revision(plane)} for plane in old],
        "releases": releases,
        "base": _release(BASE, wanted) in releases,
        "tags": sorted(filter(None, tags)),
        "made": [name for name in homes if name in kept["made"]],
        "kept": {
            "labels": {
                **{name: _ours(labels.get(name, {})) for name in spaces if name in changed},
                **kept["labels"],
            },
            "made": sorted({*kept["made"], *make}),
            "gateway_api": kept["gateway_api"] or bool(wanted["gateway_api"] and not _type(seen, "gateway.networking.k8s.io")),
            # What was there before, by the same name, is somebody else's.
            "releases": [*kept["releases"], *(row for row in ours if row not in kept["releases"] and row not in there)],
        },
        "gateway_api": kept["gateway_api"],
        "said": [
            f"namespace {row['name']}: the label {INJECTION}={labels.get(row['name'], {})[INJECTION]} goes, since it wins over {REVISION}"
            for row in relabel
            if row["labels"].get(INJECTION, "") is None
        ],
        "sidecars": sorted({f"{row['namespace']}/{row['workload']}" for row in rows if row["revision"] and not _own(row, own)}),
        "leavings": [item for item in seen["inside"] if _of_istiod(item)],
        "foreign": _foreign(seen["inside"], releases),
    }
    rows = [row for row in rows if not _own(row, own)]
    refuse = _refuse_absent if wanted["state"] == "absent" else _refuse_present
    return {**result, "refusal": next(filter(None, refuse(seen, wanted, result, rows, tags)), "")}


def _wish(has: Mapping[str, str], wanted: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the labels that a namespace is to get, None for one that goes, empty where it is right."""
    name = next(iter(wanted["revision_tags"]), "") or wanted["revision"]
    right = {REVISION: name, INJECTION: None} if name else {INJECTION: "enabled", REVISION: None}
    return {key: value for key, value in right.items() if has.get(key) != value}


def _ours(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a namespace that the role changes."""
    return {key: value for key, value in labels.items() if key in (INJECTION, REVISION)}


def _selects(labels: Mapping[str, str]) -> str:
    """Return the revision, or its tag, that a namespace's labels select; empty for none."""
    if INJECTION in labels:
        return "default" if labels[INJECTION] == "enabled" else ""
    return labels.get(REVISION, "")


def _restore(labels: Mapping[str, Mapping[str, str]], before: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return the labels that namespaces get back, of those that are still there."""
    rows = []
    for name, had in before.items():
        has = labels.get(name)
        new = {key: had.get(key) for key in (INJECTION, REVISION) if has is not None and has.get(key) != had.get(key)}
        if new:
            rows.append({"name": name, "labels": new})
    return rows


def _refuse_present(
    seen: Seen, wanted: Mapping[str, Any], result: Mapping[str, Any], rows: list[dict[str, Any]], tags: Mapping[str, Any]
) -> Iterable[str]:
    """Yield what is wrong with what is wanted."""
    revision, space = wanted["revision"], wanted["namespace"]
    for what, name in (("revision", revision), *(("revision_tags", tag) for tag in wanted["revision_tags"])):
        if (name or what != "revision") and (not LABEL.fullmatch(name) or name == "default"):
            yield f'istio_{what} has "{name}", which cannot be the name of a revision; use small letters, digits and -, like 1-30-2'
    if revision in wanted["revision_tags"]:
        yield f'istio_revision_tags has "{revision}", which is the revision itself; give the tag a name of its own, like stable'
    for name in wanted["namespaces"]:
        if not LABEL.fullmatch(name):
            yield f'istio_namespaces has "{name}", which cannot be the name of a namespace'
        if name in ("kube-system", "kube-public", "kube-node-lease", space):
            yield f"istio_namespaces has {name}, which Istio never injects; take it out"
    if wanted["profile"] == "ambient":
        yield "istio_profile is ambient, which needs the charts cni and ztunnel too, and this role has none of them; use sidecars"
    for plane in seen["planes"]:
        where, name = plane["metadata"]["namespace"], plane["metadata"]["name"]
        if where != space:
            yield f"Istio's control plane {name} is in namespace {where}; set istio_namespace: {where}, or take that one away first"
        foreign = f"by Helm release {_note(plane, RELEASE)}" if _note(plane, RELEASE) else "without Helm"
        if name == result["name"] and _note(plane, RELEASE) != name and not wanted["take_ownership"]:
            yield f"{where}/{name} was installed {foreign}; take it away first, or let Helm take it over with istio_take_ownership: true"
        if name != result["name"] and not _note(plane, RELEASE) and wanted["remove_old"]:
            yield f"{where}/{name} was installed without Helm, and istio_remove_old does not take it away; do it as it was installed"
        if name == result["name"]:
            yield _step(_label_of(plane, VERSION), wanted["version"])
    crd = _type(seen, "networking.istio.io")
    if crd and _note(crd, RELEASE) != BASE and not wanted["take_ownership"]:
        yield (
            "Istio's API types are there and do not belong to the Helm release istio-base; let Helm take them over with "
            "istio_take_ownership: true, or delete them"
        )
    if not wanted["remove_old"]:
        return
    gone = {row["revision"] for row in result["old"]}
    for tag, has in tags.items():
        if has.get(REVISION) in gone and tag not in wanted["revision_tags"]:
            yield f"tag {tag} names revision {has[REVISION]}, {GOES}; put it in istio_revision_tags, or delete it"
    for space in seen["namespaces"]:
        name, selected = space["metadata"]["name"], _selects(space["metadata"].get("labels") or {})
        selected = tags.get(selected, {}).get(REVISION, selected)
        if selected in gone and name not in wanted["namespaces"]:
            yield f"namespace {name} is labelled for revision {selected}, {GOES}; put it in istio_namespaces, or take the label off"
    for row in rows:
        name = f"{row['kind']} {row['namespace']}/{row['workload']}"
        if row["revision"] not in gone:
            continue
        if row["namespace"] not in wanted["namespaces"]:
            yield f"{name} has a sidecar of revision {row['revision']}, {GOES}; put its namespace in istio_namespaces"
        if not wanted["restart"]:
            yield f"{name} has a sidecar of revision {row['revision']}, {GOES}; set istio_restart: true with it"
        if row["kind"] not in ("Deployment", "StatefulSet", "DaemonSet"):
            yield f"{name} has a sidecar of revision {row['revision']}, and nothing rolls it out; end it before istio_remove_old"


def _refuse_absent(
    seen: Seen, wanted: Mapping[str, Any], result: Mapping[str, Any], rows: list[dict[str, Any]], tags: Mapping[str, Any]
) -> Iterable[str]:
    """Yield why Istio cannot be taken away."""
    space = wanted["namespace"]
    for plane in seen["planes"]:
        where, name = plane["metadata"]["namespace"], plane["metadata"]["name"]
        if where != space:
            yield f"Istio's control plane {name} is in namespace {where}; set istio_namespace: {where}"
        if not _note(plane, RELEASE):
            yield f"{where}/{name} was installed without Helm, and this role does not take it away; do it as it was installed"
        elif not wanted["force"] and {"name": _note(plane, RELEASE), "namespace": where} not in result["releases"]:
            yield (
                f"{where}/{name} was not installed by this role, or its record, ConfigMap {where}/istio-before, is gone; take it away as "
                "it was installed, or set istio_force: true"
            )
    if wanted["force"]:
        return
    stay = [
        row
        for row in rows
        if row["revision"] and (not wanted["restart"] or row["gateway"] or row["kind"] not in ("Deployment", "StatefulSet", "DaemonSet"))
    ]
    if stay:
        first = stay[0]
        more = len({(row["namespace"], row["workload"]) for row in stay}) - 1
        others = f" and {more} more" if more else ""
        yield (
            f"{first['kind']} {first['namespace']}/{first['workload']}{others} would be left with a sidecar of Istio's and without its "
            "control plane; set istio_restart: true to roll out workloads without it, end what nothing rolls out, or set istio_force: true"
        )


def _step(now: str, then: str) -> str:
    """Return why a control plane cannot go from one version to another in place, empty where it can."""
    numbers = [re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version or "") for version in (now, then)]
    if not all(numbers):
        return ""
    old, new = (tuple(int(part or 0) for part in match.groups()) for match in numbers if match)
    if new < old:
        return f"Istio is at {now} and does not go back to {then} in place; install {then} beside it with istio_revision"
    if new[0] == old[0] and new[1] > old[1] + 1:
        way = "go one at a time, or install it beside with istio_revision"
        return f"Istio is at {now} and cannot go to {then} in place, over a minor version; {way}"
    return ""


def _own(row: Mapping[str, Any], own: Set[tuple[str, str]]) -> bool:
    """Return whether a pod is of a gateway among the role's own releases, (namespace, name) each."""
    return bool(row["gateway"]) and (row["namespace"], row["workload"]) in own


def _release(name: str, wanted: Mapping[str, Any]) -> Row:
    """Return a Helm release in the control plane's namespace."""
    return {"name": name, "namespace": wanted["namespace"]}


def _releases(wanted: Mapping[str, Any]) -> list[Row]:
    """Return the Helm releases that the role installs."""
    gateway = {"name": wanted["gateway_name"], "namespace": wanted["gateway_namespace"] or wanted["namespace"]}
    name = f"istiod-{wanted['revision']}" if wanted["revision"] else "istiod"
    return [_release(BASE, wanted), _release(name, wanted), *([gateway] if wanted["gateway"] else [])]


def _going(recorded: Sequence[Row], forced: Sequence[Row]) -> list[Row]:
    """Return the releases that go with Istio: those that are recorded, and those that are forced.

    Gateways go first, then control planes, then what they share.
    """
    every = [*recorded, *forced]
    rows = [row for index, row in enumerate(every) if row["name"] and row not in every[:index]]
    return sorted(rows, key=lambda row: (row["name"] == BASE, row["name"].startswith("istiod"), row["namespace"], row["name"]))


def _foreign(inside: Iterable[Mapping[str, Any]], releases: Sequence[Row]) -> dict[str, list[str]]:
    """Return what else is in namespaces, by namespace, like "Secret cacerts": neither of the releases, nor of istiod, nor of Kubernetes."""
    found: dict[str, set[str]] = {}
    for item in inside:
        meta, kind, name = item["metadata"], item["kind"], item["metadata"]["name"]
        space = meta.get("namespace", "")
        of_release = {"name": _note(item, RELEASE), "namespace": _note(item, RELEASE_SPACE)} in releases
        of_helm = item.get("type") == "helm.sh/release.v1" and {"name": _label_of(item, "name"), "namespace": space} in releases
        of_kubernetes = (kind, name) in KUBERNETES or item.get("type") == "kubernetes.io/service-account-token"
        ours = of_release or of_helm or _of_istiod(item) or (kind, name) == RECORD
        if not (ours or of_kubernetes or meta.get("ownerReferences") or meta.get("deletionTimestamp")):
            found.setdefault(space, set()).add(f"{kind} {name}")
    return {space: sorted(names) for space, names in sorted(found.items())}


def _of_istiod(item: Mapping[str, Any]) -> bool:
    """Return whether istiod made an object: the locks of its elections, which have many names, its certificates, its GatewayClasses."""
    kind, name, spec = item["kind"], item["metadata"]["name"], item.get("spec") or {}
    if kind == "ConfigMap":
        lock = name.startswith("istio-") and bool(_note(item, LEADER))
        return lock or _label_of(item, "istio.io/config") == "true" or (kind, name) in ISTIOD
    if kind == "Lease":
        # Who has given it up leaves no holder.
        return name.startswith("istio-") and (spec.get("holderIdentity") or "istiod").startswith("istiod")
    if kind == "GatewayClass":
        return spec.get("controllerName", "").startswith("istio.io/")
    return (kind, name) in ISTIOD


def _type(seen: Seen, group: str) -> Mapping[str, Any] | None:
    """Return the CRD of a group, None where there is none."""
    return next((item for item in seen["types"] if item["spec"]["group"] == group), None)


def _note(item: Mapping[str, Any], key: str) -> str:
    """Return an annotation of an object, empty where there is none."""
    return (item["metadata"].get("annotations") or {}).get(key, "")


def _label_of(item: Mapping[str, Any], key: str) -> str:
    """Return a label of an object, empty where there is none."""
    return (item["metadata"].get("labels") or {}).get(key, "")


def _revision(plane: Mapping[str, Any]) -> str:
    """Return the revision of a control plane."""
    return _label_of(plane, REVISION) or "default"


def restarts(pods: Iterable[Mapping[str, Any]], revision: str, tag: str = "") -> list[dict[str, str]]:
    """Return the workloads whose pods have not the sidecar that they shall have: of a revision and a tag, or none at all."""
    return outdated(sidecars(pods), revision, tag)
