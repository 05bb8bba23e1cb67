"""Use of a candidate's cores and GPU by others, the clock of its processors, and the speed of a control."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from runner.evaluation.contention import (
    CLOCK_SECONDS,
    FIRST_CLOCK_SECONDS,
    ProcessorMeter,
    Reading,
    gpu_disturbance,
    slower,
    usual_speed,
)
from runner.records import Experiment, Outcome, Phase
from runner.sandbox import core_meter, host
from runner.sandbox.core_meter import CoreMeter
from runner.sandbox.gpu_state import GpuState
from tests.support.trials import run, scored


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


# What is sampled


def sampled(*readings):
    """A meter that has read these, and one more after its training had ended."""
    waited, states, done = (
        [],
        iter((*readings, Reading(clock_mhz=5.0, disturbance="after the end"))),
        threading.Event(),
    )

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == len(readings) + 1:
            meter.stop()
        if len(waited) == len(readings) + 2:
            done.set()
        return len(waited) == len(readings) + 2

    meter = ProcessorMeter(lambda: next(states), wait)
    assert meter.mean_mhz() is None and meter.disturbance(0.0) is None
    meter.start()
    assert done.wait(10)
    assert waited == [FIRST_CLOCK_SECONDS, *[CLOCK_SECONDS] * (len(readings) + 1)]
    return meter


def test_the_clock_of_a_training_is_the_mean_of_the_samples_before_its_end():
    """Sampled after two seconds and then every fifteen; a sample taken after the end does not count."""
    meter = sampled(*(Reading(clock_mhz=mhz) for mhz in (2000.0, None, 1000.0)))
    assert meter.mean_mhz() == 1500.0 and meter.disturbance(0.0) is None


def test_a_gpu_is_disturbed_by_its_share_of_the_samples():
    others, hot = (Reading(clock_mhz=1.0, disturbance=word) for word in ("others", "hot"))
    meter = sampled(others, Reading(clock_mhz=1.0), others, hot)
    assert meter.disturbance(0.75) is None, "up to the limit"
    assert meter.disturbance(0.5) == "the GPU was disturbed for 75% of the training: others"


def test_a_short_training_has_no_clock():
    meter = ProcessorMeter(lambda: pytest.fail("read"))
    meter.start()
    meter.stop()
    assert meter.mean_mhz() is None and meter.disturbance(0.0) is None


def test_the_clock_of_cores_comes_from_the_kernel(monkeypatch, tmp_path):
    text = "".join(f"processor\t: {core}\ncpu MHz\t\t: {1000.5 + core}\n\n" for core in range(4))
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(host, "Path", lambda _: tmp_path / "cpuinfo")
    assert host.cores_mhz((1, 3)) == 1002.5
    assert host.cores_mhz((9,)) is None
    (tmp_path / "cpuinfo").write_text("processor\t: many\n")
    assert host.cores_mhz((0,)) is None


# What a reading of a GPU means


def state(**fields):
    return GpuState(**{"clock_mhz": 1980.0, "power_limit_watts": 700.0, "slowdown": None, "others": 0, **fields})


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (state(), None),
        (state(others=1), "1 other program computes on it"),
        (state(others=2, slowdown="its temperature"), "2 other programs compute on it"),
        (state(slowdown="its temperature"), "its temperature holds its clock down"),
        (state(power_limit_watts=400.0), "its power limit is 400 W, down from 700 W"),
        (state(power_limit_watts=None), None),
    ],
)
def test_a_disturbance_of_a_gpu_is_named(seen, words):
    assert gpu_disturbance(seen, 700.0) == words
    assert words is None or seen.power_limit_watts == 700.0 or gpu_disturbance(seen, None) is None


# A control's own throughput


def trained(speed, outcome=Outcome.SCORED):
    line = "step 9 loss 3.0" + ("" if speed is None else f" tokens/s {speed}")
    return replace(scored(2.0), outcome=outcome, runs=(run(Phase.TRAIN, log_tail=f"begin\n{line}"),))


def test_a_control_far_below_the_usual_speed_of_its_program_is_slow():
    first = trained(1000)
    others = (trained(1010), trained(990), trained(500, Outcome.CONTENDED), trained(None))
    program = Experiment(number=0, hypothesis="h", proposer="p", verdict=None, trials=(first,))
    assert usual_speed(program) is None, "one trial may have been the disturbed one"
    usual = usual_speed(replace(program, control_trials=others))
    assert usual == 1000
    assert slower(trained(899).training, usual) == (
        "the machine is slow: 899 tokens/s, 90% of this program's usual speed"
    )
    for quiet in (trained(900), trained(5000), trained(None)):
        assert slower(quiet.training, usual) is None
    assert slower(trained(1).training, None) is None, "nothing to compare with"
