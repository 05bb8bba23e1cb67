"""Documents of a source.

A source is one file, or a folder of files: `.txt` and `.md` (one document each), `.parquet` (column `text`, one
document a row), and `.jsonl` and `.jsonl.zst` (field `text`, one document a line), all of it UTF-8. Names that
begin with a dot and other kinds of files are skipped. A source that has the folders `train/` and `validation/` is
pinned: only these are read, and `test/` where there is one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
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
LINES_SUFFIX, PACKED_SUFFIX = ".jsonl", ".jsonl.zst"
SUFFIXES = (*TEXT_SUFFIXES, TABLE_SUFFIX, LINES_SUFFIX, PACKED_SUFFIX)
TEXT_COLUMN = "text"

MAX_DOCUMENT_BYTES = 64 << 20
"""A larger document would take more memory than preparation promises to need (4 GB)."""
_LINE_BYTES = 4 * MAX_DOCUMENT_BYTES  # escapes, and fields besides the text
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
        PrepareError: there is no source, there are no documents, or a symbolic link leads out of `root_of` (and so
            out of the container).
    """
    if source.is_file():
        if not source.name.lower().endswith(SUFFIXES):
            raise PrepareError(f"the source {source.name} is no {', '.join(SUFFIXES)} file")
        _check_link(source, source.name, root_of(source))
        return (SourceFile(source, source.name, None),)
    if not source.is_dir():
        raise PrepareError(f"there is no source {source}")
    root = root_of(source)
    folders = {"train": Split.TRAIN, "validation": Split.VALIDATION, "test": Split.TEST}
    is_pinned = (source / "train").is_dir() and (source / "validation").is_dir()
    found = []
    for path in sorted(source.rglob("*"), key=lambda path: path.relative_to(source).parts):
        parts = path.relative_to(source).parts
        if not path.name.lower().endswith(SUFFIXES) or any(part[0] == "." for part in parts):
            continue
        _check_link(path, "/".join(parts), root)
        pinned = folders.get(parts[0]) if is_pinned else None
        if path.is_file() and (pinned is not None or not is_pinned):
            found.append(SourceFile(path, "/".join(parts), pinned))
    if not found:
        raise PrepareError(f"the source has no documents: no {', '.join(SUFFIXES)} file in it")
    return tuple(found)


def root_of(source: Path) -> Path:
    """The folder that a container needs to read a source.

    The cache of Hugging Face has the files of a repository in `blobs/`, and links to them below `snapshots/`.
    """
    for folder in source.parents:
        if folder.name == "snapshots" and (folder.parent / "blobs").is_dir():
            return folder.parent
    return source.parent if source.is_file() else source


def _check_link(path: Path, name: str, root: Path) -> None:
    """Refuse a link that leads elsewhere in the container, where the root has another place."""
    if not path.is_symlink():
        return
    target = path.readlink()
    place = Path(os.path.normpath(path.parent / target))
    if target.is_absolute() or not place.is_relative_to(root):
        raise PrepareError(f"{name} is a symbolic link that leads out of the source, which must hold the file")
    if place.is_symlink() or not place.is_file():
        raise PrepareError(f"{name} is a symbolic link to something that is no file")


def read_documents(file: SourceFile) -> Iterator[bytes]:
    """Yield the documents of one file.

    Invalid UTF-8 is refused, not skipped: a folder in another encoding would silently become a small corpus.

    Raises:
        PrepareError: the file is unreadable, not UTF-8, too large, or a table without the column.
    """
    try:
        name = file.name.lower()
        if name.endswith(TABLE_SUFFIX):
            yield from _table_documents(file)
        elif name.endswith((LINES_SUFFIX, PACKED_SUFFIX)):
            yield from _line_documents(file)
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


def _line_documents(file: SourceFile) -> Iterator[bytes]:
    import pyarrow as pa

    packed = file.name.lower().endswith(PACKED_SUFFIX)
    with pa.input_stream(str(file.path), compression="zstd" if packed else None) as stream:
        reader = io.BufferedReader(stream)
        number = 0
        while line := reader.readline(_LINE_BYTES + 1):
            number += 1
            name = f"line {number} of {file.name}"
            if len(line) > _LINE_BYTES:
                raise _too_large(name)
            if line.strip():
                yield _checked(_text_of(line, name), name)


def _text_of(line: bytes, name: str) -> bytes:
    """The text in one line of JSON."""
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or TEXT_COLUMN not in row:
            found = f"; it has {', '.join(map(str, row))}" if isinstance(row, dict) and row else ""
            raise PrepareError(f"{name} has no field {TEXT_COLUMN!r}{found}")
        text = row[TEXT_COLUMN]
        if not isinstance(text, str | None):
            raise PrepareError(f"the field {TEXT_COLUMN!r} in {name} is no text")
        return (text or "").encode("utf-8")
    except UnicodeError:
        raise PrepareError(f"{name} is not UTF-8 text") from None
    except (ValueError, RecursionError):
        raise PrepareError(f"{name} is not JSON") from None


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
