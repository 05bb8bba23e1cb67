"""The tip rule on synthetic campaigns: gain, false commits and edits, by noise, budget, mix, seed share and world.

    python bench/tip.py [--campaigns 1000] [--settings]

Budgets are GPU time: a trial on the tip costs 0.8, since some are stopped early (`bench/early_stop.py`). The
greedy rule is given with fresh seeds, and with one seed for all runs, as most of the field does it; the oracle
accepts exactly the edits that help. Standard errors follow ±. With --settings it also tries other settings, and
blocks of edits for many workers, in units of the greedy rule with as many trials.
Seeded. 250 campaigns with --settings take 13 minutes on two busy cores.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.decision.block_campaigns import Block, block_rule
from runner.decision.simulation import greedy, one_seed, oracle, simulate
from runner.decision.tip import TipRule
from runner.decision.tip_campaigns import tip_rule
from runner.decision.worlds import MIXES, WORLDS, Setting

SIGMAS, BUDGETS, SHARES = (0.0007, 0.002), (100, 700), (0.0, 0.3, 0.6, 0.9)
SCREEN_COST = 0.8
SETTINGS = {
    "accept at 0.5": TipRule(accept_probability=0.5),
    "accept at 0.7": TipRule(accept_probability=0.7),
    "accept at 0.8": TipRule(accept_probability=0.8),
    "certify at 5 sigma": TipRule(certify_sigmas=5.0, certify_trials=10),
    "certify at 20 sigma": TipRule(certify_sigmas=20.0, certify_trials=40),
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
    f"{'':26s} sigma   runs  mix    share   × greedy        × one seed  oracle   false commits    "
    "false edits  greedy  reported  commits  edits"
)


def row(run, name, rule, setting, mix):
    """Print one cell; returns the gain over both greedy rules."""
    by_runs = replace(setting, screen_cost=1.0)
    one = run("", rule, setting)
    base, fixed = run("greedy", greedy, by_runs), run("one seed", one_seed, by_runs)
    ceiling = run("oracle", oracle, by_runs)
    ratio = one.true_gain / base.true_gain
    error = ratio * ((one.true_gain_se / one.true_gain) ** 2 + (base.true_gain_se / base.true_gain) ** 2) ** 0.5
    print(
        f"{name:26s} {setting.sigma_bpb:<7g} {setting.num_runs:4d}  {mix:6s} {setting.seed_share:5.1f}"
        f"   {ratio:6.2f} ± {error:4.2f}   {one.true_gain / fixed.true_gain:10.2f}"
        f"  {ceiling.true_gain / base.true_gain:6.2f}   {one.false_share:6.1%} ± {one.false_share_se:4.1%}"
        f"  {one.false_edits:11.1%}  {base.false_edits:6.1%}  {one.optimism:+8.1%}  {one.keeps:7.1f}"
        f"  {one.edits:5.1f}",
        flush=True,
    )
    return ratio, one.true_gain / fixed.true_gain


def main():
    """Run all simulations and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    with ProcessPoolExecutor() as executor:

        def run(name, rule, setting):
            return simulate(name, rule, setting, arguments.campaigns, arguments.seed, executor)

        def cells(name, rule, shares, **changes):
            for share in shares:
                for sigma in SIGMAS:
                    for runs in BUDGETS:
                        gains = [
                            row(
                                run, name, rule,
                                Setting(
                                    mix=MIXES[mix], sigma_bpb=sigma, num_runs=runs, seed_share=share,
                                    screen_cost=SCREEN_COST, **changes,
                                ),
                                mix,
                            )
                            for mix in MIXES
                        ]  # fmt: skip
                        fresh, fixed = (sum(column) / len(column) for column in zip(*gains, strict=True))
                        print(f"{'':26s} mean over mixes: {fresh:.2f} × greedy, {fixed:.2f} × one seed")

        print(HEADER)
        for world, interplay in WORLDS.items():
            cells(world, tip_rule, SHARES if world == "additive" else (0.0, 0.6), interplay=interplay)
        for drift in (0.3, 0.7):
            cells(f"drift {drift} sigma", tip_rule, (0.0, 0.6), drift_sigmas=drift)
        if arguments.settings:
            for name, rule in SETTINGS.items():
                cells(name, partial(tip_rule, rule=rule), (0.0, 0.6))
            for name, block in BLOCKS.items():
                for share, sigma, mix in product((0.0, 0.6), SIGMAS, MIXES):
                    setting = Setting(mix=MIXES[mix], sigma_bpb=sigma, num_runs=BLOCK_RUNS, seed_share=share)
                    row(run, name, partial(block_rule, block=block), setting, mix)
    print(f"\n{arguments.campaigns} campaigns a cell, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
