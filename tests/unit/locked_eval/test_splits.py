"""Splits that share no text, and the proof of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from locked_eval.preparation import documents, proof, shards, shingles, splits
from locked_eval.preparation import tokenizer as bpe
from locked_eval.preparation.documents import PrepareError
from tests.support.small_corpora import MULTIBYTE, ROWS, T, decoded_lengths, put, run, train_documents, word_list


def grams(words: list[bytes]) -> set[tuple[bytes, ...]]:
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}


def test_splits_share_no_13_words_by_another_count(prepared, tokens, manifest):
    assert set(manifest["disjoint"]["shared"].values()) == {0}
    train = set().union(*(grams(word_list(document)) for document in train_documents(prepared, tokens)))
    rows = {name: row_grams(prepared / name / "rows.npy", tokens) for name in ("val", "test")}
    assert all(len(found) > 100 for found in rows.values())
    assert not rows["val"] & train
    assert not rows["test"] & train
    assert not rows["test"] & rows["val"]


def row_grams(path: Path, tokens: bpe.Tokenizer) -> set[tuple[bytes, ...]]:
    found: set[tuple[bytes, ...]] = set()
    for row in np.load(path):
        for piece in np.split(row, np.flatnonzero(row == tokens.bos_token)):
            text = tokens.decode(piece[piece != tokens.bos_token]).decode("utf-8", "ignore").encode()
            found |= grams(word_list(text)[1:-1])  # the first and the last may be cut
    return found


def test_folders_pin_validation_and_test_comes_out_of_it(libraries, pinned, tmp_path):
    source, texts, _ = pinned
    manifest = run(source, tmp_path / "out")
    assert manifest["source"]["layout"] == "pinned"
    assert manifest["splits"]["train"]["documents"] == 30
    halves = [manifest["splits"][name]["documents"] for name in ("validation", "test")]
    assert sum(halves) == 16
    assert min(halves) >= 7
    everything = "".join(text for name, text in texts.items() if name.startswith("train/"))
    assert manifest["splits"]["train"]["bytes"] == len(everything.encode())


def test_a_test_folder_is_the_test_split(libraries, pinned, tmp_path):
    source, _, writer = pinned
    put(source, {f"test/{i}.md": writer.text(900) for i in range(3)} | {"README.md": "not in a folder"})
    manifest = run(source, tmp_path / "out")
    assert manifest["splits"]["test"]["documents"] == 3
    assert manifest["splits"]["validation"]["documents"] == 16


def test_an_exact_duplicate_is_kept_once_and_in_the_sealed_split(libraries, pinned, tmp_path):
    source, texts, _ = pinned
    shouted = texts["validation/03.txt"].replace(" ", "\n").replace(".", " !")
    put(source, {"train/copy.txt": shouted, "train/again.txt": texts["train/05.txt"]})
    manifest = run(source, tmp_path / "out")
    assert manifest["documents_left_out"]["exact_duplicates"] == 2
    assert manifest["splits"]["train"]["documents"] == 30
    assert manifest["splits"]["validation"]["documents"] + manifest["splits"]["test"]["documents"] == 16


def test_a_near_duplicate_leaves_training(libraries, pinned, tmp_path):
    source, texts, writer = pinned
    words = texts["validation/04.txt"].split()
    put(source, {"train/edited.txt": " ".join([*words[:500], *writer.words(300)])})
    manifest = run(source, tmp_path / "out")
    assert manifest["documents_left_out"]["near_duplicates"] == 1
    assert manifest["splits"]["train"]["documents"] == 30


def test_a_document_that_shares_less_than_half_stays_and_the_rows_go(libraries, pinned, tmp_path):
    source, texts, writer = pinned
    before = run(source, tmp_path / "before")
    words = texts["validation/04.txt"].split()
    put(source, {"train/quotes.txt": " ".join([*writer.words(500), *words[100:200], *writer.words(500)])})
    manifest = run(source, tmp_path / "out")
    assert manifest["documents_left_out"]["near_duplicates"] == 0
    assert manifest["splits"]["train"]["documents"] == 31
    dropped = [rows_dropped(figures, "train") for figures in (before, manifest)]
    assert dropped[0] == 0
    assert 3 <= dropped[1] <= 12  # 100 words are about 250 tokens


@pytest.mark.parametrize(("count", "drops"), [(13, True), (12, False)])
def test_a_row_goes_for_13_shared_words_and_stays_for_12(libraries, pinned, tmp_path, count, drops):
    source, texts, writer = pinned
    words = [word for word in texts["validation/04.txt"].split() if word not in MULTIBYTE][40 : 40 + count]
    # One word before and behind that no text has, so that chance cannot make the overlap longer.
    leak = " ".join([*writer.words(300), "zzqx", *words, "zzqy", *writer.words(300)])
    plain = texts["validation/04.txt"] + " ".join(["zzqv", *words, "zzqw", *writer.words(40)])
    put(source, {"train/leak.txt": leak, "validation/04.txt": plain})
    manifest = run(source, tmp_path / "out")
    assert (rows_dropped(manifest, "train") > 0) == drops


def test_a_test_row_that_quotes_validation_goes(libraries, pinned, tmp_path):
    source, texts, writer = pinned
    quote = " ".join(texts["validation/02.txt"].split()[50:90])
    put(source, {f"test/{i}.txt": writer.text(900) for i in range(3)} | {"test/q.txt": quote + writer.text(300)})
    manifest = run(source, tmp_path / "out")
    assert manifest["splits"]["test"]["rows_dropped_shared_with_validation"] > 0
    assert manifest["splits"]["validation"]["rows_dropped_shared_with_validation"] == 0


def test_a_row_that_repeats_another_row_of_its_split_goes(libraries, pinned, tmp_path):
    source, _, writer = pinned
    phrase = writer.text(40)
    texts = {f"test/{i}.txt": writer.text(600) + phrase + writer.text(600) for i in range(4)}
    manifest = run(put(source, texts), tmp_path / "out")
    assert manifest["splits"]["test"]["rows_dropped_repeated"] > 0
    assert manifest["splits"]["validation"]["rows_dropped_repeated"] == 0


def test_the_proof_finds_a_leak_in_the_written_files(libraries, corpus, tmp_path):
    """The recount is no echo of the selection: it reads what lies on the disk."""
    run(corpus, tmp_path)
    tokens = bpe.load(tmp_path / "tokenizer")
    leak = np.load(tmp_path / "val" / "rows.npy")
    assert len(shingles.shingle([tokens.decode(leak[3][leak[3] != tokens.bos_token])]).hashes)
    with (tmp_path / "train" / "shard-07.bin").open("ab") as stream:
        stream.write(np.concatenate([[tokens.bos_token], *leak[2:6]]).astype("<u2").tobytes())
    train = shards.TrainText(0, 0, 0, 0, 0)
    with pytest.raises(PrepareError, match="not disjoint"):
        proof.prove(tmp_path, tokens, train, lambda line: None)


def test_the_proof_finds_a_document_that_is_missing(libraries, corpus, tmp_path):
    run(corpus, tmp_path)
    tokens = bpe.load(tmp_path / "tokenizer")
    digest = 0
    for document in train_documents(tmp_path, tokens):
        digest = shards.add_digest(digest, document)
    train = shards.TrainText(0, 0, 0, 32, digest)
    proof.prove(tmp_path, tokens, train, lambda line: None)
    (tmp_path / "train" / "shard-31.bin").unlink()
    with pytest.raises(PrepareError, match="do not decode to the training documents"):
        proof.prove(tmp_path, tokens, train, lambda line: None)


def test_the_proof_counts_bytes_with_the_written_table(libraries, corpus, tmp_path):
    run(corpus, tmp_path)
    tokens = bpe.load(tmp_path / "tokenizer")
    np.save(tmp_path / "tokenizer" / "token_bytes.npy", decoded_lengths(tokens))
    with pytest.raises(PrepareError, match=r"the tokens of shard-\d\d\.bin stand for"):
        proof.prove(tmp_path, tokens, shards.TrainText(0, 0, 0, 0, 0), lambda line: None)


def rows_dropped(manifest: dict, other: str) -> int:
    return sum(manifest["splits"][name][f"rows_dropped_shared_with_{other}"] for name in ("validation", "test"))


def test_a_split_follows_the_words_and_not_the_file(corpus, tmp_path):
    def assigned(folder: Path) -> dict[bytes, int]:
        files = documents.find_files(folder)
        found = documents.scan(files, lambda done, total: None)
        codes = splits.assign(found, T + 1, ROWS)
        return {file.path.read_bytes(): int(code) for file, code in zip(files, codes, strict=True)}

    originals = sorted(corpus.iterdir())
    put(tmp_path, {f"x/{99 - i:02d}.md": path.read_text("utf-8") for i, path in enumerate(originals)})
    assert assigned(tmp_path) == assigned(corpus)
