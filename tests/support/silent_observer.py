"""An observer for tests that look at the ledger instead."""

from __future__ import annotations

from runner.records import Experiment


class SilentObserver:
    """Watches nothing."""

    def note(self, message: str) -> None:
        """Ignore."""

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        """Ignore."""

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        """Ignore."""

    def line(self, text: str) -> None:
        """Ignore."""

    def opened(self, experiment: Experiment) -> None:
        """Ignore."""

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        """Ignore."""
