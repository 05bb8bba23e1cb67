"""`autoresearch check-workload`, and the port of the guide on the real torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.evaluation import smoke_test
from runner.sandbox.images import BaseImage
from tests.support.tiny_candidates import CONTEXT, VOCAB_SIZE

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
TRAIN_SECONDS = 6.0


def ported():
    """The example of the guide, with the vocabulary and context of the tiny data set."""
    files = {name: (ROOT / name).read_bytes() for name in ("workload/__init__.py", "workload/checkpoint.py")}
    for name in ("model", "train"):
        text = (ROOT / "examples/adopt/after" / f"{name}.py").read_text("utf-8")
        text = text.replace("VOCAB_SIZE = 2048", f"VOCAB_SIZE = {VOCAB_SIZE}")
        files[f"workload/{name}.py"] = text.replace("CONTEXT = 128", f"CONTEXT = {CONTEXT}").encode()
    return files


@pytest.fixture
def examine(controller, torch_image):
    """Check files on the real torch."""
    evaluator = replace(controller.evaluator, base=BaseImage(torch_image, lambda: torch_image))
    config = controller.config.model_copy(update={"train_seconds": TRAIN_SECONDS})
    return lambda files: smoke_test.examine(evaluator, files, 0, config, lambda: False)


def test_the_port_of_the_guide_can_be_scored(examine):
    assert examine(ported()).problem is None


def test_a_model_that_looks_ahead_is_found_with_its_forward(examine):
    files = ported()
    model = files["workload/model.py"].replace(b"is_causal=True", b"is_causal=False")
    problem = examine(files | {"workload/model.py": model}).problem
    assert problem.reason.startswith("not causal")
    assert problem.place.startswith("workload/model.py:") and "TinyGPT.forward" in problem.place


def test_the_workload_of_this_repository_can_be_scored(examine):
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / "workload").rglob("*.py")}
    assert examine(files).problem is None


def test_the_command_names_the_line_to_change(clone):
    lines = ["import os", *(f"os.environ['{name}']" for name in ("SEED", "DATA_DIR", "DEADLINE_SECONDS"))]
    train = "\n".join([*lines, "import einops", "publish()"])
    (clone.root / "workload" / "train.py").write_text(train)
    done = clone("check-workload", "--train-seconds", "2", check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[0].startswith("✗ workload/train.py:5 (<module>): it failed after")
    assert "→ echo einops >> images/extra.in" in done.stdout
