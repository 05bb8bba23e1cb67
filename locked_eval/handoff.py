"""How a candidate hands over its checkpoint: the only function of `locked_eval` that `workload` calls.

A convenience, not a guard: a candidate may write to `$OUT_DIR` as it likes. What counts is the file
`$OUT_DIR/checkpoint` at the moment of the kill.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

CHECKPOINT = "checkpoint"
"""Name of the one file in `$OUT_DIR` that the scorer loads."""


def publish(write: Callable[[Path], object]) -> None:
    """Replace the published checkpoint in one step, so that a kill at any moment leaves a whole one.

    Args:
        write: writes the new checkpoint, one file, to the path that it is given.
    """
    out_dir = Path(os.environ["OUT_DIR"])
    partial = out_dir / f".{CHECKPOINT}.partial"
    try:
        write(partial)
        partial.replace(out_dir / CHECKPOINT)
    finally:
        partial.unlink(missing_ok=True)
