"""Figures of a verdict, and near misses made of them."""

from __future__ import annotations

from dataclasses import replace

from runner.records import Experiment, Figures, Verdict

SIGMA = 0.001
FIGURES = Figures(
    trials=(1,), pool=(2,), delta_bpb=-0.001, se_bpb=SIGMA, sigma_bpb=SIGMA, better=0.7, effect_bpb=0.0,
    low_bpb=-0.002, high_bpb=0.001,
)  # fmt: skip


def discarded(number, sigmas, **changes):
    """A discard that is probably worth this many noise standard deviations; negative: it does harm."""
    figures = replace(FIGURES, effect_bpb=-sigmas * SIGMA)
    fields = {
        "hypothesis": f"idea {number}", "proposer": "p", "verdict": Verdict.DISCARD, "champion": 0, "val_bpb": 2.0,
        "delta_bpb": FIGURES.delta_bpb, "sigma_bpb": SIGMA, "figures": figures, **changes,
    }  # fmt: skip
    return Experiment(number=number, **fields)
