# SPDX-License-Identifier: GPL-3.0-or-later
"""Role platform: MicroK8s by a double of its command line, the rest on the real cluster that the double speaks for."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query
from localcluster import build
from support.guides import GUIDES, PLACES, steps
from support.live import BIN, Shop, Traffic, clean_environment
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

    def play_istio(self, variables: dict[str, Any], fails: bool = False) -> str:
        """Run the playbook of Istio alone and return what it printed."""
        return self.run(f"ansible-playbook progressive.delivery.istio -e '{json.dumps(variables)}'", fails)

    def run(self, command: str, fails: bool = False) -> str:
        """Run a command in the folder and return what it printed."""
        environment = clean_environment()
        environment["PATH"] = f"{BIN}:{build.folder('kubernetes')}:{environment['PATH']}"
        done = subprocess.run(command, shell=True, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self) -> list[list[str]]:
        """Return the calls that changed something."""
        return [call for call in double.calls(self.root) if double.is_changing(call)]


def changed(output: str) -> int:
    """Return how many tasks of a play changed something."""
    return sum(int(number) for number in re.findall(r"changed=(\d+)", output))


class Gateway(Shop):
    """A namespace whose host the gateway of the role istio leads somewhere."""

    def users(self) -> Traffic:
        """Return continuous traffic to the host, through the gateway's node port."""
        service = self.cluster._json("GET", "/api/v1/namespaces/istio-system/services/istio-ingressgateway")
        port = next(entry["nodePort"] for entry in service["spec"]["ports"] if entry["port"] == 80)
        node = self.cluster.list(Query("Node", "")).items[0]["status"]["addresses"][0]["address"]
        return Traffic(self, f"http://{node}:{port}/", 100, 10, f"{self.namespace}.example.com")


@pytest.fixture
def behind(provision_kubeconfig: str) -> Iterator[Gateway]:
    """Return an empty namespace."""
    with Gateway(provision_kubeconfig) as found:
        yield found


def test_the_commands_of_the_guide_run_as_they_stand(
    provision_kubeconfig: str, given: dict[str, Any], supplied: dict[str, Any], behind: Gateway, tmp_path: Path
) -> None:
    site = Site(tmp_path, provision_kubeconfig)
    (tmp_path / "given.yml").write_text(
        yaml.safe_dump(
            {
                **{key: value for key, value in given.items() if key not in ("istio_kubeconfig", "istio_platform")},
                **supplied,
                "flagger_helm_binary": given["istio_helm"],
                "platform_helm": given["istio_helm"],
                "platform_registry": False,
                # The double has no workloads behind these.
                "platform_addons": ["dns"],
            }
        )
    )
    written: list[int] = []
    for what, text in steps((GUIDES / "platform.md").read_text()):
        for here, there in PLACES:
            text = text.replace(here, there)
        text = re.sub(r"\bshop\b(?!\.yml)", behind.namespace, text)
        if what == "file":
            (tmp_path / text.split()[1]).write_text(text)
            continue
        if text.startswith("kubectl"):
            site.run(text)
            continue
        # What is here in the place of the Internet: charts of two versions, and images.
        charts = given["istio_charts"].replace("1.0.0", "1.1.0") if "upgrade.yml" in text else given["istio_charts"]
        version = "1.1.0" if "upgrade.yml" in text else "1.0.0"
        command = f"{text.split('  #')[0]} -e @given.yml -e istio_charts={charts} -e istio_version={version}"
        if "flagger_release" in text:
            output = promoted(site, behind, command)
        else:
            output = site.run(command)
        written.append(changed(output))
        if "--check" in text:
            assert site.calls() == [] and not (tmp_path / "kubeconfig").exists()
        elif "flagger.yml" in text:
            assert not {"flagger", "flagger-prometheus", "flagger-loadtester"} & deployments(behind)
        elif "upgrade.yml" not in text:
            assert (tmp_path / "kubeconfig").read_text() == Path(provision_kubeconfig).read_text()
            assert behind.get("Namespace", behind.namespace)["metadata"]["labels"]["istio-injection"] == "enabled"
            assert {"flagger", "flagger-prometheus", "flagger-loadtester"} <= deployments(behind)
    assert [number > 0 for number in written] == [True, True, False, True, True, True, True, True]
    assert ["n1", "snap", "install"] in [call[:3] for call in site.calls()]
    assert not {"istio-injection", "istio.io/rev"} & set(behind.get("Namespace", behind.namespace)["metadata"]["labels"])


