"""How often audits find cheats, and how often they accuse honest models; `pytest -s` prints the tables.

Synthetic claims of 8,192 rows stand for those of a model. Only what the verdict rests on is simulated: the draw
by its formula, the overstatement at the drawn positions, and the functions that judge it. Positions that would
show by their dependence on suffix or neighbors are not given that chance, so real audits find more.

A cheat overstates its claims by 0.003 nats per token in the mean. An audit detects it when it refuses the claims,
or when it adds at least as much to the score as the claims overstate: then the cheat has gained nothing over
telling the truth. Refusals alone are counted as well.

A cache of other rows is honest towards the base answers. What counts against it are the positions that are asked
again in the container that does not hold those rows: one for 32 audited rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from locked_eval.judging.distributions import clamp
from locked_eval.judging.draw import GAIN_FLOOR_NATS, draw
from locked_eval.judging.estimate import Estimate, charge, estimate
from locked_eval.judging.findings import Dependence, HonestNoise, resolve_findings
from runner.config import load
from tests.support.replicates import replicates

ROWS, LENGTH, VOCABULARY = 8192, 64, 8192
GAIN_NATS = 0.003
AUDITS = replicates(100)
HONEST_AUDITS = 1000
SILENT = Dependence(None, None, None)
ASKED_AGAIN = 1 / 32
"""Share of the audited rows that are asked again among other rows: half of the slots of one batch in 16."""


def limits(profile):
    """The honest noise that a profile allows."""
    config = load(Path("/nonexistent"), {"profile": profile}, environ={})
    return HonestNoise(exceedance_rates=config.honest_exceedances, dependence=config.honest_dependence)


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """Claims of a model, and what it predicts when it cannot see the answers."""

    claims: np.ndarray  # (N, T)
    champion: np.ndarray  # (N, T)
    truth: np.ndarray  # (N, T)

    @property
    def weights(self):
        return np.maximum(GAIN_FLOOR_NATS, self.claims - self.champion)

    @property
    def overstatements(self):
        return clamp(self.claims, VOCABULARY) - clamp(self.truth, VOCABULARY)


class Auditor:
    """Repeated audits of one claimant."""

    def __init__(self, claimant, rng):
        self.rng = rng
        weights = claimant.weights
        self.cumulated = np.cumsum(weights.ravel())
        self.ends = np.concatenate([[0.0], self.cumulated[LENGTH - 1 :: LENGTH]])
        self.totals = np.diff(self.ends)
        probabilities = 0.5 / LENGTH + 0.5 * weights / self.totals[:, None]
        self.facts = np.stack([claimant.overstatements, probabilities], axis=2).reshape(-1, 2)  # (N·T, 2)

    @property
    def overstated(self):
        """The mean that audits estimate."""
        return float(self.facts[:, 0].mean())

    def audit(self, num_rows=ROWS, noise=0.0):
        """Overstatements, probabilities and halves of one audit; `noise` (nats) is added to the answers."""
        rows = np.arange(ROWS) if num_rows == ROWS else np.sort(self.rng.choice(ROWS, num_rows, replace=False))
        even = self.rng.random(num_rows) < 0.5
        place = self.rng.random(num_rows)
        begin = rows * LENGTH
        positions = begin + (place * LENGTH).astype(int)
        at = rows[~even]
        steered = np.searchsorted(self.cumulated, self.ends[at] + place[~even] * self.totals[at], side="right")
        positions[~even] = np.minimum(steered, begin[~even] + LENGTH - 1)
        found, probabilities = self.facts[positions].T
        if noise:
            found = found + noise * self.rng.standard_normal(num_rows)
        return found, probabilities, even


def judge(audit, noise, dependence=SILENT):
    """Estimate and findings of one audit."""
    overstatements, probabilities, even = audit
    found = estimate(overstatements, probabilities, num_rows=ROWS, num_tokens=ROWS * LENGTH)
    return found, resolve_findings(
        num_unusable=0, found=found, paired=None, even=overstatements[even], dependence=dependence, noise=noise
    )


def judge_pairs(audit, noise, variation=None):
    """Charge and findings of positions asked again, of a claimant whose claims are what its base answers say."""
    gains, probabilities, _ = audit
    paired = estimate(gains, probabilities, num_rows=ROWS, num_tokens=ROWS * LENGTH)
    return charge(paired, len(gains), noise.dependence), resolve_findings(
        num_unusable=0,
        found=Estimate(0.0, 0.0, 0.0),
        paired=paired,
        even=np.zeros(0),
        dependence=Dependence(None, None, variation),
        noise=noise,
    )


def honest_model(rng):
    """Log-probabilities with a mean of 3.07 nats, and those of a champion that is as good: 0.2 nats apart."""
    truth = np.maximum(-3.4 * rng.weibull(1.5, (ROWS, LENGTH)), -16)
    return truth, np.minimum(truth + rng.laplace(0, 0.2, truth.shape), 0)


def raised(truth, direction, start=None):
    """Claims raised along a direction until they overstate by `GAIN_NATS` in the mean; none comes above 0."""
    start = truth if start is None else start
    at = direction > 0
    wanted = GAIN_NATS * truth.size + (clamp(truth, VOCABULARY) - clamp(start, VOCABULARY)).sum()
    lows, steps = start[at], direction[at]
    before = clamp(lows, VOCABULARY).sum()
    low, high = 0.0, 16 / steps.max()
    for _ in range(24):
        middle = (low + high) / 2
        enough = clamp(np.minimum(lows + middle * steps, 0), VOCABULARY).sum() - before >= wanted
        low, high = (low, middle) if enough else (middle, high)
    claims = start.copy()
    claims[at] = np.minimum(lows + high * steps, 0)
    return claims


def hardest(truth, share):
    return truth <= np.quantile(truth, share)


def mixed_in(truth, nats=GAIN_NATS, known=True):
    """The true token mixed in with a small weight, the same wherever it is known."""
    at = np.broadcast_to(known, truth.shape)
    before = np.exp(truth[at])
    wanted = nats * truth.size + truth[at].sum()
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        enough = np.log((1 - middle) * before + middle).sum() >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return np.where(at, np.log((1 - high) * np.exp(truth) + high), truth)


def like_the_champion(truth, champion):
    """Claims that copy the champion's where it is better by most, and nowhere exceed them."""
    behind = (champion - truth).ravel()
    order = np.argsort(-behind)
    enough = np.searchsorted(np.cumsum(behind[order]), GAIN_NATS * truth.size) + 1
    claims = truth.copy().ravel()
    claims[order[:enough]] = champion.ravel()[order[:enough]]
    return claims.reshape(truth.shape)


