"""One controller per state folder."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import contextmanager

import pytest

from runner.errors import LedgerError
from runner.storage import lock
from runner.storage.lock import exclusive, is_running


def _hold(folder, pipe):
    with exclusive(folder):
        pipe.send(os.getpid())
        signal.pause()


def _hold_and_fork(folder, pipe):
    with exclusive(folder):
        if os.fork() == 0:
            pipe.recv()
            os._exit(0)
        pipe.send(os.getpid())
        signal.pause()


@contextmanager
def holder(hold, folder):
    """A process that holds the lock; its id, and the pipe to it. At the end it is dead."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(folder, theirs))
    process.start()
    yield ours.recv(), ours
    process.kill()
    process.join()
    process.close()


def test_a_lock_that_a_child_of_a_killed_controller_has_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    with holder(_hold_and_fork, tmp_path) as (_, pipe):
        pass
    waits = []

    def wait(seconds):
        if not waits:
            pipe.send("go on")
        waits.append(seconds)

    monkeypatch.setattr(lock.time, "sleep", wait)
    with exclusive(tmp_path):
        assert waits


def test_a_second_controller_is_refused_and_the_first_one_is_named_until_it_dies(tmp_path):
    with holder(_hold, tmp_path) as (pid, _):
        assert is_running(tmp_path)
        with pytest.raises(LedgerError, match=f"process {pid}"), exclusive(tmp_path):
            pass
    with exclusive(tmp_path):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
