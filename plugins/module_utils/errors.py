# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the collection: each carries one sentence for a person and a word for a program."""

from __future__ import annotations

from typing import Any


class DeliveryError(Exception):
    """A step could not be done; ``message`` names the object, what is wrong and the way out.

    ``details`` are extra keys of the step's failed result (status, pods, tries, ...).
    """

    reason = "DeliveryError"

    def __init__(self, message: str, reason: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.details = details

    def with_details(self, **details: Any) -> DeliveryError:
        """Return this error with more keys for the failed result."""
        self.details.update(details)
        return self


class InvalidRequest(DeliveryError):
    """What was asked for cannot be: refused before anything was changed."""

    reason = "InvalidRequest"


class MissingLibrary(DeliveryError):
    """A Python package that this step needs, and others do not, is not installed; ``library`` names it."""

    reason = "MissingLibrary"

    def __init__(self, library: str, exception: str = "") -> None:
        super().__init__(f"the Python package {library} is missing; install it", **({"exception": exception} if exception else {}))
        self.library = library


class NotFound(DeliveryError):
    """An object that was named does not exist."""

    reason = "NotFound"


class Conflict(DeliveryError):
    """Somebody else changed the object since it was read, or it already exists."""

    reason = "Conflict"


class Gone(DeliveryError):
    """A watch was asked to resume from a version that the API server has forgotten: list again."""

    reason = "Gone"


class Forbidden(DeliveryError):
    """The API server knows the user (or not) and refuses the verb on the object."""

    reason = "Forbidden"


class Unavailable(DeliveryError):
    """The API server, or what lies behind it, does not answer."""

    reason = "Unavailable"


class WaitFailed(DeliveryError):
    """What was waited for did not happen in time, or is known not to happen; ``reason`` says why."""

    reason = "Timeout"
