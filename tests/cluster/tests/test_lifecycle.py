# SPDX-License-Identifier: GPL-3.0-or-later
"""Real clusters come up, are mended, and go without a trace. Needs root; the names are the tests' own, other clusters stay as they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from localcluster import build, config, images, lifecycle, network
from localcluster.addons import kubectl
from localcluster.config import DNS, STATE, Cluster
from localcluster.processes import NAMES, pid_of, started_at, wait_until

PROGRAM = str(Path(__file__).resolve().parent.parent / "cluster")
ONE, TWO, SPARE, NOWHERE = "test-one", "test-two", "test-spare", "test-nowhere"
QUICK = 5.0
# A name that begins like a test's: what goes by it is another's.
NEIGHBOUR = f"{ONE}-b"
NEIGHBOUR_RESULT = Path(f"/var/lib/cni/results/pods-{NEIGHBOUR}-{'0' * 64}-eth0")

ASK_DNS = """
import socket, struct, sys
question = b"".join(bytes([len(word)]) + word.encode() for word in sys.argv[2].split(".")) + b"\\0" + struct.pack(">HH", 1, 1)
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
asking.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, (sys.argv[1], 53))
answer = asking.recv(512)
count = struct.unpack(">H", answer[6:8])[0]
print(answer[3] & 15, ".".join(map(str, answer[-4:])) if count else "nothing")
"""
# The way to a Service may be open a moment after its pod is ready.
GET = """
import ssl, sys, time, urllib.error, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2] if len(sys.argv) > 2 else None)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
deadline = time.monotonic() + 20
while True:
    try:
        print(opener.open(sys.argv[1], timeout=5).read().decode())
        break
    except urllib.error.URLError as error:
        if time.monotonic() > deadline or not isinstance(error.reason, (ConnectionRefusedError, TimeoutError)):
            raise
        time.sleep(0.2)
"""


@dataclass
class Said:
    """What a command said, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """Return the last line."""
        return self.out.splitlines()[-1]


