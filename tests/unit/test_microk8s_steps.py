# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules for MicroK8s on a double of its command line, with every trap that it has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils import microk8s
from ansible_collections.progressive.delivery.plugins.module_utils.errors import DeliveryError
from ansible_collections.progressive.delivery.plugins.module_utils.microk8s import CLI_OPTIONS, Cli, connect_cli
from ansible_collections.progressive.delivery.plugins.module_utils.model import Ran, Result
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec, perform
from ansible_collections.progressive.delivery.plugins.modules import microk8s_addon, microk8s_info, microk8s_node, microk8s_snap
from support.microk8s import double


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again soon, and wait for nothing that is slow."""
    monkeypatch.setattr(microk8s, "PAUSE", 0.05)
    monkeypatch.setattr(microk8s, "PATIENCE", 1.0)


class Direct(Cli):
    """The command line whose programs are the double's, asked without a process for each: that is most of what a test takes."""

    def _run(self, command: tuple[str, ...], said: str, seconds: float | None, hint: str) -> Ran:
        """Return what the double says."""
        program = Path(command[0])
        found = double.answer(program.name, program.parents[2], program.parents[1].name, list(command[1:]))
        if found is None or self.left <= 0:
            return super()._run(command, said, seconds, hint)
        return Ran(found.code, found.out, found.err)


class Site:
    """Some nodes of the double; ``cli`` is how its programs are run."""

    cli: type[Cli] = Direct

    def __init__(self, root: Path, *names: str) -> None:
        self.root = root
        double.make(root, list(names))

    def options(self, node: str, step: Any, **given: Any) -> dict[str, Any]:
        """Return a module's options on a node, with their defaults."""
        defaults = {key: entry.get("default") for key, entry in argument_spec(step.OPTIONS, CLI_OPTIONS).items()}
        programs = {"executable": str(self.root / node / "bin/microk8s"), "snap_executable": str(self.root / node / "bin/snap")}
        return {**defaults, **programs, "timeout": 20.0, **given}

    def step(self, node: str, step: Any, check: bool = False, **given: Any) -> Result:
        """Run a module on a node."""
        options = self.options(node, step, **given)
        return step.execute(options, self.cli(options["executable"], options["snap_executable"], options["timeout"]), check)

    def info(self, node: str = "n1", **given: Any) -> Any:
        """Return the facts of a node."""
        return self.step(node, microk8s_info, **given).extra

    def addon(self, name: str, check: bool = False, **given: Any) -> Result:
        """Run microk8s_addon on n1."""
        return self.step("n1", microk8s_addon, check, name=name, **given)

    def node(self, where: str, state: str, check: bool = False, **given: Any) -> Result:
        """Run microk8s_node."""
        return self.step(where, microk8s_node, check, state=state, **given)

    def join(self, name: str, worker: bool = False) -> None:
        """Let a node join n1."""
        invitation = self.node("n1", "invited", name=name)
        assert self.node(name, "joined", url=invitation.extra["url"], worker=worker, name=name).changed

    def knob(self, node: str = "n1", **knobs: Any) -> None:
        """Set knobs of a node."""
        double.knob(self.root, node, knobs)

    def changing(self) -> list[list[str]]:
        """Return the calls so far that change something."""
        return double.changing(self.root)

    def state(self) -> dict[str, Any]:
        """Return the double's state."""
        return json.loads((self.root / "state.json").read_text())


