"""A comparison of keep rules on synthetic campaigns: true gains, and false beliefs, where the truth is known.

Every idea has a true effect, drawn from a mix of edits (`runner/decision/worlds.py`). A run measures the truth
with the noise of a seed and, on request, on a machine that drifts. A rule has a budget of runs, baseline and
controls included, and decides what to run and what to keep. The rule called `tip` is that of a campaign, and calls
`runner/decision/tip.py` itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from runner.decision.tip_campaigns import tip_rule
from runner.decision.worlds import Ideas, Machine, Outcome, Setting

CHUNK = 500
"""Number of campaigns side by side: few enough that the arrays stay in the processor's cache."""

Simulate = Callable[[Setting, int, np.random.Generator], Outcome]


def greedy(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """Run a candidate once and keep it if it beats the best number so far, as in autoresearch."""
    return _best_number(setting, num, rng, fresh_seeds=True)


def one_seed(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """Apply the greedy rule under one seed for all runs, as most of the field does."""
    return _best_number(setting, num, rng, fresh_seeds=False)


def _best_number(setting: Setting, num: int, rng: np.random.Generator, *, fresh_seeds: bool) -> Outcome:
    machine, ideas = Machine(setting, rng, (num,)), Ideas(setting, rng, num)
    run = machine.noise if fresh_seeds else machine.own
    truth, keeps, false = np.zeros(num), np.zeros(num), np.zeros(num)
    first = best = run()
    for _ in range(setting.num_runs - 1):
        effect = ideas.draw(-truth)
        score = truth + effect + run()
        keep = score < best
        truth, best = np.where(keep, truth + effect, truth), np.where(keep, score, best)
        ideas.follows = keep
        keeps += keep
        false += keep & (effect >= 0)
    tried = np.full(num, float(setting.num_runs - 1))
    return Outcome(-truth, first - best, keeps, false, keeps, false, np.zeros(num), tried, tried)


def oracle(setting: Setting, num: int, rng: np.random.Generator) -> Outcome:
    """Accept exactly the edits that help, after one trial each: the ceiling for rules that try edits in turn."""
    ideas = Ideas(setting, rng, num)
    truth, keeps = np.zeros(num), np.zeros(num)
    candidates = setting.num_runs - 1
    for _ in range(candidates):
        effect = ideas.draw(-truth)
        ideas.follows = effect < 0
        truth, keeps = np.minimum(truth, truth + effect), keeps + ideas.follows
    none, tried = np.zeros(num), np.full(num, float(candidates))
    return Outcome(-truth, -truth, keeps, none, keeps, none, none, tried, tried)


RULES: dict[str, Simulate] = {
    "tip": tip_rule,
    "greedy": greedy,
    "one seed": one_seed,
    "oracle": oracle,
}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over campaigns."""

    rule: str
    true_gain: float  # bpb
    true_gain_se: float
    reported_gain: float  # bpb
    optimism: float | None  # reported gain over true gain, − 1; None: nothing was gained
    optimism_se: float
    false_share: float  # of keeps
    false_share_se: float
    false_edits: float  # share of the edits in them
    expected_share: float  # of keeps, as many as the rule itself expected
    keeps: float
    edits: float
    candidates: float
    trials: float  # runs of a candidate


def simulate(
    name: str, rule: Simulate, setting: Setting, num: int, seed: int, executor: Executor | None = None
) -> Summary:
    """Simulate `num` campaigns under one rule.

    Args:
        seed: the same seed gives the same campaigns, whatever else is simulated and on however many processes.
        executor: runs the chunks of campaigns; they run in this process when omitted.
    """
    children = np.random.SeedSequence(seed).spawn(-(-num // CHUNK))
    chunks = [(rule, setting, min(CHUNK, num - index * CHUNK), child) for index, child in enumerate(children)]
    parts = list((map if executor is None else executor.map)(_chunk, chunks))
    all_of = Outcome(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    gain, keeps = float(all_of.true_gain.mean()), float(all_of.keeps.sum())
    reported = float(np.nanmean(all_of.reported_gain))  # a campaign that ends with a new champion may say nothing
    excess = all_of.reported_gain - all_of.true_gain * (reported / gain if gain else 1.0)
    return Summary(
        rule=name,
        true_gain=gain,
        true_gain_se=float(all_of.true_gain.std() / np.sqrt(num)),
        reported_gain=reported,
        optimism=reported / gain - 1 if gain else None,
        optimism_se=float(np.nanstd(excess) / np.sqrt(num) / abs(gain)) if gain else 0.0,
        false_share=(false := float(all_of.false_keeps.sum() / max(keeps, 1))),
        false_share_se=float(np.std(all_of.false_keeps - false * all_of.keeps) * np.sqrt(num) / max(keeps, 1)),
        false_edits=float(all_of.false_edits.sum() / max(all_of.edits.sum(), 1)),
        expected_share=float(all_of.expected_false.sum() / max(keeps, 1)),
        keeps=keeps / num,
        edits=float(all_of.edits.mean()),
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
