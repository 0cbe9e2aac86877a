# SPDX-License-Identifier: GPL-3.0-or-later
"""Every step through both doors: in the controller's process, and as an ordinary module. They must agree."""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Ref
from ansible_collections.progressive.delivery.plugins.modules import set_image
from support.answering import Server
from support.live import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.oldest]

# {step: (options, whether the first run changes something)}, in an order in which they build on each other.
STEPS: list[tuple[str, dict[str, Any], bool]] = [
    ("release_lock", {"name": "web", "holder": "contract"}, True),
    ("clone_workload", {"name": "web-green", "source": "web-blue", "labels": {"version": "green"}}, True),
    ("clone_service", {"name": "web-copy", "source": "web", "labels": {"version": "copy"}}, True),
    ("clone_service", {"name": "web-copy", "source": "web", "state": "absent"}, True),
    ("set_image", {"name": "web-green", "images": {"app": "localhost:32000/podinfo:2.0.0"}}, True),
    ("scale", {"name": "web-green", "replicas": 2}, True),
    ("set_strategy", {"name": "web-green", "profile": "balanced", "min_ready_seconds": 1}, True),
    ("wait_rollout", {"name": "web-green", "timeout": 60}, False),
    ("mark_released", {"name": "web-green"}, True),
    ("practices_info", {"name": "web-green", "checks": ["image_tag", "graceful_stop", "disruption_budget"]}, False),
    ("wait_rollout", {"name": "web-green", "timeout": 60, "min_updated": 2, "min_ready": 2}, False),
    ("smoke_test", {"name": "web-green", "path": "/version", "json": {"version": "2.0.0"}}, False),
    ("compare_workloads", {"baseline": "web-blue", "candidate": "web-green", "seconds": 0, "on_no_data": "pass"}, False),
    ("switch_color", {"name": "web", "color": "green"}, True),
    ("set_canary_weight", {"provider": "ingress_nginx", "name": "web", "stable": "web", "canary": "web-canary", "weight": 20}, True),
    ("set_canary_weight", {"provider": "ingress_nginx", "name": "web", "stable": "web", "canary": "web-canary", "state": "absent"}, True),
    ("set_audience", {"provider": "ingress_nginx", "name": "web", "stable": "web", "variant": "web-canary", "headers": {"a": "b"}}, True),
    ("observe_workload", {"name": "web-green", "seconds": 0}, False),
    ("route_info", {"name": "web"}, False),
    ("rollout_info", {"name": "web-green"}, False),
    ("strategy_info", {"name": "web-green"}, False),
    ("undo_rollout", {"name": "web-green", "to_revision": 1}, True),
    ("pause_rollout", {"name": "web-green"}, True),
]
REFUSED = [
    ("abort_canary", {"name": "nope"}),
    ("clone_service", {"name": "web-green", "source": "nope", "labels": {"version": "x"}}),
    ("clone_service", {"name": "web", "source": "nope", "state": "absent"}),
    ("clone_workload", {"name": "web-x", "source": "web-blue"}),
    ("set_image", {"name": "nope", "images": {"app": "a:1"}}),
    ("scale", {"name": "web-blue", "replicas": -1}),
    ("scale", {"name": "web-blue", "replicas": "many"}),
    ("scale", {"name": "web-blue", "replicas": 1, "expected_context": "production"}),
    ("flagger_canary", {"name": "web-blue", "port": 80, "iterations": 2, "step_weight": 10}),
    ("flagger_gate", {"name": "web-blue", "gate": "door"}),
    ("set_audience", {"provider": "ingress_nginx", "name": "web", "stable": "web", "variant": "web-canary", "headers": {"a b": "c"}}),
    ("set_canary_weight", {"provider": "ingress_nginx", "name": "web", "stable": "web", "canary": "web-canary", "weight": 101}),
    ("set_canary_weight", {"provider": "replicas", "name": "web", "stable": "web-blue", "canary": "nope", "weight": 5}),
    ("set_strategy", {"name": "web-blue", "profile": "fast", "max_surge": 1}),
    ("set_strategy", {"name": "web-blue", "profile": "daring"}),
    ("switch_color", {"name": "web", "color": "purple"}),
    ("undo_rollout", {"name": "web-blue", "to_revision": 9}),
    ("undo_rollout", {"name": "web-blue"}),
    ("undo_rollout", {"name": "web-blue", "to_revision": 0}),
    ("pause_rollout", {"name": "web-blue", "state": "stopped"}),
    ("pause_rollout", {"name": "nope", "kind": "StatefulSet"}),
    ("load_test", {"url": "ftp://web/"}),
    ("load_test", {"url": "http://127.0.0.1:1/", "thresholds": {"p98": 1}}),
    ("load_test", {"url": "http://127.0.0.1:1/", "http_version": "3"}),
    ("mark_released", {"name": "nope"}),
    ("compare_workloads", {"baseline": "web-blue", "candidate": "web-blue"}),
    ("compare_workloads", {"baseline": "web-blue", "candidate": "web-green", "seconds": 0}),
    ("mirror_traffic", {"provider": "ingress_nginx", "name": "web", "stable": "web", "to": "web-canary"}),
    ("mirror_traffic", {"provider": "traefik", "name": "web", "stable": "web", "to": "web-canary", "percent": 101}),
    ("practices_info", {"name": "web-blue", "checks": ["staged"]}),
    ("practices_info", {"name": "web-blue", "checks": ["nonsense"]}),
    ("smoke_test", {"name": "web-blue", "status": [418], "retries": 0}),
    ("wait_canary", {"name": "nope"}),
    ("wait_canary", {"name": "nope", "until": "over"}),
    ("wait_rollout", {"name": "web-blue", "nonsense": 1}),
    ("strategy_info", {"name": "nope"}),
    ("wait_rollout", {"name": "web-blue", "min_updated": 9}),
    ("wait_rollout", {"name": "web-blue", "min_ready": -1}),
    ("wait_rollout", {"name": "web-blue", "resume": {"what": "something else"}}),
]
VARYING = (
    *("duration", "invocation", "pods", "tries", "by", "body", "facts", "observed", "revisions", "settled"),
    *("deprecations", "warnings", "ansible_facts"),
    # It has the ages.
    "summary",
)
ASYNCHRONOUS = ("ansible_job_id", "finished", "results_file", "started", "stderr", "stderr_lines", "stdout", "stdout_lines")


