"""Programs measured under the same seeds: what one differs from another, and how much of the noise they share.

Two programs under one seed see the same data in the same order. What that does to a score is common to both and
cancels in their difference; its share of the noise variance is the *seed share* ρ. A difference of two trials has
the standard deviation σ √(2 (1 − ρ)) in place of σ √2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

TAIL = 0.05
"""Probability left out at each end of an interval."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean of paired differences, in bpb, with the ends of its central 90 %."""

    mean_bpb: float
    se_bpb: float
    low_bpb: float
    high_bpb: float


@dataclass(frozen=True, kw_only=True)
class SeedShare:
    """The noise of a layout of programs × seeds, and the share of it that programs have in common under a seed."""

    share: float
    low: float  # ends of its central 90 %
    high: float
    sigma_bpb: float  # of one trial
    residual_bpb: float  # … without what its seed has in common


def signed_rank_p(differences: Sequence[float]) -> float:
    """Exact one-sided p of Wilcoxon's signed-rank test that differences are negative.

    When two programs are the same, a difference under one seed has either sign with the same probability,
    whatever the distribution of the noise. n differences can give a p of 2⁻ⁿ at best. One that is exactly zero is
    left out, and counts for neither side.
    """
    from scipy.stats import wilcoxon  # lazy: takes half a second

    if not any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="less", method="exact").pvalue)


def mean_difference(differences: Sequence[float]) -> Difference:
    """Mean of at least two paired differences with Student's interval."""
    num = len(differences)
    return difference_of(fmean(differences), stdev(differences) / math.sqrt(num), num - 1)


def difference_of(mean_bpb: float, se_bpb: float, freedom: float) -> Difference:
    """A mean with its standard error, which rests on so many degrees of freedom."""
    from scipy.special import stdtrit  # lazy: most commands never ask

    reach = float(stdtrit(freedom, 1 - TAIL)) * se_bpb
    return Difference(mean_bpb=mean_bpb, se_bpb=se_bpb, low_bpb=mean_bpb - reach, high_bpb=mean_bpb + reach)


def residual_spread(table: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Sum of squares of what neither program nor seed explains, and its degrees of freedom.

    Args:
        table: scores, one row for each program, one column for each seed.
    """
    scores = np.asarray(table, dtype=float)
    if scores.ndim < 2 or min(scores.shape) < 2:
        return 0.0, 0
    rest = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    return float((rest**2).sum()), (scores.shape[0] - 1) * (scores.shape[1] - 1)


def seed_share(table: Sequence[Sequence[float]]) -> SeedShare:
    """Estimate the seed share from an analysis of variance, with the exact interval of its F ratio.

    With k programs, n seeds, and the mean squares S of the seeds and R of the residuals, F = S / R is distributed
    as (1 + k ρ / (1 − ρ)) times Fisher's F with n − 1 and (k − 1)(n − 1) degrees of freedom.

    Args:
        table: scores of at least two programs (rows) under the same seeds, at least two (columns).
    """
    from scipy.special import fdtri  # lazy: only a calibration asks

    scores = np.asarray(table, dtype=float)
    programs, seeds = scores.shape
    squares, freedom = residual_spread(table)
    residual = squares / freedom
    between = programs * float(np.var(scores.mean(axis=0), ddof=1))

    def share_at(quantile: float) -> float:
        """The share at which the ratio that was seen is this many times what is usual."""
        if residual == 0:
            return float(between > 0)
        ratio = between / residual / quantile
        return max(0.0, float((ratio - 1) / (ratio - 1 + programs)))

    return SeedShare(
        share=share_at(1.0),
        low=share_at(float(fdtri(seeds - 1, freedom, 1 - TAIL))),
        high=share_at(float(fdtri(seeds - 1, freedom, TAIL))),
        sigma_bpb=math.sqrt((between + (programs - 1) * residual) / programs),
        residual_bpb=math.sqrt(residual),
    )
