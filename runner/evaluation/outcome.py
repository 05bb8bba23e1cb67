"""The outcome of a trial from the end of its container, and when failures of the infrastructure are given up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from runner.config import Config
from runner.decision import early_stopping
from runner.evaluation.contention import busy, others_share
from runner.records import Outcome, RunEnd, RunRecord

MAX_FAULTS = 3
"""Infrastructure failures of one trial, however different, after which it is given up."""

BUSY_SHARE = 0.1
"""Share of a run's cores that other programs may use before a missed time limit is not the program's fault."""
NO_CHECKPOINT = 3
_SCORE_FAILURES = {
    NO_CHECKPOINT: "no checkpoint was published",
    4: "workload.model.load could not load the checkpoint",
    5: "the forward pass failed or returned logits of a shape other than (B, T, V)",
}
"""Meaning of the scorer's exit codes; its text is never read."""


class Failure(NamedTuple):
    """The reason why a trial has no score."""

    outcome: Outcome
    reason: str


def training_failure(run: RunRecord, config: Config) -> Failure | None:
    """Return why a training left nothing to score; None when it left a checkpoint."""
    match run.end:
        case RunEnd.FINISHED | RunEnd.DEADLINE:
            return None
        case RunEnd.FAILED if run.exit_code is not None and run.exit_code < 0:
            return Failure(Outcome.CRASH, f"training died of signal {-run.exit_code}")
        case RunEnd.FAILED:
            return Failure(Outcome.CRASH, f"training exited with code {run.exit_code}")
        case RunEnd.OUT_OF_MEMORY:
            return Failure(Outcome.CRASH, f"training ran out of memory ({config.memory_bytes / 2**30:.1f} GiB)")
        case RunEnd.STOPPED:
            return Failure(Outcome.STOPPED, early_stopping.reason(run))
        case RunEnd.STARTUP:
            return Failure(Outcome.LOST, "torch did not come up in the train container")
        case _:
            return Failure(Outcome.LOST, f"the train container was lost (exit code {run.exit_code})")


def contention(run: RunRecord, config: Config, sign: str | None = None) -> Failure | None:
    """Whether a training was disturbed more than the settings allow, by others on its cores or by another sign.

    Args:
        sign: a disturbance that shows elsewhere than on its cores, in one sentence.
    """
    share = others_share(run, config.cpus)
    if share is not None and share > config.max_disturbance:
        return Failure(Outcome.CONTENDED, busy(share))
    return None if sign is None or config.max_disturbance >= 1 else Failure(Outcome.CONTENDED, sign)


def _late(run: RunRecord, config: Config, reason: str) -> Failure:
    """Return what a missed time limit means: on a busy machine it says nothing about the program."""
    share = others_share(run, config.cpus) or 0.0
    if share > min(BUSY_SHARE, config.max_disturbance):
        return Failure(Outcome.CONTENDED, f"{reason}: {busy(share)}")
    return Failure(Outcome.CRASH, reason)


def too_slow(scored: RunRecord, limit_seconds: float | None, config: Config) -> Failure | None:
    """Whether scoring took longer than a model needs: a program that learns there would be on no clock.

    Args:
        limit_seconds: for the workload at hand; None where there is nothing to compare with.
    """
    if limit_seconds is None or scored.wall_seconds is None:
        return None
    seconds = scored.wall_seconds - (scored.others_cpu_seconds or 0.0) / config.cpus
    if seconds <= limit_seconds:
        return None
    return _late(
        scored,
        config,
        f"scoring took {seconds:.1f} s, more than twice as long as the baseline's (limit {limit_seconds:.1f} s)",
    )


def scoring_failure(run: RunRecord, training: RunRecord, config: Config) -> Failure:
    """Return why a scorer gave no usable answer.

    Args:
        training: may have been too disturbed to publish a checkpoint.
    """
    if run.end is RunEnd.FAILED and run.exit_code == NO_CHECKPOINT and training.end is RunEnd.DEADLINE:
        return _late(training, config, _SCORE_FAILURES[NO_CHECKPOINT])
    return _answer_failure(run, "scoring", config)


def audit_failure(run: RunRecord, config: Config) -> Failure | None:
    """Return why an audited run does not count; None when it does. Without an audit, nothing is kept."""
    if run.audit is not None:
        if run.audit.finding is None:
            return None
        return Failure(Outcome.INVALID, f"refused by the audit: {run.audit.reason}")
    failure = _answer_failure(run, "the audit", config)
    if failure.outcome in (Outcome.LOST, Outcome.CONTENDED):
        return failure
    return Failure(Outcome.INVALID, f"could not be audited: {failure.reason}")


def _answer_failure(run: RunRecord, doing: str, config: Config) -> Failure:
    """Return why a scorer or auditor gave no usable answer.

    Args:
        doing: "scoring" or "the audit".
    """
    match run.end:
        case RunEnd.FAILED:
            reason = _SCORE_FAILURES.get(run.exit_code or 0, f"{doing} ended with code {run.exit_code}")
            return Failure(Outcome.CRASH, reason)
        case RunEnd.DEADLINE:
            return _late(run, config, f"{doing} took longer than {run.wall_seconds or 0:.1f} s")
        case RunEnd.OUT_OF_MEMORY:
            return Failure(Outcome.CRASH, f"{doing} ran out of memory")
        case RunEnd.FINISHED:
            return Failure(Outcome.INVALID, f"{doing} returned more than was requested")
        case _:
            return Failure(Outcome.LOST, f"the {run.phase} container was lost")


@dataclass
class Faults:
    """Infrastructure failures of one trial.

    The same failure twice will come a third time: the trial is set aside as lost, which says nothing about the
    idea, and the night continues. Failures of a different kind each time are bounded by their number.
    """

    seen: list[str] = field(default_factory=list)

    def add(self, fault: str) -> str | None:
        """Add one; return why there is no further attempt, or None when there is one.

        Args:
            fault: what failed, in the same words for the same failure (`AutoresearchError.fault`).
        """
        again = fault in self.seen
        self.seen.append(fault)
        if again:
            return "quarantined after two equal failures"
        if len(self.seen) >= MAX_FAULTS:
            return f"quarantined after {len(self.seen)} failures"
        return None
