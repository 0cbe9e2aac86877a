# SPDX-License-Identifier: GPL-3.0-or-later
"""One step, reading and changing: a task of this collection, kubernetes.core's task for the same work, and kubectl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.plan.goal import Goal
from ansible_collections.progressive.delivery.plugins.module_utils.waiting import wait_for_rollout
from ansible_collections.progressive.delivery.plugins.modules import set_image
from bench import IMAGE, Bench, deployment, median
from support.live import Shop

OURS, CORE, KUBECTL = "this collection", "kubernetes.core", "kubectl"
PEERS = (OURS, CORE, KUBECTL)
# rollout_info reads the Deployment, its revisions and its pods. Peers read the Deployment alone for READ; for HISTORY
# kubectl reads all of that with one command, which kubernetes.core has no task for.
READ, HISTORY, SCALE, SET_IMAGE, UNDO, WEIGHT = "read", "read with pods", "scale", "set image", "undo", "canary weight"
NAMES = (READ, HISTORY, SCALE, SET_IMAGE, UNDO, WEIGHT)
NGINX = "nginx.ingress.kubernetes.io"
# Tried in a first round that does not count: all three fill their caches then.
WARM_UP = 1


@dataclass(frozen=True)
class Work:
    """What is measured: its name, and the seconds of each peer that can do it; ``step`` has what our step itself reports."""

    name: str
    seconds: dict[str, list[float]]
    step: list[float]

    def ratio(self, peer: str) -> float:
        """Return how many times longer a peer takes than we do."""
        return median(self.seconds[peer]) / median(self.seconds[OURS])


def measure(bench: Bench, rounds: int) -> list[Work]:
    """Run the work of every peer in turn, ``rounds`` times in one play, and return the times."""
    with bench.shop() as shop, bench.shop() as apart:
        peers = [peer for peer in PEERS if peer != KUBECTL or bench.kubectl]
        for peer in peers:
            # No scheduler takes these pods, so that no container starts while others are measured.
            idle = deployment(_target("scale", peer), replicas=1)
            idle["spec"]["template"]["spec"]["schedulerName"] = "none"
            shop.create(idle, wait=False)
            shop.create(deployment(_target("image", peer), replicas=0), wait=False)
            _with_history(_home(shop, apart, peer), _target("undo", peer))
            _with_canary(shop, _target("weight", peer))
        shop.create(deployment("web", replicas=2))
        tasks = []
        for number in range(rounds + WARM_UP):
            for index, name in enumerate(NAMES):
                turn = (number + index) % len(peers)
                for peer in peers[turn:] + peers[:turn]:
                    if (name, peer) != (HISTORY, CORE):
                        home = _home(shop, apart, peer) if name == UNDO else shop
                        tasks.append({"name": f"{name}, {peer}", **_task(bench, home, name, peer, number)})
        ran = bench.play(shop, tasks)
    works = [Work(name, {}, []) for name in NAMES]
    for work in works:
        for peer in peers:
            found = [task for task in ran if task.name == f"{work.name}, {peer}"][WARM_UP:]
            # kubectl's time is the command's alone, as a shell would run it.
            if found:
                work.seconds[peer] = [task.step or 0.0 if peer == KUBECTL else task.seconds for task in found]
            work.step.extend(task.step or 0.0 for task in found if peer == OURS)
    return works


def _target(work: str, peer: str) -> str:
    """Return the Deployment that one peer changes: each has its own, so that none waits for the controllers of another."""
    return f"{work}-{peer.replace(' ', '-').replace('.', '-')}"


def _home(shop: Shop, apart: Shop, peer: str) -> Shop:
    """Return where a peer undoes: k8s_rollback takes any ReplicaSet with the same label keys for one of its Deployment's."""
    return apart if peer == CORE else shop


def _with_history(shop: Shop, name: str) -> None:
    """Make a Deployment without pods that has two revisions."""
    ref = shop.create(deployment(name, replicas=0))
    shop.step(set_image, name=name, images={"app": f"{IMAGE}:2.0.0"})
    wait_for_rollout(shop.cluster, ref, 60, Goal(revision=2))


def _with_canary(shop: Shop, name: str) -> None:
    """Make an Ingress and the Ingress of its canary, with no pods: peers only set the annotation, ours looks at the route first."""
    for ingress, notes in ((name, {}), (f"{name}-canary", {"canary": "true", "canary-weight": "5"})):
        backend = {"service": {"name": ingress, "port": {"number": 80}}}
        paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
        annotations = {f"{NGINX}/{key}": value for key, value in notes.items()}
        meta = {"name": ingress, "annotations": annotations}
        spec = {"rules": [{"host": f"{name}.example.com", "http": {"paths": paths}}]}
        shop.create({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec})
        ports = {"ports": [{"port": 80}], "selector": {"app": ingress}}
        shop.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": ingress}, "spec": ports})


