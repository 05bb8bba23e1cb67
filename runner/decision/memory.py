"""A campaign in memory: its experiments, with running figures of everything that the loop asks at each step.

An experiment that changes is put in again; that costs the same however long the campaign is. Whatever happened is
taken in the order in which it happened, so what is known never depends on how it came to be known: a memory that
followed a night equals one that is filled from the ledger.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np

from runner.config import Config
from runner.decision import effect_prior, history, tip, tip_state
from runner.decision.keep_rule import PRIOR_WEIGHT, Belief, pooled_sigma_of, spread_of
from runner.decision.tip_state import Tip
from runner.records import Experiment, Outcome, Trial, TrialKind, Verdict

Event = tuple[int, int, Trial | None]
"""Tick of the campaign's clock, number of an experiment, and what was closed: a trial of it, or (None) itself."""


class Memory:
    """The experiments of one campaign, by number."""

    def __init__(self, experiments: Sequence[Experiment], config: Config) -> None:
        self._config = config
        self._prior = effect_prior.prior(config.effect_scale_bpb)
        self._start_shares = tip.share_prior(*config.seed_share)
        self._counts = effect_prior.first_counts(self._prior)  # (K,) what single trials have taught so far
        self._experiments: list[Experiment] = []
        self._seen: dict[int, int] = {}  # by number, of experiments that may still change: last tick taken
        self._spreads: dict[int, tuple[float, float]] = {}  # by number: of programs with several seeds
        self._measured: list[tuple[int, int]] = []  # closed_seq and number of own trials with a claim
        self._tips = array("q")  # by number: the tip after its verdict
        self._open: set[int] = set()
        self._kept: dict[int, Experiment] = {}
        self._champion: int | None = None
        self._tip: Tip | None = None
        self.num_done = 0
        for one in experiments:
            self._store(one)
        self._follow(event for one in self._experiments for event in _events(one))

    def put(self, experiment: Experiment) -> None:
        """Add an experiment, or replace it by what it is now."""
        self._store(experiment)
        last = self._seen.get(experiment.number, -1)
        self._follow(event for event in _events(experiment) if event[0] > last)

    @property
    def experiments(self) -> Sequence[Experiment]:
        """All of them, in the order of their numbers."""
        return self._experiments

    @property
    def champion(self) -> Experiment | None:
        """The experiment that was kept last."""
        return None if self._champion is None else self._kept[self._champion]

    @property
    def tip(self) -> Tip | None:
        """The state of the tip as known; None before the baseline is measured."""
        return self._tip

    def tip_after(self, number: int) -> int:
        """The experiment whose program was the tip when the one of this number had its verdict."""
        return self._tips[number]

    @property
    def open_experiment(self) -> Experiment | None:
        """The experiment without a verdict, if there is one."""
        return self._experiments[max(self._open)] if self._open else None

    def control_due(self, interval: int) -> bool:
        """Whether the tip is due for a control: after `interval` trials, or at once if the last one was suspect.

        Args:
            interval: 0 for never.
        """
        if not interval or self._tip is None:
            return False
        if self._tip.suspect_bpb is not None:
            return True
        own = self._experiments[self._tip.number]
        trials = (*own.trials, *own.control_trials)
        settled = (one.closed_seq for one in trials if one.outcome not in (Outcome.LOST, Outcome.CONTENDED))
        last = max(settled, default=0)
        return len(self._measured) - bisect_right(self._measured, (last, math.inf)) >= interval

    def belief(self, before_seq: int | None = None) -> Belief:
        """The knowledge of the campaign: the noise, and how often edits help. Certificates teach the noise alone.

        Args:
            before_seq: without trials that were closed later, as while the open experiment is measured.
        """
        spreads = self._spreads
        if before_seq is not None:
            late = {number for number in spreads if self._last_own(number) >= before_seq}
            again = {
                number: spread_of(history.noise_group(self._experiments[number], before_seq)) for number in late
            }
            spreads = {**spreads, **again}
        return Belief(
            prior=self._prior,
            weights=self._counts / self._counts.sum(),
            sigma_bpb=pooled_sigma_of(spreads.values(), self._config.noise_prior_bpb),
            freedom=PRIOR_WEIGHT + math.fsum(freedom for _, freedom in spreads.values()),
        )

    def own_variance(self, sigma_bpb: float) -> float:
        """Variance of one trial without what its seed has in common, in bpb²."""
        shares = self._start_shares if self._tip is None else self._tip.log_shares
        return float(tip.own_variance(shares, np.array(sigma_bpb)))

    def _last_own(self, number: int) -> int:
        return max((trial.closed_seq for trial in self._experiments[number].trials), default=0)

    def _store(self, experiment: Experiment) -> None:
        number = experiment.number
        if number < len(self._experiments):
            self._experiments[number] = experiment
        else:
            self._experiments.append(experiment)
            self._tips.append(-1)
        if experiment.verdict is None:
            self._open.add(number)
        elif experiment.verdict is Verdict.KEEP:
            self._kept[number] = experiment
            best = history.champion(kept for kept in (self.champion, experiment) if kept is not None)
            self._champion = None if best is None else best.number

    def _follow(self, events: Iterable[Event]) -> None:
        for seq, number, trial in sorted(events, key=lambda event: event[:2]):
            self._seen[number] = seq
            if trial is None:
                self._take_verdict(self._experiments[number])
            elif trial.kind is TrialKind.CONTROL:
                self._take_control(number, trial)
            else:
                self._take_trial(number, trial)

    def _take_trial(self, number: int, trial: Trial) -> None:
        if trial.outcome is Outcome.STOPPED or trial.claimed_bpb is not None:
            self._measured.append((trial.closed_seq, number))
        one = self._experiments[number]
        if len(one.trials) > 1:
            spread = spread_of(history.noise_group(one, trial.closed_seq + 1))
            if spread[1]:
                self._spreads[number] = spread

    def _take_control(self, number: int, trial: Trial) -> None:
        known = self._tip
        if known is not None and number == known.number and trial.seed == known.seed and trial.audited:
            self._tip = tip_state.after_control(known, self.belief().sigma_bpb, trial)

    def _take_verdict(self, one: Experiment) -> None:
        """Learn from a verdict, once."""
        self._open.discard(one.number)
        self.num_done += one.number > 0 and not one.is_certificate
        known, belief = self._tip, self.belief()
        if one.number == history.BASELINE:
            kept = one.verdict is Verdict.KEEP
            self._tip = tip_state.first(one, belief.sigma_bpb, self._start_shares) if kept else None
        elif known is not None and one.is_certificate:
            assert one.champion is not None
            champion = self._experiments[one.champion]
            self._tip = tip_state.after_certificate(known, belief.sigma_bpb, one, champion)
        elif known is not None:
            self._tip = tip_state.after_idea(known, belief, one)
            if one.figures is not None and self._tip.trials > known.trials:
                measured = one.figures.delta_bpb, one.figures.se_bpb
                self._counts = effect_prior.learned_counts(self._prior, self._counts, *measured)
        self._tips[one.number] = -1 if self._tip is None else self._tip.number


def _events(one: Experiment) -> list[Event]:
    """The closed part of an experiment so far."""
    closed = [(trial.closed_seq, one.number, trial) for trial in (*one.trials, *one.control_trials)]
    return [*closed, *([] if one.verdict is None else [(one.closed_seq, one.number, None)])]
