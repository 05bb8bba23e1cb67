"""Signals, kills and stops of the controller at any step: it leaves in order, the next start ends the night."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runner.storage.lock import is_running
from tests.support.host_night import TRAINING

CLEANING = ("orphans_removed", "before", 1)
"""A gate in the clean-up of a night that is killed."""


def goes_on(night, whole):
    """The same command ends the night as if nothing had been."""
    ended = night.run()
    assert ended.code == 0, ended.errors
    assert night.final_state() == whole


def killed_in_order(night, ended):
    """It left by itself, with one line for people, and the lock is free."""
    assert ended.code == 130, ended
    assert "Traceback" not in ended.errors, ended.errors
    assert ended.errors.endswith("interrupted; nothing is lost, run the same command to resume\n")
    assert not is_running(night.state)


def test_one_ctrl_c_finishes_the_experiment(night, whole):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.send(signal.SIGINT)
    process.await_error("finishing this run")
    process.open_gate()
    ended = process.end()
    assert ended.code == 0
    assert "stopped by hand" in ended.output
    assert [row["verdict"] for row in night.rows("experiments")] == ["keep", "discard", "accept"]
    goes_on(night, whole)


def test_two_ctrl_c_kill_it_and_more_of_them_do_not_disturb_the_clean_up(night, whole):
    process = night.start(gates=[TRAINING, CLEANING])
    process.at_gate()
    process.send(signal.SIGINT)
    process.await_error("Ctrl-C again")
    process.send(signal.SIGINT)
    process.at_gate()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send(number)
    process.open_gate()
    killed_in_order(night, process.end())
    assert night.rows("experiments")[2]["verdict"] is None
    goes_on(night, whole)


def test_a_ctrl_c_after_the_clean_up_is_no_traceback(night, whole):
    """Until the process is gone: nothing lies between the end of the night and the end of the process."""
    process = night.start(gates=[TRAINING, ("leaving", "before", 1)])
    process.at_gate()
    process.send(signal.SIGTERM)
    process.at_gate()
    process.send(signal.SIGINT)
    process.open_gate()
    killed_in_order(night, process.end())
    goes_on(night, whole)


STEPS = [
    ("answer_kept", "after", 2),
    ("experiment_opened", "before", 3),
    ("objects_written", "after", 3),
    ("candidate_named", "before", 3),
    ("claims_committed", "after", 4),
    ("trial_closed", "before", 4),
    ("audit_rows_written", "after", 5),
    ("file_replaced", "before", 3),
    ("score_sealed", "after", 3),
    ("experiment_closed", "before", 3),
    ("branch_advanced", "after", 2),
    ("tip_moved", "before", 3),
]
"""Of experiment 2, an idea, or of 3, its certificate."""
CERTIFYING = ("file_replaced", "score_sealed", "branch_advanced", "tip_moved")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
def test_sigterm_in_any_step_is_an_orderly_end(night, whole, step):
    process = night.start(gates=[step])
    process.at_gate()
    begun = 3 - (step[0] in ("answer_kept", "experiment_opened")) + (step[0] in CERTIFYING)
    assert len(night.rows("experiments")) == begun
    process.send(signal.SIGTERM)
    killed_in_order(night, process.end())
    goes_on(night, whole)


def test_sighup_kills_it_and_nohup_lets_it_live(night, whole):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.send(signal.SIGHUP)
    killed_in_order(night, process.end())
    process = night.start(gates=[("trial_opened", "after", 1)], nohup=True)
    process.at_gate()
    process.send(signal.SIGHUP)
    process.open_gate()
    assert process.end().code == 0
    assert night.final_state() == whole


def test_a_killed_process_group_leaves_nothing_that_hinders_the_next_start(night, whole):
    """A git command of ours is under way: it has a session of its own, and lives on."""
    hung_git(night)
    process = night.start()
    child = int(wait_for_line(night.folder / "git-runs"))
    assert os.getsid(child) != os.getsid(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.end().code == -signal.SIGKILL
    held = [os.readlink(path) for path in descriptors(child)]
    assert not any("controller.lock" in name or "ledger.db" in name for name in held), held
    assert not is_running(night.state)
    night.environment.clear()
    goes_on(night, whole)
    os.kill(child, signal.SIGKILL)


def hung_git(night):
    """A `git` that writes down its process id when it is to name a candidate, and does not end."""
    fifo = night.folder / "git-runs"
    os.mkfifo(fifo)
    folder = night.folder / "bin"
    folder.mkdir()
    hang = f'case "$*" in *update-ref*) echo $$ > {fifo}; exec sleep 1000;; esac'
    (folder / "git").write_text(f'#!/bin/sh\n{hang}\nexec {git_program()} "$@"\n')
    (folder / "git").chmod(0o755)
    night.environment["PATH"] = f"{folder}:{os.environ['PATH']}"


def git_program():
    return next(path for one in os.get_exec_path() if (path := Path(one) / "git").exists())


def wait_for_line(fifo):
    with fifo.open() as stream:
        return stream.readline()


def descriptors(pid):
    """Every open file of a process."""
    return list(Path(f"/proc/{pid}/fd").iterdir())


def test_a_second_controller_is_refused_and_a_dead_one_is_no_obstacle(night, whole):
    first = night.start(gates=[TRAINING])
    first.at_gate()
    second = night.run()
    assert second.code == 1
    assert f"process {first.pid}" in second.told()
    assert '"running": true' in night.run("status", "--json").output
    first.stop()
    assert first.end().code == -signal.SIGKILL
    assert (night.state / "controller.lock").read_text() == str(first.pid), "a stale lock file"
    assert '"running": false' in night.run("status", "--json").output
    goes_on(night, whole)


def test_a_controller_that_was_stopped_for_a_while_goes_on(night, whole):
    """Ctrl-Z, or a laptop's lid. What containers do meanwhile is in `tests/engine/test_cli.py`."""
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.send(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()
    process.open_gate()
    assert night.rows("experiments")[2]["verdict"] is None
    process.send(signal.SIGCONT)
    assert process.end().code == 0
    assert night.final_state() == whole
