"""The figures of a running training, from what the workload prints by convention. Never for a score."""

from __future__ import annotations

import re

_LINE = re.compile(r"step\s+(\d{1,12})\b.{0,80}?loss\s+(\d{1,9}(?:\.\d{1,9})?).{0,80}?tokens/s\s+([\d,]{1,15})")


def tokens_per_second(log_tail: str) -> float | None:
    """The speed that the last line of progress in a log claims. Untrusted: a program prints what it likes."""
    for line in reversed(log_tail.splitlines()):
        if (found := progress(line)) is not None:
            speed = found.rpartition(" ")[2].replace(",", "")
            return float(speed) if speed.strip("0") else None
    return None


def training_loss(line: str) -> float | None:
    """The loss that a line of progress claims: finite, not negative, below a billion. Untrusted."""
    found = progress(line)
    return None if found is None else float(found.split(" ")[3])


def progress(line: str) -> str | None:
    """`step 120 loss 3.214 tokens/s 31000` out of an untrusted line; None when it does not say so.

    Nothing else of the line comes through, whatever it is: numbers of bounded length, digits of ASCII.
    """
    found = _LINE.search(line[:400])
    if found is None or not found[0].isascii():
        return None
    step, loss, speed = found.groups()
    return f"step {step} loss {loss} tokens/s {speed}"
