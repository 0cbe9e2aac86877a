# SPDX-License-Identifier: GPL-3.0-or-later
"""The role flagger installs Flagger, changes nothing the second time, refuses what cannot be, and takes away what it made."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Query, Ref
from support import flagger as installing
from support.guides import follow
from support.live import Shop

pytestmark = pytest.mark.cluster
SLACK = "https://hooks.slack.example.com/services/T000/B000/very-secret-word"
EVENTS = "http://events.example.com/hook?token=another-secret-word"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/canaries.flagger.app"


@pytest.fixture
def system(flagger: str) -> Shop:
    """Return Flagger's namespace."""
    return Shop(flagger, installing.NAMESPACE)


@pytest.fixture
def second(flagger: str) -> Iterator[Shop]:
    """Return a namespace that is not there, for a Flagger that looks at nothing else; it goes in the end."""
    shop = Shop(flagger, f"second-{uuid.uuid4().hex[:6]}")
    yield shop
    installing.apply(shop, variables(shop, flagger_state="absent", flagger_force=False))
    if installing.get(shop, f"/api/v1/namespaces/{shop.namespace}"):
        shop.cluster.delete(Ref("Namespace", "", shop.namespace))
    shop.cluster.close()


def variables(shop: Shop, **more: Any) -> dict[str, Any]:
    """Return the variables of a second Flagger, whose Prometheus is that of the first."""
    release = f"flagger-{shop.namespace}"
    own = {
        "flagger_namespace": shop.namespace,
        "flagger_release": release,
        "flagger_watch_namespace": shop.namespace,
        "flagger_prometheus": False,
        "flagger_metrics_server": installing.PROMETHEUS,
        "flagger_loadtester": False,
        "flagger_slack_url": SLACK,
        "flagger_slack_channel": "releases",
        "flagger_event_webhook": EVENTS,
        **more,
    }
    return installing.settings(shop.kubeconfig, **own)


def test_a_second_run_changes_nothing(system: Shop) -> None:
    changed, said = installing.apply(system, installing.settings(system.kubeconfig))
    assert changed == 0, said
    changed, said = installing.apply(system, installing.settings(system.kubeconfig), "--check")
    assert changed == 0, said


def test_flagger_runs_with_what_the_options_say(system: Shop) -> None:
    told = system.get("Deployment", "flagger")["spec"]["template"]["spec"]["containers"][0]
    assert "-mesh-provider=gatewayapi:v1" in told["command"]
    assert f"-metrics-server={installing.PROMETHEUS}" in told["command"]
    configuration = yaml.safe_load(
        installing.get(system, f"/api/v1/namespaces/{system.namespace}/configmaps/flagger-prometheus")["data"]["prometheus.yml"]
    )
    assert configuration["global"]["scrape_interval"] == "2s"


