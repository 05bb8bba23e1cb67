"""Synthetic campaigns: what each keep rule finds, and what it wrongly believes, when the truth is known.

Every candidate has a true effect, drawn from a mix of edits. A run measures the truth with the noise of a seed
and, on request, with a machine that drifts. A rule has a budget of runs, baseline and controls included, and
decides what to run and what to keep. Campaigns are simulated side by side: arrays of shape (N,), one for each.

The rule called `ours` is decided by `runner/decision/keep_rule.py` and `runner/decision/effect_prior.py`
themselves. Near misses are tried
together as in `runner/proposers/combine.py`; effects add up here, and all edits fit together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior, keep_rule
from runner.decision.effect_prior import Floats
from runner.decision.keep_rule import Rule

BASELINE_RUNS = 3
CONTROL_INTERVAL = 20
"""As the settings of a campaign have them."""
GRID_POINTS = 61
"""Coarser than a campaign's grid: decisions differ in one case of a thousand."""
CHUNK = 500
"""Campaigns side by side, so that the arrays stay in the processor's cache."""

DEFAULT_RULE = Rule()

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How edits are distributed. Shares sum to 1; sizes in bpb."""

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
EFFECT_SCALE = 0.0005
"""The prior's, in bpb: that of the profile `cuda`, whatever the mix is."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The world that rules are compared in."""

    mix: Mix
    sigma_bpb: float  # noise standard deviation between seeds
    num_runs: int  # budget of one campaign
    drift_sigmas: float = 0.0  # standard deviation of the machine's slow error, in sigmas
    drift_runs: float = 50.0  # after so many runs it has forgotten itself to 1/e
    together: float = 1.0  # what is left of the effects of near misses when they are tried together
    prior_factor: float = 1.0  # by how much the noise prior of the rules is wrong


class Outcome(NamedTuple):
    """What came of campaigns; arrays (N,)."""

    true_gain: Floats  # bpb, of the last champion over the baseline
    reported_gain: Floats  # bpb, what the rule says of it
    keeps: Floats
    false_keeps: Floats  # whose true effect is no improvement
    expected_false: Floats  # how many of them the rule expected; 0 where it does not say
    candidates: Floats
    trials: Floats  # runs of candidates


Simulate = Callable[[Setting, int, np.random.Generator], Outcome]
Decide = Callable[["Trials"], "Decisions"]


class Trials(NamedTuple):
    """Candidates that have just been looked at; arrays (n,)."""

    number: Floats
    delta: Floats  # bpb
    se: Floats  # bpb
    sigma: Floats  # bpb
    weights: Floats  # (n, K) what each campaign has learned


class Decisions(NamedTuple):
    """What becomes of them; arrays (n,)."""

    keep: Bools
    discard: Bools
    better: Floats  # probability of an improvement
    effect: Floats  # what each is probably worth, bpb; 0 or more where a rule has no shelf


def draw(mix: Mix, rng: np.random.Generator, num: int) -> Floats:
    """True effects of edits, in bpb; (num,)."""
    kind = rng.random(num)
    size = rng.exponential(size=num)
    slight = rng.normal(size=num) * mix.slight
    harmful, helpful = kind < mix.harm_share, kind >= mix.harm_share + mix.slight_share
    return np.asarray(np.where(harmful, mix.harm * size, np.where(helpful, -mix.gain * size, slight)))


@dataclass
class _Machine:
    """The noise of runs: seeds, and a drift that all runs of a moment share."""

    setting: Setting
    rng: np.random.Generator
    shape: tuple[int, ...]
    drift: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.drift = self.setting.drift_sigmas * self.rng.normal(size=self.shape)

    def noise(self) -> Floats:
        """Of the next run of each campaign, in bpb."""
        if self.setting.drift_sigmas:
            kept = np.exp(-1 / self.setting.drift_runs)
            fresh = self.setting.drift_sigmas * np.sqrt(1 - kept**2)
            self.drift = kept * self.drift + fresh * self.rng.normal(size=self.shape)
        return np.asarray(self.setting.sigma_bpb * (self.rng.normal(size=self.shape) + self.drift))


