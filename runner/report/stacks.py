"""What became of near misses: how many there are, and what trying them together brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.decision.history import is_near_miss, stack_of
from runner.records import Experiment, Verdict


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """Counts of a campaign."""

    near_misses: int
    used: int  # of these, in stacks with a verdict
    tried: int  # these stacks
    kept: int


def stacks(experiments: Sequence[Experiment]) -> Stacks:
    """Count them."""
    made = [one for one in experiments if one.combines and one.verdict is not None]
    return Stacks(
        near_misses=sum(is_near_miss(one) and not one.combines for one in experiments),
        used=len(stack_of(made)),
        tried=len(made),
        kept=sum(one.verdict is Verdict.KEEP for one in made),
    )


def stack_line(found: Stacks) -> str | None:
    """For people; None where nothing missed by little."""
    if not found.near_misses:
        return None
    misses = "1 near miss" if found.near_misses == 1 else f"{found.near_misses} near misses"
    if not found.tried:
        return f"Near misses: {misses}, not tried together so far."
    tried = "1 stack" if found.tried == 1 else f"{found.tried} stacks"
    return f"Near misses: {misses}, {found.used} of them tried together in {tried}; {found.kept} kept."
