"""Synthetic worlds: edits with known effects, and a noisy machine. Arrays (N,) have one element per campaign."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runner.decision.effect_prior import Floats

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Distribution of edits. Shares sum to 1; sizes are in bpb."""

    harm_share: float
    harm: float  # mean of an exponential
    slight_share: float
    slight: float  # standard deviation around 0
    gain_share: float
    gain: float  # mean of an exponential


MIXES = {
    "real": Mix(harm_share=0.10, harm=0.0035, slight_share=0.80, slight=0.0005, gain_share=0.10, gain=0.0018),
    "harsh": Mix(harm_share=0.25, harm=0.0035, slight_share=0.72, slight=0.0003, gain_share=0.03, gain=0.0015),
}
"""`real` is fitted to a public night (`bench/effects.py`); in `harsh` a third as many edits help, and less."""


@dataclass(frozen=True, kw_only=True)
class Interplay:
    """The way effects depend on the edits accepted before. The default: not at all, effects add up."""

    redundant: float = 0.0  # share of helpful ideas that repeat what an accepted edit has achieved
    boost: float = 1.0  # factor of large improvements at the beginning
    fade_bpb: float | None = None  # gain after which that factor has fallen to 1/e of its beginning
    follow_up: float = 0.0  # share of ideas after an accepted one that vary it


WORLDS = {
    "additive": Interplay(),
    "redundant": Interplay(redundant=0.3),
    "fading": Interplay(boost=10.0, fade_bpb=0.005),
    "follow-ups": Interplay(follow_up=0.5),
    "combined": Interplay(redundant=0.3, boost=10.0, fade_bpb=0.005, follow_up=0.5),
}
"""`fading`: a greedy night of 125 runs makes 0.027 bpb, 60 % of it in its first 13 runs, with the mix `real`. The
public night made 0.028, 88 % of it there."""
FOLLOW_UP_GAINS = 0.3
"""Share of follow-ups that help, by half of what other helpful ideas do."""
LARGE_SLIGHTS = 2.0
"""An improvement is large, and fades, from so many standard deviations of slight edits."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The world in which rules are compared."""

    mix: Mix
    sigma_bpb: float  # noise standard deviation between seeds
    seed_share: float = 0.0  # share of the noise variance that all programs have in common under one seed
    interplay: Interplay = Interplay()
    screen_cost: float = 1.0  # of a trial that may be stopped early, in trials; below 1 budgets are GPU time
    num_runs: int  # budget of one campaign
    drift_sigmas: float = 0.0  # standard deviation of the machine's slow error, in sigmas
    drift_runs: float = 50.0  # number of runs after which the drift's autocorrelation is 1/e
    prior_factor: float = 1.0  # factor by which the noise prior of the rules is wrong


def draw(mix: Mix, rng: np.random.Generator, num: int) -> Floats:
    """Draw true effects of edits, in bpb; (num,)."""
    kind = rng.random(num)
    size = rng.exponential(size=num)
    slight = rng.normal(size=num) * mix.slight
    harmful, helpful = kind < mix.harm_share, kind >= mix.harm_share + mix.slight_share
    return np.asarray(np.where(harmful, mix.harm * size, np.where(helpful, -mix.gain * size, slight)))


@dataclass
class Ideas:
    """Edits that a proposer has, one for each campaign at a time."""

    setting: Setting
    rng: np.random.Generator
    num: int
    follows: Bools = field(init=False)  # whether the last idea was accepted

    def __post_init__(self) -> None:
        self.follows = np.zeros(self.num, bool)

    def draw(self, gained_bpb: Floats) -> Floats:
        """Draw true effects of the next ideas, in bpb; (N,).

        Args:
            gained_bpb: true improvement that the programs which they change have over the baseline; (N,).
        """
        mix, how = self.setting.mix, self.setting.interplay
        effect = draw(mix, self.rng, self.num)
        if how.follow_up:
            varies = self.follows & (self.rng.random(self.num) < how.follow_up)
            helps = self.rng.random(self.num) < FOLLOW_UP_GAINS
            gain, slight = self.rng.exponential(size=self.num), self.rng.normal(size=self.num)
            effect = np.where(varies, np.where(helps, -mix.gain / 2 * gain, mix.slight * slight), effect)
        if how.fade_bpb is not None:
            factor = how.boost * np.exp(-np.maximum(gained_bpb, 0) / how.fade_bpb)
            large = effect < -LARGE_SLIGHTS * mix.slight
            effect = np.where(effect < 0, effect * np.where(large, factor, np.minimum(factor, 1)), effect)
        if how.redundant:
            repeats = (effect < 0) & (gained_bpb > 0) & (self.rng.random(self.num) < how.redundant)
            effect = np.where(repeats, 0.0, effect)
        return np.asarray(effect)


@dataclass
class Machine:
    """The noise of runs: seeds, what a program makes of its seed, and a drift that simultaneous runs share."""

    setting: Setting
    rng: np.random.Generator
    shape: tuple[int, ...]
    drift: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.drift = self.setting.drift_sigmas * self.rng.normal(size=self.shape)

    def noise(self) -> Floats:
        """Draw the error of the next run of each campaign under a fresh seed, in bpb."""
        return self._sigma_bpb(1.0) * self.rng.normal(size=self.shape) + self._drifted()

    def seed(self) -> Floats:
        """Draw what all programs have in common under a fresh seed, in bpb."""
        return self._sigma_bpb(self.setting.seed_share) * self.rng.normal(size=self.shape)

    def own(self) -> Floats:
        """Draw the error of the next run beside what its seed has in common with others, in bpb."""
        return self._sigma_bpb(1 - self.setting.seed_share) * self.rng.normal(size=self.shape) + self._drifted()

    def _sigma_bpb(self, share: float) -> float:
        return float(self.setting.sigma_bpb * np.sqrt(share))

    def _drifted(self) -> Floats:
        if self.setting.drift_sigmas:
            kept = np.exp(-1 / self.setting.drift_runs)
            fresh = self.setting.drift_sigmas * np.sqrt(1 - kept**2)
            self.drift = kept * self.drift + fresh * self.rng.normal(size=self.shape)
        return self.setting.sigma_bpb * self.drift


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
