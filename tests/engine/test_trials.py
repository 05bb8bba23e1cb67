"""How a tip is certified in pairs, and how an unpromising training is stopped."""

from __future__ import annotations

import pytest

from runner.campaign import night as campaign
from runner.records import Phase, RunEnd
from runner.report.notes import early_stops
from tests.support.constant_workload import boost, git
from tests.support.engine_night import run
from tests.support.fake_proposers import ScriptedProposer
from tests.support.machine import changed
from tests.support.silent_observer import SilentObserver

pytestmark = pytest.mark.docker


def test_a_tip_is_certified_in_pairs_also_across_a_stop(measured_controller):
    """Stopped between both trials of a pair; tip and champion take turns to go first."""
    controller = measured_controller
    night = changed(controller, min_pairs=2, max_pairs=3, control_interval=1, experiments=2)
    stop = campaign.StopSwitch()

    class Impatient(SilentObserver):
        def note(self, message):
            stop.requested = "another trial" in message

    proposer = ScriptedProposer([boost(0.0), boost(3.0, before=0.0)])
    assert campaign.run(changed(night, observer=Impatient()), proposer, stop) == "stopped by hand"
    halfway = controller.ledger.experiments("test")[2]
    assert halfway.verdict is None and len(halfway.trials) == 1
    assert campaign.run(night, proposer, campaign.StopSwitch()) == "2 of 2 experiments done"
    rows = controller.ledger.experiments("test")
    assert [row.verdict for row in rows] == ["keep", "accept", "keep", "discard"]

    baseline, accepted, certificate, discarded = rows
    assert certificate.certifies == (1,)
    own, other = certificate.trials, baseline.control_trials
    assert all(trial.audited for trial in (*own, *other)), "whatever a keep rests on"
    assert [trial.seed for trial in own] == [trial.seed for trial in other], "no trial was made twice"
    order = [own[0], other[0], other[1], own[1]]
    assert [trial.opened_seq for trial in order] == sorted(trial.opened_seq for trial in order)
    assert certificate.figures.trials == tuple(trial.id for trial in own)
    assert certificate.figures.pool == tuple(trial.id for trial in other)
    assert certificate.val_bpb == pytest.approx(sum(trial.val_bpb for trial in own) / 2)

    assert accepted.trials[0].seed == baseline.trials[0].seed, "under the exploration seed"
    assert accepted.trials[0].audited, "nothing that was not audited is on the tip"
    assert discarded.trials[0].seed == own[0].seed, "which is that of the last certificate"
    assert [run.phase for run in discarded.runs] == [Phase.TRAIN, Phase.SCORE], "an unpromising one is seen once"


PRINTING = """\
import os
import time

from workload.checkpoint import publish

BOOST = 1.0  # logit of token 0

for step in range(1, 16):
    time.sleep(0.1)
    print(f"step {step} loss {4 + BOOST + int(os.environ['SEED']) % 100 / 1e4:.4f} tokens/s 100", flush=True)
publish(lambda path: path.write_text(str(BOOST + int(os.environ["SEED"]) % 100 / 1e5)))
"""
"""Its loss says what its score will be, for half of the time."""


def test_an_unpromising_first_trial_is_stopped_and_one_that_was_drawn_is_finished(controller):
    repository = controller.repository
    (repository.root / "workload" / "train.py").write_text(PRINTING)
    git(repository.root, "commit", "-qam", "print")
    changes = {"early_stop_min_trials": 3, "early_stop_holdout": 0.0, "audit_discards": 0.0}
    stopping = changed(controller, **changes)
    reason, rows, _ = run(stopping, [boost(1.5), boost(2.0), boost(2.5), boost(3.5), boost(0.5)], more=5)
    assert reason == "5 of 5 experiments done"
    assert [row.verdict for row in rows] == ["keep", "discard", "discard", "discard", "discard", "accept"]
    hopeless = rows[4]
    assert hopeless.val_bpb is None and hopeless.figures is None and hopeless.kept_commit is None
    (stopped,) = hopeless.runs
    # On the host's clock, which begins when PID 1's report has arrived.
    assert stopped.end is RunEnd.STOPPED and 0.6 <= stopped.wall_seconds < 1.5
    assert stopped.cpu_seconds is not None and stopped.cpu_seconds < 1.0
    assert stopped.others_cpu_seconds is not None
    assert hopeless.reason.startswith("stopped at 25% of its time: its loss 7.5")
    assert controller.ledger.experiment("test", 4).log_tail.startswith("step 1 loss 7.5")
    for row in (*rows[:4], rows[5]):
        curve = row.runs[0].curve
        assert curve.stop_reason is None and curve.losses[2] is not None and curve.losses[-1] is None
    assert [run.phase for run in rows[1].runs] == [Phase.TRAIN, Phase.SCORE]

    # The same again when the draw says so, or when no trial is to be stopped.
    for settings in ({"early_stop_holdout": 1.0}, {"early_stop_threshold": 0.0}):
        finishing = changed(controller, **{**changes, **settings})
        rows = run(finishing, [boost(3.5 + len(settings), before=0.5)], by_number=False, more=1)[1]
        assert rows[-1].val_bpb is not None
        assert [run.end for run in rows[-1].runs] == [RunEnd.FINISHED, RunEnd.FINISHED]
        assert (rows[-1].runs[0].curve.stop_reason is None) == ("early_stop_threshold" in settings)
    assert early_stops(rows).finished == 1
    assert early_stops(rows).stopped == 1 and early_stops(rows).saved_seconds > 0.1
