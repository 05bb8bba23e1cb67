"""One controller per state folder."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from runner.errors import LedgerError
from runner.storage.lock import exclusive, is_running


def _hold(folder, pipe):
    with exclusive(folder):
        pipe.send(os.getpid())
        signal.pause()


def test_a_second_controller_is_refused_and_the_first_one_is_named_until_it_dies(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(tmp_path, theirs))
    holder.start()
    pid = ours.recv()
    assert is_running(tmp_path)
    with pytest.raises(LedgerError, match=f"process {pid}"), exclusive(tmp_path):
        pass
    os.kill(pid, signal.SIGKILL)
    holder.join()
    holder.close()
    with exclusive(tmp_path):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
