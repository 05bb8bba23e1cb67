"""A candidate that does not end: it ignores every signal, and a daemon of its own floods the output."""

from __future__ import annotations

import os
import signal
import time

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    while True:
        os.write(1, b"x" * 1023 + b"\n")
while True:
    time.sleep(60)
