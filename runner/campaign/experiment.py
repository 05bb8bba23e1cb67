"""One experiment, from a recorded idea to its verdict."""

from __future__ import annotations

import structlog

from runner.campaign.backstop import Bug, guarded
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import program_of, stage
from runner.campaign.case import Case
from runner.campaign.certificate import Certificate
from runner.campaign.exploration import Exploration
from runner.campaign.measurement import LedgerBook, measure
from runner.campaign.promotion import point_tip, promote
from runner.decision import history
from runner.evaluation.contention import usual_speed
from runner.evaluation.evaluator import Program, TrialRequest
from runner.records import Experiment, Outcome, Ruling, Trial, TrialKind, Verdict

log = structlog.get_logger()


def run_experiment(campaign: Campaign, experiment: Experiment) -> Experiment:
    """Try a candidate until its case is decided. Trials in the ledger count: a restart resumes where it was.

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
    """The loop: trial after trial, of the candidate or of its champion, until there is a verdict."""
    candidate = stage(campaign, experiment)
    case, last = open_case(campaign, experiment), None
    while (ruling := case.verdict(last)) is None:
        if case.state is not None:
            campaign.observer.note(f"experiment {experiment.number}: {case.state}; another trial follows")
            if campaign.stopping():
                return campaign.experiments[experiment.number]
        last = _next_trial(campaign, candidate, case)
        case = case.refreshed(campaign)
    closed = campaign.close(experiment.number, ruling)
    log.info("verdict_reached", experiment=closed.number, verdict=ruling.verdict, reason=ruling.reason)
    closed = promote(campaign, closed) if ruling.keep else closed
    point_tip(campaign)
    return closed


def open_case(campaign: Campaign, experiment: Experiment) -> Case:
    """All that an open experiment is judged with."""
    if experiment.is_certificate:
        return Certificate.open(campaign, experiment)
    return Exploration.open(campaign, experiment)


def _next_trial(campaign: Campaign, candidate: Program, case: Case) -> Trial | None:
    """Run the next trial; returns it when the infrastructure gave it up, which the ledger forgets."""
    champion = case.champion_next
    program = candidate if champion is None else program_of(campaign, champion)
    kind = TrialKind.CANDIDATE if champion is None else TrialKind.CONTROL
    opponent = campaign.champion if champion is None else case.experiment
    trial = measure(
        campaign.evaluator,
        TrialRequest(
            program=program,
            seed=case.seed,
            score_limit_seconds=case.score_limit_seconds if champion is None else None,
            early_stop=case.early_stop,
            usual_tokens_per_second=None if champion is None else usual_speed(champion),
        ),
        LedgerBook(campaign, program.number, kind),
        case.policy,
        history.champion_claims(opponent),
    )
    return trial if trial.outcome is Outcome.LOST else None
