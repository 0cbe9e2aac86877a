# SPDX-License-Identifier: GPL-3.0-or-later
"""MicroK8s as its command line tells of it, and what is to be done: answers in, facts and commands out.

The command line prints its YAML by hand and says many things in plain text with exit code 0. So an answer is never
trusted for its exit code: it is read here, line by line, and what cannot be read is named.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DeliveryError, InvalidRequest
from ..model import ANNOTATION_PREFIX, Ran

RUNNING, NOT_RUNNING, STOPPED, WORKER = "running", "not_running", "stopped", "worker"
MOST_WORDS = 200
# The record of what an addon was enabled with: the command line does not tell.
RECORD = ("kube-system", "progressive-delivery-addons")
# On a node that was drained for a purpose: who finds it and has that purpose knows that it may take pods again.
DRAINED = f"{ANNOTATION_PREFIX}drained"
SAME, OTHERS, UNKNOWN = "as given", "others", "unknown"


@dataclass(frozen=True)
class Addon:
    """An addon that a repository has. ``enabled`` means that its objects exist, not that they are healthy."""

    name: str
    repository: str
    enabled: bool
    version: str = ""
    description: str = ""

    @property
    def id(self) -> str:
        """Return the name that is not ambiguous: ``core/dns``."""
        return f"{self.repository}/{self.name}" if self.repository else self.name


@dataclass(frozen=True)
class Member:
    """A member of the datastore: ``address`` with its port, ``role`` voter, standby or spare."""

    address: str
    role: str


@dataclass(frozen=True)
class Status:
    """What ``status`` says. ``addons`` is None where it does not say which are enabled, as when the API is not ready."""

    state: str
    high_availability: bool | None = None
    members: tuple[Member, ...] = ()
    addons: tuple[Addon, ...] | None = None


@dataclass(frozen=True)
class Node:
    """A node as Kubernetes has it. ``drained`` is what its pods were taken off for, empty where nothing says so."""

    name: str
    addresses: tuple[str, ...]
    ready: bool
    schedulable: bool
    worker: bool
    version: str
    drained: str = ""


@dataclass(frozen=True)
class Snap:
    """The installed snap: ``channel`` is what it tracks, ``notes`` are snapd's own (classic, held, disabled ...)."""

    version: str
    revision: str
    channel: str
    notes: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Return whether its automatic refreshes are held."""
        return "held" in self.notes

    @property
    def confinement(self) -> str:
        """Return classic or strict."""
        return "classic" if "classic" in self.notes else "strict"

    @property
    def minor(self) -> tuple[int, int] | None:
        """Return the version's two first numbers, or None where it has none."""
        return _minor(self.version)


@dataclass(frozen=True)
class Invitation:
    """What ``add-node`` minted: the places where to join, each with the token in it. A secret."""

    urls: tuple[str, ...]

    def url(self, address: str | None = None) -> str:
        """Return the place at an address of the node, by default at the first that is IPv4; raise InvalidRequest."""
        hosts = {url.split("/", 1)[0].rsplit(":", 1)[0].strip("[]"): url for url in self.urls}
        if address is None:
            return next((url for host, url in hosts.items() if ":" not in host), self.urls[0])
        if address not in hosts:
            raise InvalidRequest(f"this node has no address {address} that others could join at; it has: {', '.join(hosts)}")
        return hosts[address]


# --- What went wrong -------------------------------------------------------------------------------------------------

AWAY = re.compile(
    r"connection to the server \S+ was refused|connection refused|Unable to connect to the server|TLS handshake timeout"
    r"|etcdserver: |database is locked|server is currently unable|leader changed|i/o timeout|ServiceUnavailable",
    re.IGNORECASE,
)
# Reasons whose sentences hold no word of the answer, in which a token may be.
SAFE = ("Forbidden", "Worker", "NotRunning", "UnknownCommand", "Busy")
QUESTION = re.compile(r"(\[[yY]/[nN]\]|\(y/n\)|\?|:)\s*$|EOF when reading a line|Aborted!$")
COMPLAINT = re.compile(r"error|fail|invalid|cannot|could not|denied|missing|not |unable|no such", re.IGNORECASE)
_GROUP = re.compile(r"usermod -a -G (\S+)")