def cheats(rng):
    """Claimants by name, and the noise that each adds to its answers."""
    truth, champion = honest_model(rng)
    places = np.broadcast_to(np.arange(LENGTH), truth.shape)
    rows = np.broadcast_to(np.arange(ROWS)[:, None], truth.shape)

    def of(claims, noise=0.0, champion=champion):
        return Claimant(claims=claims, champion=champion, truth=truth), noise

    yield "every token a little", of(raised(truth, np.ones(truth.shape)))
    yield "the true token mixed in", of(mixed_in(truth))
    yield "hardest 1 % of the tokens", of(raised(truth, hardest(truth, 0.01)))
    yield "hardest 0.1 %", of(raised(truth, hardest(truth, 0.001)))
    yield "hardest 0.03 %", of(raised(truth, hardest(truth, 0.0003)))
    yield (
        "0.1 % of the tokens, random hard ones",
        of(raised(truth, (rng.random(truth.shape) < 0.004) & (truth < -4))),
    )
    yield "every 16th position", of(raised(truth, places % 16 == 15))
    yield "every 64th position", of(raised(truth, places % 64 == 63))
    yield "everything in 16 rows", of(raised(truth, rows % 512 == 7))
    yield "raised up to the champion, dense", of(raised(truth, np.maximum(champion - truth, 0)))
    yield "copies the champion, largest first", of(like_the_champion(truth, champion))
    yield "hardest 0.1 %, rest understated", of(raised(truth, hardest(truth, 0.001), truth - 0.004))
    yield "every token, noise in the audit", of(raised(truth, np.ones(truth.shape)), 1.0)
    yield "hardest 0.1 %, noise in the audit", of(raised(truth, hardest(truth, 0.001)), 0.3)
    favored = (rng.random(truth.shape) < 0.007) & (truth < -6.5)
    ahead = np.where(favored, truth + 6, champion)
    yield WORST, of(like_the_champion(truth, ahead), champion=ahead)


WORST = "copies a champion that is 6 nats ahead on few tokens"
WORST_POWER = 0.85
"""Below 0.95, and documented: where claims stay below the champion, only the even half looks."""


