"""The SQLite file beneath the ledger: opened durably, changed in named transactions, failures in our own words.

WAL mode with `synchronous=FULL`: a row that was acknowledged survives power loss.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.errors import AutoresearchError, DiskFullError, LedgerError, remedy_of
from runner.failpoints import Step, around
from runner.storage.lock import write_failure
from runner.storage.schema import FORMAT, TABLES

LEAST_ROOM_BYTES = 64 * 1024
"""A file system with less is full: SQLite needs that much for the smallest of its files."""


class Database:
    """One connection to a ledger file. It belongs to the thread that opened it.

    Raises from every method:
        LedgerError: the file is not one of our ledgers, or cannot be read or written.
        DiskFullError: no room left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._prepare()
        except (sqlite3.Error, OSError, LedgerError) as error:
            if hasattr(self, "_db"):
                self._db.close()
            if isinstance(error, LedgerError):
                raise
            raise _failure(path, error) from error

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self.transaction(Step.LEDGER_MADE):
                self._create()
        elif version != FORMAT:
            raise LedgerError(
                f"the ledger {self.path} has format {version}, this program reads and writes {FORMAT}",
                f"move {self.path} away, or use the program version that wrote it",
            )

    def _create(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == FORMAT:
            return  # another process was faster
        for statement in TABLES.split(";\n"):
            if statement.strip():
                self._db.execute(statement)
        self._db.execute("INSERT INTO meta VALUES ('controller', ?)", (uuid.uuid4().hex,))
        self._db.execute(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def transaction(self, step: Step) -> Iterator[sqlite3.Connection]:
        """A write that happens as a whole or not at all; the failpoints of `step` lie around its COMMIT."""
        try:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                with around(step):
                    self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has rolled some failures back by itself
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error

    def read(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Rows of a query."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error


def _failure(path: Path, error: sqlite3.Error | OSError) -> AutoresearchError:
    """Our error for what SQLite or the file system refused."""
    if isinstance(error, OSError):
        return write_failure(path, error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the text tells the extended codes apart
    disk = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    if code == sqlite3.SQLITE_FULL or (disk and _is_full(path.parent)):
        return DiskFullError(f"no room to write the ledger {path}", remedy_of(OSError(errno.ENOSPC, "")))
    what = f"the ledger {path} cannot be used: {error}"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        recovered = path.with_name("recovered.db")
        return LedgerError(
            what,
            f"it is left as it is: sqlite3 {path} .recover | sqlite3 {recovered} saves what can be read; "
            f"or move {path} away, together with the files whose names begin with its name, to start a new one",
        )
    if disk or code == sqlite3.SQLITE_READONLY:
        return LedgerError(
            what,
            f'ls -ld {path.parent} shows its owner; if it is another user: sudo chown -R "$USER": {path.parent}; '
            "else df -h and dmesg say why",
        )
    return LedgerError(what, "autoresearch doctor, then start again: nothing is lost")


def _is_full(folder: Path) -> bool:
    """Whether its file system has no room for another file."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < LEAST_ROOM_BYTES or (found.f_files > 0 and found.f_favail == 0)
