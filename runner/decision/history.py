"""What the trials in the ledger say about a candidate, its champion and the noise. Pure functions of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from runner.config import Config
from runner.decision.keep_rule import (
    POOL_RUNS,
    Judgement,
    Rule,
    drifted,
    near_miss,
)
from runner.records import Experiment, Figures, Outcome, Trial, Verdict

BASELINE = 0


def rule(config: Config) -> Rule:
    """The keep rule as a campaign is configured."""
    return Rule(
        max_false_keep_probability=config.max_false_keep_probability,
        min_trials=config.min_trials,
        max_trials=config.max_trials,
        stack_sigmas=config.stack_sigmas,
    )


# -------------------------------------------------------------------- lineage


def champion(experiments: Iterable[Experiment]) -> Experiment | None:
    """The experiment that was kept last."""
    kept = [one for one in experiments if one.verdict is Verdict.KEEP]
    return max(kept, key=lambda one: (one.kept_seq == 0, one.kept_seq, one.number)) if kept else None


def baseline_failed(experiments: Sequence[Experiment]) -> bool:
    """Whether the baseline, the first of these experiments, failed: nothing can follow it."""
    if not experiments or experiments[0].number != BASELINE:
        return False
    return experiments[0].verdict not in (None, Verdict.KEEP)


def champion_claims(experiment: Experiment | None) -> str | None:
    """Hash of the claims that audits of its challengers compare with; None where none were audited."""
    audited = [] if experiment is None else [trial for trial in experiment.trials if trial.audited]
    return audited[-1].claims_sha256 if audited else None


def stack_of(experiments: Iterable[Experiment]) -> dict[int, int]:
    """For each near miss that was tried again together with others, by its number: the experiment that did."""
    return {piece: one.number for one in experiments for piece in one.combines}


def strikes(experiments: Iterable[Experiment]) -> Counter[int]:
    """How many challengers of each champion, by its number, the audit has refused."""
    return Counter(
        one.champion
        for one in experiments
        if one.verdict is Verdict.INVALID
        and one.champion is not None
        and any(trial.audit is not None and trial.audit.finding is not None for trial in one.trials)
    )


def is_near_miss(experiment: Experiment) -> bool:
    """Whether it was discarded, and may be worth a little beside others."""
    figures = experiment.figures
    return (
        experiment.verdict is Verdict.DISCARD
        and figures is not None
        and bool(near_miss(np.array(figures.effect_bpb), np.array(figures.sigma_bpb)))
    )


def was_lucky(experiment: Experiment) -> bool:
    """Whether it was discarded although its first number was better than its champion's.

    A greedy rule, which runs everything once and keeps every better number, would have kept it.
    """
    figures = experiment.figures
    return experiment.verdict is Verdict.DISCARD and figures is not None and figures.first_delta_bpb < 0


# --------------------------------------------------------------------- trials


def scored(trials: Iterable[Trial], *, audited: bool = False) -> tuple[Trial, ...]:
    """Trials with a score, the newest for each seed, in order.

    Args:
        audited: only those whose claims an audit has confirmed.
    """
    found: dict[int, Trial] = {}
    for trial in trials:
        if trial.outcome is Outcome.SCORED and (trial.audited or not audited):
            found.pop(trial.seed, None)
            found[trial.seed] = trial
    return tuple(found.values())


def scores(trials: Iterable[Trial]) -> tuple[float, ...]:
    """Their scores in bpb."""
    return tuple(trial.val_bpb for trial in trials if trial.val_bpb is not None)


def settled(experiment: Experiment) -> tuple[Trial, ...]:
    """Trials of a program, controls included, that need no repetition, by seed."""
    every = (*experiment.trials, *experiment.control_trials)
    found = {trial.seed: trial for trial in every if trial.outcome not in (Outcome.LOST, Outcome.CONTENDED)}
    return tuple(found.values())


def champion_pool(champion: Experiment, before_seq: int | None = None) -> tuple[Trial, ...]:
    """The newest audited trials of a champion that were not chosen for their scores.

    The first trial made the candidate a candidate for a keep: it is left out, where there are others.

    Args:
        before_seq: only trials that were closed before, as they were known then.
    """
    own = scored(champion.trials, audited=True)
    if champion.number != BASELINE and len(own) > 1:
        own = own[1:]
    pool = (*own, *scored(champion.control_trials, audited=True))
    return tuple(trial for trial in pool if before_seq is None or trial.closed_seq < before_seq)[-POOL_RUNS:]


def comparable(pool: Sequence[Trial], candidate: Sequence[Trial], sigma_bpb: float) -> tuple[Trial, ...]:
    """The trials of a champion that a candidate is compared with.

    Those made between the candidate's trials are made by the same machine. When they say that it has changed
    (`keep_rule.DRIFT_Z`), the earlier ones do not count.

    Args:
        pool: of the champion.
        candidate: trials of the candidate, in order.
        sigma_bpb: noise standard deviation of one trial.
    """
    opened = min((trial.opened_seq for trial in candidate), default=None)
    if opened is None:
        return tuple(pool)
    old = [trial for trial in pool if trial.closed_seq < opened]
    fresh = [trial for trial in pool if trial.closed_seq > opened]
    if not old or not fresh:
        return tuple(pool)
    means = [sum(scores(some)) / len(some) for some in (fresh, old)]
    moved = drifted(np.array(means[0] - means[1]), np.array(len(fresh)), np.array(len(old)), np.array(sigma_bpb))
    return tuple(fresh) if moved else tuple(pool)


def control_due_between_trials(champion: Experiment, candidate: Sequence[Trial]) -> bool:
    """Whether the champion has not been measured since the candidate's last trial.

    Args:
        candidate: its trials so far.
    """
    last = max((trial.closed_seq for trial in candidate), default=0)
    return last > max((trial.closed_seq for trial in settled(champion)), default=0)


# ---------------------------------------------------------------------- noise


def noise_group(experiment: Experiment, before_seq: int | None = None) -> list[float]:
    """Scores of one program under different seeds.

    Args:
        before_seq: only of trials that were closed before.
    """
    return [
        trial.val_bpb or 0.0
        for trial in scored((*experiment.trials, *experiment.control_trials))
        if before_seq is None or trial.closed_seq < before_seq
    ]


def noise_groups(experiments: Iterable[Experiment]) -> list[list[float]]:
    """For each closed experiment, its scores under different seeds."""
    return [noise_group(one) for one in experiments if one.verdict is not None]


def figures(last: Judgement, first: Judgement, candidate: Sequence[Trial], pool: Sequence[Trial]) -> Figures:
    """Collect the figures that a verdict rests on, for the ledger.

    Args:
        last: of all trials.
        first: of the first one alone.
        candidate: trials that gave the candidate's scores.
        pool: trials of its champion.
    """
    return Figures(
        trials=tuple(trial.id for trial in candidate),
        pool=tuple(trial.id for trial in pool),
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