def trouble(ran: Ran, said: str) -> DeliveryError | None:
    """Return the error that an answer tells of, or None. ``said`` is the command as a sentence has it: ``microk8s enable core/dns``.

    The reasons: Forbidden, Worker, NotRunning, Busy, Unavailable (the API server is away: try again), UnknownCommand,
    Question (nobody is there to answer), Failed. Texts that come with exit code 0 are found as well.
    """
    text = _telling(ran)
    if "Insufficient permissions to access MicroK8s" in text:
        found = _GROUP.search(text)
        group = found.group(1) if found else "microk8s"
        return DeliveryError(f"{said}: this user may not use MicroK8s; use become: true, or add the user to the group {group}", "Forbidden")
    if "Elevated permissions are needed" in text or ran.code == 50:
        return DeliveryError(f"{said} needs root; use become: true", "Forbidden")
    if "acting as a node in a cluster" in text:
        return DeliveryError(f"{said}: this node is a worker of a cluster; do it on a node of its control plane", "Worker")
    if "is not running, try microk8s" in text:
        return DeliveryError(f"{said}: MicroK8s is stopped here; start it with: microk8s start", "NotRunning")
    if "microk8s is not running" in text:
        return DeliveryError(f"{said}: MicroK8s is not running, or not ready yet; wait, or look with: microk8s inspect", "NotRunning")
    if "is not a valid MicroK8s subcommand" in text:
        return DeliveryError(f"{said}: this version of MicroK8s has no such subcommand; use a newer channel", "UnknownCommand")
    if "change in progress" in text:
        return DeliveryError(f"{said}: snapd is busy with another change of the snap; try again when: snap changes, shows it done", "Busy")
    if ran.code == 0:
        return None
    if AWAY.search(text):
        return DeliveryError(f"{said}: the API server does not answer: {last_words(ran)}", "Unavailable")
    last = last_words(ran)
    silent = not ran.stderr.strip() and not COMPLAINT.search(ran.stdout)
    if silent or (QUESTION.search(last) and not COMPLAINT.search(last)):
        words = f", after: {last}" if last else ""
        return DeliveryError(
            f"{said} ended with code {ran.code} and no error{words}; such a command asks a question, and nobody is there to answer:"
            " give the answer by arguments",
            "Question",
        )
    return DeliveryError(f"{said} failed with code {ran.code}: {last}", "Failed")


def _telling(ran: Ran) -> str:
    """Return the part of an answer that tells of trouble: all of it after a failure, else its first lines.

    What follows in an answer that succeeded is data, and may have any words in it.
    """
    if ran.code:
        return f"{ran.stdout}\n{ran.stderr}"
    return "\n".join(text.lstrip().split("\n", 1)[0] for text in (ran.stdout, ran.stderr))


def last_words(ran: Ran) -> str:
    """Return the last line that a command said, of its errors if there are any, cut to a length that a sentence can hold."""
    for text in (ran.stderr, ran.stdout):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            return lines[-1][:MOST_WORDS]
    return ""


def unreadable(ran: Ran, said: str, wanted: str) -> DeliveryError:
    """Return the error for an answer that is not what it should be, with its first line."""
    first = next((line.strip() for line in f"{ran.stdout}\n{ran.stderr}".splitlines() if line.strip()), "nothing")[:MOST_WORDS]
    return DeliveryError(f"the answer of {said} is no {wanted}: {first}", "Unreadable")


# --- status ----------------------------------------------------------------------------------------------------------


