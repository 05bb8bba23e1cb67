"""Who watches a night may close its streams, stop reading, or leave: the night goes on and is written down."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from runner.storage.lock import is_running
from tests.support.host_night import ROOT, TRAINING

TAIL = ("campaign_over", "before", 1)
"""A gate when the night has let go of its lock, and only words are left."""


def ends_whole(night, whole, ended):
    assert ended.code == 0, ended
    assert "Traceback" not in ended.errors
    assert night.final_state() == whole


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_not_matter(night, whole, closed):
    """And no other file gets their numbers: text for people would be written into it."""
    process = night.start(gates=[TRAINING], shell=closed)
    process.at_gate()
    opened = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)}
    assert all("repository" not in name and "socket" not in name for name in opened.values()), opened
    process.open_gate()
    ends_whole(night, whole, process.end())
    assert (night.state / "controller.lock").read_text() == str(process.pid)


def test_no_file_gets_the_number_of_a_closed_stream():
    code = (
        "import os; from runner.cli.output import hold_standard_streams; os.close(1); os.close(2);"
        "hold_standard_streams(); os._exit(os.open('/dev/zero', os.O_RDONLY))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode > 2


def test_a_reader_who_leaves_does_not_end_the_night(night, whole):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.leave()
    process.open_gate()
    ends_whole(night, whole, process.end())


@contextmanager
def full_pipe():
    """A pipe without room, and a function that empties it until its writers are gone."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    flags = fcntl.fcntl(writing, fcntl.F_GETFL)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    os.write(writing, b"x" * 4096)
    fcntl.fcntl(writing, fcntl.F_SETFL, flags)

    def drain():
        os.close(writing)
        with os.fdopen(reading, "rb", closefd=False) as stream:
            return stream.read().decode()

    yield writing, drain
    os.close(reading)


def test_a_full_stderr_that_nobody_reads_holds_up_nothing(night, whole):
    with full_pipe() as (writing, drain):
        ended = night.run(stderr=writing)
        ends_whole(night, whole, ended)
        assert "experiments done" in ended.output
        drain()


def test_a_full_stdout_that_nobody_reads_holds_up_words_alone(night, whole):
    """The night itself is over: written down, its lock free for the next one."""
    with full_pipe() as (writing, drain):
        process = night.start(stdout=writing, gates=[TAIL])
        process.at_gate()
        assert night.final_state() == whole
        assert night.run("status", "--json").output.startswith("{")
        process.open_gate()
        assert "experiments done" in drain()
        assert process.end().code == 0


def test_a_full_stderr_does_not_hold_up_a_kill(night, whole):
    """Neither the answer to the first Ctrl-C nor the last words can be written."""
    with full_pipe() as (writing, drain):
        process = night.start(stderr=writing, gates=[TRAINING])
        process.at_gate()
        process.send(signal.SIGINT)
        process.send(signal.SIGTERM)
        assert process.end().code == 130
        drain()
    assert not is_running(night.state)
    ends_whole(night, whole, night.run())


class Terminal:
    """A pseudo-terminal with a person who reads it, types, and may leave."""

    def __init__(self):
        self.master, self.slave = os.openpty()
        self.streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.slave)
        self.text = b""
        self.left = threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def type(self, keys):
        """Press keys."""
        os.write(self.master, keys)

    def leave(self):
        """Close the window: who sits in it gets SIGHUP, and every later word an error."""
        self.left.set()
        self.reader.join()
        for descriptor in (self.slave, self.master):
            os.close(descriptor)

    def _read(self):
        while not self.left.is_set():
            if select.select([self.master], [], [], 0.05)[0]:
                self.text += os.read(self.master, 65536)


@pytest.fixture
def terminal():
    one = Terminal()
    yield one
    if not one.left.is_set():
        one.leave()


def test_a_terminal_shows_the_night(night, whole, terminal):
    ends_whole(night, whole, night.run(**terminal.streams))
    assert b"experiments done" in terminal.text
    assert b"\x1b[" in terminal.text


def test_a_terminal_that_is_closed_kills_the_night_in_order(night, whole, terminal):
    process = night.start(gates=[TRAINING], **terminal.streams)
    process.at_gate()
    terminal.leave()
    assert process.end().code == 130
    assert not is_running(night.state)
    ends_whole(night, whole, night.run())


def test_a_night_under_nohup_survives_its_terminal(night, whole, terminal):
    process = night.start(gates=[TRAINING], nohup=True, **terminal.streams)
    process.at_gate()
    terminal.leave()
    process.open_gate()
    process.end()  # its last words have nowhere to go
    assert night.final_state() == whole


def test_a_terminal_stopped_by_ctrl_s_holds_up_words_alone(night, whole, terminal):
    process = night.start(gates=[TRAINING, TAIL], **terminal.streams)
    process.at_gate()
    terminal.type(b"\x13")
    process.open_gate()
    process.at_gate()
    assert night.final_state() == whole
    process.open_gate()
    terminal.type(b"\x11")
    assert process.end().code == 0
    assert b"3 of 3 experiments done" in terminal.text
