# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that are put before others: those of an audience, which ask for more, and copies for the methods that a mirror is for.

Both are made from the rule that they stand before. So when that one changes they are made from it again, and it does not matter
which of an audience, a mirror and a weight came first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..errors import InvalidRequest
from ..model import Ref
from .audiences import Asked, keeps, kept_side
from .rules import Audience, Condition, Mirror, Rule, Sides, check_shadow, choose, mirror_to

Entry = dict[str, Any]


class Form(Protocol):
    """How a router writes what an audience and a mirror need. An entry is a rule as the route has it.

    ``ADVICE`` is the way out where rules meet. ``RULES_KEEP`` says whether a user is kept on his side by rules, or by the router.
    """

    ADVICE: str
    RULES_KEEP: bool

    def extras(self, entry: Entry, base: Entry) -> list[Condition] | None:
        """Return what ``entry`` asks for beyond ``base``, in each of its matches; None where it is not the same otherwise."""

    def conditioned(self, ref: Ref, entry: Entry, conditions: Sequence[Condition], side: str, sides: Sides) -> Entry:
        """Return a copy of ``entry`` that also asks for the conditions and leads to ``side`` alone; raise InvalidRequest."""

    def shared(self, ref: Ref, entry: Entry, audience: Audience, sides: Sides) -> Entry:
        """Return ``entry`` with a share of its requests for the variant, in which each side tells the user to keep it."""

    def unshared(self, entry: Entry, sides: Sides) -> Entry:
        """Return ``entry`` as it was before it was shared."""

    def asked(self, entry: Entry) -> list[Asked]:
        """Return what each match of an entry asks for."""

    def goes_first(self, theirs: tuple[int, Asked], mine: tuple[int, Asked]) -> bool | None:
        """Return whether a request that meets both goes by the match of others, each of which comes with the place of its entry.

        None says that it did so before, and would not any more.
        """

    def put(self, entry: Entry, sides: Sides, mirror: Mirror) -> None:
        """Let ``entry``, which is changed in place, copy its requests to the canary's side."""

    def take(self, entry: Entry, sides: Sides) -> None:
        """Let ``entry``, which is changed in place, copy nothing to the canary's side."""

    def limited(self, ref: Ref, entry: Entry, mirror: Mirror) -> Entry:
        """Return a copy of ``entry`` for requests of the mirror's methods alone; raise InvalidRequest."""


# Audiences


def with_audiences(rules: Sequence[Rule], entries: Sequence[Entry], sides: Sides, form: Form) -> list[Rule]:
    """Return the rules with those marked that pick an audience of a later one: they ask for more.

    They lead to the variant alone; or to stable alone where they keep there who has stable's cookie.
    """
    found = list(rules)
    for index in reversed(range(len(entries))):
        for base in range(index + 1, len(entries)):
            if found[base].audience_of is not None or sides.stable not in rules[base].weights:
                continue
            extras = form.extras(entries[index], entries[base])
            if extras and _is_of_an_audience(rules[index], extras, sides):
                found[index] = replace(rules[index], audience_of=base, extras=tuple(extras))
                break
    return found


def _is_of_an_audience(rule: Rule, extras: Sequence[Condition], sides: Sides) -> bool:
    """Return whether a rule picks an audience for the variant, or keeps on stable who has its cookie."""
    return list(rule.weights) == [sides.canary] or (list(rule.weights) == [sides.stable] and kept_side(extras) == sides.stable)


def aimed(ref: Ref, rules: Sequence[Rule], entries: Sequence[Entry], sides: Sides, audience: Audience | None, form: Form) -> list[Entry]:
    """Return the entries of a route in which the chosen ones have this audience before them; None takes it away.

    An audience that is there already is changed in its place; a new one stands directly before its rule.
    """
    chosen = {rule.index for rule in choose(ref, rules, sides)}
    found: list[Entry] = []
    new: list[int] = []
    bases: list[int] = []
    waiting: dict[int, list[Entry]] = {}
    for index, entry in enumerate(entries):
        owner = rules[index].audience_of
        base = index if owner is None else owner
        if base not in chosen:
            found.append(entry)
            continue
        plain = form.unshared(entries[base], sides)
        if audience and audience.weight is not None and plain == entries[base] and sides.canary in rules[base].weights:
            raise InvalidRequest(
                f'rule {rules[base]} of {ref} already gives "{sides.canary}" a weight that keeps nobody;'
                " take it out by set_canary_weight with state absent, then give the audience its share"
            )
        if base not in waiting:
            waiting[base] = _before(ref, plain, sides, audience, form)
        # As many as there were stay each where one was.
        places = sum(rule.audience_of == base for rule in rules[index:])
        now = 1 if places == len(waiting[base]) else len(waiting[base])
        made, waiting[base] = waiting[base][:now], waiting[base][now:]
        new += range(len(found), len(found) + len(made))
        found += made
        if index == base:
            bases.append(len(found))
            found.append(form.shared(ref, plain, audience, sides) if audience and audience.weight is not None else plain)
    if found != list(entries):
        for number in new:
            others = [other for other in range(len(found)) if other not in new and other not in bases]
            _check_meeting(ref, found, number, others, form)
    return found


