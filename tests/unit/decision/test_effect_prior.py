"""The prior over effects and Bayes' rule, against closed forms."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from runner.decision import effect_prior
from runner.decision.effect_prior import (
    KIND_WEIGHTS,
    SCALE_WEIGHTS,
    learned_weights,
    posterior,
    probability_below,
    responsibilities,
)

SCALE = 0.0005
PRIOR = effect_prior.prior(SCALE)
SLIGHT = np.zeros(9)
SLIGHT[4] = 1.0  # the middle scale's kind that is normal


def test_components_and_weights_are_probabilities():
    assert PRIOR.components.shape == (9, len(PRIOR.grid))
    assert PRIOR.components.sum(axis=1) == pytest.approx(np.ones(9))
    assert (PRIOR.components >= 0).all()
    assert PRIOR.weights.sum() == pytest.approx(1) == sum(KIND_WEIGHTS) == sum(SCALE_WEIGHTS)
    assert (np.diff(PRIOR.grid) > 0).all() and PRIOR.grid[len(PRIOR.grid) // 2] == 0


@pytest.mark.parametrize("delta", [-0.0012, -0.0003, 0.0, 0.0008])
@pytest.mark.parametrize("se", [0.0004, 0.0009])
def test_one_normal_component_gives_the_conjugate_posterior(delta, se):
    found = posterior(PRIOR, SLIGHT, np.array(delta), np.array(se))
    share = SCALE**2 / (SCALE**2 + se**2)
    sd = np.sqrt(share) * se
    assert float(found.mean) == pytest.approx(share * delta, abs=2e-6)
    assert float(found.low) == pytest.approx(share * delta - 1.6449 * sd, abs=0.06 * sd)
    assert float(found.high) == pytest.approx(share * delta + 1.6449 * sd, abs=0.06 * sd)
    assert float(found.better) == pytest.approx(NormalDist().cdf(-share * delta / sd), abs=2e-3)


def test_the_exponentials_have_the_documented_means():
    means = PRIOR.components @ PRIOR.grid
    assert means[3:6] == pytest.approx([7 * SCALE, 0, -3.6 * SCALE], rel=0.02, abs=1e-9)


def test_no_data_is_the_prior():
    found = posterior(PRIOR, PRIOR.weights, np.array(0.0), np.array(1e3))
    assert float(found.mean) == pytest.approx(float(PRIOR.weights @ PRIOR.components @ PRIOR.grid))


@pytest.mark.parametrize("delta", [-0.02, 0.013, -3e-8])
def test_a_measurement_finer_than_the_grid_ignores_the_prior(delta):
    """Far from the usual effects, and far below them: an interval always has its width."""
    se = min(abs(delta), 1e-4) / 10 if abs(delta) > 1e-3 else 2e-8
    found = posterior(PRIOR, PRIOR.weights, np.array(delta), np.array(se))
    assert (float(found.low), float(found.high)) == pytest.approx((delta - 1.6449 * se, delta + 1.6449 * se))
    assert float(found.mean) == delta
    assert float(found.better) == pytest.approx(NormalDist().cdf(-delta / se))


def test_where_the_grid_begins_to_be_coarse_nothing_jumps():
    deltas = np.full(200, -0.01)
    ses = np.geomspace(2e-5, 4e-4, 200)
    found = posterior(PRIOR, np.tile(PRIOR.weights, (200, 1)), deltas, ses)
    assert np.abs(found.mean + 0.01).max() < 2e-4
    step = 0.01 * 0.02  # either end may be off by one
    assert (np.abs((found.high - found.low) - 2 * 1.6449 * ses) < 2 * step).all()


@pytest.mark.parametrize("delta", [-50.0, -0.5, 0.5, 50.0])
def test_a_measurement_far_outside_the_grid_is_certain_and_finite(delta):
    found = posterior(PRIOR, PRIOR.weights, np.array(delta), np.array(1e-7))
    assert all(np.isfinite(part) for part in found)
    assert float(found.better) == pytest.approx(float(delta < 0))
    assert np.isfinite(responsibilities(PRIOR, PRIOR.weights, np.array(delta), np.array(1e-7))).all()


def test_probability_of_an_improvement_falls_with_the_difference():
    deltas = np.linspace(-0.004, 0.004, 50)
    better = posterior(PRIOR, PRIOR.weights, deltas, np.full(50, 0.0008)).better
    assert (np.diff(better) < 0).all() and better[0] > 0.99 and better[-1] < 0.01


def test_the_scale_is_only_a_unit():
    one = posterior(PRIOR, PRIOR.weights, np.array(-0.001), np.array(0.0006))
    thirty = effect_prior.prior(30 * SCALE)
    other = posterior(thirty, thirty.weights, np.array(-0.03), np.array(0.018))
    assert float(other.better) == pytest.approx(float(one.better))
    assert float(other.mean) == pytest.approx(30 * float(one.mean))


def test_a_coarse_grid_says_the_same():
    coarse = effect_prior.prior(SCALE, 61)
    deltas = np.linspace(-0.003, 0.003, 31)
    fine_better = posterior(PRIOR, PRIOR.weights, deltas, np.full(31, 0.0006)).better
    coarse_better = posterior(coarse, coarse.weights, deltas, np.full(31, 0.0006)).better
    assert np.abs(fine_better - coarse_better).max() < 0.01


def test_probability_below_a_limit_agrees_with_the_posterior_at_zero():
    found = posterior(PRIOR, PRIOR.weights, np.array(-0.0006), np.array(0.0005))
    middle = probability_below(PRIOR, PRIOR.weights, -0.0006, 0.0005, 0.0)
    assert middle == pytest.approx(float(found.better), abs=0.02)
    assert probability_below(PRIOR, PRIOR.weights, -0.0006, 0.0005, 1.0) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "column"), [("harm", 0), ("gain", 2)])
def test_a_campaign_learns_the_kinds_of_its_edits(kind, column):
    rng = np.random.default_rng(0)
    sizes = rng.exponential(3.6 * SCALE, 300) * (1 if kind == "harm" else -1)
    trials = [(size + rng.normal(0, 0.0003), 0.0003) for size in sizes]
    weights = learned_weights(PRIOR, trials).reshape(3, 3).sum(axis=0)  # by kind
    assert weights[column] > 0.5 > 5 * weights[2 - column]


def test_nothing_learned_is_the_prior():
    assert learned_weights(PRIOR, []) == pytest.approx(PRIOR.weights)


def test_responsibilities_sum_to_one_for_every_measurement():
    deltas = np.linspace(-0.01, 0.01, 11)
    found = responsibilities(PRIOR, np.tile(PRIOR.weights, (11, 1)), deltas, np.full(11, 0.0005))
    assert found.shape == (11, 9)
    assert found.sum(axis=1) == pytest.approx(np.ones(11))
