"""The certificate: tip and champion in pairs under fresh seeds, until it is clear which one is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from runner.decision import tip
from runner.decision.effect_prior import Floats
from runner.decision.keep_rule import AS_GOOD, SIMPLER_DOUBT, SIMPLER_SIGMAS, Action, Belief, Judgement
from runner.decision.tip import TipRule

DISAGREE_SIGMAS = 4.0
"""Pairs whose differences spread by so much more than the noise explains prove nothing: one was disturbed."""


def judge(
    rule: TipRule, belief: Belief, pairs: Sequence[tuple[float, float]], *, simpler: bool = False
) -> Judgement:
    """Certify the tip, roll it back, ask for another pair, or give up.

    Args:
        belief: of which only the noise counts.
        pairs: scores of tip and champion under the same fresh seed.
        simpler: whether the tip has fewer lines of logic and only simplifications: it may be as good, then.
    """
    from scipy.special import stdtrit  # lazy: most commands decide nothing

    differences, sigma_bpb = (
        np.array([tip_bpb - champion_bpb for tip_bpb, champion_bpb in pairs]),
        belief.sigma_bpb,
    )
    delta, number, sigma = float(differences.mean()), np.array(float(len(pairs))), np.array(sigma_bpb)
    se = float(tip.paired_error(rule, number, sigma))
    found = tip.certify(rule, number, np.array(delta), sigma, np.array(belief.freedom))
    margin = SIMPLER_SIGMAS * sigma_bpb
    as_good = simpler and len(pairs) >= rule.min_pairs and _below(delta, se, belief, margin) >= 1 - SIMPLER_DOUBT
    disagree = len(pairs) > 1 and _disagree(differences, se)
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
    reach = float(stdtrit(belief.freedom, 0.95)) * se
    return Judgement(
        action=action,
        reason=reason,
        delta_bpb=delta,
        se_bpb=se,
        sigma_bpb=sigma_bpb,
        better=_below(delta, se, belief, 0.0),
        effect_bpb=delta,
        low_bpb=delta - reach,
        high_bpb=delta + reach,
    )


def _below(delta: float, se: float, belief: Belief, limit: float) -> float:
    """Probability that the true difference is below a limit, with no prior: nothing was chosen on these seeds."""
    from scipy.special import stdtr  # lazy: most commands decide nothing

    return float(stdtr(belief.freedom, (limit - delta) / se))


def _disagree(differences: Floats, se: float) -> bool:
    expected = se * math.sqrt(len(differences))
    return float(differences.std(ddof=1)) > DISAGREE_SIGMAS * expected
