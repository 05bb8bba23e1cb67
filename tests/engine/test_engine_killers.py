"""Either of the two that end a run does it alone: PID 1, and the host's thread with its own connection."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from runner.errors import EngineError
from runner.records import RunEnd
from runner.sandbox import connect
from runner.sandbox.engine import LABEL
from runner.sandbox.kernel_limits import limit_files
from runner.sandbox.supervision import GRACE_SECONDS, Clock, Killer
from tests.support.faulty_engine import Fault

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

DEADLINE = 3.0  # train_seconds of the test configuration
ENDLESS = """
from workload.checkpoint import publish
publish(lambda path: path.write_bytes(b"weights"))
while True: pass
"""


def training_container(engine, owner):
    labels = [f"{LABEL}controller={owner.controller}", f"{LABEL}kind=train"]
    (found,) = engine.client.api.containers(filters={"label": labels})
    return found["Id"]


def through(opened, engine):
    """The same session behind another connection."""
    return replace(opened, sandbox=replace(opened.sandbox, engine=engine))


def test_a_stopped_pid_1_is_ended_by_the_host_alone_and_the_candidate_is_not_blamed(
    session, engine, owner, faulty
):
    began = []

    def stop():
        began.append(time.monotonic())
        pid = engine.client.api.inspect_container(training_container(engine, owner))["State"]["Pid"]
        os.kill(pid, signal.SIGSTOP)

    with session({"train.py": ENDLESS}) as opened:
        behind = through(opened, connect(faulty.url, quick_seconds=1.0))
        faulty.fail("POST .*/kill", Fault.ERROR, Fault.HANG, Fault.GARBAGE)
        run = behind.train(seed=1, on_start=stop)
        seconds = time.monotonic() - began[0]
        behind.sandbox.engine.client.close()
    assert faulty.pending == []
    assert run.end is RunEnd.LOST, "infrastructure: nothing inside can stop PID 1"
    assert run.wall_seconds is None
    assert seconds < DEADLINE + GRACE_SECONDS + 12, "the kill failed three times, and was tried again"


def test_a_run_that_pid_1_ends_needs_no_kill(session, faulty):
    with session({"train.py": ENDLESS}) as opened:
        behind = through(opened, connect(faulty.url))
        run = behind.train(seed=1)
        behind.sandbox.engine.client.close()
    assert run.end is RunEnd.DEADLINE
    assert not [line for line in faulty.requests if "/kill" in line]


def test_a_paused_training_is_reported_as_such_and_leaves_nothing(session, engine, owner):
    with session({"train.py": ENDLESS}) as opened, pytest.raises(EngineError, match="paused by another program"):
        opened.train(seed=1, on_start=lambda: engine.client.api.pause(training_container(engine, owner)))


def test_a_training_that_is_frozen_behind_the_engine_is_as_good_as_paused(session, engine, owner):
    def freeze():
        container = training_container(engine, owner)
        process = engine.client.api.inspect_container(container)["State"]["Pid"]
        files = limit_files(process, container)
        if "freezer.state" in files:
            files["freezer.state"].write_text("FROZEN")
        else:
            files["cgroup.events"].with_name("cgroup.freeze").write_text("1")
        assert not engine.client.api.inspect_container(container)["State"]["Paused"]

    with session({"train.py": ENDLESS}) as opened, pytest.raises(EngineError, match="paused by another program"):
        opened.train(seed=1, on_start=freeze)


def test_the_host_ends_a_paused_container(session, engine):
    with session({}) as opened:
        opened.scorer.await_ready()
        container = opened.scorer.container_id
        engine.client.api.pause(container)
        started = threading.Event()
        started.set()
        killer = Killer(engine, container)
        clock = Clock(started=started, startup_seconds=0.0, limit_seconds=0.0)
        thread = threading.Thread(target=killer.watch, args=(clock,))
        thread.start()
        assert engine.client.api.wait(container, timeout=20)["StatusCode"] == 137
        killer.cancelled.set()
        thread.join(10)
    assert killer.fired
