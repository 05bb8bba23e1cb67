"""ClimbMix from the Hugging Face Hub: web text, one pinned validation shard, training shards by number.

sources/climbmix/
├── shards.lock.json          commit of the data set; SHA-256 and size of every shard that was fetched
├── shards/                   the files; `.part` while they arrive
└── <n>-shards/               the files of a configuration with n training shards (hard links)
    ├── train/
    └── validation/

The first download asks the Hub for the newest commit and for the hash of each file, and records both. From then on
the record is what counts, and the Hub is asked only for files that are missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from runner.corpus.hub import OFFLINE, Download, Hub, Progress, RemoteFile, Say, size_of
from runner.errors import DataError

DATASET = "karpathy/climbmix-400b-shuffle"
VALIDATION_SHARD = 6542
LOCK_FILE = "shards.lock.json"

_PARALLEL = 4
_SPARE_BYTES = 1 << 30  # left free on the disk for other programs


@dataclass(frozen=True)
class _Lock:
    """The record of the files that were fetched."""

    revision: str
    shards: Mapping[str, RemoteFile]

    @classmethod
    def read(cls, path: Path) -> _Lock | None:
        """Raises: DataError: the record exists and cannot be understood."""
        if not path.exists():
            return None
        try:
            raw = json.loads(path.read_text("utf-8"))
            return cls(raw["revision"], {name: RemoteFile(**shard) for name, shard in raw["files"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged: {error!r}", f"rm -r {path.parent}") from error

    def write(self, path: Path) -> None:
        files = {name: vars(shard) for name, shard in sorted(self.shards.items())}
        text = json.dumps({"dataset": DATASET, "revision": self.revision, "files": files}, indent=1)
        partial = path.with_suffix(".partial")
        partial.write_text(text + "\n", "utf-8")
        partial.replace(path)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard_{number:05d}.parquet"


def fetch(num_shards: int, folder: Path, hub: Hub, on_progress: Say) -> tuple[Path, str]:
    """Download the first `num_shards` shards and the validation shard, as far as they are missing here.

    Returns:
        A folder with `train/` and `validation/`, and the SHA-256 over the names and hashes of its files.

    Raises:
        DataError: no network, no room, a file that the Hub does not have, or one with a wrong hash.
    """
    names = [*(shard_name(number) for number in range(num_shards)), shard_name(VALIDATION_SHARD)]
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    lock = _Lock.read(folder / LOCK_FILE)
    present = [name for name in names if (shards / name).exists()]
    for name in present:
        _verify(shards / name, lock.shards.get(name) if lock else None)
    missing = [name for name in names if name not in present]
    if missing:
        lock = _download(missing, folder, lock, hub, on_progress)
    assert lock is not None  # nothing missing means that every file was found in the record
    key = hashlib.sha256(json.dumps([[name, lock.shards[name].sha256] for name in names]).encode("ascii"))
    return _view(folder, names), key.hexdigest()


def _verify(path: Path, expected: RemoteFile | None) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if expected is None or digest != expected.sha256:
        raise DataError(f"{path} is not the file that was downloaded: its SHA-256 differs", f"rm {path}")


def _view(folder: Path, names: list[str]) -> Path:
    """Make a folder with exactly these shards. It is made again every time: links cost nothing."""
    view = folder / f"{len(names) - 1}-shards"
    shutil.rmtree(view, ignore_errors=True)
    for name in names:
        split = view / ("validation" if name == shard_name(VALIDATION_SHARD) else "train")
        split.mkdir(parents=True, exist_ok=True)
        try:
            (split / name).hardlink_to(folder / "shards" / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder / "shards" / name, split / name)
    return view


def _download(missing: list[str], folder: Path, lock: _Lock | None, hub: Hub, say: Say) -> _Lock:
    """Fetch files into `shards/`; each is recorded as soon as its hash has been verified."""
    say(f"asking {hub.endpoint} for {len(missing)} files of {DATASET}")
    lock = lock or _Lock(_newest_commit(hub, missing[0]), {})
    download = Download(hub=hub, dataset=DATASET, revision=lock.revision)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        try:
            found = dict(zip(missing, [one for _, one in pool.map(download.describe, missing)], strict=True))
            for name, shard in found.items():
                if lock.shards.get(name, shard) != shard:
                    raise DataError(f"{hub.endpoint} has a different {name} than recorded", OFFLINE)
            parts = {name: folder / "shards" / f"{name}.part" for name in missing}
            done = sum(size_of(part) for part in parts.values())
            total = sum(shard.size_bytes for shard in found.values())
            _require_space(folder, total - done)
            progress = Progress(say, done, total)
            jobs = {
                pool.submit(download.fetch, name, found[name], parts[name], progress): name for name in missing
            }
            for job in as_completed(jobs):
                name = jobs[job]
                job.result()
                lock = _Lock(lock.revision, {**lock.shards, name: found[name]})
                # Recorded first: a kill between the two leaves a record without a file, which is downloaded again.
                lock.write(folder / LOCK_FILE)
                parts[name].replace(folder / "shards" / name)
        finally:
            download.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return lock


def _newest_commit(hub: Hub, name: str) -> str:
    """Resolve the branch `main`, with fewer attempts: without a network there is nothing to wait for."""
    impatient = replace(hub, attempts=min(hub.attempts, 3))
    return Download(hub=impatient, dataset=DATASET, revision="main").describe(name)[0]


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise DataError(
            f"not enough disk space for ClimbMix in {folder}: {needed / 1e9:.1f} GB to download and "
            f"{_SPARE_BYTES / 1e9:.1f} GB to spare, but only {free / 1e9:.1f} GB free",
            "make room, or use fewer shards: AUTORESEARCH_CLIMBMIX_SHARDS=4",
        )
