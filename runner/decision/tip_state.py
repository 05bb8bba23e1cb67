"""The tip of one campaign: what is known of it, as a pure fold over what was measured, in the order of closing.

    idea judged        the level of the tip, and what accepted edits promise
    tip measured again its level; a machine that has changed begins a new *era*
    certificate        a new champion, or back to the old one; either was just measured under a fresh seed, which
                       becomes the exploration seed, so that a new one costs no trial

The rule itself is in `runner/decision/tip.py`, on arrays; here the arrays have no dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from runner.decision import tip
from runner.decision.effect_prior import Floats
from runner.decision.history import ROLLED_BACK, Pair, first_scored, pairs_of, scored
from runner.decision.keep_rule import SIMPLIFICATION, Belief
from runner.records import Experiment, Trial, Verdict

NO_EVIDENCE = np.zeros(len(tip.SHARES))


@dataclass(frozen=True, kw_only=True)
class Level:
    """Score of a program under the exploration seed, as far as it is known."""

    mean: float  # bpb
    variance: float  # bpb²

    @property
    def as_arrays(self) -> tip.Level:
        """The same for `runner.decision.tip`."""
        return tip.Level(np.array(self.mean), np.array(self.variance))


@dataclass(frozen=True, kw_only=True)
class Tip:
    """The champion with all edits accepted since."""

    champion: int
    seed: int  # the exploration seed
    level: Level
    champion_level: Level
    edits: tuple[int, ...] = ()  # experiments accepted since the champion, oldest first
    worth_bpb: float = 0.0  # sum of their expected effects; negative is better
    trials: int = 0  # ideas judged since the last certificate
    conceded_bpb: float = 0.0  # what accepted simplifications are expected to cost, in this campaign so far
    suspect_bpb: float | None = None  # a control that was far away, as long as nothing explains it
    era_seq: int = 0  # scores of trials closed before are those of another machine
    log_shares: Floats  # (S,) log probabilities of `tip.SHARES`, up to a constant

    @property
    def number(self) -> int:
        """The experiment whose program it is."""
        return self.edits[-1] if self.edits else self.champion


def own_variance(known: Tip, sigma_bpb: float) -> float:
    """Variance of one trial without what its seed has in common, in bpb²."""
    return float(tip.own_variance(known.log_shares, np.array(sigma_bpb)))


def first(baseline: Experiment, sigma_bpb: float, log_shares: Floats) -> Tip | None:
    """The tip of a campaign whose baseline is measured; None where that has no score.

    Args:
        log_shares: what a calibration says of the seed share.
    """
    trial = first_scored(baseline.trials)
    if trial is None or trial.val_bpb is None:
        return None
    variance = float(tip.own_variance(log_shares, np.array(sigma_bpb)))
    level = Level(mean=trial.val_bpb, variance=variance)
    return Tip(
        champion=baseline.number,
        seed=trial.seed,
        level=level,
        champion_level=level,
        log_shares=log_shares,
    )


def explored(known: Tip, belief: Belief, score_bpb: float) -> tip.Explored:
    """Understand the score of an edit on the tip; see `tip.explore`."""
    own = np.array(own_variance(known, belief.sigma_bpb))
    return tip.explore(belief.prior, belief.weights, known.level.as_arrays, np.array(score_bpb), own)


def after_idea(known: Tip, belief: Belief, experiment: Experiment) -> Tip:
    """The tip after the verdict on an edit of it."""
    trials, accepted = scored(experiment.trials), experiment.verdict is Verdict.ACCEPT
    if accepted:
        known = replace(known, edits=(*known.edits, experiment.number))
    if not trials or trials[-1].val_bpb is None or trials[-1].seed != known.seed or experiment.figures is None:
        return known
    trial = trials[-1]
    assert trial.val_bpb is not None
    found = explored(known, belief, trial.val_bpb)
    evidence = tip.share_from_trial(
        belief.prior,
        belief.weights,
        np.array(trial.val_bpb - known.level.mean),
        np.array(known.level.variance),
        np.array(belief.sigma_bpb),
    )
    effect = float(found.effect.mean) if accepted else 0.0
    return replace(
        known,
        level=_level(found.accepted if accepted else found.rejected),
        worth_bpb=known.worth_bpb + effect,
        conceded_bpb=known.conceded_bpb + (max(0.0, effect) if experiment.category == SIMPLIFICATION else 0.0),
        trials=known.trials + 1,
        log_shares=known.log_shares + evidence,
    )


def after_control(known: Tip, sigma_bpb: float, trial: Trial) -> Tip:
    """The tip after it was measured again under the exploration seed.

    A score that is far from its level is believed only once another one agrees with it: the machine has changed
    then, and a new era begins. Else it was disturbed, and counts for nothing.
    """
    assert trial.val_bpb is not None
    before = np.nan if known.suspect_bpb is None else known.suspect_bpb
    own, score = np.array(own_variance(known, sigma_bpb)), np.array(trial.val_bpb)
    found = tip.measured_again(known.level.as_arrays, own, score, np.array(before))
    if found.suspect:
        return replace(known, suspect_bpb=trial.val_bpb)
    after = replace(known, level=_level(found.level), suspect_bpb=None)
    if not found.moved:
        return after
    moved = after.level.mean - known.level.mean
    champion_level = replace(known.champion_level, mean=known.champion_level.mean + moved)
    return replace(after, champion_level=champion_level, era_seq=trial.opened_seq)


def after_certificate(known: Tip, sigma_bpb: float, certificate: Experiment, champion: Experiment) -> Tip:
    """The tip after the verdict on it.

    Args:
        champion: that it was compared with.
    """
    pairs = pairs_of(certificate, champion)
    if certificate.verdict not in (Verdict.KEEP, Verdict.UNCLEAR, *ROLLED_BACK):
        return replace(known, trials=0)  # it says nothing, and is asked for again after other ideas
    known = replace(known, log_shares=known.log_shares + _share_evidence(pairs, sigma_bpb), trials=0)
    own = own_variance(known, sigma_bpb)
    kept, stays = certificate.verdict is Verdict.KEEP, certificate.verdict is Verdict.UNCLEAR
    if pairs:  # the first pair's seed explores from now on
        of_tip, of_champion = (
            Level(mean=one.val_bpb or 0.0, variance=own) for one in (pairs[0].tip, pairs[0].champion)
        )
        known = replace(known, seed=pairs[0].tip.seed, level=of_tip, champion_level=of_champion, suspect_bpb=None)
    if kept:
        return replace(known, champion=certificate.number, champion_level=known.level, edits=(), worth_bpb=0.0)
    if stays:
        measured = 0.0 if certificate.delta_bpb is None else certificate.delta_bpb
        return replace(known, worth_bpb=measured / 2)
    return replace(known, level=known.champion_level, edits=(), worth_bpb=0.0)


def _share_evidence(pairs: tuple[Pair, ...], sigma_bpb: float) -> Floats:
    if len(pairs) < 2:
        return NO_EVIDENCE
    deltas = np.array([pair.delta_bpb for pair in pairs])
    squares = ((deltas - deltas.mean()) ** 2).sum()
    return tip.share_from_pairs(np.array(float(len(pairs))), np.asarray(squares), np.array(sigma_bpb))


def _level(found: tip.Level) -> Level:
    return Level(mean=float(found.mean), variance=float(found.variance))
