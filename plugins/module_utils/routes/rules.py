# SPDX-License-Identifier: GPL-3.0-or-later
"""What the routers have in common: which rules of a route are meant, and what a split in them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidRequest, NotFound
from ..model import Manifest, Ref

Documents = Mapping[Ref, Manifest | None]
"""The objects that make a route, as they are or shall be: its own, and those beside it; None is one that is not there."""


@dataclass(frozen=True)
class Sides:
    """The two sides of a split by their names in the route - Services, for Istio also subsets - and which rule is meant.

    The canary's side is also an A/B test's variant and a shadow. ``rule`` is a rule's name or its number from 0; ``host``
    and ``path`` as the route spells them. ``labels`` are those of the canary's pods, where a side is a subset that may have
    to be made. ``place`` is where the rule stands, which is its number where no audience's rules stand before it.
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
        """Return whether a rule is what rule, host and path name."""
        return _is_named(rule, self)


@dataclass(frozen=True)
class Rule:
    """One rule of a route: where it is, and who gets its requests. ``weights`` {backend: weight as it is written}.

    ``keeps`` says that its only backend is the one that a cookie of the request names: it keeps a user on his side.
    """

    index: int
    name: str
    hosts: tuple[str, ...]
    path: str
    weights: Mapping[str, int]
    conditions: tuple[str, ...] = ()
    mirror: Mapping[str, Any] | None = None
    keeps: bool = False

    def __str__(self) -> str:
        """Return the rule as a sentence names it."""
        name = f"{self.index}" if not self.name else f'{self.index} "{self.name}"'
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
    """Copies of ``percent`` of the requests, of these ``methods`` alone where some are named."""

    percent: float = 100
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Who gets how many percent of the requests of the chosen rules, who gets some in any case, and who gets copies."""

    weights: Mapping[str, float]
    matches: tuple[Mapping[str, Any], ...] = ()
    mirror: Mapping[str, Any] | None = None
    rules: tuple[str, ...] = field(default_factory=tuple)


def choose(ref: Ref, rules: Sequence[Rule], sides: Sides) -> list[Rule]:
    """Return the rules that are meant: those named, else the only one that leads to the stable side; raise InvalidRequest."""
    sides.check()
    there = "; ".join(str(rule) for rule in rules) or "none"
    found = [rule for rule in rules if _is_named(rule, sides)]
    if not found:
        raise InvalidRequest(f"{ref} has no rule for {_asked(sides)}; its rules are: {there}")
    mine = [rule for rule in found if sides.stable in rule.weights]
    if not mine:
        raise InvalidRequest(f'{ref} does not lead to "{sides.stable}"; correct stable; its rules are: {there}')
    plain = [rule for rule in mine if not _is_audience(rule, sides)]
    if len(plain) > 1 and sides.rule is None and sides.host is None and sides.path is None:
        raise InvalidRequest(
            f'{ref} leads to "{sides.stable}" by several rules: {"; ".join(str(rule) for rule in plain)};'
            " name the one that is meant with rule, rule_host or rule_path"
        )
    for rule in plain:
        others = [name for name in rule.weights if name not in (sides.stable, sides.canary)]
        if others:
            raise InvalidRequest(
                f'rule {rule} of {ref} also leads to "{others[0]}"; a split has two sides: take it out of the rule, or name the right sides'
            )
    return plain


def _is_named(rule: Rule, sides: Sides) -> bool:
    """Return whether a rule is what the options name."""
    return (
        (sides.place is None or sides.place == rule.index)
        and (sides.rule is None or sides.rule in (rule.name, str(rule.index)))
        and (sides.host is None or sides.host in rule.hosts)
        and (sides.path is None or sides.path == rule.path)
    )


def _is_audience(rule: Rule, sides: Sides) -> bool:
    """Return whether a rule is one that picks an audience for the canary, or keeps users on their side."""
    return rule.keeps or (bool(rule.conditions) and list(rule.weights) == [sides.canary])


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
    """Return who gets what by the chosen rules of a route whose rules have weighted backends."""
    chosen = choose(ref, rules, sides)
    weights = percentages({name: chosen[0].weights.get(name, 0) for name in (sides.stable, sides.canary)})
    return Split(weights, mirror=chosen[0].mirror, rules=tuple(str(rule.index) for rule in chosen))


def main_of(ref: Ref, documents: Documents) -> Manifest:
    """Return the route's own object; raise NotFound where it is not there."""
    manifest = documents.get(ref)
    if manifest is None:
        raise NotFound(f"{ref} does not exist; check the name and the namespace")
    return manifest
