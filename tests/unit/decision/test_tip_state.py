"""What is known of the tip: its level, its worth, its exploration seed, and the era of the machine."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from runner.decision import effect_prior, history, tip, tip_state
from runner.decision.keep_rule import SIMPLIFICATION, Belief
from runner.decision.tip_state import NO_EVIDENCE, Level, Tip
from runner.records import Experiment, Figures, Outcome, TrialKind, Verdict
from tests.support.trials import failed, scored

SIGMA = 0.01
PRIOR = effect_prior.prior(SIGMA)
BELIEF = Belief(prior=PRIOR, weights=PRIOR.weights, sigma_bpb=SIGMA)
LEVEL = Level(mean=2.0, variance=SIGMA**2 / 4)
TIP = Tip(champion=0, seed=7, level=LEVEL, champion_level=LEVEL, log_shares=NO_EVIDENCE)
FIGURES = Figures(
    trials=(1,), pool=(2,), delta_bpb=0.0, se_bpb=SIGMA, sigma_bpb=SIGMA, better=0.5, effect_bpb=0.0, low_bpb=0.0,
    high_bpb=0.0,
)  # fmt: skip
OWN = tip_state.own_variance(TIP, SIGMA)


def idea(number, bpb, verdict=Verdict.ACCEPT, seed=7, **fields):
    return Experiment(
        number=number, hypothesis="h", proposer="p", verdict=verdict, parent=0, champion=0, figures=FIGURES,
        trials=(scored(bpb, seed),), **fields,
    )  # fmt: skip


def control(bpb, seed=7):
    return scored(bpb, seed, kind=TrialKind.CONTROL)


def certificate(verdict, *pairs, edits=(1, 2), delta=None):
    """A certificate and its champion with these pairs of scores, under the seeds 100, 101, …"""
    opened = scored(0.0).opened_seq
    own, other = [], []
    for seed, (of_tip, of_champion) in enumerate(pairs, 100):
        own.append(scored(of_tip, seed))
        other.append(control(of_champion, seed))
    made = Experiment(
        number=9, hypothesis="h", proposer="certificate", verdict=verdict, champion=0, parent=0, certifies=edits,
        trials=tuple(own), opened_seq=opened, delta_bpb=delta,
    )  # fmt: skip
    champion = Experiment(
        number=0, hypothesis="h", proposer="p", verdict=Verdict.KEEP, control_trials=tuple(other)
    )
    return made, champion


def after_certificate(known, *made):
    return tip_state.after_certificate(known, SIGMA, *made)


def test_a_campaign_begins_with_its_baseline_under_the_seed_of_its_first_trial():
    trials = (failed(seed=1), scored(2.5, 3), scored(2.4, 4))
    baseline = Experiment(number=0, hypothesis="h", proposer="p", verdict=Verdict.KEEP, trials=trials)
    known = tip_state.first(baseline, SIGMA, NO_EVIDENCE)
    assert (known.number, known.seed, known.level.mean, known.edits) == (0, 3, 2.5, ())
    assert known.level.variance == pytest.approx(SIGMA**2 * (1 - tip.SHARES.mean()))
    assert tip_state.first(replace(baseline, trials=(failed(),)), SIGMA, NO_EVIDENCE) is None


def test_an_accepted_edit_is_the_tip_and_its_expected_effect_adds_to_the_worth():
    known = tip_state.after_idea(TIP, BELIEF, idea(1, 1.95))
    effect = float(tip_state.explored(TIP, BELIEF, 1.95).effect.mean)
    assert (known.number, known.edits, known.trials, known.champion) == (1, (1,), 1, 0)
    assert known.worth_bpb == effect < 0
    assert known.level.mean == pytest.approx(1.95, abs=SIGMA), "it was measured"
    assert known.champion_level == TIP.champion_level


def test_a_discard_tells_of_the_level_and_of_nothing_else():
    known = tip_state.after_idea(TIP, BELIEF, idea(1, 2.01, Verdict.DISCARD))
    assert (known.number, known.worth_bpb, known.trials) == (0, 0.0, 1)
    assert known.level.mean > TIP.level.mean and known.level.variance < TIP.level.variance


@pytest.mark.parametrize("verdict", [Verdict.CRASH, Verdict.INVALID, Verdict.INFRA])
def test_what_has_no_score_changes_nothing(verdict):
    one = replace(idea(1, 2.0, verdict), figures=None, trials=(failed(seed=7),))
    assert tip_state.after_idea(TIP, BELIEF, one) is TIP


def test_only_simplifications_use_up_what_they_may_cost():
    known = tip_state.after_idea(TIP, BELIEF, idea(1, 2.004, category=SIMPLIFICATION))
    assert known.conceded_bpb == known.worth_bpb > 0
    assert tip_state.after_idea(TIP, BELIEF, idea(1, 2.004)).conceded_bpb == 0


def test_a_control_filters_the_level_as_two_normal_measurements_combine():
    known = tip_state.after_control(TIP, SIGMA, control(2.006))
    precision = 1 / LEVEL.variance + 1 / OWN
    assert known.level.variance == pytest.approx(1 / precision)
    assert known.level.mean == pytest.approx((2.0 / LEVEL.variance + 2.006 / OWN) / precision)
    assert known.suspect_bpb is None and known.era_seq == 0


def test_one_control_that_is_far_away_is_disturbed_and_counts_for_nothing():
    suspect = tip_state.after_control(TIP, SIGMA, control(2.5))
    assert (suspect.suspect_bpb, suspect.level) == (2.5, LEVEL)
    calm = tip_state.after_control(suspect, SIGMA, control(2.0))
    assert calm.suspect_bpb is None and calm.level.mean == 2.0 and calm.era_seq == 0


def test_two_controls_that_agree_begin_a_new_era():
    second = control(2.502)
    known = tip_state.after_control(tip_state.after_control(TIP, SIGMA, control(2.5)), SIGMA, second)
    assert known.level == Level(mean=2.501, variance=OWN / 2)
    assert known.champion_level.mean == pytest.approx(2.501), "the machine moved the champion as well"
    assert known.era_seq == second.opened_seq and known.suspect_bpb is None
    other = tip_state.after_control(tip_state.after_control(TIP, SIGMA, control(2.5)), SIGMA, control(3.5))
    assert (other.suspect_bpb, other.era_seq) == (3.5, 0), "they contradict each other, too"


ON_TIP = replace(
    TIP, edits=(1, 2), worth_bpb=-0.1, trials=31, conceded_bpb=0.002, level=Level(mean=1.9, variance=1e-5)
)
PAIRS = ((1.80, 1.90), (1.83, 1.92))


def test_a_kept_certificate_is_champion_and_tip_and_its_first_seed_explores():
    known = after_certificate(ON_TIP, *certificate(Verdict.KEEP, *PAIRS))
    assert (known.champion, known.number, known.edits, known.worth_bpb, known.trials) == (9, 9, (), 0.0, 0)
    assert (known.seed, known.level.mean, known.champion_level.mean) == (100, 1.80, 1.80)
    assert known.conceded_bpb == ON_TIP.conceded_bpb, "the allowance is the campaign's"


@pytest.mark.parametrize("verdict", [Verdict.DISCARD, Verdict.INVALID, Verdict.CRASH])
def test_a_tip_that_fails_is_rolled_back_to_the_champion_which_was_measured_as_well(verdict):
    known = after_certificate(ON_TIP, *certificate(verdict, *PAIRS))
    assert (known.champion, known.number, known.edits, known.worth_bpb) == (0, 0, (), 0.0)
    assert (known.seed, known.level.mean) == (100, 1.90)


def test_a_tip_that_fails_before_the_first_pair_leaves_the_exploration_seed():
    known = after_certificate(ON_TIP, *certificate(Verdict.CRASH))
    assert (known.number, known.seed, known.level) == (0, 7, LEVEL)


def test_an_unclear_certificate_keeps_the_tip_at_half_of_what_was_measured():
    known = after_certificate(ON_TIP, *certificate(Verdict.UNCLEAR, *PAIRS, delta=-0.04))
    assert (known.number, known.edits, known.worth_bpb, known.trials) == (2, (1, 2), -0.02, 0)
    assert (known.seed, known.level.mean, known.champion_level.mean) == (100, 1.80, 1.90)


def test_a_certificate_that_the_infrastructure_lost_leaves_the_tip_and_is_not_asked_for_at_once():
    known = after_certificate(ON_TIP, *certificate(Verdict.INFRA, *PAIRS))
    assert (known.number, known.seed, known.worth_bpb, known.trials) == (2, 7, ON_TIP.worth_bpb, 0)


def test_a_pair_needs_both_sides_audited_and_the_champion_measured_for_this_certificate():
    made, champion = certificate(Verdict.KEEP, *PAIRS)
    assert [pair.delta_bpb for pair in history.pairs_of(made, champion)] == pytest.approx([-0.10, -0.09])
    unaudited = replace(made, trials=(scored(1.8, 100, audited=False), *made.trials[1:]))
    assert len(history.pairs_of(unaudited, champion)) == 1
    later = replace(made, opened_seq=champion.control_trials[0].closed_seq)
    assert len(history.pairs_of(later, champion)) == 1
    lost = replace(champion, control_trials=(failed(Outcome.LOST, 100), *champion.control_trials[1:]))
    assert len(history.pairs_of(made, lost)) == 1


def test_a_later_control_under_the_first_seed_is_no_part_of_the_certificate():
    made, champion = certificate(Verdict.DISCARD, *PAIRS)
    late = control(2.5, seed=100)
    made = replace(made, closed_seq=late.opened_seq)
    again = replace(champion, control_trials=(*champion.control_trials, late))
    assert history.pairs_of(made, again) == history.pairs_of(made, champion)


def test_the_seed_share_is_learned_from_pairs_and_from_trials():
    """A world with a share of 0.85: differences under one seed are small against what seeds do."""
    rng, known = np.random.default_rng(1), TIP
    own = SIGMA * math.sqrt(0.15)
    for _ in range(20):
        pairs = [(1.9 + rng.normal(0, own), 2.0 + rng.normal(0, own)) for _ in range(4)]
        known = after_certificate(replace(known, edits=(1,)), *certificate(Verdict.DISCARD, *pairs))
    assert 1 - tip_state.own_variance(known, 1.0) == pytest.approx(0.85, abs=0.06)
    none = TIP
    for _ in range(20):
        pairs = [(1.9 + rng.normal(0, SIGMA), 2.0 + rng.normal(0, SIGMA)) for _ in range(4)]
        none = after_certificate(replace(none, edits=(1,)), *certificate(Verdict.DISCARD, *pairs))
    assert 1 - tip_state.own_variance(none, 1.0) < 0.25
