"""What a user or the system sends to a command: Ctrl-C, a hang-up, a suspension, a second controller."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from runner.records import Verdict
from runner.sandbox.supervision import GRACE_SECONDS
from tests.support.typed_night import TRAIN, write_patches

pytestmark = pytest.mark.docker


def test_ctrl_c_finishes_the_experiment_and_twice_kills_it_now(measured_clone, engine, tmp_path):
    patches = write_patches(tmp_path / "patches")
    process = measured_clone.start("overnight", "--from", patches, "--experiments", "2")
    measured_clone.wait_for_open_trial(1, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "stopped by hand" in output
    assert [row.verdict for row in measured_clone.experiments()] == [Verdict.KEEP, Verdict.ACCEPT]

    process = measured_clone.start("overnight", "--from", patches)
    measured_clone.wait_for_open_trial(2, process)
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "Ctrl-C again" in line:  # the first one has arrived: two at once would be delivered as one
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert measured_clone.containers(engine) == []
    assert measured_clone.experiments()[2].verdict is None


def test_a_hangup_and_whatever_follows_it_leave_no_container(clone, engine):
    process = clone.start("baseline")
    clone.wait_for_open_trial(0, process)
    process.send_signal(signal.SIGHUP)
    while process.poll() is None:  # in the clean-up, and after it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert clone.containers(engine) == []
    assert clone.experiments()[0].verdict is None


LIMIT_SECONDS = 3
"""Of a training that takes two."""


def test_a_controller_that_is_suspended_beyond_a_deadline_misjudges_nothing(clone, engine):
    """PID 1 keeps the time meanwhile; the host's own deadline, which is over at once, takes nothing for late."""
    train = clone.root / "workload" / "train.py"
    train.write_text(TRAIN.replace("PAUSE_SECONDS = 0.5", "PAUSE_SECONDS = 2.0"))
    clone.commit("slower")
    process = clone.start("baseline", "--json", AUTORESEARCH_TRAIN_SECONDS=str(LIMIT_SECONDS))
    container = clone.wait_for_training(engine, process)
    began = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    engine.client.api.wait(container, timeout=60)  # it ends by itself
    time.sleep(
        max(0.0, began + LIMIT_SECONDS + GRACE_SECONDS + 1 - time.monotonic())
    )  # the time that is slept through
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    trials = json.loads(output)["trials"]
    assert [trial["outcome"] for trial in trials] == ["scored"] * 2, "none was thrown away"
    runs = [run for trial in trials for run in trial["runs"]]
    assert [run["end"] for run in runs] == ["finished"] * 8
    assert 2 <= runs[0]["wall_seconds"] < LIMIT_SECONDS
    assert clone.containers(engine) == []


LATE = """
import os, runpy, signal, sys, threading
import docker.api.container as api
create, calls = api.ContainerApiMixin.create_container_from_config, []
def late(*args, **kwargs):
    calls.append(1)
    if len(calls) == int(os.environ["CREATED"]):
        threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return create(*args, **kwargs)
api.ContainerApiMixin.create_container_from_config = late
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("kind", "number"), [("fresh_clone", 1), ("clone", 2), ("clone", 4)], ids=["prepare", "train", "second run"]
)
def test_a_signal_while_the_engine_creates_a_container_leaves_none(request, engine, kind, number):
    """Fired just after the request left: the engine finishes a request that no one waits for."""
    clone = request.getfixturevalue(kind)
    result = subprocess.run(
        [sys.executable, "-c", LATE, *clone.command("baseline")[1:]],
        cwd=clone.root,
        env={**clone.environment, "CREATED": str(number)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr
    assert clone.containers(engine) == []


def test_a_second_controller_is_refused(clone):
    process = clone.start("baseline")
    clone.wait_for_open_trial(0, process)
    second = clone("overnight", check=False)
    assert second.returncode == 1
    assert f"process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
