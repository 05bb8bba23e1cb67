"""The manifest finds every change of the locked evaluation, at any depth, in any file that Python could import."""

from __future__ import annotations

import os

import pytest

from locked_eval import manifest

FILES = ("__init__.py", "manifest.py", "judging/__init__.py", "judging/judge.py", "judging/deep/__init__.py")


@pytest.fixture
def folder(tmp_path):
    """A small locked evaluation with its manifest."""
    root = tmp_path / "locked_eval"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    assert manifest.main(["--write"], root) == 0
    return root


def test_the_evaluation_as_it_was_locked_has_no_differences(folder):
    assert manifest.differences(folder) == []
    assert set(manifest.digests(folder)) == set(FILES)


def test_this_evaluation_is_locked_as_it_stands():
    assert manifest.differences(manifest.FOLDER) == []


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_found_at_any_depth(folder, name):
    (folder / name).write_text("changed\n")
    assert manifest.differences(folder) == [f"{name} was changed"]


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_found_at_any_depth(folder, name):
    (folder / name).unlink()
    assert manifest.differences(folder) == [f"{name} is missing"]


@pytest.mark.parametrize("name", ["x.py", "judging/x.py", "judging/deep/x.py", "new/__init__.py", "judging/.x.py"])
def test_an_added_file_is_found_at_any_depth(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    assert manifest.differences(folder) == [f"{name} is not in the manifest"]


@pytest.mark.parametrize(
    "name",
    [
        "judge.so",
        "judging/judge.cpython-311-x86_64-linux-gnu.so",
        "judging/judge.abi3.so",
        "judging/judge.pyd",
        "judging/x.pyc",
        "judging/deep/x.pyo",
        "judging/manifest.json",
        "x.pth",
        "judging/x.zip",
        "judging/X.PY",
        "judging/__pycache__",  # a file of that name
    ],
)
def test_any_other_kind_of_file_is_a_difference_and_cannot_be_locked(folder, name):
    (folder / name).write_bytes(b"x")
    before = (folder / "manifest.json").read_bytes()
    assert manifest.differences(folder) == [f"{name} is not a Python source file"]
    assert manifest.main(["--write"], folder) == 1
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["x.py", "judging/x.py", "judging/x", "judging/__pycache__"])
@pytest.mark.parametrize("target", ["a file", "a folder", "nothing"])
def test_a_symbolic_link_is_a_difference_wherever_it_leads(folder, tmp_path, name, target):
    elsewhere = tmp_path / "elsewhere"
    if target == "a file":
        elsewhere.write_text("")
    elif target == "a folder":
        elsewhere.mkdir()
        (elsewhere / "__init__.py").touch()
    (folder / name).symlink_to(elsewhere)
    assert manifest.differences(folder) == [f"{name} is a symbolic link"]


def test_a_link_in_the_place_of_a_locked_file_is_a_difference_though_its_text_is_the_same(folder, tmp_path):
    (folder / "judging" / "judge.py").rename(tmp_path / "judge.py")
    (folder / "judging" / "judge.py").symlink_to(tmp_path / "judge.py")
    assert manifest.differences(folder) == ["judging/judge.py is missing", "judging/judge.py is a symbolic link"]


def test_a_pipe_is_a_difference_and_is_not_read(folder):
    os.mkfifo(folder / "x.py")
    assert manifest.differences(folder) == ["x.py is not a Python source file"]


def test_bytecode_folders_are_ignored(folder):
    for parent in (folder, folder / "judging"):
        (parent / "__pycache__").mkdir()
        (parent / "__pycache__" / "judge.cpython-311.pyc").write_bytes(b"x")
    assert manifest.differences(folder) == []


def test_a_manifest_that_is_missing_or_a_link_is_a_difference(folder, tmp_path):
    (folder / "manifest.json").rename(tmp_path / "manifest.json")
    assert manifest.differences(folder) == ["manifest.json is missing"]
    (folder / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert manifest.differences(folder) == ["manifest.json is missing"]


def test_locking_again_after_a_change_accepts_it_and_changes_the_combined_hash(folder):
    before = manifest.combined(folder)
    (folder / "judging" / "deep" / "__init__.py").write_text("changed\n")
    assert manifest.main([], folder) == 1
    assert manifest.main(["--write"], folder) == 0
    assert manifest.combined(folder) != before
