"""The packages of a lock, downloaded on the host.

The host's pip knows the proxies, private indexes and certificate authorities of its network; a build container
knows none of them. So wheels are downloaded here, checked against the lock's hashes, and installed offline.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner.errors import ImageError

PYTHON_VERSION = "3.11"
_ABI = "cp311"
_GLIBC_MINOR = 36  # Debian 12; wheels for any older glibc run there
_TERMINATE_SECONDS = 5.0
_NUM_MESSAGE_LINES = 6


def platforms() -> list[str]:
    """All wheel platform tags that the base image can run, best first."""
    numbered = [f"manylinux_2_{minor}_x86_64" for minor in range(_GLIBC_MINOR, 4, -1)]
    return [*numbered, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


def download_command(lock: Path, target: Path, extra_index: str | None) -> list[str]:
    """Command line of pip for the wheels of the image's Python, whatever Python and system the host has."""
    return [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--python-version", PYTHON_VERSION, "--implementation", "cp", "--abi", _ABI),
        *(argument for platform in platforms() for argument in ("--platform", platform)),
        *(("--extra-index-url", extra_index) if extra_index else ()),
        *("--requirement", str(lock), "--dest", str(target)),
    ]


class Download:
    """A running download. Use `downloading`, which also ends it."""

    def __init__(self, lock: Path, wheelhouse: Path, extra_index: str | None) -> None:
        self._lock = lock
        self._wheelhouse = wheelhouse
        self._partial = wheelhouse.with_name(wheelhouse.name + ".partial")
        self._log = wheelhouse.with_name(wheelhouse.name + ".log")
        self._extra_index = extra_index
        self._process: subprocess.Popen[bytes] | None = None
        if not wheelhouse.is_dir():
            self._start(None)

    def wait(self) -> Path:
        """Wait for the end of the download; returns the folder of wheels.

        Raises:
            ImageError: pip could not download them, or one differs from its hash.
        """
        if self._process is None:
            return self._wheelhouse
        if self._process.wait() != 0 and self._extra_index is not None:
            # Only now: a host whose own indexes have these wheels needs no public one.
            self._start(self._extra_index)
            self._process.wait()
        if self._process.returncode != 0:
            raise ImageError(
                f"pip could not download the packages of {self._lock.name}:{self._message()}",
                f"check the network and `{sys.executable} -m pip config list`, then run this again",
            )
        self._partial.rename(self._wheelhouse)
        self._log.unlink(missing_ok=True)
        return self._wheelhouse

    def stop(self) -> None:
        """End pip, and remove unfinished files."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_TERMINATE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._partial, ignore_errors=True)
        self._log.unlink(missing_ok=True)

    def _start(self, extra_index: str | None) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches only this process, which then ends pip in an orderly way.
            self._process = subprocess.Popen(
                download_command(self._lock, self._partial, extra_index),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _message(self) -> str:
        """The output of pip from the first error of its last attempt on; the lines after it explain it."""
        lines = [line for line in self._log.read_text("utf-8", "replace").splitlines() if line.strip()]
        first = next((index for index, line in enumerate(lines) if line.startswith("ERROR")), -_NUM_MESSAGE_LINES)
        return "".join(f"\n    {line.strip()}" for line in lines[first:][:_NUM_MESSAGE_LINES])


@contextmanager
def downloading(lock: Path, wheelhouse: Path, extra_index: str | None) -> Iterator[Download]:
    """Download the wheels of a lock in the background; leaving the block ends it.

    Args:
        lock: requirements with hashes.
        wheelhouse: folder that holds all wheels once it exists; used unchanged when it exists already.
        extra_index: public index that is used as well when the host's own indexes lack a wheel.
    """
    wheelhouse.parent.mkdir(parents=True, exist_ok=True)
    download = Download(lock, wheelhouse, extra_index)
    try:
        yield download
    finally:
        download.stop()
