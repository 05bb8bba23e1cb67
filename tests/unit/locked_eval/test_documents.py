"""Sources: the same documents from files and tables, and an error that names each bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from locked_eval.preparation import documents
from locked_eval.preparation.documents import PrepareError
from tests.support.small_corpora import Writer, put, require_one_error, run, run_program, tree


def test_parquet_rows_are_the_same_documents_as_files(libraries, corpus, prepared, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    texts = [path.read_text("utf-8") for path in sorted(corpus.iterdir())]
    table = pa.table({"id": range(len(texts) + 1), "text": [*texts, None]})
    (tmp_path / "source").mkdir()
    parquet.write_table(table, tmp_path / "source" / "a.parquet", row_group_size=7, compression="zstd")
    manifest = run(tmp_path / "source", tmp_path / "out")
    assert manifest["documents_left_out"]["empty"] == 1
    names = ("train/shard-00.bin", "train/shard-31.bin", "val/rows.npy", "test/rows.npy", "tokenizer/ranks.txt")
    assert {name: tree(tmp_path / "out")[name] for name in names} == {name: tree(prepared)[name] for name in names}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zstd"])
def test_lines_of_json_are_the_same_documents_as_files(libraries, corpus, prepared, tmp_path, packed):
    import pyarrow as pa

    texts = [path.read_text("utf-8") for path in sorted(corpus.iterdir())]
    lines = [json.dumps({"id": number, "text": text}) for number, text in enumerate(texts)]
    halves = ["\n".join(half).encode() + b"\r\n" for half in (lines[:50], [*lines[50:], "", '{"text": null}'])]
    # The cache of Hugging Face: files by their hash, names that link to them, and the whole of it somewhere else.
    cache = tmp_path / "source"
    for folder in ("blobs", "snapshots/r"):
        (cache / folder).mkdir(parents=True)
    # Frames one after the other are one file, as parallel programs write them.
    frames = [pa.Codec("zstd").compress(half, asbytes=True) if packed else half for half in halves]
    (cache / "blobs" / "0").write_bytes(b"".join(frames))
    (cache / "snapshots" / "r" / f"a.jsonl{'.zst' if packed else ''}").symlink_to("../../blobs/0")
    cache.rename(tmp_path / "moved")
    manifest = run(tmp_path / "moved" / "snapshots" / "r", tmp_path / "out")
    assert manifest["documents_left_out"]["empty"] == 1
    names = ("train/shard-00.bin", "train/shard-31.bin", "val/rows.npy", "test/rows.npy", "tokenizer/ranks.txt")
    assert {name: tree(tmp_path / "out")[name] for name in names} == {name: tree(prepared)[name] for name in names}


def _symlink(source: Path) -> None:
    (source / "link.txt").symlink_to(source / "000.txt")


def _lines(text: str) -> Callable[[Path], object]:
    return lambda source: (source / "bad.jsonl").write_text('{"text": "good"}\n\n' + text, "utf-8")


def _damaged_parquet(source: Path) -> None:
    (source / "bad.parquet").write_bytes(b"PAR1 this is no table PAR1")


def _parquet(source: Path, columns: dict) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), source / "other.parquet")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda source: (source / "bad.txt").write_bytes(b"caf\xe9 au lait"),
            r"bad\.txt is not UTF-8 text: byte 3",
        ),
        (_symlink, r"link\.txt is a symbolic link"),
        (_damaged_parquet, r"cannot read bad\.parquet"),
        (lambda source: _parquet(source, {"body": ["x"]}), r"other\.parquet has no column 'text'; it has body"),
        (lambda source: _parquet(source, {"text": [1, 2]}), r"column 'text' of other\.parquet holds int64"),
        (_lines('{"body": "x", "id": 1}'), r"line 3 of bad\.jsonl has no field 'text'; it has body, id"),
        (_lines('["text"]'), r"line 3 of bad\.jsonl has no field 'text'$"),
        (_lines('{"text": 7}'), r"field 'text' in line 3 of bad\.jsonl is no text"),
        (_lines('{"text": "half'), r"line 3 of bad\.jsonl is not JSON"),
        (_lines("[" * 100_000), r"line 3 of bad\.jsonl is not JSON"),
        (_lines('{"text": "\\ud800"}'), r"line 3 of bad\.jsonl is not UTF-8"),
        (
            lambda source: (source / "bad.jsonl").write_bytes(b'{"text": "\xe9"}'),
            r"line 1 of bad\.jsonl is not UTF-8",
        ),
        (lambda source: (source / "bad.jsonl.zst").write_bytes(b"{}"), r"cannot read bad\.jsonl\.zst"),
    ],
    ids=[
        *("encoding", "symlink", "damaged", "column", "type"),
        *("field", "list", "number", "half", "deep", "surrogate", "latin-1", "not packed"),
    ],
)
def test_a_bad_file_is_named(libraries, corpus, tmp_path, capsys, spoil, says):
    source = put(tmp_path / "source", {"000.txt": (corpus / "000.txt").read_text("utf-8")})
    spoil(source)
    assert run_program(source, tmp_path / "out") == 2
    require_one_error(capsys, says)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({}, "no documents"),
        ({"a.csv": "x,y"}, "no documents"),
        ({"a.txt": " \n", "b.txt": "…?!".replace("…", ".")}, "no words"),
        ({"a.txt": "too short"}, r"not enough text: 9 bytes, .* need a corpus of 12,480 bytes"),
        ({"a.txt": Writer().text(5000), "b.txt": Writer(1).text(5000)}, "too few documents"),
        ({f"{i}.txt": f"word{i} " * 300 for i in range(40)}, "not enough text for a vocabulary of 4,000"),
    ],
    ids=["empty", "no-text", "no-words", "short", "two-documents", "vocabulary"],
)
def test_a_corpus_that_cannot_be_split_says_what_is_missing(libraries, tmp_path, capsys, texts, says):
    source = put(tmp_path / "source", texts)
    source.mkdir(exist_ok=True)
    assert run_program(source, tmp_path / "out", vocab=4000) == 2
    require_one_error(capsys, says)
    assert list((tmp_path / "out").iterdir()) == []


def test_too_few_rows_say_how_many_weredropped(libraries, pinned, tmp_path, capsys):
    source, _, writer = pinned
    put(source, {"test/a.txt": writer.text(60)})
    assert run_program(source, tmp_path / "out") == 2
    require_one_error(capsys, r"not enough text for the test split: \d rows of 65 tokens, 8 needed")


def test_an_oversized_document_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 1000)
    source = put(tmp_path, {"big.txt": "a" * 1001})
    with pytest.raises(PrepareError, match=r"big\.txt is a document of more than"):
        documents.scan(documents.find_files(source), lambda done, total: None)
