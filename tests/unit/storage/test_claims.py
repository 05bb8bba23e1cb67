"""Claims of champions are found by hash, never damaged, and never more than two."""

from __future__ import annotations

import hashlib

import pytest

from runner.errors import DiskFullError
from runner.storage import claims


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_claims_are_loaded_by_their_hash(tmp_path):
    claims.save(tmp_path / "new", b"abcd")
    assert claims.load(tmp_path / "new", sha256(b"abcd")) == b"abcd"


def test_only_the_newest_claims_and_those_of_the_champion_that_they_may_replace_stay(tmp_path):
    for data, keep in ((b"one", None), (b"two", b"one"), (b"three", b"two")):
        claims.save(tmp_path, data, keep=keep and sha256(keep))
    assert claims.load(tmp_path, sha256(b"one")) is None
    assert claims.load(tmp_path, sha256(b"two")) == b"two"
    assert claims.load(tmp_path, sha256(b"three")) == b"three"


def test_damaged_claims_count_as_missing(tmp_path):
    claims.save(tmp_path, b"abcd")
    (tmp_path / f"{sha256(b'abcd')}.f32").write_bytes(b"abce")
    assert claims.load(tmp_path, sha256(b"abcd")) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DiskFullError, match="file"):
        claims.save(tmp_path / "file", b"abcd")
