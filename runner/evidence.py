"""What the runs in the ledger say about a candidate, its champion and the noise. Pure functions of records."""

from __future__ import annotations

from collections.abc import Sequence

from runner import effects
from runner.config import Config
from runner.decision import POOL_RUNS, Belief, Judgement, Rule, pooled_sigma
from runner.records import Experiment, Figures, Phase, RunEnd, RunRecord

BASELINE = 0


def rule(config: Config) -> Rule:
    """The keep rule as a campaign is configured."""
    return Rule(keep_doubt=config.keep_doubt, min_looks=config.min_looks, max_looks=config.max_looks)


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


def champion_pool(champion: Experiment) -> tuple[RunRecord, ...]:
    """The newest audited runs of a champion that were not chosen for their scores.

    The first look at a candidate made it a candidate for a keep: it is left out, where there are others.
    """
    own = scored(champion.runs, audited=True)
    if champion.number != BASELINE and len(own) > 1:
        own = own[1:]
    return (*own, *scored(champion.controls, audited=True))[-POOL_RUNS:]


def belief(experiments: Sequence[Experiment], config: Config) -> Belief:
    """What a campaign has learned from its closed experiments: the noise, and how often edits help."""
    prior = effects.prior(config.effect_scale_bpb)
    closed = [one for one in experiments if one.verdict is not None]
    first_looks = [
        (one.figures.first_delta_bpb, one.figures.first_se_bpb) for one in closed if one.figures is not None
    ]
    return Belief(
        prior=prior,
        weights=effects.learned_weights(prior, first_looks),
        sigma_bpb=pooled_sigma(noise_groups(experiments), config.noise_prior_bpb),
    )


def noise_groups(experiments: Sequence[Experiment]) -> list[list[float]]:
    """For each closed experiment, its scores under different seeds."""
    return [
        [run.val_bpb or 0.0 for run in scored((*one.runs, *one.controls))]
        for one in experiments
        if one.verdict is not None
    ]


def control_due(experiments: Sequence[Experiment], champion: Experiment, every: int) -> bool:
    """Whether so many other runs have been scored since the champion's last run.

    Args:
        every: 0 for never.
    """
    own = settled((*champion.runs, *champion.controls))
    last = max((run.id or 0 for run in own), default=0)
    since = sum(
        run.phase is Phase.SCORE and run.val_bpb is not None and (run.id or 0) > last
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
        if run.end in (RunEnd.FAILED, RunEnd.OUT_OF_MEMORY)
        or (run.phase is not Phase.TRAIN and run.end is RunEnd.DEADLINE)
        or (run.phase is Phase.SCORE and run.end is RunEnd.FINISHED and run.val_bpb is None)
        or (run.phase is Phase.AUDIT and run.end is RunEnd.FINISHED)
    }
    return tuple(found.values())


def next_index(experiment: Experiment) -> int:
    """The index of the seed that an experiment is measured with next."""
    return len(settled((*experiment.runs, *experiment.controls)))


def figures(last: Judgement, first: Judgement, looks: Sequence[RunRecord], pool: Sequence[RunRecord]) -> Figures:
    """What a verdict rests on, for the ledger."""
    return Figures(
        looks=tuple(run.id for run in looks if run.id is not None),
        pool=tuple(run.id for run in pool if run.id is not None),
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
