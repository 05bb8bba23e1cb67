"""A campaign begins with its baseline, and goes on only where it left off."""

from __future__ import annotations

import pytest

from runner.campaign import night as campaign
from runner.errors import BaselineError, ConfigError, RepositoryError
from runner.records import NoProposal, Phase
from tests.support.constant_workload import TRAIN, boost, git
from tests.support.engine_night import run

pytestmark = pytest.mark.docker


def test_the_baseline_is_measured_with_different_seeds_and_its_runs_are_recorded(lab):
    reason, (row,), _ = run(lab, [NoProposal(reason="enough", exhausted=True, proposer="scripted")])
    assert reason == "enough"
    scores = [run for run in row.runs if run.phase is Phase.SCORE]
    assert len(scores) == 2
    assert len({run.seed for run in scores}) == 2
    assert row.val_bpb == pytest.approx(sum(run.val_bpb for run in scores) / 2)
    assert row.kept_commit == lab.repository.branch_head("autoresearch/test")


def test_a_workload_that_does_not_run_leaves_no_campaign_behind(lab):
    (lab.repository.root / "workload" / "train.py").write_text("raise SystemExit('broken on purpose')\n")
    git(lab.repository.root, "commit", "-qam", "break it")
    with pytest.raises(BaselineError, match="broken on purpose"):
        run(lab, [])
    assert lab.ledger.campaigns() == ()
    assert lab.repository.branch_head("autoresearch/test") is None


def test_other_conditions_are_refused_because_scores_would_not_compare(measured_lab):
    lab = measured_lab
    lab.conditions["train_seconds"] = "300"
    with pytest.raises(ConfigError, match="train_seconds was '3', is '300'"):
        campaign.open_campaign(lab)


def test_a_branch_that_a_user_moved_is_not_overwritten(measured_lab):
    lab = measured_lab
    (lab.repository.root / "workload" / "train.py").write_text(TRAIN + "# mine\n")
    git(lab.repository.root, "commit", "-qam", "mine")
    git(lab.repository.root, "branch", "-f", "autoresearch/test", "main")
    with pytest.raises(RepositoryError, match="champion is"):
        run(lab, [boost(0.0)])
    assert lab.repository.branch_head("autoresearch/test") == lab.repository.resolve("main")


def test_a_checked_out_branch_is_reported_before_the_night_and_not_at_its_first_keep(measured_lab):
    lab = measured_lab
    git(lab.repository.root, "switch", "-q", "autoresearch/test")
    with pytest.raises(RepositoryError, match="checked out"):
        run(lab, [boost(0.0)])
    git(lab.repository.root, "switch", "-q", "main")
