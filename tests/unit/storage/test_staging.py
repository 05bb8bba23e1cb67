"""A candidate becomes a commit under a ref: always the same one, never lost, never outside `workload/`."""

from __future__ import annotations

import pytest

from runner.errors import RepositoryError
from tests.support.git_repositories import (
    REF,
    git,
    stage,
    tried,
)

pytestmark = pytest.mark.usefixtures("own_configuration")


def test_a_candidate_keeps_everything_outside_workload(root, repository):
    before = git(root, "ls-tree", "HEAD").splitlines()
    after = git(root, "ls-tree", stage(repository).commit).splitlines()
    assert [line for line in before if "workload" not in line] == [
        line for line in after if "workload" not in line
    ]


def test_staging_twice_gives_the_same_ids(repository):
    assert stage(repository) == stage(repository)


def test_names_stand_in_the_order_that_git_wants(root, repository):
    names = ("a", "a.py", "a-b", "a/x.py", "a0", "B.py", "é.py")
    files = {f"workload/{name}": name.encode() for name in names if name != "a"}
    staged = stage(repository, files=files)
    assert git(root, "fsck", "--strict") == ""
    assert repository.read_workload(staged.commit) == files
    same = git(root, "ls-tree", f"{staged.commit}:workload")
    assert git(root, "mktree", stdin=same + "\n") == git(root, "rev-parse", f"{staged.commit}:workload")


def test_the_same_moment_in_another_notation_gives_the_same_id(repository, monkeypatch):
    first = stage(repository)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Eve")
    for when in ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.75", "2026-01-02T12:04:05+09:00"):
        assert stage(repository, when=when) == first


def test_a_candidate_has_our_identity_and_its_parent(root, repository):
    commit = stage(repository).commit
    shown = git(root, "log", "-1", "--format=%an <%ae> %cn <%ce> %at %ct %P", commit)
    ours = "autoresearch <autoresearch@localhost>"
    assert shown == f"{ours} {ours} 1767323045 1767323045 {git(root, 'rev-parse', 'HEAD')}"


def test_a_candidate_is_named_by_its_ref(root, repository):
    commit = stage(repository).commit
    assert git(root, "rev-parse", REF) == commit
    assert repository.refs("refs/autoresearch/tried/night") == tried(root) == {REF: commit}


def test_another_candidate_under_the_same_number_loses_neither(root, repository):
    first = stage(repository).commit
    second = stage(repository, files={"workload/train.py": b"x = 3\n"}).commit
    assert set(tried(root).values()) == {first, second}
    assert tried(root)[REF] == second
    assert stage(repository).commit == tried(root)[REF] == first
    assert set(tried(root).values()) == {first, second}


def test_a_crash_before_the_ref_is_repaired_by_staging_again(root, repository):
    commit = stage(repository).commit
    git(root, "update-ref", "-d", REF)
    assert stage(repository).commit == commit == tried(root)[REF]


@pytest.mark.parametrize(
    "path",
    [
        "program.md", "/workload/x", "workload/../x", "workload/.git/config", "workload/a/.GIT/x",
        "workload//x", "workload/", "workload", "workload/./x", "workload/a\nb",
    ],
)  # fmt: skip
def test_a_path_outside_workload_is_never_staged(root, repository, path):
    with pytest.raises(RepositoryError):
        stage(repository, files={path: b""})
    assert tried(root) == {}


def test_a_name_that_is_file_and_folder_is_refused(repository):
    with pytest.raises(RepositoryError, match="both a file and a folder"):
        stage(repository, files={"workload/a": b"", "workload/a/b": b""})


def test_a_ref_name_that_git_forbids_is_refused(repository):
    with pytest.raises(RepositoryError, match="--tag"):
        stage(repository, ref="refs/autoresearch/tried/a..b/0001")
