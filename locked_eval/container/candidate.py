"""The candidate's model and a way out for an answer: shared by scorer, auditor and checker.

This code runs in one process with the candidate's, which can patch all of it. Whatever comes out is a claim. Text
is discarded: stdout is the answer, and the supervisor connects stderr to /dev/null.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import torch
from torch import Tensor

from locked_eval.container.handover import CHECKPOINT, EXIT_OUT_OF_MEMORY

EXIT_NO_CHECKPOINT = 3
EXIT_LOAD_FAILED = 4
EXIT_FORWARD_FAILED = 5

_NO_MEMORY = re.compile("out of memory|not enough memory|allocate memory|ALLOC_FAILED")
"""Where an allocator of torch has no exception of its own."""


class Unusable(Exception):
    """A candidate that cannot be run; carries one of the `EXIT_*` codes."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def open_answer() -> int:
    """Return a descriptor for the answer, out of reach of an honest `print` of the candidate."""
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return answer


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, however small the pieces that the pipe takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def failure_code(error: BaseException) -> int:
    """The `EXIT_*` code of an exception that a forward pass ended with."""
    if isinstance(error, Unusable):
        return error.exit_code
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return EXIT_OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)):
        return EXIT_OUT_OF_MEMORY
    return EXIT_FORWARD_FAILED


class Candidate:
    """The published model, on the device where it is scored."""

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
        """`(B, T)` tokens → `(B, T, V)` logits of the next tokens.

        Raises:
            ValueError: the logits have another shape.
        """
        found: Tensor = self.module(tokens)
        if found.shape != (*tokens.shape, self.vocab_size):
            raise ValueError(
                f"logits must be (B, T, V) = {(*tokens.shape, self.vocab_size)}, not {tuple(found.shape)}"
            )
        return found
