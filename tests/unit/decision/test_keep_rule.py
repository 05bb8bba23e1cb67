"""Keep, discard or try again: the rule, its noise estimate, and the sentences that it gives."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.decision import effect_prior
from runner.decision.keep_rule import (
    LEAST_SIGMAS,
    PRIOR_WEIGHT,
    Action,
    Belief,
    Rule,
    clear_cases,
    judge,
    pooled_sigma,
    reproduction_tolerance,
)

SIGMA = 0.0007
PRIOR = effect_prior.prior(0.0005)
BELIEF = Belief(prior=PRIOR, weights=PRIOR.weights, sigma_bpb=SIGMA)
CHAMPION = (0.9979, 0.9975, 0.9983)
MEAN = statistics.mean(CHAMPION)


DEFAULT = Rule()


def decided(*deltas, rule=DEFAULT, belief=BELIEF, champion=CHAMPION, **changes):
    """The case of a candidate whose trials differ from the champion's mean by these amounts."""
    scores = [statistics.mean(champion) + delta for delta in deltas]
    return judge(rule, belief, candidate_bpb=scores, champion_bpb=champion, **changes)


def test_a_clear_improvement_is_kept_after_the_required_trials():
    actions = [decided(*[-0.004] * trials).action for trials in (1, 2)]
    assert actions == [Action.TRY_AGAIN, Action.KEEP]


def test_a_candidate_that_is_not_better_gets_one_trial():
    assert decided(0.0).action is decided(0.003).action is Action.DISCARD


def test_a_possible_improvement_is_tried_again_and_discarded_after_the_last_trial():
    """At −2.1 standard errors from its first trial on, and never sure enough."""
    rule = Rule(max_false_keep_probability=0.001)
    for trials in range(1, 9):
        delta = -2.1 * SIGMA * math.sqrt(1 / trials + 1 / len(CHAMPION))
        found = decided(*[delta] * trials, rule=rule)
        assert found.action is (Action.DISCARD if trials == rule.max_trials else Action.TRY_AGAIN)
    assert found.num_trials == 8 and "a keep needs 100%" in found.reason


def test_a_keep_is_as_sure_as_it_was_asked_for():
    """The same trials, on both sides of the permitted doubt."""
    found = decided(-0.0012, -0.0010, -0.0011)
    assert (
        decided(-0.0012, -0.0010, -0.0011, rule=Rule(max_false_keep_probability=1 - found.better + 1e-6)).action
        is Action.KEEP
    )
    assert (
        decided(-0.0012, -0.0010, -0.0011, rule=Rule(max_false_keep_probability=1 - found.better - 1e-6)).action
        is not Action.KEEP
    )


def test_the_figures_are_those_of_two_means():
    found = decided(-0.002, -0.001)
    assert found.delta_bpb == pytest.approx(-0.0015)
    assert found.se_bpb == pytest.approx(SIGMA * math.sqrt(1 / 2 + 1 / 3))
    assert found.z == pytest.approx(found.delta_bpb / found.se_bpb)
    assert (found.num_trials, found.num_champion_runs, found.sigma_bpb) == (2, 3, SIGMA)
    assert found.low_bpb < found.effect_bpb < found.high_bpb
    assert found.delta_bpb < found.effect_bpb < 0, "shrunken for selection"


def test_more_runs_of_the_champion_make_a_case_clearer():
    few = decided(-0.001, -0.001, -0.001)
    many = decided(-0.001, -0.001, -0.001, champion=CHAMPION * 3)
    assert many.better > few.better


def test_where_hardly_anything_helps_more_evidence_is_asked_for():
    sober = effect_prior.learned_weights(PRIOR, [(0.0, SIGMA * math.sqrt(4 / 3))] * 200)
    belief = replace(BELIEF, weights=sober)
    trials = (-0.0012, -0.0010, -0.0011)
    assert decided(*trials, belief=belief).better < decided(*trials).better


def test_a_gain_that_is_not_worth_a_commit_is_no_keep():
    """Sure, and smaller than a quarter of the noise: 40 runs of the champion, and any number of trials."""
    rule, champion = Rule(max_trials=1000), (0.9979,) * 500
    small = -0.9 * LEAST_SIGMAS * SIGMA
    found = decided(*[small] * 500, rule=rule, champion=champion)
    assert found.better > 0.95 and found.action is not Action.KEEP
    last = decided(*[small] * 500, rule=replace(rule, max_trials=500), champion=champion)
    assert last.action is Action.DISCARD
    assert "better, but not by" in last.reason
    assert decided(*[1.5 * small] * 500, rule=rule, champion=champion).action is Action.KEEP


