# SPDX-License-Identifier: GPL-3.0-or-later
"""The role microk8s on a double of MicroK8s' command line: several nodes, each a folder. It needs no cluster, but one test uses one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.guides import GUIDES, steps
from support.live import BIN, clean_environment
from support.microk8s import double

CHANGED = re.compile(r"changed=(\d+)")


class Site:
    """Nodes of the double, and an inventory with them."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.root = folder, folder / "double"
        double.make(self.root, list(names))
        host = "{{ inventory_hostname }}"
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "microk8s_executable": f"{self.root}/{host}/bin/microk8s",
            "microk8s_snap_executable": f"{self.root}/{host}/bin/snap",
            "microk8s_data": f"{self.root}/{host}/var",
            "microk8s_node_name": host,
            "microk8s_become": False,
            "microk8s_timeout": 120,
        }
        (folder / "group_vars").mkdir()
        (folder / "group_vars" / "microk8s.yml").write_text(yaml.safe_dump(shared))
        self.hosts({name: {} for name in names})

    def hosts(self, hosts: dict[str, Any]) -> None:
        """Write the inventory."""
        (self.folder / "inventory.yml").write_text(yaml.safe_dump({"microk8s": {"hosts": hosts, "vars": {"microk8s_control_plane": "n1"}}}))

    def install(self, name: str, channel: str = "1.31/stable") -> None:
        """Install MicroK8s on a node, by hand."""
        double.answer("snap", self.root, name, ["install", "microk8s", "--classic", f"--channel={channel}"])

    def play(self, *arguments: str, fails: bool = False, **variables: Any) -> str:
        """Run the playbook and return what it printed."""
        given = json.dumps({f"microk8s_{key}": value for key, value in variables.items()})
        return self.run(f"ansible-playbook -i inventory.yml progressive.delivery.microk8s -e '{given}' {' '.join(arguments)}", fails)

    def run(self, command: str, fails: bool = False) -> str:
        """Run a command in the folder and return what it printed."""
        environment = clean_environment()
        environment["PATH"] = f"{BIN}:{environment['PATH']}"
        done = subprocess.run(command, shell=True, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self) -> list[list[str]]:
        """Return the calls that changed something since the last time that this was asked, with their node."""
        path = self.root / "calls.jsonl"
        found = [call for call in double.calls(self.root) if double.is_changing(call)]
        path.unlink(missing_ok=True)
        return found

    @property
    def state(self) -> dict[str, Any]:
        """Return the double's state."""
        return json.loads((self.root / "state.json").read_text())


def changed(output: str) -> int:
    """Return how many tasks of a play changed something."""
    return sum(int(number) for number in CHANGED.findall(output))


def test_the_commands_of_the_guide_run_as_they_stand_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1", "n2", "n3", "n4")
    secrets: set[str] = set()
    printed, minted = "", 0
    for what, text in steps((GUIDES / "microk8s.md").read_text()):
        if what == "file":
            (tmp_path / text.split()[1]).write_text(text)
            continue
        command = text.split("  #")[0]
        before = site.state
        site.calls()
        output = site.run(f"{command} -vvv")
        printed += output
        if "--check" in command:
            assert site.state == before and site.calls() == [] and changed(output) > 0
            continue
        minted += sum(call[2] == "add-node" for call in site.calls())
        secrets |= {entry["token"] for cluster in site.state["clusters"].values() for entry in cluster["tokens"]}
        before = site.state
        again = site.run(command)
        assert changed(again) == 0 and site.calls() == [] and site.state == before, again
    assert minted == len(secrets) == 3 and not [secret for secret in secrets if secret in printed]
    state = site.state
    assert [state["nodes"][name]["snap"] and state["nodes"][name]["snap"]["version"] for name in ("n1", "n2", "n3", "n4")] == [
        "v1.33.2"
    ] * 3 + [None]
    assert {state["nodes"][name]["cluster"] for name in ("n1", "n2", "n3")} == {"n1"} and state["clusters"]["n1"]["left"] == []
    assert {"dns", "metrics-server", "registry"} <= set(state["clusters"]["n1"]["enabled"])
    kubeconfig = tmp_path / "kubeconfig"
    assert yaml.safe_load(kubeconfig.read_text())["kind"] == "Config" and kubeconfig.stat().st_mode & 0o777 == 0o600


