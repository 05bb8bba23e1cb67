"""The tip rule on synthetic campaigns, where the truth is known: gain, false certificates, false edits, honesty.

    python bench/decision.py [--campaigns 250] [--parts cells worlds settings errors blocks]

    cells     noise × budget × mix × seed share, where effects add up, and the bars
    worlds    edits that repeat, fade or follow each other; drift; wrong assumptions
    settings  other settings, each edit certified by itself, and an exploration seed that stays
    errors    how often a certificate passes a tip that is no better, by seed share and knowledge of the noise
    blocks    blocks of edits for many workers

Budgets are GPU time: a trial on the tip costs 0.8, since some are stopped early (`bench/early_stop.py`). Controls
and certificates are paid for. The greedy rule is given with fresh seeds, and with one seed for all runs, as most
of the field does it; the oracle accepts exactly the edits that help. Standard errors follow ±. Seeded. All parts
take about half an hour on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.decision import tip
from runner.decision.block_campaigns import Block, block_rule
from runner.decision.simulation import greedy, one_seed, oracle, simulate
from runner.decision.tip import TipRule
from runner.decision.tip_campaigns import BASELINE_RUNS, TipCampaigns, tip_rule
from runner.decision.worlds import MIXES, WORLDS, Mix, Setting

SIGMAS, BUDGETS, SHARES = (0.0007, 0.002), (100, 700), (0.0, 0.3, 0.6, 0.9)
SCREEN_COST = 0.8
LEAST_GAIN = {0.0: 1.3, 0.6: 1.5}
MOST_FALSE, MOST_FALSE_EDITS, MOST_OPTIMISM = 0.05, 0.25, 0.10
NULL = Mix(harm_share=0.0, harm=1.0, slight_share=1.0, slight=0.0, gain_share=0.0, gain=1.0)
"""Edits that change nothing."""
SETTINGS = {
    "seed that stays": partial(tip_rule, rotates=False),
    "certify each edit": partial(tip_rule, rule=TipRule(certify_sigmas=0.0, certify_trials=0)),
    "calibrated share": partial(tip_rule, rule=TipRule(paired_share=0.4)),
    "accept at 0.5": partial(tip_rule, rule=TipRule(accept_probability=0.5)),
    "accept at 0.7": partial(tip_rule, rule=TipRule(accept_probability=0.7)),
    "accept at 0.8": partial(tip_rule, rule=TipRule(accept_probability=0.8)),
    "certify at 5 sigma": partial(tip_rule, rule=TipRule(certify_sigmas=5.0, certify_trials=10)),
    "certify at 20 sigma": partial(tip_rule, rule=TipRule(certify_sigmas=20.0, certify_trials=40)),
}
BLOCKS = {
    f"blocks of {size}{', interacting' if redundant else ''}": Block(
        size=size, redundant=redundant, breaking=redundant / 60
    )
    for redundant in (0.0, 0.3)
    for size in (8, 16, 64)
}
"""Interacting: three in ten neighbors that help achieve the same, one pair of neighbors in 200 crashes."""
BLOCK_RUNS = 704
HEADER = (
    f"{'':20s} sigma   runs  mix    share   × greedy        × one seed  oracle   false certificates"
    "  false edits  greedy         reported  commits  edits"
)


def setting_of(sigma, runs, mix, share, **changes):
    """Build one setting."""
    return Setting(
        mix=MIXES[mix], sigma_bpb=sigma, num_runs=runs, seed_share=share, screen_cost=SCREEN_COST, **changes
    )


class Bench:
    """Simulations on all cores, and what they print."""

    def __init__(self, campaigns, seed, executor):
        self.campaigns, self.seed, self.executor = campaigns, seed, executor
        self.known = {}

    def run(self, rule, setting):
        """Simulate once; opponents meet the same settings again."""
        if isinstance(rule, partial):
            return simulate("", rule, setting, self.campaigns, self.seed, self.executor)
        if (rule, setting) not in self.known:
            self.known[rule, setting] = simulate("", rule, setting, self.campaigns, self.seed, self.executor)
        return self.known[rule, setting]

    def row(self, name, rule, setting, mix):
        """Print one cell; returns the gain over both greedy rules, and the summary."""
        by_runs = replace(setting, screen_cost=1.0)
        one = self.run(rule, setting)
        base, fixed, ceiling = (self.run(other, by_runs) for other in (greedy, one_seed, oracle))
        ratio = one.true_gain / base.true_gain
        errors = (one.true_gain_se / max(one.true_gain, 1e-12), base.true_gain_se / base.true_gain)
        print(
            f"{name:20s} {setting.sigma_bpb:<7g} {setting.num_runs:4d}  {mix:6s} {setting.seed_share:5.1f}"
            f"   {ratio:6.2f} ± {ratio * float(np.hypot(*errors)):4.2f}   {one.true_gain / fixed.true_gain:10.2f}"
            f"  {ceiling.true_gain / base.true_gain:6.2f}   {one.false_share:11.1%} ± {one.false_share_se:4.1%}"
            f"  {one.false_edits:11.1%}  {base.false_edits:6.1%}  {one.optimism or 0:+7.1%} ± "
            f"{one.optimism_se:4.1%}  {one.keeps:7.1f}  {one.edits:5.1f}",
            flush=True,
        )
        return ratio, one.true_gain / fixed.true_gain, one

    def cells(self, name, rule, shares, **changes):
        """Print all cells of one rule and world, with means over the mixes; returns all rows by share."""
        rows = {share: [] for share in shares}
        for share, sigma, runs in product(shares, SIGMAS, BUDGETS):
            made = [self.row(name, rule, setting_of(sigma, runs, mix, share, **changes), mix) for mix in MIXES]
            rows[share] += made
            fresh, fixed = (np.mean([row[column] for row in made]) for column in (0, 1))
            print(f"{'':20s} mean over mixes: {fresh:.2f} × greedy, {fixed:.2f} × one seed{bar(share, fresh)}")
        return rows


def bar(share, fresh):
    """The bar for a mean over mixes, in words."""
    return f" (at least {LEAST_GAIN[share]}: {met(fresh >= LEAST_GAIN[share])})" if share in LEAST_GAIN else ""


def met(yes):
    """Whether a bar is met, in words."""
    return "met" if yes else "NOT MET"


def bars(rows):
    """Print the bars over all cells."""
    every = [row for made in rows.values() for row in made]
    least, least_fixed = (min(row[column] for row in every) for column in (0, 1))
    false, edits = (max(getattr(row[2], name) for row in every) for name in ("false_share", "false_edits"))
    optimism = max(abs(row[2].optimism or 0) for row in every)
    print(f"never below greedy: {least:.2f} ({met(least >= 1)})")
    print(f"never below one seed: {least_fixed:.2f} ({met(least_fixed >= 1)})")
    print(f"false certificates at most {false:.1%} ({met(false <= MOST_FALSE)})")
    print(f"edits that do not help at most {edits:.1%} ({met(edits <= MOST_FALSE_EDITS)})")
    print(f"reported gain off by at most {optimism:.1%} ({met(optimism <= MOST_OPTIMISM)})")


def worlds(bench):
    """Worlds in which edits depend on each other, and worlds that differ from what the rule assumes."""
    for world, interplay in WORLDS.items():
        if world != "additive":
            bench.cells(world, tip_rule, (0.0, 0.6), interplay=interplay)
    changes = {
        "drift 0.3 sigma": {"drift_sigmas": 0.3},
        "drift 0.7 sigma": {"drift_sigmas": 0.7},
        "noise prior × 1.5": {"prior_factor": 1.5},
        "noise prior ÷ 1.5": {"prior_factor": 1 / 1.5},
    }
    for name, change in changes.items():
        bench.cells(name, tip_rule, (0.0, 0.6), **change)


def errors(num):
    """Print how often certificates pass: in isolation, and in campaigns whose edits change nothing."""
    print("\ncertificates alone: share that pass, by true difference in sigma; seed share true / counted on")
    looks = [f"{sigma:+5.2f}" for sigma in TRUE]
    print(f"{'noise':34s} {'share':>11s}   {'   '.join(looks)}")
    knowledge = {
        "known exactly": (1e9, 1.0, BASELINE_RUNS),
        "prior right, 3 runs": (4, 1.0, BASELINE_RUNS),
        "prior ÷ 1.5, 3 runs": (4, 1 / 1.5, BASELINE_RUNS),
        "prior ÷ 1.5, 20 degrees more": (4, 1 / 1.5, BASELINE_RUNS + 20),
    }
    for (name, known), (share, counted) in product(knowledge.items(), COUNTED):
        shown = [f"{passing(true, share, counted, known, num):5.1%}" for true in TRUE]
        print(f"{name:34s} {share:.1f} / {counted:.1f}   {'   '.join(shown)}", flush=True)
    print("\nedits that change nothing: certificates for 100 campaigns, and the share of them that passed")
    for share, runs in product((0.0, 0.6, 0.9), (40, 100, 700)):
        setting = Setting(mix=NULL, sigma_bpb=0.0007, num_runs=runs, seed_share=share)
        made = TipCampaigns(setting, 1500 if runs < 700 else 500, np.random.default_rng(0), TipRule())
        while made.step():
            pass
        passed, asked = made.false_commits.sum(), made.no_better.sum()
        rate = passed / max(asked, 1)
        print(
            f"share {share:.1f}, {runs:3d} runs: {100 * asked / made.num:6.1f} certificates, passed "
            f"{rate:.1%} ± {(rate * (1 - rate) / max(asked, 1)) ** 0.5:.1%}",
            flush=True,
        )


TRUE = (0.0, -0.5, -1.0, -2.0, -3.0)
COUNTED = ((0.0, 0.0), (0.6, 0.0), (0.6, 0.4), (0.6, 0.6), (0.9, 0.0), (0.9, 0.75))


def passing(true_sigmas, share, counted, known, num):
    """Share of certificates that pass a tip with a true difference.

    Args:
        counted: seed share that the certificate counts on.
        known: of the noise: degrees of freedom of its prior, factor by which that is wrong, and measured runs.
    """
    freedom, factor, runs = known
    rng, rule = np.random.default_rng(0), TipRule(paired_share=counted)
    squares = rng.chisquare(runs - 1, size=num)
    total = freedom + runs - 1
    sigma = np.sqrt((freedom * factor**2 + squares) / total)
    own = np.sqrt(1 - share) * rng.normal(size=(2, rule.max_pairs, num))
    open_ones, passed = np.ones(num, bool), 0
    for n in range(1, rule.max_pairs + 1):
        delta = true_sigmas + (own[0] - own[1])[:n].mean(axis=0)
        found = tip.certify(rule, np.full(num, float(n)), delta, sigma, np.full(num, float(total)))
        passed += int((found.certified & open_ones).sum())
        open_ones &= ~(found.certified | found.rolled_back | found.postponed)
    return passed / num


def main():
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = ("cells", "worlds", "settings", "errors", "blocks")
    parser.add_argument("--campaigns", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    arguments = parser.parse_args()
    began = time.monotonic()
    with ProcessPoolExecutor(arguments.workers) as executor:
        bench = Bench(arguments.campaigns, arguments.seed, executor)
        print(HEADER)
        if "cells" in arguments.parts:
            bars(bench.cells("additive", tip_rule, SHARES))
        if "worlds" in arguments.parts:
            worlds(bench)
        if "settings" in arguments.parts:
            for name, rule in SETTINGS.items():
                bench.cells(name, rule, (0.0, 0.6))
        if "blocks" in arguments.parts:
            for name, block in BLOCKS.items():
                for share, sigma, mix in product((0.0, 0.6), SIGMAS, MIXES):
                    setting = Setting(mix=MIXES[mix], sigma_bpb=sigma, num_runs=BLOCK_RUNS, seed_share=share)
                    bench.row(name, partial(block_rule, block=block), setting, mix)
        if "errors" in arguments.parts:
            errors(200_000)
    print(f"\n{arguments.campaigns} campaigns a cell, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
