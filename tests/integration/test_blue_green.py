# SPDX-License-Identifier: GPL-3.0-or-later
"""The role and playbook blue_green on a real cluster, with traffic all the time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.modules import clone_workload, release_lock, scale, switch_color, wait_rollout
from support.live import BIN, ROOT, Shop, clean_environment

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """Return the number of changes that the recap counts."""
    return int(re.search(r"changed=(\d+)", done.stdout).group(1))  # type: ignore[union-attr]


def test_a_release_and_its_way_back_lose_no_request(shop: Shop) -> None:
    with shop.traffic(200) as traffic:
        done = shop.blue_green(f"{IMAGE}:2.0.0")
        assert done.returncode == 0, done.stdout
        assert shop.color() == "green"
        back = shop.blue_green(f"{IMAGE}:2.0.0", blue_green_state="rolled_back")
        assert back.returncode == 0, back.stdout
        assert shop.color() == "blue"
    assert traffic.seen["failed"] == 0, traffic.seen
    assert {"1.0.0", "2.0.0"} <= set(traffic.seen["versions"])
    assert traffic.seen["sent"] > 150 * traffic.seen["seconds"]


@pytest.mark.oldest
def test_second_runs_change_nothing(shop: Shop) -> None:
    assert changed(shop.blue_green(f"{IMAGE}:2.0.0")) > 0
    assert changed(shop.blue_green(f"{IMAGE}:2.0.0")) == 0
    assert changed(shop.blue_green(blue_green_state="rolled_back")) > 0
    assert changed(shop.blue_green(blue_green_state="rolled_back")) == 0
    assert shop.color() == "blue"


def test_check_mode_writes_nothing_and_says_what_would_be_done(shop: Shop) -> None:
    before = shop.get("Service", "web"), shop.get("Deployment", "web-blue")
    done = shop.blue_green(f"{IMAGE}:2.0.0", "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert (shop.get("Service", "web"), shop.get("Deployment", "web-blue")) == before
    assert not shop.exists("Deployment", "web-green") and not shop.exists("Lease", "blue-green-web")
    assert '+    "color": "green"' in done.stdout and changed(done) >= 2


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        ("nowhere", "ErrImagePull|ImagePullBackOff"),
        ("broken-crash", "CrashLoopBackOff.*cannot open database"),
        ("broken-500", "smoke test of /version .* status 500 instead of 200"),
    ],
)
def test_a_bad_version_gets_no_traffic(shop: Shop, tag: str, sentence: str) -> None:
    with shop.traffic() as traffic:
        done = shop.blue_green(f"{IMAGE}:{tag}")
    assert done.returncode != 0
    assert re.search(sentence, done.stdout), done.stdout
    assert "traffic was not touched, it is on blue" in done.stdout
    assert traffic.seen["failed"] == 0 and list(traffic.seen["versions"]) == ["1.0.0"]
    assert not shop.exists("Lease", "blue-green-web")


def test_a_version_that_fails_after_the_switch_is_taken_back(shop: Shop) -> None:
    with shop.traffic() as traffic:
        done = shop.blue_green(f"{IMAGE}:broken-late", blue_green_observe=15)
    assert done.returncode != 0
    assert "all traffic is back on blue" in done.stdout
    assert shop.color() == "blue"
    assert traffic.seen["failed"] == 0
    assert traffic.seen["versions"]["broken-late"]["count"] > 0
    assert traffic.seen["versions"]["1.0.0"]["last"] > traffic.seen["versions"]["broken-late"]["last"]


@pytest.mark.parametrize("delay", [1.5, 3.5, 6.0])
def test_a_run_that_is_killed_is_finished_by_the_next(shop: Shop, delay: float) -> None:
    command = [str(BIN / "ansible-playbook"), "progressive.delivery.blue_green", "-e", json.dumps(shop.variables(f"{IMAGE}:2.0.0"))]
    with shop.traffic() as traffic:
        process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = shop.blue_green(f"{IMAGE}:2.0.0")
        assert done.returncode == 0, done.stdout
    assert shop.color() == "green"
    assert shop.get("Service", "web")["metadata"]["annotations"]["progressive.delivery/phase"] == "released"
    assert traffic.seen["failed"] == 0


def test_two_releases_at_once_do_not_break_each_other(shop: Shop) -> None:
    found: dict[str, Any] = {}
    with shop.traffic() as traffic:
        threads = [
            threading.Thread(target=lambda tag=tag: found.update({tag: shop.blue_green(f"{IMAGE}:{tag}")})) for tag in ("2.0.0", "3.0.0")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    codes = {tag: done.returncode for tag, done in found.items()}
    winners = [tag for tag, code in codes.items() if code == 0]
    assert winners, found
    for tag, done in found.items():
        if codes[tag]:
            assert "is held by" in done.stdout, done.stdout
    assert traffic.seen["failed"] == 0
    live = shop.get("Deployment", f"web-{shop.color()}")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert live in [f"{IMAGE}:{tag}" for tag in winners]


def test_old_color_is_scaled_down_when_that_is_wanted(shop: Shop) -> None:
    with shop.traffic() as traffic:
        assert shop.blue_green(f"{IMAGE}:2.0.0", blue_green_scale_down_delay=0).returncode == 0
        assert shop.get("Deployment", "web-blue")["spec"]["replicas"] == 0
        assert shop.blue_green(blue_green_state="rolled_back").returncode == 0
    assert shop.color() == "blue" and traffic.seen["failed"] == 0


def test_ten_switches_at_200_requests_a_second_lose_none(shop: Shop) -> None:
    images = {"app": f"{IMAGE}:2.0.0"}
    assert shop.step(clone_workload, name="web-green", source="web-blue", labels={"version": "green"}, replicas=2, images=images)["changed"]
    assert "failed" not in shop.step(wait_rollout, name="web-green")
    with shop.traffic(rate=220) as traffic:
        for number in range(10):
            outcome = shop.step(switch_color, name="web", color=("green", "blue")[number % 2])
            assert outcome["changed"], outcome
            time.sleep(0.4)
    assert traffic.seen["failed"] == 0, traffic.seen
    assert traffic.seen["sent"] / traffic.seen["seconds"] >= 200


def test_two_services_and_an_ingress(shop: Shop) -> None:
    for color in ("blue", "green"):
        spec = {"selector": {"app": "web", "version": color}, "ports": [{"port": 80, "targetPort": "http"}]}
        shop.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"web-{color}"}, "spec": spec})
    backend = {"service": {"name": "web-blue", "port": {"number": 80}}}
    rule = {"host": "shop.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    shop.create({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": [rule]}})
    given = {"blue_green_provider": "ingress", "blue_green_host": "shop.test"}
    done = shop.blue_green(f"{IMAGE}:2.0.0", **given)
    assert done.returncode == 0, done.stdout
    assert changed(shop.blue_green(f"{IMAGE}:2.0.0", **given)) == 0

    def live() -> str:
        return shop.get("Ingress", "web")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]

    assert live() == "web-green"
    assert shop.blue_green(blue_green_state="rolled_back", **given).returncode == 0
    assert live() == "web-blue"


BAD = {
    "wrong context": ({"blue_green_expected_context": "production"}, "this is the wrong cluster: expected_context"),
    "missing kubeconfig": ({"blue_green_kubeconfig": "/nowhere"}, "kubeconfig /nowhere does not exist"),
    "missing namespace": ({"blue_green_namespace": "nowhere"}, 'there is no namespace "nowhere"'),
    "missing Service": ({"blue_green_service": "nothing"}, "nothing does not exist"),
    "wrong label": ({"blue_green_color_label": "hue"}, 'does not select by the label "hue"'),
    "unknown provider": ({"blue_green_provider": "carrier"}, "provider must be one of: auto, gateway_api, ingress, "),
    "missing container": ({"blue_green_container": "nope"}, 'has no container "nope"; it has: app'),
    "no image": ({"blue_green_image": "No Image"}, "is not an image reference"),
    "empty image": ({"blue_green_image": ""}, "blue_green_image is missing"),
    "one color": ({"blue_green_deployments": {"blue": "web-blue"}}, "must name two colors"),
    "other colors": ({"blue_green_deployments": {"red": "a", "black": "b"}}, 'sends its traffic to "blue"'),
    "swapped Deployments": (
        {"blue_green_deployments": {"blue": "web-green", "green": "web-blue"}},
        "is not the Deployment whose pods get the traffic of web as blue: that is web-blue",
    ),
    "missing Deployment": (
        {"blue_green_deployments": {"blue": "web-bleu", "green": "web-green"}},
        "web-bleu, which blue_green_deployments",
    ),
    "unknown option of a smoke test": ({"blue_green_smoke_tests": [{"pth": "/"}]}, "pth"),
}


def test_bad_input_gets_one_sentence_and_changes_nothing(shop: Shop) -> None:
    before = shop.get("Service", "web"), shop.get("Deployment", "web-blue")["spec"]
    rows = [shop.variables(f"{IMAGE}:2.0.0", **given) for given, _sentence in BAD.values()]
    for name, words in zip(BAD, shop.refusals("blue_green", rows)):
        assert BAD[name][1] in words, (name, words)
    # The playbook fails with it too.
    given, sentence = BAD["missing container"]
    done = shop.blue_green(f"{IMAGE}:2.0.0", **given)
    assert done.returncode != 0 and sentence in done.stdout.replace('\\"', '"'), done.stdout
    assert (shop.get("Service", "web"), shop.get("Deployment", "web-blue")["spec"]) == before
    assert not shop.exists("Deployment", "web-green")
    assert not shop.exists("Lease", "blue-green-web")


def test_scale_of_the_idle_color_while_it_is_waited_for(shop: Shop) -> None:
    assert shop.step(scale, name="web-blue", replicas=3)["changed"]
    assert shop.step(wait_rollout, name="web-blue")["status"]["available"] == 3


def test_the_way_back_is_to_what_had_the_traffic_and_not_to_what_was_refused_since(shop: Shop) -> None:
    with shop.traffic() as traffic:
        assert shop.blue_green(f"{IMAGE}:2.0.0").returncode == 0
        assert shop.blue_green(f"{IMAGE}:broken-500").returncode != 0
        back = shop.blue_green(blue_green_state="rolled_back")
        assert back.returncode == 0, back.stdout
        time.sleep(1)
    assert shop.color() == "blue"
    assert shop.get("Deployment", "web-blue")["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:1.0.0"
    assert traffic.seen["failed"] == 0 and set(traffic.seen["versions"]) == {"1.0.0", "2.0.0"}
    annotations = shop.get("Service", "web")["metadata"]["annotations"]
    assert [key for key in annotations if key.startswith("progressive.delivery/")] == ["progressive.delivery/phase"]


def deployment(shop: Shop, name: str, labels: dict[str, str], tag: str = "1.0.0", replicas: int = 1) -> None:
    """Make a Deployment like the application's."""
    manifest = shop.get("Deployment", "web-blue")
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": manifest["spec"]}
    manifest["spec"]["replicas"] = replicas
    manifest["spec"]["selector"]["matchLabels"] = manifest["spec"]["template"]["metadata"]["labels"] = labels
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = f"{IMAGE}:{tag}"
    shop.create(manifest)


