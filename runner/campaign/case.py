"""The case of an experiment: all that its verdict is judged with, and what is measured next.

Immutable. What it needs is read from the campaign when it is opened, and read again as trials close. A restart
opens it from the ledger and continues: there is no other resume logic.
"""

from __future__ import annotations

from typing import Protocol, Self

from runner.campaign.campaign import Campaign
from runner.decision.early_stopping import Calibration
from runner.records import AuditPolicy, Experiment, Outcome, Phase, Ruling, Trial, Verdict

VERDICTS = {
    Outcome.CRASH: Verdict.CRASH,
    Outcome.INVALID: Verdict.INVALID,
    Outcome.STOPPED: Verdict.DISCARD,
    Outcome.LOST: Verdict.INFRA,
}
"""Verdict of an experiment whose last trial has no score."""


class Case(Protocol):
    """One experiment and what it is compared with, as they stand now."""

    @property
    def experiment(self) -> Experiment:
        """The experiment."""

    @property
    def state(self) -> str | None:
        """One sentence on what its trials say so far; None before the first."""

    @property
    def seed(self) -> int:
        """Of the next trial."""

    @property
    def champion_next(self) -> Experiment | None:
        """The champion, when the next trial is of that; None: it is of the candidate."""

    @property
    def early_stop(self) -> Calibration | None:
        """The watch on the next trial."""

    @property
    def score_limit_seconds(self) -> float | None:
        """Longest time that scoring may take."""

    def policy(self, claimed_bpb: float) -> AuditPolicy:
        """The scrutiny of the next trial's claims."""

    def verdict(self, last: Trial | None = None) -> Ruling | None:
        """The verdict, once the trials so far give one.

        Args:
            last: the trial that has just ended, when it is lost: the ledger repeats those.
        """

    def refreshed(self, campaign: Campaign) -> Self:
        """The same after another trial."""


def failure(trial: Trial, sigma_bpb: float) -> Ruling:
    """The verdict on an experiment whose last trial has no score."""
    return Ruling(verdict=VERDICTS[trial.outcome], reason=trial.reason or "", sigma_bpb=sigma_bpb)


def last_settled(trials: tuple[Trial, ...]) -> Trial | None:
    """The last trial that needs no repetition."""
    settled = [one for one in trials if one.outcome not in (Outcome.LOST, Outcome.CONTENDED)]
    return settled[-1] if settled else None


def score_limit(baseline: Experiment, train_seconds: float) -> float | None:
    """Return the time limit of scoring: twice as long as the baseline's slowest, and a margin for a noisy machine.

    A program that went on training while it is scored would have more time than others. One that is as much bigger
    or slower as the limit allows has paid for that in its training.
    """
    taken = [
        run.wall_seconds
        for run in baseline.runs
        if run.phase is Phase.SCORE and run.val_bpb is not None and run.wall_seconds is not None
    ]
    return 2 * max(taken) + max(5.0, 0.05 * train_seconds) if taken else None
