"""The switch by which a person stops a night."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopSwitch:
    """Ctrl-C once: finish this run and stop. Twice, or SIGTERM or SIGHUP: kill now, leave nothing."""

    requested: bool = False
    _killed: bool = False

    def wait(self, seconds: float) -> None:
        """Sleep, but only until a person asks to stop."""
        give_up = time.monotonic() + seconds
        while not self.requested and (left := give_up - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))

    @contextmanager
    def installed(self, announce: Callable[[str], None]) -> Iterator[StopSwitch]:
        """Own the signals while the campaign runs."""

        def on_signal(number: int, _: FrameType | None) -> None:
            if self._killed:
                return  # already leaving: nothing may interrupt the clean-up
            if number == signal.SIGINT and not self.requested:
                self.requested = True
                announce("finishing this run, then stopping; Ctrl-C again kills it now")
                return
            self.requested = self._killed = True
            raise KeyboardInterrupt

        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants us to live on
            signals.append(signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                # A killed one is on its way out: until the process is gone, nothing interrupts that.
                signal.signal(number, signal.SIG_IGN if self._killed else handler)
