"""The wall clock that records are stamped with."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """UTC now, ISO 8601 to the second. For people: the ledger orders by counters, not by time."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()
