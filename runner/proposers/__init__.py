"""Where hypotheses come from: one protocol, one module per proposer, imported only when it is chosen.

To add a proposer, write one module with a class that has `name`, `model` and `propose`, and name it in `create`.
A proposer sees code, scores and cleaned logs (`ProposalRequest`), never data, and answers with a value. It raises
`ProposerError` only when asking again cannot help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runner.errors import ProposerError
from runner.records import NoProposal, Proposal, ProposalRequest, Usage

if TYPE_CHECKING:
    from runner.config import Config


class Proposer(Protocol):
    """Something that proposes experiments."""

    @property
    def name(self) -> str:
        """How the ledger calls it."""

    @property
    def model(self) -> str | None:
        """The language model behind it, if there is one."""

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Propose one experiment on the champion, or mend `request.failed`.

        Raises:
            ProposerError: no proposal can ever come; `PaidProposerError` when money was spent before that.
        """


class PaidProposerError(ProposerError):
    """A `ProposerError` after responses that must still be booked.

    Args:
        usage: what the conversation cost before it failed.
    """

    def __init__(self, message: str, remedy: str | None = None, *, usage: tuple[Usage, ...]) -> None:
        super().__init__(message, remedy)
        self.usage = usage


def create(config: Config) -> Proposer:
    """Make the proposer that the configuration names. Nothing is sent anywhere yet.

    Raises:
        ProposerError: it cannot work as configured: no key, no price, no folder of patches.
    """
    if config.proposer == "anthropic":
        from runner.proposers.anthropic import AnthropicProposer

        return AnthropicProposer(config)
    if config.proposer == "replay":
        from runner.proposers.replay import ReplayProposer

        return ReplayProposer(config.replay_from)
    from runner.proposers.optuna import OptunaProposer

    return OptunaProposer()
