"""Conversations in the ledger: every answer is booked when it begins, and recalled for its own request."""

from __future__ import annotations

import pytest

from tests.support.ledgers import ASKED, answered, open_experiment, proposal, usage


@pytest.fixture
def conversations(ledger):
    return ledger.conversations


def test_money_is_booked_for_proposals_and_for_conversations_without_one(ledger, conversations):
    nothing = conversations.open("t", "p", seen=0)
    answered(conversations, nothing, "b", cost=1.0)
    conversations.end(nothing.id)
    talk = conversations.open("t", "p", seen=0)
    answered(conversations, talk, "a", cost=0.25)
    answered(conversations, talk, None, cost=0.5)
    assert conversations.campaign_cost_usd("t") == 1.75
    assert conversations.cost_usd(talk.id) == 0.75
    assert conversations.highest_cost_usd("t") == 1.0
    number = open_experiment(ledger, conversation=talk.id)
    assert ledger.experiment("t", number).cost_usd == 0.75
    assert conversations.campaign_cost_usd("t") == 1.75


def test_money_of_one_campaign_is_not_that_of_another(ledger, conversations):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    answered(conversations, conversations.open("u", "p", seen=0), "a", cost=4.0)
    assert conversations.campaign_cost_usd("t") == conversations.highest_cost_usd("t") == 0
    assert conversations.campaign_cost_usd("u") == conversations.highest_cost_usd("u") == 4.0


def test_a_response_is_booked_when_it_begins_and_corrected_when_it_ends(conversations):
    talk = conversations.open("t", "p", seen=0)
    booking = conversations.open_answer(talk.id, **ASKED, usage=usage(0.25))
    assert conversations.campaign_cost_usd("t") == 0.25
    assert conversations.recall_answer(talk.id, **ASKED) is None
    conversations.close_answer(booking, usage(0.5), {"said": ["\ud800", 1.5, None]})
    assert conversations.campaign_cost_usd("t") == 0.5
    assert conversations.recall_answer(talk.id, **ASKED) == {"said": ["\ud800", 1.5, None]}


def test_an_answer_is_recalled_for_its_own_request_alone(conversations):
    talk = conversations.open("t", "p", seen=0)
    other = conversations.open("t", "p", seen=0, retry_of=0)
    answered(conversations, talk, "a")
    assert conversations.recall_answer(talk.id, **ASKED) == "a"
    for changes in ({"turn": 2}, {"request_sha256": "i" * 64}):
        assert conversations.recall_answer(talk.id, **{**ASKED, **changes}) is None
    assert conversations.recall_answer(other.id, **ASKED) is None


def test_an_answer_that_was_cut_off_is_paid_for_and_asked_again(conversations):
    talk = conversations.open("t", "p", seen=0)
    answered(conversations, talk, None, cost=0.5)
    assert conversations.recall_answer(talk.id, **ASKED) is None
    answered(conversations, talk, "whole", cost=1.0)
    answered(conversations, talk, None, cost=0.25)
    assert conversations.recall_answer(talk.id, **ASKED) == "whole"
    assert conversations.cost_usd(talk.id) == 1.75


def test_a_conversation_goes_on_until_it_ends_and_ends_once(ledger, conversations):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    assert conversations.ongoing("t", "p") is None
    talk = conversations.open("t", "p", seen=4, running=5, retry_of=3)
    assert conversations.ongoing("t", "p") == talk
    assert (talk.seen, talk.running, talk.retry_of) == (4, 5, 3)
    assert conversations.ongoing("u", "p") is None and conversations.ongoing("t", "q") is None
    other = conversations.open("t", "q", seen=4)
    assert (conversations.ongoing("t", "p"), conversations.ongoing("t", "q")) == (talk, other)
    assert not conversations.retry_abandoned("t", 3)
    conversations.end(talk.id, {"outcome": "prose"})
    assert conversations.ongoing("t", "p") is None
    assert conversations.retry_abandoned("t", 3)
    assert not conversations.retry_abandoned("t", 4) and not conversations.retry_abandoned("u", 3)
    late = proposal(transcript="other")
    ledger.open_experiment("t", late, diff="", champion=None, conversation=talk.id)
    assert conversations.retry_abandoned("t", 3), "a conversation that has ended led to nothing, and that is final"


def test_an_experiment_has_the_transcript_of_its_conversation(ledger, conversations):
    talk = conversations.open("t", "p", seen=0, retry_of=3)
    said = {"said": "x" * 1000}
    made = proposal(transcript=said)
    number = ledger.open_experiment("t", made, diff="", champion=None, conversation=talk.id)
    assert conversations.ongoing("t", "p") is None
    assert not conversations.retry_abandoned("t", 3)
    assert conversations.transcript("t", number) == said
    assert conversations.transcript("t", number + 1) is None
    assert conversations.transcript("u", number) is None


def test_a_check_is_kept_for_its_conversation_and_its_files(conversations):
    talk, other = conversations.open("t", "p", seen=0), conversations.open("t", "p", seen=0)
    assert conversations.recall_check(talk.id, "a") is None
    conversations.keep_check(talk.id, "a", "")
    conversations.keep_check(talk.id, "b", "it failed")
    assert [conversations.recall_check(talk.id, tree) for tree in "ab"] == ["", "it failed"]
    assert conversations.recall_check(other.id, "a") is None
