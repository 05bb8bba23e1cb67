"""Tables: hostile text stays text, absent scores stay absent, columns stay aligned."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from runner.report.table import RESULTS_COLUMNS, plain_lines, results_tsv, table, to_tsv
from tests.support.synthetic_experiments import HOSTILE, experiment, run
from tests.support.trials import trials_of


def rows(experiments):
    return list(csv.DictReader(io.StringIO(results_tsv(experiments)), delimiter="\t"))


def test_the_table_has_karpathys_columns_in_his_order():
    assert results_tsv([]) == "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    assert RESULTS_COLUMNS == ("commit", "val_bpb", "memory_gb", "status", "description")


def test_a_kept_row_names_the_kept_commit_and_a_discarded_one_the_tried_commit():
    made = rows(
        [
            experiment(1, "keep", 1.8, tried_commit="a" * 40, kept_commit="b" * 40),
            experiment(2, "discard", 1.95, tried_commit="c" * 40),
        ]
    )
    assert [row["commit"] for row in made] == ["b" * 7, "c" * 7]
    assert [row["val_bpb"] for row in made] == ["1.800000", "1.950000"]
    assert [row["status"] for row in made] == ["keep", "discard"]


@pytest.mark.parametrize(("verdict", "bpb"), [("crash", None), ("crash", 0.0), ("invalid", 0.1), ("infra", None)])
def test_an_experiment_without_a_believed_score_has_an_empty_one(verdict, bpb):
    assert rows([experiment(1, verdict, bpb)])[0]["val_bpb"] == ""


@pytest.mark.parametrize("bpb", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_left_empty(bpb):
    assert rows([experiment(1, "discard", bpb)])[0]["val_bpb"] == ""


def test_an_open_experiment_has_no_row():
    assert rows([experiment(1, None, None)]) == []


@pytest.mark.parametrize("hypothesis", HOSTILE)
def test_a_hostile_description_stays_one_field_of_text(hypothesis):
    made = rows([experiment(1, hypothesis=hypothesis), experiment(2, hypothesis="plain")])
    assert len(made) == 2
    assert made[1]["description"] == "plain"
    assert None not in made[0]
    assert not made[0]["description"].startswith(("=", "+", "-", "@", '"'))
    assert "\x1b" not in made[0]["description"]


def test_a_field_with_a_tab_a_line_end_or_a_quote_survives_the_file():
    fields = ("a\tb", "c\nd", 'e"f', "")
    assert list(csv.reader(io.StringIO(to_tsv(("x",) * 4, [fields])), delimiter="\t"))[1] == list(fields)


@pytest.mark.parametrize("hypothesis", HOSTILE)
def test_a_hostile_hypothesis_is_printed_and_not_interpreted(hypothesis):
    made = [experiment(1, "keep", hypothesis=hypothesis), experiment(2, hypothesis=hypothesis)]
    lines = plain_lines(made)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    screen = io.StringIO()
    Console(file=screen, width=200, no_color=True).print(table(made, 200, title="[red]night"))
    assert "[red]night" in screen.getvalue()
    if "markup" in hypothesis:
        assert "[bold red]markup[/bold red]" in screen.getvalue()


def test_numbers_are_whole_in_a_narrow_terminal():
    screen = io.StringIO()
    made = [
        experiment(1, "discard", 1.912345, delta_bpb=0.012345, hypothesis="word " * 40, trials=trials_of([run()]))
    ]
    Console(file=screen, width=80, no_color=True).print(table(made, 80))
    row = next(line for line in screen.getvalue().splitlines() if "discard" in line)
    assert "1.912345" in row
    assert "+0.012345" in row
    assert " 20 " in row
    assert len(row.rstrip()) <= 80


def test_plain_lines_are_aligned():
    made = [experiment(1, "keep", 1.8, delta_bpb=-0.1, trials=trials_of([run()])), experiment(112, "crash", None)]
    columns = {
        line.index(word) for line, word in zip(plain_lines(made), ("hypothesis", "idea", "idea"), strict=True)
    }
    assert len(columns) == 1


def test_an_experiment_without_a_score_shows_none_in_the_table():
    assert "0.5" not in plain_lines([experiment(1, "invalid", 0.5)])[1]
