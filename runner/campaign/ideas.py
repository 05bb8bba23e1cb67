"""The idea queue: which proposer is asked for the next idea, on what basis, and ahead of time where that pays.

While a candidate is measured, a proposer that takes its time is asked for the idea after it. It knows the verdicts
up to then, and what is running. When that candidate is accepted, the prefetched idea is moved to the new tip,
unless both change the same lines; then another one is asked for. So a discard costs no waiting. A crash of the
running candidate is repaired after the prefetched idea: meanwhile its repair is written.

At most one conversation with a proposer is open. Its basis is in the ledger, so that a restart asks the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from runner.campaign.backstop import Bug, guarded
from runner.campaign.budget import LedgerJournal
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import program_files
from runner.campaign.placement import place
from runner.errors import ConfigError
from runner.evaluation.evaluator import Evaluator
from runner.proposers import Proposer
from runner.records import Experiment, Files, NoProposal, Proposal, ProposalRequest, Verdict
from runner.storage.conversations import Conversation
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository

log = structlog.get_logger()

Check = Callable[[Evaluator, Files, int, Callable[[], bool]], str]
"""Runs files for a moment and returns why they fail, or an empty string. See `smoke_test.check`."""
POLL_SECONDS = 0.2
LEAVE_SECONDS = 10.0
"""Longest wait for a request to end whose answer is not wanted any more."""
RECENT = 2
"""A crash is repaired after the next experiment at the latest: one may have been prefetched when it crashes."""


@dataclass
class _Prefetch:
    """A conversation on another thread."""

    conversation: Conversation
    thread: threading.Thread = field(init=False)
    outcome: Proposal | NoProposal | BaseException | None = None


@dataclass
class IdeaQueue:
    """Asks one proposer for the ideas of one campaign. Close it, or its thread keeps running.

    Args:
        check: runs a submission for a moment; None: nothing is run before its experiment.
        budget_usd: of the campaign; 0: no limit.
    """

    campaign: Campaign
    proposer: Proposer
    budget_usd: float
    check: Check | None = None
    _prefetched: _Prefetch | None = None
    _leaving: threading.Event = field(default_factory=threading.Event)

    def prefetch(self) -> None:
        """Ask for the idea after the running one, on another thread; where that does not pay, do nothing."""
        if not self.proposer.prefetches or self._prefetched is not None:
            return
        ahead = _Prefetch(self._conversation())
        ahead.thread = threading.Thread(target=self._fetch, args=(ahead,), name="proposer", daemon=True)
        self._prefetched = ahead
        ahead.thread.start()

    def next_idea(self) -> Experiment | NoProposal:
        """Open the experiment of the next idea, or of the second version of a crashed one.

        Raises:
            ProposerError: no proposal can ever come.
        """
        while True:
            conversation, answer = self._await_prefetched() or self._ask_now()
            if isinstance(answer, NoProposal):
                if answer.unfinished or conversation.retry_of is None:
                    return answer
                log.info("idea_abandoned", experiment=conversation.retry_of, reason=answer.reason)
                continue
            opened = place(self.campaign, self.proposer, conversation, answer)
            if opened is not None:
                return opened

    def start_afresh(self) -> None:
        """Drop the open conversation: perhaps it is one that cannot be answered."""
        conversations = self.campaign.ledger.conversations
        ongoing = conversations.ongoing(self.campaign.tag, self.proposer.name)
        if ongoing is not None and conversations.cost_usd(ongoing.id):
            conversations.end(ongoing.id)

    def close(self) -> None:
        """Ask nothing more. An answer that is on its way is cut off; what has arrived of it is booked."""
        self._leaving.set()
        if self._prefetched is not None:
            self._prefetched.thread.join(LEAVE_SECONDS)
            self._prefetched = None

    def _conversation(self) -> Conversation:
        """The open conversation, or a new one: about a crash, or about a new idea."""
        conversations, tag, proposer = self.campaign.ledger.conversations, self.campaign.tag, self.proposer.name
        ongoing = conversations.ongoing(tag, proposer)
        if ongoing is not None:
            return ongoing
        experiments = self.campaign.experiments
        crash = _to_repair(experiments, proposer, lambda number: conversations.retry_abandoned(tag, number))
        running = self.campaign.open_experiment
        return conversations.open(
            tag,
            proposer,
            seen=next(one.number for one in reversed(experiments) if one.verdict is not None),
            running=None if running is None else running.number,
            retry_of=None if crash is None else crash.number,
        )

    def _await_prefetched(self) -> tuple[Conversation, Proposal | NoProposal] | None:
        """The answer that was asked for ahead of time."""
        ahead, self._prefetched = self._prefetched, None
        if ahead is None:
            return None
        if ahead.thread.is_alive():
            self.campaign.observer.phase(len(self.campaign.experiments), "propose", None)
        while ahead.thread.is_alive():  # signals are handled between two polls
            ahead.thread.join(POLL_SECONDS)
        if isinstance(ahead.outcome, BaseException):
            raise ahead.outcome
        assert ahead.outcome is not None
        return ahead.conversation, ahead.outcome

    def _ask_now(self) -> tuple[Conversation, Proposal | NoProposal]:
        self.campaign.observer.phase(len(self.campaign.experiments), "propose", None)
        conversation = self._conversation()
        return conversation, self._ask(self.campaign.ledger, conversation)

    def _fetch(self, ahead: _Prefetch) -> None:
        try:
            with Ledger(self.campaign.ledger.path) as ledger:  # a connection belongs to its thread
                ahead.outcome = self._ask(ledger, ahead.conversation)
        except BaseException as error:  # noqa: BLE001  raised again where it is awaited
            ahead.outcome = error

    def _ask(self, ledger: Ledger, conversation: Conversation) -> Proposal | NoProposal:
        """Hold one conversation, or the rest of one that was cut off; a bug of ours ends it."""
        answer = guarded(
            "asking for an idea",
            lambda: self.proposer.propose(self._request(ledger, conversation)),
            campaign=self.campaign.tag,
            conversation=conversation.id,
        )
        if isinstance(answer, Bug):
            ledger.conversations.end(conversation.id)
            return NoProposal(reason=answer.reason, exhausted=False, proposer=self.proposer.name)
        if isinstance(answer, NoProposal) and not answer.unfinished:
            ledger.conversations.end(conversation.id, answer.transcript)
        return answer

    def _request(self, ledger: Ledger, conversation: Conversation) -> ProposalRequest:
        """Everything that the proposer may know: the same whenever a conversation is asked again."""
        campaign, config, leaving = self.campaign, self.campaign.config, self._leaving.is_set
        experiments = campaign.experiments
        past = tuple(experiments[: conversation.seen + 1])
        number = conversation.seen + 1 + (conversation.running is not None)
        smoke_test = self.check
        journal = LedgerJournal(
            ledger.conversations,
            campaign.tag,
            conversation,
            budget_usd=self.budget_usd,
            experiment_usd=config.experiment_budget_usd,
            check=smoke_test and (lambda files: smoke_test(campaign.evaluator, files, number, leaving)),
            stopping=lambda: leaving() or campaign.stopping(),
        )
        return ProposalRequest(
            number=number,
            program=read_program(campaign.repository),
            profile=config.sizes,
            train_seconds=config.train_seconds,
            files=program_files(campaign, experiments[campaign.memory.tip_after(conversation.seen)]),
            history=past,
            running=None if conversation.running is None else _unjudged(experiments[conversation.running]),
            failed=None if conversation.retry_of is None else experiments[conversation.retry_of],
            seed=(campaign.row.seed + conversation.seen + 1) & 0x7FFFFFFF,
            journal=journal,
            leaving=leaving,
        )


def _to_repair(
    experiments: Sequence[Experiment], proposer: str, abandoned: Callable[[int], bool]
) -> Experiment | None:
    """The proposer's last crash, when its second try has not begun and it was not abandoned."""
    tried_again: set[int | None] = set()
    num_seen = 0
    for one in reversed(experiments):
        if one.verdict is not None and not one.is_certificate:
            num_seen += 1
            first_crash = one.verdict is Verdict.CRASH and one.retry_of is None and one.number > 0
            own = one.proposer == proposer and one.number not in tried_again
            if first_crash and own and not abandoned(one.number):
                return one
        if num_seen == RECENT:
            return None
        tried_again.add(one.retry_of)
    return None


def _unjudged(experiment: Experiment) -> Experiment:
    """A running experiment as it was then, whatever has become of it: a restart must ask the same."""
    return Experiment(
        number=experiment.number,
        hypothesis=experiment.hypothesis,
        proposer=experiment.proposer,
        verdict=None,
        category=experiment.category,
        model=experiment.model,
        retry_of=experiment.retry_of,
        certifies=experiment.certifies,
        diff=experiment.diff,
        champion=experiment.champion,
        parent=experiment.parent,
    )


def read_program(repository: Repository) -> str:
    """`program.md` as it is in the checkout: a person may edit it during the night.

    Raises:
        ConfigError: it is missing or not text.
    """
    path = repository.root / "program.md"
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "git checkout -- program.md") from error