def test_lines_of_logic_have_their_price():
    trials = (-0.0022, -0.0020, -0.0021)
    assert decided(*trials, lines_added=10).action is Action.KEEP
    assert decided(*trials, lines_added=400).action is not Action.KEEP, "four times the noise are asked for"


def simpler(*deltas, lines=-6, simplification=True, **changes):
    return decided(*deltas, lines_added=lines, simplification=simplification, champion=CHAMPION * 2, **changes)


def test_a_simplification_that_is_as_good_is_kept_with_fewer_lines():
    found = simpler(-0.0002, 0.0001, -0.0001, 0.0)
    assert found.action is Action.KEEP
    assert found.reason.startswith("as good within the noise: with 6 lines of logic less")
    assert "1 line of logic less" in simpler(-0.0002, 0.0001, -0.0001, 0.0, lines=-1).reason


def test_a_simplification_that_costs_something_is_discarded():
    found = simpler(0.003)
    assert found.action is Action.DISCARD
    assert "a keep needs 80%" in found.reason


def test_a_simplification_that_is_not_clear_is_tried_again():
    assert simpler(0.0004).action is Action.TRY_AGAIN
    assert simpler(*[0.0004] * 8).action is Action.DISCARD


@pytest.mark.parametrize(
    "changes", [{"lines": 3}, {"lines": 0}, {"simplification": False}], ids=["adds", "as long", "does not say so"]
)
def test_a_change_that_is_no_simplification_is_judged_like_all_others(changes):
    assert simpler(-0.0002, 0.0001, -0.0001, 0.0, **changes).action is not Action.KEEP


def test_a_simplification_that_is_an_improvement_is_kept_as_one():
    assert simpler(*[-0.004] * 3).reason.startswith("better by")


@pytest.mark.parametrize(
    ("deltas", "sentence"),
    [
        ((-0.004,) * 3, "better by 0.0040 bpb in 3 runs, with a probability of"),
        ((0.002,), "not better than the champion in 1 run"),
        ((-0.0001,), "better by 0.0001 bpb in 1 run, with a probability of"),
        ((-0.0015,), "not clear after 1 run, better with a probability of"),
        ((-0.004,), "promising after 1 run, better with a probability of"),
    ],
)
def test_the_reason_is_a_sentence_for_a_person(deltas, sentence):
    assert decided(*deltas).reason.startswith(sentence)


@given(
    trials=st.integers(1, 8),
    delta=st.floats(-0.01, 0.01),
    better=st.floats(0, 1),
)
def test_no_case_is_both_and_the_last_trial_ends_it(trials, delta, better):
    rule = Rule()
    arrays = {"trials": np.array(trials), "delta": np.array(delta), "better": np.array(better)}
    keep, discard = clear_cases(rule, **arrays, se=np.array(0.001), needed=np.array(0.0002))
    assert not (keep and discard)
    assert keep or discard or trials < rule.max_trials
    assert not keep or (trials >= rule.min_trials and better >= 0.95 and delta <= -0.0002)


def test_the_noise_estimate_is_the_posterior_scale_of_a_scaled_inverse_chi_squared():
    groups = [[1.50, 1.52, 1.55], [2.0], [1.4, 1.41]]
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups if len(group) > 1)
    expected = math.sqrt((PRIOR_WEIGHT * 0.01**2 + squares) / (PRIOR_WEIGHT + 3))
    assert pooled_sigma(groups, 0.01) == pytest.approx(expected)


def test_the_noise_estimate_forgets_its_prior_with_many_runs():
    rng = np.random.default_rng(0)
    runs = list(rng.normal(1.5, 0.02, 400))
    assert pooled_sigma([runs], 0.001) == pytest.approx(statistics.stdev(runs), rel=0.02)


def test_equal_runs_do_not_make_the_noise_zero():
    assert pooled_sigma([[1.5, 1.5, 1.5]], 0.01) == pytest.approx(
        0.01 * math.sqrt(PRIOR_WEIGHT / (PRIOR_WEIGHT + 2))
    )


def test_programs_of_different_scores_are_no_noise():
    assert pooled_sigma([[1.0], [2.0], [3.0]], 0.01) == 0.01


def test_an_honest_reproduction_agrees_in_all_but_one_of_370():
    rng = np.random.default_rng(1)
    differences = rng.normal(0, 0.01, (200_000, 2)) @ [1, -1]
    assert np.mean(np.abs(differences) > reproduction_tolerance(0.01)) == pytest.approx(1 / 370, rel=0.15)
