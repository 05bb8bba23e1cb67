"""Near misses combined into one candidate: effects too small to be proven alone may be proven in sum.

Most edits that help do so by less than the noise of one run, and proving one of them takes more runs than it is
worth. A discard costs one run, and its posterior mean estimates its worth all the same. Discards that are
probably worth a little (`decision.evidence.is_near_miss`) wait on a shelf. Once they are worth `stack_sigmas`
noise standard deviations together, all that fit the present champion are tried as one candidate, a stack. It is
judged like any other candidate, on seeds of its own. Near the end of a campaign a smaller sum suffices: near
misses that still lie on the shelf then would be lost. Each near miss is used once, whatever becomes of its
stack.

The mean that selected a near miss is already shrunken for that selection, so a stack is worth its sum if
effects add up; if they do not, its own runs show it. Edits of the same or adjacent lines do not fit together;
the better one takes precedence.

These are functions and not a `Proposer`: a stack needs the programs of earlier champions and the noise of the
campaign, which no `ProposalRequest` carries. `campaign.ideas` calls `stack` before it asks the proposer. The
rule is simulated in `runner/decision/simulation.py` and measured in `docs/statistics.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner import edits
from runner.decision.history import is_near_miss, stack_of
from runner.decision.keep_rule import LAST_SIGMAS
from runner.records import Experiment, Files, Patch, Proposal
from runner.untrusted import one_line

PROPOSER = "stack"
CATEGORY = "combination"
MAX_PIECES = 64
"""Upper limit of one stack: merging takes time during which nothing runs."""
LINE_CHARACTERS = 100
"""Of each hypothesis."""


def near_misses(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The near misses, best expected effect first. A stack is not one: it has had its try beside others."""
    return best_first([one for one in experiments if is_near_miss(one) and not one.combines])


def best_first(near: Sequence[Experiment]) -> list[Experiment]:
    """Near misses, best expected effect first."""
    return sorted(near, key=lambda one: (_effect(one), one.number))


def shelf(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The near misses that no stack has used, best first."""
    used = stack_of(experiments)
    return [one for one in near_misses(experiments) if one.number not in used]


def stack(
    unused: Sequence[Experiment],
    kept_files: Callable[[int], Files],
    *,
    champion: int,
    sigma_bpb: float,
    stack_sigmas: float,
    ending: bool,
) -> Proposal | None:
    """Propose the stack that is due; None while the shelf is not worth a run.

    Args:
        unused: the near misses that no stack has used.
        kept_files: gives `workload/` of a kept experiment by its number.
        champion: number of the present one.
        sigma_bpb: noise standard deviation of one run.
        stack_sigmas: required worth of the near misses together, in noise standard deviations; 0: no stacks.
        ending: whether only a few more runs will follow.
    """
    least_bpb = sigma_bpb * (min(stack_sigmas, LAST_SIGMAS) if ending else stack_sigmas)
    best = best_first(unused)[:MAX_PIECES]
    if not stack_sigmas or _worth(best) < least_bpb:
        return None
    files = kept_files(champion)
    pieces, merged = _merge(best, files, kept_files)
    if len(pieces) < 2 or _worth(pieces) < least_bpb:
        return None
    pieces.sort(key=lambda one: one.number)
    ideas = "; ".join(f"#{one.number} {one_line(one.hypothesis, LINE_CHARACTERS)}" for one in pieces)
    return Proposal(
        hypothesis=f"{len(pieces)} near misses together: {ideas}",
        edits=(Patch(text=edits.diff(files, merged)),),
        proposer=PROPOSER,
        category=CATEGORY,
        combines=tuple(one.number for one in pieces),
    )


def _merge(
    best: Sequence[Experiment], files: Files, kept_files: Callable[[int], Files]
) -> tuple[list[Experiment], Files]:
    """Apply the near misses to the champion's files in this order; those that do not fit are left out."""
    pieces, tip = [], files
    for one in best:
        assert one.champion is not None
        base = kept_files(one.champion)
        changed = edits.apply(base, (Patch(text=one.diff),))
        if isinstance(changed, edits.Refusal):
            continue
        moved = edits.carry_over(tip, base=base, changed=changed)
        if isinstance(moved, edits.Refusal) or not _can_be_stored(files, moved):
            continue
        tip = moved
        pieces.append(one)
    return pieces, tip


def _can_be_stored(before: Files, after: Files) -> bool:
    """Whether the diff of a stack reproduces it: the ledger stores nothing else."""
    return edits.apply(before, (Patch(text=edits.diff(before, after)),)) == after


def _worth(pieces: Sequence[Experiment]) -> float:
    """The probable worth of all of them, in bpb."""
    return -sum(map(_effect, pieces))


def _effect(piece: Experiment) -> float:
    assert piece.figures is not None  # else it is no near miss
    return piece.figures.effect_bpb
