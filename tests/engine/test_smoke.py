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
    assert check(TRAIN + "while True:\n    pass\n") == ""


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


LARGE = """
from workload.checkpoint import publish
publish(lambda path: path.write_bytes(bytes({num_bytes})))
"""


def test_a_program_that_publishes_nothing_is_reported(check):
    assert check("print('step 1')\n").startswith("no checkpoint was published")


def test_a_slow_program_gets_more_time_to_publish(check):
    assert check("import time\ntime.sleep(3)\n" + TRAIN) == ""


def test_a_checkpoint_that_does_not_fit_is_reported_with_its_size_and_the_cap(check):
    told = check(LARGE.format(num_bytes=17 * 2**20), output_bytes=32 * 2**20)
    assert told.startswith("the checkpoint has 17.0 MiB, and may have 16.0")


def _model(forward, load="return Constant(1.0)"):
    head = "import torch\nimport numpy as np\nclass Constant(torch.nn.Module):\n"
    body = "    def __init__(self, boost):\n        super().__init__()\n        self.boost = boost\n"
    lines = "".join(f"        {line}\n" for line in forward.splitlines())
    return f"{head}{body}    def forward(self, tokens):\n{lines}def load(path, device):\n    {load}\n"


UNIFORM = "logits = torch.zeros(*tokens.shape, 64)\nlogits[..., 0] = self.boost\n"


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (UNIFORM + "assert len(tokens) == 8, 'buffers of 8 rows'\nreturn logits", "batch of 64 rows"),
        (UNIFORM + "assert len(tokens) == 64, 'whole batches only'\nreturn logits", "batch of 31 rows"),
        (UNIFORM + "return logits[..., :63]", "(64, 16, 64), not (64, 16, 63)"),
        (UNIFORM + "logits[..., 0] = float('nan')\nreturn logits", "NaN"),
        (UNIFORM + "self.boost += 1\nreturn logits", "the second time"),
        (UNIFORM + "logits[:, :-1, 1] = tokens[:, 1:].float()\nreturn logits", "not causal"),
        (UNIFORM + "logits[1:, :, 1] = tokens[:-1, :1].float()\nreturn logits", "other rows of the batch"),
    ],
)
def test_what_scoring_would_refuse_is_reported_with_its_place(check, forward, words):
    told = check(TRAIN, _model(forward))
    assert words in told
    assert "; see workload/model.py:" in told.splitlines()[0]


def test_a_load_that_fails_is_reported_with_its_traceback(check):
    told = check(TRAIN, _model(UNIFORM + "return logits", load="raise KeyError('weights')"))
    assert told.startswith("workload.model.load could not load the checkpoint; see workload/model.py:")
    assert "KeyError: 'weights'" in told


def test_a_load_that_draws_at_random_is_reported(check):
    load = "import random; return Constant(random.random())"
    assert "loaded a second time" in check(TRAIN, _model(UNIFORM + "return logits", load))
