"""The tip between two certificates: its edits, what they promise, and when they are certified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.config import Config
from runner.decision.history import ROLLED_BACK, tip_edits
from runner.records import Experiment, Verdict
from runner.report.summary import counted

MAX_NUMBERS = 12
"""Of edits that are listed one by one."""


@dataclass(frozen=True, kw_only=True)
class TipProgress:
    """The tip as it stands."""

    edits: tuple[int, ...]  # accepted since the champion, oldest first
    worth_bpb: float  # expected of them together; negative is better
    trials: int  # ideas judged since the last certificate


def tip_progress(lineage: Sequence[Experiment], newest: Sequence[Experiment]) -> TipProgress:
    """Sum up what happened since the last certificate.

    A certificate that proved nothing leaves the tip as it was, worth half of what it measured: what
    `runner.decision.tip_state` knows, from the verdicts alone.

    Args:
        lineage: keeps, accepted edits, and certificates.
        newest: the newest experiments.
    """
    edits = tip_edits(lineage)
    judged = (Verdict.KEEP, Verdict.UNCLEAR, *ROLLED_BACK)
    settled = [one for one in lineage if one.verdict in judged and (one.is_certificate or one.number == 0)]
    last = max(settled, key=lambda one: one.closed_seq, default=None)
    since = 0 if last is None else last.closed_seq
    half = (last.delta_bpb or 0.0) / 2 if last is not None and last.verdict is Verdict.UNCLEAR else 0.0
    return TipProgress(
        edits=tuple(one.number for one in edits),
        worth_bpb=half + sum(one.delta_bpb or 0.0 for one in edits if one.closed_seq > since),
        trials=sum(one.is_idea and one.figures is not None and one.closed_seq > since for one in newest),
    )


def tip_line(tip: TipProgress, sigma_bpb: float | None, config: Config | None) -> str:
    """Describe the tip for people, and when it is certified.

    Args:
        sigma_bpb: noise standard deviation of one trial.
        config: settings of the campaign, where they are known.
    """
    if not tip.edits:
        return "Tip: the champion; no edit was accepted since it was certified."
    shown = ", ".join(map(str, tip.edits[-MAX_NUMBERS:]))
    numbers = shown if len(tip.edits) <= MAX_NUMBERS else f"… {shown}"
    text = (
        f"Tip: the champion with {counted(len(tip.edits), 'accepted edit')} ({numbers}), expected gain "
        f"{-tip.worth_bpb:.4f} bpb, not certified yet; {counted(tip.trials, 'trial')} since the last certificate."
    )
    if config is None:
        return text
    if config.certify == "each":
        return f"{text} Its certificate comes next."
    promised = "" if not sigma_bpb else f" (now {max(0.0, -tip.worth_bpb) / sigma_bpb:.1f})"
    return (
        f"{text} It is certified from {config.certify_sigmas:g} sigma{promised} and "
        f"{counted(config.certify_trials, 'trial')} on, or when the night ends."
    )
