"""What a night really found: effects that are shrunken for selection, and the curve that luck did not draw.

A keep was chosen for looking good, so what it was measured to do is too good on average. Its posterior mean
(`runner/decision/effect_prior.py`) allows for that. The same holds for a curve of best scores: of many numbers
the lowest one is also the luckiest. So two curves are told:

    raw       the running minimum of all claimed scores: what a reader believes who keeps every lower number
    debiased  for each champion the mean of its audited runs, controls included, without the one that chose it

What is not seen: the later looks at a keep are chosen as well, because it was kept; that is a small rest, and it
shows as a sum of effects that is smaller than the debiased curve's total.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

from runner.decision.effect_prior import NORMAL_90
from runner.decision.history import champion_pool
from runner.decision.keep_rule import AS_GOOD
from runner.records import Experiment, Phase, RunRecord, SealedScore
from runner.report.summary import BASELINE, is_kept, score_of, sum_up
from runner.untrusted import tokens_per_second

DRIFT_SHARE = 0.01
"""A change of throughput that is worth a word: on a GPU it moves a score by about one standard deviation."""
LEAST_HOURS = 0.25
"""Within less time nobody can speak of drift."""
COLUMNS = (
    "experiment",
    "commit",
    "kind",
    "runs",
    "against",
    "delta_bpb",
    "effect_bpb",
    "low_bpb",
    "high_bpb",
    "better",
    "raw_bpb",
    "debiased_bpb",
    "sealed_gap_bpb",
)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """One kept experiment. Figures are None where the program that judged it stored none."""

    number: int
    commit: str | None
    simplification: bool  # kept because it is as good, not because it is better
    num_trials: int | None
    num_champion_runs: int | None
    delta_bpb: float | None  # as measured
    effect_bpb: float | None  # posterior mean: shrunken for selection
    low_bpb: float | None  # ends of its central 90 %
    high_bpb: float | None
    better: float | None  # probability that the true effect is an improvement


@dataclass(frozen=True, kw_only=True)
class Level:
    """Where a curve stands from an experiment on."""

    number: int
    bpb: float
    half_bpb: float | None = None  # half the width of its 90 % interval


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference in bpb, negative is better, with the ends of its 90 % interval."""

    mean_bpb: float
    low_bpb: float
    high_bpb: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much more validation improved than the sealed rows since the baseline: learned from, not improved."""

    number: int
    gap_bpb: float  # (test − val) − the same of the baseline; positive: validation flatters
    se_bpb: float | None  # from the spread between seeds of one program; None: no program has two


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What one training of a champion says of its throughput. Untrusted."""

    number: int
    hours: float  # since the first one
    tokens_per_second: float
    clock_mhz: float | None  # of the processors that trained, from the machine itself


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Change of one quantity of equal programs from the first to the last of their runs."""

    change: float
    se: float | None  # None: too few runs to tell
    hours: float
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All of it. Curves begin at the baseline."""

    keeps: tuple[Keep, ...]
    expected_false: float  # Σ (1 − better) over the keeps that claim to be better and have figures
    expected_true: float  # Σ better
    num_unknown: int  # keeps without figures
    effects_bpb: float  # Σ of the effects
    raw: tuple[Level, ...]
    debiased: tuple[Level, ...]
    raw_change_bpb: float | None
    total: Estimate | None  # of the debiased curve
    gaps: tuple[Gap, ...]
    speeds: tuple[Speed, ...]
    speed_drift: Drift | None  # as a share
    score_drift: Drift | None  # in bpb


