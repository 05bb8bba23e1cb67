"""Terms that every decision shares: noise, margins, and a judgement with the figures that it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from runner.decision.effect_prior import Floats, Prior

PRIOR_WEIGHT = 4.0
"""Degrees of freedom that the prior's variance counts for."""
LEAST_SIGMAS = 0.25
"""An improvement below this is not worth a commit, in noise standard deviations."""
LINE_SIGMAS = 0.01
"""Improvement required for each line of logic that an edit adds, in noise standard deviations."""
SIMPLER_SIGMAS = 0.5
"""Margin by which a simplification may be worse, in noise standard deviations."""
SIMPLER_DOUBT = 0.20
"""Largest probability that an accepted simplification is worse than that."""
CONCEDED_SIGMAS = 1.0
"""Largest expected cost of all simplifications of a campaign together, in noise standard deviations: many small
steps that are each within the noise must not lead downhill."""
AS_GOOD = "as good within the noise"
"""First words of the reason for an accepted simplification that is no improvement."""
SIMPLIFICATION = "simplification"
"""Category of a proposal that declares itself one."""


def percent(share: float) -> str:
    """Round to whole percent, but never to 100% or 0%: no measurement gives that."""
    return "over 99%" if share > 0.995 else "under 1%" if share < 0.005 else f"{share:.0%}"


class Action(StrEnum):
    """The decision of the rule on the evidence so far."""

    ACCEPT = "accept"
    KEEP = "keep"
    DISCARD = "discard"
    UNCLEAR = "unclear"
    TRY_AGAIN = "try again"


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Knowledge of a campaign before a trial."""

    prior: Prior
    weights: Floats  # (K,)
    sigma_bpb: float  # noise standard deviation of one run
    freedom: float = PRIOR_WEIGHT  # degrees of freedom of that estimate


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A decision, and the figures that it rests on."""

    action: Action
    reason: str
    delta_bpb: float  # measured; negative is better
    se_bpb: float
    sigma_bpb: float
    better: float  # probability that the true effect is an improvement
    effect_bpb: float  # expected effect
    low_bpb: float  # ends of its central 90 %
    high_bpb: float


def pooled_sigma(groups: Iterable[Sequence[float]], prior_sigma: float) -> float:
    """Estimate the noise standard deviation of one run, in bpb.

    σ̂² = (ν₀ σ₀² + Σ (x − x̄)²) / (ν₀ + Σ (n − 1)), the posterior scale of a scaled-inverse-χ² prior.

    Args:
        groups: for each program, its scores under different seeds.
        prior_sigma: σ₀ of the profile.
    """
    return pooled_sigma_of(map(spread_of, groups), prior_sigma)


def spread_of(scores: Sequence[float]) -> tuple[float, float]:
    """Σ (x − x̄)² and n − 1 of one program's scores."""
    if len(scores) < 2:
        return 0.0, 0.0
    mean = sum(scores) / len(scores)
    return sum((value - mean) ** 2 for value in scores), len(scores) - 1.0


def pooled_sigma_of(spreads: Iterable[tuple[float, float]], prior_sigma: float) -> float:
    """`pooled_sigma`, from what `spread_of` gives; the order does not matter."""
    squares, freedom = zip((0.0, 0.0), *spreads, strict=True)
    return math.sqrt((PRIOR_WEIGHT * prior_sigma**2 + math.fsum(squares)) / (PRIOR_WEIGHT + math.fsum(freedom)))


def noise_freedom(groups: Iterable[Sequence[float]]) -> float:
    """Degrees of freedom of `pooled_sigma`, those of the prior included: ν₀ + Σ (n − 1)."""
    return PRIOR_WEIGHT + sum(max(0, len(scores) - 1) for scores in groups)


def reproduction_tolerance(sigma_bpb: float) -> float:
    """Largest difference between two runs of one program that noise explains.

    The difference of two runs has the standard deviation √2 σ. Three of these are allowed, so that one honest
    reproduction in 370 is called different.
    """
    return 3 * math.sqrt(2) * sigma_bpb
