"""The scorer's driver: runs the candidate over the locked rows and writes its claims to stdout.

Claims are float32 log-probabilities (nats) of the next tokens, `N × T` in row order, nothing else.
Whether they are honest is for the audit to find out, in other containers: see `auditor`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from locked_eval.container.candidate import Candidate, failure_code, open_answer, write_all


def main() -> int:
    """Score every row; returns one of the `EXIT_*` codes, 0 when all claims were written."""
    answer = open_answer()
    rows = np.load(Path(os.environ["ROWS_DIR"]) / "rows.npy", mmap_mode="r", allow_pickle=False)  # (N, T + 1)
    batch_rows = int(os.environ["SCORE_BATCH_ROWS"])
    try:
        candidate = Candidate()
        with torch.inference_mode():
            for start in range(0, len(rows), batch_rows):
                batch = torch.from_numpy(rows[start : start + batch_rows].astype(np.int64)).to(candidate.device)
                write_all(answer, _claims(candidate, batch))
    except BaseException as error:  # noqa: BLE001  hostile code, SystemExit included
        return failure_code(error)
    return 0


def _claims(candidate: Candidate, batch: Tensor) -> bytes:
    """Log-probabilities of the next tokens of `(B, T + 1)` rows, as float32 bytes."""
    tokens, targets = batch[:, :-1], batch[:, 1:]  # (B, T)
    logits = candidate.logits(tokens)  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")  # (B·T,)
    claims: npt.NDArray[np.float32] = (-losses).cpu().numpy().astype("<f4")
    return claims.tobytes()
