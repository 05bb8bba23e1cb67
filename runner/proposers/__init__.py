"""The source of hypotheses: one protocol, one module per proposer, imported only when it is chosen.

To add a proposer, write one module with a class that implements `Proposer`, and return it from `create`. A
proposer sees code, scores and cleaned logs (`ProposalRequest`), never data, and returns a value. It raises
`ProposerError` only if asking again cannot help. A proposer that pays for answers writes them into
`request.journal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runner.records import NoProposal, Proposal, ProposalRequest

if TYPE_CHECKING:
    from runner.config import Config


class Proposer(Protocol):
    """A source of experiments."""

    @property
    def name(self) -> str:
        """Its name in the ledger."""

    @property
    def model(self) -> str | None:
        """The language model behind it, if any."""

    @property
    def prefetches(self) -> bool:
        """Whether to ask it while the previous idea is still being measured, because it is slow."""

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Propose one experiment on the champion, or fix `request.failed`.

        Raises:
            ProposerError: it can never propose anything.
        """


def create(config: Config) -> Proposer:
    """Create the configured proposer. Nothing is sent yet.

    Raises:
        ProposerError: it cannot work as configured: no key, no price, no folder of patches.
    """
    if config.proposer == "optuna":
        from runner.proposers.optuna import OptunaProposer

        return OptunaProposer()
    if config.proposer == "replay":
        from runner.proposers.replay import ReplayProposer

        return ReplayProposer(config.replay_from)
    from runner.proposers.llm import open_chat
    from runner.proposers.researcher.conversation import Researcher

    other = config.plateau_model
    return Researcher(
        config.proposer,
        open_chat(config),
        plateau_chat=None if other is None else open_chat(config.model_copy(update={"model": other})),
        plateau_after=config.plateau_after,
    )
