"""Trials in the ledger: opened before their containers, closed once, in the order of the logical clock."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from runner.errors import LedgerError
from runner.records import AuditRecord, Curve, Outcome, Phase, RunEnd, StopReason, Trial, TrialKind
from runner.storage.ledger import Ledger
from tests.support.ledgers import open_experiment
from tests.support.trials import failed, run, scored

STOP = StopReason(fraction=0.5, loss=3.25, tip_loss=3.0, chance=0.004)


@pytest.fixture
def number(ledger):
    return open_experiment(ledger)


def recorded(ledger, trial, number=0, kind=TrialKind.CANDIDATE, tag="t"):
    """A trial from its begin to its end; returns its id."""
    trial_id = ledger.open_trial(tag, number, kind, trial.seed)
    ledger.close_trial(tag, trial_id, trial)
    return trial_id


def as_made(trial):
    """A recorded trial without what the ledger has added."""
    return replace(trial, id=0, opened_seq=0, closed_seq=0)


@pytest.mark.parametrize(
    "trial",
    [
        scored(1.5, 5),
        scored(1.5, 5, audited=False, sealed=True),
        failed(seed=5),
        failed(Outcome.INVALID, 5, reason="refused by the audit: r", claims_sha256="c"),
        failed(Outcome.STOPPED, 5, reason="stopped", runs=[run(Phase.TRAIN, 5, RunEnd.STOPPED, exit_code=None)]),
        failed(Outcome.CONTENDED, 5, reason="other programs used 90% of the cores"),
        failed(Outcome.LOST, 5, reason="away", runs=[]),
    ],
    ids=lambda trial: trial.outcome,
)
def test_a_trial_comes_back_as_it_was_written(ledger, number, trial):
    trial_id = recorded(ledger, trial)
    (found,) = ledger.experiment("t", number).trials
    assert as_made(found) == as_made(trial)
    assert (found.id, found.opened_seq, found.closed_seq) == (trial_id, 2, 3)


def test_a_run_comes_back_as_it_was_written(ledger, number):
    training = run(
        Phase.TRAIN, 5, RunEnd.DEADLINE, exit_code=40, wall_seconds=2.5, cpu_seconds=2.25, others_cpu_seconds=0.5,
        clock_mhz=1980.5, log_tail="hello", opened_at="2026-01-01T00:00:00+00:00",
        closed_at="2026-01-01T00:00:05+00:00",
    )  # fmt: skip
    score = run(Phase.SCORE, 5, val_bpb=1.5, claims_sha256="h")
    recorded(ledger, scored(1.5, 5, runs=(training, score)))
    one = ledger.experiment("t", number)
    assert one.runs == (training, score)
    assert one.log_tail == "hello"
    assert one.trials[0].opened_at == training.opened_at


def test_an_audit_comes_back_as_it_was_written(ledger, number):
    audit = AuditRecord(
        claimed_bpb=1.5, num_positions=8, mean_nats=0.001, se_nats=0.002, upper_nats=0.004,
        exceedances=(3, 2, 1, 0), repeat=0.0, suffix=1e-3, neighbors=None, finding="not_causal", reason="r",
    )  # fmt: skip
    recorded(ledger, failed(Outcome.INVALID, runs=[run(Phase.AUDIT, audit=audit)]))
    (trial,) = ledger.experiment("t", number).trials
    assert trial.audit == audit and not trial.audited


@pytest.mark.parametrize("stop_reason", [None, STOP])
def test_a_curve_comes_back_as_it_was_written(ledger, number, stop_reason):
    curve = Curve(losses=(7.5, None, 3.25, *[3.0] * 9), stop_reason=stop_reason)
    end = RunEnd.FINISHED if stop_reason is None else RunEnd.STOPPED
    recorded(ledger, failed(Outcome.STOPPED, runs=[run(Phase.TRAIN, end=end, curve=curve)]))
    (stored,) = ledger.experiment("t", number).runs
    assert (stored.end, stored.curve) == (end, curve)


def test_controls_of_a_champion_are_not_among_the_trials_of_its_experiment(ledger, number):
    own = recorded(ledger, scored(1.5, 5))
    training = run(Phase.TRAIN, 6, log_tail="later")
    control = recorded(ledger, failed(seed=6, runs=[training]), kind=TrialKind.CONTROL)
    one = ledger.experiment("t", number)
    assert [trial.id for trial in one.trials] == [own]
    assert [trial.id for trial in one.control_trials] == [control]
    assert [trial.kind for trial in (*one.trials, *one.control_trials)] == ["candidate", "control"]
    assert one.controls == (training,) and training not in one.runs
    assert one.log_tail == "", "the log of an experiment is that of its own training"


def test_the_clock_is_strictly_increasing_and_orders_the_trials_of_two_experiments(ledger, number):
    challenger = open_experiment(ledger, champion=number)
    first = recorded(ledger, scored(1.5, 1), challenger)
    control = recorded(ledger, scored(1.6, 2), number, TrialKind.CONTROL)
    second = recorded(ledger, scored(1.5, 3), challenger)
    champion, candidate = ledger.experiments("t")
    trials = [candidate.trials[0], champion.control_trials[0], candidate.trials[1]]
    assert [trial.id for trial in trials] == [first, control, second]
    ticks = [seq for trial in trials for seq in (trial.opened_seq, trial.closed_seq)]
    assert all(earlier < later for earlier, later in pairwise([champion.opened_seq, candidate.opened_seq, *ticks]))


def test_the_clock_goes_on_after_a_restart(ledger, number, tmp_path):
    recorded(ledger, scored(1.5, 1))
    with Ledger(tmp_path / "ledger.db") as again:
        recorded(again, scored(1.5, 2))
        first, second = again.experiment("t", number).trials
    assert first.closed_seq < second.opened_seq < second.closed_seq


def test_runs_are_recorded_once_although_commit_and_close_both_bring_them(ledger, number):
    whole = scored(1.5, 5)
    committed = replace(whole, runs=whole.runs[:2], val_bpb=1.4)
    trial_id = ledger.open_trial("t", number, TrialKind.CANDIDATE, 5)
    ledger.commit_claims(trial_id, committed)
    ledger.close_trial("t", trial_id, whole)
    (trial,) = ledger.experiment("t", number).trials
    assert trial.runs == whole.runs
    assert trial.val_bpb == 1.5, "audited, in place of the claim"


def test_claims_are_on_disk_before_they_are_examined(ledger, number, tmp_path):
    trial_id = ledger.open_trial("t", number, TrialKind.CANDIDATE, 5)
    ledger.commit_claims(trial_id, scored(1.5, 5, audited=False, claims_sha256="sha"))
    with Ledger(tmp_path / "ledger.db") as other:
        ((sha, runs),) = other.database.read(
            "SELECT claims_sha256, (SELECT count(*) FROM runs WHERE trial = id) FROM trials"
        )
    assert (sha, runs) == ("sha", 2)
    assert ledger.experiment("t", number).trials == (), "it is open"


def test_a_trial_is_closed_once(ledger, number):
    trial_id = recorded(ledger, scored(1.5, 5))
    before = ledger.experiments("t")
    for again in (
        lambda: ledger.close_trial("t", trial_id, failed()),
        lambda: ledger.commit_claims(trial_id, scored(1.4)),
        lambda: ledger.close_trial("t", trial_id + 1, failed()),
        lambda: ledger.commit_claims(trial_id + 1, scored(1.4)),
        lambda: ledger.open_trial("t", number + 1, TrialKind.CANDIDATE, 5),
        lambda: ledger.open_trial("u", number, TrialKind.CANDIDATE, 5),
    ):
        with pytest.raises(LedgerError):
            again()
    assert ledger.experiments("t") == before
    assert recorded(ledger, scored(1.5, 6)) and ledger.experiment("t", number).trials[1].opened_seq == 4


def test_trials_that_a_killed_controller_left_open_are_closed_as_lost(ledger, number):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    open_experiment(ledger, "u")
    other = ledger.open_trial("u", 0, TrialKind.CANDIDATE, 1)
    recorded(ledger, scored(1.5, 1))
    ledger.open_trial("t", number, TrialKind.CANDIDATE, 2)
    cut = ledger.open_trial("t", number, TrialKind.CANDIDATE, 3)
    ledger.commit_claims(cut, scored(1.4, 3, audited=False))
    assert len(ledger.experiment("t", number).trials) == 1, "an open trial is not a result"
    assert ledger.close_lost_trials("t") == 2
    done, begun, claimed = ledger.experiment("t", number).trials
    assert done.outcome is Outcome.SCORED
    assert as_made(begun) == Trial(seed=2, outcome=Outcome.LOST, reason="the controller was killed")
    assert (claimed.outcome, claimed.val_bpb) == (Outcome.LOST, None)
    assert [one.phase for one in claimed.runs] == [Phase.TRAIN, Phase.SCORE], "what is known of it is kept"
    assert claimed.closed_seq > claimed.opened_seq
    assert ledger.close_lost_trials("t") == 0
    with pytest.raises(LedgerError):
        ledger.close_trial("t", cut, scored(1.4, 3))
    ledger.close_trial("u", other, scored(1.5, 1))
