"""A control knows the usual speed of its program; a candidate is never held to its own."""

from __future__ import annotations

import pytest

from runner.campaign.experiment import run_experiment
from runner.campaign.tip_control import run_control
from runner.records import Phase
from tests.support.scripted_campaign import Machine, campaign, propose
from tests.support.scripted_controller import make_repository
from tests.support.trials import CLEAN, run, scored


def printing(speed):
    """An audited trial whose training printed this throughput."""
    training = run(Phase.TRAIN, log_tail=f"step 9 loss 3.0 tokens/s {speed}")
    claim = run(Phase.SCORE, val_bpb=2.0, claims_sha256="c")
    audit = run(Phase.AUDIT, val_bpb=2.0, claims_sha256="c", audit=CLEAN)
    return scored(2.0, runs=(training, claim, audit))


@pytest.fixture
def opened(tmp_path):
    with campaign(make_repository(tmp_path / "r")) as made:
        yield made


def test_a_control_is_held_to_the_speed_of_its_program_and_an_idea_is_not(opened, monkeypatch):
    machine = Machine(monkeypatch, n0=[printing(speed) for speed in (1000, 1010, 990)], n1=[printing(500)])
    for _ in range(3):
        run_control(opened)
    run_experiment(opened, propose(opened))
    speeds = [request.usual_tokens_per_second for _, request, *_ in machine.calls]
    assert machine.numbers == [0, 0, 0, 1]
    assert speeds == [None, None, 1005.0, None], "two trials make it usual"
