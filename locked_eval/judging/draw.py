"""The draw: which position of each row an audit asks about. Made after the claims are committed, never before.

Within a row, half of the probability is spread evenly over the targets that count, half in proportion to how
far the claim beats the champion's:

    q(t) = ½ · 1/c + ½ · w(t) / Σ w        w(t) = max(0.02, claim(t) − champion's claim(t)) nats

over the c targets of the row that count; without a champion q(t) = 1/c. The first half finds every kind of
overstatement, also one that stays below the champion; the second goes where a gain on few tokens would have to be.
No target that counts has less than half of its even share, so no weight of the estimator is above 2c.

The randomness is that of the operating system. Nothing about it can be known before the claims are in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GAIN_FLOOR_NATS = 0.02
"""Least weight of a target in the proportional half, so that noise between two models does not steer it."""
_BLOCK_CLAIMS = 1 << 17  # claims at a time: a few arrays of 1 MB, which stay in the cache

Claims = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Uniforms = Callable[[int], npt.NDArray[np.float64]]
"""Maps a count to that many independent numbers, uniform in [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One position for every row, and the rows that are audited.

    The other rows have a position as well: they are cut there, so that all rows of an audit look alike.
    """

    positions: npt.NDArray[np.int64]  # (N,) −1 in rows without a target that counts
    probabilities: npt.NDArray[np.float64]  # (N,) of the position within its row; 0 where there is none
    even: Mask  # (N,) drawn by the half that is spread evenly
    rows: npt.NDArray[np.int64]  # (n,) the audited ones, ascending


def system_uniforms(count: int) -> npt.NDArray[np.float64]:
    """`(count,)` numbers in [0, 1) with 53 bits each, from the operating system's random source."""
    words = np.frombuffer(os.urandom(8 * count), dtype="<u8")
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(
    claims: Claims, champion: Claims | None, counted: Mask, num_rows: int, uniforms: Uniforms = system_uniforms
) -> Draw:
    """Draw a position for every row, and the rows that are audited.

    Args:
        claims: `(N, T)` log-probabilities in nats that `judge.score` accepted.
        champion: `(N, T)` claims of the champion; None draws evenly.
        counted: `(N, T)` targets that are text.
        num_rows: audited rows; all that have a target that counts, if these are fewer.
        uniforms: source of randomness; tests replace the system's.

    Raises:
        ValueError: the shapes differ, no row is wanted, or no target counts.
    """
    if (
        claims.ndim != 2
        or counted.shape != claims.shape
        or (champion is not None and champion.shape != claims.shape)
    ):
        raise ValueError("claims, the champion's claims and the mask must have one shape (N, T)")
    if num_rows < 1:
        raise ValueError("an audit needs at least one row")
    num_all, length = claims.shape
    tickets = uniforms(num_all)
    positions = np.empty(num_all, dtype=np.int64)
    probabilities = np.empty(num_all, dtype=np.float64)
    even = np.empty(num_all, dtype=np.bool_)
    step = max(1, _BLOCK_CLAIMS // max(1, length))
    for start in range(0, num_all, step):
        block = slice(start, start + step)
        beaten = None if champion is None else champion[block]
        positions[block], probabilities[block], even[block] = _draw_block(
            claims[block], beaten, counted[block], tickets[block]
        )
    eligible = np.flatnonzero(positions >= 0)
    if eligible.size == 0:
        raise ValueError("no target counts: there is nothing to audit")
    if num_rows < eligible.size:  # the rows with the smallest of independent numbers: a simple random sample
        eligible = np.sort(eligible[np.argsort(uniforms(eligible.size))[:num_rows]])
    return Draw(positions=positions, probabilities=probabilities, even=even, rows=eligible)


def _draw_block(
    claims: Claims, champion: Claims | None, counted: Mask, tickets: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], Mask]:
    """Positions, probabilities and halves of `(R, T)` rows, from one uniform number per row."""
    num_counted = counted.sum(axis=1, dtype=np.int32)  # (R,)
    some = num_counted > 0
    share = 1.0 / np.maximum(num_counted, 1)
    if champion is None:
        even = np.ones(len(claims), dtype=np.bool_)
        cumulated = np.cumsum(counted, axis=1, dtype=np.float64)
        positions = _place(cumulated, tickets)
        probabilities = share
    else:
        gains = np.subtract(claims, champion, dtype=np.float32)
        np.maximum(gains, np.float32(GAIN_FLOOR_NATS), out=gains)
        gains *= counted
        even = tickets < 0.5
        tickets = np.where(even, 2 * tickets, 2 * tickets - 1)  # exact: uniform again within its half
        cumulated = np.cumsum(np.where(even[:, None], counted, gains), axis=1, dtype=np.float64)
        positions = _place(cumulated, tickets)
        totals = np.where(some, gains.sum(axis=1, dtype=np.float64), 1.0)
        weights = gains[np.arange(len(gains)), positions].astype(np.float64)
        probabilities = 0.5 * share + 0.5 * weights / totals
    return np.where(some, positions, -1), np.where(some, probabilities, 0.0), even


def _place(cumulated: npt.NDArray[np.float64], tickets: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The first index of each `(R, T)` row whose cumulated mass exceeds that share of the whole."""
    totals = cumulated[:, -1]
    below = np.minimum(tickets * totals, np.nextafter(totals, 0))  # rounding must not run off the end
    found: npt.NDArray[np.int64] = (cumulated > below[:, None]).argmax(axis=1)
    return found
