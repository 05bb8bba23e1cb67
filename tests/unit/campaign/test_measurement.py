"""The measuring loop: an attempt that says nothing about its program is recorded and repeated, within limits."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from runner.campaign import measurement
from runner.campaign.measurement import MAX_CONTENDED, LedgerBook, TrialBook, measure
from runner.errors import (
    BaseGoneError,
    DiskFullError,
    EngineAwayError,
    EngineError,
    ImageError,
    Interrupted,
    LedgerError,
)
from runner.evaluation import evaluator
from runner.evaluation.evaluator import Program, TrialRequest
from runner.evaluation.trial import Sealed
from runner.records import (
    AuditPolicy,
    Outcome,
    Phase,
    Proposal,
    Ruling,
    RunEnd,
    SealedScore,
    Trial,
    TrialKind,
    Verdict,
)
from runner.storage.ledger import Ledger
from tests.support.scripted_controller import TAG, make_repository
from tests.support.scripted_controller import campaign as open_campaign
from tests.support.trials import run

NEVER = AuditPolicy(audit=False)
CLAIMED = 1.5


class Attempt:
    """What becomes of one attempt.

    Args:
        outcome: of its training; or an error that ends it.
        examined: whether its claims are examined, and how that ends; a function of the policy.
    """

    def __init__(self, outcome=Outcome.SCORED, reason=None, *, examined=None):
        self.outcome, self.reason, self.examined = outcome, reason, examined

    def claim(self):
        end = RunEnd.FINISHED if self.outcome is Outcome.SCORED else RunEnd.LOST
        self.runs.append(run(Phase.TRAIN, self.seed, end))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        if self.outcome is not Outcome.SCORED:
            return self.made(self.outcome, reason=self.reason)
        self.runs.append(run(Phase.SCORE, self.seed, val_bpb=CLAIMED, claims_sha256="sha"))
        return self.made(Outcome.SCORED, val_bpb=CLAIMED, claims_sha256="sha")

    def examine(self, policy, champion_claims):
        if self.examined is not None:
            return self.examined(self, policy, champion_claims)
        return self.made(Outcome.SCORED, val_bpb=CLAIMED, claims_sha256="sha"), None

    def made(self, outcome, **fields):
        return Trial(seed=self.seed, outcome=outcome, runs=tuple(self.runs), **fields)


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "check_engine_identity", lambda *_: None)
    monkeypatch.setattr(measurement, "FAULT_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(evaluator, "await_engine", lambda *_, **__: None)
    monkeypatch.setattr(evaluator, "remove_orphans", lambda *_: 0)
    monkeypatch.setattr(
        evaluator.images, "find_candidate", lambda *_, **__: SimpleNamespace(id="i", layer_digest="l")
    )
    with open_campaign(make_repository(tmp_path / "repository")) as opened:
        opened.open(Proposal(hypothesis="h", edits=(), proposer="p"), diff="", parent=0)
        yield opened


@pytest.fixture
def measured(campaign, monkeypatch):
    """Measure experiment 1 with a script of attempts; the last one is repeated."""

    def go(*attempts, policy=lambda _: NEVER, book=None, champion_claims=None):
        script, go.requests = list(attempts), []

        @contextmanager
        def open_trial(_evaluator, request, image_id, runs):
            assert image_id == "i"
            go.requests.append(request)
            attempt = script.pop(0) if len(script) > 1 else script[0]
            attempt.seed, attempt.runs = request.seed, runs
            yield attempt

        monkeypatch.setattr(measurement, "open_trial", open_trial)
        request = TrialRequest(program=Program(number=1, files={}, commit="c"), seed=7)
        where = LedgerBook(campaign, 1) if book is None else book
        return measure(campaign.evaluator, request, where, policy, champion_claims)

    return go


def recorded(campaign):
    """Outcome and reason of each trial of experiment 1, as they are in the ledger."""
    return [(one.outcome, one.reason) for one in campaign.ledger.experiment(TAG, 1).trials]


# ------------------------------------------------------------------ repetition


@pytest.mark.parametrize("outcome", [Outcome.CRASH, Outcome.INVALID, Outcome.STOPPED])
def test_an_outcome_of_the_program_is_final(campaign, measured, outcome):
    made = measured(Attempt(outcome, "r"))
    assert (made.outcome, made.reason) == (outcome, "r")
    assert recorded(campaign) == [(outcome, "r")]


def test_a_contended_trial_is_repeated_and_then_tolerated(campaign, measured):
    contended = Attempt(Outcome.CONTENDED, "others")
    made = measured(*[contended] * MAX_CONTENDED, Attempt())
    assert made.outcome is Outcome.SCORED
    assert [one.tolerate_contention for one in measured.requests] == [False] * MAX_CONTENDED + [True]
    assert {one.seed for one in measured.requests} == {7}, "the same seed each time"
    assert recorded(campaign) == [(Outcome.CONTENDED, "others")] * MAX_CONTENDED + [(Outcome.SCORED, None)]


def test_a_quiet_machine_tolerates_nothing(measured):
    measured(Attempt(Outcome.CONTENDED, "others"), Attempt())
    assert [one.tolerate_contention for one in measured.requests] == [False, False]


def test_a_lost_trial_is_repeated(campaign, measured):
    made = measured(Attempt(Outcome.LOST, "the train container was lost"), Attempt())
    assert made.outcome is Outcome.SCORED
    assert [outcome for outcome, _ in recorded(campaign)] == [Outcome.LOST, Outcome.SCORED]


@pytest.mark.parametrize(
    ("attempts", "reason"),
    [
        ((Attempt(Outcome.LOST, "container 12 was lost"), Attempt(Outcome.LOST, "container 7 was lost")),
         "quarantined after two equal failures: container 7 was lost"),
        ((Attempt(EngineError("a", fault="same")), Attempt(EngineError("b", fault="same"))),
         "quarantined after two equal failures: b"),
        (tuple(Attempt(EngineError(text)) for text in ("one", "another", "a third")),
         "quarantined after 3 failures: a third"),
    ],
    ids=["equal but for figures", "equal by name", "three different ones"],
)  # fmt: skip
def test_a_trial_that_the_infrastructure_fails_again_is_quarantined(campaign, measured, attempts, reason):
    made = measured(*attempts, Attempt())
    assert (made.outcome, made.reason) == (Outcome.LOST, reason)
    rows = recorded(campaign)
    assert [outcome for outcome, _ in rows] == [Outcome.LOST] * len(attempts), "each attempt has its row"
    assert rows[-1][1] == reason.partition(": ")[2]


def test_contention_is_no_failure_of_the_infrastructure(campaign, measured):
    lost, contended = Attempt(Outcome.LOST, "away"), Attempt(Outcome.CONTENDED, "others")
    made = measured(contended, lost, contended, Attempt())
    assert made.outcome is Outcome.SCORED
    assert [outcome for outcome, _ in recorded(campaign)] == ["contended", "lost", "contended", "scored"]


def test_an_engine_that_fails_in_the_middle_leaves_the_runs_that_ended(campaign, measured):
    made = measured(Attempt(EngineError("a socket broke")), Attempt())
    assert made.outcome is Outcome.SCORED
    first, second = campaign.ledger.experiment(TAG, 1).trials
    assert (first.outcome, first.reason) == (Outcome.LOST, "a socket broke")
    assert [(one.phase, one.end) for one in first.runs] == [(Phase.TRAIN, RunEnd.LOST)]
    assert first.closed_seq < second.opened_seq


def test_the_engine_is_waited_for_before_each_repetition(measured, monkeypatch):
    waits = []
    monkeypatch.setattr(evaluator, "await_engine", lambda *_, **__: waits.append(len(measured.requests)))
    measured(Attempt(Outcome.LOST, "a"), Attempt(Outcome.CONTENDED, "b"), Attempt())
    assert waits == [1, 2]


def test_an_image_that_cannot_be_built_opens_no_trial_and_is_tried_twice(campaign, measured, monkeypatch):
    def find(*_, **__):
        calls.append(1)
        raise ImageError(f"no space for sha256:d0a20db83a06a45{len(calls)}")

    calls = []
    monkeypatch.setattr(evaluator.images, "find_candidate", find)
    made = measured(Attempt())
    assert made.outcome is Outcome.LOST and made.reason.startswith(
        "quarantined after two equal failures: no space"
    )
    assert len(calls) == 2 and recorded(campaign) == []


# -------------------------------------------------------------- the way out


@pytest.mark.parametrize(
    "error",
    [
        EngineAwayError("away"),
        DiskFullError("full"),
        BaseGoneError("gone"),
        KeyboardInterrupt(),
        ValueError("bug"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("late", [False, True], ids=["while it trains", "while it is audited"])
def test_an_error_that_no_repetition_helps_ends_the_measurement_with_the_trial_closed(
    campaign, measured, error, late
):
    def raises(*_):
        raise error

    with pytest.raises(type(error)):
        measured(Attempt(examined=raises) if late else Attempt(error))
    assert recorded(campaign) == [(Outcome.LOST, str(error) or "KeyboardInterrupt")]
    (made,) = campaign.ledger.experiment(TAG, 1).trials
    assert (len(made.runs), made.val_bpb) == (1 + late, None)
    assert campaign.ledger.close_lost_trials(TAG) == 0, "none is left open"


def test_an_error_before_the_trial_is_opened_leaves_no_row(campaign, measured, monkeypatch):
    def full(*_, **__):
        raise DiskFullError("full")

    monkeypatch.setattr(evaluator.images, "find_candidate", full)
    with pytest.raises(DiskFullError):
        measured(Attempt())
    assert recorded(campaign) == []


@pytest.mark.parametrize("error", [EngineAwayError("away"), Interrupted("stopped")])
def test_an_engine_that_does_not_come_back_ends_the_measurement(campaign, measured, monkeypatch, error):
    def stays_away(*_, **__):
        raise error

    monkeypatch.setattr(evaluator, "await_engine", stays_away)
    with pytest.raises(type(error)):
        measured(Attempt(Outcome.LOST, "lost"), Attempt())
    assert recorded(campaign) == [(Outcome.LOST, "lost")]


def test_a_ledger_that_fails_on_the_way_out_does_not_hide_the_error(campaign, measured, monkeypatch):
    def refuse(*_):
        raise LedgerError("no room")

    monkeypatch.setattr(Ledger, "close_trial", refuse)
    with pytest.raises(EngineAwayError, match="away"):
        measured(Attempt(EngineAwayError("away")))
    assert campaign.ledger.close_lost_trials(TAG) == 1, "the next start closes it"


# ------------------------------------------------------------------ the record


def test_claims_are_committed_before_they_are_examined_or_even_judged(campaign, measured):
    """Else a controller that is killed in between could draw the audit's positions twice."""
    seen = []

    def look():
        with Ledger(campaign.ledger.path) as other:
            rows = other.database.read(
                "SELECT outcome, claims_sha256, val_bpb,"
                " (SELECT count(*) FROM runs WHERE trial = id) AS num_runs FROM trials WHERE experiment = 1"
            )
        seen.append([tuple(row) for row in rows])

    def policy(claimed_bpb):
        look()
        assert claimed_bpb == CLAIMED
        return AuditPolicy(audit=True)

    def examined(attempt, given, champion_claims):
        look()
        assert given == AuditPolicy(audit=True) and champion_claims == "champion's"
        attempt.runs.append(run(Phase.AUDIT, attempt.seed))
        return attempt.made(Outcome.SCORED, val_bpb=1.6, claims_sha256="sha"), None

    made = measured(Attempt(examined=examined), policy=policy, champion_claims="champion's")
    assert seen == [[(None, "sha", CLAIMED, 2)]] * 2
    (stored,) = campaign.ledger.experiment(TAG, 1).trials
    assert stored.val_bpb == made.val_bpb == 1.6
    assert [one.phase for one in stored.runs] == [Phase.TRAIN, Phase.SCORE, Phase.AUDIT]


