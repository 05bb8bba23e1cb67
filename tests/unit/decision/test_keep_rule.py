"""What every decision shares: the noise estimate, and when two runs of one program agree."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from runner.decision.keep_rule import PRIOR_WEIGHT, pooled_sigma, reproduction_tolerance


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
