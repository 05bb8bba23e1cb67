"""Preparation: documents in, disjoint splits with an exact byte account out."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from locked_eval import disjoint, splits
from locked_eval import prepare as program
from locked_eval import tokenizer as bpe
from locked_eval.corpus_index import CorpusIndex, find_letters

V, T, ROWS = 400, 64, 200
MULTIBYTE = ["über", "naïve", "Привет", "漢字仮名", "🙂🙃", "…", "“quoted”"]


@pytest.fixture(scope="session")
def libraries():
    for name in ("rustbpe", "tiktoken", "pyarrow"):
        pytest.importorskip(name)


class Writer:
    """Random prose with a fixed seed: no two texts share 13 words unless they are planted."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        letters = list("etaoinshrdlucmfw")
        self.lexicon = ["".join(self.random.choice(letters, size)) for size in self.random.integers(2, 5, 400)]
        self.lexicon += MULTIBYTE

    def words(self, count: int) -> list[str]:
        return [self.lexicon[i] for i in self.random.integers(0, len(self.lexicon), count)]

    def text(self, count: int) -> str:
        words = self.words(count)
        return " ".join(word + ("." if i % 11 == 10 else "") for i, word in enumerate(words)) + "\n"


def put(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return folder


def options(source: Path, output: Path, **changes: int) -> program.Options:
    values = {"vocab_size": V, "context_length": T, "max_eval_rows": ROWS, **changes}
    return program.Options(source=source, output=output, **values)


def run(source: Path, output: Path, **changes: int) -> dict:
    program.prepare(options(source, output, **changes), lambda line: None)
    return json.loads((output / "manifest.json").read_text())


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def word_list(text: bytes) -> list[bytes]:
    """Words by another road than the program's: a regular expression over characters."""
    own = "[\u3000-\ud7ff\ue000]"
    return [
        w.lower().encode() for w in re.findall(rf"{own}|(?:[a-zA-Z0-9\x80-\U0010ffff](?<!{own}))+", text.decode())
    ]


def grams(words: list[bytes]) -> set[tuple[bytes, ...]]:
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    writer = Writer()
    return put(
        tmp_path_factory.mktemp("corpus"),
        {f"{number:03d}.txt": writer.text(int(writer.random.integers(200, 1500))) for number in range(100)},
    )


@pytest.fixture(scope="module")
def prepared(libraries, corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    run(corpus, output)
    return output


@pytest.fixture(scope="module")
def tokens(prepared):
    return bpe.load(prepared / "tokenizer")


@pytest.fixture(scope="module")
def manifest(prepared):
    return json.loads((prepared / "manifest.json").read_text())


def shards_of(prepared: Path) -> list[np.ndarray]:
    return [np.fromfile(path, "<u2") for path in sorted((prepared / "train").glob("shard-*.bin"))]


def shard_documents(shard: np.ndarray, tokens: bpe.Tokenizer) -> list[bytes]:
    begins = np.flatnonzero(shard == tokens.bos_token)
    assert begins[0] == 0
    return [tokens.decode(piece[1:]) for piece in np.split(shard, begins[1:])]


def train_documents(prepared: Path, tokens: bpe.Tokenizer) -> list[bytes]:
    return [document for shard in shards_of(prepared) for document in shard_documents(shard, tokens)]


# ---- what is written ----------------------------------------------------------------------------


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
    assert _main(put(tmp_path / "source", texts), tmp_path / "out", vocab=257) == 2
    _require_one_error(capsys, r"not enough text for the training split: \d+ tokens, 520 needed")
    assert list((tmp_path / "out").iterdir()) == []


def _hashes(texts: list[bytes]) -> set[int]:
    return set(disjoint.shingle(texts).hashes.tolist())


def test_shingles_of_sealed_documents_are_sorted_once_and_complete(prepared, corpus, tokens):
    sealed = {path.read_bytes() for path in corpus.iterdir()} - set(train_documents(prepared, tokens))
    found = {name: np.load(prepared / "shingles" / f"{name}.npy", allow_pickle=False) for name in ("val", "test")}
    for name, hashes in found.items():
        assert hashes.dtype == np.dtype("<u8")
        assert (hashes[1:] > hashes[:-1]).all()
        rows = np.load(prepared / name / "rows.npy")
        for row in rows:  # what is between two beginnings of text is text of a row
            for piece in np.split(row, np.flatnonzero(row == tokens.bos_token)):
                inside = disjoint.shingle([tokens.decode(piece[piece != tokens.bos_token])]).hashes[1:-1]
                assert np.isin(inside, hashes).all()
    assert _hashes(list(sealed)) == set(found["val"].tolist()) | set(found["test"].tolist())


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
    quoted, whole = _hashes([" ".join(quote).encode()]), _hashes([texts["validation/04.txt"].encode()])
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
    nothing = disjoint.ShingleSet([])

    def rows(limit: int) -> list[list[int]]:
        request = options(tmp_path, tmp_path, max_eval_rows=limit)
        return program._choose_rows("test", documents, tokens, request, nothing, nothing).rows.tolist()

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


def _decoded_lengths(tokenizer: bpe.Tokenizer) -> np.ndarray:
    """The wrong table: a part of a character counts as the three bytes of a replacement mark."""
    pieces = [tokenizer.decode(np.array([token], np.uint16)) for token in range(tokenizer.bos_token)]
    return np.array([*(len(piece.decode("utf-8", "replace").encode()) for piece in pieces), 0], np.uint16)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_table_that_does_not_add_up_to_the_raw_text_is_refused(libraries, tokens, monkeypatch, split):
    documents = ["漢字仮名 über 🙂🙃 ".encode() * 50]
    honest = program._cut_rows(split, documents, tokens, T + 1)[1]
    assert honest > 0
    monkeypatch.setattr(bpe.Tokenizer, "token_bytes", _decoded_lengths)
    with pytest.raises(
        splits.PrepareError, match=rf"the tokens of {split} stand for [\d,]+ bytes, .*this is a bug"
    ):
        program._cut_rows(split, documents, tokens, T + 1)


def test_a_whole_preparation_with_a_wrong_table_fails(libraries, corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bpe.Tokenizer, "token_bytes", _decoded_lengths)
    assert _main(corpus, tmp_path) == 2
    _require_one_error(capsys, r"the tokens of train stand for .* this is a bug")
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


# ---- disjoint -----------------------------------------------------------------------------------


def test_splits_share_no_13_words_by_another_count(prepared, tokens, manifest):
    assert set(manifest["disjoint"]["shared"].values()) == {0}
    train = set().union(*(grams(word_list(document)) for document in train_documents(prepared, tokens)))
    rows = {name: _row_grams(prepared / name / "rows.npy", tokens) for name in ("val", "test")}
    assert all(len(found) > 100 for found in rows.values())
    assert not rows["val"] & train
    assert not rows["test"] & train
    assert not rows["test"] & rows["val"]


def _row_grams(path: Path, tokens: bpe.Tokenizer) -> set[tuple[bytes, ...]]:
    found: set[tuple[bytes, ...]] = set()
    for row in np.load(path):
        for piece in np.split(row, np.flatnonzero(row == tokens.bos_token)):
            text = tokens.decode(piece[piece != tokens.bos_token]).decode("utf-8", "ignore").encode()
            found |= grams(word_list(text)[1:-1])  # the first and the last may be cut
    return found


@pytest.fixture
def pinned(tmp_path):
    """A source whose folders say what is validation, and a function that plants documents in it."""
    writer = Writer(1)
    texts = {f"train/{i:02d}.txt": writer.text(900) for i in range(30)}
    texts |= {f"validation/{i:02d}.txt": writer.text(900) for i in range(16)}
    return put(tmp_path / "source", texts), texts, writer


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
    dropped = [_dropped(figures, "train") for figures in (before, manifest)]
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
    assert (_dropped(manifest, "train") > 0) == drops


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
    assert len(disjoint.shingle([tokens.decode(leak[3][leak[3] != tokens.bos_token])]).hashes)
    with (tmp_path / "train" / "shard-07.bin").open("ab") as stream:
        stream.write(np.concatenate([[tokens.bos_token], *leak[2:6]]).astype("<u2").tobytes())
    train = program.TrainText(0, 0, 0, 0, 0)
    with pytest.raises(splits.PrepareError, match="not disjoint"):
        program._prove(tmp_path, tokens, train, lambda line: None)


def test_the_proof_finds_a_document_that_is_missing(libraries, corpus, tmp_path):
    run(corpus, tmp_path)
    tokens = bpe.load(tmp_path / "tokenizer")
    digest = 0
    for document in train_documents(tmp_path, tokens):
        digest = program._add_digest(digest, document)
    train = program.TrainText(0, 0, 0, 32, digest)
    program._prove(tmp_path, tokens, train, lambda line: None)
    (tmp_path / "train" / "shard-31.bin").unlink()
    with pytest.raises(splits.PrepareError, match="do not decode to the training documents"):
        program._prove(tmp_path, tokens, train, lambda line: None)


def test_the_proof_counts_bytes_with_the_written_table(libraries, corpus, tmp_path):
    run(corpus, tmp_path)
    tokens = bpe.load(tmp_path / "tokenizer")
    np.save(tmp_path / "tokenizer" / "token_bytes.npy", _decoded_lengths(tokens))
    with pytest.raises(splits.PrepareError, match=r"the tokens of shard-\d\d\.bin stand for"):
        program._prove(tmp_path, tokens, program.TrainText(0, 0, 0, 0, 0), lambda line: None)


def _dropped(manifest: dict, other: str) -> int:
    return sum(manifest["splits"][name][f"rows_dropped_shared_with_{other}"] for name in ("validation", "test"))


# ---- sources ------------------------------------------------------------------------------------


def test_a_split_follows_the_words_and_not_the_file(corpus, tmp_path):
    def assigned(folder: Path) -> dict[bytes, int]:
        files = splits.find_files(folder)
        found = splits.scan(files, lambda done, total: None)
        codes = splits.assign(found, T + 1, ROWS)
        return {file.path.read_bytes(): int(code) for file, code in zip(files, codes, strict=True)}

    originals = sorted(corpus.iterdir())
    put(tmp_path, {f"x/{99 - i:02d}.md": path.read_text("utf-8") for i, path in enumerate(originals)})
    assert assigned(tmp_path) == assigned(corpus)


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


def _symlink(source: Path) -> None:
    (source / "link.txt").symlink_to(source / "000.txt")


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
    ],
    ids=["encoding", "symlink", "damaged", "column", "type"],
)
def test_a_bad_file_is_named(libraries, corpus, tmp_path, capsys, spoil, says):
    source = put(tmp_path / "source", {"000.txt": (corpus / "000.txt").read_text("utf-8")})
    spoil(source)
    assert _main(source, tmp_path / "out") == 2
    _require_one_error(capsys, says)


