"""A bug of ours that one candidate brings to light closes this one; the night goes on, and so does a restart."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from runner.campaign import candidate, certificate, experiment, exploration, night, placement
from runner.campaign.backstop import Bug, guarded
from runner.campaign.ideas import IdeaQueue
from runner.campaign.stop_switch import StopSwitch
from runner.errors import EngineError, Interrupted
from runner.evaluation import evaluator
from runner.records import NoProposal, Outcome, Proposal, Ruling, Verdict, Write
from tests.support.fake_proposers import ScriptedProposer
from tests.support.no_training import NoTraining, discard_everything
from tests.support.scripted_campaign import Machine
from tests.support.scripted_campaign import propose as accepted_later
from tests.support.scripted_controller import TAG, make_repository
from tests.support.scripted_controller import campaign as open_campaign

MARK = "ODD"


def idea(text, **changes):
    return Proposal(
        hypothesis=text, edits=(Write(path=f"workload/{text.lower()}.py", content=f"# {text}\n"),),
        proposer="scripted", **changes,
    )  # fmt: skip


def only_of_odd_files(function):
    """The function with a bug that shows at one candidate alone."""

    def buggy(*arguments, **named):
        if MARK in repr((arguments, named)):
            raise ValueError("Unable to avoid backslash in f-string expression part\x1b[31m")
        return function(*arguments, **named)

    return buggy


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """No engine: every candidate is built and discarded."""
    discard_everything(monkeypatch)
    with open_campaign(make_repository(tmp_path / "repository"), experiments=3, certify="each") as opened:
        yield opened


@pytest.fixture
def run_night(campaign):
    """Run the night with a script, as often as wanted; returns the bug reports of its log."""

    def run(*script, more=None):
        with capture_logs() as events:
            night.run(campaign.controller, ScriptedProposer(script), StopSwitch(), more=more)
        return [event for event in events if event["event"] == "internal_error"]

    return run


def propose(campaign, proposal):
    """Open the experiment of a proposal, as the night does."""
    with closing(IdeaQueue(campaign, ScriptedProposer([proposal]), 0.0)) as queue:
        return queue.next_idea()


def closed(campaign):
    return [(one.verdict, one.reason) for one in campaign.ledger.experiments(TAG)[1:]]


def check_one_bug(campaign, reports, doing):
    """The second candidate of three is set aside, with one report."""
    (verdict, reason), others = closed(campaign)[1], [closed(campaign)[0], closed(campaign)[2]]
    assert [one for one, _ in others] == [Verdict.DISCARD] * 2
    assert verdict is Verdict.INFRA
    assert reason.startswith(f"internal error while {doing}: ValueError: Unable to avoid backslash")
    assert reason.endswith("; a bug report is in the log")
    assert "\x1b" not in reason
    (report,) = reports
    assert report["campaign"] == TAG
    assert report["log_level"] == "error"
    assert "in buggy" in report["traceback"] and "ValueError" in report["traceback"]


@pytest.mark.parametrize(
    ("place", "name", "doing"),
    [
        (placement.edits, "diff", "reading its edits"),
        (placement.contamination, "find", "reading its edits"),
        (exploration.edits, "count_logic", "judging it"),
        (candidate, "tried_message", "judging it"),
        (evaluator.images, "build_candidate", "judging it"),
    ],
)
def test_a_bug_over_one_candidate_closes_it_and_the_night_goes_on(
    campaign, run_night, monkeypatch, place, name, doing
):
    monkeypatch.setattr(place, name, only_of_odd_files(getattr(place, name)))
    reports = run_night(idea("a"), idea(MARK), idea("b"))
    check_one_bug(campaign, reports, doing)
    assert run_night(idea("c"), more=1) == [], "a restart does not meet it again"
    assert [one for one, _ in closed(campaign)][3:] == [Verdict.DISCARD]


def test_a_bug_in_the_middle_of_a_trial_leaves_no_trial_open(campaign, run_night, monkeypatch):
    def buggy(*_):
        raise ValueError("bug")

    monkeypatch.setattr(NoTraining, "claim", buggy)
    (report,) = run_night(idea("a"), more=1)
    assert report["doing"] == "judging it"
    (trial,) = campaign.ledger.experiment(TAG, 1).trials
    assert (trial.outcome, trial.reason) == (Outcome.LOST, "bug")
    assert campaign.ledger.close_lost_trials(TAG) == 0


def test_a_proposal_that_cannot_be_stored_is_recorded_without_it(campaign, run_night):
    unstorable = idea("b", parameters={"x": object()})
    run_night(idea("a"), unstorable, replace(idea("c"), hypothesis="half \ud800 a letter"))
    assert [one for one, _ in closed(campaign)] == [Verdict.DISCARD, Verdict.INFRA, Verdict.INFRA]
    assert campaign.ledger.experiment(TAG, 3).hypothesis == "half  a letter"


def test_a_candidate_that_killed_the_controller_before_is_closed_at_the_next_start(
    campaign, run_night, monkeypatch
):
    assert propose(campaign, idea(MARK)).number == 1
    monkeypatch.setattr(exploration.edits, "count_logic", only_of_odd_files(exploration.edits.count_logic))
    assert len(run_night(idea("a"), more=1)) == 1
    assert [one for one, _ in closed(campaign)] == [Verdict.INFRA, Verdict.DISCARD]


def test_a_bug_in_a_conversation_ends_it_and_another_one_begins(campaign, run_night):
    def buggy(request):
        raise KeyError(request.number)

    reports = run_night(idea("a"), buggy, idea("b"), idea("c"))
    assert [report["doing"] for report in reports] == ["asking for an idea"]
    assert [one for one, _ in closed(campaign)] == [Verdict.DISCARD] * 3
    assert campaign.ledger.conversations.ongoing(TAG, "scripted") is None


def test_a_bug_on_the_other_thread_ends_the_conversation_there(campaign):
    def buggy(request):
        raise KeyError(request.number)

    proposer = ScriptedProposer([buggy])
    proposer.prefetches = True
    with closing(IdeaQueue(campaign, proposer, 0.0)) as queue:
        queue.prefetch()
        answer = queue.next_idea()
    assert isinstance(answer, NoProposal) and "KeyError" in answer.reason
    assert campaign.ledger.conversations.ongoing(TAG, "scripted") is None


@pytest.mark.parametrize(
    ("name", "doing", "verdict"),
    [("as_diff", "comparing tip and champion", Verdict.INVALID), ("Certificate", "judging it", Verdict.INFRA)],
)
def test_a_bug_over_a_certificate_ends_no_night(campaign, run_night, monkeypatch, name, doing, verdict):
    """Else the next round would meet it again: the tip is rolled back, or certified after other ideas."""
    with monkeypatch.context() as patch:
        Machine(patch, n1=[1.9])
        assert experiment.run_experiment(campaign, accepted_later(campaign)).verdict is Verdict.ACCEPT

    def buggy(*_, **__):
        raise ValueError("bug")

    place = certificate if name == "as_diff" else experiment
    monkeypatch.setattr(place, name, buggy if name == "as_diff" else SimpleNamespace(open=buggy))
    reports = run_night(idea("c"), idea("d"))
    assert {report["doing"] for report in reports} == {doing}
    assert campaign.ledger.experiment(TAG, 2).verdict is verdict
    assert [one for one, _ in closed(campaign)][-2:] == [Verdict.DISCARD] * 2


def test_a_bug_over_every_candidate_ends_the_night(campaign, run_night, monkeypatch):
    def buggy(*_):
        raise ValueError("bug")

    monkeypatch.setattr(exploration.edits, "count_logic", buggy)
    with pytest.raises(EngineError, match=r"in a row quarantined.*internal error while judging it"):
        run_night(*(idea(f"n{number}") for number in range(9)), more=9)
    assert len(closed(campaign)) == night.MAX_QUARANTINED


def test_a_bug_behind_a_verdict_does_not_touch_it(campaign, run_night, monkeypatch):
    def judged_and_then(owner, one):
        owner.close(one.number, Ruling(verdict=Verdict.DISCARD, reason="judged"))
        raise ValueError("bug")

    monkeypatch.setattr(experiment, "_until_decided", judged_and_then)
    with pytest.raises(ValueError, match="bug"):
        run_night(idea("a"), more=1)
    assert closed(campaign) == [(Verdict.DISCARD, "judged")]


@pytest.mark.parametrize(
    "error",
    [EngineError("e"), Interrupted("i"), OSError(28, "full"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_an_error_with_a_meaning_goes_through(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        guarded("failing", fail)


def test_a_result_is_left_alone():
    with capture_logs() as events:
        assert guarded("adding", lambda: 1 + 1) == 2
    assert events == []


def test_a_host_without_memory_for_one_candidate_goes_on():
    def fail():
        raise MemoryError

    with capture_logs():
        assert isinstance(guarded("reading", fail, number=1), Bug)
