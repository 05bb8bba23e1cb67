"""A changed locked evaluation is refused, and a pinned copy does not follow the checkout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import locked_eval
from locked_eval import manifest
from runner.errors import LockedEvalError
from runner.storage import pinned_evaluation


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the locked evaluation that takes the place of the real one."""
    copy = tmp_path / "locked_eval"
    shutil.copytree(Path(locked_eval.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "manifest.json").unlink(missing_ok=True)
    monkeypatch.setattr(locked_eval, "__file__", str(copy / "__init__.py"))
    import json

    (copy / "manifest.json").write_text(json.dumps(manifest.digests(copy)))
    return copy


def test_the_unchanged_evaluation_is_pinned_once(folder, tmp_path):
    first, digest = pinned_evaluation.pin(tmp_path / "state")
    second, again = pinned_evaluation.pin(tmp_path / "state")
    assert (first, digest) == (second, again)
    assert (first / "locked_eval" / "judge.py").read_bytes() == (folder / "judge.py").read_bytes()


def spoil(path):
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: spoil(folder / "judge.py"), "judge.py was changed"),
        (lambda folder: (folder / "judge.py").unlink(), "judge.py is missing"),
        (lambda folder: (folder / "extra.py").write_text(""), "extra.py is not in the manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    ],
)
def test_any_difference_is_refused_by_name_and_nothing_is_pinned(folder, tmp_path, change, names):
    change(folder)
    with pytest.raises(LockedEvalError, match=names) as caught:
        pinned_evaluation.pin(tmp_path / "state")
    assert "make lock" in caught.value.remedy
    assert not list((tmp_path / "state").rglob("judge.py"))


def test_a_pinned_copy_that_was_torn_or_touched_is_pinned_again(folder, tmp_path):
    pinned, _ = pinned_evaluation.pin(tmp_path / "state")
    spoil(pinned / "locked_eval" / "scorer.py")
    again, _ = pinned_evaluation.pin(tmp_path / "state")
    assert manifest.differences(again / "locked_eval") == []


def test_the_pinned_copy_can_be_read_by_every_user_whatever_the_umask(folder, tmp_path):
    before = os.umask(0o077)
    try:
        pinned, _ = pinned_evaluation.pin(tmp_path / "state")
    finally:
        os.umask(before)
    modes = {oct(path.stat().st_mode & 0o777) for path in pinned.rglob("*") if path.is_file()}
    assert modes == {"0o644"}
    assert pinned.stat().st_mode & 0o777 == 0o755


def test_the_pinned_copy_does_not_follow_the_checkout(folder, tmp_path):
    pinned, _ = pinned_evaluation.pin(tmp_path / "state")
    before = (pinned / "locked_eval" / "judge.py").read_bytes()
    spoil(folder / "judge.py")
    assert (pinned / "locked_eval" / "judge.py").read_bytes() == before


def test_code_that_does_not_prepare_data_does_not_change_the_data_key(folder, tmp_path):
    before = pinned_evaluation.preparation_digest(tmp_path)
    spoil(folder / "judge.py")
    assert pinned_evaluation.preparation_digest(tmp_path) == before


@pytest.mark.parametrize("name", ["prepare.py", "disjoint.py", "corpus_index.py"])
def test_code_that_prepares_data_changes_the_data_key(folder, tmp_path, name):
    before = pinned_evaluation.preparation_digest(tmp_path)
    spoil(folder / name)
    assert pinned_evaluation.preparation_digest(tmp_path) != before