def parse_status(ran: Ran, said: str = "microk8s status") -> Status:
    """Return what ``status`` says in any of its forms: YAML, the short YAML, short, pretty, and the texts that are none.

    Raise DeliveryError where it says that this user may not ask, or what cannot be read.
    """
    text = _telling(ran)
    if "acting as a node in a cluster" in text:
        return Status(WORKER)
    if "is not running, try microk8s" in text:
        return Status(STOPPED)
    if re.search(r"^microk8s:\s*$", ran.stdout, re.MULTILINE):
        return _status_of_yaml(ran, said)
    if re.search(r"^microk8s is running", ran.stdout, re.MULTILINE):
        return _status_of_text(ran.stdout)
    if "microk8s is not running" in text:
        return Status(NOT_RUNNING)
    raise trouble(ran, said) or unreadable(ran, said, "YAML")


def _status_of_yaml(ran: Ran, said: str) -> Status:
    """Return the status of the two YAML forms; they are printed by hand, so a value may be anything up to the end of its line."""
    sections: dict[str, dict[str, Any]] = {}
    section: dict[str, Any] | None = None
    entries: list[dict[str, Any]] | None = None
    dash = 0
    for line in ran.stdout.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        indent = len(line) - len(line.lstrip())
        key, colon, value = (part.strip() for part in bare.lstrip("- ").partition(":"))
        if not colon:
            raise unreadable(ran, said, "YAML")
        if indent == 0 and not bare.startswith("-") and not value and not (key == "nodes" and section is not None):
            section = sections.setdefault(key, {})
            entries, dash = section.setdefault("-", []), -1
        elif section is None or entries is None:
            raise unreadable(ran, said, "YAML")
        elif bare.startswith("-"):
            entries.append({key: value})
            dash = indent
        elif entries and indent > dash >= 0:
            entries[-1][key] = value
        elif value:
            section[key] = value
    running = str((sections.get("microk8s") or {}).get("running")).lower() == "true"
    availability = sections.get("high-availability") or {}
    members = tuple(Member(entry["address"], entry.get("role") or "") for entry in availability.get("-", ()) if entry.get("address"))
    state = RUNNING if running else NOT_RUNNING
    enabled = str(availability["enabled"]).lower() == "true" if "enabled" in availability and running else None
    found = sections.get("addons")
    if found is None or not running:
        return Status(state, enabled, members)
    addons = [
        Addon(
            entry["name"],
            entry.get("repository") or "",
            entry.get("status") == "enabled",
            entry.get("version") or "",
            entry.get("description") or "",
        )
        for entry in found["-"]
        if entry.get("name")
    ]
    addons += [_addon(name, value == "enabled") for name, value in found.items() if name != "-"]
    return Status(state, enabled, members, tuple(addons))


def _status_of_text(text: str) -> Status:
    """Return the status of the forms short and pretty."""
    addons: list[Addon] = []
    members: list[Member] = []
    available: bool | None = None
    enabled = False
    inside = False
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("high-availability:"):
            available = bare.endswith("yes")
        elif bare.startswith("datastore ") and ":" in bare:
            role = {"master": "voter"}.get(bare.split()[1], bare.split()[1])
            members += [Member(word, role) for word in bare.partition(":")[2].split() if word != "none"]
        elif bare == "addons:":
            inside = True
        elif bare in ("enabled:", "disabled:"):
            enabled = bare == "enabled:"
        elif inside and "#" in bare:
            name, _hash, rest = bare.partition("#")
            found = re.match(r"\s*\((\S+)\)\s*(.*)", rest)
            repository, description = found.groups() if found else ("", rest.strip())
            addons.append(Addon(name.strip(), repository, enabled, "", description))
        elif inside and re.search(r": (enabled|disabled)$", bare):
            addons.append(_addon(*_short(bare)))
    return Status(RUNNING, available, tuple(members), tuple(addons) if inside else None)


