"""Where hypotheses come from: one protocol, one module per proposer, imported only when it is chosen.

To add a proposer, write one module with a class that has `name`, `model` and `propose`, and name it in `create`.
A proposer sees code, scores and cleaned logs (`ProposalRequest`), never data, and answers with a value. It raises
`ProposerError` only when asking again cannot help. One that pays for answers writes them into `request.journal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runner.records import NoProposal, Proposal, ProposalRequest

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

    @property
    def prefetches(self) -> bool:
        """Whether it takes its time: then it is asked while the last idea is measured, without its verdict."""

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Propose one experiment on the champion, or mend `request.failed`.

        Raises:
            ProposerError: no proposal can ever come.
        """


def create(config: Config) -> Proposer:
    """Make the proposer that the configuration names. Nothing is sent anywhere yet.

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
