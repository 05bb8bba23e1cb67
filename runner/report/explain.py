"""Why an experiment got its verdict, in sentences for a person."""

from __future__ import annotations

from dataclasses import dataclass

from runner.decision.keep_rule import AS_GOOD
from runner.records import Experiment, Figures, Phase, RunEnd, RunRecord, Trial, Verdict
from runner.report.summary import BASELINE, score_of
from runner.untrusted import clean, one_line

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
    if experiment.combines:
        sentences.append(f"It tries near misses together: experiments {', '.join(map(str, experiment.combines))}.")
    if experiment.verdict is Verdict.CRASH:
        last = clean(experiment.log_tail, max_lines=1)
        if last:
            sentences.append(f"Its last words: {last}")
    return " ".join(sentences)


def _baseline(experiment: Experiment) -> str:
    score = score_of(experiment)
    if score is None:
        return f"The unmodified workload gave no score: {_why(experiment)}."
    num_runs = sum(trial.audited for trial in experiment.trials)
    runs = f" over {num_runs} runs" if num_runs > 1 else ""
    noise = "" if experiment.sigma_bpb is None else f", noise sigma {experiment.sigma_bpb:.4f}"
    return f"The baseline: val_bpb {score:.4f}{runs}{noise}. Candidates are compared with it until one is kept."


def _why(experiment: Experiment) -> str:
    """The reason that the ledger holds, else what its figures or its last run tell."""
    reason = one_line(experiment.reason or "", 400).rstrip(".")
    score = score_of(experiment)
    if score is not None and experiment.figures is not None:
        return _evidence(experiment, experiment.figures)
    if not reason:
        return _failure(experiment.runs) if score is None else _comparison(experiment, score)
    if score is None or experiment.delta_bpb is None:
        return reason
    return f"{reason}: {_comparison(experiment, score)}"


def _evidence(experiment: Experiment, figures: Figures) -> str:
    """What a verdict rests on, in one clause: `better by 0.0123 ± 0.0031 bpb; 4 runs against 6 of …; 97 % sure`.

    The ledger's reason follows where figures alone do not say it: a discard that looks better, a simplification.
    """
    trials = "1 run" if len(figures.trials) == 1 else f"{len(figures.trials)} runs"
    pool = "the champion" if experiment.champion is None else f"experiment {experiment.champion}"
    is_better = figures.delta_bpb < 0
    sure = figures.better if is_better else 1 - figures.better
    parts = [
        f"{'better' if is_better else 'worse'} by {abs(figures.delta_bpb):.4f} ± {figures.se_bpb:.4f} bpb",
        f"{trials} against {len(figures.pool)} of {pool}",
        f"{_percent(sure)} sure",
        f"noise {figures.sigma_bpb:.4f}",
    ]
    if experiment.verdict is Verdict.KEEP:
        parts.append(
            f"probably worth {-figures.effect_bpb:.4f} (90 % interval {-figures.high_bpb:.4f} to "
            f"{-figures.low_bpb:.4f})"
        )
    if (experiment.verdict is Verdict.KEEP) != is_better or (
        experiment.reason is not None and experiment.reason.startswith(AS_GOOD)
    ):
        reason = one_line(experiment.reason or "", 400).rstrip(".")
        parts += [f"the rule: {reason}"] if reason else []
    return "; ".join(parts)


def _percent(share: float) -> str:
    """Never 100 %: no measurement gives that."""
    return "over 99 %" if share > 0.995 else f"{share:.0%}".replace("%", " %")


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
        RunEnd.STOPPED: f"{doing} was stopped{after}: it was hopeless",
        RunEnd.LOST: f"the {doing} container vanished{after}",
    }[run.end]


@dataclass(frozen=True, kw_only=True)
class Basis:
    """One run that a verdict rests on."""

    role: str  # "look": of the candidate; "pool": of its champion; "control": the same, measured again later
    experiment: int
    trial: int  # id in the ledger
    seed: int
    val_bpb: float | None


def rests_on(experiment: Experiment, champion: Experiment | None) -> tuple[Basis, ...]:
    """The runs that a verdict rests on, the candidate's first.

    Args:
        champion: that it was compared with; None where the ledger does not know it.
    """
    if experiment.figures is None:
        return ()
    trials, pool = set(experiment.figures.trials), set(experiment.figures.pool)
    found = [_basis("trial", experiment.number, one) for one in experiment.trials if one.id in trials]
    if champion is not None:
        found += [_basis("pool", champion.number, one) for one in champion.trials if one.id in pool]
        found += [_basis("control", champion.number, one) for one in champion.control_trials if one.id in pool]
    return tuple(found)


def basis_lines(basis: tuple[Basis, ...]) -> list[str]:
    """For people, a line a run."""
    return [
        f"  {one.role:7s}  experiment {one.experiment:<4d}  trial {one.trial:<5d}  seed {one.seed:<10d}"
        + ("" if one.val_bpb is None else f"  val_bpb {one.val_bpb:.6f}")
        for one in basis
    ]


def _basis(role: str, number: int, trial: Trial) -> Basis:
    return Basis(role=role, experiment=number, trial=trial.id, seed=trial.seed, val_bpb=trial.val_bpb)
