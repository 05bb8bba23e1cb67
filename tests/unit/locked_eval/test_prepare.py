"""Preparation: documents in, a data set with an exact byte account out."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from locked_eval.preparation import prepare as program
from locked_eval.preparation import shingles
from locked_eval.preparation import tokenizer as bpe
from locked_eval.preparation.documents import PrepareError
from locked_eval.preparation.index import CorpusIndex, find_letters
from locked_eval.preparation.rows import _cut_rows, choose_rows
from tests.support.small_corpora import (
    ROWS,
    T,
    V,
    Writer,
    decoded_lengths,
    options,
    put,
    require_one_error,
    run,
    run_program,
    shard_documents,
    shards_of,
    train_documents,
    tree,
)


def hashes_of(texts: list[bytes]) -> set[int]:
    return set(shingles.shingle(texts).hashes.tolist())


def test_the_manifest_lists_every_file_with_its_hash(prepared, manifest):
    found = tree(prepared)
    del found["manifest.json"]
    assert found == {name: file["sha256"] for name, file in manifest["files"].items()}
    assert set(found) == {
        *(f"train/shard-{number:02d}.bin" for number in range(32)),
        *(f"{split}/meta.json" for split in ("train", "val", "test")),
        *("val/rows.npy", "test/rows.npy", "shingles/val.npy", "shingles/test.npy"),
        "shingles/corpus.npy",
        *("tokenizer/ranks.txt", "tokenizer/pattern.txt", "tokenizer/token_bytes.npy"),
    }


def test_shards_decode_to_the_training_documents_each_in_order(prepared, corpus, tokens, manifest):
    documents = train_documents(prepared, tokens)
    assert len(set(documents)) == len(documents) == manifest["splits"]["train"]["documents"]
    originals = [path.read_bytes() for path in sorted(corpus.iterdir())]
    for shard in shards_of(prepared):
        numbers = [originals.index(document) for document in shard_documents(shard, tokens)]
        assert numbers == sorted(numbers)


def test_shards_differ_in_length_by_no_more_than_the_longest_document(prepared, tokens, manifest):
    lengths = [len(shard) for shard in shards_of(prepared)]
    assert len(lengths) == manifest["splits"]["train"]["shards"] == 32
    assert sum(lengths) == manifest["splits"]["train"]["tokens"]
    longest = max(len(found) for found in tokens.encode(train_documents(prepared, tokens)))
    assert max(lengths) - min(lengths) <= longest + 1


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([900] * 40, 32),
        ([900] * 5, 5),  # no document is cut
        ([40] * 64, 8),  # joined up to 8 rows each
        ([3000, *[4] * 30], 1),  # the rest together are shorter than a shard may be
    ],
)
def test_a_small_corpus_has_fewer_shards_but_no_short_one(libraries, tmp_path, sizes, expected):
    writer = Writer(3)
    texts = {f"train/{i:02d}.txt": writer.text(size) for i, size in enumerate(sizes)}
    texts |= {f"validation/{i}.txt": writer.text(900) for i in range(8)}
    manifest = run(put(tmp_path / "source", texts), tmp_path / "out", vocab_size=300)
    tokens = bpe.load(tmp_path / "out" / "tokenizer")
    shards = shards_of(tmp_path / "out")
    assert len(shards) == manifest["splits"]["train"]["shards"] == expected
    assert min(map(len, shards)) >= 8 * (T + 1)
    names = {path.name for path in (tmp_path / "out" / "train").iterdir()}
    assert names == {"meta.json", *(f"shard-{number:02d}.bin" for number in range(expected))}
    assert sorted(train_documents(tmp_path / "out", tokens)) == sorted(
        text.encode() for name, text in texts.items() if name.startswith("train/")
    )


def test_too_little_text_for_one_shard_is_refused(libraries, tmp_path, capsys):
    writer = Writer(4)
    texts = {"train/a.txt": writer.text(60), **{f"validation/{i}.txt": writer.text(900) for i in range(8)}}
    assert run_program(put(tmp_path / "source", texts), tmp_path / "out", vocab=257) == 2
    require_one_error(capsys, r"not enough text for the training split: \d+ tokens, 520 needed")
    assert list((tmp_path / "out").iterdir()) == []


def test_shingles_of_sealed_documents_are_sorted_once_and_complete(prepared, corpus, tokens):
    sealed = {path.read_bytes() for path in corpus.iterdir()} - set(train_documents(prepared, tokens))
    found = {name: np.load(prepared / "shingles" / f"{name}.npy", allow_pickle=False) for name in ("val", "test")}
    for name, hashes in found.items():
        assert hashes.dtype == np.dtype("<u8")
        assert (hashes[1:] > hashes[:-1]).all()
        rows = np.load(prepared / name / "rows.npy")
        for row in rows:  # what is between two beginnings of text is text of a row
            for piece in np.split(row, np.flatnonzero(row == tokens.bos_token)):
                inside = shingles.shingle([tokens.decode(piece[piece != tokens.bos_token])]).hashes[1:-1]
                assert np.isin(inside, hashes).all()
    assert hashes_of(list(sealed)) == set(found["val"].tolist()) | set(found["test"].tolist())


def test_the_index_has_every_document_of_every_split_and_nothing_else(prepared, corpus):
    index = CorpusIndex.open(prepared / "shingles" / "corpus.npy")
    for path in sorted(corpus.iterdir()):
        letters = find_letters(path.read_bytes()).values
        (stretch,) = index.stretches(letters)
        assert stretch.begin + len(letters) - stretch.end < 120
    assert index.stretches(find_letters(Writer(99).text(20_000).encode()).values) == []


def test_text_that_training_has_too_is_no_sealed_shingle(libraries, pinned, tmp_path):
    source, texts, writer = pinned
    quote = texts["validation/04.txt"].split()[100:200]
    put(source, {"train/quotes.txt": " ".join([*writer.words(500), *quote, *writer.words(500)])})
    run(source, tmp_path / "out")
    found = {
        int(one) for name in ("val", "test") for one in np.load(tmp_path / "out" / "shingles" / f"{name}.npy")
    }
    quoted, whole = hashes_of([" ".join(quote).encode()]), hashes_of([texts["validation/04.txt"].encode()])
    assert len(quoted) > 50
    assert found & whole == whole - quoted


def test_meta_files_say_what_the_workload_needs(prepared, manifest):
    train = json.loads((prepared / "train" / "meta.json").read_text())
    assert train == {"vocab_size": V, "context_length": T, "bos_token": V - 1}
    val = json.loads((prepared / "val" / "meta.json").read_text())
    rows = np.load(prepared / "val" / "rows.npy", allow_pickle=False)
    assert rows.dtype == np.dtype("<u2")
    assert rows.shape == (manifest["splits"]["validation"]["rows"], T + 1)
    assert (val["num_rows"], val["num_tokens"]) == (len(rows), rows.size)


def test_every_document_is_in_one_split(manifest):
    counts = [split["documents"] for split in manifest["splits"].values()]
    assert sum(counts) + sum(manifest["documents_left_out"].values()) == manifest["source"]["documents"] == 100


def test_rows_are_slices_of_one_stream_and_never_overlap(prepared, corpus, tokens, manifest):
    split_words: dict[bytes, int] = {}
    for name in ("val", "test"):
        for row in np.load(prepared / name / "rows.npy"):
            text = tokens.decode(row[row != tokens.bos_token])
            split_words[text] = split_words.get(text, 0) + 1
    assert set(split_words.values()) == {1}


def test_rows_stand_at_an_even_stride_over_the_whole_split(tokens, tmp_path):
    documents = [Writer(seed).text(1000).encode() for seed in range(20, 24)]
    nothing = shingles.ShingleSet([])

    def rows(limit: int) -> list[list[int]]:
        request = options(tmp_path, tmp_path, max_eval_rows=limit)
        return choose_rows("test", documents, tokens, request, nothing, nothing).rows.tolist()

    whole, some = rows(10_000), rows(10)
    assert len(whole) > 100
    assert [whole.index(row) for row in some] == [number * len(whole) // 10 for number in range(10)]


def test_bytes_of_tokens_add_up_to_the_raw_text(prepared, tokens, corpus, manifest):
    table = np.load(prepared / "tokenizer" / "token_bytes.npy", allow_pickle=False)
    assert table.dtype == np.dtype("<u2")
    assert table.shape == (V,)
    assert table[V - 1] == 0
    stream = np.concatenate(shards_of(prepared))
    documents = train_documents(prepared, tokens)
    assert table[stream].sum(dtype=np.int64) == sum(map(len, documents)) == manifest["splits"]["train"]["bytes"]
    for name, split in (("val", "validation"), ("test", "test")):
        targets = np.load(prepared / name / "rows.npy")[:, 1:]
        assert table[targets].sum(dtype=np.int64) == manifest["splits"][split]["target_bytes"]


def test_tokens_that_are_parts_of_characters_count_their_raw_bytes(prepared, tokens):
    table = np.load(prepared / "tokenizer" / "token_bytes.npy")
    raw = [tokens.decode(np.array([token], np.uint16)) for token in range(V - 1)]
    assert table[:-1].tolist() == [len(piece) for piece in raw]
    decoded = [len(piece.decode("utf-8", "replace").encode()) for piece in raw]
    assert sum(a != b for a, b in zip(table.tolist(), decoded, strict=False)) > 100  # the wrong way differs


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_table_that_does_not_add_up_to_the_raw_text_is_refused(libraries, tokens, monkeypatch, split):
    documents = ["漢字仮名 über 🙂🙃 ".encode() * 50]
    honest = _cut_rows(split, documents, tokens, T + 1)[1]
    assert honest > 0
    monkeypatch.setattr(bpe.Tokenizer, "token_bytes", decoded_lengths)
    with pytest.raises(PrepareError, match=rf"the tokens of {split} stand for [\d,]+ bytes, .*this is a bug"):
        _cut_rows(split, documents, tokens, T + 1)


def test_a_whole_preparation_with_a_wrong_table_fails(libraries, corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bpe.Tokenizer, "token_bytes", decoded_lengths)
    assert run_program(corpus, tmp_path) == 2
    require_one_error(capsys, r"the tokens of train stand for .* this is a bug")
    assert list(tmp_path.iterdir()) == []


def test_the_same_source_gives_the_same_bytes(libraries, corpus, prepared, tmp_path):
    run(corpus, tmp_path)
    assert tree(tmp_path) == tree(prepared)


def test_a_tokenizer_reads_back_from_its_text_files(prepared, tokens):
    text = "Über 漢字 🙂 and <|endoftext|> plain".encode()
    (found,) = tokens.encode([text])
    assert tokens.decode(found) == text
    assert tokens.bos_token not in found.tolist()
    assert (prepared / "tokenizer" / "pattern.txt").read_text() == bpe.PATTERN


@pytest.mark.parametrize("vocab", [256, 65536])
def test_an_impossible_vocabulary_is_refused(corpus, tmp_path, capsys, vocab):
    assert run_program(corpus, tmp_path / "out", vocab=vocab) == 2
    require_one_error(capsys, "between 257 and 65,535")


def test_a_failed_run_leaves_the_earlier_data_set_alone(libraries, corpus, prepared, tmp_path, capsys):
    run(corpus, tmp_path / "out")
    assert run_program(put(tmp_path / "bad", {"a.txt": "short"}), tmp_path / "out") == 2
    assert tree(tmp_path / "out") == tree(prepared)


def test_a_run_replaces_the_rest_of_an_interrupted_one(libraries, corpus, prepared, tmp_path):
    put(tmp_path, {".partial/train/shard-00.bin": "half", "train/shard-99.bin": "old", "val/stray.txt": "old"})
    run(corpus, tmp_path)
    assert tree(tmp_path) == tree(prepared)


def test_it_runs_as_a_script_in_isolated_mode(libraries, corpus, prepared, tmp_path):
    command = [sys.executable, "-I", program.__file__, "--source", str(corpus), "--output", str(tmp_path)]
    command += ["--vocab-size", str(V), "--context-length", str(T), "--max-eval-rows", str(ROWS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("proven: ")
    assert tree(tmp_path) == tree(prepared)
