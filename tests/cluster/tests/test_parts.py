# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the cluster program that need no cluster, no root and no build."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from localcluster import build, cli, config, host, images, network, pki, processes, routers, supplies
from localcluster.config import Cluster, ClusterError

LONGEST_INTERFACE = 15


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that stands for the state of all clusters."""
    folder = tmp_path / "clusters"
    monkeypatch.setattr(config, "STATE", folder)
    return folder


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder of modules, which the program takes for the real one."""
    shutil.copytree(build.HERE / "modules", tmp_path / "modules")
    monkeypatch.setattr(build, "HERE", tmp_path)
    return tmp_path / "modules"


@pytest.mark.parametrize("name", ["a", "local", "t1", "blue-green-2", "a" * 20])
def test_a_short_lower_case_word_names_a_cluster(name: str) -> None:
    assert config.check_name(name) == name


@pytest.mark.parametrize("name", ["", "1st", "-a", "Bad", "bad_name", "a b", "../etc", "a/b", "a\n", "a" * 21])
def test_what_could_not_be_part_of_a_path_or_an_interface_names_none(name: str) -> None:
    with pytest.raises(ClusterError, match="is no name for a cluster"):
        config.check_name(name)


def test_each_new_cluster_gets_the_lowest_free_number(state: Path) -> None:
    assert [config.allocate(name).number for name in ("a", "b", "c")] == [0, 1, 2]
    shutil.rmtree(state / "b")
    assert config.allocate("d").number == 1


def test_a_known_cluster_keeps_its_number(state: Path) -> None:
    config.allocate("a")
    assert config.allocate("b") == config.allocate("b") == config.find("b")


def test_what_an_interrupted_start_left_is_taken_up_again(state: Path) -> None:
    (state / "a").mkdir(parents=True)
    (state / "b").mkdir()
    (state / "b" / "number").touch()
    assert config.find("a") is None
    assert config.find("b") is None
    assert {config.allocate("a").number, config.allocate("b").number} == {0, 1}


def test_more_clusters_than_there_are_numbers_are_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "MOST_CLUSTERS", 2)
    config.allocate("a")
    config.allocate("b")
    with pytest.raises(ClusterError, match="there are 2 clusters already"):
        config.allocate("c")


def test_the_folder_of_a_cluster_is_for_root_alone(state: Path) -> None:
    assert config.allocate("a").dir.stat().st_mode & 0o077 == 0


def test_two_clusters_share_nothing_that_is_on_the_host() -> None:
    one, two = Cluster("one", 1), Cluster("two", 2)
    for name in ("dir", "netns", "link", "address", "host_address", "cgroup", "kubeconfig", "socket"):
        assert getattr(one, name) != getattr(two, name), name


def test_the_name_of_every_link_fits_an_interface() -> None:
    assert len(Cluster("x", config.MOST_CLUSTERS - 1).link) <= LONGEST_INTERFACE


def test_without_a_cluster_none_is_known(state: Path) -> None:
    assert config.known() == []
    assert config.find("a") is None


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROGRESSIVE_DELIVERY_CACHE", str(tmp_path))
    assert build.folder("faulty").is_relative_to(tmp_path)


def test_without_the_variable_the_cache_is_in_the_user_s_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PROGRESSIVE_DELIVERY_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert config.cache() == tmp_path / "progressive-delivery"


def test_an_unknown_part_is_refused_with_the_list_of_parts() -> None:
    with pytest.raises(ClusterError, match='there is no part "nginx"; parts are: kubernetes, etcd'):
        build.build("nginx")


