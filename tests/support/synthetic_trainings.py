"""Synthetic trainings with a known end, as a ledger would hold them."""

from __future__ import annotations

import math
from itertools import count

import numpy as np

from runner.decision.early_stopping import NUM_FRACTIONS
from runner.records import Curve, Experiment, Figures, Verdict
from tests.support.trials import scored

SIGMA = 0.001
POOL = 4
SE = SIGMA * math.sqrt(1 + 1 / POOL)
BOUNDARY = -0.1 * SE
"""Below it an edit is accepted, for the effects and the noise of a usual campaign."""
SEED = 7
"""The exploration seed."""
NATS = 3.0  # of training loss for a bpb


def level(champion):
    """Mean score of the champion under the exploration seed."""
    return sum(trial.val_bpb for trial in champion.trials) / len(champion.trials)


class World:
    """Synthetic trainings: the loss shows an effect bit by bit, and some of the noise of the end.

    All are under one seed; what that has in common for all of them cancels, and is left out.
    """

    def __init__(self, seed, unseen=0.5, share=0.0, pool=POOL):
        self.unseen = unseen  # share of the noise that no training loss shows
        self.own = math.sqrt(1 - share) * SIGMA  # noise beside what the seed has in common
        self.pool = pool  # trials of the champion
        self.rng = np.random.default_rng(seed)
        self.ids = count(1)

    def training(self, effect, late=False):
        """Losses by fraction, and the score."""
        luck = self.rng.normal(0, math.sqrt(1 - self.unseen**2) * self.own)
        shares = np.arange(1, NUM_FRACTIONS + 1) / NUM_FRACTIONS
        shown = np.where(shares < 1, -effect, effect) if late else effect * (0.5 + shares / 2)
        noise = self.rng.normal(0, self.own, NUM_FRACTIONS) * (1.2 - shares)
        losses = 3 + np.exp(-3 * shares) + NATS * (shown + luck * shares + noise)
        rest = self.rng.normal(0, self.unseen * self.own)
        return tuple(float(loss) for loss in losses), 1.0 + effect + luck + rest

    def trial(self, losses, bpb, audited=False):
        """One trial; each one is opened and closed after the one before it."""
        opened = 2 * next(self.ids)
        return scored(
            bpb, SEED, audited=audited, curve=Curve(losses=losses), id=opened, opened_seq=opened,
            closed_seq=opened + 1,
        )  # fmt: skip

    def champion(self):
        trials = tuple(self.trial(*self.training(0.0), audited=True) for _ in range(self.pool))
        return Experiment(number=0, hypothesis="h", proposer="p", verdict=Verdict.KEEP, val_bpb=1.0, trials=trials)

    def candidate(self, number, losses, bpb, champion):
        trial = self.trial(losses, bpb)
        delta = bpb - level(champion)
        accepted = delta < BOUNDARY
        figures = Figures(
            trials=(trial.id,), pool=(), delta_bpb=delta, se_bpb=SE, sigma_bpb=SIGMA, better=0.5,
            effect_bpb=delta / 2, low_bpb=0.0, high_bpb=0.0,
        )  # fmt: skip
        return Experiment(
            number=number, hypothesis="h", proposer="p", verdict=Verdict.ACCEPT if accepted else Verdict.DISCARD,
            val_bpb=bpb, champion=0, parent=0, figures=figures, trials=(trial,), opened_seq=trial.opened_seq,
        )  # fmt: skip

    def effect(self):
        """As in a usual night."""
        kind = self.rng.random()
        if kind < 0.3:
            return self.rng.exponential(5 * SIGMA)
        return self.rng.normal(0, 0.5 * SIGMA) if kind < 0.9 else -self.rng.exponential(2 * SIGMA)

    def campaign(self, num, late=0):
        """A champion and so many candidates; of them `late` look bad until the very end."""
        champion = self.champion()
        made = [self.training(self.effect()) for _ in range(num - late)]
        made += [self.training(-5 * SIGMA, late=True) for _ in range(late)]
        order = self.rng.permutation(num)
        return [champion, *(self.candidate(at + 1, *made[which], champion) for at, which in enumerate(order))]
