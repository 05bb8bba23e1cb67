"""A training that the host gave up: how its end is recorded."""

from __future__ import annotations

import pytest

from runner.records import Phase, RunEnd
from runner.sandbox.supervision import GivenUp, Reports, State, record


def ended(*lines, exit_code=137, out_of_memory=False, killed=False, given_up=True):
    """Record of a training that PID 1 reported on with these lines."""
    reports = Reports()
    reports.feed("".join(f"{line}\n" for line in lines).encode())
    known = GivenUp(wall_seconds=5.0, cpu_seconds=4.0) if given_up else None
    return record(Phase.TRAIN, 1, State(exit_code, out_of_memory, killed), reports, "log", known)


def test_a_run_that_the_host_gave_up_is_stopped_with_the_times_that_the_host_knows():
    run = ended('{"event": "started"}')
    assert (run.end, run.wall_seconds, run.cpu_seconds, run.log_tail) == (RunEnd.STOPPED, 5.0, 4.0, "log")
    assert ended(out_of_memory=True).end is RunEnd.STOPPED


@pytest.mark.parametrize(
    ("run", "end"),
    [
        (lambda: ended('{"event": "ended", "code": 40}', exit_code=40), RunEnd.DEADLINE),
        (lambda: ended('{"event": "ended", "code": 0, "status": 0}', exit_code=0), RunEnd.FINISHED),
        (lambda: ended('{"event": "ended", "code": 41, "status": 1}', exit_code=41), RunEnd.FAILED),
        (lambda: ended(killed=True), RunEnd.LOST),
        (lambda: ended(given_up=False), RunEnd.LOST),
        (lambda: ended(exit_code=1), RunEnd.LOST),
    ],
    ids=["at its deadline", "finished", "failed", "killed at its deadline", "killed by others", "otherwise"],
)
def test_a_run_that_ended_by_itself_just_before_is_what_it_is(run, end):
    assert run().end is end
