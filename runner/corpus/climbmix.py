"""ClimbMix from the Hugging Face Hub: web text, one pinned validation shard, training shards by number.

sources/climbmix/
├── shards.lock.json          commit of the data set; SHA-256 and size of every shard that was fetched
├── shards/                   the files; `.part` while they arrive
└── <n>-shards/               what a configuration with n training shards uses (hard links)
    ├── train/
    └── validation/

The first download asks the Hub for the newest commit and for each file's hash, and records both; from then
on the record is what counts, and the Hub is asked only for files that are missing.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from runner.errors import DataError

DATASET = "karpathy/climbmix-400b-shuffle"
VALIDATION_SHARD = 6542
LOCK_FILE = "shards.lock.json"

_PARALLEL = 4
_PIECE_BYTES = 1 << 16  # what a broken connection loses at most
_SPARE_BYTES = 1 << 30  # left free on the disk for everybody else
_PROGRESS_SECONDS = 2.0
_MAX_REDIRECTS = 5
_MAX_WAIT_SECONDS = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OFFLINE = (
    "try again (what arrived is kept), or use a local folder: AUTORESEARCH_SOURCE=/path/to/folder or --source"
)

_ENDPOINT = "check HF_ENDPOINT, or use a local folder: AUTORESEARCH_SOURCE=/path/to/folder or --source"

_T = TypeVar("_T")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where and how to download. `token` is sent to `endpoint` only, never to where it redirects."""

    endpoint: str = "https://huggingface.co"
    token: str | None = None
    connect_seconds: float = 10.0
    read_seconds: float = 30.0  # without a single byte
    attempts: int = 6  # in a row without a new byte
    backoff_seconds: float = 1.0  # doubles from attempt to attempt

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Hub:
        """Honour `HF_ENDPOINT` and `HF_TOKEN`, as Hugging Face's own tools do."""
        endpoint = environ.get("HF_ENDPOINT", "").rstrip("/") or cls.endpoint
        return cls(endpoint=endpoint, token=environ.get("HF_TOKEN") or None)

    def url(self, revision: str, name: str) -> str:
        """Address of one file."""
        return f"{self.endpoint}/datasets/{DATASET}/resolve/{revision}/{name}"


@dataclass(frozen=True)
class Shard:
    """What a file must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class _Lock:
    """The record of what was fetched."""

    revision: str
    shards: Mapping[str, Shard]

    @classmethod
    def read(cls, path: Path) -> _Lock | None:
        """Raises: DataError: the record exists and cannot be understood."""
        if not path.exists():
            return None
        try:
            raw = json.loads(path.read_text("utf-8"))
            return cls(raw["revision"], {name: Shard(**shard) for name, shard in raw["files"].items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged: {error!r}", f"rm -r {path.parent}") from error

    def write(self, path: Path) -> None:
        files = {name: vars(shard) for name, shard in sorted(self.shards.items())}
        text = json.dumps({"dataset": DATASET, "revision": self.revision, "files": files}, indent=1)
        partial = path.with_suffix(".partial")
        partial.write_text(text + "\n", "utf-8")
        partial.replace(path)


class _RetryError(Exception):
    """Something that may work the next time; says what."""


class _Progress:
    """Bytes that arrived, counted over all threads; one line every two seconds."""

    def __init__(self, say: Say, done: int, total: int) -> None:
        self._say, self._done, self._total = say, done, total
        self._lock = threading.Lock()
        self._last = time.monotonic()

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            due = time.monotonic() - self._last >= _PROGRESS_SECONDS
            if due:
                self._last = time.monotonic()
        if due:
            self._say(f"downloading ClimbMix: {self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard_{number:05d}.parquet"


def fetch(num_shards: int, folder: Path, hub: Hub, on_progress: Say) -> tuple[Path, str]:
    """Get the first `num_shards` shards and the validation shard, or find them here.

    Returns: a folder with `train/` and `validation/`, and the SHA-256 over the names and hashes of its files.

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


def _verify(path: Path, expected: Shard | None) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if expected is None or digest != expected.sha256:
        raise DataError(f"{path} is not the file that was downloaded: its SHA-256 differs", f"rm {path}")


