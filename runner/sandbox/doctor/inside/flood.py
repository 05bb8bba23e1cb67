"""A PID 1 that prints more than the engine may keep. The PID 1 of a candidate limits its rate."""

from __future__ import annotations

import sys

for _ in range(6 * 1024):
    sys.stdout.write("x" * 1023 + "\n")
