"""A candidate against its champion: its verdict, the pool it is judged against, and what is audited and sealed."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import numpy as np
import pytest

from runner import edits
from runner.campaign import comparison
from runner.campaign.campaign import Campaign
from runner.campaign.comparison import Comparison
from runner.decision.keep_rule import Action
from runner.records import Outcome, Phase, Proposal, Replace, Ruling, TrialKind, Verdict
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_controller import TAG, make_repository
from tests.support.trials import failed, run, scored

CHAMPION_BPB = 2.0
BETTER, MUCH_BETTER, WORSE = 1.98, 1.9, 2.1
"""By two, ten and minus ten times the noise."""


def record(campaign, number, trial, kind=TrialKind.CANDIDATE):
    """Put a trial into the ledger; returns it as it is read back."""
    trial_id = campaign.ledger.open_trial(TAG, number, kind, trial.seed)
    campaign.ledger.close_trial(TAG, trial_id, trial)
    one = campaign.reload(number)
    return next(trial for trial in (*one.trials, *one.control_trials) if trial.id == trial_id)


def control(campaign, val_bpb, seed=90):
    return record(campaign, 0, scored(val_bpb, seed), TrialKind.CONTROL)


@pytest.fixture
def campaign(tmp_path):
    """A baseline with three trials, and an open candidate."""
    settings = {"audit_discards": 0.0, "min_trials": 2, "max_trials": 3}
    with open_campaign(make_repository(tmp_path / "r"), **settings) as opened:
        for seed, away in enumerate((-0.001, 0.0, 0.001)):
            record(opened, 0, scored(CHAMPION_BPB + away, seed))
        propose(opened)
        yield opened


def propose(campaign, old="RATE = 0.02", new="RATE = 0.04", **proposal):
    """Open a candidate of one edit; returns its number."""
    edit = Replace(path="workload/train.py", old=old, new=new)
    files = campaign.repository.read_workload(campaign.champion.kept_commit)
    diff = edits.diff(files, edits.apply(files, [edit]))
    return campaign.open(Proposal(hypothesis="h", edits=(edit,), proposer="p", **proposal), diff=diff).number


def compared(campaign, number=1):
    return Comparison.open(campaign, campaign.experiments[number])


def tried(campaign, *trials):
    """The comparison after these trials of the candidate."""
    for trial in trials:
        record(campaign, 1, trial)
    return compared(campaign)


# -------------------------------------------------------------------- verdicts


def test_there_is_no_verdict_before_a_trial(campaign):
    opened = compared(campaign)
    assert opened.verdict() is None
    assert opened.trials == () and not opened.needs_control


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome.CRASH, Verdict.CRASH),
        (Outcome.INVALID, Verdict.INVALID),
        (Outcome.STOPPED, Verdict.DISCARD),
    ],
)
@pytest.mark.parametrize("before", [(), (scored(MUCH_BETTER, 11),)], ids=["at once", "after a good trial"])
def test_a_trial_that_failed_gives_its_verdict(campaign, outcome, verdict, before):
    ruling = tried(campaign, *before, failed(outcome, 12, reason="for this")).verdict()
    assert (ruling.verdict, ruling.reason, ruling.keep) == (verdict, "for this", False)
    assert (ruling.val_bpb, ruling.delta_bpb, ruling.figures) == (None, None, None)
    assert ruling.sigma_bpb > 0


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.CONTENDED])
def test_a_lost_or_contended_trial_in_the_ledger_is_no_verdict_and_is_repeated(campaign, outcome):
    assert tried(campaign, failed(outcome, 11)).verdict() is None
    again = tried(campaign, scored(MUCH_BETTER, 11), failed(outcome, 12))
    assert again.verdict() is None, "the trial before it goes on to count"
    assert len(again.trials) == 1


def test_a_trial_that_was_given_up_is_the_infrastructures_fault(campaign):
    given_up = failed(Outcome.LOST, 11, reason="quarantined after two equal failures: away")
    ruling = tried(campaign, given_up).verdict(given_up)
    assert (ruling.verdict, ruling.reason) == (Verdict.INFRA, given_up.reason)
    good = tried(campaign, scored(MUCH_BETTER, 12))
    assert good.verdict(given_up).verdict is Verdict.INFRA, "whatever its other trials say"


def test_a_worse_candidate_is_discarded_at_once_with_its_figures(campaign):
    ruling = tried(campaign, scored(WORSE, 11, audited=False)).verdict()
    assert ruling.verdict is Verdict.DISCARD
    assert (ruling.val_bpb, ruling.delta_bpb) == (WORSE, pytest.approx(WORSE - CHAMPION_BPB))
    assert ruling.figures.trials == tuple(one.id for one in campaign.experiments[1].trials)
    assert ruling.figures.pool == tuple(one.id for one in campaign.experiments[0].trials)


def test_a_better_candidate_is_kept_after_enough_trials_without_the_score_that_chose_it(campaign):
    assert tried(campaign, scored(MUCH_BETTER, 11)).verdict() is None
    ruling = tried(campaign, scored(1.92, 12)).verdict()
    assert ruling.keep and ruling.val_bpb == 1.92
    assert ruling.delta_bpb == pytest.approx(1.91 - CHAMPION_BPB), "the verdict rests on both"
    first, last = ruling.figures.first_delta_bpb, ruling.figures.delta_bpb
    assert (first, last) == (pytest.approx(MUCH_BETTER - CHAMPION_BPB), ruling.delta_bpb)
    campaign.close(1, ruling)
    assert campaign.experiments[1].figures == ruling.figures


def test_no_case_stays_open_beyond_the_largest_number_of_trials(campaign):
    seen = []
    for index in range(3):
        opened = tried(campaign, scored(MUCH_BETTER, 11 + index))
        rule = replace(opened.rule, min_trials=9)  # so that nothing is ever clear enough to be kept
        seen.append(replace(opened, rule=rule).verdict())
    assert [one and one.verdict for one in seen] == [None, None, Verdict.DISCARD]


def test_an_audit_that_turns_a_claim_into_a_discard_is_named(campaign):
    audited = scored(2.05, 11)
    claim = (*audited.runs[:1], run(Phase.SCORE, 11, val_bpb=MUCH_BETTER, claims_sha256="c"), audited.runs[2])
    ruling = tried(campaign, replace(audited, runs=claim)).verdict()
    assert ruling.verdict is Verdict.DISCARD
    assert "the audit is inconclusive and adds 0.1500 bpb" in ruling.reason


def test_added_lines_of_logic_raise_what_a_keep_must_be_worth(campaign):
    plain = compared(campaign)
    assert plain.lines_added == 0
    longer = "RATE = 0.02\n" + "".join(f"X{index} = {index}\n" for index in range(50))
    campaign.close(1, Ruling(verdict=Verdict.DISCARD, reason="r"))
    number = propose(campaign, "RATE = 0.02\n", longer, category="simplification")
    assert compared(campaign, number).lines_added == 50
    assert compared(campaign, number).simplification and not plain.simplification


# ------------------------------------------------------------ pool and controls


def test_the_pool_is_what_was_known_of_the_champion_before_the_candidates_last_trial(campaign):
    own = [one.id for one in campaign.experiments[0].trials]
    tried(campaign, scored(MUCH_BETTER, 11))
    between = control(campaign, CHAMPION_BPB)
    opened = compared(campaign)
    assert [one.id for one in opened.pool] == own, "the control came after the trial"
    tried(campaign, scored(MUCH_BETTER, 12))
    control(campaign, CHAMPION_BPB, seed=91)
    judged = compared(campaign)
    assert [one.id for one in judged.pool] == [*own, between.id], "and this one after the second"
    assert judged.verdict().figures.pool == (*own, between.id)


def test_a_machine_that_has_changed_is_judged_by_its_new_figures(campaign):
    tried(campaign, scored(BETTER, 11))
    fresh = [control(campaign, 1.95, seed) for seed in (90, 91)]
    judged = tried(campaign, scored(BETTER, 12))
    assert judged.pool == tuple(fresh)
    assert judged.verdict().verdict is Verdict.DISCARD, "not better than the champion on that machine"


def test_a_control_is_needed_between_two_trials_and_once(campaign):
    assert not compared(campaign).needs_control
    opened = tried(campaign, scored(BETTER, 11))
    assert opened.needs_control
    control(campaign, CHAMPION_BPB)
    assert not opened.with_champion(campaign.experiments[0]).needs_control
    assert not compared(campaign).needs_control
    assert tried(campaign, scored(BETTER, 12)).needs_control


def test_a_control_that_failed_is_not_asked_for_again_and_a_lost_one_is(campaign):
    tried(campaign, scored(BETTER, 11))
    record(campaign, 0, failed(Outcome.LOST, 90), TrialKind.CONTROL)
    assert compared(campaign).needs_control
    record(campaign, 0, failed(Outcome.CRASH, 90), TrialKind.CONTROL)
    assert not compared(campaign).needs_control


# ------------------------------------------------------------- audits and seals


def test_every_claim_that_a_keep_may_rest_on_is_audited(campaign):
    for opened in (compared(campaign), tried(campaign, scored(MUCH_BETTER, 11))):
        for claimed in np.linspace(CHAMPION_BPB - 0.15, CHAMPION_BPB + 0.15, 61):
            goes_on = opened._judge_next(float(claimed)).action is not Action.DISCARD
            assert opened.policy(float(claimed)).audit is goes_on
        assert opened.policy(MUCH_BETTER).audit and not opened.policy(3.0).audit


def test_a_random_share_of_discards_is_audited(campaign, monkeypatch):
    chance = random.Random(0)
    monkeypatch.setattr(comparison.random, "SystemRandom", lambda: chance)
    opened = replace(compared(campaign), audit_discards=0.25)
    audited = sum(opened.policy(WORSE).audit for _ in range(400))
    assert audited == pytest.approx(100, abs=25)
    assert all(opened.policy(MUCH_BETTER).audit for _ in range(50)), "what goes on is no matter of chance"
    assert all(replace(opened, audit_discards=1.0).policy(WORSE).audit for _ in range(50))


def test_no_score_is_sealed_where_none_would_be_kept(campaign):
    assert compared(campaign).policy(0.5).seal_below_bpb is None, "the first trial keeps nothing"
    assert tried(campaign, scored(BETTER, 11)).policy(3.0).seal_below_bpb is None, "not audited"


@pytest.mark.parametrize("first", [BETTER, 1.95, MUCH_BETTER])
def test_a_score_just_below_the_boundary_is_kept_and_one_just_above_it_is_not(campaign, first):
    opened = tried(campaign, scored(first, 11))
    control(campaign, CHAMPION_BPB + 0.002)
    opened = opened.with_champion(campaign.experiments[0])
    limit = opened.policy(1.5).seal_below_bpb
    assert CHAMPION_BPB - 0.2 < limit < CHAMPION_BPB + 0.2
    for away, kept in ((-1e-6, True), (1e-6, False)):
        second = replace(scored(limit + away, 12), id=99, opened_seq=10_000, closed_seq=10_001)
        own = replace(opened.experiment, trials=(*opened.experiment.trials, second))
        ruling = opened.with_candidate(own).verdict()
        assert (ruling is not None and ruling.keep) is kept


def test_everything_that_is_kept_was_audited_and_sealed(campaign):
    """The boundary and the verdict are one rule: no keep lies above the one, and no seal misses the other."""
    tried(campaign, scored(1.95, 11))
    control(campaign, CHAMPION_BPB)
    opened = compared(campaign)
    for index, bpb in enumerate(np.linspace(1.9, 2.02, 49)):
        policy = opened.policy(float(bpb))
        sealed = policy.audit and float(bpb) <= policy.seal_below_bpb
        second = replace(scored(float(bpb), 12), id=99, opened_seq=10_000, closed_seq=10_001 + index)
        own = replace(opened.experiment, trials=(*opened.experiment.trials, second))
        ruling = opened.with_candidate(own).verdict()
        assert (ruling is not None and ruling.keep) == sealed


# -------------------------------------------------------------------- restart


def assert_same(one, other):
    """Equal but for what only the first trial is watched with."""
    for field in fields(Comparison):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "belief":
            assert mine.sigma_bpb == theirs.sigma_bpb and np.array_equal(mine.weights, theirs.weights)
        elif field.name != "early_stop" or not one.trials:
            assert mine == theirs, field.name


def test_a_comparison_after_a_restart_equals_the_one_that_lived_through_it(campaign):
    live, verdicts = compared(campaign), []
    steps = [
        ("candidate", failed(Outcome.CONTENDED, 11)),
        ("candidate", scored(1.98, 11)),
        ("control", scored(2.004, 90)),
        ("candidate", failed(Outcome.LOST, 12)),
        ("candidate", scored(1.996, 12)),
        ("control", scored(1.9, 91)),  # which would teach another noise, had it been there at the start
        ("candidate", scored(1.984, 13)),
    ]
    for kind, trial in steps:
        record(campaign, 0 if kind == "control" else 1, trial, TrialKind(kind))
        live = live.with_champion(campaign.experiments[0])
        live = live.with_candidate(campaign.experiments[1])
        restarted = Campaign(campaign.controller, campaign.ledger.campaign(TAG))
        assert restarted.experiments == campaign.experiments
        again = compared(restarted)
        assert_same(live, again)
        assert live.verdict() == again.verdict()
        verdicts.append(live.verdict())
        assert live.needs_control == again.needs_control
        assert live.policy(1.9) == again.policy(1.9)
    assert [one is not None for one in verdicts] == [False] * 6 + [True], "the last one decides"


def test_a_candidate_is_judged_with_the_noise_of_the_moment_when_it_was_opened(campaign):
    before = compared(campaign).belief.sigma_bpb
    control(campaign, CHAMPION_BPB + 0.2)
    assert compared(campaign).belief.sigma_bpb == before
    campaign.close(1, Ruling(verdict=Verdict.DISCARD, reason="r"))
    assert compared(campaign, propose(campaign)).belief.sigma_bpb > 2 * before, "the next one knows it"
