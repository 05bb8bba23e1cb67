"""The request for a different kind of idea after many verdicts without a keep. It never pauses a night."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runner.proposers import combine
from runner.proposers.researcher.outcome import category_of
from runner.records import Experiment, Verdict

MAX_NEAR_MISSES = 5
"""Named in the request."""


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The experiments since the last keep."""

    tried: int
    request: str  # for the prompt


def plateau(history: Sequence[Experiment], after: int, *, running: Experiment | None = None) -> Plateau | None:
    """Describe the plateau if the last `after` verdicts brought no keep; otherwise None.

    Only candidates that ran, or should have run, count: crashes do, infrastructure failures do not, nor do edits
    that were refused before anything ran.

    Args:
        history: closed experiments, oldest first, the baseline included.
        after: number of verdicts without a keep that make a plateau.
        running: the experiment in progress; near misses that it combines are not suggested again.
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
    unused = combine.shelf(history if running is None else (*history, running))
    return Plateau(tried=len(since), request=_request(since, unused))


def _request(since: Sequence[Experiment], unused: Sequence[Experiment]) -> str:
    categories = Counter(category for one in since if (category := category_of(one)))
    crashes = sum(one.verdict is Verdict.CRASH for one in since)
    deltas = [one.delta_bpb for one in since if one.delta_bpb is not None]
    facts = [f"Nothing was kept in the last {len(since)} experiments ({crashes} of them crashed)."]
    if deltas:
        facts.append(f"The best of them measured {min(deltas):+.6f} bpb against its champion.")
    if categories:
        most = ", ".join(f"{name} ({count})" for name, count in categories.most_common(3))
        facts.append(f"The most frequent categories were {most}.")
    wanted = ["an idea from a category that has rarely been tried"]
    if len(unused) >= 2:
        numbers = ", ".join(f"#{one.number}" for one in unused[:MAX_NEAR_MISSES])
        wanted.append(f"a combination of near misses that do not change the same thing ({numbers})")
    wanted.append("a simplification that removes code without a loss")
    return f"{' '.join(facts)} More of the same will not help. Propose one of these instead: {'; '.join(wanted)}."
