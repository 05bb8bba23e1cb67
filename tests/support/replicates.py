"""Repetitions of tests that draw at random: few in `make test`, ten times as many with `--full`."""

from __future__ import annotations

FACTOR = 10

full = False
"""Set by `tests/conftest.py`, before a test module is imported."""


def replicates(num: int) -> int:
    """The number of repetitions; `num` without `--full`."""
    return num * FACTOR if full else num
