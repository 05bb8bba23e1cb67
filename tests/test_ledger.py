"""The ledger keeps what it acknowledged and never mixes two things up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3

import pytest

from runner.errors import LedgerError
from runner.ledger import SCHEMA, SEALED, Ledger, exclusive, is_running
from runner.records import AuditRecord, Phase, Proposal, RunEnd, RunRecord, SealedScore, Usage, Verdict


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        opened.create_campaign(tag="t", base_commit="b" * 40, conditions={"data": "d"})
        yield opened


def proposal(hypothesis="wider", **changes):
    return Proposal(hypothesis=hypothesis, edits=(), proposer="fake", **changes)


def usage(cost):
    return Usage(
        model="m",
        request_id="r",
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        cost_usd=cost,
    )


ASKED = {"retry_of": None, "turn": 1, "request_sha256": "h" * 64}


def answered(ledger, body, *, number=0, cost=1.0, **changes):
    """A response from begin to end; returns its booking."""
    booking = ledger.open_answer("t", number, **{**ASKED, **changes}, usage=usage(0.0))
    ledger.close_answer(booking, usage(cost), body)
    return booking


def run(phase=Phase.TRAIN, end=RunEnd.FINISHED, **changes):
    return RunRecord(
        **{
            "phase": phase,
            "seed": 5,
            "end": end,
            "exit_code": 0,
            "wall_seconds": 1.0,
            "cpu_seconds": 0.9,
            **changes,
        }
    )


def test_an_experiment_comes_back_as_it_was_written(ledger):
    number = ledger.open_experiment(
        "t", proposal(parameters={"x": 2.0}, category="systems"), diff="d", champion=None
    )
    ledger.set_candidate("t", number, commit="c", image_id="i", layer_digest="l")
    first = ledger.open_run("t", number, Phase.TRAIN, 5)
    ledger.close_run(first, run(log_tail="hello"))
    second = ledger.open_run("t", number, Phase.SCORE, 5)
    ledger.close_run(second, run(Phase.SCORE, val_bpb=1.5, claims_sha256="h"))
    ledger.close_experiment(
        "t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5, delta_bpb=-0.1, sigma_bpb=0.01
    )
    ledger.set_kept("t", number, "k")
    (one,) = ledger.experiments("t")
    assert (one.number, one.hypothesis, one.category, dict(one.parameters)) == (0, "wider", "systems", {"x": 2.0})
    assert (one.tried_commit, one.image_id, one.layer_digest, one.kept_commit) == ("c", "i", "l", "k")
    assert (one.verdict, one.val_bpb, one.delta_bpb, one.sigma_bpb) == (Verdict.KEEP, 1.5, -0.1, 0.01)
    assert [r.phase for r in one.runs] == [Phase.TRAIN, Phase.SCORE]
    assert one.log_tail == "hello"
    assert one.runs[1].claims_sha256 == "h"


def test_an_audit_comes_back_as_it_was_written(ledger):
    audit = AuditRecord(
        claimed_bpb=1.5, num_positions=8, mean_nats=0.001, se_nats=0.002, upper_nats=0.004,
        exceedances=(3, 2, 1, 0), repeat=0.0, suffix=1e-3, neighbours=None, finding="not_causal", reason="r",
    )  # fmt: skip
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    ledger.close_run(ledger.open_run("t", number, Phase.AUDIT, 5), run(Phase.AUDIT, audit=audit))
    assert ledger.experiment("t", number).runs[0].audit == audit


def test_sealed_scores_are_kept_apart_from_what_proposers_read(ledger):
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    first = SealedScore(number=number, seed=5, val_bpb=1.5, test_bpb=1.625)
    again = SealedScore(number=number, seed=5, val_bpb=1.5, test_bpb=1.75)
    for score in (first, again):
        ledger.seal("t", score, "h")
    assert ledger.sealed("t") == (again,)
    assert ledger.sealed("u") == ()
    assert "1.75" not in repr(ledger.experiment("t", number))
    ledger.delete_campaign("t")
    assert ledger.sealed("t") == ()


FORMATS = {
    1: SCHEMA.replace("    audit TEXT,                         -- JSON: what an audit found\n", ""),
    2: SCHEMA + SEALED,
}


@pytest.mark.parametrize("version", FORMATS)
def test_a_ledger_of_an_earlier_format_is_brought_up_to_date(tmp_path, version):
    assert FORMATS[1] != SCHEMA
    with sqlite3.connect(tmp_path / "old.db") as db:
        db.executescript(FORMATS[version])
        db.execute("INSERT INTO meta VALUES ('controller', 'c')")
        db.execute("INSERT INTO campaigns VALUES ('t', 'now', 'b', 1, 0, '{}')")
        db.execute("INSERT INTO usage VALUES (7, 't', NULL, 'now', 'm', 'r', 1, 2, 3, 4, 0.5)")
        db.execute(f"PRAGMA user_version = {version}")
    db.close()
    for _ in range(2):
        with Ledger(tmp_path / "old.db") as opened:
            assert opened.controller == "c"
            number = opened.open_experiment("t", proposal(), diff="", champion=None)
            opened.close_run(opened.open_run("t", number, Phase.SCORE, 5), run(Phase.SCORE))
            assert opened.experiment("t", number).runs[0].audit is None
            assert opened.sealed("t") == ()
    with Ledger(tmp_path / "old.db") as opened:
        assert answered(opened, "a", number=9, cost=0.25) > 7
        assert opened.recall_answer("t", 9, **ASKED).body == "a"
        assert opened.cost_usd("t") == 0.75


def test_a_crash_has_no_score_rather_than_zero(ledger):
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    ledger.close_experiment("t", number, verdict=Verdict.CRASH, reason="boom")
    assert ledger.experiment("t", number).val_bpb is None


def test_numbers_count_from_zero_in_each_campaign(ledger):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    assert [ledger.open_experiment("t", proposal(), diff="", champion=None) for _ in range(3)] == [0, 1, 2]
    assert ledger.open_experiment("u", proposal(), diff="", champion=None) == 0


def test_a_refused_proposal_is_closed_as_invalid_at_once(ledger):
    number = ledger.open_experiment("t", proposal(), diff="", champion=0, refused="outside workload/")
    one = ledger.experiment("t", number)
    assert (one.verdict, one.reason) == (Verdict.INVALID, "outside workload/")
    assert one.ended_at is not None


def test_money_is_booked_for_proposals_and_for_conversations_without_one(ledger):
    mine = [answered(ledger, "a", cost=0.25), answered(ledger, None, cost=0.5)]
    answered(ledger, "b", cost=1.0)
    assert ledger.cost_usd("t") == 1.75
    number = ledger.open_experiment("t", proposal(), diff="", champion=None, bookings=mine)
    assert ledger.experiment("t", number).cost_usd == 0.75
    assert ledger.cost_usd("t") == 1.75


def test_a_response_is_booked_when_it_begins_and_corrected_when_it_ends(ledger):
    booking = ledger.open_answer("t", 0, **ASKED, usage=usage(0.25))
    assert ledger.cost_usd("t") == 0.25
    assert ledger.recall_answer("t", 0, **ASKED) == ((booking,), None)
    ledger.close_answer(booking, usage(0.5), {"said": ["\ud800", 1.5, None]})
    assert ledger.cost_usd("t") == 0.5
    assert ledger.recall_answer("t", 0, **ASKED) == ((booking,), {"said": ["\ud800", 1.5, None]})


def test_an_answer_is_recalled_for_its_own_request_alone(ledger):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    answered(ledger, "a")
    assert ledger.recall_answer("t", 0, **ASKED).body == "a"
    for other in ({"retry_of": 0}, {"turn": 2}, {"request_sha256": "i" * 64}):
        assert ledger.recall_answer("t", 0, **{**ASKED, **other}) == ((), None)
    assert ledger.recall_answer("t", 1, **ASKED) == ((), None)
    assert ledger.recall_answer("u", 0, **ASKED) == ((), None)


def test_an_ended_conversation_is_not_recalled_and_the_other_one_still_is(ledger):
    answered(ledger, "idea")
    answered(ledger, "mended", retry_of=5)
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    ledger.end_conversation("u", 0, None)
    ledger.end_conversation("t", 1, None)
    ledger.end_conversation("t", 0, 5)
    assert ledger.recall_answer("t", 0, **{**ASKED, "retry_of": 5}).body is None
    assert ledger.recall_answer("t", 0, **ASKED).body == "idea"
    ledger.end_conversations("t", 0)
    assert ledger.recall_answer("t", 0, **ASKED) == ((), None)
    assert ledger.cost_usd("t") == 2.0


def test_an_open_experiment_ends_every_conversation_about_its_number(ledger):
    answered(ledger, "a")
    answered(ledger, "next", number=1)
    ledger.open_experiment("t", proposal(), diff="", champion=None)
    assert ledger.recall_answer("t", 0, **ASKED).body is None
    assert ledger.recall_answer("t", 1, **ASKED).body == "next"


def test_a_verdict_a_commit_and_an_end_are_written_once_for_ever(ledger):
    number = ledger.open_experiment("t", proposal(), diff="d", champion=None)
    one = ledger.open_run("t", number, Phase.TRAIN, 5)
    with pytest.raises(LedgerError):
        ledger.set_kept("t", number, "k")  # no verdict yet
    ledger.close_run(one, run())
    ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5)
    ledger.set_kept("t", number, "k")
    before = ledger.experiments("t")
    for again in (
        lambda: ledger.close_run(one, run(end=RunEnd.LOST)),
        lambda: ledger.close_experiment("t", number, verdict=Verdict.INFRA, reason="another"),
        lambda: ledger.set_kept("t", number, "another"),
        lambda: ledger.set_candidate("t", number, commit="c", image_id="i", layer_digest="l"),
        lambda: ledger.close_run(one + 1, run()),
        lambda: ledger.close_experiment("t", number + 1, verdict=Verdict.INFRA, reason="nobody"),
    ):
        with pytest.raises(LedgerError):
            again()
    assert ledger.experiments("t") == before
    discarded = ledger.open_experiment("t", proposal(), diff="d", champion=0)
    ledger.close_experiment("t", discarded, verdict=Verdict.DISCARD, reason="r", val_bpb=1.6)
    with pytest.raises(LedgerError):
        ledger.set_kept("t", discarded, "k")


def test_runs_that_a_dead_controller_left_open_are_closed_as_lost(ledger):
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    done = ledger.open_run("t", number, Phase.TRAIN, 1)
    ledger.close_run(done, run())
    ledger.open_run("t", number, Phase.SCORE, 1)
    assert ledger.close_lost_runs("t") == 1
    assert [r.end for r in ledger.experiment("t", number).runs] == [RunEnd.FINISHED, RunEnd.LOST]
    assert ledger.close_lost_runs("t") == 0


def test_a_forgotten_campaign_leaves_nothing(ledger, tmp_path):
    bookings = [answered(ledger, "a"), answered(ledger, None)]
    number = ledger.open_experiment("t", proposal(), diff="", champion=None, bookings=bookings[:1])
    ledger.open_run("t", number, Phase.TRAIN, 1)
    ledger.delete_campaign("t")
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        for table in ("campaigns", "experiments", "runs", "usage", "answers", "sealed"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    db.close()


def test_the_controller_id_and_the_campaign_survive_reopening(ledger, tmp_path):
    campaign = ledger.campaign("t")
    with Ledger(tmp_path / "ledger.db") as again:
        assert again.controller == ledger.controller
        assert again.campaign("t") == campaign


def test_the_database_is_as_durable_as_sqlite_can_make_it(ledger):
    assert ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 2


def _write_and_die(path, pipe):
    opened = Ledger(path)
    opened.open_experiment("t", proposal("acknowledged"), diff="", champion=None)
    opened._db.execute("BEGIN IMMEDIATE")
    opened._db.execute("UPDATE experiments SET hypothesis = 'torn'")
    pipe.send(True)
    signal.pause()


def test_a_killed_writer_loses_only_what_was_not_acknowledged(ledger, tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=_write_and_die, args=(tmp_path / "ledger.db", theirs))
    writer.start()
    assert ours.recv()
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    writer.close()
    assert [one.hypothesis for one in ledger.experiments("t")] == ["acknowledged"]
    assert ledger._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger(tmp_path / "ledger.db")


def test_a_ledger_of_another_version_is_refused(ledger, tmp_path):
    ledger._db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="format 99"):
        Ledger(tmp_path / "ledger.db")


def _hold(folder, pipe):
    with exclusive(folder):
        pipe.send(os.getpid())
        signal.pause()


def test_a_second_controller_is_refused_and_the_first_one_named_until_it_dies(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(tmp_path, theirs))
    holder.start()
    pid = ours.recv()
    assert is_running(tmp_path)
    with pytest.raises(LedgerError, match=f"process {pid}"), exclusive(tmp_path):
        pass
    os.kill(pid, signal.SIGKILL)
    holder.join()
    holder.close()
    with exclusive(tmp_path):
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
