"""Synthetic campaigns under the tip rule (`runner/decision/tip.py`), side by side: arrays (N,)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior, keep_rule, tip
from runner.decision.effect_prior import Floats
from runner.decision.tip import Level, TipRule
from runner.decision.worlds import Ideas, Machine, Outcome, Setting

BASELINE_RUNS = 3
EFFECT_SCALE = 0.0005
"""The prior's, in bpb: that of the profile `cuda`, whatever the mix is."""
GRID_POINTS = 101
LOST_SHARE = 0.05
"""Share of small improvements whose trial is stopped early by mistake, where trials may be stopped."""
SMALL_SIGMAS = 1.0
PAIR_TRIALS = 2.0
CONTROL_INTERVAL = 20

Places = npt.NDArray[np.intp]


def tip_rule(
    setting: Setting, num: int, rng: np.random.Generator, *, rule: TipRule | None = None, rotates: bool = True
) -> Outcome:
    """Apply the tip rule.

    Args:
        rotates: whether each certificate brings a new exploration seed, that of its first pair.
    """
    campaigns = TipCampaigns(setting, num, rng, rule or TipRule(), rotates=rotates)
    while campaigns.step():
        pass
    return campaigns.outcome()


@dataclass
class _Program:
    """Programs, one for each campaign: what is true of them, and their level under the exploration seed."""

    truth: Floats  # bpb, relative to the baseline
    level: Level
    edits: Floats  # that the champion does not have
    false_edits: Floats  # of these: no improvement

    def adopt(self, at: Places, other: _Program) -> None:
        """Become the other one in some campaigns, with no edits beyond it."""
        self.truth[at] = other.truth[at]
        self.level.mean[at], self.level.variance[at] = other.level.mean[at], other.level.variance[at]
        self.edits[at] = self.false_edits[at] = 0


