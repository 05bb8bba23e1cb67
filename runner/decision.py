"""The keep rule: pure functions of scores and measured noise.

A candidate is kept when it beats the champion by more than `keep_sigmas` noise standard deviations.
The noise is that between runs that differ only in their seed, measured on the first champion and
shrunken towards the profile's prior: the standard deviation of three runs alone is off by half of
itself about as often as not.

A simplification removes lines of logic and says so. It is kept when it is not worse than the champion by more than
half a noise standard deviation: one that changes nothing is kept in about two of three cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from runner.records import Verdict

PRIOR_WEIGHT = 4.0
"""How many degrees of freedom the prior's variance counts for."""
SIMPLER_SIGMAS = 0.5
"""How much worse a simplification may be, in noise standard deviations."""


class Decision(NamedTuple):
    """A verdict on two scores, with its figures."""

    verdict: Verdict
    delta_bpb: float  # candidate − champion; negative is better
    reason: str


def pooled_sigma(runs_bpb: Sequence[float], prior_sigma: float) -> float:
    """Noise standard deviation of one run, in bpb.

    σ̂² = (ν₀ σ₀² + Σ (x − x̄)²) / (ν₀ + n − 1), the posterior scale of a scaled-inverse-χ² prior.

    Args:
        runs_bpb: scores of one program under different seeds.
        prior_sigma: σ₀ of the profile.
    """
    mean = sum(runs_bpb) / len(runs_bpb)
    squares = sum((value - mean) ** 2 for value in runs_bpb)
    return math.sqrt((PRIOR_WEIGHT * prior_sigma**2 + squares) / (PRIOR_WEIGHT + len(runs_bpb) - 1))


def judge_candidate(
    *, candidate_bpb: float, champion_bpb: float, sigma_bpb: float, keep_sigmas: float, lines_removed: int = 0
) -> Decision:
    """Keep or discard one scored candidate.

    Args:
        lines_removed: of logic, by one that was proposed as a simplification; 0 for others.
    """
    delta = candidate_bpb - champion_bpb
    needed = keep_sigmas * sigma_bpb
    if delta < -needed:
        verdict, reason = Verdict.KEEP, f"better by more than the {needed:.4f} bpb that a keep needs"
    elif lines_removed > 0 and delta <= SIMPLER_SIGMAS * sigma_bpb:
        verdict, reason = Verdict.KEEP, f"as good within the noise, with {lines_removed} lines of logic less"
    elif delta < 0:
        verdict, reason = Verdict.DISCARD, f"better, but not by the {needed:.4f} bpb that a keep needs"
    else:
        verdict, reason = Verdict.DISCARD, "not better than the champion"
    return Decision(verdict, delta, reason)


def reproduction_tolerance(sigma_bpb: float) -> float:
    """Largest difference between two runs of one program that noise explains.

    The difference of two runs has standard deviation √2 σ; three of these are allowed, so that one
    honest reproduction in 370 is called different.
    """
    return 3 * math.sqrt(2) * sigma_bpb
