"""Use of a candidate's cores by other programs, and a time limit that does not count it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from runner.sandbox.host import busy_seconds

STRETCH = 4.0
"""Wall clock that an answer may take, as a multiple of its limit, while other programs use its cores."""
GAP_SECONDS = 2.0
"""Time between two looks after which this process itself was stopped: reports of PID 1 are read first."""


@dataclass
class CoreMeter:
    """CPU time of other programs on a training's cores, from the kernel's own counters.

    A candidate cannot cause contention by sleeping: only the work of others counts, not its own idleness.
    """

    cores: tuple[int, ...]
    before: float | None = None
    after: float | None = None
    began: float = 0.0
    window_seconds: float = 0.0

    def start(self) -> None:
        """Note that the candidate's clock starts now."""
        self.before, self.began = busy_seconds(self.cores), time.monotonic()

    def stop(self) -> None:
        """Note that its container has ended, or has come this far."""
        self.after, self.window_seconds = busy_seconds(self.cores), time.monotonic() - self.began

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
class NetLimit:
    """A limit on the wall clock of a run, without the time that other programs took from its cores.

    A candidate cannot stretch it by sleeping; what it makes the kernel do in the name of others, it can, up to
    `STRETCH`.

    Args:
        meter: of the run's cores; started with the run.
        own_cpu_seconds: reads the CPU time of the run's container; None while it is unknown.
    """

    meter: CoreMeter
    limit_seconds: float
    own_cpu_seconds: Callable[[], float | None]
    called_off_at: float | None = None
    """Moment at which PID 1 was asked to end the run."""
    _began: tuple[float, float | None] | None = None
    _next: float = 0.0
    _last: float = 0.0

    def start(self) -> None:
        """Note that the run starts now."""
        self.meter.start()
        self._last = time.monotonic()
        self._began = (self._last, self.own_cpu_seconds())

    def is_exceeded(self) -> bool:
        """Whether the run has just used up its limit. Costs a request to the engine only when it may have."""
        assert self._began is not None
        (began, before), moment = self._began, time.monotonic()
        stopped, self._last = moment - self._last > GAP_SECONDS, moment
        wall = moment - began
        if stopped or wall < max(self._next, self.limit_seconds):
            return False
        own = self.own_cpu_seconds()
        self.meter.stop()
        used = None if own is None or before is None else own - before
        left = self.limit_seconds - self.net_seconds(wall, self.meter.others(used))
        self._next = wall + max(left, 0.5)
        return used is not None and left <= 0

    def net_seconds(self, wall_seconds: float, others_cpu_seconds: float | None) -> float:
        """The wall clock of a run without the time of others."""
        return wall_seconds - (others_cpu_seconds or 0.0) / len(self.meter.cores)
