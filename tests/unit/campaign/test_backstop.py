"""A bug of ours that one candidate brings to light closes this one; the night goes on, and so does a restart."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from runner.campaign import experiment, ideas
from runner.campaign import night as campaign
from runner.campaign.backstop import Bug, guarded
from runner.campaign.ideas import IdeaQueue
from runner.errors import EngineError, Interrupted
from runner.evaluation.trial import Failure
from runner.proposers import combine
from runner.records import NoProposal, Proposal, Verdict, Write
from tests.support.fake_proposers import ScriptedProposer
from tests.support.near_misses import FIGURES
from tests.support.scripted_evaluator import TAG, laboratory, make_repository

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
def lab(tmp_path, monkeypatch):
    """No engine: every candidate is built and discarded."""
    discard = Failure(verdict=Verdict.DISCARD, reason="scripted")
    monkeypatch.setattr(experiment, "measure", lambda *_, build, **__: build() and discard)
    monkeypatch.setattr(experiment.images, "exists", lambda *_: True)
    monkeypatch.setattr(
        experiment.images, "build_candidate", lambda *_, **__: SimpleNamespace(id="i", layer_digest="l")
    )
    monkeypatch.setattr(campaign, "await_engine", lambda *_, **__: None)
    monkeypatch.setattr(campaign, "EMPTY_PAUSES_SECONDS", (0.0,) * 5)
    monkeypatch.setattr(campaign.evidence, "control_due", lambda *_: False)
    with laboratory(make_repository(tmp_path / "repository"), experiments=3) as opened:
        yield opened


@pytest.fixture
def night(lab, monkeypatch):
    """Run the night with a script, as often as wanted."""
    monkeypatch.setattr(type(lab), "owner", lambda *_: SimpleNamespace(facts=dict))
    paper = replace(lab, engine=SimpleNamespace(client=None))

    def run(*script, more=None):
        proposer = ScriptedProposer(script)
        with capture_logs() as events:
            campaign.run(paper, proposer, campaign.StopSwitch(), more=more)
        return [event for event in events if event["event"] == "internal_error"]

    return run


def closed(lab):
    return [(one.verdict, one.reason) for one in lab.ledger.experiments(TAG)[1:]]


def check_one_bug(lab, reports, doing):
    """The second candidate of three is set aside, with one report."""
    (verdict, reason), others = closed(lab)[1], [closed(lab)[0], closed(lab)[2]]
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
        (ideas.edits, "diff", "reading its edits"),
        (ideas.contamination, "find", "reading its edits"),
        (experiment.edits, "count_logic", "judging it"),
        (experiment, "tried_message", "judging it"),
        (experiment.images, "build_candidate", "judging it"),
    ],
)
def test_a_bug_over_one_candidate_closes_it_and_the_night_goes_on(lab, night, monkeypatch, place, name, doing):
    monkeypatch.setattr(place, name, only_of_odd_files(getattr(place, name)))
    reports = night(idea("a"), idea(MARK), idea("b"))
    check_one_bug(lab, reports, doing)
    assert night(idea("c"), more=1) == [], "a restart does not meet it again"
    assert [one for one, _ in closed(lab)][3:] == [Verdict.DISCARD]


def test_what_cannot_be_stored_is_written_down_without_it(lab, night):
    night(idea("a"), idea("b", parameters={"x": object()}), replace(idea("c"), hypothesis="half \ud800 a letter"))
    assert [one for one, _ in closed(lab)] == [Verdict.DISCARD, Verdict.INFRA, Verdict.INFRA]
    assert lab.ledger.experiment(TAG, 3).hypothesis == "half  a letter"


def test_a_candidate_that_killed_the_controller_before_is_closed_at_the_next_start(lab, night, monkeypatch):
    proposal = idea(MARK)
    with closing(IdeaQueue(lab, ScriptedProposer([proposal]), lab.ledger.campaign(TAG), 0.0)) as desk:
        assert desk.propose() == 1
    monkeypatch.setattr(experiment.edits, "count_logic", only_of_odd_files(experiment.edits.count_logic))
    assert len(night(idea("a"), more=1)) == 1
    assert [one for one, _ in closed(lab)] == [Verdict.INFRA, Verdict.DISCARD]


def test_a_bug_in_a_conversation_ends_it_and_another_one_begins(lab, night):
    def buggy(request):
        raise KeyError(request.number)

    reports = night(idea("a"), buggy, idea("b"), idea("c"))
    assert [report["doing"] for report in reports] == ["asking for an idea"]
    assert [one for one, _ in closed(lab)] == [Verdict.DISCARD] * 3
    assert lab.ledger.conversation(TAG, "scripted") is None


def test_a_bug_on_the_other_thread_ends_the_conversation_there(lab):
    def buggy(request):
        raise KeyError(request.number)

    proposer = ScriptedProposer([buggy])
    proposer.prefetches = True
    with closing(IdeaQueue(lab, proposer, lab.ledger.campaign(TAG), 0.0)) as desk:
        desk.prefetch()
        answer = desk.propose()
    assert isinstance(answer, NoProposal) and "KeyError" in answer.reason
    assert lab.ledger.conversation(TAG, "scripted") is None


def test_a_bug_over_a_stack_uses_its_pieces_up(lab, night, monkeypatch):
    """Else the next round would meet it again."""
    for text in ("a", "b"):
        with closing(IdeaQueue(lab, ScriptedProposer([idea(text)]), lab.ledger.campaign(TAG), 0.0)) as desk:
            number = desk.propose()
        lab.ledger.close_experiment(
            TAG, number, verdict=Verdict.DISCARD, reason="r", val_bpb=2.0,
            figures=replace(FIGURES, effect_bpb=-1.0),
        )  # fmt: skip
    assert len(combine.shelf(lab.ledger.experiments(TAG))) == 2

    def buggy(*_, **__):
        raise ValueError("bug")

    monkeypatch.setattr(combine, "_can_be_stored", buggy)
    reports = night(idea("c"), idea("d"))
    assert [report["doing"] for report in reports] == ["putting near misses together"]
    stack = lab.ledger.experiment(TAG, 3)
    assert (stack.verdict, stack.combines) == (Verdict.INFRA, (1, 2))
    assert [one for one, _ in closed(lab)][3:] == [Verdict.DISCARD] * 2


def test_a_bug_over_every_candidate_ends_the_night(lab, night, monkeypatch):
    def buggy(*_):
        raise ValueError("bug")

    monkeypatch.setattr(experiment.edits, "count_logic", buggy)
    with pytest.raises(EngineError, match=r"in a row quarantined.*internal error while judging it"):
        night(*(idea(f"n{number}") for number in range(9)), more=9)
    assert len(closed(lab)) == campaign.MAX_QUARANTINED


def test_a_bug_behind_a_verdict_does_not_touch_it(lab, night, monkeypatch):
    def judged_and_then(lab, campaign, one):
        lab.ledger.close_experiment(campaign.tag, one.number, verdict=Verdict.DISCARD, reason="judged")
        raise ValueError("bug")

    monkeypatch.setattr(experiment, "_look_until_clear", judged_and_then)
    with pytest.raises(ValueError, match="bug"):
        night(idea("a"), more=1)
    assert closed(lab) == [(Verdict.DISCARD, "judged")]


@pytest.mark.parametrize(
    "error",
    [EngineError("e"), Interrupted("i"), OSError(28, "full"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()],
    ids=lambda error: type(error).__name__,
)
def test_what_has_a_name_goes_through(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        guarded("failing", fail)


def test_what_works_is_left_alone():
    with capture_logs() as events:
        assert guarded("adding", lambda: 1 + 1) == 2
    assert events == []


def test_a_host_without_memory_for_one_candidate_goes_on():
    def fail():
        raise MemoryError

    with capture_logs():
        assert isinstance(guarded("reading", fail, number=1), Bug)
