"""The plan of an audit: rows for fresh containers, which cannot tell what they are asked about.

Every row is cut at its drawn position. The prefix up to there stays; everything behind it, the withheld token
included, is replaced by text of the training split. Rows that are not audited are cut as well, by the same draw:
no row enters whole. There are four kinds of batches, each container's in a random order:

    BASE       every batch of scoring: the same rows in the same slots, so that form and neighbors are those under
               which the claims were made
    REPEAT     a copy of a BASE batch, byte for byte: the noise of the arithmetic
    SUFFIX     the same prefixes with other text behind them: does a position see the future?
    NEIGHBORS  half of the slots, drawn at random, hold text of training, cut and asked about where the rows in
               their place were; the other half is unchanged and is asked again: does a row see other rows?

One in 16 batches is asked again in each of the last three ways, and each way draws its batches for itself.

The batches of NEIGHBORS are asked in a container of their own, which gets nothing else. There a model does not
have what it learned from the other rows of the first container, from batch to batch or from the file itself.
Nothing but the text itself shows it which of its few rows are of validation.

Not covered here: a replacement may begin with the true token by chance. Avoiding that would reveal to the
container which token it is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.judging.draw import Draw, Uniforms, system_uniforms

EXTRA_SHARE = 1 / 16
"""Share of the batches that each of the extra passes asks again."""

Tokens = npt.NDArray[np.uint16]
Numbers = npt.NDArray[np.int32]


class Pass(IntEnum):
    """The purpose of a slot in the plan."""

    BASE = 0
    REPEAT = 1
    SUFFIX = 2
    NEIGHBORS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows of an audit in the order in which they are asked; those of NEIGHBORS come last."""

    inputs: Tokens  # (M, T)
    edges: npt.NDArray[np.int64]  # (K + 1,) batch k is the slots edges[k] … edges[k + 1] − 1
    positions: Numbers  # (M,) the drawn position; −1: no answer is wanted
    rows: Numbers  # (M,) row of the validation split; −1: nothing but training text, its answer does not matter
    passes: npt.NDArray[np.int8]  # (M,) `Pass` of the slot's batch

    @property
    def num_logits(self) -> int:
        """Number of vectors of logits that the answer must have."""
        return int((self.positions >= 0).sum())

    def parts(self) -> tuple[Plan, Plan]:
        """The parts for the two containers: all but NEIGHBORS, and NEIGHBORS."""
        slot = int(np.searchsorted(self.passes == Pass.NEIGHBORS, True))
        batch = int(np.searchsorted(self.edges, slot))
        return self._part(slice(None, batch + 1), slice(None, slot)), self._part(
            slice(batch, None), slice(slot, None)
        )

    def _part(self, batches: slice, slots: slice) -> Plan:
        return Plan(
            inputs=self.inputs[slots],
            edges=self.edges[batches] - self.edges[batches][0],
            positions=self.positions[slots],
            rows=self.rows[slots],
            passes=self.passes[slots],
        )


class _Batch(NamedTuple):
    kind: Pass
    inputs: Tokens  # (B, T)
    positions: Numbers  # (B,)
    rows: Numbers  # (B,)


