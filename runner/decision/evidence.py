"""What the runs in the ledger say about a candidate, its champion and the noise. Pure functions of records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runner.config import Config
from runner.decision import effect_prior
from runner.decision.keep_rule import (
    LEAST_POOL,
    POOL_RUNS,
    Belief,
    Judgement,
    Rule,
    drifted,
    near_miss,
    pooled_sigma,
)
from runner.records import Experiment, Figures, Phase, RunEnd, RunRecord, Verdict

BASELINE = 0


def rule(config: Config) -> Rule:
    """The keep rule as a campaign is configured."""
    return Rule(
        max_false_keep_probability=config.max_false_keep_probability,
        min_trials=config.min_trials,
        max_trials=config.max_trials,
        stack_sigmas=config.stack_sigmas,
    )


def scored(runs: Sequence[RunRecord], *, audited: bool = False) -> tuple[RunRecord, ...]:
    """One run for each seed, in the order of the seeds' last scores: the audited one, else the one that claims.

    Args:
        audited: only runs whose claims an audit has confirmed.
    """
    found: dict[int, RunRecord] = {}
    for run in runs:
        confirmed = run.phase is Phase.AUDIT and run.audit is not None and run.audit.finding is None
        claimed = run.phase is Phase.SCORE and not audited
        if run.val_bpb is not None and (confirmed or claimed):
            found.pop(run.seed, None)  # a seed that was run again after a crash counts once, and then
            found[run.seed] = run
    return tuple(found.values())


def is_near_miss(experiment: Experiment) -> bool:
    """Whether it was discarded, and may be worth a little beside others."""
    figures = experiment.figures
    return (
        experiment.verdict is Verdict.DISCARD
        and figures is not None
        and bool(near_miss(np.array(figures.effect_bpb), np.array(figures.sigma_bpb)))
    )


def champion_pool(champion: Experiment, before: int | None = None) -> tuple[RunRecord, ...]:
    """The newest audited runs of a champion that were not chosen for their scores.

    The first look at a candidate made it a candidate for a keep: it is left out, where there are others.

    Args:
        before: only runs with a smaller id, as they were known then.
    """
    own = scored(champion.runs, audited=True)
    if champion.number != BASELINE and len(own) > 1:
        own = own[1:]
    runs = (*own, *scored(champion.controls, audited=True))
    return tuple(run for run in runs if before is None or (run.id or 0) < before)[-POOL_RUNS:]


def comparable(
    pool: Sequence[RunRecord], candidate: Sequence[RunRecord], sigma_bpb: float
) -> tuple[RunRecord, ...]:
    """The runs of a champion that a candidate is compared with.

    Those made between the candidate's looks are made by the same machine. When they say that it has changed
    (`decision.DRIFT_Z`), the earlier ones do not count.

    Args:
        pool: of the champion.
        candidate: the candidate's runs, in their order.
        sigma_bpb: noise standard deviation of one run.
    """
    opened = min((run.id or 0 for run in candidate), default=None)
    if opened is None:
        return tuple(pool)
    old = [run for run in pool if (run.id or 0) < opened]
    fresh = [run for run in pool if (run.id or 0) >= opened]
    if not old or not fresh:
        return tuple(pool)
    means = [sum(run.val_bpb or 0.0 for run in some) / len(some) for some in (fresh, old)]
    moved = drifted(np.array(means[0] - means[1]), np.array(len(fresh)), np.array(len(old)), np.array(sigma_bpb))
    return tuple(fresh) if moved else tuple(pool)


def control_due_between_trials(champion: Experiment, candidate: Sequence[RunRecord]) -> bool:
    """Whether the champion has not been measured since the candidate's last look.

    Args:
        candidate: the runs of its looks so far, in their order.
    """
    last = max((run.id or 0 for run in candidate if run.end is not RunEnd.LOST), default=0)
    own = settled((*champion.runs, *champion.controls))
    return last > max((run.id or 0 for run in own), default=0)


def belief(experiments: Sequence[Experiment], config: Config, before: int | None = None) -> Belief:
    """What a campaign has learned from its closed experiments: the noise, and how often edits help.

    Stacks are not edits that somebody had an idea for: they teach the noise alone.

    Args:
        before: only from runs with a smaller id: as it was known before a case was opened.
    """
    prior = effect_prior.prior(config.effect_scale_bpb)
    closed = [one for one in experiments if one.verdict is not None]
    first_trials = [
        (one.figures.first_delta_bpb, one.figures.first_se_bpb)
        for one in closed
        if one.figures is not None and not one.combines
    ]
    return Belief(
        prior=prior,
        weights=effect_prior.learned_weights(prior, first_trials),
        sigma_bpb=pooled_sigma(noise_groups(experiments, before), config.noise_prior_bpb),
    )


def noise_groups(experiments: Sequence[Experiment], before: int | None = None) -> list[list[float]]:
    """For each closed experiment, its scores under different seeds.

    Args:
        before: only runs with a smaller id.
    """
    return [
        [
            run.val_bpb or 0.0
            for run in scored((*one.runs, *one.controls))
            if before is None or (run.id or 0) < before
        ]
        for one in experiments
        if one.verdict is not None
    ]


def control_due(experiments: Sequence[Experiment], champion: Experiment, every: int) -> bool:
    """Whether so many other runs have been scored since the champion's last run, or a new one has too few.

    Args:
        every: 0 for never.
    """
    own = settled((*champion.runs, *champion.controls))
    if every and champion.number != BASELINE and len(own) <= LEAST_POOL:  # the one that chose it does not count
        return True
    last = max((run.id or 0 for run in own), default=0)
    since = sum(
        ((run.phase is Phase.SCORE and run.val_bpb is not None) or run.end is RunEnd.STOPPED)
        and (run.id or 0) > last
        for one in experiments
        if one.number != champion.number
        for run in one.runs
    )
    return 0 < every <= since


def settled(runs: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """The run that settled each seed: audited, or failed. What a crash of ours cut off settles nothing."""
    found = {
        run.seed: run
        for run in runs
        if run.end in (RunEnd.FAILED, RunEnd.OUT_OF_MEMORY, RunEnd.STOPPED)
        or (run.phase is not Phase.TRAIN and run.end is RunEnd.DEADLINE)
        or (run.phase is Phase.SCORE and run.end is RunEnd.FINISHED and run.val_bpb is None)
        or (run.phase is Phase.AUDIT and run.end is RunEnd.FINISHED)
    }
    return tuple(found.values())


def next_index(experiment: Experiment) -> int:
    """The index of the seed that an experiment is measured with next."""
    return len(settled((*experiment.runs, *experiment.controls)))


def figures(last: Judgement, first: Judgement, trials: Sequence[RunRecord], pool: tuple[int, ...]) -> Figures:
    """What a verdict rests on, for the ledger.

    Args:
        last: of all looks.
        first: of the first one alone.
        pool: ids of the champion's runs.
    """
    return Figures(
        trials=tuple(run.id for run in trials if run.id is not None),
        pool=pool,
        delta_bpb=last.delta_bpb,
        se_bpb=last.se_bpb,
        sigma_bpb=last.sigma_bpb,
        better=last.better,
        effect_bpb=last.effect_bpb,
        low_bpb=last.low_bpb,
        high_bpb=last.high_bpb,
        first_delta_bpb=first.delta_bpb,
        first_se_bpb=first.se_bpb,
    )
