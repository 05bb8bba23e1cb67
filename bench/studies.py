"""Power and error of `confirm`, and what the screen of `ablate` lets pass, by simulation.

    python bench/studies.py

The figures are in docs/statistics.md. Noise is normal; a seed has the share ρ of its variance for all programs.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.stats import wilcoxon

from runner.campaign.studies.ablate import SCREEN
from runner.campaign.studies.confirm import NUM_PAIRS, level
from runner.decision import effect_prior, keep_rule, pairing
from runner.decision.keep_rule import PRIOR_WEIGHT, SIMPLER_DOUBT, SIMPLER_SIGMAS

PROFILES = {"cpu": (0.010, 0.015), "cuda": (0.0007, 0.0005)}
"""Noise and typical effect of an edit, in bpb."""
NUM_PROGRAMS = 7
START_SHARE = 0.6
"""Seed share that a campaign expects before it has measured any."""


def confirmed(rng, effect_sigmas, share, num_attempts, replicates):
    """Share of series of attempts in which p is small enough at least once, after each number of attempts."""
    noise = math.sqrt(2 * (1 - share))
    differences = rng.normal(effect_sigmas, noise, (replicates, NUM_PAIRS * num_attempts))
    held, found = np.zeros(replicates, dtype=bool), []
    for attempt in range(1, num_attempts + 1):
        pairs = differences[:, : NUM_PAIRS * attempt]
        held |= wilcoxon(pairs, axis=1, alternative="less", method="exact").pvalue <= level(attempt)
        found.append(held.mean())
    return found


def screened(rng, profile, worth_sigmas, share, num_seeds, replicates):
    """Shares of edits of a true worth that pass the screen, that matter, and whose interval covers it."""
    sigma, scale = PROFILES[profile]
    prior = effect_prior.prior(scale)
    weights = effect_prior.first_counts(prior) / effect_prior.first_counts(prior).sum()
    counts = np.zeros(3)
    for _ in range(replicates):
        own = rng.normal(0, math.sqrt(1 - share), (NUM_PROGRAMS, num_seeds))
        table = sigma * (own + rng.normal(0, math.sqrt(share), num_seeds))
        table[1] += worth_sigmas * sigma
        squares, freedom = pairing.residual_spread(table)
        spread = keep_rule.pooled_sigma_of([(squares, freedom)], sigma * math.sqrt(1 - START_SHARE))
        mean = float((table[0] - table[1]).mean())
        effect = pairing.difference_of(mean, spread * math.sqrt(2 / num_seeds), PRIOR_WEIGHT + freedom)
        good = effect_prior.probability_below(prior, weights, -mean, effect.se_bpb, SIMPLER_SIGMAS * sigma)
        covered = effect.low_bpb <= -worth_sigmas * sigma <= effect.high_bpb
        counts += (good >= SCREEN, good <= SIMPLER_DOUBT, covered)
    return counts / replicates


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=200_000)
    replicates = parser.parse_args().replicates
    rng = np.random.default_rng(0)
    print("confirm: share confirmed after 1, 2, … attempts")
    for share in (0.0, 0.6, 0.87):
        for effect in (-1.0, 0.0):
            found = confirmed(rng, effect, share, 4, replicates)
            print(f"  share {share:.2f}  effect {effect:+.0f} σ  " + "  ".join(f"{one:.4f}" for one in found))
    print("ablate: share that does not matter, that matters, and whose interval covers its worth")
    for num_seeds in (3, 8):
        for profile in PROFILES:
            for share in (0.0, 0.6, 0.87):
                for worth in (0, 1, 2):
                    idle, matters, covered = screened(rng, profile, worth, share, num_seeds, replicates // 100)
                    print(
                        f"  {num_seeds} seeds  {profile:4s}  share {share:.2f}  worth {worth} σ  "
                        f"{idle:.2f}  {matters:.2f}  {covered:.2f}"
                    )


if __name__ == "__main__":
    main()
