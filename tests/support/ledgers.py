"""A ledger with one campaign, and what tests put into it."""

from __future__ import annotations

from contextlib import contextmanager

from runner.records import Proposal, Usage, UsageTotals
from runner.storage.ledger import Ledger

TAG = "t"
NO_USAGE = UsageTotals(
    num_responses=0, input_tokens=0, output_tokens=0, cache_read_tokens=0, cache_write_tokens=0, cost_usd=0.0
)
ASKED = {"turn": 1, "request_sha256": "h" * 64}


@contextmanager
def new_ledger(folder):
    """Open the ledger of a folder and create its campaign."""
    with Ledger(folder / "ledger.db") as opened:
        opened.create_campaign(tag=TAG, base_commit="b" * 40, conditions={"data": "d"})
        yield opened


def proposal(hypothesis="wider", **fields):
    """A proposal without edits."""
    return Proposal(hypothesis=hypothesis, edits=(), proposer="fake", **fields)


def open_experiment(ledger, tag=TAG, **fields):
    """Open an experiment of `proposal`; returns its number."""
    return ledger.open_experiment(tag, proposal(), **{"diff": "", "champion": None, **fields})


def record_trial(ledger, number, trial, tag=TAG):
    """Put a trial into the ledger, as its kind and seed say; returns its id there."""
    trial_id = ledger.open_trial(tag, number, trial.kind, trial.seed)
    ledger.close_trial(tag, trial_id, trial)
    return trial_id


def usage(cost_usd):
    """Cost of one response."""
    return Usage(
        model="m", request_id="r", input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4,
        cost_usd=cost_usd,
    )  # fmt: skip


def answered(conversations, conversation, body, *, cost=1.0, **fields):
    """A response from its begin to its end; returns its booking."""
    booking = conversations.open_answer(conversation.id, **{**ASKED, **fields}, usage=usage(0.0))
    conversations.close_answer(booking, usage(cost), body)
    return booking
