# SPDX-License-Identifier: GPL-3.0-or-later
"""The role notify with a real receiver on loopback: what it is told, what happens when it does not listen, and what never shows."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.live import BIN, ROOT, Receiver, clean_environment

SECRET = "T00/B00/s3cr3t-part"
TOKEN = "s3cr3t-token"
EVENT = {
    "strategy": "rolling_update",
    "state": "failed",
    "namespace": "shop",
    "name": "web",
    "image": "podinfo:2.0.0",
    "reason": "pods <web-1> & <web-2> crash",
}
SENTENCE = "rolling_update of shop/web with podinfo:2.0.0: failed - pods <web-1> & <web-2> crash"


def notify(
    folder: Path, webhooks: list[dict[str, Any]], *arguments: str, entry: str = "main", **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run a play that tells the webhooks, and then one more task; the result of the role is in result.json."""
    out = folder / "result.json"
    out.unlink(missing_ok=True)
    given = {"notify_webhooks": webhooks, "notify_event": EVENT, "notify_delay": 0, **variables}
    (folder / "given.yml").write_text(yaml.safe_dump(given, sort_keys=False))
    tasks: list[dict[str, Any]] = [
        {"name": "Tell them", "ansible.builtin.include_role": {"name": "progressive.delivery.notify", "tasks_from": entry}},
        {
            "name": "The release goes on",
            "ansible.builtin.copy": {"content": "{{ notify_result | to_json }}", "dest": str(out), "mode": "0600"},
        },
    ]
    (folder / "book.yml").write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return subprocess.run(
        [str(BIN / "ansible-playbook"), str(folder / "book.yml"), "-e", f"@{folder / 'given.yml'}", *arguments],
        capture_output=True,
        text=True,
        env=clean_environment(no_proxy="127.0.0.1,localhost"),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def result(folder: Path) -> dict[str, Any]:
    """Return the fact notify_result."""
    return json.loads((folder / "result.json").read_text())


def shown(done: subprocess.CompletedProcess[str]) -> str:
    """Return all that a person sees."""
    return done.stdout + done.stderr


def test_json_has_the_sentence_and_the_event(receiver: Receiver, tmp_path: Path) -> None:
    done = notify(tmp_path, [{"url": f"{receiver.base}/hook/{SECRET}", "headers": {"Authorization": f"Bearer {TOKEN}"}}])
    assert done.returncode == 0 and "changed=1" in done.stdout, done.stdout
    (request,) = receiver.requests()
    assert request["path"] == f"/hook/{SECRET}" and request["headers"]["Authorization"] == f"Bearer {TOKEN}"
    assert request["headers"]["Content-Type"] == "application/json"
    assert request["body"] == {"text": SENTENCE, "event": EVENT}
    assert result(tmp_path) == {"told": ["127.0.0.1"], "troubles": []}


def test_slack_has_text_and_blocks_with_its_characters_escaped(receiver: Receiver, tmp_path: Path) -> None:
    done = notify(tmp_path, [{"url": f"{receiver.base}/services/{SECRET}", "format": "slack"}])
    assert done.returncode == 0, done.stdout
    body = receiver.requests()[0]["body"]
    escaped = SENTENCE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert body["text"] == escaped and set(body) == {"text", "blocks"}
    first, second = body["blocks"]
    assert first == {"type": "section", "text": {"type": "mrkdwn", "text": escaped}}
    lines = second["text"]["text"].splitlines()
    assert lines[0] == "*strategy*: rolling_update" and lines[-1] == "*reason*: pods &lt;web-1&gt; &amp; &lt;web-2&gt; crash"


def test_a_reason_that_is_very_long_stays_within_slacks_limits(receiver: Receiver, tmp_path: Path) -> None:
    event = {**EVENT, "reason": "x" * 9000}
    assert notify(tmp_path, [{"url": f"{receiver.base}/a", "format": "slack"}], notify_event=event).returncode == 0
    assert all(len(block["text"]["text"]) <= 3000 for block in receiver.requests()[0]["body"]["blocks"])


def test_without_an_event_slack_gets_one_block(receiver: Receiver, tmp_path: Path) -> None:
    assert notify(tmp_path, [{"url": f"{receiver.base}/a", "format": "slack"}], notify_event={}).returncode == 0
    body = receiver.requests()[0]["body"]
    assert body["text"] == "release of an application: done" and len(body["blocks"]) == 1


def test_templates_of_the_caller_and_of_a_webhook(receiver: Receiver, tmp_path: Path) -> None:
    webhooks = [
        {"url": f"{receiver.base}/a"},
        {"url": f"{receiver.base}/b", "text": "{{ notify_event.name | upper }} is {{ notify_event.state }}"},
    ]
    assert notify(tmp_path, webhooks, notify_text="{{ notify_event.image }}!").returncode == 0
    assert [request["body"]["text"] for request in receiver.requests()] == ["podinfo:2.0.0!", "WEB is failed"]


@pytest.mark.parametrize("where", ["webhook", "text"])
def test_a_text_that_uses_what_is_not_there_is_told_all_the_same(receiver: Receiver, tmp_path: Path, where: str) -> None:
    text = "{{ notify_event.nothing.at.all }}"
    webhook = {"url": f"{receiver.base}/hook/{SECRET}", "headers": {"X-Token": TOKEN}}
    done = notify(
        tmp_path,
        [{**webhook, "text": text} if where == "webhook" else webhook],
        "-vvv",
        **({} if where == "webhook" else {"notify_text": text}),
    )
    assert done.returncode == 0 and "s3cr3t" not in shown(done), shown(done)
    assert receiver.requests()[0]["body"]["text"] == SENTENCE
    what = {"webhook": "the text of webhook 1", "text": "notify_text"}[where]
    assert f"127.0.0.1 is told another sentence: {what} uses what is not there" in done.stdout, done.stdout


def test_an_event_that_cannot_be_put_together_fails_nothing_and_shows_no_secret(receiver: Receiver, tmp_path: Path) -> None:
    webhooks = [{"url": f"{receiver.base}/hook/{SECRET}", "headers": {"X-Token": TOKEN}}]
    done = notify(tmp_path, webhooks, "-vvv", notify_event={"state": "done", "reason": "{{ nothing.at.all }}"})
    assert done.returncode == 0 and "s3cr3t" not in shown(done), shown(done)
    assert "WARNING: " in done.stdout and "notify_event" in done.stdout and receiver.requests() == []


def test_braces_in_a_reason_are_told_as_they_are(receiver: Receiver, tmp_path: Path) -> None:
    book = tmp_path / "raw.yml"
    event = "{{ {'state': 'failed', 'reason': lookup('ansible.builtin.file', '" + str(tmp_path / "reason") + "')} }}"
    (tmp_path / "reason").write_text("bad template {{ nothing }}")
    role = {"name": "progressive.delivery.notify"}
    variables = {"notify_webhooks": [{"url": f"{receiver.base}/a"}], "notify_event": event}
    book.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "tasks": [{"name": "Tell", "ansible.builtin.include_role": role, "vars": variables}],
                }
            ]
        )
    )
    command = [str(BIN / "ansible-playbook"), str(book)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(no_proxy="127.0.0.1"), cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout
    assert receiver.requests()[0]["body"]["event"]["reason"] == "bad template {{ nothing }}"


def test_check_mode_tells_nobody(receiver: Receiver, tmp_path: Path) -> None:
    assert notify(tmp_path, [{"url": f"{receiver.base}/a"}], "--check").returncode == 0
    assert receiver.requests() == []


def test_one_that_recovers_is_told_in_the_end(receiver: Receiver, tmp_path: Path) -> None:
    done = notify(tmp_path, [{"url": f"{receiver.base}/twice/a"}])
    assert done.returncode == 0 and "failed=0" in done.stdout and "ignored=0" in done.stdout
    assert len(receiver.requests()) == 3 and result(tmp_path)["told"] == ["127.0.0.1"]


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


FAILING = {
    "it answers with an error": ("{base}/500/", "127.0.0.1 was not told: it answered 500", 3),
    "it sends elsewhere": ("{base}/302/", "127.0.0.1 was not told: it answered 302", 3),
    "nobody listens": ("http://127.0.0.1:{port}/", "127.0.0.1 was not told: it did not answer (refused)", 0),
    "it is too slow": ("{base}/slow/", "127.0.0.1 was not told: it did not answer (timed out)", 3),
    "no such host": ("http://nowhere.invalid/", "nowhere.invalid was not told: it did not answer", 0),
    "a user in the address": ("http://me:s3cr3t-pass@127.0.0.1:{port}/", "127.0.0.1 was not told: it did not answer (refused)", 0),
    "no address": ("hooks.example.com/", "webhook 7 of notify_webhooks needs a url that starts with http:// or https://", 0),
}


def test_those_that_do_not_listen_fail_nothing_and_show_no_secret(receiver: Receiver, tmp_path: Path) -> None:
    addresses = [url.format(base=receiver.base, port=free_port()) + SECRET for url, _sentence, _tries in FAILING.values()]
    webhooks = [{"url": address, "headers": {"X-Token": TOKEN}} for address in addresses]
    done = notify(tmp_path, [*webhooks, {"url": f"{receiver.base}/good"}], "-vvv", "--diff", notify_timeout=1)
    assert done.returncode == 0 and "failed=0" in done.stdout, shown(done)
    assert "s3cr3t" not in shown(done)
    paths = [request["path"] for request in receiver.requests()]
    assert paths[-1] == "/good"
    text = done.stdout.replace("\\/", "/")
    for name, (url, sentence, tries) in FAILING.items():
        assert f"WARNING: {sentence}" in text, (name, shown(done))
        assert not tries or paths.count(url.format(base="") + SECRET) == tries, (name, paths)
    found = result(tmp_path)
    assert found["told"] == ["127.0.0.1"] and len(found["troubles"]) == len(FAILING)


BAD = {
    "an unknown format": ({"format": "xml"}, 'webhook 1 of notify_webhooks has format "xml"; it can be json or slack'),
    "an unknown key": ({"fromat": "json"}, "webhook 1 of notify_webhooks has an unknown key; it has url, format, headers and text"),
}


@pytest.mark.parametrize(("given", "sentence"), BAD.values(), ids=BAD)
def test_a_webhook_that_is_none_fails_nothing_either(receiver: Receiver, tmp_path: Path, given: Any, sentence: str) -> None:
    webhooks = [{"url": f"{receiver.base}/hook/{SECRET}", "headers": {"X-Token": TOKEN}, **given}, {"url": f"{receiver.base}/good"}]
    done = notify(tmp_path, webhooks, "-vvv")
    assert done.returncode == 0, shown(done)
    assert f"WARNING: {sentence}" in done.stdout.replace('\\"', '"'), shown(done)
    assert "s3cr3t" not in shown(done), shown(done)
    assert [request["path"] for request in receiver.requests()] == ["/good"]


@pytest.mark.parametrize(("given", "sentence"), list(BAD.values())[:2], ids=list(BAD)[:2])
def test_at_the_beginning_of_a_release_it_is_refused(receiver: Receiver, tmp_path: Path, given: Any, sentence: str) -> None:
    done = notify(tmp_path, [{"url": f"{receiver.base}/hook/{SECRET}", **given}], "-vvv", entry="validate")
    assert done.returncode != 0 and sentence in done.stdout.replace('\\"', '"'), shown(done)
    assert "s3cr3t" not in shown(done) and receiver.requests() == []


def test_at_the_beginning_a_text_may_use_what_is_not_there_yet(tmp_path: Path) -> None:
    webhooks = [{"url": "http://127.0.0.1:1/", "text": "{{ notify_event.reason }}"}]
    done = notify(tmp_path, webhooks, entry="validate", notify_event={}, notify_text="{{ notify_event.name }}", notify_result={})
    assert done.returncode == 0, shown(done)


def test_nobody_to_tell_is_fine(tmp_path: Path) -> None:
    done = notify(tmp_path, [])
    assert done.returncode == 0 and result(tmp_path) == {"told": [], "troubles": []}
