"""How a night ends: what is on the tip is certified first, where there is time."""

from __future__ import annotations

import subprocess

import pytest

from runner.campaign import night
from runner.campaign.stop_switch import StopSwitch
from runner.errors import RepositoryError
from runner.records import Proposal, Verdict, Write
from tests.support.fake_proposers import ScriptedProposer, paying
from tests.support.no_training import discard_everything
from tests.support.scripted_campaign import Machine
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_controller import TAG, make_repository
from tests.support.scripted_controller import controller as open_controller

IDEA = Proposal(hypothesis="h", edits=(Write(path="workload/a.py", content="A = 1\n"),), proposer="scripted")


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    discard_everything(monkeypatch)
    with open_campaign(make_repository(tmp_path / "r"), budget_usd=1.0) as opened:
        yield opened


def verdicts(campaign):
    return [one.verdict for one in campaign.ledger.experiments(TAG)[1:]]


@pytest.mark.parametrize(
    ("step", "reason"), [(IDEA, "the script is over"), (paying(1.0, IDEA), "the budget of $1.00 is spent ($1.00)")]
)
def test_when_no_idea_comes_any_more_the_tip_is_certified(campaign, monkeypatch, step, reason):
    Machine(monkeypatch, n1=[1.9], n2=[1.9], n0=[2.0])
    assert night.run(campaign.controller, ScriptedProposer([step]), StopSwitch()) == reason
    assert verdicts(campaign) == [Verdict.ACCEPT, Verdict.KEEP]


def test_an_unclear_tip_is_certified_once_at_the_end(campaign, monkeypatch):
    Machine(monkeypatch, n1=[1.9], n2=[1.993], n0=[2.0])
    night.run(campaign.controller, ScriptedProposer([IDEA]), StopSwitch())
    assert verdicts(campaign) == [Verdict.ACCEPT, Verdict.UNCLEAR]


def test_one_more_idea_is_tried_on_the_tip_and_stays_there(campaign, monkeypatch):
    Machine(monkeypatch, n1=[1.9])
    night.run(campaign.controller, ScriptedProposer([IDEA]), StopSwitch(), more=1)
    assert verdicts(campaign) == [Verdict.ACCEPT]


def test_a_branch_where_the_tip_of_a_new_campaign_would_be_is_refused_before_anything_is_measured(tmp_path):
    root = make_repository(tmp_path / "r")
    subprocess.run(["git", "branch", "autoresearch/new-tip"], cwd=root, check=True)
    with open_controller(root) as made, pytest.raises(RepositoryError, match="autoresearch/new-tip exists"):
        config = made.config.model_copy(update={"tag": "new"})
        night.open_campaign(type(made)(**{**vars(made), "config": config}))
