"""What the end of a container means for its trial, which failures are equal, and when they are given up."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from runner.config import load
from runner.decision.early_stopping import NUM_FRACTIONS
from runner.errors import EngineError, ImageError
from runner.evaluation import outcome
from runner.evaluation.outcome import (
    MAX_FAULTS,
    Failure,
    Faults,
    audit_failure,
    contention,
    scoring_failure,
    too_slow,
    training_failure,
)
from runner.records import Curve, Outcome, Phase, RunEnd, StopReason
from runner.sandbox.supervision import Reports, State, record
from tests.support.trials import CLEAN, run

CONFIG = load(Path("/nonexistent"), {"profile": "cpu", "cpus": 2, "max_disturbance": 0.1}, environ={})


@pytest.fixture
def strict(monkeypatch):
    """The controller's own limit: tests share their cores, and have another one."""
    monkeypatch.setattr(outcome, "BUSY_SHARE", 0.1)


def training(end=RunEnd.FINISHED, **fields):
    return run(Phase.TRAIN, end=end, **fields)


# ------------------------------------------------------------------- training


@pytest.mark.parametrize("end", [RunEnd.FINISHED, RunEnd.DEADLINE])
def test_a_training_that_came_to_its_end_is_scored(end):
    assert training_failure(training(end), CONFIG) is None


@pytest.mark.parametrize(
    ("ended", "outcome", "words"),
    [
        (training(RunEnd.FAILED, exit_code=1), Outcome.CRASH, "training exited with code 1"),
        (training(RunEnd.FAILED, exit_code=-9), Outcome.CRASH, "training died of signal 9"),
        (training(RunEnd.OUT_OF_MEMORY, exit_code=137), Outcome.CRASH, "training ran out of memory"),
        (training(RunEnd.STOPPED, exit_code=None), Outcome.STOPPED, "stopped early"),
        (training(RunEnd.STARTUP, exit_code=3), Outcome.LOST, "torch did not come up in the train container"),
        (training(RunEnd.LOST, exit_code=None), Outcome.LOST, "the train container was lost (exit code None)"),
    ],
    ids=lambda value: value.end if hasattr(value, "end") else "",
)
def test_a_training_that_failed_names_whose_fault_it_is(ended, outcome, words):
    failure = training_failure(ended, CONFIG)
    assert failure.outcome is outcome
    assert words in failure.reason


def test_every_end_of_a_training_is_classified():
    outcomes = {end: training_failure(training(end), CONFIG) for end in RunEnd}
    assert all(failure is not None for end, failure in outcomes.items() if end not in ("finished", "deadline"))


def test_memory_is_named_with_its_limit():
    failure = training_failure(training(RunEnd.OUT_OF_MEMORY), CONFIG)
    assert f"({CONFIG.memory_bytes / 2**30:.1f} GiB)" in failure.reason


def test_a_stop_gives_the_figures_that_it_rests_on():
    stop_reason = StopReason(fraction=0.45, loss=3.21, tip_loss=2.91, chance=0.004)
    curve = Curve(losses=(3.2,) * NUM_FRACTIONS, stop_reason=stop_reason)
    reason = training_failure(training(RunEnd.STOPPED, curve=curve), CONFIG).reason
    assert all(figure in reason for figure in ("45%", "3.210", "0.300", "0.4%"))


# ----------------------------------------------------------------- contention


def test_contention_is_the_share_of_the_cores_that_others_used():
    busy = training(wall_seconds=10.0, others_cpu_seconds=8.0)  # of 20 seconds on two cores
    failure = contention(busy, CONFIG)
    assert failure.outcome is Outcome.CONTENDED
    said = r"the machine is busy \(load \d+ on \d+ cores; other programs used 40% of the candidate's\)"
    assert re.fullmatch(said, failure.reason)
    assert contention(busy, CONFIG.model_copy(update={"max_disturbance": 0.4})) is None, "up to the limit"
    assert contention(busy, CONFIG.model_copy(update={"cpus": 8})) is None, "on eight cores it is 10 %"


