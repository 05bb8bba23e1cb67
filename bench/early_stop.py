"""Savings and costs of stopping unpromising runs early, where every outcome is known.

    python bench/early_stop.py                            # synthetic trainings, seeded, one minute
    python bench/early_stop.py --ledger FILE --tag TAG    # a real campaign, replayed in order

Each candidate is watched with the calibration from those before it, and its outcome is known nevertheless: use a
real campaign with `early_stop_threshold = 0` or `early_stop_holdout = 1`, in which no run was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from runner.decision import early_stopping, history
from runner.decision.early_stopping import NUM_FRACTIONS, calibrate
from runner.storage.ledger import Ledger
from tests.support.synthetic_trainings import BOUNDARY, POOL, SE, World

EARLY_STOP_THRESHOLD, EARLY_STOP_MIN_TRIALS, EARLY_STOP_HOLDOUT = 0.05, 12, 0.10
NIGHTS, CANDIDATES = 60, 50


class Tally:
    """Sums over watched candidates."""

    def __init__(self):
        self.watched = self.stopped = self.wrong = self.promising = 0
        self.saved = 0.0

    def add(self, calibration, losses, promising):
        """Watch one candidate to its end; returns why it would have been stopped, or `None`."""
        self.watched += 1
        self.promising += promising
        reasons = (calibration.stop_reason(index, losses[index]) for index in range(NUM_FRACTIONS - 1))
        stop_reason = next((one for one in reasons if one is not None), None)
        if stop_reason is not None:
            self.stopped += 1
            self.wrong += promising
            self.saved += 1 - stop_reason.fraction
        return stop_reason

    def __str__(self):
        share = f"{self.wrong / self.stopped:.1%}" if self.stopped else "–"
        lost = f"{self.wrong / self.promising:.1%}" if self.promising else "–"
        return (
            f"{self.watched} watched, {self.stopped / max(self.watched, 1):.0%} stopped, "
            f"{self.saved / max(self.watched, 1):.0%} of the training time saved, {self.wrong} wrong ({share}), "
            f"which is {lost} of the {self.promising} that were near misses or more"
        )


def synthetic(unseen, finished, late=0):
    """Simulate nights with a number of finished candidates each, of which `late` recovered at the very end."""
    tally = Tally()
    for seed in range(NIGHTS):
        world = World(1000 + seed, unseen)
        night = world.campaign(finished, late=late)
        known = calibrate(
            night,
            night[0],
            boundary_bpb=BOUNDARY,
            early_stop_threshold=EARLY_STOP_THRESHOLD,
            early_stop_min_trials=min(EARLY_STOP_MIN_TRIALS, finished),
        )
        mean = sum(run.val_bpb for run in history.champion_pool(night[0])) / POOL
        for _ in range(CANDIDATES):
            losses, bpb = world.training(world.effect())
            tally.add(known, losses, bpb - mean < BOUNDARY)
    print(f"noise unseen {unseen:.2f}, {finished:3d} finished, {late} late: {tally}")


def lived(unseen, length=100):
    """Simulate whole nights in which only the holdout among the stopped runs teaches anything."""
    tally = Tally()
    for seed in range(NIGHTS // 2):
        world = World(5000 + seed, unseen)
        night = [world.champion()]
        mean = sum(run.val_bpb for run in history.champion_pool(night[0])) / POOL
        for number in range(1, length + 1):
            known = calibrate(
                night,
                night[0],
                boundary_bpb=BOUNDARY,
                early_stop_threshold=EARLY_STOP_THRESHOLD,
                early_stop_min_trials=EARLY_STOP_MIN_TRIALS,
            )
            losses, bpb = world.training(world.effect())
            stop_reason = None if known is None else tally.add(known, losses, bpb - mean < BOUNDARY)
            if stop_reason is None or world.rng.random() < EARLY_STOP_HOLDOUT:
                night.append(world.candidate(number, losses, bpb, night[0]))
    print(f"noise unseen {unseen:.2f}, {length} experiments as they come: {tally}")


def replayed(experiments):
    """Replay a real campaign."""
    points = early_stopping.candidates(experiments)
    for index in range(NUM_FRACTIONS):
        pairs = [(one.gaps[index], one.delta_bpb) for one in points if one.gaps[index] is not None]
        if len(pairs) > 2:
            r = np.corrcoef(np.array(pairs).T)[0, 1]
            print(
                f"at {early_stopping.fraction(index):4.0%}: "
                f"correlation of gap and end {r:+.2f} ({len(pairs)} runs)"
            )
    tally = Tally()
    for position, one in enumerate(experiments):
        trained = early_stopping.first_training(one)
        if one.figures is None or one.champion is None or trained is None or trained.curve is None:
            continue
        known = calibrate(
            experiments[:position],
            experiments[one.champion],
            boundary_bpb=BOUNDARY / SE * one.figures.first_se_bpb,
            early_stop_threshold=EARLY_STOP_THRESHOLD,
            early_stop_min_trials=EARLY_STOP_MIN_TRIALS,
        )
        if (
            known is not None
            and (stop_reason := tally.add(known, trained.curve.losses, early_stopping.is_promising(one)))
            is not None
        ):
            print(
                f"experiment {one.number}: at {stop_reason.fraction:.0%}, "
                f"gap {stop_reason.loss - stop_reason.tip_loss:+.3f}, chance {stop_reason.chance:.2%}; "
                f"it ended {one.figures.first_delta_bpb:+.4f} bpb from its champion"
            )
    print(tally)


def main():
    """Simulate or replay, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--tag", default="night")
    arguments = parser.parse_args()
    if arguments.ledger is not None:
        with Ledger(arguments.ledger) as ledger:
            replayed([one for one in ledger.experiments(arguments.tag) if one.verdict is not None])
        return
    for unseen in (0.5, 0.8, 0.95):
        for finished in (12, 40, 200):
            synthetic(unseen, finished)
    for unseen in (0.5, 0.8, 0.95):
        lived(unseen)
    synthetic(0.5, 40, late=1)
    synthetic(0.5, 40, late=4)


if __name__ == "__main__":
    main()
