"""The scorer's driver: runs the candidate over the locked rows and writes its claims to stdout.

Claims are float32 log-probabilities (nats) of the next tokens, `N × T` in row order, nothing else.
This code shares its process with the candidate's, which can patch all of it: what comes out is a
claim, never a score. Text goes nowhere: stdout is claims, stderr is closed by the supervisor.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from locked_eval.handoff import CHECKPOINT

EXIT_NO_CHECKPOINT = 3
EXIT_LOAD_FAILED = 4
EXIT_FORWARD_FAILED = 5


def main() -> int:
    """Score every row; returns one of the `EXIT_*` codes, 0 when all claims were written."""
    claims_fd = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # an honest `print` must not corrupt the claims
    checkpoint = Path(os.environ["OUT_DIR"]) / CHECKPOINT
    try:
        if not stat.S_ISREG(checkpoint.lstat().st_mode):
            return EXIT_NO_CHECKPOINT
    except OSError:
        return EXIT_NO_CHECKPOINT

    rows = np.load(Path(os.environ["VAL_DIR"]) / "rows.npy", mmap_mode="r", allow_pickle=False)  # (N, T + 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        from workload import model as candidate

        module = candidate.load(checkpoint, device)
        module.eval()
    except BaseException:  # noqa: BLE001  hostile code, SystemExit included: every failure means the same
        return EXIT_LOAD_FAILED

    batch_rows = int(os.environ["SCORE_BATCH_ROWS"])
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_rows):
                batch = torch.from_numpy(rows[start : start + batch_rows].astype(np.int64)).to(device)
                _write_all(claims_fd, _claims(module, batch))
    except BaseException:  # noqa: BLE001
        return EXIT_FORWARD_FAILED
    sys.stderr.flush()
    return 0


def _claims(module: torch.nn.Module, batch: torch.Tensor) -> bytes:
    """Log-probabilities of the next tokens of a batch of rows, as float32 bytes."""
    tokens, targets = batch[:, :-1], batch[:, 1:]  # (B, T)
    logits = module(tokens)  # (B, T, V)
    if logits.shape[:2] != targets.shape:
        raise ValueError("logits must be (B, T, V)")
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")  # (B·T,)
    claims: npt.NDArray[np.float32] = (-losses).cpu().numpy().astype("<f4")
    return claims.tobytes()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