def promoted(site: Site, web: Gateway, command: str) -> str:
    """Release under traffic, see that Flagger promotes by what Prometheus has of it and no request is lost, and return what was printed."""
    with web.users() as traffic:
        output = site.run(command)
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"}, traffic.seen
    assert "weight 20 of 50" in output and "weight 50 of 50" in output and "Succeeded" in output, output
    container = next(
        entry
        for entry in web.get("Deployment", "web-primary")["spec"]["template"]["spec"]["containers"]
        if entry["image"].startswith("localhost:32000/podinfo:")
    )
    assert container["image"].endswith(":2.0.0")
    assert web.get("Canary", "web")["status"]["phase"] == "Succeeded"
    return output


def deployments(shop: Shop) -> set[str]:
    """Return the names of the Deployments in Flagger's namespace."""
    found = shop.cluster._json("GET", "/apis/apps/v1/namespaces/flagger-system/deployments")
    return {entry["metadata"]["name"] for entry in found["items"] if not entry["metadata"].get("deletionTimestamp")}


@pytest.fixture
def operated(provision_kubeconfig: str) -> Iterator[Callable[..., str]]:
    """Return kubectl, on a cluster that has the API type PodMonitor: the real one, with nobody who reads it."""
    crd = build.build("prometheus-operator") / "crds" / "monitoring.coreos.com_podmonitors.yaml"

    def kubectl(*words: str) -> str:
        command = [str(build.folder("kubernetes") / "kubectl"), f"--kubeconfig={provision_kubeconfig}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    kubectl("apply", "--server-side", "-f", str(crd))
    kubectl("wait", "--for=condition=Established", "crd/podmonitors.monitoring.coreos.com", "--timeout=30s")
    yield kubectl
    kubectl("delete", "-f", str(crd))


def test_a_prometheus_operator_is_told_of_the_envoys(
    provision_kubeconfig: str, given: dict[str, Any], operated: Callable[..., str], behind: Gateway, tmp_path: Path
) -> None:
    site = Site(tmp_path, provision_kubeconfig)
    wanted = {
        **{key: value for key, value in given.items() if key not in ("istio_kubeconfig", "istio_platform")},
        "platform_helm": given["istio_helm"],
        "platform_kubeconfig": str(tmp_path / "kubeconfig"),
        "platform_registry": False,
        "platform_flagger": False,
    }
    # The addon is one of the double.
    observed = {**wanted, "platform_addons": ["dns", "observability"]}
    # Check mode on a cluster that has neither of them: it says what it cannot see, and fails for nothing.
    foreseen = {
        "platform_microk8s": False,
        "platform_flagger": True,
        "platform_kubeconfig": provision_kubeconfig,
        "platform_pod_monitor": True,
    }
    output = site.run(f"ansible-playbook -i inventory.yml progressive.delivery.platform --check -e '{json.dumps({**wanted, **foreseen})}'")
    assert "Flagger comes after virtualservices.networking.istio.io, which check mode does not make" in output
    assert changed(site.play(observed)) > 0
    found = json.loads(operated("get", "podmonitors", "--all-namespaces", "-o", "json"))["items"]
    assert [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in found] == [("istio-system", "istio-envoys")]
    assert found[0]["metadata"]["labels"]["release"] == "kube-prom-stack"
    # What it names is there: the gateway's Envoy answers with its metrics.
    endpoint = found[0]["spec"]["podMetricsEndpoints"][0]
    pods = json.loads(operated("get", "pods", "--namespace=istio-system", "--selector=istio=ingressgateway", "-o", "json"))["items"]
    ports = [port for container in pods[0]["spec"]["containers"] for port in container["ports"] if port["name"] == endpoint["port"]]
    url = f"http://{pods[0]['status']['podIP']}:{ports[0]['containerPort']}{endpoint['path']}"
    assert "envoy_server_live" in subprocess.run([*behind.network, "curl", "-sf", url], capture_output=True, text=True, check=True).stdout
    assert changed(site.play(observed)) == 0
    # Without the addon, by which it is wanted, it goes; and comes again, and goes with Istio.
    assert changed(site.play({**wanted, "platform_addons": ["dns"]})) == 1
    assert operated("get", "podmonitors", "--all-namespaces", "-o", "name") == ""
    assert changed(site.play({**wanted, "platform_addons": ["dns"], "platform_pod_monitor": True})) == 1
    site.play_istio({**given, "istio_state": "absent"})
    assert operated("get", "podmonitors", "--all-namespaces", "-o", "name") == ""


def test_without_a_prometheus_operator_it_is_one_sentence(given: dict[str, Any], provision_kubeconfig: str, tmp_path: Path) -> None:
    site = Site(tmp_path, provision_kubeconfig)
    said = site.play_istio({**given, "istio_pod_monitor": True}, fails=True)
    assert "the cluster has no podmonitors.monitoring.coreos.com; install the Prometheus operator first" in " ".join(said.split())


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
