"""A changed locked evaluation is refused, and a pinned copy does not follow the checkout."""

from __future__ import annotations

import json
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
    (copy / "manifest.json").write_text(json.dumps(manifest.digests(copy)))
    return copy


def test_the_unchanged_evaluation_is_pinned_once(folder, tmp_path):
    first, digest = pinned_evaluation.pin(tmp_path / "state")
    second, again = pinned_evaluation.pin(tmp_path / "state")
    assert (first, digest) == (second, again)
    assert (first / "locked_eval" / "judging" / "judge.py").read_bytes() == (
        folder / "judging" / "judge.py"
    ).read_bytes()


def spoil(path):
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: spoil(folder / "judging" / "judge.py"), "judging/judge.py was changed"),
        (lambda folder: (folder / "judging" / "judge.py").unlink(), "judging/judge.py is missing"),
        (lambda folder: (folder / "extra.py").write_text(""), "extra.py is not in the manifest"),
        (
            lambda folder: (folder / "container" / "throttle.so").touch(),
            "container/throttle.so is not a Python source",
        ),
        (lambda folder: (folder / "judging" / "x.py").symlink_to("judge.py"), "judging/x.py is a symbolic link"),
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
    spoil(pinned / "locked_eval" / "container" / "scorer.py")
    again, _ = pinned_evaluation.pin(tmp_path / "state")
    assert manifest.differences(again / "locked_eval") == []


def test_the_pinned_copy_can_be_read_by_every_user_whatever_the_umask(folder, tmp_path):
    before = os.umask(0o077)
    try:
        pinned, _ = pinned_evaluation.pin(tmp_path / "state")
    finally:
        os.umask(before)
    for path in (pinned, *pinned.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    assert (pinned / "locked_eval" / "preparation" / "prepare.py").is_file()


def test_the_pinned_copy_does_not_follow_the_checkout(folder, tmp_path):
    pinned, _ = pinned_evaluation.pin(tmp_path / "state")
    before = (pinned / "locked_eval" / "judging" / "judge.py").read_bytes()
    spoil(folder / "judging" / "judge.py")
    assert (pinned / "locked_eval" / "judging" / "judge.py").read_bytes() == before


def test_code_that_does_not_prepare_data_does_not_change_the_data_key(folder, tmp_path):
    before = pinned_evaluation.preparation_digest(tmp_path)
    spoil(folder / "judging" / "judge.py")
    assert pinned_evaluation.preparation_digest(tmp_path) == before


PREPARING = sorted(path.name for path in (Path(locked_eval.__file__).parent / "preparation").glob("*.py"))


@pytest.mark.parametrize("name", PREPARING)
def test_code_that_prepares_data_changes_the_data_key(folder, tmp_path, name):
    before = pinned_evaluation.preparation_digest(tmp_path)
    spoil(folder / "preparation" / name)
    assert pinned_evaluation.preparation_digest(tmp_path) != before


@pytest.mark.parametrize("name", ["new.py", "deep/__init__.py"])
def test_a_new_file_of_the_preparation_changes_the_data_key(folder, tmp_path, name):
    before = pinned_evaluation.preparation_digest(tmp_path)
    (folder / "preparation" / name).parent.mkdir(exist_ok=True)
    (folder / "preparation" / name).touch()
    assert pinned_evaluation.preparation_digest(tmp_path) != before


def test_a_renamed_file_of_the_preparation_changes_the_data_key(folder, tmp_path):
    before = pinned_evaluation.preparation_digest(tmp_path)
    (folder / "preparation" / "rows.py").rename(folder / "preparation" / "lines.py")
    assert pinned_evaluation.preparation_digest(tmp_path) != before


def test_a_locked_folder_without_preparation_has_no_data_key(tmp_path):
    with pytest.raises(LockedEvalError, match="holds no code that prepares data"):
        pinned_evaluation.preparation_digest(tmp_path)


def test_a_source_that_changes_while_it_is_copied_is_not_pinned(folder, tmp_path, monkeypatch):
    make_folder = pinned_evaluation.mkdtemp

    def late(**options):  # between the check and the copy
        spoil(folder / "judging" / "judge.py")
        return make_folder(**options)

    monkeypatch.setattr(pinned_evaluation, "mkdtemp", late)
    with pytest.raises(LockedEvalError, match=r"judging/judge\.py was changed"):
        pinned_evaluation.pin(tmp_path / "state")
    assert [path.name for path in (tmp_path / "state" / "locked").iterdir() if path.name[0] != "."] == []


def test_bytecode_is_not_pinned(folder, tmp_path):
    (folder / "judging" / "__pycache__").mkdir()
    (folder / "judging" / "__pycache__" / "judge.cpython-311.pyc").write_bytes(b"x")
    pinned, _ = pinned_evaluation.pin(tmp_path / "state")
    assert not list(pinned.rglob("__pycache__"))
