"""The verification: how far the claims of a candidate overstate what it predicts without the answers.

With p the probability of the true token, claimed or audited, both are clamped alike,

    p′ = (1 − ε) p + ε/V        ε = 10⁻³

and d = ln p′(claim) − ln p′(audit) is the overstatement at a drawn position, at most ln(V/ε) nats. One position
per row was drawn, with probability q, in n of the N rows that have targets that count; all of these have C:

    μ = N/n · Σ d/q / C                     overstatement per target, without bias
    se = N/C · sd(d/q) / √n                 as if rows were drawn with replacement: never too small on average
    upper = max(0, μ + 1.645 se)
    score = claimed bpb + (upper + charge) · C / (ln 2 · bytes)

The charge is for what a row gained from other rows while the total variation between the passes stayed below
the honest limit L. Where m positions were asked again in NEIGHBOURS, e = ln p′(BASE) − ln p′(NEIGHBOURS) of the
true token is estimated in the same way, as if these rows were a simple random sample: they come from whole
batches, but rows share no text, so one says little about another of its batch.

    charge = ν + 2.58 se′        ν and se′ of e, if ν + 1.645 se′ > 5 L/√m; else 0

Together μ + ν is what the claims overstate over a container that does not know the other rows. SUFFIX is not
charged: what follows the drawn position is training text in BASE as well, so nothing was taken away and the mean
difference is 0, also for a model that looks ahead; its claims overstate BASE.

Probabilities are computed here, in double precision, from the logits: a container cannot claim two of them that
do not add up. The clamp favours nobody: mixing in ε of the uniform distribution is open to every honest model
and costs it 0.001 nats a token at most.

Not covered here: an overstatement in so few positions that none of them was drawn, and a dependence on other rows
in so few batches that none of them was asked again; `docs/evaluation.md` says how likely that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.draw import Claims, Draw, Mask
from locked_eval.judge import Score
from locked_eval.plan import Pass, Plan

CLAMP = 1e-3
"""ε: share of the uniform distribution that is mixed into both sides."""
UPPER_SIGMAS = 1.645
"""One-sided 95 %: what an unproven overstatement costs."""
CHARGE_SIGMAS = 2.58
"""Of ν: its few positions and their skewed gains need more than 1.645 for 95 %."""
QUIET_FACTOR = 5.0
"""Noise of honest dependence, in units of L/√m: Gaussian noise with a total variation of L/2 has a standard
deviation of 1.25 L nats, a standard error of 1.43 L/√m with the weights of the draw, and 1.645 + 1.85 of these
are 5 L/√m: one honest audit in 30 lies above."""
OVERSTATED_SIGMAS = 4.0
OVERSTATED_NATS = 0.001
"""A mean is a finding above both, that of the overstatement and that of what a row gains from others."""
EXCEEDANCE_NATS = (0.1, 0.3, 1.0, 3.0)
FALSE_ALARM = 1e-4
"""How often an honest count of exceedances lies above its limit, for each of the thresholds."""
_BLOCK_LOGITS = 1 << 20  # at a time: 8 MB in double precision

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class HonestNoise:
    """What honest models show on a machine, at most."""

    exceedance_rates: tuple[float, float, float, float]  # of positions over 0.1, 0.3, 1 and 3 nats
    dependence: float  # mean total variation between passes


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What claims are refused for."""

    name: str
    value: float
    sentence: str  # for a report


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit found; acceptable when there are no findings."""

    num_positions: int  # drawn and answered
    mean_nats: float  # μ
    se_nats: float
    upper_nats: float  # what is added to the claim, per target: upper bound and charge; never negative
    exceedances: tuple[int, int, int, int]  # positions that overstate by more than 0.1, 0.3, 1 and 3 nats
    repeat: float | None  # mean total variation between equal passes; None: not measured
    suffix: float | None  # … between passes that differ after the drawn position
    neighbours: float | None  # … between passes that differ in other rows
    findings: tuple[Finding, ...]  # the first one explains most


class Estimate(NamedTuple):
    """A mean overstatement in nats per target that counts."""

    mean: float
    se: float
    upper: float  # one-sided 95 % bound, never negative


class Dependence(NamedTuple):
    """Mean total variation between the base pass and the others; None: not measured."""

    repeat: float | None
    suffix: float | None
    neighbours: float | None


def verify(
    plan: Plan,
    drawn: Draw,
    logits: npt.NDArray[np.float32],
    claims: Claims,
    targets: npt.NDArray[np.uint16],
    counted: Mask,
    noise: HonestNoise,
) -> Audit:
    """Compare committed claims with the logits of an audit.

    Args:
        plan: what was asked.
        drawn: what it was made from.
        logits: `(num_logits, V)` the answer, in the plan's order; hostile.
        claims: `(N, T)` log-probabilities in nats that `judge.score` accepted.
        targets: `(N, T)` the true next tokens.
        counted: `(N, T)` targets that are text.
        noise: what honest models show.

    Raises:
        ValueError: another number of logits than the plan wants.
    """
    slots = np.flatnonzero(plan.positions >= 0)  # (num_logits,) of the plan
    if logits.ndim != 2 or len(logits) != slots.size:
        raise ValueError(f"{len(logits)} vectors of logits where the plan wants {slots.size}")
    rows = plan.rows[slots]
    passes = plan.passes[slots]
    is_base = passes == Pass.BASE
    answers = np.full(len(drawn.positions), -1, dtype=np.int64)  # (N,) where a row's base answer is
    answers[rows[is_base]] = np.flatnonzero(is_base)
    true_tokens = targets[rows, plan.positions[slots]]  # any, where a row is of training
    audited, usable = _log_probabilities(logits, true_tokens)

    at = answers[drawn.rows]
    vocabulary = logits.shape[1]
    claimed = claims[drawn.rows, drawn.positions[drawn.rows]].astype(np.float64)
    overstatements = clamp(claimed, vocabulary) - clamp(audited[at], vocabulary)  # (n,)
    num_rows, num_tokens = int((drawn.positions >= 0).sum()), int(counted.sum())
    found = estimate(overstatements, drawn.probabilities[drawn.rows], num_rows=num_rows, num_tokens=num_tokens)
    alone = np.flatnonzero((passes == Pass.NEIGHBOURS) & (rows >= 0))  # (m,)
    paired = (
        estimate(
            clamp(audited[answers[rows[alone]]], vocabulary) - clamp(audited[alone], vocabulary),
            drawn.probabilities[rows[alone]],
            num_rows=num_rows,
            num_tokens=num_tokens,
        )
        if alone.size
        else None
    )
    dependence = Dependence(
        *(
            _mean_variation(logits, usable, again, answers[rows[again]])
            for again in (np.flatnonzero(passes == Pass.REPEAT), np.flatnonzero(passes == Pass.SUFFIX), alone)
        )
    )
    return Audit(
        num_positions=overstatements.size,
        mean_nats=found.mean,
        se_nats=found.se,
        upper_nats=found.upper + charge(paired, alone.size, noise.dependence),
        exceedances=count_exceedances(overstatements),
        repeat=dependence.repeat,
        suffix=dependence.suffix,
        neighbours=dependence.neighbours,
        findings=resolve_findings(
            num_unusable=int((~usable).sum()),
            found=found,
            paired=paired,
            even=overstatements[drawn.even[drawn.rows]],
            dependence=dependence,
            noise=noise,
        ),
    )


def audited_bpb(score: Score, audit: Audit) -> float:
    """The score that the audit leaves: the claim plus the upper bound of its overstatement and the charge."""
    return score.val_bpb + max(0.0, audit.upper_nats) * score.num_tokens / (math.log(2) * score.num_bytes)


def clamp(log_probabilities: Floats, vocabulary: int) -> Floats:
    """ln((1 − ε) p + ε/V): the model that mixes in a little of the uniform distribution."""
    clamped: Floats = np.log((1 - CLAMP) * np.exp(log_probabilities) + CLAMP / vocabulary)
    return clamped


def estimate(overstatements: Floats, probabilities: Floats, *, num_rows: int, num_tokens: int) -> Estimate:
    """Estimate the mean overstatement of all targets from one drawn position a row.

    Args:
        overstatements: `(n,)` d in nats at the drawn positions, or e.
        probabilities: `(n,)` q of these positions within their rows.
        num_rows: N rows with targets that count, of which n are a simple random sample.
        num_tokens: C targets that count in all of them.
    """
    totals = overstatements / probabilities * (num_rows / num_tokens)  # (n,) each an estimate of the mean
    mean = float(totals.mean())
    # A single row says nothing about the spread; its own size is the least that honesty demands.
    se = float(totals.std(ddof=1)) / math.sqrt(totals.size) if totals.size > 1 else abs(mean)
    return Estimate(mean=mean, se=se, upper=max(0.0, mean + UPPER_SIGMAS * se))


def charge(paired: Estimate | None, num_positions: int, dependence: float) -> float:
    """What rows gained from other rows, in nats per target; 0 while honest noise explains it.

    The condition is on the upper bound and not on the mean: a candidate that widens the spread of its gains to
    make their mean unproven is charged for the spread.

    Args:
        paired: ν; None if nothing was asked in NEIGHBOURS.
        num_positions: m it was estimated from.
        dependence: L, the honest limit of the mean total variation.
    """
    if paired is None or paired.upper <= QUIET_FACTOR * dependence / math.sqrt(num_positions):
        return 0.0
    return max(0.0, paired.mean + CHARGE_SIGMAS * paired.se)


def count_exceedances(overstatements: Floats) -> tuple[int, int, int, int]:
    """How many overstatements exceed each of `EXCEEDANCE_NATS`."""
    first, second, third, fourth = (int((overstatements > nats).sum()) for nats in EXCEEDANCE_NATS)
    return first, second, third, fourth


def honest_limit(num: int, rate: float) -> int:
    """The smallest k that a Binomial(num, rate) exceeds with a probability of at most `FALSE_ALARM`; exact."""
    if rate <= 0:
        return 0
    if rate >= 1:
        return num
    below = 0.0
    for k in range(num):
        chosen = math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1)
        below += math.exp(chosen + k * math.log(rate) + (num - k) * math.log1p(-rate))
        if 1 - below <= FALSE_ALARM:
            return k
    return num


def resolve_findings(
    *,
    num_unusable: int,
    found: Estimate,
    paired: Estimate | None,
    even: Floats,
    dependence: Dependence,
    noise: HonestNoise,
) -> tuple[Finding, ...]:
    """Everything that speaks against the claims: causes first, then the overstatement that follows from them.

    Args:
        num_unusable: answers that define no distribution.
        found: the mean overstatement.
        paired: the mean of what BASE answers better than NEIGHBOURS; None: not measured.
        even: `(m,)` overstatements at the positions that were drawn evenly. The others were chosen because their
            claims are high, and so lie above their audits more often, in honest models as well.
        dependence: between the passes.
        noise: what honest models show.
    """
    findings = []
    if num_unusable:
        sentence = f"not finite: {num_unusable} of the audit's answers are no logits"
        findings.append(Finding(name="not_finite", value=num_unusable, sentence=sentence))
    findings += _dependences(dependence, paired, noise.dependence)
    if _is_proven(found):
        sentence = (
            f"overstated: the claims are better than the audit by {found.mean:.4f} nats a token"
            f" (standard error {found.se:.4f})"
        )
        findings.append(Finding(name="overstated", value=found.mean, sentence=sentence))
    counts = count_exceedances(even)
    for nats, count, rate in reversed(list(zip(EXCEEDANCE_NATS, counts, noise.exceedance_rates, strict=True))):
        limit = honest_limit(even.size, rate)
        if count > limit:
            sentence = (
                f"exceedances: {count} of {even.size} evenly drawn claims are better than the audit by more than"
                f" {nats:g} nats, honest limit {limit}"
            )
            findings.append(Finding(name="exceedances", value=count, sentence=sentence))
            break
    return tuple(findings)


def _is_proven(found: Estimate) -> bool:
    return found.mean > OVERSTATED_NATS and found.mean > OVERSTATED_SIGMAS * found.se


def _dependences(dependence: Dependence, paired: Estimate | None, limit: float) -> list[Finding]:
    noise = dependence.repeat or 0.0
    findings = []
    if noise > limit:
        what = "not repeatable: the same batch gives other logits"
        sentence = f"{what} (mean total variation {noise:.2g}, honest limit {limit:.2g})"
        findings.append(Finding(name="not_repeatable", value=noise, sentence=sentence))
    for name, value, what in (
        ("not_independent", dependence.neighbours, "not independent: logits of a row change when other rows do"),
        ("not_causal", dependence.suffix, "not causal: logits at a position change when later tokens change"),
    ):
        if value is not None and value - noise > limit:
            figures = f"mean total variation {value:.2g}, repeat noise {noise:.2g}, honest limit {limit:.2g}"
            findings.append(Finding(name=name, value=value, sentence=f"{what} ({figures})"))
        elif name == "not_independent" and paired is not None and _is_proven(paired):
            sentence = (
                f"not independent: true tokens are more likely by {paired.mean:.4f} nats a token where other rows"
                f" are known (standard error {paired.se:.4f})"
            )
            findings.append(Finding(name=name, value=paired.mean, sentence=sentence))
    return findings


def _log_probabilities(
    logits: npt.NDArray[np.float32], tokens: npt.NDArray[np.uint16]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """`(A,)` log-probabilities of tokens, and which answers are usable.

    A logit of −inf is a probability of 0. NaN, +inf, or nothing but −inf make an answer unusable; it counts as
    probability 0, so that nobody gains by it.
    """
    found = np.full(len(logits), -np.inf)
    usable = np.zeros(len(logits), dtype=np.bool_)
    step = _step(logits)
    for start in range(0, len(logits), step):
        block = slice(start, start + step)
        shifted, usable[block] = _shifted(logits[block])
        chosen = shifted[np.arange(len(shifted)), tokens[block]]
        found[block] = chosen - np.log(np.exp(shifted, out=shifted).sum(axis=1))
    found[~usable] = -np.inf
    return found, usable


def _mean_variation(
    logits: npt.NDArray[np.float32],
    usable: npt.NDArray[np.bool_],
    again: npt.NDArray[np.int64],
    base: npt.NDArray[np.int64],
) -> float | None:
    """Mean total variation ½ Σ |p − p′| between pairs of answers; an unusable one counts as 1."""
    if again.size == 0:
        return None
    total = 0.0
    step = _step(logits)
    for start in range(0, again.size, step):
        one, other = again[start : start + step], base[start : start + step]
        distances = 0.5 * np.abs(_softmax(logits[one]) - _softmax(logits[other])).sum(axis=1)
        total += float(np.where(usable[one] & usable[other], distances, 1.0).sum())
    return total / again.size


def _softmax(logits: npt.NDArray[np.float32]) -> Floats:
    shifted, _ = _shifted(logits)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def _shifted(logits: npt.NDArray[np.float32]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """`(R, V)` logits less their maximum in double precision, and which rows are usable; the others are zeros."""
    largest = logits.max(axis=1)  # (R,) NaN where there is one
    usable = np.isfinite(largest)
    shifted = logits.astype(np.float64)
    shifted[~usable] = 0.0
    shifted -= np.where(usable, largest, np.float32(0))[:, None]
    return shifted, usable


def _step(logits: npt.NDArray[np.float32]) -> int:
    vocabulary: int = logits.shape[1]
    return max(1, _BLOCK_LOGITS // max(1, vocabulary))
