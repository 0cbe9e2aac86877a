# SPDX-License-Identifier: GPL-3.0-or-later
"""What MicroK8s' command line says, read in all its forms, and what is decided from it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError, InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ran
from ansible_collections.progressive.delivery.plugins.module_utils.plan.microk8s import (
    Addon,
    Member,
    Node,
    Snap,
    Status,
    check_arguments,
    choose_addon,
    digest,
    evicted,
    full_channel,
    is_clustered,
    join_error,
    not_ready,
    parse_invitation,
    parse_json,
    parse_nodes,
    parse_snap,
    parse_status,
    parse_version,
    plan_addon,
    plan_snap,
    trouble,
    workloads,
)

YAML = """microk8s:
  running: True
high-availability:
  enabled: True
  nodes:
    - address: 192.0.2.11:19001
      role: voter
    - address: 192.0.2.12:19001
      role: spare
addons:
  - name: dns
    repository: core
    description: CoreDNS: with a colon
    version: 1.13.1
    status: enabled
  - name: rbac
    repository: core
    description: Role-Based Access Control for authorisation
    version:
    status: disabled
"""
# As the first versions with repositories print it: other widths, no high-availability.
PADDED = "microk8s:\n   running: True\naddons:\n   - name: dns\n     description: CoreDNS\n     version: 1.8.0\n     status: enabled\n"
SHORT_YAML = "microk8s:\n   running: True\naddons:\n  core/dns: enabled\n  rbac: disabled\n"
NOT_READY_YAML = """microk8s:
  running: False
high-availability:
  enabled: False
  message: microk8s is not running. Use microk8s inspect for a deeper inspection.
"""
SHORT = "microk8s is running\naddons:\ncore/dns: enabled\ncore/rbac: disabled\n"
PRETTY = """microk8s is running
high-availability: no
  datastore master nodes: 192.0.2.11:19001
  datastore standby nodes: none
addons:
  enabled:
    dns                  # (core) CoreDNS
  disabled:
    rbac                 # (core) Role-Based Access Control for authorisation
