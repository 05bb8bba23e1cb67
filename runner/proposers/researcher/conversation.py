"""A language model as the researcher: one conversation per experiment, with a scratch copy and a memory.

The model edits a copy of the tip, reads past experiments, and submits. A refused submission (an edit that
does not apply, a repetition, a program that fails its smoke test) goes back into the same conversation: it
costs a turn, not a GPU. The conversation follows from the request, the answers and the checks alone, and these
are in the ledger: a night that was killed continues where it was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner import edits
from runner.edits import Refusal
from runner.proposers.llm.chat import Answer, Call, Chat, Connection, Exchange, Opening, Result, Stop, Unanswered
from runner.proposers.researcher import duplicates, experiments_tool, prompt, submit_tool
from runner.proposers.researcher.editor_tool import EDITOR, ScratchCopy
from runner.proposers.researcher.plateau import plateau
from runner.proposers.researcher.submit_tool import Submission
from runner.records import Files, NoProposal, Proposal, ProposalRequest
from runner.untrusted import fenced

MAX_TURNS = 40
WARN_TURNS = 5
"""The last turns, in which the model sees how many are left."""
MAX_NUDGES = 2
TOOLS = (EDITOR, experiments_tool.TOOL, submit_tool.TOOL)

_STOPS = {
    Stop.REFUSED: "the model declined to answer",
    Stop.TOO_LONG: "the answer was longer than max_output_tokens",
    Stop.WINDOW_FULL: "the conversation no longer fits the model's context window",
}


class Researcher:
    """A proposer that asks a language model.

    Args:
        name: its name in the ledger.
        chat: the model.
        plateau_chat: another model, asked during a plateau; None: the same one.
        plateau_after: number of verdicts without an acceptance that make a plateau.
    """

    prefetches = True

    def __init__(self, name: str, chat: Chat, *, plateau_chat: Chat | None = None, plateau_after: int) -> None:
        self.name = name
        self.model: str | None = chat.model
        self._chat = chat
        self._plateau_chat = plateau_chat or chat
        self._plateau_after = plateau_after

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Hold one conversation, or continue one that was cut off."""
        stuck = plateau(request.history, self._plateau_after)
        chat = self._chat if stuck is None else self._plateau_chat
        conversation = _Conversation(request=request, opening=prompt.opening(request, stuck))
        with chat.connect(stopping=request.leaving) as connection:
            outcome = conversation.hold(connection)
        if isinstance(outcome, Submission):
            return self._proposal(conversation, chat.model, outcome)
        return self._no_proposal(conversation, chat.model, outcome)

    def _proposal(self, conversation: _Conversation, model: str, submission: Submission) -> Proposal:
        return Proposal(
            hypothesis=submission.hypothesis,
            category=submission.category,
            edits=conversation.scratch.changes(),
            proposer=self.name,
            model=model,
            parameters={
                "expected_delta_bpb": submission.expected_delta_bpb,
                "probability": submission.probability,
            },
            transcript=conversation.transcript(model, f"submitted: {submission.hypothesis}"),
        )

    def _no_proposal(self, conversation: _Conversation, model: str, outcome: Unanswered | str) -> NoProposal:
        unfinished = isinstance(outcome, Unanswered) and outcome.again
        reason = outcome.reason if isinstance(outcome, Unanswered) else outcome
        return NoProposal(
            reason=reason,
            exhausted=False,
            proposer=self.name,
            model=model,
            unfinished=unfinished,
            transcript=None if unfinished else conversation.transcript(model, reason),
        )


