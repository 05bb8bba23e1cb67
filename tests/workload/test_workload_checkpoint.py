"""Publishing a checkpoint: the file is replaced as a whole, or it stays as it was."""

from __future__ import annotations

import pytest

from workload.checkpoint import publish


@pytest.fixture
def out_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT_DIR", str(tmp_path))
    return tmp_path


def test_the_last_checkpoint_replaces_the_one_before_it(out_dir):
    publish(lambda path: path.write_bytes(b"first"))
    publish(lambda path: path.write_bytes(b"second"))
    assert {path.name: path.read_bytes() for path in out_dir.iterdir()} == {"checkpoint": b"second"}


def test_the_published_checkpoint_stays_complete_while_another_one_is_written(out_dir):
    publish(lambda path: path.write_bytes(b"first"))
    seen = []

    def write(path):
        path.write_bytes(b"half")
        seen.append((out_dir / "checkpoint").read_bytes())

    publish(write)
    assert seen == [b"first"]


def test_a_write_that_fails_leaves_the_earlier_checkpoint_and_no_partial_file(out_dir):
    publish(lambda path: path.write_bytes(b"first"))

    def fail(path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        publish(fail)
    assert {path.name: path.read_bytes() for path in out_dir.iterdir()} == {"checkpoint": b"first"}
