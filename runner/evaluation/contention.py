"""Signs that a training did not have its machine for itself: others on its cores or its GPU, a throttled clock.

They come from the kernel and from the driver, and count only the work of others, so that no candidate can have an
unlucky trial repeated. The throughput that a program prints shows more, such as a neighbor that uses up the
bandwidth of the memory, but a program can print anything. Only controls are held to it: a champion that lies about
its own can only make its scores harder to beat.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean, median

from runner.records import Experiment, Outcome, RunRecord
from runner.sandbox.gpu_state import GpuState
from runner.untrusted import tokens_per_second

CLOCK_SECONDS = 15.0
"""Time between two readings of the clocks."""
FIRST_CLOCK_SECONDS = 2.0
"""Time before the first reading: a GPU leaves its idle clock first."""
SLOW_SHARE = 0.1
"""A control that is slower by more than this share than the program's other trials is contended."""
LEAST_TRIALS = 2
"""Other trials that a usual speed rests on."""


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


def usual_speed(experiment: Experiment) -> float | None:
    """Median throughput that a program's scored trials printed, in tokens per second; None with too few."""
    found = [
        speed
        for trial in (*experiment.trials, *experiment.control_trials)
        if trial.outcome is Outcome.SCORED
        and trial.training is not None
        and (speed := tokens_per_second(trial.training.log_tail)) is not None
    ]
    return median(found) if len(found) >= LEAST_TRIALS else None


def slower(run: RunRecord, usual_tokens_per_second: float | None) -> str | None:
    """Return why a control was not alone on its machine, by its own throughput; None where nothing shows."""
    speed = tokens_per_second(run.log_tail)
    if speed is None or usual_tokens_per_second is None or speed >= (1 - SLOW_SHARE) * usual_tokens_per_second:
        return None
    share = speed / usual_tokens_per_second
    return f"the machine is slow: {speed:,.0f} tokens/s, {share:.0%} of this program's usual speed"


def gpu_disturbance(state: GpuState, power_limit_watts: float | None) -> str | None:
    """Describe what keeps a GPU from its work, besides the candidate; None where nothing does.

    Args:
        power_limit_watts: of the GPU when the controller started; None: unknown.
    """
    if state.others:
        return f"{state.others} other {'program computes' if state.others == 1 else 'programs compute'} on it"
    if state.slowdown is not None:
        return f"{state.slowdown} holds its clock down"
    limit = state.power_limit_watts
    if limit is not None and power_limit_watts is not None and limit < power_limit_watts:
        return f"its power limit is {limit:.0f} W, down from {power_limit_watts:.0f} W"
    return None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The processors of a training at one moment."""

    clock_mhz: float | None
    disturbance: str | None = None  # what kept the GPU from its work, besides the candidate


@dataclass
class ProcessorMeter:
    """Clock and disturbances of a training's processors, sampled on a thread of its own.

    A machine that becomes hot slows down, and 1 % of throughput is worth about one noise standard deviation.

    Args:
        read: reads the present state.
        wait: waits so many seconds or until the training ends, and returns whether it has ended.
    """

    read: Callable[[], Reading]
    wait: Callable[[float], bool] | None = None
    _seen: list[Reading] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Note that the candidate's clock starts now."""
        threading.Thread(target=self._look, name="clocks", daemon=True).start()

    def stop(self) -> None:
        """Note that its container has ended."""
        self._ended.set()

    def mean_mhz(self) -> float | None:
        """Mean of the samples so far; None when there are none."""
        seen = [one.clock_mhz for one in tuple(self._seen) if one.clock_mhz is not None]
        return round(fmean(seen), 1) if seen else None

    def disturbance(self, max_share: float) -> str | None:
        """Return what disturbed more than this share of the samples, in one sentence; None where nothing did."""
        seen = tuple(self._seen)
        words = Counter(one.disturbance for one in seen if one.disturbance is not None)
        if not words or words.total() <= max_share * len(seen):
            return None
        ((word, _),) = words.most_common(1)
        return f"the GPU was disturbed for {words.total() / len(seen):.0%} of the training: {word}"

    def _look(self) -> None:
        wait, pause = self.wait or self._ended.wait, FIRST_CLOCK_SECONDS
        while not wait(pause):
            reading = self.read()
            if not self._ended.is_set():  # a GPU falls back to its idle clock after the end
                self._seen.append(reading)
            pause = CLOCK_SECONDS
