# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import build, images, lifecycle, routers, supplies
from .config import REGISTRY, ClusterError, check_name, find, known
from .processes import NAMES, pid_of


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="cluster", description="A real one-node Kubernetes for tests, in a network namespace of its own.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        entry = commands.add_parser(name, help=words, description=words)
        entry.set_defaults(run=globals()[f"_{name}"])
        return entry

    entry = command("up", "Build what is missing, start the cluster, and print its KUBECONFIG.")
    entry.add_argument("name", nargs="?", default="local", metavar="NAME", help="the cluster's name (default: local)")
    words = f"start these too: {', '.join(routers.ROUTERS)}; have the images of these in the registry: {', '.join(supplies.SUPPLIES)}"
    entry.add_argument("--with", dest="routers", default="", metavar="NAME,...", help=words)
    entry = command("down", "Take the cluster down with all that it left on this machine.")
    entry.add_argument("name", nargs="?", default="local", metavar="NAME", help="the cluster's name (default: local)")
    entry = command("exec", "Run a command in the cluster's network, where its Services and pods answer.")
    entry.add_argument("words", nargs=argparse.REMAINDER, metavar="[NAME] -- COMMAND", help="what is run")
    command("status", "Show the clusters and their components.")
    entry = command("images", "List the images of the application under test, or give them to another cluster.")
    entry.add_argument("--push", nargs="?", const=REGISTRY, metavar="HOST:PORT", help=f"push them to a registry (default: {REGISTRY})")
    entry.add_argument("--save", metavar="FILE", help="write them as an OCI archive, for kind load image-archive or ctr images import")
    command("charts", "List the Helm charts that were built, each with its folder.")
    entry = command("build", "Build parts without starting anything.")
    entry.add_argument(
        "parts", nargs="*", metavar="PART", help=f"which (default: {', '.join(build.BASE)}); on demand: {', '.join(build.ON_DEMAND)}"
    )
    return top


def _up(options: argparse.Namespace) -> int:
    """Bring a cluster up."""
    check_name(options.name)
    wanted, supplied = supplies.named(options.routers)
    for part in dict.fromkeys(part for entry in (*wanted, *supplied) for part in entry.parts):
        build.build(part)
    cluster = lifecycle.up(options.name)
    for router in wanted:
        routers.ensure(cluster, router)
    for supply in supplied:
        supplies.ensure(cluster, supply)
    print(f"KUBECONFIG={cluster.kubeconfig}")
    return 0


def _down(options: argparse.Namespace) -> int:
    """Take a cluster down."""
    there = lifecycle.down(check_name(options.name))
    print(f"cluster {options.name} is down" if there else f"there is no cluster {options.name}")
    return 0


def _exec(options: argparse.Namespace) -> int:
    """Replace this process by a command in the cluster's network."""
    words = list(options.words)
    name = words.pop(0) if words and words[0] != "--" else "local"
    if words and words[0] == "--":
        words.pop(0)
    cluster = find(check_name(name))
    if cluster is None:
        raise ClusterError(f"there is no cluster {name}; bring it up with: cluster up {name}")
    if not words:
        raise ClusterError("exec needs a command after --, as in: cluster exec -- curl http://10.96.0.1")
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    try:
        os.execvpe("nsenter", ["nsenter", f"--net=/run/netns/{cluster.netns}", *words], environment)
    except OSError as error:
        raise ClusterError(f"nsenter cannot be run: {error}") from None


def _status(_options: argparse.Namespace) -> int:
    """Show what runs."""
    clusters = known()
    if not clusters:
        print("there is no cluster; bring one up with: cluster up")
    for cluster in clusters:
        pids = {name: pid_of(cluster, name) for name in NAMES}
        running = sum(1 for pid in pids.values() if pid)
        state = "up" if lifecycle.is_healthy(cluster) else "down" if not running else "degraded; mend it with: cluster up"
        print(f"{cluster.name}: {state}\n  API server  https://{cluster.address}:6443\n  KUBECONFIG  {cluster.kubeconfig}")
        for name, pid in pids.items():
            print(f"  {name:<24} {'pid ' + str(pid) if pid else 'not running'}")
        for router in routers.deployed(cluster):
            ready = "ready" if routers.is_ready(cluster, router) else "not ready"
            print(f"  {router.name:<24} {ready}, http://{router.address} (from the host http://{cluster.address}:{router.node_port})")
    return 0


def _images(options: argparse.Namespace) -> int:
    """List the images, push them, or save them."""
    if not options.push and not options.save:
        for image in images.IMAGES:
            print(f"{REGISTRY}/{image.name}")
        return 0
    lifecycle.ensure_packages({"busybox-static"})
    podinfo = [image for image in images.IMAGES if image.repository == "podinfo"]
    for part in dict.fromkeys(image.part for image in podinfo):
        build.build(part)
    for name in images.push_all(podinfo, options.push) if options.push else []:
        print(f"pushed {name}")
    for name in images.save(Path(options.save), podinfo) if options.save else []:
        print(f"saved {name}")
    return 0


def _charts(_options: argparse.Namespace) -> int:
    """List the charts."""
    found = supplies.charts()
    if not found:
        raise ClusterError("no chart was built; build them with: cluster build flagger istio")
    for name, path in found.items():
        print(f"{name:<11} {path}")
    return 0


def _build(options: argparse.Namespace) -> int:
    """Build parts."""
    for part in options.parts or build.BASE:
        print(build.build(part))
    return 0


def main() -> int:
    """Run the command that the arguments name."""
    options = parser().parse_args()
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Who reads it has read enough, as head has; nothing more is written, not at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
