"""The ledger keeps what it acknowledged and never mixes two things up."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sqlite3

import pytest

from runner.errors import LedgerError
from runner.records import (
    AuditRecord,
    Curve,
    Figures,
    Phase,
    Proposal,
    RunEnd,
    RunRecord,
    SealedScore,
    StopReason,
    Usage,
    Verdict,
)
from runner.storage.ledger import ANSWERS_OF_FORMAT_3, CONVERSATIONS, SCHEMA, SEALED, Ledger


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


ASKED = {"turn": 1, "request_sha256": "h" * 64}


def answered(ledger, conversation, body, *, cost=1.0, **changes):
    """A response from begin to end; returns its booking."""
    booking = ledger.open_answer(conversation.id, **{**ASKED, **changes}, usage=usage(0.0))
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


def test_what_a_verdict_rests_on_comes_back_as_it_was_written(ledger):
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    look = ledger.open_run("t", number, Phase.SCORE, 5)
    ledger.close_run(look, run(Phase.SCORE, val_bpb=1.5))
    figures = Figures(
        trials=(look,), pool=(7, 8), delta_bpb=-0.1, se_bpb=0.02, sigma_bpb=0.01, better=0.99, effect_bpb=-0.09,
        low_bpb=-0.12, high_bpb=-0.06, first_delta_bpb=-0.2, first_se_bpb=0.03,
    )  # fmt: skip
    ledger.close_experiment("t", number, verdict=Verdict.KEEP, reason="r", val_bpb=1.5, figures=figures)
    one = ledger.experiment("t", number)
    assert one.figures == figures
    assert [found.id for found in one.runs] == [look]


def test_controls_of_a_champion_are_not_among_the_runs_of_its_experiment(ledger):
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    own = ledger.open_run("t", number, Phase.TRAIN, 5)
    ledger.close_run(own, run())
    control = ledger.open_run("t", number, Phase.TRAIN, 6, control=True)
    ledger.close_run(control, run(log_tail="later"))
    one = ledger.experiment("t", number)
    assert [found.id for found in one.runs] == [own]
    assert [found.id for found in one.controls] == [control]
    assert one.log_tail == "", "the log of an experiment is that of its own training"


def test_an_audit_comes_back_as_it_was_written(ledger):
    audit = AuditRecord(
        claimed_bpb=1.5, num_positions=8, mean_nats=0.001, se_nats=0.002, upper_nats=0.004,
        exceedances=(3, 2, 1, 0), repeat=0.0, suffix=1e-3, neighbours=None, finding="not_causal", reason="r",
    )  # fmt: skip
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    ledger.close_run(ledger.open_run("t", number, Phase.AUDIT, 5), run(Phase.AUDIT, audit=audit))
    assert ledger.experiment("t", number).runs[0].audit == audit


DOOM = StopReason(fraction=0.5, loss=3.25, champion_loss=3.0, chance=0.004)


@pytest.mark.parametrize("stop_reason", [None, DOOM])
def test_a_curve_comes_back_as_it_was_written(ledger, stop_reason):
    curve = Curve(losses=(7.5, None, 3.25, *[3.0] * 9), stop_reason=stop_reason)
    number = ledger.open_experiment("t", proposal(), diff="", champion=None)
    end = RunEnd.FINISHED if stop_reason is None else RunEnd.STOPPED
    ledger.close_run(ledger.open_run("t", number, Phase.TRAIN, 5), run(Phase.TRAIN, end, curve=curve))
    (stored,) = ledger.experiment("t", number).runs
    assert (stored.end, stored.curve) == (end, curve)


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


FORMAT_6 = re.sub(r"    (combines|clock_mhz) .*\n", "", SCHEMA)
FORMAT_5 = re.sub(r"    curve .*\n", "", FORMAT_6)
OLD = re.sub(r"    (figures|control) .*\n", "", FORMAT_5)
FORMATS = {
    1: re.sub(r"    audit .*\n", "", OLD),
    2: OLD + SEALED,
    3: OLD + SEALED + ANSWERS_OF_FORMAT_3,
    4: OLD + SEALED + CONVERSATIONS,
    5: FORMAT_5 + SEALED + CONVERSATIONS,
    6: FORMAT_6 + SEALED + CONVERSATIONS,
}


@pytest.mark.parametrize("version", FORMATS)
def test_a_ledger_of_an_earlier_format_is_brought_up_to_date(tmp_path, version):
    assert SCHEMA.count("\n") == OLD.count("\n") + 5 == FORMATS[1].count("\n") + 6
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
            assert opened.experiment("t", number).combines == ()
            assert opened.experiment("t", number).runs[0].audit is None
            assert opened.experiment("t", number).runs[0].curve is None
            assert opened.sealed("t") == ()
    with Ledger(tmp_path / "old.db") as opened:
        talk = opened.open_conversation("t", "p", seen=8)
        assert answered(opened, talk, "a", cost=0.25) > 7
        assert opened.recall_answer(talk.id, **ASKED) == "a"
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


def test_the_answers_of_format_3_are_kept_and_their_conversations_have_ended(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.create_campaign(tag="t", base_commit="b", conditions={})
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.executescript(
            "DROP TABLE checks; DROP TABLE answers; DROP TABLE conversations; PRAGMA user_version = 3;"
            "ALTER TABLE runs DROP COLUMN control; ALTER TABLE runs DROP COLUMN curve;"
            "ALTER TABLE runs DROP COLUMN clock_mhz;"
            "ALTER TABLE experiments DROP COLUMN figures; ALTER TABLE experiments DROP COLUMN combines;"
            + ANSWERS_OF_FORMAT_3
        )
        for booking, number, retry_of in ((1, 3, None), (2, 3, None), (3, 4, 3)):
            db.execute(
                "INSERT INTO usage VALUES (?, 't', NULL, '2026-01-01T00:00:00+00:00', 'm', NULL, 1, 1, 0, 0, 0.5)",
                (booking,),
            )
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, 1, 'h', ?, NULL)", (booking, number, retry_of, b"body")
            )
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert ledger.cost_usd("t") == 1.5
        assert ledger.conversation("t", "p") is None
        assert ledger.retry_abandoned("t", 3)
        rows = ledger._read("SELECT booking, seen, retry_of FROM answers JOIN conversations ON id = conversation")
        assert [tuple(row) for row in rows] == [(1, 2, None), (2, 2, None), (3, 3, 3)]


def test_money_is_booked_for_proposals_and_for_conversations_without_one(ledger):
    nothing = ledger.open_conversation("t", "p", seen=0)
    answered(ledger, nothing, "b", cost=1.0)
    ledger.end_conversation(nothing.id)
    talk = ledger.open_conversation("t", "p", seen=0)
    answered(ledger, talk, "a", cost=0.25)
    answered(ledger, talk, None, cost=0.5)
    assert ledger.cost_usd("t") == 1.75
    assert ledger.conversation_usd(talk.id) == 0.75
    assert ledger.highest_cost_usd("t") == 1.0
    number = ledger.open_experiment("t", proposal(), diff="", champion=None, conversation=talk.id)
    assert ledger.experiment("t", number).cost_usd == 0.75
    assert ledger.cost_usd("t") == 1.75


def test_a_response_is_booked_when_it_begins_and_corrected_when_it_ends(ledger):
    talk = ledger.open_conversation("t", "p", seen=0)
    booking = ledger.open_answer(talk.id, **ASKED, usage=usage(0.25))
    assert ledger.cost_usd("t") == 0.25
    assert ledger.recall_answer(talk.id, **ASKED) is None
    ledger.close_answer(booking, usage(0.5), {"said": ["\ud800", 1.5, None]})
    assert ledger.cost_usd("t") == 0.5
    assert ledger.recall_answer(talk.id, **ASKED) == {"said": ["\ud800", 1.5, None]}


def test_an_answer_is_recalled_for_its_own_request_alone(ledger):
    talk, other = (
        ledger.open_conversation("t", "p", seen=0),
        ledger.open_conversation("t", "p", seen=0, retry_of=0),
    )
    answered(ledger, talk, "a")
    assert ledger.recall_answer(talk.id, **ASKED) == "a"
    for changes in ({"turn": 2}, {"request_sha256": "i" * 64}):
        assert ledger.recall_answer(talk.id, **{**ASKED, **changes}) is None
    assert ledger.recall_answer(other.id, **ASKED) is None


def test_a_conversation_goes_on_until_it_ends_and_ends_once(ledger):
    ledger.create_campaign(tag="u", base_commit="b", conditions={})
    assert ledger.conversation("t", "p") is None
    talk = ledger.open_conversation("t", "p", seen=4, running=5, retry_of=3)
    assert ledger.conversation("t", "p") == talk
    assert (talk.seen, talk.running, talk.retry_of) == (4, 5, 3)
    assert ledger.conversation("u", "p") is None and ledger.conversation("t", "q") is None
    other = ledger.open_conversation("t", "q", seen=4)
    assert (ledger.conversation("t", "p"), ledger.conversation("t", "q")) == (talk, other)
    assert not ledger.retry_abandoned("t", 3)
    ledger.end_conversation(talk.id, {"outcome": "prose"})
    assert ledger.conversation("t", "p") is None
    assert (
        ledger.retry_abandoned("t", 3)
        and not ledger.retry_abandoned("t", 4)
        and not ledger.retry_abandoned("u", 3)
    )
    ledger.open_experiment("t", proposal(transcript="other"), diff="", champion=None, conversation=talk.id)
    assert ledger.retry_abandoned("t", 3), "what has ended led to nothing for ever"


def test_an_experiment_has_the_transcript_of_its_conversation(ledger):
    talk = ledger.open_conversation("t", "p", seen=0, retry_of=3)
    told = {"said": "x" * 1000}
    number = ledger.open_experiment("t", proposal(transcript=told), diff="", champion=None, conversation=talk.id)
    assert ledger.conversation("t", "p") is None
    assert not ledger.retry_abandoned("t", 3)
    assert ledger.transcript("t", number) == told
    assert ledger.transcript("t", number + 1) is None
    assert ledger.transcript("u", number) is None


def test_a_check_is_kept_for_its_conversation_and_its_files(ledger):
    talk, other = ledger.open_conversation("t", "p", seen=0), ledger.open_conversation("t", "p", seen=0)
    assert ledger.recall_check(talk.id, "a") is None
    ledger.keep_check(talk.id, "a", "")
    ledger.keep_check(talk.id, "b", "it failed")
    assert (ledger.recall_check(talk.id, "a"), ledger.recall_check(talk.id, "b")) == ("", "it failed")
    assert ledger.recall_check(other.id, "a") is None


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
    talk = ledger.open_conversation("t", "p", seen=0)
    answered(ledger, talk, "a")
    ledger.keep_check(talk.id, "a", "")
    number = ledger.open_experiment("t", proposal(), diff="", champion=None, conversation=talk.id)
    answered(ledger, ledger.open_conversation("t", "p", seen=0), None)
    ledger.open_run("t", number, Phase.TRAIN, 1)
    ledger.delete_campaign("t")
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        for table in ("campaigns", "experiments", "runs", "usage", "conversations", "answers", "checks", "sealed"):
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
