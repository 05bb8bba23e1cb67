"""The auditor's driver: runs the candidate over the audit's rows and writes its logits to stdout.

`$ROWS_DIR`, written by `judging.plan` after the claims were committed:
    inputs.npy      (M, T) rows in which everything after the drawn position is text from training
    positions.npy   (M,) the drawn position, −1 where no answer is wanted
    edges.npy       (K + 1,) batch k is the rows edges[k] … edges[k + 1] − 1

The answer is one float32 vector of V logits per wanted row, in order. The next token at a drawn position is in
none of these files, nor anywhere else in the container.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from locked_eval.container.candidate import Candidate, failure_code, open_answer, write_all


def main() -> int:
    """Answer every batch; returns one of the `EXIT_*` codes, 0 when all logits were written."""
    answer = open_answer()
    folder = Path(os.environ["ROWS_DIR"])
    inputs = np.load(folder / "inputs.npy", mmap_mode="r", allow_pickle=False)
    positions = np.load(folder / "positions.npy", allow_pickle=False)
    edges = np.load(folder / "edges.npy", allow_pickle=False)
    try:
        candidate = Candidate()
        with torch.inference_mode():
            for begin, end in pairwise(edges.tolist()):
                batch = torch.from_numpy(inputs[begin:end].astype(np.int64)).to(candidate.device)  # (B, T)
                logits = candidate.logits(batch)  # (B, T, V)
                wanted = np.flatnonzero(positions[begin:end] >= 0)
                chosen = logits[wanted.tolist(), positions[begin:end][wanted].tolist()]  # (W, V)
                write_all(answer, chosen.float().cpu().numpy().astype("<f4").tobytes())
    except BaseException as error:  # noqa: BLE001  hostile code, SystemExit included
        return failure_code(error)
    return 0
