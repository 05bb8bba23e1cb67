"""Torn, garbled, corrupted and unreadable files of ours: what was acknowledged stays, nothing is overwritten."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager

import pytest

from tests.support.host_night import TRAINING


@pytest.fixture
def killed(night):
    """A night that was killed while experiment 2 trained."""
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.stop()
    process.end()
    return night


def goes_on(night, whole):
    ended = night.run()
    assert ended.code == 0, ended.errors
    assert night.final_state() == whole


def test_a_torn_line_of_events_ends_where_it_was_cut(killed, whole):
    log = killed.state / "logs" / "test.jsonl"
    before = log.read_bytes()
    log.write_bytes(before + b'{"event": "run_en')
    goes_on(killed, whole)
    after = log.read_bytes()
    assert after.startswith(before + b'{"event": "run_en\n{"')
    readable = [json.loads(line)["event"] for line in after.splitlines() if line.endswith(b"}")]
    assert readable.count("campaign_resumed") == 1
    assert len(readable) == len(after.splitlines()) - 1


def test_a_whole_last_line_gets_no_empty_one_after_it(killed, whole):
    goes_on(killed, whole)
    assert b"\n\n" not in (killed.state / "logs" / "test.jsonl").read_bytes()


def acknowledged(night):
    return {table: night.rows(table) for table in ("experiments", "trials", "usage", "answers", "sealed")}


def raw(night, suffix):
    return night.state / f"ledger.db{suffix}"


WAL_FAULTS = {
    "garbage behind its end": lambda wal: wal + os.getrandom(5000),
    "half a frame": lambda wal: wal + wal[32 : 32 + 2100],
    "zeros behind its end": lambda wal: wal + bytes(8192),
}


@pytest.mark.parametrize("fault", WAL_FAULTS)
def test_a_damaged_tail_of_the_write_ahead_log_costs_no_acknowledged_row(killed, whole, fault):
    wal = raw(killed, "-wal")
    whole_wal = wal.read_bytes()
    assert len(whole_wal) > 4096, "the rows are in there, not yet in the database"
    copy = killed.folder / "copy.db"  # reading would repair it
    copy.write_bytes(raw(killed, "").read_bytes())
    copy.with_name("copy.db-wal").write_bytes(whole_wal)
    with closing(sqlite3.connect(copy)) as database:
        before = [
            database.execute(f"SELECT * FROM {name}").fetchall() for name in ("experiments", "trials", "usage")
        ]
    wal.write_bytes(WAL_FAULTS[fault](whole_wal))
    rows = acknowledged(killed)
    assert [[tuple(row.values()) for row in rows[name]] for name in ("experiments", "trials", "usage")] == before
    assert len(before[0]) == 3 and len(before[1]) == 4
    goes_on(killed, whole)


def test_a_garbled_index_of_the_write_ahead_log_is_made_again(killed, whole):
    index = raw(killed, "-shm")
    index.write_bytes(os.getrandom(index.stat().st_size))
    goes_on(killed, whole)


def corrupt_pages(data):
    """Keep the header, so that it looks like a database."""
    return data[:100] + bytes(byte ^ 0x5A for byte in data[100:])


@pytest.mark.parametrize(
    "damage", [corrupt_pages, lambda data: b"no database at all " * 300, lambda data: data[:3000]]
)
def test_a_corrupted_ledger_is_named_and_left_as_it_is(night, damage):
    assert night.run().code == 0
    ledger = raw(night, "")
    damaged = damage(ledger.read_bytes())
    ledger.write_bytes(damaged)
    for command in ((), ("status",), ("log",)):
        ended = night.run(*command)
        assert ended.code == 1, ended
        assert str(ledger) in ended.told()
        assert ".recover" in ended.told()
    assert ledger.read_bytes() == damaged


def test_a_ledger_that_is_corrupted_in_the_night_ends_it_without_a_verdict(night):
    process = night.start(gates=[TRAINING])
    process.at_gate()
    with closing(sqlite3.connect(raw(night, ""))) as database:  # everything into the database file
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = raw(night, "").stat().st_size
    with raw(night, "").open("r+b") as file:
        file.seek(4096)
        file.write(os.getrandom(size - 4096))
    process.open_gate()
    ended = process.end()
    assert ended.code == 1
    assert str(raw(night, "")) in ended.told()
    assert ".recover" in ended.told()


def test_a_state_folder_that_may_not_be_read_is_one_clear_error(killed, whole):
    killed.state.chmod(0)
    for command in ("overnight", "status"):
        ended = killed.run(command, mortal=True)
        assert ended.code == 1, ended
        assert str(killed.state) in ended.told()
        assert "ls -ld" in ended.told()
    killed.state.chmod(0o755)
    ended = killed.run(mortal=True)
    assert ended.code == 0, ended.errors
    assert killed.final_state() == whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["controller.lock", "ledger.db", "logs", "claims"])
def test_a_file_of_another_user_is_one_clear_error(killed, whole, name):
    path = killed.state / name
    os.chown(path, 23456, 23456)
    before = path.stat().st_mode
    path.chmod(0)
    ended = killed.run(mortal=True)
    assert ended.code == 1, ended
    assert str(path) in ended.told()
    assert "ls -ld" in ended.told()
    path.chmod(before)
    os.chown(path, 0, 0)
    goes_on(killed, whole)


@contextmanager
def read_only(root):
    """Everything below a folder, as on a medium that cannot be written."""
    paths = [root, *root.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths if not path.is_symlink()}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.parametrize("how", ["ended", "killed", "running"])
def test_reading_commands_need_no_right_to_write(night, whole, how):
    """After the last writer closed the ledger, beside what a killed one left, and beside a running one."""
    process = night.start(gates=[] if how == "ended" else [TRAINING])
    if how == "ended":
        assert process.end().code == 0
    else:
        process.at_gate()
        if how == "killed":
            process.stop()
            process.end()
    names = sorted(path.name for path in night.state.iterdir())
    with read_only(night.root):
        for command, shown in ((("status",), "campaign test"), (("log",), "baseline"), (("show", "1"), "trial"),
                               (("report", "--no-files"), "Sealed")):  # fmt: skip
            ended = night.run(*command, mortal=True)
            assert ended.code == 0, ended.errors
            assert shown in ended.output
        refused = night.run("report", mortal=True)
    assert refused.code == 1
    assert "--no-files" in refused.told()
    assert sorted(path.name for path in night.state.iterdir()) == names
    if how == "running":
        process.open_gate()
        assert process.end().code == 0
    elif how == "killed":
        assert night.run().code == 0
    assert night.final_state() == whole
