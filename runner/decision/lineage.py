"""Who descends from whom: the champion of a campaign, its claims, the strikes against its
challengers, and what near misses became part of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from runner.records import Experiment, Phase, RunRecord, Verdict


def champion(experiments: Sequence[Experiment]) -> Experiment | None:
    """The last kept experiment."""
    kept = [one for one in experiments if one.verdict is Verdict.KEEP]
    return kept[-1] if kept else None


def audited_runs(experiment: Experiment) -> list[RunRecord]:
    """The runs whose claims an audit has confirmed, each with its audited score."""
    return [
        run
        for run in experiment.runs
        if run.phase is Phase.AUDIT and run.audit is not None and run.audit.finding is None
    ]


def champion_claims(experiment: Experiment | None) -> str | None:
    """Hash of the claims that audits of its challengers compare with; None where none were audited."""
    runs = [] if experiment is None else audited_runs(experiment)
    return runs[-1].claims_sha256 if runs else None


def stack_of(experiments: Sequence[Experiment]) -> dict[int, int]:
    """For each near miss that was tried again together with others, by its number: the experiment that did."""
    return {piece: one.number for one in experiments for piece in one.combines}


def strikes(experiments: Sequence[Experiment]) -> Counter[int]:
    """How many challengers of each champion, by its number, the audit has refused."""
    return Counter(
        one.champion
        for one in experiments
        if one.verdict is Verdict.INVALID
        and one.champion is not None
        and any(run.audit is not None and run.audit.finding is not None for run in one.runs)
    )
