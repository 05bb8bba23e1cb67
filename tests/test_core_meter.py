"""What others used of a candidate's cores."""

from __future__ import annotations

import pytest

from runner import laboratory
from runner.laboratory import CoreMeter


@pytest.fixture
def meter(monkeypatch):
    """Counts from the given start and stop: (busy seconds, clock)."""

    def one(start, stop):
        busy, clock = (iter(pair) for pair in zip(start, stop, strict=True))
        monkeypatch.setattr(laboratory, "busy_seconds", lambda _: next(busy))
        monkeypatch.setattr(laboratory.time, "monotonic", lambda: next(clock))
        counted = CoreMeter((0,))
        counted.start()
        counted.stop()
        monkeypatch.undo()
        return counted

    return one


def test_what_a_candidate_did_not_use_was_used_by_others(meter):
    assert meter((100.0, 0.0), (110.0, 10.0)).others(7.0, 10.0) == pytest.approx(3.0)


def test_a_candidate_that_sleeps_disturbs_nobody(meter):
    assert meter((100.0, 0.0), (101.0, 10.0)).others(1.0, 10.0) == 0


def test_a_controller_that_was_suspended_counts_the_time_of_the_training_only(meter):
    """Two seconds of training, counted for twenty, in which others used the core all the time."""
    assert meter((100.0, 0.0), (120.0, 20.0)).others(2.0, 2.0) == pytest.approx(1.8)


def test_what_nobody_counted_is_unknown(meter):
    assert CoreMeter((0,)).others(1.0, 1.0) is None
    assert meter((0.0, 0.0), (1.0, 1.0)).others(None, 1.0) is None
