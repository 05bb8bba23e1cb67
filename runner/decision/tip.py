"""The tip rule: accept what is probably better on a provisional tip, and certify the tip from time to time.

An edit is tried where it will live: on the *tip*, the champion with all edits accepted since. It gets one trial,
under a secret *exploration seed* that all these trials share. What two programs have in common under one seed,
their data order above all, cancels in their difference; its share of the noise variance is ρ, the *seed share*.
With the level of the tip under this seed known as N(u, var u),

    Δ = score − u,   se² = var u + σ² (1 − ρ),

and the prior over effects (`runner/decision/effect_prior.py`) gives the edit's posterior. It is accepted when it
is probably better. Each trial, a rejected one too, also says something about the level of the tip.

A chain of such acceptances is a proposal, no proof. Once it promises enough, tip and champion are measured in
pairs under fresh seeds that have chosen nothing: the *certificate*. Only that makes the tip the champion; a tip
that fails is rolled back. All functions take arrays of one shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior, keep_rule
from runner.decision.effect_prior import Floats, Posterior, Prior

Bools = npt.NDArray[np.bool_]

SHARES = np.array([0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97])
"""Grid of seed shares; all are equally likely beforehand, unless a calibration has said more (`share_prior`)."""
SHARE_MARGIN = 0.1
"""Standard deviation with which a seed share outside of a calibrated interval becomes improbable."""

DRIFT_SIGMAS = 3.0
"""A control that is further from the level of the tip, in standard errors, is suspect: one in 370 is by chance."""


@dataclass(frozen=True, kw_only=True)
class TipRule:
    """Settings of the rule."""

    accept_probability: float = 0.6  # least probability that an accepted edit is an improvement
    accept_sigmas: float = 0.02  # and its least posterior mean, in noise standard deviations
    certify_sigmas: float = 12.0  # worth of the accepted edits from which the tip is certified
    certify_trials: int = 30  # and trials since the last certificate, at least
    last_trials: float = 12.0  # within so many trials of the end,
    last_sigmas: float = 0.7  # this worth is enough
    max_false_probability: float = 0.01  # of a certificate, at each look: it is asked after every pair
    paired_share: float = 0.0  # seed share that a certificate counts on: as a calibration has shown, at least
    min_pairs: int = 2
    max_pairs: int = 5


class Level(NamedTuple):
    """Score of a program under the exploration seed, as far as it is known."""

    mean: Floats  # bpb
    variance: Floats  # bpb²


class Explored(NamedTuple):
    """One trial on the tip, understood."""

    effect: Posterior  # of the edit
    rejected: Level  # of the tip as it was
    accepted: Level  # of the tip with the edit


def explore(prior: Prior, weights: Floats, level: Level, score_bpb: Floats, own_variance: Floats) -> Explored:
    """Understand the score of an edit on the tip.

    Args:
        weights: (…, K) of the prior's components.
        level: of the tip.
        own_variance: of one trial, without what its seed has in common: σ² (1 − ρ), in bpb².
    """
    delta = score_bpb - level.mean
    effect = effect_prior.posterior(prior, weights, delta, np.sqrt(level.variance + own_variance))
    gain = level.variance / (level.variance + own_variance)  # the share of a surprise that concerns the tip
    mean = level.mean + gain * (delta - effect.mean)
    variance = level.variance * (1 - gain) + gain**2 * effect.variance
    return Explored(
        effect=effect,
        rejected=Level(mean, variance),
        accepted=Level(mean + effect.mean, variance + effect.variance * (1 - 2 * gain)),
    )


def accepts(rule: TipRule, effect: Posterior, sigma_bpb: Floats) -> Bools:
    """Whether an edit goes onto the tip."""
    probable = effect.better >= rule.accept_probability
    return np.asarray(probable & (effect.mean < -rule.accept_sigmas * sigma_bpb))


class Remeasured(NamedTuple):
    """The tip measured again under its exploration seed, understood."""

    level: Level
    moved: Bools  # it agrees with an earlier suspect: the machine has changed
    suspect: Bools  # it is far from the level, and nothing agrees with it so far


def measured_again(level: Level, own_variance: Floats, score_bpb: Floats, suspect_bpb: Floats) -> Remeasured:
    """Understand a control: it refines the level, unless it is further away than the noise explains.

    A score that is far away is believed only once another one agrees with it: the machine has changed then. Else
    one of the two was disturbed, and changes nothing.

    Args:
        level: of the tip.
        own_variance: as in `explore`.
        suspect_bpb: the control before, if that was far away; nan otherwise.
    """
    away, gain = score_bpb - level.mean, level.variance / (level.variance + own_variance)
    near = np.abs(away) <= DRIFT_SIGMAS * np.sqrt(level.variance + own_variance)
    moved = ~near & (np.abs(score_bpb - suspect_bpb) <= DRIFT_SIGMAS * np.sqrt(2 * own_variance))
    mean = np.where(moved, (score_bpb + suspect_bpb) / 2, np.where(near, level.mean + gain * away, level.mean))
    variance = np.where(moved, own_variance / 2, np.where(near, level.variance * (1 - gain), level.variance))
    return Remeasured(Level(mean, variance), np.asarray(moved), np.asarray(~near & ~moved))


def certificate_due(rule: TipRule, *, worth_bpb: Floats, trials: Floats, left: Floats, sigma_bpb: Floats) -> Bools:
    """Whether the tip is to be certified.

    Args:
        worth_bpb: sum of the posterior means of its uncertified edits; negative is better.
        trials: since the last certificate.
        left: trials until the end.
    """
    promising = (worth_bpb <= -rule.certify_sigmas * sigma_bpb) & (trials >= rule.certify_trials)
    ending = (worth_bpb <= -rule.last_sigmas * sigma_bpb) & (left <= rule.last_trials)
    return np.asarray(promising | ending)


class Certificate(NamedTuple):
    """Verdicts on tips; where all are false, another pair is needed."""

    certified: Bools
    rolled_back: Bools
    postponed: Bools  # better, but not provably: it stays the tip, worth half of what was measured


def paired_error(rule: TipRule, pairs: Floats, sigma_bpb: Floats) -> Floats:
    """Standard error of the mean difference of so many pairs, in bpb."""
    return np.asarray(sigma_bpb * np.sqrt(2 * (1 - rule.paired_share) / pairs))


def certify(rule: TipRule, pairs: Floats, delta: Floats, sigma_bpb: Floats, freedom: Floats) -> Certificate:
    """Decide on a tip.

    Nothing in it rests on what was assumed or learned about edits: only pairs under fresh seeds count, the noise
    is an estimate with its degrees of freedom (Student's t), and of the seed share only what a calibration has
    measured.

    Args:
        pairs: number so far, from 1.
        delta: mean of tip − champion, in bpb.
        freedom: of the noise estimate.
    """
    from scipy.special import stdtrit  # lazy: most commands decide nothing

    enough, worth = pairs >= rule.min_pairs, delta <= -keep_rule.LEAST_SIGMAS * sigma_bpb
    needed = stdtrit(freedom, rule.max_false_probability) * paired_error(rule, pairs, sigma_bpb)
    certified = enough & worth & (delta <= needed)
    rolled_back = enough & ~worth
    postponed = ~certified & ~rolled_back & (pairs >= rule.max_pairs)
    return Certificate(np.asarray(certified), np.asarray(rolled_back), np.asarray(postponed))


def share_prior(low: float, high: float) -> Floats:
    """Log probabilities (S,) of the seed shares, up to a constant, given the interval of a calibration."""
    outside = np.maximum(0.0, np.maximum(low - SHARES, SHARES - high))
    return np.asarray(-0.5 * (outside / SHARE_MARGIN) ** 2)


def own_variance(log_shares: Floats, sigma_bpb: Floats) -> Floats:
    """Variance of a trial without what its seed has in common, given what is known of the seed share.

    Args:
        log_shares: (…, S) log probabilities of `SHARES`, up to a constant.
    """
    odds = np.exp(log_shares - log_shares.max(axis=-1, keepdims=True))
    share = (odds @ SHARES) / odds.sum(axis=-1)
    return np.asarray(sigma_bpb**2 * (1 - share))


def share_from_trial(
    prior: Prior, weights: Floats, delta: Floats, level_variance: Floats, sigma_bpb: Floats
) -> Floats:
    """The evidence of one exploration trial on the seed share: (…, S), to add to the log probabilities."""
    se = np.sqrt(level_variance[..., None] + sigma_bpb[..., None] ** 2 * (1 - SHARES))
    return effect_prior.log_evidence(prior, weights[..., None, :], delta[..., None], se)


def share_from_pairs(pairs: Floats, squares: Floats, sigma_bpb: Floats) -> Floats:
    """The evidence of a certificate's pairs on the seed share: (…, S), to add to the log probabilities.

    Args:
        pairs: their number.
        squares: sum of squared deviations of their differences from their mean, in bpb².
    """
    variance = 2 * sigma_bpb[..., None] ** 2 * (1 - SHARES)  # of a difference
    return np.asarray(-0.5 * squares[..., None] / variance - 0.5 * (pairs - 1)[..., None] * np.log(variance))
