"""ClimbMix downloads against a loopback server: resumed, checked, recorded, and refused with a remedy."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runner import corpus
from runner.config import load
from runner.corpus import climbmix
from runner.corpus import hub as downloads
from runner.corpus.hub import Hub
from runner.errors import DataError
from tests.support.fake_hub import COMMIT, FakeHub


def silent(line: str) -> None:
    pass


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(climbmix, "_SPARE_BYTES", 0)
    fake = FakeHub()
    yield fake
    fake.close()


def hub(server: FakeHub, **changes: object) -> Hub:
    settings = {"read_seconds": 5.0, "backoff_seconds": 0.01, "attempts": 3, **changes}
    return Hub(endpoint=server.endpoint, **settings)


def contents(view: Path) -> dict[str, bytes]:
    return {path.relative_to(view).as_posix(): path.read_bytes() for path in view.rglob("*") if path.is_file()}


def test_shards_arrive_split_into_train_and_validation(server, tmp_path):
    view, _ = climbmix.fetch(2, tmp_path, hub(server), silent)
    assert contents(view) == {
        "train/shard_00000.parquet": server.files["shard_00000.parquet"],
        "train/shard_00001.parquet": server.files["shard_00001.parquet"],
        "validation/shard_06542.parquet": server.files["shard_06542.parquet"],
    }
    assert not list(tmp_path.rglob("*.part*"))


def test_the_commit_is_resolved_once_and_recorded_with_every_hash(server, tmp_path):
    climbmix.fetch(1, tmp_path, hub(server), silent)
    assert server.revisions == {"main", COMMIT}
    server.revisions.clear()
    climbmix.fetch(2, tmp_path, hub(server), silent)
    assert server.revisions == {COMMIT}
    lock = json.loads((tmp_path / "shards.lock.json").read_text())
    assert lock["revision"] == COMMIT
    assert {name: file["sha256"] for name, file in lock["files"].items()} == {
        name: hashlib.sha256(server.files[name]).hexdigest()
        for name in ("shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet")
    }


def test_downloaded_shards_need_no_network(server, tmp_path):
    first = climbmix.fetch(2, tmp_path, hub(server), silent)
    nowhere = Hub(endpoint="http://127.0.0.1:9")
    assert climbmix.fetch(2, tmp_path, nowhere, silent) == first
    fewer, key = climbmix.fetch(1, tmp_path, nowhere, silent)
    assert key != first[1]
    assert len(contents(fewer)) == 2


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts["shard_00000.parquet"] = [100_000, 100_000]
    view, _ = climbmix.fetch(1, tmp_path, hub(server, attempts=2), silent)
    assert contents(view)["train/shard_00000.parquet"] == server.files["shard_00000.parquet"]
    assert [asked for asked in server.ranges if asked != "bytes=0-"] == ["bytes=65536-", "bytes=131072-"]


def test_a_file_that_an_earlier_call_began_is_continued(server, tmp_path):
    server.cuts["shard_00000.parquet"] = [100_000] + [0] * 10
    with pytest.raises(DataError, match=r"cannot get shard_00000\.parquet"):
        climbmix.fetch(1, tmp_path, hub(server), silent)
    server.cuts.clear()
    server.ranges.clear()
    climbmix.fetch(1, tmp_path, hub(server), silent)
    assert "bytes=65536-" in server.ranges


def test_a_server_without_ranges_starts_from_the_beginning(server, tmp_path):
    server.ranged = False
    server.cuts["shard_00000.parquet"] = [100_000]
    view, _ = climbmix.fetch(1, tmp_path, hub(server), silent)
    assert contents(view)["train/shard_00000.parquet"] == server.files["shard_00000.parquet"]


def test_a_wrong_hash_is_fetched_once_more_and_then_refused(server, tmp_path):
    server.spoiled["shard_00000.parquet"] = 1
    climbmix.fetch(1, tmp_path, hub(server), silent)
    server.spoiled["shard_00001.parquet"] = 2
    with pytest.raises(DataError, match=r"shard_00001\.parquet from .* had the wrong SHA-256 twice"):
        climbmix.fetch(2, tmp_path, hub(server), silent)
    assert not (tmp_path / "shards" / "shard_00001.parquet").exists()


def test_a_shard_that_changed_on_the_disk_is_refused(server, tmp_path):
    climbmix.fetch(1, tmp_path, hub(server), silent)
    path = tmp_path / "shards" / "shard_00000.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"shard_00000\.parquet is not the file that was downloaded") as caught:
        climbmix.fetch(1, tmp_path, hub(server), silent)
    assert f"rm {path}" in str(caught.value)
    path.unlink()
    climbmix.fetch(1, tmp_path, hub(server), silent)


def test_another_file_under_the_recorded_name_is_refused(server, tmp_path):
    climbmix.fetch(1, tmp_path, hub(server), silent)
    (tmp_path / "shards" / "shard_00000.parquet").unlink()
    server.files["shard_00000.parquet"] += b"more"
    with pytest.raises(DataError, match=r"has a different shard_00000\.parquet than recorded"):
        climbmix.fetch(1, tmp_path, hub(server), silent)


def test_a_file_that_the_hub_lacks_is_an_error_at_once(server, tmp_path):
    del server.files["shard_00001.parquet"]
    with pytest.raises(DataError, match=r"shard_00001\.parquet answers 404"):
        climbmix.fetch(2, tmp_path, hub(server, attempts=50, backoff_seconds=10.0), silent)


def test_a_busy_hub_is_asked_again(server, tmp_path):
    server.statuses["shard_00000.parquet"] = [503, 429]
    climbmix.fetch(1, tmp_path, hub(server), silent)


def test_refused_access_names_the_token(server, tmp_path):
    server.statuses["shard_00000.parquet"] = [401]
    with pytest.raises(DataError, match="HF_TOKEN"):
        climbmix.fetch(1, tmp_path, hub(server), silent)


def test_a_hub_without_hashes_is_refused(server, tmp_path):
    server.hashes = False
    with pytest.raises(DataError, match="does not state commit, SHA-256 and size"):
        climbmix.fetch(1, tmp_path, hub(server), silent)


def test_a_stalled_server_ends_in_an_error_and_stops_every_thread(server, tmp_path):
    server.stall.set()
    before = time.monotonic()
    with pytest.raises(DataError, match=r"cannot get shard_\d+.parquet from .*: no (answer in time|connection)"):
        climbmix.fetch(2, tmp_path, hub(server, read_seconds=0.1, attempts=1), silent)
    assert time.monotonic() - before < 10
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]


def test_the_token_goes_to_the_hub_and_not_to_the_content_server(server, tmp_path):
    climbmix.fetch(1, tmp_path, hub(server, token="secret"), silent)
    assert {sent for place, sent in server.authorizations if place == "hub"} == {"Bearer secret"}
    assert {sent for place, sent in server.authorizations if place == "content"} == {None}


def test_endpoint_and_token_come_from_the_environment(server, tmp_path, monkeypatch):
    found = Hub.from_environment({"HF_ENDPOINT": "https://mirror.example/hf/", "HF_TOKEN": "t"})
    assert (found.endpoint, found.token) == ("https://mirror.example/hf", "t")
    assert Hub.from_environment({"HF_ENDPOINT": ""}).endpoint == "https://huggingface.co"
    config = load(tmp_path, {"source": "climbmix", "climbmix_shards": 1}, environ={})
    source = corpus.fetch_source(config, tmp_path, silent, {"HF_ENDPOINT": server.endpoint})
    assert source.name == "climbmix-1"
    assert (source.path / "validation" / "shard_06542.parquet").exists()


def test_no_network_names_the_local_folder(tmp_path, monkeypatch, server):
    with pytest.raises(DataError, match=r"cannot get .*: no connection") as caught:
        climbmix.fetch(1, tmp_path, replace(hub(server), endpoint="http://127.0.0.1:9"), silent)
    assert "AUTORESEARCH_SOURCE=/path/to/folder" in str(caught.value)


def test_a_full_disk_is_found_before_the_download(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 500_000})
    monkeypatch.setattr(climbmix.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match="not enough disk space for ClimbMix"):
        climbmix.fetch(2, tmp_path, hub(server), silent)
    assert not [name for name in server.requests if name.startswith("shard")]


def test_progress_is_reported_in_bytes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_PROGRESS_SECONDS", 0.0)
    lines: list[str] = []
    climbmix.fetch(1, tmp_path, hub(server), lines.append)
    assert re.fullmatch(r"downloading ClimbMix: [\d.]+ of [\d.]+ GB", lines[-1])
