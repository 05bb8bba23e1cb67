"""One trial, repeated until it says something about its program: the measuring loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from runner.campaign.campaign import Campaign
from runner.errors import (
    AutoresearchError,
    BaseGoneError,
    DiskFullError,
    EngineAwayError,
    EngineError,
    ImageError,
    without_figures,
)
from runner.evaluation.evaluator import Evaluator, Program, TrialRequest
from runner.evaluation.outcome import Faults
from runner.evaluation.trial import Sealed, open_trial
from runner.records import AuditPolicy, Outcome, RunRecord, Trial, TrialKind
from runner.sandbox.engine_outage import check_engine_identity
from runner.sandbox.images import Image

log = structlog.get_logger()

MAX_CONTENDED = 2
"""How often a trial under contention is thrown away. The next training counts, with its noise; a time limit that
is missed once more ends the trial as lost."""
FAULT_PAUSE_SECONDS = 2.0
"""Wait before a trial that the infrastructure failed is repeated."""

Policy = Callable[[float], AuditPolicy]
"""Decides how closely claims are examined, given their score as claimed."""


class TrialBook:
    """Where the steps of a trial are recorded. This one records nothing: studies change no record."""

    def built(self, program: Program, image: Image) -> None:
        """The image of the program is there."""

    def opened(self, seed: int) -> int:
        """A trial is about to start; returns the id to close it with."""
        return 0

    def committed(self, trial_id: int, trial: Trial) -> None:
        """Its claims are final, and not examined yet."""

    def sealed(self, sealed: Sealed) -> None:
        """It has a score on the sealed rows."""

    def closed(self, trial_id: int, trial: Trial) -> None:
        """It has ended."""


@dataclass(frozen=True)
class LedgerBook(TrialBook):
    """Trials of one experiment, in the ledger."""

    campaign: Campaign
    number: int
    kind: TrialKind = TrialKind.CANDIDATE

    def built(self, program: Program, image: Image) -> None:
        """Record a candidate's commit and image, unless that is done."""
        experiment = self.campaign.experiments[self.number]
        if experiment.verdict is None and experiment.image_id != image.id:
            self.campaign.ledger.set_candidate(
                self.campaign.tag,
                self.number,
                commit=program.commit,
                image_id=image.id,
                layer_digest=image.layer_digest,
            )
            self.campaign.reload(self.number)

    def opened(self, seed: int) -> int:
        """Announce a trial."""
        return self.campaign.ledger.open_trial(self.campaign.tag, self.number, self.kind, seed)

    def committed(self, trial_id: int, trial: Trial) -> None:
        """Commit the hash of its claims."""
        self.campaign.ledger.commit_claims(trial_id, trial)

    def sealed(self, sealed: Sealed) -> None:
        """Record a sealed score, where no proposer and no verdict reads it."""
        self.campaign.controller.sealed.add(self.campaign.tag, sealed.score, sealed.claims_sha256)

    def closed(self, trial_id: int, trial: Trial) -> None:
        """Record how it ended."""
        self.campaign.ledger.close_trial(self.campaign.tag, trial_id, trial)
        self.campaign.reload(self.number)


def measure(
    evaluator: Evaluator,
    request: TrialRequest,
    book: TrialBook,
    policy: Policy,
    champion_claims: str | None,
) -> Trial:
    """Run a trial; repeat what the infrastructure fails, unless it fails the same way again.

    Waits while the engine is away. A training under contention is thrown away and repeated as well; on a machine
    that is never quiet the last attempt counts, with its noise: a night must not stand still. Where even that one
    misses a time limit, the trial is lost.

    Args:
        policy: decides on audit and seal after the claims are committed.
        champion_claims: hash of the claims that an audit compares with; None where there are none.

    Returns:
        The last attempt. Lost only when the infrastructure was given up on.

    Raises:
        EngineAwayError: the engine stayed away.
        DiskFullError, BaseGoneError: no attempt can succeed before a person has done something.
        Interrupted: a person asked to stop while the engine was away.
    """
    faults, contended, number = Faults(), 0, request.program.number
    while True:
        attempt = replace(request, tolerate_contention=contended >= MAX_CONTENDED)
        trial, fault = _attempt(evaluator, attempt, book, policy, champion_claims)
        if trial.outcome not in (Outcome.LOST, Outcome.CONTENDED):
            return trial
        log.warning("trial_repeated", experiment=number, outcome=trial.outcome, reason=trial.reason)
        evaluator.await_ready()
        if trial.outcome is Outcome.CONTENDED:
            contended += 1
            if contended > MAX_CONTENDED:
                evaluator.observer.note(f"experiment {number}: {trial.reason}")
                return replace(trial, outcome=Outcome.LOST)
        elif (given_up := faults.add(fault)) is not None:
            reason = f"{given_up}: {trial.reason}"
            evaluator.observer.note(f"experiment {number}: {reason}")
            return replace(trial, reason=reason)
        else:
            time.sleep(FAULT_PAUSE_SECONDS)
        evaluator.observer.note(f"experiment {number}: {trial.reason}; running it again")


def _attempt(
    evaluator: Evaluator,
    request: TrialRequest,
    book: TrialBook,
    policy: Policy,
    champion_claims: str | None,
) -> tuple[Trial, str]:
    """One attempt, recorded whatever becomes of it; the trial, and the name of its fault where it is lost."""
    runs: list[RunRecord] = []
    trial_id: int | None = None
    try:
        check_engine_identity(evaluator.engine)
        image = evaluator.ensure_image(request.program)
        book.built(request.program, image)
        trial_id = book.opened(request.seed)
        with open_trial(evaluator, request, image.id, runs) as running:
            trial = running.claim()
            if trial.outcome is Outcome.SCORED:
                assert trial.val_bpb is not None
                book.committed(trial_id, trial)
                trial, sealed = running.examine(policy(trial.val_bpb), champion_claims)
                if sealed is not None:
                    book.sealed(sealed)
        fault = without_figures(trial.reason or "")
    except (EngineError, ImageError) as error:
        trial = _lost(request.seed, error.message, runs)
        fault = error.fault
        if isinstance(error, EngineAwayError | DiskFullError | BaseGoneError):
            _close_quietly(book, trial_id, trial)
            raise
    except BaseException as error:
        _close_quietly(book, trial_id, _lost(request.seed, str(error) or type(error).__name__, runs))
        raise
    if trial_id is not None:
        book.closed(trial_id, trial)
    return trial, fault


def _close_quietly(book: TrialBook, trial_id: int | None, trial: Trial) -> None:
    """Close a trial on the way out; one that stays open is closed at the next start."""
    if trial_id is not None:
        with suppress(AutoresearchError):
            book.closed(trial_id, trial)


def _lost(seed: int, reason: str, runs: list[RunRecord]) -> Trial:
    return Trial(seed=seed, outcome=Outcome.LOST, reason=reason, runs=tuple(runs))
