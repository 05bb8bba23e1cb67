"""A language model as the researcher: one conversation per experiment, on a workbench, with a memory.

It edits a copy of the champion, reads what was tried, and submits. What is refused (an edit that does not apply,
a repetition, a program that fails when it is run for a moment) goes back into the same conversation: it costs a
turn, not a GPU. The conversation follows from the request, the answers and the checks alone, and these are in the
ledger: a night that was killed goes on where it was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runner import edits
from runner.edits import Refusal
from runner.proposers.llm.chat import Answer, Call, Chat, Exchange, Line, Opening, Result, Stop, Unanswered
from runner.proposers.researcher import duplicates, experiments_tool, prompt, submit_tool
from runner.proposers.researcher.editor_tool import EDITOR, Workbench
from runner.proposers.researcher.plateau import plateau
from runner.proposers.researcher.submit_tool import Submission
from runner.records import Files, NoProposal, Proposal, ProposalRequest
from runner.untrusted import fenced

MAX_TURNS = 40
WARN_TURNS = 5
"""The last turns, in which the model is told how many are left."""
MAX_NUDGES = 2
TOOLS = (EDITOR, experiments_tool.TOOL, submit_tool.TOOL)

_STOPS = {
    Stop.REFUSED: "the model declined to answer",
    Stop.TOO_LONG: "the answer was longer than max_output_tokens",
    Stop.WINDOW_FULL: "the conversation no longer fits the model's context window",
}


class Researcher:
    """Asks a language model.

    Args:
        name: how the ledger calls it.
        chat: the model.
        plateau_chat: another one, asked while nothing is kept any more; the same one when absent.
        plateau_after: how many verdicts without a keep make a plateau.
    """

    prefetches = True

    def __init__(self, name: str, chat: Chat, *, plateau_chat: Chat | None = None, plateau_after: int) -> None:
        self.name = name
        self.model: str | None = chat.model
        self._chat = chat
        self._plateau_chat = plateau_chat or chat
        self._plateau_after = plateau_after

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Hold one conversation, or go on with one that was cut off."""
        stuck = plateau(request.history, self._plateau_after, running=request.running)
        chat = self._chat if stuck is None else self._plateau_chat
        opening = Opening(
            system=prompt.system(request.program),
            material=prompt.show_files(request.files),
            task=prompt.show_task(request, stuck),
        )
        talk = _Talk(request=request, opening=opening, bench=Workbench(request.files))
        with chat.connect(stopping=request.leaving) as line:
            outcome = talk.hold(line)
        if isinstance(outcome, Submission):
            return Proposal(
                hypothesis=outcome.hypothesis,
                category=outcome.category,
                edits=talk.bench.changes(),
                proposer=self.name,
                model=chat.model,
                parameters={
                    "expected_delta_bpb": outcome.expected_delta_bpb,
                    "probability": outcome.probability,
                },
                transcript=talk.transcript(chat.model, f"submitted: {outcome.hypothesis}"),
            )
        unfinished = isinstance(outcome, Unanswered) and outcome.again
        reason = outcome.reason if isinstance(outcome, Unanswered) else outcome
        return NoProposal(
            reason=reason,
            exhausted=False,
            proposer=self.name,
            model=chat.model,
            unfinished=unfinished,
            transcript=None if unfinished else talk.transcript(chat.model, reason),
        )


