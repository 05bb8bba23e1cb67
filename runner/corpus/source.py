"""Sources of documents: the embedded corpus, a folder or file, or ClimbMix."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from locked_eval.preparation.documents import root_of
from runner.config import Config
from runner.corpus import sotu
from runner.corpus.folder import documents_of, folder_hash
from runner.errors import DataError

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Documents on this machine, ready to be mounted."""

    name: str  # for display and for folder names: letters, digits and dashes
    path: Path
    key: str  # SHA-256 over the names and contents of the files

    @property
    def root(self) -> Path:
        """The folder to mount; it holds the path."""
        return root_of(self.path)


def fetch_source(
    config: Config, state_dir: Path, on_progress: Say, environ: Mapping[str, str] | None = None
) -> Source:
    """Bring the documents of `config.source` onto this machine, or find them there.

    Only missing files need a network. Downloaded files are checked against their recorded hashes, now and at every
    later call.

    Args:
        state_dir: downloads go to `sources/` in it.
        on_progress: receives a line about every two seconds while bytes arrive; may be called from any thread.
        environ: for `HF_ENDPOINT` and `HF_TOKEN`; the process's own environment when omitted.

    Raises:
        DataError: no network, not enough disk, a wrong hash, or no documents in the folder.
    """
    if config.source not in ("sotu", "climbmix"):
        path = Path(config.source).expanduser()
        # Only the last part of a file's path may be a link: it has the name that says what the file holds.
        path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
        documents = documents_of(path)
        return Source(name=_safe_name(path), path=documents, key=folder_hash(documents))
    sources = state_dir / "sources"
    try:
        if config.source == "sotu":
            path = sotu.fetch(sources / "sotu", on_progress)
            return Source(name="sotu", path=path, key=folder_hash(path))
        from runner.corpus import climbmix  # lazy: its HTTP library takes a tenth of a second to import
        from runner.corpus.hub import Hub

        hub = Hub.from_environment(os.environ if environ is None else environ)
        path, key = climbmix.fetch(config.climbmix_shards, sources / "climbmix", hub, on_progress)
        return Source(name=f"climbmix-{config.climbmix_shards}", path=path, key=key)
    except OSError as error:
        raise DataError(
            f"cannot store {config.source} in {sources}: {error}",
            f"df -h {state_dir}; ls -ld {state_dir}: free some space, or make the folder writable",
        ) from error


def _safe_name(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-")[:32] or "folder"