def test_the_load_tester_answers(system: Shop) -> None:
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"
    address = system.get("Service", "flagger-loadtester")["spec"]["clusterIP"]
    command = [*system.network, "python3", "-c", program, f"http://{address}/healthz"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "200"


def test_prometheus_knows_the_pods_by_the_labels_that_flagger_asks_for(system: Shop) -> None:
    program = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
    address = system.get("Service", "flagger-prometheus")["spec"]["clusterIP"]
    query = "up%7Bkubernetes_namespace%3D%22flagger-system%22%2Ckubernetes_pod_name%3D~%22flagger-.%2A%22%7D%3D%3D1"
    command = [*system.network, "python3", "-c", program, f"http://{address}:9090/api/v1/query?query={query}"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["data"]["result"], found


def test_the_commands_of_the_guide_run_as_they_stand(system: Shop, tmp_path: Path) -> None:
    # Here the charts are no further than a folder; the rest is as it stands.
    (tmp_path / "here.yml").write_text(yaml.safe_dump({**installing.sources(system.kubeconfig), "flagger_prometheus_interval": "2s"}))
    follow("installing_flagger.md", system, tmp_path, [("@cluster.yml", "@cluster.yml -e @here.yml")])


def test_it_is_installed_beside_another_and_taken_away_again(second: Shop) -> None:
    types = installing.get(second, CRD)
    changed, said = installing.apply(second, variables(second), "--check", "--diff")
    assert changed > 0
    assert installing.get(second, f"/api/v1/namespaces/{second.namespace}") is None

    changed, more = installing.apply(second, variables(second), "--diff", "-vvv")
    assert changed > 0
    for word in ("very-secret-word", "another-secret-word", base64.b64encode(SLACK.encode()).decode()[8:-8]):
        # What was given on the command line, -vvv shows: of the vars that ansible itself reads.
        assert word not in said
        assert word not in "\n".join(line for line in more.splitlines() if "ansible-playbook" not in line)
    release = f"flagger-{second.namespace}"
    secret = installing.get(second, f"/api/v1/namespaces/{second.namespace}/secrets/flagger-notifications")
    assert base64.b64decode(secret["data"]["SLACK_URL"]).decode() == SLACK
    pod = second.get("Deployment", release)["spec"]["template"]["spec"]["containers"][0]
    assert {entry["name"]: entry["valueFrom"]["secretKeyRef"]["name"] for entry in pod["env"]} == {
        "EVENT_WEBHOOK_URL": "flagger-notifications",
        "SLACK_URL": "flagger-notifications",
    }
    assert "secret-word" not in installing.helm(second.kubeconfig, "get", "values", release, f"--namespace={second.namespace}")

    changed, said = installing.apply(second, variables(second))
    assert changed == 0, said

    # The namespace could never go if Flagger's finalizer stayed. The other Flagger of this cluster is left out of account, and the API
    # types are not ours to take; it would put the finalizer back on a Canary with revertOnDeletion.
    canary: dict[str, Any] = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary"}
    canary["metadata"] = {"name": "web", "finalizers": ["finalizer.flagger.app"]}
    canary["spec"] = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "suspend": True,
        "service": {"port": 80},
        "analysis": {"interval": "1m", "threshold": 1, "iterations": 1},
    }
    second.create(canary)
    alone = {"__flagger_other_flaggers": False, "__flagger_marked_types": [], "__flagger_marked_gateway_types": []}
    changed, said = installing.apply(second, variables(second, flagger_state="absent", **alone))
    assert changed > 0
    assert installing.get(second, f"/api/v1/namespaces/{second.namespace}") is None
    for kind in ("clusterroles", "clusterrolebindings"):
        assert installing.get(second, f"/apis/rbac.authorization.k8s.io/v1/{kind}/{release}") is None
    # The other Flagger needs them.
    assert installing.get(second, CRD)["metadata"]["uid"] == types["metadata"]["uid"]
    changed, said = installing.apply(second, variables(second, flagger_state="absent"))
    assert changed == 0, said


def test_it_is_installed_by_manifests(second: Shop, tmp_path: Path) -> None:
    release, found = f"flagger-{second.namespace}", installing.sources(second.kubeconfig)
    if not found:
        pytest.skip("the chart is rendered from a folder")
    words = ["template", release, found["flagger_chart"], f"--namespace={second.namespace}", f"--set=fullnameOverride={release}"]
    (tmp_path / "flagger.yml").write_text(installing.helm(second.kubeconfig, *words, "--include-crds"))
    given = {"flagger_method": "manifests", "flagger_manifests": [str(tmp_path / "flagger.yml")]}
    changed, _said = installing.apply(second, variables(second, **given), "--check")
    assert changed > 0
    assert installing.get(second, f"/api/v1/namespaces/{second.namespace}") is None

    installing.apply(second, variables(second, **given))
    pod = second.get("Deployment", release)["spec"]["template"]["spec"]["containers"][0]
    flags = [*pod["command"], *pod["args"]]
    assert flags.count(f"-metrics-server={installing.PROMETHEUS}") == 1
    assert not [flag for flag in flags if flag == "-metrics-server=http://prometheus:9090"]
    assert "-mesh-provider=gatewayapi:v1" in flags and pod["image"].startswith("localhost:32000/flagger:")
    changed, said = installing.apply(second, variables(second, **given))
    assert changed == 0, said
    installing.apply(second, variables(second, **given, flagger_state="absent"))
    assert installing.get(second, f"/api/v1/namespaces/{second.namespace}") is None


def cut_off(second: Shop) -> float:
    """Kill an installation by Helm in its middle; return when it began."""
    release, found = f"flagger-{second.namespace}", installing.sources(second.kubeconfig)
    words = ["install", release, found.get("flagger_chart", "flagger"), "--create-namespace", "--wait", "--skip-crds"]
    words += ["--set=image.repository=nowhere/flagger", f"--set=fullnameOverride={release}"]
    program = [found.get("flagger_helm_binary") or "helm", f"--kubeconfig={second.kubeconfig}", f"--namespace={second.namespace}"]
    process = subprocess.Popen([*program, *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not second.exists("Deployment", release):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    process.kill()
    process.wait()
    return time.monotonic()


def test_a_run_of_helm_that_was_cut_off_is_taken_up(second: Shop) -> None:
    release, ended = f"flagger-{second.namespace}", cut_off(second)
    given = {"flagger_slack_url": "", "flagger_event_webhook": "", "flagger_timeout": 60}
    done = second.playbook(installing.PLAYBOOK, variables(second, **{**given, "flagger_timeout": 300}))
    assert "has begun" in done.stdout + done.stderr and done.returncode
    time.sleep(max(0.0, 61 - (time.monotonic() - ended)))
    installing.apply(second, variables(second, **given))
    assert second.get("Deployment", release)["spec"]["template"]["spec"]["containers"][0]["image"].startswith("localhost:32000/flagger")


@pytest.mark.parametrize("status", ["pending-install", "uninstalling"])
def test_what_a_run_of_helm_that_was_cut_off_has_made_is_taken_away(second: Shop, status: str) -> None:
    release, ended = f"flagger-{second.namespace}", cut_off(second)
    role = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{release}"
    if status == "uninstalling":
        held = second.ref("Deployment", release)
        second.cluster.patch(held, {"metadata": {"finalizers": ["example.com/held"]}}, MERGE_PATCH)
        found = installing.sources(second.kubeconfig)
        program = [found.get("flagger_helm_binary") or "helm", f"--kubeconfig={second.kubeconfig}", f"--namespace={second.namespace}"]
        process = subprocess.Popen([*program, "uninstall", release, "--wait"], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not second.get("Deployment", release)["metadata"].get("deletionTimestamp"):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        process.kill()
        process.wait()
        second.cluster.patch(held, {"metadata": {"finalizers": None}}, MERGE_PATCH)
    else:
        assert installing.get(second, role)
    labels = f"owner=helm,name={release},status={status}"
    assert second.cluster.list(Query("Secret", second.namespace, labels)).items
    time.sleep(max(0.0, 16 - (time.monotonic() - ended)))
    gone = variables(second, flagger_state="absent", flagger_timeout=15)
    installing.apply(second, gone, "--check")
    changed, said = installing.apply(second, gone)
    assert changed > 0, said
    assert not second.exists("Deployment", release) and installing.get(second, role) is None
    assert second.cluster.list(Query("Secret", second.namespace, f"owner=helm,name={release}")).items == []


def test_what_cannot_be_is_refused_in_one_sentence(second: Shop, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "Chart.yaml").write_text("apiVersion: v2\nname: other\nversion: 1.0.0\n")
    (tmp_path / "empty.yml").write_text("---\n")
    rows: list[tuple[dict[str, Any], str]] = [
        ({"flagger_provider": "nonsense"}, "flagger_provider must be one of: apisix"),
        (
            {"flagger_provider": "contour"},
            "types that the cluster does not have (httpproxies.projectcontour.io); install what serves them first",
        ),
        ({"flagger_helm_binary": "/nowhere/helm"}, "/nowhere/helm is not Helm 3 or newer on localhost"),
        ({"flagger_helm_binary": "/bin/true"}, "/bin/true is not Helm 3 or newer on localhost (it does not say its version)"),
        ({"flagger_state": "absent", "flagger_helm_binary": "/nowhere/helm"}, "install it, or name it in flagger_helm_binary"),
        ({"flagger_chart": "/nowhere/flagger"}, 'flagger_chart "/nowhere/flagger" is no chart that Helm can read'),
        ({"flagger_chart": str(other)}, 'is the chart "other", and flagger is needed'),
        ({"flagger_metrics_server": ""}, "name it in flagger_metrics_server"),
        ({"flagger_prometheus": True}, "flagger_metrics_server and flagger_prometheus exclude each other"),
        ({"flagger_metrics_server": "prometheus"}, 'flagger_metrics_server "prometheus" is no URL'),
        ({"flagger_metrics_server": "http://prometheus.nowhere:9090"}, "the Service prometheus in namespace nowhere is not there"),
        ({"flagger_metrics_server": "http://127.0.0.1:9"}, "does not answer as a Prometheus from localhost"),
        ({"flagger_slack_url": SLACK, "flagger_teams_url": "https://teams.example.com"}, "Flagger tells Slack or Teams, not both"),
        ({"flagger_slack_url": "hooks.slack.example.com/secret"}, "are addresses that begin with https://, and one of them is not"),
        ({"flagger_method": "manifests"}, "flagger_manifests is empty"),
        ({"flagger_method": "manifests", "flagger_manifests": [str(tmp_path / "none.yml")]}, "and there is nothing to read"),
        ({"flagger_method": "manifests", "flagger_manifests": [str(tmp_path / "empty.yml")]}, "have no Deployment flagger-"),
    ]
    common = {"flagger_slack_url": "", "flagger_event_webhook": ""}
    said = second.refusals("flagger", [{**variables(second), **common, **row} for row, _words in rows])
    for (row, words), sentence in zip(rows, said, strict=True):
        assert words in " ".join(sentence.split()), f"{row}: {sentence}"
        assert "secret" not in sentence
    assert installing.get(second, f"/api/v1/namespaces/{second.namespace}") is None
