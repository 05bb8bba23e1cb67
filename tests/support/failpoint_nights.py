"""Nights in a process that can be killed at every failpoint, and what must hold of the state that they leave."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

from runner.failpoints import Side, Step
from runner.records import Verdict
from tests.support import scripted_night

DOCKER = {
    Step.VOLUME_CREATED,
    Step.CONTAINER_CREATED,
    Step.CONTAINER_STARTED,
    Step.CONTAINER_REMOVED,
    Step.VOLUME_REMOVED,
}
"""Steps of the engine: killed in `tests/engine/test_crashes.py`, with real containers, and nowhere else."""


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
    """The points of an uninterrupted night, and its final state."""
    result = night(root)
    assert result.end == 0, result.errors
    return result.reached, final_state(root)


@dataclass(frozen=True)
class NightResult:
    """How a night ended, and which points it passed, in order."""

    end: int
    reached: list[tuple[str, str]]
    errors: str


def rows(root, table):
    with closing(sqlite3.connect(root / ".autoresearch" / "ledger.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY rowid")]


FINAL = {"hypothesis", "category", "proposer", "model", "parameters", "retry_of", "champion", "parent", "diff"}
FINAL |= {
    "certifies",
    "image_id",
    "layer_digest",
    "verdict",
    "reason",
    "val_bpb",
    "delta_bpb",
    "sigma_bpb",
    "number",
}


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
    assert git(root, "rev-parse", f"{branch}-tip").strip() == tip_commit(experiments)
    tried = git(root, "for-each-ref", "--format=%(objectname)", "refs/autoresearch/tried").split()
    assert tried == [row["tried_commit"] for row in experiments if row["tried_commit"]]
    left = [path for path in root.rglob("*") if path.name.endswith(".lock") or ".partial" in path.name]
    left += list((root / ".autoresearch" / "audits").glob("*"))
    assert [path.name for path in left] == ["controller.lock"], left


def tip_commit(experiments):
    """Where the ledger says that the tip's branch stands."""
    tip = champion = None
    for row in sorted(experiments, key=lambda row: row["closed_seq"]):
        certified, verdict = json.loads(row["certifies"]), row["verdict"]
        if verdict == Verdict.KEEP:
            tip = champion = row["kept_commit"]
        elif verdict == Verdict.ACCEPT:
            tip = row["tried_commit"]
        elif certified and verdict in (Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID):
            tip = champion
    return tip


def acknowledged(root, result):
    """What was committed before a kill is there after it; returns the rows that may not change any more."""
    if not rows(root, "sqlite_master"):
        return {}
    passed = Counter(step for step, side in result.reached if side == Side.AFTER)
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
