"""What is refused as an edit, before anything runs; and that nothing else in the zoo is."""

from __future__ import annotations

import base64
import zlib

import pytest

from runner import edits
from runner.edits import contamination
from runner.records import Write
from tests.zoo.animals import WORDS, honest_files
from tests.zoo.cheats import CHEATS
from tests.zoo.oddities import ODDITIES


def as_words(tokens):
    return repr(b"".join(WORDS[token] for token in tokens).decode())


def as_token_ids(tokens):
    return repr(tokens.tolist())


def as_packed_bytes(tokens):
    return repr(base64.b85encode(zlib.compress(tokens.astype("<u2").tobytes())).decode())


@pytest.mark.parametrize("form", [as_words, as_token_ids, as_packed_bytes])
def test_validation_text_in_the_code_is_found_before_anything_runs(evaluation, sealed_text, form):
    hidden = f"\n\nKNOWN = {form(evaluation.val_rows[:20].flatten())}\n"
    before = honest_files()
    after = {**before, "workload/model.py": before["workload/model.py"] + hidden.encode()}
    assert "validation" in contamination.find(before, after, sealed_text)


@pytest.mark.parametrize("animal", [*CHEATS, *ODDITIES], ids=lambda animal: animal.name)
def test_code_without_sealed_text_comes_as_far_as_its_container(sealed_text, animal):
    before = honest_files()
    after = edits.apply(before, animal.edits)
    assert not isinstance(after, edits.Refusal), after.reason
    assert contamination.find(before, after, sealed_text) is None


@pytest.mark.parametrize(
    "path",
    ["torch.py", "sitecustomize.py", "locked_eval/judging/judge.py", "workload/../locked_eval/container/scorer.py",
     "/out/checkpoint", "workload/torch.so", "workload/__pycache__/model.cpython-311.pyc"],
)  # fmt: skip
def test_a_file_that_is_no_source_of_the_workload_is_refused_as_an_edit(path):
    refused = edits.apply(honest_files(), (Write(path=path, content="raise SystemExit"),))
    assert isinstance(refused, edits.Refusal)
