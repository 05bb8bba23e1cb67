"""The verification against closed forms, honest noise that must pass, and everything that must not."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from locked_eval.judging import distributions
from locked_eval.judging.draw import draw, system_uniforms
from locked_eval.judging.findings import HonestNoise
from locked_eval.judging.judge import Score
from locked_eval.judging.plan import Pass, make_plan
from locked_eval.judging.verify import Audit, Committed, audited_bpb, verify

VOCABULARY = 50
LENGTH = 10
NOISE = HonestNoise(exceedance_rates=(1e-5, 1e-5, 1e-5, 1e-5), dependence=1e-4)


class World:
    """Validation rows, and a model whose logits follow from the last token alone: honest, causal, repeatable."""

    def __init__(self, num_rows=64, num_audited=None, gain=0.0, champion=None, uniforms=system_uniforms):
        rng = np.random.default_rng(0)
        self.table = rng.normal(0, 2, (VOCABULARY, VOCABULARY)).astype(np.float32)
        self.tokens = rng.integers(0, VOCABULARY, (num_rows, LENGTH + 1), dtype=np.uint16)
        self.targets = self.tokens[:, 1:]
        self.counted = np.ones(self.targets.shape, bool)
        exact = self.table.astype(np.float64)
        log_softmax = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
        honest = log_softmax[self.tokens[:, :-1], self.targets]
        self.claims = np.minimum(honest + gain, 0).astype(np.float32)
        self.drawn = draw(self.claims, champion, self.counted, num_audited or num_rows, uniforms)
        train = rng.integers(0, VOCABULARY, 500, dtype=np.uint16)
        self.plan = make_plan(self.tokens, train, self.drawn, 8, uniforms)
        self.slots = np.flatnonzero(self.plan.positions >= 0)
        self.logits = self.table[self.plan.inputs[self.slots, self.plan.positions[self.slots]]].copy()

    def of(self, kind):
        """Which answers belong to a pass."""
        return np.flatnonzero(self.plan.passes[self.slots] == kind)

    def verify(self, noise=NOISE):
        committed = Committed(claims=self.claims, targets=self.targets, counted=self.counted)
        return verify(self.plan, self.drawn, self.logits, committed, noise)

    def names(self, noise=NOISE):
        return [finding.name for finding in self.verify(noise).findings]


# Honest


@pytest.mark.parametrize("num_rows", [1, 2, 10, 64, 500])
def test_an_honest_model_is_confirmed(num_rows):
    audit = World(num_rows).verify()
    assert audit.findings == ()
    assert audit.num_positions == num_rows
    assert audit.mean_nats == pytest.approx(0, abs=1e-6)
    assert audit.upper_nats < 1e-6
    assert audit.exceedances == (0, 0, 0, 0)
    assert audit.repeat == 0


def test_an_honest_model_is_confirmed_by_some_of_its_rows():
    audit = World(500, num_audited=10).verify()
    assert audit.findings == ()
    assert audit.num_positions == 10


def test_a_logit_of_minus_infinity_is_a_probability_of_zero_and_no_fault():
    world = World()
    rows = world.plan.rows[world.slots]
    truth = world.targets[rows, world.plan.positions[world.slots]]
    world.logits[np.arange(len(rows)), (truth + 1) % VOCABULARY] = -np.inf
    assert "not_finite" not in world.names()


def test_logits_may_have_any_offset():
    world = World()
    world.logits += 1000
    audit = world.verify()
    assert audit.findings == ()
    assert audit.upper_nats < 1e-3


def test_what_was_not_asked_again_is_not_measured():
    audit = World(1).verify()
    assert audit.neighbors is None


def test_targets_that_do_not_count_are_not_in_the_mean():
    world = World(200, gain=0.05)
    world.counted[:, ::2] = False
    world.claims[:, ::2] = 0.0  # false, but no candidate gains by it
    world.drawn = draw(world.claims, None, world.counted, 200)
    world.plan = make_plan(world.tokens, world.tokens.reshape(-1), world.drawn, 8)
    world.slots = np.flatnonzero(world.plan.positions >= 0)
    world.logits = world.table[world.plan.inputs[world.slots, world.plan.positions[world.slots]]]
    assert world.verify().mean_nats == pytest.approx(0.05, rel=0.1)


# Refused


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_one_logit_that_is_no_number_is_a_finding(value):
    world = World()
    world.logits[3, 7] = value
    audit = world.verify()
    assert audit.findings[0].name == "not_finite"
    assert audit.findings[0].value == 1
    assert math.isfinite(audit.mean_nats + audit.se_nats + audit.upper_nats + audit.repeat)


def test_logits_that_exclude_every_token_are_a_finding():
    world = World()
    world.logits[3] = -np.inf
    assert world.names()[0] == "not_finite"


def test_claims_that_are_too_good_everywhere_are_overstated():
    audit = World(500, gain=0.05).verify()
    (finding,) = audit.findings
    assert finding.name == "overstated"
    assert finding.value == audit.mean_nats == pytest.approx(0.05, rel=0.1)
    assert finding.sentence.startswith("overstated: the claims are better than the audit by 0.0")


def test_claims_that_are_much_too_good_in_few_places_are_exceedances():
    world = World(500)
    world.claims[:4] = 0.0
    audit = world.verify()
    (finding,) = [finding for finding in audit.findings if finding.name == "exceedances"]
    assert finding.value >= 3
    assert "nats, honest limit 1" in finding.sentence or "nats, honest limit 0" in finding.sentence


def test_claims_that_are_too_low_are_no_finding_and_no_bonus():
    audit = World(500, gain=-0.3).verify()
    assert audit.findings == ()
    assert audit.mean_nats < -0.2
    assert audit.upper_nats == 0


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (Pass.REPEAT, "not_repeatable", "the same batch gives other logits"),
        (Pass.SUFFIX, "not_causal", "logits at a position change when later tokens change"),
        (Pass.NEIGHBORS, "not_independent", "logits of a row change when other rows do"),
    ],
)
def test_answers_that_differ_between_passes_name_their_cause(kind, name, words):
    world = World()
    world.logits[world.of(kind)] += np.linspace(0, 1, VOCABULARY, dtype=np.float32)
    (finding,) = world.verify().findings
    assert finding.name == name
    assert words in finding.sentence
    assert f"mean total variation {finding.value:.2g}" in finding.sentence


def test_dependence_within_the_honest_limit_is_none():
    world = World()
    for kind in (Pass.REPEAT, Pass.SUFFIX, Pass.NEIGHBORS):
        world.logits[world.of(kind)] += np.linspace(0, 1e-5, VOCABULARY, dtype=np.float32)
    audit = world.verify()
    assert audit.findings == ()
    assert min(audit.repeat, audit.suffix, audit.neighbors) > 0


def cached(weight, share=0.2, num_rows=2000):
    """A world whose base answers mix in that much of a cache of other rows, right for a share of the tokens."""
    world = World(num_rows, uniforms=np.random.default_rng(11).random)
    known = np.random.default_rng(3).random(world.targets.shape) < share
    odds = np.exp(world.claims.astype(float))
    world.claims = np.log((1 - weight) * odds + weight * known).astype(np.float32)
    slots = np.flatnonzero(world.plan.passes[world.slots] != Pass.NEIGHBORS)
    rows = world.plan.rows[world.slots[slots]]
    at = world.plan.positions[world.slots[slots]]
    exact = np.exp(world.logits[slots].astype(float))
    mixed = (1 - weight) * exact / exact.sum(axis=1, keepdims=True)
    guess = np.where(known[rows, at], world.targets[rows, at], (world.targets[rows, at] + 1) % VOCABULARY)
    mixed[np.arange(len(rows)), guess] += weight
    world.logits[slots] = np.log(mixed)
    return world, float((world.claims - np.log(odds)).mean())


CUDA = HonestNoise(exceedance_rates=(1e-3, 1e-4, 1e-5, 1e-5), dependence=0.01)


def test_a_cache_of_other_rows_below_the_limit_is_charged_for_what_it_gains():
    world, gained = cached(0.0099)
    audit = world.verify(CUDA)
    assert gained > 0.05
    assert audit.neighbors < CUDA.dependence
    assert audit.repeat == audit.suffix == 0
    assert audit.mean_nats == pytest.approx(0, abs=1e-6)  # its claims are what its answers say
    assert audit.upper_nats >= gained or "not_independent" in [finding.name for finding in audit.findings]


def test_a_proven_gain_from_other_rows_is_a_finding_in_nats():
    world, gained = cached(0.02, share=1.0)
    (finding,) = world.verify(HonestNoise(exceedance_rates=CUDA.exceedance_rates, dependence=0.05)).findings
    assert finding.name == "not_independent"
    assert finding.value == pytest.approx(gained, rel=0.5)
    assert (
        f"true tokens are more likely by {finding.value:.4f} nats per token where other rows" in finding.sentence
    )


def test_what_is_asked_alone_costs_nothing_when_it_is_answered_as_well():
    world, _ = cached(0.0)
    audit = world.verify(CUDA)
    assert audit.neighbors == pytest.approx(0, abs=1e-6)
    assert audit.findings == ()
    assert audit.upper_nats < 1e-6


def test_honest_noise_below_the_limit_is_not_charged_to_a_row_alone():
    world = World(2000, uniforms=np.random.default_rng(11).random)
    alone = world.of(Pass.NEIGHBORS)
    rng = np.random.default_rng(4)
    world.logits[alone] += rng.normal(0, 0.008, world.logits[alone].shape).astype(np.float32)
    audit = world.verify(CUDA)
    assert 0.002 < audit.neighbors < 0.005
    assert audit.findings == ()
    assert audit.upper_nats < 1e-6


def test_total_variation_is_that_of_the_definition():
    world = World()
    again = world.of(Pass.REPEAT)
    world.logits[again] = 0.0  # uniform
    rows = world.plan.rows[world.slots]
    exact = np.exp(world.table[world.tokens[rows[again], world.drawn.positions[rows[again]]]].astype(float))
    expected = 0.5 * np.abs(exact / exact.sum(axis=1, keepdims=True) - 1 / VOCABULARY).sum(axis=1).mean()
    assert world.verify().repeat == pytest.approx(expected, rel=1e-9)


def test_results_do_not_depend_on_how_answers_fall_into_blocks(monkeypatch):
    world = World(gain=0.1)
    world.logits[world.of(Pass.SUFFIX)] += np.linspace(0, 1, VOCABULARY, dtype=np.float32)
    whole = world.verify()
    monkeypatch.setattr(distributions, "_BLOCK_LOGITS", 3 * VOCABULARY)
    parts = world.verify()
    assert parts.mean_nats == whole.mean_nats
    assert parts.suffix == pytest.approx(whole.suffix, rel=1e-12)


def test_another_number_of_answers_is_refused():
    world = World()
    world.logits = world.logits[:-1]
    with pytest.raises(ValueError, match="vectors of logits where the plan wants"):
        world.verify()


# From the rows to the finding


def audited(model, num_rows=256):
    """Score and audit a model, `(B, T)` tokens → `(B, T, V)` logits, as scorer and auditor do."""
    world = World(num_rows)
    inputs = world.tokens[:, :-1]
    logits = np.concatenate([model(inputs[start : start + 8]) for start in range(0, num_rows, 8)]).astype(float)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    world.claims = np.take_along_axis(log_softmax, world.targets[..., None].astype(int), axis=2)[..., 0]
    world.claims = world.claims.astype(np.float32)
    world.drawn = draw(world.claims, world.claims - np.float32(0.1), world.counted, num_rows)
    world.plan = make_plan(world.tokens, world.tokens[::-1].reshape(-1), world.drawn, 8)
    answers = []
    for begin, end in pairwise(world.plan.edges.tolist()):
        positions = world.plan.positions[begin:end]
        wanted = np.flatnonzero(positions >= 0)
        answers.append(model(world.plan.inputs[begin:end])[wanted, positions[wanted]])
    world.logits = np.concatenate(answers).astype(np.float32)
    return world.verify()


TABLE = np.random.default_rng(9).normal(0, 2, (VOCABULARY, VOCABULARY)).astype(np.float32)


def counts_what_it_saw(tokens):
    """Honest: all earlier tokens of the row."""
    return TABLE[tokens].cumsum(axis=1) / np.sqrt(np.arange(1, LENGTH + 1))[:, None]


def looks_ahead(tokens):
    logits = counts_what_it_saw(tokens)
    following = np.eye(VOCABULARY)[tokens[:, 1:]]
    logits[:, :-1] += 0.5 * following
    return logits


def looks_at_other_rows(tokens):
    return counts_what_it_saw(tokens) + 0.1 * TABLE[tokens].mean(axis=0)


class Restless:
    """Another answer each time."""

    def __init__(self):
        self.rng = np.random.default_rng(10)

    def __call__(self, tokens):
        return counts_what_it_saw(tokens) + 0.1 * self.rng.normal(size=(*tokens.shape, VOCABULARY))


def test_a_causal_model_passes_from_end_to_end():
    audit = audited(counts_what_it_saw)
    assert audit.findings == ()
    assert audit.repeat == audit.suffix == audit.neighbors == 0
    assert audit.upper_nats < 1e-6


@pytest.mark.parametrize(
    ("model", "name"),
    [(looks_ahead, "not_causal"), (looks_at_other_rows, "not_independent"), (Restless(), "not_repeatable")],
    ids=["looks ahead", "looks at other rows", "restless"],
)
def test_a_model_that_breaks_the_contract_is_refused_for_what_it_does(model, name):
    assert audited(model).findings[0].name == name


def test_looking_ahead_is_charged_in_full():
    audit = audited(looks_ahead)
    assert "overstated" in [finding.name for finding in audit.findings]
    assert audit.mean_nats == pytest.approx(0.5 * 0.9, rel=0.15)  # 9 of 10 positions have a following token


def test_exceedances_are_counted_where_the_draw_was_even():
    world = World(400, champion=np.full((400, LENGTH), -20.0, dtype=np.float32))
    steered = np.flatnonzero(~world.drawn.even)
    world.claims[steered] = 0.0
    audit = world.verify()
    assert audit.exceedances[0] > 100
    assert "exceedances" not in [finding.name for finding in audit.findings]
    world.claims[world.drawn.even] = 0.0
    assert "exceedances" in world.names()


def test_the_audited_score_is_the_claim_and_what_the_audit_adds():
    score = Score(val_bpb=1.2, num_tokens=1000, num_bytes=4000, claims_sha256="")
    facts = {"num_positions": 8, "mean_nats": 0.0, "se_nats": 0.0, "exceedances": (0, 0, 0, 0)}
    rest = {"repeat": None, "suffix": None, "neighbors": None, "findings": ()}
    assert audited_bpb(score, Audit(upper_nats=0.0, **facts, **rest)) == 1.2
    assert audited_bpb(score, Audit(upper_nats=-1.0, **facts, **rest)) == 1.2
    assert audited_bpb(score, Audit(upper_nats=0.04, **facts, **rest)) == pytest.approx(1.2 + 0.01 / math.log(2))