def _check_meeting(ref: Ref, entries: Sequence[Entry], number: int, others: Sequence[int], form: Form) -> None:
    """Raise InvalidRequest where another rule has all requests of a new one already, or would lose some that it asks for."""
    for mine in form.asked(entries[number]):
        for other in others:
            for theirs in form.asked(entries[other]):
                first = form.goes_first((other, theirs), (number, mine)) if theirs.can_meet(mine) else False
                if first and theirs.covers(mine):
                    raise InvalidRequest(
                        f"matches overlap: the rule at {other} of {ref} ({theirs}) already has every request of this audience ({mine});"
                        " take it out, or ask for something else"
                    )
                if first is None:
                    raise InvalidRequest(
                        f"matches overlap: a request can meet both the rule at {other} of {ref} ({theirs}) and this audience ({mine}),"
                        f" and that rule would lose it; {form.ADVICE}"
                    )


def _before(ref: Ref, entry: Entry, sides: Sides, audience: Audience | None, form: Form) -> list[Entry]:
    """Return what stands before an entry for its audience."""
    if audience is None:
        return []
    if audience.weight is None:
        return [form.conditioned(ref, entry, audience.conditions, sides.canary, sides)]
    kept = (sides.canary, sides.stable) if form.RULES_KEEP else ()
    return [form.conditioned(ref, entry, [keeps(audience, side)], side, sides) for side in kept]


# Mirrors


@dataclass(frozen=True)
class Follower:
    """An entry that was made from another one, for an audience: what it asks for beyond that, and who has it.

    Without ``is_same`` it is no longer what would be made.
    """

    index: int
    extras: tuple[Condition, ...]
    side: str
    is_same: bool

    def again(self, ref: Ref, base: Entry, sides: Sides, form: Form) -> Entry:
        """Return the entry as it is made from its base."""
        return form.conditioned(ref, form.unshared(base, sides), self.extras, self.side, replace(sides, canary=self.side))


def followers(ref: Ref, rules: Sequence[Rule], entries: Sequence[Entry], base: Rule, sides: Sides, form: Form) -> list[Follower]:
    """Return the entries before a rule that were made from it for an audience, whoever is the variant."""
    found: list[Follower] = []
    for rule in rules[: base.index]:
        extras = form.extras(entries[rule.index], entries[base.index]) if len(rule.weights) == 1 else None
        if extras:
            one = Follower(rule.index, tuple(extras), next(iter(rule.weights)), is_same=True)
            is_same = _is_same(ref, one, entries, base.index, sides, form)
            if is_same or mirror_to([rule], sides.canary):
                found.append(replace(one, is_same=is_same))
    return found


def _is_same(ref: Ref, one: Follower, entries: Sequence[Entry], base: int, sides: Sides, form: Form) -> bool:
    """Return whether an entry is what would be made from its base."""
    try:
        return one.again(ref, entries[base], sides, form) == entries[one.index]
    except InvalidRequest:
        return False


def mirrored(ref: Ref, rules: Sequence[Rule], entries: Sequence[Entry], sides: Sides, mirror: Mirror | None, form: Form) -> list[Entry]:
    """Return the entries of a route in which the chosen ones mirror as is wanted, and those of their audiences too; None ends that.

    They mirror by themselves, or of some methods by a copy before them.
    """
    chosen = choose(ref, rules, sides, two=False)
    follow = {rule.index: followers(ref, rules, entries, rule, sides, form) for rule in chosen}
    check_shadow(ref, [*chosen, *(rules[one.index] for found in follow.values() for one in found)], sides, mirror)
    becomes: dict[int, list[Entry]] = {}
    for rule in chosen:
        if rule.copy_of is not None:
            continue
        base = copy.deepcopy(entries[rule.index])
        limited: Entry | None = None
        if mirror is None or mirror.methods:
            form.take(base, sides)
        else:
            form.put(base, sides, mirror)
        if mirror is not None and mirror.methods:
            limited = form.limited(ref, base, mirror)
            form.put(limited, sides, mirror)
        ours = [other.index for other in chosen if other.copy_of == rule.index and mirror_to([other], sides.canary)]
        made = [base] if limited is None or ours else [limited, base]
        becomes[rule.index] = made
        for one in follow[rule.index]:
            becomes[one.index] = _followed(ref, one, made, entries, sides, mirror, form)
        for index in ours:
            copies = [] if limited is None or index != ours[0] else [limited]
            becomes[index] = copies
            for one in follow[index]:
                becomes[one.index] = _followed(ref, one, copies, entries, sides, mirror, form)
    return [made for index, entry in enumerate(entries) for made in becomes.get(index, [entry])]


def _followed(
    ref: Ref, one: Follower, bases: Sequence[Entry], entries: Sequence[Entry], sides: Sides, mirror: Mirror | None, form: Form
) -> list[Entry]:
    """Return an audience's entry again from what its base has become; one that somebody changed only loses the mirror."""
    if one.is_same or not bases:
        return [one.again(ref, base, sides, form) for base in bases]
    entry = copy.deepcopy(entries[one.index])
    if mirror is None:
        form.take(entry, sides)
    return [entry]
