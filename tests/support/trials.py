"""Trials as unit tests need them: a few figures, and plausible runs beneath."""

from __future__ import annotations

from itertools import count

from runner.records import AuditRecord, Outcome, Phase, RunEnd, RunRecord, Trial, TrialKind

_TICKS = count(1)
CLEAN = AuditRecord(
    claimed_bpb=2.0, num_positions=8, mean_nats=0.0, se_nats=0.0, upper_nats=0.0, exceedances=(0, 0, 0, 0),
    repeat=0.0, suffix=0.0, neighbors=0.0,
)  # fmt: skip


def run(phase, seed=1, end=RunEnd.FINISHED, **fields):
    """One container execution that went well."""
    usual = {"exit_code": 0, "wall_seconds": 1.0, "cpu_seconds": 1.0}
    return RunRecord(phase=phase, seed=seed, end=end, **{**usual, **fields})


def scored(val_bpb, seed=1, *, audited=True, curve=None, kind=TrialKind.CANDIDATE, **fields):
    """A trial with a score; each one is opened and closed after the one made before it."""
    opened = next(_TICKS)
    runs = [run(Phase.TRAIN, seed, curve=curve), run(Phase.SCORE, seed, val_bpb=val_bpb, claims_sha256="c")]
    if audited:
        runs.append(run(Phase.AUDIT, seed, val_bpb=val_bpb, claims_sha256="c", audit=CLEAN))
    usual = {
        "id": opened, "opened_seq": opened, "closed_seq": next(_TICKS), "claims_sha256": "c", "runs": tuple(runs),
    }  # fmt: skip
    return Trial(seed=seed, outcome=Outcome.SCORED, val_bpb=val_bpb, kind=kind, **{**usual, **fields})


def failed(outcome=Outcome.CRASH, seed=1, *, reason="training exited with code 1", runs=None, **fields):
    """A trial without a score."""
    opened = next(_TICKS)
    usual = {"id": opened, "opened_seq": opened, "closed_seq": next(_TICKS), "reason": reason}
    made = (run(Phase.TRAIN, seed, RunEnd.FAILED, exit_code=1),) if runs is None else tuple(runs)
    return Trial(seed=seed, outcome=outcome, runs=made, **{**usual, **fields})


def trials_of(runs, *, first_id=1, kind=TrialKind.CANDIDATE):
    """Trials made of container executions: each training begins one, and its last run tells how it ended."""
    groups = []
    for one in runs:
        if not groups or one.phase is Phase.TRAIN or one.seed != groups[-1][0].seed:
            groups.append([])
        groups[-1].append(one)
    return tuple(
        _trial_of(tuple(group), id=number, kind=kind, opened_seq=2 * number, closed_seq=2 * number + 1)
        for number, group in enumerate(groups, first_id)
    )


def _trial_of(runs, **fields):
    last = runs[-1]
    outcome = {
        RunEnd.LOST: Outcome.LOST, RunEnd.STARTUP: Outcome.LOST, RunEnd.STOPPED: Outcome.STOPPED,
    }.get(last.end, Outcome.CRASH)  # fmt: skip
    if last.audit is not None and last.audit.finding is not None:
        outcome = Outcome.INVALID
    elif outcome is Outcome.CRASH and last.val_bpb is not None:
        outcome = Outcome.SCORED
    score = last.val_bpb if outcome is Outcome.SCORED else None
    return Trial(seed=last.seed, outcome=outcome, runs=runs, val_bpb=score, **fields)
