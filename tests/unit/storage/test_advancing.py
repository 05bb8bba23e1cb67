"""The campaign's branch moves by compare-and-swap, and never under a checkout."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from runner.errors import RepositoryError
from tests.support.git_repositories import (
    BRANCH,
    commit_all,
    git,
    keep,
    stage,
    write,
)

pytestmark = pytest.mark.usefixtures("own_configuration")


def test_a_branch_is_created_and_advanced(repository):
    base, kept = repository.resolve("HEAD"), keep(repository)
    repository.advance(BRANCH, base, None)
    repository.advance(BRANCH, kept, base)
    assert repository.branch_head(BRANCH) == kept


def test_advancing_again_changes_nothing(repository):
    kept = keep(repository)
    repository.advance(BRANCH, kept, None)
    repository.advance(BRANCH, kept, None)
    repository.advance(BRANCH, kept, repository.resolve("HEAD"))
    assert repository.branch_head(BRANCH) == kept


@pytest.mark.parametrize("expected", ["base", None])
def test_a_branch_that_someone_moved_is_left_alone(root, repository, expected):
    base, kept = repository.resolve("HEAD"), keep(repository)
    repository.advance(BRANCH, base, None)
    write(root, "program.md", "other\n")
    moved = commit_all(root)
    git(root, "branch", "-f", BRANCH, moved)
    with pytest.raises(RepositoryError, match=moved) as caught:
        repository.advance(BRANCH, kept, base if expected else None)
    assert caught.value.remedy
    assert repository.branch_head(BRANCH) == moved


def test_a_branch_that_someone_deleted_is_not_made_again(repository):
    with pytest.raises(RepositoryError, match="moved by another program"):
        repository.advance(BRANCH, keep(repository), repository.resolve("HEAD"))
    assert repository.branch_head(BRANCH) is None


@pytest.mark.parametrize("where", ["main checkout", "linked worktree"])
def test_a_checked_out_branch_never_advances(root, repository, tmp_path, where):
    base, kept = repository.resolve("HEAD"), keep(repository)
    repository.advance(BRANCH, base, None)
    place = root if where == "main checkout" else tmp_path / "other"
    if place == root:
        git(root, "switch", "--quiet", BRANCH)
    else:
        git(root, "worktree", "add", "--quiet", str(place), BRANCH)
    with pytest.raises(RepositoryError, match=str(place)) as caught:
        repository.advance(BRANCH, kept, base)
    subprocess.run(caught.value.remedy, shell=True, check=True, capture_output=True)
    repository.advance(BRANCH, kept, base)


def test_a_branch_in_the_way_is_named(root, repository):
    git(root, "branch", "autoresearch")
    with pytest.raises(RepositoryError, match="in the way") as caught:
        repository.advance(BRANCH, keep(repository), None)
    assert caught.value.remedy == "git branch -m autoresearch NAME"


def test_a_stale_ref_lock_is_named_with_its_remedy(root, repository):
    base = repository.resolve("HEAD")
    repository.advance(BRANCH, base, None)
    lock = root / ".git/refs/heads/autoresearch/night.lock"
    lock.touch()
    with pytest.raises(RepositoryError, match=r"night\.lock") as caught:
        repository.advance(BRANCH, keep(repository), base)
    assert str(lock) in caught.value.remedy


def test_objects_and_refs_are_on_the_disk_before_the_call_returns(root, repository, tmp_path):
    """Counted by git's own trace; without `core.fsync` a power cut could undo what git reported as done."""
    trace = tmp_path / "trace"

    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as config:
        config.write(f"[trace2]\neventTarget = {trace}\n")

    def waits(action):
        trace.write_text("")
        made = action()
        events = [json.loads(line) for line in trace.read_text().splitlines()]
        counts = [one["value"] for one in events if one.get("key") == "fsync/hardware-flush"]  # git 2.39
        counts += [one["count"] for one in events if one.get("name") == "hardware-flush"]  # later ones
        return made, sum(map(int, counts))

    head = repository.resolve("HEAD")
    _, flushed = waits(lambda: repository.advance(BRANCH, head, None))
    assert flushed == 1, "the ref"
    staged, flushed = waits(lambda: stage(repository))
    assert flushed == 2 + 4 + 1 + 1, "two files, four folders, the commit, its ref"
    assert waits(lambda: stage(repository)) == (staged, 0), "already there"