def test_an_audit_that_is_lost_repeats_the_whole_trial(campaign, measured):
    def examined(attempt, *_):
        return attempt.made(Outcome.LOST, reason="the audit container was lost", claims_sha256="sha"), None

    assert measured(Attempt(examined=examined), Attempt()).outcome is Outcome.SCORED
    assert [outcome for outcome, _ in recorded(campaign)] == [Outcome.LOST, Outcome.SCORED]


def sealing(attempt, *_):
    """An examination that gives a sealed score."""
    score = SealedScore(number=1, seed=attempt.seed, val_bpb=CLAIMED, test_bpb=1.75)
    return attempt.made(Outcome.SCORED, val_bpb=CLAIMED, claims_sha256="sha", sealed=True), Sealed(score, "test")


def test_a_sealed_score_is_recorded_apart(campaign, measured):
    measured(Attempt(examined=sealing))
    (sealed,) = campaign.ledger.database.read("SELECT number, test_bpb FROM sealed")
    assert tuple(sealed) == (1, 1.75)
    assert campaign.controller.sealed.of(TAG) == (), "shown once it is the champion's"
    (stored,) = campaign.ledger.experiment(TAG, 1).trials
    assert stored.sealed and "1.75" not in repr(campaign.experiments)


def test_a_trial_of_a_study_is_recorded_nowhere(campaign, measured):
    def rows():
        return [list(map(tuple, campaign.ledger.database.read(f"SELECT * FROM {table}"))) for table in tables]

    tables = ("experiments", "trials", "runs", "sealed")
    before = rows()
    lost = Attempt(Outcome.LOST, "away")
    made = measured(lost, Attempt(examined=sealing), book=TrialBook())
    assert (made.outcome, made.sealed) == (Outcome.SCORED, True)
    assert rows() == before
    assert campaign.ledger.experiments(TAG) == tuple(campaign.experiments)


def test_the_commit_and_the_image_of_a_candidate_are_recorded_before_its_trial(campaign, measured):
    def look(attempt, *_):
        one = campaign.ledger.experiment(TAG, 1)
        assert (one.tried_commit, one.image_id, one.layer_digest) == ("c", "i", "l")
        return attempt.made(Outcome.SCORED, val_bpb=CLAIMED, claims_sha256="sha"), None

    measured(Attempt(examined=look))
    assert campaign.experiments[1] == campaign.ledger.experiment(TAG, 1), "what is in memory is up to date"


def test_a_control_belongs_to_its_champion_and_changes_nothing_else(campaign, measured):
    campaign.close(1, Ruling(verdict=Verdict.DISCARD, reason="r"))
    before = campaign.experiments[1]
    measured(Attempt(), book=LedgerBook(campaign, 1, TrialKind.CONTROL))
    after = campaign.experiments[1]
    assert [one.kind for one in after.control_trials] == [TrialKind.CONTROL]
    assert replace(after, control_trials=()) == before