def test_an_upgrade_goes_one_node_and_one_minor_version_at_a_time(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1", "n2")
    site.hosts({"n2": {"microk8s_node_role": "worker"}, "n1": {}})
    site.play(channel="1.31/stable", addons=[])
    site.calls()
    site.play(channel="1.33/candidate", addons=[])
    steps = [
        (node, call[0] if program == "snap" else call[1], call[2] if program == "microk8s" else call[2].partition("=")[2])
        for node, program, *call in site.calls()
        if program == "snap" or call[1] in ("drain", "uncordon")
    ]
    assert steps == [
        step
        for minor in ("1.32", "1.33")
        for name in ("n1", "n2")
        for step in (("n1", "drain", name), (name, "refresh", f"{minor}/candidate"), ("n1", "uncordon", name))
    ]


def test_another_channel_goes_one_node_at_a_time_too_and_who_was_drained_by_somebody_stays_so(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1", "n2")
    site.play(channel="1.33/candidate", addons=[])
    double.answer("microk8s", site.root, "n1", ["kubectl", "cordon", "n2"])
    site.calls()
    site.play(channel="1.33", addons=[])
    steps = [
        (node, call[0] if program == "snap" else call[1], call[2])
        for node, program, *call in site.calls()
        if program == "snap" or call[1] in ("drain", "uncordon")
    ]
    assert steps == [
        ("n1", "drain", "n1"),
        ("n1", "refresh", "--channel=1.33/stable"),
        ("n1", "uncordon", "n1"),
        ("n1", "drain", "n2"),
        ("n2", "refresh", "--channel=1.33/stable"),
    ]
    assert site.state["clusters"]["n1"]["cordoned"] == ["n2"] and site.state["clusters"]["n1"]["marked"] == {}
    before = site.state
    assert "from 1.33/stable, and does not go to latest/stable, which may be many" in site.play(channel="latest/stable", fails=True)
    assert site.calls() == [] and site.state == before


def test_a_kubeconfig_of_another_cluster_is_not_overwritten(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1")
    place = tmp_path / "kubeconfig"
    for text, sentence in (
        (
            yaml.safe_dump({"kind": "Config", "clusters": [{"name": "production", "cluster": {}}]}),
            "has cluster production, which would be lost",
        ),
        ("{no: [yaml", "cannot be read as a kubeconfig; name another path"),
        ("all: {hosts: {n1: {}}}", "cannot be read as a kubeconfig; name another path"),
    ):
        place.write_text(text)
        assert sentence in site.play(channel="1.31/stable", kubeconfig=str(place), fails=True)
        assert site.calls() == [] and place.read_text() == text
    place.write_text("")
    for _turn in range(2):
        site.play(channel="1.31/stable", addons=[], kubeconfig=str(place))
        assert yaml.safe_load(place.read_text())["clusters"][0]["name"] == "microk8s-cluster"


def test_a_repository_of_addons_is_added_and_check_mode_foresees_it(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1")
    site.install("n1")
    site.calls()
    given: dict[str, Any] = {
        "channel": "1.31/stable",
        "addons": ["dns", "community/istio"],
        "addon_repositories": [{"name": "community", "url": "https://example.com/addons"}],
    }
    assert changed(site.play("--check", **given)) > 0 and site.calls() == []
    site.play(**given)
    assert "community/istio" in site.state["clusters"]["n1"]["enabled"] and site.state["clusters"]["n1"]["repositories"] == [
        "core",
        "community",
    ]
    site.calls()
    assert changed(site.play(**given)) == 0 and site.calls() == []


def test_an_upgrade_that_cannot_go_on_ends_and_the_next_run_goes_on(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1", "n2")
    site.play(channel="1.31/stable", addons=[])
    double.knob(site.root, "n1", {"stuck_pod": True})
    site.calls()
    output = site.play(channel="1.32/stable", addons=[], fails=True)
    assert "n1 was not upgraded to 1.32/stable: draining node n1 failed" in output and "takes pods as before" in output
    assert "Configure |" not in output, output
    assert not [call for call in site.calls() if call[1:3] == ["snap", "refresh"]]
    assert site.state["clusters"]["n1"]["cordoned"] == []
    double.knob(site.root, "n1", {"stuck_pod": None})
    double.knob(site.root, "n2", {"store_down": True})
    output = site.play(channel="1.32/stable", addons=[], fails=True)
    assert "n2 was not upgraded to 1.32/stable: snap refresh microk8s: the snap store cannot be reached" in output
    assert site.state["clusters"]["n1"]["cordoned"] == ["n2"] and site.state["nodes"]["n1"]["snap"]["version"] == "v1.32.2"
    # As somebody might do by hand: the node is upgraded, and still drained.
    double.knob(site.root, "n2", {"store_down": None})
    double.answer("snap", site.root, "n2", ["refresh", "microk8s", "--channel=1.32/stable"])
    site.play(channel="1.32/stable", addons=[])
    assert site.state["clusters"]["n1"]["cordoned"] == []


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no channel": ({}, "name the channel that it shall be installed from"),
    "not a channel": ({"channel": "stable"}, 'microk8s_channel "stable" is no channel'),
    "a mirror of nothing": ({"channel": "1.32", "mirrors": {"docker.io": {}}}, "has neither server nor hosts"),
    "an addon without a name": ({"channel": "1.32", "addons": [{"state": "present"}]}, "neither a name nor a dictionary with a name"),
    "two of one name": ({"channel": "1.32", "node_name": "n"}, "each needs a name of its own"),
    "a branch": ({"channel": "1.32/stable/fix"}, 'microk8s_channel "1.32/stable/fix" is no channel'),
    "nobody": ({"channel": "1.32", "users": ["root", "rooot"]}, "microk8s_users names rooot, and n1 has no such user"),
    "a stranger": ({"channel": "1.32", "control_plane": "n9"}, "the inventory has no such host"),
    "a worker has the cluster": ({"channel": "1.32", "node_role": "worker"}, "cannot be a worker"),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_sentence_before_anything_is_changed(tmp_path: Path, given: dict[str, Any], sentence: str) -> None:
    site = Site(tmp_path, "n1", "n2")
    assert sentence in site.play(fails=True, **given) and site.calls() == []


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "permission": ({"permission": True}, "this user may not use MicroK8s; use become: true"),
    "no YAML": ({"garbage": ["status"]}, "is no YAML: Segmentation fault"),
    "not ready": ({"not_ready": 1000}, "was to be ready within"),
    "a question": ({"ask": ["enable"]}, "nobody is there to answer"),
    "snapd busy": ({"snap_busy": True}, "snapd is busy with another change"),
    "it hangs": ({"hang": ["enable"]}, "did not end within"),
}


@pytest.mark.parametrize(("knobs", "sentence"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_one_sentence(tmp_path: Path, knobs: dict[str, Any], sentence: str) -> None:
    site = Site(tmp_path, "n1")
    site.install("n1")
    double.knob(site.root, "n1", knobs)
    output = site.play(fails=True, channel="1.31/stable", addons=["rbac"], timeout=15)
    assert sentence in output, output


PRIVATE = """
set -e
mount --make-rprivate /
mount --bind {etc} /etc
groupadd --force {group}
id dev >/dev/null 2>&1 || useradd dev
{command}
echo GROUPS=$(id -nG dev)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="users are made in a copy of /etc, which takes root")
@pytest.mark.parametrize(("channel", "group"), [("1.31/stable", "microk8s"), ("1.31-strict/stable", "snap_microk8s")])
def test_users_get_the_group_that_the_confinement_has(tmp_path: Path, channel: str, group: str) -> None:
    site = Site(tmp_path, "n1")
    etc = tmp_path / "etc"
    subprocess.run(["cp", "-a", "/etc", str(etc)], check=True)
    given = json.dumps({"microk8s_channel": channel, "microk8s_users": ["dev"], "microk8s_addons": ["dns"]})
    (tmp_path / "given.json").write_text(given)
    command = "ansible-playbook -i inventory.yml progressive.delivery.microk8s -e @given.json"
    (tmp_path / "private.sh").write_text(PRIVATE.format(etc=etc, group=group, command=command))
    output = site.run("unshare --mount sh private.sh")
    assert changed(output) > 0 and group in output.rsplit("GROUPS=", 1)[1].split(), output
    installed = next(call for call in site.calls() if call[1:3] == ["snap", "install"])
    assert ("--classic" in installed) is (group == "microk8s")
    again = site.run("unshare --mount sh private.sh")
    assert changed(again) == 0 and site.calls() == [], again
    # Only a private copy of the users was changed.
    assert group not in Path("/etc/group").read_text().split(":")


def test_a_strict_snap_demands_root_of_everybody(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1")
    site.install("n1", "1.31-strict/stable")
    double.knob(site.root, "n1", {"permission": True})
    assert "microk8s status needs root; use become: true" in site.play(fails=True, channel="1.31-strict/stable")
    double.knob(site.root, "n1", {"permission": None})
    site.calls()
    output = site.play(fails=True, channel="1.31/stable")
    assert "is strict and 1.31/stable is classic" in output and site.calls() == []


def test_nodes_join_when_a_play_takes_them_one_after_the_other(tmp_path: Path) -> None:
    site = Site(tmp_path, "n1", "n2", "n3")
    role = {"ansible.builtin.include_role": {"name": "progressive.delivery.microk8s"}}
    book = [{"hosts": "microk8s", "gather_facts": False, "serial": 1, "tasks": [role]}]
    (tmp_path / "serial.yml").write_text(yaml.safe_dump(book))
    command = "ansible-playbook -i inventory.yml serial.yml -e microk8s_channel=1.31/stable"
    site.run(command)
    assert {site.state["nodes"][name]["cluster"] for name in ("n1", "n2", "n3")} == {"n1"}
    joins = [call[0] for call in site.calls() if call[1:3] == ["microk8s", "join"]]
    assert joins == ["n2", "n3"]
    again = site.run(command)
    assert changed(again) == 0 and site.calls() == [], again


@pytest.mark.cluster
def test_what_the_modules_see_of_a_real_cluster(tmp_path: Path, kubeconfig: str) -> None:
    program = shutil.which("kubectl") or next(iter(map(str, Path("/var/lib/progressive-delivery").glob("**/bin/kubectl"))), "")
    if not program:
        pytest.skip("there is no kubectl here")
    site = Site(tmp_path, "n1")
    site.install("n1")
    double.knob(site.root, "n1", {"kubeconfig": kubeconfig, "kubectl": program})
    task = {
        "progressive.delivery.microk8s_info": {
            f"{key}executable": f"{site.root}/n1/bin/{key or 'microk8s'}".rstrip("_") for key in ("", "snap_")
        }
    }
    keep = {"ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": f"{tmp_path}/found.json", "mode": "0600"}}
    book = [{"hosts": "n1", "gather_facts": False, "tasks": [{**task, "register": "found"}, keep]}]
    (tmp_path / "book.yml").write_text(yaml.safe_dump(book))
    site.run("ansible-playbook -i inventory.yml book.yml")
    nodes = json.loads((tmp_path / "found.json").read_text())["nodes"]
    assert nodes and all(node["ready"] and node["version"].startswith("v1.") and node["addresses"] for node in nodes)
