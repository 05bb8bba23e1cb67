"""One idea on the tip: one trial under the exploration seed decides whether it is accepted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.decision import effect_prior, tip, tip_state
from runner.decision.keep_rule import (
    AS_GOOD,
    CONCEDED_SIGMAS,
    LINE_SIGMAS,
    SIMPLER_DOUBT,
    SIMPLER_SIGMAS,
    Action,
    Belief,
    Judgement,
    percent,
)
from runner.decision.tip import TipRule
from runner.decision.tip_state import Tip


@dataclass(frozen=True, kw_only=True)
class Change:
    """The change that an edit makes to the program, apart from its score."""

    lines_added: int = 0  # net lines of logic
    simplification: bool = False  # whether it was proposed as one


def judge(rule: TipRule, belief: Belief, known: Tip, score_bpb: float, change: Change) -> Judgement:
    """Accept an edit onto the tip, or discard it.

    An edit that adds lines of logic must promise more. A simplification may cost a little, as long as all of them
    together do not cost more than `CONCEDED_SIGMAS`.

    Args:
        known: the tip that it edits.
        score_bpb: of its trial under the exploration seed.
    """
    sigma, effect = belief.sigma_bpb, tip_state.explored(known, belief, score_bpb).effect
    delta = score_bpb - known.level.mean
    se = (known.level.variance + tip_state.own_variance(known, sigma)) ** 0.5
    needed = sigma * max(rule.accept_sigmas, LINE_SIGMAS * change.lines_added)
    better, mean = float(effect.better), float(effect.mean)
    accepted = bool(tip.accepts(rule, effect, np.array(sigma))) and mean < -needed
    reason = f"{percent(better)} sure to be better; the tip takes an edit from {rule.accept_probability:.0%}"
    if not accepted and better >= rule.accept_probability:
        reason = f"expected to be better by {max(0.0, -mean):.4f} bpb; for its size it needs {needed:.4f}"
    if not accepted and change.simplification and change.lines_added < 0:
        accepted, reason = _simpler(belief, known, (delta, se, mean), -change.lines_added)
    return Judgement(
        action=Action.ACCEPT if accepted else Action.DISCARD,
        reason=reason,
        delta_bpb=delta,
        se_bpb=se,
        sigma_bpb=sigma,
        better=better,
        effect_bpb=mean,
        low_bpb=float(effect.low),
        high_bpb=float(effect.high),
    )


def _simpler(belief: Belief, known: Tip, measured: tuple[float, float, float], removed: int) -> tuple[bool, str]:
    """Decide on a simplification that is no improvement.

    Args:
        measured: difference to the tip, its standard error, and the expected effect.
        removed: lines of logic.
    """
    delta, se, mean = measured
    margin = SIMPLER_SIGMAS * belief.sigma_bpb
    good = effect_prior.probability_below(belief.prior, belief.weights, delta, se, margin)
    lines = "1 line of logic" if removed == 1 else f"{removed} lines of logic"
    case = f"with {lines} less, worse by no more than {margin:.4f} bpb with a probability of {good:.0%}"
    if good < 1 - SIMPLER_DOUBT:
        return False, f"{case}; the tip takes a simplification from {1 - SIMPLER_DOUBT:.0%}"
    if known.conceded_bpb + max(0.0, mean) > CONCEDED_SIGMAS * belief.sigma_bpb:
        return False, f"{case}, but earlier simplifications have cost all that this campaign allows"
    return True, f"{AS_GOOD}: {case}"
