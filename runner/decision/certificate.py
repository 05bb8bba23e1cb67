"""The certificate: tip and champion in pairs under fresh seeds, until it is clear which one is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runner.decision import tip
from runner.decision.effect_prior import NORMAL_90, Floats
from runner.decision.keep_rule import AS_GOOD, SIMPLER_DOUBT, SIMPLER_SIGMAS, Action, Judgement
from runner.decision.tip import Pairs, TipRule

DISAGREE_SIGMAS = 4.0
"""Pairs whose differences spread by so much more than the noise explains prove nothing: one was disturbed."""


def judge(
    rule: TipRule,
    sigma_bpb: float,
    share: float,
    pairs: Sequence[tuple[float, float]],
    pool: Sequence[float] = (),
    *,
    simpler: bool = False,
) -> Judgement:
    """Certify the tip, roll it back, ask for another pair, or give up.

    Args:
        sigma_bpb: noise standard deviation of one run.
        share: of its variance that programs have in common under one seed.
        pairs: scores of tip and champion under the same fresh seed.
        pool: the champion's other scores.
        simpler: whether the tip has fewer lines of logic and only simplifications: it may be as good, then.
    """
    scores = np.array(pairs)  # (n, 2)
    sigma, means = np.array(sigma_bpb), scores.mean(axis=0)
    together = Pairs(
        np.array(float(len(pairs))),
        means[0],
        means[1],
        np.array(sum(pool) / len(pool) if pool else means[1]),
        np.array(float(len(pool))),
    )
    delta, se = (float(part) for part in tip.contrast(together, sigma, np.array(share)))
    found = tip.certify(rule, together.number, np.array(delta), np.array(se), sigma)
    margin = SIMPLER_SIGMAS * sigma_bpb
    as_good = simpler and len(pairs) >= rule.min_pairs and _below(delta, se, margin) >= 1 - SIMPLER_DOUBT
    disagree = len(pairs) > 1 and _disagree(scores, sigma_bpb, share)
    last, count = len(pairs) >= rule.max_pairs, "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    measured = f"{'better' if delta < 0 else 'worse'} by {abs(delta):.4f} ± {se:.4f} bpb in {count}"
    if disagree:
        action = Action.UNCLEAR if last else Action.TRY_AGAIN
        reason = f"{measured}, which contradict each other by more than the noise"
    elif found.certified:
        action, reason = Action.KEEP, measured
    elif as_good:
        action, reason = Action.KEEP, f"{AS_GOOD}: {measured}"
    elif found.rolled_back and not (simpler and not last):
        action, reason = Action.DISCARD, f"{measured}: not worth a commit"
    elif last:
        action, reason = Action.UNCLEAR, f"{measured}: not proven"
    else:
        action, reason = Action.TRY_AGAIN, f"{measured}: not clear yet"
    return Judgement(
        action=action,
        reason=reason,
        delta_bpb=delta,
        se_bpb=se,
        sigma_bpb=sigma_bpb,
        better=_below(delta, se, 0.0),
        effect_bpb=delta,
        low_bpb=delta - NORMAL_90 * se,
        high_bpb=delta + NORMAL_90 * se,
    )


def _below(delta: float, se: float, limit: float) -> float:
    """Probability that the true difference is below a limit, with no prior: nothing was chosen on these seeds."""
    return 0.5 * math.erfc(-(limit - delta) / se / math.sqrt(2))


def _disagree(scores: Floats, sigma_bpb: float, share: float) -> bool:
    differences = scores[:, 0] - scores[:, 1]
    expected = sigma_bpb * math.sqrt(2 * (1 - share))
    spread = math.sqrt(float(((differences - differences.mean()) ** 2).sum()) / (len(differences) - 1))
    return spread > DISAGREE_SIGMAS * expected
