"""Simulate how often the tour of `make demo` certifies its improvement, by the rule itself.

    python bench/tour.py [--effect -0.13] [--noise 0.015] [--share 0.0] [--tours 20000]

Every simulated tour draws the scores of the baseline, and of the improvement under the exploration seed, then
pairs of tip and champion under fresh seeds, and asks `runner/decision/exploration.py` and
`runner/decision/certificate.py` as a campaign would. Needs no engine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.config import load
from runner.decision import certificate, effect_prior, exploration, history, keep_rule, tip, tip_state
from runner.decision.exploration import Change
from runner.decision.keep_rule import Action, Belief
from runner.proposers.tour import FOLDER, Tour
from runner.records import Experiment, Outcome, Trial, Verdict

ROOT = Path(__file__).resolve().parents[1]


class World:
    """A machine whose scores have a true noise, part of which programs share under one seed."""

    def __init__(self, rng, noise, share):
        self.rng, self.common, self.own = rng, noise * share**0.5, noise * (1 - share) ** 0.5

    def seed(self):
        """The noise that all programs have in common under a new seed."""
        return self.rng.normal(0, self.common)

    def score(self, seed, effect=0.0):
        """One trial."""
        return seed + effect + self.rng.normal(0, self.own)


def is_certified(config, world, effect, weights):
    """Whether one tour accepts and certifies an edit with this true effect."""
    rule, prior = history.rule(config), effect_prior.prior(config.effect_scale_bpb)
    seeds = [world.seed() for _ in range(config.baseline_runs)]
    pool = [world.score(seed) for seed in seeds]
    sigma = keep_rule.pooled_sigma([pool], config.noise_prior_bpb)
    belief = Belief(prior=prior, weights=weights, sigma_bpb=sigma)
    trial = Trial(seed=1, outcome=Outcome.SCORED, val_bpb=pool[0])
    baseline = Experiment(
        number=0, hypothesis="", proposer="", verdict=Verdict.KEEP, val_bpb=pool[0], trials=(trial,)
    )
    known = tip_state.first(baseline, sigma, np.zeros(len(tip.SHARES)))
    score = world.score(seeds[0], effect)
    if exploration.judge(rule, belief, known, score, Change()).action is not Action.ACCEPT:
        return False
    pairs = []
    while True:
        seed = world.seed()
        pairs.append((world.score(seed, effect), world.score(seed)))
        found = certificate.judge(rule, sigma, tip_state.seed_share(known), pairs, pool)
        if found.action is not Action.TRY_AGAIN:
            return found.action is Action.KEEP


def main():
    """Print the share of tours that certify it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--effect", type=float, default=-0.13, help="true effect of the edit in bpb")
    parser.add_argument("--noise", type=float, default=0.015, help="standard deviation of one trial in bpb")
    parser.add_argument("--share", type=float, default=0.0, help="of it that programs share under a seed")
    parser.add_argument("--tours", type=int, default=20_000)
    arguments = parser.parse_args()
    tour = Tour.read(ROOT / FOLDER)
    config = load(ROOT / "nowhere", {"profile": "cpu", **tour.settings}, environ={})
    # The edits before it had no effect: the worst case for what the rule expects of one.
    prior = effect_prior.prior(config.effect_scale_bpb)
    weights = effect_prior.learned_weights(prior, [(0.0, config.noise_prior_bpb * 1.2)] * 4)
    world = World(np.random.default_rng(0), arguments.noise, arguments.share)
    kept = sum(is_certified(config, world, arguments.effect, weights) for _ in range(arguments.tours))
    print(f"certified in {kept:,} of {arguments.tours:,} tours ({kept / arguments.tours:.3%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
