"""Scoring may take twice as long as the baseline's: what is learned there is on no clock.

How a scoring is classified that takes longer is tested with `runner.evaluation.outcome`.
"""

from __future__ import annotations

from runner.campaign.case import score_limit
from runner.records import Experiment, Phase, TrialKind, Verdict
from tests.support.trials import run, scored


def trial(seconds, bpb=1.5, phase=Phase.SCORE, **fields):
    return scored(1.5, runs=(run(Phase.TRAIN), run(phase, wall_seconds=seconds, val_bpb=bpb)), **fields)


def baseline(*trials, **fields):
    return Experiment(
        number=0, hypothesis="baseline", proposer="baseline", verdict=Verdict.KEEP, trials=trials, **fields
    )


def test_the_slowest_scoring_of_the_baseline_counts_twice():
    trials = (trial(4.0), trial(6.0), trial(50.0, bpb=None), trial(70.0, phase=Phase.AUDIT), trial(None))
    assert score_limit(baseline(*trials), train_seconds=20) == 2 * 6 + 5
    assert score_limit(baseline(*trials), train_seconds=300) == 2 * 6 + 15
    assert score_limit(baseline(), train_seconds=300) is None


def test_controls_do_not_move_the_limit_in_the_middle_of_a_night():
    control = trial(9.0, kind=TrialKind.CONTROL)
    assert score_limit(baseline(trial(4.0), control_trials=(control,)), train_seconds=20) == 2 * 4 + 5
