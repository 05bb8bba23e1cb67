"""The user's checkout, settings, hooks and filters are neither touched nor run."""

from __future__ import annotations

import hashlib
import os

import pytest

from runner.storage.repository import Repository
from tests.support.git_repositories import (
    BRANCH,
    REF,
    git,
    keep,
    stage,
    write,
)

pytestmark = pytest.mark.usefixtures("own_configuration")


def test_filters_and_hooks_of_the_user_never_run(root, repository, tmp_path):
    witness = tmp_path / "ran"
    for name in ("reference-transaction", "post-commit", "pre-commit", "commit-msg", "post-checkout"):
        hook = root / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch '{witness}'\n")
        hook.chmod(0o755)
    git(root, "config", "filter.spy.clean", f"touch '{witness}'; cat")
    (root / ".git/info").mkdir(exist_ok=True)
    (root / ".git/info/attributes").write_text("* filter=spy\n")
    repository.advance(BRANCH, keep(repository), None)
    repository.read_workload(BRANCH)
    assert not witness.exists()


def test_asking_whether_the_checkout_is_clean_runs_no_monitor(root, repository, tmp_path):
    witness = tmp_path / "ran"
    git(root, "config", "core.fsmonitor", f"touch '{witness}'; false")
    repository.check_ready()
    assert not witness.exists()


def test_a_stale_index_lock_does_not_matter(root, repository):
    (root / ".git/index.lock").touch()
    repository.check_ready()
    repository.advance(BRANCH, keep(repository), None)


def test_variables_of_a_surrounding_git_process_do_not_redirect(root, repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    for name in ("GIT_DIR", "GIT_COMMON_DIR"):
        monkeypatch.setenv(name, str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git/objects"))
    monkeypatch.setenv("GIT_NAMESPACE", "elsewhere")
    again = Repository(root)
    commit = stage(again).commit
    for name in [name for name in os.environ if name.startswith("GIT_") and "CONFIG" not in name]:
        monkeypatch.delenv(name)
    assert again.root == root
    assert git(root, "rev-parse", REF) == commit


def test_a_linked_worktree_works(root, tmp_path):
    git(root, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    side = Repository(tmp_path / "side")
    side.check_ready()
    side.advance(BRANCH, keep(side), None)
    assert Repository(root).branch_head(BRANCH) == side.branch_head(BRANCH)


def test_the_users_settings_do_not_change_the_id(root, repository):
    first = stage(repository)
    for setting in ("commit.gpgSign=true", "i18n.commitEncoding=ISO-8859-1", "core.autocrlf=true"):
        git(root, "config", *setting.split("=", 1))
    assert stage(repository) == first


def test_the_users_checkout_is_untouched_byte_for_byte(root, repository):
    write(root, "program.md", "stashed\n")
    git(root, "stash", "--quiet")
    write(root, "program.md", "staged\n")
    git(root, "add", "program.md")
    write(root, "program.md", "dirty\n")
    write(root, "untracked.txt")

    def snapshot():
        inside = (".git/index", ".git/HEAD", ".git/config", ".git/refs/stash", ".git/logs/HEAD")
        outside = [path for path in root.rglob("*") if ".git" not in path.parts and path.is_file()]
        files = [*(root / name for name in inside), *outside]
        return {path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}

    os.utime(root / "workload/train.py", ns=(1, 1))  # a stat cache that `git status` would love to refresh
    before = snapshot()
    base = repository.check_ready()
    repository.advance(BRANCH, base, None)
    repository.advance(BRANCH, keep(repository), base)
    repository.read_workload(BRANCH)
    repository.is_whole([BRANCH], since=base)
    assert snapshot() == before
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(root, "branch", "--format=%(refname:short)").split() == [BRANCH, "main"]
    assert not list((root / ".git").glob("*.lock"))
