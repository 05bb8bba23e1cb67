"""Near misses tried together: what is too small to be proven alone may be proven in sum. Pure functions.

Most edits that help do so by less than the noise of one run, and to prove one of them takes more runs than it is
worth. A discard costs one run; its posterior mean says what it is probably worth all the same. Those that are
probably worth a little (`decision.near_miss`) lie on a shelf. As soon as they are worth `stack_sigmas` noise
standard deviations together, all that fit on the present champion are tried as one candidate, a stack, which is
judged like any other, with seeds of its own. Near the end of a campaign less is asked for: what lies on the shelf
then is lost otherwise. Each near miss is used once, whatever comes of its stack.

The mean that chose a near miss is shrunken for that choice, so a stack that is due is worth what it says, if
effects add up. Where they do not, the stack's own runs tell. What changes the same lines, or lines side by side,
does not fit together; the better one goes first.

Simulated with the keep rule in `runner/decision/simulation.py`; measured in `docs/statistics.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runner import edits
from runner.decision.evidence import is_near_miss
from runner.decision.keep_rule import LAST_SIGMAS
from runner.decision.lineage import stack_of
from runner.records import Experiment, Files, Patch, Proposal
from runner.untrusted import one_line

PROPOSER = "stack"
CATEGORY = "combination"
MAX_PIECES = 64
"""More are not merged at once: that takes time in which nothing runs."""
LINE_CHARACTERS = 100
"""Of each hypothesis."""


def shelf(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The near misses that no stack has used, the best first."""
    used = stack_of(experiments)
    free = [one for one in experiments if is_near_miss(one) and not one.combines and one.number not in used]
    return sorted(free, key=lambda one: (_effect(one), one.number))


def stack(
    experiments: Sequence[Experiment],
    kept_files: Callable[[int], Files],
    *,
    champion: int,
    sigma_bpb: float,
    stack_sigmas: float,
    ending: bool,
) -> Proposal | None:
    """The stack that is due; None as long as the shelf is not worth a run.

    Args:
        experiments: of the campaign.
        kept_files: `workload/` of a kept experiment, by its number.
        champion: number of the present one.
        sigma_bpb: noise standard deviation of one run.
        stack_sigmas: what the near misses must be worth together, in noise standard deviations; 0: no stacks.
        ending: only few more runs will follow.
    """
    least_bpb = sigma_bpb * (min(stack_sigmas, LAST_SIGMAS) if ending else stack_sigmas)
    best = shelf(experiments)[:MAX_PIECES]
    if not stack_sigmas or _worth(best) < least_bpb:
        return None
    files = tip = kept_files(champion)
    pieces = []
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
    if len(pieces) < 2 or _worth(pieces) < least_bpb:
        return None
    pieces.sort(key=lambda one: one.number)
    told = "; ".join(f"#{one.number} {one_line(one.hypothesis, LINE_CHARACTERS)}" for one in pieces)
    return Proposal(
        hypothesis=f"{len(pieces)} near misses together: {told}",
        edits=(Patch(text=edits.diff(files, tip)),),
        proposer=PROPOSER,
        category=CATEGORY,
        combines=tuple(one.number for one in pieces),
    )


def _can_be_stored(before: Files, after: Files) -> bool:
    """Whether the diff of a stack gives it again: the ledger has nothing else."""
    return edits.apply(before, (Patch(text=edits.diff(before, after)),)) == after


def _worth(pieces: Sequence[Experiment]) -> float:
    """What they are probably worth together, in bpb."""
    return -sum(map(_effect, pieces))


def _effect(piece: Experiment) -> float:
    assert piece.figures is not None  # else it is no near miss
    return piece.figures.effect_bpb
