"""A prior over the true effects of edits on the score, and Bayes' rule to update it with measurements.

Effects are in bpb, candidate − champion; negative is better. The prior mixes three kinds of edits, each at three
scales:

    harm    exponential, mean 7 × the scale
    slight  normal, standard deviation = the scale
    gain    exponential, mean 3.6 × the scale

The shape and the initial weights (10 %, 80 %, 10 %) are fitted to the best-known public night, 125 experiments on
an H100 (karpathy/autoresearch, 8 March 2026), where the scale is 0.0005 bpb: a greedy night simulated with them
has the same number of keeps, total gain and quantiles of differences (`bench/effects.py`). A campaign learns its
own weights from the first trial of every candidate, so that a hard problem, on which hardly anything helps,
demands more evidence.

A posterior does not depend on the stopping rule, so the loop may repeat trials as often as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HARM, SLIGHT, GAIN = 7.0, 1.0, 3.6
"""Means (for slight edits the standard deviation) in units of the scale."""
KIND_WEIGHTS = (0.10, 0.80, 0.10)
SCALES = (1 / 3, 1.0, 3.0)
SCALE_WEIGHTS = (0.2, 0.6, 0.2)
PRIOR_CANDIDATES = 20.0
"""Number of candidates that the initial weights count for."""
FURTHEST, NEAREST = 60.0, 0.04
"""Ends of the grid of effects, in units of the scale."""
INTERVAL = 0.90
NORMAL_90 = 1.6448536269514722
"""Half of the central 90 % of a normal distribution, in standard deviations."""
COARSE = 0.5
"""Below this share of the grid's step, a standard error is so small that the prior is flat over it."""


@dataclass(frozen=True)
class Prior:
    """A mixture over true effects, on a grid."""

    grid: Floats  # (G,) effects in bpb, increasing, with 0 in the middle
    components: Floats  # (K, G) probabilities, rows sum to 1
    weights: Floats  # (K,) sum to 1


class Posterior(NamedTuple):
    """Knowledge of true effects after measurements; arrays of one shape."""

    better: Floats  # probability that the effect is negative
    mean: Floats  # bpb
    variance: Floats  # bpb²
    low: Floats  # bpb, ends of the central 90 %
    high: Floats