def play(shop: Shop, folder: Path, tasks: list[dict[str, Any]], door: str, *arguments: str) -> list[dict[str, Any]]:
    """Run tasks through a door and return their results."""
    book = folder / f"{door}.yml"
    out = folder / f"{door}.json"
    last = {"ansible.builtin.copy": {"content": "{{ results | to_json }}", "dest": str(out), "mode": "0600"}, "check_mode": False}
    collected: list[dict[str, Any]] = []
    for number, task in enumerate(tasks):
        collected.append({**task, "register": f"r{number}", "ignore_errors": True})
    names = ", ".join(f"r{number}" for number in range(len(tasks)))
    document = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "module_defaults": {"group/progressive.delivery.delivery": {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace}},
            "vars": {"delivery_door": door, "results": f"{{{{ [{names}] }}}}"},
            "tasks": [*collected, last],
        }
    ]
    book.write_text(yaml.safe_dump(document, sort_keys=False))
    done = shop.playbook(str(book), {}, *arguments)
    assert out.exists(), done.stdout + done.stderr
    return json.loads(out.read_text())


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without what differs from run to run."""
    return {key: value for key, value in result.items() if key not in VARYING and not key.startswith(("_", "exception"))}


@pytest.mark.parametrize("door", ["auto", "module"])
def test_steps_change_once(shop: Shop, tmp_path: Path, door: str) -> None:
    tasks = [task for step, options, _changes in STEPS for task in [{f"progressive.delivery.{step}": options}] * 2]
    results = play(shop, tmp_path, tasks, door)
    for number, (step, _options, changes) in enumerate(STEPS):
        first, second = results[2 * number], results[2 * number + 1]
        assert not first.get("failed") and first["changed"] is changes, (step, first)
        assert not second.get("failed") and second["changed"] is False, (step, second)
        assert "duration" in first and "actions" in first


def test_both_doors_foresee_the_same_and_write_nothing(shop: Shop, tmp_path: Path) -> None:
    tasks = [
        {
            f"progressive.delivery.{step}": {
                **options,
                **({"name": "web-blue"} if options.get("name") == "web-green" and step != "clone_workload" else {}),
            }
        }
        for step, options, _changes in STEPS
        if step not in ("switch_color", "smoke_test")
    ]
    before = shop.get("Service", "web"), shop.get("Deployment", "web-blue")
    found = {door: [plain(result) for result in play(shop, tmp_path, tasks, door, "--check")] for door in ("auto", "module")}
    assert found["auto"] == found["module"]
    assert (shop.get("Service", "web"), shop.get("Deployment", "web-blue")) == before


def test_both_doors_refuse_alike(shop: Shop, tmp_path: Path) -> None:
    tasks = [{f"progressive.delivery.{step}": options} for step, options in REFUSED]
    found = {door: play(shop, tmp_path, tasks, door) for door in ("auto", "module")}
    for (step, options), here, there in zip(REFUSED, found["auto"], found["module"]):
        assert here["failed"] and there["failed"], (step, options)
        words = [str(result["msg"]).split(" module: ")[-1].split("Unsupported parameters: ")[-1] for result in (here, there)]
        if "nonsense" not in options:
            assert words[0].split(" (answered by")[0] == words[1].split(" (answered by")[0]
        assert "\n" not in words[0]


def test_a_token_never_shows(shop: Shop, tmp_path: Path) -> None:
    book = tmp_path / "secret.yml"
    options = {"name": "web-blue", "replicas": 1, "host": "https://127.0.0.1:1", "api_key": "s3cr3t-token", "retry_timeout": 0}
    document = [{"hosts": "localhost", "gather_facts": False, "tasks": [{"progressive.delivery.scale": options}]}]
    for door in ("auto", "module"):
        book.write_text(yaml.safe_dump(document))
        done = shop.playbook(str(book), {"delivery_door": door}, "-vvv", "--diff")
        assert done.returncode != 0 and "does not answer" in done.stdout
        assert "s3cr3t-token" not in done.stdout.replace(str(book.read_text()), "")


def test_defaults_of_one_step_are_not_given_to_another(shop: Shop, tmp_path: Path) -> None:
    book = tmp_path / "defaults.yml"
    defaults = {
        "group/progressive.delivery.delivery": {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace},
        "progressive.delivery.scale": {"replicas": 2},
    }
    tasks = [{"progressive.delivery.scale": {"name": "web-blue"}}, {"progressive.delivery.route_info": {"name": "web"}}]
    document = [{"hosts": "localhost", "gather_facts": False, "module_defaults": defaults, "tasks": tasks}]
    book.write_text(yaml.safe_dump(document))
    done = shop.playbook(str(book), {})
    assert done.returncode == 0, done.stdout


def run(shop: Shop, folder: Path, task: dict[str, Any], door: str, *arguments: str) -> Any:
    """Run one task through a door and return the finished ansible-playbook."""
    book = folder / "one.yml"
    defaults = {"group/progressive.delivery.delivery": {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace}}
    play = {"hosts": "localhost", "gather_facts": False, "module_defaults": defaults, "vars": {"delivery_door": door}, "tasks": [task]}
    book.write_text(yaml.safe_dump([play]))
    return shop.playbook(str(book), {}, *arguments)


@pytest.mark.parametrize("door", ["auto", "module"])
def test_a_task_that_hides_its_results_shows_nothing(shop: Shop, tmp_path: Path, door: str) -> None:
    task = {"progressive.delivery.set_image": {"name": "web-blue", "images": {"app": "localhost:32000/podinfo:2.0.0"}}, "no_log": True}
    done = run(shop, tmp_path, task, door, "-vvv", "--diff")
    assert done.returncode == 0 and "podinfo:2.0.0" not in done.stdout, done.stdout
    task = {"progressive.delivery.wait_rollout": {"name": "web-blue"}, "no_log": True}
    done = run(shop, tmp_path, task, door)
    assert done.returncode == 0 and "updated" not in done.stdout, done.stdout


# {name: (door, keywords of the task, whether it tells how far it is)}; the module is called in slices, unless it is asynchronous.
WAITS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "in process": ("auto", {}, True),
    "as a module": ("module", {}, True),
    "as a module of another user": ("auto", {"become": True}, True),
    "hidden": ("module", {"no_log": True}, False),
    "asynchronous": ("auto", {"async": 120, "poll": 2}, False),
}


def test_a_long_wait_tells_how_far_it_is_through_every_door_and_ends_alike(shop: Shop, tmp_path: Path) -> None:
    shop.cluster.patch(Ref("Deployment", shop.namespace, "web-blue"), {"spec": {"minReadySeconds": 14}}, MERGE_PATCH)
    images = {"app": "localhost:32000/podinfo:2.0.0"}
    revision = shop.step(set_image, name="web-blue", images=images)["revision"]
    options = {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace, "name": "web-blue", "revision": revision}
    lines: dict[str, list[tuple[float, str]]] = {name: [] for name in WAITS}

    def wait(name: str) -> None:
        door, keywords, _tells = WAITS[name]
        book, out = tmp_path / f"{name}.yml", tmp_path / f"{name}.json"
        task = {"progressive.delivery.wait_rollout": options, "register": "found", **keywords}
        keep = {"ansible.builtin.copy": {"content": "{{ found | to_json }}", "dest": str(out), "mode": "0600"}}
        play = {"hosts": "localhost", "gather_facts": False, "vars": {"delivery_door": door}, "tasks": [task, keep]}
        book.write_text(yaml.safe_dump([play]))
        assert shop.timed_playbook(str(book), {}, lines[name]) == 0, lines[name]

    names = [name for name, (_door, keywords, _tells) in WAITS.items() if os.geteuid() == 0 or "become" not in keywords]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(wait, names))
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in names}
    expected = plain(found["in process"])
    assert expected["status"]["phase"] == "complete" and expected["downtime"] == 0.0, expected
    # Who looks first sees pods that are not yet available by the new minReadySeconds.
    expected["availability"] = {"least": "any"}
    for name in names:
        said = [line for _at, line in lines[name] if line.startswith("  web-blue ")]
        assert bool(said) is WAITS[name][2] and len(set(said)) == len(said), (name, lines[name])
        read = [re.fullmatch(r"  web-blue +([0-9]+\.[0-9]) s  (still at work|.*[0-9] of 2 updated, .*)", line) for line in said]
        assert all(read), said
        result = {key: value for key, value in found[name].items() if key not in ASYNCHRONOUS}
        assert 0 <= result["availability"].pop("least") <= 2
        result["availability"]["least"] = "any"
        assert plain(result) == expected, (name, result)
        # That of all slices together.
        assert result["duration"] >= max((float(match[1]) for match in read if match), default=0.0) - 0.1, (said, result)


@pytest.mark.parametrize("door", ["auto", "module"])
def test_the_timeout_of_a_task_ends_a_wait(shop: Shop, tmp_path: Path, door: str) -> None:
    shop.cluster.patch(Ref("Deployment", shop.namespace, "web-blue"), {"spec": {"minReadySeconds": 50}}, MERGE_PATCH)
    image = {"progressive.delivery.set_image": {"name": "web-blue", "images": {"app": "localhost:32000/podinfo:2.0.0"}}}
    assert run(shop, tmp_path, image, door).returncode == 0
    started = time.monotonic()
    done = run(shop, tmp_path, {"progressive.delivery.wait_rollout": {"name": "web-blue"}, "timeout": 3}, door)
    assert done.returncode != 0 and "Timed out after 3 second" in done.stdout, done.stdout
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("door", ["auto", "module"])
def test_a_diff_is_in_the_words_of_the_domain(shop: Shop, tmp_path: Path, door: str) -> None:
    task = {"progressive.delivery.scale": {"name": "web-blue", "replicas": 3}}
    done = run(shop, tmp_path, task, door, "--check", "--diff")
    assert '-    "replicas": 2' in done.stdout and '+    "replicas": 3' in done.stdout, done.stdout
    assert "managedFields" not in done.stdout


@pytest.mark.parametrize("door", ["auto", "module"])
def test_no_key_stays_on_disk(shop: Shop, tmp_path: Path, door: str) -> None:
    # A short path: Ansible makes sockets in it, whose names have a hundred letters at most.
    scratch = Path(tempfile.mkdtemp(prefix="keys-"))
    book = tmp_path / "keys.yml"
    kubeconfig = yaml.safe_load(Path(shop.kubeconfig).read_text())
    tasks = [
        {"progressive.delivery.rollout_info": {"name": "web-blue", "kubeconfig": shop.kubeconfig}},
        {"progressive.delivery.rollout_info": {"name": "web-blue", "kubeconfig": kubeconfig}},
        {"progressive.delivery.rollout_info": {"name": "web-blue", "expected_context": "production"}, "ignore_errors": True},
        {"progressive.delivery.rollout_info": {"name": "nope"}, "ignore_errors": True},
    ]
    defaults = {"group/progressive.delivery.delivery": {"kubeconfig": shop.kubeconfig, "namespace": shop.namespace}}
    document = {"hosts": "localhost", "gather_facts": False, "module_defaults": defaults, "tasks": tasks}
    book.write_text(yaml.safe_dump([{**document, "vars": {"delivery_door": door}}]))
    done = shop.playbook(str(book), {}, TMPDIR=str(scratch))
    assert done.returncode == 0 and "ignored=2" in done.stdout, done.stdout
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


@pytest.mark.parametrize("door", ["auto", "module"])
def test_a_summary_is_printed_line_by_line_with_v_and_not_where_results_are_hidden(shop: Shop, tmp_path: Path, door: str) -> None:
    task = {"progressive.delivery.rollout_info": {"name": "web-blue"}}
    line = f"\n  Deployment {shop.namespace}/web-blue: complete, revision 1, 2 updated, 2 ready, 2 available of 2 pods\n"
    done = run(shop, tmp_path, task, door, "-v")
    assert done.returncode == 0 and line in done.stdout, done.stdout
    assert line not in run(shop, tmp_path, task, door).stdout
    assert line not in run(shop, tmp_path, {**task, "no_log": True}, door, "-vvv").stdout


def test_a_load_test_is_the_same_through_both_doors_and_shows_no_secret(shop: Shop, tmp_path: Path) -> None:
    common = {"requests": 40, "rate": 200, "version_field": "version", "headers": {"Authorization": "Bearer s3cr3t-token", "x-a": "1"}}
    measured = ("p50", "p90", "p95", "p99", "max", "mean", "seconds", "rps", "late", "repeated", "missed", "msg")
    for door in ("auto", "module"):
        with Server(lambda number: "1.0.0" if number % 4 else "2.0.0") as server:
            tasks = [
                {"progressive.delivery.load_test": {**common, "url": f"{server.url}/"}},
                {"progressive.delivery.load_test": {**common, "url": f"{server.url}/status/503", "thresholds": {"error_rate": "1%"}}},
            ]
            good, bad = play(shop, tmp_path, tasks, door)
            assert len(server.requests) == 80
            assert server.requests[0][3]["authorization"] == "Bearer s3cr3t-token"
            (foreseen,) = play(shop, tmp_path, tasks[:1], door, "--check")
            assert len(server.requests) == 80 and foreseen["requests"] == 0 and "no request was made" in foreseen["summary"][0]
            done = run(shop, tmp_path, tasks[1], door, "-vvv", "--diff")
            assert done.returncode != 0 and "s3cr3t-token" not in done.stdout and "\n  ERROR " in done.stdout, done.stdout
        assert good["changed"] is False and not good["failed"] and good["requests"] == 40 and good["failures"] == 0
        assert {name: entry["requests"] for name, entry in good["by_version"].items()} == {"1.0.0": 30, "2.0.0": 10}
        assert all(name in good for name in measured if name != "msg") and good["duration"] >= good["seconds"]
        assert bad["failed"] and bad["reason"] == "ThresholdMissed" and bad["errors"] == {"status_503": 40}
        assert bad["msg"].endswith("/status/503 misses its thresholds: error_rate is 100 % and must be 1 % at most")
        assert set(good) - {"failed"} <= set(foreseen) | {"ansible_facts"}
