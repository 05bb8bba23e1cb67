"""Prepared data sets: their names, the arguments that make them, the check before use, the files of a run."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.config import Config
from runner.corpus.source import Source
from runner.errors import DataError

MANIFEST_FILE = "manifest.json"
FORMAT = 3
_REMEDY = "autoresearch prepare --force"
_REQUIRED = (
    "train/meta.json",
    "val/rows.npy",
    "val/meta.json",
    "test/rows.npy",
    "test/meta.json",
    "shingles/val.npy",
    "shingles/test.npy",
    "shingles/corpus.npy",
    "tokenizer/ranks.txt",
    "tokenizer/pattern.txt",
    "tokenizer/token_bytes.npy",
)
_LEFT_OUT_DIVISOR = 16
"""One in this many training shards is left out of a run."""
_TRAIN_TEXT_TOKENS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A prepared data set. Every file has been checked against the hash in its manifest."""

    path: Path
    manifest_sha256: str
    vocab_size: int
    context_length: int
    num_shards: int  # of the training split
    num_val_rows: int
    num_test_rows: int
    val_bytes: int  # raw text of the validation targets
    test_bytes: int

    @property
    def val(self) -> Path:
        """Folder to mount at `/rows` in scoring."""
        return self.path / "val"

    @property
    def test(self) -> Path:
        """Folder of the sealed test split, in the same form."""
        return self.path / "test"

    def issue(self, seed: int) -> dict[str, Path]:
        """Choose the files of `/data` for one run, by their names there.

        The seed determines which shards a run sees and in which order, so that neither can be picked. Shards are
        ranked by the SHA-256 of seed and number; the last sixteenth is left out (2 of 32, none of fewer than 16),
        and the others are named `shard-00.bin`, `shard-01.bin`, … by rank.
        """
        ranked = sorted(
            range(self.num_shards), key=lambda number: hashlib.sha256(f"shard {seed} {number}".encode()).digest()
        )
        issued = ranked[: self.num_shards - self.num_shards // _LEFT_OUT_DIVISOR]
        shards = {_shard_name(place): self.path / "train" / _shard_name(n) for place, n in enumerate(issued)}
        return {"meta.json": self.path / "train" / "meta.json", **shards}

    def train_text(self) -> npt.NDArray[np.uint16]:
        """Draw `(L,)` training tokens for audits: an equally long stretch of every shard, about 4 M together.

        A shorter shard is used in full. The beginning of each stretch is drawn anew at each call: no candidate can
        know which part of the training text an audit uses.
        """
        stretches: list[npt.NDArray[np.uint16]] = []
        for number in range(self.num_shards):
            shard = np.memmap(self.path / "train" / _shard_name(number), "<u2", mode="r")
            size = min(len(shard), _TRAIN_TEXT_TOKENS // self.num_shards)
            begin = secrets.randbelow(len(shard) - size + 1)
            stretches.append(shard[begin : begin + size])
        return np.concatenate(stretches)

    def val_rows(self) -> npt.NDArray[np.uint16]:
        """`(N, T + 1)` validation rows, memory-mapped."""
        return _rows(self.val)

    def test_rows(self) -> npt.NDArray[np.uint16]:
        """`(N, T + 1)` sealed rows, memory-mapped."""
        return _rows(self.test)

    def sealed_shingles(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """Sorted hashes of the 13-word shingles of all validation and all test documents, memory-mapped.

        Hashed by `locked_eval.preparation.shingles.shingle`, without those that occur in the training text too.
        Never mounted into a container.
        """
        val, test = (
            np.load(self.path / "shingles" / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("val", "test")
        )
        return val, test

    @property
    def corpus_index(self) -> Path:
        """File of the `preparation.index.CorpusIndex` of all documents. Never mounted into a container."""
        return self.path / "shingles" / "corpus.npy"

    def token_table(self) -> list[bytes]:
        """Raw bytes of each of the V tokens; empty for the beginning-of-text token, the last one."""
        lines = (self.path / "tokenizer" / "ranks.txt").read_text("ascii").splitlines()
        ranks = {int(rank): base64.b64decode(token) for token, rank in (line.split(" ") for line in lines)}
        return [*(ranks[rank] for rank in range(len(ranks))), b""]

    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """`(V,)` raw byte length of every token; 0 for the beginning-of-text token."""
        table: npt.NDArray[np.uint16] = np.load(self.path / "tokenizer" / "token_bytes.npy", allow_pickle=False)
        return table


def _shard_name(number: int) -> str:
    return f"shard-{number:02d}.bin"


def _rows(folder: Path) -> npt.NDArray[np.uint16]:
    rows: npt.NDArray[np.uint16] = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
    return rows


def prepare_arguments(config: Config, source: str = ".") -> list[str]:
    """Arguments of `prepare.py` in its container, where the output is mounted at `/output`.

    Args:
        source: place of the documents in the folder that is mounted at `/source`.
    """
    return [
        *("--source", str(PurePosixPath("/source", source))),
        *("--output", "/output"),
        *("--vocab-size", str(config.vocab_size)),
        *("--context-length", str(config.context_length)),
        *("--max-eval-rows", str(config.max_eval_rows)),
    ]


def data_key(config: Config, source: Source, code_sha256: str) -> str:
    """Name of the folder for the data set that the preparing code with hash `code_sha256` makes of `source`."""
    inputs = [FORMAT, source.key, code_sha256, *prepare_arguments(config)]
    return f"{source.name}-{hashlib.sha256(json.dumps(inputs).encode('utf-8')).hexdigest()[:16]}"


def open_data(path: Path) -> DataSet:
    """Check a prepared data set against its manifest, byte by byte.

    Raises:
        DataError: there is no manifest, or a file is missing or has another size or hash. The message names it.
    """
    manifest_path = path / MANIFEST_FILE
    try:
        raw = manifest_path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is not a prepared data set: cannot read {MANIFEST_FILE}", _REMEDY) from error
    try:
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise DataError(f"{manifest_path} has format {manifest['format']}, not {FORMAT}", _REMEDY)
        shards = [f"train/{_shard_name(number)}" for number in range(manifest["splits"]["train"]["shards"])]
        for name in sorted({*_REQUIRED, *shards, *manifest["files"]}):
            _check_file(path, name, manifest["files"][name])
        return _describe(path, hashlib.sha256(raw).hexdigest(), manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest_path} is damaged: {error!r}", _REMEDY) from error


def _describe(path: Path, digest: str, manifest: dict[str, Any]) -> DataSet:
    parameters, splits = manifest["parameters"], manifest["splits"]
    dataset = DataSet(
        path=path,
        manifest_sha256=digest,
        vocab_size=parameters["vocab_size"],
        context_length=parameters["context_length"],
        num_shards=splits["train"]["shards"],
        num_val_rows=splits["validation"]["rows"],
        num_test_rows=splits["test"]["rows"],
        val_bytes=splits["validation"]["target_bytes"],
        test_bytes=splits["test"]["target_bytes"],
    )
    shapes = (dataset.val_rows().shape, dataset.test_rows().shape, dataset.token_bytes().shape)
    expected = (
        (dataset.num_val_rows, dataset.context_length + 1),
        (dataset.num_test_rows, dataset.context_length + 1),
        (dataset.vocab_size,),
    )
    if shapes != expected:
        raise ValueError(f"rows and token lengths have shapes {shapes}, not {expected}")
    return dataset


def _check_file(path: Path, name: str, expected: dict[str, Any]) -> None:
    try:
        with (path / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError as error:
        raise DataError(f"{path / name} cannot be read: {error.strerror}", _REMEDY) from error
    if size != expected["size_bytes"]:
        raise DataError(f"{path / name} has {size:,} bytes, not {expected['size_bytes']:,}", _REMEDY)
    if digest != expected["sha256"]:
        raise DataError(f"{path / name} is damaged: its SHA-256 is not the one in {MANIFEST_FILE}", _REMEDY)
