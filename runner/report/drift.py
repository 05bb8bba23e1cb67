"""Whether the machine changed during a campaign: throughput and scores of equal programs over time.

Only trials of one program are compared with each other, never two programs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from runner.decision.history import champion_pool
from runner.records import Experiment, Phase
from runner.untrusted import tokens_per_second

REPORTED_SHARE = 0.01
"""Smallest change of throughput that is called drift: on a GPU it moves a score by about one sigma."""
LEAST_HOURS = 0.25
"""Over less time than this, no drift is reported."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Throughput that one training of a champion printed. Untrusted."""

    number: int
    hours: float  # since the first one
    tokens_per_second: float
    clock_mhz: float | None  # of the processors that trained, measured by the host


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Change of one quantity of equal programs from the first to the last of their trials."""

    change: float
    se: float | None  # None: too few trials to estimate it
    hours: float
    num_runs: int


def drift(points: Iterable[tuple[int, float, float]], noise: float | None = None) -> Drift | None:
    """Estimate how a quantity of equal programs changes with time: least squares with one level per program.

    slope = Σ (t − t̄)(y − ȳ) / Σ (t − t̄)², means within each program; se = s / √Σ (t − t̄)², s from the residuals.

    Args:
        points: program, hours, value.
        noise: standard deviation of one value, where it is known better than from the residuals.

    Returns:
        None when no program was run twice at different times.
    """
    by_program: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for program, hours, value in points:
        by_program[program].append((hours, value))
    groups = [group for group in by_program.values() if len(group) > 1]
    centered: list[tuple[float, float]] = []
    for group in groups:
        mean_hours, mean_value = fmean(hours for hours, _ in group), fmean(value for _, value in group)
        centered += [(hours - mean_hours, value - mean_value) for hours, value in group]
    squares = sum(hours**2 for hours, _ in centered)
    if squares <= 0:
        return None
    slope = sum(hours * value for hours, value in centered) / squares
    freedom = len(centered) - len(groups) - 1
    if noise is None and freedom > 0:
        noise = math.sqrt(sum((value - slope * hours) ** 2 for hours, value in centered) / freedom)
    compared = [hours for group in groups for hours, _ in group]
    span = max(compared) - min(compared)
    return Drift(
        change=slope * span,
        se=None if noise is None else noise * span / math.sqrt(squares),
        hours=span,
        num_runs=len(centered),
    )


def champion_speeds(champions: Iterable[Experiment]) -> tuple[Speed, ...]:
    """Collect the throughput of all trainings of the champions, controls included, in the order of their times."""
    found = [
        (moment, one.number, speed, run.clock_mhz)
        for one in champions
        for run in (*one.runs, *one.controls)
        if run.phase is Phase.TRAIN
        and (moment := parse_time(run.opened_at)) is not None
        and (speed := tokens_per_second(run.log_tail)) is not None
    ]
    found.sort(key=lambda one: one[:3])
    return tuple(
        Speed(number=number, hours=(moment - found[0][0]) / 3600, tokens_per_second=speed, clock_mhz=clock)
        for moment, number, speed, clock in found
    )


def speed_drift(speeds: Iterable[Speed]) -> Drift | None:
    """Estimate the drift of throughput, as a share: in logarithms, so that programs of any speed compare."""
    found = drift((one.number, one.hours, math.log(one.tokens_per_second)) for one in speeds)
    if found is None:
        return None
    se = None if found.se is None else found.se * math.exp(found.change)
    return Drift(change=math.expm1(found.change), se=se, hours=found.hours, num_runs=found.num_runs)


def score_drift(champions: Iterable[Experiment], sigma: float | None) -> Drift | None:
    """Estimate the drift of scores, in bpb, without the trials that selected their champion.

    A lucky first trial would look like a machine that became worse.
    """
    points = (
        (one.number, moment / 3600, run.val_bpb)
        for one in champions
        for run in champion_pool(one)
        if run.val_bpb is not None and (moment := parse_time(run.opened_at)) is not None
    )
    return drift(points, noise=sigma)


def drift_lines(speeds: Sequence[Speed], throughput: Drift | None, scores: Drift | None) -> list[str]:
    """Describe throughput and drift for people; nothing is said about what was not measured."""
    lines = []
    if speeds:
        first, last = speeds[0].tokens_per_second, speeds[-1].tokens_per_second
        text = f"Champion training throughput, as printed by the programs (untrusted): {first:,.0f} → {last:,.0f}"
        text += " tokens/s"
        if throughput is not None and throughput.hours >= LEAST_HOURS:
            known = "" if throughput.se is None else f" ± {throughput.se:.1%}"
            text += f"; same-program change {throughput.change:+.1%}{known} over {throughput.hours:.1f} h"
            if abs(throughput.change) > max(REPORTED_SHARE, 2 * (throughput.se or 0.0)):
                text += ": the machine drifts, run autoresearch doctor"
        clocks = [one.clock_mhz for one in speeds if one.clock_mhz is not None]
        if clocks:
            text += f"; clock {min(clocks):,.0f} to {max(clocks):,.0f} MHz"
        lines.append(text + ".")
    if scores is not None and scores.se is not None and scores.hours >= LEAST_HOURS:
        verdict = "the machine drifts" if abs(scores.change) > 2 * scores.se else "no detectable drift"
        change = f"{scores.change:+.4f} ± {scores.se:.4f} bpb over {scores.hours:.1f} h"
        lines.append(f"Same-program change of scores: {change}, {verdict}.")
    return lines


def parse_time(text: str | None) -> float | None:
    """Return seconds since the epoch of an ISO 8601 time, UTC where it names no zone; None where it is none."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
