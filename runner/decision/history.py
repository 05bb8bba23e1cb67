"""Evidence of the trials in the ledger about a candidate, its champion, and the noise. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.records import Experiment, Figures, Outcome, Trial, Verdict

if TYPE_CHECKING:  # commands that only read start without numpy and pydantic
    from runner.config import Config
    from runner.decision.keep_rule import Judgement
    from runner.decision.tip import TipRule

BASELINE = 0
POOL_RUNS = 8
"""Number of a champion's newest runs that represent it: on a machine that drifts, older ones are outdated."""
ROLLED_BACK = (Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID)
"""Verdicts on a certificate that end its tip."""


def rule(config: Config) -> TipRule:
    """The rule as a campaign is configured; certifying each edit means that the first one is enough."""
    from runner.decision.tip import TipRule

    each = config.certify == "each"
    return TipRule(
        accept_probability=config.accept_probability,
        certify_sigmas=0.0 if each else config.certify_sigmas,
        certify_trials=0 if each else config.certify_trials,
        max_false_probability=config.max_false_keep_probability,
        paired_share=config.seed_share[0],
        min_pairs=config.min_pairs,
        max_pairs=config.max_pairs,
    )


# -------------------------------------------------------------------- lineage


def tip(experiments: Iterable[Experiment]) -> Experiment | None:
    """The experiment whose program was the tip after these: the last accepted one, unless it was rolled back."""
    best: Experiment | None = None
    champion: Experiment | None = None
    closed = (one for one in experiments if one.verdict is not None)
    for one in sorted(closed, key=lambda one: one.closed_seq):
        if one.verdict is Verdict.KEEP:
            best = champion = one
        elif one.verdict is Verdict.ACCEPT:
            best = one
        elif one.is_certificate and one.verdict in ROLLED_BACK:
            best = champion
    return best


def tip_edits(experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """The accepted edits that make the tip of the champion, oldest first."""
    by_number, last, edits = {one.number: one for one in experiments}, tip(experiments), list[Experiment]()
    while last is not None and last.verdict is Verdict.ACCEPT:
        edits.insert(0, last)
        last = None if last.parent is None else by_number.get(last.parent)
    return tuple(edits)


def rulings(experiments: Iterable[Experiment]) -> dict[int, Experiment]:
    """By the number of each accepted edit, the certificate that decided on it last: kept, or rolled back."""
    decided = [one for one in experiments if one.is_certificate and one.verdict in (Verdict.KEEP, *ROLLED_BACK)]
    return {number: one for one in sorted(decided, key=lambda one: one.closed_seq) for number in one.certifies}


def same_program(number: int | None, by_number: Mapping[int, Experiment]) -> int | None:
    """The experiment that a program was first measured as: that of a kept certificate is its last edit's."""
    one = None if number is None else by_number.get(number)
    return one.certifies[-1] if one is not None and one.is_certificate else number


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
    """Hash of the stored claims of a program, its newest, which audits of its opponents compare with, if any."""
    trials = () if experiment is None else (*experiment.trials, *experiment.control_trials)
    stored = [trial for trial in trials if trial.audited and trial.sealed]
    return max(stored, key=lambda trial: trial.opened_seq).claims_sha256 if stored else None


def strikes(experiments: Iterable[Experiment]) -> Counter[int]:
    """Return how many challengers of each champion, by its number, the audit has refused."""
    return Counter(
        one.champion
        for one in experiments
        if one.verdict is Verdict.INVALID
        and one.champion is not None
        and any(trial.audit is not None and trial.audit.finding is not None for trial in one.trials)
    )


def was_lucky(experiment: Experiment) -> bool:
    """Whether it was discarded although its score was lower than that of the tip.

    A greedy rule, which runs everything once and keeps every lower score, would have kept it.
    """
    figures = experiment.figures
    is_discard = experiment.verdict is Verdict.DISCARD and not experiment.is_certificate
    return is_discard and figures is not None and figures.delta_bpb < 0


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


def under_seed(experiment: Experiment, seed: int) -> tuple[Trial, ...]:
    """All trials of a program with a score under one seed, controls included."""
    trials = (*experiment.trials, *experiment.control_trials)
    return tuple(one for one in trials if one.seed == seed and one.outcome is Outcome.SCORED)


def champion_pool(champion: Experiment) -> tuple[Trial, ...]:
    """The newest audited trials of a champion, its controls included."""
    return scored((*champion.trials, *champion.control_trials), audited=True)[-POOL_RUNS:]


# ---------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Pair:
    """Tip and champion under one fresh seed."""

    tip: Trial
    champion: Trial

    @property
    def delta_bpb(self) -> float:
        """Tip − champion."""
        return (self.tip.val_bpb or 0.0) - (self.champion.val_bpb or 0.0)


def first_scored(trials: Iterable[Trial]) -> Trial | None:
    """The first trial with a score."""
    return next((one for one in trials if one.outcome is Outcome.SCORED), None)


def pairs_of(certificate: Experiment, champion: Experiment) -> tuple[Pair, ...]:
    """The complete pairs of a certificate, both sides audited, in the order in which the tip was measured.

    Its first seed explores afterwards: a champion that is the tip again is measured under it later, as a control.
    """
    opened, closed = certificate.opened_seq, certificate.closed_seq or math.inf
    of_champion = {
        one.seed: one for one in champion.control_trials if one.audited and opened < one.opened_seq < closed
    }
    own = {one.seed: one for one in certificate.trials if one.audited}
    return tuple(Pair(one, of_champion[seed]) for seed, one in own.items() if seed in of_champion)


# ---------------------------------------------------------------------- noise


def noise_group(experiment: Experiment, before_seq: int | None = None) -> list[float]:
    """Scores of one program under different seeds, controls left out: they share their seeds with other trials.

    Args:
        before_seq: only of trials that were closed before.
    """
    return [
        trial.val_bpb or 0.0
        for trial in scored(experiment.trials)
        if before_seq is None or trial.closed_seq < before_seq
    ]


def noise_groups(experiments: Iterable[Experiment]) -> list[list[float]]:
    """For each closed experiment, its scores under different seeds."""
    return [noise_group(one) for one in experiments if one.verdict is not None]


def figures(judged: Judgement, candidate: Sequence[Trial], pool: Sequence[Trial]) -> Figures:
    """Collect the figures that a verdict rests on, for the ledger.

    Args:
        candidate: trials that gave the candidate's scores.
        pool: trials that they are compared with.
    """
    return Figures(
        trials=tuple(trial.id for trial in candidate),
        pool=tuple(trial.id for trial in pool),
        delta_bpb=judged.delta_bpb,
        se_bpb=judged.se_bpb,
        sigma_bpb=judged.sigma_bpb,
        better=judged.better,
        effect_bpb=judged.effect_bpb,
        low_bpb=judged.low_bpb,
        high_bpb=judged.high_bpb,
    )
