"""The campaign in one paragraph, and what every report shares: which experiments count, and what came of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runner.decision.history import baseline_failed
from runner.records import Experiment, Verdict

BASELINE = 0

SCORED = (Verdict.KEEP, Verdict.ACCEPT, Verdict.DISCARD, Verdict.UNCLEAR)
"""Verdicts with a score that can be believed, if there is one."""

_OUTCOMES = {
    Verdict.KEEP: "kept",
    Verdict.ACCEPT: "accepted",
    Verdict.DISCARD: "discarded",
    Verdict.UNCLEAR: "unclear",
    Verdict.CRASH: "crashed",
    Verdict.INVALID: "invalid",
    Verdict.INFRA: "lost to infrastructure",
}

_ALWAYS = (Verdict.KEEP, Verdict.ACCEPT, Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID)
"""Verdicts that are listed in any case: "0 crashed" is news."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The outcome of a campaign so far."""

    baseline_bpb: float | None
    gain_bpb: float | None  # champion − baseline, as the certificates measured it; negative is better
    sigma_bpb: float | None  # the newest noise figure that a verdict used
    champion: int | None
    counts: Counter[Verdict]  # the baseline not counted
    certificates: int = 0  # that have a verdict
    failure: str | None = None  # why there is no baseline, where its measurement failed

    @property
    def num_experiments(self) -> int:
        """Ideas with a verdict: the baseline and certificates are not counted."""
        return self.counts.total() - self.certificates

    @property
    def best_bpb(self) -> float | None:
        """Debiased score of the champion: that of the baseline, and the measured gains."""
        return None if self.baseline_bpb is None or self.gain_bpb is None else self.baseline_bpb + self.gain_bpb


def score_of(experiment: Experiment) -> float | None:
    """Return the score if it can be believed: that of a crash or of an invalid candidate cannot."""
    if experiment.verdict not in SCORED:
        return None
    if experiment.val_bpb is None or not math.isfinite(experiment.val_bpb):
        return None
    return experiment.val_bpb


def is_kept(experiment: Experiment) -> bool:
    """Whether an experiment was ever champion: kept, or the baseline."""
    return score_of(experiment) is not None and (
        experiment.verdict is Verdict.KEEP or experiment.number == BASELINE
    )


def summarize(experiments: Sequence[Experiment]) -> Summary:
    """Find baseline, champion, noise and counts of experiments in the order of their numbers."""
    champions = [experiment for experiment in experiments if is_kept(experiment)]
    closed = [experiment for experiment in experiments if experiment.verdict is not None]
    sigmas = (experiment.sigma_bpb for experiment in reversed(closed) if experiment.sigma_bpb is not None)
    first = next((experiment for experiment in champions if experiment.number == BASELINE), None)
    return Summary(
        baseline_bpb=None if first is None else first.val_bpb,
        gain_bpb=gain_of(champions),
        champion=champions[-1].number if champions else None,
        sigma_bpb=next(sigmas, None),
        counts=Counter(one.verdict for one in closed if one.verdict is not None and one.number != BASELINE),
        certificates=sum(one.is_certificate for one in closed),
        failure=baseline_failure(experiments),
    )


def gain_of(champions: Sequence[Experiment]) -> float | None:
    """Sum of what the certificates measured: the gain on the baseline, from seeds that chose nothing."""
    levels = levels_of(champions)
    return levels[-1] - levels[0] if levels else None


def levels_of(champions: Sequence[Experiment]) -> list[float]:
    """Debiased scores of champions: that of the baseline, and from there one measured gain after the other."""
    levels: list[float] = []
    for one in champions:
        assert one.val_bpb is not None  # champions have scores
        levels.append(one.val_bpb if not levels or one.delta_bpb is None else levels[-1] + one.delta_bpb)
    return levels


def baseline_failure(experiments: Sequence[Experiment]) -> str | None:
    """Verdict and reason of a baseline that failed."""
    return f"{experiments[0].verdict}: {experiments[0].reason}" if baseline_failed(experiments) else None


def summary_text(experiments: Sequence[Experiment]) -> str:
    """Describe a campaign in one paragraph: baseline, best, counts and noise."""
    return summary_paragraph(summarize(experiments))


def summary_paragraph(found: Summary) -> str:
    """Describe a summary in one paragraph."""
    if found.baseline_bpb is None or found.best_bpb is None:
        if found.failure is not None:
            return f"The baseline failed ({found.failure}). The next start measures it again."
        return "No baseline yet: nothing can be compared."
    noise = "" if found.sigma_bpb is None else f" Noise sigma {found.sigma_bpb:.4f} bpb."
    if found.num_experiments == 0:
        return f"Baseline {found.baseline_bpb:.4f} bpb; no experiments yet.{noise}"
    if found.champion == BASELINE:
        result = f"No certified improvement on the baseline of {found.baseline_bpb:.4f} bpb"
    else:
        gain = found.best_bpb - found.baseline_bpb
        result = (
            f"Baseline {found.baseline_bpb:.4f} → champion {found.best_bpb:.4f} bpb "
            f"({gain:+.4f}, {gain / found.baseline_bpb:+.2%}), experiment {found.champion}"
        )
    counts = ", ".join(
        f"{found.counts[verdict]} {outcome}"
        for verdict, outcome in _OUTCOMES.items()
        if verdict in _ALWAYS or found.counts[verdict]
    )
    counts += f"; {counted(found.certificates, 'certificate')} among them" if found.certificates else ""
    return f"{result}. {counted(found.num_experiments, 'idea')}: {counts}.{noise}"


def counted(number: int, noun: str) -> str:
    """Return `1 keep` or `3 keeps`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
