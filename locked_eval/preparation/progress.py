"""Progress of a long phase, in lines that are not too many."""

from __future__ import annotations

import time
from collections.abc import Callable

_SECONDS = 5.0

Say = Callable[[str], None]


class Progress:
    """Reports a phase, with one line every few seconds at most."""

    def __init__(self, say: Say, phase: str, total: int) -> None:
        """Args: total: bytes of the whole phase."""
        self._say, self._phase, self._total = say, phase, total
        self._done, self._last = 0, time.monotonic()

    def add(self, num_bytes: int) -> None:
        """Count bytes that are done."""
        self.reach(self._done + num_bytes, self._total)

    def reach(self, done: int, total: int) -> None:
        """Set the bytes that are done and their total."""
        self._done, self._total = done, total
        if time.monotonic() - self._last >= _SECONDS:
            self._last = time.monotonic()
            self._say(f"{self._phase}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
