"""Messages on stderr that never hold up a night, whether or not someone reads them.

A full pipe and a terminal stopped by Ctrl-S block their writer, and a terminal that is gone returns an error. So a
separate thread writes to stderr, and drops what it cannot write.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TextIO, cast

STDERR = 2
MAX_WAITING = 500
"""Pieces of text that may wait to be written; more are dropped."""
SETTLE_SECONDS = 2.0
"""The time that an ending process waits for a slow reader."""


def hold_standard_streams() -> None:
    """Point closed standard streams at `/dev/null`: else the next opened file gets the number of one of them.

    Messages for people would go into it, be it the lock file, the event log or the engine's socket.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= STDERR:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


class Speaker:
    """A text file for stderr whose `write` never blocks. Signal handlers may call it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()  # `put` is safe in a signal handler
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Queue text, unless too much is waiting already."""
        if self._waiting.qsize() < MAX_WAITING:
            self._put(text.encode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes without delay."""

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until everything is written, at most for some seconds."""
        written = threading.Event()
        self._put(written)
        written.wait(seconds)

    def isatty(self) -> bool:
        """Whether stderr is a terminal."""
        return os.isatty(STDERR)

    def fileno(self) -> int:
        """Return the descriptor of stderr."""
        return STDERR

    def _put(self, item: bytes | threading.Event) -> None:
        self._waiting.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_all, name="stderr", daemon=True)
            self._thread.start()

    def _write_all(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            with suppress(OSError):  # the reader is gone
                while item:
                    item = item[os.write(STDERR, item) :]


stderr = Speaker()
"""The only speaker of this process."""


def say(text: str) -> None:
    """Print a line on stderr."""
    stderr.write(text + "\n")


def as_file() -> TextIO:
    """Return `stderr` for libraries that want a file."""
    return cast("TextIO", stderr)
