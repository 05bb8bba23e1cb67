"""Early stopping: the probability that a running trial is promising, from the loss that it prints. Pure functions.

A trial on the tip is promising when its edit would be accepted. Otherwise the rest of its time is better spent on
the next idea. The training loss shows early how a run will end. It is compared with the training of the tip itself
under the same seed, so that the order of the data cancels. At a fraction k of the time, its gap is

    gap = loss − loss of the tip under the same seed, at the same fraction    (as printed, usually nats per token)

For every finished trial of this campaign, the gap x at k is known, and the difference Δ of its score to the level
of the tip (bpb, negative is better). Least squares over all of them give Δ ≈ a + b x with residual standard
deviation s and n − 2 degrees of freedom, and for a gap g

    chance = P(t < (boundary − a − b g) / (s √(1 + 1/n + (g − x̄)² / Σ (x − x̄)²)))

The boundary is the largest Δ with which the edit is accepted. The chance is never less than the share of finished
trials with a gap of g or more that were promising: if some catch up late, the formula alone would not see it.

A run is unpromising when its chance is below a threshold at one of the fractions of `LEAST_FRACTION` or more.
Checking often does no harm: a run that is stopped was below the threshold at that moment. No run is unpromising
before `early_stop_min_trials` trials are finished, at fractions where the gap does not grow with Δ, if nothing
was printed, or with a loss that is not above the tip's.

Not covered:

- Schedules that catch up late, before the first ones were finished, and better generalization at a worse loss. The
  calibration learns this from those that were finished; for that purpose a random share of the unpromising ones
  always is.
- A program that prints another loss than the tip (with a regularizer, or a sum instead of a mean).
- Selection: at later fractions the finished ones among those with a large gap are better than average, which errs
  on the side of finishing.
- Lies. The output is the candidate's: it can keep itself running, or stop itself, and no lie makes a keep. A
  candidate whose score belies its curve makes later chances larger, not smaller: outliers widen s, and gaps and
  differences count as at most `CUT` times their median size (differences up to `DELTA_CUT` standard errors). Next
  to a tip that printed less than the truth, an edit that prints the truth looks unpromising.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from runner.decision import history
from runner.records import Experiment, Outcome, RunRecord, StopReason, Trial, Verdict

NUM_FRACTIONS = 12
LEAST_FRACTION = 0.25
"""Before this, most schedules say little about how a run ends."""
CUT = 5.0
"""Gaps and differences count as at most this many times their median size: a run that diverges must not bend the
line for all others."""
DELTA_CUT = 10.0
"""Differences always count up to this many of their standard errors."""
RECENT = 500
"""Number of the newest experiments that a campaign is calibrated with: no judgement takes longer than the last."""
REACH_SIGMAS = 20.0
"""Largest distance from the champion at which the boundary is searched for, in noise standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A finished trial against the tip."""

    gaps: tuple[float | None, ...]  # by fraction, in the unit that is printed
    delta_bpb: float
    se_bpb: float  # standard error of that
    promising: bool  # whether the edit was accepted


@dataclass(frozen=True, kw_only=True)
class Line:
    """A prediction of Δ from the gap at one fraction."""

    intercept: float  # bpb
    slope: float  # bpb for each unit of loss
    spread_bpb: float  # s
    num: int  # n
    mean_gap: float
    squares: float  # Σ (x − x̄)²
    cut: float  # largest gap that counts
    seen: tuple[tuple[float, bool], ...]  # of finished candidates: gap, and whether they were promising

    def chance(self, gap: float, boundary_bpb: float) -> float:
        """Predict the probability of a Δ below the boundary."""
        from scipy.special import stdtr  # lazy: most commands never predict

        inside = min(max(gap, -self.cut), self.cut)
        leverage = 1 + 1 / self.num + (inside - self.mean_gap) ** 2 / self.squares
        away = boundary_bpb - self.intercept - self.slope * inside
        spread = self.spread_bpb * math.sqrt(leverage)
        predicted = float(stdtr(self.num - 2, away / spread)) if spread > 0 else float(away > 0)
        alike = [promising for other, promising in self.seen if other >= inside]
        return max(predicted, sum(alike) / len(alike) if alike else 0.0)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Everything needed to watch a trial on the tip."""

    tip: tuple[float | None, ...]  # loss of the tip under the same seed, by fraction
    lines: tuple[Line | None, ...]  # by fraction
    boundary_bpb: float
    early_stop_threshold: float

    def stop_reason(self, index: int, loss: float | None) -> StopReason | None:
        """Explain why a run with this loss at a fraction is unpromising; `None`: it is not, or it is unknown.

        Args:
            index: of the fraction, from 0.
            loss: as in `sampled`.
        """
        line, own = self.lines[index], self.tip[index]
        if loss is None or line is None or own is None or loss <= own:
            return None
        chance = line.chance(loss - own, self.boundary_bpb)
        if chance >= self.early_stop_threshold:
            return None
        return StopReason(fraction=fraction(index), loss=loss, tip_loss=own, chance=chance)


