"""What the scorer and the auditor share: the candidate's model, and a way out for their answer.

This code runs in one process with the candidate's, which can patch all of it. Whatever comes out is a
claim. Text goes nowhere: stdout is the answer, stderr is closed by the supervisor.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import torch
from torch import Tensor

from locked_eval.handoff import CHECKPOINT

EXIT_NO_CHECKPOINT = 3
EXIT_LOAD_FAILED = 4
EXIT_FORWARD_FAILED = 5


class Unusable(Exception):
    """The candidate cannot be run; carries one of the `EXIT_*` codes."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def open_answer() -> int:
    """A descriptor for the answer; an honest `print` of the candidate must not get into it."""
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return answer


def write_all(fd: int, data: bytes) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Candidate:
    """The model that was published, on the device where it is scored."""

    def __init__(self) -> None:
        """Load the checkpoint.

        Raises:
            Unusable: no regular file was published, or `workload.model.load` failed.
        """
        checkpoint = Path(os.environ["OUT_DIR"]) / CHECKPOINT
        try:
            published = stat.S_ISREG(checkpoint.lstat().st_mode)
        except OSError:
            published = False
        if not published:
            raise Unusable(EXIT_NO_CHECKPOINT)
        self.vocab_size = int(os.environ["VOCAB_SIZE"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            from workload import model

            self.module = model.load(checkpoint, self.device)
            self.module.eval()
        except BaseException as error:  # hostile code, SystemExit included: every failure means the same
            raise Unusable(EXIT_LOAD_FAILED) from error

    def logits(self, tokens: Tensor) -> Tensor:
        """`(B, T)` tokens → `(B, T, V)` logits of the next ones.

        Raises:
            ValueError: another shape.
        """
        found: Tensor = self.module(tokens)
        if found.shape != (*tokens.shape, self.vocab_size):
            raise ValueError("logits must be (B, T, V)")
        return found
