"""The ledger keeps what it acknowledged of campaigns and experiments, and never mixes two of them up."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from runner.errors import LedgerError
from runner.records import Figures, Phase, SealedScore, TrialKind, UsageTotals, Verdict
from runner.storage.ledger import Ledger
from runner.storage.rows import Refused
from runner.storage.sealed import SealedScores
from tests.support.ledgers import TAG, answered, open_experiment, proposal, record_trial
from tests.support.trials import run, scored

TABLES = ("campaigns", "experiments", "trials", "runs", "sealed", "usage", "conversations", "answers", "checks")


def test_an_experiment_comes_back_as_it_was_written(ledger):
    number = ledger.open_experiment(
        "t", proposal(parameters={"x": 2.0}, category="systems", model="m", certifies=(3, 4)), diff="d",
        champion=None, retry_of=7,
    )  # fmt: skip
    ledger.set_candidate("t", number, commit="c", image_id="i", layer_digest="l")
    ledger.close_experiment(
        "t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5, delta_bpb=-0.1, sigma_bpb=0.01
    )
    ledger.set_kept("t", number, "k")
    (one,) = ledger.experiments("t")
    assert (one.number, one.hypothesis, one.category, dict(one.parameters)) == (0, "wider", "systems", {"x": 2.0})
    assert (one.proposer, one.model, one.certifies, one.retry_of, one.diff) == ("fake", "m", (3, 4), 7, "d")
    assert (one.tried_commit, one.image_id, one.layer_digest, one.kept_commit) == ("c", "i", "l", "k")
    assert (one.verdict, one.reason, one.val_bpb) == (Verdict.KEEP, "r", 1.5)
    assert (one.delta_bpb, one.sigma_bpb) == (-0.1, 0.01)
    assert one.started_at is not None and one.ended_at is not None


def test_figures_of_a_verdict_come_back_as_they_were_written(ledger):
    number = open_experiment(ledger)
    trial = ledger.open_trial("t", number, TrialKind.CANDIDATE, 5)
    ledger.close_trial("t", trial, scored(1.5, 5))
    figures = Figures(
        trials=(trial,), pool=(7, 8), delta_bpb=-0.1, se_bpb=0.02, sigma_bpb=0.01, better=0.99, effect_bpb=-0.09,
        low_bpb=-0.12, high_bpb=-0.06,
    )  # fmt: skip
    ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5, figures=figures)
    one = ledger.experiment("t", number)
    assert one.figures == figures
    assert tuple(trial.id for trial in one.trials) == figures.trials


def test_a_crash_has_no_score_rather_than_zero(ledger):
    number = open_experiment(ledger)
    ledger.close_experiment("t", number, verdict=Verdict.CRASH, reason="boom")
    one = ledger.experiment("t", number)
    assert (one.val_bpb, one.delta_bpb, one.sigma_bpb, one.figures, one.kept_commit) == (None,) * 5


def test_numbers_count_from_zero_in_each_campaign(ledger):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    assert [open_experiment(ledger) for _ in range(3)] == [0, 1, 2]
    assert open_experiment(ledger, "u") == 0
    assert ledger.campaigns() == ("u", "t")


@pytest.mark.parametrize("verdict", [Verdict.INVALID, Verdict.INFRA])
def test_a_refused_proposal_is_closed_at_once(ledger, verdict):
    number = open_experiment(ledger, refused=Refused(reason="outside workload/", verdict=verdict))
    one = ledger.experiment("t", number)
    assert (one.verdict, one.reason) == (verdict, "outside workload/")
    assert one.ended_at is not None and one.closed_seq == one.opened_seq > 0
    assert Refused(reason="r").verdict is Verdict.INVALID, "unless something else is said"


def test_one_experiment_is_read_without_the_rows_of_others(ledger, monkeypatch):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    for tag in ("t", "t", "t", "u"):
        talk = ledger.conversations.open(tag, "p", seen=0)
        answered(ledger.conversations, talk, "a", cost=0.25)
        number = open_experiment(ledger, tag, conversation=talk.id)
        trial = ledger.open_trial(tag, number, TrialKind.CANDIDATE, 5)
        ledger.close_trial(tag, trial, scored(1.5 + number))
    everything = ledger.experiments("t")
    rows, read = [], ledger.database.read

    def counted(query, *values):
        found = read(query, *values)
        rows.append(len(found))
        return found

    monkeypatch.setattr(ledger.database, "read", counted)
    assert ledger.experiment("t", 1) == everything[1]
    assert rows == [3, 1, 1], "runs, trials, and the experiment with its cost"
    assert ledger.experiments("t", 1, 2) == everything[1:]
    assert ledger.experiment("t", 3) is None and ledger.experiment("u", 1) is None


def test_a_verdict_and_a_commit_are_written_once(ledger):
    number = open_experiment(ledger)
    with pytest.raises(LedgerError):
        ledger.set_kept("t", number, "k")  # no verdict yet
    ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5)
    ledger.set_kept("t", number, "k")
    before = ledger.experiments("t")
    for again in (
        lambda: ledger.close_experiment("t", number, verdict=Verdict.INFRA, reason="another"),
        lambda: ledger.set_kept("t", number, "another"),
        lambda: ledger.set_candidate("t", number, commit="c", image_id="i", layer_digest="l"),
        lambda: ledger.close_experiment("t", number + 1, verdict=Verdict.INFRA, reason="unknown"),
    ):
        with pytest.raises(LedgerError):
            again()
    assert ledger.experiments("t") == before
    discarded = open_experiment(ledger, champion=0)
    ledger.close_experiment("t", discarded, verdict=Verdict.DISCARD, reason="r", val_bpb=1.6)
    with pytest.raises(LedgerError):
        ledger.set_kept("t", discarded, "k")


def test_the_logical_clock_of_each_campaign_advances_with_every_transition(ledger):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    for number in (0, 1):
        open_experiment(ledger)
        assert open_experiment(ledger, "u") == number
        ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5)
        ledger.set_kept("t", number, "k")
    ticks = [seq for one in ledger.experiments("t") for seq in (one.opened_seq, one.closed_seq, one.kept_seq)]
    assert ticks == [1, 2, 3, 4, 5, 6]
    others = [(one.opened_seq, one.closed_seq, one.kept_seq) for one in ledger.experiments("u")]
    assert others == [(1, 0, 0), (2, 0, 0)], "its own clock; 0: not yet"


def test_a_transition_that_is_refused_takes_no_tick(ledger):
    open_experiment(ledger)
    for _ in range(3):
        with pytest.raises(LedgerError):
            ledger.set_kept("t", 0, "k")
    ledger.close_experiment("t", 0, verdict=Verdict.CRASH, reason="r")
    assert ledger.experiment("t", 0).closed_seq == 2


def test_the_order_of_keeps_is_that_of_the_clock(ledger):
    for number in (0, 1):
        open_experiment(ledger)
        ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5)
    for number in (1, 0):
        ledger.set_kept("t", number, "k")
    first, second = ledger.experiments("t")
    assert first.kept_seq > second.kept_seq > second.closed_seq > first.closed_seq


def test_an_unknown_campaign_takes_no_experiment(ledger):
    with pytest.raises(LedgerError, match="no campaign 'x'"):
        open_experiment(ledger, "x")
    assert ledger.campaign("x") is None and ledger.experiments("x") == ()


def test_a_target_belongs_to_its_campaign(ledger):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    ledger.set_target("t", 12)
    assert (ledger.campaign("t").target, ledger.campaign("u").target) == (12, 0)


def test_totals_sum_every_response_of_a_campaign(ledger):
    assert (
        ledger.conversations.usage_totals("t").num_responses == 0
        and ledger.conversations.usage_totals("t").cost_usd == 0.0
    )
    talk = ledger.conversations.open("t", "p", seen=0)
    for cost in (0.25, 0.5):
        answered(ledger.conversations, talk, "a", cost=cost)
    open_experiment(ledger, conversation=talk.id)
    answered(ledger.conversations, ledger.conversations.open("t", "p", seen=0), None)
    assert ledger.conversations.usage_totals("t") == UsageTotals(
        num_responses=3, input_tokens=3, output_tokens=6, cache_read_tokens=9, cache_write_tokens=12,
        cost_usd=1.75,
    )  # fmt: skip


def test_a_deleted_campaign_leaves_nothing(ledger, tmp_path):
    conversations = ledger.conversations
    talk = conversations.open("t", "p", seen=0)
    answered(conversations, talk, "a")
    conversations.keep_check(talk.id, "a", "")
    number = open_experiment(ledger, conversation=talk.id)
    answered(conversations, conversations.open("t", "p", seen=0), None)
    ledger.close_trial("t", ledger.open_trial("t", number, TrialKind.CANDIDATE, 1), scored(1.5))
    ledger.open_trial("t", number, TrialKind.CONTROL, 2)
    sealed = SealedScores(ledger.database)
    sealed.add("t", SealedScore(number=number, seed=1, val_bpb=1.5, test_bpb=1.6), "h")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as db:

        def counts():
            return [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES]

        assert all(counts())
        ledger.delete_campaign("t")
        assert not any(counts())


def test_the_controller_id_and_the_campaign_survive_reopening(ledger, tmp_path):
    campaign = ledger.campaign("t")
    with Ledger(tmp_path / "ledger.db") as again:
        assert again.controller == ledger.controller
        assert again.campaign("t") == campaign
    assert (campaign.base_commit, dict(campaign.conditions), campaign.target) == ("b" * 40, {"data": "d"}, 0)


def test_logs_are_read_with_one_experiment_and_otherwise_of_keeps_and_crashes_alone(ledger):
    for number, verdict in enumerate(Verdict):
        open_experiment(ledger)
        training = run(Phase.TRAIN, log_tail=f"log {number}")
        record_trial(ledger, number, scored(2.0, runs=(training,)))
        ledger.close_experiment(TAG, number, verdict=verdict, reason="r")
    several = {one.verdict: one.log_tail for one in ledger.experiments(TAG)}
    assert [verdict for verdict, log in several.items() if log] == [Verdict.KEEP, Verdict.CRASH]
    assert [ledger.experiment(TAG, number).log_tail for number in range(5)] == [f"log {n}" for n in range(5)]
    assert [one.log_tail for one in ledger.kept_experiments(TAG)] == ["log 0"]


def test_the_lineage_is_everything_that_says_what_the_tip_is(ledger):
    for verdict, certifies in (
        (Verdict.KEEP, ()),
        (Verdict.ACCEPT, ()),
        (Verdict.DISCARD, ()),
        (Verdict.DISCARD, (1,)),
        (Verdict.INFRA, ()),
    ):
        number = ledger.open_experiment("t", proposal(certifies=certifies), diff="", champion=0, parent=0)
        ledger.close_experiment("t", number, verdict=verdict, reason="r")
    ledger.open_experiment("t", proposal(certifies=(1,)), diff="", champion=0, parent=0)
    assert [(one.number, one.parent) for one in ledger.lineage("t")] == [(0, 0), (1, 0), (3, 0), (5, 0)]
