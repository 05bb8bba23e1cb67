"""The ledger as the journal of one conversation: what was paid for is written at once and never asked again."""

from __future__ import annotations

from typing import Any

from runner.ledger import Ledger
from runner.records import Usage


class LedgerJournal:
    """A `records.Journal` over the ledger, for the proposal of one experiment.

    Args:
        ledger: where it is written.
        tag: the campaign.
        number: of the experiment that is to be proposed.
        retry_of: the crash that is to be mended: another conversation than that about a new idea.
        budget_usd: no request once the campaign has cost this much; 0: no limit.
    """

    def __init__(
        self, ledger: Ledger, *, tag: str, number: int, retry_of: int | None, budget_usd: float = 0
    ) -> None:
        self._ledger = ledger
        self._tag = tag
        self._number = number
        self._retry_of = retry_of
        self._budget_usd = budget_usd
        self._bookings: dict[int, None] = {}

    @property
    def bookings(self) -> tuple[int, ...]:
        """Of every response to the requests of this conversation, in this process or an earlier one.

        Answers to other requests are not among them: those of a conversation that was left because its prompt
        had changed are spent, but no part of what the experiment cost.
        """
        return tuple(self._bookings)

    def refusal(self) -> str | None:
        """Why no further request may be sent."""
        return budget_reason(self._ledger, self._tag, self._budget_usd)

    def recall(self, turn: int, request_sha256: str) -> Any | None:
        """The recorded answer to the same request."""
        recalled = self._ledger.recall_answer(
            self._tag, self._number, retry_of=self._retry_of, turn=turn, request_sha256=request_sha256
        )
        self._bookings.update(dict.fromkeys(recalled.bookings))
        return recalled.body

    def open_answer(self, turn: int, request_sha256: str, usage: Usage) -> int:
        """Book a response that begins."""
        booking = self._ledger.open_answer(
            self._tag,
            self._number,
            retry_of=self._retry_of,
            turn=turn,
            request_sha256=request_sha256,
            usage=usage,
        )
        self._bookings[booking] = None
        return booking

    def close_answer(self, booking: int, usage: Usage, body: object | None) -> None:
        """Write down how it ended."""
        self._ledger.close_answer(booking, usage, body)

    def end(self) -> None:
        """The conversation led to nothing."""
        self._ledger.end_conversation(self._tag, self._number, self._retry_of)


def budget_reason(ledger: Ledger, tag: str, budget_usd: float) -> str | None:
    """Why a campaign may spend no more, in one sentence; None when it may."""
    spent = ledger.cost_usd(tag)
    if budget_usd and spent >= budget_usd:
        return f"the budget of ${budget_usd:.2f} is spent (${spent:.2f})"
    return None
