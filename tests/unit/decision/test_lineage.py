"""Champions, their audited claims, and the strikes against their challengers."""

from __future__ import annotations

from runner.decision.history import audited_runs, champion, champion_claims, strikes
from runner.records import AuditRecord, Experiment, Phase, RunEnd, RunRecord, Verdict


def audit(finding=None):
    return AuditRecord(
        claimed_bpb=1.0, num_positions=8, mean_nats=0.0, se_nats=0.0, upper_nats=0.0, exceedances=(0, 0, 0, 0),
        repeat=0.0, suffix=0.0, neighbours=None, finding=finding,
    )  # fmt: skip


def run(phase, **changes):
    return RunRecord(
        phase=phase, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1, **changes
    )


def experiment(number, verdict, runs=(), against=None):
    return Experiment(
        number=number, hypothesis="h", proposer="p", verdict=verdict, champion=against, runs=tuple(runs)
    )


AUDITED = run(Phase.AUDIT, audit=audit(), val_bpb=1.0, claims_sha256="good")
REFUSED = run(Phase.AUDIT, audit=audit("overstated"), val_bpb=1.0, claims_sha256="bad")
SCORED = run(Phase.SCORE, val_bpb=1.0, claims_sha256="unaudited")


def test_the_champion_is_the_newest_keep():
    night = [experiment(0, Verdict.KEEP), experiment(1, Verdict.KEEP), experiment(2, Verdict.DISCARD)]
    assert champion(night).number == 1
    assert champion([]) is None


def test_only_claims_that_an_audit_confirmed_are_compared_with():
    one = experiment(0, Verdict.KEEP, [SCORED, AUDITED, SCORED, REFUSED])
    assert audited_runs(one) == [AUDITED]
    assert champion_claims(one) == "good"
    assert champion_claims(experiment(0, Verdict.KEEP, [SCORED])) is None
    assert champion_claims(None) is None


def test_a_strike_is_a_challenger_that_its_audit_refused():
    night = [
        experiment(0, Verdict.KEEP, [AUDITED]),
        experiment(1, Verdict.INVALID, [SCORED, REFUSED], against=0),
        experiment(2, Verdict.INVALID, against=0),  # its edits were refused: it never ran
        experiment(3, Verdict.DISCARD, [SCORED, AUDITED], against=0),
        experiment(4, Verdict.KEEP, [SCORED, AUDITED], against=0),
        experiment(5, Verdict.INVALID, [SCORED, REFUSED], against=4),
        experiment(6, Verdict.INVALID, [SCORED, REFUSED], against=4),
    ]
    assert strikes(night) == {0: 1, 4: 2}
