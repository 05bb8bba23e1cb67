"""The keep rule: pure functions of scores and measured noise.

A candidate gets trial after trial, each with a new seed, until the case is clear. With j trials of the candidate,
m of its champion, and the noise σ̂ between runs that differ only in their seed,

    Δ = mean candidate − mean champion,   se = σ̂ √(1/j + 1/m),   z = Δ / se.

It is a keep when, after at least `min_trials` trials, the posterior probability that its true effect is an
improvement (`runner/decision/effect_prior.py`) is 1 − `max_false_keep_probability` or more, and Δ is worth it:
a quarter of σ̂, or more depending on the lines of logic that it adds. It is discarded as soon as z is above the
boundary of its trial (`DISCARD_Z`), or after `max_trials`.

A simplification removes lines of logic and is declared as one. It is also kept when it is probably not worse than
the champion by more than half of σ̂, with an error rate of its own.

`docs/statistics.md` compares it by simulation with common group-sequential boundaries, a greedy rule and others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior
from runner.decision.effect_prior import Floats, Prior

PRIOR_WEIGHT = 4.0
"""Degrees of freedom that the prior's variance counts for."""
DISCARD_Z = (-1.8, -1.8, -2.0, -2.0)
"""A candidate with a larger z after its n-th trial is discarded; the last entry holds for all further trials."""
NEAR_MISS_SIGMAS = 0.02
"""A discard with a larger estimated improvement is a near miss, in noise standard deviations."""
LAST_RUNS = 10
"""Within this many runs of the end, near misses are combined when they are estimated to be worth `LAST_SIGMAS`."""
LAST_SIGMAS = 1.0
"""In noise standard deviations. Near misses that were never combined are lost at the end."""
LEAST_SIGMAS = 0.25
"""An improvement below this is not worth a commit, in noise standard deviations."""
LINE_SIGMAS = 0.01
"""Improvement required for each line of logic that a candidate adds, in noise standard deviations."""
SIMPLER_SIGMAS = 0.5
"""Margin by which a simplification may be worse, in noise standard deviations."""
SIMPLER_DOUBT = 0.20
"""Largest probability that a kept simplification is worse than that."""
SIMPLER_LEAST = 0.30
"""A simplification whose probability of being good enough is below this is discarded."""
AS_GOOD = "as good within the noise"
"""First words of the reason for a kept simplification that is no improvement."""
SIMPLIFICATION = "simplification"
"""Category of a proposal that declares itself one."""
POOL_RUNS = 8
"""Number of the champion's newest runs that represent it: on a machine that drifts, older ones are outdated."""
LEAST_POOL = 2
"""Runs that a new champion needs before it is challenged, not counting the one that chose it, which may have been
lucky."""
DRIFT_Z = 2.0
"""Distance, in standard errors, between the champion's runs since a candidate's first trial and its earlier ones
above which the machine has changed."""


