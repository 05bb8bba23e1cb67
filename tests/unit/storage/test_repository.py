"""A repository is opened, checked and read; every refusal names the thing and a remedy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runner.errors import RepositoryError
from runner.storage.repository import Repository
from tests.support.git_repositories import (
    FILES,
    commit_all,
    git,
    keep,
    remove_object,
    stage,
    write,
)

pytestmark = pytest.mark.usefixtures("own_configuration")


def test_a_folder_below_the_top_level_finds_the_top_level(root):
    assert Repository(root / "workload").root == root


def test_a_folder_without_a_repository_is_a_clear_error(tmp_path):
    with pytest.raises(RepositoryError, match="not inside a git repository") as caught:
        Repository(tmp_path)
    assert caught.value.remedy


def test_a_missing_folder_is_a_clear_error(tmp_path):
    with pytest.raises(RepositoryError, match="there is no folder"):
        Repository(tmp_path / "nowhere")


def test_a_bare_repository_is_refused(tmp_path):
    git(tmp_path, "init", "--quiet", "--bare", "bare.git")
    with pytest.raises(RepositoryError, match="bare"):
        Repository(tmp_path / "bare.git")


def test_a_repository_without_a_commit_is_refused(tmp_path):
    git(tmp_path, "init", "--quiet")
    with pytest.raises(RepositoryError, match="no commit yet") as caught:
        Repository(tmp_path)
    assert "git commit" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_names_gits_own_remedy(root):
    os.chown(root, 12345, 12345)
    os.chown(root / ".git", 12345, 12345)
    with pytest.raises(RepositoryError, match="another user") as caught:
        Repository(root)
    assert caught.value.remedy.startswith("git config --global --add safe.directory")
    subprocess.run(caught.value.remedy, shell=True, check=True)
    assert Repository(root).root == root


def test_a_machine_without_git_gets_a_clear_error(root, tmp_path):
    program = (
        "import sys; from pathlib import Path; from runner.storage.repository import Repository\n"
        "from runner.errors import RepositoryError\n"
        "try: Repository(Path(sys.argv[1]))\n"
        "except RepositoryError as error: print(error)\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], env=environment, capture_output=True, text=True
    )
    assert "git does not start" in done.stdout, done.stderr
    assert "apt-get install git" in done.stdout


def test_a_clean_branch_is_ready_and_gives_its_commit(root, repository):
    assert repository.check_ready() == git(root, "rev-parse", "HEAD")


def test_a_dirty_program_and_ignored_files_are_no_obstacle(root, repository):
    write(root, ".gitignore", "*.pyc\n")
    write(root, "program.md", "be bold\n")
    write(root, "workload/__pycache__/train.pyc")
    write(root, "notes/new.txt")
    assert repository.check_ready()


@pytest.mark.parametrize("path", ["workload/train.py", "workload/new.py", "locked_eval/judge.py", "images/new"])
def test_an_uncommitted_change_that_would_not_be_used_is_named(root, repository, path):
    write(root, path, "changed\n")
    with pytest.raises(RepositoryError, match=path) as caught:
        repository.check_ready()
    assert path.split("/")[0] in caught.value.remedy


def test_a_staged_deletion_in_workload_is_named(root, repository):
    write(root, "workload/other.py")
    commit_all(root)
    git(root, "rm", "--quiet", "--cached", "workload/other.py")
    (root / "workload/other.py").unlink()
    with pytest.raises(RepositoryError, match=r"workload/other\.py"):
        repository.check_ready()


def test_a_detached_head_is_ready(root, repository):
    git(root, "switch", "--quiet", "--detach")
    assert repository.check_ready() == git(root, "rev-parse", "HEAD")


def test_a_rebase_in_progress_is_refused_and_its_end_is_the_remedy(root, repository):
    git(root, "switch", "--quiet", "-c", "side")
    write(root, "program.md", "side\n")
    commit_all(root)
    git(root, "switch", "--quiet", "main")
    write(root, "program.md", "main\n")
    commit_all(root)
    git(root, "rebase", "--quiet", "main", "side", check=False)
    with pytest.raises(RepositoryError, match="in the middle of a rebase") as caught:
        repository.check_ready()
    assert "git rebase --abort" in caught.value.remedy
    git(root, "rebase", "--abort")
    assert repository.check_ready()


def test_a_merge_in_progress_elsewhere_is_fine(root, repository):
    git(root, "switch", "--quiet", "-c", "side")
    write(root, "program.md", "side\n")
    commit_all(root)
    git(root, "switch", "--quiet", "main")
    write(root, "program.md", "main\n")
    head = commit_all(root)
    git(root, "merge", "side", check=False)
    assert (root / ".git/MERGE_HEAD").exists()
    assert repository.check_ready() == head


def test_the_workload_reads_back_byte_for_byte(root, repository):
    staged = stage(repository)
    assert repository.read_workload(staged.commit) == FILES


def test_an_empty_file_and_a_unicode_name_read_back(repository):
    files = {"workload/__init__.py": b"", 'workload/größe "x".txt': b"\n", "workload/z": b"no newline"}
    assert repository.read_workload(stage(repository, files=files).commit) == files


def test_files_of_a_commit_are_read_once_and_those_of_a_name_anew(root, repository):
    commit = repository.resolve("HEAD")
    repository.read_workload(commit).clear()
    remove_object(root, "HEAD:workload/train.py")
    assert repository.read_workload(commit) == {"workload/train.py": b"x = 1\n"}
    with pytest.raises(RepositoryError, match="damaged"):
        repository.read_workload("HEAD")


@pytest.mark.parametrize("kind", ["link", "executable", "submodule"])
def test_anything_but_a_regular_file_in_workload_is_named(root, repository, kind):
    path = f"workload/{kind}"
    if kind == "link":
        (root / path).symlink_to("/etc/passwd")
    elif kind == "executable":
        write(root, path)
        (root / path).chmod(0o755)
    else:
        head = git(root, "rev-parse", "HEAD")
        git(root, "update-index", "--add", "--cacheinfo", f"160000,{head},{path}")
        git(root, "commit", "--quiet", "-m", "submodule")
    commit = git(root, "rev-parse", "HEAD") if kind == "submodule" else commit_all(root)
    with pytest.raises(RepositoryError, match=path) as caught:
        repository.read_workload(commit)
    assert caught.value.remedy


def test_a_commit_without_workload_is_refused(root, repository):
    git(root, "rm", "-r", "--quiet", "workload")
    with pytest.raises(RepositoryError, match="no workload/ folder"):
        repository.read_workload(commit_all(root))


@pytest.mark.parametrize("revision", ["nothing", "--all", "HEAD:program.md", "", "HEAD..main"])
def test_an_unknown_revision_is_a_clear_error(repository, revision):
    with pytest.raises(RepositoryError, match="no commit"):
        repository.resolve(revision)


def test_a_tree_revision_resolves_to_the_tree(repository):
    staged = stage(repository)
    assert repository.resolve(f"{staged.commit}^{{tree}}") == staged.tree


def test_a_commit_is_whole_only_with_all_its_objects(root, repository):
    base = repository.resolve("HEAD")
    commit = keep(repository)
    assert repository.is_whole([commit, base], since=base)
    assert repository.is_whole([], since=base)
    for name in (f"{commit}:workload/train.py", f"{commit}:workload/deep", commit):
        found = git(root, "rev-parse", name)
        path = root / ".git/objects" / found[:2] / found[2:]
        path.rename(path.with_suffix(".away"))
        assert not repository.is_whole([commit], since=base), name
        path.with_suffix(".away").rename(path)
    assert repository.is_whole([commit], since=base)
