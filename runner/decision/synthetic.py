"""Synthetic campaigns under rules that repeat trials, side by side: arrays (N,), one element for each campaign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior, keep_rule
from runner.decision.effect_prior import Floats
from runner.decision.worlds import Bools, Ideas, Machine, Setting

BASELINE_RUNS = 3
CONTROL_INTERVAL = 20
"""As in the settings of a campaign."""
GRID_POINTS = 61
"""Coarser than a campaign's grid: decisions differ in one case of a thousand."""
EFFECT_SCALE = 0.0005
"""The prior's, in bpb: that of the profile `cuda`, whatever the mix is."""


class Outcome(NamedTuple):
    """Results of campaigns; arrays (N,)."""

    true_gain: Floats  # bpb, of the last champion over the baseline
    reported_gain: Floats  # bpb, according to the rule
    keeps: Floats  # commits on the champion's branch
    false_keeps: Floats  # whose true effect is no improvement
    edits: Floats  # in these commits
    false_edits: Floats  # whose own true effect is no improvement
    expected_false: Floats  # number of false keeps that the rule expected; 0 where it does not say
    candidates: Floats
    trials: Floats  # runs of candidates


class Trials(NamedTuple):
    """Candidates after a trial; arrays (n,)."""

    number: Floats  # of the trial, from 1
    delta: Floats  # bpb
    se: Floats  # bpb
    sigma: Floats  # bpb
    weights: Floats  # (n, K) learned by each campaign


