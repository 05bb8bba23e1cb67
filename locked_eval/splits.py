"""Documents of a source folder, and the split that each of them belongs to.

A source is a folder of `.txt` and `.md` files (one document each) and `.parquet` files (column `text`, one
document a row), all of it UTF-8. Names that begin with a dot and other kinds of files are passed over.

- Free source: a document's split follows from the hash of its words and from nothing else about it, so the
  same document goes the same way wherever it lies. Test takes about 5 % of the bytes and validation 10 %,
  less when that many rows are not wanted, more when a corpus is small.
- Pinned source: it has the folders `train/` and `validation/`, and only these are read (and `test/` where there
  is one; without it, half of `validation/` by hash becomes the test split).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.disjoint import normalise

TEXT_SUFFIXES = (".txt", ".md")
TABLE_SUFFIX = ".parquet"
TEXT_COLUMN = "text"

MAX_DOCUMENT_BYTES = 64 << 20
"""A larger document would take more memory than preparation promises to need (4 GB)."""
_BATCH_BYTES = 4 << 20
_TABLE_ROWS = 1024  # decoded at a time

MIN_EVAL_ROWS = 8
"""Fewer rows are no measurement."""
VALIDATION_SHARE = 0.10
TEST_SHARE = 0.05
MAX_BYTES_PER_TOKEN = 6
"""For sizing a split in bytes before a tokenizer exists: English needs 3.6 to 4.8, the rest is slack."""


class PrepareError(Exception):
    """The source or the request cannot be used; one sentence that names the thing."""


class Split(IntEnum):
    """Where a document goes."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    EMPTY = 3  # no words
    DUPLICATE = 4  # the same words as a document that is kept
    NEAR_DUPLICATE = 5  # more than half of its 13-word shingles stand in a more sealed split
    UNUSED = 6  # of a pinned validation folder, more than the rows need


EVAL_SPLITS = (Split.VALIDATION, Split.TEST)

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: Path
    name: str  # relative to the source, with forward slashes
    pinned: Split | None  # TRAIN, VALIDATION or TEST when its folder says so


class Batch(NamedTuple):
    """Documents that follow each other in the source."""

    numbers: npt.NDArray[np.int64]  # (D,) position of each in the whole source
    documents: list[bytes]


@dataclass(frozen=True)
class Corpus:
    """All documents of a source by number, without their text."""

    files: tuple[SourceFile, ...]
    first: tuple[int, ...]  # number of the first document of each file, and the total
    digests: npt.NDArray[np.uint64]  # (D,) of the words; equal for exact duplicates
    sizes: npt.NDArray[np.int64]  # (D,) bytes
    pinned: npt.NDArray[np.int8]  # (D,) Split, or -1 in a free source
    sha256: str  # of all documents in order, each with its length before it

    @property
    def is_pinned(self) -> bool:
        """Whether folders say what is validation."""
        return any(file.pinned is not None for file in self.files)

    def read(self, wanted: npt.NDArray[np.bool_]) -> Iterator[Batch]:
        """The text of the documents that a `(D,)` mask selects, in order, some megabytes at a time."""
        numbers: list[int] = []
        documents: list[bytes] = []
        size = 0
        for index, file in enumerate(self.files):
            begin, end = self.first[index], self.first[index + 1]
            if not wanted[begin:end].any():
                continue
            for number, document in enumerate(read_documents(file), begin):
                if number >= end or len(document) != self.sizes[number]:
                    raise PrepareError(f"{file.name} changed while it was read")
                if wanted[number]:
                    numbers.append(number)
                    documents.append(document)
                    size += len(document)
                if size >= _BATCH_BYTES:
                    yield Batch(np.array(numbers, np.int64), documents)
                    numbers, documents, size = [], [], 0
        if documents:
            yield Batch(np.array(numbers, np.int64), documents)