@pytest.mark.parametrize("part", build.PARTS.values(), ids=list(build.PARTS))
def test_every_part_has_a_module_with_pinned_sums(part: build.Part) -> None:
    folder = build.HERE / "modules" / part.module
    if part.wheel:
        lines = [line for line in (folder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
        assert lines and all(re.fullmatch(r"[a-z-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
        return
    assert (folder / "go.mod").exists()
    assert (folder / "go.sum").exists() or "require" not in (folder / "go.mod").read_text()


def test_a_build_depends_on_the_sums_of_its_module_and_on_no_other(modules: Path) -> None:
    before = {name: build.digest(part) for name, part in build.PARTS.items()}
    with (modules / "podinfo" / "go.sum").open("a") as handle:
        handle.write("example.com/module v1.0.0 h1:other\n")
    changed = {name for name, part in build.PARTS.items() if build.digest(part) != before[name]}
    assert changed == {"podinfo-1.0.0", "podinfo-2.0.0", "podinfo-3.0.0"}


def test_a_build_depends_on_go_sources_and_not_on_notes(modules: Path) -> None:
    before = build.digest(build.PARTS["faulty"])
    (modules / "faulty" / "NOTES.md").write_text("nothing that is compiled\n")
    assert build.digest(build.PARTS["faulty"]) == before
    with (modules / "faulty" / "main.go").open("a") as handle:
        handle.write("// another line\n")
    assert build.digest(build.PARTS["faulty"]) != before


@pytest.mark.parametrize(("part", "file"), [("traefik", "ext/ext.go"), ("envoy", "requirements.txt"), ("gateway-api", "go.sum")])
def test_a_build_depends_on_all_that_pins_it(modules: Path, part: str, file: str) -> None:
    before = build.digest(build.PARTS[part])
    with (modules / build.PARTS[part].module / file).open("a") as handle:
        handle.write("\n")
    assert build.digest(build.PARTS[part]) != before


def test_a_build_depends_on_the_files_that_are_taken_along() -> None:
    part = build.PARTS["gateway-api"]
    assert build.digest(dataclasses.replace(part, files=())) != build.digest(part)


def test_files_are_taken_from_a_module_and_can_be_removed_again(modules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    (source / "crds" / "deep").mkdir(parents=True)
    (source / "crds" / "deep" / "one.yaml").write_text("one")
    (source / "crds" / "deep" / "one.yaml").chmod(0o444)
    monkeypatch.setattr(build, "_run", lambda part, command, log: str(source))
    part = build.PARTS["gateway-api"]
    build._take(part, "example.com/module", "crds", tmp_path / "all", tmp_path / "log")
    build._take(part, "example.com/module", "crds/deep/one.yaml", tmp_path / "alone.yaml", tmp_path / "log")
    assert (tmp_path / "all" / "deep" / "one.yaml").read_text() == (tmp_path / "alone.yaml").read_text() == "one"
    assert (tmp_path / "alone.yaml").stat().st_mode & 0o200
    with pytest.raises(ClusterError, match="example.com/module has no crds/two.yaml"):
        build._take(part, "example.com/module", "crds/two.yaml", tmp_path / "two.yaml", tmp_path / "log")


def test_a_cluster_without_routers_needs_none_of_their_parts() -> None:
    wanted = {part for entry in (*routers.ROUTERS.values(), *supplies.SUPPLIES.values()) for part in entry.parts}
    # A test takes API types by itself.
    wanted.add("prometheus-operator")
    assert wanted == set(build.ON_DEMAND)
    assert not wanted & set(build.BASE)
    assert {part for image in images.SETS["base"] for part in image.parts} <= set(build.BASE)


@pytest.mark.parametrize("router", routers.ROUTERS.values(), ids=list(routers.ROUTERS))
def test_a_router_s_images_come_from_its_parts(router: routers.Router) -> None:
    assert {part for image in images.SETS[router.name] for part in image.parts} <= set(router.parts)


def test_routers_are_named_in_one_word_each_once() -> None:
    assert [router.name for router in routers.named("istio, traefik,istio")] == ["istio", "traefik"]
    assert routers.named("") == []
    with pytest.raises(ClusterError, match='there is no router "contour"; --with takes: traefik, istio'):
        routers.named("traefik,contour")


@pytest.mark.parametrize("supply", supplies.SUPPLIES.values(), ids=list(supplies.SUPPLIES))
def test_a_supply_s_images_come_from_its_parts(supply: supplies.Supply) -> None:
    assert {part for image in images.SETS[supply.name] for part in image.parts} <= set(supply.parts)


def test_supplies_are_named_beside_routers() -> None:
    wanted, supplied = supplies.named("flagger, istio,flagger")
    assert ([router.name for router in wanted], [supply.name for supply in supplied]) == (["istio"], ["flagger"])
    with pytest.raises(ClusterError, match='there is no router or supply "argo"; --with takes: traefik, istio, flagger'):
        supplies.named("traefik,argo")


def test_an_image_has_the_commands_and_the_texts_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "folder", lambda _name: Path("/bin"))
    image = images.Image("tool", "1", "", "", ("/cat",), files=(("cat", "any/cat"),), applets=("sh",), texts=(("bin/bash", "#!/bin/sh\n"),))
    assert set(images.content(image)) == {"bin/sh", "bin/bash", "cat"}
    assert images.content(image)["bin/bash"] == b"#!/bin/sh\n"


def test_charts_are_listed_once_they_were_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "folder", lambda name: tmp_path / name)
    assert supplies.charts() == {}
    (tmp_path / "flagger" / "charts" / "loadtester").mkdir(parents=True)
    assert supplies.charts() == {"loadtester": tmp_path / "flagger" / "charts" / "loadtester"}


def test_routers_answer_at_addresses_of_their_own() -> None:
    for name in ("address", "node_port"):
        values = [getattr(router, name) for router in routers.ROUTERS.values()]
        assert len(set(values)) == len(values)


def test_the_tags_of_the_images_on_demand_are_the_versions_that_are_pinned() -> None:
    folder = build.HERE / "modules"
    assert f"github.com/traefik/traefik/v3 v{images.TRAEFIK} " in (folder / "traefik" / "go.mod").read_text()
    assert images.ISTIO.partition("-")[2] in (folder / "istio" / "go.mod").read_text()
    assert f"github.com/fluxcd/flagger v{images.FLAGGER} " in (folder / "flagger" / "go.mod").read_text()
    major, minor, patch = build.PROMETHEUS.split(".")
    assert f"github.com/prometheus/prometheus v0.{major}{int(minor):02}.{patch} " in (folder / "prometheus" / "go.mod").read_text()


def test_an_image_brings_the_libraries_of_a_program_that_needs_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copy(sys.executable, tmp_path / "program")
    monkeypatch.setattr(build, "folder", lambda name: tmp_path)
    image = images.Image("x", "1", "", "", ("/bin/program",), shell=False, files=(("bin/program", "any/program"),), linked="bin/program")
    files = images.content(image)
    assert any(path.startswith("lib64/ld-linux") for path in files) and any(path.endswith("/libc.so.6") for path in files)


def test_a_build_depends_on_how_it_is_linked() -> None:
    assert len({build.digest(build.PARTS[f"podinfo-{version}"]) for version in ("1.0.0", "2.0.0", "3.0.0")}) == 3


def test_a_layer_has_the_same_bytes_each_time() -> None:
    files = {"bin/one": b"one" * 1000, "bin/two": b"two", "bin/again": b"two"}
    assert images.layer(files) == images.layer(dict(files))


def test_a_layer_holds_equal_files_once_and_a_place_to_write() -> None:
    blob = gzip.decompress(images.layer({"bin/sh": b"box", "bin/wget": b"box", "bin/app": b"app"}))
    with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members["bin/wget"].islnk() and members["bin/wget"].linkname == "bin/sh"
    assert members["bin/app"].isreg() and members["bin/app"].mode == 0o755
    assert members["tmp"].isdir() and members["tmp"].mode == 0o1777


def test_a_manifest_names_its_layer_and_its_configuration() -> None:
    blob = images.layer({"bin/app": b"app"})
    configuration, text = images.documents(images.IMAGES[0], blob)
    manifest = json.loads(text)
    assert manifest["layers"][0]["digest"] == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert manifest["config"] == {
        "mediaType": images.CONFIG,
        "digest": f"sha256:{hashlib.sha256(configuration).hexdigest()}",
        "size": len(configuration),
    }


def test_every_image_has_a_name_of_its_own_and_a_part_that_is_built() -> None:
    every = [image for wanted in images.SETS.values() for image in wanted]
    assert len(every) == len({image.name for image in every})
    assert {part for image in every for part in image.parts} <= set(build.PARTS)


@pytest.mark.parametrize(
    "words",
    [
        ["exec", "--", "sh", "-c", "exit 3"],
        ["exec", "t1", "--", "curl", "--", "http://10.96.0.1"],
        ["exec", "t1", "curl", "-k", "https://10.96.0.1"],
    ],
)
def test_exec_hands_on_the_words_of_a_command_as_they_are(words: list[str]) -> None:
    assert cli.parser().parse_args(words).words == words[1:]


def test_the_certificates_of_the_api_server_hold_where_it_is_reached() -> None:
    names = pki.users(Cluster("one", 7))["apiserver"][1].split(",")
    assert {"IP:10.77.7.2", "IP:127.0.0.1", "IP:10.96.0.1", "DNS:kubernetes.default.svc"} <= set(names)


def test_a_process_is_known_by_pid_start_time_and_boot(state: Path) -> None:
    cluster = config.allocate("a")
    pidfile = cluster.dir / "pids" / "etcd"
    pidfile.parent.mkdir()
    pid, ticks, boot = os.getpid(), processes.started_at(os.getpid()), processes.boot_id()
    for text, found in (
        (f"{pid} {ticks} {boot}", pid),
        (f"{pid} 1 {boot}", None),
        (f"{pid} {ticks} another-boot", None),
        (f"{pid}", None),
        ("", None),
    ):
        pidfile.write_text(text)
        assert processes.pid_of(cluster, "etcd") == found, text


def test_cgroups_are_found_the_deepest_first_and_one_that_is_gone_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert network._folders([tmp_path / "a", tmp_path / "gone"]) == [tmp_path / "a" / "b", tmp_path / "a"]


def test_a_process_that_ended_has_no_start_time() -> None:
    process = subprocess.Popen(["true"])
    processes.wait_until(lambda: processes.started_at(process.pid) is None, 5)
    assert processes.started_at(process.pid) is None, "a zombie counts as ended"
    process.wait()
    assert processes.started_at(process.pid) is None


def test_another_s_process_is_never_stopped(state: Path) -> None:
    cluster = config.allocate("a")
    foreign = subprocess.Popen(["sleep", "60"])
    try:
        (cluster.dir / "pids").mkdir()
        (cluster.dir / "pids" / "etcd").write_text(f"{foreign.pid} 1 {processes.boot_id()}")
        processes.stop(cluster, "etcd")
        assert foreign.poll() is None
        assert not (cluster.dir / "pids" / "etcd").exists()
    finally:
        foreign.kill()
        foreign.wait()


def test_a_command_that_fails_is_reported_with_its_own_last_words() -> None:
    with pytest.raises(ClusterError, match="^sh -c echo first.* failed: the reason$"):
        processes.run(["sh", "-c", "echo first; echo the reason >&2; exit 1"])


@pytest.fixture
def machine(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands for the machine: two kernel settings, and a folder that kubelet and containerd share."""
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "panic").write_text("1\n")
    (tmp_path / "kernel" / "panic_on_oops").write_text("0\n")
    (tmp_path / "old").mkdir()
    monkeypatch.setattr(host, "TUNABLES", tmp_path)
    monkeypatch.setattr(host, "SOCKET", str(tmp_path / "new" / "kubelet.sock"))
    monkeypatch.setattr(host, "FOLDERS", (str(tmp_path / "new"), str(tmp_path / "used"), str(tmp_path / "old")))
    return tmp_path


def _kubelet_runs(machine: Path) -> None:
    """Do what a kubelet does to the machine."""
    (machine / "kernel" / "panic").write_text("10\n")
    (machine / "kernel" / "panic_on_oops").write_text("1\n")
    for name in ("new", "used"):
        (machine / name).mkdir(exist_ok=True)
    (machine / "new" / "kubelet.sock").touch()


def test_the_machine_is_put_back_after_the_last_cluster(machine: Path, state: Path) -> None:
    for name in ("a", "b"):
        config.allocate(name)
        host.remember()
        _kubelet_runs(machine)
    shutil.rmtree(state / "a")
    host.put_back()
    assert (machine / "kernel" / "panic").read_text() == "10\n", "one cluster is still there"
    shutil.rmtree(state / "b")
    host.put_back()
    assert (machine / "kernel" / "panic").read_text().strip() == "1"
    assert (machine / "kernel" / "panic_on_oops").read_text().strip() == "0"
    assert not (machine / "new").exists()
    assert (machine / "old").exists()


def test_what_another_set_or_put_there_meanwhile_stays(machine: Path, state: Path) -> None:
    config.allocate("a")
    host.remember()
    _kubelet_runs(machine)
    (machine / "kernel" / "panic").write_text("60\n")
    (machine / "used" / "file").touch()
    shutil.rmtree(state / "a")
    host.put_back()
    assert (machine / "kernel" / "panic").read_text() == "60\n"
    assert (machine / "used" / "file").exists()
    assert not (machine / "new").exists()


def test_after_a_reboot_the_settings_of_this_boot_are_remembered(machine: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.allocate("a")
    host.remember()
    _kubelet_runs(machine)
    monkeypatch.setattr(host, "boot_id", lambda: "another")
    (machine / "kernel" / "panic").write_text("2\n")
    host.remember()
    _kubelet_runs(machine)
    shutil.rmtree(state / "a")
    host.put_back()
    assert (machine / "kernel" / "panic").read_text() == "2"
    assert not (machine / "new").exists()