def test_another_application_of_that_name_is_left_alone(shop: Shop) -> None:
    deployment(shop, "api", {"app": "api"})
    before = shop.get("Deployment", "api")["spec"]
    done = shop.blue_green(f"{IMAGE}:2.0.0", blue_green_deployments={"blue": "web-blue", "green": "api"})
    assert done.returncode != 0 and "it is another application" in done.stdout, done.stdout
    assert shop.get("Deployment", "api")["spec"] == before and shop.color() == "blue"


def test_a_bad_version_whose_run_was_killed_is_taken_back_by_the_next(shop: Shop) -> None:
    variables = shop.variables(f"{IMAGE}:broken-late", blue_green_observe=60)
    command = [str(BIN / "ansible-playbook"), "progressive.delivery.blue_green", "-e", json.dumps(variables)]
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    while shop.color() == "blue":
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with shop.traffic() as traffic:
        time.sleep(2)
        done = shop.blue_green(f"{IMAGE}:broken-late", blue_green_observe=60)
    assert done.returncode != 0 and "all traffic is back on blue" in done.stdout, done.stdout
    assert shop.color() == "blue" and traffic.seen["failed"] == 0


def test_a_switch_that_is_refused_keeps_the_record_of_the_way_back(shop: Shop) -> None:
    assert shop.blue_green(f"{IMAGE}:2.0.0").returncode == 0
    done = shop.blue_green(f"{IMAGE}:3.0.0", blue_green_min_ready=9)
    assert done.returncode != 0 and "traffic was not touched, it is on green" in done.stdout, done.stdout
    assert shop.blue_green(blue_green_state="rolled_back").returncode == 0
    assert shop.color() == "blue"
    assert shop.get("Deployment", "web-blue")["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:1.0.0"


def test_the_way_back_during_the_delay_keeps_its_pods(shop: Shop) -> None:
    found: dict[str, Any] = {}
    given = {"blue_green_scale_down_delay": 12}
    with shop.traffic() as traffic:
        release = threading.Thread(target=lambda: found.update(done=shop.blue_green(f"{IMAGE}:2.0.0", **given)))
        release.start()
        while shop.get("Service", "web")["metadata"].get("annotations", {}).get("progressive.delivery/phase") != "released":
            time.sleep(0.2)
        assert shop.blue_green(blue_green_state="rolled_back").returncode == 0
        release.join()
        time.sleep(2)
    assert found["done"].returncode == 0, found["done"].stdout
    assert shop.color() == "blue" and shop.get("Deployment", "web-blue")["spec"]["replicas"] == 2
    assert traffic.seen["failed"] == 0


def test_the_way_back_has_pods_when_the_broken_color_was_scaled_down(shop: Shop) -> None:
    assert shop.blue_green(f"{IMAGE}:2.0.0").returncode == 0
    assert shop.step(scale, name="web-green", replicas=0)["changed"]
    back = shop.blue_green(blue_green_state="rolled_back")
    assert back.returncode == 0, back.stdout
    assert shop.color() == "blue" and shop.get("Deployment", "web-blue")["spec"]["replicas"] == 2


def test_two_runs_of_one_release_hold_the_lock_until_the_last_has_ended(shop: Shop) -> None:
    first = {"name": "lock", "holder": "release of 2.0.0", "run": "1"}
    second = {**first, "run": "2"}
    assert shop.step(release_lock, **first)["changed"] and shop.step(release_lock, **second)["changed"]
    assert not shop.step(release_lock, **first, state="released")["changed"]
    assert shop.step(release_lock, name="lock", holder="release of 3.0.0")["reason"] == "Locked"
    assert shop.step(release_lock, **second, state="released")["changed"]


def test_applications_that_share_an_ingress_go_back_each_for_itself(shop: Shop) -> None:
    rules = []
    for app in ("a", "b"):
        for color in ("blue", "green"):
            deployment(shop, f"{app}-{color}", {"app": app, "version": color})
            spec = {"selector": {"app": app, "version": color}, "ports": [{"port": 80, "targetPort": "http"}]}
            shop.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"{app}-{color}"}, "spec": spec})
        backend = {"service": {"name": f"{app}-blue", "port": {"number": 80}}}
        rules.append({"host": f"{app}.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}})
    shop.create({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": rules}})

    def run(app: str, image: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        given = {"blue_green_provider": "ingress", "blue_green_host": f"{app}.test", "blue_green_observe": 0, **more}
        colors = {"blue": f"{app}-blue", "green": f"{app}-green"}
        return shop.blue_green(image, blue_green_deployments=colors, blue_green_services=colors, **given)

    def live() -> list[str]:
        return [rule["http"]["paths"][0]["backend"]["service"]["name"] for rule in shop.get("Ingress", "web")["spec"]["rules"]]

    for app, tag in (("a", "2.0.0"), ("b", "3.0.0")):
        done = run(app, f"{IMAGE}:{tag}")
        assert done.returncode == 0, done.stdout
    assert live() == ["a-green", "b-green"]
    assert run("a", blue_green_state="rolled_back").returncode == 0
    assert live() == ["a-blue", "b-green"]
    assert shop.get("Deployment", "a-blue")["spec"]["template"]["spec"]["containers"][0]["image"] == f"{IMAGE}:1.0.0"
    assert run("b", blue_green_state="rolled_back").returncode == 0
    assert live() == ["a-blue", "b-blue"]


def test_a_role_leaves_what_the_play_says_of_the_cluster(shop: Shop, tmp_path: Path) -> None:
    group = {"kubeconfig": shop.kubeconfig, "namespace": "of-nobody", "expected_context": "production"}
    release = {"ansible.builtin.include_role": {"name": "progressive.delivery.blue_green"}}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "module_defaults": {"group/progressive.delivery.delivery": group},
        "tasks": [release],
    }
    given = {key: value for key, value in shop.variables(f"{IMAGE}:2.0.0").items() if key != "blue_green_kubeconfig"}
    book = tmp_path / "play.yml"
    for door in ("auto", "module"):
        book.write_text(yaml.safe_dump([play]))
        done = shop.playbook(str(book), {**given, "delivery_door": door})
        assert done.returncode != 0 and "this is the wrong cluster" in done.stdout, done.stdout
    assert shop.color() == "blue" and not shop.exists("Deployment", "web-green")
    del group["expected_context"]
    book.write_text(yaml.safe_dump([play]))
    done = shop.playbook(str(book), given)
    assert done.returncode == 0 and shop.color() == "green", done.stdout


def test_a_way_back_that_is_refused_leaves_the_lock_of_a_release(shop: Shop) -> None:
    assert shop.step(release_lock, name="blue-green-web", holder="a release that runs")["changed"]
    refused = shop.blue_green(blue_green_state="rolled_back")
    assert refused.returncode != 0 and "no record of a release to go back from" in refused.stdout, refused.stdout
    assert shop.get("Lease", "blue-green-web")["spec"]["holderIdentity"] == "a release that runs"


def test_the_way_back_does_not_wait_for_pods_that_cannot_come(shop: Shop) -> None:
    assert shop.blue_green(f"{IMAGE}:2.0.0").returncode == 0
    assert "failed" not in shop.step(scale, name="web-green", replicas=4)
    assert "failed" not in shop.step(wait_rollout, name="web-green", timeout=60)
    shop.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "6"}}})
    time.sleep(1)
    with shop.traffic() as traffic:
        done = shop.blue_green(blue_green_state="rolled_back")
    assert done.returncode == 0 and shop.color() == "blue", done.stdout
    assert "Not all pods of blue are ready" in done.stdout and "exceeded quota" in done.stdout, done.stdout
    assert traffic.seen["failed"] == 0


def test_an_ingress_is_not_switched_to_a_service_without_its_port(shop: Shop) -> None:
    for color, port in (("blue", 80), ("green", 8080)):
        labels = {"app": "web", "version": color}
        ports = [{"port": port, "targetPort": "http"}]
        shop.create(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"web-{color}"}, "spec": {"selector": labels, "ports": ports}}
        )
    backend = {"service": {"name": "web-blue", "port": {"number": 80}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    shop.create({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": rules}})
    refused = shop.step(switch_color, provider="ingress", name="web", color="green", force=True)
    assert refused["failed"] and "asks for port 80, and Service web-green has 8080" in refused["msg"], refused
