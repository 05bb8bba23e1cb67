"""A candidate that will not end: deaf to every signal, with a daemon that floods its output."""

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