def _short(line: str) -> tuple[str, bool]:
    """Return the name and whether it is enabled of a line ``core/dns: enabled``."""
    name, _colon, word = line.rpartition(": ")
    return name, word == "enabled"


def _addon(name: str, enabled: bool) -> Addon:
    """Return the addon of a name that may have its repository."""
    repository, slash, own = name.rpartition("/")
    return Addon(own if slash else name, repository, enabled)


# --- Other answers ---------------------------------------------------------------------------------------------------


def parse_version(ran: Ran) -> tuple[str, str]:
    """Return version and revision of ``MicroK8s v1.36.0 revision x1``; empty where it says something else."""
    found = re.search(r"MicroK8s (v\S+)(?: revision (\S+))?", ran.stdout)
    return (found.group(1), found.group(2) or "") if found else ("", "")


def parse_json(ran: Ran, said: str) -> Any:
    """Return the JSON of an answer, or raise: text with exit code 0 is what a worker gives."""
    problem = trouble(ran, said)
    if problem is not None:
        raise problem
    try:
        return json.loads(ran.stdout)
    except ValueError:
        raise unreadable(ran, said, "JSON") from None


def parse_nodes(document: Mapping[str, Any]) -> tuple[Node, ...]:
    """Return the nodes of a NodeList."""
    nodes = []
    for item in document.get("items") or ():
        meta, status = item.get("metadata") or {}, item.get("status") or {}
        conditions = {entry.get("type"): entry.get("status") for entry in status.get("conditions") or ()}
        nodes.append(
            Node(
                meta.get("name") or "",
                tuple(entry["address"] for entry in status.get("addresses") or () if entry.get("type") == "InternalIP"),
                conditions.get("Ready") == "True",
                not (item.get("spec") or {}).get("unschedulable"),
                "node.kubernetes.io/microk8s-worker" in (meta.get("labels") or {}),
                (status.get("nodeInfo") or {}).get("kubeletVersion") or "",
                (meta.get("annotations") or {}).get(DRAINED) or "",
            )
        )
    return tuple(sorted(nodes, key=lambda node: node.name))


def parse_invitation(ran: Ran) -> Invitation:
    """Return what ``add-node --format json`` minted. What it said is never part of the error: there may be a token in it."""
    problem = trouble(ran, "microk8s add-node")
    if problem is not None:
        raise problem if problem.reason in SAFE else DeliveryError(f"microk8s add-node failed with code {ran.code}", "Failed")
    try:
        urls = tuple(str(url) for url in json.loads(ran.stdout)["urls"])
    except (ValueError, KeyError, TypeError):
        urls = ()
    if not urls:
        raise DeliveryError("microk8s add-node gave no address to join at; look at: microk8s add-node, on this node", "Unreadable")
    return Invitation(urls)


def parse_snap(ran: Ran, name: str = "microk8s") -> Snap | None:
    """Return the snap of ``snap list``, or None where it is not installed."""
    for line in ran.stdout.splitlines():
        words = line.split()
        if len(words) >= 5 and words[0] == name:
            notes = tuple(note for note in words[-1].split(",") if note != "-") if len(words) > 5 else ()
            return Snap(words[1], words[2], words[3] if words[3] != "-" else "", notes)
    if "no matching snaps" in ran.stderr or "No snaps are installed" in ran.stderr + ran.stdout:
        return None
    raise trouble(ran, f"snap list {name}") or unreadable(ran, f"snap list {name}", "list of snaps")


