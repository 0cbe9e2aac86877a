# SPDX-License-Identifier: GPL-3.0-or-later
"""Role platform: MicroK8s by a double of its command line, the rest on the real cluster that the double speaks for."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from localcluster import build
from support.guides import GUIDES, steps
from support.live import BIN, WEB, Shop, clean_environment
from support.microk8s import double


class Site:
    """One node of the double, which is the real cluster, and an inventory with it."""

    def __init__(self, folder: Path, kubeconfig: str) -> None:
        self.folder, self.root = folder, folder / "double"
        double.make(self.root, ["n1"])
        double.knob(self.root, "n1", {"kubeconfig": kubeconfig, "kubectl": str(build.folder("kubernetes") / "kubectl")})
        node = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "microk8s_executable": f"{self.root}/n1/bin/microk8s",
            "microk8s_snap_executable": f"{self.root}/n1/bin/snap",
            "microk8s_data": f"{self.root}/n1/var",
            "microk8s_node_name": "n1",
            "microk8s_channel": "1.31/stable",
            "microk8s_become": False,
            "microk8s_timeout": 120,
        }
        (folder / "group_vars").mkdir()
        (folder / "group_vars" / "microk8s.yml").write_text(yaml.safe_dump(node))
        (folder / "inventory.yml").write_text(yaml.safe_dump({"microk8s": {"hosts": {"n1": {}}}}))

    def play(self, variables: dict[str, Any], fails: bool = False) -> str:
        """Run the playbook and return what it printed."""
        return self.run(f"ansible-playbook -i inventory.yml progressive.delivery.platform -e '{json.dumps(variables)}'", fails)

    def run(self, command: str, fails: bool = False) -> str:
        """Run a command in the folder and return what it printed."""
        environment = clean_environment()
        environment["PATH"] = f"{BIN}:{environment['PATH']}"
        done = subprocess.run(command, shell=True, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self) -> list[list[str]]:
        """Return the calls that changed something."""
        return [call for call in double.calls(self.root) if double.is_changing(call)]


def changed(output: str) -> int:
    """Return how many tasks of a play changed something."""
    return sum(int(number) for number in re.findall(r"changed=(\d+)", output))


def test_the_commands_of_the_guide_run_as_they_stand(provision_kubeconfig: str, given: dict[str, Any], empty: Shop, tmp_path: Path) -> None:
    site = Site(tmp_path, provision_kubeconfig)
    (tmp_path / "given.yml").write_text(
        yaml.safe_dump(
            {
                **{key: value for key, value in given.items() if key not in ("istio_kubeconfig", "istio_platform")},
                "platform_helm": given["istio_helm"],
                "platform_registry": False,
                # The double has no workloads behind these; and Flagger has tests of its own.
                "platform_addons": ["dns"],
                "platform_flagger": False,
            }
        )
    )
    empty.apply(WEB)
    written: list[int] = []
    for what, text in steps((GUIDES / "platform.md").read_text()):
        text = re.sub(r"\bshop\b", empty.namespace, text)
        if what == "file":
            (tmp_path / text.split()[1]).write_text(text)
            continue
        # What is here in the place of the Internet: charts of two versions, and images.
        charts = given["istio_charts"].replace("1.0.0", "1.1.0") if "upgrade.yml" in text else given["istio_charts"]
        version = "1.1.0" if "upgrade.yml" in text else "1.0.0"
        output = site.run(f"{text.split('  #')[0]} -e @given.yml -e istio_charts={charts} -e istio_version={version}")
        written.append(changed(output))
        if "--check" in text:
            assert site.calls() == [] and not (tmp_path / "kubeconfig").exists()
        elif "upgrade.yml" not in text:
            assert (tmp_path / "kubeconfig").read_text() == Path(provision_kubeconfig).read_text()
            assert empty.get("Namespace", empty.namespace)["metadata"]["labels"]["istio-injection"] == "enabled"
    assert [number > 0 for number in written] == [True, True, False, True, True]
    assert ["n1", "snap", "install"] in [call[:3] for call in site.calls()]
    assert not {"istio-injection", "istio.io/rev"} & set(empty.get("Namespace", empty.namespace)["metadata"]["labels"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (
        {"platform_microk8s": False, "platform_istio": False, "platform_flagger": False},
        "are all false; leave one of them true",
    ),
    "an addon without a name": ({"platform_addons": [{"state": "present"}]}, "neither a name nor a dictionary with a name"),
    "no place": ({"platform_kubeconfig": ""}, "platform_kubeconfig is empty; name the file"),
    "no kubeconfig": ({"platform_microk8s": False, "platform_kubeconfig": "/nowhere"}, "and there is no such file"),
    "no Helm": ({"platform_helm": "/nowhere/helm"}, 'platform_helm "/nowhere/helm" does not run on the controller'),
    "istio without Istio": (
        {"platform_istio": False, "platform_provider": "istio"},
        "nothing brings virtualservices.networking.istio.io; set platform_istio to true",
    ),
    "no Gateway API": (
        {"platform_istio": False, "platform_addons": ["dns"]},
        "nothing brings httproutes.gateway.networking.k8s.io; put ingress in platform_addons",
    ),
    "no Traefik on a cluster that there is": (
        {"platform_microk8s": False, "platform_provider": "traefik", "platform_kubeconfig": "THERE"},
        "nothing brings traefikservices.traefik.io; put ingress in platform_addons, or install Traefik first",
    ),
}


@pytest.mark.parametrize(("variables", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_one_sentence_before_anything_is_changed(
    provision_kubeconfig: str, given: dict[str, Any], tmp_path: Path, variables: dict[str, Any], sentence: str
) -> None:
    site = Site(tmp_path, provision_kubeconfig)
    wanted = {"platform_kubeconfig": str(tmp_path / "kubeconfig"), "platform_helm": given["istio_helm"], **variables}
    wanted = {key: provision_kubeconfig if value == "THERE" else value for key, value in wanted.items()}
    assert sentence in site.play(wanted, fails=True) and site.calls() == []
