"""Where the next idea comes from: who is asked, on which ground, and what is made of the answer.

Near misses that are worth a try together come first: they cost no answer. While a candidate is measured, a
proposer that takes its time is asked for the idea after it. It knows the verdicts up to then, and what is running.
When that is kept, the idea that waits is put on the new champion, unless both change the same lines; else another
one is asked for. So a discard costs no waiting. A crash of the running one is mended after the idea that waits:
meanwhile its mending is written.

At most one conversation with a proposer goes on. Its ground is in the ledger, so that a restart asks the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import structlog

from runner import edits
from runner.campaign.backstop import Bug, guarded
from runner.campaign.budget import LedgerJournal
from runner.decision import evidence
from runner.decision.keep_rule import pooled_sigma
from runner.decision.lineage import champion
from runner.edits import contamination
from runner.errors import ConfigError
from runner.evaluation.trial import Laboratory
from runner.proposers import Proposer, combine
from runner.records import Experiment, Files, NoProposal, Patch, Proposal, ProposalRequest, Verdict
from runner.storage.ledger import Campaign, Conversation, Ledger
from runner.untrusted import prompt_text

log = structlog.get_logger()

Check = Callable[[Laboratory, Files, int, Callable[[], bool]], str]
"""Runs files for a moment: why they are no good, or nothing. See `smoke.check`."""
POLL_SECONDS = 0.2
LEAVE_SECONDS = 10.0
"""How long a request that nobody waits for any more may take to end."""
HYPOTHESIS_CHARACTERS = 2_000
"""Of a proposal that could not be read."""
RECENT = 2
"""A crash is mended after the next experiment at the latest: one may be waiting already when it crashes."""


@dataclass
class _Thought:
    """A conversation on another thread."""

    conversation: Conversation
    thread: threading.Thread = field(init=False)
    outcome: Proposal | NoProposal | BaseException | None = None


@dataclass
class IdeaQueue:
    """Asks one proposer for the ideas of one campaign. Close it, or a thread goes on talking.

    Args:
        check: runs a submission for a moment; None: nothing is run before its experiment.
        budget_usd: of the campaign; 0: no limit.
        stacks: whether near misses are tried together.
    """

    lab: Laboratory
    proposer: Proposer
    campaign: Campaign
    budget_usd: float
    check: Check | None = None
    stacks: bool = True
    _thought: _Thought | None = None
    _leaving: threading.Event = field(default_factory=threading.Event)

    def prefetch(self) -> None:
        """Ask for the idea after the running one, on another thread; where that does not pay, do nothing."""
        if not self.proposer.prefetches or self._thought is not None:
            return
        thought = _Thought(self._conversation(self._experiments()))
        thought.thread = threading.Thread(target=self._think, args=(thought,), name="proposer", daemon=True)
        self._thought = thought
        thought.thread.start()

    def propose(self) -> int | NoProposal:
        """Have the next idea, or the second version of a crashed one, and write it down; returns its number.

        Raises:
            ProposerError: no proposal can ever come.
        """
        while True:
            conversation, answer = self._await_thought() or self._ask_now()
            if isinstance(answer, NoProposal):
                if answer.unfinished or conversation.retry_of is None:
                    return answer
                log.info(
                    "idea_abandoned",
                    campaign=self.campaign.tag,
                    experiment=conversation.retry_of,
                    reason=answer.reason,
                )
                continue
            number = self._open(conversation, answer)
            if number is not None:
                return number

    def propose_stack(self, *, ending: bool) -> int | None:
        """Write down the near misses that are tried together now; returns the number, None when none is due.

        Args:
            ending: only few more runs will follow.
        """
        lab, tag = self.lab, self.campaign.tag
        experiments = self._experiments()
        best = champion(experiments)
        assert best is not None

        @cache
        def kept_files(number: int) -> Files:
            commit = experiments[number].kept_commit
            assert commit is not None
            return lab.repository.read_workload(commit)

        def put_together() -> int | None:
            proposal = combine.stack(
                experiments,
                kept_files,
                champion=best.number,
                sigma_bpb=pooled_sigma(evidence.noise_groups(experiments), lab.config.noise_prior_bpb),
                stack_sigmas=lab.config.stack_sigmas if self.stacks else 0.0,
                ending=ending,
            )
            if proposal is None:
                return None
            files = kept_files(best.number)
            refused, diff = _as_diff(files, edits.apply(files, proposal.edits), lab.sealed_text)
            number = lab.ledger.open_experiment(tag, proposal, diff=diff, champion=best.number, refused=refused)
            log.info("stack_opened", campaign=tag, experiment=number, combines=proposal.combines, refused=refused)
            return number

        made = guarded("putting near misses together", put_together, campaign=tag)
        if not isinstance(made, Bug):
            return made
        pieces = tuple(sorted(one.number for one in combine.shelf(experiments)[: combine.MAX_PIECES]))
        if not pieces:
            raise made.error  # of no candidate
        # Any of them may be what we cannot read: all count as used, or the next round fails alike.
        told = f"{len(pieces)} near misses together"
        proposal = Proposal(
            hypothesis=told, edits=(), proposer=combine.PROPOSER, category=combine.CATEGORY, combines=pieces
        )
        return lab.ledger.open_experiment(
            tag, proposal, diff="", champion=best.number, refused=made.reason, refused_as=Verdict.INFRA
        )

    def start_afresh(self) -> None:
        """Leave what was said in the conversation that goes on: perhaps it is what nobody can answer."""
        going_on = self.lab.ledger.conversation(self.campaign.tag, self.proposer.name)
        if going_on is not None and self.lab.ledger.conversation_usd(going_on.id):
            self.lab.ledger.end_conversation(going_on.id)

    def close(self) -> None:
        """Ask nothing more. An answer that is on its way is cut off; what has arrived of it is booked."""
        self._leaving.set()
        if self._thought is not None:
            self._thought.thread.join(LEAVE_SECONDS)
            self._thought = None

    def _experiments(self) -> tuple[Experiment, ...]:
        return self.lab.ledger.experiments(self.campaign.tag)

    def _conversation(self, experiments: tuple[Experiment, ...]) -> Conversation:
        """The one that was cut off, or a new one: about a crash, or about a new idea."""
        ledger, tag, proposer = self.lab.ledger, self.campaign.tag, self.proposer.name
        going_on = ledger.conversation(tag, proposer)
        if going_on is not None:
            return going_on
        closed = [one for one in experiments if one.verdict is not None]
        crash = _to_be_mended(experiments, proposer, lambda number: ledger.retry_abandoned(tag, number))
        return ledger.open_conversation(
            tag,
            proposer,
            seen=closed[-1].number,
            running=experiments[-1].number if experiments[-1].verdict is None else None,
            retry_of=None if crash is None else crash.number,
        )

    def _await_thought(self) -> tuple[Conversation, Proposal | NoProposal] | None:
        """What was asked for ahead of time."""
        thought, self._thought = self._thought, None
        if thought is None:
            return None
        if thought.thread.is_alive():
            self.lab.observer.phase(self._experiments()[-1].number + 1, "propose", None)
        while thought.thread.is_alive():  # signals are handled between two looks
            thought.thread.join(POLL_SECONDS)
        if isinstance(thought.outcome, BaseException):
            raise thought.outcome
        assert thought.outcome is not None
        return thought.conversation, thought.outcome

    def _ask_now(self) -> tuple[Conversation, Proposal | NoProposal]:
        experiments = self._experiments()
        self.lab.observer.phase(experiments[-1].number + 1, "propose", None)
        conversation = self._conversation(experiments)
        return conversation, self._ask(self.lab.ledger, conversation)

    def _think(self, thought: _Thought) -> None:
        try:
            with Ledger(self.lab.ledger.path) as ledger:  # a connection belongs to its thread
                thought.outcome = self._ask(ledger, thought.conversation)
        except BaseException as error:  # noqa: BLE001  raised again where it is waited for
            thought.outcome = error

    def _ask(self, ledger: Ledger, conversation: Conversation) -> Proposal | NoProposal:
        """Hold one conversation, or the rest of one that was cut off; it ends at a bug of ours."""
        answer = guarded(
            "asking for an idea",
            lambda: self._hold(ledger, conversation),
            campaign=self.campaign.tag,
            conversation=conversation.id,
        )
        if isinstance(answer, Bug):
            ledger.end_conversation(conversation.id)
            return NoProposal(reason=answer.reason, exhausted=False, proposer=self.proposer.name)
        if isinstance(answer, NoProposal) and not answer.unfinished:
            ledger.end_conversation(conversation.id, answer.transcript)
        return answer

    def _hold(self, ledger: Ledger, conversation: Conversation) -> Proposal | NoProposal:
        lab, campaign = self.lab, self.campaign
        experiments = ledger.experiments(campaign.tag)
        history = experiments[: conversation.seen + 1]
        number = conversation.seen + 1 + (conversation.running is not None)

        def check(files: Files) -> str:
            assert self.check is not None
            return self.check(replace(lab, ledger=ledger), files, number, self._leaving.is_set)

        journal = LedgerJournal(
            ledger,
            campaign.tag,
            conversation,
            budget_usd=self.budget_usd,
            experiment_usd=lab.config.experiment_budget_usd,
            check=None if self.check is None else check,
            stopping=lambda: self._leaving.is_set() or lab.stopping(),
        )
        return self.proposer.propose(
            ProposalRequest(
                number=number,
                program=read_program(lab),
                profile=lab.config.profile,
                train_seconds=lab.config.train_seconds,
                files=self._files(history),
                history=history,
                running=None if conversation.running is None else _unknown(experiments[conversation.running]),
                failed=None if conversation.retry_of is None else experiments[conversation.retry_of],
                seed=(campaign.seed + conversation.seen + 1) & 0x7FFFFFFF,
                journal=journal,
                leaving=self._leaving.is_set,
            )
        )

    def _files(self, history: tuple[Experiment, ...]) -> Files:
        best = champion(history)
        assert best is not None and best.kept_commit is not None
        return self.lab.repository.read_workload(best.kept_commit)

    def _open(self, conversation: Conversation, proposal: Proposal) -> int | None:
        """Write a proposal down; None when a new champion has left no place for it.

        One that a bug of ours keeps us from reading is written down without its edits, and closed.
        """
        tag = self.campaign.tag
        made = guarded(
            "reading its edits",
            lambda: self._place(conversation, proposal),
            campaign=tag,
            conversation=conversation.id,
        )
        if not isinstance(made, Bug):
            return made
        best = champion(self._experiments())
        assert best is not None
        told = Proposal(
            hypothesis=prompt_text(proposal.hypothesis, HYPOTHESIS_CHARACTERS),
            edits=(),
            proposer=self.proposer.name,
            model=self.proposer.model,
        )
        return self.lab.ledger.open_experiment(
            tag,
            told,
            diff="",
            champion=best.number,
            retry_of=conversation.retry_of,
            refused=made.reason,
            refused_as=Verdict.INFRA,
            conversation=conversation.id,
        )

    def _place(self, conversation: Conversation, proposal: Proposal) -> int | None:
        lab, tag = self.lab, self.campaign.tag
        experiments = self._experiments()
        history = experiments[: conversation.seen + 1]
        files = self._files(history)
        applied = edits.apply(files, proposal.edits)
        now, then = champion(experiments), champion(history)
        assert now is not None and then is not None
        if now.number != then.number and not isinstance(applied, edits.Refusal):
            moved = self._files(experiments)
            applied = edits.carry_over(moved, base=files, changed=applied)
            files = moved
            if isinstance(applied, edits.Refusal):
                lab.ledger.end_conversation(conversation.id, proposal.transcript)
                lab.observer.note(f"the idea that waits does not fit the new champion: {applied.reason}")
                log.info("idea_outdated", campaign=tag, hypothesis=proposal.hypothesis, reason=applied.reason)
                return None
        refused, diff = _as_diff(files, applied, lab.sealed_text)
        number = lab.ledger.open_experiment(
            tag,
            proposal,
            diff=diff,
            champion=now.number,
            retry_of=conversation.retry_of,
            refused=refused,
            conversation=conversation.id,
        )
        log.info("proposal_received", campaign=tag, experiment=number, refused=refused)
        return number


def _to_be_mended(
    experiments: Sequence[Experiment], proposer: str, retry_abandoned: Callable[[int], bool]
) -> Experiment | None:
    """The proposer's last crash, when its second try has not even begun and it did not give it up."""
    mended = {one.retry_of for one in experiments}
    proposed = [one for one in experiments if one.verdict is not None and not one.combines]
    for one in reversed(proposed[-RECENT:]):
        first_crash = one.verdict is Verdict.CRASH and one.retry_of is None and one.number > 0
        if (
            first_crash
            and one.proposer == proposer
            and one.number not in mended
            and not retry_abandoned(one.number)
        ):
            return one
    return None


def _unknown(experiment: Experiment) -> Experiment:
    """A running experiment as it was then, whatever has become of it: a restart must ask the same."""
    return Experiment(
        number=experiment.number,
        hypothesis=experiment.hypothesis,
        proposer=experiment.proposer,
        verdict=None,
        category=experiment.category,
        model=experiment.model,
        retry_of=experiment.retry_of,
        combines=experiment.combines,
        diff=experiment.diff,
        champion=experiment.champion,
    )


def _as_diff(
    files: Files, applied: Files | edits.Refusal, sealed: contamination.SealedText
) -> tuple[str | None, str]:
    """The reason of a refusal and the diff of a candidate; the ledger rebuilds its tree from the diff alone."""
    if isinstance(applied, edits.Refusal):
        return applied.reason, ""
    diff = edits.diff(files, applied)
    if edits.apply(files, (Patch(text=diff),)) != applied:
        return "its diff does not give its files again", diff
    return contamination.find(files, applied, sealed), diff


def read_program(lab: Laboratory) -> str:
    """`program.md` as it lies in the checkout: a person may edit it during the night.

    Raises:
        ConfigError: it is missing or no text.
    """
    path = lab.repository.root / "program.md"
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "git checkout -- program.md") from error