def find_files(source: Path) -> tuple[SourceFile, ...]:
    """The files of a source in a fixed order.

    Raises:
        PrepareError: no folder, no documents, or a symbolic link (it could lead out of the container).
    """
    if not source.is_dir():
        raise PrepareError(f"the source {source} is not a folder")
    folders = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}
    is_pinned = (source / "train").is_dir() and (source / "validation").is_dir()
    found = []
    for path in sorted(source.rglob("*"), key=lambda path: path.relative_to(source).parts):
        parts = path.relative_to(source).parts
        if path.suffix.lower() not in (*TEXT_SUFFIXES, TABLE_SUFFIX) or any(part[0] == "." for part in parts):
            continue
        if path.is_symlink():
            raise PrepareError(f"{'/'.join(parts)} is a symbolic link; the source must hold the file itself")
        pinned = folders.get(parts[0]) if is_pinned else None
        if path.is_file() and (pinned is not None or not is_pinned):
            found.append(SourceFile(path, "/".join(parts), pinned))
    if not found:
        raise PrepareError("the source has no documents: no .txt, .md or .parquet file in it")
    return tuple(found)


def read_documents(file: SourceFile) -> Iterator[bytes]:
    """The documents of one file.

    Invalid UTF-8 is refused, not skipped: a folder in another encoding would silently become a small corpus.

    Raises:
        PrepareError: unreadable, not UTF-8, too large, or a table without the column.
    """
    try:
        if file.path.suffix.lower() == TABLE_SUFFIX:
            yield from _table_documents(file)
        else:
            if file.path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise _too_large(file.name)
            yield _checked(file.path.read_bytes(), file.name)
    except OSError as error:
        raise PrepareError(f"cannot read {file.name}: {_first_line(error)}") from error


def _table_documents(file: SourceFile) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file.path) as table:
            schema = table.schema_arrow
            if TEXT_COLUMN not in schema.names:
                raise PrepareError(f"{file.name} has no column {TEXT_COLUMN!r}; it has {', '.join(schema.names)}")
            kind = schema.field(TEXT_COLUMN).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise PrepareError(f"column {TEXT_COLUMN!r} of {file.name} holds {kind}, not text")
            row = 0
            for piece in table.iter_batches(batch_size=_TABLE_ROWS, columns=[TEXT_COLUMN], use_threads=False):
                for document in piece.column(0).cast(pa.binary()).to_pylist():
                    yield _checked(document or b"", f"row {row} of {file.name}")
                    row += 1
    except pa.ArrowException as error:
        raise PrepareError(f"cannot read {file.name}: {_first_line(error)}") from error


def _checked(document: bytes, name: str) -> bytes:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise _too_large(name)
    try:
        document.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PrepareError(
            f"{name} is not UTF-8 text: byte {error.start} is wrong; convert it or remove it"
        ) from None
    return document


def _first_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.splitlines()[0] if text else type(error).__name__


def _too_large(name: str) -> PrepareError:
    return PrepareError(f"{name} is a document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; cut it into several")


def scan(files: tuple[SourceFile, ...], on_file: Callable[[int, int], None]) -> Corpus:
    """Read everything once: sizes and hashes of all documents.

    Args:
        on_file: called with the bytes on disk that are done and their total after every file.

    Raises:
        PrepareError: as `read_documents`; or no words at all.
    """
    digests: list[int] = []
    sizes: list[int] = []
    pinned: list[int] = []
    first = [0]
    whole = hashlib.sha256()
    done, total = 0, sum(file.path.stat().st_size for file in files)
    for file in files:
        for document in read_documents(file):
            words = hashlib.blake2b(normalise(document), digest_size=8).digest()
            digests.append(int.from_bytes(words, "big"))
            sizes.append(len(document))
            pinned.append(-1 if file.pinned is None else file.pinned)
            whole.update(len(document).to_bytes(8, "big"))
            whole.update(document)
        first.append(len(sizes))
        done += file.path.stat().st_size
        on_file(done, total)
    return Corpus(
        files=files,
        first=tuple(first),
        digests=np.array(digests, np.uint64),
        sizes=np.array(sizes, np.int64),
        pinned=np.array(pinned, np.int8),
        sha256=whole.hexdigest(),
    )