def make_plan(
    tokens: Tokens, train: Tokens, drawn: Draw, batch_rows: int, uniforms: Uniforms = system_uniforms
) -> Plan:
    """Build the rows of an audit.

    Args:
        tokens: `(N, T + 1)` validation rows, as in scoring.
        train: `(L,)` text of the training split.
        drawn: positions of these rows.
        batch_rows: rows of a batch in scoring.
        uniforms: source of randomness; tests replace the system's.

    Raises:
        ValueError: the draw is for another number of rows, or there is no training text.
    """
    num_rows, length = tokens.shape[0], tokens.shape[1] - 1
    if drawn.positions.shape != (num_rows,):
        raise ValueError(f"a draw of {len(drawn.positions)} rows does not fit {num_rows} rows")
    if train.size == 0:
        raise ValueError("there is no training text to replace the withheld text")
    somewhere = (uniforms(num_rows) * length).astype(np.int64)
    cuts = np.where(drawn.positions < 0, somewhere, drawn.positions)  # (N,)
    inputs = tokens[:, :-1].copy()
    _replace(inputs, cuts + 1, train, uniforms)
    positions = np.full(num_rows, -1, dtype=np.int32)
    positions[drawn.rows] = cuts[drawn.rows]
    rows = np.arange(num_rows, dtype=np.int32)
    base = [
        _Batch(Pass.BASE, inputs[start:end], positions[start:end], rows[start:end])
        for start, end in pairwise([*range(0, num_rows, batch_rows), num_rows])
    ]
    batches = [*base, *(batch._replace(kind=Pass.REPEAT) for batch in _picked(base, uniforms))]
    batches += [_with_other_suffixes(batch, cuts, train, uniforms) for batch in _picked(base, uniforms)]
    batches = [batches[index] for index in np.argsort(uniforms(len(batches)))]
    # These are in a random order already, the one in which they were picked.
    batches += [_with_other_neighbors(batch, cuts, train, uniforms) for batch in _picked(base, uniforms)]
    sizes = [len(batch.rows) for batch in batches]
    return Plan(
        inputs=np.concatenate([batch.inputs for batch in batches]),
        edges=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        positions=np.concatenate([batch.positions for batch in batches]),
        rows=np.concatenate([batch.rows for batch in batches]),
        passes=np.repeat([batch.kind for batch in batches], sizes).astype(np.int8),
    )


def num_extra(num_batches: int) -> int:
    """Batches of each extra pass."""
    return math.ceil(num_batches * EXTRA_SHARE)


def write(plan: Plan, folder: Path) -> None:
    """Write the files that the auditor's driver reads; see there. They do not reveal the purpose of any slot."""
    for name, array in (("inputs", plan.inputs), ("positions", plan.positions), ("edges", plan.edges)):
        path = folder / f"{name}.npy"
        np.save(path, array, allow_pickle=False)
        path.chmod(0o644)  # the candidate's uid reads them


def _picked(base: Sequence[_Batch], uniforms: Uniforms) -> list[_Batch]:
    """One in 16 batches, at random and without replacement."""
    return [base[index] for index in np.argsort(uniforms(len(base)))[: num_extra(len(base))]]


def _replace(inputs: Tokens, begins: npt.NDArray[np.int64], train: Tokens, uniforms: Uniforms) -> None:
    """Replace each `(T,)` row from its `begins` on, in place, by a random crop of the training text."""
    length = inputs.shape[1]
    starts = (uniforms(len(inputs)) * len(train)).astype(np.int64)
    for row, begin, start in zip(inputs, begins.tolist(), starts.tolist(), strict=True):
        wanted = length - begin
        crop = train[start : start + wanted]
        if len(crop) < wanted:  # around the end of the text
            crop = train.take(range(start, start + wanted), mode="wrap")
        row[begin:] = crop


def _with_other_suffixes(batch: _Batch, cuts: npt.NDArray[np.int64], train: Tokens, uniforms: Uniforms) -> _Batch:
    """The same prefixes with other text behind them; a row that is cut at its end has no suffix to change."""
    inputs = batch.inputs.copy()
    _replace(inputs, cuts[batch.rows] + 1, train, uniforms)
    positions = np.where(batch.positions == inputs.shape[1] - 1, -1, batch.positions).astype(np.int32)
    return _Batch(Pass.SUFFIX, inputs, positions, batch.rows)


def _with_other_neighbors(batch: _Batch, cuts: npt.NDArray[np.int64], train: Tokens, uniforms: Uniforms) -> _Batch:
    """Training text in half of the slots, which look like the others: cut, and with an answer wanted or not."""
    size = len(batch.rows)
    others = np.argsort(uniforms(size))[: max(1, size // 2)]
    inputs, rows = batch.inputs.copy(), batch.rows.copy()
    text = inputs[others]
    _replace(text, np.zeros(len(others), dtype=np.int64), train, uniforms)
    _replace(text, cuts[rows[others]] + 1, train, uniforms)
    inputs[others], rows[others] = text, -1
    return _Batch(Pass.NEIGHBORS, inputs, batch.positions, rows)