@cache
def prior(scale_bpb: float, num_points: int = 801) -> Prior:
    """Build the prior of a campaign that has measured nothing yet.

    Args:
        scale_bpb: typical effect of an edit.
        num_points: of the grid, odd. 801 resolve 2 % of an effect; simulations use fewer.
    """
    from scipy.special import ndtr  # lazy: a command that decides nothing starts without it

    side = scale_bpb * np.geomspace(NEAREST, FURTHEST, num_points // 2)
    grid = np.concatenate([-side[::-1], [0.0], side])
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    rows, weights = [], []
    for factor, scale_weight in zip(SCALES, SCALE_WEIGHTS, strict=True):
        unit = scale_bpb * factor
        kinds = (
            1 - np.exp(-np.maximum(edges, 0) / (HARM * unit)),
            ndtr(edges / (SLIGHT * unit)),
            np.exp(np.minimum(edges, 0) / (GAIN * unit)),
        )
        for below, kind_weight in zip(kinds, KIND_WEIGHTS, strict=True):
            rows.append(np.diff(below))
            weights.append(scale_weight * kind_weight)
    return Prior(grid, np.array(rows), np.array(weights))


def _likelihood(grid: Floats, delta: Floats, se: Floats) -> Floats:  # (…), (…) -> (…, G)
    """Likelihood of each effect, up to a factor per measurement. Values beyond the grid count as its end."""
    inside = np.clip(delta, grid[0], grid[-1])
    exponent = -0.5 * ((inside[..., None] - grid) / se[..., None]) ** 2
    return np.asarray(np.exp(exponent - exponent.max(axis=-1, keepdims=True)))


def log_evidence(start: Prior, weights: Floats, delta: Floats, se: Floats) -> Floats:
    """Compute the logarithm of the density of measured differences, up to a constant; (…).

    Args:
        weights: (…, K) of the components.
        delta: (…) measured differences in bpb.
        se: (…) their standard errors.
    """
    inside = np.clip(delta, start.grid[0], start.grid[-1])
    exponent = -0.5 * ((inside[..., None] - start.grid) / se[..., None]) ** 2
    highest = exponent.max(axis=-1)
    mass = ((weights @ start.components) * np.exp(exponent - highest[..., None])).sum(axis=-1)
    return np.asarray(np.log(mass) + highest - np.log(se))


def responsibilities(start: Prior, weights: Floats, delta: Floats, se: Floats) -> Floats:
    """Compute the probability that each component produced each measurement.

    Args:
        weights: (…, K) of the components.
        delta: (…) measured differences in bpb.
        se: (…) their standard errors.

    Returns:
        (…, K), sums to 1.
    """
    joint = weights * (_likelihood(start.grid, delta, se) @ start.components.T)
    return np.asarray(joint / joint.sum(axis=-1, keepdims=True))


def posterior(start: Prior, weights: Floats, delta: Floats, se: Floats) -> Posterior:
    """Apply Bayes' rule to measured differences; shapes as in `responsibilities`.

    Where the measurement is finer than the grid, the prior is ignored.
    """
    mass = (weights @ start.components) * _likelihood(start.grid, delta, se)
    mass /= mass.sum(axis=-1, keepdims=True)
    middle = len(start.grid) // 2
    below = mass.cumsum(axis=-1)
    tail = (1 - INTERVAL) / 2
    mean = mass @ start.grid
    known = Posterior(
        better=np.asarray(below[..., middle - 1] + mass[..., middle] / 2),
        mean=np.asarray(mean),
        variance=np.asarray(mass @ start.grid**2 - mean**2),
        low=np.asarray(start.grid[np.argmax(below >= tail, axis=-1)]),
        high=np.asarray(start.grid[np.argmax(below >= 1 - tail, axis=-1)]),
    )
    steps = np.diff(start.grid)[np.clip(np.searchsorted(start.grid, delta), 1, len(start.grid) - 1) - 1]
    coarse = se < COARSE * steps
    if coarse.any():
        alone = _measured(delta, se)
        return Posterior(*(np.where(coarse, new, old) for new, old in zip(alone, known, strict=True)))
    return known


def _measured(delta: Floats, se: Floats) -> Posterior:
    """Compute the posterior under a flat prior."""
    from scipy.special import ndtr

    better = np.asarray(ndtr(-delta / se))
    return Posterior(
        better=better, mean=delta, variance=se**2, low=delta - NORMAL_90 * se, high=delta + NORMAL_90 * se
    )


def probability_below(start: Prior, weights: Floats, delta: float, se: float, limit_bpb: float) -> float:
    """Compute the probability that a true effect is below a limit."""
    mass = (weights @ start.components) * _likelihood(start.grid, np.array(delta), np.array(se))
    return float(mass[start.grid < limit_bpb].sum() / mass.sum())


def first_counts(start: Prior) -> Floats:
    """Candidates of each component, (K,), as which the initial weights count."""
    return PRIOR_CANDIDATES * start.weights


def learned_counts(start: Prior, counts: Floats, delta_bpb: float, se_bpb: float) -> Floats:
    """Update the counts of components, (K,), with one candidate; the weights are their shares.

    Args:
        delta_bpb: difference of its first trial. Only promising candidates get further trials, which would bias
            the weights.
        se_bpb: standard error of that.
    """
    return counts + responsibilities(start, counts / counts.sum(), np.array(delta_bpb), np.array(se_bpb))


def learned_weights(start: Prior, first_trials: Iterable[tuple[float, float]]) -> Floats:
    """Update the weights, (K,), with difference and standard error of some candidates, one after the other."""
    counts = first_counts(start)
    for delta, se in first_trials:
        counts = learned_counts(start, counts, delta, se)
    return np.asarray(counts / counts.sum())
