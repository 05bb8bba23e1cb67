"""What can go wrong on the host. A candidate's failure is a value (`records.Verdict`), never one of these.

AutoresearchError
├── ConfigError       a setting, an option or an argument is wrong              (exit 2)
├── EngineError       Docker does not answer, refuses, or lost something
│   └── DiskFullError no room left for images, volumes or the ledger
├── ImageError        the base image or a candidate image could not be built
├── DataError         a corpus is missing, too small, or differs from its hash
├── LockedEvalError   a file of the locked evaluation differs from its manifest
├── RepositoryError   git: not a repository, detached, dirty, a ref moved
├── LedgerError       the ledger cannot be read or written, or another controller holds it
├── ProposerError     no proposal can ever come: bad key, unknown model, unusable patch folder
├── BaselineError     the unmodified workload does not run
└── Interrupted       a person asked to stop now                                (exit 130)
"""

from __future__ import annotations


class AutoresearchError(Exception):
    """One clear sentence on what happened and to what, and the next thing to type.

    Args:
        message: what happened, naming the thing.
        remedy: the next command or edit for the user; shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  → {self.remedy}"


class ConfigError(AutoresearchError):
    """A setting, an option or an argument is wrong."""

    exit_code = 2


class EngineError(AutoresearchError):
    """Docker does not answer, refuses, or lost something of ours."""


class DiskFullError(EngineError):
    """No room left for images, volumes or the ledger."""


class ImageError(AutoresearchError):
    """The base image or a candidate image could not be built."""


class DataError(AutoresearchError):
    """A corpus is missing, too small, or differs from its recorded hash."""


class LockedEvalError(AutoresearchError):
    """A file of the locked evaluation differs from its manifest."""


class RepositoryError(AutoresearchError):
    """Git: not a repository, detached, dirty, or a ref was moved by somebody else."""


class LedgerError(AutoresearchError):
    """The ledger cannot be read or written, or another controller holds it."""


class ProposerError(AutoresearchError):
    """No proposal can ever come from this proposer: bad key, unknown model, unusable patch folder."""


class BaselineError(AutoresearchError):
    """The unmodified workload does not run, so nothing can be compared with it."""


class Interrupted(AutoresearchError):
    """A person asked to stop now."""

    exit_code = 130
