"""Fit the distribution of edits to the results of a night, by simulating greedy nights.

    python bench/effects.py results.tsv [--sigma 0.0007] [--steps 3000]

The file comes from autoresearch, with the columns val_bpb and status (keep, discard, crash). Greedy nights are
simulated with varying parameters until they resemble this one in the number of keeps, the total improvement, and
the quantiles of the differences to the best number so far. The best number is a lucky one, which is why the
differences cannot be read as effects. Prints the parameters of a mix as `runner/decision/worlds.py` has it,
and how far its nights are from each figure; then the same for the present mix. One night cannot distinguish
parameters that give equal nights.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.decision.worlds import MIXES, Mix, draw

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BROKEN_BPB = 0.1
"""A larger difference means a broken program and is left out."""


def read(path):
    """Read the differences to the best number so far, and the total improvement."""
    with path.open(encoding="utf-8") as file:
        scores = [
            (float(row["val_bpb"]), row["status"])
            for row in csv.DictReader(file, delimiter="\t")
            if row["status"] != "crash"
        ]
    first = best = scores[0][0]
    differences = []
    for score, status in scores[1:]:
        if score - best > BROKEN_BPB:
            continue
        differences.append(score - best)
        if status == "keep":
            best = score
    return np.array(differences), first - best


def nights(mix, sigma, length, num, rng):
    """Simulate greedy nights; returns the same figures."""
    truth, first = np.zeros(num), sigma * rng.normal(size=num)
    best, differences = first.copy(), np.empty((num, length))
    for place in range(length):
        effect = draw(mix, rng, num)
        score = truth + effect + sigma * rng.normal(size=num)
        differences[:, place] = score - best
        keep = score < best
        truth, best = np.where(keep, truth + effect, truth), np.where(keep, score, best)
    return differences, first - best


def figures(differences, improvement):
    """Summarize nights: (N, F) from (N, L) and (N,)."""
    return np.column_stack(
        [*np.quantile(differences, QUANTILES, axis=1), (differences < 0).sum(axis=1), improvement]
    )


def mix_of(shares, sizes):
    """Build a mix from shares (3,) and sizes (3,), in the order harm, slight, gain."""
    return Mix(
        harm_share=shares[0], harm=sizes[0], slight_share=shares[1], slight=sizes[1], gain_share=shares[2],
        gain=sizes[2],
    )  # fmt: skip


def main():
    """Search the parameters and print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sigma", type=float, default=0.0007)
    parser.add_argument("--steps", type=int, default=3000)
    arguments = parser.parse_args()
    differences, improvement = read(arguments.file)
    wanted = figures(differences[None], np.array([improvement]))[0]
    rng = np.random.default_rng(0)

    def misfit(mix, num):
        found = figures(*nights(mix, arguments.sigma, len(differences), num, rng))
        return (found.mean(axis=0) - wanted) / (found.std(axis=0) + arguments.sigma / 20)

    best, shares, sizes = np.inf, None, None
    for step in range(arguments.steps):
        if shares is None or rng.random() < 0.2:
            trial = rng.dirichlet([3, 6, 2]), rng.uniform([0.001, 0.0001, 0.0005], [0.006, 0.001, 0.004])
        else:
            scaled = shares * np.exp(0.2 * rng.normal(size=3))
            trial = scaled / scaled.sum(), sizes * np.exp(0.15 * rng.normal(size=3))
        found = (misfit(mix_of(*trial), 60 if step < arguments.steps * 3 // 4 else 200) ** 2).sum()
        if found < best:
            best, (shares, sizes) = found, trial
    print(f"{len(differences)} differences, improvement {improvement:.4f} bpb, sigma {arguments.sigma:g} bpb")
    for name, share, size in zip(("harm", "slight", "gain"), shares, sizes, strict=True):
        print(f"{name:8s} share {share:.2f}  size {size:.5f} bpb")
    names = [*(f"quantile {part:.0%}" for part in QUANTILES), "keeps", "improvement"]
    fitted, present = misfit(mix_of(shares, sizes), 2000), misfit(MIXES["real"], 2000)
    print("figure          this night   distance in standard deviations of nights: fitted, mix 'real'")
    for name, value, *away in zip(names, wanted, fitted, present, strict=True):
        print(f"{name:14s} {value:11.5f}   {away[0]:+6.2f}  {away[1]:+6.2f}")
    print(f"{'sum of squares':27s}   {(fitted**2).sum():6.2f}  {(present**2).sum():6.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
