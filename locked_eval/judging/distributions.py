"""Probabilities from an audit's logits, in double precision, and how far two answers differ.

They are computed here and not in the container: so a candidate cannot claim two probabilities that do not add up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CLAMP = 1e-3
"""ε: share of the uniform distribution that is mixed into both sides."""
_BLOCK_LOGITS = 1 << 20  # at a time: 8 MB in double precision

Floats = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]
Usable = npt.NDArray[np.bool_]


def clamp(log_probabilities: Floats, vocabulary: int) -> Floats:
    """ln((1 − ε) p + ε/V): the model that mixes in a little of the uniform distribution."""
    clamped: Floats = np.log((1 - CLAMP) * np.exp(log_probabilities) + CLAMP / vocabulary)
    return clamped


def log_probabilities(logits: Logits, tokens: npt.NDArray[np.uint16]) -> tuple[Floats, Usable]:
    """`(A,)` log-probabilities of one token per answer, and which answers are usable.

    A logit of −inf is a probability of 0. NaN, +inf, or nothing but −inf make an answer unusable; it counts as
    probability 0, so that no candidate gains by it.

    Args:
        logits: `(A, V)` answers; hostile.
        tokens: `(A,)` one token for each.
    """
    found = np.full(len(logits), -np.inf)
    usable = np.zeros(len(logits), dtype=np.bool_)
    step = _step(logits)
    for start in range(0, len(logits), step):
        block = slice(start, start + step)
        shifted, usable[block] = _shifted(logits[block])
        chosen = shifted[np.arange(len(shifted)), tokens[block]]
        found[block] = chosen - np.log(np.exp(shifted, out=shifted).sum(axis=1))
    found[~usable] = -np.inf
    return found, usable


def mean_variation(
    logits: Logits, usable: Usable, again: npt.NDArray[np.int64], base: npt.NDArray[np.int64]
) -> float | None:
    """Mean total variation ½ Σ |p − p′| between pairs of answers; an unusable one counts as 1.

    Args:
        logits: `(A, V)` answers.
        usable: `(A,)` those that define a distribution.
        again: `(P,)` index of the one answer of each pair.
        base: `(P,)` index of the other.

    Returns: None without any pair.
    """
    if again.size == 0:
        return None
    total = 0.0
    step = _step(logits)
    for start in range(0, again.size, step):
        one, other = again[start : start + step], base[start : start + step]
        distances = 0.5 * np.abs(_softmax(logits[one]) - _softmax(logits[other])).sum(axis=1)
        total += float(np.where(usable[one] & usable[other], distances, 1.0).sum())
    return total / again.size


def _softmax(logits: Logits) -> Floats:
    shifted, _ = _shifted(logits)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def _shifted(logits: Logits) -> tuple[Floats, Usable]:
    """`(R, V)` logits less their maximum in double precision, and which rows are usable; the others are zeros."""
    largest = logits.max(axis=1)  # (R,) NaN where there is one
    usable = np.isfinite(largest)
    shifted = logits.astype(np.float64)
    shifted[~usable] = 0.0
    shifted -= np.where(usable, largest, np.float32(0))[:, None]
    return shifted, usable


def _step(logits: Logits) -> int:
    vocabulary: int = logits.shape[1]
    return max(1, _BLOCK_LOGITS // max(1, vocabulary))
