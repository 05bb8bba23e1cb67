"""Keeps left out, and a claim confirmed, with real containers: nothing is recorded and nothing stays."""

from __future__ import annotations

import pytest

from runner import edits
from runner.campaign.campaign import Campaign
from runner.campaign.champion import run_control
from runner.campaign.studies import ablate, confirm
from runner.campaign.studies.ablate import State
from runner.decision.history import champion
from runner.records import Patch, Proposal, Replace, Verdict
from runner.report.notes import measure_noise
from tests.support.constant_workload import boost
from tests.support.engine_night import run
from tests.support.machine import changed

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]  # two dozen runs

SEEDING = 'random.seed(int(os.environ["SEED"]))\n'


def test_a_night_s_keeps_are_left_out_and_its_gain_is_confirmed(controller, engine):
    simpler = Proposal(
        hypothesis="no seeding",
        edits=(Replace(path="workload/train.py", old=SEEDING, new=""),),
        proposer="scripted",
        category="simplification",
    )
    # Most edits do nothing here, so that one look tells a simplification that is as good.
    controller = changed(controller, effect_scale_bpb=0.0001)
    _, rows, _ = run(controller, [boost(0.0), simpler])
    assert [row.verdict for row in rows] == [Verdict.KEEP] * 3, [row.reason for row in rows]
    sealed = controller.sealed.of("test")
    claims = sorted(path.name for path in controller.evaluator.claims.iterdir())

    study = ablate.open_study(controller, None, 1)
    ablate.run_study(controller, study, stopping=lambda: False)
    first, second = study.left_out()
    assert (first.state, second.state) == (State.MATTERS, State.IDLE)
    assert first.delta_bpb > 0.003 and study.dropped == (2,)
    base = controller.repository.read_workload(rows[0].kept_commit)
    minimal = edits.apply(base, [Patch(text=study.patch())])
    assert minimal == controller.repository.read_workload(rows[1].kept_commit), "the second keep is not needed"

    pair, attempts = confirm.open_pair(controller, None, None), []
    claim = confirm.confirm(controller, pair, [], attempts.append, stopping=lambda: False)
    assert claim.holds, claim
    assert [one.sealed is None for one in attempts] == [True, False], "recorded before the sealed rows are asked"
    assert claim.p == 1 / 128 and claim.difference.high_bpb < -0.003
    own, other = claim.sealed
    assert own.seed == other.seed and min(own.test_bpb, other.test_bpb) > 0
    assert claim.sealed_difference.mean_bpb < 0

    # Nothing of this is in the records, among the claims, or in the engine.
    assert controller.ledger.experiments("test") == rows
    assert controller.sealed.of("test") == sealed
    assert sorted(path.name for path in controller.evaluator.claims.iterdir()) == claims
    assert list(controller.evaluator.scratch.iterdir()) == []
    images = engine.client.images.list(
        filters={"label": f"org.autoresearch.controller={controller.ledger.controller}"}
    )
    assert len(images) == 3, "those of the campaign"

    # The baseline again, though it is not the champion any more.
    (again,) = run_control(Campaign(controller, controller.ledger.campaign("test")), rows[0]).control_trials
    noise = measure_noise(controller.ledger.experiments("test"), controller.config)
    assert len(noise.scores_bpb) == 3 and again.val_bpb in noise.scores_bpb
    assert champion(controller.ledger.experiments("test")).number == 2
