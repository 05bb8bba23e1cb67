"""Words for people, who may close their end, stop reading, or leave: nothing that is said holds up a night.

A pipe that nobody empties and a terminal stopped by Ctrl-S block whoever writes to them, and a terminal that is
gone answers with an error. So a thread of its own writes to stderr; what it cannot get rid of is dropped.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TextIO, cast

STDERR = 2
MAX_WAITING = 500
"""Pieces of text that wait to be written; more are dropped."""
LAST_WORDS_SECONDS = 2.0
"""How long an ending process waits for a slow reader."""


def hold_standard_streams() -> None:
    """Give closed standard streams to nobody: else the next file that is opened gets the number of one of them.

    Words for people would go into it, be it the lock file, the event log or the engine's socket.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= STDERR:
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


class Speaker:
    """Stderr as a text file whose `write` always returns at once. Signal handlers may call it."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self._waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()  # `put` is safe in a signal handler
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Have it written, unless too much waits already."""
        if self._waiting.qsize() < MAX_WAITING:
            self._put(text.encode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def settle(self, seconds: float = LAST_WORDS_SECONDS) -> None:
        """Wait until everything is written, but not for ever."""
        written = threading.Event()
        self._put(written)
        written.wait(seconds)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(STDERR)

    def fileno(self) -> int:
        """Its descriptor."""
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
            with suppress(OSError):  # nobody is there any more
                while item:
                    item = item[os.write(STDERR, item) :]


stderr = Speaker()
"""The one of this process."""


def say(text: str) -> None:
    """A line for people."""
    stderr.write(text + "\n")


def as_file() -> TextIO:
    """The same for libraries that want a file."""
    return cast("TextIO", stderr)
