"""When an experiment that our own infrastructure fails is given up.

The same failure twice will come a third time: the attempt is set aside with verdict `infra`, which says nothing
about the idea, and the night goes on. A failure of another kind each time is bounded by their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_FAULTS = 3
"""Failures of one experiment, however different, after which it is given up."""


@dataclass
class Faults:
    """The infrastructure failures of one experiment."""

    seen: list[str] = field(default_factory=list)

    def add(self, fault: str) -> str | None:
        """Take one more; returns why there is no further attempt, or None when there is one.

        Args:
            fault: what failed, the same words for the same failure (`AutoresearchError.fault`).
        """
        again = fault in self.seen
        self.seen.append(fault)
        if again:
            return "quarantined after two equal failures"
        if len(self.seen) >= MAX_FAULTS:
            return f"quarantined after {len(self.seen)} failures"
        return None
