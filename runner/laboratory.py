"""A laboratory: what the experiments of one campaign share, and how one program is measured in it.

A measurement is one training and one scoring. A candidate's failure is a value with a reason; an engine
that fails is `infra`, tried once more and never held against the candidate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import structlog

from locked_eval import judge
from runner.config import Config
from runner.errors import ConfigError, DiskFullError, EngineError
from runner.hardware import busy_seconds
from runner.ledger import Campaign, Ledger
from runner.observer import Observer
from runner.records import Phase, RunEnd, RunRecord, Verdict
from runner.repo import Repository
from runner.report.text import clean
from runner.sandbox import Engine, open_session
from runner.sandbox.limits import Owner, choose_cores
from runner.sandbox.session import Mounts

log = structlog.get_logger()

LOG_LINES = 200
"""How much of a training log the ledger keeps."""
MEASURE_ATTEMPTS = 3
"""How often a run is tried when the infrastructure fails or other programs disturb it."""
ENGINE_PAUSE_SECONDS = 5.0
"""Wait after an engine failure, times the number of the attempt."""

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
    targets: npt.NDArray[np.uint16]  # (N, T)
    token_bytes: npt.NDArray[np.uint16]  # (V,)
    base_image: str
    conditions: dict[str, str]  # what two scores must share to be comparable

    @property
    def branch(self) -> str:
        """The campaign's branch."""
        return f"autoresearch/{self.config.tag}"

    def owner(self, number: int) -> Owner:
        """Labels for what belongs to one experiment."""
        return Owner(controller=self.ledger.controller, campaign=self.config.tag, experiment=number)


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


Outcome = judge.Score | Failure


class RunLog(Protocol):
    """Where runs are written down: announced before a container starts, closed when it has ended."""

    def open_run(self, phase: Phase, seed: int) -> int: ...

    def close_run(self, run_id: int, run: RunRecord) -> None: ...


@dataclass(frozen=True)
class LedgerRuns:
    """Runs of one experiment, in the ledger."""

    ledger: Ledger
    tag: str
    number: int

    def open_run(self, phase: Phase, seed: int) -> int:
        """Announce a container."""
        return self.ledger.open_run(self.tag, self.number, phase, seed)

    def close_run(self, run_id: int, run: RunRecord) -> None:
        """Write how it ended."""
        self.ledger.close_run(run_id, run)


class UnrecordedRuns:
    """Runs that repeat a finished experiment and must not change its record."""

    def open_run(self, phase: Phase, seed: int) -> int:
        """Ignore."""
        return 0

    def close_run(self, run_id: int, run: RunRecord) -> None:
        """Ignore."""


def measure(lab: Laboratory, *, image_id: str, number: int, seed: int, runs: RunLog) -> Outcome:
    """Train once and score once; an infrastructure failure is tried again before it is told.

    A training whose cores other programs used is thrown away and repeated as well. On a machine that is
    never quiet the last attempt counts, with its noise: a night must not stand still.
    """
    failure = Failure(verdict=Verdict.INFRA, reason="not run")
    for attempt in range(1, MEASURE_ATTEMPTS + 1):
        last = attempt == MEASURE_ATTEMPTS
        try:
            outcome = _measure_once(lab, image_id=image_id, number=number, seed=seed, runs=runs, last=last)
        except DiskFullError:
            raise  # another attempt will not find more room
        except EngineError as error:
            failure = Failure(verdict=Verdict.INFRA, reason=error.message)
            if not last:
                time.sleep(ENGINE_PAUSE_SECONDS * attempt)  # a daemon that restarts needs a moment
        else:
            if not isinstance(outcome, Failure) or outcome.verdict is not Verdict.INFRA:
                return outcome
            failure = outcome
        log.warning("run_failed", experiment=number, reason=failure.reason)
        if not last:
            lab.observer.note(f"experiment {number}: {failure.reason}; running it again")
    return failure


