"""Savings and costs of stopping unpromising runs early, where every outcome is known.

    python bench/early_stop.py                            # synthetic trainings, seeded, two minutes
    python bench/early_stop.py --ledger FILE --tag TAG    # a real campaign, replayed in order

Each trial is watched with the calibration from those before it, against the tip's own training under the same
seed, and its outcome is known nevertheless. Synthetic trainings have an own noise of σ √(1 − ρ); a seed share ρ of
0 is also what a comparison under different seeds would see. Use a real campaign with `early_stop_threshold = 0` or
`early_stop_holdout = 1`, in which no run was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from runner.decision import early_stopping
from runner.decision.early_stopping import NUM_FRACTIONS, calibrate
from runner.storage.ledger import Ledger
from tests.support.synthetic_trainings import BOUNDARY, SE, SEED, World, level

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
            f"which is {lost} of the {self.promising} that would be accepted"
        )


def calibrated(experiments, finished=EARLY_STOP_MIN_TRIALS):
    """The calibration of a synthetic night."""
    return calibrate(
        experiments,
        experiments[0],
        SEED,
        boundary_bpb=BOUNDARY,
        early_stop_threshold=EARLY_STOP_THRESHOLD,
        early_stop_min_trials=min(EARLY_STOP_MIN_TRIALS, finished),
    )


def synthetic(unseen, finished, share, late=0):
    """Simulate nights with a number of finished candidates each, of which `late` recovered at the very end."""
    tally = Tally()
    for seed in range(NIGHTS):
        world = World(1000 + seed, unseen, share)
        night = world.campaign(finished, late=late)
        known, mean = calibrated(night, finished), level(night[0])
        for _ in range(CANDIDATES if known is not None else 0):
            losses, bpb = world.training(world.effect())
            tally.add(known, losses, bpb - mean < BOUNDARY)
    print(
        f"share {share:.2f}, noise unseen {unseen:.2f}, {finished:3d} finished, {late} late: {tally}", flush=True
    )


def lived(unseen, share, pool, length=100):
    """Simulate whole nights in which only the holdout among the stopped runs teaches anything."""
    tally = Tally()
    for seed in range(NIGHTS // 2):
        world = World(5000 + seed, unseen, share, pool)
        night = [world.champion()]
        mean = level(night[0])
        for number in range(1, length + 1):
            known = calibrated(night)
            losses, bpb = world.training(world.effect())
            stop_reason = None if known is None else tally.add(known, losses, bpb - mean < BOUNDARY)
            if stop_reason is None or world.rng.random() < EARLY_STOP_HOLDOUT:
                night.append(world.candidate(number, losses, bpb, night[0]))
    trials = "1 trial" if pool == 1 else f"{pool} trials"
    print(
        f"share {share:.2f}, noise unseen {unseen:.2f}, {trials} of the tip, {length} as they come: {tally}",
        flush=True,
    )


def replayed(experiments):
    """Replay a real campaign."""
    points = early_stopping.points(experiments)
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
        if one.is_certificate or one.figures is None or one.parent is None or trained is None:
            continue
        if trained.curve is None:
            continue
        known = calibrate(
            experiments[:position],
            experiments[one.parent],
            trained.seed,
            boundary_bpb=BOUNDARY / SE * one.figures.se_bpb,
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
                f"it ended {one.figures.delta_bpb:+.4f} bpb from the tip"
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
    for share in (0.0, 0.6, 0.87):
        for unseen in (0.5, 0.8, 0.95):
            for finished in (12, 40, 200):
                synthetic(unseen, finished, share)
            for pool in (1, 4):
                lived(unseen, share, pool)
        synthetic(0.5, 40, share, late=1)
        synthetic(0.5, 40, share, late=4)


if __name__ == "__main__":
    main()