"""
STOPPED = "microk8s is not running, try microk8s start\n"
WORKER = "This MicroK8s deployment is acting as a node in a cluster.\nPlease use the control plane node.\n"
DNS, RBAC = Addon("dns", "core", True), Addon("rbac", "core", False)


@pytest.mark.parametrize("text", [YAML, PADDED, SHORT_YAML, SHORT, PRETTY], ids=["yaml", "padded", "short yaml", "short", "pretty"])
def test_every_form_of_a_status_that_runs(text: str) -> None:
    status = parse_status(Ran(0, text, ""))
    assert status.state == "running" and status.addons is not None
    assert [(addon.name, addon.enabled) for addon in status.addons][0] == ("dns", True)
    assert all(not addon.enabled for addon in status.addons[1:])


def test_what_yaml_has_more() -> None:
    status = parse_status(Ran(0, YAML, ""))
    assert status.high_availability is True
    assert status.members == (Member("192.0.2.11:19001", "voter"), Member("192.0.2.12:19001", "spare"))
    assert status.addons == (
        Addon("dns", "core", True, "1.13.1", "CoreDNS: with a colon"),
        Addon("rbac", "core", False, "", "Role-Based Access Control for authorisation"),
    )
    assert parse_status(Ran(0, PRETTY, "")).members == (Member("192.0.2.11:19001", "voter"),)
    assert parse_status(Ran(0, PRETTY, "")).high_availability is False


@pytest.mark.parametrize(
    ("ran", "state"),
    [
        (Ran(0, STOPPED, ""), "stopped"),
        (Ran(1, "", STOPPED), "stopped"),
        (Ran(0, WORKER, ""), "worker"),
        (Ran(1, NOT_READY_YAML, ""), "not_running"),
        (Ran(1, "microk8s is not running. Use microk8s inspect for a deeper inspection.\n", ""), "not_running"),
    ],
)
def test_what_does_not_run_knows_no_addons_rather_than_none_enabled(ran: Ran, state: str) -> None:
    status = parse_status(ran)
    assert status.state == state and status.addons is None and status.members == ()


TROUBLES = {
    "permission": (
        Ran(1, "", "Insufficient permissions to access MicroK8s.\n  sudo usermod -a -G snap_microk8s me\n"),
        "Forbidden",
        "snap_microk8s",
    ),
    "root": (Ran(1, "", "Elevated permissions are needed for this command. Please use sudo."), "Forbidden", "become: true"),
    "root, by code": (Ran(50, "", ""), "Forbidden", "become: true"),
    "worker": (Ran(0, WORKER, ""), "Worker", "control plane"),
    "stopped": (Ran(1, "", STOPPED), "NotRunning", "microk8s start"),
    "not ready": (Ran(1, "microk8s is not running. Use microk8s inspect", ""), "NotRunning", "microk8s inspect"),
    "unknown": (Ran(1, "'x' is not a valid MicroK8s subcommand.\n", ""), "UnknownCommand", "no such subcommand"),
    "busy": (Ran(1, "", 'error: snap "microk8s" has "refresh-snap" change in progress'), "Busy", "snap changes"),
    "away": (Ran(1, "", "The connection to the server 127.0.0.1:16443 was refused - did you"), "Unavailable", "does not answer"),
    "mute": (Ran(1, "", ""), "Question", "by arguments"),
    "question": (Ran(1, "Enabling MetalLB\nEnter each IP address range delimited by comma: ", ""), "Question", "by arguments"),
    "question on stderr": (Ran(1, "", "Remove PVC storage at /var ? (Y/N): "), "Question", "by arguments"),
    "other": (Ran(3, "a\n", "b\nlast words\n"), "Failed", "code 3: last words"),
}


@pytest.mark.parametrize(("ran", "reason", "words"), TROUBLES.values(), ids=TROUBLES)
def test_each_trouble_is_one_sentence_with_the_way_out(ran: Ran, reason: str, words: str) -> None:
    error = trouble(ran, "microk8s enable core/x")
    assert error is not None and error.reason == reason and words in error.message
    assert "\n" not in error.message and error.message.startswith("microk8s enable core/x")
    assert trouble(Ran(0, "all is well", ""), "x") is None


@pytest.mark.parametrize(
    "words", [STOPPED, WORKER, "change in progress", "Insufficient permissions to access MicroK8s", "microk8s is not running"]
)
def test_words_inside_what_a_command_returned_are_no_trouble(words: str) -> None:
    document = Ran(0, json.dumps({"items": [{"metadata": {"annotations": {"a": words}}}]}, indent=1), "")
    assert trouble(document, "x") is None and parse_json(document, "x")["items"]
    assert parse_status(Ran(0, YAML.replace("CoreDNS: with a colon", words.strip().replace("\n", " ")), "")).state == "running"


@pytest.mark.parametrize("ran", [Ran(0, "Segmentation fault", ""), Ran(0, "", ""), Ran(0, "microk8s:\nnonsense\n", "")])
def test_what_is_no_status_is_named(ran: Ran) -> None:
    with pytest.raises(DeliveryError, match="the answer of microk8s status is no YAML: ") as caught:
        parse_status(ran)
    assert caught.value.reason == "Unreadable" and "\n" not in caught.value.message


def test_text_instead_of_json_is_named() -> None:
    with pytest.raises(DeliveryError, match="is a worker of a cluster"):
        parse_json(Ran(0, WORKER, ""), "microk8s kubectl get nodes")
    with pytest.raises(DeliveryError, match="is no JSON: hello"):
        parse_json(Ran(0, "hello", ""), "microk8s kubectl get nodes")


def test_version_snap_and_nodes() -> None:
    assert parse_version(Ran(0, "MicroK8s v1.36.0 revision x1\n", "")) == ("v1.36.0", "x1")
    assert parse_version(Ran(0, "what?", "")) == ("", "")
    head = "Name      Version  Rev   Tracking     Publisher    Notes\n"
    snap = parse_snap(Ran(0, f"{head}microk8s  v1.31.2  7394  1.31/stable  canonical**  classic,held\n", ""))
    assert snap == Snap("v1.31.2", "7394", "1.31/stable", ("classic", "held"))
    assert (snap.held, snap.confinement, snap.minor) == (True, "classic", (1, 31))
    strict = parse_snap(Ran(0, f"{head}microk8s  v1.31.2  7394  1.31-strict/stable  canonical**  -\n", ""))
    assert strict is not None and (strict.held, strict.confinement) == (False, "strict")
    assert parse_snap(Ran(1, "", "error: no matching snaps installed\n")) is None
    node = {
        "metadata": {"name": "n1", "labels": {"node.kubernetes.io/microk8s-worker": "microk8s-worker"}},
        "spec": {"unschedulable": True},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.31.2"},
        },
    }
    assert parse_nodes({"items": [node]}) == (Node("n1", ("10.0.0.1",), True, False, True, "v1.31.2"),)


def test_an_invitation_is_a_place_at_an_address_and_errors_of_it_have_no_token() -> None:
    urls = ["fd00::1:25000/5ecret/chk", "10.0.0.1:25000/5ecret/chk", "192.0.2.1:25000/5ecret/chk"]
    found = parse_invitation(Ran(0, json.dumps({"token": "5ecret/chk", "urls": urls}), ""))
    assert found.url() == urls[1] and found.url("192.0.2.1") == urls[2] and found.url("fd00::1") == urls[0]
    with pytest.raises(InvalidRequest, match="has no address 10.9.9.9 .*it has: fd00::1, 10.0.0.1, 192.0.2.1") as caught:
        found.url("10.9.9.9")
    assert "5ecret" not in caught.value.message
    for ran in (
        Ran(0, "microk8s join 10.0.0.1:25000/5ecret/chk", ""),
        Ran(1, "10.0.0.1:25000/5ecret/chk", ""),
        Ran(0, '{"token": "5ecret"}', ""),
    ):
        with pytest.raises(DeliveryError) as error:
            parse_invitation(ran)
        assert "5ecret" not in error.value.message


@pytest.mark.parametrize("code", [1, 2, 4, 5, 6, 7, 9])
def test_a_join_that_fails_is_told_without_the_token(code: int) -> None:
    error = join_error(Ran(code, "Contacting cluster at 10.0.0.1:25000/5ecret/chk", "10.0.0.1:25000/5ecret/chk"))
    assert "5ecret" not in error.message and error.message.startswith("microk8s join failed: ") and error.reason == "JoinFailed"
    assert "join as a worker" in join_error(Ran(1, "This node does not have enough RAM to host\n 5ecret", "")).message


def test_an_addon_is_found_by_either_name_and_one_that_is_not_there_is_refused_with_those_that_are() -> None:
    other = Addon("dns", "community", False)
    assert choose_addon([DNS, RBAC], "dns") is DNS and choose_addon([DNS, RBAC], "core/rbac") is RBAC
    assert choose_addon([DNS, other], "community/dns") is other
    with pytest.raises(InvalidRequest, match='several repositories have an addon "dns"; name it community/dns or core/dns'):
        choose_addon([DNS, other], "dns")
    with pytest.raises(InvalidRequest, match='no repository has an addon "core/typo"; there are: core/dns, core/rbac'):
        choose_addon([DNS, RBAC], "core/typo")
    with pytest.raises(InvalidRequest, match="belongs into arguments"):
        choose_addon([DNS], "dns:1.1.1.1")
    with pytest.raises(DeliveryError, match="does not say which addons there are"):
        choose_addon(None, "dns")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-h"], "only prints a text"),
        (["x", "--help"], "only prints a text"),
        ([""], "an empty one"),
        (["rbac"], "is the name of an addon too"),
    ],
)
def test_arguments_that_would_be_taken_for_something_else_are_refused(arguments: list[str], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        check_arguments(arguments, [DNS, RBAC])


def test_arguments_as_they_should_be_pass() -> None:
    for arguments in ([], ["1.1.1.1,8.8.8.8"], ["--size", "40Gi"], ["2001:db8::1"], ["rbac", "x"]):
        check_arguments(arguments, [DNS, RBAC])


# {what: (enabled, present, arguments, recorded, on_changed, commands)}
PLANS = {
    "to enable": (False, True, None, None, "refuse", [("enable", "core/x")]),
    "to enable with arguments": (False, True, ["a", "b"], None, "refuse", [("enable", "core/x", "a", "b")]),
    "enabled": (True, True, None, None, "refuse", []),
    "enabled with these": (True, True, ["a"], digest(["a"]), "refuse", []),
    "enabled with others, kept": (True, True, ["a"], digest(["b"]), "keep", []),
    "enabled with others, anew": (True, True, ["a"], digest(["b"]), "reenable", [("disable", "core/x"), ("enable", "core/x", "a")]),
    "enabled with unknown": (True, True, ["a"], None, "refuse", []),
    "enabled with unknown, anew": (True, True, ["a"], None, "reenable", [("disable", "core/x"), ("enable", "core/x", "a")]),
    "to disable": (True, False, None, None, "refuse", [("disable", "core/x")]),
    "to disable with arguments": (True, False, ["destroy-storage"], None, "refuse", [("disable", "core/x", "destroy-storage")]),
    "disabled": (False, False, None, None, "refuse", []),
}


@pytest.mark.parametrize(("enabled", "present", "arguments", "recorded", "on_changed", "commands"), PLANS.values(), ids=PLANS)
def test_what_is_run_for_an_addon(
    enabled: bool, present: bool, arguments: list[str] | None, recorded: str | None, on_changed: str, commands: list[tuple[str, ...]]
) -> None:
    plan = plan_addon(Addon("x", "core", enabled), present, arguments, recorded, on_changed)
    assert list(plan.commands) == commands and bool(plan.actions) is bool(commands)
    assert (plan.before == plan.after) is not bool(commands)
    if commands and present:
        again = plan_addon(Addon("x", "core", True), True, arguments, digest(arguments or []), on_changed)
        assert again.commands == () and again.before == again.after == plan.after


def test_other_arguments_are_refused_with_both_ways_out() -> None:
    with pytest.raises(InvalidRequest, match="was enabled with other arguments.*reenable to do that, or keep"):
        plan_addon(DNS, True, ["a"], digest(["b"]), "refuse")


def test_an_argument_is_never_shown() -> None:
    plan = plan_addon(RBAC, True, ["s3cr3t"], None, "refuse")
    assert "s3cr3t" not in str((plan.before, plan.after, plan.actions, plan.note, digest(["s3cr3t"])))


def workload(uid: str, generation: int = 1, ready: int = 1, kind: str = "Deployment") -> dict[str, object]:
    """Return a workload."""
    status = {"observedGeneration": generation, "readyReplicas": ready, "updatedReplicas": 1}
    status |= {"desiredNumberScheduled": 1, "numberReady": ready, "updatedNumberScheduled": 1}
    meta = {"uid": uid, "namespace": "kube-system", "name": uid, "generation": generation}
    return {"kind": kind, "metadata": meta, "spec": {"replicas": 1}, "status": status}


def test_only_what_came_with_an_addon_is_waited_for() -> None:
    before = workloads({"items": [workload("broken", ready=0), workload("same"), workload("changed")]})
    after = [
        workload("broken", ready=0),
        workload("same"),
        workload("changed", 2, 0),
        workload("new", ready=0, kind="DaemonSet"),
        workload("well"),
    ]
    assert not_ready(before, workloads({"items": after})) == ["DaemonSet kube-system/new", "Deployment kube-system/changed"]


def test_a_drain_leaves_what_belongs_to_the_node() -> None:
    def pod(name: str, owner: str = "", phase: str = "Running", **annotations: str) -> dict[str, object]:
        owners = [{"kind": owner, "controller": True}] if owner else []
        return {
            "metadata": {"name": name, "namespace": "a", "ownerReferences": owners, "annotations": annotations},
            "status": {"phase": phase},
        }

    mirror = pod("mirror", "Node")
    pods = [pod("web", "ReplicaSet"), pod("calico", "DaemonSet"), mirror, pod("job", "Job", "Succeeded"), pod("bare")]
    assert evicted({"items": pods}) == ["a/bare", "a/web"]


def test_who_is_one_of_several() -> None:
    alone = Node("n1", (), True, True, False, "")
    assert not is_clustered(Status("running"), [alone])
    assert is_clustered(Status("running"), [alone, alone]) and is_clustered(Status("worker"), [])


NOW = Snap("v1.31.2", "7031", "1.31/stable", ("classic",))
STRICT = Snap("v1.31.2", "7031", "1.31-strict/stable", ())
SNAPS = {
    "install": (None, "1.32", None, [("install", "microk8s", "--channel=1.32/stable", "--classic")]),
    "install strict": (None, "1.32-strict/edge", None, [("install", "microk8s", "--channel=1.32-strict/edge")]),
    "install and hold": (
        None,
        "1.32/stable",
        True,
        [("install", "microk8s", "--channel=1.32/stable", "--classic"), ("refresh", "--hold", "microk8s")],
    ),
    "there": (NOW, "1.31/stable", False, []),
    "as it is": (NOW, None, None, []),
    "another risk": (NOW, "1.31/candidate", None, [("refresh", "microk8s", "--channel=1.31/candidate", "--classic")]),
    "the next": (NOW, "1.32/stable", None, [("refresh", "microk8s", "--channel=1.32/stable", "--classic")]),
    "the next strict": (STRICT, "1.32-strict/stable", None, [("refresh", "microk8s", "--channel=1.32-strict/stable")]),
    "latest": (
        Snap("v1.36.1", "7036", "latest/edge", ("classic",)),
        "latest",
        None,
        [("refresh", "microk8s", "--channel=latest/stable", "--classic")],
    ),
    "hold": (NOW, None, True, [("refresh", "--hold", "microk8s")]),
    "let go": (Snap("v1.31.2", "1", "1.31/stable", ("classic", "held")), None, False, [("refresh", "--unhold", "microk8s")]),
}


@pytest.mark.parametrize(("snap", "channel", "hold", "commands"), SNAPS.values(), ids=SNAPS)
def test_what_is_run_for_the_snap(snap: Snap | None, channel: str | None, hold: bool | None, commands: list[tuple[str, ...]]) -> None:
    plan = plan_snap(snap, True, channel, hold)
    assert list(plan.commands) == commands and len(plan.actions) == len(commands)
    assert (plan.before == plan.after) is not bool(commands)


@pytest.mark.parametrize(
    ("snap", "channel", "sentence"),
    [
        (None, None, "name the channel"),
        (None, "stable", '"stable" is no channel of MicroK8s'),
        (NOW, "1.33/stable", "more than one minor version away; go to 1.32/stable first"),
        (STRICT, "1.34-strict/edge", "go to 1.32-strict/edge first"),
        (NOW, "1.30/stable", "does not go back to 1.30/stable; .*snap revert"),
        (NOW, "1.32-strict/stable", "is classic and 1.32-strict/stable is strict"),
        (NOW, "2.0/stable", "more than one minor version away"),
        (NOW, "latest/stable", "from 1.31/stable, and does not go to latest/stable, which may be many minor versions away"),
        (NOW, "1.31/stable/fix", "is a branch of a channel"),
    ],
)
def test_a_way_that_there_is_not_is_refused(snap: Snap | None, channel: str | None, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        plan_snap(snap, True, channel, None)


def test_removal_and_channels() -> None:
    assert plan_snap(NOW, False, None, None, purge=True).commands == (("remove", "--purge", "microk8s"),)
    assert plan_snap(None, False, None, None).commands == ()
    assert full_channel("latest") == "latest/stable" and full_channel("1.32/edge") == "1.32/edge"
