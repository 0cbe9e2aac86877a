# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not show of a pod template: values that are secrets by their name, or that carry one in their text.

It errs on the side of hiding: a value that is hidden without need can be looked up, one that was shown cannot be taken back.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

HIDDEN = "********"

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_ANYWHERE = ("password", "passwd", "passphrase", "secret", "token", "apikey", "credential")
# The address of a webhook is all that it takes to use it.
_ALWAYS = ("webhook",)
_WORDS = {"auth", "authorization", "bearer", "cookie", "creds", "dsn", "jwt", "key", "pass", "pin", "pwd", "salt", "session"}
# What a name that ends so holds is about a secret, and none itself: the file it is in, how long it is valid.
_ABOUT = {
    "class",
    "dir",
    "enabled",
    "endpoint",
    "expiry",
    "file",
    "host",
    "issuer",
    "length",
    "method",
    "mode",
    "mount",
    "name",
    "names",
    "path",
    "port",
    "ref",
    "seconds",
    "size",
    "timeout",
    "ttl",
    "type",
    "uri",
    "url",
    "user",
    "username",
}
_PLAIN = {"", "0", "1", "false", "no", "none", "off", "on", "true", "yes"}

_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/]+@")
_NAMES = r"[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?|sig(?:nature)?)"
_ASSIGNED = re.compile(rf"(?P<name>{_NAMES}[\"']?\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"'&,;]+)", re.IGNORECASE)
_FLAG = re.compile(rf"-{{1,2}}{_NAMES}", re.IGNORECASE)
_SCHEME = re.compile(r"\b(?P<scheme>Bearer|Basic)\s+\S+", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Return whether a variable, header or annotation of this name holds a secret."""
    words = [word.lower() for word in _WORD.findall(name)]
    together = "".join(words)
    if any(part in together for part in _ALWAYS):
        return True
    if not words or words[-1] in _ABOUT:
        return False
    return any(part in together for part in _ANYWHERE) or bool(_WORDS & set(words))


def masked(name: str, value: Any) -> Any:
    """Return a value as it may be shown under this name."""
    if not isinstance(value, str):
        return value
    if is_secret_name(name) and value.lower() not in _PLAIN:
        return HIDDEN
    return masked_text(value)


def masked_text(text: str) -> str:
    """Return a text without the secrets that it carries: in URLs, in assignments, in HTTP credentials."""
    text = _USER_INFO.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _SCHEME.sub(rf"\g<scheme> {HIDDEN}", text)
    return _ASSIGNED.sub(rf"\g<name>{HIDDEN}", text)


def shown_url(url: str) -> str:
    """Return an address without what may be a secret in it: ``scheme://host:port`` alone, or nothing of what is no address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return HIDDEN
    if not parts.scheme or not host:
        return HIDDEN
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}"


def masked_words(words: list[Any]) -> list[Any]:
    """Return a command line without its secrets: also where the value follows its flag as a word of its own."""
    found: list[Any] = []
    after_flag = False
    for word in words:
        text = str(word)
        found.append(HIDDEN if after_flag and not text.startswith("-") else masked_text(text))
        after_flag = bool(_FLAG.fullmatch(text))
    return found
