"""The machine while a candidate trains: use of its cores by other programs, and their clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from runner.sandbox.host import busy_seconds

CLOCK_SECONDS = 15.0
"""Time between two readings of the clocks."""
FIRST_CLOCK_SECONDS = 2.0
"""Time before the first reading: a GPU leaves its idle clock first."""


@dataclass
class CoreMeter:
    """CPU time of other programs on a training's cores, from the kernel's own counters.

    A candidate cannot cause contention by sleeping: only the work of others counts, not its own idleness.
    """

    cores: tuple[int, ...]
    before: float | None = None
    after: float | None = None
    window_seconds: float = 0.0

    def start(self) -> None:
        """Note that the candidate's clock starts now."""
        self.before, self.window_seconds = busy_seconds(self.cores), -time.monotonic()

    def stop(self) -> None:
        """Note that its container has ended."""
        self.after, self.window_seconds = busy_seconds(self.cores), self.window_seconds + time.monotonic()

    def others(self, own_cpu_seconds: float | None, wall_seconds: float | None = None) -> float | None:
        """CPU seconds of other programs between start and stop.

        Args:
            own_cpu_seconds: of the candidate; None if unknown.
            wall_seconds: of the candidate. A controller that was suspended meanwhile stops counting late; the
                count is then scaled to the candidate's share of that time, as if the others had worked evenly.
        """
        if self.before is None or self.after is None or own_cpu_seconds is None:
            return None
        seconds = max(0.0, self.after - self.before - own_cpu_seconds)
        if wall_seconds is not None and self.window_seconds > wall_seconds:
            seconds *= wall_seconds / self.window_seconds
        return round(seconds, 4)


@dataclass
class ClockMeter:
    """The mean clock of a training's processors, sampled on a thread of its own.

    A machine that becomes hot slows down, and 1 % of throughput is worth about one noise standard deviation.

    Args:
        read_mhz: reads the present clock; None where it is unknown.
        wait: waits so many seconds or until the training ends, and returns whether it has ended.
    """

    read_mhz: Callable[[], float | None]
    wait: Callable[[float], bool] | None = None
    _seen: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Note that the candidate's clock starts now."""
        threading.Thread(target=self._look, name="clocks", daemon=True).start()

    def stop(self) -> None:
        """Note that its container has ended."""
        self._ended.set()

    def mean_mhz(self) -> float | None:
        """Mean of the samples so far; None when there are none."""
        seen = tuple(self._seen)
        return round(fmean(seen), 1) if seen else None

    def _look(self) -> None:
        wait, pause = self.wait or self._ended.wait, FIRST_CLOCK_SECONDS
        while not wait(pause):
            mhz = self.read_mhz()
            if mhz is not None and not self._ended.is_set():  # a GPU falls back to its idle clock after the end
                self._seen.append(mhz)
            pause = CLOCK_SECONDS
