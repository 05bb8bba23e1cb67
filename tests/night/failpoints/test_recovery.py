"""A start repairs a state that was damaged, changed or left half-done, or an error names it."""

from __future__ import annotations

import pytest

from runner.failpoints import Side, Step
from tests.support import scripted_night
from tests.support.failpoint_nights import final_state, git, make_repository, rows


def test_a_baseline_that_failed_stays_visible_until_the_next_start_replaces_it(night, tmp_path):
    for side in Side:
        root = make_repository(tmp_path / side / "repository")
        (root / "workload" / "train.py").write_text("BOOST = 'crash'\n")
        git(root, "-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qam", "break it")
        result = night(root)
        assert result.end == 1
        assert "the unmodified workload got no score" in result.errors
        (failed,) = rows(root, "experiments")
        assert (failed["verdict"], failed["reason"]) == ("crash", "training exited with code 1")
        git(root, "-c", "user.name=u", "-c", "user.email=u@example.org", "revert", "--no-edit", "HEAD")
        assert night(root, step=Step.CAMPAIGN_DELETED, side=side).end == -9
        assert len(rows(root, "campaigns")) == (side is Side.BEFORE), "deleted whole, or not at all"
        assert night(root).end == 0
        assert rows(root, "experiments")[0]["verdict"] == "keep"


def test_a_night_that_is_over_is_not_changed_by_another_start(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    night(root)
    tables = ("experiments", "trials", "usage", "sealed", "answers")
    before = [rows(root, table) for table in tables]
    result = night(root)
    assert result.end == 0
    assert [rows(root, table) for table in tables] == before
    assert {step for step, _ in result.reached} == {Step.LOST_TRIALS_CLOSED, Step.TARGET_SET}, "nothing to repair"


def test_a_branch_that_lost_its_last_moves_is_put_back_to_the_champion(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    night(root)
    whole = final_state(root)
    branch = f"autoresearch/{scripted_night.TAG}"
    git(root, "branch", "-f", branch, f"{branch}~1")
    assert night(root).end == 0
    assert final_state(root) == whole
    git(root, "branch", "-D", branch)
    assert night(root).end == 0
    assert final_state(root) == whole


def test_a_branch_that_lost_its_moves_during_a_keep_is_put_back_as_well(night, tmp_path, uninterrupted):
    reached, whole = uninterrupted
    root = make_repository(tmp_path / "repository")
    last = (Step.KEEP_RECORDED, Side.BEFORE)
    assert night(root, step=last[0], side=last[1], occurrence=reached.count(last)).end == -9
    git(root, "branch", "-f", f"autoresearch/{scripted_night.TAG}", "main")
    result = night(root)
    assert result.end == 0, result.errors
    assert final_state(root) == whole


@pytest.mark.parametrize("moved_to", [None, "main", "refs/autoresearch/tried/test/0009"])
def test_a_tip_that_is_missing_or_behind_is_put_back(night, tmp_path, uninterrupted, moved_to):
    """At any commit of the campaign, it has only lost its last moves."""
    reached, whole = uninterrupted
    root = make_repository(tmp_path / "repository")
    last = (Step.EXPERIMENT_OPENED, Side.AFTER)  # of the last certificate: two edits are on the tip
    assert night(root, step=last[0], side=last[1], occurrence=reached.count(last)).end == -9
    tip = f"autoresearch/{scripted_night.TAG}-tip"
    chain = git(root, "log", "--format=%s", f"autoresearch/{scripted_night.TAG}..{tip}")
    assert [subject[:8] for subject in chain.splitlines()] == ["try 0013", "try 0012"], "the single edits"
    git(root, "branch", *(["-D", tip] if moved_to is None else ["-f", tip, moved_to]))
    assert night(root, step=Step.TIP_MOVED, side=Side.AFTER).end == -9
    assert git(root, "log", "--format=%s", f"autoresearch/{scripted_night.TAG}..{tip}") == chain, "at once"
    result = night(root)
    assert result.end == 0, result.errors
    assert final_state(root) == whole


LOST = {
    "the champion's commit": ("autoresearch/test",),
    "a candidate's commit and its ref": ("refs/autoresearch/tried/test/0003",),
    "a file of the champion": ("autoresearch/test:workload/train.py",),
    "every commit of the campaign": ("autoresearch/test", "autoresearch/test~1", "refs/autoresearch/tried/*"),
    "every object of the campaign": ("--all",),
}


@pytest.mark.parametrize("names", LOST.values(), ids=LOST.keys())
def test_commits_that_git_lost_are_made_again_from_the_ledger(night, tmp_path, uninterrupted, names):
    root = make_repository(tmp_path / "repository")
    night(root)
    refs = git(root, "for-each-ref")
    tried = git(root, "for-each-ref", "--format=%(refname)", "refs/autoresearch/tried").split()
    lost = []
    for name in names:
        if name == "--all":
            lost += git(root, "rev-list", "--objects", "--no-object-names", *tried, "^main").split()
            lost += git(root, "rev-list", "main..autoresearch/test").split()
        else:
            lost += git(root, "rev-parse", *(tried if name.endswith("*") else [name])).split()
    for found in lost:
        (root / ".git" / "objects" / found[:2] / found[2:]).unlink(missing_ok=True)
    for name in names:
        if name.startswith("refs/") and not name.endswith("*"):
            (root / ".git" / name).unlink()
    assert lost
    result = night(root)
    assert result.end == 0, result.errors
    assert git(root, "for-each-ref") == refs, "the same commits"
    assert final_state(root) == uninterrupted[1]


def test_an_object_that_cannot_be_made_again_is_an_error(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    night(root)
    head = git(root, "rev-parse", "autoresearch/test").strip()
    path = root / ".git" / "objects" / head[:2] / head[2:]
    path.chmod(0o644)
    path.write_bytes(b"")  # as a file system without a journal leaves it
    result = night(root)
    assert result.end == 1
    assert "git fsck" in result.errors
    assert path.read_bytes() == b"", "what is damaged is left for a person to look at"


def test_a_file_that_was_being_written_is_removed_at_the_next_start(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    assert night(root, step=Step.FILE_REPLACED, side=Side.BEFORE).end == -9
    claims = root / ".autoresearch" / "claims" / scripted_night.TAG
    assert [path.suffix for path in claims.iterdir()] == [".partial"]
    result = night(root, step=Step.LOST_TRIALS_CLOSED, side=Side.BEFORE)
    assert result.end == -9
    assert list(claims.iterdir()) == []


@pytest.mark.parametrize(("suffix", "remedy"), [("", "git branch -f"), ("-tip", "git branch -m")])
def test_a_branch_that_a_person_moved_is_left_alone_and_named(night, tmp_path, suffix, remedy):
    root = make_repository(tmp_path / "repository")
    night(root)
    branch = f"autoresearch/{scripted_night.TAG}{suffix}"
    moved = git(
        root,
        "-c",
        "user.name=u",
        "-c",
        "user.email=u@example.org",
        "commit-tree",
        "-m",
        "mine",
        "-p",
        branch,
        f"{branch}^{{tree}}",
    ).strip()
    git(root, "branch", "-f", branch, moved)
    result = night(root)
    assert result.end == 1
    assert moved in result.errors and remedy in result.errors
    assert git(root, "rev-parse", branch).strip() == moved
