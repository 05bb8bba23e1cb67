"""Synthetic campaigns in which many workers try a block of edits at the same time: a factorial design on the tip.

A block is n trials under one seed, a power of two, with n − 1 edits. Each edit is present in half of the trials,
as the rows of a Hadamard matrix have it, so that the contrast of an edit averages over all n trials: its standard
error is 2 σ √((1 − ρ)/n), where one trial against a well-known tip has σ √(1 − ρ). What is probably better goes
onto the tip, and the union is certified as in `runner/decision/tip.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.decision import effect_prior, tip
from runner.decision.effect_prior import Floats
from runner.decision.tip import TipRule
from runner.decision.tip_campaigns import TipCampaigns
from runner.decision.worlds import Outcome, Setting


@dataclass(frozen=True, kw_only=True)
class Block:
    """A design, and how edits in it depend on each other."""

    size: int  # trials, a power of two
    redundant: float = 0.0  # probability that two neighboring edits that help achieve the same
    breaking: float = 0.0  # probability that two neighboring edits crash together


def block_rule(
    setting: Setting, num: int, rng: np.random.Generator, *, block: Block, rule: TipRule | None = None
) -> Outcome:
    """Apply the tip rule with blocks."""
    campaigns = _BlockCampaigns(setting, num, rng, rule or TipRule(), block)
    while campaigns.step():
        pass
    return campaigns.outcome()


def design(size: int) -> Floats:
    """Presence of edits in trials: (n, n − 1) of 0 and 1, columns orthogonal around one half."""
    signs = np.ones((1, 1))
    while len(signs) < size:
        signs = np.block([[signs, signs], [signs, -signs]])
    return np.asarray((signs[:, 1:] + 1) / 2)


class _BlockCampaigns(TipCampaigns):
    def __init__(self, setting: Setting, num: int, rng: np.random.Generator, rule: TipRule, block: Block) -> None:
        super().__init__(setting, num, rng, rule)
        self.block, self.present = block, design(block.size)
        self.explore_cost = float(block.size)

    def _explore(self, exploring: npt.NDArray[np.bool_]) -> None:
        size, present = self.block.size, self.present
        effects = np.stack([self.ideas.draw(-self.tip.truth) for _ in range(size - 1)], axis=1)
        pairs = effects[:, 0:-1:2], effects[:, 1::2]
        repeats = (self.rng.random(pairs[0].shape) < self.block.redundant) & (pairs[0] < 0) & (pairs[1] < 0)
        lost = np.where(repeats, -np.maximum(*pairs), 0)  # what the lesser one does not add
        breaks = self.rng.random(pairs[0].shape) < self.block.breaking
        both = present[:, 0:-1:2] * present[:, 1::2]  # (n, pairs)
        own = np.stack([self.machine.own() for _ in range(size)], axis=1)
        scores = (self.seed + self.tip.truth)[:, None] + effects @ present.T + lost @ both.T + own
        ran = ~((breaks.astype(float) @ both.T) > 0)  # (N, n): the others have crashed
        estimates, se = _contrasts(scores, ran, present, np.sqrt(self._own_variance()))
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)
        found = effect_prior.posterior(self.prior, weights[:, None, :], estimates, se)
        accepted = tip.accepts(self.rule, found, self._sigma[:, None]) & exploring[:, None]
        crashing = breaks & accepted[:, 0:-1:2] & accepted[:, 1::2]
        accepted[:, 1::2] &= ~crashing  # seen in the block: the two do not go together
        at = np.flatnonzero(exploring)
        learned = effect_prior.responsibilities(self.prior, weights[at, None, :], estimates[at], se[at])
        self.counts[at] += learned.sum(axis=1)
        together = accepted[:, 0:-1:2] & accepted[:, 1::2]
        self.tip.truth += (effects * accepted).sum(axis=1) + (lost * together).sum(axis=1)
        self.tip.edits += accepted.sum(axis=1)
        self.tip.false_edits += (accepted & (effects >= 0)).sum(axis=1) + (together & repeats).sum(axis=1)
        self.worth += np.where(accepted, found.mean, 0).sum(axis=1)
        self.spent[at] += size
        self.since[at] += size
        self.candidates[at] += size - 1
        self.trials[at] += size


def _contrasts(
    scores: Floats, ran: npt.NDArray[np.bool_], present: Floats, own_sigma: Floats
) -> tuple[Floats, Floats]:
    """Effects and their standard errors from the trials that did not crash; (N, n − 1) each.

    Means with and without the edit: least squares where none crashed, nearly so where one or two did.

    Args:
        scores: (N, n) in bpb.
        ran: (N, n).
        present: (n, n − 1).
        own_sigma: (N,) of one trial, without what its seed has in common.
    """
    centered = np.where(
        ran, scores - (scores * ran).sum(axis=1, keepdims=True) / ran.sum(axis=1, keepdims=True), 0
    )
    halves = np.stack([(ran @ present), (ran @ (1 - present))])  # trials with and without the edit
    with_edit, without = (centered @ present) / halves[0], (centered @ (1 - present)) / halves[1]
    return with_edit - without, own_sigma[:, None] * np.sqrt(1 / halves[0] + 1 / halves[1])
