"""Errors of the host. A candidate's failure is a value (`records.Verdict`), never one of these.

AutoresearchError
├── ConfigError       a setting, an option or an argument is wrong              (exit 2)
├── EngineError       Docker does not answer, refuses, or lost something
│   ├── EngineAwayError it did not answer for as long as we wait
│   └── DiskFullError no room left for images, volumes or the ledger
├── ImageError        the base image or a candidate image could not be built
│   └── BaseGoneError the base image was removed under a campaign
├── DataError         a corpus is missing, too small, or differs from its hash
├── LockedEvalError   a file of the locked evaluation differs from its manifest
├── RepositoryError   git: not a repository, dirty, in a rebase, a ref moved
├── LedgerError       the ledger cannot be read or written, or another controller holds it
├── ProposerError     the proposer can never propose: bad key, unknown model, unusable patch folder
├── BaselineError     the unmodified workload does not run
└── Interrupted       the user asked to stop now                                (exit 130)
"""

from __future__ import annotations

import errno
import re

_FIGURES = re.compile(r"\b(?=\w*\d)[0-9a-fA-F]{8,}\b|\d+")
"""Matches ids and numbers."""


class AutoresearchError(Exception):
    """An error with one clear sentence and the next command to type.

    Args:
        message: what happened, and to what.
        remedy: the next command or edit for the user; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    @property
    def fault(self) -> str:
        """The failure without ids and figures: two failures with the same fault are the same failure."""
        return without_figures(self.message)

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  → {self.remedy}"


_REMEDIES = {
    errno.ENOSPC: "free some disk (df -h, df -i), then start again: nothing is lost",
    errno.EDQUOT: "free some of your quota, then start again: nothing is lost",
    errno.EROFS: "dmesg shows why it is read-only; make it writable, then start again: nothing is lost",
    errno.EACCES: "ls -ld shows its owner; run as the user who owns the clone",
    errno.EPERM: "ls -ld shows its owner; run as the user who owns the clone",
}


def remedy_of(error: OSError) -> str:
    """Suggest what to do about a file that the operating system refuses."""
    return _REMEDIES.get(error.errno or 0, "autoresearch doctor, then start again: nothing is lost")


def without_figures(text: str) -> str:
    """Remove ids and numbers from a sentence, to compare it with another one."""
    return _FIGURES.sub("#", text)


class ConfigError(AutoresearchError):
    """A setting, an option or an argument is wrong."""

    exit_code = 2


class EngineError(AutoresearchError):
    """Docker does not answer, refuses, or lost something of ours.

    Args:
        fault: the failure in words that do not change between occurrences; the message without ids and figures
            when omitted.
    """

    def __init__(self, message: str, remedy: str | None = None, *, fault: str | None = None) -> None:
        super().__init__(message, remedy)
        self._fault = fault

    @property
    def fault(self) -> str:
        """The failure in words that do not change: two failures with the same fault are the same failure."""
        return self._fault or super().fault


class EngineAwayError(EngineError):
    """The engine did not answer for as long as we wait. Says nothing about any experiment."""


class DiskFullError(EngineError):
    """No room left for images, volumes or the ledger."""


class ImageError(AutoresearchError):
    """The base image or a candidate image could not be built."""


class BaseGoneError(ImageError):
    """The base image of a running campaign was removed: no candidate can be built."""


class DataError(AutoresearchError):
    """A corpus is missing, too small, or differs from its recorded hash."""


class LockedEvalError(AutoresearchError):
    """A file of the locked evaluation differs from its manifest."""


class RepositoryError(AutoresearchError):
    """Git: not a repository, dirty, in a rebase, or a ref was moved by another program."""


class LedgerError(AutoresearchError):
    """The ledger cannot be read or written, or another controller holds it."""


class ProposerError(AutoresearchError):
    """This proposer can never make a proposal: bad key, unknown model, unusable patch folder."""


class BaselineError(AutoresearchError):
    """The unmodified workload does not run, so nothing can be compared with it."""


class Interrupted(AutoresearchError):
    """The user asked to stop now."""

    exit_code = 130