@pytest.fixture
def bare(tmp_path: Path) -> Site:
    """Return one node without MicroK8s."""
    return Site(tmp_path / "site", "n1")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return three nodes with MicroK8s, each alone."""
    found = Site(tmp_path / "site", "n1", "n2", "n3")
    for name in ("n1", "n2", "n3"):
        double.answer("snap", found.root, name, ["install", "microk8s", "--classic", "--channel=1.31/stable"])
    (found.root / "calls.jsonl").unlink()
    return found


def refused(call: Any) -> DeliveryError:
    """Return the error of a call; it is one sentence."""
    with pytest.raises(DeliveryError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


# --- microk8s_snap


def test_the_snap_is_installed_held_refreshed_and_removed_once_each(bare: Site) -> None:
    steps: list[dict[str, Any]] = [
        {"channel": "1.31/stable", "hold": True},
        {"channel": "1.32", "hold": True},
        {"hold": False},
        {"state": "absent", "purge": True},
    ]
    for given in steps:
        before = bare.changing()
        foreseen = bare.step("n1", microk8s_snap, True, **given)
        assert bare.changing() == before
        done = bare.step("n1", microk8s_snap, **given)
        assert done.changed and (foreseen.before, foreseen.after, foreseen.actions) == (done.before, done.after, done.actions)
        after = bare.changing()
        again = bare.step("n1", microk8s_snap, **given)
        assert not again.changed and again.before == again.after == done.after and bare.changing() == after
    assert bare.changing() == [
        ["snap", "install", "microk8s", "--channel=1.31/stable", "--classic"],
        ["snap", "refresh", "--hold", "microk8s"],
        ["snap", "refresh", "microk8s", "--channel=1.32/stable", "--classic"],
        ["snap", "refresh", "--unhold", "microk8s"],
        ["snap", "remove", "--purge", "microk8s"],
    ]


@pytest.mark.parametrize(
    ("knobs", "given", "reason", "words"),
    [
        ({"snap_busy": True}, {"channel": "1.32"}, "Busy", "snapd is busy with another change"),
        ({"store_down": True}, {"channel": "1.32"}, "Unavailable", "the snap store cannot be reached"),
        ({"old_snapd": True}, {"hold": True}, "InvalidRequest", "use 2.58 or newer"),
        ({}, {"channel": "1.33"}, "InvalidRequest", "go to 1.32/stable first"),
    ],
)
def test_a_snap_that_cannot_be_had_is_told(site: Site, knobs: dict[str, Any], given: dict[str, Any], reason: str, words: str) -> None:
    site.knob(**knobs)
    error = refused(lambda: site.step("n1", microk8s_snap, **given))
    assert error.reason == reason and words in error.message
    assert site.info()["version"] == "v1.31.2"


def test_a_bad_launch_configuration_is_told(bare: Site) -> None:
    folder = bare.root / "n1/var/common"
    folder.mkdir(parents=True)
    (folder / ".microk8s.yaml").write_text("version: 9\n")
    assert "install hook" in refused(lambda: bare.step("n1", microk8s_snap, channel="1.32")).message


def test_without_snapd_a_way_out_is_named(bare: Site) -> None:
    error = refused(lambda: bare.step("n1", microk8s_snap, channel="1.32", snap_executable="/nowhere/snap"))
    assert error.reason == "NotInstalled" and "install the package snapd" in error.message


# --- microk8s_info


def test_what_there_is(site: Site) -> None:
    found = site.info()
    assert found["installed"] and found["running"] and found["state"] == "running" and not found["clustered"]
    assert (found["version"], found["revision"], found["channel"], found["confinement"], found["held"]) == (
        "v1.31.2",
        "7031",
        "1.31/stable",
        "classic",
        False,
    )
    assert found["datastore"] == [{"address": "10.0.0.1:19001", "role": "voter"}] and not found["high_availability"]
    assert found["nodes"] == [
        {
            "name": "n1",
            "addresses": ["10.0.0.1"],
            "ready": True,
            "schedulable": True,
            "role": "control_plane",
            "version": "v1.31.2",
            "drained": "",
        }
    ]
    by_name = {addon["name"]: addon for addon in found["addons"]}
    assert by_name["dns"] == {"name": "dns", "repository": "core", "enabled": True, "version": "1.13.1", "description": "CoreDNS"}
    assert by_name["storage"]["description"] == "Alias to hostpath-storage add-on, deprecated" and not by_name["rbac"]["enabled"]
    assert site.changing() == []


def test_nothing_is_installed(bare: Site) -> None:
    found = bare.info()
    assert (found["installed"], found["state"], found["addons"], found["nodes"], found["version"]) == (False, "absent", None, [], "")
    assert "install the snap" in refused(lambda: bare.info(wait_ready=True)).message
    assert bare.info(snap_executable="/nowhere/snap")["state"] == "absent"


def test_what_a_node_that_does_not_run_cannot_tell_is_not_called_disabled(site: Site) -> None:
    double.answer("microk8s", site.root, "n1", ["stop"])
    found = site.info()
    assert (found["state"], found["running"], found["addons"], found["nodes"]) == ("stopped", False, None, [])
    assert "microk8s start" in refused(lambda: site.info(wait_ready=True)).message
    site.knob("n2", not_ready=1)
    found = site.info("n2")
    assert (found["state"], found["running"], found["addons"], found["installed"]) == ("not_running", False, None, True)


def test_readiness_is_waited_for(site: Site) -> None:
    site.knob(not_ready=1)
    assert site.info(wait_ready=True)["running"]
    site.knob(not_ready=2)
    assert "within 20 s" in refused(lambda: site.info(wait_ready=True)).message
    waits = [call for call in double.calls(site.root) if "--wait-ready" in call]
    assert waits and all("--timeout" in call for call in double.calls(site.root) if call[2] == "status")


def test_a_worker_is_told_by_its_text(site: Site) -> None:
    site.join("n2", worker=True)
    found = site.info("n2", wait_ready=True)
    assert (found["state"], found["running"], found["clustered"], found["addons"], found["nodes"]) == ("worker", True, True, None, [])
    assert site.info("n1")["nodes"][1]["role"] == "worker" and site.info("n1")["clustered"]


@pytest.mark.parametrize(
    ("knobs", "reason", "words"),
    [
        ({"permission": True}, "Forbidden", "add the user to the group microk8s"),
        ({"garbage": ["status"]}, "Unreadable", "is no YAML: Segmentation fault"),
        ({"garbage": ["kubectl"]}, "Unreadable", "is no JSON: Segmentation fault"),
        ({"hang": ["status"]}, "Timeout", "did not end within"),
    ],
)
def test_an_answer_that_is_none_is_one_sentence(site: Site, knobs: dict[str, Any], reason: str, words: str) -> None:
    site.knob(**knobs)
    error = refused(lambda: site.info(timeout=3.0))
    assert error.reason == reason and words in error.message


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(site: Site) -> None:
    site.knob(away=2)
    assert len(site.info()["nodes"]) == 1
    site.knob(away=10_000)
    error = refused(lambda: site.info(timeout=1.5))
    assert error.reason in ("Unavailable", "Timeout")


def test_no_package_is_needed_on_the_node() -> None:
    names = ("info", "addon", "node", "snap")
    program = "import sys\nfor name in ('kubernetes', 'urllib3', 'yaml', 'jmespath'): sys.modules[name] = None\n"
    program += "".join(f"import ansible_collections.progressive.delivery.plugins.modules.microk8s_{name}\n" for name in names)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_timeout_must_be_a_time() -> None:
    for seconds in (0, -1.0, float("nan")):
        with pytest.raises(DeliveryError, match="timeout must be more than 0"):
            Cli(timeout=seconds)
    outcome = perform(microk8s_info.execute, {"timeout": float("inf"), "wait_ready": False}, False, connector=connect_cli)
    assert outcome["failed"] and "timeout must be a number" in outcome["msg"]


def test_the_outcome_is_that_of_every_step(site: Site) -> None:
    outcome = perform(microk8s_addon.execute, site.options("n1", microk8s_addon, name="rbac"), True, connector=connect_cli)
    assert outcome["changed"] and outcome["diff"] == {"before": {"state": "absent"}, "after": {"state": "present"}}
    assert outcome["actions"] == ["enabled core/rbac"] and outcome["duration"] > 0 and "namespace" not in outcome
    outcome = perform(microk8s_addon.execute, site.options("n1", microk8s_addon, name="x/y"), True, connector=connect_cli)
    assert outcome["failed"] and outcome["reason"] == "InvalidRequest"


# --- microk8s_addon

CHANGES: dict[str, dict[str, Any]] = {
    "enable": {"name": "rbac"},
    "enable by its whole name": {"name": "core/rbac"},
    "enable with arguments": {"name": "registry", "arguments": ["--size", "40Gi"]},
    "enable with an IPv6 address": {"name": "metallb", "arguments": ["2001:db8::1-2001:db8::9"]},
    "disable": {"name": "dns", "state": "absent"},
}


@pytest.mark.parametrize("given", CHANGES.values(), ids=CHANGES)
def test_an_addon_changes_once_and_check_mode_predicts_it(site: Site, given: dict[str, Any]) -> None:
    foreseen = site.addon(check=True, **given)
    assert site.changing() == []
    done = site.addon(**given)
    assert done.changed and foreseen.changed
    assert (foreseen.before, foreseen.after, foreseen.actions) == (done.before, done.after, done.actions)
    calls = site.changing()
    again = site.addon(**given)
    assert not again.changed and again.before == again.after == done.after and site.changing() == calls
    if "arguments" in given:
        assert site.state()["clusters"]["n1"]["arguments"][given["name"]] == given["arguments"]


def test_it_waits_until_the_addon_shows_and_its_workloads_are_ready(site: Site) -> None:
    site.knob(late=3, rolling=2, away=1)
    assert site.addon("metrics-server").changed
    assert sum(call[2:4] == ["kubectl", "get"] for call in double.calls(site.root)) >= 4
    assert sum(call[2] == "status" for call in double.calls(site.root)) >= 4
    site.knob(rolling=10_000)
    error = refused(lambda: site.addon("ingress", timeout=3.0))
    assert error.reason == "Timeout" and "Deployment kube-system/ingress" in error.message
    assert site.addon("observability", wait=False).changed


def test_an_api_server_that_the_addon_before_restarted_is_waited_for(site: Site) -> None:
    site.knob(not_ready=2, away=2)
    assert site.addon("rbac").changed


def test_a_name_that_no_repository_has_is_refused_with_those_that_there_are(site: Site) -> None:
    for name in ("core/typo", "typo", "community/istio"):
        error = refused(lambda name=name: site.addon(name))  # type: ignore[misc]
        assert f'no repository has an addon "{name}"; there are: core/cert-manager, core/dns' in error.message
    double.answer("microk8s", site.root, "n1", ["addons", "repo", "add", "community", "https://example.com"])
    assert "name it community/ingress or core/ingress" in refused(lambda: site.addon("ingress")).message
    assert not [call for call in site.changing() if call[0] == "enable"]


def test_an_addon_that_goes_in_between_is_no_success(site: Site) -> None:
    site.knob(gone=["core/rbac"])
    error = refused(lambda: site.addon("rbac"))
    assert error.reason == "NotFound" and "is not there any more" in error.message


def test_arguments_that_changed(site: Site) -> None:
    assert site.addon("registry", arguments=["--size", "40Gi"]).changed
    error = refused(lambda: site.addon("registry", arguments=["--size", "50Gi"]))
    assert "on_changed_arguments: reenable" in error.message
    kept = site.addon("registry", arguments=["--size", "50Gi"], on_changed_arguments="keep")
    assert not kept.changed and "keeps the other arguments" in kept.extra["note"]
    assert not site.addon("registry").changed
    given: dict[str, Any] = {"arguments": ["--size", "50Gi"], "on_changed_arguments": "reenable"}
    calls = site.changing()
    foreseen = site.addon("registry", check=True, **given)
    assert site.changing() == calls
    done = site.addon("registry", **given)
    assert done.changed and done.before["arguments"] == "others" and foreseen.actions == done.actions and len(done.actions) == 2
    assert site.state()["clusters"]["n1"]["arguments"]["registry"] == ["--size", "50Gi"]
    assert not site.addon("registry", **given).changed


def test_arguments_of_an_addon_that_others_enabled_are_unknown_and_no_reason_to_fail(site: Site) -> None:
    found = site.addon("dns", arguments=["1.1.1.1"])
    assert (
        not found.changed
        and "MicroK8s does not tell" in found.extra["note"]
        and found.before == {"state": "present", "arguments": "unknown"}
    )
    assert site.addon("dns", arguments=["1.1.1.1"], on_changed_arguments="reenable").changed
    assert not site.addon("dns", arguments=["1.1.1.1"]).changed
    assert site.addon("dns", state="absent").changed and site.addon("dns").changed
    assert site.addon("dns", arguments=["1.1.1.1"]).before["arguments"] == "unknown"
    record = site.state()["clusters"]["n1"]["record"]
    assert record == {} and "1.1.1.1" not in str(record)


def test_a_question_is_told_and_arguments_answer_it(site: Site) -> None:
    error = refused(lambda: site.addon("metallb"))
    assert error.reason == "Question" and "give the answer by arguments" in error.message
    for knobs, words in (({"ask": ["enable"]}, "after: Enter each IP address range"), ({"mute": ["enable"]}, "code 1 and no error; such")):
        site.knob(**knobs)
        error = refused(lambda: site.addon("rbac"))
        assert error.reason == "Question" and words in error.message
        site.knob(ask=None, mute=None)
    assert site.addon("hostpath-storage").changed
    error = refused(lambda: site.addon("hostpath-storage", state="absent"))
    assert error.reason == "Question"
    site.addon("hostpath-storage")
    assert site.addon("hostpath-storage", state="absent", arguments=["destroy-storage"]).changed


def test_aliases_come_together(site: Site) -> None:
    assert site.addon("storage").changed and not site.addon("hostpath-storage").changed


@pytest.mark.parametrize("arguments", [["--help"], ["rbac"]])
def test_arguments_that_mean_something_else_never_run(site: Site, arguments: list[str]) -> None:
    refused(lambda: site.addon("metallb", arguments=arguments))
    assert site.changing() == []


def test_the_programs_themselves_do_what_the_tests_do_without_them(site: Site) -> None:
    site.cli = Cli
    assert site.addon("registry", arguments=["--size", "40Gi"]).changed and not site.addon("registry", arguments=["--size", "40Gi"]).changed
    site.join("n2")
    assert len(site.info()["nodes"]) == 2
    error = refused(lambda: site.addon("metallb"))
    assert error.reason == "Question"


def test_an_enable_that_never_ends_is_stopped_with_all_that_it_started(site: Site) -> None:
    site.knob(hang=["enable"])
    started = time.monotonic()
    error = refused(lambda: site.addon("metallb", arguments=["10.0.0.1-10.0.0.9"], timeout=3.0))
    assert error.reason == "Timeout" and time.monotonic() - started < 15
    assert re.search(
        r"did not end within \d s and was stopped \(Waiting for Metallb controller to be ready\.\); some addons wait", error.message
    )
    running = [Path(f"/proc/{number}/cmdline") for number in os.listdir("/proc") if number.isdigit()]
    here = str(site.root).encode()
    assert not [path for path in running if path.exists() and here in path.read_bytes()]


@pytest.mark.parametrize("what", ["worker", "stopped", "not ready", "permission", "not installed"])
def test_an_addon_of_a_node_that_cannot_is_refused(site: Site, what: str) -> None:
    words = {
        "worker": "do it on a node of its control plane",
        "stopped": "microk8s start",
        "not ready": "--wait-ready",
        "permission": "become: true",
        "not installed": "MicroK8s is not installed here",
    }
    if what == "worker":
        site.node("n1", "joined", url=site.node("n2", "invited", name="n1").extra["url"], worker=True)
    if what == "stopped":
        double.answer("microk8s", site.root, "n1", ["stop"])
    if what == "not installed":
        double.answer("snap", site.root, "n1", ["remove", "microk8s"])
    site.knob(**{"not ready": {"not_ready": 10_000}, "permission": {"permission": True}}.get(what, {}))
    assert words[what] in refused(lambda: site.addon("rbac")).message
    assert not [call for call in site.changing() if call[0] == "enable"]


# --- microk8s_node


def tokens(site: Site, name: str = "n1") -> int:
    """Return how many tokens a cluster has."""
    return len(site.state()["clusters"][name]["tokens"])


@pytest.mark.parametrize("worker", [False, True])
def test_a_node_joins_once_and_a_second_run_mints_no_token(site: Site, worker: bool) -> None:
    assert site.node("n1", "invited", True, name="n2", is_member=False).changed and tokens(site) == 0
    assert site.node("n2", "joined", True, worker=worker).changed and site.changing() == []
    invitation = site.node("n1", "invited", name="n2", is_member=False)
    assert invitation.changed and invitation.extra["url"].startswith("10.0.0.1:25000/") and tokens(site) == 1
    assert site.state()["clusters"]["n1"]["tokens"][0]["until"] < time.time() + 601
    joined = site.node("n2", "joined", url=invitation.extra["url"], worker=worker, name="n2")
    assert joined.changed and joined.after == {"member": True, "role": "worker" if worker else "control_plane"}
    calls = site.changing()
    again = site.node("n1", "invited", name="n2", is_member=True)
    assert not again.changed and again.extra["url"] == "" and tokens(site) == 1
    assert not site.node("n2", "joined", worker=worker, name="n2").changed
    assert site.changing() == calls
    secret = invitation.extra["url"].split("/")[1]
    assert secret not in str((invitation.before, invitation.after, invitation.actions, joined))


def test_three_nodes_are_highly_available(site: Site) -> None:
    site.join("n2")
    site.join("n3")
    found = site.info()
    assert found["high_availability"] and len(found["nodes"]) == 3 and len(found["datastore"]) == 3
    assert site.info("n3")["clustered"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "n2", "token_ttl": -1}, "token_ttl must be between 1 and 86400"),
        ({"name": "N2"}, 'in small letters as Kubernetes has it, got "N2"'),
        ({}, "needs the name of a node"),
        ({"name": "n2", "is_member": True}, "is part of another cluster"),
        ({"name": "n1", "is_member": False}, "it is an old one of the same name"),
        ({"name": "n2", "address": "10.9.9.9"}, "has no address 10.9.9.9"),
    ],
)
def test_an_invitation_that_could_not_be_used_is_refused(site: Site, given: dict[str, Any], words: str) -> None:
    error = refused(lambda: site.node("n1", "invited", **given))
    assert words in error.message
    assert tokens(site) == (1 if "address" in given else 0)


def test_names_are_compared_whole(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", "n10", "n1")
    for name in ("n10", "n1"):
        double.answer("snap", site.root, name, ["install", "microk8s", "--classic", "--channel=1.31/stable"])
    assert site.node("n10", "invited", name="n1").changed


@pytest.mark.parametrize("code", [1, 2, 4, 5, 6, 7])
def test_a_join_that_fails_is_told_and_shows_no_token(site: Site, code: int) -> None:
    site.knob("n2", join_code=code)
    error = refused(lambda: site.node("n2", "joined", url="10.0.0.1:25000/5ecret/chk"))
    assert error.reason == "JoinFailed" and "5ecret" not in error.message


def test_other_reasons_not_to_join(site: Site) -> None:
    assert "needs url" in refused(lambda: site.node("n2", "joined")).message
    assert "the token is unknown" in refused(lambda: site.node("n2", "joined", url="10.0.0.1:25000/5ecret/chk")).message
    site.knob("n2", hang=["join"])
    error = refused(lambda: site.node("n2", "joined", url="10.0.0.1:25000/5ecret/chk", timeout=2.0))
    assert error.reason == "Timeout" and "5ecret" not in error.message
    site.join("n3", worker=True)
    assert "cannot become part of the control plane" in refused(lambda: site.node("n3", "joined")).message


def test_a_node_leaves_and_is_forgotten(site: Site) -> None:
    assert not site.node("n2", "left").changed
    site.join("n2")
    assert "has not left" in refused(lambda: site.node("n1", "absent", name="n2")).message
    assert site.node("n2", "left", True).changed and site.info("n2")["clustered"]
    assert site.node("n2", "left").changed and not site.info("n2")["clustered"]
    assert not site.node("n2", "left").changed
    assert [node["ready"] for node in site.info("n1")["nodes"]] == [True, False]
    assert "it is an old one of the same name" in refused(lambda: site.node("n1", "invited", name="n2", is_member=False)).message
    assert site.node("n1", "absent", True, name="n2").changed
    assert site.node("n1", "absent", name="n2").changed and not site.node("n1", "absent", name="n2").changed
    assert len(site.info("n1")["nodes"]) == 1
    site.join("n2")


def test_a_worker_leaves(site: Site) -> None:
    site.join("n2", worker=True)
    assert site.node("n2", "left").changed and site.info("n2")["state"] == "running"


def test_a_node_with_too_little_memory_can_be_a_worker(site: Site) -> None:
    site.knob("n2", low_memory=2)
    error = refused(lambda: site.join("n2"))
    assert error.reason == "TooLittleMemory" and "let it join as a worker, or use disable_low_memory_guard" in error.message
    site.join("n2", worker=True)


def test_why_a_node_cannot_leave(site: Site) -> None:
    site.join("n2")
    assert "others have joined it" in refused(lambda: site.node("n1", "left")).message
    site.knob("n2", only_copy=True)
    error = refused(lambda: site.node("n2", "left"))
    assert error.reason == "OnlyCopy" and "let the others leave first" in error.message


def test_a_node_is_drained_and_takes_pods_again(site: Site) -> None:
    site.join("n2")
    foreseen = site.node("n1", "drained", True, name="n2", purpose="upgrade")
    done = site.node("n1", "drained", name="n2", purpose="upgrade")
    assert done.changed and foreseen.after == done.after and done.before == {"schedulable": True, "pods": 1}
    mark, drain = site.changing()[-2:]
    assert mark == ["kubectl", "annotate", "node", "n2", "progressive.delivery/drained=upgrade", "--overwrite"]
    assert (
        drain[:3] == ["kubectl", "drain", "n2"] and "--ignore-daemonsets" in drain and any(word.startswith("--timeout=") for word in drain)
    )
    assert not site.node("n1", "drained", name="n2").changed
    assert not site.info("n1")["nodes"][1]["schedulable"] and site.info("n1")["nodes"][1]["drained"] == "upgrade"
    assert not site.node("n1", "schedulable", name="n2", purpose="else").changed
    assert site.node("n1", "schedulable", True, name="n2", purpose="upgrade").changed
    assert site.node("n1", "schedulable", True, name="n2").changed and site.node("n1", "schedulable", name="n2").changed
    assert not site.node("n1", "schedulable", name="n2").changed and not site.info("n1")["nodes"][1]["drained"]
    assert "the cluster has no node n9; it has: n1, n2" in refused(lambda: site.node("n1", "drained", name="n9")).message


def test_a_node_that_cannot_be_drained_takes_pods_as_before(site: Site) -> None:
    site.join("n2")
    site.knob("n1", stuck_pod=True)
    error = refused(lambda: site.node("n1", "drained", name="n2", purpose="upgrade"))
    assert "disruption budget" in error.message and "takes pods as before" in error.message
    assert site.info("n1")["nodes"][1]["schedulable"] and not site.info("n1")["nodes"][1]["drained"]


def test_a_node_that_somebody_cordoned_is_not_called_ours(site: Site) -> None:
    site.join("n2")
    double.answer("microk8s", site.root, "n1", ["kubectl", "cordon", "n2"])
    assert site.node("n1", "drained", name="n2", purpose="upgrade").changed
    assert not site.info("n1")["nodes"][1]["drained"]
    # Nor is one that was drained without a purpose; none of them takes pods for a purpose.
    for check in (True, False):
        done = site.node("n1", "schedulable", check, name="n2", purpose="upgrade")
        assert not done.changed and done.after == {"schedulable": False}
    assert site.node("n1", "schedulable", name="n2").changed and site.node("n1", "drained", name="n2").changed
    assert not site.info("n1")["nodes"][1]["drained"]


def test_a_mark_on_a_node_that_takes_pods_is_taken_off(site: Site) -> None:
    site.join("n2")
    site.node("n1", "drained", name="n2", purpose="upgrade")
    double.answer("microk8s", site.root, "n1", ["kubectl", "uncordon", "n2"])
    foreseen = site.node("n1", "schedulable", True, name="n2", purpose="upgrade")
    done = site.node("n1", "schedulable", name="n2", purpose="upgrade")
    assert done.changed and foreseen.changed and foreseen.actions == done.actions == ("took the mark off node n2, which takes pods",)
    assert not site.info("n1")["nodes"][1]["drained"] and not site.node("n1", "schedulable", name="n2", purpose="upgrade").changed


def test_a_node_that_is_not_ready_in_time_is_told(site: Site) -> None:
    site.join("n2")
    double.answer("microk8s", site.root, "n2", ["stop"])
    error = refused(lambda: site.node("n1", "schedulable", name="n2", timeout=2.0))
    assert error.reason == "Timeout" and "node n2 is not ready" in error.message
    assert "the cluster has no node n9" in refused(lambda: site.node("n1", "schedulable", name="n9", timeout=2.0)).message


def test_the_program_gets_no_terminal_no_words_of_another_language_and_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "microk8s"
    program.write_text('#!/bin/sh\necho "$LC_ALL $PATH"; tty </dev/tty; read line && echo "read $line"; exit 0\n')
    program.chmod(0o755)
    monkeypatch.setenv("LC_ALL", "fr_FR.UTF-8")
    ran = Cli(str(program), timeout=20).run("version")
    assert ran.stdout.startswith("C ") and ran.stdout.strip().endswith("/snap/bin") and "read" not in ran.stdout


def test_what_a_program_says_is_bounded_and_what_it_leaves_running_does_not_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microk8s, "MOST_OUTPUT", 1000)
    monkeypatch.setattr(microk8s, "MERCY", 0.5)
    program = tmp_path / "microk8s"
    program.write_text("#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x\n(trap '' HUP; sleep 5) &\nexit 0\n")
    program.chmod(0o755)
    started = time.monotonic()
    assert len(Cli(str(program), timeout=20).run("version").stdout) == 1000 and time.monotonic() - started < 4
