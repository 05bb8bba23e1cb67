"""Crashes that are alike make the tip run again, and are excused where it crashes too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.campaign import tip_control
from runner.campaign.machine_doubt import MAX_ALIKE, refuse_broken_machine
from runner.errors import EngineError
from runner.records import Outcome, Proposal, Ruling, TrialKind, Verdict
from tests.support.ledgers import record_trial
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_controller import TAG, make_repository
from tests.support.trials import failed, scored

CRASH = "training exited with code 1"


@pytest.fixture
def campaign(tmp_path):
    """A baseline with trials, which is the tip as well."""
    with open_campaign(make_repository(tmp_path / "r")) as opened:
        yield opened


@pytest.fixture
def controls(campaign, monkeypatch):
    """Outcomes of the controls to come; those that were run are gone."""
    script = []

    def measure(evaluator, request, book, policy, champion_claims):
        outcome = script.pop(0)
        made = scored(1.9, request.seed) if outcome is Outcome.SCORED else failed(outcome, reason="no GPU")
        book.closed(book.opened(request.seed), replace(made, seed=request.seed))
        return made

    monkeypatch.setattr(tip_control, "measure", measure)
    return script


def close(campaign, *reasons, retry_of=None):
    """Close an experiment for each reason: as a discard where it is None, else as a crash."""
    for reason in reasons:
        opened = campaign.open(
            Proposal(hypothesis="h", edits=(), proposer="p"), diff="", parent=0, retry_of=retry_of
        )
        verdict = Verdict.DISCARD if reason is None else Verdict.CRASH
        campaign.close(opened.number, Ruling(verdict=verdict, reason=reason or "r"))


def verdicts(campaign):
    """In the ledger."""
    return [one.verdict for one in campaign.ledger.experiments(TAG)[1:]]


def test_crashes_with_which_the_tip_agrees_are_excused_and_end_the_night(campaign, controls):
    controls.append(Outcome.CRASH)
    close(campaign, None, *[CRASH] * MAX_ALIKE)
    with pytest.raises(EngineError, match="3 experiments crashed alike, and the tip, experiment 0, crashed"):
        refuse_broken_machine(campaign)
    assert verdicts(campaign) == ["discard", *["infra"] * MAX_ALIKE]
    reason = campaign.experiments[-1].reason
    assert "no GPU" in reason and reason.endswith(f"was a crash: {CRASH}")
    refuse_broken_machine(campaign)  # a new start goes on


def test_a_tip_that_runs_leaves_the_verdicts_and_is_asked_once(campaign, controls):
    controls.append(Outcome.SCORED)
    close(campaign, *[CRASH] * MAX_ALIKE)
    for _ in range(2):
        refuse_broken_machine(campaign)
        close(campaign, CRASH)
    assert set(verdicts(campaign)) == {"crash"} and controls == []


def test_a_champion_that_ran_before_its_certificate_crashed_is_asked_all_the_same(campaign, controls):
    controls.append(Outcome.CRASH)
    opened = campaign.open(Proposal(hypothesis="h", edits=(), proposer="p"), diff="", parent=0)
    record_trial(campaign.ledger, 0, scored(1.9, 5, kind=TrialKind.CONTROL))
    campaign.reload(0)
    campaign.close(opened.number, Ruling(verdict=Verdict.CRASH, reason=CRASH))
    close(campaign, *[CRASH] * (MAX_ALIKE - 1))
    with pytest.raises(EngineError, match="crashed alike"):
        refuse_broken_machine(campaign)


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.INVALID])
def test_a_tip_that_does_not_crash_excuses_nothing(campaign, controls, outcome):
    controls.append(outcome)
    close(campaign, *[CRASH] * MAX_ALIKE)
    refuse_broken_machine(campaign)
    assert set(verdicts(campaign)) == {"crash"}


@pytest.mark.parametrize(
    "reasons",
    [[CRASH] * (MAX_ALIKE - 1), [CRASH, CRASH, "training died of signal 9"], [CRASH, CRASH, None, CRASH]],
)
def test_few_or_different_crashes_cost_no_control(campaign, controls, reasons):
    close(campaign, *reasons)
    refuse_broken_machine(campaign)


def test_a_retry_is_no_further_idea(campaign, controls):
    close(campaign, CRASH, CRASH)
    close(campaign, CRASH, retry_of=2)
    refuse_broken_machine(campaign)
