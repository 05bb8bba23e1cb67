"""How often the tour of `make demo` keeps its improvement, by the keep rule itself.

    python bench/tour.py [--effect -0.13] [--noise 0.01] [--tours 20000]

Every simulated tour draws the scores of the baseline's trials, of the improvement's, and of the controls
between them, and asks `runner/decision/keep_rule.py` as a campaign would. Needs no engine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.config import load
from runner.decision import effect_prior, history, keep_rule
from runner.decision.keep_rule import Action, Belief
from runner.proposers.tour import FOLDER, Tour

ROOT = Path(__file__).resolve().parents[1]


def is_kept(config, rng, effect, noise, weights):
    """Whether one tour keeps an edit with this true effect."""
    rule, prior = history.rule(config), effect_prior.prior(config.effect_scale_bpb)
    champion = list(rng.normal(0, noise, config.baseline_runs))
    sigma = keep_rule.pooled_sigma([champion], config.noise_prior_bpb)
    belief = Belief(prior=prior, weights=weights, sigma_bpb=sigma)
    candidate = []
    while True:
        candidate.append(effect + rng.normal(0, noise))
        judged = keep_rule.judge(rule, belief, candidate_bpb=candidate, champion_bpb=champion)
        if judged.action is not Action.TRY_AGAIN:
            return judged.action is Action.KEEP
        champion.append(rng.normal(0, noise))  # a control between two trials


def main():
    """Print the share of tours that keep it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--effect", type=float, default=-0.13, help="true effect of the edit in bpb")
    parser.add_argument("--noise", type=float, default=0.01, help="standard deviation of one trial in bpb")
    parser.add_argument("--tours", type=int, default=20_000)
    arguments = parser.parse_args()
    tour = Tour.read(ROOT / FOLDER)
    config = load(ROOT / "nowhere", {"profile": "cpu", **tour.settings}, environ={})
    # The edits before it had no effect: the worst case for what the rule expects of one.
    prior = effect_prior.prior(config.effect_scale_bpb)
    nulls = [(0.0, config.noise_prior_bpb * 1.2)] * 4
    weights = effect_prior.learned_weights(prior, nulls)
    rng = np.random.default_rng(0)
    kept = sum(is_kept(config, rng, arguments.effect, arguments.noise, weights) for _ in range(arguments.tours))
    print(f"kept in {kept:,} of {arguments.tours:,} tours ({kept / arguments.tours:.3%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
