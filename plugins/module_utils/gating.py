# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens and closes the gates of Flagger's load tester, through the API server or at a URL; looks first, and again after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .asking import service_of
from .errors import DeliveryError, InvalidRequest, NotFound, Unavailable
from .flagging import NO_KIND, find_flagger, phase_of
from .http_probe import get_url
from .model import Answer, Cluster, Ref, Result
from .plan.gates import OPEN, Gate, check_time, gates_of, in_words, places_of
from .plan.masking import shown_url

TIMEOUT = 10.0


def set_gate(options: Mapping[str, Any], cluster: Cluster, check: bool) -> Result:
    """Let the gate of a Canary be as it is asked for, at each load tester that its webhooks ask."""
    ref = Ref("Canary", options["namespace"], options["name"])
    wanted = OPEN[options["state"]]
    try:
        canary = cluster.get(ref)
    except NotFound as error:
        if "flagger.app" in cluster.api_groups():
            raise
        raise InvalidRequest(f"{ref} is not there: {NO_KIND}") from error
    gates = gates_of(ref, canary.get("spec") or {}, options["gate"], options.get("webhook"), options.get("url"))
    check_time(ref, phase_of(canary), options["gate"], wanted, options["force"])
    settings, _looked = find_flagger(cluster, ref, options.get("flagger_namespace"))
    home = settings.namespace if settings else options.get("flagger_namespace") or ""
    door = Door(cluster, ref, home, bool(options.get("url")), options.get("validate_certs") is not False)
    before, after, actions = {}, {}, []
    for gate, place in zip(gates, places_of(gates)):
        is_open = door.is_open(gate)
        before[place] = in_words(is_open)
        after[place] = in_words(is_open if wanted is None else wanted)
        if wanted is None or wanted is is_open:
            continue
        if not check:
            door.turn(gate, wanted)
        verb = "opened" if wanted else "closed"
        actions.append(f"{verb} the {options['gate']} gate of {ref} for {', '.join(gate.webhooks)}")
    extra = {
        "open": all(text == "open" for text in after.values()),
        "webhooks": [name for gate in gates for name in gate.webhooks],
        "phase": phase_of(canary),
    }
    return Result(bool(actions), {"gates": before}, {"gates": after}, actions, extra)


class Door:
    """The way to a load tester: by its Service through the API server, or by an address that is reached from here."""

    def __init__(self, cluster: Cluster, canary: Ref, home: str, direct: bool, validate_certs: bool) -> None:
        self._cluster, self._canary, self._home = cluster, canary, home
        self._direct, self._validate_certs = direct, validate_certs

    def is_open(self, gate: Gate) -> bool:
        """Return whether a gate is open; raise Unavailable where nobody says so."""
        answer = self._send(gate, "check")
        if answer.status == 200:
            return True
        if answer.status == 403:
            return False
        raise Unavailable(
            f"{gate.place}, which was asked for {gate.prefix}/check, answers {answer.status} for {self._canary}, which no load"
            " tester of Flagger does; check the url"
        )

    def turn(self, gate: Gate, wanted: bool) -> None:
        """Open or close a gate, and see that it is so."""
        verb = "open" if wanted else "close"
        answer = self._send(gate, verb)
        if answer.status not in (200, 202) or self.is_open(gate) is not wanted:
            raise DeliveryError(
                f"the load tester at {gate.place} did not {verb} the gate of {self._canary} ({answer.status}): it may be started for"
                " other namespaces"
                " only (-namespace-regexp)",
                reason="NotTurned",
            )

    def _send(self, gate: Gate, verb: str) -> Answer:
        """Send what Flagger itself sends, as far as a gate reads it."""
        url, body = gate.url(verb), {"name": self._canary.name, "namespace": self._canary.namespace}
        about = f"the gate of {self._canary}"
        if not self._direct:
            address = service_of(self._cluster, url, self._home, about)
            if address is not None:
                service = Ref("Service", address.namespace, address.service)
                answer = self._cluster.proxy_post(service, address.port, address.path, body, TIMEOUT)
                if answer.status in (502, 503, 504):
                    raise Unavailable(
                        f"{service}, which {about} is at, does not answer: {answer.status} {' '.join(answer.body.split())[:200]}"
                    )
                return answer
        headers = {"Content-Type": "application/json"}
        try:
            return get_url(url, headers, TIMEOUT, self._validate_certs, json.dumps(body).encode())
        except Unavailable as error:
            raise Unavailable(error.message.replace(url, shown_url(url))) from None
