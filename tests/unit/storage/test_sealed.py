"""Scores on the sealed rows lie apart, and attempts to confirm a claim are counted."""

from __future__ import annotations

import pytest

from runner.records import SealedScore, Verdict
from runner.storage.ledger import Ledger
from runner.storage.sealed import SealedScores
from tests.support.ledgers import open_experiment


@pytest.fixture
def sealed(ledger):
    return SealedScores(ledger.database)


def champion(ledger):
    number = open_experiment(ledger)
    ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="better")
    return number


def test_sealed_scores_are_kept_apart_from_what_proposers_read(ledger, sealed):
    number = champion(ledger)
    first = SealedScore(number=number, seed=5, val_bpb=1.5, test_bpb=1.625)
    again = SealedScore(number=number, seed=5, val_bpb=1.5, test_bpb=1.75)
    for score in (first, again):
        sealed.add("t", score, "h")
    assert sealed.of("t") == (again,), "a second one of the same trial replaces it"
    assert sealed.of("u") == ()
    assert "1.75" not in repr(ledger.experiment("t", number))
    ledger.delete_campaign("t")
    assert sealed.of("t") == ()


def test_sealed_scores_come_by_experiment(ledger, sealed):
    scores = [SealedScore(number=champion(ledger), seed=seed, val_bpb=1.5, test_bpb=1.6) for seed in (7, 5)]
    scores.append(SealedScore(number=1, seed=4, val_bpb=1.5, test_bpb=1.6))
    for score in reversed(scores):
        sealed.add("t", score, "h")
    assert [(score.number, score.seed) for score in sealed.of("t")] == [(0, 7), (1, 4), (1, 5)]


def test_a_tip_that_was_not_certified_has_no_sealed_score(ledger, sealed):
    """Its first pairs are sealed before its verdict is known."""
    number = open_experiment(ledger)
    sealed.add("t", SealedScore(number=number, seed=5, val_bpb=1.5, test_bpb=1.6), "h")
    assert sealed.of("t") == ()
    ledger.close_experiment("t", number, verdict=Verdict.DISCARD, reason="no better")
    assert sealed.of("t") == ()


def test_attempts_to_confirm_are_counted_for_their_two_programs(sealed):
    assert sealed.attempts("a") == []
    for index in range(3):
        sealed.record_attempt("a", index + 1, {"attempt": index + 1, "sealed": None})
    sealed.record_attempt("b", 1, {"attempt": 1, "sealed": [{"test_bpb": 1.25}, {"test_bpb": 1.5}]})
    assert [one["attempt"] for one in sealed.attempts("a")] == [1, 2, 3]
    assert sealed.attempts("b") == [{"attempt": 1, "sealed": [{"test_bpb": 1.25}, {"test_bpb": 1.5}]}]


def test_attempts_survive_a_restart_and_the_end_of_their_campaign(ledger, sealed, tmp_path):
    """Deleting a campaign must not make the next attempt the first one again."""
    sealed.record_attempt("a", 1, {"attempt": 1})
    ledger.delete_campaign("t")
    with Ledger(tmp_path / "ledger.db") as again:
        other = SealedScores(again.database)
        assert other.attempts("a") == [{"attempt": 1}]
        other.record_attempt("a", 2, {"attempt": 2})
    assert [one["attempt"] for one in sealed.attempts("a")] == [1, 2]