# --- Addons ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddonPlan:
    """What is to be run for an addon, and what it means. ``commands`` are the arguments of ``microk8s``."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    commands: tuple[tuple[str, ...], ...] = ()
    actions: tuple[str, ...] = ()
    note: str = ""


def check_arguments(arguments: Sequence[str], addons: Sequence[Addon]) -> None:
    """Raise InvalidRequest for arguments that the command line would take for something else."""
    for argument in arguments:
        if not argument.strip():
            raise InvalidRequest("arguments has an empty one; leave it out")
        if argument in ("-h", "--help"):
            raise InvalidRequest(f"the argument {argument} only prints a text, and MicroK8s calls that a success; leave it out")
    known = {name for addon in addons for name in (addon.name, addon.id)}
    if arguments and all(argument.split(":")[0] in known for argument in arguments):
        raise InvalidRequest(
            f"the argument {arguments[0]} is the name of an addon too, and MicroK8s would enable that; enable it by a task of its own"
        )


def choose_addon(addons: Sequence[Addon] | None, name: str) -> Addon:
    """Return the addon of a name, with or without its repository; raise where there is none, or more than one."""
    if ":" in name:
        raise InvalidRequest(f'"{name}" is no name of an addon; what stands behind the colon belongs into arguments')
    if addons is None:
        raise DeliveryError(
            "MicroK8s does not say which addons there are; wait until it is ready: microk8s status --wait-ready", "NotRunning"
        )
    found = [addon for addon in addons if name in (addon.name, addon.id)]
    if len(found) == 1:
        return found[0]
    if found:
        several = " or ".join(sorted(addon.id for addon in found))
        raise InvalidRequest(f'several repositories have an addon "{name}"; name it {several}')
    there = ", ".join(sorted(addon.id for addon in addons)) or "none"
    raise InvalidRequest(f'no repository has an addon "{name}"; there are: {there}')


def digest(arguments: Sequence[str]) -> str:
    """Return what is kept of arguments: enough to see that they are others, and no secret."""
    return hashlib.sha256(json.dumps(list(arguments)).encode()).hexdigest()


def record_key(addon: Addon) -> str:
    """Return the addon's key in the record."""
    return addon.id.replace("/", ".")


def plan_addon(addon: Addon, present: bool, arguments: Sequence[str] | None, recorded: str | None, on_changed: str) -> AddonPlan:
    """Return what makes the addon present with these arguments, or absent; raise InvalidRequest where it is refused.

    ``recorded`` is the digest of what it was enabled with, or None. ``on_changed`` keep, refuse or reenable says what
    other arguments lead to. Arguments of an addon that somebody else enabled cannot be known, and are no reason to refuse.
    """
    given = list(arguments or ())
    if not present:
        if not addon.enabled:
            return AddonPlan({"state": "absent"}, {"state": "absent"})
        return AddonPlan({"state": "present"}, {"state": "absent"}, (("disable", addon.id, *given),), (f"disabled {addon.id}",))
    wanted = {"state": "present"} if arguments is None else {"state": "present", "arguments": SAME}
    enable = ("enable", addon.id, *given)
    if not addon.enabled:
        return AddonPlan({"state": "absent"}, wanted, (enable,), (f"enabled {addon.id}",))
    if arguments is None or recorded == digest(given):
        return AddonPlan(wanted, wanted)
    before = {"state": "present", "arguments": OTHERS if recorded else UNKNOWN}
    if on_changed == "reenable":
        actions = (f"disabled {addon.id}", f"enabled {addon.id} with other arguments")
        return AddonPlan(before, wanted, (("disable", addon.id), enable), actions)
    if recorded is None:
        note = f"{addon.id} was enabled before, by whatever arguments: MicroK8s does not tell; on_changed_arguments: reenable sets them"
        return AddonPlan(before, before, note=note)
    if on_changed == "refuse":
        raise InvalidRequest(
            f"{addon.id} was enabled with other arguments, and MicroK8s can change them only by disabling it, with all that it has;"
            " use on_changed_arguments: reenable to do that, or keep"
        )
    return AddonPlan(before, before, note=f"{addon.id} keeps the other arguments that it was enabled with")