def find(experiments: Sequence[Experiment], sealed: Sequence[SealedScore] = ()) -> Findings:
    """Put the findings of a campaign together.

    Args:
        experiments: in the order of their numbers.
        sealed: scores on the test rows.
    """
    sigma = sum_up(experiments).sigma_bpb
    champions = [one for one in experiments if is_kept(one)]
    keeps = tuple(_keep(one) for one in champions if one.number != BASELINE)
    chances = [one.better for one in keeps if one.better is not None and not one.simplification]
    debiased = tuple(_level(one, sigma) for one in champions)
    raw = raw_curve(experiments)
    speeds = _speeds(champions)
    return Findings(
        keeps=keeps,
        expected_false=sum(1 - chance for chance in chances),
        expected_true=sum(chances),
        num_unknown=sum(one.better is None for one in keeps),
        effects_bpb=sum(one.effect_bpb or 0.0 for one in keeps),
        raw=raw,
        debiased=debiased,
        raw_change_bpb=raw[-1].bpb - raw[0].bpb if raw else None,
        total=_total(debiased),
        gaps=sealed_gaps(sealed),
        speeds=speeds,
        speed_drift=_speed_drift(speeds),
        score_drift=_score_drift(champions, sigma),
    )


def raw_curve(experiments: Sequence[Experiment]) -> tuple[Level, ...]:
    """The running minimum of all claimed scores, experiment by experiment; the first score of all comes first.

    Controls are left out: who keeps every lower number measures nothing again. So are scores that nobody believes.
    """
    levels: list[Level] = []
    for one in experiments:
        if (score := score_of(one)) is None:
            continue
        claimed = [run.val_bpb for run in one.runs if run.phase is Phase.SCORE and run.val_bpb is not None]
        for value in claimed or [score]:
            levels.append(Level(number=one.number, bpb=min([value, *(level.bpb for level in levels[-1:])])))
    return tuple(levels)


def sealed_gaps(sealed: Sequence[SealedScore]) -> tuple[Gap, ...]:
    """By experiment, how much more validation has improved since the baseline than the sealed rows.

    gap = mean (test − val) − the baseline's; se = s √(1/n + 1/n₀), with s pooled over programs with several seeds.
    """
    by_number: defaultdict[int, list[float]] = defaultdict(list)
    for score in sealed:
        by_number[score.number].append(score.test_bpb - score.val_bpb)
    if BASELINE not in by_number:
        return ()
    freedom = sum(len(values) - 1 for values in by_number.values())
    squares = sum((value - fmean(values)) ** 2 for values in by_number.values() for value in values)
    spread = math.sqrt(squares / freedom) if freedom else None
    start = by_number.pop(BASELINE)
    return tuple(
        Gap(
            number=number,
            gap_bpb=fmean(values) - fmean(start),
            se_bpb=None if spread is None else spread * math.sqrt(1 / len(values) + 1 / len(start)),
        )
        for number, values in sorted(by_number.items())
    )


def drift(points: Iterable[tuple[int, float, float]], noise: float | None = None) -> Drift | None:
    """How a quantity of equal programs changes with time: least squares with a level of its own for each program.

    slope = Σ (t − t̄)(y − ȳ) / Σ (t − t̄)², means within each program; se = s / √Σ (t − t̄)², s from the residuals.

    Args:
        points: program, hours, value.
        noise: standard deviation of one value, where it is known better than from the residuals.

    Returns:
        None when no program was run twice at different times.
    """
    groups: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for program, hours, value in points:
        groups[program].append((hours, value))
    centred = [
        (hours - fmean(one[0] for one in group), value - fmean(one[1] for one in group))
        for group in groups.values()
        if len(group) > 1
        for hours, value in group
    ]
    times = sum(hours**2 for hours, _ in centred)
    if times <= 0:
        return None
    slope = sum(hours * value for hours, value in centred) / times
    freedom = len(centred) - sum(len(group) > 1 for group in groups.values()) - 1
    if noise is None and freedom > 0:
        noise = math.sqrt(sum((value - slope * hours) ** 2 for hours, value in centred) / freedom)
    compared = [hours for group in groups.values() if len(group) > 1 for hours, _ in group]
    span = max(compared) - min(compared)
    return Drift(
        change=slope * span,
        se=None if noise is None else noise * span / math.sqrt(times),
        hours=span,
        num_runs=len(centred),
    )


