# SPDX-License-Identifier: GPL-3.0-or-later
"""The one file that runs MicroK8s' command line, and that of snap.

Every call has a timeout, no terminal, the locale C and bounded output. Every answer is classified by ``plan/microk8s.py``.
Nothing here needs a package beside Python itself.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

from .errors import DeliveryError, InvalidRequest, WaitFailed
from .model import Ran
from .plan.microk8s import (
    NOT_RUNNING,
    RECORD,
    RUNNING,
    Node,
    Snap,
    Status,
    last_words,
    parse_json,
    parse_nodes,
    parse_snap,
    parse_status,
    parse_version,
    trouble,
)

EXECUTABLE = "/snap/bin/microk8s"
SNAP = "/usr/bin/snap"
MOST_OUTPUT = 16_000_000
# Seconds for a call that only reads, when it is not asked to wait, and between two looks at what is waited for.
QUICK, PAUSE = 60.0, 1.0
# Seconds for an API server that is away for a moment: some addons restart it when they are done.
PATIENCE = 30.0
# Seconds that a program has to end by itself when it is told to.
MERCY = 3.0

CLI_OPTIONS: dict[str, dict[str, Any]] = {
    "executable": {"type": "path", "default": EXECUTABLE},
    "snap_executable": {"type": "path", "default": SNAP},
    "timeout": {"type": "float", "default": 300},
}
HINTS = {
    "enable": "some addons wait for ever, and only one command at a time works on addons; look at the pods of the addon",
    "disable": "another command may hold the lock for addons; look at what is left of the addon",
    "status": "the API server may be down; look with: microk8s inspect",
    "join": "the other node may not answer; check that its port 25000 can be reached from here",
}


class Cli:
    """MicroK8s on this node. All calls together take ``timeout`` seconds at most; after that each raises WaitFailed.

    It stands where other steps have the cluster: it has nothing to close.
    """

    def __init__(self, executable: str = EXECUTABLE, snap_executable: str = SNAP, timeout: float = 300) -> None:
        if timeout <= 0 or math.isnan(timeout):
            raise InvalidRequest(f"timeout must be more than 0 seconds, got {timeout:g}")
        self.executable = executable
        self.snap_executable = snap_executable
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout

    def close(self) -> None:
        """Give back nothing: every call has ended."""

    @property
    def left(self) -> float:
        """Return the seconds that are left for all that comes."""
        return self._deadline - time.monotonic()

    def run(self, *arguments: str, seconds: float | None = None, shown: str = "") -> Ran:
        """Run ``microk8s`` with these arguments, for so many seconds at most; ``shown`` is what errors call it."""
        said = shown or f"microk8s {' '.join(arguments[:2])}"
        if not os.access(self.executable, os.X_OK):
            raise DeliveryError(
                f"MicroK8s is not installed here: there is no {self.executable}; install the snap, or name the program with executable",
                "NotInstalled",
            )
        return self._run((self.executable, *arguments), said, seconds, HINTS.get(arguments[0], "look with: microk8s inspect"))

    def snap(self, *arguments: str, seconds: float | None = None) -> Ran:
        """Run ``snap`` with these arguments."""
        if not os.access(self.snap_executable, os.X_OK):
            raise DeliveryError(
                f"there is no {self.snap_executable} here: install the package snapd, or name it by snap_executable", "NotInstalled"
            )
        said = f"snap {arguments[0]}"
        return self._run((self.snap_executable, *arguments), said, seconds, "snapd may be at work on another change; look at: snap changes")

    def _run(self, command: tuple[str, ...], said: str, seconds: float | None, hint: str) -> Ran:
        """Run a command without a terminal, and end it with all that it started when its time is over."""
        limit = self.left if seconds is None else min(seconds, self.left)
        if limit <= 0:
            raise WaitFailed(f"{said}: the {self.timeout:g} seconds of timeout are over; give more, or {hint}")
        environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "TERM": "dumb"}
        environment["PATH"] = f"{environment.get('PATH') or '/usr/sbin:/usr/bin:/sbin:/bin'}:/snap/bin"
        try:
            # AnsibleModule.run_command has no timeout, and leaves running what the program started.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise DeliveryError(
                f"{command[0]} cannot be run: {error.strerror or error}; check it, or name another one", "NotInstalled"
            ) from None
        streams = [_Stream(stream) for stream in (process.stdout, process.stderr) if stream is not None]
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            # What is said of joining may have the token in it.
            last = "" if command[1] in ("join", "add-node") else last_words(Ran(-1, *(stream.text() for stream in streams)))
            raise WaitFailed(f"{said} did not end within {limit:.0f} s and was stopped{f' ({last})' if last else ''}; {hint}") from None
        finally:
            _end(process)
        # What it started may go on and hold the pipes: its own words are there.
        out, err = (stream.text(MERCY) for stream in streams)
        return Ran(code, out, err)

    def must(self, *arguments: str, seconds: float | None = None, shown: str = "") -> Ran:
        """Run a command and return its answer, or raise what it tells of."""
        ran = self.run(*arguments, seconds=seconds, shown=shown)
        problem = trouble(ran, shown or f"microk8s {' '.join(arguments[:2])}")
        if problem is not None:
            raise problem
        return ran

    def status(self, wait: bool = False) -> Status:
        """Return what MicroK8s says of itself; with ``wait`` once it is ready, or when the time is over."""
        seconds = max(1, int(self.left - 5)) if wait else int(min(QUICK, self.left) / 2) or 1
        waiting = ["--wait-ready"] if wait else []
        return parse_status(self.run("status", "--format", "yaml", *waiting, "--timeout", str(seconds), seconds=None if wait else QUICK))

    def version(self) -> tuple[str, str]:
        """Return version and revision as the command line has them."""
        return parse_version(self.run("version", seconds=QUICK))

    def installed(self) -> Snap | None:
        """Return the snap, or None where it is not installed."""
        return parse_snap(self.snap("list", "microk8s", seconds=QUICK))

    def document(self, *arguments: str) -> Any:
        """Return what ``kubectl`` gives as JSON, or None where it gives nothing; while the API server is away it is asked again."""
        said = f"microk8s kubectl {' '.join(arguments[:2])}"
        end = time.monotonic() + min(PATIENCE, self.left - PAUSE)
        while True:
            try:
                ran = self.run("kubectl", *arguments, "-o", "json", seconds=QUICK, shown=said)
                return parse_json(ran, said) if ran.code or ran.stdout.strip() else None
            except DeliveryError as error:
                if error.reason != "Unavailable" or time.monotonic() > end:
                    raise
            time.sleep(PAUSE)

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes of the cluster; only a node of the control plane can tell."""
        return parse_nodes(self.document("get", "nodes") or {})

    def record(self) -> dict[str, str] | None:
        """Return what addons were enabled with, by their key (see ``plan.microk8s.digest``), or None where nothing was kept yet."""
        namespace, name = RECORD
        document = self.document("get", "configmap", name, "-n", namespace, "--ignore-not-found")
        return None if document is None else dict(document.get("data") or {})

    def remember(self, key: str, value: str | None) -> None:
        """Write one entry of the record, or take it out, where it is not so already."""
        namespace, name = RECORD
        record = self.record()
        if (record or {}).get(key) == value:
            return
        if record is None:
            self.must("kubectl", "create", "configmap", name, "-n", namespace, f"--from-literal={key}={value}", seconds=QUICK)
            return
        patch = json.dumps({"data": {key: value}})
        self.must("kubectl", "patch", "configmap", name, "-n", namespace, "--type=merge", f"--patch={patch}", seconds=QUICK)

    def wait(self, done: Callable[[], str], what: str) -> None:
        """Return when ``done`` returns an empty string; it returns what is still missing. The command line has no watch: it is asked again.

        While MicroK8s restarts its API server, what asks it fails; that is no reason to end.
        """
        missing = ""
        while True:
            try:
                missing = done()
            except DeliveryError as error:
                if error.reason == "Timeout" and missing:
                    raise WaitFailed(f"{what} within {self.timeout:g} s: {missing}; look at it, or give more timeout") from None
                if error.reason not in ("NotRunning", "Unavailable", "Failed"):
                    raise
                missing = error.message
            if not missing:
                return
            if self.left <= PAUSE:
                raise WaitFailed(f"{what} within {self.timeout:g} s: {missing}; look at it, or give more timeout")
            time.sleep(PAUSE)


