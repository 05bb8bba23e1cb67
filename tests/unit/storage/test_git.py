"""Formats of repositories, and other git processes at work beside a night."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from runner import failpoints
from runner.errors import RepositoryError
from runner.failpoints import Side, Step
from runner.storage.git import ATTEMPTS, write_again
from runner.storage.git_errors import ObjectGoneError
from runner.storage.repository import Repository
from tests.support.git_repositories import (
    BRANCH,
    FILES,
    REF,
    commit_all,
    git,
    keep,
    make_repository,
    remove_object,
    stage,
    tried,
    write,
)

pytestmark = pytest.mark.usefixtures("own_configuration")


def once(monkeypatch, step, act):
    """Call `act` after the first `step`."""

    def reached(at, side):
        if (at, side) == (step, Side.AFTER):
            monkeypatch.setattr(failpoints, "on_reach", None)
            act()

    monkeypatch.setattr(failpoints, "on_reach", reached)


# Garbage collection and packed refs


def test_objects_that_are_collected_before_they_have_a_name_are_written_again(root, repository, monkeypatch):
    once(monkeypatch, Step.OBJECTS_WRITTEN, lambda: git(root, "gc", "--quiet", "--prune=now"))
    staged = stage(repository)
    assert failpoints.on_reach is None
    assert repository.read_workload(staged.commit) == FILES
    assert git(root, "fsck", "--strict") == ""


@pytest.mark.parametrize("part", ["", "^{tree}", ":workload", ":workload/train.py"])
def test_objects_that_are_collected_while_their_commit_gets_its_name_are_written_again(
    root, repository, monkeypatch, part
):
    """`gc` has decided what to remove before the ref exists, and removes it afterwards."""
    once(monkeypatch, Step.CANDIDATE_NAMED, lambda: remove_object(root, f"{REF}{part}"))
    staged = stage(repository)
    assert failpoints.on_reach is None
    assert repository.read_workload(staged.commit) == FILES
    assert git(root, "fsck", "--strict") == ""


def test_a_kept_commit_that_is_collected_while_the_branch_moves_is_written_again(root, repository, monkeypatch):
    base = repository.resolve("HEAD")
    repository.advance(BRANCH, base, None)
    once(monkeypatch, Step.BRANCH_ADVANCED, lambda: remove_object(root, BRANCH))

    def advance():
        kept = keep(repository)
        repository.advance(BRANCH, kept, base)
        return kept

    assert write_again(advance) == repository.branch_head(BRANCH)
    assert failpoints.on_reach is None
    assert git(root, "fsck", "--strict") == ""


def test_an_object_that_vanishes_every_time_is_an_error_at_last():
    tries = []

    def write_in_vain():
        tries.append(1)
        raise ObjectGoneError("object 1 is missing", "git fsck")

    with pytest.raises(ObjectGoneError):
        write_again(write_in_vain)
    assert len(tries) == ATTEMPTS


@pytest.mark.parametrize("command", [["pack-refs", "--all", "--prune"], ["gc", "--quiet"]], ids=lambda one: one[0])
def test_packed_refs_move_like_loose_ones(root, repository, command):
    base = repository.resolve("HEAD")
    repository.advance(BRANCH, base, None)
    first = stage(repository).commit
    git(root, *command)
    assert not (root / ".git" / "refs" / "heads" / "autoresearch" / "night").exists()
    assert stage(repository).commit == first
    repository.advance(BRANCH, keep(repository), base)
    git(root, *command)
    assert tried(root) == {REF: first}
    assert repository.branch_head(BRANCH) == keep(repository)


@pytest.mark.parametrize("command", ["pack-refs --all --prune", "gc --quiet"], ids=["pack-refs", "gc"])
def test_a_night_beside_a_git_that_tidies_up_all_the_time_loses_nothing(root, repository, command):
    """Both remove folders, refs and objects between two steps of ours."""
    loop = f"echo begun; while :; do git {command}; done 2>/dev/null"
    with subprocess.Popen(["sh", "-c", loop], cwd=root, stdout=subprocess.PIPE, start_new_session=True) as tidying:
        assert tidying.stdout.readline() == b"begun\n"
        try:
            champion = repository.resolve("HEAD")
            repository.advance(BRANCH, champion, None)
            for number in range(12):
                ref = f"{REF.rpartition('/')[0]}/{number:04d}"
                staged = stage(repository, parent=champion, ref=ref, message=f"try {number}\n")
                kept = write_again(lambda tree=staged.tree, old=champion: _kept(repository, tree, old))
                champion = kept
        finally:
            os.killpg(tidying.pid, signal.SIGKILL)
    assert len(tried(root)) == 12
    assert repository.branch_head(BRANCH) == champion
    (root / ".git" / "gc.pid").unlink(missing_ok=True)
    assert git(root, "fsck", "--strict") == ""


def _kept(repository, tree, champion):
    commit = repository.make_commit(tree=tree, parent=champion, message="keep\n", when="2026-01-02T03:04:05Z")
    repository.advance(BRANCH, commit, champion)
    return commit


@pytest.fixture
def failing_git(tmp_path, monkeypatch):
    """A git whose next commands of a kind fail with these words; the number that is left stands in the file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    left = folder / "left"
    program = folder / "git"

    def fail(times, stderr, command="update-ref"):
        left.write_text(str(times))
        program.write_text(
            f'#!/bin/sh\nleft=$(cat "{left}")\n'
            f'case " $* " in *" {command} "*) if [ "$left" -gt 0 ]; then\n'
            f'echo $((left - 1)) > "{left}"; cat > /dev/null; echo "{stderr}" >&2; exit 128; fi;; esac\n'
            f'exec "{real}" "$@"\n'
        )
        program.chmod(0o755)
        return left

    real = shutil.which("git")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return fail