def finding_lines(found: Findings) -> list[str]:
    """For people; nothing about what there is none of."""
    lines = []
    if found.total is not None and found.keeps:
        total = found.total
        lines.append(
            f"Really found: {total.mean_bpb:+.4f} bpb (90 % interval {total.low_bpb:+.4f} to "
            f"{total.high_bpb:+.4f}), champion against baseline without the runs that chose them; sum of the kept "
            f"edits, shrunken {found.effects_bpb:+.4f}; the lowest of all scores would claim "
            f"{found.raw_change_bpb or 0.0:+.4f}."
        )
    judged = [one for one in found.keeps if one.better is not None and not one.simplification]
    simpler = sum(one.simplification for one in found.keeps)
    if judged or simpler:
        parts = [f"{_count(simpler, 'simplification')} kept as good"] if simpler else []
        if judged:
            keeps = f"{found.expected_true:.1f} of {_count(len(judged), 'keep')} expected to be improvements"
            parts.insert(0, f"{keeps}, {found.expected_false:.1f} to be false")
        parts += [f"{_count(found.num_unknown, 'keep')} without figures"] if found.num_unknown else []
        lines.append("; ".join(parts) + ".")
    if found.gaps:
        lines.append(_gap_line(found.gaps[-1]))
    return [*lines, *_drift_lines(found)]


def findings_tsv(found: Findings) -> str:
    """One line for the baseline and for each keep; what is not known is empty."""
    raw = {level.number: level.bpb for level in found.raw}
    gaps = {gap.number: gap.gap_bpb for gap in found.gaps}
    keeps = {one.number: one for one in found.keeps}
    rows: list[tuple[str, ...]] = [COLUMNS]
    for level in found.debiased:
        one = keeps.get(level.number)
        curves = (_bpb(raw.get(level.number)), _bpb(level.bpb), _signed(gaps.get(level.number)))
        if one is None:
            rows.append((str(level.number), "", "baseline", *[""] * 7, *curves))
            continue
        rows.append(
            (
                str(one.number),
                (one.commit or "")[:7],
                "simplification" if one.simplification else "improvement",
                "" if one.num_trials is None else str(one.num_trials),
                "" if one.num_champion_runs is None else str(one.num_champion_runs),
                *(_signed(value) for value in (one.delta_bpb, one.effect_bpb, one.low_bpb, one.high_bpb)),
                "" if one.better is None else f"{one.better:.4f}",
                *curves,
            )
        )
    return "".join("\t".join(row) + "\n" for row in rows)


def _keep(one: Experiment) -> Keep:
    figures = one.figures
    return Keep(
        number=one.number,
        commit=one.kept_commit,
        simplification=(one.reason or "").startswith(AS_GOOD),
        num_trials=None if figures is None else len(figures.trials),
        num_champion_runs=None if figures is None else len(figures.pool),
        delta_bpb=one.delta_bpb if figures is None else figures.delta_bpb,
        effect_bpb=None if figures is None else figures.effect_bpb,
        low_bpb=None if figures is None else figures.low_bpb,
        high_bpb=None if figures is None else figures.high_bpb,
        better=None if figures is None else figures.better,
    )


def _level(champion: Experiment, sigma: float | None) -> Level:
    pool = [run.val_bpb for run in champion_pool(champion) if run.val_bpb is not None]
    half = None if sigma is None or not pool else NORMAL_90 * sigma / math.sqrt(len(pool))
    score = champion.val_bpb
    assert score is not None  # else it is no champion
    return Level(number=champion.number, bpb=fmean(pool) if pool else score, half_bpb=half)


def _total(debiased: Sequence[Level]) -> Estimate | None:
    """First against last: independent runs, so that the widths add up as squares."""
    if len(debiased) < 2:
        return None
    first, last = debiased[0], debiased[-1]
    change = last.bpb - first.bpb
    if first.half_bpb is None or last.half_bpb is None:
        return None
    half = math.hypot(first.half_bpb, last.half_bpb)
    return Estimate(mean_bpb=change, low_bpb=change - half, high_bpb=change + half)


