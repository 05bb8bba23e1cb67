"""Tables of experiments: for a terminal, as plain lines for a pipe, and as tab-separated files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from runner.records import Experiment, Phase, Verdict
from runner.report.summary import score_of
from runner.untrusted import one_line

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("#", "verdict", "val_bpb", "delta", "sure", "seconds", "hypothesis")
STYLES = {
    Verdict.KEEP: "bold green",
    Verdict.ACCEPT: "green",
    Verdict.DISCARD: "bright_black",
    Verdict.UNCLEAR: "yellow",
    Verdict.CRASH: "red",
    Verdict.INVALID: "magenta",
    Verdict.INFRA: "yellow",
    None: "cyan",
}
HYPOTHESIS_CHARS = 120

RESULTS_COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
SHORT_ID_CHARS = 7
DESCRIPTION_CHARS = 300
_FORMULA = ("=", "+", "-", "@")

_NUMBER_WIDTHS = (4, 7, 8, 9, 4, 7)  # all but the hypothesis
_GAP = 2  # blanks between two columns
_GIVE_WAY = (("seconds", 24), ("sure", 24), ("delta", 24), ("val_bpb", 12), ("hypothesis", 4))
"""Columns that a narrow terminal omits, in this order, each when it would leave the hypothesis fewer cells than
this. Number and verdict always stay: `show` needs the number."""


def table(experiments: Sequence[Experiment], width: int, title: str | None = None) -> Table:
    """Build a table for `rich.console.Console.print`. Nothing in a hypothesis is read as markup.

    Args:
        width: of the terminal. The hypothesis is cut to what the other columns leave; `_GIVE_WAY` lists which of
            them are omitted first.
    """
    from rich import box  # lazy: `--help` must not wait for rich
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
        # One explicit width per column: rich shrinks all of them alike when none may wrap.
        made.add_column(heading, justify=justify, width=cells, no_wrap=True, overflow="ellipsis")
    for experiment, row in zip(experiments, rows, strict=True):
        style = STYLES[experiment.verdict]
        faint = "" if experiment.verdict in (Verdict.KEEP, Verdict.ACCEPT) else style
        shown = [
            Text(row[str(column.header)], style=style if column.header == "verdict" else "")
            for column in made.columns
        ]
        made.add_row(*shown, style=faint or None)
    return made


def plain_lines(experiments: Sequence[Experiment]) -> list[str]:
    """Return a heading and one aligned line per experiment, for a pipe or a log."""
    return [_line(HEADINGS), *(_line(_cells(experiment)) for experiment in experiments)]


def results_tsv(experiments: Sequence[Experiment]) -> str:
    """List closed experiments in the five columns of karpathy/autoresearch; the caller writes the file atomically.

    Two differences: a crash has an empty score, never 0.000000, which would be the best one; and `memory_gb` is
    empty, because only the candidate could report it. The score of an invalid experiment is left out as well: it
    is a claim that cannot be believed.
    """
    rows = [
        (
            (one.kept_commit or one.tried_commit or "")[:SHORT_ID_CHARS],
            "" if (score := score_of(one)) is None else f"{score:.6f}",
            "",
            str(one.verdict),
            _description(one.hypothesis),
        )
        for one in experiments
        if one.verdict is not None
    ]
    return to_tsv(RESULTS_COLUMNS, rows)


def to_tsv(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table with a header, one line per row; a field that contains a tab or a quote is quoted."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _description(hypothesis: str) -> str:
    """Return one line that a reader of the file takes for nothing but text.

    A double quote makes some readers swallow the following rows, and `=`, `+`, `-` or `@` at the start makes a
    spreadsheet evaluate the cell; the apostrophe is the spreadsheet's own mark for text.
    """
    text = one_line(hypothesis, DESCRIPTION_CHARS).replace('"', "'")
    return f"'{text}" if text.startswith(_FORMULA) else text


def _columns(rows: Sequence[dict[str, str]], width: int) -> dict[str, int]:
    """Choose the headings that fit into a terminal, with the width of each column."""
    from rich.cells import cell_len

    full = {heading: max(map(cell_len, [heading, *(row[heading] for row in rows)])) for heading in HEADINGS}
    numbers = {heading: full[heading] for heading in HEADINGS[:-1]}
    for heading, least in _GIVE_WAY:
        room = width - sum(numbers.values()) - _GAP * len(numbers)
        if room >= min(least, full[HEADINGS[-1]]):
            return {**numbers, HEADINGS[-1]: min(room, full[HEADINGS[-1]])}
        numbers.pop(heading, None)
    return numbers


def _cells(experiment: Experiment) -> tuple[str, ...]:
    score = score_of(experiment)
    seconds = [
        run.wall_seconds for run in experiment.runs if run.phase is Phase.TRAIN and run.wall_seconds is not None
    ]
    return (
        str(experiment.number),
        "…" if experiment.verdict is None else str(experiment.verdict),
        "" if score is None else f"{score:.6f}",
        "" if score is None or experiment.delta_bpb is None else f"{experiment.delta_bpb:+.6f}",
        "" if score is None or experiment.figures is None else percent(experiment.figures.better),
        f"{sum(seconds):.0f}" if seconds else "",
        one_line(experiment.hypothesis, HYPOTHESIS_CHARS),
    )


def percent(share: float) -> str:
    """Round to whole percent, but never to 100% or 0%: no measurement gives that."""
    return ">99%" if share > 0.995 else "<1%" if share < 0.005 else f"{share:.0%}"


def _line(cells: Sequence[str]) -> str:
    number, verdict, *numbers, hypothesis = cells
    first = [number.rjust(_NUMBER_WIDTHS[0]), verdict.ljust(_NUMBER_WIDTHS[1])]
    rest = [text.rjust(width) for text, width in zip(numbers, _NUMBER_WIDTHS[2:], strict=True)]
    return "  ".join([*first, *rest, hypothesis]).rstrip()
