"""One trial: a program under one seed, trained, scored, audited and sealed.

    train → (failed? stop) → score → judge → (audit wanted? audit) → (keep? seal)

A trial comes in two calls, `claim` and `examine`. Between them the caller commits the hash of the claims: only
then
are the positions of the audit drawn. Everything goes in and comes out as plain values; neither ledger nor git is
touched. A candidate's failure is an outcome with a reason; an engine that fails raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog

from locked_eval.judging import judge
from runner.errors import DiskFullError, EngineError
from runner.evaluation.audit import Claims, examine_claims
from runner.evaluation.contention import ProcessorMeter, slower
from runner.evaluation.evaluator import Evaluator, TrialRequest
from runner.evaluation.loss_monitor import LossMonitor
from runner.evaluation.outcome import (
    Failure,
    audit_failure,
    contention,
    scoring_failure,
    too_slow,
    training_failure,
)
from runner.records import AuditPolicy, Outcome, Phase, RunEnd, RunRecord, SealedScore, Trial
from runner.sandbox import Session, open_session
from runner.sandbox.core_meter import CoreMeter
from runner.sandbox.host import suspended_seconds
from runner.sandbox.reservation import choose_cores
from runner.storage import claims as claims_store
from runner.storage.clock import now
from runner.untrusted import clean, progress

log = structlog.get_logger()

MAX_SUSPENDED_SECONDS = 1.0
"""Suspension of the machine during a run; a longer one loses it, since caches, clocks, and devices start anew."""
LOG_LINES = 50
"""Lines of a training log that are kept, for people and for the model that repairs a crash."""


class Sealed(NamedTuple):
    """A score on the sealed rows, and the hash of the claims behind it."""

    score: SealedScore
    claims_sha256: str


@contextmanager
def open_trial(
    evaluator: Evaluator, request: TrialRequest, image_id: str, runs: list[RunRecord]
) -> Iterator[RunningTrial]:
    """Start the containers of a trial; remove them whatever happens.

    Args:
        runs: is extended by every container execution, also by one that an exception ends.

    Raises:
        EngineError: the engine failed; says nothing about the candidate.
    """
    evaluator.observer.phase(request.program.number, "start", None)
    with open_session(
        evaluator.engine,
        config=evaluator.config,
        mounts=evaluator.mounts,
        image_id=image_id,
        owner=evaluator.owner(request.program.number),
        max_claims_bytes=evaluator.rows.val_targets.size * 4,
    ) as session:
        yield RunningTrial(evaluator=evaluator, request=request, session=session, runs=runs)


@dataclass(kw_only=True)
class RunningTrial:
    """A trial whose containers are there. Both calls raise EngineError when the engine fails."""

    evaluator: Evaluator
    request: TrialRequest
    session: Session
    runs: list[RunRecord]
    _batch_rows: int = 0  # of the forward passes in the scoring that counts
    _claims: bytes = b""
    _score: judge.Score | None = None
    _audited_bpb: float | None = None
    _policy: AuditPolicy = field(default_factory=lambda: AuditPolicy(audit=False))
    _champion_claims: str | None = None
    _sealed: Sealed | None = None

    def claim(self) -> Trial:
        """Train and score; a scored trial has the hash of its claims, and their score as claimed."""
        return self._through((self._train, self._score_rows))

    def examine(self, policy: AuditPolicy, champion_claims: str | None) -> tuple[Trial, Sealed | None]:
        """Audit the committed claims, and score the sealed rows where that is deserved.

        Args:
            champion_claims: hash of the claims that the audit compares with; None where there are none.
        """
        self._policy, self._champion_claims = policy, champion_claims
        return self._through((self._audit, self._seal)), self._sealed

    def _through(self, steps: tuple[Callable[[], Failure | None], ...]) -> Trial:
        """Take the steps in order; the first failure ends the trial."""
        failure = next((failure for step in steps if (failure := step()) is not None), None)
        return Trial(
            seed=self.request.seed,
            outcome=Outcome.SCORED if failure is None else failure.outcome,
            reason=None if failure is None else failure.reason,
            val_bpb=None
            if failure is not None or self._score is None
            else self._audited_bpb or self._score.val_bpb,
            claims_sha256=None if self._score is None else self._score.claims_sha256,
            sealed=self._sealed is not None,
            runs=tuple(self.runs),
        )

    def _train(self) -> Failure | None:
        evaluator, config = self.evaluator, self.evaluator.config
        cores = choose_cores(config)
        meter, processors = CoreMeter(cores), ProcessorMeter(lambda: evaluator.read_processors(cores))
        monitor = LossMonitor(config.train_seconds, self.request.early_stop, config.early_stop_holdout)

        def started() -> None:
            meter.start()
            processors.start()
            monitor.start()
            evaluator.observer.phase(self.request.program.number, "train", config.train_seconds)

        def show(line: str) -> None:
            if (figures := progress(line)) is not None:
                evaluator.observer.line(figures)
                monitor.hear(figures)

        def ended() -> None:
            meter.stop()
            processors.stop()

        def train() -> RunRecord:
            try:
                run = self.session.train(
                    self.request.seed,
                    on_line=show,
                    on_start=started,
                    on_end=ended,
                    gives_up=None if self.request.early_stop is None else monitor.gives_up,
                )
            finally:
                processors.stop()
            return replace(
                run,
                log_tail=evaluator.redactor.redact(clean(run.log_tail, LOG_LINES)),  # the rest is dropped here
                others_cpu_seconds=meter.others(run.cpu_seconds, run.wall_seconds),
                clock_mhz=processors.mean_mhz(),
                curve=monitor.curve(),
            )

        run = self._recorded(Phase.TRAIN, train)
        failure = training_failure(run, config)
        if self.request.tolerate_contention or (failure is not None and run.end is not RunEnd.STOPPED):
            return failure
        gpu = processors.disturbance(config.max_disturbance)
        disturbed = contention(run, config, gpu or slower(run, self.request.usual_tokens_per_second))
        return disturbed or failure

    def _score_rows(self) -> Failure | None:
        """Score; where memory runs out although training fits, again with half the rows a batch, down to one."""
        evaluator, training, number = self.evaluator, self.runs[-1], self.request.program.number
        self._batch_rows = evaluator.config.score_batch_rows
        while True:
            run, result = self._score_once()
            if run.end is not RunEnd.OUT_OF_MEMORY or self._batch_rows == 1 or not self.session.keeps_checkpoint:
                break
            self._batch_rows //= 2
            evaluator.observer.note(
                f"experiment {number}: scoring ran out of memory; scoring again with batches of {self._batch_rows}"
            )
        if isinstance(result, judge.Rejection):
            return Failure(Outcome.INVALID, f"no model can have made these claims: {result.reason}")
        if result is None:
            return scoring_failure(run, training, evaluator.config)
        self._score = result
        return too_slow(run, self.request.score_limit_seconds, evaluator.config)

    def _score_once(self) -> tuple[RunRecord, judge.Score | judge.Rejection | None]:
        evaluator, rows = self.evaluator, self.evaluator.rows
        evaluator.observer.phase(self.request.program.number, "score", evaluator.config.score_seconds)
        result: judge.Score | judge.Rejection | None = None

        def score() -> RunRecord:
            nonlocal result
            run, claims = self.session.score(self.request.seed, self._batch_rows)
            if claims is not None:
                self._claims = claims
                result = judge.score(claims, rows.val_targets, rows.token_bytes)
            return replace(
                run,
                val_bpb=result.val_bpb if isinstance(result, judge.Score) else None,
                claims_sha256=None if result is None else result.claims_sha256,
            )

        return self._recorded(Phase.SCORE, score), result

    def _audit(self) -> Failure | None:
        if not self._policy.audit:
            return None
        assert self._score is not None
        evaluator = self.evaluator
        claims = Claims(self._claims, self._score, self._batch_rows, self.runs[-1].wall_seconds or 0.0)
        evaluator.observer.phase(self.request.program.number, "audit", None)
        stored = (
            None if self._champion_claims is None else claims_store.load(evaluator.claims, self._champion_claims)
        )
        run = self._recorded(
            Phase.AUDIT,
            lambda: examine_claims(self.session, evaluator, self.request, claims, stored),
        )
        self._audited_bpb = run.val_bpb
        return audit_failure(run, evaluator.config)

    def _seal(self) -> Failure | None:
        """Score the sealed rows. The result is for people; a failure changes nothing, not even the engine's."""
        limit, rows, number = self._policy.seal_below_bpb, self.evaluator.rows, self.request.program.number
        if limit is None or self._audited_bpb is None or self._audited_bpb > limit:
            return None
        claims_store.save(self.evaluator.claims, self._claims, keep=self._champion_claims)
        self.evaluator.observer.phase(number, "test", None)
        claims: bytes | None = None

        def score() -> RunRecord:
            nonlocal claims
            run, claims = self.session.score_test(
                self.request.seed, self._batch_rows, max_bytes=rows.test_targets.size * 4
            )
            return run

        try:
            self._recorded(Phase.TEST, score)
        except DiskFullError:
            raise
        except EngineError as error:
            log.warning("not_sealed", experiment=number, reason=error.message)
        result = None if claims is None else judge.score(claims, rows.test_targets, rows.token_bytes)
        if isinstance(result, judge.Score):
            sealed = SealedScore(
                number=number, seed=self.request.seed, val_bpb=self._audited_bpb, test_bpb=result.val_bpb
            )
            self._sealed = Sealed(sealed, result.claims_sha256)
        return None

    def _recorded(self, phase: Phase, execute: Callable[[], RunRecord]) -> RunRecord:
        """Execute a container on a scrubbed GPU, and add its run; one that an exception ends is added as lost."""
        opened_at, number, suspended = now(), self.request.program.number, suspended_seconds()
        run = RunRecord(
            phase=phase,
            seed=self.request.seed,
            end=RunEnd.LOST,
            exit_code=None,
            wall_seconds=None,
            cpu_seconds=None,
        )
        try:
            self.evaluator.scrub(number)
            done = execute()
            if (asleep := suspended_seconds() - suspended) > MAX_SUSPENDED_SECONDS:
                raise EngineError(
                    f"the machine was suspended for {asleep:.0f} s in the phase {phase}",
                    "keep it awake: systemd-inhibit --what=sleep:handle-lid-switch autoresearch overnight",
                )
            run = done
        finally:
            run = replace(run, opened_at=opened_at, closed_at=now())
            self.runs.append(run)
        log.info("run_ended", experiment=number, phase=phase, end=run.end, seconds=run.wall_seconds)
        return run
