# SPDX-License-Identifier: GPL-3.0-or-later
"""A real cluster for tests and the demo: a namespace of its own, an application, traffic, playbooks."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.progressive.delivery.plugins.module_utils.cluster import KubernetesCluster
from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.login import connect
from ansible_collections.progressive.delivery.plugins.module_utils.model import Query, Ref
from ansible_collections.progressive.delivery.plugins.module_utils.run import argument_spec, perform
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import wait_for_rollout

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
APPLICATION = ROOT / "tests" / "support" / "manifests" / "blue_green.yml"
WEB = APPLICATION.with_name("web.yml")
LOCAL = Path("/var/lib/progressive-delivery/clusters")
LOGIN = threading.Lock()


def login(options: Mapping[str, Any]) -> KubernetesCluster:
    """Return the cluster that the options name; the client keeps the files of a login in one table for the whole process."""
    with LOGIN:
        return connect(options)


class Shop:
    """A namespace on a real cluster."""

    def __init__(self, kubeconfig: str, namespace: str | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace or f"shop-{uuid.uuid4().hex[:6]}"
        self.cluster: KubernetesCluster = login({"kubeconfig": kubeconfig})

    def __enter__(self) -> Shop:
        """Make the namespace, and wait until pods can be made in it."""
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.cluster.create(Ref("Namespace", "", self.namespace), manifest)
        return self

    def __exit__(self, *exception: object) -> None:
        """Delete the namespace; nobody waits for it."""
        self.cluster.delete(Ref("Namespace", "", self.namespace))
        self.cluster.close()

    def apply(self, path: Path = APPLICATION, wait: bool = True) -> None:
        """Make the objects of a file, and wait for its Deployments."""
        for manifest in filter(None, yaml.safe_load_all(path.read_text())):
            self.create(manifest, wait)

    def create(self, manifest: dict[str, Any], wait: bool = True) -> Ref:
        """Make an object, and wait where it is a Deployment."""
        ref = Ref(manifest["kind"], self.namespace, manifest["metadata"]["name"])
        manifest = {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}
        try:
            self.cluster.create(ref, manifest)
        except Conflict:
            self.cluster.delete(ref)
            self.cluster.create(ref, manifest)
        if wait and ref.kind == "Deployment":
            wait_for_rollout(self.cluster, ref, 120)
        return ref

    def ref(self, kind: str, name: str) -> Ref:
        """Return what names an object of the namespace."""
        return Ref(kind, self.namespace, name)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object."""
        return self.cluster.get(Ref(kind, self.namespace, name))

    def exists(self, kind: str, name: str) -> bool:
        """Return whether there is an object."""
        try:
            self.get(kind, name)
        except NotFound:
            return False
        return True

    def wait_gone(self, kind: str, name: str, timeout: float = 30) -> None:
        """Return when the object is gone."""
        deadline = time.monotonic() + timeout
        while self.exists(kind, name):
            assert time.monotonic() < deadline, f"{kind} {name} did not go within {timeout:g} s"
            time.sleep(0.2)

    def color(self) -> str:
        """Return the colour that the Service selects."""
        return self.get("Service", "web")["spec"]["selector"]["version"]

    def step(self, module: Any, check: bool = False, meanwhile: Callable[[], object] | None = None, **given: Any) -> dict[str, Any]:
        """Run a step in this process and return its outcome; ``meanwhile`` happens once, after it has decided and before it writes."""
        spec = argument_spec(module.OPTIONS)
        defaults = {key: entry.get("default") for key, entry in spec.items()}
        options = {**defaults, "kubeconfig": self.kubeconfig, "namespace": self.namespace, **given}
        left = [meanwhile] if meanwhile else []

        def connector(login_options: Mapping[str, Any]) -> KubernetesCluster:
            cluster = login(login_options)
            patch = cluster.patch

            def interrupted(*arguments: Any, **more: Any) -> Any:
                while left:
                    left.pop()()
                return patch(*arguments, **more)

            cluster.patch = interrupted  # type: ignore[method-assign]
            return cluster

        return perform(module.execute, options, check, connector=connector if meanwhile else login)

    def refusals(self, role: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Apply a role with the variables of each row, all in one play; return what each failed with, "" where it did not."""
        tasks: list[dict[str, Any]] = []
        for row in rows:
            release = {"ansible.builtin.include_role": {"name": f"progressive.delivery.{role}"}, "vars": dict(row)}
            # A loop's own message says only that an item of it failed.
            words = (
                "{{ (ansible_failed_result.results | default([]) | selectattr('failed', 'defined') | selectattr('failed') | list"
                " + [ansible_failed_result]) | map(attribute='msg', default='') | join('; ') }}"
            )
            block = [release, {"ansible.builtin.set_fact": {"refusals": "{{ refusals + [''] }}"}}]
            rescue = [{"ansible.builtin.set_fact": {"refusals": "{{ refusals + [words] }}"}, "vars": {"words": words}}]
            tasks.append({"block": block, "rescue": rescue})
        with tempfile.TemporaryDirectory() as folder:
            book, out = Path(folder) / "refusals.yml", Path(folder) / "out.json"
            told = {"ansible.builtin.copy": {"content": "{{ refusals | to_json }}", "dest": str(out), "mode": "0600"}}
            play = {"hosts": "localhost", "gather_facts": False, "vars": {"refusals": []}, "tasks": [*tasks, told]}
            book.write_text(json.dumps([play]))
            done = self.playbook(str(book), {})
            assert done.returncode == 0 and out.exists(), done.stdout + done.stderr
            return json.loads(out.read_text())

    def playbook(self, name: str, variables: Mapping[str, Any], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook with these variables."""
        return subprocess.run(
            [str(BIN / "ansible-playbook"), name, "-e", json.dumps(dict(variables)), *arguments],
            capture_output=True,
            text=True,
            env=clean_environment(**environment),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def timed_playbook(self, name: str, variables: Mapping[str, Any], lines: list[tuple[float, str]]) -> int:
        """Run a playbook as somebody who watches it does; return its exit code. Lines come with the seconds that have passed."""
        started = time.monotonic()
        process = subprocess.Popen(
            [str(BIN / "ansible-playbook"), name, "-e", json.dumps(dict(variables))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=clean_environment(PYTHONUNBUFFERED="1"),
            cwd=ROOT,
        )
        for line in process.stdout or ():
            lines.append((time.monotonic() - started, line.rstrip()))
        return process.wait()

    def blue_green(
        self, image: str = "localhost:32000/podinfo:2.0.0", *arguments: str, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """Release an image with the playbook blue_green."""
        return self.playbook("progressive.delivery.blue_green", self.variables(image, **variables), *arguments)

    def variables(self, image: str, **variables: Any) -> dict[str, Any]:
        """Return the variables of a release of the application."""
        return {
            "blue_green_kubeconfig": self.kubeconfig,
            "blue_green_namespace": self.namespace,
            "blue_green_service": "web",
            "blue_green_image": image,
            "blue_green_deployments": {"blue": "web-blue", "green": "web-green"},
            "blue_green_observe": 3,
            "blue_green_observe_interval": 1,
            "blue_green_smoke_tests": [{"path": "/healthz"}, {"path": "/version", "retries": 1}],
            "blue_green_timeout": 90,
            **variables,
        }

    def traffic(self, rate: float = 50, service: str = "web", timeout: float = 3) -> Traffic:
        """Return continuous traffic through a Service; a client that waits for an answer sends nothing else for so long."""
        return Traffic(self, f"http://{self.address(service)}/", rate, timeout)

    @property
    def network(self) -> list[str]:
        """Return what runs a command in the cluster's network, where that is one of ours."""
        folder = Path(self.kubeconfig).resolve().parent
        return ["nsenter", f"--net=/run/netns/pd-{folder.name}"] if folder.parent == LOCAL else []

    def address(self, service: str) -> str:
        """Return where the Service answers: its own address in the cluster's network, else the first that works from here."""
        spec = self.get("Service", service)["spec"]
        port = spec["ports"][0]
        inside = (spec["clusterIP"], port["port"])
        if self.network:
            return f"{inside[0]}:{inside[1]}"
        nodes = [entry for node in self.cluster.list(Query("Node", "")).items for entry in node["status"]["addresses"]]
        addresses = [(entry["address"], port["nodePort"]) for entry in nodes if entry["type"] in ("InternalIP", "ExternalIP")]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for host, number in [inside, *addresses]:
                # That something answers is not enough: some networks answer for any address.
                with contextlib.suppress(OSError, ValueError), opener.open(f"http://{host}:{number}/", timeout=1) as answer:
                    if "version" in json.loads(answer.read()):
                        return f"{host}:{number}"
            time.sleep(0.3)
        tried = ", ".join(f"{host}:{number}" for host, number in [inside, *addresses])
        raise SystemExit(f"Service {self.namespace}/{service} cannot be reached from here to send it traffic; tried {tried}")


class Traffic:
    """Requests through a Service for as long as the block runs; ``seen`` has what came back."""

    def __init__(self, shop: Shop, url: str, rate: float, timeout: float = 3, host: str = "", **headers: str) -> None:
        self.seen: dict[str, Any] = {}
        program = str(ROOT / "tests" / "support" / "traffic.py")
        self._command = [*shop.network, sys.executable, program, url, f"--rate={rate}", f"--timeout={timeout}"]
        self._command += [f"--host={host}"] if host else []
        self._command += [f"--header={name.replace('_', '-')}={value}" for name, value in headers.items()]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Traffic:
        """Start, and let some requests pass before anything happens."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout is not None:
            self._process.stdout.readline()
        time.sleep(0.7)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop, and read what came back."""
        process = self._process
        if process is None:
            return
        if exception and exception[0] is KeyboardInterrupt:
            process.kill()
            process.wait()
            return
        time.sleep(0.7)
        output, _nothing = process.communicate(timeout=30)
        self.seen = json.loads(output)


class Receiver:
    """A receiver in a process of its own."""

    def __init__(self, log: Path) -> None:
        self._log = log
        command = [sys.executable, str(ROOT / "tests" / "support" / "receiver.py"), str(log)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.base = f"http://127.0.0.1:{(self._process.stdout.readline() if self._process.stdout else '').strip()}"

    def close(self) -> None:
        """End it, and wait until it has."""
        self._process.communicate(timeout=20)

    def requests(self) -> list[dict[str, Any]]:
        """Return what it was told."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []


def local_cluster() -> str:
    """Start the local cluster and return its kubeconfig."""
    process = subprocess.Popen([str(ROOT / "tests/cluster/cluster"), "up"], stdout=subprocess.PIPE, text=True)
    last = ""
    for line in process.stdout or ():
        last = line.strip()
        if not last.startswith("KUBECONFIG="):
            print(last, flush=True)
    if process.wait() or not last.startswith("KUBECONFIG="):
        raise SystemExit("the local cluster did not start; the line above says why")
    return last.removeprefix("KUBECONFIG=")


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what would point at another cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("K8S_AUTH_", "KUBECONFIG"))}
    return {
        **kept,
        # A copy that is installed elsewhere must not be what is tested.
        "ANSIBLE_COLLECTIONS_PATH": sysconfig.get_paths()["purelib"],
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "0",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        **more,
    }
