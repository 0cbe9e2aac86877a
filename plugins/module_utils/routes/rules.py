# SPDX-License-Identifier: GPL-3.0-or-later
"""What the routers have in common: which rules of a route are meant, and what a split in them is."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ..errors import InvalidRequest, NotFound
from ..model import Manifest, Ref

Documents = Mapping[Ref, Optional[Manifest]]
"""The objects that make a route, as they are or shall be: its own, and those beside it; None is one that is not there."""


@dataclass(frozen=True)
class Sides:
    """The two sides of a split by their names in the route - Services, for Istio also subsets - and which rule is meant.

    The canary's side is also an A/B test's variant and a shadow. ``rule`` is a rule's name or its number from 0; ``host``
    and ``path`` as the route spells them. ``labels`` are those of the canary's pods, where a side is a subset that may have
    to be made. ``place`` is where the rule stands: its number, where no rules of an audience and no copies stand before it.
    """

    stable: str
    canary: str
    rule: str | None = None
    host: str | None = None
    path: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    place: int | None = None

    def check(self) -> None:
        """Raise InvalidRequest where the sides are one."""
        if self.stable == self.canary:
            raise InvalidRequest(f'stable and canary are both "{self.stable}"; a split needs two')

    def names(self, rule: Rule) -> bool:
        """Return whether a rule is what is named: by its number, among those that are no copies and no audience's, or its name."""
        return (
            (self.place is None or self.place == rule.index)
            and (self.rule is None or self.rule in (rule.name, str(rule.number)))
            and (self.host is None or self.host in rule.hosts)
            and (self.path is None or self.path == rule.path)
        )


@dataclass(frozen=True)
class Rule:
    """One rule of a route: where it is, and who gets its requests. ``weights`` {backend: weight as it is written}.

    ``mirrors`` are those who get copies: ``{to, percent}``. A rule that is there only to copy the requests of some methods is a
    ``copy_of`` another, by its index; it leads where that one does. One that is there only for an audience is an ``audience_of``
    another: it takes from that one the requests that ask for ``extras`` too.
    """

    index: int
    name: str
    hosts: tuple[str, ...]
    path: str
    weights: Mapping[str, int]
    conditions: tuple[str, ...] = ()
    mirrors: tuple[Mapping[str, Any], ...] = ()
    copy_of: int | None = None
    audience_of: int | None = None
    extras: tuple[Condition, ...] = ()
    place: int | None = None

    @property
    def number(self) -> int:
        """Return the number by which the rule is named: copies and an audience's rules have that of their original."""
        return self.index if self.place is None else self.place

    @property
    def mirror(self) -> Mapping[str, Any] | None:
        """Return who gets copies first, or None."""
        return self.mirrors[0] if self.mirrors else None

    def __str__(self) -> str:
        """Return the rule as a sentence names it."""
        name = f"{self.number}" if not self.name else f'{self.number} "{self.name}"'
        places = " ".join([",".join(self.hosts) or "*", self.path, *self.conditions])
        return f"{name} ({places} -> {', '.join(self.weights) or 'nobody'})"


@dataclass(frozen=True)
class Condition:
    """What a request must carry: ``where`` header, cookie or query; a ``value`` to be equal to or, with ``regex``, matched in whole.

    Without a value it is enough that the name is there.
    """

    where: str
    name: str
    value: str | None = None
    regex: bool = False

    def __str__(self) -> str:
        """Return the condition as a sentence names it."""
        sign = "" if self.value is None else f"{'~' if self.regex else '='}{self.value}"
        return f"{self.where} {self.name}{sign}"


@dataclass(frozen=True)
class Audience:
    """Whose requests go to the variant: those that meet all ``conditions``; or else, a share of the users that stays together.

    ``weight`` is that share in percent, kept for each user by ``cookie``, which lasts ``seconds``.
    """

    conditions: tuple[Condition, ...] = ()
    weight: int | None = None
    cookie: str = "variant"
    seconds: int = 86400


@dataclass(frozen=True)
class Mirror:
    """Copies of ``percent`` of the requests, of these ``methods`` alone where some are named.

    ``body`` says whether the body is copied, and ``most_bytes`` how long it may be, where the router can be told so; None is as
    the router does it.
    """

    percent: float = 100
    methods: tuple[str, ...] = ()
    body: bool | None = None
    most_bytes: int | None = None


@dataclass(frozen=True)
class Split:
    """Who gets how many percent of the requests of the chosen rules, who gets some in any case, and who gets copies."""

    weights: Mapping[str, float]
    matches: tuple[Mapping[str, Any], ...] = ()
    mirror: Mapping[str, Any] | None = None
    rules: tuple[str, ...] = field(default_factory=tuple)


