"""The checker's driver: what scoring and audits do, on random tokens, and the traceback of what fails.

No score comes from it. Smoke tests run it before an experiment, so that a program that could not be scored is
found in seconds; and since there is no text of the corpus in its container, its error messages may be read.

`$ROWS_DIR`, written by the host:
    passes.npy      (P, B, T) random tokens: passes over a full batch
    positions.npy   (B,) the position of each row whose logits are wanted, −1 for none
    last.npy        (B′, T) a smaller batch, as the last one of scoring

The answer is one line of JSON, then, where nothing failed, one float32 vector of V logits for every pass and
wanted position. The passes after the second one are answered by a model that is loaded anew.
"""

from __future__ import annotations

import importlib
import json
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from locked_eval.container.candidate import Candidate, Unusable, open_answer, write_all
from locked_eval.container.handover import CHECKPOINT

MAX_TRACEBACK = 6000
"""Characters of a traceback that are passed on, from its end."""
RELOADED_FROM = 2
"""Index of the first pass that a model loaded anew answers."""


def main() -> int:
    """Check the candidate; returns 0 when the answer was written."""
    answer = open_answer()
    report: dict[str, Any] = {"failed": None}
    found: list[npt.NDArray[np.float32]] = []
    try:
        _check(report, found)
    except BaseException as error:  # noqa: BLE001  hostile code, SystemExit included
        cause = error.__cause__ if isinstance(error, Unusable) else error
        if cause is not None:
            report["traceback"] = "".join(traceback.format_exception(cause))[-MAX_TRACEBACK:]
        found = []
    else:
        report["failed"] = None
    write_all(answer, json.dumps(report).encode() + b"\n")
    for logits in found:
        write_all(answer, logits.tobytes())
    return 0


def _check(report: dict[str, Any], found: list[npt.NDArray[np.float32]]) -> None:
    """Answer every pass; `report` says what was being done when an exception ends it."""
    folder = Path(os.environ["ROWS_DIR"])
    passes = np.load(folder / "passes.npy", allow_pickle=False)
    last = np.load(folder / "last.npy", allow_pickle=False)
    positions = np.load(folder / "positions.npy", allow_pickle=False)
    wanted = np.flatnonzero(positions >= 0)
    report["failed"] = "checkpoint"
    report["checkpoint_bytes"] = (Path(os.environ["OUT_DIR"]) / CHECKPOINT).lstat().st_size
    report["failed"] = "load"
    candidate = Candidate()
    report["forward"] = _place_of(candidate.module)
    report["failed"] = "forward"
    with torch.inference_mode():
        for index, rows in enumerate(passes):
            if index == RELOADED_FROM:
                report["failed"] = "load"
                candidate = Candidate()
                report["failed"] = "forward"
            logits = candidate.logits(torch.from_numpy(rows.astype(np.int64)).to(candidate.device))  # (B, T, V)
            chosen = logits[wanted.tolist(), positions[wanted].tolist()]  # (W, V)
            found.append(chosen.float().cpu().numpy().astype("<f4"))
        report["failed"] = "last"
        candidate.logits(torch.from_numpy(last.astype(np.int64)).to(candidate.device))
    report["failed"] = "sizes"
    import workload

    for folder_of_sizes in (Path(path) / "sizes" for path in workload.__path__):
        for path in sorted(folder_of_sizes.glob("*.py")):
            importlib.import_module(f"workload.sizes.{path.stem}")


def _place_of(module: object) -> str | None:
    """File, line and name of the forward function; None where it has none in Python."""
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    if code is None:
        return None
    return f"{code.co_filename}:{code.co_firstlineno}:{type(module).__name__}.{code.co_name}"
