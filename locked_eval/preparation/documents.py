"""Documents of a source folder.

A source is a folder of `.txt` and `.md` files (one document each) and `.parquet` files (column `text`, one
document a row), all of it UTF-8. Names that begin with a dot and other kinds of files are skipped. A source that
has the folders `train/` and `validation/` is pinned: only these are read, and `test/` where there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.shingles import normalize

TEXT_SUFFIXES = (".txt", ".md")
TABLE_SUFFIX = ".parquet"
TEXT_COLUMN = "text"

MAX_DOCUMENT_BYTES = 64 << 20
"""A larger document would take more memory than preparation promises to need (4 GB)."""
_BATCH_BYTES = 4 << 20
_TABLE_ROWS = 1024  # decoded at a time


class PrepareError(Exception):
    """A source or request that cannot be used; one sentence that names the thing."""


class Split(IntEnum):
    """The part of a data set that a document goes to, or the reason why it is left out."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    EMPTY = 3  # has no words
    DUPLICATE = 4  # the same words as a document that is kept
    NEAR_DUPLICATE = 5  # more than half of its 13-word shingles are in a more sealed split
    UNUSED = 6  # of a pinned validation folder, more than the rows need


EVAL_SPLITS = (Split.VALIDATION, Split.TEST)

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    path: Path
    name: str  # relative to the source, with forward slashes
    pinned: Split | None  # TRAIN, VALIDATION or TEST in a pinned source


class Batch(NamedTuple):
    """Consecutive documents of a source."""

    numbers: npt.NDArray[np.int64]  # (D,) position of each document in the whole source
    documents: list[bytes]


@dataclass(frozen=True)
class Corpus:
    """All documents of a source, by number and without their text."""

    files: tuple[SourceFile, ...]
    first: tuple[int, ...]  # number of the first document of each file, and the total
    digests: npt.NDArray[np.uint64]  # (D,) of the words; equal for exact duplicates
    sizes: npt.NDArray[np.int64]  # (D,) bytes
    pinned: npt.NDArray[np.int8]  # (D,) Split, or -1 in a free source
    sha256: str  # of all documents in order, each with its length before it

    @property
    def is_pinned(self) -> bool:
        """Whether the folders of the source determine the splits."""
        return any(file.pinned is not None for file in self.files)

    def read(self, wanted: npt.NDArray[np.bool_]) -> Iterator[Batch]:
        """Yield the text of the documents that a `(D,)` mask selects, in order, some megabytes at a time.

        Raises:
            PrepareError: a file is not what it was during `scan`.
        """
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
    """List the files of a source in a fixed order.

    Raises:
        PrepareError: there is no folder, there are no documents, or a file is a symbolic link (it could lead out
        of
            the container).
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
    """Yield the documents of one file.

    Invalid UTF-8 is refused, not skipped: a folder in another encoding would silently become a small corpus.

    Raises:
        PrepareError: the file is unreadable, not UTF-8, too large, or a table without the column.
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
    """Read all documents once, for their sizes and hashes.

    Args:
        on_file: called after every file with the bytes on disk that are done and their total.

    Raises:
        PrepareError: see `read_documents`.
    """
    digests: list[int] = []
    sizes: list[int] = []
    pinned: list[int] = []
    first = [0]
    whole = hashlib.sha256()
    done, total = 0, sum(file.path.stat().st_size for file in files)
    for file in files:
        for document in read_documents(file):
            words = hashlib.blake2b(normalize(document), digest_size=8).digest()
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


def groups(documents: Sequence[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield documents some megabytes at a time, with the byte offset of the first one among all."""
    group: list[bytes] = []
    offset = size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= _BATCH_BYTES:
            yield group, offset
            group, offset, size = [], offset + size, 0
    if group:
        yield group, offset
