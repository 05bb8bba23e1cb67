"""The budget, and the ledger as the journal of one conversation: answers are booked at once and never asked
again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from runner.records import Files, Usage
from runner.storage.conversations import Conversation, Conversations

Check = Callable[[Files], str]
"""Runs files for a moment and returns why they fail, or an empty string."""


class LedgerJournal:
    """A `records.Journal` over the ledger.

    Args:
        conversations: where it is recorded.
        tag: the campaign.
        conversation: whose journal it is.
        budget_usd: of the campaign: no request that may exceed it is sent; 0: no limit.
        experiment_usd: the same for this conversation alone.
        check: runs a submission; None: nothing is run.
        stopping: whether a person asked to stop; then nothing more is asked.
    """

    def __init__(
        self,
        conversations: Conversations,
        tag: str,
        conversation: Conversation,
        *,
        budget_usd: float = 0,
        experiment_usd: float = 0,
        check: Check | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._conversations = conversations
        self._tag = tag
        self._conversation = conversation.id
        self._budget_usd = budget_usd
        self._experiment_usd = experiment_usd
        self._check = check
        self._stopping = stopping

    def refusal(self) -> str | None:
        """The reason why no further request may be sent."""
        if self._stopping():
            return "stopped by hand"
        return budget_reason(self._conversations, self._tag, self._budget_usd) or self.exhausted()

    def exhausted(self) -> str | None:
        """The reason why this conversation has cost enough."""
        spent = self._conversations.cost_usd(self._conversation)
        if (
            self._experiment_usd
            and spent
            and spent + self._conversations.highest_cost_usd(self._tag) > self._experiment_usd
        ):
            return (
                f"another answer may cost more than the ${self._experiment_usd:.2f} of one experiment"
                f" (${spent:.2f} spent)"
            )
        return None

    def recall(self, turn: int, request_sha256: str) -> Any | None:
        """The recorded answer to the same request."""
        return self._conversations.recall_answer(self._conversation, turn=turn, request_sha256=request_sha256)

    def open_answer(self, turn: int, request_sha256: str, usage: Usage) -> int:
        """Book a response that begins."""
        return self._conversations.open_answer(
            self._conversation, turn=turn, request_sha256=request_sha256, usage=usage
        )

    def close_answer(self, booking: int, usage: Usage, body: object | None) -> None:
        """Record how it ended."""
        self._conversations.close_answer(booking, usage, body)

    def check(self, files: Files) -> str:
        """Result of a submission's smoke test, now or before a restart: the conversation rests on it."""
        if self._check is None:
            return ""
        tree = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        reason = self._conversations.recall_check(self._conversation, tree)
        if reason is None:
            reason = self._check(files)
            self._conversations.keep_check(self._conversation, tree, reason)
        return reason


def budget_reason(conversations: Conversations, tag: str, budget_usd: float) -> str | None:
    """Return why a campaign may spend no more, in one sentence; None when it may.

    It stops before the budget is spent: another answer may cost as much as the most expensive one so far.
    """
    if not budget_usd:
        return None
    spent, highest = conversations.campaign_cost_usd(tag), conversations.highest_cost_usd(tag)
    if spent >= budget_usd:
        return f"the budget of ${budget_usd:.2f} is spent (${spent:.2f})"
    if spent + highest > budget_usd:
        return (
            f"another answer may exceed the budget of ${budget_usd:.2f}"
            f" (${spent:.2f} spent, the most expensive one was ${highest:.2f})"
        )
    return None
