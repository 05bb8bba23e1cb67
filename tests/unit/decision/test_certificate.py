"""The certificate: its verdicts, its error, and pairs that one disturbed trial cannot decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runner.decision import effect_prior
from runner.decision.certificate import judge
from runner.decision.keep_rule import Action, Belief
from runner.decision.tip import TipRule

SIGMA, SHARE = 0.001, 0.6
PAIRED_SIGMA = SIGMA * (2 * (1 - SHARE)) ** 0.5
RULE = TipRule(paired_share=SHARE)
PRIOR = effect_prior.prior(SIGMA)
BELIEF = Belief(prior=PRIOR, weights=PRIOR.weights, sigma_bpb=SIGMA, freedom=40.0)


def judged(*deltas, share=SHARE, belief=BELIEF, **changes):
    """A certificate whose pairs differ by these amounts, under seeds that differ by more."""
    pairs = [(2.0 + 0.01 * at + delta, 2.0 + 0.01 * at) for at, delta in enumerate(deltas)]
    return judge(replace(RULE, paired_share=share), belief, pairs, **changes)


def test_a_clear_gain_is_certified_after_the_least_number_of_pairs():
    assert judged(-0.004).action is Action.TRY_AGAIN
    found = judged(-0.004, -0.004)
    assert found.action is Action.KEEP and found.delta_bpb == pytest.approx(-0.004)
    assert found.reason == f"better by 0.0040 ± {found.se_bpb:.4f} bpb in 2 pairs"
    assert found.effect_bpb == found.delta_bpb, "fresh seeds have chosen nothing: there is no luck to subtract"


def test_a_tip_that_is_not_worth_a_commit_is_rolled_back():
    for delta in (0.002, 0.0, -0.0002):
        found = judged(delta, delta)
        assert found.action is Action.DISCARD and found.reason.endswith("not worth a commit")


def test_what_is_better_and_never_proven_ends_as_unclear():
    deltas = [-0.0006] * RULE.max_pairs
    assert [judged(*deltas[:n]).action for n in range(1, RULE.max_pairs)] == [Action.TRY_AGAIN] * 4
    assert judged(*deltas).action is Action.UNCLEAR


def test_the_standard_error_of_pairs_is_that_of_their_differences():
    assert judged(-0.001, -0.001).se_bpb == pytest.approx(PAIRED_SIGMA / 2**0.5)
    assert judged(-0.001, -0.001, share=0.0).se_bpb == pytest.approx(SIGMA)


def test_noise_that_is_hardly_known_widens_the_interval_and_asks_for_more():
    vague = replace(BELIEF, freedom=4.0)
    known, unsure = (judged(-0.0020, -0.0020, belief=belief) for belief in (BELIEF, vague))
    assert (known.action, unsure.action) == (Action.KEEP, Action.TRY_AGAIN)
    assert unsure.low_bpb < known.low_bpb and unsure.better < known.better


def test_pairs_that_contradict_each_other_prove_nothing():
    """One disturbed trial once made a keep that was over 99 % sure, and worth 0.15."""
    found = judged(-0.15, 0.0005)
    assert found.action is Action.TRY_AGAIN and "contradict each other" in found.reason
    assert judged(-0.15, 0.0005, 0.0004, -0.0003, 0.0).action is Action.UNCLEAR


def test_a_tip_that_only_simplifies_may_be_as_good():
    assert judged(0.0, 0.0).action is Action.DISCARD
    found = judged(0.0, 0.0, 0.0, simpler=True)
    assert found.action is Action.KEEP and found.reason.startswith("as good within the noise")
    assert judged(*[0.003] * RULE.max_pairs, simpler=True).action is Action.DISCARD


def certified(rng, effect, num=4000):
    """Share of certificates that end as a keep, for tips with this effect."""
    kept = 0
    for _ in range(num):
        seeds = rng.normal(0, SIGMA * SHARE**0.5, RULE.max_pairs)
        own = rng.normal(0, SIGMA * (1 - SHARE) ** 0.5, (RULE.max_pairs, 2))
        pairs = [
            (2 + seed + effect + tip, 2 + seed + champion)
            for seed, (tip, champion) in zip(seeds, own, strict=True)
        ]
        for count in range(1, RULE.max_pairs + 1):
            action = judge(RULE, BELIEF, pairs[:count]).action
            if action is not Action.TRY_AGAIN:
                kept += action is Action.KEEP
                break
    return kept / num


def test_a_tip_that_changes_nothing_is_rarely_certified_and_a_good_one_nearly_always():
    rng = np.random.default_rng(0)
    assert certified(rng, 0.0, 1500) <= 0.04, "one look costs 1 %; there are four, which are much alike"
    assert certified(rng, -4 * SIGMA, 200) >= 0.97