class Action(StrEnum):
    """Verdict of the keep rule on the evidence so far."""

    KEEP = "keep"
    DISCARD = "discard"
    TRY_AGAIN = "try again"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The settings of the keep rule."""

    max_false_keep_probability: float = 0.05  # a keep is wrong with at most this probability
    min_trials: int = 2
    max_trials: int = 8
    stack_sigmas: float = 5.0  # estimated worth from which near misses are combined, in noise standard deviations


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Knowledge of a campaign before the first trial of a candidate."""

    prior: Prior
    weights: Floats  # (K,)
    sigma_bpb: float  # noise standard deviation of one run


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A decision, and the figures that it rests on."""

    action: Action
    reason: str
    num_trials: int
    num_champion_runs: int
    delta_bpb: float  # Δ; negative is better
    se_bpb: float
    sigma_bpb: float
    better: float  # probability that the true effect is an improvement
    effect_bpb: float  # posterior mean of the effect: shrunk for selection
    low_bpb: float  # ends of its central 90 %
    high_bpb: float

    @property
    def z(self) -> float:
        """Δ in units of its standard error."""
        return self.delta_bpb / self.se_bpb

    @property
    def near_miss(self) -> bool:
        """Whether the candidate is discarded but may be worth a little in combination with others."""
        near = near_miss(np.array(self.effect_bpb), np.array(self.sigma_bpb))
        return self.action is Action.DISCARD and bool(near)


def pooled_sigma(groups: Iterable[Sequence[float]], prior_sigma: float) -> float:
    """Estimate the noise standard deviation of one run, in bpb.

    σ̂² = (ν₀ σ₀² + Σ (x − x̄)²) / (ν₀ + Σ (n − 1)), the posterior scale of a scaled-inverse-χ² prior.

    Args:
        groups: for each program, its scores under different seeds.
        prior_sigma: σ₀ of the profile.
    """
    squares, freedom = zip((0.0, 0.0), *map(spread_of, groups), strict=True)
    return pooled_sigma_of(sum(squares), sum(freedom), prior_sigma)


def spread_of(scores: Sequence[float]) -> tuple[float, float]:
    """Σ (x − x̄)² and n − 1 of one program's scores."""
    if len(scores) < 2:
        return 0.0, 0.0
    mean = sum(scores) / len(scores)
    return sum((value - mean) ** 2 for value in scores), len(scores) - 1.0


def pooled_sigma_of(squares: float, freedom: float, prior_sigma: float) -> float:
    """`pooled_sigma`, from the sums of `spread_of`."""
    return math.sqrt((PRIOR_WEIGHT * prior_sigma**2 + squares) / (PRIOR_WEIGHT + freedom))


def noise_freedom(groups: Iterable[Sequence[float]]) -> float:
    """Degrees of freedom of `pooled_sigma`, those of the prior included: ν₀ + Σ (n − 1)."""
    return PRIOR_WEIGHT + sum(max(0, len(scores) - 1) for scores in groups)


def standard_error(sigma_bpb: Floats, num_trials: Floats, num_champion_runs: Floats) -> Floats:
    """Standard error of the difference of two means of runs, in bpb."""
    return np.asarray(sigma_bpb * np.sqrt(1 / num_trials + 1 / num_champion_runs))


def drifted(away: Floats, num_fresh: Floats, num_old: Floats, sigma_bpb: Floats) -> npt.NDArray[np.bool_]:
    """Whether the machine has changed between two groups of runs of one program.

    Args:
        away: difference of their means, in bpb.
        num_fresh: runs of the newer one.
        num_old: runs of the older one.
        sigma_bpb: noise standard deviation of one run.
    """
    return np.asarray(np.abs(away) > DRIFT_Z * standard_error(sigma_bpb, num_fresh, num_old))


def near_miss(effect_bpb: Floats, sigma_bpb: Floats) -> npt.NDArray[np.bool_]:
    """Whether a discard is worth trying in combination with others.

    Args:
        effect_bpb: posterior mean of its effect.
        sigma_bpb: noise standard deviation of one run.
    """
    return np.asarray(effect_bpb < -NEAR_MISS_SIGMAS * sigma_bpb)


