"""One experiment, from a recorded idea to its verdict."""

from __future__ import annotations

import structlog

from runner.campaign.backstop import Bug, guarded
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import stage
from runner.campaign.champion import run_control
from runner.campaign.comparison import Comparison
from runner.campaign.measurement import LedgerBook, measure
from runner.campaign.promotion import promote
from runner.decision import history
from runner.evaluation.evaluator import Program, TrialRequest
from runner.records import Experiment, Outcome, Ruling, Trial, Verdict

log = structlog.get_logger()


def run_experiment(campaign: Campaign, experiment: Experiment) -> Experiment:
    """Try a candidate until the keep rule decides. Trials in the ledger count: a restart goes on where it was.

    Returns the experiment without a verdict when a person asked to stop between two trials. A bug of ours that it
    brings to light closes it as infra: the next start would meet the same bug.
    """
    closed = guarded(
        "judging it",
        lambda: _until_decided(campaign, experiment),
        campaign=campaign.tag,
        experiment=experiment.number,
    )
    if not isinstance(closed, Bug):
        return closed
    if campaign.reload(experiment.number).verdict is not None:
        raise closed.error  # it is judged: what failed since concerns git, not its text
    campaign.observer.note(f"experiment {experiment.number}: {closed.reason}")
    return campaign.close(experiment.number, Ruling(verdict=Verdict.INFRA, reason=closed.reason))


def _until_decided(campaign: Campaign, experiment: Experiment) -> Experiment:
    """The loop: a candidate's next trial, and the champion's in between, until there is a verdict."""
    candidate = stage(campaign, experiment)
    comparison, last = Comparison.open(campaign, experiment), None
    while (ruling := comparison.verdict(last)) is None:
        if comparison.trials:
            _announce_another(campaign, comparison)
            if campaign.stopping():
                return campaign.experiments[experiment.number]
        if comparison.needs_control:
            comparison = comparison.with_champion(run_control(campaign, comparison.champion))
        last = _next_trial(campaign, candidate, comparison)
        comparison = comparison.with_candidate(campaign.experiments[experiment.number])
    closed = campaign.close(experiment.number, ruling)
    log.info("verdict_reached", experiment=closed.number, verdict=ruling.verdict, reason=ruling.reason)
    return promote(campaign, closed) if ruling.keep else closed


def _announce_another(campaign: Campaign, comparison: Comparison) -> None:
    number, judgement = comparison.experiment.number, comparison.judgement
    campaign.observer.note(f"experiment {number}: {judgement.reason}; another trial follows")
    log.info("trial_judged", experiment=number, trials=len(comparison.trials), delta_bpb=judgement.delta_bpb)


def _next_trial(campaign: Campaign, candidate: Program, comparison: Comparison) -> Trial | None:
    """Run the candidate's next trial; returns it when the infrastructure gave it up, which the ledger forgets."""
    number, done = candidate.number, len(comparison.trials)
    trial = measure(
        campaign.evaluator,
        TrialRequest(
            program=candidate,
            seed=campaign.seed(number, done),
            score_limit_seconds=comparison.score_limit_seconds,
            early_stop=None if done else comparison.early_stop,
        ),
        LedgerBook(campaign, number),
        comparison.policy,
        history.champion_claims(comparison.champion),
    )
    return trial if trial.outcome is Outcome.LOST else None
