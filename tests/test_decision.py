"""The keep rule against its formula."""

from __future__ import annotations

import math
import statistics

import pytest

from runner.decision import PRIOR_WEIGHT, judge_candidate, pooled_sigma, reproduction_tolerance
from runner.records import Verdict


def judged(candidate, champion=1.0, sigma=0.01):
    return judge_candidate(candidate_bpb=candidate, champion_bpb=champion, sigma_bpb=sigma, keep_sigmas=2)


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [
        (0.97, Verdict.KEEP),
        (0.979, Verdict.KEEP),
        (0.981, Verdict.DISCARD),
        (1.0, Verdict.DISCARD),
        (1.2, Verdict.DISCARD),
    ],
)
def test_only_more_than_two_sigma_is_kept(candidate, verdict):
    assert judged(candidate).verdict is verdict


def test_a_gain_of_just_two_sigma_is_no_keep():
    assert judged(0.5, champion=1.0, sigma=0.25).verdict is Verdict.DISCARD


def test_the_delta_is_negative_for_an_improvement():
    assert judged(0.9).delta_bpb == pytest.approx(-0.1)


def test_every_verdict_has_a_reason_of_its_own():
    assert len({judged(value).reason for value in (0.9, 0.99, 1.1)}) == 3


def test_equal_runs_do_not_make_the_noise_zero():
    assert pooled_sigma([1.5, 1.5, 1.5], 0.01) == pytest.approx(
        0.01 * math.sqrt(PRIOR_WEIGHT / (PRIOR_WEIGHT + 2))
    )


def test_many_runs_outweigh_the_prior():
    runs = [1.0, 1.2] * 500
    assert pooled_sigma(runs, 0.01) == pytest.approx(statistics.stdev(runs), rel=0.01)


def test_runs_with_the_spread_of_the_prior_confirm_it():
    assert pooled_sigma([1 - 0.01, 1, 1 + 0.01], 0.01) == pytest.approx(0.01)


def test_a_reproduction_may_differ_by_three_standard_deviations_of_a_difference():
    assert reproduction_tolerance(0.01) == pytest.approx(3 * 0.01 * 2**0.5)


@pytest.mark.parametrize(
    ("candidate", "removed", "verdict"),
    [
        (1.004, 3, Verdict.KEEP),
        (0.999, 1, Verdict.KEEP),
        (1.006, 3, Verdict.DISCARD),
        (1.004, 0, Verdict.DISCARD),
        (0.97, 0, Verdict.KEEP),
    ],
)
def test_a_simplification_is_kept_when_it_is_as_good_within_the_noise(candidate, removed, verdict):
    decided = judge_candidate(
        candidate_bpb=candidate, champion_bpb=1.0, sigma_bpb=0.01, keep_sigmas=2, lines_removed=removed
    )
    assert decided.verdict is verdict
    assert ("lines of logic less" in decided.reason) == (verdict is Verdict.KEEP and removed > 0)
