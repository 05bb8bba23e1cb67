"""All that a proposal needs of a laboratory: real ledger, real git, no engine, no data."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager

import numpy as np

from runner.config import load
from runner.edits.contamination import SealedText
from runner.evaluation.trial import Laboratory
from runner.records import Proposal, Verdict
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from tests.support.silent_observer import SilentObserver

TAG = "t"
FILES = {"__init__.py": "", "model.py": "WIDTH = 64\n", "train.py": "RATE = 0.02\nSTEPS = 5\n"}


@contextmanager
def laboratory(root, **settings):
    """Open the laboratory of a repository."""
    chosen = {"tag": TAG, "profile": "cpu", "proposer": "anthropic", "smoke_seconds": 0, **settings}
    nothing = SealedText(validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[])
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        yield Laboratory(
            config=load(root, chosen, environ={}), engine=None, repository=Repository(root), ledger=ledger,
            observer=SilentObserver(), mounts=None, evaluation=None, sealed_text=nothing, redactor=None,
            scratch=root, claims=root, base_image="", conditions={},
        )  # fmt: skip


def make_repository(root):
    """A user's repository whose campaign has its baseline."""
    (root / "workload").mkdir(parents=True)
    for name, text in FILES.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start"],
        ["branch", f"autoresearch/{TAG}"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    with laboratory(root) as lab:
        base = lab.repository.resolve("HEAD")
        lab.ledger.create_campaign(tag=TAG, base_commit=base, conditions={})
        baseline = Proposal(hypothesis="baseline", edits=(), proposer="baseline")
        lab.ledger.open_experiment(TAG, baseline, diff="", champion=None)
        lab.ledger.close_experiment(TAG, 0, verdict=Verdict.KEEP, reason="baseline", val_bpb=2.0, sigma_bpb=0.01)
        lab.ledger.set_kept(TAG, 0, base)
    return root
