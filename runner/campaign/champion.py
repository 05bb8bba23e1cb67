"""The champion's files, and controls: the champion measured again.

Machines drift, and one number must not stand for a whole night.
"""

from __future__ import annotations

import math

import structlog

from runner.campaign.campaign import Campaign
from runner.campaign.candidate import kept_program
from runner.campaign.measurement import LedgerBook, measure
from runner.decision import history
from runner.evaluation.evaluator import TrialRequest
from runner.records import AuditPolicy, Experiment, Files, Outcome, TrialKind
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository

log = structlog.get_logger()

DRIFT_SIGMAS = 3.0
"""A control that is further from the champion's earlier trials raises an alarm: one in 370 does by chance."""


def champion_workload(ledger: Ledger, repository: Repository, tag: str) -> Files:
    """Read the program that the next experiment of a campaign is based on; a new campaign starts from HEAD.

    Raises:
        RepositoryError: its commit has no workload.
    """
    row, best = ledger.campaign(tag), history.champion(ledger.keeps(tag))
    if best is not None and best.kept_commit is not None:
        return repository.read_workload(best.kept_commit)
    return repository.read_workload(repository.resolve("HEAD") if row is None else row.base_commit)


def run_control(campaign: Campaign, champion: Experiment) -> Experiment:
    """Measure a champion once more with a new seed, audited; return it with the new trial.

    A failure changes nothing: it is recorded and reported.
    """
    before = history.scores(history.champion_pool(champion))
    campaign.observer.note(f"measuring the champion (experiment {champion.number}) again")
    trial = measure(
        campaign.evaluator,
        TrialRequest(
            program=kept_program(campaign, champion),
            seed=campaign.seed(champion.number, len(history.settled(champion))),
        ),
        LedgerBook(campaign, champion.number, TrialKind.CONTROL),
        lambda _: AuditPolicy(audit=True),
        history.champion_claims(champion),
    )
    if trial.outcome is Outcome.SCORED and trial.val_bpb is not None:
        _report_drift(campaign, champion, before, trial.val_bpb)
    else:
        campaign.observer.note(f"experiment {champion.number} failed when it was measured again: {trial.reason}")
        log.warning("control_failed", experiment=champion.number, outcome=trial.outcome, reason=trial.reason)
    return campaign.experiments[champion.number]


def _report_drift(campaign: Campaign, champion: Experiment, before: tuple[float, ...], val_bpb: float) -> None:
    sigma = campaign.memory.belief().sigma_bpb
    away = val_bpb - sum(before) / len(before)
    sigmas = away / (sigma * math.sqrt(1 + 1 / len(before)))
    log.info("control_measured", experiment=champion.number, val_bpb=val_bpb, sigmas=round(sigmas, 2))
    if abs(sigmas) > DRIFT_SIGMAS:
        direction = "worse" if away > 0 else "better"
        campaign.observer.note(
            f"drift: experiment {champion.number} scores {abs(away):.4f} bpb {direction} than before, "
            f"{abs(sigmas):.1f} times the noise; autoresearch doctor checks the machine"
        )
        log.warning("drift_seen", experiment=champion.number, away_bpb=away, sigmas=sigmas)
