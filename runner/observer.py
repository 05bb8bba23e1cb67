"""What a campaign tells whoever watches it. The command line draws it; tests record it."""

from __future__ import annotations

from typing import Protocol

from runner.records import Experiment


class Observer(Protocol):
    """Receives progress. Calls may come from any thread and must return at once."""

    def note(self, message: str) -> None:
        """One sentence on set-up work or on something that a person should know."""

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        """The loop starts: experiments done and wanted; `ends_at` on the monotonic clock."""

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        """Experiment `number` is now in phase `name`, for at most `seconds`."""

    def line(self, text: str) -> None:
        """The figures of the running training (`runner.report.progress`); untrusted, for display only."""

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        """An experiment got its verdict."""
