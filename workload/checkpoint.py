"""Publish the checkpoint of a run.

The evaluation loads one file, `$OUT_DIR/checkpoint`, as it is when the run ends or is killed. How it is written
is up to this program; `publish` writes it so that a kill at any moment leaves a complete one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

FILE_NAME = "checkpoint"  # fixed by the evaluation


def publish(write: Callable[[Path], object]) -> None:
    """Replace the published checkpoint atomically.

    Args:
        write: writes the new checkpoint, one file, to the path that it is given.
    """
    out_dir = Path(os.environ["OUT_DIR"])
    partial = out_dir / f".{FILE_NAME}.partial"
    try:
        write(partial)
        partial.replace(out_dir / FILE_NAME)
    finally:
        partial.unlink(missing_ok=True)
