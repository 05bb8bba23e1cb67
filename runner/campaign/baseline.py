"""The baseline: experiment 0, the unmodified workload, measured until its noise is known."""

from __future__ import annotations

import structlog

from runner.campaign.campaign import Campaign
from runner.campaign.candidate import program_of, stage
from runner.campaign.case import VERDICTS
from runner.campaign.measurement import LedgerBook, measure
from runner.campaign.promotion import point_tip, promote
from runner.decision import history, keep_rule
from runner.errors import BaselineError, EngineError, Interrupted
from runner.evaluation.evaluator import TrialRequest
from runner.records import AuditPolicy, Experiment, Outcome, Proposal, Ruling, Trial, Verdict
from runner.untrusted import clean

log = structlog.get_logger()


def ensure_baseline(campaign: Campaign) -> Experiment:
    """Measure the unmodified workload, unless that is done; trials before a crash count.

    Raises:
        BaselineError: it does not run. It stays visible with its verdict until the next start, which replaces it.
        EngineError: the infrastructure failed.
        Interrupted: a person asked to stop between two trials.
    """
    if campaign.experiments and campaign.experiments[history.BASELINE].verdict is not None:
        return campaign.experiments[history.BASELINE]
    if not campaign.experiments:
        campaign.open(Proposal(hypothesis="baseline", edits=(), proposer="baseline"), diff="", parent=None)
    baseline = run_baseline(campaign, campaign.experiments[history.BASELINE])
    campaign.observer.closed(baseline, baseline.val_bpb)
    return baseline


def run_baseline(campaign: Campaign, experiment: Experiment) -> Experiment:
    """Measure the first champion until it has all its trials; raises what `ensure_baseline` does."""
    program, wanted = stage(campaign, experiment), campaign.config.baseline_runs
    while len(trials := history.scored(experiment.trials, audited=True)) < wanted:
        if campaign.stopping():
            raise Interrupted("stopped between two runs of the baseline", "run the same command again to continue")
        campaign.observer.note(f"baseline: run {len(trials) + 1} of {wanted}")
        trial = measure(
            campaign.evaluator,
            TrialRequest(program=program, seed=campaign.seed(experiment.number, len(trials))),
            LedgerBook(campaign, experiment.number),
            lambda _: AuditPolicy(audit=True, seal_below_bpb=float("inf")),
            history.champion_claims(experiment),
        )
        experiment = campaign.experiments[experiment.number]
        _refuse_failed(campaign, trial)
    scores = history.scores(trials)
    sigma = keep_rule.pooled_sigma([scores], campaign.config.noise_prior_bpb)
    ruling = Ruling(
        verdict=Verdict.KEEP,
        reason=f"baseline: mean of {len(scores)} runs; noise {sigma:.4f} bpb",
        val_bpb=sum(scores) / len(scores),
        sigma_bpb=sigma,
    )
    closed = campaign.close(experiment.number, ruling)
    log.info("verdict_reached", campaign=campaign.tag, experiment=0, verdict=closed.verdict, sigma_bpb=sigma)
    closed = promote(campaign, closed)
    point_tip(campaign)
    return closed


def measure_again(campaign: Campaign) -> Experiment:
    """Measure the baseline once more, under a fresh seed, whatever the champion is by now; returns it."""
    baseline = campaign.experiments[history.BASELINE]
    campaign.observer.note("measuring the baseline again")
    measure(
        campaign.evaluator,
        TrialRequest(
            program=program_of(campaign, baseline), seed=campaign.seed(baseline.number, len(baseline.trials))
        ),
        LedgerBook(campaign, baseline.number),
        lambda _: AuditPolicy(audit=True),
        history.champion_claims(baseline),
    )
    return campaign.experiments[history.BASELINE]


def _refuse_failed(campaign: Campaign, trial: Trial) -> None:
    if trial.outcome is Outcome.SCORED:
        return
    if trial.outcome is Outcome.LOST:
        raise EngineError(f"the baseline could not be measured: {trial.reason}", "autoresearch doctor")
    ruling = Ruling(verdict=VERDICTS[trial.outcome], reason=trial.reason or "")
    campaign.observer.closed(campaign.close(history.BASELINE, ruling), None)
    if trial.audit is not None:
        raise BaselineError(
            f"the claims of the unmodified workload are refused: {trial.reason}",
            "make workload/ causal and repeatable, and commit it; if it is, run: autoresearch calibrate",
        )
    tail = "" if trial.training is None else clean(trial.training.log_tail, 20)
    raise BaselineError(
        f"the unmodified workload got no score: {trial.reason}" + (f"\n{tail}" if tail else ""),
        "correct workload/ and commit it; its log: autoresearch show 0",
    )
