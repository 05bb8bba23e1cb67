"""A rate cap for what a candidate prints. Standard library only: PID 1 imports it."""

from __future__ import annotations


class Throttle:
    """Rate cap for a candidate's output: a burst, then a trickle, and always the very end.

    A candidate that prints without end costs the engine a core and fills its log. The last lines are the ones that
    explain a crash, so the tail of what was held back is written at the end.

    A line counts for more than its bytes: the engine keeps a record of each, and drops the oldest ones when its
    log is full. Without this, empty lines alone could push out the last report of PID 1, which goes through the
    same log.
    """

    BURST_BYTES = 128 * 1024
    BYTES_PER_SECOND = 16 * 1024
    RECORD_BYTES = 96  # of the engine's, around every line
    TAIL_BYTES = 32 * 1024
    TAIL_LINES = 256

    def __init__(self, now: float) -> None:
        self._allowance = float(self.BURST_BYTES)
        self._last = now
        self._tail = b""
        self._dropped = 0

    def admit(self, data: bytes, now: float) -> bytes:
        """Return the part of `data` that may be written now."""
        self._allowance = min(
            float(self.BURST_BYTES), self._allowance + (now - self._last) * self.BYTES_PER_SECOND
        )
        self._last = now
        cost = self._cost(data)
        if not self._dropped and cost <= self._allowance:
            self._allowance -= cost
            return data
        if self._dropped and self._allowance >= max(cost, self.BURST_BYTES / 2):
            data, self._tail, self._dropped = self.finish() + data, b"", 0
            self._allowance -= self._cost(data)
            return data
        self._dropped += len(data)
        self._tail = (self._tail + data)[-self.TAIL_BYTES :]
        return b""

    def finish(self) -> bytes:
        """Return what must be written at the end."""
        if not self._dropped:
            return b""
        tail = b"\n".join(self._tail.split(b"\n")[-self.TAIL_LINES :])
        return b"\n[%d bytes of output left out]\n" % max(0, self._dropped - len(tail)) + tail

    def _cost(self, data: bytes) -> int:
        return len(data) + self.RECORD_BYTES * data.count(b"\n")
