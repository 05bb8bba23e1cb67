"""Paired differences and the seed share: intervals cover as often as they say, and p is exact."""

from __future__ import annotations

import numpy as np
import pytest

from runner.decision import pairing, tip


def layout(rng, share, programs=2, seeds=5, sigma=1.0):
    """Scores of programs that differ, under common seeds."""
    own = rng.normal(0, np.sqrt(1 - share), (programs, seeds))
    common = rng.normal(0, np.sqrt(share), seeds)
    return sigma * (own + common) + 3.0 * np.arange(programs)[:, None]


@pytest.mark.parametrize("share", [0.5, 0.87])
def test_the_interval_of_the_seed_share_covers_it_in_nine_layouts_of_ten(share):
    rng = np.random.default_rng(1)
    found = [pairing.seed_share(layout(rng, share, programs=3, sigma=2.0)) for _ in range(1500)]
    covered = np.mean([one.low <= share <= one.high for one in found])
    assert covered == pytest.approx(0.9, abs=0.025)
    assert np.mean([one.sigma_bpb**2 for one in found]) == pytest.approx(4.0, rel=0.1)
    assert np.mean([one.residual_bpb**2 for one in found]) == pytest.approx(4.0 * (1 - share), rel=0.1)


def test_programs_that_share_nothing_have_a_seed_share_that_includes_zero():
    rng = np.random.default_rng(2)
    lows = [pairing.seed_share(layout(rng, 0.0)).low for _ in range(500)]
    assert np.mean([low == 0 for low in lows]) == pytest.approx(0.95, abs=0.03)


def test_scores_that_a_seed_determines_share_all_of_their_noise():
    found = pairing.seed_share([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]])
    assert (found.share, found.low, found.high, found.residual_bpb) == (1, 1, 1, 0)
    assert pairing.seed_share([[1.0, 1.0], [2.0, 2.0]]).share == 0, "no noise at all"


def test_the_interval_of_a_mean_difference_covers_it_in_nine_of_ten():
    differences = np.random.default_rng(3).normal(-0.5, 1.0, (3000, 4))
    found = [pairing.mean_difference(row) for row in differences]
    assert np.mean([one.low_bpb <= -0.5 <= one.high_bpb for one in found]) == pytest.approx(0.9, abs=0.015)
    assert found[0].mean_bpb == pytest.approx(differences[0].mean())


def test_a_calibrated_seed_share_is_where_a_campaign_starts():
    one = np.array(1.0)
    flat = 1 - tip.own_variance(tip.share_prior(0.0, 1.0), one)
    low, high = (1 - tip.own_variance(tip.share_prior(*ends), one) for ends in ((0.0, 0.2), (0.8, 0.95)))
    assert flat == pytest.approx(tip.SHARES.mean())
    assert low < 0.25 < flat < 0.8 < high < 0.95
    assert np.all(np.isfinite(tip.share_prior(0.3, 0.31))), "nothing is ruled out"


def test_p_is_exact_and_ties_never_help_a_claim():
    assert pairing.signed_rank_p([-1.0, -2.0, -3.0]) == 1 / 8
    assert pairing.signed_rank_p([-1.0, -2.0, 0.5]) == 2 / 8
    assert pairing.signed_rank_p([1.0, 2.0, 3.0]) == 1.0
    assert pairing.signed_rank_p([-1.0, -2.0, 0.0]) == 1 / 4, "a zero is no pair"
    assert pairing.signed_rank_p([0.0, 0.0]) == 1.0
    assert pairing.signed_rank_p([-1.0] * 7) == 1 / 128


def test_p_is_uniform_where_nothing_differs():
    values = [pairing.signed_rank_p(row) for row in np.random.default_rng(4).normal(size=(2000, 7))]
    for level in (0.008, 0.05, 0.5):
        share = np.mean([p <= level for p in values])
        assert 0.5 * level < share < level + 3 * np.sqrt(level / 2000), (
            "few values are possible, and none too often"
        )


def test_residuals_are_what_neither_program_nor_seed_explains():
    squares, freedom = pairing.residual_spread([[1.0, 2.0, 4.0], [2.0, 3.0, 5.0]])
    assert (squares, freedom) == (pytest.approx(0), 2)
    assert pairing.residual_spread([[1.0, 2.0], [2.0, 1.0]]) == (pytest.approx(1.0), 1)
    assert pairing.residual_spread([[1.0], [2.0]]) == (0.0, 0), "one seed says nothing"
