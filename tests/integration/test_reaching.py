# SPDX-License-Identifier: GPL-3.0-or-later
"""How steps reach a cluster: through faults of the API server, as a user without rights, from inside of a pod."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.modules import (
    release_lock,
    rollout_info,
    scale,
    set_image,
    smoke_test,
    switch_color,
    wait_rollout,
)
from support.live import BIN, LOCAL, ROOT, Shop, clean_environment
from support.proxy import FaultyDoor

pytestmark = pytest.mark.cluster
IMAGE = "localhost:32000/podinfo"


@pytest.fixture
def door(shop: Shop, tmp_path: Path) -> Iterator[FaultyDoor]:
    """Return a door in front of the API server that can be told to fail."""
    with FaultyDoor(shop.kubeconfig, tmp_path) as found:
        yield found


def through(door: FaultyDoor, **options: Any) -> dict[str, Any]:
    """Return options that go through the door."""
    return {"kubeconfig": None, "host": door.url, "api_key": "unused", **options}


@pytest.mark.parametrize("how", ["429", "503", "500", "drop"])
def test_a_read_and_a_write_are_tried_again(shop: Shop, door: FaultyDoor, how: str) -> None:
    door.fail(how, 2, "GET")
    door.fail(how, 2, "PATCH")
    outcome = shop.step(scale, name="web-blue", replicas=3, **through(door))
    assert outcome["changed"] and shop.get("Deployment", "web-blue")["spec"]["replicas"] == 3, outcome


def test_a_write_whose_answer_is_lost_counts_as_done_once(shop: Shop, door: FaultyDoor) -> None:
    door.fail("lose", 1, "PATCH")
    outcome = shop.step(set_image, name="web-blue", images={"app": f"{IMAGE}:2.0.0"}, **through(door))
    assert outcome["changed"] and outcome["revision"] == 2, outcome
    door.fail("lose", 1, "POST")
    outcome = shop.step(release_lock, name="lock", holder="me", **through(door))
    assert "failed" not in outcome and outcome["holder"] == "me", outcome


def test_an_api_server_that_stays_away_gets_one_sentence(shop: Shop, door: FaultyDoor) -> None:
    door.away = True
    outcome = shop.step(scale, name="web-blue", replicas=3, **through(door, retry_timeout=1))
    assert outcome["failed"] and outcome["reason"] == "Unavailable" and "does not answer" in outcome["msg"]
    assert "\n" not in outcome["msg"] and shop.get("Deployment", "web-blue")["spec"]["replicas"] == 2


def test_an_overloaded_api_server_is_named_when_it_stays_so(shop: Shop, door: FaultyDoor) -> None:
    door.fail("429", 100)
    outcome = shop.step(rollout_info, name="web-blue", **through(door, retry_timeout=1))
    assert outcome["failed"] and "429" in outcome["msg"], outcome


def test_a_wait_goes_on_when_its_watches_break_off(shop: Shop, door: FaultyDoor) -> None:
    shop.step(set_image, name="web-blue", images={"app": f"{IMAGE}:2.0.0"})
    breaker = threading.Thread(target=lambda: [(time.sleep(0.4), door.cut()) for _round in range(3)])
    breaker.start()
    outcome = shop.step(wait_rollout, name="web-blue", timeout=60, **through(door))
    breaker.join()
    assert "failed" not in outcome and outcome["status"]["phase"] == "complete", outcome


def test_a_wait_outlives_a_restart_of_the_api_server(shop: Shop, door: FaultyDoor) -> None:
    shop.step(set_image, name="web-blue", images={"app": f"{IMAGE}:2.0.0"})
    found: dict[str, Any] = {}
    waiter = threading.Thread(target=lambda: found.update(shop.step(wait_rollout, name="web-blue", timeout=60, **through(door))))
    waiter.start()
    time.sleep(0.5)
    door.go_away(6)
    waiter.join()
    assert "failed" not in found and found["status"]["phase"] == "complete", found


def test_who_may_not_is_told_which_verb_on_what(shop: Shop) -> None:
    stranger = {"impersonate_user": "stranger"}
    outcome = shop.step(rollout_info, name="web-blue", **stranger)
    assert outcome["reason"] == "Forbidden" and f"Not allowed to get Deployment {shop.namespace}/web-blue" in outcome["msg"]
    assert 'User "stranger"' in outcome["msg"] and "\n" not in outcome["msg"]


READER = [
    {"apiGroups": ["", "apps", "discovery.k8s.io", "autoscaling"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
]


def test_check_mode_shows_that_a_write_is_not_allowed(shop: Shop, tmp_path: Path) -> None:
    _role(shop, tmp_path, READER)
    for check in (True, False):
        outcome = shop.step(scale, check=check, name="web-blue", replicas=5, impersonate_user="reader")
        assert outcome["reason"] == "Forbidden" and "Not allowed to patch Deployment" in outcome["msg"], outcome
        outcome = shop.step(switch_color, check=check, name="web", color="blue", annotations={"a": "b"}, impersonate_user="reader")
        assert outcome["reason"] == "Forbidden" and "Not allowed to patch Service" in outcome["msg"], outcome
    assert shop.get("Deployment", "web-blue")["spec"]["replicas"] == 2


def _role(shop: Shop, folder: Path, rules: list[dict[str, Any]], subject: dict[str, str] | None = None) -> None:
    """Grant rules in the namespace to the user "reader" or to another subject, with kubernetes.core."""
    subject = subject or {"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
    rbac, meta = "rbac.authorization.k8s.io", {"name": "granted", "namespace": shop.namespace}
    reference = {"apiGroup": rbac, "kind": "Role", "name": "granted"}
    objects = [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": reference, "subjects": [subject]},
    ]
    tasks = [{"kubernetes.core.k8s": {"kubeconfig": shop.kubeconfig, "definition": entry}} for entry in objects]
    book = folder / "grant.yml"
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    done = shop.playbook(str(book), {})
    assert done.returncode == 0, done.stdout


def test_inside_of_a_pod_its_service_account_is_used(shop: Shop, tmp_path: Path) -> None:
    """A mount namespace stands in for the pod's file system; token, CA and addresses are those that a pod has."""
    folder = Path(shop.kubeconfig).resolve().parent
    if folder.parent != LOCAL or os.geteuid() != 0:
        pytest.skip("needs the local cluster's network and root")
    _role(shop, tmp_path, READER, {"kind": "ServiceAccount", "name": "default", "namespace": shop.namespace})
    path = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/default/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = shop.cluster._json("POST", path, {}, request)["status"]["token"]
    secret = tmp_path / "serviceaccount"
    secret.mkdir()
    (secret / "token").write_text(token)
    (secret / "namespace").write_text(shop.namespace)
    (secret / "ca.crt").write_bytes((folder / "pki" / "ca.crt").read_bytes())
    book = tmp_path / "inside.yml"
    tasks = [
        {"progressive.delivery.rollout_info": {"name": "web-blue"}, "register": "found"},
        {"ansible.builtin.assert": {"that": "found.status.available == 2"}},
        {"progressive.delivery.scale": {"name": "web-blue", "replicas": 5}, "register": "refused", "ignore_errors": True},
        {"ansible.builtin.assert": {"that": "refused.reason == 'Forbidden'"}},
    ]
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = f'mount -t tmpfs none /var/run && mkdir -p {where} && cp "$1"/* {where}/ && shift && exec "$@"'
    inside = ["nsenter", f"--net=/run/netns/pd-{folder.name}", "unshare", "-m", "sh", "-c", script, "sh", str(secret)]
    environment = clean_environment(KUBERNETES_SERVICE_HOST="10.96.0.1", KUBERNETES_SERVICE_PORT="443")
    for name in ("auto", "module"):
        done = subprocess.run(
            [*inside, str(BIN / "ansible-playbook"), str(book), "-e", json.dumps({"delivery_door": name})],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert token not in done.stdout


def test_options_may_come_from_the_environment_as_in_kubernetes_core(shop: Shop, tmp_path: Path) -> None:
    book = tmp_path / "environment.yml"
    task = {"progressive.delivery.rollout_info": {"name": "web-blue", "namespace": shop.namespace}}
    core = {"kubernetes.core.k8s_info": {"kind": "Deployment", "name": "web-blue", "namespace": shop.namespace}}
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task, core]}]))
    command = [str(BIN / "ansible-playbook"), str(book)]
    good = clean_environment(K8S_AUTH_KUBECONFIG=shop.kubeconfig, HOME=str(tmp_path))
    assert subprocess.run(command, env=good, cwd=ROOT, capture_output=True, check=False).returncode == 0
    wrong = subprocess.run(command, env={**good, "K8S_AUTH_CONTEXT": "nope"}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode != 0 and 'has no context "nope"' in wrong.stdout.replace('\\"', '"')
    none = clean_environment(HOME=str(tmp_path))
    missing = subprocess.run(command, env=none, cwd=ROOT, capture_output=True, text=True, check=False)
    assert missing.returncode != 0 and "does not exist; set kubeconfig" in missing.stdout


@pytest.mark.parametrize("given", [{"become": True}, {"environment": {"A": "b"}}, {"async": 30, "poll": 1}])
def test_what_the_process_cannot_do_itself_takes_the_other_door(shop: Shop, tmp_path: Path, given: dict[str, Any]) -> None:
    if given.get("become") and os.geteuid() != 0:
        pytest.skip("needs root")
    book = tmp_path / "door.yml"
    options = {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace, "name": "web-blue", "replicas": 2}
    task = {"progressive.delivery.scale": options, "register": "found", **given}
    check = {"ansible.builtin.assert": {"that": ["not found.changed", "found.after.replicas == 2"]}}
    book.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task, check]}]))
    done = shop.playbook(str(book), {})
    assert done.returncode == 0, done.stdout


