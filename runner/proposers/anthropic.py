"""Claude as the researcher: one conversation per experiment, ending with edits that apply or with a reason.

A refused submission goes back into the same conversation: a wrong `old` text costs a turn, not a GPU run. The
conversation depends on the request and the answers alone, so that recorded answers lead to where it was cut off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runner.edits import Refusal
from runner.proposers import prompt
from runner.proposers.messages import Answer, Messages, Unanswered
from runner.proposers.prices import price_of
from runner.records import NoProposal, Proposal, ProposalRequest

if TYPE_CHECKING:
    import anthropic

    from runner.config import Config

MAX_TURNS = 4
# Experiments are minutes apart: the default of five minutes would mostly pay for writing the cache.
CACHE = {"type": "ephemeral", "ttl": "1h"}

_STOPS = {
    "refusal": "the model declined to answer",
    "max_tokens": "the answer was longer than max_output_tokens",
    "model_context_window_exceeded": "the conversation no longer fits the model's context window",
}


class AnthropicProposer:
    """Asks a model behind the Messages API.

    Args:
        config: names the model, its output cap and, where the price table does not know it, its price.
        sleep: waits between attempts, in seconds; replaced in tests.

    Raises:
        ProposerError: no key, or no price.
    """

    name = "anthropic"

    def __init__(self, config: Config, sleep: Callable[[float], None] = time.sleep) -> None:
        self.model: str | None = config.model
        self._messages = Messages(config.model, config.max_output_tokens, price_of(config), sleep)

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Hold one conversation, or go on with one that was cut off."""
        with self._messages.connect() as client:
            outcome = self._converse(client, request)
        if isinstance(outcome, Unanswered):
            return NoProposal(
                reason=outcome.reason,
                exhausted=False,
                proposer=self.name,
                model=self.model,
                unfinished=outcome.again,
            )
        if isinstance(outcome, str):
            return NoProposal(reason=outcome, exhausted=False, proposer=self.name, model=self.model)
        return Proposal(
            hypothesis=outcome.hypothesis,
            category=outcome.category,
            edits=outcome.edits,
            proposer=self.name,
            model=self.model,
        )

    def _converse(
        self, client: anthropic.Anthropic, request: ProposalRequest
    ) -> prompt.Submission | Unanswered | str:
        """Returns what was submitted, or one sentence on why nothing was."""
        # Two cached prefixes: tool, rules and program for the campaign, the champion's files until the next keep.
        system = [{"type": "text", "text": prompt.system(request.program), "cache_control": CACHE}]
        opening = [
            {"type": "text", "text": prompt.show_files(request.files), "cache_control": CACHE},
            {"type": "text", "text": prompt.show_task(request)},
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": opening}]
        nudged = False
        refusal = ""
        for turn in range(1, MAX_TURNS + 1):
            answer = self._messages.ask(
                client,
                system=system,
                messages=messages,
                tools=[prompt.TOOL],
                turn=turn,
                journal=request.journal,
            )
            if isinstance(answer, Unanswered):
                return answer
            if answer.stop_reason in _STOPS:  # also: a tool call that was cut off must not be run
                return _STOPS[answer.stop_reason] + (f" ({answer.stop_detail})" if answer.stop_detail else "")
            calls = [block for block in answer.content if block.get("type") == "tool_use"]
            if calls:
                submission, results = _judge(calls, request, MAX_TURNS - turn)
                if isinstance(submission, prompt.Submission):
                    return submission
                refusal = submission.reason
                reply = results
            elif nudged:
                return "the model answers in prose and submits nothing"
            else:
                nudged = True
                reply = [{"type": "text", "text": prompt.NUDGE}]
            messages += _said(answer)
            messages.append({"role": "user", "content": reply})
        return f"no edits that apply in {MAX_TURNS} turns; at last: {refusal or 'nothing was submitted'}"


def _said(answer: Answer) -> list[dict[str, Any]]:
    """The answer as a turn of the conversation: every block verbatim (thinking is signed), but no blank text.

    The API refuses blank text blocks and empty turns, even its own.
    """
    content = [block for block in answer.content if block.get("type") != "text" or block.get("text", "").strip()]
    return [{"role": "assistant", "content": content}] if content else []


def _judge(
    calls: list[Any], request: ProposalRequest, turns_left: int
) -> tuple[prompt.Submission | Refusal, list[dict[str, Any]]]:
    """Take the first submission that applies; else a result for every call, as the API demands."""
    results: list[dict[str, Any]] = []
    first: Refusal | None = None
    for call in calls:
        if call.get("name") == prompt.TOOL_NAME:
            read = prompt.read(call.get("input"), request.files)
        else:
            read = Refusal(reason=f"there is no such tool; use {prompt.TOOL_NAME}")
        if isinstance(read, prompt.Submission):
            return read, []
        first = first or read
        text = f"Refused, nothing was applied: {read.reason}. Correct it and submit all edits again; "
        results.append(
            {
                "type": "tool_result",
                "tool_use_id": call.get("id", ""),
                "is_error": True,
                "content": text + f"turns left: {turns_left}.",
            }
        )
    return first or Refusal(reason="nothing was submitted"), results
