"""The findings of a campaign without luck: one gain for each keep, and a curve that luck did not draw.

An edit is accepted for its good score, so that score is too good on average. A certificate measures tip and
champion again, under seeds that chose neither: its difference is *the* gain of a keep, in every command, title and
table. The lowest of many scores is also the luckiest, so there are two curves:

    raw       the running minimum of all claimed scores, as if every lower number were an improvement
    debiased  the baseline, and from there the measured gain of one certificate after the other

What this misses: a certificate that was lucky is kept more easily than one that was not. That remainder is small,
since most of what a certificate measures is far from the limit that it must reach.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from runner.decision.keep_rule import AS_GOOD
from runner.records import Experiment, Phase
from runner.report.drift import Drift, Speed, champion_speeds, drift_lines, score_drift, speed_drift
from runner.report.sealed import Gap, gap_line
from runner.report.summary import BASELINE, counted, is_kept, levels_of, score_of, summarize
from runner.report.table import SHORT_ID_CHARS, to_tsv

COLUMNS = (
    "experiment",
    "commit",
    "kind",
    "edits",
    "trials",
    "champion_trials",
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
    """One kept experiment. Figures are None where none were stored with its verdict."""

    number: int
    commit: str | None
    simplification: bool  # kept because it is as good, not because it is better
    num_trials: int | None
    num_champion_trials: int | None
    edits: tuple[int, ...]  # that it certifies
    effect_bpb: float | None  # measured by its certificate: the gain, negative is better
    low_bpb: float | None  # ends of its central 90%
    high_bpb: float | None
    better: float | None  # probability that the true effect is an improvement


@dataclass(frozen=True, kw_only=True)
class Level:
    """The height of a curve from an experiment on."""

    number: int
    bpb: float
    half_bpb: float | None = None  # half the width of the 90% interval of its distance from the baseline


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference in bpb, negative is better, with the ends of its 90% interval."""

    mean_bpb: float
    low_bpb: float
    high_bpb: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything found in a campaign. Curves begin at the baseline."""

    keeps: tuple[Keep, ...]
    expected_false: float  # Σ (1 − better) over the keeps that claim to be better and have figures
    expected_true: float  # Σ better
    num_unknown: int  # keeps without figures
    raw: tuple[Level, ...]
    debiased: tuple[Level, ...]
    raw_change_bpb: float | None
    total: Estimate | None  # of the debiased curve
    gaps: tuple[Gap, ...]
    speeds: tuple[Speed, ...]
    speed_drift: Drift | None  # as a share
    score_drift: Drift | None  # in bpb


def find(experiments: Sequence[Experiment], gaps: Sequence[Gap] = ()) -> Findings:
    """Compute the findings of a campaign.

    Args:
        experiments: in the order of their numbers.
        gaps: between validation and the sealed rows, where these may be shown.
    """
    champions = [one for one in experiments if is_kept(one)]
    return findings_of(champions, champions, raw_curve(experiments), summarize(experiments).sigma_bpb, gaps)


def findings_of(
    kept: Sequence[Experiment],
    champions: Sequence[Experiment],
    raw: tuple[Level, ...],
    sigma: float | None,
    gaps: Sequence[Gap],
) -> Findings:
    """Compute the findings from what they rest on.

    Args:
        kept: baseline and keeps; their trials are not needed.
        champions: those of them whose trials are to be compared.
        raw: the lowest claimed scores.
        sigma: the newest noise figure.
        gaps: see `find`.
    """
    keeps = tuple(_keep(one) for one in kept if one.number != BASELINE)
    chances = [one.better for one in keeps if one.better is not None and not one.simplification]
    debiased = _levels(kept)
    speeds = champion_speeds(champions)
    return Findings(
        keeps=keeps,
        expected_false=sum(1 - chance for chance in chances),
        expected_true=sum(chances),
        num_unknown=sum(one.better is None for one in keeps),
        raw=raw,
        debiased=debiased,
        raw_change_bpb=raw[-1].bpb - raw[0].bpb if raw else None,
        total=_total(debiased),
        gaps=tuple(gaps),
        speeds=speeds,
        speed_drift=speed_drift(speeds),
        score_drift=score_drift(champions, sigma),
    )


def raw_curve(experiments: Sequence[Experiment]) -> tuple[Level, ...]:
    """Compute the running minimum of all claimed scores, experiment by experiment, from the very first score on.

    Controls and certificates are left out: a rule that keeps every lower number measures nothing again. So are the
    scores of crashed and invalid candidates.
    """
    levels: list[Level] = []
    lowest = math.inf
    for one in experiments:
        if one.is_certificate or (score := score_of(one)) is None:
            continue
        claimed = [run.val_bpb for run in one.runs if run.phase is Phase.SCORE and run.val_bpb is not None]
        for value in claimed or [score]:
            lowest = min(lowest, value)
            levels.append(Level(number=one.number, bpb=lowest))
    return tuple(levels)


def finding_lines(found: Findings) -> list[str]:
    """Describe the findings for people, without a line about what there is none of."""
    lines = []
    if found.total is not None and found.keeps:
        total = found.total
        lines.append(
            f"Debiased gain: {total.mean_bpb:+.4f} bpb (90% interval {total.low_bpb:+.4f} to "
            f"{total.high_bpb:+.4f}), champion against baseline, from certificates alone: their seeds chose "
            f"nothing. The lowest score of all would claim {found.raw_change_bpb or 0.0:+.4f}."
        )
    judged = sum(one.better is not None and not one.simplification for one in found.keeps)
    simpler = sum(one.simplification for one in found.keeps)
    if judged or simpler:
        parts = []
        if judged:
            keeps = f"{found.expected_true:.1f} of {counted(judged, 'keep')} expected to be real improvements"
            parts.append(f"{keeps}, {found.expected_false:.1f} false")
        parts += [f"{counted(simpler, 'simplification')} kept as equally good"] if simpler else []
        parts += [f"{counted(found.num_unknown, 'keep')} without figures"] if found.num_unknown else []
        lines.append("; ".join(parts) + ".")
    if (line := gap_line(found.gaps)) is not None:
        lines.append(line)
    return [*lines, *drift_lines(found.speeds, found.speed_drift, found.score_drift)]


def findings_tsv(found: Findings) -> str:
    """List the baseline and each keep, one line each; unknown figures are empty."""
    numbers = [level.number for level in found.raw]
    gaps = {gap.number: gap.gap_bpb for gap in found.gaps}
    keeps = {one.number: one for one in found.keeps}
    rows: list[tuple[str, ...]] = []
    for level in found.debiased:
        one = keeps.get(level.number)
        before = bisect_right(numbers, level.number)
        raw = found.raw[before - 1].bpb if before else None
        curves = (_bpb(raw), _bpb(level.bpb), _signed(gaps.get(level.number)))
        if one is None:
            rows.append((str(level.number), "", "baseline", *[""] * 7, *curves))
            continue
        rows.append(
            (
                str(one.number),
                (one.commit or "")[:SHORT_ID_CHARS],
                "simplification" if one.simplification else "improvement",
                " ".join(map(str, one.edits)),
                "" if one.num_trials is None else str(one.num_trials),
                "" if one.num_champion_trials is None else str(one.num_champion_trials),
                *(_signed(value) for value in (one.effect_bpb, one.low_bpb, one.high_bpb)),
                "" if one.better is None else f"{one.better:.4f}",
                *curves,
            )
        )
    return to_tsv(COLUMNS, rows)


def _keep(one: Experiment) -> Keep:
    figures = one.figures
    return Keep(
        number=one.number,
        commit=one.kept_commit,
        simplification=(one.reason or "").startswith(AS_GOOD),
        num_trials=None if figures is None else len(figures.trials),
        num_champion_trials=None if figures is None else len(figures.pool),
        edits=one.certifies,
        effect_bpb=one.delta_bpb,
        low_bpb=None if figures is None else figures.low_bpb,
        high_bpb=None if figures is None else figures.high_bpb,
        better=None if figures is None else figures.better,
    )


def _levels(kept: Sequence[Experiment]) -> tuple[Level, ...]:
    """The debiased curve; certificates are independent, so the widths of their intervals add as squares."""
    levels: list[Level] = []
    half: float | None = 0.0
    for one, bpb in zip(kept, levels_of(kept), strict=True):
        if levels:
            known = None if one.figures is None else (one.figures.high_bpb - one.figures.low_bpb) / 2
            half = None if half is None or known is None else math.hypot(half, known)
        levels.append(Level(number=one.number, bpb=bpb, half_bpb=half))
    return tuple(levels)


def _total(debiased: Sequence[Level]) -> Estimate | None:
    if len(debiased) < 2 or debiased[-1].half_bpb is None:
        return None
    change, half = debiased[-1].bpb - debiased[0].bpb, debiased[-1].half_bpb
    return Estimate(mean_bpb=change, low_bpb=change - half, high_bpb=change + half)


def _bpb(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.6f}"
