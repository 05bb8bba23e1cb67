"""Prepared data sets on the host: their names, the check before every use, and what a run gets."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from locked_eval.preparation import prepare as program
from locked_eval.preparation import tokenizer as bpe
from locked_eval.preparation.shingles import shingle
from runner import corpus
from runner.config import Config, load
from runner.corpus.dataset import open_data
from runner.corpus.redaction import WITHHELD, Redactor
from runner.errors import DataError


def configuration(tmp_path: Path, **settings: object) -> Config:
    return load(tmp_path, {"vocab_size": 300, "context_length": 32, "max_eval_rows": 40, **settings}, environ={})


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    for name in ("rustbpe", "tiktoken"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for number in range(40):
        words = random.integers(0, 400, 400)
        (folder / f"{number}.txt").write_text(" ".join(f"{word:x}é" for word in words), "utf-8")
    config = configuration(folder, source=str(folder))
    arguments = corpus.prepare_arguments(config)
    output = tmp_path_factory.mktemp("output")
    arguments[arguments.index("/source")] = str(folder)
    arguments[arguments.index("/output")] = str(output)
    assert program.main(arguments) == 0
    return output


@pytest.fixture
def dataset(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data")


def test_an_intact_data_set_opens(dataset):
    found = open_data(dataset)
    manifest = (dataset / "manifest.json").read_bytes()
    assert found.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    assert (found.vocab_size, found.context_length) == (300, 32)
    assert found.val_rows().shape == (found.num_val_rows, 33)
    assert found.test_rows().shape == (found.num_test_rows, 33)
    assert found.val_rows().dtype == found.token_bytes().dtype == np.uint16
    assert int(found.token_bytes()[found.val_rows()[:, 1:]].sum(dtype=np.int64)) == found.val_bytes
    assert int(found.token_bytes()[found.test_rows()[:, 1:]].sum(dtype=np.int64)) == found.test_bytes
    assert isinstance(found.val_rows(), np.memmap)


def test_tokens_have_their_raw_bytes(dataset):
    found = open_data(dataset)
    table = found.token_table()
    assert len(table) == found.vocab_size
    assert table[-1] == b""
    assert [len(token) for token in table] == found.token_bytes().tolist()
    assert {bytes([byte]) for byte in range(256)} <= set(table)
    tokenizer = bpe.load(dataset / "tokenizer")
    row = found.val_rows()[0]
    assert b"".join(table[token] for token in row) == tokenizer.decode(row[row != found.vocab_size - 1])


def test_sealed_shingles_find_text_of_validation_and_of_test(dataset):
    found = open_data(dataset)
    table = found.token_table()
    for rows, hashes, others in zip(
        (found.val_rows(), found.test_rows()), found.sealed_shingles(), found.sealed_shingles()[::-1], strict=True
    ):
        row = next(row for row in rows if found.vocab_size - 1 not in row)
        inside = shingle([b"".join(table[token] for token in row)]).hashes[1:-1]  # its edges may cut words
        assert hashes.dtype == np.uint64
        assert len(inside) == 0 or np.isin(inside, hashes).all()
        assert not np.isin(hashes, others).any()


def test_a_log_that_repeats_any_split_is_redacted(dataset):
    found = open_data(dataset)
    table = found.token_table()
    redactor = Redactor.open(found.corpus_index, table)
    train = np.fromfile(dataset / "train" / "shard-03.bin", "<u2")[1:300]
    for tokens in (train, found.val_rows()[:9].ravel(), found.test_rows()[:9].ravel()):
        text = b"".join(table[token] for token in tokens).decode("utf-8", "replace")
        assert redactor.redact(text) == redactor.redact(str(tokens.tolist())) == WITHHELD
    assert redactor.redact("step 1 loss 2.5 tokens/s 3000") == "step 1 loss 2.5 tokens/s 3000"


# ---- what a run gets ----------------------------------------------------------------------------


def left_out(dataset, seed):
    """Numbers of the shards that a run with this seed does not see."""
    issued = {path.name for name, path in dataset.issue(seed).items() if name != "meta.json"}
    return {number for number in range(32) if f"shard-{number:02d}.bin" not in issued}


def test_a_run_gets_meta_and_30_of_32_shards_named_in_order(dataset):
    found = open_data(dataset)
    assert found.num_shards == 32
    files = found.issue(1)
    assert list(files) == ["meta.json", *(f"shard-{place:02d}.bin" for place in range(30))]
    assert all(path.is_file() and path.parent == dataset / "train" for path in files.values())
    assert len(set(files.values())) == 31
    assert files["meta.json"] == dataset / "train" / "meta.json"


def test_the_same_seed_is_issued_the_same_files(dataset):
    assert open_data(dataset).issue(7) == open_data(dataset).issue(7)
    # Fixed: a run must be repeatable with a later version of this code.
    first = [open_data(dataset).issue(0)[f"shard-{place:02d}.bin"].name for place in range(3)]
    assert first == ["shard-17.bin", "shard-30.bin", "shard-25.bin"]


def test_other_seeds_are_issued_other_orders_and_leave_out_other_shards(dataset):
    found = open_data(dataset)
    orders = {tuple(found.issue(seed).values()) for seed in range(200)}
    assert len(orders) == 200
    counts = Counter(number for seed in range(200) for number in left_out(found, seed))
    assert sum(counts.values()) == 200 * 2
    assert len(counts) == 32
    assert max(counts.values()) < 30  # 12.5 expected


def test_every_shard_stands_sometimes_first(dataset):
    found = open_data(dataset)
    assert len({found.issue(seed)["shard-00.bin"] for seed in range(400)}) == 32


@pytest.mark.parametrize(("num_shards", "issued"), [(1, 1), (15, 15), (16, 15), (31, 30)])
def test_few_shards_are_issued_nearly_all(dataset, num_shards, issued):
    found = replace(open_data(dataset), num_shards=num_shards)
    assert len(found.issue(3)) == issued + 1
    assert found.issue(3).keys() == found.issue(4).keys()


def test_training_text_for_audits_comes_from_every_shard(dataset, monkeypatch):
    found = open_data(dataset)
    shards = [np.fromfile(path, "<u2") for path in sorted((dataset / "train").glob("shard-*.bin"))]
    assert found.train_text().tolist() == np.concatenate(shards).tolist()  # small: all of it
    monkeypatch.setattr("runner.corpus.dataset._TRAIN_TEXT_TOKENS", 32 * 100)
    text = found.train_text()
    assert text.shape == (32 * 100,)
    assert text.dtype == np.uint16
    for stretch, shard in zip(np.split(text, 32), shards, strict=True):
        assert stretch.astype("<u2").tobytes() in shard.tobytes()
    assert found.train_text().tolist() != text.tolist()  # drawn anew


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("train/shard-00.bin", "train/shard-31.bin", "val/rows.npy", "test/rows.npy", "val/meta.json"),
        *("shingles/val.npy", "shingles/test.npy", "shingles/corpus.npy", "tokenizer/token_bytes.npy"),
        "tokenizer/ranks.txt",
    ],
)
def test_a_changed_byte_is_found_and_its_file_named(dataset, name):
    content = bytearray((dataset / name).read_bytes())
    content[len(content) // 2] ^= 1
    (dataset / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged") as caught:
        open_data(dataset)
    assert "autoresearch prepare --force" in str(caught.value)


def test_a_short_or_missing_file_is_named(dataset):
    path = dataset / "train" / "shard-05.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"shard-05\.bin has [\d,]+ bytes, not"):
        open_data(dataset)
    path.unlink()
    with pytest.raises(DataError, match=r"shard-05\.bin cannot be read"):
        open_data(dataset)


def _edit(dataset: Path, change: object) -> None:
    path = dataset / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda manifest: manifest.pop("files"), "is damaged"),
        (lambda manifest: manifest["files"].pop("val/rows.npy"), "is damaged"),
        (lambda manifest: manifest["files"].pop("train/shard-09.bin"), "is damaged"),
        (lambda manifest: manifest["splits"]["train"].pop("shards"), "is damaged"),
        (lambda manifest: manifest.update(format=99), "has format 99"),
        (lambda manifest: manifest.update(format=2), "has format 2, not 3"),
        (lambda manifest: manifest["parameters"].update(context_length=16), "have shapes"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(dataset, change, says):
    _edit(dataset, change)
    with pytest.raises(DataError, match=says):
        open_data(dataset)


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match=r"is not a prepared data set: cannot read manifest\.json"):
        open_data(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        open_data(tmp_path)


def test_the_key_follows_source_parameters_and_code(tmp_path):
    source = corpus.Source(name="texts", path=tmp_path, key="a" * 64)
    config = configuration(tmp_path)
    keys = {
        corpus.data_key(config, source, "code"),
        corpus.data_key(config, source, "other code"),
        corpus.data_key(config, replace(source, key="b" * 64), "code"),
        *(
            corpus.data_key(configuration(tmp_path, **{name: 1000}), source, "code")
            for name in ("vocab_size", "context_length", "max_eval_rows")
        ),
    }
    assert len(keys) == 6
    assert corpus.data_key(configuration(tmp_path, train_seconds=1), source, "code") in keys
    assert all(re.fullmatch(r"texts-[0-9a-f]{16}", key) for key in keys)
