"""The outcome of an experiment in words, the same in the digest, the plateau text and `read_experiments`."""

from __future__ import annotations

from collections.abc import Mapping

from runner.decision.history import is_near_miss
from runner.decision.keep_rule import AS_GOOD
from runner.records import Experiment, Verdict
from runner.untrusted import prompt_line

CATEGORY_CHARACTERS = 40
REASON_CHARACTERS = 160
HURTS = 0.05
"""An edit whose probability of an improvement is lower than this did harm."""


def category_of(one: Experiment) -> str | None:
    """The category, cleaned for a prompt."""
    return prompt_line(one.category, CATEGORY_CHARACTERS) if one.category else None


def effect_of(one: Experiment) -> str | None:
    """The measured difference to the champion; with the uncertainty, if the verdict rests on figures."""
    if one.delta_bpb is None:
        return None
    if (known := one.figures) is not None:
        runs = "1 run" if len(known.trials) == 1 else f"{len(known.trials)} runs"
        return f"{one.delta_bpb:+.6f} ± {known.se_bpb:.6f} bpb ({runs}, {known.better:.0%} sure to help)"
    sigmas = f" ({one.delta_bpb / one.sigma_bpb:+.1f}σ)" if one.sigma_bpb else ""
    return f"{one.delta_bpb:+.6f} bpb{sigmas}"


def lesson_of(one: Experiment, stacks: Mapping[int, int]) -> str:
    """The lesson of an experiment in a few words; empty if it is unknown.

    Args:
        stacks: for each near miss that was combined with others, by number, the experiment that did so.
    """
    # A discard without a score was stopped early; its reason says why.
    stopped = one.verdict is Verdict.DISCARD and one.val_bpb is None
    if stopped or one.verdict in (Verdict.CRASH, Verdict.INVALID):
        return prompt_line(one.reason or "", REASON_CHARACTERS)
    if one.figures is None:
        return ""
    if one.verdict is Verdict.KEEP:
        return "as good, and simpler" if (one.reason or "").startswith(AS_GOOD) else "helps"
    if is_near_miss(one) or one.number in stacks:
        expected = f"may help a little (expected effect {one.figures.effect_bpb:+.6f} bpb)"
        return f"{expected}, combined in #{stacks[one.number]}" if one.number in stacks else expected
    return "hurts" if one.figures.better < HURTS else "no visible effect"