def _measure_once(lab: Laboratory, *, image_id: str, number: int, seed: int, runs: RunLog, last: bool) -> Outcome:
    config, observer = lab.config, lab.observer
    meter = CoreMeter(choose_cores(config))

    def started() -> None:
        meter.start()
        observer.phase(number, "train", config.train_seconds)

    observer.phase(number, "start", None)
    with open_session(
        lab.engine,
        config=config,
        mounts=lab.mounts,
        image_id=image_id,
        owner=lab.owner(number),
        max_claims_bytes=lab.targets.size * 4 + 4,  # one more than right, so that too many are seen
    ) as session:
        trained = _recorded(
            runs,
            Phase.TRAIN,
            seed,
            lambda: session.train(
                seed,
                on_line=lambda text: observer.line(clean(text, 1)),
                on_start=started,
                on_end=meter.stop,
            ),
            meter,
        )
        log.info("run_ended", experiment=number, phase="train", end=trained.end, seconds=trained.wall_seconds)
        failure = _training_failure(trained, config) or (None if last else _disturbance(trained, config))
        if failure is not None:
            return failure
        observer.phase(number, "score", config.score_seconds)
        claims: bytes | None = None
        run_id = runs.open_run(Phase.SCORE, seed)
        try:
            scored, claims = session.score(seed)
        except BaseException:
            runs.close_run(run_id, _lost(Phase.SCORE, seed))
            raise
        result = None if claims is None else judge.score(claims, lab.targets, lab.token_bytes)
        runs.close_run(run_id, _with_score(scored, result))
        log.info("run_ended", experiment=number, phase="score", end=scored.end, seconds=scored.wall_seconds)
    if isinstance(result, judge.Score):
        return result
    if isinstance(result, judge.Rejection):
        return Failure(verdict=Verdict.INVALID, reason=f"the claims are not a model's: {result.reason}")
    return _scoring_failure(scored, config)


@dataclass
class CoreMeter:
    """How much of a training's cores everybody else used, from the kernel's own count.

    A candidate cannot disturb itself by sleeping: what counts is others' work, not its own idleness.
    """

    cores: tuple[int, ...]
    before: float | None = None
    after: float | None = None

    def start(self) -> None:
        """The candidate's clock starts now."""
        self.before = busy_seconds(self.cores)

    def stop(self) -> None:
        """Its container has ended."""
        self.after = busy_seconds(self.cores)

    def others(self, own_cpu_seconds: float | None) -> float | None:
        """CPU seconds of everybody else between start and stop."""
        if self.before is None or self.after is None or own_cpu_seconds is None:
            return None
        return round(max(0.0, self.after - self.before - own_cpu_seconds), 4)


def _disturbance(run: RunRecord, config: Config) -> Failure | None:
    if run.others_cpu_seconds is None or not run.wall_seconds:
        return None
    share = run.others_cpu_seconds / (run.wall_seconds * config.cpus)
    if share <= config.max_disturbance:
        return None
    return Failure(verdict=Verdict.INFRA, reason=f"other programs used {share:.0%} of the candidate's cores")


def _recorded(
    runs: RunLog, phase: Phase, seed: int, execute: Callable[[], RunRecord], meter: CoreMeter
) -> RunRecord:
    run_id = runs.open_run(phase, seed)
    try:
        run = execute()
    except BaseException:
        runs.close_run(run_id, _lost(phase, seed))
        raise
    run = replace(run, log_tail=clean(run.log_tail, LOG_LINES), others_cpu_seconds=meter.others(run.cpu_seconds))
    runs.close_run(run_id, run)
    return run


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
        case RunEnd.STARTUP:
            return Failure(verdict=Verdict.INFRA, reason="torch did not come up in the train container")
        case _:
            return Failure(
                verdict=Verdict.INFRA, reason=f"the train container was lost (exit code {run.exit_code})"
            )


def _scoring_failure(run: RunRecord, config: Config) -> Failure:
    match run.end:
        case RunEnd.FAILED:
            reason = _SCORE_FAILURES.get(run.exit_code or 0, f"scoring ended with code {run.exit_code}")
            return Failure(verdict=Verdict.CRASH, reason=reason)
        case RunEnd.DEADLINE:
            return Failure(verdict=Verdict.CRASH, reason=f"scoring took longer than {config.score_seconds:g} s")
        case RunEnd.OUT_OF_MEMORY:
            return Failure(verdict=Verdict.CRASH, reason="scoring ran out of memory")
        case RunEnd.FINISHED:
            return Failure(verdict=Verdict.INVALID, reason="the claims are not a model's: too many of them")
        case _:
            return Failure(verdict=Verdict.INFRA, reason="the score container was lost")