class _Stream:
    """Reads what a program says as it says it, and keeps the first part."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept: list[bytes] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        """Read to the end; what is more than a bound is dropped."""
        size = 0
        with contextlib.suppress(OSError, ValueError), self._stream:
            while chunk := os.read(self._stream.fileno(), 65536):
                if size < MOST_OUTPUT:
                    self._kept.append(chunk[: MOST_OUTPUT - size])
                size += len(chunk)

    def text(self, seconds: float = 0) -> str:
        """Return what was read, after so many seconds at most."""
        self._thread.join(seconds)
        return b"".join(self._kept).decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that still runs, with all of its session: gently, then not."""
    if process.poll() is not None:
        return
    for number, seconds in ((signal.SIGTERM, MERCY), (signal.SIGKILL, MERCY)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
            return


def connect_cli(options: Mapping[str, Any]) -> Cli:
    """Return the command line that the options name."""
    return Cli(
        options.get("executable") or EXECUTABLE,
        options.get("snap_executable") or SNAP,
        300 if options.get("timeout") is None else options["timeout"],
    )


def require_running(cli: Cli, what: str) -> Status:
    """Return the status of a control plane that runs, or raise what is wrong and the way out; one that restarts is waited for."""
    end = time.monotonic() + min(PATIENCE, cli.left - PAUSE)
    while True:
        status = cli.status()
        if status.state == RUNNING:
            return status
        if status.state != NOT_RUNNING or time.monotonic() > end:
            raise not_running(status.state, what)
        time.sleep(PAUSE)


def not_running(state: str, what: str) -> DeliveryError:
    """Return the error for a node that is not a control plane which runs."""
    sentences = {
        "worker": (f"{what}: this node is a worker of a cluster; do it on a node of its control plane", "Worker"),
        "stopped": (f"{what}: MicroK8s is stopped here; start it with: microk8s start", "NotRunning"),
    }
    default = (f"{what}: MicroK8s is not ready; wait with: microk8s status --wait-ready, or look with: microk8s inspect", "NotRunning")
    sentence, reason = sentences.get(state, default)
    return DeliveryError(sentence, reason)
