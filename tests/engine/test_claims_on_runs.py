"""Keeps left out, and a claim confirmed, with real containers: nothing is recorded and nothing stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner import edits
from runner.campaign import night
from runner.campaign.champion import run_control
from runner.campaign.studies import ablate, confirm
from runner.campaign.studies.ablate import State
from runner.records import Patch, Phase, Proposal, Replace, Verdict
from runner.report.notes import measure_noise
from tests.support.constant_workload import boost
from tests.support.engine_night import run

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]  # two dozen runs

SEEDING = 'random.seed(int(os.environ["SEED"]))\n'


def test_a_night_s_keeps_are_left_out_and_its_gain_is_confirmed(lab, engine):
    simpler = Proposal(
        hypothesis="no seeding",
        edits=(Replace(path="workload/train.py", old=SEEDING, new=""),),
        proposer="scripted",
        category="simplification",
    )
    # Most edits do nothing here, so that one look tells a simplification that is as good.
    lab = replace(lab, config=lab.config.model_copy(update={"effect_scale_bpb": 0.0001}))
    _, rows, _ = run(lab, [boost(0.0), simpler])
    assert [row.verdict for row in rows] == [Verdict.KEEP] * 3, [row.reason for row in rows]
    sealed = lab.ledger.sealed("test")
    claims = sorted(path.name for path in lab.claims.iterdir())

    study = ablate.open_study(lab, None, 1)
    ablate.run_study(lab, study, stopping=lambda: False)
    first, second = study.left_out()
    assert (first.state, second.state) == (State.MATTERS, State.IDLE)
    assert first.delta_bpb > 0.003 and study.dropped == (2,)
    base = lab.repository.read_workload(rows[0].kept_commit)
    minimal = edits.apply(base, [Patch(text=study.patch())])
    assert minimal == lab.repository.read_workload(rows[1].kept_commit), "the second keep is not needed"

    pair = confirm.open_pair(lab, None, None)
    claim = confirm.confirm(lab, pair, [], stopping=lambda: False)
    assert claim.holds, claim
    assert claim.p == 1 / 252 and claim.delta_bpb < -0.003
    assert [one.test_bpb > 0 for one in claim.sealed] == [True, True]
    assert claim.sealed_delta_bpb < 0

    # Nothing of this is in the records, among the claims, or in the engine.
    assert lab.ledger.experiments("test") == rows
    assert lab.ledger.sealed("test") == sealed
    assert sorted(path.name for path in lab.claims.iterdir()) == claims
    assert list(lab.scratch.iterdir()) == []
    images = engine.client.images.list(filters={"label": f"org.autoresearch.controller={lab.ledger.controller}"})
    assert len(images) == 3, "those of the campaign"

    # The baseline again, though it is not the champion any more.
    run_control(lab, lab.ledger.campaign("test"), rows[0])
    (again,) = [run for run in lab.ledger.experiment("test", 0).controls if run.phase is Phase.AUDIT]
    noise = measure_noise(lab.ledger.experiments("test"), lab.config)
    assert len(noise.scores_bpb) == 3 and again.val_bpb in noise.scores_bpb
    assert night.champion(lab.ledger.experiments("test")).number == 2
