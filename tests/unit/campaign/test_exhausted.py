"""A proposer that has nothing new to propose ends the night with its reason, and proposes nothing twice."""

from __future__ import annotations

from runner.campaign import night
from runner.campaign.stop_switch import StopSwitch
from runner.proposers import optuna
from tests.support.no_training import discard_everything
from tests.support.scripted_controller import TAG, make_repository
from tests.support.scripted_controller import campaign as open_campaign


def test_a_search_that_suggests_one_point_again_and_again_goes_on_to_others_and_then_ends(tmp_path, monkeypatch):
    discard_everything(monkeypatch)

    def stuck(constants, known, seed):
        for _ in range(optuna.MAX_ASKS):
            yield constants[0], 2.0

    monkeypatch.setattr(optuna, "_tpe", stuck)
    files = {"__init__.py": "", "model.py": "", "train.py": "DEPTH = 3\n"}
    root = make_repository(tmp_path / "repository", files)
    with open_campaign(root, experiments=500) as campaign:
        reason = night.run(campaign.controller, optuna.OptunaProposer(), StopSwitch())
        diffs = [one.diff for one in campaign.ledger.experiments(TAG)[1:]]
    assert reason == "every step of every constant has been tried on this tip"
    assert len(diffs) == len(set(diffs)) > 3
    assert "+DEPTH = 6" in "".join(diffs)
