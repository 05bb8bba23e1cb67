"""Findings: the reasons for which an audit refuses claims."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from locked_eval.judging.distributions import Floats
from locked_eval.judging.estimate import EXCEEDANCE_NATS, Estimate, count_exceedances, honest_limit

OVERSTATED_SIGMAS = 4.0
OVERSTATED_NATS = 0.001
"""A mean is a finding above both, that of the overstatement and that of what a row gains from others."""


@dataclass(frozen=True, kw_only=True)
class HonestNoise:
    """The most that honest models show on a machine."""

    exceedance_rates: tuple[float, float, float, float]  # of positions over 0.1, 0.3, 1 and 3 nats
    dependence: float  # mean total variation between passes


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason to refuse claims."""

    name: str
    value: float
    sentence: str  # for a report


class Dependence(NamedTuple):
    """Mean total variation between the base pass and the others; None: not measured."""

    repeat: float | None
    suffix: float | None
    neighbors: float | None


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
        paired: the mean of what BASE answers better than NEIGHBORS; None: not measured.
        even: `(m,)` overstatements at the positions that were drawn evenly. The others were chosen because their
            claims are high, and so lie above their audits more often, in honest models as well.
        dependence: between the passes.
        noise: limits of honest models.
    """
    findings = []
    if num_unusable:
        sentence = f"not finite: {num_unusable} of the audit's answers are not logits"
        findings.append(Finding(name="not_finite", value=num_unusable, sentence=sentence))
    findings += _dependences(dependence, paired, noise.dependence)
    if _is_proven(found):
        sentence = (
            f"overstated: the claims are better than the audit by {found.mean:.4f} nats per token"
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
        ("not_independent", dependence.neighbors, "not independent: logits of a row change when other rows do"),
        ("not_causal", dependence.suffix, "not causal: logits at a position change when later tokens change"),
    ):
        if value is not None and value - noise > limit:
            figures = f"mean total variation {value:.2g}, repeat noise {noise:.2g}, honest limit {limit:.2g}"
            findings.append(Finding(name=name, value=value, sentence=f"{what} ({figures})"))
        elif name == "not_independent" and paired is not None and _is_proven(paired):
            sentence = (
                f"not independent: true tokens are more likely by {paired.mean:.4f} nats per token where other"
                f" rows are known (standard error {paired.se:.4f})"
            )
            findings.append(Finding(name=name, value=paired.mean, sentence=sentence))
    return findings
