"""One experiment from its first trial to its verdict: the loop, what each trial is asked for, and its restart."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from runner import edits
from runner.campaign import champion, experiment
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import stage
from runner.campaign.experiment import run_experiment
from runner.failpoints import Step
from runner.records import Outcome, Proposal, Replace, TrialKind, Verdict
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_controller import TAG, make_repository
from tests.support.trials import failed, scored

KEPT, DISCARDED = 1.9, 2.1


class Machine:
    """In place of `measure`: a score for each number of an experiment, recorded as the real one does.

    Args:
        scores: of trial after trial, by number; the last one is repeated. A trial stands for itself.
    """

    def __init__(self, monkeypatch, **scores):
        self.scores = {int(name[1:]): list(values) for name, values in scores.items()}
        self.calls = []
        monkeypatch.setattr(experiment, "measure", self.measure)
        monkeypatch.setattr(champion, "measure", self.measure)

    def measure(self, evaluator, request, book, policy, champion_claims):
        number = request.program.number
        script = self.scores[number]
        made = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(made, float):
            made = scored(made, request.seed, claims_sha256=f"{number}-{request.seed}")
        self.calls.append((number, request, policy(made.val_bpb or 3.0), champion_claims))
        book.built(request.program, SimpleNamespace(id="i", layer_digest="l"))
        book.closed(book.opened(request.seed), replace(made, seed=request.seed))
        return made

    @property
    def numbers(self):
        """Whose trials were measured, in order."""
        return [number for number, *_ in self.calls]


@pytest.fixture
def campaign(tmp_path):
    """A baseline with three trials, ready to be measured again."""
    settings = {"min_trials": 2, "max_trials": 3, "audit_discards": 0.0}
    with open_campaign(make_repository(tmp_path / "r"), **settings) as opened:
        with opened.ledger.database.transaction(Step.CANDIDATE_RECORDED) as db:
            commit = stage(opened, opened.experiments[0]).commit
            db.execute("UPDATE experiments SET tried_commit = ? WHERE number = 0", (commit,))
        for index, away in enumerate((-0.001, 0.0, 0.001)):
            seed = opened.seed(0, index)
            trial_id = opened.ledger.open_trial(TAG, 0, TrialKind.CANDIDATE, seed)
            opened.ledger.close_trial(TAG, trial_id, scored(2.0 + away, seed, claims_sha256="baseline's"))
        opened.reload(0)
        yield opened


def propose(campaign, old="RATE = 0.02", new="RATE = 0.04"):
    edit = Replace(path="workload/train.py", old=old, new=new)
    files = campaign.repository.read_workload(campaign.champion.kept_commit)
    diff = edits.diff(files, edits.apply(files, [edit]))
    return campaign.open(Proposal(hypothesis="h", edits=(edit,), proposer="p"), diff=diff)


def test_a_good_candidate_is_tried_again_beside_a_control_and_promoted(campaign, monkeypatch):
    machine = Machine(monkeypatch, n0=[2.0], n1=[KEPT])
    done = run_experiment(campaign, propose(campaign))
    assert machine.numbers == [1, 0, 1], "the champion is measured between the two trials"
    assert (done.verdict, done.val_bpb) == (Verdict.KEEP, KEPT)
    assert campaign.champion == done == campaign.ledger.experiment(TAG, 1)
    assert campaign.repository.branch_head(campaign.controller.branch) == done.kept_commit
    assert campaign.repository.read_workload(done.kept_commit)["workload/train.py"].startswith(b"RATE = 0.04")
    opened, closed = done.opened_seq, done.closed_seq
    order = [one.opened_seq for one in (done.trials[0], campaign.experiments[0].control_trials[0], done.trials[1])]
    assert opened < order[0] < order[1] < order[2] < closed < done.kept_seq


def test_a_bad_candidate_takes_one_trial_and_leaves_the_branch(campaign, monkeypatch):
    before = campaign.repository.branch_head(campaign.controller.branch)
    machine = Machine(monkeypatch, n1=[DISCARDED])
    done = run_experiment(campaign, propose(campaign))
    assert machine.numbers == [1]
    assert (done.verdict, done.val_bpb, done.kept_commit) == (Verdict.DISCARD, DISCARDED, None)
    assert campaign.repository.branch_head(campaign.controller.branch) == before
    assert campaign.champion.number == 0


def test_each_trial_has_a_seed_of_its_own_that_the_campaign_issues(campaign, monkeypatch):
    machine = Machine(monkeypatch, n0=[2.0], n1=[KEPT])
    run_experiment(campaign, propose(campaign))
    seeds = [request.seed for _, request, *_ in machine.calls]
    assert seeds == [campaign.seed(1, 0), campaign.seed(0, 3), campaign.seed(1, 1)]
    assert len({*seeds, *(one.seed for one in campaign.experiments[0].trials)}) == 6


def test_only_the_first_trial_is_watched_and_all_are_audited_against_the_champion(campaign, monkeypatch):
    machine = Machine(monkeypatch, n0=[2.0], n1=[KEPT])
    watch = object()
    monkeypatch.setattr(experiment.Comparison, "_calibration", lambda *_: watch)
    run_experiment(campaign, propose(campaign))
    (_, first, policy, claims), (_, control, control_policy, _), (_, second, last_policy, _) = machine.calls
    assert (first.early_stop, control.early_stop, second.early_stop) == (watch, None, None)
    assert claims == "baseline's"
    assert policy.audit and policy.seal_below_bpb is None, "the first trial keeps nothing"
    assert control_policy.audit and control_policy.seal_below_bpb is None
    assert last_policy.seal_below_bpb > KEPT


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
    machine = Machine(monkeypatch, n0=[2.0], n1=[KEPT, failed(outcome, reason="for this")])
    done = run_experiment(campaign, propose(campaign))
    assert machine.numbers == [1, 0, 1]
    assert (done.verdict, done.reason, done.val_bpb) == (verdict, "for this", None)


def test_a_control_that_fails_says_nothing_about_the_candidate(campaign, monkeypatch):
    machine = Machine(monkeypatch, n0=[failed(Outcome.CRASH)], n1=[KEPT])
    assert run_experiment(campaign, propose(campaign)).verdict is Verdict.KEEP
    assert machine.numbers == [1, 0, 1]


def test_a_person_who_stops_gets_no_verdict_and_the_next_start_goes_on(campaign, monkeypatch):
    """With the seed, the pool and the verdict that it would have had."""
    machine = Machine(monkeypatch, n0=[2.0], n1=[KEPT])
    stopping = Campaign(campaign.controller.listening(lambda: bool(machine.calls)), campaign.row)
    opened = propose(stopping)
    left = run_experiment(stopping, opened)
    assert left.verdict is None and len(left.trials) == 1 and machine.numbers == [1]
    restarted = Campaign(campaign.controller, campaign.row)
    assert restarted.open_experiment == left
    done = run_experiment(restarted, restarted.open_experiment)
    assert done.verdict is Verdict.KEEP and machine.numbers == [1, 0, 1]
    assert [one.seed for one in done.trials] == [campaign.seed(1, 0), campaign.seed(1, 1)]


def test_an_experiment_that_was_decided_when_the_controller_was_killed_is_only_closed(campaign, monkeypatch):
    machine = Machine(monkeypatch, n1=[DISCARDED])
    opened = propose(campaign)
    trial_id = campaign.ledger.open_trial(TAG, 1, TrialKind.CANDIDATE, campaign.seed(1, 0))
    campaign.ledger.close_trial(TAG, trial_id, scored(DISCARDED, campaign.seed(1, 0)))
    restarted = Campaign(campaign.controller, campaign.row)
    done = run_experiment(restarted, restarted.experiments[opened.number])
    assert (done.verdict, machine.numbers) == (Verdict.DISCARD, [])


def test_a_trial_that_was_lost_before_a_restart_is_made_again_with_its_seed(campaign, monkeypatch):
    machine = Machine(monkeypatch, n1=[DISCARDED])
    opened = propose(campaign)
    campaign.ledger.open_trial(TAG, 1, TrialKind.CANDIDATE, campaign.seed(1, 0))
    assert campaign.ledger.close_lost_trials(TAG) == 1
    restarted = Campaign(campaign.controller, campaign.row)
    done = run_experiment(restarted, restarted.experiments[opened.number])
    assert done.verdict is Verdict.DISCARD
    assert [request.seed for _, request, *_ in machine.calls] == [campaign.seed(1, 0)]
    assert [one.outcome for one in done.trials] == [Outcome.LOST, Outcome.SCORED]
