"""What the table, the summary and the plot have in common: which experiments count, and what came of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runner.records import Experiment, Verdict

BASELINE = 0


@dataclass(frozen=True, kw_only=True)
class Night:
    """The outcome of a campaign so far."""

    baseline_bpb: float | None
    best_bpb: float | None  # of the champion, which is the newest keep
    sigma_bpb: float | None  # the newest noise figure that a verdict used
    champion: int | None
    counts: Counter[Verdict]  # the baseline not counted

    @property
    def num_experiments(self) -> int:
        """Closed experiments, the baseline not counted."""
        return self.counts.total()


def score_of(experiment: Experiment) -> float | None:
    """The score, when there is one to believe: neither of a crash nor of an invalid candidate."""
    if experiment.verdict not in (Verdict.KEEP, Verdict.DISCARD):
        return None
    if experiment.val_bpb is None or not math.isfinite(experiment.val_bpb):
        return None
    return experiment.val_bpb


def is_kept(experiment: Experiment) -> bool:
    """Kept, or the baseline: both were champion for a while."""
    return score_of(experiment) is not None and (
        experiment.verdict is Verdict.KEEP or experiment.number == BASELINE
    )


def sum_up(experiments: Sequence[Experiment]) -> Night:
    """Find baseline, champion, noise and counts. Experiments stand in the order of their numbers."""
    champions = [experiment for experiment in experiments if is_kept(experiment)]
    sigmas = [
        experiment.sigma_bpb
        for experiment in experiments
        if experiment.verdict is not None and experiment.sigma_bpb is not None
    ]
    first = next((experiment for experiment in champions if experiment.number == BASELINE), None)
    return Night(
        baseline_bpb=None if first is None else first.val_bpb,
        best_bpb=champions[-1].val_bpb if champions else None,
        champion=champions[-1].number if champions else None,
        sigma_bpb=sigmas[-1] if sigmas else None,
        counts=Counter(
            experiment.verdict
            for experiment in experiments
            if experiment.verdict is not None and experiment.number != BASELINE
        ),
    )
