"""The story of the tour, as it happens: what was proposed, what was measured, and why it was kept or refused.

Every figure and every verdict comes from the ledger's records. A stop that ends differently than it was meant to
is shown as it was measured.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from runner.decision import history
from runner.decision.history import was_lucky
from runner.decision.keep_rule import percent
from runner.records import Experiment, Figures, Phase, Verdict
from runner.report.explain import explain
from runner.report.summary import counted
from runner.untrusted import clean, cut, one_line

MARGIN = 10
"""Cells of the labels on the left."""
DIFF_LINES = 6
LOG_LINES = 4
CLEARLY_WORSE, NOISE = 4.0, 2.0
"""Standard errors from which a worse number is called harmful, and up to which it is called noise."""


@dataclass(frozen=True, kw_only=True)
class TourStop:
    """One experiment of the tour, with what its story needs."""

    experiment: Experiment
    champion: Experiment | None  # what it was compared with, as it is now
    title: str
    meant: Verdict | None = None  # the verdict that the stop is there to show
    changes_nothing: bool = False  # no instruction: the truth is known
    needed: float = 0.6  # probability of an improvement from which the tip takes an edit


def baseline_story(baseline: Experiment, width: int) -> list[str]:
    """Describe the baseline: one program, several numbers."""
    scores = [trial.val_bpb for trial in baseline.trials if trial.audited and trial.val_bpb is not None]
    noise = "" if baseline.sigma_bpb is None else f" The noise is about {baseline.sigma_bpb:.3f} bpb."
    so = (
        f"equal programs get different numbers, by luck alone.{noise} This is the first champion. Edits are tried "
        "on the tip: the champion with all edits accepted since."
    )
    return [
        *_heading("the baseline", width),
        *_item("Measured", f"the unmodified program, {_times(len(scores))}: {_listed(scores)} bpb.", width),
        *_item("So", so, width),
    ]


def opening(stop: TourStop, width: int) -> list[str]:
    """Describe an experiment before it is measured: an edit with its first changed lines, or a certificate."""
    if stop.experiment.is_certificate:
        return [*_heading(stop.title, width), *_item("Idea", _certified(stop.experiment), width)]
    hypothesis = one_line(" ".join(stop.experiment.hypothesis.split()), 400)
    return [
        *_heading(stop.title, width),
        *_item("Idea", hypothesis, width),
        *_labelled("Edit", [_fitting(line, width - MARGIN) for line in diff_excerpt(stop.experiment.diff)]),
    ]


def ending(stop: TourStop, width: int) -> list[str]:
    """Describe what was measured, the verdict, and its reason."""
    one = stop.experiment
    lines = _item("Measured", measured, width) if (measured := _measured(stop)) else []
    if one.verdict is Verdict.CRASH:
        *log, last = clean(one.log_tail, LOG_LINES).split("\n")
        lines += _labelled("Log", [*(cut(line, width - MARGIN) for line in log), *_wrapped(last, width)])
    lines += _item("Verdict", _verdict(stop), width)
    if stop.meant is not None and one.verdict is not None and one.verdict is not stop.meant:
        lines += _item(
            "Note", f"this stop usually ends as {stop.meant}; verdicts are measured, not scripted.", width
        )
    return lines


def looked_better(stop: TourStop) -> bool:
    """Whether a greedy rule, which believes every number and keeps the better ones, would have kept it."""
    one, champion = stop.experiment, stop.champion
    if was_lucky(one):
        return True
    if one.verdict is Verdict.ACCEPT:
        return one.figures is None or one.figures.delta_bpb < 0
    if one.verdict is not Verdict.INVALID or champion is None or champion.val_bpb is None:
        return False
    claimed = _claimed(one)
    return claimed is not None and claimed < champion.val_bpb


def overview(stops: Sequence[TourStop], width: int) -> list[str]:
    """List all experiments of the tour, with the verdict of a greedy rule beside ours, and count both."""
    room = max(20, min(width, 100) - 45)
    lines = [f"{'#':>2}  {'edit':{room}}  {'bpb ':>7}  {'change':>7}  {'verdict':8}  greedy"]
    for one in stops:
        experiment = one.experiment
        claimed = _claimed(experiment)
        bpb = "" if claimed is None else f"({claimed:.3f})"  # a claim that nothing confirms
        if experiment.val_bpb is not None:
            bpb = f"{experiment.val_bpb:.3f} "
        change = "" if experiment.delta_bpb is None else f"{experiment.delta_bpb:+.3f}"
        name = one_line(_name(experiment), room)
        greedy = "keeps" if looked_better(one) else ""
        verdict = str(experiment.verdict or "open")
        lines.append(f"{experiment.number:>2}  {name:{room}}  {bpb:>7}  {change:>7}  {verdict:8}  {greedy}")
    return [line.rstrip() for line in lines] + ["", *textwrap.wrap(_count(stops), width)]


def _name(one: Experiment) -> str:
    if not one.is_certificate:
        return one.hypothesis.strip().split("\n")[0].rstrip(".")
    return f"certificate of {counted(len(one.certifies), 'edit')}: {', '.join(map(str, one.certifies))}"


def diff_excerpt(diff: str) -> list[str]:
    """Return the changed lines of a diff, each file under its name, cut after a few."""
    lines: list[str] = []
    for line in diff.split("\n"):
        if line.startswith("+++ "):
            lines.append(line.removeprefix("+++ b/"))
        elif line.startswith(("+", "-")) and not line.startswith("--- "):
            lines.append(f"{line[0]} {line[1:].strip()}")
    return (
        lines
        if len(lines) <= DIFF_LINES
        else [*lines[: DIFF_LINES - 1], f"… {len(lines) - DIFF_LINES + 1} more lines"]
    )


def _fitting(line: str, room: int) -> str:
    """Cut a line of code, its comment first."""
    code, _, _ = line.partition("  # ")
    return one_line(line if len(line) <= room else code, room)


def _measured(stop: TourStop) -> str:
    one = stop.experiment
    if one.figures is None or one.val_bpb is None:
        claimed = _claimed(one)
        if one.verdict is not Verdict.INVALID or claimed is None:
            return ""
        champion = stop.champion
        if champion is None or champion.val_bpb is None:
            return f"its own code claims {claimed:.3f} bpb."
        return f"its own code claims {claimed:.3f} bpb, where the champion has {champion.val_bpb:.3f}."
    figures = one.figures
    side = "better" if figures.delta_bpb < 0 else "worse"
    side = f"{abs(figures.delta_bpb):.3f} ± {figures.se_bpb:.3f} bpb {side}"
    if one.is_certificate:
        champion = stop.champion
        pairs = () if champion is None else history.pairs_of(one, champion)
        shown = ", ".join(f"{pair.tip.val_bpb:.4f} / {pair.champion.val_bpb:.4f}" for pair in pairs)
        return f"{shown} (tip / champion in {counted(len(pairs), 'pair')}, a new seed for each): {side}."
    return f"{one.val_bpb:.4f}; the tip {one.val_bpb - figures.delta_bpb:.4f} under the same seed: {side}."


def _verdict(stop: TourStop) -> str:
    one = stop.experiment
    match one.verdict:
        case Verdict.KEEP if one.figures is not None:
            return f"KEPT: {_reason(one)}.{_audited(one)} The tip is the champion now, and has a commit."
        case Verdict.ACCEPT if one.figures is not None:
            luck = " Luck made it better: the certificate will measure again." if stop.changes_nothing else ""
            return f"ACCEPTED onto the tip: {_sure(stop, one.figures)}.{_audited(one)}{luck}"
        case Verdict.DISCARD if one.is_certificate:
            return f"ROLLED BACK: {_reason(one)}. The next ideas start from the champion."
        case Verdict.UNCLEAR if one.is_certificate:
            return f"UNCLEAR: {_reason(one)}. The tip stays, and is measured again later."
        case Verdict.DISCARD if one.figures is not None:
            return _discarded(stop, one.figures)
        case Verdict.CRASH:
            return f"CRASHED: {_reason(one)}. A crash has no score. The proposer gets the log and one more try."
        case Verdict.INVALID if _claimed(one) is not None:
            greedy = " A rule that believes every number would have kept it." if looked_better(stop) else ""
            return (
                "REFUSED. An audit asked a fresh container for some of these predictions again, without the text "
                f"that follows, and they came out differently{_audited_bpb(one)}. {_finding(one)}.{greedy}"
            )
        case Verdict.INVALID:
            return f"REFUSED: {_reason(one)}."
    return explain(one)


def _discarded(stop: TourStop, figures: Figures) -> str:
    one, sure = stop.experiment, _sure(stop, figures)
    greedy = (
        " Its number was better, so a rule that keeps every better number would have kept it."
        if was_lucky(one)
        else ""
    )
    if stop.changes_nothing:
        luck = f"Luck made it better.{greedy}" if greedy else "Luck, or a busy machine, made it worse."
        return f"DISCARDED: {sure}. {luck}"
    if figures.delta_bpb >= CLEARLY_WORSE * figures.se_bpb:
        return f"DISCARDED, harmful: {percent(1 - figures.better)} sure that it is worse."
    if figures.delta_bpb >= NOISE * figures.se_bpb:
        return f"DISCARDED, not better: {sure}."
    return f"DISCARDED, within the noise: {sure}.{greedy}"


def _sure(stop: TourStop, figures: Figures) -> str:
    return f"{percent(figures.better)} sure that it is better; the tip takes it from {stop.needed:.0%}"


def _audited(one: Experiment) -> str:
    audits = [trial.audit for trial in one.trials if trial.audited and trial.audit is not None]
    if not audits:
        return ""
    num = audits[-1].num_positions
    return f" An audit had {num:,} of its predictions repeated without the answers, and they agree."


def _count(stops: Sequence[TourStop]) -> str:
    """Compare both rules in one sentence."""
    ideas = [one for one in stops if one.experiment.is_idea]
    accepted = sum(one.experiment.verdict is Verdict.ACCEPT for one in ideas)
    certified = {n for one in stops if one.experiment.verdict is Verdict.KEEP for n in one.experiment.certifies}
    lucky = sum(was_lucky(one.experiment) for one in stops)
    cheats = sum(looked_better(one) for one in stops if one.experiment.verdict is Verdict.INVALID)
    parts = [f"{lucky} within the noise"] if lucky else []
    parts += [f"{cheats} that cheat{'s' if cheats == 1 else ''}"] if cheats else []
    wrong = f", {' and '.join(parts)} among them" if parts else ""
    refused = " A number in parentheses is a claim that the audit refused." if cheats else ""
    greedy = sum(looked_better(one) for one in ideas)
    return (
        f"Of {counted(len(ideas), 'edit')}, {accepted} went onto the tip, and {len(certified)} are certified and "
        "in the champion. A greedy rule, which runs everything once, believes every number and keeps the better "
        f"ones, would have kept {greedy}{wrong}.{refused}"
    )


def _certified(certificate: Experiment) -> str:
    """Say what a certificate does."""
    edits = certificate.certifies
    numbers = f"edit {edits[0]}" if len(edits) == 1 else f"edits {', '.join(map(str, edits))}"
    return (
        f"Was it luck? The tip ({numbers}) and the champion are trained again, in pairs under new seeds, which "
        "have chosen nothing. Only this makes a new champion."
    )


def _claimed(one: Experiment) -> float | None:
    claims = [trial.claimed_bpb for trial in one.trials if trial.claimed_bpb is not None]
    return fmean(claims) if claims else None


def _audited_bpb(one: Experiment) -> str:
    """Say what the audit makes of the claims."""
    runs = (run for trial in one.trials for run in trial.runs)
    score = next((run.val_bpb for run in runs if run.phase is Phase.AUDIT and run.val_bpb is not None), None)
    return "" if score is None else f": the audit puts its score at {score:.2f} bpb"


def _finding(one: Experiment) -> str:
    """Name what the audit refused it for."""
    found = next((trial.audit.reason for trial in one.trials if trial.audit is not None), None)
    text = _reason(one) if found is None else one_line(found, 300).rstrip(".")
    return text[:1].upper() + text[1:]


def _reason(one: Experiment) -> str:
    return one_line(one.reason or "", 300).rstrip(".")


def _listed(scores: Sequence[float]) -> str:
    return ", ".join(f"{score:.4f}" for score in scores)


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _heading(title: str, width: int) -> list[str]:
    return ["", f"── {title} ".ljust(width, "─")]


def _item(label: str, text: str, width: int) -> list[str]:
    return _labelled(label, _wrapped(text, width))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width - MARGIN))


def _labelled(label: str, lines: Sequence[str]) -> list[str]:
    return [f"{label if index == 0 else '':{MARGIN}}{line}".rstrip() for index, line in enumerate(lines)]
