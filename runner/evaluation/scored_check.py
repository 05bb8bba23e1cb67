"""Questions of a smoke test about scoring, and what is wrong with the answer.

A checkpoint is loaded twice and asked for the logits of random tokens: in a batch as large as those of scoring,
again, with other tokens after a position, among other rows, and in a smaller batch. There is no text of the corpus
in that container, so the traceback of a failure can be passed on. The answer is the candidate's: a hostile program
can pass, and fails its audit.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.judging import distributions
from runner.config import MEBI, Config
from runner.errors import DiskFullError, remedy_of
from runner.untrusted import clean, one_line

SEED = 1
CHECKPOINTS_HELD = 2
"""Checkpoints that the output volume must hold: the published one, and its successor while it is written."""
MAX_REPORT_BYTES = 64 * 1024
TRACEBACK_LINES = 60

_FAILURES = {
    "load": "workload.model.load could not load the checkpoint",
    "forward": "the forward pass failed on a batch of {rows} rows of {length} tokens, as in scoring",
    "last": "the forward pass failed on a batch of {last} rows: the last batch of scoring may be smaller",
    "sizes": "a module of workload/sizes/ cannot be imported",
}
_FRAME = re.compile(r'File "/candidate/(workload/[^"]+)", line (\d+), in (\S+)')


class Problem(NamedTuple):
    """A reason why a program could not be scored, and the place to change."""

    reason: str  # one sentence
    place: str | None = None  # `workload/model.py:12 (GPT.forward)`
    traceback: str = ""  # cleaned text of the candidate, untrusted


NOTHING_PUBLISHED = Problem("no checkpoint was published")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Random rows for one check, in a folder that its container sees."""

    folder: Path
    shape: tuple[int, int]  # rows of a batch, tokens of a row
    num_last: int  # rows of the last batch
    kept: npt.NDArray[np.bool_]  # (W,) wanted positions whose row stays the same in the pass with other rows
    vocab_size: int

    @property
    def num_wanted(self) -> int:
        """Positions whose logits every pass returns."""
        return len(self.kept)

    @property
    def max_bytes(self) -> int:
        """Longest answer that is read."""
        return MAX_REPORT_BYTES + 5 * self.num_wanted * self.vocab_size * 4


@contextmanager
def asking(config: Config, scratch: Path) -> Iterator[Asked]:
    """Write the rows of a check; remove them afterwards.

    Raises:
        DiskFullError: there is no room for them.
    """
    rows, length = config.score_batch_rows, config.context_length
    rng = np.random.default_rng(SEED)
    text = rng.integers(0, config.vocab_size - 1, (2, rows, length), dtype=np.uint16)
    cuts = rng.integers(0, length - 1, rows)
    base, other = text
    suffix, neighbors = base.copy(), base.copy()
    for row, cut in enumerate(cuts.tolist()):
        suffix[row, cut + 1 :] = other[row, cut + 1 :]
    neighbors[1::2] = other[1::2]
    num_last = max(1, rows // 2 - 1)
    files = {
        "passes": np.stack([base, base, base, suffix, neighbors]),
        "positions": cuts.astype(np.int32),
        "last": base[:num_last],
    }
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=scratch))
    except OSError as error:
        raise DiskFullError(f"cannot write the rows of a smoke test: {error}", remedy_of(error)) from error
    try:
        folder.chmod(0o755)
        for name, array in files.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
            (folder / f"{name}.npy").chmod(0o644)  # the candidate's uid reads them
        yield Asked(
            folder=folder,
            shape=(rows, length),
            num_last=num_last,
            kept=np.arange(rows) % 2 == 0,
            vocab_size=config.vocab_size,
        )
    except OSError as error:
        raise DiskFullError(f"cannot write the rows of a smoke test: {error}", remedy_of(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def problem_of(answer: bytes, asked: Asked, config: Config) -> Problem | None:
    """Return what is wrong with a checkpoint and its model; None when they can be scored and audited."""
    line, _, rest = answer.partition(b"\n")
    try:
        report = json.loads(line)
        failed, size = report.get("failed"), int(report.get("checkpoint_bytes", 0))
        forward, traceback = report.get("forward"), str(report.get("traceback", ""))
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):  # hostile
        return Problem("the answer to the smoke test cannot be read")
    if CHECKPOINTS_HELD * size > config.output_bytes:
        return Problem(
            f"the checkpoint has {size / MEBI:.1f} MiB, and may have {config.output_bytes / MEBI / 2:.1f}: "
            f"output_bytes ({config.output_bytes / MEBI:.0f} MiB) must hold {CHECKPOINTS_HELD} of them"
        )
    if failed is not None:
        if failed == "checkpoint":
            return NOTHING_PUBLISHED
        sentence = _FAILURES.get(str(failed), "the smoke test failed")
        named = sentence.format(rows=asked.shape[0], length=asked.shape[1], last=asked.num_last)
        return Problem(named, place_in(traceback) or _forward(forward), clean(traceback, TRACEBACK_LINES))
    logits = np.frombuffer(rest[: len(rest) // 4 * 4], "<f4")
    if logits.size != 5 * asked.num_wanted * asked.vocab_size:
        return Problem("the answer to the smoke test is incomplete")
    reason = _dependence(logits.reshape(-1, asked.vocab_size), asked, config.honest_dependence)
    return None if reason is None else Problem(reason, _forward(forward))


def _dependence(logits: npt.NDArray[np.float32], asked: Asked, limit: float) -> str | None:
    """The first dependence of the logits on what they must not depend on.

    Args:
        logits: (5 · W, V) of the passes base, again, loaded anew, other suffix, other rows.
        limit: largest mean total variation of an honest model.
    """
    _, usable = distributions.log_probabilities(logits, np.zeros(len(logits), np.uint16))
    if not usable.all():
        return "logits are NaN or infinite"
    slots = np.arange(asked.num_wanted)
    kept = np.flatnonzero(asked.kept)
    questions = (
        (1, 0, slots, "the same input gives other logits the second time"),
        (2, 0, slots, "the checkpoint, loaded a second time, gives other logits"),
        (3, 2, slots, "not causal: logits at a position change when later tokens change"),
        (4, 2, kept, "logits of a row change when other rows of the batch change"),
    )
    for again, base, which, sentence in questions:
        first, second = again * asked.num_wanted + which, base * asked.num_wanted + which
        found = distributions.mean_variation(logits, usable, first, second) or 0.0
        if found > limit:
            return f"{sentence} (mean total variation {found:.2g}, limit {limit:g})"
    return None


def place_in(log: str) -> str | None:
    """The innermost line of the workload in a traceback."""
    frames = _FRAME.findall(log)
    if not frames:
        return None
    path, line, name = frames[-1]
    return one_line(f"{path}:{line} ({name})")


def _forward(reported: object) -> str | None:
    """The place of the forward function, as the checker reports it."""
    path, _, rest = str(reported or "").removeprefix("/candidate/").partition(":")
    line, _, name = rest.partition(":")
    return one_line(f"{path}:{line} ({name})") if path.startswith("workload/") and line.isdigit() else None
