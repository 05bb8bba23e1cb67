"""What stopping hopeless runs saved, and what it cost: the share of stops that were wrong, measured.

A random share of the runs that were found hopeless is finished all the same (`early_stop_holdout`). How many of
these
were near misses or more is an unbiased estimate of how many of the stopped ones would have been. Its upper limit
is the largest p with P(X ≤ k) ≥ 10 % for a binomial X of n runs.

What it does not see: what a wrongly stopped idea was worth. Most near misses never are part of a keep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from runner.decision.early_stopping import first_training, is_promising
from runner.records import Experiment, Phase, RunEnd, RunRecord, Verdict
from runner.report.summary import BASELINE

CONFIDENCE = 0.90


@dataclass(frozen=True, kw_only=True)
class EarlyStops:
    """Sums over a campaign."""

    stopped: int  # first runs that were ended early
    saved_seconds: float  # of training and scoring, against the baseline's
    finished: int  # hopeless runs that were finished on purpose, and scored
    promising: int  # of these, those that were near misses or more
    wrong_at_most: float | None  # upper limit of the share of wrong stops; None: none was finished

    @property
    def wrong(self) -> float | None:
        """Share of wrong stops; None: nobody knows."""
        return self.promising / self.finished if self.finished else None


def early_stops(experiments: Sequence[Experiment]) -> EarlyStops:
    """Count them.

    Args:
        experiments: in the order of their numbers.
    """
    whole = _usual_seconds(experiments)
    stopped = [run for one in experiments if (run := stopped_run(one)) is not None]
    doomed = [one for one in experiments if one.figures is not None and _was_doomed(first_training(one))]
    promising = sum(is_promising(one) for one in doomed)
    return EarlyStops(
        stopped=len(stopped),
        saved_seconds=sum(max(0.0, whole - (run.wall_seconds or 0.0)) for run in stopped),
        finished=len(doomed),
        promising=promising,
        wrong_at_most=upper_limit(promising, len(doomed)) if doomed else None,
    )


def early_line(stops: EarlyStops) -> str | None:
    """For people; None when no run was hopeless."""
    if not stops.stopped and not stops.finished:
        return None
    runs = "1 hopeless run" if stops.stopped == 1 else f"{stops.stopped} hopeless runs"
    line = f"Stopped early: {runs}, {_clock(stops.saved_seconds)} of training and scoring saved; "
    if stops.wrong is None or stops.wrong_at_most is None:
        return line + "none was finished on purpose so far, so that nobody knows how many stops were wrong."
    return line + (
        f"{stops.promising} of {stops.finished} finished on purpose were near misses or more "
        f"(wrong stops {stops.wrong:.0%}, at most {stops.wrong_at_most:.0%} with {CONFIDENCE:.0%} confidence)."
    )


def stopped_run(experiment: Experiment) -> RunRecord | None:
    """The training for which an experiment was discarded without a score."""
    if experiment.verdict is not Verdict.DISCARD or not experiment.runs:
        return None
    last = experiment.runs[-1]
    return last if last.end is RunEnd.STOPPED else None


def upper_limit(successes: int, trials: int) -> float:
    """One-sided, exact: the largest p with P(X ≤ successes) ≥ 1 − `CONFIDENCE`, X binomial."""
    low, high = 0.0, 1.0
    for _ in range(40):
        p = (low + high) / 2
        below = sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes + 1))
        low, high = (p, high) if below >= 1 - CONFIDENCE else (low, p)
    return low


def _was_doomed(training: RunRecord | None) -> bool:
    return training is not None and training.curve is not None and training.curve.stop_reason is not None


def _usual_seconds(experiments: Sequence[Experiment]) -> float:
    """Training and scoring of the baseline, means over its runs."""
    runs = [run for one in experiments if one.number == BASELINE for run in one.runs]
    return sum(
        fmean(times)
        for phase in (Phase.TRAIN, Phase.SCORE)
        if (times := [run.wall_seconds for run in runs if run.phase is phase and run.wall_seconds is not None])
    )


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
