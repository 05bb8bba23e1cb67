"""An idea runs for a moment before it is an experiment: in a real container, which is gone afterwards."""

from __future__ import annotations

import pytest

from runner.errors import Interrupted
from runner.evaluation import smoke_test
from runner.sandbox.engine import LABEL
from tests.support.constant_workload import MODEL, TRAIN, workload_files
from tests.support.machine import changed

pytestmark = pytest.mark.docker


@pytest.fixture
def check(controller, engine):
    """Run a program for two seconds; what is wrong with it."""
    short = changed(controller, smoke_seconds=2.0, memory_bytes=2**29)

    def one(train, model=MODEL, **changes):
        files = workload_files(train=train, model=model)
        told = smoke_test.check(changed(short, **changes).evaluator, files, 9, lambda: False)
        labels = {"label": f"{LABEL}controller={controller.ledger.controller}"}
        assert engine.client.api.images(filters=labels) == [], "no image is left"
        return told

    return one


def test_what_trains_is_good(check):
    assert check(TRAIN) == ""


def test_what_goes_on_until_the_deadline_is_good(check):
    assert check("while True:\n    pass\n") == ""


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("import missing_module\n", "No module named"),
        ("print('step 1', flush=True)\nraise ValueError('shapes differ')\n", "ValueError: shapes differ"),
        ("import os\nos._exit(3)\n", "exit code 3"),
        ("import os\nos.kill(os.getpid(), 11)\n", "exit code"),
    ],
)
def test_a_failure_is_reported_with_the_end_of_its_log(check, train, words):
    told = check(train)
    assert told.splitlines()[0].startswith("it failed after")
    assert words in told
    assert "\x1b" not in told


def test_a_run_is_given_up_when_the_controller_ends(check, controller, engine):
    asked = []

    def leaving():
        asked.append(None)
        return len(asked) > 3

    files = {
        "workload/train.py": b"while True:\n    pass\n",
        "workload/model.py": b"",
        "workload/__init__.py": b"",
    }
    long = changed(controller, smoke_seconds=120.0)
    with pytest.raises(Interrupted):
        smoke_test.check(long.evaluator, files, 9, leaving)
    label = {"label": f"{LABEL}controller={controller.ledger.controller}"}
    assert engine.client.api.containers(all=True, filters=label) == []
    assert engine.client.api.images(filters=label) == []


def test_running_out_of_memory_is_reported(check):
    assert "memory" in check("x = []\nwhile True:\n    x.append(b'x' * 2**26)\n")


def test_a_failing_engine_is_not_the_ideas_fault(check):
    assert check(TRAIN, base_image="sha256:" + "0" * 64) == ""