def test_several_groups_can_be_impersonated_and_exec_says_that_it_cannot(shop: Shop) -> None:
    admin = {"impersonate_user": "somebody", "impersonate_groups": ["nobodies", "system:masters"]}
    assert shop.step(rollout_info, name="web-blue", **admin)["status"]["available"] == 2
    assert "failed" not in shop.step(smoke_test, name="web-blue", via="pod_proxy", path="/healthz", **admin)
    refused = shop.step(smoke_test, name="web-blue", path="/healthz", retries=0, **admin)
    assert refused["failed"] and "cannot exec into" in refused["msg"] and "use via: pod_proxy" in refused["msg"], refused


def test_a_kubeconfig_with_a_token_works_for_all_that_a_step_does(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exec_rule = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]}
    account = {"kind": "ServiceAccount", "name": "default", "namespace": shop.namespace}
    _role(shop, tmp_path, [*READER, exec_rule], account)
    path = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/default/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = shop.cluster._json("POST", path, {}, request)["status"]["token"]
    document = yaml.safe_load(Path(shop.kubeconfig).read_text())
    document["users"][0]["user"] = {"token": token}
    given = {"kubeconfig": document}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert shop.step(rollout_info, name="web-blue", **given)["status"]["available"] == 2
    outcome = shop.step(smoke_test, name="web-blue", path="/healthz", **given)
    assert "failed" not in outcome and outcome["status"] == 200, outcome
    assert os.listdir(scratch) == []
    outcome = shop.step(scale, name="web-blue", replicas=3, **given)
    assert outcome["reason"] == "Forbidden" and token not in json.dumps(outcome), outcome


def test_an_exec_that_is_not_allowed_says_so_in_one_sentence(shop: Shop, tmp_path: Path) -> None:
    account = {"kind": "ServiceAccount", "name": "default", "namespace": shop.namespace}
    _role(shop, tmp_path, READER, account)
    path = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/default/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = shop.cluster._json("POST", path, {}, request)["status"]["token"]
    document = yaml.safe_load(Path(shop.kubeconfig).read_text())
    document["users"][0]["user"] = {"token": token}
    outcome = shop.step(smoke_test, name="web-blue", path="/healthz", retries=0, kubeconfig=document)
    assert outcome["reason"] == "Forbidden", outcome
    assert outcome["msg"].startswith("Not allowed to exec into Pod") and "verbs create and get on pods/exec" in outcome["msg"], outcome[
        "msg"
    ]
    assert "audit-id" not in outcome["msg"]
