"""Targets of the keep rule on synthetic campaigns: false keeps, true gain over the greedy rule, honest reports.

    python bench/decision.py [--campaigns 2000] [--plots docs]

Prints every cell of noise × budget × mix, each target as met or not, and the results when the world differs from
the assumptions of the rule: a drifting machine, effects of another size, a wrong noise prior. With --plots it
draws the trade-off between gain and false keeps, and a comparison of the rules, into that folder. Seeded: the
figures are always the same. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.decision.keep_rule import Rule
from runner.decision.simulation import RULES, greedy, ours, simulate
from runner.decision.worlds import MIXES, Setting
from runner.report.plot import DOTS_PER_INCH, FAINT, GRAY, GREEN, INK, rules_png

SIGMAS, BUDGETS = (0.0007, 0.002), (100, 700)
LEAST_GAIN = {0.0007: 1.0, 0.002: 1.1}
MOST_FALSE, MOST_OPTIMISM = 0.05, 0.10
DOUBTS = (0.01, 0.05, 0.15, 0.30)
SHELVES = (0.0, 2.0, 5.0, 8.0)


def cell(sigma, runs, mix, **changes):
    """Build one setting."""
    return Setting(mix=MIXES[mix], sigma_bpb=sigma, num_runs=runs, **changes)


def scaled(mix, factor):
    """Scale the effects of a mix."""
    return replace(mix, harm=mix.harm * factor, slight=mix.slight * factor, gain=mix.gain * factor)


def bars(run):
    """Simulate every rule in every cell; returns the summaries by cell and rule."""
    found = {}
    print(
        "sigma   runs  mix    rule               × greedy   false keeps  expected  reported   keeps  tried  trials"
    )
    for sigma in SIGMAS:
        for runs in BUDGETS:
            for mix in MIXES:
                for name, rule in RULES.items():
                    found[sigma, runs, mix, name] = run(name, rule, cell(sigma, runs, mix))
                base = found[sigma, runs, mix, "greedy"].true_gain
                for name in RULES:
                    one = found[sigma, runs, mix, name]
                    ratio = one.true_gain / base
                    print(
                        f"{sigma:<7g} {runs:4d}  {mix:6s} {name:18s} {ratio:8.2f}  {one.false_share:11.1%}"
                        f"  {one.expected_share:8.1%}  {one.optimism:+8.1%}  {one.keeps:6.1f}"
                        f"  {one.candidates:5.0f}  {one.trials:6.2f}"
                    )
    for sigma in SIGMAS:
        for runs in BUDGETS:
            ours_of = [found[sigma, runs, mix, "ours"] for mix in MIXES]
            gains = [
                one.true_gain / found[sigma, runs, mix, "greedy"].true_gain
                for one, mix in zip(ours_of, MIXES, strict=True)
            ]
            gain, false = np.mean(gains), max(one.false_share for one in ours_of)
            optimism = max(abs(one.optimism) for one in ours_of)
            results = (
                f"gain × greedy, mean over mixes {gain:.2f} ({met(gain >= LEAST_GAIN[sigma])})",
                f"false keeps at most {false:.1%} ({met(false <= MOST_FALSE)})",
                f"reported off by at most {optimism:.1%} ({met(optimism <= MOST_OPTIMISM)})",
            )
            print(f"sigma {sigma:g}, {runs} runs: " + "; ".join(results))
    return found


def met(yes):
    """Whether a target is met, in words."""
    return "met" if yes else "NOT MET"


def other_worlds(run):
    """Simulate the rule where its assumptions are wrong; 700 runs, sigma 0.0007 and 0.002."""
    print("\nother worlds (ours; 700 runs)      sigma   mix     × greedy   false keeps   reported")
    worlds = {
        "drift 0.3 sigma": lambda setting: replace(setting, drift_sigmas=0.3),
        "drift 0.7 sigma": lambda setting: replace(setting, drift_sigmas=0.7),
        "effects × 3": lambda setting: replace(setting, mix=scaled(setting.mix, 3)),
        "effects ÷ 3": lambda setting: replace(setting, mix=scaled(setting.mix, 1 / 3)),
        "together half as much": lambda setting: replace(setting, together=0.5),
        "together nothing": lambda setting: replace(setting, together=0.0),
        "noise prior × 1.5": lambda setting: replace(setting, prior_factor=1.5),
        "noise prior ÷ 1.5": lambda setting: replace(setting, prior_factor=1 / 1.5),
    }
    for name, changed in worlds.items():
        for sigma in SIGMAS:
            for mix in MIXES:
                setting = changed(cell(sigma, 700, mix))
                one, base = run("ours", ours, setting), run("greedy", greedy, setting)
                ratio = one.true_gain / base.true_gain
                print(
                    f"{name:34s} {sigma:<7g} {mix:6s} {ratio:9.2f}   {one.false_share:11.1%}"
                    f"   {one.optimism:+8.1%}"
                )


def shelves(run):
    """Simulate the gain from combining near misses, by the worth that is required; 0: never."""
    print("\nstack_sigmas (ours)     sigma   runs   gain × greedy, false keeps: real, harsh")
    for sigmas in SHELVES:
        for sigma in SIGMAS:
            for runs in BUDGETS:
                results = []
                for mix in MIXES:
                    setting = cell(sigma, runs, mix)
                    one = run("ours", partial(ours, rule=Rule(stack_sigmas=sigmas)), setting)
                    results.append(
                        f"{one.true_gain / run('greedy', greedy, setting).true_gain:.2f} {one.false_share:6.1%}"
                    )
                print(f"{sigmas:<22g} {sigma:<7g} {runs:5d}   {'   '.join(results)}")


def trade_off(run, path):
    """Plot gain against false keeps over a range of doubts, with and without stacks, next to the greedy rule."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mpl.rcdefaults()
    figure = Figure(figsize=(10.5, 4.4), layout="constrained", dpi=DOTS_PER_INCH)
    for axes, sigma in zip(figure.subplots(1, 2, sharey=True), SIGMAS, strict=True):
        for mix, color, place in zip(MIXES, (GREEN, "#d9a514"), ((-4, -13), (4, 6)), strict=True):
            setting = cell(sigma, 700, mix)
            base = run("greedy", greedy, setting)
            for stacks, line, name in ((Rule().stack_sigmas, "o-", "ours"), (0.0, "o:", "ours without stacks")):
                rules = [Rule(max_false_keep_probability=doubt, stack_sigmas=stacks) for doubt in DOUBTS]
                curve = [run("ours", partial(ours, rule=rule), setting) for rule in rules]
                gains = [one.true_gain / base.true_gain for one in curve]
                axes.plot(
                    [one.false_share for one in curve], gains, line, color=color, markersize=4,
                    label=f"{name}, mix {mix}",
                )  # fmt: skip
                for one, gain, doubt in zip(curve, gains, DOUBTS, strict=True):
                    if stacks and doubt >= rules[1].max_false_keep_probability:
                        axes.annotate(
                            f"{doubt:g}", (one.false_share, gain), xytext=place, textcoords="offset points",
                            fontsize=8, color=FAINT,
                        )  # fmt: skip
            axes.plot([base.false_share], [1.0], "x", color=color, markersize=9, label=f"greedy, mix {mix}")
        axes.axvline(MOST_FALSE, color=GRAY, linewidth=1, linestyle="--")
        axes.set_xlabel("share of false keeps")
        axes.set_title(
            f"σ = {sigma:g} bpb, 700 runs; numbers: max_false_keep_probability", loc="left", fontsize=10, color=INK
        )
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0, 0.42)
        axes.set_ylim(0, 2.1)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("true gain × greedy")
    figure.axes[0].legend(frameon=False, fontsize=9, loc="upper right")
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def main():
    """Run all simulations and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--campaigns", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plots", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()
    with ProcessPoolExecutor() as executor:

        def run(name, rule, setting):
            return simulate(name, rule, setting, arguments.campaigns, arguments.seed, executor)

        found = bars(run)
        other_worlds(run)
        shelves(run)
        if arguments.plots is not None:
            trade_off(run, arguments.plots / "decision-trade-off.png")
            cells = [found[0.002, 700, "harsh", name] for name in RULES]
            title = "700 runs, σ = 0.002 bpb, mix harsh"
            rules_png(cells, arguments.plots / "decision-rules.png", title)
    print(f"\n{arguments.campaigns} campaigns a cell, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
