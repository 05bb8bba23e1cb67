"""The champion measured again, now and then: the machine drifts, and one number must not stand for ever."""

from __future__ import annotations

import math

import structlog

from runner.campaign.studies.reproduce import image_of
from runner.decision import evidence
from runner.decision.lineage import champion_claims
from runner.evaluation.trial import Examined, Failure, Laboratory, LedgerRuns, measure, run_seed
from runner.records import Experiment
from runner.storage.ledger import Campaign

log = structlog.get_logger()

DRIFT_SIGMAS = 3.0
"""A control that is further from the champion's earlier runs raises an alarm: one in 370 does by chance."""


def run_control(lab: Laboratory, campaign: Campaign, best: Experiment) -> None:
    """Measure the champion once more with a new seed, audited, in the pool that its challengers are compared with.

    A failure changes nothing: it is written down, and a person is told.
    """
    history = lab.ledger.experiments(campaign.tag)
    assert best.kept_commit is not None
    commit = best.kept_commit
    lab.observer.note(f"measuring experiment {best.number} again")
    outcome = measure(
        lab,
        build=lambda: image_of(lab, best, commit)[0].id,
        number=best.number,
        seed=run_seed(campaign, best.number, evidence.next_index(best)),
        runs=LedgerRuns(lab.ledger, campaign.tag, best.number, control=True),
        examiner=Examined(audit=True, seal=False),
        champion=champion_claims(best),
    )
    if isinstance(outcome, Failure):
        lab.observer.note(f"experiment {best.number} failed when it was measured again: {outcome.reason}")
        log.warning("control_failed", experiment=best.number, verdict=outcome.verdict, reason=outcome.reason)
        return
    pool = [run.val_bpb for run in evidence.champion_pool(best) if run.val_bpb is not None]
    sigma = evidence.belief(history, lab.config).sigma_bpb
    away = outcome.val_bpb - sum(pool) / len(pool)
    sigmas = away / (sigma * math.sqrt(1 + 1 / len(pool)))
    log.info("control_measured", experiment=best.number, val_bpb=outcome.val_bpb, sigmas=round(sigmas, 2))
    if abs(sigmas) > DRIFT_SIGMAS:
        direction = "worse" if away > 0 else "better"
        lab.observer.note(
            f"drift: experiment {best.number} scores {abs(away):.4f} bpb {direction} than before, "
            f"{abs(sigmas):.1f} times the noise; autoresearch doctor looks at the machine"
        )
        log.warning("drift_seen", experiment=best.number, away_bpb=away, sigmas=sigmas)