def greedy(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """One run; kept when it is better than the best number so far, as in autoresearch."""
    return _best_number(setting, num, rng, margin_sigmas=0.0, repeats=1)


def fixed_margin(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """One run; kept when it is better than the best number by 2 σ."""
    return _best_number(setting, num, rng, margin_sigmas=2.0, repeats=1)


def three_seeds(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """Three runs of every candidate; kept when their mean is better than the best one."""
    return _best_number(setting, num, rng, margin_sigmas=0.0, repeats=3)


def _best_number(
    setting: Setting, num: int, rng: np.random.Generator, *, margin_sigmas: float, repeats: int
) -> Outcome:
    machine = _Machine(setting, rng, (num,))
    truth, keeps, false = np.zeros(num), np.zeros(num), np.zeros(num)

    def measured() -> Floats:
        return np.asarray(sum(machine.noise() for _ in range(repeats)) / repeats)

    first = best = measured()
    candidates = setting.num_runs // repeats - 1
    for _ in range(candidates):
        effect = draw(setting.mix, rng, num)
        score = truth + effect + measured()
        keep = score < best - margin_sigmas * setting.sigma_bpb
        truth, best = np.where(keep, truth + effect, truth), np.where(keep, score, best)
        keeps += keep
        false += keep & (effect >= 0)
    tried = np.full(num, float(candidates))
    return Outcome(-truth, first - best, keeps, false, np.zeros(num), tried, tried * repeats)


def ours(
    setting: Setting,
    num: int,
    rng: np.random.Generator,
    *,
    rule: Rule = DEFAULT_RULE,
    control_interval: int = CONTROL_INTERVAL,
) -> Outcome:
    """The rule of `runner/decision/keep_rule.py`."""
    start = effect_prior.prior(EFFECT_SCALE, GRID_POINTS)

    def decide(trials: Trials) -> Decisions:
        known = effect_prior.posterior(start, trials.weights, trials.delta, trials.se)
        keep, discard = keep_rule.clear_cases(
            rule,
            trials=trials.number,
            delta=trials.delta,
            se=trials.se,
            better=known.better,
            needed=keep_rule.LEAST_SIGMAS * trials.sigma,
        )
        return Decisions(keep, discard, known.better, known.mean)

    return _sequential(
        setting,
        num,
        rng,
        decide,
        control_interval=control_interval,
        least_pool=keep_rule.LEAST_POOL,
        heeds_drift=True,
        stack_sigmas=rule.stack_sigmas,
    )


GROUP_KEEP_Z = np.array([-3.0, -2.4, -2.1, -2.0])
GROUP_DISCARD_Z = np.array([-0.8, -0.8, -1.0, -np.inf])


def group_sequential(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """Fixed boundaries for z at up to four looks; a control before each but the first, and every tenth run."""

    def decide(trials: Trials) -> Decisions:
        z, at = trials.delta / trials.se, trials.number.astype(np.int64) - 1
        keep = (z <= GROUP_KEEP_Z[at]) & (trials.delta <= -keep_rule.LEAST_SIGMAS * trials.sigma)
        return Decisions(keep, ~keep & (z >= GROUP_DISCARD_Z[at]), np.ones(len(z)), np.zeros(len(z)))

    return _sequential(setting, num, rng, decide, control_interval=10, least_pool=3, heeds_drift=False)


RULES: dict[str, Simulate] = {
    "ours": ours,
    "group sequential": group_sequential,
    "greedy": greedy,
    "fixed margin": fixed_margin,
    "three seeds": three_seeds,
}


def _sequential(
    setting: Setting,
    num: int,
    rng: np.random.Generator,
    decide: Decide,
    *,
    control_interval: int,
    least_pool: int,
    heeds_drift: bool,
    stack_sigmas: float = 0.0,
) -> Outcome:
    """Look at candidates until their cases are clear, against a pool of runs of the champion.

    The champion is measured again before each look but the first.

    Args:
        control_interval: runs after which the champion is measured again.
        least_pool: runs of a new champion, the look that chose it left out; more are made when there are fewer.
        heeds_drift: whether the earlier runs of the pool are left out when those between the looks say that the
            machine has changed.
        stack_sigmas: what the near misses must be worth together to be tried; 0: never.
    """
    start = effect_prior.prior(EFFECT_SCALE, GRID_POINTS)
    machine = _Machine(setting, rng, (num,))
    truth = np.zeros(num)
    pool = np.stack([machine.noise() for _ in range(BASELINE_RUNS)], axis=1).sum(axis=1)
    first_mean = pool / BASELINE_RUNS
    in_pool = np.full(num, float(BASELINE_RUNS))
    prior_squares = keep_rule.PRIOR_WEIGHT * (setting.prior_factor * setting.sigma_bpb) ** 2
    squares = np.full(num, prior_squares + (BASELINE_RUNS - 1) * setting.sigma_bpb**2)
    freedom = np.full(num, keep_rule.PRIOR_WEIGHT + BASELINE_RUNS - 1)
    counts = np.tile(effect_prior.PRIOR_CANDIDATES * start.weights, (num, 1))  # (N, K)
    effect, total, chosen_by = np.zeros(num), np.zeros(num), np.zeros(num)
    trials, since = np.zeros(num), np.zeros(num)  # looks 0: no candidate is open
    controlled = np.zeros(num, bool)
    fresh, in_fresh = np.zeros(num), np.zeros(num)
    keeps, false, expected, candidates, all_trials = (np.zeros(num) for _ in range(5))
    is_stack, shelved, shelved_effect = np.zeros(num, bool), np.zeros(num), np.zeros(num)  # worth: estimated, true
    for left in range(setting.num_runs - BASELINE_RUNS, 0, -1):
        idle = trials == 0
        of_champion = (in_pool < least_pool) | (idle & (since >= control_interval)) | (~idle & ~controlled)
        opened = idle & ~of_champion
        effect = np.where(opened, draw(setting.mix, rng, num), effect)
        if stack_sigmas:
            least = min(stack_sigmas, keep_rule.LAST_SIGMAS) if left <= keep_rule.LAST_RUNS else stack_sigmas
            stacked = opened & (-shelved >= least * np.sqrt(squares / freedom))
            is_stack = np.where(opened, stacked, is_stack)
            effect = np.where(stacked, setting.together * shelved_effect, effect)
            shelved[stacked] = shelved_effect[stacked] = 0
        score = truth + np.where(of_champion, 0.0, effect) + machine.noise()

        # What differs from its own mean tells the noise: runs of a champion, and further looks.
        known, so_far = np.where(of_champion, in_pool, trials), np.where(of_champion, pool, total)
        again = known > 0
        mean = so_far / np.maximum(known, 1)
        squares += np.where(again, (score - mean) ** 2 * known / (known + 1), 0.0)
        freedom += again

        pool = np.where(of_champion, pool + score, pool)
        in_pool = np.where(of_champion, in_pool + 1, in_pool)
        full = in_pool > keep_rule.POOL_RUNS  # the mean stands for the runs that leave
        pool = np.where(full, pool * keep_rule.POOL_RUNS / in_pool, pool)
        in_pool = np.where(full, float(keep_rule.POOL_RUNS), in_pool)
        since = np.where(of_champion, 0.0, since + 1)
        controlled = of_champion

        # Runs of the champion since its candidate was first looked at.
        between = of_champion & ~idle
        fresh = np.where(opened, 0.0, np.where(between, fresh + score, fresh))
        in_fresh = np.where(opened, 0.0, np.where(between, in_fresh + 1, in_fresh))

        total = np.where(of_champion, total, total + score)
        trials = np.where(of_champion, trials, trials + 1)
        chosen_by = np.where(opened, score, chosen_by)
        at = np.flatnonzero(~of_champion)
        sigma = np.sqrt(squares[at] / freedom[at])
        mean, known = pool[at] / in_pool[at], in_pool[at]
        if heeds_drift:
            num_fresh, num_old = in_fresh[at], in_pool[at] - in_fresh[at]
            both = (num_fresh > 0) & (num_old > 0)
            newer, older = np.where(both, num_fresh, 1), np.where(both, num_old, 1)
            away = fresh[at] / newer - (pool[at] - fresh[at]) / older
            moved = both & keep_rule.drifted(away, newer, older, sigma)
            mean, known = np.where(moved, fresh[at] / newer, mean), np.where(moved, newer, known)
        delta = total[at] / trials[at] - mean
        se = keep_rule.standard_error(sigma, trials[at], known)
        first = (trials[at] == 1) & ~is_stack[at]
        weights = counts[at] / counts[at].sum(axis=1, keepdims=True)
        keep, discard, better, worth = decide(Trials(trials[at], delta, se, sigma, weights))
        counts[at[first]] += effect_prior.responsibilities(start, weights[first], delta[first], se[first])

        missed = discard & ~is_stack[at] & keep_rule.near_miss(worth, sigma)
        shelved[at[missed]] += worth[missed]
        shelved_effect[at[missed]] += effect[at[missed]]

        kept, closed = at[keep], at[keep | discard]
        keeps[kept] += 1
        false[kept] += effect[kept] >= 0
        expected[kept] += 1 - better[keep]
        candidates[closed] += 1
        all_trials[closed] += trials[closed]
        truth[kept] += effect[kept]
        pool[kept], in_pool[kept] = total[kept] - chosen_by[kept], trials[kept] - 1
        since[kept] = 0
        trials[closed] = 0
        total[closed] = 0
    reported = np.where(in_pool > 0, first_mean - pool / np.maximum(in_pool, 1), np.nan)
    return Outcome(-truth, reported, keeps, false, expected, candidates, all_trials)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over campaigns."""

    rule: str
    true_gain: float  # bpb
    true_gain_se: float
    reported_gain: float  # bpb
    optimism: float | None  # reported gain over true gain, − 1; None: nothing was gained
    false_share: float  # of keeps
    expected_share: float  # of keeps, as many as the rule itself expected
    keeps: float
    candidates: float
    trials: float  # runs of a candidate


def simulate(
    name: str, rule: Simulate, setting: Setting, num: int, seed: int, executor: Executor | None = None
) -> Summary:
    """Simulate `num` campaigns under one rule.

    Args:
        seed: gives the same campaigns again, whatever else is simulated and on how many processes.
        executor: where chunks of campaigns are simulated; here when absent.
    """
    children = np.random.SeedSequence(seed).spawn(-(-num // CHUNK))
    chunks = [(rule, setting, min(CHUNK, num - index * CHUNK), child) for index, child in enumerate(children)]
    parts = list((map if executor is None else executor.map)(_chunk, chunks))
    all_of = Outcome(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    gain, keeps = float(all_of.true_gain.mean()), float(all_of.keeps.sum())
    reported = float(np.nanmean(all_of.reported_gain))  # a campaign that ends with a new champion may say nothing
    return Summary(
        rule=name,
        true_gain=gain,
        true_gain_se=float(all_of.true_gain.std() / np.sqrt(num)),
        reported_gain=reported,
        optimism=reported / gain - 1 if gain else None,
        false_share=float(all_of.false_keeps.sum() / max(keeps, 1)),
        expected_share=float(all_of.expected_false.sum() / max(keeps, 1)),
        keeps=keeps / num,
        candidates=float(all_of.candidates.mean()),
        trials=float(all_of.trials.sum() / max(all_of.candidates.sum(), 1)),
    )


def _chunk(chunk: tuple[Simulate, Setting, int, np.random.SeedSequence]) -> Outcome:
    rule, setting, num, seed = chunk
    return rule(setting, num, np.random.default_rng(seed))


def compare(setting: Setting, num: int, seed: int, rules: Mapping[str, Simulate] = RULES) -> list[Summary]:
    """Simulate campaigns under several rules, on all cores."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        return [simulate(name, rule, setting, num, seed, executor) for name, rule in rules.items()]
