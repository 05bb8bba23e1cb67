"""The SQLite file beneath the ledger: opened durably, changed in named transactions, failures in our own words.

WAL mode with `synchronous=FULL`: a row that was acknowledged survives power loss. WAL needs memory that processes
share. File systems that machines share do not offer it; there, a slower rollback journal keeps the same promise.
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
from runner.storage.filesystem import this_file_system
from runner.storage.lock import write_failure
from runner.storage.schema import FORMAT, TABLES

LEAST_ROOM_BYTES = 64 * 1024
"""A file system with less is full: SQLite needs that much for the smallest of its files."""
TIMEOUT_SECONDS = 30
"""The time to wait for another process that writes."""


class Database:
    """One connection to a ledger file. It belongs to the thread that opened it.

    Args:
        read_only: the file exists, and nothing is written, beside it neither.

    Raises from every method:
        LedgerError: the file is not one of our ledgers, or cannot be read or written.
        DiskFullError: no room left.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        try:
            if read_only:
                self._db = _connect_to_read(path)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(path, isolation_level=None, timeout=TIMEOUT_SECONDS)
                self._use_journal()
            self._db.row_factory = sqlite3.Row
            self._prepare()
        except (sqlite3.Error, OSError, LedgerError) as error:
            if hasattr(self, "_db"):
                self._db.close()
            if isinstance(error, LedgerError):
                raise
            raise _failure(path, error) from error

    def _use_journal(self) -> None:
        """Switch to the write-ahead log, or to a rollback journal where processes cannot share memory."""
        file_system = this_file_system(self.path)
        shared = file_system is not None and file_system.is_shared
        for mode in ("truncate",) if shared else ("wal", "truncate"):
            # SQLite answers with the mode that it has, which is another one where it cannot switch.
            if self._db.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] == mode:
                return
        where = "" if file_system is None else f" on {file_system}"
        raise LedgerError(
            f"the ledger {self.path}{where} gets no journal that survives a power cut",
            "clone the repository onto a local disk, and work there",
        )

    def _prepare(self) -> None:
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self.transaction(Step.LEDGER_MADE):
                self._create()
        elif version != FORMAT:
            raise LedgerError(
                f"the ledger {self.path} has format {version}, but this version reads and writes format {FORMAT}",
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


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a ledger that we may not write: of another user, or on a read-only medium.

    A reader shares two files with the writer of a WAL ledger, and must make them when there is no writer. Where it
    cannot, and no log waits to be read, the file alone is the whole ledger.
    """
    alone = not path.with_name(f"{path.name}-shm").exists() and not _size(path.with_name(f"{path.name}-wal"))
    mode = "immutable=1" if alone else "mode=ro"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None, timeout=TIMEOUT_SECONDS
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


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
