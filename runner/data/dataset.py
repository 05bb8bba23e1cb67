"""Prepared data sets: their names, the arguments that make them, and the check before every use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.config import Config
from runner.data.source import Source
from runner.errors import DataError

MANIFEST_FILE = "manifest.json"
FORMAT = 1
_REMEDY = "autoresearch prepare --force"
_REQUIRED = (
    "train/train.bin",
    "train/meta.json",
    "val/rows.npy",
    "val/meta.json",
    "test/rows.npy",
    "test/meta.json",
    "tokenizer/ranks.txt",
    "tokenizer/pattern.txt",
    "tokenizer/token_bytes.npy",
)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A prepared data set whose every file has the hash that its manifest says."""

    path: Path
    manifest_sha256: str
    vocab_size: int
    context_length: int
    num_train_tokens: int
    num_val_rows: int
    num_test_rows: int
    val_bytes: int  # raw text of the validation targets
    test_bytes: int

    @property
    def train(self) -> Path:
        """Folder to mount at `/data`."""
        return self.path / "train"

    @property
    def val(self) -> Path:
        """Folder to mount at `/val`."""
        return self.path / "val"

    @property
    def test(self) -> Path:
        """The sealed test split."""
        return self.path / "test"

    def val_targets(self) -> npt.NDArray[np.uint16]:
        """`(N, T)` next tokens of the validation rows, memory-mapped."""
        return _rows(self.val)[:, 1:]

    def test_targets(self) -> npt.NDArray[np.uint16]:
        """`(N, T)` next tokens of the sealed rows, memory-mapped."""
        return _rows(self.test)[:, 1:]

    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """`(V,)` raw byte length of every token; 0 for the beginning-of-text token."""
        table: npt.NDArray[np.uint16] = np.load(self.path / "tokenizer" / "token_bytes.npy", allow_pickle=False)
        return table


def _rows(folder: Path) -> npt.NDArray[np.uint16]:
    rows: npt.NDArray[np.uint16] = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
    return rows


def prepare_arguments(config: Config) -> list[str]:
    """Arguments of `prepare.py` in its container: the source is mounted at `/source`, the output at `/output`."""
    return [
        *("--source", "/source"),
        *("--output", "/output"),
        *("--vocab-size", str(config.vocab_size)),
        *("--context-length", str(config.context_length)),
        *("--max-eval-rows", str(config.max_eval_rows)),
    ]


def data_key(config: Config, source: Source, code_sha256: str) -> str:
    """Name of the folder for what `code_sha256`, the preparing code, makes of `source`."""
    inputs = [FORMAT, source.key, code_sha256, *prepare_arguments(config)]
    return f"{source.name}-{hashlib.sha256(json.dumps(inputs).encode('utf-8')).hexdigest()[:16]}"


def open_data(path: Path) -> DataSet:
    """Check a prepared data set against its manifest, byte by byte.

    Raises:
        DataError: no manifest, or a file that is missing, of another size or of another hash; names it.
    """
    manifest_path = path / MANIFEST_FILE
    try:
        raw = manifest_path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is no prepared data set: cannot read {MANIFEST_FILE}", _REMEDY) from error
    try:
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise DataError(f"{manifest_path} has format {manifest['format']}, not {FORMAT}", _REMEDY)
        for name in sorted({*_REQUIRED, *manifest["files"]}):
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
        num_train_tokens=splits["train"]["tokens"],
        num_val_rows=splits["validation"]["rows"],
        num_test_rows=splits["test"]["rows"],
        val_bytes=splits["validation"]["target_bytes"],
        test_bytes=splits["test"]["target_bytes"],
    )
    shapes = (dataset.val_targets().shape, dataset.test_targets().shape, dataset.token_bytes().shape)
    expected = (
        (dataset.num_val_rows, dataset.context_length),
        (dataset.num_test_rows, dataset.context_length),
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
