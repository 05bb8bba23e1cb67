"""The draw against its formula, its randomness, and what it must never choose."""

from __future__ import annotations

import numpy as np
import pytest

from locked_eval.judging import draw as module
from locked_eval.judging.draw import GAIN_FLOOR_NATS, draw, system_uniforms

MANY = 200_000


def seeded(seed=0):
    """A source of randomness that can be repeated."""
    rng = np.random.default_rng(seed)
    return lambda count: rng.random(count)


def reference(claims, champion, counted):
    """The probabilities of one row, written down as in the documentation."""
    even = counted / counted.sum()
    if champion is None:
        return even
    weights = np.maximum(GAIN_FLOOR_NATS, claims.astype(float) - champion) * counted
    return 0.5 * even + 0.5 * weights / weights.sum()


CLAIMS = np.array([-1.0, -2.0, -0.5, -3.0, -0.01, -7.0], dtype=np.float32)
CHAMPION = np.array([-1.0, -1.0, -2.5, -3.01, -0.51, -9.0], dtype=np.float32)
COUNTED = np.array([True, True, True, True, True, False])


def repeated(row, count=MANY):
    return np.broadcast_to(row, (count, row.size))


@pytest.mark.parametrize("champion", [None, CHAMPION], ids=["without a champion", "against a champion"])
def test_positions_come_as_often_as_the_formula_says(champion):
    beaten = None if champion is None else repeated(champion)
    drawn = draw(repeated(CLAIMS), beaten, repeated(COUNTED), MANY, seeded())
    expected = reference(CLAIMS, champion, COUNTED)
    seen = np.bincount(drawn.positions, minlength=CLAIMS.size) / MANY
    assert np.abs(seen - expected).max() < 4 * 0.5 / np.sqrt(MANY)
    assert drawn.probabilities == pytest.approx(expected[drawn.positions], rel=1e-6)


def test_half_of_the_rows_are_drawn_evenly_and_spread_so():
    drawn = draw(repeated(CLAIMS), repeated(CHAMPION), repeated(COUNTED), MANY, seeded())
    assert drawn.even.mean() == pytest.approx(0.5, abs=0.005)
    evenly = np.bincount(drawn.positions[drawn.even], minlength=6) / drawn.even.sum()
    assert evenly == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2, 0], abs=0.005)


def test_without_a_champion_every_row_is_drawn_evenly():
    assert draw(repeated(CLAIMS, 50), None, repeated(COUNTED, 50), 50).even.all()


def test_no_target_that_counts_has_less_than_half_of_its_even_share():
    rng = np.random.default_rng(1)
    claims = -rng.exponential(3, (500, 64)).astype(np.float32)
    champion = -rng.exponential(3, (500, 64)).astype(np.float32)
    drawn = draw(claims, champion, np.ones(claims.shape, bool), 500, seeded())
    assert (drawn.probabilities >= 0.5 / 64).all()


def test_targets_that_do_not_count_are_never_drawn():
    rng = np.random.default_rng(2)
    counted = rng.random((3000, 20)) < 0.2
    claims = -rng.exponential(3, counted.shape).astype(np.float32)
    for champion in (None, np.roll(claims, 1, axis=0)):
        drawn = draw(claims, champion, counted, 3000, seeded())
        some = counted.any(axis=1)
        assert counted[np.flatnonzero(some), drawn.positions[some]].all()
        assert (drawn.positions[~some] == -1).all()
        assert (drawn.probabilities[~some] == 0).all()
        assert drawn.rows.tolist() == np.flatnonzero(some).tolist()


@pytest.mark.parametrize("ticket", [0.0, 0.5 - 2**-54, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("length", [1, 2, 3, 17, 1000])
def test_the_ends_of_the_range_of_random_numbers_hit_targets_that_count(ticket, length):
    counted = np.zeros((1, length + 2), dtype=bool)
    counted[0, 1:-1] = True
    claims = np.full(counted.shape, -0.1, dtype=np.float32)
    for champion in (None, claims - np.float32(0.3)):
        drawn = draw(claims, champion, counted, 1, lambda count: np.full(count, ticket))
        assert counted[0, drawn.positions[0]]


def test_all_rows_have_a_position_though_only_some_are_audited():
    claims = np.full((1000, 8), -1.0, dtype=np.float32)
    drawn = draw(claims, None, np.ones(claims.shape, bool), 100, seeded())
    assert (drawn.positions >= 0).all()
    assert drawn.rows.size == 100
    assert (np.diff(drawn.rows) > 0).all()


def test_each_row_is_as_likely_to_be_audited_as_another():
    claims = np.full((10, 3), -1.0, dtype=np.float32)
    uniforms = seeded()
    seen = np.zeros(10)
    for _ in range(4000):
        seen[draw(claims, None, np.ones(claims.shape, bool), 3, uniforms).rows] += 1
    assert np.abs(seen / 4000 - 0.3).max() < 4 * np.sqrt(0.21 / 4000)


def test_results_do_not_depend_on_how_rows_fall_into_blocks(monkeypatch):
    rng = np.random.default_rng(3)
    claims = -rng.exponential(3, (301, 50)).astype(np.float32)
    champion = -rng.exponential(3, (301, 50)).astype(np.float32)
    counted = rng.random(claims.shape) < 0.9
    whole = draw(claims, champion, counted, 200, seeded())
    monkeypatch.setattr(module, "_BLOCK_CLAIMS", 350)
    parts = draw(claims, champion, counted, 200, seeded())
    assert (whole.positions == parts.positions).all()
    assert (whole.probabilities == parts.probabilities).all()
    assert (whole.rows == parts.rows).all()


def test_the_hugest_claims_that_the_judge_accepts_do_not_overflow():
    claims = np.array([[-3.4e38, 0.0, -1.0]], dtype=np.float32)
    champion = np.array([[0.0, -3.4e38, -3.4e38]], dtype=np.float32)
    drawn = draw(claims, champion, np.ones((1, 3), bool), 1)
    assert np.isfinite(drawn.probabilities).all()


def test_two_draws_by_the_system_differ():
    claims = np.full((64, 1000), -1.0, dtype=np.float32)
    first, second = (draw(claims, None, np.ones(claims.shape, bool), 64) for _ in range(2))
    assert (first.positions != second.positions).any()


def test_the_systems_numbers_are_uniform_with_53_bits():
    values = system_uniforms(100_000)
    assert values.dtype == np.float64
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.005)
    assert values.var() == pytest.approx(1 / 12, abs=0.002)
    assert (values * 2**53 == np.floor(values * 2**53)).all()
    assert (np.floor(values * 2**53) % 2).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("champion", "counted", "num_rows"),
    [
        (np.zeros((2, 4), np.float32), np.ones((2, 3), bool), 1),
        (None, np.ones((3, 2), bool), 1),
        (None, np.ones((2, 3), bool), 0),
        (None, np.zeros((2, 3), bool), 1),
    ],
    ids=["another champion", "another mask", "no rows", "nothing counts"],
)
def test_what_cannot_be_drawn_from_is_refused(champion, counted, num_rows):
    with pytest.raises(ValueError):
        draw(np.zeros((2, 3), np.float32), champion, counted, num_rows)
