# SPDX-License-Identifier: GPL-3.0-or-later
"""What the routers have in common for an audience: the conditions that a user asks for, and how they are written and read.

Regular expressions are those of RE2, which Envoy and Traefik both speak. Envoy matches a value in whole, Traefik any part of it:
so each expression is written with its anchors, and means the same to both.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest
from .rules import Audience, Condition, Sides, Split

MOST_COOKIES = 3
ANY = ".*"
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What a browser leaves as it is in a parameter.
_PLAIN = re.compile(r"[A-Za-z0-9_.!~*'()-]+")
_META = re.compile(r"([\\.+*?()|\[\]{}^$])")
_PARTS = re.compile(
    r"(?P<escape>\\.)"
    r"|(?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])"
    r"|(?P<group>\(\?(?:P?<\w+>|[a-zA-Z-]*[:)]|<?[=!]|P=|.))"
    r"|(?P<repeat>(?:[*+?]|\{\d+(?:,\d*)?\})[?+]?)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_KNOWN_GROUP = re.compile(r"\(\?(?:P<\w+>|[ims]*(?:-[ims]+)?[:)])")
# Any other cookies may stand before and after.
_BEFORE, _BETWEEN, _AFTER = r"(?:.*;\s*)?", r"\s*;\s*(?:.*;\s*)?", r"\s*(?:;.*)?"
_COOKIE_LEFT = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(\S+); Path=/; Max-Age=\d+; SameSite=Lax")
WHERE = {"headers": "header", "cookies": "cookie", "query": "query"}


# What a user asks for


def audience_of(options: Mapping[str, Any]) -> Audience:
    """Return the audience that a step's options name; raise InvalidRequest for none, for two kinds at once, or a wrong one."""
    conditions = tuple(
        _condition(where, str(name), value) for option, where in WHERE.items() for name, value in (options.get(option) or {}).items()
    )
    weight = options.get("weight")
    if conditions and weight is not None:
        raise InvalidRequest("weight is a share of all users and cannot be beside headers, cookies or query; choose one of the two")
    if weight is not None:
        return _share(int(weight), options["cookie"], int(options["cookie_seconds"]))
    if not conditions:
        raise InvalidRequest(
            "nothing says who the audience is; give headers, cookies or query, or with weight the share of the users; state absent ends it"
        )
    _check_once(conditions)
    return Audience(conditions)


def _share(weight: int, cookie: str, seconds: int) -> Audience:
    """Return the audience that is a share of the users."""
    if not 1 <= weight <= 99:
        raise InvalidRequest(
            f"weight must be between 1 and 99, got {weight}: users keep their side; for nobody set state to absent, for everybody"
            " use set_canary_weight"
        )
    _check_name("cookie", cookie)
    if seconds < 1:
        raise InvalidRequest(f"cookie_seconds must be 1 or more, got {seconds}")
    return Audience((), weight, cookie, seconds)


def _condition(where: str, name: str, value: Any) -> Condition:
    """Return one condition from an option's entry: a value, {exact: value}, {regex: expression}, or null for any value."""
    _check_name(where, name)
    if value is None:
        return Condition(where, name)
    regex = False
    if isinstance(value, Mapping):
        if len(value) != 1 or not set(value) <= {"exact", "regex"}:
            raise InvalidRequest(f'{where} "{name}" has {dict(value)}; give a value, or one of exact and regex')
        ((key, value),) = value.items()
        regex = key == "regex"
    if isinstance(value, (bool, float)) or not isinstance(value, (str, int)):
        raise InvalidRequest(f'{where} "{name}" has the value {value}, which is no text; put it in quotes')
    found = Condition(where, name, str(value), regex)
    _check_regex(found) if regex else _check_value(found)
    return found


def _check_name(where: str, name: str) -> None:
    """Raise InvalidRequest for a name that no request can carry, or that has an option of its own."""
    if not TOKEN.fullmatch(name) or len(name) > 256:
        raise InvalidRequest(
            f'{where} name "{name}" is not valid; a name has up to 256 letters, digits and !#$%&\'*+-.^_`|~, and no blanks (RFC 9110)'
        )
    if where == "header" and name.lower() == "cookie":
        raise InvalidRequest("header Cookie holds all cookies of a request; name the one that is meant with cookies")
    if where == "header" and name.lower() == "host":
        raise InvalidRequest("header Host is what finds the route; name the rules of a host with rule_host")


