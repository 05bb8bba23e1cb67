"""A folder of documents on this machine, or one file of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from locked_eval.preparation.documents import SUFFIXES, PrepareError, find_files
from runner.errors import DataError

_REMEDY = f"name a folder of {', '.join(SUFFIXES)} files, or one such file: --source or AUTORESEARCH_SOURCE"


def documents_of(path: Path) -> Path:
    """Find the documents of a path: in the cache folder of a Hugging Face repository, its snapshot.

    Raises:
        DataError: there are several snapshots, and none is the newest of the main branch.
    """
    if not ((path / "snapshots").is_dir() and (path / "blobs").is_dir()):
        return path
    snapshots = sorted((path / "snapshots").iterdir())
    main = path / "refs" / "main"
    if main.is_file() and (newest := path / "snapshots" / main.read_text("utf-8").strip()) in snapshots:
        return newest
    if len(snapshots) != 1:
        raise DataError(f"{path} has {len(snapshots)} snapshots", f"name one of them: --source {path}/snapshots/…")
    return snapshots[0]


def folder_hash(folder: Path) -> str:
    """Hash the relative names, sizes and contents of a source's files, in name order, with SHA-256.

    Raises:
        DataError: the source does not exist, has no documents, or has a file that cannot be read.
    """
    if not folder.exists():
        raise DataError(f"the source {folder} does not exist", _REMEDY)
    try:
        files = find_files(folder)
    except PrepareError as error:
        raise DataError(f"{folder}: {error}", _REMEDY) from error
    whole = hashlib.sha256()
    for file in files:
        try:
            with file.path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
                size = stream.tell()
        except OSError as error:
            raise DataError(f"cannot read {file.path}: {error.strerror}", _REMEDY) from error
        whole.update(f"{file.name}\0{size}\0{content}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