def choose(ref: Ref, rules: Sequence[Rule], sides: Sides, two: bool = True) -> list[Rule]:
    """Return the rules that are meant: those named, else the only one that leads to the stable side; raise InvalidRequest.

    A rule that is a copy of another is not counted, and comes after it: whatever happens to the one happens to the other. One of
    an audience is not counted either. Without ``two`` a rule may have more sides than these.
    """
    sides.check()
    originals = originals_of(rules)
    there = "; ".join(str(rule) for rule in originals) or "none"
    found = [rule for rule in originals if sides.names(rule)]
    if not found:
        raise InvalidRequest(f"{ref} has no rule for {_asked(sides)}; its rules are: {there}")
    mine = [rule for rule in found if sides.stable in rule.weights]
    if not mine:
        raise InvalidRequest(f'{ref} does not lead to "{sides.stable}"; correct stable; its rules are: {there}')
    if len(mine) > 1 and sides.rule is None and sides.host is None and sides.path is None:
        raise InvalidRequest(
            f'{ref} leads to "{sides.stable}" by several rules: {"; ".join(str(rule) for rule in mine)};'
            " name the one that is meant with rule, rule_host or rule_path"
        )
    for rule in mine:
        others = [name for name in rule.weights if name not in (sides.stable, sides.canary)]
        if two and others:
            raise InvalidRequest(
                f'rule {rule} of {ref} also leads to "{others[0]}"; a split has two sides: take it out of the rule, or name the right sides'
            )
    chosen = {rule.index for rule in mine}
    return mine + [rule for rule in rules if rule.copy_of in chosen and rule.audience_of is None]


def weigh(backends: Sequence[dict[str, Any]], stable: dict[str, Any], canary: dict[str, Any], weight: int, default: int = 1) -> None:
    """Give both sides their weights. Between more than two, which only 0 can be, stable gets what the canary had.

    ``default`` is what counts where no weight is written.
    """
    if len(backends) <= 2:
        stable["weight"], canary["weight"] = 100 - weight, weight
        return
    had = [default if side.get("weight") is None else side["weight"] for side in (stable, canary)]
    stable["weight"], canary["weight"] = sum(had), 0


