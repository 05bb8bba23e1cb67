"""An idea on the tip: accepted or discarded, by one trial, and the sentence that says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runner.decision import effect_prior, exploration, tip
from runner.decision.exploration import Change
from runner.decision.keep_rule import CONCEDED_SIGMAS, Action, Belief
from runner.decision.tip import TipRule
from runner.decision.tip_state import NO_EVIDENCE, Level, Tip, explored

SIGMA = 0.0007
PRIOR = effect_prior.prior(0.0005)
BELIEF = Belief(prior=PRIOR, weights=PRIOR.weights, sigma_bpb=SIGMA)
LEVEL = Level(mean=1.0, variance=(SIGMA / 3) ** 2)
TIP = Tip(champion=0, seed=7, level=LEVEL, champion_level=LEVEL, log_shares=NO_EVIDENCE)
PAIRED = replace(TIP, log_shares=np.where(tip.SHARES == 0.85, 0.0, -1e3))


def judged(delta, *, known=TIP, belief=BELIEF, rule=None, **change):
    """The judgement on an edit whose score differs from the tip's level by so much."""
    return exploration.judge(rule or TipRule(), belief, known, LEVEL.mean + delta, Change(**change))


def test_what_is_probably_better_is_accepted_and_all_else_discarded():
    found = judged(-0.002)
    assert found.action is Action.ACCEPT and found.better >= 0.6
    assert found.reason == "over 99% sure to be better; the tip takes an edit from 60%", "never 100%"
    assert judged(0.002).action is judged(0.0).action is Action.DISCARD


def test_an_edit_is_as_probable_as_the_setting_asks_on_both_sides():
    found = judged(-0.0008)
    for probability, action in ((found.better - 1e-6, Action.ACCEPT), (found.better + 1e-6, Action.DISCARD)):
        assert judged(-0.0008, rule=TipRule(accept_probability=probability)).action is action


def test_the_figures_are_those_of_a_trial_against_the_level_of_the_tip():
    found = judged(-0.0012)
    assert found.delta_bpb == pytest.approx(-0.0012)
    share = NO_EVIDENCE + 1 / len(tip.SHARES)
    assert found.se_bpb == pytest.approx((LEVEL.variance + SIGMA**2 * (1 - share @ tip.SHARES)) ** 0.5)
    assert found.low_bpb < found.effect_bpb < found.high_bpb
    assert found.delta_bpb < found.effect_bpb < 0, "shrunk for selection"
    assert found.effect_bpb == float(explored(TIP, BELIEF, LEVEL.mean - 0.0012).effect.mean)


def test_what_the_seed_has_in_common_makes_a_smaller_difference_count():
    assert judged(-0.0005, known=PAIRED).se_bpb < judged(-0.0005).se_bpb
    assert judged(-0.0005, known=PAIRED).better > judged(-0.0005).better


def test_lines_of_logic_have_their_price():
    assert judged(-0.002, lines_added=10).action is Action.ACCEPT
    refused = judged(-0.002, lines_added=400)
    assert refused.action is Action.DISCARD
    assert "for its size it needs 0.0028" in refused.reason, "four times the noise are asked for"


def simpler(delta, *, lines=-6, known=PAIRED, simplification=True):
    return judged(delta, known=known, lines_added=lines, simplification=simplification)


def test_a_simplification_that_is_as_good_is_accepted_with_fewer_lines():
    found = simpler(0.00005)
    assert found.action is Action.ACCEPT
    assert found.reason.startswith("as good within the noise: with 6 lines of logic less")
    assert "1 line of logic less" in simpler(0.00005, lines=-1).reason


def test_a_simplification_that_costs_something_is_discarded():
    found = simpler(0.003)
    assert found.action is Action.DISCARD and "from 80%" in found.reason


@pytest.mark.parametrize(
    "changes", [{"lines": 3}, {"lines": 0}, {"simplification": False}], ids=["adds", "as long", "does not say so"]
)
def test_a_change_that_is_no_simplification_is_judged_like_all_others(changes):
    assert simpler(0.00005, **changes).action is Action.DISCARD


def test_simplifications_do_not_lead_downhill_step_by_step():
    spent = replace(PAIRED, conceded_bpb=CONCEDED_SIGMAS * SIGMA)
    found = simpler(0.0001, known=spent)
    assert found.action is Action.DISCARD and "have cost all that this campaign allows" in found.reason
    assert simpler(-0.002, known=spent).action is Action.ACCEPT, "an improvement costs nothing"
