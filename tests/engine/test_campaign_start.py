"""A campaign begins with its baseline, and goes on only where it left off."""

from __future__ import annotations

import pytest

from runner.campaign import night as campaign
from runner.errors import BaselineError, ConfigError, RepositoryError
from runner.records import NoProposal, Phase
from tests.support.constant_workload import TRAIN, boost, git
from tests.support.engine_night import run

pytestmark = pytest.mark.docker


def test_the_baseline_is_measured_with_different_seeds_and_its_runs_are_recorded(controller):
    reason, (row,), _ = run(controller, [NoProposal(reason="enough", exhausted=True, proposer="scripted")])
    assert reason == "enough"
    scores = [run for run in row.runs if run.phase is Phase.SCORE]
    assert len(scores) == 2
    assert len({run.seed for run in scores}) == 2
    assert row.val_bpb == pytest.approx(sum(run.val_bpb for run in scores) / 2)
    assert row.kept_commit == controller.repository.branch_head("autoresearch/test")


def test_a_workload_that_does_not_run_is_shown_and_becomes_no_champion(controller):
    (controller.repository.root / "workload" / "train.py").write_text("raise SystemExit('broken on purpose')\n")
    git(controller.repository.root, "commit", "-qam", "break it")
    with pytest.raises(BaselineError, match="broken on purpose"):
        run(controller, [])
    (failed,) = controller.ledger.experiments("test")
    assert (failed.verdict, failed.reason) == ("crash", "training exited with code 1")
    assert "broken on purpose" in failed.log_tail
    assert controller.repository.branch_head("autoresearch/test") is None


def test_other_conditions_are_refused_because_scores_would_not_compare(measured_controller):
    controller = measured_controller
    controller.conditions["train_seconds"] = "300"
    with pytest.raises(ConfigError, match="train_seconds was '3', is '300'"):
        campaign.open_campaign(controller)


def test_a_branch_that_a_user_moved_is_not_overwritten(measured_controller):
    controller = measured_controller
    (controller.repository.root / "workload" / "train.py").write_text(TRAIN + "# mine\n")
    git(controller.repository.root, "commit", "-qam", "mine")
    git(controller.repository.root, "branch", "-f", "autoresearch/test", "main")
    with pytest.raises(RepositoryError, match="champion is"):
        run(controller, [boost(0.0)])
    assert controller.repository.branch_head("autoresearch/test") == controller.repository.resolve("main")


def test_a_checked_out_branch_is_reported_before_the_night_and_not_at_its_first_keep(measured_controller):
    controller = measured_controller
    git(controller.repository.root, "switch", "-q", "autoresearch/test")
    with pytest.raises(RepositoryError, match="checked out"):
        run(controller, [boost(0.0)])
    git(controller.repository.root, "switch", "-q", "main")
