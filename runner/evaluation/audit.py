"""The audit of one trial's claims: draw, ask fresh containers, verify. The rules are in `locked_eval`."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from locked_eval.judging import draw, findings, judge, plan, verify
from runner.errors import DiskFullError, remedy_of
from runner.evaluation.evaluator import Evaluator, TrialRequest
from runner.failpoints import Step, around
from runner.records import AuditRecord, RunRecord
from runner.sandbox import Session

SLOWDOWN = 2.0
MARGIN_SECONDS = 2.0
"""An audit's first container has 1.1 to 1.4 times the rows of scoring, but no loss to compute: it takes 0.9 times
as long. Longer than `SLOWDOWN` times scoring and the margin it may not take."""
PAUSE_SECONDS = 1.0
"""Longest random delay of a start signal."""


class Claims(NamedTuple):
    """Committed claims over the validation rows."""

    data: bytes  # float32 log-probabilities, (N, T)
    score: judge.Score
    batch_rows: int  # of the forward passes that made them: an audit asks in batches of the same shape
    seconds: float  # wall clock that they took


def examine_claims(
    session: Session, evaluator: Evaluator, request: TrialRequest, claims: Claims, champion: bytes | None
) -> RunRecord:
    """Audit the committed claims of a session's checkpoint; the record has the findings, if it got that far.

    Args:
        champion: claims of the champion; None draws uniformly.

    Raises:
        EngineError: the engine failed; says nothing about the candidate.
        DiskFullError: no room for the rows.
    """
    config, rows, score = evaluator.config, evaluator.rows, claims.score
    targets = rows.val_targets
    claimed = np.frombuffer(claims.data, "<f4").reshape(targets.shape)  # (N, T)
    against = None if champion is None else np.frombuffer(champion, "<f4").reshape(targets.shape)
    counted = rows.token_bytes[targets] > 0  # (N, T)
    drawn = draw.draw(claimed, against, counted, config.audit_rows)
    made = plan.make_plan(rows.val_rows, rows.train_text, drawn, claims.batch_rows)
    wanted = made.num_logits * config.vocab_size * 4
    run, answer = _ask(session, evaluator, request, made, claims)
    run = replace(run, claims_sha256=score.claims_sha256)
    if answer is None:
        return run
    if len(answer) != wanted:
        return replace(run, audit=_incomplete(score, len(answer), wanted))
    found = verify.verify(
        made,
        drawn,
        np.frombuffer(answer, "<f4").reshape(made.num_logits, config.vocab_size),
        verify.Committed(claims=claimed, targets=targets, counted=counted),
        findings.HonestNoise(exceedance_rates=config.honest_exceedances, dependence=config.honest_dependence),
    )
    worst = found.findings[0] if found.findings else None
    return replace(
        run,
        val_bpb=verify.audited_bpb(score, found),
        audit=AuditRecord(
            claimed_bpb=score.val_bpb,
            num_positions=found.num_positions,
            mean_nats=found.mean_nats,
            se_nats=found.se_nats,
            upper_nats=found.upper_nats,
            exceedances=tuple(found.exceedances),
            repeat=found.repeat,
            suffix=found.suffix,
            neighbors=found.neighbors,
            finding=None if worst is None else worst.name,
            reason=None if worst is None else worst.sentence,
        ),
    )


def _ask(
    session: Session, evaluator: Evaluator, request: TrialRequest, made: plan.Plan, claims: Claims
) -> tuple[RunRecord, bytes | None]:
    """Ask both parts of a plan, each in a container of its own; return how it ended, and the joined answers.

    The second container imports torch while the first one answers. The time that a container takes could tell the
    next one something by its clock: so that time is limited, and each start signal is delayed at random.
    """
    limit_seconds = SLOWDOWN * claims.seconds + MARGIN_SECONDS
    with ExitStack() as stack:
        waiting = []
        for part in made.parts():
            folder = stack.enter_context(_written(part, evaluator.scratch))
            num_bytes = part.num_logits * evaluator.config.vocab_size * 4
            auditor = session.auditor(
                folder, batch_rows=claims.batch_rows, limit_seconds=limit_seconds, max_bytes=num_bytes
            )
            waiting.append(stack.enter_context(auditor))
        first, second = waiting
        _pause()
        run, answer = first.go(request.seed)
        if answer is None:
            return run, None
        evaluator.scrub(request.program.number)
        _pause()
        last, more = second.go(request.seed)
        return (
            replace(
                last,
                wall_seconds=_sum(run.wall_seconds, last.wall_seconds),
                cpu_seconds=_sum(run.cpu_seconds, last.cpu_seconds),
                others_cpu_seconds=_sum(run.others_cpu_seconds, last.others_cpu_seconds),
            ),
            None if more is None else answer + more,
        )


def _pause() -> None:
    time.sleep(random.SystemRandom().uniform(0, PAUSE_SECONDS))


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one + other, 4)


def _incomplete(score: judge.Score, num_bytes: int, wanted: int) -> AuditRecord:
    return AuditRecord(
        claimed_bpb=score.val_bpb,
        num_positions=0,
        mean_nats=0.0,
        se_nats=0.0,
        upper_nats=0.0,
        exceedances=(0, 0, 0, 0),
        repeat=None,
        suffix=None,
        neighbors=None,
        finding="incomplete",
        reason=f"the audit's answer has {num_bytes} bytes instead of {wanted}",
    )


@contextmanager
def _written(made: plan.Plan, scratch: Path) -> Iterator[Path]:
    """Write a plan as files that uid 10001 may read; remove them afterwards."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=scratch))
    except OSError as error:
        raise DiskFullError(f"cannot write the audit's rows: {error}", remedy_of(error)) from error
    try:
        folder.chmod(0o755)
        try:
            with around(Step.AUDIT_ROWS_WRITTEN):
                plan.write(made, folder)
        except OSError as error:
            raise DiskFullError(f"cannot write the audit's rows: {error}", remedy_of(error)) from error
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
