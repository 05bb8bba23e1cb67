"""A night of one experiment in real containers, in a process that kills itself at a crash point.

    python killed_night.py ROOT DATA LOCKED BASE_IMAGE [STEP SIDE OCCURRENCE]

ROOT is a repository with the workload of `constant_workload`, DATA the tiny data set, LOCKED a pinned copy of the
locked evaluation. Without a step the night runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runner import config, failpoints
from runner.campaign import night as campaign
from runner.campaign.setup import remove_leftovers
from runner.sandbox import connect, remove_orphans
from runner.storage.lock import exclusive
from runner.storage.paths import StatePaths
from tests.support import short_pauses
from tests.support.constant_workload import boost
from tests.support.fake_proposers import ScriptedProposer
from tests.support.machine import Ground, open_controller
from tests.support.silent_observer import SilentObserver

TAG = "test"
VOCAB_SIZE, CONTEXT = 64, 16


def night(root, data, locked, base_image):
    """What `autoresearch overnight` does for the tiny data set."""
    paths = StatePaths(root / ".autoresearch")
    settings = {"profile": "cpu", "tag": TAG, "max_disturbance": 1, "train_seconds": 5, "score_seconds": 20}
    changes = {
        "vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "baseline_runs": 2, "noise_prior_bpb": 0.001,
        "experiments": 1, "certify": "each", "min_pairs": 1, "max_pairs": 1,
    }  # fmt: skip
    made = config.load(root, settings, environ={}).model_copy(update=changes)
    ground = Ground(engine=connect(), data=data, locked=locked, base_image=base_image)
    with exclusive(paths.root), open_controller(ground, root, made, observer=SilentObserver()) as controller:
        remove_orphans(controller.evaluator.engine, controller.ledger.controller)
        remove_leftovers(paths)
        if "baseline" in sys.argv:
            campaign.ensure_baseline(campaign.open_campaign(controller))
        else:
            campaign.run(controller, ScriptedProposer([boost(0.0)], by_number=True), campaign.StopSwitch())


def main():
    """Arm, and run."""
    root, data, locked = map(Path, sys.argv[1:4])
    if len(sys.argv) > 6:
        target, occurrence = tuple(sys.argv[5:7]), int(sys.argv[7])
        left = occurrence

        def on_reach(step, side):
            nonlocal left
            if step == failpoints.Step.VOLUME_CREATED and target[0].startswith("container"):
                left = occurrence  # of one attempt: a busy machine may repeat it
            left -= (step, side) == target
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.on_reach = on_reach
    short_pauses.shorten()
    night(root, data, locked, sys.argv[4])


if __name__ == "__main__":
    main()
