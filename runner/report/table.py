"""The experiments as a table for a terminal, as plain lines for a pipe, and in one paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.records import Experiment, Phase, Verdict
from runner.report.night import score_of, sum_up
from runner.report.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("#", "verdict", "val_bpb", "delta", "seconds", "hypothesis")
STYLES = {
    Verdict.KEEP: "bold green",
    Verdict.DISCARD: "bright_black",
    Verdict.CRASH: "red",
    Verdict.INVALID: "magenta",
    Verdict.INFRA: "yellow",
    None: "cyan",
}
HYPOTHESIS_CHARS = 120

_NUMBER_WIDTHS = (4, 7, 8, 9, 7)  # all but the hypothesis


def table(experiments: Sequence[Experiment], title: str | None = None) -> Table:
    """The experiments for `rich.console.Console.print`. Nothing in a hypothesis is read as markup."""
    from rich import box  # lazy: `--help` must answer before rich is there
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for heading, width in zip(HEADINGS, _NUMBER_WIDTHS, strict=False):
        made.add_column(
            heading, justify="left" if heading == "verdict" else "right", min_width=width, no_wrap=True
        )
    made.add_column(HEADINGS[-1], no_wrap=True, overflow="ellipsis")  # gives way in a narrow terminal
    for experiment in experiments:
        *numbers, hypothesis = _cells(experiment)
        style = STYLES[experiment.verdict]
        faint = "" if experiment.verdict is Verdict.KEEP else style
        made.add_row(
            numbers[0], Text(numbers[1], style=style), *numbers[2:], Text(hypothesis), style=faint or None
        )
    return made


def plain_lines(experiments: Sequence[Experiment]) -> list[str]:
    """One aligned line per experiment below a heading, for a pipe or a log."""
    return [_line(HEADINGS), *(_line(_cells(experiment)) for experiment in experiments)]


def summary(experiments: Sequence[Experiment]) -> str:
    """The night in one paragraph: baseline, best, counts and noise."""
    night = sum_up(experiments)
    if night.baseline_bpb is None or night.best_bpb is None:
        return "No baseline yet: nothing can be compared."
    gain = night.best_bpb - night.baseline_bpb
    noise = "" if night.sigma_bpb is None else f" Noise sigma {night.sigma_bpb:.4f} bpb."
    if night.num_experiments == 0:
        return f"Baseline {night.baseline_bpb:.4f} bpb; no experiment yet.{noise}"
    if night.champion == 0:
        result = f"No improvement on the baseline of {night.baseline_bpb:.4f} bpb"
    else:
        result = (
            f"Baseline {night.baseline_bpb:.4f} → best {night.best_bpb:.4f} bpb "
            f"({gain:+.4f}, {100 * gain / night.baseline_bpb:+.2f} %), experiment {night.champion}"
        )
    words = {
        Verdict.KEEP: "kept",
        Verdict.DISCARD: "discarded",
        Verdict.CRASH: "crashed",
        Verdict.INVALID: "invalid",
        Verdict.INFRA: "lost to infrastructure",
    }
    # The first four are always told: "0 crashed" is news. A lost one is told only when there is one.
    counts = ", ".join(
        f"{night.counts[verdict]} {word}"
        for verdict, word in words.items()
        if verdict is not Verdict.INFRA or night.counts[verdict]
    )
    plural = "" if night.num_experiments == 1 else "s"
    return f"{result}. {night.num_experiments} experiment{plural}: {counts}.{noise}"


def _cells(experiment: Experiment) -> tuple[str, str, str, str, str, str]:
    score = score_of(experiment)
    seconds = [
        run.wall_seconds for run in experiment.runs if run.phase is Phase.TRAIN and run.wall_seconds is not None
    ]
    return (
        str(experiment.number),
        "…" if experiment.verdict is None else str(experiment.verdict),
        "" if score is None else f"{score:.6f}",
        "" if score is None or experiment.delta_bpb is None else f"{experiment.delta_bpb:+.6f}",
        f"{sum(seconds):.0f}" if seconds else "",
        one_line(experiment.hypothesis, HYPOTHESIS_CHARS),
    )


def _line(cells: Sequence[str]) -> str:
    number, verdict, *numbers, hypothesis = cells
    first = [number.rjust(_NUMBER_WIDTHS[0]), verdict.ljust(_NUMBER_WIDTHS[1])]
    rest = [text.rjust(width) for text, width in zip(numbers, _NUMBER_WIDTHS[2:], strict=True)]
    return "  ".join([*first, *rest, hypothesis]).rstrip()
