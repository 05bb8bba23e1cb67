"""Scoring may take twice as long as the baseline's: what is learned there is on no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.campaign.experiment import score_limit
from runner.evaluation.trial import too_slow
from runner.records import Experiment, Phase, RunEnd, RunRecord, Verdict


def scored(seconds, bpb=1.5, phase=Phase.SCORE):
    return RunRecord(
        phase=phase, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=seconds, cpu_seconds=1, val_bpb=bpb
    )


def baseline(*runs):
    return Experiment(number=0, hypothesis="baseline", proposer="baseline", verdict=Verdict.KEEP, runs=runs)


def test_the_slowest_scoring_of_the_baseline_counts_twice():
    runs = (scored(4.0), scored(6.0), scored(50.0, bpb=None), scored(70.0, phase=Phase.AUDIT))
    assert score_limit(baseline(*runs), train_seconds=20) == 2 * 6 + 5
    assert score_limit(baseline(*runs), train_seconds=300) == 2 * 6 + 15
    assert score_limit(baseline(), train_seconds=300) is None


@pytest.mark.parametrize(("seconds", "limit", "slow"), [(5, 5, False), (5.1, 5, True), (5, None, False)])
def test_what_takes_longer_is_a_crash_that_names_both_figures(seconds, limit, slow):
    failure = too_slow(scored(seconds), limit, num_cores=1)
    assert (failure is not None) == slow
    if failure is not None:
        assert failure.verdict is Verdict.CRASH
        assert "took 5.1 s" in failure.reason
        assert "limit 5.0 s" in failure.reason


def test_what_other_programs_used_of_the_cores_is_not_held_against_it():
    disturbed = replace(scored(9.0), others_cpu_seconds=8.5)
    assert too_slow(disturbed, 5.0, num_cores=2) is None
    assert too_slow(disturbed, 5.0, num_cores=8) is not None
