"""Trials as unit tests need them: a few figures, and plausible runs beneath."""

from __future__ import annotations

from itertools import count

from runner.records import AuditRecord, Outcome, Phase, RunEnd, RunRecord, Trial, TrialKind

_TICKS = count(1)
CLEAN = AuditRecord(
    claimed_bpb=2.0, num_positions=8, mean_nats=0.0, se_nats=0.0, upper_nats=0.0, exceedances=(0, 0, 0, 0),
    repeat=0.0, suffix=0.0, neighbours=0.0,
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
