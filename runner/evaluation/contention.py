"""The clock of a training's processors, and what is said of a machine that other programs keep busy."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from runner.records import RunRecord

CLOCK_SECONDS = 15.0
"""Time between two readings of the clocks."""
FIRST_CLOCK_SECONDS = 2.0
"""Time before the first reading: a GPU leaves its idle clock first."""


def others_share(run: RunRecord, num_cores: int) -> float | None:
    """Share of a run's cores that other programs used; None where it was not counted."""
    if run.others_cpu_seconds is None or not run.wall_seconds:
        return None
    return run.others_cpu_seconds / (run.wall_seconds * num_cores)


def busy(share: float) -> str:
    """Describe a machine on which other programs used this share of a run's cores."""
    return (
        f"the machine is busy (load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores; "
        f"other programs used {share:.0%} of the candidate's)"
    )


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
