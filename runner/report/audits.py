"""What audits and the sealed test rows say, in lines for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from runner.records import AuditRecord, SealedScore

SEALED_COLUMNS = ("experiment", "seed", "val_bpb", "test_bpb")


def audit_lines(audit: AuditRecord) -> list[str]:
    """The figures of one audit."""
    counts = ", ".join(str(count) for count in audit.exceedances)
    lines = [
        f"claimed            {audit.claimed_bpb:.6f} bpb",
        f"positions          {audit.num_positions:,}",
        f"overstatement      {audit.mean_nats:+.2g} nats a token, standard error {audit.se_nats:.2g}",
        f"added to the claim {audit.upper_nats:.2g} nats a token",
        f"over 0.1 0.3 1 3   {counts}",
        f"equal passes       {_dependence(audit.repeat)} (mean total variation)",
        f"other suffixes     {_dependence(audit.suffix)}",
        f"other neighbours   {_dependence(audit.neighbours)}",
    ]
    return lines if audit.reason is None else [*lines, f"refused            {audit.reason}"]


def strikes_line(strikes: Mapping[int, int]) -> str | None:
    """How often the audit refused a challenger, by champion; None when it never did."""
    if not strikes:
        return None
    parts = [f"{count} of experiment {number}" for number, count in sorted(strikes.items())]
    return f"Refused by the audit: challengers, {', '.join(parts)}."


def sealed_line(scores: Sequence[SealedScore]) -> str | None:
    """What the sealed rows say of the whole night: whether the gain holds on text that decided nothing.

    Args:
        scores: in the order of their experiments; those of the first are the baseline's.
    """
    if not scores:
        return None
    first, last = scores[0].number, scores[-1].number
    val, test = (
        [fmean(getattr(one, name) for one in scores if one.number == number) for number in (first, last)]
        for name in ("val_bpb", "test_bpb")
    )
    if first == last:
        return f"Sealed test rows (as claimed): {test[0]:.4f} bpb (validation {val[0]:.4f})."
    return (
        f"Sealed test rows (as claimed): {test[0]:.4f} → {test[1]:.4f} bpb ({test[1] - test[0]:+.4f}); "
        f"validation {val[0]:.4f} → {val[1]:.4f} ({val[1] - val[0]:+.4f})."
    )


def sealed_tsv(scores: Sequence[SealedScore]) -> str:
    """Every score on the sealed rows, one line a run."""
    rows = [SEALED_COLUMNS]
    rows += [(str(one.number), str(one.seed), f"{one.val_bpb:.6f}", f"{one.test_bpb:.6f}") for one in scores]
    return "".join("\t".join(row) + "\n" for row in rows)


def _dependence(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2g}"
