"""The lock that allows one controller per state folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import AutoresearchError, DiskFullError, LedgerError, remedy_of

NAME = "controller.lock"
EXEC_SECONDS = 2.0
"""Longest time that a child of a killed controller is given for its exec."""


@contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Hold the controller's lock of a state folder; the kernel releases it however the process ends.

    Child processes do not inherit it: a child that outlives the controller blocks no other controller. Between its
    fork and its exec it does hold it, so a lock whose owner is dead is waited for.

    Raises:
        LedgerError: another controller holds the lock (the message names its process id), or the file cannot be
            written.
        DiskFullError: there is no room for the file.
    """
    path = state_dir / NAME
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise write_failure(path, error) from error
    try:
        _acquire(lock, state_dir)
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise write_failure(path, error) from error
        yield
    finally:
        os.close(lock)


def _acquire(lock: int, state_dir: Path) -> None:
    give_up = time.monotonic() + EXEC_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            is_dead = holder.isdigit() and not Path("/proc", holder).exists()
            if not is_dead or time.monotonic() > give_up:
                raise LedgerError(
                    f"another controller (process {holder or 'unknown'}) works in {state_dir}",
                    "autoresearch status shows what it does; stop it with Ctrl-C or kill",
                ) from None
            time.sleep(0.01)
        else:
            return


def is_running(state_dir: Path) -> bool:
    """Whether a controller holds the lock of a state folder right now."""
    path = state_dir / NAME
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def write_failure(path: Path, error: OSError) -> AutoresearchError:
    """The error for a file of the state folder that the operating system does not let us write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"no room to write {path}", remedy_of(error))
    return LedgerError(f"{path} cannot be written: {error}", remedy_of(error))