def workloads(document: Mapping[str, Any]) -> dict[str, tuple[str, int, bool]]:
    """Return {uid: (what a sentence calls it, generation, whether it is rolled out)} of a list of workloads."""
    found = {}
    for item in document.get("items") or ():
        meta, spec, status = item.get("metadata") or {}, item.get("spec") or {}, item.get("status") or {}
        generation = meta.get("generation") or 0
        seen = (status.get("observedGeneration") or 0) >= generation
        if item.get("kind") == "DaemonSet":
            wanted = status.get("desiredNumberScheduled") or 0
            ready, updated = status.get("numberReady") or 0, status.get("updatedNumberScheduled") or 0
        else:
            wanted = 1 if spec.get("replicas") is None else spec["replicas"]
            ready, updated = status.get("readyReplicas") or 0, status.get("updatedReplicas") or 0
        name = f"{item.get('kind')} {meta.get('namespace')}/{meta.get('name')}"
        found[str(meta.get("uid"))] = (name, generation, seen and ready >= wanted and updated >= wanted)
    return found


def not_ready(before: Mapping[str, tuple[str, int, bool]], after: Mapping[str, tuple[str, int, bool]]) -> list[str]:
    """Return which workloads came or changed since ``before`` and are not rolled out."""
    return sorted(
        name for uid, (name, generation, ready) in after.items() if not ready and before.get(uid, ("", -1, False))[1] != generation
    )


# --- Nodes -----------------------------------------------------------------------------------------------------------


def is_clustered(status: Status, nodes: Sequence[Node]) -> bool:
    """Return whether a node is one of several: a worker, or one of a control plane with others."""
    return status.state == WORKER or len(nodes) > 1 or len(status.members) > 1


