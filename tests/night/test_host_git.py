"""Changes that people and their programs make to the repository in the middle of a night."""

from __future__ import annotations

import pytest

from tests.support.host_night import BRANCH, TRAINING, commit, git

STALE = {
    "index.lock": None,
    "HEAD.lock": None,
    "packed-refs.lock": None,
    "config.lock": None,
    "shallow.lock": None,
    f"refs/heads/{BRANCH}.lock": "a keep",
    "refs/autoresearch/tried/test/0002.lock": "a candidate",
}
"""Lock files that a dead git left → what cannot be written then."""


@pytest.mark.parametrize(("name", "hindered"), STALE.items(), ids=[name.replace("/", "-") for name in STALE])
def test_a_stale_lock_hinders_only_what_it_locks(night, whole, name, hindered):
    process = night.start(gates=[("experiment_opened", "after", 3)])
    process.at_gate()
    lock = night.root / ".git" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    process.open_gate()
    ended = process.end()
    if hindered is not None:
        assert ended.code == 1
        assert str(name) in ended.told()
        assert "when no other git is running: rm " in ended.told()
        assert lock.exists(), "it may be in use"
        lock.unlink()
        ended = night.run()
    assert ended.code == 0, ended.errors
    assert hindered or lock.exists()
    lock.unlink(missing_ok=True)
    assert night.final_state() == whole


def picture(root):
    """What the user has: files with their times, index, branches of theirs, HEAD, stash, configuration."""
    files = {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {".git", ".autoresearch"} & set(path.relative_to(root).parts)
    }
    kept = ("HEAD", "index", "config", "ORIG_HEAD", "REBASE_HEAD", "MERGE_HEAD", "refs/stash", "logs/HEAD")
    inside = {one: (root / ".git" / one).read_bytes() for one in kept if (root / ".git" / one).exists()}
    return (
        files,
        inside,
        git(root, "for-each-ref", "refs/heads", "refs/tags", f"--exclude=refs/heads/{BRANCH}", check=False),
    )


def switch(root):
    git(root, "switch", "-qc", "elsewhere")


def detach(root):
    git(root, "switch", "-q", "--detach")


def make_commit(root):
    (root / "workload" / "train.py").write_text("BOOST = 40.0\n")
    commit(root, "mine")


def edit(root):
    (root / "workload" / "train.py").write_text("BOOST = broken\n")
    (root / "workload" / "model.py").unlink()
    (root / "notes.txt").write_text("mine")


def stage(root):
    edit(root)
    git(root, "add", "-A")


def stash(root):
    edit(root)
    git(root, "-c", "user.name=u", "-c", "user.email=u@e", "stash", "-q", "--include-untracked")


def begin_rebase(root):
    """One that stops at a conflict."""
    git(root, "switch", "-qc", "feature")
    make_commit(root)
    git(root, "switch", "-q", "main")
    (root / "workload" / "train.py").write_text("BOOST = 50.0\n")
    commit(root, "theirs")
    git(root, "-c", "user.name=u", "-c", "user.email=u@e", "rebase", "-q", "main", "feature", check=False)
    assert (root / ".git" / "rebase-merge").exists()


def amend(root):
    """The campaign's base is on no branch any more."""
    make_commit(root)
    git(root, "-c", "user.name=u", "-c", "user.email=u@e", "commit", "-q", "--amend", "-m", "rewritten")


def collect_garbage(root):
    git(root, "reflog", "expire", "--expire=now", "--all")
    git(root, "gc", "-q", "--prune=now")


ACTS = [switch, detach, make_commit, edit, stage, stash, begin_rebase, amend, collect_garbage]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_night_goes_on_whatever_happens_in_the_checkout_and_leaves_it_alone(night, whole, act):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    act(night.root)
    before = picture(night.root)
    process.open_gate()
    ended = process.end()
    assert ended.code == 0, ended.errors
    assert picture(night.root) == before
    assert night.final_state() == whole


@pytest.mark.parametrize(
    "gate", [("objects_written", "after", 3), ("commit_written", "after", 3), ("branch_advanced", "before", 2)]
)
def test_objects_that_garbage_collection_takes_before_they_have_a_name_are_written_again(night, whole, gate):
    process = night.start(gates=[gate])
    process.at_gate()
    collect_garbage(night.root)
    process.open_gate()
    ended = process.end()
    assert ended.code == 0, ended.errors
    assert night.final_state() == whole


def test_everything_tried_and_kept_survives_garbage_collection(night, whole):
    assert night.run().code == 0
    commits = [row["tried_commit"] for row in night.rows("experiments")]
    collect_garbage(night.root)
    for one in commits:
        assert git(night.root, "cat-file", "-t", one) == "commit\n"
    assert night.final_state() == whole


def delete_branch(root):
    git(root, "branch", "-qD", BRANCH)


def move_branch(root):
    git(root, "switch", "-q", BRANCH)
    (root / "notes.txt").write_text("mine")
    commit(root, "mine")
    git(root, "switch", "-q", "main")


def check_out_branch(root):
    git(root, "switch", "-q", BRANCH)


MEDDLING = {
    delete_branch: (BRANCH, lambda root: None),
    move_branch: (BRANCH, lambda root: git(root, "branch", "-qf", BRANCH, f"{BRANCH}^")),
    check_out_branch: (f"branch {BRANCH} is checked out", lambda root: git(root, "switch", "-q", "--detach")),
}
"""A change to the campaign's branch → the name in the error, and its remedy."""


@pytest.mark.parametrize("act", MEDDLING, ids=lambda act: act.__name__)
def test_meddling_with_the_campaigns_branch_is_one_clear_error_and_nothing_is_overwritten(night, whole, act):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    act(night.root)
    stands = git(night.root, "rev-parse", BRANCH, check=False)
    before = picture(night.root)
    process.open_gate()
    ended = process.end()
    assert ended.code == 1
    named, remedy = MEDDLING[act]
    assert named in ended.told()
    assert git(night.root, "rev-parse", BRANCH, check=False) == stands
    assert picture(night.root) == before
    remedy(night.root)
    ended = night.run()
    assert ended.code == 0, ended.errors
    assert night.final_state() == whole


def test_an_edited_program_is_read_for_the_next_idea_and_a_removed_one_is_an_error_with_a_remedy(night, whole):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    (night.root / "program.md").unlink()
    process.open_gate()
    ended = process.end()
    assert ended.code == 2
    assert "program.md" in ended.told()
    assert "git checkout -- program.md" in ended.told()
    git(night.root, "checkout", "--", "program.md")
    (night.root / "program.md").write_text("Something else.\n")
    assert night.run().code == 0
    assert night.final_state() == whole