class Decisions(NamedTuple):
    """Verdicts on candidates; arrays (n,). A candidate with neither verdict gets another trial."""

    keep: Bools
    discard: Bools
    better: Floats  # probability of an improvement
    effect: Floats  # estimated effect, bpb; 0 or more where a rule combines no near misses


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A rule that repeats trials, and how it measures its champion."""

    decide: Callable[[Trials], Decisions]
    control_interval: int  # runs after which the champion is measured again
    least_pool: int  # runs of a new champion that are made at once if it has fewer; its first trial does not count
    heeds_drift: bool  # leave out earlier runs of the champion when those between trials differ from them
    stack_sigmas: float = 0.0  # estimated effect of all near misses from which they are combined; 0: never


def run_sequential(setting: Setting, num: int, rng: np.random.Generator, policy: Policy) -> Outcome:
    """Simulate campaigns that repeat trials of a candidate until its case is clear.

    The champion is measured again before each trial of a candidate but the first.
    """
    campaigns = _Campaigns(setting, num, rng, policy)
    for left in range(setting.num_runs - BASELINE_RUNS, 0, -1):
        campaigns.step(left)
    return campaigns.outcome()


class _Campaigns:
    """State of campaigns side by side; arrays (N,) unless a shape is given."""

    def __init__(self, setting: Setting, num: int, rng: np.random.Generator, policy: Policy) -> None:
        self.setting, self.rng, self.policy, self.num = setting, rng, policy, num
        self.prior = effect_prior.prior(EFFECT_SCALE, GRID_POINTS)
        self.machine, self.ideas = Machine(setting, rng, (num,)), Ideas(setting, rng, num)
        # The champion: sum and number of the runs that count, mean of the baseline, runs since the last one.
        self.pool = np.stack([self.machine.noise() for _ in range(BASELINE_RUNS)], axis=1).sum(axis=1)
        self.in_pool = np.full(num, float(BASELINE_RUNS))
        self.first_mean = self.pool / BASELINE_RUNS
        self.since = np.zeros(num)
        self.controlled = np.zeros(num, bool)
        # The candidate: true effect, sum, first score and number of its trials (0: none is open), champion runs
        # since.
        self.effect, self.total, self.chosen_by, self.trials = (np.zeros(num) for _ in range(4))
        self.is_stack = np.zeros(num, bool)
        self.pieces, self.false_pieces = np.zeros(num), np.zeros(num)  # edits of the candidate
        self.fresh, self.in_fresh = np.zeros(num), np.zeros(num)
        # Near misses: sums of their estimated and true effects, how many, and how many of them do not help.
        self.shelved, self.shelved_effect, self.on_shelf, self.false_on_shelf = (np.zeros(num) for _ in range(4))
        # What a campaign has learned: noise, and the weights of kinds of edits (N, K).
        prior_squares = keep_rule.PRIOR_WEIGHT * (setting.prior_factor * setting.sigma_bpb) ** 2
        self.squares = np.full(num, prior_squares + (BASELINE_RUNS - 1) * setting.sigma_bpb**2)
        self.freedom = np.full(num, keep_rule.PRIOR_WEIGHT + BASELINE_RUNS - 1)
        self.counts = np.tile(effect_prior.PRIOR_CANDIDATES * self.prior.weights, (num, 1))
        # The results.
        self.truth, self.keeps, self.false, self.expected = (np.zeros(num) for _ in range(4))
        self.edits, self.false_edits = np.zeros(num), np.zeros(num)
        self.candidates, self.all_trials = np.zeros(num), np.zeros(num)

    def step(self, left: int) -> None:
        """Make the next run of each campaign.

        Args:
            left: runs until the end, this one included.
        """
        idle = self.trials == 0
        short, due = self.in_pool < self.policy.least_pool, self.since >= self.policy.control_interval
        of_champion = short | (idle & due) | (~idle & ~self.controlled)
        opened = idle & ~of_champion
        self._open(opened, left)
        score = self.truth + np.where(of_champion, 0.0, self.effect) + self.machine.noise()
        self._learn_noise(of_champion, score)
        self._add_to_pool(of_champion, score)
        self._add_to_fresh(opened, of_champion & ~idle, score)
        self.total = np.where(of_champion, self.total, self.total + score)
        self.trials = np.where(of_champion, self.trials, self.trials + 1)
        self.chosen_by = np.where(opened, score, self.chosen_by)
        self._judge(np.flatnonzero(~of_champion))

    def _open(self, opened: Bools, left: int) -> None:
        """Draw the effects of new candidates; combine near misses where they are worth it."""
        self.effect = np.where(opened, self.ideas.draw(-self.truth), self.effect)
        self.ideas.follows &= ~opened
        self.pieces = np.where(opened, 1.0, self.pieces)
        self.false_pieces = np.where(opened, self.effect >= 0, self.false_pieces)
        least = self.policy.stack_sigmas
        if not least:
            return
        if left <= keep_rule.LAST_RUNS:
            least = min(least, keep_rule.LAST_SIGMAS)
        stacked = opened & (-self.shelved >= least * np.sqrt(self.squares / self.freedom))
        self.is_stack = np.where(opened, stacked, self.is_stack)
        self.effect = np.where(stacked, self.setting.together * self.shelved_effect, self.effect)
        self.pieces = np.where(stacked, self.on_shelf, self.pieces)
        self.false_pieces = np.where(stacked, self.false_on_shelf, self.false_pieces)
        for shelf in (self.shelved, self.shelved_effect, self.on_shelf, self.false_on_shelf):
            shelf[stacked] = 0

    def _learn_noise(self, of_champion: Bools, score: Floats) -> None:
        """Update the noise with the distance of a further run from the mean of its program."""
        known = np.where(of_champion, self.in_pool, self.trials)
        mean = np.where(of_champion, self.pool, self.total) / np.maximum(known, 1)
        again = known > 0
        self.squares += np.where(again, (score - mean) ** 2 * known / (known + 1), 0.0)
        self.freedom += again

    def _add_to_pool(self, of_champion: Bools, score: Floats) -> None:
        self.pool = np.where(of_champion, self.pool + score, self.pool)
        self.in_pool = np.where(of_champion, self.in_pool + 1, self.in_pool)
        full = self.in_pool > keep_rule.POOL_RUNS  # the mean stands in for the runs that leave
        self.pool = np.where(full, self.pool * keep_rule.POOL_RUNS / self.in_pool, self.pool)
        self.in_pool = np.where(full, float(keep_rule.POOL_RUNS), self.in_pool)
        self.since = np.where(of_champion, 0.0, self.since + 1)
        self.controlled = of_champion

    def _add_to_fresh(self, opened: Bools, between: Bools, score: Floats) -> None:
        """Collect the champion's runs since the first trial of its candidate."""
        self.fresh = np.where(opened, 0.0, np.where(between, self.fresh + score, self.fresh))
        self.in_fresh = np.where(opened, 0.0, np.where(between, self.in_fresh + 1, self.in_fresh))

    def _champion_mean(self, at: npt.NDArray[np.intp], sigma: Floats) -> tuple[Floats, Floats]:
        """Mean and number of the champion's runs that a candidate is compared with; (n,) each."""
        mean, known = self.pool[at] / self.in_pool[at], self.in_pool[at]
        if not self.policy.heeds_drift:
            return mean, known
        num_fresh, num_old = self.in_fresh[at], self.in_pool[at] - self.in_fresh[at]
        both = (num_fresh > 0) & (num_old > 0)
        newer, older = np.where(both, num_fresh, 1), np.where(both, num_old, 1)
        away = self.fresh[at] / newer - (self.pool[at] - self.fresh[at]) / older
        moved = both & keep_rule.drifted(away, newer, older, sigma)
        return np.where(moved, self.fresh[at] / newer, mean), np.where(moved, newer, known)

    def _judge(self, at: npt.NDArray[np.intp]) -> None:
        """Decide the cases of the candidates that just had a trial; `at`: their campaigns, (n,)."""
        sigma = np.sqrt(self.squares[at] / self.freedom[at])
        mean, known = self._champion_mean(at, sigma)
        trials = self.trials[at]
        delta = self.total[at] / trials - mean
        se = keep_rule.standard_error(sigma, trials, known)
        weights = self.counts[at] / self.counts[at].sum(axis=1, keepdims=True)
        decided = self.policy.decide(Trials(trials, delta, se, sigma, weights))
        first = (trials == 1) & ~self.is_stack[at]
        learned = effect_prior.responsibilities(self.prior, weights[first], delta[first], se[first])
        self.counts[at[first]] += learned
        missed = decided.discard & ~self.is_stack[at] & keep_rule.near_miss(decided.effect, sigma)
        self.shelved[at[missed]] += decided.effect[missed]
        self.shelved_effect[at[missed]] += self.effect[at[missed]]
        self.on_shelf[at[missed]] += 1
        self.false_on_shelf[at[missed]] += self.effect[at[missed]] >= 0
        self._promote(at[decided.keep], decided.better[decided.keep])
        self._close(at[decided.keep | decided.discard])

    def _promote(self, kept: npt.NDArray[np.intp], better: Floats) -> None:
        """Make candidates champions; the trial that chose one does not count as a run of it."""
        self.keeps[kept] += 1
        self.false[kept] += self.effect[kept] >= 0
        self.edits[kept] += self.pieces[kept]
        self.false_edits[kept] += self.false_pieces[kept]
        self.ideas.follows[kept] = True
        self.expected[kept] += 1 - better
        self.truth[kept] += self.effect[kept]
        self.pool[kept] = self.total[kept] - self.chosen_by[kept]
        self.in_pool[kept] = self.trials[kept] - 1
        self.since[kept] = 0

    def _close(self, closed: npt.NDArray[np.intp]) -> None:
        self.candidates[closed] += 1
        self.all_trials[closed] += self.trials[closed]
        self.trials[closed] = 0
        self.total[closed] = 0

    def outcome(self) -> Outcome:
        """Results so far."""
        known = self.pool / np.maximum(self.in_pool, 1)
        reported = np.where(self.in_pool > 0, self.first_mean - known, np.nan)
        return Outcome(
            true_gain=-self.truth,
            reported_gain=reported,
            keeps=self.keeps,
            false_keeps=self.false,
            edits=self.edits,
            false_edits=self.false_edits,
            expected_false=self.expected,
            candidates=self.candidates,
            trials=self.all_trials,
        )