_NO_WORDS = int.from_bytes(hashlib.blake2b(b"", digest_size=8).digest(), "big")


def assign(corpus: Corpus, row_tokens: int, max_rows: int) -> Codes:
    """`(D,)` the `Split` of every document, by hash; exact duplicates are kept once, in the most sealed split.

    Args:
        row_tokens: tokens of one row of validation or test, context length + 1.
        max_rows: rows wanted of each of the two.

    Raises:
        PrepareError: too little text for the rows, or too few documents to give each split one.
    """
    codes = np.full(len(corpus.sizes), Split.TRAIN, np.uint8)
    codes[corpus.digests == np.uint64(_NO_WORDS)] = Split.EMPTY
    # Sealed first: of two equal documents the one in `test/` stays, then the one in `validation/`.
    order = np.lexsort((np.arange(len(codes)), -corpus.pinned.astype(np.int64)))
    order = order[codes[order] != Split.EMPTY]
    kept = order[np.unique(corpus.digests[order], return_index=True)[1]]
    duplicate = codes != Split.EMPTY
    duplicate[kept] = False
    codes[duplicate] = Split.DUPLICATE

    by_hash = kept[np.argsort(corpus.digests[kept])]
    least = MIN_EVAL_ROWS * row_tokens * MAX_BYTES_PER_TOKEN
    most = max_rows * row_tokens * MAX_BYTES_PER_TOKEN
    total = int(corpus.sizes[kept].sum())
    if total == 0:
        raise PrepareError("the source has no words: every document is empty")
    if corpus.is_pinned:
        _assign_pinned(corpus, by_hash, codes, most)
    else:
        _assign_free(corpus, by_hash, codes, total, least, most)
    return codes


def _assign_pinned(corpus: Corpus, by_hash: npt.NDArray[np.int64], codes: Codes, most: int) -> None:
    pinned, sizes = corpus.pinned[by_hash], corpus.sizes
    validation, test = by_hash[pinned == Split.VALIDATION], by_hash[pinned == Split.TEST]
    if not len(test):
        half = int(sizes[validation].sum()) // 2
        cut = int(np.searchsorted(np.cumsum(sizes[validation]), half, side="right"))
        test, validation = validation[:cut], validation[cut:]
    for numbers, split in ((validation, Split.VALIDATION), (test, Split.TEST)):
        before = np.cumsum(sizes[numbers]) - sizes[numbers]
        codes[numbers] = np.where(before < most, split, Split.UNUSED)


def _assign_free(
    corpus: Corpus, by_hash: npt.NDArray[np.int64], codes: Codes, total: int, least: int, most: int
) -> None:
    if total < 4 * least:
        raise PrepareError(
            f"not enough text: {total:,} bytes, and {MIN_EVAL_ROWS} rows each for validation and test "
            f"need a corpus of {4 * least:,} bytes or more"
        )
    for split, share in ((Split.TEST, TEST_SHARE), (Split.VALIDATION, VALIDATION_SHARE)):
        target = min(most, max(least, int(total * share)))
        remaining = by_hash[codes[by_hash] == Split.TRAIN]
        codes[_take(remaining, corpus.sizes, target)] = split
    train_bytes = int(corpus.sizes[codes == Split.TRAIN].sum())
    if train_bytes * 4 < total:
        raise PrepareError(
            f"too few documents: of {total:,} bytes in {len(by_hash)} documents, whole documents for validation "
            f"and test leave {train_bytes:,} bytes for training; cut the text into more files"
        )


def _take(numbers: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], target: int) -> list[int]:
    """The first documents that add up to `target` bytes, passing over those that would double it."""
    taken: list[int] = []
    size = 0
    for number in numbers.tolist():
        if size >= target:
            break
        if size + sizes[number] <= 2 * target:
            taken.append(number)
            size += int(sizes[number])
    if not taken and len(numbers):  # every document is that large: the smallest costs training least
        taken.append(int(numbers[np.argmin(sizes[numbers])]))
    return taken