@dataclass
class _Conversation:
    """One conversation and its scratch copy."""

    request: ProposalRequest
    opening: Opening
    scratch: ScratchCopy = field(init=False)
    exchanges: list[Exchange] = field(default_factory=list)
    last_refusal: str = "nothing was submitted"

    def __post_init__(self) -> None:
        self.scratch = ScratchCopy(self.request.files)

    def hold(self, connection: Connection) -> Submission | Unanswered | str:
        """Take turns until something is submitted; otherwise return one sentence on why nothing was."""
        nudges = 0
        for turn in range(1, MAX_TURNS + 1):
            answer = connection.ask(self.opening, self.exchanges, TOOLS, self.request.journal)
            if isinstance(answer, Unanswered):
                return self.request.journal.exhausted() or answer
            if answer.stop in _STOPS:  # also: a call that was cut off must not be run
                self.exchanges.append(Exchange(answer=answer))
                return _STOPS[answer.stop] + (f" ({answer.stop_detail})" if answer.stop_detail else "")
            if answer.calls:
                submission = self._run_calls(answer, turns_left=MAX_TURNS - turn)
                if submission is not None:
                    return submission
            elif nudges == MAX_NUDGES:
                self.exchanges.append(Exchange(answer=answer))
                return "the model answered without a tool call and submitted nothing"
            else:
                nudges += 1
                self.exchanges.append(Exchange(answer=answer, words=prompt.NUDGE))
        return f"nothing was submitted in {MAX_TURNS} turns; the last refusal: {self.last_refusal}"

    def _run_calls(self, answer: Answer, *, turns_left: int) -> Submission | None:
        """Run the calls of an answer in order, up to an accepted submission, and record their results."""
        results: list[Result] = []
        submission: Submission | None = None
        for call in answer.calls:
            if submission is not None:
                results.append(Result(call=call.id, text="not run: the experiment was already submitted"))
                continue
            outcome = self._run_call(call)
            if isinstance(outcome, Submission):
                submission, outcome = outcome, "submitted"
            if isinstance(outcome, Refusal):
                results.append(Result(call=call.id, text=outcome.reason, is_error=True))
            else:
                results.append(Result(call=call.id, text=outcome))
        words = prompt.turns_left(turns_left) if 0 < turns_left <= WARN_TURNS else ""
        self.exchanges.append(Exchange(answer=answer, results=tuple(results), words=words))
        return submission

    def _run_call(self, call: Call) -> str | Refusal | Submission:
        if call.name == EDITOR.name:
            return self.scratch.edit(call.input)
        if call.name == experiments_tool.TOOL.name:
            return experiments_tool.read(call.input, self.request.history)
        if call.name != submit_tool.NAME:
            names = ", ".join(tool.name for tool in TOOLS)
            return Refusal(reason=f"there is no tool {call.name!r:.80}; the tools are: {names}")
        outcome = self._submit(call.input)
        if isinstance(outcome, Refusal):
            self.last_refusal = outcome.reason.splitlines()[0]
        return outcome

    def _submit(self, submitted: object) -> Submission | Refusal:
        """Check a submission as thoroughly as is possible without a GPU."""
        submission = submit_tool.read(submitted)
        if isinstance(submission, Refusal):
            return submission
        if (refusal := self._delete(submission.delete)) is not None:
            return refusal
        changed = edits.apply(self.request.files, self.scratch.changes())
        if isinstance(changed, Refusal):
            return Refusal(reason=f"Refused: {changed.reason}. Correct the files and submit again.")
        return self._check_repetition(changed) or self._check_smoke_test(changed) or submission

    def _delete(self, paths: tuple[str, ...]) -> Refusal | None:
        for path in paths:
            if path in self.request.files and path not in self.scratch.files:
                continue  # deleted by an earlier submission
            if (refusal := self.scratch.delete(path)) is not None:
                return refusal
        return None

    def _check_repetition(self, changed: Files) -> Refusal | None:
        request = self.request
        tried = (*request.history, *([] if request.running is None else [request.running]))
        failed = None if request.failed is None else request.failed.number
        known = duplicates.repeats(request.files, changed, tried, retry_of=failed)
        if known is None:
            return None
        ended = "is running now" if known.verdict is None else f"ended as {known.verdict}"
        return Refusal(
            reason=f"Refused: this repeats experiment {known.number}, which {ended}. Read it with "
            f"{experiments_tool.TOOL.name} and submit something else."
        )

    def _check_smoke_test(self, changed: Files) -> Refusal | None:
        problem = self.request.journal.check(changed)
        if not problem:
            return None
        first, _, log = problem.partition("\n")
        shown = fenced("log", log) + "\n" if log else ""
        return Refusal(
            reason=f"Refused: in a short run with small sizes on a CPU, {first}.\n{shown}Fix it and submit again."
        )

    def transcript(self, model: str, outcome: str) -> dict[str, Any]:
        """The conversation as JSON, for people; see `report.transcript`."""
        opening = self.opening
        return {
            "model": model,
            "opening": {"system": opening.system, "material": opening.material, "task": opening.task},
            "exchanges": [_as_json(exchange) for exchange in self.exchanges],
            "outcome": outcome,
        }


def _as_json(exchange: Exchange) -> dict[str, Any]:
    answer = exchange.answer
    return {
        "thinking": answer.thinking,
        "text": answer.text,
        "stop": str(answer.stop),
        "calls": [{"name": call.name, "input": call.input} for call in answer.calls],
        "results": [{"text": result.text, "is_error": result.is_error} for result in exchange.results],
        "words": exchange.words,
    }