VANISHED = "fatal: cannot lock ref '{}': Unable to create '/x/.git/{}.lock': No such file or directory"


def test_a_folder_of_refs_that_packing_removes_is_made_again(root, repository, failing_git):
    left = failing_git(2, VANISHED.format(REF, REF))
    assert stage(repository).commit == tried(root)[REF]
    assert left.read_text().strip() == "0"
    left = failing_git(2, VANISHED.format(BRANCH, BRANCH))
    kept = keep(repository)
    repository.advance(BRANCH, kept, None)
    assert repository.branch_head(BRANCH) == kept
    assert left.read_text().strip() == "0"


def test_a_folder_of_objects_that_packing_removes_is_made_again(root, repository, failing_git):
    words = "error: unable to write file .git/objects/23/2301e7: No such file or directory"
    left = failing_git(2, words, "hash-object")
    assert stage(repository).commit == tried(root)[REF]
    assert left.read_text().strip() == "0"


def test_a_ref_that_can_never_be_locked_is_one_clear_error(repository, failing_git):
    failing_git(1000, VANISHED.format(REF, REF))
    with pytest.raises(RepositoryError, match=f"cannot lock ref '{REF}'"):
        stage(repository)


def test_another_failure_is_not_repeated(repository, failing_git):
    left = failing_git(5, "fatal: out of memory")
    with pytest.raises(RepositoryError, match="out of memory"):
        stage(repository)
    assert left.read_text().strip() == "4"


# Formats


def test_a_sha256_repository_works(tmp_path):
    make_repository(tmp_path, "--object-format=sha256")
    repository = Repository(tmp_path)
    base = repository.check_ready()
    kept = keep(repository)
    repository.advance(BRANCH, kept, None)
    assert len(kept) == 64
    assert repository.read_workload(BRANCH) == FILES
    assert repository.is_whole([kept], since=base)
    assert git(tmp_path, "fsck", "--strict") == ""


def test_a_reftable_repository_works(tmp_path):
    """Where git knows the format: since 2.45."""
    if "--ref-format" not in git(tmp_path, "init", "-h", check=False):
        pytest.skip("this git has no reftable")
    make_repository(tmp_path, "--ref-format=reftable")
    repository = Repository(tmp_path)
    base = repository.check_ready()
    repository.advance(BRANCH, base, None)
    kept = keep(repository)
    repository.advance(BRANCH, kept, base)
    assert repository.branch_head(BRANCH) == kept
    assert list(repository.refs("refs/autoresearch")) == [REF]
    write(tmp_path, "program.md", "other\n")
    moved = commit_all(tmp_path)
    git(tmp_path, "branch", "-f", BRANCH, moved)
    with pytest.raises(RepositoryError, match=moved):
        repository.advance(BRANCH, base, kept)
    git(tmp_path, "gc", "--quiet", "--prune=now")
    assert repository.read_workload(REF) == FILES
    (tmp_path / ".git" / "reftable" / "tables.list.lock").touch()
    with pytest.raises(RepositoryError, match="references locked") as caught:
        stage(repository, message="another\n")
    remedy = caught.value.remedy.removeprefix("when no other git is running: ")
    subprocess.run(remedy, shell=True, check=True, cwd=tmp_path)
    assert stage(repository, message="another\n").commit == tried(tmp_path)[REF]


@pytest.mark.parametrize(
    ("setting", "named"),
    [("extensions.moontable=true", "moontable"), ("core.repositoryFormatVersion=7", "version")],
)
def test_a_repository_that_this_git_cannot_read_is_one_sentence_at_the_start(root, setting, named):
    git(root, "config", "core.repositoryFormatVersion", "1")
    git(root, "config", *setting.split("=", 1))
    with pytest.raises(RepositoryError, match=f"too old for .*{named}") as caught:
        Repository(root)
    assert "newer git" in caught.value.remedy
    assert "\n" not in caught.value.message
