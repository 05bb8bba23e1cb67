"""The request for a different kind of idea after many verdicts without an acceptance. It never pauses a night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runner.proposers.researcher.outcome import category_of
from runner.records import Experiment, Verdict


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The experiments since the last accepted edit."""

    tried: int
    request: str  # for the prompt


def plateau(history: Sequence[Experiment], after: int) -> Plateau | None:
    """Describe the plateau if none of the last `after` edits was accepted; otherwise None.

    Only candidates that ran, or should have run, count: crashes do, infrastructure failures do not, nor do edits
    that were refused before anything ran.

    Args:
        history: closed experiments, oldest first, the baseline included.
        after: number of verdicts that make a plateau.
    """
    since: list[Experiment] = []
    for one in reversed(history):
        if one.verdict is Verdict.ACCEPT or one.number == 0:
            break
        if one.is_certificate:
            continue
        if one.verdict in (Verdict.DISCARD, Verdict.CRASH) or (one.verdict is Verdict.INVALID and one.runs):
            since.append(one)
    if len(since) < after:
        return None
    since.reverse()
    return Plateau(tried=len(since), request=_request(since))


def _request(since: Sequence[Experiment]) -> str:
    categories = Counter(category for one in since if (category := category_of(one)))
    crashes = sum(one.verdict is Verdict.CRASH for one in since)
    deltas = [one.delta_bpb for one in since if one.delta_bpb is not None]
    facts = [f"Nothing was accepted in the last {len(since)} experiments ({crashes} of them crashed)."]
    if deltas:
        facts.append(f"The best of them had an expected effect of {min(deltas):+.6f} bpb.")
    if categories:
        most = ", ".join(f"{name} ({count})" for name, count in categories.most_common(3))
        facts.append(f"The most frequent categories were {most}.")
    wanted = ["an idea from a category that has rarely been tried"]
    wanted.append("a simplification that removes code without a loss")
    return f"{' '.join(facts)} More of the same will not help. Propose one of these instead: {'; '.join(wanted)}."
