"""The one place where an unforeseen exception is caught: a bug of ours about one candidate.

Candidates are hostile, or merely odd, text. When our own code fails over one, that says nothing about the
candidate,
and the night does not depend on it: the caller sets this candidate aside and continues. The log gets a bug report.

Exceptions with a meaning pass through: `AutoresearchError` (the host's failures, a person who stops), `OSError` (a
full disk, a reader that left) and everything that is no `Exception`. A bug that concerns no single candidate shows
up as one candidate after the other that is set aside, until `night.MAX_QUARANTINED` ends the night.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from runner.errors import AutoresearchError
from runner.untrusted import one_line

log = structlog.get_logger()

T = TypeVar("T")
_ERROR_CHARACTERS = 160


@dataclass(frozen=True, kw_only=True)
class Bug:
    """An unforeseen exception."""

    reason: str  # one sentence for a ledger
    error: Exception


def guarded(doing: str, act: Callable[[], T], **about: object) -> T | Bug:
    """Do something with one candidate; a bug of ours comes back as a value, and is reported in the log.

    Args:
        doing: what `act` does, for the reason: "judging it".
        act: all that is done.
        about: what the bug report names besides.
    """
    try:
        return act()
    except (AutoresearchError, OSError):
        raise
    except Exception as error:  # noqa: BLE001  here and nowhere else: a bug has no name before it is known
        summary = one_line(f"{type(error).__name__}: {error}", _ERROR_CHARACTERS)
        log.error(
            "internal_error",
            doing=doing,
            error=summary,
            traceback="".join(traceback.format_exception(error)),
            **about,
        )
        return Bug(reason=f"internal error while {doing}: {summary}; a bug report is in the log", error=error)
