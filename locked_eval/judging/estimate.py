"""From overstatements at drawn positions to a mean over all targets, and to a charge.

The formulas and their symbols are in `verify`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from locked_eval.judging.distributions import Floats

UPPER_SIGMAS = 1.645
"""One-sided 95 %: what an unproven overstatement costs."""
CHARGE_SIGMAS = 2.58
"""Of ν: its few positions and their skewed gains need more than 1.645 for 95 %."""
QUIET_FACTOR = 5.0
"""Noise of honest dependence, in units of L/√m: Gaussian noise with a total variation of L/2 has a standard
deviation of 1.25 L nats, a standard error of 1.43 L/√m with the weights of the draw, and 1.645 + 1.85 of these
are 5 L/√m: one honest audit in 30 lies above."""
EXCEEDANCE_NATS = (0.1, 0.3, 1.0, 3.0)
FALSE_ALARM = 1e-4
"""Probability that an honest count of exceedances lies above its limit, for each of the thresholds."""


class Estimate(NamedTuple):
    """A mean overstatement in nats per target that counts."""

    mean: float
    se: float
    upper: float  # one-sided 95 % bound, never negative


def estimate(overstatements: Floats, probabilities: Floats, *, num_rows: int, num_tokens: int) -> Estimate:
    """Estimate the mean overstatement of all targets from one drawn position per row.

    Args:
        overstatements: `(n,)` d in nats at the drawn positions, or e.
        probabilities: `(n,)` q of these positions within their rows.
        num_rows: N rows with targets that count, of which n are a simple random sample.
        num_tokens: C targets that count in all of them.
    """
    totals = overstatements / probabilities * (num_rows / num_tokens)  # (n,) each an estimate of the mean
    mean = float(totals.mean())
    # A single row says nothing about the spread; its own size is the smallest honest guess.
    se = float(totals.std(ddof=1)) / math.sqrt(totals.size) if totals.size > 1 else abs(mean)
    return Estimate(mean=mean, se=se, upper=max(0.0, mean + UPPER_SIGMAS * se))


def charge(paired: Estimate | None, num_positions: int, dependence: float) -> float:
    """Charge for what rows gained from other rows, in nats per target; 0 while honest noise explains it.

    The condition is on the upper bound and not on the mean: a candidate that widens the spread of its gains to
    make their mean unproven is charged for the spread.

    Args:
        paired: ν; None if nothing was asked in NEIGHBORS.
        num_positions: m positions that it was estimated from.
        dependence: L, the honest limit of the mean total variation.
    """
    if paired is None or paired.upper <= QUIET_FACTOR * dependence / math.sqrt(num_positions):
        return 0.0
    return max(0.0, paired.mean + CHARGE_SIGMAS * paired.se)


def count_exceedances(overstatements: Floats) -> tuple[int, int, int, int]:
    """Count the overstatements that exceed each of `EXCEEDANCE_NATS`."""
    first, second, third, fourth = (int((overstatements > nats).sum()) for nats in EXCEEDANCE_NATS)
    return first, second, third, fourth


def honest_limit(num: int, rate: float) -> int:
    """The smallest k that a Binomial(num, rate) exceeds with a probability of at most `FALSE_ALARM`; exact."""
    if rate <= 0:
        return 0
    if rate >= 1:
        return num
    below = 0.0
    for k in range(num):
        chosen = math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1)
        below += math.exp(chosen + k * math.log(rate) + (num - k) * math.log1p(-rate))
        if 1 - below <= FALSE_ALARM:
            return k
    return num