def test_another_sign_of_disturbance_counts_unless_the_check_is_off():
    quiet = training(wall_seconds=10.0, others_cpu_seconds=0.0)
    assert contention(quiet, CONFIG, "the machine is slow") == Failure(Outcome.CONTENDED, "the machine is slow")
    off = CONFIG.model_copy(update={"max_disturbance": 1.0})
    assert contention(quiet, off, "the machine is slow") is None


@pytest.mark.parametrize("unknown", [{"others_cpu_seconds": None}, {"wall_seconds": None}, {"wall_seconds": 0.0}])
def test_contention_that_was_not_measured_is_none(unknown):
    assert contention(training(**{"wall_seconds": 10.0, "others_cpu_seconds": 20.0, **unknown}), CONFIG) is None


# -------------------------------------------------------------------- scoring


@pytest.mark.parametrize(("seconds", "limit", "slow"), [(5, 5, False), (5.1, 5, True), (5, None, False)])
def test_scoring_that_takes_longer_is_a_crash_that_names_both_figures(seconds, limit, slow):
    failure = too_slow(run(Phase.SCORE, wall_seconds=seconds), limit, CONFIG)
    assert (failure is not None) == slow
    if failure is not None:
        assert failure.outcome is Outcome.CRASH
        assert "took 5.1 s" in failure.reason
        assert "limit 5.0 s" in failure.reason


def test_time_that_other_programs_used_of_the_cores_is_not_held_against_scoring(strict):
    disturbed = run(Phase.SCORE, wall_seconds=9.0, others_cpu_seconds=8.5)
    many = CONFIG.model_copy(update={"cpus": 16})
    assert too_slow(disturbed, 5.0, CONFIG) is None
    assert too_slow(disturbed, 5.0, many).outcome is Outcome.CRASH
    assert too_slow(replace(disturbed, wall_seconds=None), 5.0, many) is None
    assert too_slow(disturbed, 4.0, CONFIG).outcome is Outcome.CONTENDED, "others do more than take turns"


@pytest.mark.parametrize(
    ("end", "exit_code", "outcome", "reason"),
    [
        (RunEnd.FAILED, 3, Outcome.CRASH, "no checkpoint was published"),
        (RunEnd.FAILED, 4, Outcome.CRASH, "workload.model.load could not load the checkpoint"),
        (RunEnd.FAILED, 5, Outcome.CRASH, "the forward pass failed or returned logits of a shape other than"),
        (RunEnd.FAILED, 77, Outcome.CRASH, "scoring ended with code 77"),
        (RunEnd.FAILED, None, Outcome.CRASH, "scoring ended with code None"),
        (RunEnd.DEADLINE, None, Outcome.CRASH, "scoring took longer than 1.0 s"),
        (RunEnd.OUT_OF_MEMORY, None, Outcome.CRASH, "scoring ran out of memory"),
        (RunEnd.FINISHED, 0, Outcome.INVALID, "scoring returned more than was requested"),
        (RunEnd.STARTUP, 3, Outcome.LOST, "the score container was lost"),
        (RunEnd.LOST, None, Outcome.LOST, "the score container was lost"),
    ],
)
def test_a_scorer_without_a_usable_answer_is_classified_by_its_end(end, exit_code, outcome, reason):
    failure = scoring_failure(run(Phase.SCORE, end=end, exit_code=exit_code), training(), CONFIG)
    assert failure.outcome is outcome
    assert failure.reason.startswith(reason)


@pytest.mark.parametrize(("others", "expected"), [(0.15, Outcome.CRASH), (0.3, Outcome.CONTENDED)])
def test_a_missed_time_limit_on_a_busy_machine_says_nothing_about_the_program(strict, others, expected):
    late = run(Phase.SCORE, end=RunEnd.DEADLINE, wall_seconds=1.0, others_cpu_seconds=others)
    assert scoring_failure(late, training(), CONFIG).outcome is expected
    audited = audit_failure(replace(late, phase=Phase.AUDIT), CONFIG)
    assert audited.outcome is (Outcome.INVALID if expected is Outcome.CRASH else expected)
    assert ("the machine is busy" in audited.reason) is (expected is Outcome.CONTENDED)

    without = run(Phase.SCORE, end=RunEnd.FAILED, exit_code=3)
    cut = training(RunEnd.DEADLINE, wall_seconds=1.0, others_cpu_seconds=others)
    assert scoring_failure(without, cut, CONFIG).outcome is expected, "it had no time for a checkpoint"
    assert scoring_failure(without, replace(cut, end=RunEnd.FINISHED), CONFIG).outcome is Outcome.CRASH