def _view(folder: Path, names: list[str]) -> Path:
    """A folder with exactly these shards. Made again every time: links cost nothing."""
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
    """Fetch files into `shards/`, each recorded as soon as its hash was found right."""
    say(f"asking {hub.endpoint} for {len(missing)} files of {DATASET}")
    revision = lock.revision if lock else _resolve(hub, missing[0])
    lock = lock or _Lock(revision, {})
    with ThreadPoolExecutor(_PARALLEL) as pool:
        stop = threading.Event()
        try:
            jobs = [pool.submit(_facts, hub, revision, name, stop) for name in missing]
            found = dict(zip(missing, [job.result()[1] for job in jobs], strict=True))
            for name, shard in found.items():
                if lock.shards.get(name, shard) != shard:
                    raise DataError(f"{hub.endpoint} has another {name} than the one recorded", _OFFLINE)
            parts = {name: folder / "shards" / f"{name}.part" for name in missing}
            done = sum(_size(part) for part in parts.values())
            total = sum(shard.size_bytes for shard in found.values())
            _require_space(folder, total - done)
            progress = _Progress(say, done, total)
            downloads = {
                pool.submit(_fetch, hub, revision, name, found[name], parts[name], stop, progress): name
                for name in missing
            }
            for job in as_completed(downloads):
                name = downloads[job]
                job.result()
                lock = _Lock(revision, {**lock.shards, name: found[name]})
                # Recorded first: a kill between the two leaves a record without a file, which is downloaded again.
                lock.write(folder / LOCK_FILE)
                parts[name].replace(folder / "shards" / name)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return lock


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise DataError(
            f"not enough disk for ClimbMix in {folder}: {needed / 1e9:.1f} GB to download and "
            f"{_SPARE_BYTES / 1e9:.1f} GB to spare, {free / 1e9:.1f} GB free",
            "make room, or use fewer shards: AUTORESEARCH_CLIMBMIX_SHARDS=4",
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# ---- requests -----------------------------------------------------------------------------------


def _resolve(hub: Hub, name: str) -> str:
    """The newest commit. Gives up sooner than a download: with no network there is nothing to wait for."""
    impatient = replace(hub, attempts=min(hub.attempts, 3))
    return _facts(impatient, "main", name, threading.Event())[0]


def _facts(hub: Hub, revision: str, name: str, stop: threading.Event) -> tuple[str, Shard]:
    """Commit, hash and size of a file, as the Hub tells them before it redirects to a content server."""

    def ask() -> tuple[str, Shard]:
        url = hub.url(revision, name)
        for _ in range(_MAX_REDIRECTS):
            response = requests.head(url, headers=_headers(hub, url), timeout=_timeout(hub), allow_redirects=False)
            _check_status(hub, response)
            if "X-Linked-Etag" in response.headers or not response.is_redirect:
                return _read_facts(hub, name, response)
            url = urljoin(url, response.headers["Location"])
        raise DataError(f"{hub.url(revision, name)} redirects without end", _OFFLINE)

    return _patiently(ask, hub, name, stop)


def _read_facts(hub: Hub, name: str, response: requests.Response) -> tuple[str, Shard]:
    headers = response.headers
    digest = headers.get("X-Linked-Etag", headers.get("ETag", "")).removeprefix("W/").strip('"')
    size = headers.get("X-Linked-Size", headers.get("Content-Length", ""))
    commit = headers.get("X-Repo-Commit", "")
    if not (_SHA256.fullmatch(digest) and size.isdecimal() and _COMMIT.fullmatch(commit)):
        raise DataError(f"{hub.endpoint} does not tell commit, SHA-256 and size of {name}", _ENDPOINT)
    return commit, Shard(digest, int(size))


def _fetch(
    hub: Hub, revision: str, name: str, shard: Shard, part: Path, stop: threading.Event, progress: _Progress
) -> None:
    """Download one file into `part` and check it; one with a wrong hash is fetched once more from its start."""
    for last_try in (False, True):
        _patiently(
            lambda: _continue(hub, hub.url(revision, name), shard, part, stop, progress),
            hub,
            name,
            stop,
            arrived=lambda: _size(part),
        )
        with part.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() == shard.sha256:
                return
        progress.add(-_size(part))
        part.unlink()
        if last_try:
            raise DataError(f"{name} from {hub.endpoint} has a wrong SHA-256, twice", _OFFLINE)


def _continue(hub: Hub, url: str, shard: Shard, part: Path, stop: threading.Event, progress: _Progress) -> None:
    """Append what is missing to `part`."""
    offset = _size(part)
    if offset > shard.size_bytes:
        progress.add(-offset)
        part.unlink()
        offset = 0
    if offset == shard.size_bytes:
        return
    headers = {**_headers(hub, url), "Range": f"bytes={offset}-"}
    with requests.get(url, headers=headers, timeout=_timeout(hub), stream=True) as response:
        _check_status(hub, response)
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if offset and not (response.status_code == 206 and resumed):  # the server starts from the beginning
            progress.add(-offset)
            offset = 0
        with part.open("ab" if offset else "wb") as stream:
            for piece in response.iter_content(_PIECE_BYTES):
                if stop.is_set():
                    raise DataError("the download was stopped", _OFFLINE)
                stream.write(piece)
                progress.add(len(piece))
    if _size(part) < shard.size_bytes:
        raise _RetryError("the connection ended early")


def _headers(hub: Hub, url: str) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity", "User-Agent": "autoresearch-runner"}
    if hub.token and urlsplit(url)[:2] == urlsplit(hub.endpoint)[:2]:
        headers["Authorization"] = f"Bearer {hub.token}"
    return headers


def _timeout(hub: Hub) -> tuple[float, float]:
    return hub.connect_seconds, hub.read_seconds


def _check_status(hub: Hub, response: requests.Response) -> None:
    """Raises: _RetryError: the server is busy or broken; DataError: asking again gives the same."""
    status, url = response.status_code, response.url
    if status in (408, 425, 429) or status >= 500:
        raise _RetryError(f"{url} answers {status}")
    if status in (401, 403):
        raise DataError(f"{url} refuses access ({status})", "set HF_TOKEN, or use --source /path/to/folder")
    if status >= 400:
        raise DataError(f"{url} answers {status} {response.reason}", _ENDPOINT)


def _patiently(
    attempt: Callable[[], _T],
    hub: Hub,
    name: str,
    stop: threading.Event,
    arrived: Callable[[], int] = lambda: 0,
) -> _T:
    """Repeat what may work the next time, waiting longer and longer; bytes that arrived start the count again."""
    failures, before = 0, arrived()
    while True:
        try:
            return attempt()
        except (requests.RequestException, _RetryError) as error:
            now = arrived()
            failures = 1 if now > before else failures + 1
            before = now
            if failures >= hub.attempts:
                raise DataError(f"cannot get {name} from {hub.endpoint}: {_reason(error)}", _OFFLINE) from error
            if stop.wait(min(hub.backoff_seconds * 2 ** (failures - 1), _MAX_WAIT_SECONDS)):
                raise DataError(f"the download of {name} was stopped", _OFFLINE) from error


def _reason(error: Exception) -> str:
    """One clause for a person, instead of a nest of library objects."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (REQUESTS_CA_BUNDLE names your own authority)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    return str(error)