@pytest.fixture(scope="module")
def power():
    """By cheat: the mean overstatement; shares detected and refused, first as on a GPU, then as on a CPU."""
    rng = np.random.default_rng(20)
    table = {}
    for name, (claimant, added) in cheats(rng):
        auditor = Auditor(claimant, rng)
        overstated = auditor.overstated
        figures = []
        for num_rows, noise in ((ROWS, limits("cuda")), (2048, limits("cpu"))):
            detected = refused = 0
            for _ in range(AUDITS):
                found, findings = judge(auditor.audit(num_rows, added), noise)
                refused += bool(findings)
                detected += bool(findings) or found.upper >= overstated
            figures += [detected / AUDITS, refused / AUDITS]
        table[name] = (overstated, *figures)
    print(f"\n| cheat ({AUDITS} audits each) | nats | detected | refused | 2,048 rows, cpu: detected | refused |")
    for name, row in table.items():
        print(f"| {name} | {row[0]:.5f} | " + " | ".join(f"{value:.3f}" for value in row[1:]) + " |")
    return table


def test_every_cheat_overstates_as_much_as_it_should(power):
    for name, (overstated, *_) in power.items():
        assert overstated == pytest.approx(GAIN_NATS, rel=0.05), name


def test_an_audit_detects_95_percent_of_every_kind_of_cheat(power):
    for name, (_, detected, *_) in power.items():
        assert detected >= (WORST_POWER if name == WORST else 0.95), name


CACHE_WEIGHT = 0.0099  # just below the limit of the mean total variation on `cuda`
CACHE_POWER = 0.95
CACHE_FLOOR_NATS = 0.01
"""Below, 256 positions see too few of the gains; measured and documented."""


def caches(rng):
    """Claimants that know something from other rows: by name, with their mean total variation."""
    truth, champion = honest_model(rng)

    def of(base, elsewhere=0.0):
        right = base > truth
        moved = np.where(right, np.exp(base) - np.exp(truth), elsewhere)
        return Claimant(claims=base, champion=champion, truth=truth), float(moved.mean())

    for share in (0.18, 0.1, 0.05, 0.025):
        right = rng.random(truth.shape) < share
        mixed = np.log((1 - CACHE_WEIGHT) * np.exp(truth) + CACHE_WEIGHT * right)
        yield f"0.99 % of a cache that is right for {100 * share:g} %", of(mixed, CACHE_WEIGHT)
    for nats in (0.03, 0.01, GAIN_NATS):
        yield f"always right, mixed in for {nats:g} nats", of(mixed_in(truth, nats))
    known = rng.random(truth.shape) < 0.02
    for nats in (0.01, GAIN_NATS):
        yield f"knows 2 % of the tokens, mixed in for {nats:g} nats", of(mixed_in(truth, nats, known))
    yield "every token a little", of(raised(truth, np.ones(truth.shape)))
    yield "hardest 0.1 %", of(raised(truth, hardest(truth, 0.001)))


@pytest.fixture(scope="module")
def cached():
    """By cache: gain in nats, total variation; shares detected and refused and the mean charge, GPU and CPU."""
    rng = np.random.default_rng(23)
    table = {}
    for name, (claimant, variation) in caches(rng):
        auditor = Auditor(claimant, rng)
        gained = auditor.overstated
        figures = []
        for num_rows, noise in ((ROWS, limits("cuda")), (2048, limits("cpu"))):
            detected = refused = 0
            charges = []
            for _ in range(AUDITS):
                charged, findings = judge_pairs(auditor.audit(int(num_rows * ASKED_AGAIN)), noise, variation)
                refused += bool(findings)
                detected += bool(findings) or charged >= gained
                charges.append(charged)
            figures += [detected / AUDITS, refused / AUDITS, float(np.mean(charges))]
        table[name] = (gained, variation, *figures)
    print(f"\n| cache ({AUDITS} audits each) | nats | variation | detected | refused | charge | 2,048 rows: … |")
    for name, (gained, variation, *figures) in table.items():
        shown = " | ".join(f"{value:.4f}" for value in figures)
        print(f"| {name} | {gained:.5f} | {variation:.5f} | {shown} |")
    return table


def test_a_cache_of_other_rows_below_the_limit_gains_nothing(cached):
    limit = limits("cuda").dependence
    for name, (gained, variation, detected, *_) in cached.items():
        assert variation < limit, name
        assert gained < CACHE_FLOOR_NATS * 0.9 or detected >= CACHE_POWER, name


def test_a_cache_is_charged_more_than_it_gains_on_average(cached):
    for name, (gained, _, _, refused, charged, *_) in cached.items():
        assert charged > gained or refused == 1, name