class TipCampaigns:
    """Campaigns that explore one edit after the other."""

    def __init__(
        self, setting: Setting, num: int, rng: np.random.Generator, rule: TipRule, *, rotates: bool = True
    ) -> None:
        self.setting, self.rule, self.rng, self.num, self.rotates = setting, rule, rng, num, rotates
        self.explore_cost = setting.screen_cost
        self.prior = effect_prior.prior(EFFECT_SCALE, GRID_POINTS)
        self.machine, self.ideas = Machine(setting, rng, (num,)), Ideas(setting, rng, num)
        # The baseline's trials under fresh seeds, and the noise that they show.
        baseline = np.stack([self.machine.noise() for _ in range(BASELINE_RUNS)])
        prior_squares = keep_rule.PRIOR_WEIGHT * (setting.prior_factor * setting.sigma_bpb) ** 2
        self.squares = prior_squares + ((baseline - baseline.mean(axis=0)) ** 2).sum(axis=0)
        self.freedom = np.full(num, keep_rule.PRIOR_WEIGHT + BASELINE_RUNS - 1)
        self.log_shares = np.zeros((num, len(tip.SHARES)))
        self.counts = np.tile(effect_prior.PRIOR_CANDIDATES * self.prior.weights, (num, 1))
        # Exploration: one trial of the baseline under its seed.
        self.seed = self.machine.seed()
        level = Level(self.seed + self.machine.own(), self._own_variance())
        self.tip = _Program(np.zeros(num), level, np.zeros(num), np.zeros(num))
        self.champion = _Program(
            np.zeros(num), Level(*(part.copy() for part in level)), np.zeros(num), np.zeros(num)
        )
        self.spent, self.since, self.worth = np.full(num, BASELINE_RUNS + 1.0), np.zeros(num), np.zeros(num)
        # Controls: trials since the tip was measured, and a control that was far from its level.
        self.unmeasured, self.suspect = np.zeros(num), np.full(num, np.nan)
        # The open certificate: number of pairs (0: none is open), sums of tip and champion, of the squares of
        # both, and of the squares of their differences.
        self.totals = tuple(np.zeros(num) for _ in range(5))
        self.pairs, self.of_tip, self.of_champion, self.both_squares, self.difference_squares = self.totals
        self.first_seed, self.first_of_tip, self.first_of_champion = (np.zeros(num) for _ in range(3))
        # The results.
        self.no_better = np.zeros(num)  # certificates of tips that are no improvement
        self.commits, self.false_commits, self.edits, self.false_edits = (np.zeros(num) for _ in range(4))
        self.candidates, self.trials, self.reported = (np.zeros(num) for _ in range(3))

    @property
    def _sigma(self) -> Floats:
        return np.asarray(np.sqrt(self.squares / self.freedom))

    def _own_variance(self) -> Floats:
        return tip.own_variance(self.log_shares, self._sigma)

    def step(self) -> bool:
        """Make one trial on the tip, or one pair of a certificate, in each campaign with time left for it."""
        left = self.setting.num_runs - self.spent
        due = tip.certificate_due(
            self.rule, worth_bpb=self.worth, trials=self.since, left=left, sigma_bpb=self._sigma
        )
        due &= (self.tip.edits > 0) & (self.since > 0)
        pairing = ((self.pairs > 0) | due) & (left >= PAIR_TRIALS)
        controlling = (self.unmeasured >= CONTROL_INTERVAL) | ~np.isnan(self.suspect)
        self._control(controlling & ~pairing & (self.pairs == 0) & (left >= 1))
        exploring = ~pairing & (self.pairs == 0) & (self.setting.num_runs - self.spent >= self.explore_cost)
        self._explore(exploring)
        self._pair(pairing)
        return bool((pairing | exploring).any())

    def _control(self, controlling: npt.NDArray[np.bool_]) -> None:
        at = np.flatnonzero(controlling)
        if not len(at):
            return
        score = (self.seed + self.tip.truth + self.machine.own())[at]
        level = Level(*(part[at] for part in self.tip.level))
        found = tip.measured_again(level, self._own_variance()[at], score, self.suspect[at])
        for part, new in zip(self.tip.level, found.level, strict=True):
            part[at] = new
        self.champion.level.mean[at] += np.where(found.moved, found.level.mean - level.mean, 0)
        self.suspect[at] = np.where(found.suspect, score, np.nan)
        self.spent[at] += 1
        self.unmeasured[at] = 0

    def _explore(self, exploring: npt.NDArray[np.bool_]) -> None:
        effect = self.ideas.draw(-self.tip.truth)
        score = self.seed + self.tip.truth + effect + self.machine.own()
        sigma, own = self._sigma, self._own_variance()
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)
        found = tip.explore(self.prior, weights, self.tip.level, score, own)
        accepted = tip.accepts(self.rule, found.effect, sigma) & exploring
        if self.setting.screen_cost < 1:
            small = found.effect.mean > -SMALL_SIGMAS * sigma
            accepted &= ~(small & (self.rng.random(self.num) < LOST_SHARE))
        at, delta, known = np.flatnonzero(exploring), score - self.tip.level.mean, self.tip.level.variance
        se = np.sqrt(known[at] + own[at])
        self.log_shares[at] += tip.share_from_trial(self.prior, weights[at], delta[at], known[at], sigma[at])
        self.counts[at] += effect_prior.responsibilities(self.prior, weights[at], delta[at], se)
        for before, rejected, after in zip(self.tip.level, found.rejected, found.accepted, strict=True):
            before[at] = np.where(accepted, after, rejected)[at]
        self.tip.truth += np.where(accepted, effect, 0)
        self.tip.edits += accepted
        self.tip.false_edits += accepted & (effect >= 0)
        self.worth += np.where(accepted, found.effect.mean, 0)
        self.spent[at] += self.setting.screen_cost
        for count in (self.since, self.candidates, self.trials):
            count[at] += 1
        self.unmeasured[at] = np.where(accepted, 0, self.unmeasured + 1)[at]
        self.ideas.follows = accepted

    def _pair(self, pairing: npt.NDArray[np.bool_]) -> None:
        seed = self.machine.seed()
        of_tip = seed + self.tip.truth + self.machine.own()
        of_champion = seed + self.champion.truth + self.machine.own()
        at = np.flatnonzero(pairing)
        new = at[self.pairs[at] == 0]
        for first, value in zip(
            (self.first_seed, self.first_of_tip, self.first_of_champion), (seed, of_tip, of_champion), strict=True
        ):
            first[new] = value[new]
        both, difference = of_tip**2 + of_champion**2, (of_tip - of_champion) ** 2
        for total, value in zip(
            self.totals, (np.ones(self.num), of_tip, of_champion, both, difference), strict=True
        ):
            total[at] += value[at]
        self.spent[at] += PAIR_TRIALS
        self.trials[at] += 1
        if len(at):
            self._judge(at)

    def _judge(self, at: Places) -> None:
        """Decide the certificates that just had a pair; `at`: their campaigns, (n,)."""
        n, sigma = self.pairs[at], self._sigma[at]
        delta = (self.of_tip[at] - self.of_champion[at]) / n
        found = tip.certify(self.rule, n, delta, sigma, self.freedom[at])
        done = found.certified | found.rolled_back | found.postponed
        self.no_better[at] += done & (self.tip.truth[at] >= self.champion.truth[at])
        squares = self.difference_squares[at] - (self.of_tip[at] - self.of_champion[at]) ** 2 / n
        self.log_shares[at[done]] += tip.share_from_pairs(n, squares, sigma)[done]
        if self.rotates:
            self._rotate(at[done])
        self._promote(at[found.certified], delta[found.certified])
        self.tip.adopt(at[found.rolled_back], self.champion)
        self.worth[at] = np.where(found.postponed, delta / 2, np.where(done, 0, self.worth[at]))
        # Both programs show the noise of the same seeds: together they count once.
        within = self.both_squares[at] - (self.of_tip[at] ** 2 + self.of_champion[at] ** 2) / n
        self.squares[at] += np.where(done, within / 2, 0)
        self.freedom[at] += np.where(done, n - 1, 0)
        closed = at[done]
        self.since[closed] = self.unmeasured[closed] = 0
        for total in self.totals:
            total[closed] = 0

    def _rotate(self, at: Places) -> None:
        """Explore under the seed of the first pair, at which tip and champion were just measured."""
        self.seed[at], self.suspect[at] = self.first_seed[at], np.nan
        own = self._own_variance()[at]
        for program, score in ((self.tip, self.first_of_tip), (self.champion, self.first_of_champion)):
            program.level.mean[at], program.level.variance[at] = score[at], own

    def _promote(self, at: Places, delta: Floats) -> None:
        self.commits[at] += 1
        self.false_commits[at] += self.tip.truth[at] >= self.champion.truth[at]
        self.edits[at] += self.tip.edits[at]
        self.false_edits[at] += self.tip.false_edits[at]
        self.reported[at] -= delta
        self.champion.adopt(at, self.tip)
        self.tip.edits[at] = self.tip.false_edits[at] = 0

    def outcome(self) -> Outcome:
        """Results so far."""
        return Outcome(
            true_gain=-self.champion.truth,
            reported_gain=self.reported,
            keeps=self.commits,
            false_keeps=self.false_commits,
            edits=self.edits,
            false_edits=self.false_edits,
            expected_false=np.zeros(self.num),
            candidates=self.candidates,
            trials=self.trials,
        )
