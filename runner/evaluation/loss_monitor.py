"""The loss of a running training, line by line on the host's own clock, and whether to stop it early.

Lines arrive on one thread; another one asks whether to stop. Lines are the candidate's text: only numbers of
bounded size count, and only so many of them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from runner.decision import early_stopping
from runner.decision.early_stopping import Calibration
from runner.records import Curve, StopReason
from runner.untrusted import training_loss

MAX_HEARD = 20_000
"""Lines of one training that count; further ones are ignored."""


@dataclass
class LossMonitor:
    """Listens to one training from the start of the candidate's clock."""

    train_seconds: float
    calibration: Calibration | None  # None: it only listens
    early_stop_holdout: float  # share of unpromising trainings that are finished all the same
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = field(default_factory=lambda: random.SystemRandom().random)
    """Unpredictable for candidates."""

    def __post_init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._began: float | None = None
        self._heard: list[tuple[float, float]] = []  # share of the time, loss
        self._judged = -1  # the last fraction that was judged
        self._stop_reason: StopReason | None = None
        self._given_up = False

    def start(self) -> None:
        """Note that the candidate's clock starts now."""
        with self._lock:
            self._began = self.clock()

    def hear(self, line: str) -> None:
        """Take a line that the candidate printed."""
        loss = training_loss(line)
        with self._lock:
            if loss is not None and self._began is not None and len(self._heard) < MAX_HEARD:
                self._heard.append((self._share(), loss))

    def gives_up(self) -> bool:
        """Whether to end the training now; a yes is final.

        Each fraction of the time is judged once, when it is over. The first one that finds the training
        unpromising draws whether it is finished all the same.
        """
        with self._lock:
            if self.calibration is None or self._began is None or self._stop_reason is not None:
                return self._given_up
            index = int(self._share() * early_stopping.NUM_FRACTIONS) - 1
            if not self._judged < index < early_stopping.NUM_FRACTIONS - 1:  # at the end there is nothing to save
                return False
            self._judged = index
            loss = early_stopping.sampled(self._heard)[index]
            self._stop_reason = self.calibration.stop_reason(index, loss)
            self._given_up = self._stop_reason is not None and self.draw() >= self.early_stop_holdout
            return self._given_up

    def curve(self) -> Curve | None:
        """Losses so far; None when nothing was printed."""
        with self._lock:
            losses = early_stopping.sampled(self._heard)
            return (
                Curve(losses=losses, stop_reason=self._stop_reason)
                if any(loss is not None for loss in losses)
                else None
            )

    def _share(self) -> float:
        assert self._began is not None
        return (self.clock() - self._began) / self.train_seconds
