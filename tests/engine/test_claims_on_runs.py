"""A certificate split, and a claim confirmed, with real containers: nothing is recorded and nothing stays."""

from __future__ import annotations

import pytest

from runner import edits
from runner.campaign.campaign import Campaign
from runner.campaign.studies import ablate, confirm
from runner.campaign.studies.ablate import State
from runner.campaign.tip_control import run_control
from runner.records import Patch
from tests.support.scripted_campaign import accept, certify

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]  # two dozen trials


def test_a_certificate_is_split_and_its_gain_is_confirmed(measured_controller, engine):
    controller = measured_controller
    campaign = Campaign(controller, controller.ledger.campaign("test"))
    helps = accept(campaign, "BOOST = 1.0 ", "BOOST = 0.0 ")
    idle = accept(campaign, "SLEEP = 0.0", "SLEEP = 0.01")
    certificate = certify(campaign)
    rows = controller.ledger.experiments("test")
    sealed = controller.sealed.of("test")
    claims = sorted(path.name for path in controller.evaluator.claims.iterdir())

    study = ablate.open_study(controller, None, 2)
    ablate.run_study(controller, study, stopping=lambda: False)
    first, second = study.findings()
    assert (first.number, first.state) == (helps, State.MATTERS)
    assert (second.number, second.state) == (idle, State.IDLE)
    assert first.effect.high_bpb < -0.003 and study.gain().high_bpb < -0.003
    assert study.dropped == (idle,)
    base = controller.repository.read_workload(rows[0].kept_commit)
    minimal = edits.apply(base, [Patch(text=study.patch())])
    assert minimal == controller.repository.read_workload(rows[helps].tried_commit), (
        "the second edit is not needed"
    )

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
    assert images == []

    # The campaign goes on from the certified program.
    assert run_control(campaign).audited
    assert [one.number for one in campaign.experiments if one.control_trials] == [certificate]
