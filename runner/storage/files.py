"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from runner.errors import DiskFullError, remedy_of
from runner.failpoints import Step, around

SUFFIX = ".partial"


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step, and its folder if need be; a failure leaves what was there.

    Raises:
        DiskFullError: it cannot be written; names the file.
    """
    partial = path.with_name(path.name + SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name and lose the bytes
        with around(Step.FILE_REPLACED):
            partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DiskFullError(f"cannot write {path}: {error}", remedy_of(error)) from error


def remove_partials(folder: Path) -> None:
    """Remove what writers that were killed left in a folder and below. None may be at work there."""
    for path in folder.rglob(f"*{SUFFIX}"):
        path.unlink(missing_ok=True)
