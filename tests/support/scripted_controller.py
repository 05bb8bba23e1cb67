"""A controller with real ledger and git, without engine or data: everything that a proposal needs."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from runner.campaign.campaign import Campaign, Controller
from runner.campaign.candidate import stage
from runner.campaign.promotion import point_tip, promote
from runner.config import load
from runner.corpus.redaction import Redactor
from runner.edits.contamination import SealedText
from runner.evaluation.evaluator import Evaluator
from runner.records import Proposal, Ruling, Verdict
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from tests.support.ledgers import record_trial
from tests.support.silent_observer import SilentObserver
from tests.support.trials import scored

TAG = "t"
BASELINE_BPB = 2.0
FILES = {"__init__.py": "", "model.py": "WIDTH = 64\n", "train.py": "RATE = 0.02\nSTEPS = 5\n"}


def no_sealed_text():
    """Text that contains nothing which a candidate could repeat."""
    return SealedText(validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[])


def make_controller(config, ledger, repository, *, conditions, redactor=None, **evaluator):
    """A controller without a machine.

    Args:
        evaluator: what its evaluator has; nothing otherwise.
    """
    observer = evaluator.pop("observer", None) or SilentObserver()
    parts = {
        "engine": SimpleNamespace(client=None), "mounts": SimpleNamespace(locked=None), "rows": None,
        "scratch": repository.root, "claims": repository.root, "base": SimpleNamespace(id=""), **evaluator,
    }  # fmt: skip
    return Controller(
        config=config,
        ledger=ledger,
        repository=repository,
        evaluator=Evaluator(
            config=config, controller=ledger.controller, redactor=redactor, observer=observer, **parts
        ),
        sealed_text=no_sealed_text(),
        conditions=conditions,
        observer=observer,
    )


@contextmanager
def controller(root, *, conditions=None, redactor: Redactor | None = None, evaluator=None, **settings):
    """Open the controller of a repository."""
    chosen = {"tag": TAG, "profile": "cpu", "proposer": "anthropic", "smoke_seconds": 0, **settings}
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        yield make_controller(
            load(root, chosen, environ={}),
            ledger,
            Repository(root),
            conditions=conditions or {},
            redactor=redactor,
            **(evaluator or {}),
        )


@contextmanager
def campaign(root, **options):
    """The campaign that `make_repository` made."""
    with controller(root, **options) as made:
        yield Campaign(made, made.ledger.campaign(TAG))


def make_repository(root, files=None):
    """A user's repository whose campaign has its baseline."""
    (root / "workload").mkdir(parents=True)
    for name, text in (files or FILES).items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "-A"],
        ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    with controller(root) as made:
        base = made.repository.resolve("HEAD")
        opened = Campaign(made, made.ledger.create_campaign(tag=TAG, base_commit=base, conditions={}))
        opened.open(Proposal(hypothesis="baseline", edits=(), proposer="baseline"), diff="", parent=None)
        record_candidate(opened, 0)
        for index, away in enumerate((0.0, -0.001, 0.001)):
            record(opened, 0, scored(BASELINE_BPB + away, opened.seed(0, index), claims_sha256="baseline's"))
        ruling = Ruling(verdict=Verdict.KEEP, reason="baseline", val_bpb=BASELINE_BPB, sigma_bpb=0.01)
        promote(opened, opened.close(0, ruling))
        point_tip(opened)
    return root


def record_candidate(campaign, number):
    """Commit the candidate of an open experiment, as if its image were built."""
    commit = stage(campaign, campaign.experiments[number]).commit
    campaign.ledger.set_candidate(campaign.tag, number, commit=commit, image_id="i", layer_digest="l")
    return campaign.reload(number)


def record(campaign, number, trial):
    """Put a trial into the ledger, as its kind and seed say; returns it as it is read back."""
    trial_id = record_trial(campaign.ledger, number, trial, campaign.tag)
    one = campaign.reload(number)
    return next(trial for trial in (*one.trials, *one.control_trials) if trial.id == trial_id)
