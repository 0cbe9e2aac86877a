# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of Flagger's load tester: which webhooks of a Canary ask one, and what opening it means.

One gate lets a release go on (``/gate/...``), one takes it back (``/rollback/...``); both are by Canary, in the memory of the load
tester, and closed until somebody opens them. ``/gate/approve`` always says yes and ``/gate/halt`` always no: they ask nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import InvalidRequest
from ..model import Ref
from .masking import shown_url

PATHS = {"advance": "/gate", "rollback": "/rollback"}
OPEN = {"open": True, "approved": True, "closed": False, "halted": False, "checked": None}
CONSTANT = {"/gate/approve": "yes", "/gate/halt": "no"}
UNDER_WAY = ("Progressing", "Waiting", "WaitingPromotion")


@dataclass(frozen=True)
class Gate:
    """One gate at one load tester: its address without the path, and the webhooks that ask it."""

    base: str
    prefix: str
    webhooks: tuple[str, ...]

    @property
    def place(self) -> str:
        """Return where the load tester is, as it may be shown: an address may carry a password, or a secret path."""
        return shown_url(self.base)

    def url(self, verb: str) -> str:
        """Return the address of a verb: check, open or close."""
        return f"{self.base}{self.prefix}/{verb}"


def gates_of(canary: Ref, spec: Mapping[str, Any], gate: str, webhook: str | None, base: str | None) -> list[Gate]:
    """Return the gates that a Canary's webhooks ask, one for each load tester; raise InvalidRequest where there is none.

    ``base`` is where the load tester is reached instead of the address in the webhook.
    """
    hooks = (spec.get("analysis") or {}).get("webhooks") or []
    named = [hook for hook in hooks if webhook in (None, hook.get("name"))]
    if webhook is not None and not named:
        raise InvalidRequest(f'{canary} has no webhook "{webhook}"; it has: {", ".join(str(hook.get("name")) for hook in hooks) or "none"}')
    found: dict[str, list[str]] = {}
    constant = []
    for hook in named:
        parts = urlsplit(str(hook.get("url")))
        for path, answer in CONSTANT.items():
            if parts.path.endswith(path):
                constant.append((hook.get("name"), path, answer))
        wanted = f"{PATHS[gate]}/check"
        if parts.path.endswith(wanted):
            before = urlunsplit((parts.scheme, parts.netloc, parts.path[: -len(wanted)], "", ""))
            found.setdefault(base.rstrip("/") if base else before, []).append(str(hook.get("name")))
    if found:
        return [Gate(where, PATHS[gate], tuple(names)) for where, names in found.items()]
    if constant and gate == "advance":
        name, path, answer = constant[0]
        raise InvalidRequest(
            f'webhook "{name}" of {canary} asks {path}, which always says {answer}, whatever the gate is; let its url end in'
            f" {PATHS[gate]}/check"
        )
    kind = "confirm-promotion" if gate == "advance" else "rollback"
    raise InvalidRequest(
        f"{canary} has no webhook that asks {PATHS[gate]}/check, so nothing would come of it; give it one, for example of type {kind}"
    )


def check_time(canary: Ref, phase: str, gate: str, is_open: bool | None, force: bool) -> None:
    """Raise InvalidRequest where an open gate would take back the next release instead of this one."""
    if gate == "rollback" and is_open and phase not in UNDER_WAY and not force:
        raise InvalidRequest(
            f"{canary} is {phase or 'not seen by Flagger yet'}: there is no release to take back, and the next one would be taken"
            " back at once;"
            " set force: true where that is what you want"
        )


def places_of(gates: Sequence[Gate]) -> list[str]:
    """Return what names each gate in a result: where its load tester is, with its webhooks where two are at one place."""
    places = [gate.place for gate in gates]
    return [gate.place if places.count(gate.place) == 1 else f"{gate.place} ({', '.join(gate.webhooks)})" for gate in gates]


def in_words(is_open: bool) -> str:
    """Return how a gate is."""
    return "open" if is_open else "closed"