def reason(run: RunRecord) -> str:
    """Explain in one sentence why a training was stopped."""
    stop_reason = None if run.curve is None else run.curve.stop_reason
    if stop_reason is None:
        return "stopped early: it was unpromising"
    away = stop_reason.loss - stop_reason.tip_loss
    return (
        f"stopped at {stop_reason.fraction:.0%} of its time: its loss {stop_reason.loss:.3f} is {away:.3f} above "
        f"the tip's there; a chance of {stop_reason.chance:.1%} to be accepted"
    )


def fraction(index: int) -> float:
    """Share of the training time at which a loss is sampled, in (0, 1]."""
    return (index + 1) / NUM_FRACTIONS


def sampled(heard: Sequence[tuple[float, float]]) -> tuple[float | None, ...]:
    """Sample a curve: at each fraction, the mean of all losses since the previous one.

    Args:
        heard: share of the training time and loss, for each line of progress.
    """
    windows: list[list[float]] = [[] for _ in range(NUM_FRACTIONS)]
    for share, loss in heard:
        if 0 <= share <= 1:
            windows[min(int(share * NUM_FRACTIONS), NUM_FRACTIONS - 1)].append(loss)
    return tuple(fmean(window) if window else None for window in windows)


def calibrate(
    experiments: Sequence[Experiment],
    tip: Experiment,
    seed: int,
    *,
    boundary_bpb: float | None,
    early_stop_threshold: float,
    early_stop_min_trials: int,
) -> Calibration | None:
    """Fit the calibration of a campaign; `None` as long as no run is to be stopped.

    Args:
        experiments: of the campaign, by number.
        tip: the experiment whose program is edited.
        seed: the exploration seed.
        boundary_bpb: largest Δ with which the edit is accepted, see `promising_boundary`.
        early_stop_threshold: chance below which a run is unpromising; 0: never.
        early_stop_min_trials: required number of finished trials.
    """
    if not early_stop_threshold or boundary_bpb is None:
        return None
    known = points(experiments)
    lines = tuple(_line(known, index, early_stop_min_trials) for index in range(NUM_FRACTIONS))
    if not any(lines):
        return None
    return Calibration(
        tip=reference_curve(tip, seed),
        lines=lines,
        boundary_bpb=boundary_bpb,
        early_stop_threshold=early_stop_threshold,
    )


def promising_boundary(is_promising: Callable[[float], bool], sigma_bpb: float) -> float | None:
    """Find the largest Δ of a trial that makes its edit promising; `None` if there is none.

    Args:
        is_promising: whether an edit with a given Δ is accepted; must be monotone: true below some Δ, false
        above.
        sigma_bpb: noise standard deviation of one run.
    """
    low, high = -REACH_SIGMAS * sigma_bpb, REACH_SIGMAS * sigma_bpb
    if not is_promising(low) or is_promising(high):
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if is_promising(middle) else (low, middle)
    return low


