"""A folder of documents on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from locked_eval.preparation.documents import PrepareError, find_files
from runner.errors import DataError

_REMEDY = "autoresearch prepare --source FOLDER, with a folder of .txt, .md or .parquet files"


def folder_hash(folder: Path) -> str:
    """Hash the relative names, sizes and contents of a folder's documents, in name order, with SHA-256.

    Raises:
        DataError: the folder does not exist, has no documents, or has a file that cannot be read.
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
