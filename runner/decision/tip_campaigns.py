"""Synthetic campaigns under the tip rule (`runner/decision/tip.py`), side by side: arrays (N,)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior, keep_rule, tip
from runner.decision.effect_prior import Floats
from runner.decision.tip import Level, Pairs, TipRule
from runner.decision.worlds import Ideas, Machine, Outcome, Setting

BASELINE_RUNS = 3
EFFECT_SCALE = 0.0005
"""The prior's, in bpb: that of the profile `cuda`, whatever the mix is."""
GRID_POINTS = 101
LOST_SHARE = 0.05
"""Share of small improvements whose trial is stopped early by mistake, where trials may be stopped."""
SMALL_SIGMAS = 1.0
PAIR_TRIALS = 2.0

Places = npt.NDArray[np.intp]


def tip_rule(setting: Setting, num: int, rng: np.random.Generator, *, rule: TipRule | None = None) -> Outcome:
    """Apply the tip rule."""
    campaigns = TipCampaigns(setting, num, rng, rule or TipRule())
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

    def __init__(self, setting: Setting, num: int, rng: np.random.Generator, rule: TipRule) -> None:
        self.setting, self.rule, self.rng, self.num = setting, rule, rng, num
        self.explore_cost = setting.screen_cost
        self.prior = effect_prior.prior(EFFECT_SCALE, GRID_POINTS)
        self.machine, self.ideas = Machine(setting, rng, (num,)), Ideas(setting, rng, num)
        # The champion's trials under fresh seeds, and the noise that they show.
        baseline = np.stack([self.machine.noise() for _ in range(BASELINE_RUNS)])
        self.pool, self.in_pool = baseline.mean(axis=0), np.full(num, float(BASELINE_RUNS))
        prior_squares = keep_rule.PRIOR_WEIGHT * (setting.prior_factor * setting.sigma_bpb) ** 2
        self.squares = prior_squares + ((baseline - self.pool) ** 2).sum(axis=0)
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
        # The open certificate: number of pairs (0: none is open), sums of tip and champion, of the squares of
        # both, and of the squares of their differences.
        self.totals = tuple(np.zeros(num) for _ in range(5))
        self.pairs, self.of_tip, self.of_champion, self.both_squares, self.difference_squares = self.totals
        # The results.
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
        pairing = ((self.pairs > 0) | (due & (self.tip.edits > 0))) & (left >= PAIR_TRIALS)
        exploring = ~pairing & (self.pairs == 0) & (left >= self.explore_cost)
        self._explore(exploring)
        self._pair(pairing)
        return bool((pairing | exploring).any())

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
        self.ideas.follows = accepted

    def _pair(self, pairing: npt.NDArray[np.bool_]) -> None:
        seed = self.machine.seed()
        of_tip = seed + self.tip.truth + self.machine.own()
        of_champion = seed + self.champion.truth + self.machine.own()
        at = np.flatnonzero(pairing)
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
        means = Pairs(n, self.of_tip[at] / n, self.of_champion[at] / n, self.pool[at], self.in_pool[at])
        delta, se = tip.contrast(means, sigma, 1 - self._own_variance()[at] / sigma**2)
        found = tip.certify(self.rule, n, delta, se, sigma)
        done = found.certified | found.rolled_back | found.postponed
        squares = self.difference_squares[at] - (self.of_tip[at] - self.of_champion[at]) ** 2 / n
        self.log_shares[at[done]] += tip.share_from_pairs(n, squares, sigma)[done]
        together = np.minimum(self.in_pool[at] + n, keep_rule.POOL_RUNS)
        mean = (self.in_pool[at] * self.pool[at] + self.of_champion[at]) / (self.in_pool[at] + n)
        self.pool[at] = np.where(found.certified, means.tip_bpb, np.where(done, mean, self.pool[at]))
        self.in_pool[at] = np.where(found.certified, n, np.where(done, together, self.in_pool[at]))
        self._promote(at[found.certified], delta[found.certified])
        self.tip.adopt(at[found.rolled_back], self.champion)
        self.worth[at] = np.where(found.postponed, delta / 2, np.where(done, 0, self.worth[at]))
        # Both programs show the noise of the same seeds: together they count once.
        within = self.both_squares[at] - n * (means.tip_bpb**2 + means.champion_bpb**2)
        self.squares[at] += np.where(done, within / 2, 0)
        self.freedom[at] += np.where(done, n - 1, 0)
        closed = at[done]
        self.since[closed] = 0
        for total in self.totals:
            total[closed] = 0

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