def _main(source: Path, output: Path, vocab: int = V, context: int = T, rows: int = ROWS) -> int:
    arguments = ["--source", source, "--output", output, "--vocab-size", vocab]
    arguments += ["--context-length", context, "--max-eval-rows", rows]
    return program.main([str(argument) for argument in arguments])


def _require_one_error(capsys, pattern: str) -> None:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match(rf"error: .*{pattern}", lines[0]), lines[0]


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
    assert _main(source, tmp_path / "out", vocab=4000) == 2
    _require_one_error(capsys, says)
    assert list((tmp_path / "out").iterdir()) == []


def test_too_few_rows_say_how_many_were_dropped(libraries, pinned, tmp_path, capsys):
    source, _, writer = pinned
    put(source, {"test/a.txt": writer.text(60)})
    assert _main(source, tmp_path / "out") == 2
    _require_one_error(capsys, r"not enough text for the test split: \d rows of 65 tokens, 8 needed")


@pytest.mark.parametrize("vocab", [256, 65536])
def test_an_impossible_vocabulary_is_refused(corpus, tmp_path, capsys, vocab):
    assert _main(corpus, tmp_path / "out", vocab=vocab) == 2
    _require_one_error(capsys, "between 257 and 65,535")


def test_a_failed_run_leaves_the_earlier_data_set_alone(libraries, corpus, prepared, tmp_path, capsys):
    run(corpus, tmp_path / "out")
    assert _main(put(tmp_path / "bad", {"a.txt": "short"}), tmp_path / "out") == 2
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


