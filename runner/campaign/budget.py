"""The ledger as the journal of one conversation: what was paid for is written at once and never asked again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from runner.records import Files, Usage
from runner.storage.ledger import Conversation, Ledger

Check = Callable[[Files], str]
"""Runs files for a moment; why they are no good, or nothing."""


class LedgerJournal:
    """A `records.Journal` over the ledger.

    Args:
        ledger: where it is written.
        tag: the campaign.
        conversation: that it is the journal of.
        budget_usd: no request that may lead beyond it in the campaign; 0: no limit.
        experiment_usd: the same for this conversation alone.
        check: runs a submission; None: nothing is run.
        stopping: a person asked to stop: nothing more is asked.
    """

    def __init__(
        self,
        ledger: Ledger,
        tag: str,
        conversation: Conversation,
        *,
        budget_usd: float = 0,
        experiment_usd: float = 0,
        check: Check | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ledger = ledger
        self._tag = tag
        self._conversation = conversation.id
        self._budget_usd = budget_usd
        self._experiment_usd = experiment_usd
        self._check = check
        self._stopping = stopping

    def refusal(self) -> str | None:
        """Why no further request may be sent."""
        if self._stopping():
            return "stopped by hand"
        return budget_reason(self._ledger, self._tag, self._budget_usd) or self.exhausted()

    def exhausted(self) -> str | None:
        """Why this conversation has cost enough."""
        spent = self._ledger.conversation_usd(self._conversation)
        if (
            self._experiment_usd
            and spent
            and spent + self._ledger.highest_cost_usd(self._tag) > self._experiment_usd
        ):
            return (
                f"another answer may cost more than the ${self._experiment_usd:.2f} of one experiment"
                f" (${spent:.2f} spent)"
            )
        return None

    def recall(self, turn: int, request_sha256: str) -> Any | None:
        """The recorded answer to the same request."""
        return self._ledger.recall_answer(self._conversation, turn=turn, request_sha256=request_sha256)

    def open_answer(self, turn: int, request_sha256: str, usage: Usage) -> int:
        """Book a response that begins."""
        return self._ledger.open_answer(self._conversation, turn=turn, request_sha256=request_sha256, usage=usage)

    def close_answer(self, booking: int, usage: Usage, body: object | None) -> None:
        """Write down how it ended."""
        self._ledger.close_answer(booking, usage, body)

    def check(self, files: Files) -> str:
        """What a short run of a submission showed, now or before a restart: the conversation rests on it."""
        if self._check is None:
            return ""
        tree = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        reason = self._ledger.recall_check(self._conversation, tree)
        if reason is None:
            reason = self._check(files)
            self._ledger.keep_check(self._conversation, tree, reason)
        return reason


def budget_reason(ledger: Ledger, tag: str, budget_usd: float) -> str | None:
    """Why a campaign may spend no more, in one sentence; None when it may.

    It stops before the budget is spent: another answer may cost what the dearest one has.
    """
    if not budget_usd:
        return None
    spent, dearest = ledger.cost_usd(tag), ledger.highest_cost_usd(tag)
    if spent >= budget_usd:
        return f"the budget of ${budget_usd:.2f} is spent (${spent:.2f})"
    if spent + dearest > budget_usd:
        return (
            f"another answer may break the budget of ${budget_usd:.2f}"
            f" (${spent:.2f} spent, the dearest one was ${dearest:.2f})"
        )
    return None
