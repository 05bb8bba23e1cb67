"""What people read in a narrow terminal: the number of an experiment is whole at every width."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from runner.cli.display import LiveObserver, print_table
from runner.records import Experiment, Phase, RunEnd, RunRecord, Verdict
from runner.report.table import table
from tests.support.trials import trials_of

WIDTHS = (30, 40, 60, 80, 100, 120, 200)
HYPOTHESES = {"short": "more heads", "long": "word " * 60, "wide": "学習率を上げる" * 20, "one word": "x" * 300}
NUMBERS = (0, 7, 123, 1234)
TRAINED = RunRecord(
    phase=Phase.TRAIN, end=RunEnd.DEADLINE, seed=1, exit_code=None, wall_seconds=1234.0, cpu_seconds=1.0
)


def night(hypothesis: str) -> list[Experiment]:
    shared = {"hypothesis": hypothesis, "proposer": "optuna", "trials": trials_of([TRAINED])}
    baseline, invalid, kept, running = NUMBERS
    return [
        Experiment(number=baseline, verdict=Verdict.KEEP, val_bpb=2.0, **shared),
        Experiment(number=invalid, verdict=Verdict.INVALID, **shared),
        Experiment(number=kept, verdict=Verdict.KEEP, val_bpb=1.912345, delta_bpb=-0.087655, **shared),
        Experiment(number=running, verdict=None, **shared),
    ]


def printed(renderable, width: int) -> list[str]:
    screen = io.StringIO()
    Console(file=screen, width=width, no_color=True).print(renderable)
    return screen.getvalue().splitlines()


def headings(width: int, hypothesis: str = HYPOTHESES["long"]) -> list[str]:
    return printed(table(night(hypothesis), width), width)[0].split()


@pytest.mark.parametrize("hypothesis", HYPOTHESES.values(), ids=HYPOTHESES)
@pytest.mark.parametrize("width", WIDTHS)
def test_number_and_verdict_are_whole_at_every_width(width, hypothesis):
    heading, _, *rows = printed(table(night(hypothesis), width), width)
    assert heading.split()[:2] == ["#", "verdict"]
    assert [row.split()[0] for row in rows] == [str(number) for number in NUMBERS]
    assert [row.split()[1] for row in rows] == ["keep", "invalid", "keep", "…"]


@pytest.mark.parametrize("hypothesis", HYPOTHESES.values(), ids=HYPOTHESES)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_none_wraps(width, hypothesis):
    lines = printed(table(night(hypothesis), width), width)
    assert len(lines) == 2 + len(NUMBERS)
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_row_says_how_its_hypothesis_begins_and_that_it_was_cut(width):
    for name in ("long", "wide", "one word"):
        for row in printed(table(night(HYPOTHESES[name]), width), width)[2:]:
            assert HYPOTHESES[name][:4] in row
            assert row.rstrip().endswith("…")


def test_a_narrow_terminal_leaves_out_seconds_then_doubt_then_delta_then_the_score():
    everything = ["#", "verdict", "val_bpb", "delta", "sure", "seconds", "hypothesis"]
    assert headings(80) == everything
    assert headings(60) == ["#", "verdict", "val_bpb", "delta", "hypothesis"]
    assert headings(40) == ["#", "verdict", "val_bpb", "hypothesis"]
    assert headings(30) == ["#", "verdict", "hypothesis"]
    assert headings(65, HYPOTHESES["short"]) == everything, "nothing is left out where nothing has to be cut"


@pytest.mark.parametrize("width", WIDTHS)
def test_scores_that_are_shown_are_whole(width):
    for row in printed(table(night(HYPOTHESES["long"]), width), width)[4:5]:
        assert ("1.912345" in row) == (width >= 40)
        assert ("-0.087655" in row) == (width >= 60)
        assert (" 1234 " in row) == (width >= 80)


def test_the_table_of_log_has_the_width_of_its_terminal(monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(night(HYPOTHESES["long"]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(NUMBERS)
    assert "1234" in lines[-1]


@pytest.mark.parametrize("seconds", [3600.0, None], ids=["bar", "no bar"])
@pytest.mark.parametrize("figures", ["", "step 1200  loss 3.2145  lr 0.0003  tok/s 123456  mfu 41.2"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_live_view_has_the_number_and_the_time_at_every_width(width, figures, seconds):
    console = Console(file=io.StringIO(), width=width, no_color=True)
    observer = LiveObserver(console)
    observer.phase(1234, "train", seconds)
    observer.line(figures)
    lines = printed(observer, width)
    assert lines[0].startswith("#1234  train  ")
    assert ("left" if seconds else "0:00") in lines[0]
    assert max(map(cell_len, lines)) <= width
    assert figures[:9] in "".join(lines)