def numbered(rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules with the numbers by which they are named: only those count that somebody has written."""
    own = [rule.index for rule in rules if rule.copy_of is None and rule.audience_of is None]
    places = {index: number for number, index in enumerate(own)}
    origins = {rule.index: rule.copy_of if rule.audience_of is None else rule.audience_of for rule in rules}
    found: list[Rule] = []
    for rule in rules:
        index: int | None = rule.index
        while index is not None and index not in places:
            index = origins.get(index)
        found.append(replace(rule, place=None if index is None else places[index]))
    return found


def originals_of(rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules that count: no copies of others, and none that are there for an audience."""
    return [rule for rule in numbered(rules) if rule.copy_of is None and rule.audience_of is None]


def _asked(sides: Sides) -> str:
    """Return what the options name, as words."""
    asked = (("rule", sides.rule), ("host", sides.host), ("path", sides.path))
    return " and ".join(f"{word} {value}" for word, value in asked if value is not None) or "anything"


def check_weight(weight: int) -> None:
    """Raise InvalidRequest for a weight that is no percentage."""
    if isinstance(weight, bool) or not 0 <= weight <= 100:
        raise InvalidRequest(f"weight must be between 0 and 100, got {weight}")


def percentages(weights: Mapping[str, int]) -> dict[str, float]:
    """Return weights as percentages of their sum; the only backend gets all, whatever its weight, and none gets 0 of 0."""
    total = sum(weights.values())
    if len(weights) == 1:
        return dict.fromkeys(weights, 100.0)
    return {name: round(100.0 * weight / total, 2) if total else 0.0 for name, weight in weights.items()}


def split_of(ref: Ref, rules: Sequence[Rule], sides: Sides) -> Split:
    """Return who gets what by the chosen rules of a route whose rules have weighted backends: by weight, by audience, and copies."""
    chosen = choose(ref, rules, sides, two=False)
    shares = percentages(chosen[0].weights)
    weights = {name: shares.get(name, 0.0) for name in (sides.stable, sides.canary)}
    matches = tuple(match_of(rule.extras, next(iter(rule.weights))) for rule in rules if rule.audience_of == chosen[0].index)
    mirror = mirror_to(chosen, sides.canary) or next((entry for rule in chosen for entry in rule.mirrors), None)
    return Split(weights, matches, mirror, tuple(str(rule.number) for rule in chosen if rule.copy_of is None))


def match_of(conditions: Iterable[Condition], to: str) -> dict[str, Any]:
    """Return an entry of a Split's ``matches``."""
    return {"conditions": [str(condition) for condition in conditions], "to": to}


def mirror_to(chosen: Sequence[Rule], name: str) -> Mapping[str, Any] | None:
    """Return the mirror of the chosen rules that leads to ``name``, as ``{to, percent}`` and, where it is for some, ``methods``."""
    return next((mirror for rule in chosen for mirror in rule.mirrors if mirror["to"] == name), None)


def other_mirrors(chosen: Sequence[Rule], name: str) -> list[str]:
    """Return who else gets copies of the chosen rules' requests."""
    return sorted({mirror["to"] for rule in chosen for mirror in rule.mirrors if mirror["to"] != name})


def marked(rules: Sequence[Rule], copies: Mapping[int, tuple[int, Sequence[str]]]) -> list[Rule]:
    """Return the rules with those marked that are copies: {index: (index of the original, methods)}."""
    found: list[Rule] = []
    for rule in rules:
        if rule.index in copies:
            original, methods = copies[rule.index]
            mirrors = tuple({**mirror, "methods": list(methods)} for mirror in rule.mirrors)
            rule = replace(rule, copy_of=original, mirrors=mirrors)
        found.append(rule)
    return found


def _distinct(matches: Sequence[Mapping[str, Any]], keep: bool = False) -> set[str]:
    """Return matches as a set of texts, without their methods unless ``keep``."""
    return {json.dumps({key: value for key, value in match.items() if keep or key != "method"}, sort_keys=True) for match in matches}


@dataclass(frozen=True)
class Methods:
    """How a router whose rules have a list of matches, which ``matches`` is the key of, picks requests by method.

    ``written`` is how a method is written in a match, and ``spelled`` how it is read from one.
    """

    matches: str
    written: Callable[[str], Any]
    spelled: Callable[[Any], str]

    def copies(self, entries: Sequence[Mapping[str, Any]], rules: Sequence[Rule]) -> list[Rule]:
        """Return the rules with those marked that differ from a later one by a mirror and the methods alone."""
        found: dict[int, tuple[int, Sequence[str]]] = {}
        for rule in rules:
            mine = entries[rule.index].get(self.matches) or []
            if rule.mirrors and mine and all(match.get("method") for match in mine):
                wanted = _distinct(mine)
                for other in rules[rule.index + 1 :]:
                    if _distinct(entries[other.index].get(self.matches) or [{}], keep=True) == wanted:
                        methods = list(dict.fromkeys(self.spelled(match["method"]) for match in mine))
                        found[rule.index] = (other.index, methods)
                        break
        return marked(rules, found)

    def limited(self, ref: Ref, entry: Mapping[str, Any], mirror: Mirror) -> dict[str, Any]:
        """Return the rule again, for some methods alone; raise InvalidRequest where it picks its requests by method itself."""
        matches = entry.get(self.matches) or [{}]
        if any(match.get("method") for match in matches):
            raise InvalidRequest(f"{ref} picks its requests by method already in the rule that leads to the stable side; leave methods out")
        copied = copy.deepcopy(dict(entry))
        copied[self.matches] = [{**match, "method": self.written(method)} for match in copy.deepcopy(matches) for method in mirror.methods]
        if entry.get("name"):
            copied["name"] = f"{entry['name']}-mirror"
        return copied


def check_shadow(ref: Ref, chosen: Sequence[Rule], sides: Sides, mirror: Mirror | None) -> None:
    """Raise InvalidRequest where the shadow is asked for real answers too, or where another's copy would be in the way."""
    if mirror is None:
        return
    for rule in chosen:
        if rule.weights.get(sides.canary):
            raise InvalidRequest(
                f'rule {rule} of {ref} sends requests to "{sides.canary}" whose answers reach people; a shadow gets copies alone:'
                " take its weight to 0 first, or name another one"
            )
        if mirror.methods and rule.copy_of is not None and not mirror_to([rule], sides.canary):
            others = ", ".join(other_mirrors([rule], sides.canary))
            raise InvalidRequest(
                f'rule {rule} of {ref} copies requests of some methods to "{others}" already, and a request meets one rule;'
                " end that first, or leave methods out"
            )


def main_of(ref: Ref, documents: Documents) -> Manifest:
    """Return the route's own object; raise NotFound where it is not there."""
    manifest = documents.get(ref)
    if manifest is None:
        raise NotFound(f"{ref} does not exist; check the name and the namespace")
    return manifest
