"""An idea from its trial to its verdict: what the trial is asked for, what becomes of the tip, and a restart."""

from __future__ import annotations

import subprocess

import pytest

from runner.campaign.campaign import Campaign
from runner.campaign.candidate import candidate_files
from runner.campaign.experiment import run_experiment
from runner.campaign.exploration import Exploration
from runner.errors import RepositoryError
from runner.records import Outcome, TrialKind, Verdict
from tests.support.scripted_campaign import Machine, branches, propose
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_controller import TAG, make_repository, record
from tests.support.trials import failed, scored

BETTER, WORSE = 1.9, 2.1


@pytest.fixture
def campaign(tmp_path):
    """A baseline with three trials."""
    with open_campaign(make_repository(tmp_path / "r"), audit_discards=0.0) as opened:
        yield opened


def test_a_good_idea_takes_one_trial_and_moves_the_tip_alone(campaign, monkeypatch):
    before = branches(campaign)
    machine = Machine(monkeypatch, n1=[BETTER])
    done = run_experiment(campaign, propose(campaign))
    assert machine.numbers == [1]
    assert (done.verdict, done.val_bpb, done.kept_commit) == (Verdict.ACCEPT, BETTER, None)
    assert campaign.tip == done == campaign.ledger.experiment(TAG, 1)
    assert campaign.champion.number == 0
    assert branches(campaign) == (before[0], done.tried_commit)
    assert done.figures.effect_bpb == done.delta_bpb > BETTER - 2.0, "shrunken"
    assert done.figures.pool == (campaign.experiments[0].trials[0].id,), "the tip's trial under the same seed"


def test_a_bad_idea_takes_one_trial_and_moves_nothing(campaign, monkeypatch):
    before = branches(campaign)
    machine = Machine(monkeypatch, n1=[WORSE])
    done = run_experiment(campaign, propose(campaign))
    assert machine.numbers == [1]
    assert (done.verdict, done.val_bpb) == (Verdict.DISCARD, WORSE)
    assert branches(campaign) == before
    assert campaign.tip.number == campaign.champion.number == 0


def test_the_next_idea_is_an_edit_of_the_tip_and_its_commit_a_child_of_it(campaign, monkeypatch):
    Machine(monkeypatch, n1=[BETTER], n2=[1.8])
    first = run_experiment(campaign, propose(campaign))
    second = run_experiment(campaign, propose(campaign, "STEPS = 5", "STEPS = 6"))
    assert (second.parent, second.champion) == (1, 0)
    assert candidate_files(campaign, second)["workload/train.py"] == b"RATE = 0.04\nSTEPS = 6\n"
    root = campaign.repository.root
    chain = subprocess.check_output(["git", "rev-list", f"autoresearch/{TAG}..autoresearch/{TAG}-tip"], cwd=root)
    assert chain.decode().split() == [second.tried_commit, first.tried_commit], "no commit but theirs"


def test_every_idea_has_the_exploration_seed_and_is_watched_and_audited_against_the_champion(
    campaign, monkeypatch
):
    machine = Machine(monkeypatch, n1=[WORSE], n2=[BETTER])
    watch = object()
    monkeypatch.setattr(Exploration, "_boundary", lambda _: None)
    monkeypatch.setattr("runner.campaign.exploration.early_stopping.calibrate", lambda *_, **__: watch)
    for new in ("RATE = 0.03", "RATE = 0.04"):
        run_experiment(campaign, propose(campaign, new=new))
    (_, bad, bad_policy, _), (_, good, policy, claims) = machine.calls
    assert bad.seed == good.seed == campaign.experiments[0].trials[0].seed
    assert bad.early_stop is good.early_stop is watch
    assert (bad_policy.audit, policy.audit) == (False, True)
    assert bad_policy.seal_below_bpb is policy.seal_below_bpb is None, "an idea is never sealed"
    assert claims is None, "none are stored: the baseline of this test is not sealed"


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome.CRASH, Verdict.CRASH),
        (Outcome.INVALID, Verdict.INVALID),
        (Outcome.STOPPED, Verdict.DISCARD),
        (Outcome.LOST, Verdict.INFRA),
    ],
)
def test_a_trial_that_fails_ends_the_experiment(campaign, monkeypatch, outcome, verdict):
    Machine(monkeypatch, n1=[failed(outcome, reason="for this")])
    before, level = branches(campaign), campaign.memory.tip.level
    done = run_experiment(campaign, propose(campaign))
    assert (done.verdict, done.reason, done.val_bpb) == (verdict, "for this", None)
    assert (branches(campaign), campaign.memory.tip.level) == (before, level)


def test_an_experiment_that_was_decided_when_the_controller_was_killed_is_only_closed(campaign, monkeypatch):
    machine = Machine(monkeypatch, n1=[WORSE])
    opened = propose(campaign)
    record(campaign, 1, scored(WORSE, campaign.memory.tip.seed))
    restarted = Campaign(campaign.controller, campaign.row)
    done = run_experiment(restarted, restarted.experiments[opened.number])
    assert (done.verdict, machine.numbers) == (Verdict.DISCARD, [])


def test_a_trial_that_was_lost_before_a_restart_is_made_again_with_its_seed(campaign, monkeypatch):
    machine = Machine(monkeypatch, n1=[BETTER])
    opened = propose(campaign)
    seed = campaign.memory.tip.seed
    campaign.ledger.open_trial(TAG, 1, TrialKind.CANDIDATE, seed)
    assert campaign.ledger.close_lost_trials(TAG) == 1
    restarted = Campaign(campaign.controller, campaign.row)
    done = run_experiment(restarted, restarted.experiments[opened.number])
    assert done.verdict is Verdict.ACCEPT
    assert [request.seed for _, request, *_ in machine.calls] == [seed]
    assert [one.outcome for one in done.trials] == [Outcome.LOST, Outcome.SCORED]


def test_a_tip_that_a_person_moved_is_refused_and_the_verdict_stands(campaign, monkeypatch):
    Machine(monkeypatch, n1=[BETTER])
    opened, root, tip = propose(campaign), campaign.repository.root, campaign.controller.tip_branch
    identity = ("-c", "user.name=u", "-c", "user.email=u@example.org")
    mine = subprocess.check_output(
        ["git", *identity, "commit-tree", "-m", "mine", "-p", tip, f"{tip}^{{tree}}"], cwd=root, text=True
    ).strip()
    subprocess.run(["git", "branch", "-f", tip, mine], cwd=root, check=True)
    with pytest.raises(RepositoryError, match=f"{mine}, which is no commit of this campaign"):
        run_experiment(campaign, opened)
    assert campaign.repository.branch_head(tip) == mine
    assert campaign.ledger.experiment(TAG, 1).verdict is Verdict.ACCEPT
