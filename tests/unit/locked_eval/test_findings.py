"""Estimates, charges and findings against closed forms."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from locked_eval.judging.distributions import CLAMP, clamp
from locked_eval.judging.draw import draw
from locked_eval.judging.estimate import FALSE_ALARM, Estimate, charge, estimate, honest_limit
from locked_eval.judging.findings import Dependence, HonestNoise, resolve_findings

NOISE = HonestNoise(exceedance_rates=(1e-5, 1e-5, 1e-5, 1e-5), dependence=1e-4)
QUIET = Dependence(0.0, 0.0, 0.0)
NOTHING = Estimate(0.0, 0.0, 0.0)


def test_repeat_noise_excuses_as_much_dependence_but_not_more():
    noise = HonestNoise(exceedance_rates=NOISE.exceedance_rates, dependence=0.01)

    def names(repeat, suffix, neighbors=None):
        found = resolve_findings(
            num_unusable=0,
            found=NOTHING,
            paired=None,
            even=np.zeros(10),
            dependence=Dependence(repeat, suffix, neighbors),
            noise=noise,
        )
        return [finding.name for finding in found]

    assert names(0.008, 0.017) == []
    assert names(0.008, 0.019) == ["not_causal"]
    assert names(0.011, 0.019) == ["not_repeatable"]
    assert names(None, 0.011) == ["not_causal"]
    assert names(None, None, None) == []
    assert names(0.011, 0.5, 0.5) == ["not_repeatable", "not_independent", "not_causal"]


@pytest.mark.parametrize(
    ("mean", "se", "expected"),
    [(0.0009, 0.0, []), (0.0011, 0.0002, ["not_independent"]), (0.0011, 0.0003, []), (-1.0, 0.1, [])],
)
def test_a_gain_from_other_rows_must_be_both_proven_and_large_enough(mean, se, expected):
    found = resolve_findings(
        num_unusable=0,
        found=NOTHING,
        paired=Estimate(mean, se, 0.0),
        even=np.zeros(1),
        dependence=QUIET,
        noise=NOISE,
    )
    assert [finding.name for finding in found] == expected


def test_a_gain_from_other_rows_costs_its_bound_once_honest_noise_does_not_explain_it():
    below, above = Estimate(0.002, 0.0005, 0.003), Estimate(0.002, 0.001, 0.0036)
    assert charge(None, 0, 0.01) == 0
    assert charge(below, 256, 0.01) == 0  # 5 × 0.01 / 16 = 0.0031
    assert charge(above, 256, 0.01) == pytest.approx(0.002 + 2.58 * 0.001)
    assert charge(below, 512, 0.01) == pytest.approx(0.002 + 2.58 * 0.0005)


@pytest.mark.parametrize(
    ("mean", "se", "expected"),
    [(0.0009, 0.0, []), (0.0011, 0.0002, ["overstated"]), (0.0011, 0.0003, []), (-1.0, 0.1, [])],
)
def test_an_overstatement_must_be_both_proven_and_large_enough(mean, se, expected):
    found = resolve_findings(
        num_unusable=0, found=Estimate(mean, se, 0.0), paired=None, even=np.zeros(1), dependence=QUIET, noise=NOISE
    )
    assert [finding.name for finding in found] == expected


@pytest.mark.parametrize(("num", "rate"), [(10, 0.1), (200, 0.01), (300, 0.5), (1000, 1e-3), (50, 1e-5)])
def test_the_limit_of_a_count_is_the_exact_quantile(num, rate):
    exact = Fraction(rate)
    limit = honest_limit(num, rate)

    def above(k):
        return 1 - sum(math.comb(num, i) * exact**i * (1 - exact) ** (num - i) for i in range(k + 1))

    assert above(limit) <= FALSE_ALARM
    assert limit == 0 or above(limit - 1) > FALSE_ALARM


def test_the_limit_of_a_count_at_the_ends():
    assert honest_limit(100, 0.0) == 0
    assert honest_limit(100, 1.0) == 100
    assert honest_limit(0, 0.5) == 0
    assert honest_limit(8192, 1e-5) == 2


def test_the_clamp_bounds_an_overstatement_and_moves_little_else():
    extreme = clamp(np.array([0.0, -np.inf]), 8192)
    assert extreme[0] - extreme[1] <= math.log(8192 / CLAMP)
    likely = np.log(np.array([0.9, 0.1, 0.01]))
    assert np.abs(clamp(likely, 8192) - likely).max() <= 0.00101


def test_the_estimate_is_unbiased_and_its_error_is_not_too_small():
    rng = np.random.default_rng(5)
    num_rows, length, wanted = 400, 20, 100
    overstatements = rng.exponential(0.1, (num_rows, length)) * (rng.random((num_rows, 1)) < 0.3)
    champion = -rng.exponential(1.0, overstatements.shape).astype(np.float32)
    claims = np.minimum(champion + rng.normal(0, 0.2, champion.shape).astype(np.float32), np.float32(0))
    counted = rng.random(claims.shape) < 0.9
    truth = overstatements[counted].mean()
    found = []
    for _ in range(2000):
        drawn = draw(claims, champion, counted, wanted, lambda count: rng.random(count))
        at = overstatements[drawn.rows, drawn.positions[drawn.rows]]
        chances = drawn.probabilities[drawn.rows]
        found.append(estimate(at, chances, num_rows=num_rows, num_tokens=int(counted.sum())))
    means, errors = np.array([one.mean for one in found]), np.array([one.se for one in found])
    assert means.mean() == pytest.approx(truth, abs=4 * means.std() / math.sqrt(len(found)))
    assert math.sqrt((errors**2).mean()) >= 0.97 * means.std()
    # Nominally 0.95; 100 rows of which most overstate nothing are few for a bound that assumes a normal mean.
    assert np.mean([one.upper >= truth for one in found]) >= 0.87


def test_a_single_row_has_an_error_of_its_own_size():
    found = estimate(np.array([0.02]), np.array([0.5]), num_rows=4, num_tokens=8)
    assert found.mean == found.se == pytest.approx(0.02)