def clear_cases(
    rule: Rule, *, trials: Floats, delta: Floats, se: Floats, better: Floats, needed: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Decide which cases are keeps and which are discards; the others need another trial. Arrays of one shape.

    Args:
        trials: number of trials of the candidate, from 1.
        delta: Δ in bpb.
        se: its standard error.
        better: posterior probability of an improvement.
        needed: smallest improvement in bpb that is worth a commit.
    """
    boundary = np.array(DISCARD_Z)[np.minimum(trials.astype(np.int64), len(DISCARD_Z)) - 1]
    sure = (better >= 1 - rule.max_false_keep_probability) & (delta <= -needed)
    keep = sure & (trials >= rule.min_trials)
    discard = ~keep & ((delta >= boundary * se) | (trials >= rule.max_trials))
    return np.asarray(keep), np.asarray(discard)


def judge(
    rule: Rule,
    belief: Belief,
    *,
    candidate_bpb: Sequence[float],
    champion_bpb: Sequence[float],
    lines_added: int = 0,
    simplification: bool = False,
) -> Judgement:
    """Keep, discard, or try again.

    Args:
        candidate_bpb: scores of the candidate, one for each trial.
        champion_bpb: scores of its champion.
        lines_added: net lines of logic; negative if the candidate removes some.
        simplification: whether the candidate was proposed as a simplification.
    """
    trials, pool, sigma = len(candidate_bpb), len(champion_bpb), belief.sigma_bpb
    delta = sum(candidate_bpb) / trials - sum(champion_bpb) / pool
    se = float(standard_error(np.array(sigma), np.array(trials), np.array(pool)))
    known = effect_prior.posterior(belief.prior, belief.weights, np.array(delta), np.array(se))
    needed = sigma * max(LEAST_SIGMAS, LINE_SIGMAS * lines_added)
    keep, discard = clear_cases(
        rule,
        trials=np.array(trials),
        delta=np.array(delta),
        se=np.array(se),
        better=known.better,
        needed=np.array(needed),
    )
    better = float(known.better)
    action = Action.KEEP if keep else Action.DISCARD if discard else Action.TRY_AGAIN
    reason = _reason(rule, action, trials, delta, better, needed)
    if simplification and lines_added < 0 and action is not Action.KEEP:
        margin = SIMPLER_SIGMAS * sigma
        good = effect_prior.probability_below(belief.prior, belief.weights, delta, se, margin)
        action, reason = _judge_simpler(rule, trials, good, -lines_added, margin)
    return Judgement(
        action=action,
        reason=reason,
        num_trials=trials,
        num_champion_runs=pool,
        delta_bpb=delta,
        se_bpb=se,
        sigma_bpb=sigma,
        better=better,
        effect_bpb=float(known.mean),
        low_bpb=float(known.low),
        high_bpb=float(known.high),
    )


def _reason(rule: Rule, action: Action, trials: int, delta: float, better: float, needed: float) -> str:
    """Explain a decision in one sentence."""
    runs = "1 run" if trials == 1 else f"{trials} runs"
    match action:
        case Action.KEEP:
            return f"better by {-delta:.4f} bpb in {runs}, with a probability of {better:.1%}"
        case Action.TRY_AGAIN if better >= 1 - rule.max_false_keep_probability:
            return f"promising after {runs}, better with a probability of {better:.1%}"
        case Action.TRY_AGAIN:
            return f"not clear after {runs}, better with a probability of {better:.1%}"
    if delta >= 0:
        return f"not better than the champion in {runs}"
    if delta > -needed and better >= 1 - rule.max_false_keep_probability:
        return f"better, but not by the {needed:.4f} bpb that a keep needs"
    asked = f"{1 - rule.max_false_keep_probability:.0%}"
    return f"better by {-delta:.4f} bpb in {runs}, with a probability of {better:.0%}; a keep needs {asked}"


def _judge_simpler(rule: Rule, trials: int, good: float, removed: int, margin: float) -> tuple[Action, str]:
    """Decide on a simplification that is no improvement.

    Args:
        good: probability that it is not worse by more than the margin.
        removed: lines of logic.
        margin: in bpb.
    """
    lines = "1 line of logic" if removed == 1 else f"{removed} lines of logic"
    case = f"with {lines} less, and worse by no more than {margin:.4f} bpb with a probability of {good:.0%}"
    if good >= 1 - SIMPLER_DOUBT and trials >= rule.min_trials:
        return Action.KEEP, f"{AS_GOOD}: {case}"
    if good < SIMPLER_LEAST or trials >= rule.max_trials:
        return Action.DISCARD, f"{case}; a keep needs {1 - SIMPLER_DOUBT:.0%}"
    return Action.TRY_AGAIN, f"not clear yet: {case}"


def reproduction_tolerance(sigma_bpb: float) -> float:
    """Largest difference between two runs of one program that noise explains.

    The difference of two runs has the standard deviation √2 σ. Three of these are allowed, so that one honest
    reproduction in 370 is called different.
    """
    return 3 * math.sqrt(2) * sigma_bpb
