"""Infrastructure failures: which count as equal, when they end an experiment, and whose fault an end is."""

from __future__ import annotations

import pytest

from runner.errors import EngineError, ImageError
from runner.evaluation.outcome import MAX_FAULTS, Faults
from runner.records import Phase, RunEnd
from runner.sandbox.supervision import Reports, State, record


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
