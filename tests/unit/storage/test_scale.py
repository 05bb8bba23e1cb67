"""Reading a ledger takes steps of SQLite in proportion to what is read, and a budget check always the same few."""

from __future__ import annotations

import pytest

from runner.campaign.budget import budget_reason
from runner.storage.ledger import Ledger
from tests.support.ledgers import answered, open_experiment, usage


@pytest.fixture
def steps(ledger):
    """Count the steps of SQLite's virtual machine, in tens, that a call takes."""
    taken = [0]

    def count():
        taken[0] += 1
        return 0

    def measure(call):
        taken[0] = 0
        call()
        return taken[0]

    ledger.database._db.set_progress_handler(count, 10)
    return measure


def paid_experiments(ledger: Ledger, number: int) -> None:
    for _ in range(number):
        talk = ledger.conversations.open("t", "p", seen=0)
        answered(ledger.conversations, talk, "a", cost=0.25)
        open_experiment(ledger, conversation=talk.id)


def test_the_cost_of_each_experiment_is_found_without_the_others(ledger, steps):
    paid_experiments(ledger, 50)
    few = steps(lambda: ledger.experiments("t"))
    paid_experiments(ledger, 150)
    assert [one.cost_usd for one in ledger.experiments("t")] == [0.25] * 200
    assert steps(lambda: ledger.experiments("t")) < 6 * few


def test_a_budget_check_takes_as_long_after_many_answers_as_after_few(ledger, steps):
    paid_experiments(ledger, 5)
    few = steps(lambda: budget_reason(ledger.conversations, "t", 1000.0))
    paid_experiments(ledger, 100)
    assert steps(lambda: budget_reason(ledger.conversations, "t", 1000.0)) <= few + 2


def test_the_running_sum_of_a_campaign_follows_each_correction(ledger):
    conversations = ledger.conversations
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    for tag, booked, closed in (("t", 0.5, 0.25), ("u", 8.0, 16.0), ("t", 0.5, 1.0)):
        talk = conversations.ongoing(tag, "p") or conversations.open(tag, "p", seen=0)
        booking = conversations.open_answer(talk.id, turn=1, request_sha256="r", usage=usage(booked))
        before = conversations.campaign_cost_usd(tag)
        conversations.close_answer(booking, usage(closed), None)
        assert conversations.campaign_cost_usd(tag) == before - booked + closed
    assert [conversations.campaign_cost_usd(tag) for tag in ("t", "u")] == [1.25, 16.0]
    assert [conversations.usage_totals(tag).cost_usd for tag in ("t", "u")] == [1.25, 16.0]