def _trainings(champion: Experiment) -> Iterable[tuple[RunRecord, datetime]]:
    for run in (*champion.runs, *champion.controls):
        if run.phase is Phase.TRAIN and (moment := _moment(run.opened_at)) is not None:
            yield run, moment


def _speeds(champions: Sequence[Experiment]) -> tuple[Speed, ...]:
    found = [
        (moment, one.number, speed, run.clock_mhz)
        for one in champions
        for run, moment in _trainings(one)
        if (speed := tokens_per_second(run.log_tail)) is not None
    ]
    found.sort(key=lambda one: one[:3])
    return tuple(
        Speed(
            number=number,
            hours=(moment - found[0][0]).total_seconds() / 3600,
            tokens_per_second=speed,
            clock_mhz=clock,
        )
        for moment, number, speed, clock in found
    )


def _speed_drift(speeds: Sequence[Speed]) -> Drift | None:
    """As a share: in logarithms, so that programs of any speed compare."""
    found = drift((one.number, one.hours, math.log(one.tokens_per_second)) for one in speeds)
    if found is None:
        return None
    se = None if found.se is None else found.se * math.exp(found.change)
    return Drift(change=math.expm1(found.change), se=se, hours=found.hours, num_runs=found.num_runs)


def _score_drift(champions: Sequence[Experiment], sigma: float | None) -> Drift | None:
    """Of the runs that did not choose their champion: a lucky first one looks like a machine that became worse."""
    moments = [
        (one.number, moment, run.val_bpb)
        for one in champions
        for run in champion_pool(one)
        if run.val_bpb is not None and (moment := _moment(run.opened_at)) is not None
    ]
    return drift(((number, moment.timestamp() / 3600, bpb) for number, moment, bpb in moments), noise=sigma)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _gap_line(gap: Gap) -> str:
    known = "" if gap.se_bpb is None else f" ± {gap.se_bpb:.4f}"
    meaning = "by which validation improved more than text that decided nothing"
    if gap.se_bpb is not None and abs(gap.gap_bpb) < 2 * gap.se_bpb:
        meaning = "no more than the spread between seeds"
    elif gap.gap_bpb <= 0:
        meaning = "the sealed rows improved at least as much"
    where = f"Sealed test gap at experiment {gap.number}"
    return f"{where}: {gap.gap_bpb:+.4f}{known} bpb since the baseline, {meaning}."


def _drift_lines(found: Findings) -> list[str]:
    lines = []
    if found.speeds:
        first, last = found.speeds[0], found.speeds[-1]
        text = (
            "Throughput of the champions' trainings, as they print it (untrusted): "
            f"{first.tokens_per_second:,.0f} → {last.tokens_per_second:,.0f} tokens/s"
        )
        if (speed := found.speed_drift) is not None and speed.hours >= LEAST_HOURS:
            known = "" if speed.se is None else f" ± {speed.se:.1%}"
            text += f"; of equal programs {speed.change:+.1%}{known} over {speed.hours:.1f} h"
            if abs(speed.change) > max(DRIFT_SHARE, 2 * (speed.se or 0.0)):
                text += ": the machine drifts, autoresearch doctor looks at it"
        clocks = [one.clock_mhz for one in found.speeds if one.clock_mhz is not None]
        if clocks:
            text += f"; clocks {min(clocks):,.0f} to {max(clocks):,.0f} MHz"
        lines.append(text + ".")
    score = found.score_drift
    if score is not None and score.se is not None and score.hours >= LEAST_HOURS:
        verdict = ": the machine drifts" if abs(score.change) > 2 * score.se else ", no drift to be seen"
        change = f"{score.change:+.4f} ± {score.se:.4f} bpb over {score.hours:.1f} h"
        lines.append(f"Scores of equal programs: {change}{verdict}.")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _bpb(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.6f}"
