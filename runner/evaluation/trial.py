"""A laboratory: what the experiments of one campaign share, and how one program is measured in it.

A measurement is one training and one scoring and, where somebody wants them, an audit of the claims and
a score on the sealed test rows, all of the same checkpoint. A candidate's failure is a value with a
reason; an engine that fails is `infra`, tried again and never held against the candidate.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from locked_eval.judging import judge
from runner.config import Config
from runner.corpus.redaction import Redactor
from runner.decision import early_stopping
from runner.decision.early_stopping import Calibration
from runner.edits.contamination import SealedText
from runner.errors import (
    BaseGoneError,
    ConfigError,
    DiskFullError,
    EngineAwayError,
    EngineError,
    ImageError,
    without_figures,
)
from runner.evaluation.audit import Evaluation, examine
from runner.evaluation.contention import ClockMeter, CoreMeter
from runner.evaluation.loss_monitor import Watch
from runner.evaluation.outcome import Faults
from runner.records import AuditRecord, Observer, Phase, RunEnd, RunRecord, SealedScore, Verdict
from runner.sandbox import Engine, Session, open_session, remove_orphans
from runner.sandbox.containers import Owner, choose_cores
from runner.sandbox.engine_outage import await_engine, check_engine_identity
from runner.sandbox.gpu_scrub import scrub
from runner.sandbox.host import clock_mhz
from runner.sandbox.session import Mounts
from runner.storage import claims as claims_store
from runner.storage.ledger import Campaign, Ledger
from runner.storage.repository import Repository
from runner.untrusted import clean, progress

log = structlog.get_logger()

LOG_LINES = 50
"""How much of a training log the ledger keeps: for people and for the model that mends a crash."""
MAX_DISTURBED = 2
"""How often a training that other programs disturb is thrown away; the next one counts, with its noise."""
FAULT_PAUSE_SECONDS = 2.0
"""Wait before an experiment that the infrastructure failed is tried again."""

_SCORE_FAILURES = {
    3: "no checkpoint was published",
    4: "workload.model.load could not load the checkpoint",
    5: "the forward pass failed or returned logits of another shape than (B, T, V)",
}
"""What the scorer's exit codes mean; its text is never read."""


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """Everything that the experiments of one campaign share."""

    config: Config
    engine: Engine
    repository: Repository
    ledger: Ledger
    observer: Observer
    mounts: Mounts
    evaluation: Evaluation
    sealed_text: SealedText  # what no candidate may bring along
    redactor: Redactor  # what no candidate may tell
    scratch: Path  # rows of the running audit
    claims: Path  # of the champion
    base_image: str
    conditions: dict[str, str]  # what two scores must share to be comparable
    stopping: Callable[[], bool] = lambda: False  # whether a person asked to stop; looked at in long waits

    @property
    def branch(self) -> str:
        """The campaign's branch."""
        return f"autoresearch/{self.config.tag}"

    def owner(self, number: int) -> Owner:
        """Labels for what belongs to one experiment."""
        return Owner(controller=self.ledger.controller, campaign=self.config.tag, experiment=number)