def _task(bench: Bench, shop: Shop, work: str, peer: str, number: int) -> dict[str, Any]:
    """Return the task that does the work in round ``number``; each round changes what the one before left."""
    replicas, image = 2 - number % 2, f"{IMAGE}:{number % 2 + 1}.0.0"
    about: dict[str, Any] = {"namespace": shop.namespace}
    object_of = {"api_version": "apps/v1", "kind": "Deployment"}
    if work in (READ, HISTORY):
        name = "web"
        ours: dict[str, Any] = {"progressive.delivery.rollout_info": {**about, "name": name}}
        core: dict[str, Any] = {"kubernetes.core.k8s_info": {**about, **object_of, "name": name}}
        words = ["get", f"deployment/{name}"] if work == READ else ["get", "deployments,replicasets,pods", f"--selector=app={name}"]
        words.append("--output=json")
    elif work == SCALE:
        name = _target("scale", peer)
        ours = {"progressive.delivery.scale": {**about, "name": name, "replicas": replicas}}
        core = {"kubernetes.core.k8s_scale": {**about, **object_of, "name": name, "replicas": replicas, "wait": False}}
        words = ["scale", f"deployment/{name}", f"--replicas={replicas}"]
    elif work == UNDO:
        # Each goes to the revision that the one before left: 1, 2, 3, ... Ours would not do that unasked, the peers do.
        name = _target("undo", peer)
        ours = {"progressive.delivery.undo_rollout": {**about, "name": name, "to_revision": number + 1}}
        core = {"kubernetes.core.k8s_rollback": {**about, **object_of, "name": name}}
        words = ["rollout", "undo", f"deployment/{name}"]
    elif work == WEIGHT:
        name, weight = _target("weight", peer), 20 + number % 2
        sides = {"stable": name, "canary": f"{name}-canary", "force": True}
        ours = {"progressive.delivery.set_canary_weight": {**about, "provider": "ingress_nginx", "name": name, **sides, "weight": weight}}
        patch = {"metadata": {"annotations": {f"{NGINX}/canary-weight": str(weight)}}}
        where = {"api_version": "networking.k8s.io/v1", "kind": "Ingress", "name": f"{name}-canary"}
        core = {"kubernetes.core.k8s": {**about, **where, "state": "patched", "definition": patch}}
        words = ["annotate", "--overwrite", f"ingress/{name}-canary", f"{NGINX}/canary-weight={weight}"]
    else:
        name = _target("image", peer)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}
        ours = {"progressive.delivery.set_image": {**about, "name": name, "images": {"app": image}}}
        core = {"kubernetes.core.k8s": {**about, **object_of, "name": name, "state": "patched", "definition": patch}}
        words = ["set", "image", f"deployment/{name}", f"app={image}"]
    return {OURS: ours, CORE: core, KUBECTL: {"kubectl": {"argv": bench.command(shop.namespace, *words)} if bench.kubectl else {}}}[peer]


def report(works: list[Work]) -> list[str]:
    """Return the table."""
    lines = [
        f"One step, in seconds (medians of {len(works[0].step)})",
        "",
        f"{'':<16}{'this collection':>24}{'kubernetes.core':>22}{'kubectl':>22}",
        f"{'work':<16}{'task':>10}{'its step':>14}{'task':>13}{'times':>9}{'command':>13}{'times':>9}",
    ]
    for work in works:
        line = f"{work.name:<16}{median(work.seconds[OURS]):10.3f}{median(work.step):14.3f}"
        for peer in (CORE, KUBECTL):
            line += f"{median(work.seconds[peer]):13.3f}{work.ratio(peer):9.1f}" if peer in work.seconds else " " * 22
        lines.append(line.rstrip())
    return lines


def goals(works: list[Work]) -> list[tuple[str, bool, str]]:
    """Return the goals: what, whether met, and the figures that decide it."""
    found = []
    for peer, least, words in (
        (CORE, 10.0, "a step takes a tenth of the time of kubernetes.core's task, or less"),
        (KUBECTL, 1.0, "a step is no slower than kubectl"),
    ):
        both = [work for work in works if peer in work.seconds]
        pairs = [theirs >= least * ours for work in both for ours, theirs in zip(work.seconds[OURS], work.seconds[peer])]
        figures = ", ".join(f"{work.name} {work.ratio(peer):.2f}" for work in both)
        if both:
            met = all(work.ratio(peer) >= least for work in both)
            found.append((words, met, f"times faster: {figures}; at least {least:.0f} in {sum(pairs)} of {len(pairs)} pairs"))
    return found
