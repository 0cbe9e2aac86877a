# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles and playbooks recreate, rolling_update and rollback on a real cluster, with traffic all the time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from typing import Any

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH
from ansible_collections.progressive.delivery.plugins.modules import (
    pause_rollout,
    release_lock,
    rollout_info,
    set_image,
    undo_rollout,
    wait_rollout,
)
from support import kinds
from support.live import BIN, ROOT, Receiver, Shop, clean_environment

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"
TESTS = [{"path": "/healthz"}, {"path": "/version", "retries": 1}]


def variables(shop: Shop, role: str, tag: str = "", **given: Any) -> dict[str, Any]:
    """Return a role's variables, the given ones without the role's prefix."""
    plain = {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace, "name": "web", "timeout": 90}
    if role != "rollback":
        plain.update(image=f"{IMAGE}:{tag}", smoke_tests=TESTS, observe=1, observe_interval=1)
    return {f"{role}_{key}": value for key, value in {**plain, **given}.items()}


def play(shop: Shop, role: str, tag: str = "", *arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """Run the role's playbook."""
    return shop.playbook(f"progressive.delivery.{role}", variables(shop, role, tag, **given), *arguments)


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """Return the number of changes that the recap counts."""
    return int(re.search(r"changed=(\d+)", done.stdout).group(1))  # type: ignore[union-attr]


def image(shop: Shop, name: str = "web", kind: str = "Deployment") -> str:
    """Return the tag of the image that the workload's template names."""
    return shop.get(kind, name)["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]


def strategy(shop: Shop) -> dict[str, Any]:
    """Return the Deployment's strategy."""
    return shop.get("Deployment", "web")["spec"]["strategy"]


@pytest.mark.parametrize("profile", ["conservative", "balanced", "fast"])
def test_a_rolling_update_and_its_way_back_lose_no_request(web: Shop, profile: str) -> None:
    with web.traffic(200) as traffic:
        done = play(web, "rolling_update", "2.0.0", profile=profile)
        assert done.returncode == 0, done.stdout
        assert image(web) == "2.0.0"
        back = play(web, "rollback")
        assert back.returncode == 0, back.stdout
        assert image(web) == "1.0.0"
    assert traffic.seen["failed"] == 0, traffic.seen
    assert {"1.0.0", "2.0.0"} <= set(traffic.seen["versions"]) and traffic.seen["sent"] > 150 * traffic.seen["seconds"]


def foreseen(shop: Shop, role: str, tag: str) -> None:
    """Check mode writes nothing, and says what would be done."""
    before = shop.get("Deployment", "web")
    done = play(shop, role, tag, "--check", "--diff")
    assert done.returncode == 0, done.stdout
    assert shop.get("Deployment", "web") == before and not shop.exists("Lease", "release-deployment-web")
    assert f'+        "app": "{IMAGE}:{tag}"' in done.stdout and changed(done) >= 1, done.stdout


def test_each_is_foreseen_and_done_and_a_second_run_changes_nothing(web: Shop) -> None:
    foreseen(web, "rolling_update", "2.0.0")
    assert changed(play(web, "rolling_update", "2.0.0")) > 0
    again = play(web, "rolling_update", "2.0.0")
    assert again.returncode == 0 and changed(again) == 0, again.stdout
    # The workload, and the record of what was released.
    assert changed(play(web, "rollback")) == 2
    again = play(web, "rollback")
    assert again.returncode == 0 and changed(again) == 0, again.stdout
    assert image(web) == "1.0.0"
    # What was taken back may be released again, and taken back again.
    assert changed(play(web, "rolling_update", "2.0.0")) > 0 and image(web) == "2.0.0"
    assert changed(play(web, "rollback")) == 2 and image(web) == "1.0.0"


def test_recreate_reports_the_downtime_that_the_requests_saw_and_a_rolling_update_after_it_is_one(web: Shop) -> None:
    foreseen(web, "recreate", "2.0.0")
    with web.traffic(200) as traffic:
        done = play(web, "recreate", "2.0.0", "-v")
        assert done.returncode == 0, done.stdout
    reported = float(re.search(r'"downtime": ([\d.]+)', done.stdout).group(1))  # type: ignore[union-attr]
    assert f"{IMAGE}:2.0.0 is released; for {reported} s no pod of Deployment web was ready" in done.stdout, done.stdout
    assert strategy(web) == {"type": "Recreate"}
    assert traffic.seen["failed"] > 0 and reported > 0
    # Two versions never answer at once.
    versions = traffic.seen["versions"]
    assert versions["1.0.0"]["last"] <= versions["2.0.0"]["first"]
    gap = versions["2.0.0"]["first"] - versions["1.0.0"]["last"]
    assert abs(gap - reported) < 4, (gap, reported)
    again = play(web, "recreate", "2.0.0")
    assert again.returncode == 0 and changed(again) == 0, again.stdout
    with web.traffic() as traffic:
        done = play(web, "rolling_update", "3.0.0")
        assert done.returncode == 0, done.stdout
    assert strategy(web)["type"] == "RollingUpdate" and traffic.seen["failed"] == 0, traffic.seen
    assert changed(play(web, "rollback", to_revision=1)) == 2 and image(web) == "1.0.0"


BAD = [
    ("nowhere", "ErrImagePull|ImagePullBackOff"),
    ("broken-crash", "CrashLoopBackOff.*cannot open database"),
    ("broken-500", "status 500"),
]


@pytest.mark.parametrize(("tag", "sentence"), BAD)
def test_a_bad_version_is_rolled_back_by_itself(web: Shop, tag: str, sentence: str) -> None:
    # What answers badly is caught before the pause is over: one pod of it had traffic for that long, as the strategy has it.
    with web.traffic() as traffic:
        done = play(web, "rolling_update", tag, profile="conservative")
    assert done.returncode != 0
    assert re.search(sentence, done.stdout), done.stdout
    assert f"it was rolled back, all pods run {IMAGE}:1.0.0 again" in done.stdout, done.stdout
    assert image(web) == "1.0.0" and not web.get("Deployment", "web")["spec"].get("paused")
    if tag != "broken-500":
        assert traffic.seen["failed"] == 0 and list(traffic.seen["versions"]) == ["1.0.0"], traffic.seen
    assert not web.exists("Lease", "release-deployment-web")


def test_a_rollout_pauses_at_its_first_pods_and_goes_on(web: Shop) -> None:
    command = [str(BIN / "ansible-playbook"), "progressive.delivery.rolling_update", "-e"]
    given = variables(web, "rolling_update", "2.0.0", pause_at=2, pause_seconds=6, profile="balanced")
    with web.traffic() as traffic:
        process = subprocess.Popen([*command, json.dumps(given)], cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        seen = set()
        while process.poll() is None:
            deployment = web.get("Deployment", "web")
            status = deployment["status"]
            if deployment["spec"].get("paused"):
                seen.add((status.get("updatedReplicas"), status.get("replicas")))
            time.sleep(0.2)
        assert process.returncode == 0, process.stdout and process.stdout.read()
    # Two on top of the three; on a busy machine one of the two may be ready, and an old one gone for it, before the rollout stops.
    assert seen and all(updated == 2 and replicas in (4, 5) for updated, replicas in seen if updated), seen
    assert image(web) == "2.0.0" and strategy(web)["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 1}
    assert traffic.seen["failed"] == 0, traffic.seen


def test_a_bad_version_at_the_pause_is_taken_back_and_nothing_stays_paused(web: Shop) -> None:
    done = play(web, "rolling_update", "broken-500", pause_at=1, profile="balanced")
    assert done.returncode != 0 and "it was rolled back" in done.stdout, done.stdout
    deployment = web.get("Deployment", "web")
    assert image(web) == "1.0.0" and not deployment["spec"].get("paused")
    assert web.step(wait_rollout, name="web", timeout=30)["status"]["phase"] == "complete"
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 1}


@pytest.mark.parametrize("delay", [1.5, 4.0, 7.0])
def test_a_run_that_is_killed_is_finished_by_the_next(web: Shop, delay: float) -> None:
    given = variables(web, "rolling_update", "2.0.0", pause_at=1, pause_seconds=2, profile="balanced")
    command = [str(BIN / "ansible-playbook"), "progressive.delivery.rolling_update", "-e", json.dumps(given)]
    with web.traffic() as traffic:
        process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = play(web, "rolling_update", "2.0.0", pause_at=1, pause_seconds=2, profile="balanced")
        assert done.returncode == 0, done.stdout
    deployment = web.get("Deployment", "web")
    assert image(web) == "2.0.0" and not deployment["spec"].get("paused")
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 1}
    assert web.step(rollout_info, name="web")["status"]["phase"] == "complete"
    assert traffic.seen["failed"] == 0, traffic.seen


def test_hold_is_gone_on_from_by_the_same_command(web: Shop) -> None:
    tests = [{"path": "/nowhere", "retries": 0}]
    done = play(web, "rolling_update", "2.0.0", profile="conservative", on_failure="hold", smoke_tests=tests)
    assert done.returncode != 0 and web.get("Deployment", "web")["spec"]["paused"], done.stdout
    done = play(web, "rolling_update", "2.0.0", profile="conservative", on_failure="hold")
    assert done.returncode == 0 and not web.get("Deployment", "web")["spec"].get("paused"), done.stdout


def test_what_fails_before_the_image_takes_nothing_back(web: Shop) -> None:
    assert play(web, "rolling_update", "2.0.0").returncode == 0
    given = variables(web, "rolling_update", "3.0.0", profile="balanced", max_surge=None, timeout=90)
    given["rolling_update_profile"], given["rolling_update_progress_deadline_seconds"] = "balanced", "5"
    given["rolling_update_min_ready_seconds"] = "9"
    done = web.playbook("progressive.delivery.rolling_update", given)
    assert done.returncode != 0 and "no new image was put on it" in done.stdout, done.stdout
    assert image(web) == "2.0.0"


def test_hold_pauses_and_fail_leaves_as_it_is(web: Shop) -> None:
    done = play(web, "rolling_update", "nowhere", profile="conservative", on_failure="hold")
    assert done.returncode != 0 and "it is held where it was" in done.stdout, done.stdout
    assert web.get("Deployment", "web")["spec"]["paused"] and image(web) == "nowhere"
    back = play(web, "rollback")
    assert back.returncode == 0 and image(web) == "1.0.0", back.stdout
    done = play(web, "rolling_update", "nowhere", profile="conservative", on_failure="fail")
    assert done.returncode != 0 and "it was left as it is" in done.stdout, done.stdout
    assert image(web) == "nowhere" and not web.get("Deployment", "web")["spec"].get("paused")


def test_the_way_back_takes_over_from_a_release_that_runs(web: Shop) -> None:
    given = variables(web, "rolling_update", "broken-ready", profile="conservative")
    command = [str(BIN / "ansible-playbook"), "progressive.delivery.rolling_update", "-e", json.dumps(given)]
    with web.traffic() as traffic:
        process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while image(web) != "broken-ready" and time.monotonic() < deadline:
            time.sleep(0.2)
        refused = play(web, "rolling_update", "3.0.0")
        assert refused.returncode != 0 and "is held by" in refused.stdout and "no new image was put on it" in refused.stdout, refused.stdout
        back = play(web, "rollback")
        assert back.returncode == 0, back.stdout
        output, _nothing = process.communicate(timeout=60)
    assert process.returncode != 0 and "somebody else" in output, output
    assert image(web) == "1.0.0" and traffic.seen["failed"] == 0
    assert not web.exists("Lease", "release-deployment-web")


def test_a_release_that_was_proven_is_not_taken_back_by_a_second_run(web: Shop) -> None:
    assert play(web, "rolling_update", "2.0.0").returncode == 0
    done = play(web, "rolling_update", "2.0.0", smoke_tests=[{"path": "/nowhere", "retries": 0}])
    assert done.returncode != 0 and "so nothing was taken back" in done.stdout, done.stdout
    assert image(web) == "2.0.0"


def test_who_wants_to_know_is_told(web: Shop, receiver: Receiver) -> None:
    url = f"{receiver.base}/hook"
    play(web, "rolling_update", "2.0.0", webhooks=[{"url": url}])
    play(web, "rolling_update", "nowhere", webhooks=[{"url": url, "format": "slack"}])
    play(web, "rollback", to_revision=1, webhooks=[{"url": url}])
    first, second, third = (request["body"] for request in receiver.requests())
    first, third = first["event"], third["event"]
    assert first["state"] == "released" and first["image"] == f"{IMAGE}:2.0.0" and first["namespace"] == web.namespace
    assert "ErrImagePull" in second["text"] or "ImagePullBackOff" in second["text"]
    assert third["state"] == "rolled_back" and third["image"] == f"{IMAGE}:1.0.0"


TROUBLES = {
    "image missing": {"image": "nowhere"},
    "crash loop": {"image": "broken-crash"},
    "never ready": {"image": "broken-ready"},
    "surge 0": {"image": "broken-ready", "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
    "quota exceeded": {"image": "2.0.0", "pods": 3, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}},
}


@pytest.mark.parametrize("given", TROUBLES.values(), ids=TROUBLES)
def test_the_way_back_out_of_any_trouble(web: Shop, given: dict[str, Any]) -> None:
    if "strategy" in given:
        web.cluster.patch(web.ref("Deployment", "web"), {"spec": {"strategy": given["strategy"]}}, MERGE_PATCH)
    if "pods" in given:
        spec = {"hard": {"pods": str(given["pods"])}}
        web.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": spec})
        time.sleep(1)
    with web.traffic() as traffic:
        assert web.step(set_image, name="web", images={"app": f"{IMAGE}:{given['image']}"})["changed"]
        time.sleep(2)
        done = play(web, "rollback")
        assert done.returncode == 0, done.stdout
    assert image(web) == "1.0.0" and traffic.seen["failed"] == 0, traffic.seen
    assert web.step(rollout_info, name="web")["status"]["phase"] == "complete"


SET = {"apiVersion": "apps/v1", "kind": "StatefulSet"}


@pytest.fixture
def store(web: Shop) -> Shop:
    """Return a namespace with a StatefulSet of two pods of podinfo 1.0.0 behind the Service web, in place of the Deployment."""
    deployment = web.get("Deployment", "web")
    kept = {key: deployment["spec"][key] for key in ("replicas", "selector", "template")}
    web.cluster.delete(web.ref("Deployment", "web"))
    manifest = {
        **SET,
        "metadata": {"name": "web"},
        "spec": {**kept, "replicas": 2, "serviceName": "web"},
    }
    ref = web.create(manifest)
    assert web.step(wait_rollout, kind=ref.kind, name="web", timeout=60)["status"]["phase"] == "complete"
    return web


def ready(shop: Shop) -> list[dict[str, Any]]:
    """Return the pods of the StatefulSet that are ready."""
    return [entry for entry in shop.step(rollout_info, kind="StatefulSet", name="web")["pods"] if entry["ready"]]


def test_a_stateful_set_pauses_by_its_partition_and_goes_back(store: Shop) -> None:
    given = {"kind": "StatefulSet", "pause_at": 1, "pause_seconds": 1}
    with store.traffic() as traffic:
        done = play(store, "rolling_update", "2.0.0", **given)
        assert done.returncode == 0, done.stdout
        again = play(store, "rolling_update", "2.0.0", **given)
        assert again.returncode == 0 and changed(again) == 0, again.stdout
        done = play(store, "rolling_update", "broken-500", **given)
        assert done.returncode != 0 and "it was rolled back" in done.stdout, done.stdout
        assert image(store, kind="StatefulSet") == "2.0.0"
        back = play(store, "rollback", to_revision=1)
        assert back.returncode == 0, back.stdout
    assert image(store, kind="StatefulSet") == "1.0.0"
    assert {"1.0.0", "2.0.0"} <= set(traffic.seen["versions"])


def test_a_stateful_set_killed_in_its_pause_is_tested_before_it_goes_on(store: Shop) -> None:
    given = variables(store, "rolling_update", "2.0.0", kind="StatefulSet", pause_at=1, pause_seconds=30)
    command = [str(BIN / "ansible-playbook"), "progressive.delivery.rolling_update", "-e", json.dumps(given)]
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    kinds.until(
        lambda: "2.0.0" in {entry["images"]["app"].rpartition(":")[2] for entry in ready(store)}, "a pod of the new version is ready"
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    partition = store.get("StatefulSet", "web")["spec"]["updateStrategy"]["rollingUpdate"].get("partition")
    bad = play(store, "rolling_update", "2.0.0", kind="StatefulSet", pause_at=1, smoke_tests=[{"path": "/nowhere", "retries": 0}])
    assert bad.returncode != 0, bad.stdout
    assert image(store, kind="StatefulSet") == "1.0.0", (partition, bad.stdout)
    assert store.get("StatefulSet", "web")["spec"]["updateStrategy"]["rollingUpdate"].get("partition") == 0
    assert store.step(wait_rollout, kind="StatefulSet", name="web", timeout=30)["status"]["phase"] == "complete"


def test_another_image_is_released_over_a_stateful_set_that_is_held_and_the_way_back_is_to_what_worked(store: Shop) -> None:
    done = play(store, "rolling_update", "nowhere", kind="StatefulSet", on_failure="hold")
    assert done.returncode != 0 and "it is held where it was" in done.stdout, done.stdout
    assert store.get("StatefulSet", "web")["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == 2
    with store.traffic() as traffic:
        done = play(store, "rolling_update", "2.0.0", kind="StatefulSet")
        assert done.returncode == 0, done.stdout
        assert {entry["images"]["app"] for entry in ready(store)} == {f"{IMAGE}:2.0.0"}
        # Not to the image that never started, which is the revision before.
        back = play(store, "rollback")
        assert back.returncode == 0 and image(store, kind="StatefulSet") == "1.0.0", back.stdout
    assert traffic.seen["failed"] == 0, traffic.seen


def test_a_daemon_set_that_is_held_goes_back(web: Shop) -> None:
    labels = {"app": "agent"}
    template = web.get("Deployment", "web")["spec"]["template"]
    template = {**template, "metadata": {"labels": labels}}
    web.create(
        {**SET, "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
    )
    given = {"kind": "DaemonSet", "name": "agent"}
    assert web.step(wait_rollout, **given, timeout=60)["status"]["phase"] == "complete"
    done = play(web, "rolling_update", "nowhere", **given, on_failure="hold")
    assert done.returncode != 0 and web.get("DaemonSet", "agent")["spec"]["updateStrategy"]["type"] == "OnDelete", done.stdout
    back = play(web, "rollback", name="agent")
    assert back.returncode == 0 and image(web, "agent", "DaemonSet") == "1.0.0", back.stdout
    assert web.get("DaemonSet", "agent")["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    assert web.step(wait_rollout, **given, timeout=60)["status"]["phase"] == "complete"


def test_a_stateful_set_with_a_version_that_never_starts_comes_back(store: Shop) -> None:
    with store.traffic() as traffic:
        done = play(store, "rolling_update", "broken-crash", kind="StatefulSet")
    assert done.returncode != 0 and "it was rolled back" in done.stdout, done.stdout
    assert store.step(wait_rollout, kind="StatefulSet", name="web", timeout=30)["status"]["phase"] == "complete"
    assert traffic.seen["failed"] == 0, traffic.seen


REFUSED = [
    ("rolling_update", {"name": "nope"}, "Deployment {namespace}/nope does not exist"),
    ("rolling_update", {"name": ""}, "rolling_update_name is empty"),
    ("rolling_update", {"namespace": "nope"}, 'there is no namespace "nope"'),
    ("rolling_update", {"image": "not an image"}, "not an image"),
    ("rolling_update", {"image": ""}, "image"),
    ("rolling_update", {"container": "nope"}, 'no container "nope"'),
    ("rolling_update", {"profile": "quick"}, "quick"),
    ("rolling_update", {"profile": "fast", "max_surge": "1"}, "profile"),
    ("rolling_update", {"max_surge": "0", "max_unavailable": "0"}, "0"),
    ("rolling_update", {"max_surge": "many"}, "many"),
    ("rolling_update", {"pause_at": 4, "profile": "balanced"}, "cannot pause at 4"),
    ("rolling_update", {"pause_at": 1}, "pause_at"),
    ("rolling_update", {"pause_at": -1}, "pause_at"),
    ("rolling_update", {"on_failure": "panic"}, "panic"),
    ("rolling_update", {"kind": "Pod"}, "Pod"),
    ("rolling_update", {"timeout": 0}, "timeout"),
    ("rolling_update", {"smoke_tests": [{"pth": "/"}]}, "pth"),
    ("rolling_update", {"practices": {"readyness": "refuse"}}, "readyness"),
    ("rolling_update", {"expected_context": "production"}, "this is the wrong cluster"),
    ("recreate", {"name": "nope"}, "Deployment {namespace}/nope does not exist"),
    ("recreate", {"image": "web:"}, "web:"),
    ("rollback", {"name": "nope"}, "there is no Deployment, StatefulSet or DaemonSet nope"),
    ("rollback", {"namespace": "nope"}, 'there is no namespace "nope"'),
    ("rollback", {"to_revision": 7}, "revision 7"),
    ("rollback", {"to_revision": "last"}, "rollback_to_revision must be a number that the history shows, 1 or more, got last"),
    ("rollback", {"to_revision": 0}, "rollback_to_revision must be a number that the history shows, 1 or more, got 0"),
    ("rollback", {}, "revision"),
    ("rollback", {"kind": "DaemonSet"}, "DaemonSet {namespace}/web does not exist"),
]


def test_bad_input_gets_one_sentence_and_changes_nothing(web: Shop) -> None:
    def now() -> tuple[Any, ...]:
        found = web.get("Deployment", "web")["metadata"]
        return found["generation"], found.get("annotations"), web.exists("Lease", "release-deployment-web")

    before = now()
    for role in ("rolling_update", "recreate", "rollback"):
        rows = [(given, sentence) for of, given, sentence in REFUSED if of == role]
        told = web.refusals(role, [variables(web, role, "2.0.0", **given) for given, _sentence in rows])
        for (given, sentence), words in zip(rows, told):
            assert sentence.format(namespace=web.namespace) in words, (role, given, words)
        assert now() == before, role
        # The playbook fails with it too.
        given, sentence = rows[0]
        done = play(web, role, "2.0.0", **given)
        assert done.returncode != 0 and sentence.format(namespace=web.namespace) in done.stdout, done.stdout


def test_a_workload_that_somebody_paused_is_not_released_over(web: Shop) -> None:
    assert web.step(pause_rollout, name="web", state="paused")["changed"]
    done = play(web, "rolling_update", "2.0.0")
    assert done.returncode != 0 and "paused" in done.stdout, done.stdout
    assert image(web) == "1.0.0"


def test_the_lock_of_another_is_respected(web: Shop) -> None:
    assert web.step(release_lock, name="release-deployment-web", holder="somebody")["changed"]
    done = play(web, "recreate", "2.0.0")
    assert done.returncode != 0 and 'is held by "somebody"' in done.stdout, done.stdout
    assert image(web) == "1.0.0"


def test_the_way_back_of_what_was_deployed_by_others_needs_no_record(web: Shop) -> None:
    assert web.step(set_image, name="web", images={"app": f"{IMAGE}:broken-ready"})["changed"]
    seen = play(web, "rollback", "", "--check", "--diff")
    assert seen.returncode == 0 and "broken-ready" in seen.stdout and "1.0.0" in seen.stdout, seen.stdout
    assert image(web) == "broken-ready"
    assert play(web, "rollback").returncode == 0 and image(web) == "1.0.0"


@pytest.mark.parametrize("role", ["recreate", "rolling_update"])
def test_the_way_back_goes_to_what_serves_and_not_to_what_somebody_put_on_it_in_vain(web: Shop, role: str) -> None:
    assert web.step(set_image, name="web", images={"app": f"{IMAGE}:broken-ready"})["changed"]
    done = play(web, role, "broken-crash")
    assert done.returncode != 0 and f"it was rolled back, all pods run {IMAGE}:1.0.0 again" in done.stdout, done.stdout
    assert image(web) == "1.0.0"


def test_a_way_back_to_what_nothing_is_known_of_says_so_in_the_words_of_the_role(web: Shop) -> None:
    for tag in ("broken-crash", "2.0.0"):
        assert web.step(set_image, name="web", images={"app": f"{IMAGE}:{tag}"})["changed"]
        time.sleep(2)
    web.step(wait_rollout, name="web", timeout=60)
    seen = play(web, "rollback", "", "--check")
    assert seen.returncode == 0 and "nothing is recorded of revision 2" in seen.stdout, seen.stdout
    assert "give -e rollback_to_revision=NUMBER" in seen.stdout and f"1 (app {IMAGE}:1.0.0)" in seen.stdout, seen.stdout
    assert play(web, "rollback", to_revision=1).returncode == 0 and image(web) == "1.0.0"


def test_a_workload_of_another_kind_is_named(web: Shop) -> None:
    done = play(web, "rolling_update", "2.0.0", kind="StatefulSet")
    assert done.returncode != 0 and "there is a Deployment web in namespace" in done.stdout, done.stdout


def test_what_was_taken_back_to_a_dead_end_is_taken_back_to_what_serves(web: Shop) -> None:
    for tag in ("broken-ready", "broken-crash"):
        assert web.step(set_image, name="web", images={"app": f"{IMAGE}:{tag}"})["changed"]
        time.sleep(2)
    assert web.step(undo_rollout, name="web", to_revision=2)["changed"] and image(web) == "broken-ready"
    assert play(web, "rollback").returncode == 0 and image(web) == "1.0.0"
    again = play(web, "rollback")
    assert again.returncode == 0 and changed(again) == 0 and image(web) == "1.0.0", again.stdout
