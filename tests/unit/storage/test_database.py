"""The file beneath the ledger: durable, whole after a kill, and refused where it is not ours."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing

import pytest

from runner.errors import LedgerError
from runner.failpoints import Step
from runner.storage.database import Database
from runner.storage.ledger import Ledger
from tests.support.ledgers import open_experiment, proposal


def test_the_database_is_as_durable_as_sqlite_can_make_it(ledger):
    assert ledger.database.read("PRAGMA journal_mode")[0][0] == "wal"
    assert ledger.database.read("PRAGMA synchronous")[0][0] == 2
    assert ledger.database.read("PRAGMA foreign_keys")[0][0] == 1


def _write_and_die(path, pipe):
    opened = Ledger(path)
    opened.open_experiment("t", proposal("acknowledged"), diff="", champion=None)
    with opened.database.transaction(Step.TARGET_SET) as db:
        db.execute("UPDATE experiments SET hypothesis = 'torn'")
        pipe.send(True)
        signal.pause()


def test_a_killed_writer_loses_only_what_was_not_acknowledged(ledger, tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=_write_and_die, args=(tmp_path / "ledger.db", theirs))
    writer.start()
    assert ours.poll(60) and ours.recv()
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    writer.close()
    assert [one.hypothesis for one in ledger.experiments("t")] == ["acknowledged"]
    assert ledger.database.read("PRAGMA integrity_check")[0][0] == "ok"


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), sqlite3.OperationalError("refused")])
def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(ledger, error):
    def fail():
        with ledger.database.transaction(Step.TARGET_SET) as db:
            db.execute("UPDATE campaigns SET target = 7")
            raise error

    expected = LedgerError if isinstance(error, sqlite3.Error) else type(error)
    with pytest.raises(expected):
        fail()
    assert ledger.campaign("t").target == 0
    assert open_experiment(ledger) == 0


def test_a_query_that_sqlite_refuses_is_our_error_and_names_the_file(ledger):
    with pytest.raises(LedgerError, match=r"ledger\.db cannot be used") as caught:
        ledger.database.read("SELECT nothing FROM nowhere")
    assert caught.value.remedy


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger(tmp_path / "ledger.db")


@pytest.mark.parametrize("version", [1, 7, 8, 99])
def test_a_ledger_of_another_format_is_refused_in_one_sentence_and_left_as_it_is(ledger, tmp_path, version):
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(LedgerError) as caught:
        Ledger(path)
    assert (
        caught.value.message
        == f"the ledger {path} has format {version}, but this version reads and writes format 9"
    )
    assert caught.value.remedy.startswith(f"move {path} away")
    assert ledger.campaign("t") is not None
    assert ledger.database.read("PRAGMA user_version")[0][0] == version


def test_opening_a_ledger_again_changes_nothing(ledger, tmp_path):
    schema = ledger.database.read("SELECT * FROM sqlite_schema")
    controller = ledger.controller
    again = Database(tmp_path / "ledger.db")
    assert [tuple(row) for row in again.read("SELECT * FROM sqlite_schema")] == [tuple(row) for row in schema]
    again.close()
    assert ledger.controller == controller
