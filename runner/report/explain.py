"""Why an experiment got its verdict, in sentences for a person."""

from __future__ import annotations

from runner.lineage import audited_runs
from runner.records import Experiment, Figures, Phase, RunEnd, RunRecord, Verdict
from runner.report.night import BASELINE, score_of
from runner.report.text import clean, one_line

_OPENINGS = {
    Verdict.KEEP: "Kept",
    Verdict.DISCARD: "Discarded",
    Verdict.CRASH: "Crashed",
    Verdict.INVALID: "Invalid",
    Verdict.INFRA: "Lost to infrastructure, which says nothing about the idea",
}


def explain(experiment: Experiment) -> str:
    """A few sentences on one experiment. Text of the candidate or of a model is cleaned and named as such."""
    if experiment.verdict is None:
        sentences = ["Still running, or interrupted before a verdict."]
    elif experiment.number == BASELINE:
        sentences = [_baseline(experiment)]
    else:
        sentences = [f"{_OPENINGS[experiment.verdict]}: {_why(experiment)}."]
    if experiment.retry_of is not None:
        sentences.append(f"This was the one retry of experiment {experiment.retry_of}.")
    if experiment.verdict is Verdict.CRASH:
        last = clean(experiment.log_tail, max_lines=1)
        if last:
            sentences.append(f"Its last words: {last}")
    return " ".join(sentences)


def _baseline(experiment: Experiment) -> str:
    score = score_of(experiment)
    if score is None:
        return f"The unmodified workload gave no score: {_why(experiment)}."
    num_runs = len(audited_runs(experiment))
    runs = f" over {num_runs} runs" if num_runs > 1 else ""
    noise = "" if experiment.sigma_bpb is None else f", noise sigma {experiment.sigma_bpb:.4f}"
    return f"The baseline: val_bpb {score:.4f}{runs}{noise}. Candidates are compared with it until one is kept."


def _why(experiment: Experiment) -> str:
    """The reason that the ledger holds, else what its figures or its last run tell."""
    reason = one_line(experiment.reason or "", 400).rstrip(".")
    score = score_of(experiment)
    if not reason:
        return _failure(experiment.runs) if score is None else _comparison(experiment, score)
    if score is None or experiment.delta_bpb is None:
        return reason
    if experiment.figures is not None:
        return f"{reason}: {_evidence(experiment.figures, experiment.champion, score)}"
    return f"{reason}: {_comparison(experiment, score)}"


def _evidence(figures: Figures, champion: int | None, score: float) -> str:
    """What a verdict rests on, in one clause."""
    looks = "1 run" if len(figures.looks) == 1 else f"{len(figures.looks)} runs"
    pool = "the champion" if champion is None else f"experiment {champion}"
    return (
        f"val_bpb {score:.4f}; {looks} against {len(figures.pool)} of {pool} differ by {figures.delta_bpb:+.4f} "
        f"± {figures.se_bpb:.4f} bpb, so that the edit does {figures.effect_bpb:+.4f} "
        f"(90 % interval {figures.low_bpb:+.4f} to {figures.high_bpb:+.4f}); noise sigma {figures.sigma_bpb:.4f}"
    )


def _comparison(experiment: Experiment, score: float) -> str:
    if experiment.delta_bpb is None:
        return f"val_bpb {score:.4f}"
    delta, sigma = experiment.delta_bpb, experiment.sigma_bpb
    champion = "the champion" if experiment.champion is None else f"experiment {experiment.champion}"
    text = f"val_bpb {score:.4f} is {abs(delta):.4f} {'better' if delta < 0 else 'worse'} than {champion}"
    if sigma:
        text += f", {abs(delta) / sigma:.1f} times the noise (sigma {sigma:.4f})"
        if experiment.verdict is Verdict.DISCARD and delta < 0:
            text += ", too little to tell from luck"
    return text


def _failure(runs: tuple[RunRecord, ...]) -> str:
    if not runs:
        return "it never ran"
    run = runs[-1]
    doing = {Phase.TRAIN: "training", Phase.AUDIT: "the audit"}.get(run.phase, "scoring")
    code = "" if run.exit_code is None else f" with exit code {run.exit_code}"
    after = "" if run.wall_seconds is None else f" after {run.wall_seconds:.0f} s"
    return {
        RunEnd.FINISHED: f"{doing} ended by itself{after} but left nothing that could be scored",
        RunEnd.DEADLINE: f"{doing} reached its deadline{after} without a usable result",
        RunEnd.FAILED: f"{doing} failed{code}{after}",
        RunEnd.OUT_OF_MEMORY: f"{doing} ran out of memory{after}",
        RunEnd.STARTUP: "the container's interpreter did not come up",
        RunEnd.LOST: f"the {doing} container vanished{after}",
    }[run.end]
