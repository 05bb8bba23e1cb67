"""The verification: how far the claims of a candidate overstate what it predicts without the answers.

With p the probability of the true token, claimed or audited, both are clamped alike,

    p′ = (1 − ε) p + ε/V        ε = 10⁻³

and d = ln p′(claim) − ln p′(audit) is the overstatement at a drawn position, at most ln(V/ε) nats. One position
per row was drawn, with probability q, in n of the N rows that have targets that count; all of these have C:

    μ = N/n · Σ d/q / C                     overstatement per target, without bias
    se = N/C · sd(d/q) / √n                 as if rows were drawn with replacement: never too small on average
    upper = max(0, μ + 1.645 se)
    score = claimed bpb + (upper + charge) · C / (ln 2 · bytes)

The charge is for what a row gained from other rows while the total variation between the passes stayed below the
honest limit L. Where m positions were asked again in NEIGHBORS, e = ln p′(BASE) − ln p′(NEIGHBORS) of the true
token is estimated in the same way, as if these rows were a simple random sample: they come from whole batches,
but rows share no text, so one says little about another of its batch.

    charge = ν + 2.58 se′        ν and se′ of e, if ν + 1.645 se′ > 5 L/√m; else 0

Together μ + ν is what the claims overstate over a container that does not know the other rows. SUFFIX is not
charged: the text behind the drawn position is training text in BASE as well, so nothing was taken away and the
mean difference is 0, also for a model that looks ahead; its claims overstate BASE.

Probabilities are computed on the host from the logits: a container cannot claim two of them that do not add up.
The clamp favors no side: mixing in ε of the uniform distribution is open to every honest model and costs it
at most 0.001 nats per token.

Not covered here: an overstatement in so few positions that none of them was drawn, and a dependence on other
rows in so few batches that none of them was asked again; `docs/evaluation.md` says how likely that is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from locked_eval.judging.distributions import Logits, clamp, log_probabilities, mean_variation
from locked_eval.judging.draw import Claims, Draw, Mask
from locked_eval.judging.estimate import Estimate, charge, count_exceedances, estimate
from locked_eval.judging.findings import Dependence, Finding, HonestNoise, resolve_findings
from locked_eval.judging.judge import Score
from locked_eval.judging.plan import Pass, Plan


@dataclass(frozen=True, kw_only=True)
class Committed:
    """Claims that were committed before the draw, and the targets that they are about."""

    claims: Claims  # (N, T) log-probabilities in nats that `judge.score` accepted
    targets: npt.NDArray[np.uint16]  # (N, T) the true next tokens
    counted: Mask  # (N, T) targets that are text


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit; the claims are acceptable when there are no findings."""

    num_positions: int  # drawn and answered
    mean_nats: float  # μ
    se_nats: float
    upper_nats: float  # what is added to the claim, per target: upper bound and charge; never negative
    exceedances: tuple[int, int, int, int]  # positions that overstate by more than 0.1, 0.3, 1 and 3 nats
    repeat: float | None  # mean total variation between equal passes; None: not measured
    suffix: float | None  # … between passes that differ after the drawn position
    neighbors: float | None  # … between passes that differ in other rows
    findings: tuple[Finding, ...]  # the first one explains most


def verify(plan: Plan, drawn: Draw, logits: Logits, committed: Committed, noise: HonestNoise) -> Audit:
    """Compare committed claims with the logits of an audit.

    Args:
        plan: the rows that were asked about.
        drawn: the draw that the plan was made from.
        logits: `(num_logits, V)` the answer, in the plan's order; hostile.
        committed: the claims.
        noise: limits of honest models.

    Raises:
        ValueError: another number of logits than the plan wants.
    """
    answers = _Answers(plan, drawn, logits, committed.targets)
    vocabulary = logits.shape[1]
    positions = drawn.positions[drawn.rows]
    claimed = committed.claims[drawn.rows, positions].astype(np.float64)
    audited = answers.found[answers.base[drawn.rows]]
    overstatements = clamp(claimed, vocabulary) - clamp(audited, vocabulary)  # (n,)
    num_rows, num_tokens = int((drawn.positions >= 0).sum()), int(committed.counted.sum())
    found = estimate(overstatements, drawn.probabilities[drawn.rows], num_rows=num_rows, num_tokens=num_tokens)
    alone = np.flatnonzero((answers.passes == Pass.NEIGHBORS) & (answers.rows >= 0))  # (m,)
    paired: Estimate | None = None
    if alone.size:
        rows = answers.rows[alone]
        among = clamp(answers.found[answers.base[rows]], vocabulary)  # (m,)
        gains = among - clamp(answers.found[alone], vocabulary)
        paired = estimate(gains, drawn.probabilities[rows], num_rows=num_rows, num_tokens=num_tokens)
    dependence = Dependence(
        repeat=answers.variation(np.flatnonzero(answers.passes == Pass.REPEAT)),
        suffix=answers.variation(np.flatnonzero(answers.passes == Pass.SUFFIX)),
        neighbors=answers.variation(alone),
    )
    return Audit(
        num_positions=overstatements.size,
        mean_nats=found.mean,
        se_nats=found.se,
        upper_nats=found.upper + charge(paired, alone.size, noise.dependence),
        exceedances=count_exceedances(overstatements),
        repeat=dependence.repeat,
        suffix=dependence.suffix,
        neighbors=dependence.neighbors,
        findings=resolve_findings(
            num_unusable=int((~answers.usable).sum()),
            found=found,
            paired=paired,
            even=overstatements[drawn.even[drawn.rows]],
            dependence=dependence,
            noise=noise,
        ),
    )


class _Answers:
    """The answers of an audit, with the row and the pass of each."""

    def __init__(self, plan: Plan, drawn: Draw, logits: Logits, targets: npt.NDArray[np.uint16]) -> None:
        slots = np.flatnonzero(plan.positions >= 0)  # (A,) of the plan
        if logits.ndim != 2 or len(logits) != slots.size:
            raise ValueError(f"{len(logits)} vectors of logits where the plan wants {slots.size}")
        self.logits = logits  # (A, V)
        self.rows = plan.rows[slots]  # (A,)
        self.passes = plan.passes[slots]  # (A,)
        is_base = self.passes == Pass.BASE
        self.base = np.full(len(drawn.positions), -1, dtype=np.int64)  # (N,) index of each row's base answer
        self.base[self.rows[is_base]] = np.flatnonzero(is_base)
        true_tokens = targets[self.rows, plan.positions[slots]]  # any token, where a row is of training
        self.found, self.usable = log_probabilities(logits, true_tokens)  # (A,)

    def variation(self, again: npt.NDArray[np.int64]) -> float | None:
        """Mean total variation between answers and the base answers of their rows; None without any."""
        return mean_variation(self.logits, self.usable, again, self.base[self.rows[again]])


def audited_bpb(score: Score, audit: Audit) -> float:
    """The score that the audit leaves: the claim plus the upper bound of its overstatement and the charge."""
    return score.val_bpb + max(0.0, audit.upper_nats) * score.num_tokens / (math.log(2) * score.num_bytes)