# ---------------------------------------------------------------------- audit


def test_claims_that_an_audit_confirms_count():
    assert audit_failure(run(Phase.AUDIT, audit=CLEAN), CONFIG) is None


def test_claims_that_an_audit_refutes_are_invalid():
    refuted = run(Phase.AUDIT, audit=replace(CLEAN, finding="not_causal", reason="the future shows"))
    assert audit_failure(refuted, CONFIG) == Failure(Outcome.INVALID, "refused by the audit: the future shows")


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (RunEnd.FAILED, "the audit ended with code 7"),
        (RunEnd.DEADLINE, "the audit took longer than 1.0 s"),
        (RunEnd.OUT_OF_MEMORY, "the audit ran out of memory"),
        (RunEnd.FINISHED, "the audit returned more than was requested"),
    ],
)
def test_claims_that_cannot_be_audited_are_not_kept(end, words):
    failure = audit_failure(run(Phase.AUDIT, end=end, exit_code=7), CONFIG)
    assert failure == Failure(Outcome.INVALID, f"could not be audited: {words}")


@pytest.mark.parametrize("end", [RunEnd.LOST, RunEnd.STARTUP])
def test_an_audit_that_the_infrastructure_fails_is_lost(end):
    assert audit_failure(run(Phase.AUDIT, end=end), CONFIG) == Failure(
        Outcome.LOST, "the audit container was lost"
    )


# --------------------------------------------------------------------- faults


def test_failures_that_differ_only_in_ids_and_numbers_are_the_same():
    one = ImageError("no space for sha256:d0a20db83a06a456 after 13 s")
    another = ImageError("no space for sha256:ffa20db83a06a457 after 2 s")
    assert one.fault == another.fault


def test_failures_of_different_kinds_are_different():
    assert EngineError("creating the train container").fault != EngineError("creating the score container").fault
    assert EngineError("same words", fault="one").fault != EngineError("same words", fault="two").fault


def test_the_second_equal_failure_ends_an_experiment_and_the_first_does_not():
    faults = Faults()
    assert faults.add("the engine went away") is None
    assert faults.add("the engine went away") == "quarantined after two equal failures"


def test_different_failures_are_limited_in_number():
    faults = Faults()
    assert [faults.add(f"fault {letter}") for letter in "abc"][:-1] == [None] * (MAX_FAULTS - 1)
    assert "quarantined after 3 failures" in Faults(seen=["a", "b"]).add("c")


def reports(*lines):
    one = Reports()
    one.feed("".join(f"{line}\n" for line in lines).encode())
    return one


@pytest.mark.parametrize(
    ("said", "killed", "end"),
    [
        (
            ('{"event": "ending", "code": 40}',),
            True,
            RunEnd.DEADLINE,
        ),  # on time, but its children died slowly
        ((), True, RunEnd.LOST),  # silent: frozen from the outside
        (('{"event": "ending", "code": 0}',), True, RunEnd.LOST),  # its answer did not arrive
        ((), False, RunEnd.LOST),  # killed by someone else
        (('{"event": "ended", "code": 40, "status": null}',), True, RunEnd.DEADLINE),  # the kill came too late
    ],
)
def test_a_kill_by_the_host_is_a_deadline_only_if_pid_1_was_on_time(said, killed, end):
    made = record(Phase.TRAIN, 1, State(exit_code=137, killed=killed), reports(*said))
    assert made.end is end


def test_an_end_is_out_of_memory_only_if_the_host_did_not_kill():
    state = State(exit_code=137, out_of_memory=True)
    assert record(Phase.TRAIN, 1, state, reports()).end is RunEnd.OUT_OF_MEMORY
    assert record(Phase.TRAIN, 1, state._replace(killed=True), reports()).end is RunEnd.LOST
