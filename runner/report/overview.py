"""A campaign as `status` shows it, in the same time however long it is.

Sums come from the ledger's aggregates. Only the newest experiments and champions are read with their trials: where
the hours go, and whether the machine drifts, is a question about the present. `autoresearch report` reads all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runner.records import Experiment, Verdict
from runner.report.findings import Findings, Level, findings_of, raw_curve
from runner.report.notes import Certificates, EarlyStops, count_certificates, upper_limit, usual_seconds
from runner.report.sealed import Gap
from runner.report.summary import BASELINE, Summary, baseline_failure, gain_of, is_kept
from runner.report.tip_progress import TipProgress, tip_progress
from runner.storage.aggregates import Aggregates
from runner.storage.ledger import Ledger

NUM_NEWEST = 500
"""Experiments whose hours and costs are looked at."""
NUM_CHAMPIONS = 100
"""Champions, besides the baseline, whose trials are looked at for drift."""


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything that `status` shows of the experiments."""

    summary: Summary
    newest: tuple[Experiment, ...]  # the open one included
    champion: Experiment | None  # without its trials
    strikes: Counter[int]
    findings: Findings
    early_stops: EarlyStops
    certificates: Certificates
    tip: TipProgress


def overview(ledger: Ledger, tag: str, gaps: Sequence[Gap] = ()) -> Overview:
    """Read the overview of a campaign.

    Args:
        gaps: between validation and the sealed rows.
    """
    sums = Aggregates(ledger.database, tag)
    number = ledger.num_experiments(tag)
    newest = ledger.experiments(tag, max(0, number - NUM_NEWEST))
    baseline = ledger.experiments(tag, BASELINE, BASELINE)
    kept = [one for one in ledger.lineage(tag) if is_kept(one)]
    champions = [*filter(is_kept, baseline), *_with_trials(ledger, tag, kept)]
    counts, sigma, lowest = sums.verdicts(), sums.newest_sigma_bpb(), sums.lowest_claim()
    certified = count_certificates(sums.certificates(), counts[Verdict.ACCEPT])
    raw = raw_curve(baseline)[:1]
    if lowest is not None and (not raw or lowest[1] < raw[0].bpb):
        raw = (*raw, Level(number=lowest[0], bpb=lowest[1]))
    best = champions[-1] if champions else None
    first = champions[0] if champions and champions[0].number == BASELINE else None
    return Overview(
        summary=Summary(
            baseline_bpb=None if first is None else first.val_bpb,
            gain_bpb=gain_of(kept),
            champion=None if best is None else best.number,
            sigma_bpb=sigma,
            counts=counts,
            certificates=certified.tried,
            failure=baseline_failure(baseline),
        ),
        newest=newest,
        champion=best,
        strikes=sums.strikes(),
        findings=findings_of(kept, champions, raw, sigma, gaps),
        early_stops=_early_stops(sums, baseline),
        certificates=certified,
        tip=tip_progress(ledger.lineage(tag), newest),
    )


def _with_trials(ledger: Ledger, tag: str, kept: Sequence[Experiment]) -> list[Experiment]:
    """The newest champions with their trials; the baseline is read apart."""
    numbers = [one.number for one in kept if one.number != BASELINE][-NUM_CHAMPIONS:]
    return list(filter(is_kept, ledger.kept_experiments(tag, numbers[0]))) if numbers else []


def _early_stops(sums: Aggregates, baseline: Sequence[Experiment]) -> EarlyStops:
    (stopped, saved), (finished, promising) = (
        sums.stopped_early(usual_seconds(baseline)),
        sums.finished_anyway(),
    )
    return EarlyStops(
        stopped=stopped,
        saved_seconds=saved,
        finished=finished,
        promising=promising,
        wrong_at_most=upper_limit(promising, finished) if finished else None,
    )
