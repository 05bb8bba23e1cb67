"""Explain why an experiment got its verdict, and what audits found, in sentences for a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.decision import history
from runner.records import AuditRecord, Experiment, Figures, Phase, RunEnd, RunRecord, Trial, Verdict
from runner.report.summary import BASELINE, counted, score_of
from runner.untrusted import clean, one_line

MAX_STRIKES = 5
"""Champions whose refused challengers are listed one by one."""

_OPENINGS = {
    Verdict.KEEP: "Kept",
    Verdict.ACCEPT: "Accepted onto the tip",
    Verdict.UNCLEAR: "Unclear",
    Verdict.DISCARD: "Discarded",
    Verdict.CRASH: "Crashed",
    Verdict.INVALID: "Invalid",
    Verdict.INFRA: "Lost to infrastructure (says nothing about the idea)",
}


def explain(experiment: Experiment) -> str:
    """Describe one experiment in a few sentences. Text of the candidate or of a model is cleaned."""
    if experiment.verdict is None:
        sentences = ["Still running, or interrupted before its verdict."]
    elif experiment.number == BASELINE:
        sentences = [_baseline(experiment)]
    else:
        sentences = [f"{_OPENINGS[experiment.verdict]}: {_why(experiment)}."]
    if experiment.retry_of is not None:
        sentences.append(f"This was the only retry of experiment {experiment.retry_of}.")
    if experiment.is_certificate:
        edits = "edit" if len(experiment.certifies) == 1 else "edits"
        numbers = ", ".join(map(str, experiment.certifies))
        sentences.append(f"It compares the tip, with the accepted {edits} {numbers}, with the champion.")
    if experiment.verdict is Verdict.CRASH:
        last = clean(experiment.log_tail, max_lines=1)
        if last:
            sentences.append(f"The log ends with: {last}")
    return " ".join(sentences)


def ruled(certificate: Experiment | None) -> str:
    """Say what became of an accepted edit.

    Args:
        certificate: that decided on it; None: it is on the tip.
    """
    if certificate is None:
        return "It is on the tip, not certified yet."
    word = "certified" if certificate.verdict is Verdict.KEEP else "rolled back"
    gain = "" if certificate.delta_bpb is None else f", measured gain {-certificate.delta_bpb:.4f} bpb"
    together = len(certificate.certifies)
    with_others = "" if together == 1 else f" of {together} edits together"
    return f"It was {word} by experiment {certificate.number}{gain}{with_others}."


def level_line(experiment: Experiment) -> str | None:
    """Compare the score of an idea with the level of the tip that it edits; None without a score."""
    figures, score = experiment.figures, score_of(experiment)
    if figures is None or score is None or experiment.is_certificate:
        return None
    level, seed = score - figures.delta_bpb, experiment.trials[0].seed if experiment.trials else None
    under = "" if seed is None else f" under the exploration seed {seed}"
    return (
        f"scored {score:.6f}{under}; the tip, experiment {experiment.parent}, is at {level:.6f} there: "
        f"difference {figures.delta_bpb:+.6f} ± {figures.se_bpb:.6f}, before the prior"
    )


def pair_lines(certificate: Experiment, champion: Experiment | None) -> list[str]:
    """List the pairs of a certificate, one line each.

    Args:
        champion: that it was compared with.
    """
    pairs = () if champion is None or not certificate.is_certificate else history.pairs_of(certificate, champion)
    return [
        f"  pair {number}  seed {pair.tip.seed:<10d}  tip {pair.tip.val_bpb:.6f}  "
        f"champion {pair.champion.val_bpb:.6f}  {pair.delta_bpb:+.6f}"
        for number, pair in enumerate(pairs, 1)
    ]


def audit_lines(audit: AuditRecord) -> list[str]:
    """List the figures of one audit."""
    counts = ", ".join(str(count) for count in audit.exceedances)
    lines = [
        f"claimed            {audit.claimed_bpb:.6f} bpb",
        f"positions          {audit.num_positions:,}",
        f"overstatement      {audit.mean_nats:+.2g} nats per token, standard error {audit.se_nats:.2g}",
        f"added to the claim {audit.upper_nats:.2g} nats per token",
        f"over 0.1 0.3 1 3   {counts}",
        f"equal passes       {_dependence(audit.repeat)} (mean total variation)",
        f"other suffixes     {_dependence(audit.suffix)}",
        f"other neighbors    {_dependence(audit.neighbors)}",
    ]
    return lines if audit.reason is None else [*lines, f"refused            {audit.reason}"]


def strikes_line(strikes: Mapping[int, int]) -> str | None:
    """Count the challengers of each champion that the audit refused; None when there were none."""
    if not strikes:
        return None
    *earlier, last = sorted(strikes.items())
    newest = [*earlier[1 - MAX_STRIKES :], last]
    parts = [f"{counted(count, 'challenger')} of experiment {number}" for number, count in newest]
    if rest := earlier[: 1 - MAX_STRIKES]:
        count = sum(count for _, count in rest)
        parts.insert(0, f"{counted(count, 'challenger')} of {counted(len(rest), 'earlier champion')}")
    return f"Refused by the audit: {', '.join(parts)}."


def _baseline(experiment: Experiment) -> str:
    score = score_of(experiment)
    if score is None:
        return f"The unmodified workload got no score: {_why(experiment)}."
    num_trials = sum(trial.audited for trial in experiment.trials)
    trials = f" over {num_trials} trials" if num_trials > 1 else ""
    noise = "" if experiment.sigma_bpb is None else f", noise sigma {experiment.sigma_bpb:.4f}"
    return f"The baseline: val_bpb {score:.4f}{trials}{noise}. Candidates are compared with it until one is kept."


def _why(experiment: Experiment) -> str:
    """Return the figures of a verdict, the reason in the ledger, or what the last run shows."""
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
    """Put the evidence for a verdict into one clause: the ledger's reason, and the interval of the effect.

    `63% sure to be better; the tip takes an edit from 60%; expected effect −0.0012 bpb (90% interval …)`
    """
    gain = "measured gain" if experiment.is_certificate else "expected gain"
    return "; ".join(
        [
            one_line(experiment.reason or "", 400).rstrip("."),
            f"{gain} {-figures.effect_bpb:.4f} bpb"
            f" (90% interval {-figures.high_bpb:.4f} to {-figures.low_bpb:.4f})",
            f"noise {figures.sigma_bpb:.4f}",
        ]
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
            text += ", too little to distinguish from luck"
    return text


def _failure(runs: tuple[RunRecord, ...]) -> str:
    if not runs:
        return "it never ran"
    run = runs[-1]
    doing = {Phase.TRAIN: "training", Phase.AUDIT: "the audit"}.get(run.phase, "scoring")
    code = "" if run.exit_code is None else f" with exit code {run.exit_code}"
    after = "" if run.wall_seconds is None else f" after {run.wall_seconds:.0f} s"
    return {
        RunEnd.FINISHED: f"{doing} ended by itself{after} but left nothing to score",
        RunEnd.DEADLINE: f"{doing} reached its deadline{after} without a usable result",
        RunEnd.FAILED: f"{doing} failed{code}{after}",
        RunEnd.OUT_OF_MEMORY: f"{doing} ran out of memory{after}",
        RunEnd.STARTUP: "the interpreter in the container did not start",
        RunEnd.STOPPED: f"{doing} was stopped{after} as unpromising",
        RunEnd.LOST: f"the {doing} container vanished{after}",
    }[run.end]


@dataclass(frozen=True, kw_only=True)
class Basis:
    """One trial that a verdict rests on, by its run with the score."""

    role: str  # "trial" of the candidate, "pool" of its champion, "control" of its champion, measured later
    experiment: int
    trial: int  # id in the ledger
    seed: int
    val_bpb: float | None


def rests_on(experiment: Experiment, champion: Experiment | None) -> tuple[Basis, ...]:
    """List the trials that a verdict rests on, the candidate's first.

    Args:
        champion: the one it was compared with; None where the ledger does not know it.
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
    """Format the evidence for people, one line per trial."""
    return [
        f"  {one.role:7s}  experiment {one.experiment:<4d}  trial {one.trial:<5d}  seed {one.seed:<10d}"
        + ("" if one.val_bpb is None else f"  val_bpb {one.val_bpb:.6f}")
        for one in basis
    ]


def _basis(role: str, number: int, trial: Trial) -> Basis:
    return Basis(role=role, experiment=number, trial=trial.id, seed=trial.seed, val_bpb=trial.val_bpb)


def _dependence(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2g}"
