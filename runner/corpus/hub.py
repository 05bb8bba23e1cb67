"""Downloads from the Hugging Face Hub: the commit, hash and size of a file, and its bytes, resumed and checked.

Our own instead of `huggingface_hub`: that library deletes its partial file when a download fails, so that a later
call starts again from zero, and compares sizes only, not hashes.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests

from runner.errors import DataError

_LOCAL = "use a local folder: AUTORESEARCH_SOURCE=/path/to/folder or --source"
OFFLINE = f"try again (the partial download is kept), or {_LOCAL}"
_ENDPOINT = f"check HF_ENDPOINT, or {_LOCAL}"

_PIECE_BYTES = 1 << 16  # the most that a broken connection loses
_PROGRESS_SECONDS = 2.0
_MAX_REDIRECTS = 5
_MAX_WAIT_SECONDS = 60.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

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
        """Read `HF_ENDPOINT` and `HF_TOKEN`, as Hugging Face's own tools do."""
        endpoint = environ.get("HF_ENDPOINT", "").rstrip("/") or cls.endpoint
        return cls(endpoint=endpoint, token=environ.get("HF_TOKEN") or None)


@dataclass(frozen=True)
class RemoteFile:
    """Content of a file on the Hub."""

    sha256: str
    size_bytes: int


class Progress:
    """A count of arrived bytes over all threads; reports a line every two seconds."""

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


class _RetryError(Exception):
    """A failure that may not happen again; the message says what failed."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """Requests for files of one commit, from any number of threads. Setting `stop` ends them all."""

    hub: Hub
    dataset: str
    revision: str  # a commit, or a branch to be resolved
    stop: threading.Event = field(default_factory=threading.Event)

    def describe(self, name: str) -> tuple[str, RemoteFile]:
        """Ask for the commit, hash and size of a file, which the Hub states before it redirects elsewhere.

        Raises:
            DataError: no answer, no such file, no access, or an answer without these figures.
        """
        return self._patiently(lambda: self._describe(name), name)

    def fetch(self, name: str, expected: RemoteFile, part: Path, progress: Progress) -> None:
        """Download a file into `part`, continuing what is there; a wrong hash is fetched once more from the start.

        Raises:
            DataError: no answer, or a wrong hash twice.
        """
        for last_try in (False, True):
            self._patiently(
                lambda: self._continue(name, expected, part, progress), name, arrived=lambda: size_of(part)
            )
            with part.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() == expected.sha256:
                    return
            progress.add(-size_of(part))
            part.unlink()
            if last_try:
                raise DataError(f"{name} from {self.hub.endpoint} had the wrong SHA-256 twice", OFFLINE)

    def _url(self, name: str) -> str:
        return f"{self.hub.endpoint}/datasets/{self.dataset}/resolve/{self.revision}/{name}"

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "autoresearch-runner"}
        if self.hub.token and urlsplit(url)[:2] == urlsplit(self.hub.endpoint)[:2]:
            headers["Authorization"] = f"Bearer {self.hub.token}"
        return headers

    @property
    def _timeout(self) -> tuple[float, float]:
        return self.hub.connect_seconds, self.hub.read_seconds

    def _describe(self, name: str) -> tuple[str, RemoteFile]:
        url = self._url(name)
        for _ in range(_MAX_REDIRECTS):
            headers = self._headers(url)
            response = requests.head(url, headers=headers, timeout=self._timeout, allow_redirects=False)
            _check_status(response)
            if "X-Linked-Etag" in response.headers or not response.is_redirect:
                return self._read_description(name, response.headers)
            url = urljoin(url, response.headers["Location"])
        raise DataError(f"{self._url(name)} redirects endlessly", OFFLINE)

    def _read_description(self, name: str, headers: Mapping[str, str]) -> tuple[str, RemoteFile]:
        digest = headers.get("X-Linked-Etag", headers.get("ETag", "")).removeprefix("W/").strip('"')
        size = headers.get("X-Linked-Size", headers.get("Content-Length", ""))
        commit = headers.get("X-Repo-Commit", "")
        if not (_SHA256.fullmatch(digest) and size.isdecimal() and _COMMIT.fullmatch(commit)):
            raise DataError(f"{self.hub.endpoint} does not state commit, SHA-256 and size of {name}", _ENDPOINT)
        return commit, RemoteFile(digest, int(size))

    def _continue(self, name: str, expected: RemoteFile, part: Path, progress: Progress) -> None:
        """Append the missing bytes to `part`."""
        url, offset = self._url(name), size_of(part)
        if offset > expected.size_bytes:
            progress.add(-offset)
            part.unlink()
            offset = 0
        if offset == expected.size_bytes:
            return
        headers = {**self._headers(url), "Range": f"bytes={offset}-"}
        with requests.get(url, headers=headers, timeout=self._timeout, stream=True) as response:
            _check_status(response)
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
            if offset and not (response.status_code == 206 and resumed):  # the server starts from the beginning
                progress.add(-offset)
                offset = 0
            with part.open("ab" if offset else "wb") as stream:
                for piece in response.iter_content(_PIECE_BYTES):
                    if self.stop.is_set():
                        raise DataError("the download was stopped", OFFLINE)
                    stream.write(piece)
                    progress.add(len(piece))
        if size_of(part) < expected.size_bytes:
            raise _RetryError("the connection ended early")

    def _patiently(self, attempt: Callable[[], _T], name: str, arrived: Callable[[], int] = lambda: 0) -> _T:
        """Retry with growing pauses; arrived bytes reset the count of attempts."""
        failures, before = 0, arrived()
        while True:
            try:
                return attempt()
            except (requests.RequestException, _RetryError) as error:
                now = arrived()
                failures = 1 if now > before else failures + 1
                before = now
                if failures >= self.hub.attempts:
                    raise DataError(
                        f"cannot get {name} from {self.hub.endpoint}: {_reason(error)}", OFFLINE
                    ) from error
                if self.stop.wait(min(self.hub.backoff_seconds * 2 ** (failures - 1), _MAX_WAIT_SECONDS)):
                    raise DataError(f"the download of {name} was stopped", OFFLINE) from error


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 when there is none."""
    return path.stat().st_size if path.exists() else 0


def _check_status(response: requests.Response) -> None:
    """Raises: _RetryError: the server is busy or broken; DataError: asking again would give the same answer."""
    status, url = response.status_code, response.url
    if status in (408, 425, 429) or status >= 500:
        raise _RetryError(f"{url} answers {status}")
    if status in (401, 403):
        raise DataError(f"{url} refuses access ({status})", "set HF_TOKEN, or use --source /path/to/folder")
    if status >= 400:
        raise DataError(f"{url} answers {status} {response.reason}", _ENDPOINT)


def _reason(error: Exception) -> str:
    """Describe a failed request in one clause, without the library's nested exceptions."""
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (set REQUESTS_CA_BUNDLE to your own authority)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer"
    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    return str(error)
