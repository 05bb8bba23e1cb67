"""The experiments as a table for a terminal, as plain lines for a pipe, and in one paragraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from runner.records import Experiment, Phase, Verdict
from runner.report.summary import score_of, sum_up
from runner.untrusted import one_line

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
_GAP = 2  # blanks between two columns
_GIVE_WAY = (("seconds", 24), ("delta", 24), ("val_bpb", 12), ("hypothesis", 4))
"""Columns that a narrow terminal leaves out, in this order, each where it would cut the hypothesis to fewer cells.
Number and verdict always stay: `show` asks for the number."""


def table(experiments: Sequence[Experiment], width: int, title: str | None = None) -> Table:
    """The experiments for `rich.console.Console.print`. Nothing in a hypothesis is read as markup.

    Args:
        width: of the terminal. The hypothesis is cut to what the other columns leave, and `_GIVE_WAY` says which
            of these go first.
    """
    from rich import box  # lazy: `--help` must answer before rich is there
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        pad_edge=False,
    )
    rows = [dict(zip(HEADINGS, _cells(experiment), strict=True)) for experiment in experiments]
    for heading, cells in _columns(rows, width).items():
        justify: Literal["left", "right"] = "left" if heading in ("verdict", "hypothesis") else "right"
        # A width of its own for each: rich takes from every column alike as soon as none of them may wrap.
        made.add_column(heading, justify=justify, width=cells, no_wrap=True, overflow="ellipsis")
    for experiment, row in zip(experiments, rows, strict=True):
        style = STYLES[experiment.verdict]
        faint = "" if experiment.verdict is Verdict.KEEP else style
        shown = [
            Text(row[str(column.header)], style=style if column.header == "verdict" else "")
            for column in made.columns
        ]
        made.add_row(*shown, style=faint or None)
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


def _columns(rows: Sequence[dict[str, str]], width: int) -> dict[str, int]:
    """The headings that fit into a terminal, with the cells that each column gets."""
    from rich.cells import cell_len

    full = {heading: max(map(cell_len, [heading, *(row[heading] for row in rows)])) for heading in HEADINGS}
    numbers = {heading: full[heading] for heading in HEADINGS[:-1]}
    for heading, least in _GIVE_WAY:
        room = width - sum(numbers.values()) - _GAP * len(numbers)
        if room >= min(least, full[HEADINGS[-1]]):
            return {**numbers, HEADINGS[-1]: min(room, full[HEADINGS[-1]])}
        numbers.pop(heading, None)
    return numbers


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
