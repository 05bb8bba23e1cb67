"""A stopped process goes on: when the block ends, when its time is over, when the one that stopped it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.sandbox.doctor import daemon
from runner.sandbox.engine import LABEL, Engine

ROOT = Path(__file__).resolve().parents[3]
ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
STOPPER = """
import sys, time
from runner.sandbox.doctor.daemon import paused
with paused(int(sys.argv[1]), 60):
    print("stopped", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def echo():
    """A process that answers every line: one that answers is not stopped."""
    with subprocess.Popen([sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def ask(process):
    process.stdin.write(b"there?\n")
    process.stdin.flush()


def answers(process):
    """Wait for the answer to one question; a process that stays stopped runs into the test's time limit."""
    return process.stdout.readline() == b"there?\n"


def state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_process_is_stopped_within_the_block_and_goes_on_after_it(echo):
    with daemon.paused(echo.pid, 60):
        assert state(echo) == "T"
        ask(echo)
    assert answers(echo)


def test_an_error_in_the_block_does_not_leave_it_stopped(echo):
    with pytest.raises(KeyboardInterrupt), daemon.paused(echo.pid, 60):
        raise KeyboardInterrupt
    ask(echo)
    assert answers(echo)


def test_it_goes_on_when_its_time_is_over_although_the_block_has_not_ended(echo):
    with daemon.paused(echo.pid, 0.2):
        ask(echo)
        assert answers(echo)


def test_it_goes_on_when_the_one_that_stopped_it_is_killed(echo):
    with subprocess.Popen(
        [sys.executable, "-c", STOPPER, str(echo.pid)], cwd=ROOT, stdout=subprocess.PIPE
    ) as stopper:
        assert stopper.stdout.readline() == b"stopped\n"
        assert state(echo) == "T"
        stopper.kill()
    ask(echo)
    assert answers(echo)


def test_a_process_that_is_gone_is_an_error():
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(ProcessLookupError), daemon.paused(gone.pid, 1):
        pass


def test_the_end_of_a_process_is_seen_and_its_going_on_as_well(echo):
    handle = os.pidfd_open(echo.pid)
    try:
        assert daemon.await_end(handle, time.monotonic() + 0.05) is None
        echo.send_signal(signal.SIGKILL)
        assert daemon.await_end(handle, time.monotonic() + 60) is not None
    finally:
        os.close(handle)


def listening(path, name):
    """A server process whose name is `name`, and an engine that it would be."""
    code = (
        "import ctypes, socket, sys\n"
        "ctypes.CDLL(None).prctl(15, sys.argv[2].encode())\n"
        "server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen()\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process, Engine(url=f"unix://{path}", daemon_id="x", version="x", client=None)


@pytest.mark.parametrize(("name", "found"), [("dockerd", True), ("podman", False), ("dockerd-proxy", False)])
def test_the_daemon_is_whoever_listens_if_it_has_that_name(name, found, tmp_path):
    process, engine = listening(tmp_path / "engine.sock", name)
    with process:
        assert daemon.find_daemon(engine) == (process.pid if found else None)
        process.stdin.close()


def test_without_a_listener_there_is_no_daemon(tmp_path):
    assert daemon.find_daemon(Engine(url=f"unix://{tmp_path}/x", daemon_id="x", version="x", client=None)) is None


def test_containers_of_other_controllers_are_distinguished_from_ours_and_from_strangers():
    ours, theirs, stranger = {f"{LABEL}controller": "a"}, {f"{LABEL}controller": "b"}, {"com.example": "c"}
    assert daemon.count_others([ours, ours], "a") == (0, 0)
    assert daemon.count_others([ours, stranger], "a") == (1, 0)
    assert daemon.count_others([ours, theirs, theirs, stranger], "a") == (3, 2)
