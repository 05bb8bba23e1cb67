"""Progress for people: a live view on a terminal, plain lines in a pipe. Both write to stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.cli.output import as_file, say, stderr
from runner.records import Experiment, Observer, Verdict
from runner.report.table import plain_lines, table
from runner.untrusted import one_line

COLORS = {
    Verdict.KEEP: "bold green",
    Verdict.ACCEPT: "green",
    Verdict.DISCARD: "dim",
    Verdict.UNCLEAR: "yellow",
    Verdict.CRASH: "red",
    Verdict.INVALID: "magenta",
    Verdict.INFRA: "yellow",
}


BAR, LEAST_BAR = 28, 8
"""Cells of the progress bar, and the fewest it is drawn with."""


def verdict_line(experiment: Experiment) -> str:
    """Format a closed experiment as one plain line."""
    bpb = "        –" if experiment.val_bpb is None else f"{experiment.val_bpb:9.6f}"
    delta = "" if experiment.delta_bpb is None else f" ({experiment.delta_bpb:+.4f})"
    verdict = experiment.verdict or "open"
    why = f"  [{experiment.reason}]" if experiment.val_bpb is None and experiment.reason else ""
    return f"{experiment.number:4d}  {verdict:8s} {bpb}{delta:10s}  {first_line(experiment.hypothesis)}{why}"


def first_line(text: str) -> str:
    """Return the first line of a hypothesis, cut for a terminal."""
    return one_line(next(iter(text.strip().splitlines()), ""), 90)


def print_table(experiments: Sequence[Experiment]) -> None:
    """Print all experiments on stdout: a table on a terminal, whole lines in a pipe."""
    console = Console()
    if console.is_terminal:
        console.print(table(experiments, console.width))
    else:
        click.echo("\n".join(plain_lines(experiments)))


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss or m:ss."""
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class PlainObserver:
    """An observer that prints one line per event.

    Args:
        verdicts: whether the plan and verdicts are among them.
    """

    def __init__(self, *, verdicts: bool = True) -> None:
        self._verdicts = verdicts

    def note(self, message: str) -> None:
        """Print it."""
        say(message)

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        """Print the plan."""
        if self._verdicts:
            say(f"campaign {tag}: {done} of {target} experiments done")

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        """Too much for plain lines."""

    def line(self, text: str) -> None:
        """Too much for plain lines."""

    def opened(self, experiment: Experiment) -> None:
        """Its verdict line says it all."""

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        """Print the verdict."""
        if self._verdicts:
            say(verdict_line(experiment))


class LiveObserver:
    """An observer with a live view: the running experiment below, verdicts scrolling above."""

    def __init__(self, console: Console, *, verdicts: bool = True) -> None:
        self._console, self._verdicts = console, verdicts
        self._lock = threading.RLock()  # a signal handler may draw
        self._tag, self._done, self._target = "", 0, 0
        self._ends_at: float | None = None
        self._began = time.monotonic()
        self._began_done = 0
        self._number, self._phase, self._seconds = 0, "", None  # type: int, str, float | None
        self._phase_began = time.monotonic()
        self._metrics = ""
        self._best: float | None = None

    def note(self, message: str) -> None:
        """Print above the view."""
        self._console.print(Text(message, style="dim"))

    def tell(self, text: Text) -> None:
        """Print text above the view."""
        self._console.print(text, soft_wrap=True)

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        """Remember the plan."""
        with self._lock:
            self._tag, self._done, self._target, self._ends_at = tag, done, target, ends_at
            self._began, self._began_done = time.monotonic(), done

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        """Restart the bar."""
        with self._lock:
            if (number, name) == (self._number, self._phase):
                return
            self._number, self._phase, self._seconds = number, name, seconds
            self._phase_began = time.monotonic()
            if name == "start":
                self._metrics = ""

    def line(self, text: str) -> None:
        """Show the figures of the running training."""
        with self._lock:
            self._metrics = text

    def opened(self, experiment: Experiment) -> None:
        """The view shows its number with its first phase."""

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        """Print the verdict above the view."""
        with self._lock:
            self._best = best_bpb
            self._done += experiment.is_idea
        style = COLORS.get(experiment.verdict, "") if experiment.verdict else ""
        if self._verdicts:
            self._console.print(Text(verdict_line(experiment), style=style), soft_wrap=True)

    def __rich__(self) -> RenderableType:
        """Draw the view; called a few times a second."""
        with self._lock:
            return Group(*self._running(self._console.width), Text(self._summary(), style="bold"))

    def _running(self, width: int) -> list[RenderableType]:
        """Draw the running experiment. Its number is never cut: the bar gives way first, then the figures."""
        if not self._phase:
            return []
        elapsed = time.monotonic() - self._phase_began
        left = f"{clock(self._seconds - elapsed)} left" if self._seconds else clock(elapsed)
        cells: list[RenderableType] = [Text(f"#{self._number}", style="bold"), Text(self._phase), Text(left)]
        taken = sum(cell.cell_len + 2 for cell in cells if isinstance(cell, Text))
        if self._seconds and width - taken >= LEAST_BAR:
            bar_cells = min(width - taken, BAR)
            taken += bar_cells + 2
            done = min(elapsed, self._seconds)
            cells.insert(2, ProgressBar(total=self._seconds, completed=done, width=bar_cells))
        metrics = Text(self._metrics, style="cyan", no_wrap=True, overflow="ellipsis")
        beside = taken + metrics.cell_len <= width
        row = Table.grid(padding=(0, 2))
        for _ in cells:
            row.add_column(no_wrap=True)
        row.add_row(*cells, *([metrics] if beside else []))
        return [row] if beside else [row, metrics]

    def _summary(self) -> str:
        parts = []
        if self._tag:
            parts.append(f"{self._tag}: {self._done} of {self._target}")
        if self._best is not None:
            parts.append(f"champion's val_bpb {self._best:.6f}")
        new = self._done - self._began_done
        if self._tag and new > 0:
            left = (time.monotonic() - self._began) / new * (self._target - self._done)
            if self._ends_at is not None:
                left = min(left, self._ends_at - time.monotonic())
            parts.append(f"about {clock(left)} to go")
        return "   ".join(parts)


def result_writer(observer: Observer) -> Callable[[Text], None]:
    """Return a function that prints results line by line on stdout while an observer is at work.

    Where its live view is on the same terminal, the lines scroll above that.
    """
    if isinstance(observer, LiveObserver) and sys.stdout.isatty():
        return observer.tell
    console = Console(soft_wrap=True, highlight=False)
    return console.print


@contextmanager
def observing(*, verdicts: bool = True) -> Iterator[Observer]:
    """Yield the right observer for this terminal.

    Args:
        verdicts: whether it prints a line for each, where the command does not.
    """
    console = Console(file=as_file())
    try:
        if not console.is_terminal:
            yield PlainObserver(verdicts=verdicts)
            return
        observer = LiveObserver(console, verdicts=verdicts)
        with Live(observer, console=console, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False):
            yield observer
    finally:
        stderr.settle()
