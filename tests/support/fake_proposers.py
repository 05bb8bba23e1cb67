"""A proposer that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runner.records import NoProposal, Proposal, ProposalRequest, Usage

Step = Proposal | NoProposal | Exception | Callable[[ProposalRequest], Proposal | NoProposal]


class ScriptedProposer:
    """Takes the next step of its script on every call, and has nothing to propose afterwards.

    Args:
        script: proposals, exceptions to raise, or functions of the request.
        by_number: choose the step by `request.number` (from 1) instead of the number of calls, for campaigns that
            are killed and resumed.
    """

    name = "scripted"
    model = None
    prefetches = False

    def __init__(self, script: Iterable[Step], *, by_number: bool = False) -> None:
        self.script = list(script)
        self.by_number = by_number
        self.requests: list[ProposalRequest] = []

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        position = request.number - 1 if self.by_number else len(self.requests)
        self.requests.append(request)
        if position >= len(self.script):
            return NoProposal(reason="the script is over", exhausted=True, proposer=self.name)
        step = self.script[position]
        if isinstance(step, Exception):
            raise step
        return step(request) if callable(step) else step


def paying(cost_usd: float, step: Proposal | NoProposal) -> Step:
    """A step that costs money: one answer, booked like a real one."""

    def act(request: ProposalRequest) -> Proposal | NoProposal:
        usage = Usage(
            model="m", request_id=None, input_tokens=1, output_tokens=1, cache_read_tokens=0, cache_write_tokens=0,
            cost_usd=cost_usd,
        )  # fmt: skip
        booking = request.journal.open_answer(1, "scripted", usage)
        request.journal.close_answer(booking, usage, "scripted")
        return step

    return act
