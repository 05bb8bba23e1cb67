"""The controller is killed at every step that outlives it, and in its recovery: it ends as if it never was."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.failpoints import Side, Step
from runner.records import Verdict
from tests.support import scripted_night

ROOT = Path(__file__).resolve().parents[2]
DOCKER = {
    Step.VOLUME_CREATED,
    Step.CONTAINER_CREATED,
    Step.CONTAINER_STARTED,
    Step.CONTAINER_REMOVED,
    Step.VOLUME_REMOVED,
}
"""Killed in `tests/engine/test_crashes.py`, with real containers."""
ELSEWHERE = {
    Step.CAMPAIGN_DELETED: "a workload that does not run",
    Step.LOST_TRIALS_CLOSED: "the first step of every recovery",
    Step.ATTEMPT_RECORDED: "no step of a night: `autoresearch confirm`",
}
POINTS = [(step, side) for step in Step if step not in DOCKER | ELSEWHERE.keys() for side in Side]


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def make_repository(root, kind=None):
    """A user's repository; beside it lies what chooses another night than the first one."""
    (root / "workload").mkdir(parents=True)
    for name, text in {"__init__.py": "", "model.py": "", "train.py": scripted_night.TRAIN}.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    (root / ".gitignore").write_text("/.autoresearch/\n/images/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start")
    if kind is not None:
        root.with_name(kind).touch()
    return root


def whole_night(night, root):
    """The points of a night that nobody interrupts, and its final state."""
    told = night(root)
    assert told.end == 0, told.errors
    return told.reached, final_state(root)


