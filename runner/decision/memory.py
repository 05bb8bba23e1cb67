"""A campaign in memory: its experiments, with running figures of everything that the loop asks at each step.

An experiment that changes is put in again; that costs the same however long the campaign is. What is known never
depends on how it came to be known: a memory that followed a night equals one that is filled from the ledger.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right, insort
from collections.abc import Sequence

import numpy as np

from runner.config import Config
from runner.decision import effect_prior, history
from runner.decision.keep_rule import LEAST_POOL, Belief, pooled_sigma_of, spread_of
from runner.records import Experiment, Outcome, Verdict


class Memory:
    """The experiments of one campaign, by number."""

    def __init__(self, experiments: Sequence[Experiment], config: Config) -> None:
        self._config = config
        self._prior = effect_prior.prior(config.effect_scale_bpb)
        self._counts = effect_prior.first_counts(self._prior)  # (K,) what first trials have taught so far
        self._experiments: list[Experiment] = []
        self._is_closed = bytearray()  # by number
        self._num_trials = array("q")  # by number: own trials that are counted in `_measured`
        self._squares, self._freedom = array("d"), array("d")  # by number: Σ (x − x̄)² and n − 1 of its scores
        self._last_seq = array("q")  # by number: when the last trial of one with a verdict was closed
        self._measured: list[tuple[int, int]] = []  # closed_seq and number of trials that are no controls
        self._open: set[int] = set()
        self._kept: dict[int, Experiment] = {}
        self._champion: int | None = None
        self._near_misses: dict[int, Experiment] = {}
        self._combined: set[int] = set()
        self.num_done = 0
        for one in experiments:
            self._make_room(one)
        for one in sorted(experiments, key=lambda one: (one.verdict is None, one.closed_seq)):
            self._take(one)

    def put(self, experiment: Experiment) -> None:
        """Add an experiment, or replace it by what it is now."""
        self._make_room(experiment)
        self._take(experiment)

    @property
    def experiments(self) -> Sequence[Experiment]:
        """All of them, in the order of their numbers."""
        return self._experiments

    @property
    def champion(self) -> Experiment | None:
        """The experiment that was kept last."""
        return None if self._champion is None else self._kept[self._champion]

    def champion_up_to(self, number: int) -> Experiment | None:
        """The champion as it was when the experiment of this number had its verdict."""
        return history.champion(one for one in self._kept.values() if one.number <= number)

    @property
    def open_experiment(self) -> Experiment | None:
        """The experiment without a verdict, if there is one."""
        return self._experiments[max(self._open)] if self._open else None

    def shelf(self) -> list[Experiment]:
        """Near misses that no stack has used."""
        return list(self._near_misses.values())

    def control_due(self, champion: Experiment, interval: int) -> bool:
        """Whether the champion is due for a control.

        It is after `interval` other trials since its last one, or as long as a new champion has too few.

        Args:
            interval: 0 for never.
        """
        own = history.settled(champion)
        if not interval:
            return False
        if champion.number != history.BASELINE and len(own) <= LEAST_POOL:  # the one that chose it does not count
            return True
        last = max((trial.closed_seq for trial in own), default=0)
        since = self._measured[bisect_right(self._measured, (last, math.inf)) :]
        return sum(number != champion.number for _, number in since) >= interval

    def belief(self, before_seq: int | None = None) -> Belief:
        """What the campaign has learned from its closed experiments: the noise, and how often edits help.

        Stacks are not ideas of their own: they teach the noise alone.

        Args:
            before_seq: without trials that were closed later, as while the open experiment is measured.
        """
        squares, freedom = np.array(self._squares), np.array(self._freedom)  # (N,), (N,)
        if before_seq is not None:
            for number in np.flatnonzero(np.array(self._last_seq) >= before_seq).tolist():
                scores = history.noise_group(self._experiments[number], before_seq)
                squares[number], freedom[number] = spread_of(scores)
        # Summed anew each time: a running sum would depend on the order in which it came about.
        sigma = pooled_sigma_of(float(squares.sum()), float(freedom.sum()), self._config.noise_prior_bpb)
        return Belief(prior=self._prior, weights=self._counts / self._counts.sum(), sigma_bpb=sigma)

    def _make_room(self, experiment: Experiment) -> None:
        if experiment.number < len(self._experiments):
            self._experiments[experiment.number] = experiment
            return
        self._experiments.append(experiment)
        self._is_closed.append(False)
        for column in (self._num_trials, self._squares, self._freedom, self._last_seq):
            column.append(0)

    def _take(self, one: Experiment) -> None:
        number = one.number
        for trial in one.trials[self._num_trials[number] :]:
            if trial.outcome is Outcome.STOPPED or trial.claimed_bpb is not None:
                insort(self._measured, (trial.closed_seq, number))
        self._num_trials[number] = len(one.trials)
        if one.combines:
            self._combined.update(one.combines)
            for piece in one.combines:
                self._near_misses.pop(piece, None)
        if one.verdict is None:
            self._open.add(number)
            return
        if not self._is_closed[number]:
            self._close(one)
        self._squares[number], self._freedom[number] = spread_of(history.noise_group(one))
        closings = (trial.closed_seq for trial in (*one.trials, *one.control_trials))
        self._last_seq[number] = max(closings, default=one.closed_seq)
        if one.verdict is Verdict.KEEP:
            self._kept[number] = one
            best = history.champion(kept for kept in (self.champion, one) if kept is not None)
            self._champion = None if best is None else best.number

    def _close(self, one: Experiment) -> None:
        """Learn from a verdict, once."""
        self._is_closed[one.number] = True
        self._open.discard(one.number)
        self.num_done += one.number > 0
        if one.combines:
            return
        if one.figures is not None:
            first = (one.figures.first_delta_bpb, one.figures.first_se_bpb)
            self._counts = effect_prior.learned_counts(self._prior, self._counts, *first)
        if history.is_near_miss(one) and one.number not in self._combined:
            self._near_misses[one.number] = one
