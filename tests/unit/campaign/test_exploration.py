"""The case of an idea: its verdict, what is audited, and that a restart judges alike."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from runner.campaign import exploration
from runner.campaign.campaign import Campaign
from runner.campaign.exploration import Exploration
from runner.decision.keep_rule import Action
from runner.records import Outcome, Phase, Ruling, TrialKind, Verdict
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_campaign import propose
from tests.support.scripted_controller import BASELINE_BPB, TAG, make_repository, record
from tests.support.trials import failed, run, scored

BETTER, WORSE = 1.9, 2.1


@pytest.fixture
def campaign(tmp_path):
    """A baseline with three trials, and an open idea."""
    with open_campaign(make_repository(tmp_path / "r"), audit_discards=0.0) as opened:
        propose(opened)
        yield opened


def case(campaign, number=1):
    return Exploration.open(campaign, campaign.experiments[number])


def tried(campaign, *trials):
    """The case after these trials of the idea."""
    for trial in trials:
        record(campaign, 1, trial)
    return case(campaign)


def test_there_is_no_verdict_before_a_trial(campaign):
    assert case(campaign).verdict() is None


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.CONTENDED])
def test_a_lost_or_contended_trial_in_the_ledger_is_no_verdict_and_is_repeated(campaign, outcome):
    assert tried(campaign, failed(outcome, 11)).verdict() is None
    given_up = failed(outcome, 11, reason="quarantined")
    if outcome is Outcome.LOST:
        assert case(campaign).verdict(given_up).verdict is Verdict.INFRA


def test_the_figures_of_a_verdict_are_what_it_rests_on(campaign):
    opened = tried(campaign, scored(BETTER, campaign.memory.tip.seed))
    ruling = opened.verdict()
    assert ruling.verdict is Verdict.ACCEPT
    assert ruling.figures.delta_bpb == pytest.approx(BETTER - BASELINE_BPB)
    assert ruling.delta_bpb == ruling.figures.effect_bpb > ruling.figures.delta_bpb, "one number, shrunken"
    campaign.close(1, ruling)
    assert campaign.experiments[1].figures == ruling.figures


def test_an_audit_that_turns_a_claim_into_a_discard_is_named(campaign):
    audited = scored(2.05, campaign.memory.tip.seed)
    claim = (*audited.runs[:1], run(Phase.SCORE, 11, val_bpb=BETTER, claims_sha256="c"), audited.runs[2])
    ruling = tried(campaign, replace(audited, runs=claim)).verdict()
    assert ruling.verdict is Verdict.DISCARD
    assert "the audit is inconclusive and adds 0.1500 bpb" in ruling.reason


def test_everything_that_is_accepted_was_audited(campaign):
    """The claim decides on the audit, and the audited score, which is never better, on the verdict."""
    opened = case(campaign)
    for bpb in np.linspace(BASELINE_BPB - 0.15, BASELINE_BPB + 0.15, 121):
        own = replace(opened.experiment, trials=(scored(float(bpb), opened.seed),))
        accepted = replace(opened, experiment=own).verdict().verdict is Verdict.ACCEPT
        assert opened.policy(float(bpb)).audit is accepted
    assert opened.policy(BETTER).audit and not opened.policy(WORSE).audit


def test_a_random_share_of_discards_is_audited(campaign, monkeypatch):
    chance = random.Random(0)
    monkeypatch.setattr(exploration.random, "SystemRandom", lambda: chance)
    opened = replace(case(campaign), audit_discards=0.25)
    assert sum(opened.policy(WORSE).audit for _ in range(400)) == pytest.approx(100, abs=25)
    assert all(opened.policy(BETTER).audit for _ in range(50)), "what is accepted is no matter of chance"


def test_a_trial_is_promising_where_it_would_be_accepted(campaign):
    opened = case(campaign)
    boundary = opened._boundary()
    assert boundary < 0
    level = opened.tip.level.mean
    assert opened._judge(level + boundary - 1e-6).action is Action.ACCEPT
    assert opened._judge(level + boundary + 1e-6).action is Action.DISCARD


def test_a_restart_judges_alike_although_others_were_measured_meanwhile(campaign):
    live = case(campaign)
    record(campaign, 0, scored(BASELINE_BPB + 0.2, 90, kind=TrialKind.CONTROL))
    restarted = Campaign(campaign.controller, campaign.ledger.campaign(TAG))
    assert restarted.experiments == campaign.experiments
    again = case(restarted)
    assert (again.tip.level, again.seed, again.change) == (live.tip.level, live.seed, live.change)
    assert again.belief.sigma_bpb == live.belief.sigma_bpb
    for bpb in np.linspace(1.95, 2.05, 21):
        assert again._judge(float(bpb)) == live._judge(float(bpb))
    campaign.close(1, Ruling(verdict=Verdict.DISCARD, reason="r"))
