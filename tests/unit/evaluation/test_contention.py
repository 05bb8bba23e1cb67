"""Use of a candidate's cores by other processes, and the clock of its processors."""

from __future__ import annotations

import threading

import pytest

from runner.evaluation.contention import CLOCK_SECONDS, FIRST_CLOCK_SECONDS, ClockMeter
from runner.sandbox import core_meter, host
from runner.sandbox.core_meter import CoreMeter


@pytest.fixture
def meter(monkeypatch):
    """A meter that has counted from `start` to `stop`, each (busy seconds, clock)."""

    def one(start, stop):
        busy, clock = (iter(pair) for pair in zip(start, stop, strict=True))
        monkeypatch.setattr(core_meter, "busy_seconds", lambda _: next(busy))
        monkeypatch.setattr(core_meter.time, "monotonic", lambda: next(clock))
        counted = CoreMeter((0,))
        counted.start()
        counted.stop()
        monkeypatch.undo()
        return counted

    return one


def test_busy_time_that_the_candidate_did_not_use_belongs_to_others(meter):
    assert meter((100.0, 0.0), (110.0, 10.0)).others(7.0, 10.0) == pytest.approx(3.0)


def test_a_candidate_that_sleeps_does_not_look_like_contention(meter):
    assert meter((100.0, 0.0), (101.0, 10.0)).others(1.0, 10.0) == 0


def test_a_suspended_controller_counts_only_the_time_of_the_training(meter):
    """Two seconds of training, metered for twenty, while others used the core all the time."""
    assert meter((100.0, 0.0), (120.0, 20.0)).others(2.0, 2.0) == pytest.approx(1.8)


def test_a_time_that_was_not_counted_is_unknown(meter):
    assert CoreMeter((0,)).others(1.0, 1.0) is None
    assert meter((0.0, 0.0), (1.0, 1.0)).others(None, 1.0) is None


def test_the_clock_of_a_training_is_the_mean_of_the_samples_before_its_end():
    """Sampled after two seconds and then every fifteen; a sample taken after the end does not count."""
    waited, clocks, done = [], iter((2000.0, None, 1000.0, 5.0)), threading.Event()

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 4:
            meter.stop()
        if len(waited) == 5:
            done.set()
        return len(waited) == 5

    def read():
        return next(clocks)

    meter = ClockMeter(read, wait)
    assert meter.mean_mhz() is None
    meter.start()
    assert done.wait(10)
    assert meter.mean_mhz() == 1500.0
    assert waited == [FIRST_CLOCK_SECONDS, *[CLOCK_SECONDS] * 4]


def test_a_short_training_has_no_clock():
    meter = ClockMeter(lambda: pytest.fail("read"))
    meter.start()
    meter.stop()
    assert meter.mean_mhz() is None


def test_the_clock_of_cores_comes_from_the_kernel(monkeypatch, tmp_path):
    text = "".join(f"processor\t: {core}\ncpu MHz\t\t: {1000.5 + core}\n\n" for core in range(4))
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(host, "Path", lambda _: tmp_path / "cpuinfo")
    assert host.clock_mhz((1, 3), None) == 1002.5
    assert host.clock_mhz((9,), None) is None
    (tmp_path / "cpuinfo").write_text("processor\t: many\n")
    assert host.clock_mhz((0,), None) is None


def test_the_clock_of_a_gpu_comes_from_the_driver(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = --id=GPU-1 ] && [ "$2" = --query-gpu=clocks.sm ] && echo 1980\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert host.clock_mhz((0,), "GPU-1") == 1980.0
    assert host.clock_mhz((0,), "GPU-2") is None, "nvidia-smi fails, and the measurement goes on"
    monkeypatch.setenv("PATH", "")
    assert host.clock_mhz((0,), "GPU-1") is None
