"""The answer of a checker comes from a process of the candidate's: it is read, and never trusted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from runner.config import load
from runner.evaluation.scored_check import Problem, asking, place_in, problem_of

CONFIG = load(Path("/nonexistent"), {"profile": "cpu"}, environ={}).model_copy(
    update={"vocab_size": 64, "context_length": 16, "score_batch_rows": 8}
)


@pytest.fixture
def asked(tmp_path):
    """The rows of one check."""
    with asking(CONFIG, tmp_path / "scratch") as one:
        yield one


def answer(report=None, logits=None, rows=5 * 8):
    body = np.zeros((rows, 64), "<f4") if logits is None else logits
    return (
        json.dumps({"failed": None, "checkpoint_bytes": 100, **(report or {})}).encode() + b"\n" + body.tobytes()
    )


def test_the_rows_differ_only_behind_the_cut_and_in_other_rows(asked):
    base, again, reloaded, suffix, neighbors = np.load(asked.folder / "passes.npy")
    cuts = np.load(asked.folder / "positions.npy")
    assert (base == again).all() and (base == reloaded).all()
    for row, cut in enumerate(cuts):
        assert (suffix[row, : cut + 1] == base[row, : cut + 1]).all()
        assert (suffix[row, cut + 1 :] != base[row, cut + 1 :]).any()
    assert ((neighbors == base).all(axis=1) == asked.kept).all()
    assert len(np.load(asked.folder / "last.npy")) == asked.num_last < 8


def test_equal_logits_are_no_problem(asked):
    assert problem_of(answer(), asked, CONFIG) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ([8], "the second time"),
        ([16, 24, 32], "loaded a second time"),
        ([24], "not causal"),
        ([32], "other rows of the batch"),
    ],
)
def test_a_pass_that_differs_is_named(asked, changed, words):
    logits = np.zeros((40, 64), "<f4")
    for first in changed:
        logits[first : first + 8, 0] = 3.0
    assert words in problem_of(answer(logits=logits), asked, CONFIG).reason


def test_rows_that_were_replaced_may_differ(asked):
    logits = np.zeros((40, 64), "<f4")
    logits[32:][~asked.kept, 0] = 3.0
    assert problem_of(answer(logits=logits), asked, CONFIG) is None


@pytest.mark.parametrize(
    "hostile",
    [
        b"", b"\n", b"null\n", b"[]\n", b"{\n", b"[" * 100_000 + b"\n", b'{"checkpoint_bytes": 1e999}\n',
        b'{"checkpoint_bytes": []}\n', b'{"failed": {"a": 1}, "traceback": "\\ud800"}\n', b"{}\n\x00",
        b'{"failed": null}\n' + bytes(100), answer(rows=39), answer(rows=41),
        answer(logits=np.full((40, 64), np.nan, "<f4")),
        b'{"failed": "forward", "traceback": "\\u001b[31mred", "forward": "/candidate/workload/x.py:\\u0663:y"}\n',
    ],
)  # fmt: skip
def test_a_hostile_answer_is_a_problem_in_clean_text(asked, hostile):
    found = problem_of(hostile, asked, CONFIG)
    assert isinstance(found, Problem)
    text = f"{found.reason} {found.place} {found.traceback}"
    assert "\x1b" not in text
    text.encode("utf-8")


def test_the_place_is_the_innermost_line_of_the_workload():
    log = """\
  File "/candidate/workload/train.py", line 3, in main
    loss = model(x)
  File "/opt/venv/lib/python3.11/site-packages/torch/nn/functional.py", line 9, in linear
  File "/candidate/workload/model.py", line 12, in forward
  File "/opt/venv/lib/python3.11/site-packages/torch/functional.py", line 9, in einsum
RuntimeError: shapes"""
    assert place_in(log) == "workload/model.py:12 (forward)"
    assert place_in("Killed") is None