def cluster(*words: str) -> Said:
    """Run the program and return what it said."""
    started = time.monotonic()
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False, timeout=200)
    return Said(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def bring_up(name: str) -> Cluster:
    """Bring a cluster up and return it."""
    said = cluster("up", name)
    assert said.code == 0, said.err or said.out
    return found(name)


def start_up(name: str) -> subprocess.Popen[str]:
    """Start `up` in a session of its own."""
    return subprocess.Popen([PROGRAM, "up", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def cut_off(process: subprocess.Popen[str]) -> None:
    """Kill the program in the midst of its work, with all that it waits for."""
    assert process.poll() is None, "it was over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def found(name: str) -> Cluster:
    """Return a cluster that is there."""
    there = config.find(name)
    assert there is not None, f"cluster {name} is not there"
    return there


def inside(name: str, program: str, *words: str) -> str:
    """Run a Python program in the cluster's network and return what it printed."""
    said = cluster("exec", name, "--", sys.executable, "-c", program, *words)
    assert said.code == 0, said.err
    return said.out.strip()


def pids(there: Cluster) -> dict[str, int | None]:
    """Return the pid of each component."""
    return {name: pid_of(there, name) for name in NAMES}


def kill(there: Cluster, component: str) -> None:
    """End a component as the kernel does where memory runs out."""
    pid = pid_of(there, component)
    assert pid is not None, f"{component} does not run"
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: started_at(pid) is None, 5)


def host_rules() -> str:
    """Return the firewall of the host itself, without its counters."""
    nft = shutil.which("nft", path=lifecycle.SEARCH)
    assert nft, "nft is one of the programs that a cluster needs"
    return re.sub(r"packets \d+ bytes \d+", "", subprocess.run([nft, "list", "ruleset"], capture_output=True, text=True, check=True).stdout)


def keep(there: Cluster, name: str) -> None:
    """Put a ConfigMap into the cluster."""
    kubectl(there, "create", "configmap", name, f"--from-literal=cluster={there.name}")


def config_maps(there: Cluster) -> set[str]:
    """Return the names of the ConfigMaps, without what Kubernetes puts there."""
    names = kubectl(there, "get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}").split()
    return set(names) - {"kube-root-ca.crt"}


def run_podinfo(there: Cluster, name: str = "podinfo") -> None:
    """Run podinfo behind a Service, unless it runs, and wait for it."""
    port = {"containerPort": 9898}
    probe = {"httpGet": {"path": "/readyz", "port": 9898}, "periodSeconds": 1}
    container = {"name": "app", "image": f"{config.REGISTRY}/podinfo:1.0.0", "ports": [port], "readinessProbe": probe}
    meta = {"name": name, "labels": {"app": name}}
    items = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": name}, "ports": [{"port": 9898}]}},
    ]
    # The controller makes the account a moment after its namespace; a pod is refused before.
    assert wait_until(lambda: "default" in kubectl(there, "get", "serviceaccounts", "-o", "name"), 20)
    kubectl(there, "apply", "-f", "-", data=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    kubectl(there, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")


def version_of(there: Cluster, name: str = "podinfo") -> str:
    """Return the version that podinfo answers with, by its Service's address."""
    address = kubectl(there, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
    return json.loads(inside(there.name, GET, f"http://{address}:9898/version"))["version"]


def cut_the_power(there: Cluster) -> None:
    """Simulate a reboot: everything ends at once, what the kernel and /run held is gone, and the machine has another boot id."""
    for pid in filter(None, pids(there).values()):
        os.kill(pid, signal.SIGKILL)
    sockets = lifecycle._shim_sockets(there)
    lifecycle._end(lambda: lifecycle._shims(there))
    network.kill_cgroup(there)
    lifecycle._unmount(there)
    network.remove(there)
    for socket in sockets:
        socket.unlink(missing_ok=True)
    (there.dir / "boot").write_text("the boot before this one")


@pytest.fixture(scope="module")
def rules_before() -> str:
    """Return the firewall of the host as it was before any cluster of these tests."""
    return host_rules()


@pytest.fixture(scope="module")
def started(rules_before: str) -> Iterator[dict[str, list[Said]]]:
    """Bring two clusters up at once, the first from two sides, and return what each `up` said; take them down in the end."""
    for name in (ONE, TWO, SPARE):
        cluster("down", name)
    began = time.monotonic()
    running = [(name, start_up(name)) for name in (ONE, ONE, TWO)]
    try:
        said: dict[str, list[Said]] = {ONE: [], TWO: []}
        for name, process in running:
            out, err = process.communicate(timeout=200)
            assert process.returncode == 0, err or out
            said[name].append(Said(process.returncode, out, err, time.monotonic() - began))
        yield said
    finally:
        for _name, process in running:
            process.kill()
            process.wait()
        for name in (ONE, TWO):
            cluster("down", name)


@pytest.fixture
def one(started: dict[str, list[Said]]) -> Cluster:
    """Return the first cluster."""
    return found(ONE)


@pytest.fixture
def two(started: dict[str, list[Said]]) -> Cluster:
    """Return the second cluster."""
    return found(TWO)


@pytest.fixture
def spare() -> Iterator[str]:
    """Return the name of a cluster that is not there; it is taken down in the end."""
    cluster("down", SPARE)
    yield SPARE
    cluster("down", SPARE)


# What is refused


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["up", "Bad_Name"], 'cluster: "Bad_Name" is no name for a cluster: use up to 20 lower-case letters'),
        (["down", "Bad_Name"], 'cluster: "Bad_Name" is no name for a cluster'),
        (["down", "../../etc"], 'cluster: "../../etc" is no name for a cluster'),
        (["exec", "Bad_Name", "--", "true"], 'cluster: "Bad_Name" is no name for a cluster'),
        (["exec", NOWHERE, "--", "true"], f"cluster: there is no cluster {NOWHERE}; bring it up with: cluster up {NOWHERE}"),
        (["up", NOWHERE, "--with", "nginx"], 'cluster: there is no router or supply "nginx"; --with takes: traefik, istio, flagger'),
        (["build", "nginx"], 'cluster: there is no part "nginx"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_one_sentence(words: list[str], sentence: str) -> None:
    said = cluster(*words)
    assert said.code == 1
    assert said.err.startswith(sentence)
    assert len(said.err.splitlines()) == 1
    assert not (STATE / NOWHERE).exists()


def test_down_of_a_cluster_that_is_not_there_says_so_and_is_no_error() -> None:
    said = cluster("down", NOWHERE)
    assert (said.code, said.out, said.err) == (0, f"there is no cluster {NOWHERE}\n", "")
    assert not list(STATE.glob(f".{NOWHERE}*"))


# Up


@pytest.mark.parametrize("name", [ONE, TWO])
def test_up_ends_with_the_kubeconfig(started: dict[str, list[Said]], name: str) -> None:
    assert {said.last for said in started[name]} == {f"KUBECONFIG={STATE / name / 'admin.kubeconfig'}"}


def test_two_ups_at_once_start_a_cluster_once(started: dict[str, list[Said]]) -> None:
    assert sorted(said.out.count(f"starting cluster {ONE}\n") for said in started[ONE]) == [0, 1]


def test_the_api_server_answers_who_uses_that_kubeconfig(one: Cluster, started: dict[str, list[Said]], tmp_path: Path) -> None:
    path = started[ONE][0].last.partition("=")[2]
    asked = [f"{build.folder('kubernetes')}/kubectl", f"--cache-dir={tmp_path}", "get", "nodes", "-o", "name"]
    answer = subprocess.run(asked, env={**os.environ, "KUBECONFIG": path}, capture_output=True, text=True, check=True)
    assert answer.stdout == "node/node-1\n"
    assert Path(path).stat().st_mode & 0o077 == 0, "it is the administrator's"


def test_up_again_is_quick_and_starts_nothing(one: Cluster, started: dict[str, list[Said]]) -> None:
    before = pids(one)
    said = cluster("up", ONE)
    assert said.code == 0
    assert said.seconds < QUICK
    assert said.out == f"{started[ONE][0].last}\n", "nothing was started, so nothing else is said"
    assert pids(one) == before and all(before.values())


def test_two_clusters_stand_side_by_side(one: Cluster, two: Cluster) -> None:
    assert one.address != two.address
    assert not set(pids(one).values()) & set(pids(two).values())
    keep(one, "of-one")
    keep(two, "of-two")
    assert config_maps(one) == {"of-one"}
    assert config_maps(two) == {"of-two"}


def test_status_shows_each_cluster_with_its_components(one: Cluster, two: Cluster) -> None:
    blocks = {block.split(":")[0]: block for block in re.split(r"\n(?=\S)", cluster("status").out)}
    for there in (one, two):
        assert blocks[there.name].startswith(f"{there.name}: up\n")
        for name, pid in pids(there).items():
            assert re.search(rf"{name} +pid {pid}\b", blocks[there.name])


# Exec


def test_a_service_answers_by_its_cluster_address(one: Cluster) -> None:
    answer = json.loads(inside(ONE, GET, "https://10.96.0.1/version", str(one.dir / "pki" / "ca.crt")))
    assert answer["gitVersion"] == build.KUBERNETES


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exec_hands_on_the_exit_code(one: Cluster, code: int) -> None:
    assert cluster("exec", ONE, "--", "sh", "-c", f"exit {code}").code == code


def test_exec_gives_the_command_the_kubeconfig(one: Cluster) -> None:
    assert cluster("exec", ONE, "--", "sh", "-c", "echo $KUBECONFIG").out == f"{one.kubeconfig}\n"


@pytest.mark.parametrize("words", [["exec", ONE], ["exec", ONE, "--"]], ids=" ".join)
def test_exec_without_a_command_is_refused_in_one_sentence(one: Cluster, words: list[str]) -> None:
    said = cluster(*words)
    assert said.code == 1
    assert said.err.startswith("cluster: exec needs a command after --")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("kubernetes.default.svc.cluster.local", "0 10.96.0.1"),
        ("kube-dns.kube-system.svc.cluster.local", f"0 {DNS}"),
        ("nothing.default.svc.cluster.local", "3 nothing"),
    ],
)
def test_coredns_knows_the_services(one: Cluster, name: str, answer: str) -> None:
    assert inside(ONE, ASK_DNS, DNS, name) == answer


def test_nothing_in_the_cluster_s_network_reaches_the_world(one: Cluster) -> None:
    said = cluster("exec", ONE, "--", sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 0.5)")
    assert said.code == 1
    assert "TimeoutError" in said.err or "OSError" in said.err


def test_images_can_be_given_to_another_cluster(one: Cluster, tmp_path: Path) -> None:
    archive = tmp_path / "podinfo.tar"
    said = cluster("images", "--save", str(archive))
    names = [line.removeprefix("saved ") for line in said.out.splitlines()]
    assert said.code == 0 and f"{config.REGISTRY}/podinfo:broken-500" in names
    ctr = [f"{build.folder('containerd')}/ctr", f"--address={one.socket}", "--namespace=elsewhere", "images"]
    subprocess.run([*ctr, "import", "--all-platforms", "--local", "--no-unpack", str(archive)], check=True, capture_output=True)
    listed = subprocess.run([*ctr, "list", "--quiet"], check=True, capture_output=True, text=True).stdout.split()
    assert set(names) <= set(listed)
    pushed = cluster("exec", ONE, "--", PROGRAM, "images", "--push")
    assert pushed.out.splitlines() == [f"pushed {name}" for name in names], pushed.err
    refused = cluster("images", "--push", "localhost:1")
    assert refused.code == 1 and refused.err.startswith("cluster: the registry localhost:1 does not answer over HTTP")


def test_the_registry_has_what_images_lists(one: Cluster) -> None:
    listed = {line.removeprefix(f"{config.REGISTRY}/") for line in cluster("images").out.split()}
    assert listed == {image.name for image in images.IMAGES}
    served = set()
    for repository in {name.partition(":")[0] for name in listed}:
        answer = json.loads(inside(ONE, GET, f"http://{config.REGISTRY}/v2/{repository}/tags/list"))
        served |= {f"{repository}:{tag}" for tag in answer["tags"]}
    assert served == listed


def test_a_pod_runs_an_image_of_the_registry(one: Cluster) -> None:
    run_podinfo(one)
    assert version_of(one) == "1.0.0"


# Mending


@pytest.mark.parametrize("component", NAMES)
def test_up_mends_a_component_that_was_killed(one: Cluster, component: str) -> None:
    run_podinfo(one)
    keep(one, f"before-{component}")
    before = pids(one)
    kill(one, component)
    assert "degraded" in cluster("status").out
    bring_up(ONE)
    after = pids(one)
    assert after[component] not in (None, before[component])
    assert {name: pid for name, pid in after.items() if name != component} == {n: p for n, p in before.items() if n != component}
    assert f"before-{component}" in config_maps(one)
    assert version_of(one) == "1.0.0"


def test_up_mends_a_cluster_whose_components_were_all_killed(one: Cluster) -> None:
    run_podinfo(one)
    keep(one, "before-all")
    for component in NAMES:
        kill(one, component)
    bring_up(ONE)
    assert all(pids(one).values())
    assert "before-all" in config_maps(one)
    run_podinfo(one, "after-all")
    assert (version_of(one), version_of(one, "after-all")) == ("1.0.0", "1.0.0")


@pytest.mark.parametrize("seconds", [0.6, 3.0])
def test_an_up_that_was_killed_is_finished_by_the_next(spare: str, seconds: float) -> None:
    process = start_up(spare)
    time.sleep(seconds)
    cut_off(process)
    there = bring_up(spare)
    assert all(pids(there).values())
    for name in NAMES:
        assert len(pids_that_name(f"{there.dir}/", name)) <= 1, f"{name} runs twice"
    run_podinfo(there)
    assert version_of(there) == "1.0.0"


def test_after_a_simulated_reboot_up_gives_an_empty_cluster_that_works(two: Cluster) -> None:
    run_podinfo(two)
    keep(two, "before-reboot")
    cut_the_power(two)
    assert not any(pids(two).values())
    bring_up(TWO)
    assert config_maps(two) == set()
    assert kubectl(two, "get", "pods", "-o", "name") == ""
    run_podinfo(two)
    assert version_of(two) == "1.0.0"


# Down


def pids_that_name(text: str, program: str = "") -> set[int]:
    """Return the processes whose command line or working folder names something."""
    found_pids = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (path / "cmdline").read_bytes().decode(errors="replace")
            if program in ("", Path(line.split("\0")[0]).name) and (text in line or f"{(path / 'cwd').readlink()}/".startswith(text)):
                found_pids.add(int(path.name))
    return found_pids - {os.getpid()}


def pids_in(namespace: int) -> set[int]:
    """Return the processes in the network namespace with this inode."""
    found_pids = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            if path.stat().st_ino == namespace:
                found_pids.add(int(path.parts[2]))
    return found_pids


def marks(there: Cluster) -> set[str]:
    """Return the ids of the cluster's containers and the names of their shims' sockets."""
    tasks = (there.dir / "containerd" / "state").glob("io.containerd.runtime.v2.task/k8s.io/*")
    return {path.name for path in tasks} | {socket.name for socket in lifecycle._shim_sockets(there)}


def traces(there: Cluster, words: set[str]) -> list[str]:
    """Return what is on the machine and names the cluster, or one of the words: its containers' ids, its shims' sockets."""
    left = [f"process {pid}" for pid in pids_that_name(f"{there.dir}/")]
    left += [line for line in Path("/proc/mounts").read_text().splitlines() if f"{there.dir}/" in line or f"/{there.netns} " in line]
    left += [str(path) for path in (there.dir, Path("/run/netns") / there.netns, Path("/sys/class/net") / there.link) if path.exists()]
    left += [str(root / there.cgroup.strip("/")) for root in network.hierarchies() if (root / there.cgroup.strip("/")).exists()]
    left += [str(path) for path in STATE.glob(f".{there.name}*")]
    for folder in ("/run/containerd", "/var/lib/cni", "/var/log/containers", "/var/log/pods", "/var/lib/kubelet"):
        for path in Path(folder).rglob("*"):
            target = os.readlink(path) if path.is_symlink() else ""
            if (
                f"-{there.name}-" in path.name
                and NEIGHBOUR not in path.name
                or str(there.dir) in target
                or any(word in path.name for word in words)
            ):
                left.append(str(path))
    return left


@pytest.fixture
def foreign(tmp_path: Path, one: Cluster) -> Iterator[dict[str, object]]:
    """Make what is not the cluster's but looks alike: a process, a namespace, a cgroup, a folder, a file of CNI."""
    sleeping = subprocess.Popen(["sleep", "300"], cwd="/")
    folder = STATE / NEIGHBOUR
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "file").write_text("another's")
    group = network.hierarchies()[-1] / f"pd-{NEIGHBOUR}"
    group.mkdir(exist_ok=True)
    subprocess.run(["ip", "netns", "add", f"pd-{NEIGHBOUR}"], check=True)
    NEIGHBOUR_RESULT.write_text("another's")
    try:
        yield {"process": sleeping, "paths": [folder / "file", group, Path(f"/run/netns/pd-{NEIGHBOUR}"), NEIGHBOUR_RESULT]}
    finally:
        sleeping.kill()
        sleeping.wait()
        shutil.rmtree(folder)
        group.rmdir()
        subprocess.run(["ip", "netns", "del", f"pd-{NEIGHBOUR}"], check=True)
        NEIGHBOUR_RESULT.unlink(missing_ok=True)


def test_down_leaves_nothing_and_touches_nothing_of_others(
    one: Cluster, two: Cluster, foreign: dict[str, object], rules_before: str
) -> None:
    run_podinfo(one)
    words = marks(one)
    namespace = (Path("/run/netns") / one.netns).stat().st_ino
    assert len(words) >= 6, "CoreDNS and podinfo, each with a sandbox, and their sockets"
    assert len(pids_in(namespace)) >= len(NAMES) and len(traces(one, words)) > 20
    # A component has ended, and its pid is another's process now.
    sleeping = foreign["process"]
    assert isinstance(sleeping, subprocess.Popen)
    kill(one, "kube-scheduler")
    pidfile = one.dir / "pids" / "kube-scheduler"
    pidfile.write_text(" ".join([str(sleeping.pid), *pidfile.read_text().split()[1:]]))
    others = pids(two)

    said = cluster("down", ONE)

    assert (said.code, said.out) == (0, f"cluster {ONE} is down\n"), said.err
    assert traces(one, words) == []
    assert pids_in(namespace) == set()
    assert host_rules() == rules_before
    assert sleeping.poll() is None
    paths = foreign["paths"]
    assert isinstance(paths, list)
    assert [path for path in paths if not path.exists()] == []
    assert pids(two) == others and cluster("up", TWO).seconds < QUICK
    assert cluster("down", ONE).out == f"there is no cluster {ONE}\n"


def test_down_takes_away_what_an_up_and_a_down_that_were_killed_left(spare: str) -> None:
    process = start_up(spare)
    assert wait_until(lambda: bool((there := config.find(spare)) and pid_of(there, "kube-apiserver")), 30)
    cut_off(process)
    there = found(spare)
    going = subprocess.Popen([PROGRAM, "down", spare], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert wait_until(lambda: pid_of(there, "containerd") is None, 30, pause=0.001)
    cut_off(going)
    assert cluster("down", spare).out == f"cluster {spare} is down\n"
    assert traces(there, set()) == []


def test_down_takes_away_a_cluster_whose_components_were_all_killed(two: Cluster) -> None:
    run_podinfo(two)
    words = marks(two)
    for component in NAMES:
        kill(two, component)
    assert cluster("down", TWO).code == 0
    assert traces(two, words) == []