@dataclass
class _Talk:
    """One conversation."""

    request: ProposalRequest
    opening: Opening
    bench: Workbench
    exchanges: list[Exchange] = field(default_factory=list)
    refusal: str = "nothing was submitted"

    def hold(self, line: Line) -> Submission | Unanswered | str:
        """Returns what was submitted, or one sentence on why nothing was."""
        nudges = 0
        for turn in range(1, MAX_TURNS + 1):
            answer = line.ask(self.opening, self.exchanges, TOOLS, self.request.journal)
            if isinstance(answer, Unanswered):
                return self.request.journal.exhausted() or answer
            if answer.stop in _STOPS:  # also: a call that was cut off must not be run
                self.exchanges.append(Exchange(answer=answer))
                return _STOPS[answer.stop] + (f" ({answer.stop_detail})" if answer.stop_detail else "")
            left = MAX_TURNS - turn
            if answer.calls:
                outcome = self._run(answer, left)
                if isinstance(outcome, Submission):
                    return outcome
            elif nudges == MAX_NUDGES:
                self.exchanges.append(Exchange(answer=answer))
                return "the model answers in prose and submits nothing"
            else:
                nudges += 1
                self.exchanges.append(Exchange(answer=answer, words=prompt.NUDGE))
        return f"nothing was submitted in {MAX_TURNS} turns; at last: {self.refusal}"

    def _run(self, answer: Answer, left: int) -> Submission | None:
        """Run the calls of an answer in their order, up to a submission that is accepted."""
        results: list[Result] = []
        submitted: Submission | None = None
        for call in answer.calls:
            if submitted is not None:
                results.append(Result(call=call.id, text="not run: the experiment is submitted"))
                continue
            outcome = self._call(call)
            if isinstance(outcome, Submission):
                submitted = outcome
                outcome = "submitted"
            if isinstance(outcome, Refusal):
                results.append(Result(call=call.id, text=outcome.reason, is_error=True))
            else:
                results.append(Result(call=call.id, text=outcome))
        words = f"Answers left: {left}. Then there is no experiment; submit." if 0 < left <= WARN_TURNS else ""
        self.exchanges.append(Exchange(answer=answer, results=tuple(results), words=words))
        return submitted

    def _call(self, call: Call) -> str | Refusal | Submission:
        if call.name == EDITOR.name:
            return self.bench.edit(call.input)
        if call.name == experiments_tool.TOOL.name:
            return experiments_tool.read(call.input, self.request.history)
        if call.name != submit_tool.NAME:
            names = ", ".join(tool.name for tool in TOOLS)
            return Refusal(reason=f"there is no such tool; there are: {names}")
        outcome = self._submit(call.input)
        if isinstance(outcome, Refusal):
            self.refusal = outcome.reason.splitlines()[0]
        return outcome

    def _submit(self, submitted: object) -> Submission | Refusal:
        """Look at a submission as closely as is possible without a GPU."""
        read = submit_tool.read(submitted)
        if isinstance(read, Refusal):
            return read
        for path in read.delete:
            if path in self.request.files and path not in self.bench.files:
                continue  # by an earlier submission
            if (refused := self.bench.delete(path)) is not None:
                return refused
        files = self.request.files
        changed = edits.apply(files, self.bench.changes())
        if isinstance(changed, Refusal):
            return Refusal(reason=f"Refused: {changed.reason}. Correct the files and submit again.")
        if (repetition := self._repetition(changed)) is not None:
            return repetition
        problem = self.request.journal.check(changed)
        if problem:
            first, _, log = problem.partition("\n")
            return Refusal(
                reason=f"Refused: run for a moment with small sizes on a CPU, {first}.\n"
                + (fenced("log", log) + "\n" if log else "")
                + "Mend it and submit again."
            )
        return read

    def _repetition(self, changed: Files) -> Refusal | None:
        request = self.request
        tried = (*request.history, *([] if request.running is None else [request.running]))
        failed = None if request.failed is None else request.failed.number
        known = duplicates.repeats(request.files, changed, tried, retry_of=failed)
        if known is None:
            return None
        ended = "is running now" if known.verdict is None else f"ended as {known.verdict}"
        return Refusal(
            reason=f"Refused: this repeats experiment {known.number}, which {ended}. Look at it with "
            f"{experiments_tool.TOOL.name} and submit something else."
        )

    def transcript(self, model: str, outcome: str) -> dict[str, Any]:
        """The conversation as JSON, for people; see `report.transcript`."""
        opening = self.opening
        return {
            "model": model,
            "opening": {"system": opening.system, "material": opening.material, "task": opening.task},
            "exchanges": [_told(exchange) for exchange in self.exchanges],
            "outcome": outcome,
        }


def _told(exchange: Exchange) -> dict[str, Any]:
    answer = exchange.answer
    return {
        "thinking": answer.thinking,
        "text": answer.text,
        "stop": str(answer.stop),
        "calls": [{"name": call.name, "input": call.input} for call in answer.calls],
        "results": [{"text": result.text, "is_error": result.is_error} for result in exchange.results],
        "words": exchange.words,
    }
