"""The file system beneath the ledger: named, and given a journal that works on it."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runner.errors import LedgerError
from runner.storage import database, filesystem
from runner.storage.filesystem import FileSystem, file_system_of, this_file_system
from runner.storage.ledger import Ledger
from tests.support.ledgers import new_ledger, open_experiment

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:5 / /dev/shm rw - tmpfs tmpfs rw
40 22 0:50 / /home rw shared:7 master:2 - nfs4 server:/export/home rw,vers=4.2
41 40 0:51 / /home/ada/local rw - xfs /dev/nvme0n1 rw
42 22 0:52 / /mnt/c rw - 9p C:\\134 rw,aname=drvfs;path=C:\\134
43 22 0:53 / /srv/my\\040share rw - cifs //nas/my\\040share rw
44 22 0:54 / /srv/twice rw - ext4 /dev/vdb rw
45 44 0:55 / /srv/twice rw - virtiofs shared rw
46 22 0:56 / /srv/ssh rw - fuse.sshfs ada@host: rw
half a line
"""


@pytest.mark.parametrize(
    ("path", "kind", "source", "shared"),
    [
        ("/work/clone", "ext4", "/dev/vda", False),
        ("/dev/shm/clone", "tmpfs", "tmpfs", False),
        ("/home/ada/clone", "nfs4", "server:/export/home", True),
        ("/home/ada/local/clone", "xfs", "/dev/nvme0n1", False),
        ("/home2/clone", "ext4", "/dev/vda", False),
        ("/mnt/c/clone", "9p", "C:\\", True),
        ("/srv/my share/clone", "cifs", "//nas/my share", True),
        ("/srv/twice/clone", "virtiofs", "shared", True),
        ("/srv/ssh/clone", "fuse.sshfs", "ada@host:", True),
    ],
)
def test_a_path_is_on_the_last_file_system_that_holds_it(path, kind, source, shared):
    found = file_system_of(Path(path), MOUNTS)
    assert found == FileSystem(kind=kind, source=source)
    assert found.is_shared is shared


def test_a_text_that_says_nothing_names_nothing():
    assert file_system_of(Path("/work"), "") is None


@pytest.mark.parametrize("folder", ["/dev/shm", "/proc"])
def test_the_kernel_is_asked_about_this_machine(folder):
    found = this_file_system(Path(folder) / "not" / "there")
    assert found is not None
    assert found.kind == {"/dev/shm": "tmpfs", "/proc": "proc"}[folder]


def mount(monkeypatch, tmp_path, kind):
    """Let the kernel say that a folder is on such a file system."""
    text = tmp_path / "mountinfo"
    text.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n40 22 0:50 / {tmp_path} rw - {kind} server:/home rw\n")
    monkeypatch.setattr(filesystem, "MOUNTINFO", text)


def journal(ledger):
    return ledger.database.read("PRAGMA journal_mode")[0][0]


def write_and_die(path):
    ledger = Ledger(path)
    open_experiment(ledger)
    with ledger.database.transaction(database.Step.TARGET_SET) as db:
        db.execute("UPDATE campaigns SET target = 7")
        os.kill(os.getpid(), 9)


@pytest.mark.parametrize("kind", ["nfs4", "9p", "virtiofs", "fuse.sshfs"])
def test_on_a_shared_file_system_the_ledger_has_a_journal_that_needs_no_shared_memory(monkeypatch, tmp_path, kind):
    mount(monkeypatch, tmp_path, kind)
    with new_ledger(tmp_path) as ledger:
        assert journal(ledger) == "truncate"
        assert ledger.database.read("PRAGMA synchronous")[0][0] == 2
        # Another process dies in the middle of a write: the acknowledged one stays, the other one does not.
        process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(ledger.path,))
        process.start()
        process.join()
        assert [one.number for one in ledger.experiments("t")] == [0]
        assert ledger.campaign("t").target == 0
        assert open_experiment(ledger) == 1
    assert not list(tmp_path.glob("*-wal")) + list(tmp_path.glob("*-shm"))


def test_a_ledger_that_moves_to_another_file_system_changes_its_journal(monkeypatch, tmp_path):
    with new_ledger(tmp_path) as ledger:
        assert journal(ledger) == "wal"
    mount(monkeypatch, tmp_path, "nfs4")
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert journal(ledger) == "truncate"
        assert ledger.campaign("t") is not None
    monkeypatch.undo()
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert journal(ledger) == "wal"


def test_a_journal_that_sqlite_does_not_give_is_an_error_that_names_the_file_system(monkeypatch, tmp_path):
    """A connection in memory keeps its own mode, whatever is asked: the answer is what counts."""
    mount(monkeypatch, tmp_path, "ext4")
    connect = sqlite3.connect
    monkeypatch.setattr(database.sqlite3, "connect", lambda _, **named: connect(":memory:", **named))
    with pytest.raises(LedgerError, match=r"ext4 \(server:/home\)") as caught:
        Ledger(tmp_path / "ledger.db")
    assert "local disk" in caught.value.remedy


def test_a_ledger_on_a_real_memory_file_system_has_a_write_ahead_log():
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        pytest.skip("no memory file system")
    with TemporaryDirectory(dir=folder) as found, closing(Ledger(Path(found) / "ledger.db")) as ledger:
        assert journal(ledger) == "wal"