def points(experiments: Sequence[Experiment]) -> list[Point]:
    """Collect the finished trials of ideas on a tip, the newest `RECENT` experiments of a campaign.

    Args:
        experiments: of the campaign, by number.
    """
    found = []
    for one in experiments[-RECENT:]:
        figures, training = one.figures, first_training(one)
        if one.is_certificate or one.parent is None or figures is None or one.verdict is None:
            continue
        if training is None or training.curve is None:
            continue
        tip = reference_curve(experiments[one.parent], training.seed, one.opened_seq)
        found.append(
            Point(
                gaps=_gaps(training.curve.losses, tip),
                delta_bpb=figures.delta_bpb,
                se_bpb=figures.se_bpb,
                promising=is_promising(one),
            )
        )
    return found


def reference_curve(tip: Experiment, seed: int, before_seq: int | None = None) -> tuple[float | None, ...]:
    """Mean losses of a program's trainings under one seed, by fraction.

    Args:
        before_seq: only of trials that were closed before.
    """
    return mean_curve(
        trial
        for trial in (*tip.trials, *tip.control_trials)
        if trial.seed == seed
        and trial.outcome is Outcome.SCORED
        and (before_seq is None or trial.closed_seq < before_seq)
    )


def first_training(experiment: Experiment) -> RunRecord | None:
    """The training of the first trial that gave a score; None where there is none."""
    first = next(iter(history.scored(experiment.trials)), None)
    return None if first is None else first.training


def is_promising(experiment: Experiment) -> bool:
    """Whether a finished edit was accepted."""
    return experiment.verdict is Verdict.ACCEPT


def mean_curve(trials: Iterable[Trial]) -> tuple[float | None, ...]:
    """Mean losses of their trainings by fraction."""
    trainings = [trial.training for trial in trials]
    curves = [run.curve.losses for run in trainings if run is not None and run.curve is not None]
    columns = ([curve[index] for curve in curves] for index in range(NUM_FRACTIONS))
    present = ([loss for loss in column if loss is not None] for column in columns)
    return tuple(fmean(losses) if losses else None for losses in present)


def _line(points: Sequence[Point], index: int, early_stop_min_trials: int) -> Line | None:
    """Fit the line; `None` where it says nothing: too few candidates, no gaps, or larger ones that end better."""
    known = [(gap, one) for one in points if (gap := one.gaps[index]) is not None]
    if fraction(index) < LEAST_FRACTION or len(known) < early_stop_min_trials:
        return None
    cut = CUT * median(abs(gap) for gap, _ in known)
    usual = CUT * median(abs(one.delta_bpb) for _, one in known)
    x = np.clip(np.array([gap for gap, _ in known]), -cut, cut)
    ends = [max(usual, DELTA_CUT * one.se_bpb) for _, one in known]
    y = np.clip(np.array([one.delta_bpb for _, one in known]), np.negative(ends), ends)
    squares = float(((x - x.mean()) ** 2).sum())
    if squares <= 0:
        return None
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / squares  # by hand: scipy.stats takes 0.5 s to import
    if slope <= 0:
        return None
    intercept = float(y.mean()) - slope * float(x.mean())
    residuals = y - intercept - slope * x
    return Line(
        intercept=intercept,
        slope=slope,
        spread_bpb=math.sqrt(float((residuals**2).sum()) / max(1, len(known) - 2)),
        num=len(known),
        mean_gap=float(x.mean()),
        squares=squares,
        cut=cut,
        seen=tuple((float(gap), one.promising) for gap, (_, one) in zip(x, known, strict=True)),
    )


def _gaps(losses: Sequence[float | None], tip: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(
        None if loss is None or own is None else loss - own for loss, own in zip(losses, tip, strict=True)
    )