# ---- parts --------------------------------------------------------------------------------------

words = st.sampled_from(["a", "B", "the", "é", "Ω1", "漢字", "한글 x", "x-y", "’", "\0", "..."])
texts = st.lists(st.lists(words, max_size=40).map(" ".join), max_size=6)


@given(texts)
@example(["", "a " * 13, "a " * 12, "字" * 14])
@settings(deadline=None, max_examples=150)
def test_equal_shingles_have_equal_hashes_and_different_ones_do_not(documents):
    found = disjoint.shingle([document.encode() for document in documents])
    expected = []
    for number, document in enumerate(documents):
        listed = word_list(document.encode())
        expected += [(number, tuple(listed[i : i + 13])) for i in range(len(listed) - 12)]
    assert found.document.tolist() == [number for number, _ in expected]
    by_hash = dict(zip(found.hashes.tolist(), (gram for _, gram in expected), strict=True))
    assert len(by_hash) == len({gram for _, gram in expected})
    for start, end, (number, gram) in zip(found.start, found.end, expected, strict=True):
        assert word_list(documents[number].encode()[start:end]) == list(gram)


def test_shingles_do_not_depend_on_where_blocks_end(monkeypatch):
    documents = [Writer(seed).text(300).encode() for seed in range(5)]
    whole = disjoint.shingle(documents)
    monkeypatch.setattr(disjoint, "_BLOCK_BYTES", 64)
    for a, b in zip(whole, disjoint.shingle(documents), strict=True):
        assert a.tolist() == b.tolist()


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_a_shingle_set_contains_what_was_put_in(inside, others):
    held = disjoint.ShingleSet([np.array(inside, np.uint64)])
    asked = np.array([*inside, *others], np.uint64)
    assert held.contains(asked).tolist() == [value in set(inside) for value in asked.tolist()]
    index, place = held.find(asked)
    assert held.sorted[place].tolist() == asked[index].tolist()


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 80), st.integers(1, 30)), max_size=8),
)
def test_touched_rows_are_those_that_overlap_a_span(sizes, spans):
    edges = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.array([start for start, _ in spans], np.int64)
    ends = starts + np.array([size for _, size in spans], np.int64)
    found = disjoint.rows_touched(starts, ends, edges)
    for row, size in enumerate(sizes):
        overlaps = bool(((starts < edges[row + 1]) & (ends > edges[row])).any())
        assert found[row] == overlaps or size == 0


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_survives_the_tokenizer(libraries, tokens, text):
    (found,) = tokens.encode([text.encode("utf-8")])
    assert tokens.decode(found).decode("utf-8") == text
    assert tokens.token_bytes()[found].sum(dtype=np.int64) == len(text.encode("utf-8"))


def test_a_long_run_of_white_space_does_not_stop_the_tokenizer(libraries, tokens):
    for text in (b" " * 300_000, b"\n" * 300_000, b"a" * 300_000, b" \t" * 100_000 + b"x"):
        (found,) = tokens.encode([text])
        assert tokens.decode(found) == text


def test_an_oversized_document_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "MAX_DOCUMENT_BYTES", 1000)
    source = put(tmp_path, {"big.txt": "a" * 1001})
    with pytest.raises(splits.PrepareError, match=r"big\.txt is a document of more than"):
        splits.scan(splits.find_files(source), lambda done, total: None)
