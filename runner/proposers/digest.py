"""The ledger as a language model reads it: what was tried, what it gave, what crashed and why."""

from __future__ import annotations

from collections.abc import Sequence

from runner.proposers.text import one_line
from runner.records import Experiment, Verdict

MAX_CHARACTERS = 24_000
HYPOTHESIS_CHARACTERS = 240
REASON_CHARACTERS = 160


def digest(history: Sequence[Experiment], limit: int = MAX_CHARACTERS) -> str:
    """Summarise a ledger.

    Kept experiments come first, since they are the champion's lineage; then discards, nearest misses first; then
    crashes and invalid ones, newest first. Where the room ends, the rest of a section is counted only. Experiments
    that our own infrastructure spoiled are left out: they say nothing about their idea.

    Args:
        history: closed experiments, oldest first, the baseline included.
        limit: characters of the result, roughly.
    """
    tried = [one for one in history if one.verdict is not None and one.verdict is not Verdict.INFRA and one.number]
    kept = [one for one in reversed(tried) if one.verdict is Verdict.KEEP]
    discarded = sorted(
        (one for one in tried if one.verdict is Verdict.DISCARD),
        key=lambda one: (one.delta_bpb is None, one.delta_bpb or 0.0, one.number),
    )
    crashed = [one for one in reversed(tried) if one.verdict is Verdict.CRASH]
    invalid = [one for one in reversed(tried) if one.verdict is Verdict.INVALID]
    parts = [
        _standing(history, tried),
        _section("Kept, newest first (each was measured against the champion before it)", kept, limit * 3 // 10),
        _section("Discarded, best first", discarded, limit * 4 // 10),
        _section("Crashed, newest first", crashed, limit * 2 // 10),
        _section("Refused or invalid, newest first", invalid, limit // 10),
    ]
    return "\n\n".join(part for part in parts if part)


def _standing(history: Sequence[Experiment], tried: Sequence[Experiment]) -> str:
    champions = [
        one for one in history if one.val_bpb is not None and (one.number == 0 or one.verdict is Verdict.KEEP)
    ]
    lines = [f"{len(tried)} experiments so far."]
    if champions:
        first, best = champions[0], champions[-1]
        lines.append(f"Baseline #{first.number}: val_bpb {first.val_bpb:.6f}.")
        if best is not first:
            lines.append(f"Champion #{best.number}: val_bpb {best.val_bpb:.6f}.")
        else:
            lines.append("The baseline is the champion.")
    sigmas = [one.sigma_bpb for one in history if one.sigma_bpb is not None]
    if sigmas:
        lines.append(f"Noise (standard deviation of one measurement): {sigmas[-1]:.6f} bpb.")
    return " ".join(lines)


def _section(title: str, experiments: Sequence[Experiment], limit: int) -> str:
    if not experiments:
        return ""
    lines = [f"{title}:"]
    room = limit
    for position, experiment in enumerate(experiments):
        line = _line(experiment)
        room -= len(line) + 1
        if room < 0:
            lines.append(f"- and {len(experiments) - position} more")
            break
        lines.append(line)
    return "\n".join(lines)


def _line(experiment: Experiment) -> str:
    facts = [f"#{experiment.number}"]
    if experiment.delta_bpb is not None:
        facts.append(f"{experiment.delta_bpb:+.6f} bpb")
    if experiment.category is not None:
        facts.append(one_line(experiment.category, 40))
    if experiment.retry_of is not None:
        facts.append(f"second try of #{experiment.retry_of}")
    line = f"- {', '.join(facts)}: {one_line(experiment.hypothesis, HYPOTHESIS_CHARACTERS)}"
    if experiment.reason and experiment.verdict in (Verdict.CRASH, Verdict.INVALID):
        line += f" → {one_line(experiment.reason, REASON_CHARACTERS)}"
    return line