def _check_value(condition: Condition) -> None:
    """Raise InvalidRequest for a value that no request can carry."""
    value = condition.value or ""
    what = f'{condition.where} "{condition.name}"'
    if not value:
        raise InvalidRequest(f"{what} has an empty value; null asks that the {condition.where} is there, whatever it holds")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise InvalidRequest(f"{what} has a value with a line break or another control character; no request can carry it")
    if condition.where != "query" and (value != value.strip() or not value.isascii()):
        raise InvalidRequest(f"{what} has a value with blanks around it or letters beyond ASCII; no request carries it so")
    if condition.where == "cookie" and ";" in value:
        raise InvalidRequest(f"{what} has a value with a semicolon, which ends a cookie; give the value up to it")
    if condition.where == "query" and not _PLAIN.fullmatch(value):
        raise InvalidRequest(
            f"{what} has a value with letters that a URL holds encoded, and routers differ in what they compare; give a regex that takes"
            r" each form, as a( |\+|%20)b"
        )
    if len(value) > 1024:
        raise InvalidRequest(f"{what} has a value of {len(value)} characters; 1024 is the most")


def _check_regex(condition: Condition) -> None:
    """Raise InvalidRequest for an expression that does not compile, or that RE2 does not know."""
    text, what = condition.value or "", f'{condition.where} "{condition.name}"'
    if not text or len(text) > 1024 or any(ord(letter) < 32 for letter in text):
        raise InvalidRequest(f"{what} has an expression that is empty, has a control character or is longer than 1024 characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text)
    except re.error as error:
        raise InvalidRequest(f'{what} has the regular expression "{text}", which does not compile: {error}') from None
    for part in _PARTS.finditer(text):
        kind, found = part.lastgroup, part.group()
        foreign = (
            (kind == "group" and not _KNOWN_GROUP.fullmatch(found))
            or (kind == "escape" and found[1] in "123456789Z")
            or (kind == "repeat" and (found.endswith("+") and len(found) > 1 or any(int(n) > 1000 for n in re.findall(r"\d+", found))))
        )
        if foreign:
            raise InvalidRequest(
                f'{what} has the regular expression "{text}", and routers (RE2) do not know "{found}";'
                " write it without look-around, back-references and possessive repeats"
            )
    if condition.where == "cookie":
        _of_a_cookie(condition)


def _check_once(conditions: Sequence[Condition]) -> None:
    """Raise InvalidRequest where two conditions are about one thing, or where there are more than a route can hold."""
    seen: set[tuple[str, str]] = set()
    for condition in conditions:
        key = (condition.where, condition.name.lower() if condition.where == "header" else condition.name)
        if key in seen:
            raise InvalidRequest(f'{condition.where} "{condition.name}" is named twice in another case; one condition about it is enough')
        seen.add(key)
    for where, most in (("header", 15), ("query", 16), ("cookie", MOST_COOKIES)):
        count = sum(condition.where == where for condition in conditions)
        if count > most:
            raise InvalidRequest(f"the audience has {count} conditions by {where}; {most} is the most")


# How it is written


def quoted(text: str) -> str:
    """Return a text as a regular expression that matches it alone, as RE2 has it."""
    return _META.sub(r"\\\1", text)


def whole(condition: Condition) -> str:
    """Return the regular expression for a header's or a parameter's whole value."""
    return ANY if condition.value is None else f"^(?:{condition.value})$"


def cookies_regex(conditions: Sequence[Condition]) -> str:
    """Return one regular expression for the header Cookie that has all these cookies, in any order, among others.

    RE2 has no look-ahead, so each order is an alternative of its own.
    """
    pairs = [f"{quoted(condition.name)}={_of_a_cookie(condition)}" for condition in conditions]
    orders = [_BEFORE + _BETWEEN.join(order) + _AFTER for order in itertools.permutations(pairs)]
    return f"^{orders[0]}$" if len(orders) == 1 else f"^(?:{'|'.join(orders)})$"


def _of_a_cookie(condition: Condition) -> str:
    """Return the part of the regular expression for one cookie's value, which never reaches into the next cookie."""
    if condition.value is None:
        return "[^;]*"
    if not condition.regex:
        return quoted(condition.value)
    text = condition.value.removeprefix("^")
    text = text[:-1] if text.endswith("$") and not text.endswith("\\$") else text
    parts = []
    for part in _PARTS.finditer(text):
        kind, found = part.lastgroup, part.group()
        if kind == "other" and found == ".":
            found = "[^;]"
        elif kind == "escape" and found[1] in "DWS":
            found = f"[^;{found.lower()}]"
        elif kind == "set" and found.startswith("[^"):
            found = f"[^;{found[2:]}"
        elif (kind == "other" and found in "^$;") or (kind in ("escape", "set") and re.fullmatch(found, ";")):
            raise InvalidRequest(
                f'cookie "{condition.name}" has the regular expression "{condition.value}", in which "{found}" is no part of a value;'
                " a value ends at a semicolon and is matched in whole"
            )
        parts.append(found)
    return f"(?:{''.join(parts)})"


def set_cookie(audience: Audience, side: str) -> str:
    """Return the header Set-Cookie that keeps a user on a side."""
    return f"{audience.cookie}={side}; Path=/; Max-Age={audience.seconds}; SameSite=Lax"


def keeps(audience: Audience, side: str) -> Condition:
    """Return the condition that a user is on a side already."""
    return Condition("cookie", audience.cookie, side)


# How it is read


def is_set_cookie(value: str, side: str) -> bool:
    """Return whether a header Set-Cookie is one that keeps users on this side."""
    found = _COOKIE_LEFT.fullmatch(value)
    return found is not None and found[2] == side


def from_regex(where: str, name: str, text: str) -> Condition:
    """Return the condition that a regular expression for a whole value stands for."""
    if text == ANY:
        return Condition(where, name)
    inner = text[4:-2] if text.startswith("^(?:") and text.endswith(")$") else text
    return Condition(where, name, inner, regex=True)


def from_cookies_regex(text: str) -> list[Condition]:
    """Return the conditions that an expression for the header Cookie stands for; one that others wrote is a header's."""
    start, end = text.find(_BEFORE), text.find(_AFTER)
    if start not in (1, 4) or end < 0 or not text.startswith("^"):
        return [from_regex("header", "Cookie", text)]
    pairs = [pair.partition("=") for pair in text[start + len(_BEFORE) : end].split(_BETWEEN)]
    return [_cookie(_unquoted(name), value) for name, _sign, value in pairs]


def _cookie(name: str, text: str) -> Condition:
    """Return the condition for one cookie from its part of an expression."""
    if text == "[^;]*":
        return Condition("cookie", name)
    if text.startswith("(?:"):
        return Condition("cookie", name, text[3:-1].replace("[^;]", ".").replace("[^;", "[^"), regex=True)
    return Condition("cookie", name, _unquoted(text))


def _unquoted(text: str) -> str:
    """Return the text that ``quoted`` was given."""
    return re.sub(r"\\(.)", r"\1", text)


def kept_side(conditions: Iterable[Condition]) -> str | None:
    """Return the side on which a rule keeps its users, where its only condition is a cookie with a value."""
    found = list(conditions)
    return found[0].value if len(found) == 1 and found[0].where == "cookie" and not found[0].regex else None


def spoken(split: Split, sides: Sides) -> list[str]:
    """Return the audience of the variant in words: its conditions, or the share of the users and what keeps them."""
    for entry in split.matches:
        if entry["to"] != sides.canary:
            continue
        conditions = list(entry["conditions"])
        name, _sign, value = conditions[0].removeprefix("cookie ").partition("=")
        if len(conditions) == 1 and conditions[0].startswith("cookie ") and value == sides.canary and split.weights[sides.canary]:
            return [f"{split.weights[sides.canary]:g} % of the users, kept by cookie {name}"]
        return conditions
    return []


# Rules that meet


@dataclass(frozen=True)
class Asked:
    """What one match of a rule asks for: the kind and value of its path, its method, and its conditions.

    ``other`` is what else it asks for, as words; ``priority`` is for routers that go by one. A path of the kind "unknown" is
    that of a match that cannot be told.
    """

    path: tuple[str, str] = ("prefix", "/")
    method: str = ""
    conditions: frozenset[Condition] = frozenset()
    other: frozenset[str] = frozenset()
    priority: int = 0

    def covers(self, inner: Asked) -> bool:
        """Return whether every request that meets ``inner`` meets this too."""
        return (
            self.has_path(inner) and self.method in ("", inner.method) and self.conditions <= inner.conditions and self.other <= inner.other
        )

    def has_path(self, inner: Asked) -> bool:
        """Return whether the path of ``inner`` surely lies within this one's."""
        kind, value = self.path
        if self.path in (inner.path, ("prefix", "/")):
            return True
        if kind != "prefix" or inner.path[0] not in ("prefix", "exact"):
            return False
        start = value.rstrip("/")
        return inner.path[1] == start or inner.path[1].startswith(f"{start}/")

    def can_meet(self, other: Asked) -> bool:
        """Return whether there may be a request that meets both."""
        known = ("prefix", "exact")
        is_apart = self.path[0] in known and other.path[0] in known and not self.has_path(other) and not other.has_path(self)
        return not is_apart and not self.excludes(other)

    def __str__(self) -> str:
        """Return it as a sentence names it."""
        words = [self.method, " ".join(part for part in self.path if part), *sorted(map(str, self.conditions)), *sorted(self.other)]
        return ", ".join(word for word in words if word)

    def excludes(self, other: Asked) -> bool:
        """Return whether no request can meet both: another method, or two values for one name."""
        if self.method and other.method and self.method != other.method:
            return True
        mine = {(entry.where, entry.name): entry.value for entry in self.conditions if entry.value is not None and not entry.regex}
        return any(
            mine.get((entry.where, entry.name), entry.value) != entry.value
            for entry in other.conditions
            if entry.value is not None and not entry.regex
        )

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Return how specific it is beside its path, as the Gateway API counts: a method, then headers, then parameters."""
        queries = sum(entry.where == "query" for entry in self.conditions)
        headers = {entry.name if entry.where == "header" else "Cookie" for entry in self.conditions if entry.where != "query"}
        return bool(self.method), len(headers), queries
