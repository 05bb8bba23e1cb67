"""Reports on the sealed test rows. Scores on them are plain arguments here, and in no other report.

Only a person reads these figures: nothing in a campaign is decided by them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from runner.decision.pairing import Difference, difference_of
from runner.records import SealedScore
from runner.report.summary import BASELINE
from runner.report.table import to_tsv

COLUMNS = ("experiment", "seed", "val_bpb", "test_bpb")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """By how much more validation improved than the sealed rows since the baseline."""

    number: int
    gap_bpb: float  # (test − val) − the same of the baseline; positive: validation flatters
    se_bpb: float | None  # from the spread between seeds of one program; None: no program has two


def sealed_gaps(sealed: Sequence[SealedScore]) -> tuple[Gap, ...]:
    """Compute the gap of each experiment.

    gap = mean (test − val) − the baseline's; se = s √(1/n + 1/n₀), with s pooled over programs with several seeds.
    """
    by_number: defaultdict[int, list[float]] = defaultdict(list)
    for score in sealed:
        by_number[score.number].append(score.test_bpb - score.val_bpb)
    if BASELINE not in by_number:
        return ()
    means = {number: fmean(values) for number, values in by_number.items()}
    freedom = sum(len(values) - 1 for values in by_number.values())
    squares = sum((value - means[number]) ** 2 for number, values in by_number.items() for value in values)
    spread = math.sqrt(squares / freedom) if freedom else None
    num_baseline = len(by_number.pop(BASELINE))
    return tuple(
        Gap(
            number=number,
            gap_bpb=means[number] - means[BASELINE],
            se_bpb=None if spread is None else spread * math.sqrt(1 / len(values) + 1 / num_baseline),
        )
        for number, values in sorted(by_number.items())
    )


def gap_line(gaps: Sequence[Gap]) -> str | None:
    """Describe the newest gap; None when there is none."""
    if not gaps:
        return None
    gap = gaps[-1]
    known = "" if gap.se_bpb is None else f" ± {gap.se_bpb:.4f}"
    meaning = "validation improved more than text that no decision used"
    if gap.se_bpb is not None and abs(gap.gap_bpb) < 2 * gap.se_bpb:
        meaning = "within the spread between seeds"
    elif gap.gap_bpb <= 0:
        meaning = "the sealed rows improved at least as much as validation"
    return (
        f"Sealed test gap at experiment {gap.number}: {gap.gap_bpb:+.4f}{known} bpb since the baseline, {meaning}."
    )


@dataclass(frozen=True, kw_only=True)
class PairedGain:
    """The newest champion against the baseline, over pairs of trials under common seeds."""

    test: Difference | None  # None: no certificate has two pairs to tell its spread from
    test_bpb: float
    val_bpb: float
    num_pairs: int


def paired_gain(sealed: Sequence[SealedScore]) -> PairedGain | None:
    """Add up the differences of all certificates back to the baseline; None where a link is missing.

    Seeds of a certificate are fresh: the program that it shares them with is the champion it was measured against.
    With n pairs in a certificate and the spread s of pairs, pooled over certificates, se = s √Σ 1/n.
    """
    by_number: defaultdict[int, dict[int, SealedScore]] = defaultdict(dict)
    for score in sealed:
        by_number[score.number][score.seed] = score
    number, links = max(by_number, default=BASELINE), []
    while number != BASELINE:
        own = by_number[number]
        older = [one for one in by_number if one < number]
        champion = max(older, key=lambda one: len(own.keys() & by_number[one].keys()), default=None)
        others = {} if champion is None else by_number[champion]
        pairs = [(own[seed], others[seed]) for seed in own.keys() & others.keys()]
        if champion is None or not pairs:
            return None
        links.append(pairs)
        number = champion
    if not links:
        return None
    test = [[own.test_bpb - other.test_bpb for own, other in pairs] for pairs in links]
    val = [fmean(own.val_bpb - other.val_bpb for own, other in pairs) for pairs in links]
    delta, freedom = sum(map(fmean, test)), sum(len(one) - 1 for one in test)
    squares = sum((value - fmean(one)) ** 2 for one in test for value in one)
    found = None
    if freedom:
        se = math.sqrt(squares / freedom * sum(1 / len(one) for one in test))
        found = difference_of(delta, se, freedom)
    return PairedGain(test=found, test_bpb=delta, val_bpb=sum(val), num_pairs=sum(map(len, test)))


def sealed_line(scores: Sequence[SealedScore]) -> str | None:
    """Compare the newest champion with the baseline on text that decided nothing; None without scores.

    Args:
        scores: in the order of their experiments; those of the first are the baseline's.
    """
    if not scores:
        return None
    if (gain := paired_gain(scores)) is not None:
        known = "" if gain.test is None else f" (90% {gain.test.low_bpb:+.4f} to {gain.test.high_bpb:+.4f})"
        pairs = "1 pair" if gain.num_pairs == 1 else f"{gain.num_pairs} pairs"
        return (
            f"Sealed test rows (as claimed), in {pairs} under common seeds: {gain.test_bpb:+.4f} bpb{known} since "
            f"the baseline; validation {gain.val_bpb:+.4f}."
        )
    first, last = scores[0].number, scores[-1].number
    val, test = (
        [fmean(getattr(one, name) for one in scores if one.number == number) for number in (first, last)]
        for name in ("val_bpb", "test_bpb")
    )
    if first == last:
        return f"Sealed test rows (as claimed): {test[0]:.4f} bpb (validation {val[0]:.4f})."
    return (
        f"Sealed test rows (as claimed): {test[0]:.4f} → {test[1]:.4f} bpb ({test[1] - test[0]:+.4f}); "
        f"validation {val[0]:.4f} → {val[1]:.4f} ({val[1] - val[0]:+.4f}); not measured in pairs."
    )


def sealed_tsv(scores: Sequence[SealedScore]) -> str:
    """List every score on the sealed rows, one line per run."""
    rows = [(str(one.number), str(one.seed), f"{one.val_bpb:.6f}", f"{one.test_bpb:.6f}") for one in scores]
    return to_tsv(COLUMNS, rows)