def run_seed(campaign: Campaign, number: int, index: int) -> int:
    """The seed of run `index` of an experiment: issued by the host, the same after a crash."""
    digest = hashlib.sha256(f"{campaign.seed}:{number}:{index}".encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


def refuse_other_conditions(lab: Laboratory, campaign: Campaign) -> None:
    """Scores compare only under the conditions that a campaign began with.

    Raises:
        ConfigError: names every condition that differs.
    """
    changed = [
        f"{name} was {before!r}, is {lab.conditions.get(name)!r}"
        for name, before in campaign.conditions.items()
        if lab.conditions.get(name) != before
    ]
    if changed:
        raise ConfigError(
            f"the campaign {campaign.tag!r} ran under other conditions, its scores cannot be compared: "
            + "; ".join(changed),
            "give the same settings as at its start, or start another one: --tag NAME (TAG=NAME with make)",
        )


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no score."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A score: audited when there was an audit, as claimed otherwise."""

    val_bpb: float
    claims_sha256: str
    audit: AuditRecord | None = None


class Contended(Failure):
    """A training whose cores other programs used: thrown away, and nobody's failure."""


Outcome = Measurement | Failure


class Examiner(Protocol):
    """Who decides, with the score before their eyes, how closely a measurement is looked at."""

    @property
    def score_limit_seconds(self) -> float | None:
        """How long scoring may take; see `too_slow`."""

    def wants_audit(self, claimed_bpb: float) -> bool:
        """Whether the claims are audited."""

    def wants_seal(self, audited_bpb: float) -> bool:
        """Whether the checkpoint is scored on the sealed rows, and its claims are kept for later audits."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The same whatever the score."""

    audit: bool
    seal: bool
    score_limit_seconds: float | None = None

    def wants_audit(self, claimed_bpb: float) -> bool:
        """As decided beforehand."""
        return self.audit

    def wants_seal(self, audited_bpb: float) -> bool:
        """As decided beforehand."""
        return self.seal


class RunLog(Protocol):
    """Where runs are written down: announced before a container starts, closed when it has ended."""

    def open_run(self, phase: Phase, seed: int) -> int: ...

    def close_run(self, run_id: int, run: RunRecord) -> None: ...

    def seal(self, score: SealedScore, claims_sha256: str) -> None: ...


@dataclass(frozen=True)
class LedgerRuns:
    """Runs of one experiment, in the ledger."""

    ledger: Ledger
    tag: str
    number: int
    control: bool = False  # it is the champion, and is measured again

    def open_run(self, phase: Phase, seed: int) -> int:
        """Announce a container."""
        return self.ledger.open_run(self.tag, self.number, phase, seed, control=self.control)

    def close_run(self, run_id: int, run: RunRecord) -> None:
        """Write how it ended."""
        self.ledger.close_run(run_id, run)

    def seal(self, score: SealedScore, claims_sha256: str) -> None:
        """Write down a score on the sealed rows."""
        self.ledger.seal(self.tag, score, claims_sha256)


@dataclass(frozen=True)
class UnrecordedRuns:
    """Runs that must not change any record; remembered here for a look at their figures."""

    closed: list[RunRecord] = field(default_factory=list)

    def open_run(self, phase: Phase, seed: int) -> int:
        """Nothing to announce."""
        return 0

    def close_run(self, run_id: int, run: RunRecord) -> None:
        """Remember it."""
        self.closed.append(run)

    def seal(self, score: SealedScore, claims_sha256: str) -> None:
        """Forget it: a score on the sealed rows is for keeps."""

    @property
    def audit(self) -> AuditRecord | None:
        """What the newest audit found, if there was one."""
        return next((run.audit for run in reversed(self.closed) if run.audit is not None), None)


def measure(
    lab: Laboratory,
    *,
    build: Callable[[], str],
    number: int,
    seed: int,
    runs: RunLog,
    examiner: Examiner,
    champion: str | None,
    calibration: Calibration | None = None,
) -> Outcome:
    """Train once, score once, examine; what the infrastructure fails is done again, unless it fails the same way.

    While the engine is away, this waits for it. A training whose cores other programs used is thrown away and
    repeated as well. On a machine that is never quiet the last attempt counts, with its noise: a night must not
    stand still.

    Args:
        build: returns the id of the image, which it builds if it is not there (any more).
        champion: hash of the claims that an audit compares with; None where there are none.
        calibration: what a hopeless training is recognised by and stopped; None: it always comes to its end.

    Raises:
        EngineAwayError: the engine stayed away.
        DiskFullError, BaseGoneError: no attempt can go well before a person has done something.
        Interrupted: a person asked to stop while the engine was away.
    """
    measurement = _Measuring(
        lab=lab,
        number=number,
        seed=seed,
        runs=runs,
        examiner=examiner,
        champion=champion,
        calibration=calibration,
    )
    faults = Faults()
    disturbed = 0
    while True:
        outcome: Outcome | None = None
        try:
            check_engine_identity(lab.engine)
            outcome = measurement.once(build(), repeat_disturbed=disturbed < MAX_DISTURBED)
        except (DiskFullError, EngineAwayError, BaseGoneError):
            raise
        except (EngineError, ImageError) as error:
            reason, fault = error.message, error.fault
        else:
            if not isinstance(outcome, Failure) or outcome.verdict is not Verdict.INFRA:
                return outcome
            reason, fault = outcome.reason, without_figures(outcome.reason)
            disturbed += isinstance(outcome, Contended)
        log.warning("run_failed", experiment=number, reason=reason)
        ready_again(lab)
        if not isinstance(outcome, Contended):
            given_up = faults.add(fault)
            if given_up is not None:
                lab.observer.note(f"experiment {number}: {given_up}: {reason}")
                return Failure(verdict=Verdict.INFRA, reason=f"{given_up}: {reason}")
            time.sleep(FAULT_PAUSE_SECONDS)
        lab.observer.note(f"experiment {number}: {reason}; running it again")


def ready_again(lab: Laboratory) -> None:
    """Wait for our engine, and remove what a failed clean-up left there: it would disturb the next measurement.

    Raises:
        EngineAwayError: the engine stayed away.
        Interrupted: a person asked to stop while it was away.
    """
    await_engine(lab.engine, note=lab.observer.note, stopping=lab.stopping)
    try:
        remove_orphans(lab.engine, lab.ledger.controller)
    except EngineError as error:
        log.warning("cleanup_failed", reason=error.message)  # found again at the next failure, or the next start


@dataclass(frozen=True, kw_only=True)
class _Measuring:
    """One program with one seed, on its way from a training to a measurement."""

    lab: Laboratory
    number: int
    seed: int
    runs: RunLog
    examiner: Examiner
    champion: str | None
    calibration: Calibration | None

    def once(self, image_id: str, *, repeat_disturbed: bool) -> Outcome:
        """Everything once, in one session."""
        lab = self.lab
        lab.observer.phase(self.number, "start", None)
        with open_session(
            lab.engine,
            config=lab.config,
            mounts=lab.mounts,
            image_id=image_id,
            owner=lab.owner(self.number),
            max_claims_bytes=lab.evaluation.val_targets.size * 4,
        ) as session:
            trained = self._train(session)
            failure = _training_failure(trained, lab.config)
            if repeat_disturbed and (failure is None or trained.end is RunEnd.STOPPED):
                failure = _disturbance(trained, lab.config) or failure
            return failure or self._score(session)

    def _train(self, session: Session) -> RunRecord:
        lab = self.lab
        cores = choose_cores(lab.config)
        meter, clocks = CoreMeter(cores), ClockMeter(lambda: clock_mhz(cores, lab.config.gpu))
        watch = Watch(lab.config.train_seconds, self.calibration, lab.config.early_stop_holdout)

        def started() -> None:
            meter.start()
            clocks.start()
            watch.start()
            lab.observer.phase(self.number, "train", lab.config.train_seconds)

        def show(line: str) -> None:
            if (figures := progress(line)) is not None:
                lab.observer.line(figures)
                watch.hear(figures)

        def ended() -> None:
            meter.stop()
            clocks.stop()

        def train() -> RunRecord:
            try:
                run = session.train(
                    self.seed,
                    on_line=show,
                    on_start=started,
                    on_end=ended,
                    gives_up=None if self.calibration is None else watch.gives_up,
                )
            finally:
                clocks.stop()
            others = meter.others(run.cpu_seconds, run.wall_seconds)
            shown = lab.redactor.redact(clean(run.log_tail, LOG_LINES))  # from here on nobody sees the rest
            return replace(
                run,
                log_tail=shown,
                others_cpu_seconds=others,
                clock_mhz=clocks.mean_mhz(),
                curve=watch.curve(),
            )

        return self._recorded(Phase.TRAIN, train)

    def _score(self, session: Session) -> Outcome:
        lab, evaluation = self.lab, self.lab.evaluation
        lab.observer.phase(self.number, "score", lab.config.score_seconds)
        claims: bytes | None = None
        result: judge.Score | judge.Rejection | None = None

        meter = CoreMeter(choose_cores(lab.config))

        def score() -> RunRecord:
            nonlocal claims, result
            meter.start()
            run, claims = session.score(self.seed)
            meter.stop()
            run = replace(run, others_cpu_seconds=meter.others(run.cpu_seconds))
            if claims is not None:
                result = judge.score(claims, evaluation.val_targets, evaluation.token_bytes)
            return _with_score(run, result)

        scored = self._recorded(Phase.SCORE, score)  # from here on the claims are committed by their hash
        if isinstance(result, judge.Rejection):
            return Failure(verdict=Verdict.INVALID, reason=f"the claims are not a model's: {result.reason}")
        if result is None or claims is None:
            return _answer_failure(scored, "scoring")
        if (failure := too_slow(scored, self.examiner.score_limit_seconds, lab.config.cpus)) is not None:
            return failure
        if not self.examiner.wants_audit(result.val_bpb):
            return Measurement(val_bpb=result.val_bpb, claims_sha256=result.claims_sha256)
        outcome = self._audit(session, result, claims, scored.wall_seconds or 0.0)
        if isinstance(outcome, Measurement) and self.examiner.wants_seal(outcome.val_bpb):
            claims_store.save(lab.claims, claims, keep=self.champion)
            self._seal(session, outcome)
        return outcome

    def _audit(self, session: Session, score: judge.Score, claims: bytes, score_seconds: float) -> Outcome:
        lab = self.lab
        lab.observer.phase(self.number, "audit", None)
        champion = None if self.champion is None else claims_store.load(lab.claims, self.champion)
        run = self._recorded(
            Phase.AUDIT,
            lambda: examine(
                session,
                config=lab.config,
                evaluation=lab.evaluation,
                scratch=lab.scratch,
                seed=self.seed,
                score=score,
                score_seconds=score_seconds,
                claims=claims,
                champion=champion,
                between=self._scrub,
            ),
        )
        failure = audit_failure(run)
        if failure is not None:
            return failure
        assert run.val_bpb is not None
        return Measurement(val_bpb=run.val_bpb, claims_sha256=score.claims_sha256, audit=run.audit)

    def _seal(self, session: Session, measured: Measurement) -> None:
        """Score the sealed rows. What comes of it is for people; a failure changes nothing, also of the engine."""
        evaluation = self.lab.evaluation
        self.lab.observer.phase(self.number, "test", None)
        claims: bytes | None = None

        def score() -> RunRecord:
            nonlocal claims
            run, claims = session.score_test(self.seed, max_bytes=evaluation.test_targets.size * 4)
            return run

        try:
            self._recorded(Phase.TEST, score)
        except DiskFullError:
            raise
        except EngineError as error:
            log.warning("not_sealed", experiment=self.number, reason=error.message)
        if claims is None:
            return
        result = judge.score(claims, evaluation.test_targets, evaluation.token_bytes)
        if isinstance(result, judge.Score):
            sealed = SealedScore(
                number=self.number, seed=self.seed, val_bpb=measured.val_bpb, test_bpb=result.val_bpb
            )
            self.runs.seal(sealed, result.claims_sha256)

    def _scrub(self) -> None:
        """Before candidate code runs. A warm container has no GPU memory yet: torch opens no context by itself."""
        lab = self.lab
        scrub(
            lab.engine,
            config=lab.config,
            image_id=lab.base_image,
            locked=lab.mounts.locked,
            owner=lab.owner(self.number),
        )

    def _recorded(self, phase: Phase, execute: Callable[[], RunRecord]) -> RunRecord:
        run_id = self.runs.open_run(phase, self.seed)
        try:
            self._scrub()
            run = execute()
        except BaseException:
            self.runs.close_run(run_id, _lost(phase, self.seed))
            raise
        self.runs.close_run(run_id, run)
        log.info("run_ended", experiment=self.number, phase=phase, end=run.end, seconds=run.wall_seconds)
        return run


def _disturbance(run: RunRecord, config: Config) -> Failure | None:
    if run.others_cpu_seconds is None or not run.wall_seconds:
        return None
    share = run.others_cpu_seconds / (run.wall_seconds * config.cpus)
    if share <= config.max_disturbance:
        return None
    return Contended(verdict=Verdict.INFRA, reason=f"other programs used {share:.0%} of the candidate's cores")


def _lost(phase: Phase, seed: int) -> RunRecord:
    return RunRecord(phase=phase, seed=seed, end=RunEnd.LOST, exit_code=None, wall_seconds=None, cpu_seconds=None)


def _with_score(run: RunRecord, result: judge.Score | judge.Rejection | None) -> RunRecord:
    if result is None:
        return run
    bpb = result.val_bpb if isinstance(result, judge.Score) else None
    return replace(run, val_bpb=bpb, claims_sha256=result.claims_sha256)


def _training_failure(run: RunRecord, config: Config) -> Failure | None:
    match run.end:
        case RunEnd.FINISHED | RunEnd.DEADLINE:
            return None
        case RunEnd.FAILED if run.exit_code is not None and run.exit_code < 0:
            return Failure(verdict=Verdict.CRASH, reason=f"training died of signal {-run.exit_code}")
        case RunEnd.FAILED:
            return Failure(verdict=Verdict.CRASH, reason=f"training exited with code {run.exit_code}")
        case RunEnd.OUT_OF_MEMORY:
            limit = config.memory_bytes / 2**30
            return Failure(verdict=Verdict.CRASH, reason=f"training ran out of memory ({limit:.1f} GiB)")
        case RunEnd.STOPPED:
            return Failure(verdict=Verdict.DISCARD, reason=early_stopping.reason(run))
        case RunEnd.STARTUP:
            return Failure(verdict=Verdict.INFRA, reason="torch did not come up in the train container")
        case _:
            return Failure(
                verdict=Verdict.INFRA, reason=f"the train container was lost (exit code {run.exit_code})"
            )


def stopped(run: RunRecord, config: Config) -> Failure | None:
    """What a recorded training settles that was stopped early; None when it was not, or others disturbed it."""
    if run.end is not RunEnd.STOPPED or _disturbance(run, config) is not None:
        return None
    return _training_failure(run, config)


def too_slow(scored: RunRecord, limit_seconds: float | None, num_cores: int) -> Failure | None:
    """Whether scoring took longer than a model needs: what is learned there is on no clock.

    Args:
        limit_seconds: what the workload at hand may take; None where there is nothing to compare with.
        num_cores: of a container; what other programs used of them does not count.
    """
    if limit_seconds is None or scored.wall_seconds is None:
        return None
    seconds = scored.wall_seconds - (scored.others_cpu_seconds or 0.0) / num_cores
    if seconds <= limit_seconds:
        return None
    took = f"scoring took {seconds:.1f} s, more than twice as long as the baseline's"
    return Failure(verdict=Verdict.CRASH, reason=f"{took} (limit {limit_seconds:.1f} s)")


def audit_failure(run: RunRecord) -> Failure | None:
    """Why an audited run does not count; None when it does. What cannot be audited is not kept."""
    if run.audit is not None:
        if run.audit.finding is None:
            return None
        return Failure(verdict=Verdict.INVALID, reason=f"refused by the audit: {run.audit.reason}")
    failure = _answer_failure(run, "the audit")
    if failure.verdict is Verdict.INFRA:
        return failure
    return Failure(verdict=Verdict.INVALID, reason=f"could not be audited: {failure.reason}")


def _answer_failure(run: RunRecord, doing: str) -> Failure:
    match run.end:
        case RunEnd.FAILED:
            reason = _SCORE_FAILURES.get(run.exit_code or 0, f"{doing} ended with code {run.exit_code}")
            return Failure(verdict=Verdict.CRASH, reason=reason)
        case RunEnd.DEADLINE:
            return Failure(verdict=Verdict.CRASH, reason=f"{doing} took longer than {run.wall_seconds or 0:.1f} s")
        case RunEnd.OUT_OF_MEMORY:
            return Failure(verdict=Verdict.CRASH, reason=f"{doing} ran out of memory")
        case RunEnd.FINISHED:
            return Failure(verdict=Verdict.INVALID, reason=f"{doing} gave more than was asked for")
        case _:
            return Failure(verdict=Verdict.INFRA, reason=f"the {run.phase} container was lost")
