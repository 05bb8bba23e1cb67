"""Files of a data set beside its tokens: meta data, secret shingles, manifest; and its move into place."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.documents import Codes, Corpus, Split
from locked_eval.preparation.options import Options
from locked_eval.preparation.rows import EvalText
from locked_eval.preparation.shards import TrainText
from locked_eval.preparation.shingles import SHINGLE_WORDS, ShingleSet
from locked_eval.preparation.tokenizer import SAMPLE_BYTES, Tokenizer

FORMAT = 3
MANIFEST_FILE = "manifest.json"
FOLDERS = {Split.TRAIN: "train", Split.VALIDATION: "val", Split.TEST: "test"}

Figures = dict[str, dict[str, int]]


def write_meta(folder: Path, options: Options, tokenizer: Tokenizer, **more: int) -> None:
    """Write the `meta.json` of one split."""
    _write_json(
        folder / "meta.json",
        {
            "vocab_size": tokenizer.vocab_size,
            "context_length": options.context_length,
            "bos_token": tokenizer.bos_token,
            **more,
        },
    )


def write_shingles(path: Path, shingles: ShingleSet, in_train: ShingleSet) -> None:
    """Write the shingles that only a sealed split has.

    Shingles that training has too are no secret: mostly boilerplate, which a program may hold for honest
    reasons. No row has them either.
    """
    secret = shingles.sorted[~in_train.contains(shingles.sorted)]
    np.save(path, secret.astype("<u8"), allow_pickle=False)


def train_figures(text: TrainText) -> dict[str, int]:
    """Counts of training for the manifest."""
    return {
        "documents": text.num_documents,
        "bytes": text.num_bytes,
        "tokens": text.num_tokens,
        "shards": text.num_shards,
    }


def eval_figures(text: EvalText, lengths: npt.NDArray[np.uint16]) -> dict[str, int]:
    """Counts of validation or test for the manifest."""
    return {
        "documents": text.num_documents,
        "bytes": text.num_bytes,
        "tokens": text.num_tokens,
        "rows": len(text.rows),
        "target_bytes": int(lengths[text.rows[:, 1:]].sum(dtype=np.int64)),
        "rows_cut": text.num_rows_cut,
        "rows_dropped_shared_with_train": text.num_rows_in_train,
        "rows_dropped_shared_with_validation": text.num_rows_in_validation,
        "rows_dropped_repeated": text.num_rows_repeated,
    }


def write_manifest(
    folder: Path,
    options: Options,
    corpus: Corpus,
    codes: Codes,
    splits: Figures,
    shared: dict[str, int],
) -> None:
    """Write the manifest of a data set whose other files are complete."""
    counts = np.bincount(codes, minlength=len(Split))
    value = {
        "format": FORMAT,
        "source": {
            "layout": "pinned" if corpus.is_pinned else "free",
            "files": len(corpus.files),
            "documents": len(codes),
            "bytes": int(corpus.sizes.sum()),
            "sha256": corpus.sha256,
        },
        "parameters": {
            "vocab_size": options.vocab_size,
            "context_length": options.context_length,
            "max_eval_rows": options.max_eval_rows,
            "tokenizer_sample_bytes": SAMPLE_BYTES,
        },
        "libraries": {name: version(name) for name in ("rustbpe", "tiktoken")},
        "splits": splits,
        "documents_left_out": {
            "empty": int(counts[Split.EMPTY]),
            "exact_duplicates": int(counts[Split.DUPLICATE]),
            "near_duplicates": int(counts[Split.NEAR_DUPLICATE]),
            "unused": int(counts[Split.UNUSED]),
        },
        "disjoint": {"shingle_words": SHINGLE_WORDS, "shared": shared},
        "files": _digests(folder),
    }
    _write_json(folder / MANIFEST_FILE, value)


def publish(partial: Path, output: Path) -> None:
    """Move the finished files into place; the old manifest goes first, the new one comes last."""
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
        target = output / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.rename(target)
    partial.rmdir()


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def _digests(folder: Path) -> dict[str, dict[str, str | int]]:
    found: dict[str, dict[str, str | int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = {"sha256": sha256, "size_bytes": path.stat().st_size}
    return found
