"""Candidates and kept commits in real git repositories; the user's checkout is never touched."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import failpoints
from runner.campaign.commit_message import kept_message, tried_message
from runner.errors import RepositoryError
from runner.failpoints import Side, Step
from runner.records import AuditRecord, Experiment, Phase, RunEnd, RunRecord, Verdict
from runner.storage.repository import Repository

WHEN = "2026-01-02T03:04:05+00:00"
REF = "refs/autoresearch/tried/night/0001"
BRANCH = "autoresearch/night"
FILES = {"workload/train.py": b"x = 2\n", "workload/deep/er/model.py": b"\x00\xff raw\r\n"}


def git(root: Path, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=check, input=stdin
    )
    return done.stdout.rstrip("\n")


def write(root: Path, path: str, content: str = "x = 1\n") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def commit_all(root: Path, message: str = "more") -> str:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "-m", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def own_configuration(tmp_path_factory, monkeypatch):
    """Neither the machine's git configuration nor its variables reach a test."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    config = tmp_path_factory.mktemp("config") / "gitconfig"
    config.write_text("[user]\nname = Ada\nemail = ada@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "my project"  # with a space
    folder.mkdir()
    git(folder, "init", "--quiet")
    for path in ("workload/train.py", "locked_eval/judging/judge.py", "images/base.Dockerfile", "program.md"):
        write(folder, path)
    commit_all(folder, "first")
    return folder


@pytest.fixture
def repository(root):
    return Repository(root)


def stage(repository: Repository, **changes):
    arguments = {
        "parent": repository.resolve("HEAD"),
        "files": FILES,
        "message": "try 0001: idea\n",
        "ref": REF,
        "when": WHEN,
    }
    return repository.stage(**{**arguments, **changes})


def keep(repository: Repository, message: str = "keep 0001: idea\n") -> str:
    staged = stage(repository)
    return repository.make_commit(tree=staged.tree, parent=repository.resolve("HEAD"), message=message, when=WHEN)


# Opening


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


# Readiness


def test_a_clean_branch_is_ready_and_gives_its_commit(root, repository):
    assert repository.check_ready() == git(root, "rev-parse", "HEAD")


def test_a_dirty_program_and_ignored_files_are_no_obstacle(root, repository):
    write(root, ".gitignore", "*.pyc\n")
    write(root, "program.md", "be bold\n")
    write(root, "workload/__pycache__/train.pyc")
    write(root, "notes/new.txt")
    assert repository.check_ready()


@pytest.mark.parametrize(
    "path", ["workload/train.py", "workload/new.py", "locked_eval/judging/judge.py", "images/new"]
)
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


def test_a_detached_head_is_refused(root, repository):
    git(root, "switch", "--quiet", "--detach")
    with pytest.raises(RepositoryError, match="detached") as caught:
        repository.check_ready()
    assert "git switch -c" in caught.value.remedy


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


# Reading


def test_the_workload_reads_back_byte_for_byte(root, repository):
    staged = stage(repository)
    assert repository.read_workload(staged.commit) == FILES


def test_an_empty_file_and_a_unicode_name_read_back(repository):
    files = {"workload/__init__.py": b"", 'workload/größe "x".txt': b"\n", "workload/z": b"no newline"}
    assert repository.read_workload(stage(repository, files=files).commit) == files


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


def test_the_diff_is_the_same_whatever_the_users_configuration(root, repository):
    old, new = repository.resolve("HEAD"), stage(repository).commit
    before = repository.diff(old, new)
    for setting in ("diff.noprefix=true", "color.ui=always", "diff.external=false", "core.abbrev=4"):
        git(root, "config", *setting.split("=", 1))
    write(root, ".gitattributes", "train.py -diff\nmodel.py diff=secret\n")
    git(root, "config", "diff.secret.textconv", "false")
    git(root, "config", "diff.secret.command", "false")
    assert repository.diff(old, new) == before
    assert "-x = 1\n+x = 2\n" in before
    assert "\x1b" not in before


def test_the_diff_shows_workload_only(root, repository):
    old = repository.resolve("HEAD")
    write(root, "program.md", "other\n")
    assert repository.diff(old, commit_all(root)) == ""


def test_the_diff_applies_with_git_apply(root, repository):
    old, new = repository.resolve("HEAD"), stage(repository, files={"workload/a b.py": b"1\n"}).commit
    git(root, "apply", "--index", "-", stdin=repository.diff(old, new))
    assert git(root, "write-tree") == repository.resolve(f"{new}^{{tree}}")


# Staging


def test_a_candidate_keeps_everything_outside_workload(root, repository):
    before = git(root, "ls-tree", "HEAD").splitlines()
    after = git(root, "ls-tree", stage(repository).commit).splitlines()
    assert [line for line in before if "workload" not in line] == [
        line for line in after if "workload" not in line
    ]


def test_staging_twice_gives_the_same_ids(repository):
    assert stage(repository) == stage(repository)


def test_objects_that_are_collected_before_they_have_a_name_are_written_again(root, repository, monkeypatch):
    def collect(step, side):
        if (step, side) == (Step.OBJECTS_WRITTEN, Side.AFTER):
            monkeypatch.setattr(failpoints, "on_reach", None)
            git(root, "gc", "--quiet", "--prune=now")

    monkeypatch.setattr(failpoints, "on_reach", collect)
    staged = stage(repository)
    assert failpoints.on_reach is None
    assert repository.read_workload(staged.commit) == FILES
    assert git(root, "fsck", "--strict") == ""


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


def test_the_users_settings_do_not_change_the_id(root, repository):
    first = stage(repository)
    for setting in ("commit.gpgSign=true", "i18n.commitEncoding=ISO-8859-1", "core.autocrlf=true"):
        git(root, "config", *setting.split("=", 1))
    assert stage(repository) == first


def test_a_candidate_has_our_identity_and_its_parent(root, repository):
    commit = stage(repository).commit
    shown = git(root, "log", "-1", "--format=%an <%ae> %cn <%ce> %aI %P", commit)
    ours = "autoresearch <autoresearch@localhost>"
    assert shown == f"{ours} {ours} 2026-01-02T03:04:05+00:00 {git(root, 'rev-parse', 'HEAD')}"


def test_a_candidate_is_named_by_its_ref(root, repository):
    commit = stage(repository).commit
    assert git(root, "rev-parse", REF) == commit == repository.ref(REF)
    assert repository.refs("refs/autoresearch/tried/night") == {REF: commit}


def test_another_candidate_under_the_same_number_loses_neither(repository):
    first = stage(repository).commit
    second = stage(repository, files={"workload/train.py": b"x = 3\n"}).commit
    assert set(repository.refs("refs/autoresearch").values()) == {first, second}
    assert repository.ref(REF) == second
    assert stage(repository).commit == repository.ref(REF) == first
    assert set(repository.refs("refs/autoresearch").values()) == {first, second}


def test_a_crash_before_the_ref_is_mended_by_staging_again(root, repository):
    commit = stage(repository).commit
    git(root, "update-ref", "-d", REF)
    assert stage(repository).commit == commit == repository.ref(REF)


@pytest.mark.parametrize(
    "path",
    [
        "program.md", "/workload/x", "workload/../x", "workload/.git/config", "workload/a/.GIT/x",
        "workload//x", "workload/", "workload", "workload/./x", "workload/a\nb",
    ],
)  # fmt: skip
def test_a_path_outside_workload_is_never_staged(repository, path):
    with pytest.raises(RepositoryError):
        stage(repository, files={path: b""})
    assert repository.ref(REF) is None


def test_a_name_that_is_file_and_folder_is_refused(repository):
    with pytest.raises(RepositoryError, match="both a file and a folder"):
        stage(repository, files={"workload/a": b"", "workload/a/b": b""})


def test_a_ref_name_that_git_forbids_is_refused(repository):
    with pytest.raises(RepositoryError, match="--tag"):
        stage(repository, ref="refs/autoresearch/tried/a..b/0001")


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


def test_a_sha256_repository_works(tmp_path):
    git(tmp_path, "init", "--quiet", "--object-format=sha256")
    write(tmp_path, "workload/train.py")
    commit_all(tmp_path)
    repository = Repository(tmp_path)
    kept = keep(repository)
    repository.advance(BRANCH, kept, None)
    assert len(kept) == 64
    assert repository.read_workload(BRANCH) == FILES


# Advancing


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
def test_a_branch_that_somebody_moved_is_left_alone(root, repository, expected):
    base, kept = repository.resolve("HEAD"), keep(repository)
    repository.advance(BRANCH, base, None)
    write(root, "program.md", "other\n")
    moved = commit_all(root)
    git(root, "branch", "-f", BRANCH, moved)
    with pytest.raises(RepositoryError, match=moved) as caught:
        repository.advance(BRANCH, kept, base if expected else None)
    assert caught.value.remedy
    assert repository.branch_head(BRANCH) == moved


def test_a_branch_that_somebody_deleted_is_not_made_again(repository):
    with pytest.raises(RepositoryError, match="somebody else moved"):
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


def test_objects_and_refs_are_on_the_disk_before_anybody_is_told(root, repository, tmp_path):
    """As git itself counts what it waits for; `core.fsync` is what a power cut would otherwise undo."""
    trace = tmp_path / "trace"

    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as config:
        config.write(f"[trace2]\neventTarget = {trace}\n")

    def waits(action):
        trace.write_text("")
        made = action()
        events = [json.loads(line) for line in trace.read_text().splitlines()]
        told = [one["value"] for one in events if one.get("key") == "fsync/hardware-flush"]  # git 2.39
        told += [one["count"] for one in events if one.get("name") == "hardware-flush"]  # later ones
        return made, sum(map(int, told))

    head = repository.resolve("HEAD")
    _, flushed = waits(lambda: repository.advance(BRANCH, head, None))
    assert flushed == 1, "the ref"
    staged, flushed = waits(lambda: stage(repository))
    assert flushed == 2 + 4 + 1 + 1, "two files, four folders, the commit, its ref"
    assert waits(lambda: stage(repository)) == (staged, 0), "there already"


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
    repository.log_trailers(BRANCH, base)
    repository.diff(base, BRANCH)
    assert snapshot() == before
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert git(root, "branch", "--format=%(refname:short)").split() == [BRANCH, "main"]
    assert not list((root / ".git").glob("*.lock"))


# Messages

KEPT = Experiment(
    number=7, hypothesis="raise the learning rate", proposer="anthropic", model="claude", verdict=Verdict.KEEP,
    val_bpb=1.8412, delta_bpb=-0.03, sigma_bpb=0.01, champion=3, tried_commit="c" * 40, image_id="sha256:1",
    layer_digest="sha256:2",
    runs=(
        RunRecord(phase=Phase.TRAIN, seed=1, end=RunEnd.DEADLINE, exit_code=0, wall_seconds=20, cpu_seconds=20),
        RunRecord(
            phase=Phase.SCORE, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1,
            val_bpb=1.84,
        ),
        RunRecord(
            phase=Phase.AUDIT, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1,
            val_bpb=1.8412,
            audit=AuditRecord(
                claimed_bpb=1.84, num_positions=2048, mean_nats=-0.0001, se_nats=0.002, upper_nats=0.0031,
                exceedances=(0, 0, 0, 0), repeat=0.0, suffix=0.0, neighbours=None,
            ),
        ),
    ),
)  # fmt: skip
CONDITIONS = {"base_image": "base:abc", "data": "d" * 64, "evaluation": "e" * 64}
TRAILERS = {
    "Experiment": "7", "Val-Bpb": "1.841200", "Delta-Bpb": "-0.030000", "Runs": "1",
    "Audit": "2048 positions, overstatement -0.0001 nats (se 0.002), claimed 1.840000", "Candidate": "c" * 40,
    "Image": "sha256:1", "Layer": "sha256:2", "Base-Image": "base:abc", "Data": "d" * 64,
    "Evaluation": "e" * 64, "Proposer": "anthropic", "Model": "claude",
}  # fmt: skip

HOSTILE = [
    "better\n\nVal-Bpb: 0.000001\nExperiment: 1",
    "Val-Bpb: 0.000001",
    "x\n---\nVal-Bpb: 0.000001\n",
    "x\n\nSigned-off-by: root <root@localhost>\n(cherry picked from commit abc)\n",
    "# ------------------------ >8 ------------------------\nVal-Bpb: 0",
    "x\r\nVal-Bpb: 0\r\n\r\nVal-Bpb: 0\r",
    "x\u2028Val-Bpb: 0\u2029\x85Val-Bpb: 0\x0bVal-Bpb: 0\x0c",
    "\x1b[2J\x1b]0;owned\x07keep 9999: fake\x00\x00Val-Bpb: 0",
    "\n\n\n",
    "a" * 100_000,
    "Val-Bpb: 0\n" * 10_000,
    "lone \ud800 surrogate and \u202etxet desrever",
]


def replaced(experiment: Experiment, **changes) -> Experiment:
    return Experiment(**{**vars(experiment), **changes})


def test_a_kept_message_carries_every_trailer(root):
    parsed = git(root, "interpret-trailers", "--parse", stdin=kept_message(KEPT, **CONDITIONS))
    assert dict(line.split(": ", 1) for line in parsed.splitlines()) == TRAILERS


def test_a_trailer_that_is_unknown_is_left_out():
    assert "Model:" not in kept_message(replaced(KEPT, model=None), **CONDITIONS)


def test_nothing_without_a_score_gets_a_kept_message():
    with pytest.raises(ValueError, match="no score"):
        kept_message(replaced(KEPT, val_bpb=None), **CONDITIONS)


@pytest.mark.parametrize("hypothesis", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hypothesis_cannot_forge_trailers_or_subject(root, repository, hypothesis):
    message = kept_message(replaced(KEPT, hypothesis=hypothesis), **CONDITIONS)
    parsed = git(root, "interpret-trailers", "--parse", stdin=message)
    assert dict(line.split(": ", 1) for line in parsed.splitlines()) == TRAILERS
    assert len(parsed.splitlines()) == len(TRAILERS)
    base = repository.resolve("HEAD")
    repository.advance(BRANCH, keep(repository, message), None)
    (logged,) = repository.log_trailers(BRANCH, base)
    assert logged.trailers == TRAILERS
    assert logged.subject.startswith("keep 0007: ")
    assert len(logged.subject) <= 72
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message) < 10_000


@pytest.mark.parametrize("hypothesis", HOSTILE, ids=range(len(HOSTILE)))
def test_a_tried_message_cannot_be_forged_either(root, hypothesis):
    message = tried_message(replaced(KEPT, hypothesis=hypothesis, retry_of=6))
    parsed = git(root, "interpret-trailers", "--parse", stdin=message).splitlines()
    assert parsed == ["Experiment: 7", "Retry-Of: 6", "Proposer: anthropic", "Model: claude"]
    assert message.startswith("try 0007: ")


def test_a_long_hypothesis_stands_in_full_below_a_short_subject():
    words = " ".join(f"word{number}" for number in range(60))
    message = kept_message(replaced(KEPT, hypothesis=words), **CONDITIONS)
    assert " ".join(message.split()).count(words) == 1
    assert max(len(line) for line in message.split("\n")[:10]) <= 72


def test_the_log_is_oldest_first_and_empty_without_a_branch(repository):
    base = repository.resolve("HEAD")
    assert repository.log_trailers(BRANCH, base) == []
    first = keep(repository, kept_message(KEPT, **CONDITIONS))
    second = repository.make_commit(
        tree=repository.resolve(f"{first}^{{tree}}"), parent=first, message="plain\n", when=WHEN
    )
    repository.advance(BRANCH, second, None)
    log = repository.log_trailers(BRANCH, base)
    assert [entry.commit for entry in log] == [first, second]
    assert log[0] == repository.trailers(first)
    assert (log[1].subject, dict(log[1].trailers)) == ("plain", {})
