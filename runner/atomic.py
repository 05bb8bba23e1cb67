"""Files that are whole or absent."""

from __future__ import annotations

import contextlib
from pathlib import Path

from runner.crash_points import Step, around
from runner.errors import DiskFullError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step, and its folder if need be; a failure leaves what was there.

    Raises:
        DiskFullError: it cannot be written; names the file.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        with around(Step.FILE_REPLACED):
            partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DiskFullError(f"cannot write {path}: {error}", "free some disk") from error