def heavy_tails(rng, rates, shape):
    """Noise in nats, both signs, that exceeds 0.1, 0.3 and 1 nats about as often as the limits of a profile."""
    tail = np.log(rates[0] / rates[1]) / np.log(3)
    chance = rng.random(shape)
    large = 0.1 * (np.maximum(chance, 1e-9) / (2 * rates[0])) ** (-1 / tail)
    return np.where(chance < 2 * rates[0], large * rng.choice([-1, 1], shape), rng.normal(0, 0.02, shape))


def honest_claimants(rng):
    """Honest claimants by name, with the limits that hold for them and the noise of their answers."""
    truth, champion = honest_model(rng)
    cuda = limits("cuda")
    tails = np.minimum(truth + heavy_tails(rng, cuda.exceedance_rates, truth.shape), 0)
    exact = np.minimum(truth + rng.normal(0, 1e-6, truth.shape), 0)
    yield "float32", Claimant(claims=exact, champion=champion, truth=truth), limits("cpu"), 1e-6
    yield "bfloat16, heavy tails", Claimant(claims=tails, champion=champion, truth=truth), cuda, 0.01
    yield "bfloat16, same model as the champion", Claimant(claims=tails, champion=truth, truth=truth), cuda, 0.01


def paired_noise(rng, noise, added, shape):
    """Nats between honest answers with and without other rows: E|e| = L, twice a total variation of L/2."""
    if added < 1e-3:  # float32 is far below its limit
        return added * rng.standard_normal(shape)
    tails = heavy_tails(rng, noise.exceedance_rates, shape)
    return tails * (noise.dependence / HEAVY_TAILS_NATS)


HEAVY_TAILS_NATS = 0.0163
"""E|x| of `heavy_tails` at the rates of `cuda`."""


@pytest.fixture(scope="module")
def alarms():
    """By honest model: false alarms, mean and largest surcharge in nats per token, the charge's mean."""
    rng = np.random.default_rng(21)
    table = {}
    for name, claimant, noise, added in honest_claimants(rng):
        auditor = Auditor(claimant, rng)
        refused, surcharges, charges = 0, [], []
        for _ in range(HONEST_AUDITS):
            variations = [
                float((noise.dependence / 2 * rng.lognormal(-0.5, 1, size=128)).mean()) for _ in range(3)
            ]
            found, findings = judge(auditor.audit(ROWS, added), noise, Dependence(*variations))
            _, probabilities, even = auditor.audit(int(ROWS * ASKED_AGAIN))
            charged, more = judge_pairs((paired_noise(rng, noise, added, even.shape), probabilities, even), noise)
            refused += bool(findings + more)
            surcharges.append(found.upper + charged)
            charges.append(charged)
        table[name] = (refused, float(np.mean(surcharges)), float(np.max(surcharges)), float(np.mean(charges)))
    print(f"\n| honest model ({HONEST_AUDITS} audits each) | refused | mean surcharge, nats | largest | charge |")
    for name, (refused, *figures) in table.items():
        print(f"| {name} | {refused} | " + " | ".join(f"{value:.6f}" for value in figures) + " |")
    return table


def test_honest_claims_are_refused_in_at_most_one_audit_in_a_thousand(alarms):
    assert sum(refused for refused, *_ in alarms.values()) <= len(alarms) * HONEST_AUDITS / 1000


def test_honest_claims_cost_next_to_nothing(alarms):
    assert alarms["float32"][2] < 1e-6
    for name, (_, mean, _, charged) in alarms.items():
        assert mean < GAIN_NATS / 3, name
        assert charged < 0.0005, name


def test_the_simulated_draw_is_the_real_one():
    rng = np.random.default_rng(22)
    truth, champion = honest_model(rng)
    claimant = Claimant(claims=truth, champion=champion, truth=truth)
    real = draw(
        truth.astype(np.float32),
        champion.astype(np.float32),
        np.ones(truth.shape, bool),
        ROWS,
        lambda n: rng.random(n),
    )
    weights = claimant.weights
    expected = 0.5 / LENGTH + 0.5 * weights / weights.sum(axis=1, keepdims=True)
    assert real.probabilities == pytest.approx(expected[np.arange(ROWS), real.positions], rel=1e-4)
    found, probabilities, even = Auditor(claimant, rng).audit()
    assert found.shape == probabilities.shape == even.shape
    assert probabilities.mean() == pytest.approx(real.probabilities.mean(), rel=0.03)
