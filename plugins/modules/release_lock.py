#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Step release_lock: one holder may release, others may not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_lock
short_description: One holder may release, others may not
version_added: 0.1.0
author: The progressive.delivery authors (@progressive-delivery)
description:
  - Takes or gives back a Lease, so that two releases of the same thing do not run into each other.
  - The same holder may take it again, which is how a run that was killed goes on. It runs out by itself.
extends_documentation_fragment:
  - progressive.delivery.cluster
  - progressive.delivery.cluster.actions
options:
  name:
    description: Name of the Lease.
    type: str
    required: true
  holder:
    description: Who holds it, in words that a person who is refused can act upon.
    type: str
    required: true
  state:
    description: V(held) takes it, V(released) gives it back.
    type: str
    default: held
    choices: [held, released]
  ttl:
    description: Seconds after which it runs out.
    type: int
    default: 900
  run:
    description:
      - Tells runs of one holder apart. The holder may always enter again, but only the run that entered last gives it back.
    type: str
    default: ""
  force:
    description: Take it from whoever holds it, or give it back for them.
    type: bool
    default: false
  force_from:
    description:
      - With O(force), whose Lease may be taken - a regular expression that the beginning of the holder must match. Another
        holder's is not, as if O(force) were not set. The default is anybody's.
    type: str
    version_added: 0.2.0
"""

EXAMPLES = r"""
- name: Nobody else releases web meanwhile
  progressive.delivery.release_lock:
    namespace: shop
    name: release-web
    holder: release of web 2.0.0

- name: Give it back
  progressive.delivery.release_lock:
    namespace: shop
    name: release-web
    holder: release of web 2.0.0
    state: released

- name: Take it over from a run that will not come back
  progressive.delivery.release_lock:
    namespace: shop
    name: release-web
    holder: the way back
    force: true

- name: The same, but only from a canary release
  progressive.delivery.release_lock:
    namespace: shop
    name: release-web
    holder: canary aborted of web
    force: true
    force_from: "canary "
"""

RETURN = r"""
before:
  description: Who held it before; empty for nobody.
  returned: success
  type: dict
  sample: {holder: ""}
after:
  description: Who holds it after.
  returned: success
  type: dict
  sample: {holder: release of web 2.0.0}
holder:
  description: Who holds it after, or on failure who holds it in the way.
  returned: always
  type: str
  sample: release of web 2.0.0
actions:
  description: What was done, one sentence each.
  returned: success
  type: list
  elements: str
  sample: ["took Lease shop/release-web for release of web 2.0.0"]
duration:
  description: Seconds that the step took.
  returned: always
  type: float
  sample: 0.02
"""

import datetime
import re
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import Conflict, InvalidRequest, NotFound
from ansible_collections.progressive.delivery.plugins.module_utils.model import Cluster, Ref, Result, metadata
from ansible_collections.progressive.delivery.plugins.module_utils.plan.lock import holder_of, lease_of, plan_hold, run_of
from ansible_collections.progressive.delivery.plugins.module_utils.run import Progress, quiet, run_module, settle

OPTIONS = {
    "name": {"type": "str", "required": True},
    "holder": {"type": "str", "required": True},
    "state": {"type": "str", "default": "held", "choices": ["held", "released"]},
    "ttl": {"type": "int", "default": 900},
    "run": {"type": "str", "default": ""},
    "force": {"type": "bool", "default": False},
    "force_from": {"type": "str"},
}


LONGEST = 2**31 - 1


def execute(options: dict[str, Any], cluster: Cluster, check: bool, progress: Progress = quiet) -> Result:
    """Take the Lease or give it back."""
    ref = Ref("Lease", options["namespace"], options["name"])
    if not 1 <= options["ttl"] <= LONGEST:
        raise InvalidRequest(f"ttl must be 1 second or more and {LONGEST} at most, got {options['ttl']}")
    if not options["holder"].strip():
        raise InvalidRequest(f"holder of {ref} is empty; name who holds it, for those who are refused")
    _forced(ref, options, "")
    take = _take if options["state"] == "held" else _give_back
    return take(ref, options, cluster, check)


def _forced(ref: Ref, options: dict[str, Any], held: str) -> bool:
    """Return whether the Lease of this holder may be taken by force; raise InvalidRequest for a pattern that is none."""
    try:
        return options["force"] and re.match(options.get("force_from") or "", held) is not None
    except re.error as error:
        raise InvalidRequest(f'force_from of {ref} is no regular expression, got "{options["force_from"]}": {error}') from error


def _take(ref: Ref, options: dict[str, Any], cluster: Cluster, check: bool) -> Result:
    """Hold the Lease: make it, enter again, take one that ran out, or be refused."""
    holder, ttl = options["holder"], options["ttl"]
    now = datetime.datetime.now(datetime.timezone.utc)
    run = options["run"]
    try:
        change, _lease = settle(
            cluster,
            ref,
            lambda lease: plan_hold(ref, lease, holder, ttl, now, _forced(ref, options, holder_of(lease, now)), run),
            check,
        )
        return Result.of(change, holder=holder)
    except NotFound as error:
        if "there is no namespace" in error.message:
            raise
    try:
        cluster.create(ref, lease_of(ref, holder, ttl, now, run), dry_run=check)
    except Conflict:
        return _take(ref, options, cluster, check)
    return Result(True, {"holder": ""}, {"holder": holder}, (f"took {ref} for {holder}",), {"holder": holder})


def _give_back(ref: Ref, options: dict[str, Any], cluster: Cluster, check: bool) -> Result:
    """Delete the Lease where the holder has it; one that somebody else holds is left alone, unless forced."""
    nobody = {"holder": ""}
    try:
        lease = cluster.get(ref)
    except NotFound:
        return Result(False, nobody, nobody, extra=nobody)
    held = holder_of(lease, datetime.datetime.now(datetime.timezone.utc))
    foreign = held != options["holder"] or (options["run"] and run_of(lease) not in ("", options["run"]))
    if held and foreign and not _forced(ref, options, held):
        return Result(False, {"holder": held}, {"holder": held}, extra={"holder": held})
    try:
        cluster.delete(ref, dry_run=check, resource_version=metadata(lease).get("resourceVersion"))
    except NotFound:
        return Result(False, nobody, nobody, extra=nobody)
    except Conflict:
        return _give_back(ref, options, cluster, check)
    return Result(True, {"holder": held}, nobody, (f"gave {ref} back",), nobody)


def main() -> None:
    """Run the step as a module."""
    run_module(execute, OPTIONS)


if __name__ == "__main__":
    main()