@dataclass(frozen=True)
class Told:
    """How a night ended, and which points it passed, in order."""

    end: int
    reached: list[tuple[str, str]]
    errors: str


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Run the night of a folder until it ends, or dies where `item` says; no temporary file may outlive it."""
    scratch = tmp_path_factory.mktemp("scratch")
    command = [sys.executable, scripted_night.__file__]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def one(root, **item):
            process.stdin.write(json.dumps({"root": str(root), "item": item}) + "\n")
            process.stdin.flush()
            end = json.loads(process.stdout.readline())["end"]
            reached = [tuple(line.split()) for line in root.with_name("reached").read_text().splitlines()]
            assert list(scratch.iterdir()) == []
            return Told(end, reached, root.with_name("errors").read_text())

        yield one
        process.stdin.close()


def rows(root, table):
    with sqlite3.connect(root / ".autoresearch" / "ledger.db") as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY rowid")]


FINAL = {"hypothesis", "category", "proposer", "model", "parameters", "retry_of", "champion", "diff", "image_id"}
FINAL |= {"combines", "layer_digest", "verdict", "reason", "val_bpb", "delta_bpb", "sigma_bpb", "number"}


def final_state(root):
    """What a night leaves: verdicts with their figures, money, refs and what they hold, sealed scores, files."""
    check_whole(root)
    experiments = [
        {**{name: row[name] for name in FINAL}, "figures": without_ids(row["figures"])}
        for row in rows(root, "experiments")
    ]
    controls = sorted(
        (row["experiment"], row["seed"], row["val_bpb"])
        for row in rows(root, "trials")
        if row["kind"] == "control" and row["outcome"] == "scored"
    )
    money = {}
    for row in rows(root, "usage"):
        money.setdefault(row["experiment"], []).append(row["cost_usd"])
    refs = dict(line.split() for line in git(root, "for-each-ref", "--format=%(refname) %(tree)").splitlines())
    history = git(root, "log", "--format=%s %T", f"main..autoresearch/{scripted_night.TAG}").splitlines()
    sealed = [(row["number"], row["seed"], row["val_bpb"], row["test_bpb"]) for row in rows(root, "sealed")]
    files = sorted(path.name for path in (root / ".autoresearch" / "claims" / scripted_night.TAG).iterdir())
    return {"experiments": experiments, "controls": controls, "money": money, "refs": refs, "history": history,
            "sealed": sealed, "files": files, "target": rows(root, "campaigns")[0]["target"]}  # fmt: skip


def without_ids(figures):
    """What a verdict rests on, but for the ids of the runs: those that a kill cut off have some as well."""
    if figures is None:
        return None
    return {**json.loads(figures), "trials": None, "pool": None}


def check_whole(root):
    """Nothing is damaged, open, doubled or left over; git stands where the ledger says."""
    assert rows(root, "pragma_integrity_check") == [{"integrity_check": "ok"}]
    git(root, "fsck", "--strict")
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "symbolic-ref", "HEAD") == "refs/heads/main\n"
    experiments, trials = rows(root, "experiments"), rows(root, "trials")
    assert [row["number"] for row in experiments] == list(range(len(experiments)))
    assert all(row["verdict"] and row["closed_at"] for row in experiments), "every attempt ends"
    assert all(row["outcome"] and row["closed_at"] for row in trials)
    kept = [row["kept_commit"] for row in experiments if row["verdict"] == Verdict.KEEP]
    branch = f"autoresearch/{scripted_night.TAG}"
    history = [
        git(root, "rev-parse", "main").strip(),
        *git(root, "rev-list", "--reverse", f"main..{branch}").split(),
    ]
    assert history == kept
    tried = git(root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/tried").split()
    assert tried == [row["tried_commit"] for row in experiments if row["tried_commit"]]
    left = [path for path in root.rglob("*") if path.name.endswith(".lock") or ".partial" in path.name]
    left += list((root / ".autoresearch" / "audits").glob("*"))
    assert [path.name for path in left] == ["controller.lock"], left


def acknowledged(root, told):
    """What was committed before a kill is there after it; returns the rows that may not change any more."""
    if not rows(root, "sqlite_master"):
        return {}
    passed = Counter(step for step, side in told.reached if side == Side.AFTER)
    experiments, trials, usage = (rows(root, table) for table in ("experiments", "trials", "usage"))
    closed = [row for row in experiments if row["verdict"]]
    kept = [row for row in closed if row["kept_commit"]]
    committed = [row for row in trials if row["claims_sha256"]]
    ended = [row for row in trials if row["outcome"]]
    assert len(rows(root, "campaigns")) >= passed[Step.CAMPAIGN_CREATED]
    assert len(experiments) >= passed[Step.EXPERIMENT_OPENED]
    assert len(closed) >= passed[Step.EXPERIMENT_CLOSED]
    assert len(kept) >= passed[Step.KEEP_RECORDED]
    assert len(trials) >= passed[Step.TRIAL_OPENED]
    assert len(committed) >= passed[Step.CLAIMS_COMMITTED]
    assert len(ended) >= passed[Step.TRIAL_CLOSED]
    assert len(usage) >= passed[Step.ANSWER_BOOKED]
    return {
        "closed": [{**row, "kept_commit": None, "kept_seq": None} for row in closed],
        "kept": kept,
        "ended": ended,
        "booked": [row for row in usage if row["experiment"] is not None],
    }


@pytest.fixture(scope="module")
def uninterrupted(night, tmp_path_factory):
    """The points of a night without a crash, and its final state."""
    return whole_night(night, make_repository(tmp_path_factory.mktemp("whole") / "repository"))


def test_the_night_crosses_every_path(uninterrupted):
    _, state = uninterrupted
    verdicts = [row["verdict"] for row in state["experiments"]]
    assert verdicts == ["keep", "discard", "keep", "crash", "crash", "invalid", "crash", "infra", "keep"]
    assert state["experiments"][4]["retry_of"] == 3
    assert "quarantined" in state["experiments"][7]["reason"]
    assert state["money"] == {None: [0.25], **{number: [0.25] for number in range(1, 9)}}
    assert len(state["sealed"]) == 4
    # After one run of others, between the looks at 2, as a new champion, and between the looks at 8.
    assert [number for number, _, _ in state["controls"]] == [0, 0, 2, 2], "the champion was measured again"


def test_every_point_is_reached_or_has_a_reason(uninterrupted):
    reached, _ = uninterrupted
    assert set(reached) >= set(POINTS), "a step that nobody passes is never tested"
    assert {step for step, _ in reached}.isdisjoint(DOCKER | ELSEWHERE.keys())


def test_the_page_says_what_a_restart_makes_of_every_step():
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    told = page.partition("### What a restart makes of each")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`([a-z]+_[a-z_]+)`", told)) == sorted(Step)


LOST_ANSWER = ((Step.ANSWER_BOOKED, Side.AFTER), (Step.ANSWER_KEPT, Side.BEFORE))
"""Killed here, an answer has begun and has not come whole: it is asked for again, its cost stays booked."""


@pytest.mark.parametrize(("step", "side"), POINTS, ids=lambda value: str(value))
def test_a_night_killed_there_and_in_its_recovery_ends_as_if_nothing_had_been(
    night, tmp_path, uninterrupted, step, side
):
    """In the middle of the night, a few steps into the recovery, and at the next time that the point is passed."""
    reached, whole = uninterrupted
    root = make_repository(tmp_path / "repository")
    middle = 1 + reached.count((step, side)) // 2
    before, lost = {}, 0
    for item in (
        {"step": step, "side": side, "occurrence": middle},
        {"reach": 1 + POINTS.index((step, side)) % 11},
        {"step": step, "side": side},
    ):
        told = night(root, **item)
        assert told.end == (0 if before and "step" in item and (step, side) not in told.reached else -9), (
            told.errors
        )
        lost += told.end != 0 and told.reached[-1] in LOST_ANSWER
        after = acknowledged(root, told)
        for name, old in before.items():
            assert [row for row in old if row not in after[name]] == [], f"{name}: changed or lost"
        before = after
    told = night(root)
    assert told.end == 0, told.errors
    state = final_state(root)
    bookings = sum(len(costs) for costs in state["money"].values())
    assert bookings == sum(len(costs) for costs in whole["money"].values()) + lost, "no answer is paid for twice"
    if lost:
        state["money"] = whole["money"]
    assert state == whole


NEVER_IDLE = [
    (step, side)
    for step in (
        Step.CONVERSATION_OPENED,
        Step.ANSWER_BOOKED,
        Step.ANSWER_KEPT,
        Step.CHECK_KEPT,
        Step.EXPERIMENT_OPENED,
        Step.TRIAL_CLOSED,
        Step.EXPERIMENT_CLOSED,
        Step.BRANCH_ADVANCED,
        Step.KEEP_RECORDED,
    )
    for side in Side
]


@pytest.fixture(scope="module")
def ahead(night, tmp_path_factory):
    """The points of a night that is never idle, and its final state."""
    root = make_repository(tmp_path_factory.mktemp("ahead") / "repository", "ahead")
    reached, state = whole_night(night, root)
    assert [row["verdict"] for row in state["experiments"]] == [
        "keep", "discard", "keep", "discard", "discard", "keep", "discard",
    ]  # fmt: skip
    assert state["money"] == {number: [0.25] for number in range(1, 7)}
    asked = rows(root, "conversations")
    assert [row["running"] for row in asked] == [None, 1, 2, 3, 4, 5], "each while the one before it ran"
    return reached, state


@pytest.mark.parametrize(("step", "side"), NEVER_IDLE, ids=lambda value: str(value))
def test_a_night_that_thinks_ahead_ends_as_if_nothing_had_been(night, tmp_path, ahead, step, side):
    """Killed on either thread, three times: what waits is found, and nothing is asked twice."""
    reached, whole = ahead
    root = make_repository(tmp_path / "repository", "ahead")
    middle = 1 + reached.count((step, side)) // 2
    for item in (
        {"step": step, "side": side, "occurrence": middle},
        {"reach": 1 + NEVER_IDLE.index((step, side)) % 7},
        {"step": step, "side": side},
    ):
        assert night(root, **item).end in (-9, 0)
    told = night(root)
    assert told.end == 0, told.errors
    state = final_state(root)
    cut = sum(row["body"] is None for row in rows(root, "answers"))
    assert cut <= 3
    assert len(rows(root, "answers")) - cut == len(scripted_night.AHEAD), "no answer is paid for twice"
    if cut:
        state["money"] = whole["money"]
    assert state == whole


AROUND_A_STOP = [
    (step, side) for step in (Step.TRIAL_OPENED, Step.TRIAL_CLOSED, Step.EXPERIMENT_CLOSED) for side in Side
]


@pytest.fixture(scope="module")
def early(night, tmp_path_factory):
    """The points of a night with a run that is stopped early, and its final state."""
    root = make_repository(tmp_path_factory.mktemp("early") / "repository", "early")
    reached, state = whole_night(night, root)
    assert [row["verdict"] for row in state["experiments"]] == ["keep", "discard", "discard", "keep"]
    assert state["experiments"][2]["val_bpb"] is None
    assert "stopped early" in state["experiments"][2]["reason"]
    return reached, state


@pytest.mark.parametrize(("step", "side"), AROUND_A_STOP, ids=lambda value: str(value))
def test_a_recorded_stop_is_settled_and_an_unrecorded_one_is_measured_again(night, tmp_path, early, step, side):
    """There is no second draw once the stop was written down."""
    reached, whole = early
    closed = [at for at, point in enumerate(reached) if point == (Step.EXPERIMENT_CLOSED, Side.AFTER)]
    occurrence = reached[: closed[2] + 1].count((step, side))  # the last one that belongs to the stopped one
    root = make_repository(tmp_path / "repository", "early")
    assert night(root, step=step, side=side, occurrence=occurrence).end == -9
    before = [row["outcome"] for row in rows(root, "trials") if row["experiment"] == 2]
    assert ("stopped" in before) == ((step, side) not in AROUND_A_STOP[:3])
    told = night(root)
    assert told.end == 0, told.errors
    assert final_state(root) == whole
    after = [row["outcome"] for row in rows(root, "trials") if row["experiment"] == 2]
    assert after.count("stopped") == 1
    assert "stopped" not in before or after == before, "what was settled is not run again"


AROUND_A_STACK = [
    (step, side)
    for step in (Step.EXPERIMENT_OPENED, Step.CANDIDATE_RECORDED, Step.TRIAL_CLOSED, Step.KEEP_RECORDED)
    for side in Side
]


@pytest.fixture(scope="module")
def stacked(night, tmp_path_factory):
    """The points of a night in which two near misses are kept together, and its final state."""
    root = make_repository(tmp_path_factory.mktemp("stack") / "repository", "stack")
    reached, state = whole_night(night, root)
    verdicts = [(row["proposer"], row["verdict"], json.loads(row["combines"])) for row in state["experiments"]]
    assert verdicts == [
        ("baseline", "keep", []),
        ("scripted", "discard", []),
        ("scripted", "discard", []),
        ("stack", "keep", [1, 2]),
        ("scripted", "keep", []),
    ]
    assert state["money"] == {number: [0.25] for number in (1, 2, 4)}, "a stack costs no answer"
    return reached, state


@pytest.mark.parametrize(("step", "side"), AROUND_A_STACK, ids=lambda value: str(value))
def test_a_stack_is_made_once_wherever_the_controller_is_killed(night, tmp_path, stacked, step, side):
    reached, whole = stacked
    opened = [at for at, point in enumerate(reached) if point == (Step.EXPERIMENT_OPENED, Side.BEFORE)]
    occurrence = reached[: opened[3]].count((step, side)) + 1  # the first one that belongs to the stack
    root = make_repository(tmp_path / "repository", "stack")
    for item in ({"step": step, "side": side, "occurrence": occurrence}, {"step": step, "side": side}):
        assert night(root, **item).end in (-9, 0)
    told = night(root)
    assert told.end == 0, told.errors
    assert final_state(root) == whole


def test_a_workload_that_does_not_run_is_forgotten_whole_wherever_that_is_interrupted(night, tmp_path):
    for side in Side:
        root = make_repository(tmp_path / side / "repository")
        (root / "workload" / "train.py").write_text("BOOST = 'crash'\n")
        git(root, "-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qam", "break it")
        assert night(root, step=Step.CAMPAIGN_DELETED, side=side).end == -9
        told = night(root)
        assert told.end == 1
        assert "the unmodified workload got no score" in told.errors
        assert rows(root, "campaigns") == rows(root, "experiments") == rows(root, "trials") == []


def test_a_night_that_is_over_is_not_changed_by_another_start(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    night(root)
    tables = ("experiments", "trials", "usage", "sealed", "answers")
    before = [rows(root, table) for table in tables]
    told = night(root)
    assert told.end == 0
    assert [rows(root, table) for table in tables] == before
    assert {step for step, _ in told.reached} == {Step.LOST_TRIALS_CLOSED, Step.TARGET_SET}, "nothing to repair"


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
    told = night(root)
    assert told.end == 0, told.errors
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
    told = night(root)
    assert told.end == 0, told.errors
    assert git(root, "for-each-ref") == refs, "the same commits"
    assert final_state(root) == uninterrupted[1]


def test_an_object_that_cannot_be_made_again_is_an_error(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    night(root)
    head = git(root, "rev-parse", "autoresearch/test").strip()
    path = root / ".git" / "objects" / head[:2] / head[2:]
    path.chmod(0o644)
    path.write_bytes(b"")  # as a file system without a journal leaves it
    told = night(root)
    assert told.end == 1
    assert "git fsck" in told.errors
    assert path.read_bytes() == b"", "what is damaged is left for a person to look at"


def test_a_file_that_was_being_written_is_removed_at_the_next_start(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    assert night(root, step=Step.FILE_REPLACED, side=Side.BEFORE).end == -9
    claims = root / ".autoresearch" / "claims" / scripted_night.TAG
    assert [path.suffix for path in claims.iterdir()] == [".partial"]
    told = night(root, step=Step.LOST_TRIALS_CLOSED, side=Side.BEFORE)
    assert told.end == -9
    assert list(claims.iterdir()) == []


def test_a_branch_that_a_person_moved_is_left_alone_and_named(night, tmp_path):
    root = make_repository(tmp_path / "repository")
    night(root)
    branch = f"autoresearch/{scripted_night.TAG}"
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
    told = night(root)
    assert told.end == 1
    assert moved in told.errors and "git branch -f" in told.errors
    assert git(root, "rev-parse", branch).strip() == moved
