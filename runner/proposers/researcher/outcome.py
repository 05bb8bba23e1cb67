"""The outcome of an experiment in words, the same in the digest, the plateau text and `read_experiments`."""

from __future__ import annotations

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


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def effect_of(one: Experiment) -> str | None:
    """The expected effect on the tip, or the measured gain of a certificate, with its uncertainty."""
    if one.delta_bpb is None:
        return None
    if (known := one.figures) is not None:
        if one.is_certificate:
            return f"{one.delta_bpb:+.6f} ± {known.se_bpb:.6f} bpb ({counted(len(known.trials), 'pair')})"
        return f"{one.delta_bpb:+.6f} bpb expected ({known.better:.0%} sure to help)"
    sigmas = f" ({one.delta_bpb / one.sigma_bpb:+.1f}σ)" if one.sigma_bpb else ""
    return f"{one.delta_bpb:+.6f} bpb{sigmas}"


def ruling_of(certificate: Experiment | None) -> str:
    """The fate of an accepted edit.

    Args:
        certificate: that decided on it; None: it is on the tip.
    """
    if certificate is None:
        return "on the tip"
    if certificate.verdict is Verdict.KEEP:
        return f"certified by #{certificate.number}, in the champion"
    together = "" if len(certificate.certifies) == 1 else f" with {len(certificate.certifies) - 1} others"
    return f"rolled back{together} by #{certificate.number}: not in the program any more"


def lesson_of(one: Experiment) -> str:
    """The lesson of an experiment in a few words; empty if it is unknown."""
    # A discard without a score was stopped early; its reason says why.
    stopped = one.verdict is Verdict.DISCARD and one.val_bpb is None
    if stopped or one.verdict in (Verdict.CRASH, Verdict.INVALID):
        return prompt_line(one.reason or "", REASON_CHARACTERS)
    if one.figures is None:
        return ""
    if one.verdict is Verdict.KEEP:
        return "certified"
    if one.is_certificate:
        return (
            "not proven, the tip stays"
            if one.verdict is Verdict.UNCLEAR
            else "not better, the tip was rolled back"
        )
    if one.verdict is Verdict.ACCEPT:
        return "as good, and simpler" if (one.reason or "").startswith(AS_GOOD) else "accepted"
    return "hurts" if one.figures.better < HURTS else "no visible effect"
