"""Atomic file writes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from runner.errors import DiskFullError, remedy_of
from runner.failpoints import Step, around

SUFFIX = ".partial"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically, and create its folder if necessary. A failure leaves the old file in place.

    Raises:
        DiskFullError: the file cannot be written.
    """
    partial = path.with_name(path.name + SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut may keep the name and lose the bytes
        with around(Step.FILE_REPLACED):
            partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DiskFullError(f"cannot write {path}: {error}", remedy_of(error)) from error


def remove_partials(folder: Path) -> None:
    """Remove unfinished files of killed writers from a folder and its subfolders. No writer may be running."""
    for path in folder.rglob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
