"""When nothing is kept any more: the figures, and what to ask for instead. Never a pause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runner.decision.history import stack_of
from runner.records import Experiment, Verdict
from runner.untrusted import prompt_line

NEAR_SIGMAS = 1.0
"""A discard that was worse by less, or better but not by enough, is a near miss."""
MAX_NEAR = 5
CATEGORY_CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The experiments since the last keep."""

    tried: int
    request: str  # for the prompt


def plateau(history: Sequence[Experiment], after: int, *, running: Experiment | None = None) -> Plateau | None:
    """What to say when the last `after` verdicts brought nothing; None while something is kept.

    Verdicts of candidates that ran, or should have: crashes count, the infrastructure's failures do not, nor do
    edits that were refused before anything ran.

    Args:
        history: closed experiments, oldest first, the baseline included.
        after: how many verdicts without a keep make a plateau.
        running: the one that is measured now; near misses that it tries together are not asked for again.
    """
    since: list[Experiment] = []
    for one in reversed(history):
        if one.verdict is Verdict.KEEP:
            break
        if one.verdict in (Verdict.DISCARD, Verdict.CRASH) or (one.verdict is Verdict.INVALID and one.runs):
            since.append(one)
    if len(since) < after:
        return None
    since.reverse()
    used = stack_of(history if running is None else (*history, running))
    near = [one for one in near_misses(history) if one.number not in used and not one.combines]
    return Plateau(tried=len(since), request=_request(since, near))


def near_misses(history: Sequence[Experiment]) -> list[Experiment]:
    """Discards within the noise of the champion that they were compared with, the best first."""
    near = [
        one
        for one in history
        if one.verdict is Verdict.DISCARD
        and one.delta_bpb is not None
        and one.sigma_bpb is not None
        and one.delta_bpb <= NEAR_SIGMAS * one.sigma_bpb
    ]
    return sorted(near, key=lambda one: (one.delta_bpb or 0.0, one.number))


def _request(since: Sequence[Experiment], near: Sequence[Experiment]) -> str:
    categories = Counter(prompt_line(one.category, CATEGORY_CHARACTERS) for one in since if one.category)
    crashes = sum(one.verdict is Verdict.CRASH for one in since)
    deltas = [one.delta_bpb for one in since if one.delta_bpb is not None]
    facts = [f"Nothing was kept in the last {len(since)} experiments ({crashes} of them crashed)."]
    if deltas:
        facts.append(f"The best of them was {min(deltas):+.6f} bpb from its champion.")
    if categories:
        used = ", ".join(f"{name} ({count})" for name, count in categories.most_common(3))
        facts.append(f"Most were of these categories: {used}.")
    wanted = ["an idea of a category that was rarely tried"]
    if len(near) >= 2:
        numbers = ", ".join(f"#{one.number}" for one in near[:MAX_NEAR])
        wanted.append(f"a combination of near misses that do not touch the same thing ({numbers})")
    wanted.append("a simplification that removes code without loss")
    return (
        " ".join(facts)
        + " More of the same will not help. Propose one of these instead: "
        + "; ".join(wanted)
        + "."
    )
