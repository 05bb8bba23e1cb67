"""The tip measured again: machines drift, and one number must not stand for a whole night."""

from __future__ import annotations

import structlog

from runner.campaign.campaign import Campaign
from runner.campaign.candidate import program_of
from runner.campaign.measurement import LedgerBook, measure
from runner.decision import history
from runner.decision.tip_state import Tip
from runner.evaluation.contention import usual_speed
from runner.evaluation.evaluator import TrialRequest
from runner.records import AuditPolicy, Files, Outcome, Trial, TrialKind
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository

log = structlog.get_logger()


def tip_workload(ledger: Ledger, repository: Repository, tag: str) -> Files:
    """Read the program that the next idea of a campaign edits; a new campaign starts from HEAD.

    Raises:
        RepositoryError: its commit has no workload.
    """
    row, tip = ledger.campaign(tag), history.tip(ledger.lineage(tag))
    if tip is not None and tip.commit is not None:
        return repository.read_workload(tip.commit)
    return repository.read_workload(repository.resolve("HEAD") if row is None else row.base_commit)


def run_control(campaign: Campaign) -> Trial:
    """Measure the tip once more under the exploration seed, audited; return the trial.

    A failure changes nothing: it is recorded and reported.
    """
    before, program = campaign.memory.tip, campaign.tip
    assert before is not None
    campaign.observer.note(f"measuring the tip, experiment {program.number}, again")
    trial = measure(
        campaign.evaluator,
        TrialRequest(
            program=program_of(campaign, program), seed=before.seed, usual_tokens_per_second=usual_speed(program)
        ),
        LedgerBook(campaign, program.number, TrialKind.CONTROL),
        lambda _: AuditPolicy(audit=True),
        history.champion_claims(campaign.champion),
    )
    if trial.outcome is Outcome.SCORED:
        _report(campaign, before, trial.val_bpb or 0.0)
    else:
        campaign.observer.note(f"experiment {program.number} failed when it was measured again: {trial.reason}")
        log.warning("control_failed", experiment=program.number, outcome=trial.outcome, reason=trial.reason)
    return trial


def _report(campaign: Campaign, before: Tip, val_bpb: float) -> None:
    known = campaign.memory.tip
    assert known is not None
    away, number = val_bpb - before.level.mean, before.number
    scores = f"experiment {number} scores {abs(away):.4f} bpb {'worse' if away > 0 else 'better'} than before"
    log.info("control_measured", experiment=number, val_bpb=val_bpb, away_bpb=away)
    if known.suspect_bpb is not None:
        campaign.observer.note(f"{scores}, more than the noise explains; it is measured once more")
        log.warning("control_suspect", experiment=number, away_bpb=away)
    elif known.era_seq != before.era_seq:
        campaign.observer.note(f"drift: {scores}, twice; autoresearch doctor checks the machine")
        log.warning("drift_seen", experiment=number, away_bpb=away)
