"""A night of one experiment in real containers, in a process that kills itself at a crash point.

    python killed_night.py ROOT DATA LOCKED BASE_IMAGE [STEP SIDE OCCURRENCE]

ROOT is a repository with the workload of `test_campaign.py`, DATA the tiny data set, LOCKED a pinned copy of the
locked evaluation. Without a step the night runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from locked_eval.preparation.index import IndexBuilder
from runner import config, failpoints
from runner.campaign import night as campaign
from runner.campaign.setup import remove_leftovers
from runner.corpus.redaction import Redactor
from runner.edits.contamination import SealedText
from runner.evaluation.audit import Evaluation
from runner.evaluation.trial import Laboratory
from runner.records import Proposal, Replace
from runner.sandbox import connect, remove_orphans
from runner.sandbox.session import Mounts
from runner.storage.ledger import Ledger
from runner.storage.lock import exclusive
from runner.storage.paths import StatePaths
from runner.storage.repository import Repository
from tests.support.fake_proposers import ScriptedProposer
from tests.support.silent_observer import SilentObserver

TAG = "test"
VOCAB_SIZE, CONTEXT = 64, 16


def better(request):
    """An edit that helps."""
    edit = Replace(path="workload/train.py", old="BOOST = 1.0", new="BOOST = 0.0")
    return Proposal(hypothesis="boost 0", edits=(edit,), proposer="scripted")


def night(root, data, locked, base_image):
    """What `autoresearch overnight` does for the tiny data set."""
    state = root / ".autoresearch"
    train = {path.name: path for path in (data / "train").iterdir()}
    nothing = SealedText(validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[])
    settings = {"profile": "cpu", "tag": TAG, "max_disturbance": 1, "train_seconds": 5, "score_seconds": 20}
    changes = {
        "vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "baseline_runs": 2, "noise_prior_bpb": 0.001,
        "experiments": 1, "min_trials": 1, "max_trials": 1, "stack_sigmas": 0,
    }  # fmt: skip
    with Ledger(state / "ledger.db") as ledger, exclusive(state):
        engine = connect()
        remove_orphans(engine, ledger.controller)
        remove_leftovers(StatePaths(state))
        lab = Laboratory(
            config=config.load(root, settings, environ={}).model_copy(update=changes),
            engine=engine,
            repository=Repository(root),
            ledger=ledger,
            observer=SilentObserver(),
            mounts=Mounts(locked=locked, train=lambda _: train, val=data / "val", test=data / "test"),
            evaluation=Evaluation(
                val_rows=np.load(data / "val" / "rows.npy"),
                test_rows=np.load(data / "test" / "rows.npy"),
                token_bytes=np.array([2] * (VOCAB_SIZE - 1) + [0], dtype=np.uint16),
                train_text=np.fromfile(data / "train" / "shard-00.bin", "<u2"),
            ),
            sealed_text=nothing,
            redactor=Redactor(index=IndexBuilder(0).finish(), tokens=[]),
            scratch=state / "audits",
            claims=state / "claims",
            base_image=base_image,
            conditions={"data": "d" * 64, "evaluation": "e" * 64, "base_image": "cpu-0"},
        )
        if "baseline" in sys.argv:
            campaign.ensure_baseline(lab, campaign.open_campaign(lab), campaign.StopSwitch())
        else:
            campaign.run(lab, ScriptedProposer([better], by_number=True), campaign.StopSwitch())


def main():
    """Arm, and run."""
    root, data, locked = map(Path, sys.argv[1:4])
    if len(sys.argv) > 6:
        target, left = tuple(sys.argv[5:7]), int(sys.argv[7])

        def on_reach(step, side):
            nonlocal left
            left -= (step, side) == target
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.on_reach = on_reach
    night(root, data, locked, sys.argv[4])


if __name__ == "__main__":
    main()