def evicted(document: Mapping[str, Any]) -> list[str]:
    """Return the pods of a PodList that a drain takes off: not those of DaemonSets, of the node itself, or that have ended."""
    names = []
    for item in document.get("items") or ():
        meta = item.get("metadata") or {}
        owners = [owner.get("kind") for owner in meta.get("ownerReferences") or () if owner.get("controller")]
        mirror = "kubernetes.io/config.mirror" in (meta.get("annotations") or {})
        ended = (item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if not (mirror or ended or "DaemonSet" in owners or "Node" in owners):
            names.append(f"{meta.get('namespace')}/{meta.get('name')}")
    return sorted(names)


JOIN_CODES = {
    2: "it does not take these options; use a newer channel",
    4: "the identity of the other node cannot be verified; check the address, or use skip_verify",
    5: "the other node does not answer; check that its port 25000 can be reached from here",
    6: "the other node refuses; the token is unknown or its time ran out, or the two know each other by other names: mint another one",
    7: "the other node wants a way to log in that this version does not know; bring both to the same channel",
}


def join_error(ran: Ran) -> DeliveryError:
    """Return why a join failed, without the words of the command: the token is among them."""
    if "does not have enough RAM" in ran.stdout:
        return DeliveryError(
            "microk8s join: this node has too little memory for the control plane; let it join as a worker,"
            " or use disable_low_memory_guard",
            "TooLittleMemory",
        )
    problem = trouble(ran, "microk8s join")
    if problem is not None and problem.reason in SAFE:
        return problem
    why = JOIN_CODES.get(ran.code, f"it ended with code {ran.code}; run microk8s join by hand to see more")
    return DeliveryError(f"microk8s join failed: {why}", "JoinFailed")


# --- The snap --------------------------------------------------------------------------------------------------------

_CHANNEL = re.compile(
    r"(?P<track>latest|(?P<major>\d+)\.(?P<minor>\d+)(?P<kind>-\w+)?)(/(?P<risk>stable|candidate|beta|edge)(?P<branch>/\S+)?)?"
)


def _minor(version: str) -> tuple[int, int] | None:
    """Return the first two numbers of a version or a track."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found.group(1)), int(found.group(2))) if found else None


def full_channel(channel: str) -> str:
    """Return the channel with its risk level; raise InvalidRequest for what is none."""
    found = _CHANNEL.fullmatch(channel)
    if not found:
        raise InvalidRequest(f'"{channel}" is no channel of MicroK8s; name one like 1.32/stable or 1.32-strict/stable')
    if found.group("branch"):
        # snapd shows its name cut off, so whether it is the one that is wanted cannot be seen.
        raise InvalidRequest(f'"{channel}" is a branch of a channel, which is there for a short time only; name the channel itself')
    return channel if found.group("risk") else f"{channel}/stable"


def is_strict(channel: str) -> bool:
    """Return whether a channel has the strictly confined snap."""
    return "-strict" in channel.split("/")[0]


@dataclass(frozen=True)
class SnapPlan:
    """What is to be run of ``snap``, and what it means."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    commands: tuple[tuple[str, ...], ...] = ()
    actions: tuple[str, ...] = ()


def plan_snap(snap: Snap | None, present: bool, channel: str | None, hold: bool | None, purge: bool = False) -> SnapPlan:
    """Return what installs the snap, brings it to a channel and holds it; raise InvalidRequest for a way that there is not.

    A channel is changed to the same minor version or the next one: never two at once, never back.
    """
    before = {"state": "absent"} if snap is None else {"state": "present", "channel": snap.channel, "held": snap.held}
    if not present:
        if snap is None:
            return SnapPlan(before, before)
        return SnapPlan(
            before, {"state": "absent"}, (("remove", *(["--purge"] if purge else []), "microk8s"),), ("removed the snap microk8s",)
        )
    target = full_channel(channel) if channel else ""
    commands: list[tuple[str, ...]] = []
    actions: list[str] = []
    if snap is None:
        if not target:
            raise InvalidRequest("MicroK8s is not installed here: name the channel that it shall be installed from, like 1.32/stable")
        commands.append(("install", "microk8s", f"--channel={target}", *([] if is_strict(target) else ["--classic"])))
        actions.append(f"installed the snap microk8s from {target}")
    elif target and target != snap.channel:
        _check_step(snap, target)
        commands.append(("refresh", "microk8s", f"--channel={target}", *([] if is_strict(target) else ["--classic"])))
        actions.append(f"refreshed the snap microk8s to {target}")
    held = snap.held if snap else False
    if hold is not None and hold != held:
        commands.append(("refresh", "--hold" if hold else "--unhold", "microk8s"))
        actions.append("held its automatic refreshes" if hold else "let its automatic refreshes go on")
        held = hold
    after = {"state": "present", "channel": target or (snap.channel if snap else ""), "held": held}
    return SnapPlan(before, after, tuple(commands), tuple(actions))


def _check_step(snap: Snap, target: str) -> None:
    """Raise InvalidRequest for a channel that the snap cannot go to in one step."""
    if is_strict(target) != (snap.confinement == "strict"):
        wanted = "strict" if is_strict(target) else "classic"
        raise InvalidRequest(
            f"the snap microk8s is {snap.confinement} and {target} is {wanted}: that takes another installation; remove it first"
        )
    now, then = snap.minor, _minor(target)
    if then is None and not snap.channel.startswith("latest"):
        raise InvalidRequest(
            f"MicroK8s is at {snap.version}, from {snap.channel or 'no channel'}, and does not go to {target}, which may be many minor "
            "versions away; name a channel like 1.32/stable"
        )
    if now is None or then is None or now == then:
        return
    if then < now:
        raise InvalidRequest(
            f"MicroK8s is at {snap.version} and does not go back to {target}; the revision before comes back by: snap revert"
        )
    if then[0] != now[0] or then[1] > now[1] + 1:
        track = f"{now[0]}.{now[1] + 1}{'-strict' if is_strict(target) else ''}/{target.split('/', 1)[1]}"
        raise InvalidRequest(f"MicroK8s is at {snap.version}, and {target} is more than one minor version away; go to {track} first")
