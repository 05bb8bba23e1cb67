"""PID 1 that prints more than the engine may keep. PID 1 of a candidate never would: it has a rate cap."""

from __future__ import annotations

import sys

for _ in range(6 * 1024):
    sys.stdout.write("x" * 1023 + "\n")
